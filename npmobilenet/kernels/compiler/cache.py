"""The folder of compiled code.

Only this user can write it (Numba's cache files are pickles, so a folder that others can write would let them run code
here). Its name is a hash of everything that the machine code depends on: the sources in `kernels/`, the versions of
Python, Numba, llvmlite and NumPy, the CPU and features that Numba compiles for, and its settings. A folder that can't
be made means no cache, not a failure. One that can't be written, or is root's (who may do anything here anyway), is
read, as in a container whose file system is read-only.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import stat
import sys
from pathlib import Path

import llvmlite
import numba
import numpy as np
from numba import config

from npmobilenet.arithmetic import fixedpoint
from npmobilenet.kernels.compiler.cpu import isa
from npmobilenet.kernels.compiler.numba_private import compile_target


def cache_root() -> Path:
    """NPMOBILENET_CACHE, or `npmobilenet` in the user's cache folder (XDG_CACHE_HOME, else ~/.cache).

    A relative XDG_CACHE_HOME counts as none (XDG Base Directory Specification 0.8: "All paths set in these environment
    variables must be absolute"): each working directory would have a cache of its own.
    """
    chosen = os.environ.get("NPMOBILENET_CACHE")
    if chosen:
        return Path(chosen)
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "npmobilenet"


# Numba's settings that change the code that it makes (numba.config; those of debugging that only print, of CUDA, of
# threads and of caches don't). For which CPU it makes code, whatever they say, is asked besides.
SETTINGS = (
    "BOUNDSCHECK", "CPU_FEATURES", "CPU_NAME", "DEBUGINFO_DEFAULT", "DEBUG_ARRAY_OPT_RUNTIME", "DEBUG_NRT",
    "DISABLE_INTEL_SVML", "ENABLE_AVX", "ENABLE_PROFILING", "ENABLE_SYS_MONITORING", "EXTEND_VARIABLE_LIFETIMES",
    "LLVM_REFPRUNE_FLAGS", "LLVM_REFPRUNE_PASS", "LOOP_VECTORIZE", "NRT_STATS", "OPT", "PARFOR_MAX_TUPLE_SIZE",
    "SLP_VECTORIZE", "USE_LLVMLITE_MEMORY_MANAGER", "USING_SVML",
)  # fmt: skip


ROOT = 0  # the user id


@functools.cache
def cache_key() -> str:
    """Hash of the kernel sources and of everything else that the compiled code depends on."""
    digest = hashlib.sha256()
    folder = Path(__file__).parent.parent
    for source in [*sorted(folder.rglob("*.py")), Path(fixedpoint.__file__)]:
        digest.update(source.relative_to(folder.parent).as_posix().encode() + b"\0" + source.read_bytes() + b"\0")
    facts = [sys.version, numba.__version__, llvmlite.__version__, np.__version__, platform.machine()]
    settings = [f"{name}={getattr(config, name, None)!r}" for name in SETTINGS]
    for fact in (*facts, *compile_target(), isa(), *settings):
        digest.update(fact.encode() + b"\0")
    return digest.hexdigest()[:20]


@functools.cache
def cache_folder() -> Path | None:
    """The folder for compiled code, made if need be; None if there can't be one that others can't write."""
    try:
        root = cache_root().absolute()
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = root / f"kernels-{cache_key()}"
        for path in (root, folder):
            path.mkdir(mode=0o700, exist_ok=True)
            if hasattr(os, "getuid"):
                found = path.stat()
                if found.st_uid not in (ROOT, os.getuid()) or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                    return None
        return folder if _writable(folder) or any(folder.iterdir()) else None
    except (OSError, RuntimeError):  # RuntimeError: no home folder can be determined
        return None


def _writable(folder: Path) -> bool:
    probe = folder / f".write-{os.getpid()}"
    try:
        probe.write_bytes(b"")
        probe.unlink()
    except OSError:
        return False
    return True
