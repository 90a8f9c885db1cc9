"""What kernels and generators of code name of Numba, without importing it.

Importing Numba takes half of a start whose kernels all come from the cache, and none of it is needed then. So the
decorators here only note what they are given; `begin` imports Numba and hands it over, before anything is compiled.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])

# How kernels are compiled. Never fastmath: it would let LLVM reorder and fuse the chains that docs/float32.md defines.
OPTIONS = {"error_model": "numpy", "nogil": True, "boundscheck": False}

_noted: list[Callable[[Any], Any]] = []  # each is called with numba.extending


class _Types:
    """numba.types, imported when the first of them is asked for."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module("numba").types, name)


types: Any = _Types()


def register_jitable(function: Function) -> Function:
    """As Numba's: compiled kernels may call the function."""
    _noted.append(lambda numba: numba.register_jitable(function))
    return function


def overload(function: Callable[..., Any]) -> Callable[[Function], Function]:
    """As Numba's: what compiled kernels call in the function's place."""

    def decorate(made: Function) -> Function:
        _noted.append(lambda numba: numba.overload(function)(made))
        return made

    return decorate


class intrinsic:  # noqa: N801  # a decorator
    """As Numba's: LLVM code that compiled kernels call. Numba takes this object for its own (numba_private.py)."""

    emit: Callable[..., None]  # what the generators of code put here (vectorcode/generated.py)

    def __init__(self, define: Callable[..., Any]) -> None:
        self.define = define

    @functools.cached_property
    def numbas(self) -> Any:
        """Numba's own, made when Numba first compiles a call of it: of a kernel, or of a program's own function."""
        return importlib.import_module("numba.extending").intrinsic(self.define)

    def __reduce__(self) -> Any:
        """Numba would keep what calls it in its own cache, and load that without the tiles (object_code.py)."""
        raise TypeError("an intrinsic stays in its process")


def begin() -> None:
    """Import Numba and hand over what was noted since the last time. To be called before anything is compiled."""
    importlib.import_module("npmobilenet.kernels.compiler.jit")  # numbers, and what reference kernels call
    extending = importlib.import_module("numba.extending")
    while _noted:
        _noted.pop(0)(extending)


def _later(name: str) -> Callable[..., Any]:
    """A function of numba_private.py, which is imported by its first call."""

    def call(*args: Any, **kwargs: Any) -> Any:
        return getattr(importlib.import_module("npmobilenet.kernels.compiler.numba_private"), name)(*args, **kwargs)

    return call


# What generators of LLVM code call, which run when a kernel is compiled.
for_range, for_range_slice = _later("for_range"), _later("for_range_slice")
alloca_once, alloca_once_value = _later("alloca_once"), _later("alloca_once_value")
get_or_insert_function = _later("get_or_insert_function")
array_data, array_value, flat_array = _later("array_data"), _later("array_value"), _later("flat_array")
without_owner = _later("without_owner")
as_dtype, from_dtype = _later("as_dtype"), _later("from_dtype")
compile_object, c_function = _later("compile_object"), _later("c_function")
