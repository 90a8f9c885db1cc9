"""Which vector instructions the fast kernels are generated for: of those that Numba compiles for, the most."""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from collections.abc import Mapping
from typing import Any

import llvmlite.binding
from numba import config

from npmobilenet.errors import PlanError
from npmobilenet.kernels.compiler.numba_private import compile_target

ARM = llvmlite.binding.get_process_triple().startswith(("aarch64", "arm64"))
# Of this kind of CPU, from least to most; NPMOBILENET_ISA forces a lesser one.
ISAS = ("generic", "neon", "dotprod") if ARM else ("generic", "avx2", "avx512", "avx512vnni")
# float32 values in a vector register, and vector registers.
LANES = {"generic": 4, "avx2": 8, "avx512": 16, "avx512vnni": 16, "neon": 4, "dotprod": 4}
REGISTERS = {"generic": 16, "avx2": 16, "avx512": 32, "avx512vnni": 32, "neon": 32, "dotprod": 32}

# What goes when a feature is taken away: LLVM then takes away all that rests on it. (X86.td, AArch64Features.td)
_SSE = {"sse", "sse2", "sse3", "ssse3", "sse4.1", "sse4.2", "avx"}
_AVX512F = _SSE | {"avx2", "fma", "f16c", "evex512"}
RESTS_ON: dict[str, set[str]] = {
    "avx2": _SSE,
    "fma": _SSE,
    "avx512f": _AVX512F,
    **dict.fromkeys(("avx512vl", "avx512bw", "avx512dq", "avx512vnni"), _AVX512F | {"avx512f"}),
    "avx512vbmi": _AVX512F | {"avx512f", "avx512bw"},
    "dotprod": {"neon", "fp-armv8"},
}


def features_of(text: str) -> frozenset[str]:
    """The features that a string of LLVM's turns on: "+avx2,-avx512f" and the like, of which a later one rules.

    Those that a CPU's name implies aren't in it, so where Numba is given a name and few features, some are missed: then
    the kernels use less than they could, never more.
    """
    on: set[str] = set()
    for item in text.split(","):
        sign, name = item.strip()[:1], item.strip()[1:]
        if sign == "+":
            on.add(name)
        elif sign == "-":
            on -= {feature for feature in on if feature == name or name in RESTS_ON.get(feature, ())}
    return frozenset(on)


def most_of(features: Mapping[str, bool], arm: bool) -> str:
    """The greatest instruction set that a CPU with these features (LLVM's names) has. Every 64-bit Arm has NEON."""
    if arm:
        return "dotprod" if features.get("dotprod") else "neon"
    if not (features.get("avx2") and features.get("fma")):
        return "generic"
    if not all(features.get(name) for name in ("avx512f", "avx512vl", "avx512bw", "avx512dq")):
        return "avx2"
    return "avx512vnni" if features.get("avx512vnni") else "avx512"


AT_HWCAP, ASIMDDP = 16, 20  # Linux: linux/auxvec.h, and the bit in arch/arm64/include/uapi/asm/hwcap.h


def auxiliary_value(kind: int) -> int:
    """What the system's kernel told this process about the machine (getauxval); 0 where it tells nothing."""
    try:
        getauxval: Any = ctypes.CDLL(None).getauxval
    except (AttributeError, OSError, TypeError):  # TypeError: Windows
        return 0
    getauxval.argtypes, getauxval.restype = [ctypes.c_ulong], ctypes.c_ulong
    return int(getauxval(kind))


def target_features() -> frozenset[str]:
    """The features of what Numba compiles for: NUMBA_CPU_FEATURES, or the host's, less what NUMBA_ENABLE_AVX forbids.

    LLVM leaves Arm's dot products out of a Linux host's features, neither on nor off, so the system is asked.
    """
    _, _, text = compile_target()
    found = features_of(text)
    told = config.CPU_FEATURES is not None or "dotprod" in text
    if ARM and sys.platform == "linux" and not told and auxiliary_value(AT_HWCAP) >> ASIMDDP & 1:
        found |= {"dotprod"}
    return found


@functools.cache
def isa() -> str:
    """The instruction set that the fast kernels are generated for: the most there is, or what NPMOBILENET_ISA says.

    Raises `PlanError` where NPMOBILENET_ISA names none, or one that there isn't.
    """
    best = most_of(dict.fromkeys(target_features(), True), ARM)
    forced = os.environ.get("NPMOBILENET_ISA", "").lower()
    if not forced:
        return best
    if forced not in ISAS:
        raise PlanError(f"NPMOBILENET_ISA={forced}: expected one of {', '.join(ISAS)}")
    had = ISAS[: ISAS.index(best) + 1]
    if forced not in had:
        settings = [name for name in ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "NUMBA_ENABLE_AVX") if name in os.environ]
        told = f", as {' and '.join(settings)} would have it" if settings else ""
        raise PlanError(
            f"NPMOBILENET_ISA={forced}: the CPU that kernels are compiled for ({compile_target()[1]}{told}) lacks "
            f"these instructions: set one of {', '.join(had)}, or none"
        )
    return forced
