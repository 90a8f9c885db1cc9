"""Which vector instructions the fast kernels are generated for: of those that Numba compiles for, the most."""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from collections.abc import Mapping
from typing import Any

import llvmlite.binding

from npmobilenet.errors import PlanError
from npmobilenet.kernels.compiler.remembered import compiler

ARM = llvmlite.binding.get_process_triple().startswith(("aarch64", "arm64"))
_AVX2 = frozenset({"avx2", "fma"})
_AVX512 = _AVX2 | {"avx512f", "avx512vl", "avx512bw", "avx512dq"}
# Instruction set -> the features (LLVM's names) that it takes; from least to most. Every 64-bit Arm has NEON.
ON_X86 = {"generic": frozenset[str](), "avx2": _AVX2, "avxvnni": _AVX2 | {"avxvnni"}, "avx512": _AVX512,
          "avx512vnni": _AVX512 | {"avx512vnni"}}  # fmt: skip
ON_ARM = {"generic": frozenset[str](), "neon": frozenset[str](), "dotprod": frozenset({"dotprod"}),
          "i8mm": frozenset({"dotprod", "i8mm"})}  # fmt: skip
# Of this kind of CPU; NPMOBILENET_ISA forces a lesser one.
ISAS = tuple(ON_ARM if ARM else ON_X86)
# float32 values in a vector register, and vector registers.
LANES = {"generic": 4, "avx2": 8, "avxvnni": 8, "avx512": 16, "avx512vnni": 16, "neon": 4, "dotprod": 4, "i8mm": 4}
REGISTERS = {name: 32 if name.startswith("avx512") or name in ("neon", "dotprod", "i8mm") else 16 for name in LANES}

# What goes when a feature is taken away: LLVM then takes away all that rests on it. (X86.td, AArch64Features.td)
_SSE = {"sse", "sse2", "sse3", "ssse3", "sse4.1", "sse4.2", "avx"}
_AVX512F = _SSE | {"avx2", "fma", "f16c", "evex512"}
RESTS_ON: dict[str, set[str]] = {
    "avx2": _SSE,
    "fma": _SSE,
    "avxvnni": _SSE | {"avx2"},
    "avx512f": _AVX512F,
    **dict.fromkeys(("avx512vl", "avx512bw", "avx512dq", "avx512vnni"), _AVX512F | {"avx512f"}),
    "avx512vbmi": _AVX512F | {"avx512f", "avx512bw"},
    "dotprod": {"neon", "fp-armv8"},
    "i8mm": {"neon", "fp-armv8"},
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


def all_of(features: Mapping[str, bool], arm: bool) -> tuple[str, ...]:
    """The instruction sets that a CPU with these features (LLVM's names) has, from least to most.

    AVX-512 doesn't imply AVX-VNNI, nor the other way round.
    """
    takes = ON_ARM if arm else ON_X86
    return tuple(name for name, needed in takes.items() if all(features.get(feature) for feature in needed))


# Where Linux tells a feature: AT_HWCAP or AT_HWCAP2 (linux/auxvec.h), and the bit of HWCAP_ASIMDDP or HWCAP2_I8MM
# (arch/arm64/include/uapi/asm/hwcap.h).
TOLD_BY_LINUX = {"dotprod": (16, 20), "i8mm": (26, 13)}


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

    LLVM leaves Arm's products of bytes out of a Linux host's features, neither on nor off, so the system is asked.
    """
    _, _, text = compiler().target
    found = features_of(text)
    if ARM and sys.platform == "linux" and not compiler().told:
        asked = {name: place for name, place in TOLD_BY_LINUX.items() if name not in text}
        found |= {name for name, (kind, bit) in asked.items() if auxiliary_value(kind) >> bit & 1}
    return found


def isas_here() -> tuple[str, ...]:
    """The instruction sets that kernels may be generated for, from least to most."""
    return all_of(dict.fromkeys(target_features(), True), ARM)


@functools.cache
def isa() -> str:
    """The instruction set that the fast kernels are generated for: the most there is, or what NPMOBILENET_ISA says.

    Raises `PlanError` where NPMOBILENET_ISA names none, or one that there isn't.
    """
    had = isas_here()
    forced = os.environ.get("NPMOBILENET_ISA", "").lower()
    if not forced:
        return had[-1]
    if forced not in ISAS:
        raise PlanError(f"NPMOBILENET_ISA={forced}: expected one of {', '.join(ISAS)}")
    if forced not in had:
        settings = [name for name in ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "NUMBA_ENABLE_AVX") if name in os.environ]
        told = f", as {' and '.join(settings)} would have it" if settings else ""
        raise PlanError(
            f"NPMOBILENET_ISA={forced}: the CPU that kernels are compiled for ({compiler().target[1]}{told}) lacks "
            f"these instructions: set one of {', '.join(had)}, or none"
        )
    return forced
