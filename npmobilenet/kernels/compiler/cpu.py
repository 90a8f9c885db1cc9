"""Which vector instructions the fast kernels are generated for."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping

import llvmlite.binding
from numba import config

from npmobilenet.errors import PlanError

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
