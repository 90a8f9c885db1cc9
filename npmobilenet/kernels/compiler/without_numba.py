"""What Numba says and holds, had without importing it where that is sure to be the same.

Which CPU Numba compiles for, and its settings, follow from its version, the CPU, the system, variables called NUMBA_...
and a file. What Numba answered where there were no such variable and no such file is kept (remembered.py), and holds
wherever all the rest is as it was. Its extension modules are plain shared objects: the functions that compiled kernels
call and the OpenMP threads are loaded from their files. Numba, imported later, loads the same files, of which a process
has one copy: one pool of threads, one count of them.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.util
import os
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

CONFIG = ".numba_config.yaml"  # in the working directory
SVML = {"linux": "libsvml.so", "darwin": "libsvml.dylib", "win32": "svml_dispmd"}  # Numba uses it where it is there
TBB = {"linux": "libtbb.so.12", "darwin": "libtbb.12.dylib", "win32": "tbb12.dll"}  # as the first choice of threads
HELPERS = {"numba._helperlib": "numba_", "numba._dynfunc": "numba_", "numba.core.runtime._nrt_python": "NRT_"}
OPENMP = "numba.np.ufunc.omppool"


def imported() -> bool:
    """Whether Numba is in this process: then it is asked itself."""
    return "numba" in sys.modules


@functools.cache
def _loads(library: str) -> bool:
    with contextlib.suppress(OSError):
        return bool(ctypes.CDLL(library))
    return False


def untold() -> bool:
    """Whether nothing tells Numba how to work: no variable, no file, no library that it would use."""
    told = any(name.startswith("NUMBA") for name in os.environ) or Path(CONFIG).exists()
    return not told and not _loads(SVML.get(sys.platform, ""))


@functools.cache
def _folder() -> Path:
    """Where Numba is installed. Raises `ImportError` where it isn't."""
    found = importlib.util.find_spec("numba")
    if found is None or not found.submodule_search_locations:
        raise ImportError("there is no package numba")
    return Path(found.submodule_search_locations[0])


def version_file() -> bytes:
    """The file that says Numba's version, as it stands. Raises `ImportError` or `OSError` where there is none."""
    return (_folder() / "_version.py").read_bytes()


@functools.cache
def extension(name: str) -> Any:
    """An extension module of Numba's, from its file. Raises `ImportError` where it can't be loaded."""
    if name in sys.modules:
        return sys.modules[name]
    for suffix in EXTENSION_SUFFIXES:
        path = _folder().joinpath(*name.split(".")[1:]).with_name(name.rpartition(".")[2] + suffix)
        if path.is_file():
            spec: Any = importlib.util.spec_from_file_location(name, path)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            sys.modules.pop(name, None)  # for Numba to import it in its own way
            return module
    raise ImportError(f"there is no file of {name}")


def helpers() -> dict[str, int]:
    """The names that compiled kernels call beside the system's, and their addresses. Raises `ImportError`."""
    found = {"_Py_NoneStruct": id(None)}
    for name, prefix in HELPERS.items():
        module = extension(name)
        found |= {name if name[0] == "_" and prefix == "NRT_" else prefix + name: at
                  for name, at in module.c_helpers.items()}  # fmt: skip
    extension("numba.core.runtime._nrt_python").memsys_use_cpython_allocator()  # as Numba does, to free what it frees
    kinds = (kind for kind in vars(importlib.import_module("builtins")).values() if isinstance(kind, type))
    return found | {f"PyExc_{kind.__name__}": id(kind) for kind in kinds if issubclass(kind, BaseException)}


def default_threads() -> int:
    """How many threads Numba starts where nothing tells it."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, cores or 1)


def openmp() -> Any:
    """Numba's OpenMP layer, where Numba would choose that. Raises `ImportError` elsewhere."""
    if not untold() or _loads(TBB.get(sys.platform, "")):
        raise ImportError("Numba is to choose its threads")
    return extension(OPENMP)


def load_openmp(variable: str, value: str) -> None:
    """Load Numba's OpenMP layer with an environment variable set meanwhile; nothing if it is there or can't be had."""
    if OPENMP in sys.modules:
        return
    os.environ[variable] = value
    try:
        with contextlib.suppress(ImportError):  # no OpenMP on this machine: Numba has other layers
            extension(OPENMP)
    finally:
        del os.environ[variable]
