"""How kernels are compiled: Numba without fastmath, an exact fma, and a private cache of compiled code on disk.

The cache is a folder that only this user can write (Numba's cache files are pickles, so a folder that others can write
would let them run code here). Its name is a hash of everything that the machine code depends on: the sources in
`kernels/`, the versions of Python, Numba, llvmlite and NumPy, the CPU and its features. A folder that can't be made
or written means no cache, not a failure.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import os
import platform
import stat
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding
import numba
import numpy as np
from numba.core import caching, config, types
from numba.core.bytecode import FunctionIdentity
from numba.core.runtime import rtsys
from numba.extending import intrinsic, overload, register_jitable

from npmobilenet import fixedpoint
from npmobilenet.errors import PlanError
from npmobilenet.kernels.reference import (
    activation,
    arithmetic,
    average_pool_q,
    binary_q,
    mean_q,
    move_q,
    quantize_q,
    resize_bilinear,
    softmax_q,
)

ARM = llvmlite.binding.get_process_triple().startswith(("aarch64", "arm64"))
# Of this kind of CPU, from least to most; NPMOBILENET_ISA forces a lesser one.
ISAS = ("generic", "neon", "dotprod") if ARM else ("generic", "avx2", "avx512", "avx512vnni")
# float32 values in a vector register, and vector registers.
LANES = {"generic": 4, "avx2": 8, "avx512": 16, "avx512vnni": 16, "neon": 4, "dotprod": 4}
REGISTERS = {"generic": 16, "avx2": 16, "avx512": 32, "avx512vnni": 32, "neon": 32, "dotprod": 32}


def most_of(features: Mapping[str, bool], arm: bool) -> str:
    """The greatest instruction set that a CPU with these features (LLVM's names) has. Every 64-bit Arm has NEON."""
    if arm:
        return "dotprod" if features.get("dotprod") else "neon"
    if not (features.get("avx2") and features.get("fma")):
        return "generic"
    if not all(features.get(name) for name in ("avx512f", "avx512vl", "avx512bw", "avx512dq")):
        return "avx2"
    return "avx512vnni" if features.get("avx512vnni") else "avx512"


@functools.cache
def isa() -> str:
    """The instruction set that the fast kernels are generated for: the host's, or what NPMOBILENET_ISA forces."""
    features = dict(llvmlite.binding.get_host_cpu_features())
    if config.CPU_NAME == "generic":
        features = {}
    best = most_of(features, ARM)
    forced = os.environ.get("NPMOBILENET_ISA", "").lower()
    if not forced:
        return best
    if forced not in ISAS:
        raise PlanError(f"NPMOBILENET_ISA={forced}: expected one of {', '.join(ISAS)}")
    return min(forced, best, key=ISAS.index)


# ---------------------------------------------------------------------------------------------------------------------
# The cache folder


def cache_root() -> Path:
    """NPMOBILENET_CACHE, or `npmobilenet` in the user's cache folder (XDG_CACHE_HOME, else ~/.cache)."""
    chosen = os.environ.get("NPMOBILENET_CACHE")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "npmobilenet"


@functools.cache
def cache_key() -> str:
    """Hash of the kernel sources and of everything else that the compiled code depends on."""
    digest = hashlib.sha256()
    folder = Path(__file__).parent
    for source in [*sorted(folder.rglob("*.py")), Path(fixedpoint.__file__)]:
        digest.update(source.relative_to(folder.parent).as_posix().encode() + b"\0" + source.read_bytes() + b"\0")
    features = ",".join(k for k, on in sorted(llvmlite.binding.get_host_cpu_features().items()) if on)
    for fact in (
        sys.version,
        numba.__version__,
        llvmlite.__version__,
        np.__version__,
        platform.machine(),
        llvmlite.binding.get_host_cpu_name(),
        str(config.CPU_NAME),
        str(config.CPU_FEATURES),
        features,
        isa(),
    ):
        digest.update(fact.encode() + b"\0")
    return digest.hexdigest()[:20]


@functools.cache
def cache_folder() -> Path | None:
    """The folder for compiled code, made if need be; None if there can't be a private one."""
    try:
        root = cache_root().absolute()
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = root / f"kernels-{cache_key()}"
        for path in (root, folder):
            path.mkdir(mode=0o700, exist_ok=True)
            if hasattr(os, "getuid"):
                found = path.stat()
                if found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                    return None
        probe = folder / f".write-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except (OSError, RuntimeError):  # RuntimeError: no home folder can be determined
        return None
    return folder


class _Files(caching.FunctionCache):  # type: ignore[misc]  # Numba has no types
    """Numba's cache files of one function; of a `named` one, whose qualified name tells it apart from all others.

    Else Numba also pickles and hashes what the function closes over, which takes longer than loading its code, and
    isn't the same in every process.
    """

    def __init__(self, function: Callable[..., Any], named: bool) -> None:
        super().__init__(function)
        self._named = named

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        return (sig, codegen.magic_tuple()) if self._named else super()._index_key(sig, codegen)


class KernelCache(caching.NullCache):  # type: ignore[misc]  # Numba has no types
    """Numba's on-disk cache where there is a private folder; failures to read or write it are cache misses."""

    def __init__(self, function: Callable[..., Any], named: bool = False) -> None:
        self._name = function.__name__
        self._inner: Any = None
        folder = cache_folder()
        if folder is None:
            return
        previous, config.CACHE_DIR = config.CACHE_DIR, str(folder)
        try:
            self._inner = _Files(function, named)
        except (OSError, RuntimeError):
            self._inner = None
        finally:
            config.CACHE_DIR = previous

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The compiled code, None where there is none."""
        found = None
        if self._inner is not None:
            try:
                # Numba's own load_overload begins by importing all that it can compile, 0.2 s. Compiled code needs
                # only the runtime's functions for memory, and to know where they are.
                rtsys.initialize(target_context)
                found = self._inner._load_overload(sig, target_context)
            except Exception:  # a damaged cache file raises whatever its bytes lead to; compile anew instead
                found = None
        if found is None:
            for listener in list(LISTENERS):
                listener(self._name)
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep compiled code."""
        if self._inner is None:
            return
        try:
            self._inner.save_overload(sig, data)
        except Exception:  # Numba reads the index before it writes, so a damaged index fails here: start it anew
            try:
                self._inner.flush()
                self._inner.save_overload(sig, data)
            except Exception:  # a full disk, a folder that has become read-only: go on without
                self._inner = None


# ---------------------------------------------------------------------------------------------------------------------
# Telling the user why the first run is slow


@functools.cache
def _say_once() -> None:
    if not os.environ.get("NPMOBILENET_QUIET"):
        kept = (
            "kept for the next time" if cache_folder() else "there is no folder to keep them in: see npmobilenet doctor"
        )
        print(f"npmobilenet: compiling kernels for this machine ({kept}) ...", file=sys.stderr, flush=True)


def _default_listener(kernel: str) -> None:
    _say_once()


# Called with a kernel's name whenever it is about to be compiled, not loaded. `warmup` puts its progress bar here.
LISTENERS: list[Callable[[str], None]] = [_default_listener]


# ---------------------------------------------------------------------------------------------------------------------
# Compiling


# Numba numbers the functions that it compiles, from 1 in each process, and their symbols carry the number. Code from
# the cache keeps the numbers of the process that compiled it, so two functions made by one factory (same name, same
# types) could share a symbol, and the first to be loaded would be called for both. Numbers from a random start don't
# meet.
FunctionIdentity._unique_ids = itertools.count(int.from_bytes(os.urandom(6), "big") << 12)

# Never fastmath: it would let LLVM reorder and fuse what docs/arithmetic.md defines.
OPTIONS = {"error_model": "numpy", "nogil": True, "boundscheck": False}


def compile_kernel(function: Callable[..., Any], parallel: bool = False) -> Callable[..., Any]:
    """Numba's compiled form of a kernel, which is called with arrays; see fast/task.py for the other form."""
    dispatcher = numba.njit(parallel=parallel, **OPTIONS)(function)
    dispatcher._cache = KernelCache(function)
    return dispatcher


@intrinsic
def _fma(typingctx, a, b, c):
    """llvm.fma.f32: the machine's fused multiply-add, or libm's fmaf where it has none; both are exact."""

    def codegen(context, builder, signature, args):
        return builder.fma(*args)

    return types.float32(types.float32, types.float32, types.float32), codegen


@overload(arithmetic.fma32)
def _fma32(a, b, c):
    def fused(a, b, c):
        return _fma(a, b, c)

    return fused


# The book's helpers, callable from compiled kernels as they stand.
for _helper in (
    arithmetic.exp32,
    activation.relu,
    activation.relu6,
    activation.relu_n1_to_1,
    activation.hard_swish,
    activation.hard_sigmoid,
    activation.hard_sigmoid_slim,
    activation.sigmoid,
    activation.activate,
    resize_bilinear.source_position,
    fixedpoint.wrap32,
    fixedpoint.saturate32,
    fixedpoint.high_mul,
    fixedpoint.shift_away,
    fixedpoint.shift_upward,
    fixedpoint.round_away,
    fixedpoint.round_away32,
    fixedpoint.clamped32,
    fixedpoint.double_rounding,
    fixedpoint.upward_rounding,
    fixedpoint.single_rounding,
    fixedpoint.float32_rounding,
    fixedpoint.float64_rounding,
    fixedpoint.requantize,
    fixedpoint.requantized,
    quantize_q.quantized,
    softmax_q.one_over_one_plus,
    binary_q.wrap16,
    binary_q.common_unit,
    binary_q.sum_of,
    binary_q.product_of,
    move_q.rescaled,
    average_pool_q.rounded_quotient,
    mean_q.mean_of,
):
    register_jitable(_helper)

__all__ = ["ISAS", "LANES", "LISTENERS", "OPTIONS", "REGISTERS", "KernelCache", "cache_folder", "compile_kernel", "isa"]
