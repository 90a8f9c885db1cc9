"""What Numba compiles for and its settings, remembered from one process to the next (without_numba.py says why)."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import json
import os
import platform
import stat
import sys
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import llvmlite
import llvmlite.binding as llvm

from npmobilenet.errors import PlanError
from npmobilenet.kernels.compiler import told_target, without_numba
from npmobilenet.kernels.compiler.entries import keep, unsealed

# Numba's settings that change the code that it makes (numba.config; those of debugging that only print, of CUDA, of
# threads and of caches don't). For which CPU it makes code, whatever they say, is asked besides.
SETTINGS = (
    "BOUNDSCHECK", "CPU_FEATURES", "CPU_NAME", "DEBUGINFO_DEFAULT", "DEBUG_ARRAY_OPT_RUNTIME", "DEBUG_NRT",
    "DISABLE_INTEL_SVML", "ENABLE_AVX", "ENABLE_PROFILING", "ENABLE_SYS_MONITORING", "EXTEND_VARIABLE_LIFETIMES",
    "LLVM_REFPRUNE_FLAGS", "LLVM_REFPRUNE_PASS", "LOOP_VECTORIZE", "NRT_STATS", "OPT", "PARFOR_MAX_TUPLE_SIZE",
    "SLP_VECTORIZE", "USE_LLVMLITE_MEMORY_MANAGER", "USING_SVML",
)  # fmt: skip
ROOT = 0  # the user id


class Compiler(NamedTuple):
    """Numba's version, what it compiles for (LLVM's triple, CPU and features), if told which features, its settings."""

    version: str
    target: tuple[str, str, str]
    told: bool
    settings: tuple[str, ...]


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


def private(path: Path) -> bool:
    """Whether only this user, or root, can write a folder."""
    if not hasattr(os, "getuid"):
        return True
    found = path.stat()
    return found.st_uid in (ROOT, os.getuid()) and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def ask() -> Compiler:
    """What Numba itself says. Raises `PlanError` where variables or a file tell it what it can't take."""
    numba = _imported_numba()
    numba_private: Any = importlib.import_module("npmobilenet.kernels.compiler.numba_private")
    config = numba.config
    told_target.check(config.CPU_NAME, config.CPU_FEATURES)
    settings = tuple(f"{name}={getattr(config, name, None)!r}" for name in SETTINGS)
    return Compiler(numba.__version__, numba_private.compile_target(), config.CPU_FEATURES is not None, settings)


def _imported_numba() -> Any:
    """Numba warns of variables that it can't read, with a traceback of its own, and fails at numbers out of range."""
    if without_numba.imported():
        return importlib.import_module("numba")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            numba = importlib.import_module("numba")
        except ImportError:
            raise
        except Exception as error:  # those of a damaged file are a parser's
            why = str(error)
        else:
            unread = [str(warning.message) for warning in caught if "could not be parsed" in str(warning.message)]
            unread += told_target.unknown_flags(numba.config.LLVM_REFPRUNE_FLAGS)
            why = unread[0].partition("\n")[0] if unread else ""
    if why:
        told = ", ".join(f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith("NUMBA"))
        raise PlanError(f"Numba can't take its settings ({told or without_numba.CONFIG}): {why}")
    return numba


def compiler() -> Compiler:
    """What Numba says, or what it said where all that its answer depends on was the same."""
    return ask() if without_numba.imported() else _remembered()


@functools.cache
def _remembered() -> Compiler:
    with contextlib.suppress(ImportError, OSError, RuntimeError, ValueError):
        if without_numba.untold():
            path = cache_root().absolute() / f"numba-{_depends_on()}.json"
            kept = unsealed(path) if path.exists() and private(path.parent) else None
            if kept is not None:
                version, target, told, settings = json.loads(kept)
                return Compiler(version, tuple(target), told, tuple(settings))
            found = ask()
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if private(path.parent):
                keep(path, json.dumps(found).encode())
            return found
    return ask()


def _depends_on() -> str:
    """Hash of all that Numba's answer depends on where nothing tells it how to work."""
    features = llvm.get_host_cpu_features()
    facts = [
        *(llvmlite.__version__, sys.version, platform.machine(), platform.release()),
        *(llvm.get_process_triple(), llvm.get_host_cpu_name(), repr(sorted(features.items()))),
        *SETTINGS,
    ]
    return hashlib.sha256(without_numba.version_file() + "\0".join(facts).encode()).hexdigest()[:20]


def holds() -> bool:
    """Whether Numba, which has compiled something by now, says what was remembered: else that code isn't kept."""
    return not _remembered.cache_info().currsize or ask() == _remembered()
