"""The machine that measured: its CPU, how busy it is, how much memory this process has had."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from npmobilenet.images.prefetch import cores


def cpu_name() -> str:
    """The CPU's name: Linux tells it in /proc/cpuinfo, other systems by way of `platform`."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or "unknown"


def load_average() -> float | None:
    """How many processes wanted to run, on average over the last minute; None where the system doesn't say."""
    try:
        return round(os.getloadavg()[0], 2)
    except (OSError, AttributeError):
        return None


def peak_memory() -> int | None:
    """The most bytes of memory that this process has held at once, None where the system doesn't say.

    Linux: VmHWM. `ru_maxrss`, used elsewhere, would hold the parent's peak as well, since exec keeps it.
    """
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        import resource
        import sys
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def describe_machine() -> dict[str, Any]:
    """CPU, instruction set of the kernels, cores, threading layer (None before anything ran in parallel), load."""
    import numba

    from npmobilenet.kernels.compiler.cpu import isa

    try:
        layer: str | None = numba.threading_layer()
    except ValueError:
        layer = None
    return {
        "cpu": cpu_name(),
        "instruction_set": isa(),
        "forced_instruction_set": os.environ.get("NPMOBILENET_ISA") or None,
        "cores": cores(),
        "max_threads": int(numba.config.NUMBA_NUM_THREADS),
        "threading_layer": layer,
        "load_average": load_average(),
    }
