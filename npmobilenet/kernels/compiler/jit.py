"""How kernels are compiled: Numba without fastmath, an exact fma, and compiled code kept on disk (cache.py)."""

from __future__ import annotations

import contextlib
import importlib
import inspect
from collections.abc import Callable
from typing import Any

import numba
from numba import types
from numba.extending import intrinsic, overload, register_jitable

from npmobilenet.arithmetic import fixedpoint
from npmobilenet.kernels import KERNELS, reference
from npmobilenet.kernels.compiler.cache import cache_folder
from npmobilenet.kernels.compiler.deferred import OPTIONS, begin
from npmobilenet.kernels.compiler.notices import about_to_compile
from npmobilenet.kernels.compiler.numba_private import FunctionFiles, NullCache, number_from_random_start, use_cache
from npmobilenet.kernels.reference import arithmetic


class KernelCache(NullCache):  # type: ignore[misc]  # Numba has no types
    """Numba's on-disk cache where there is a private folder; failures to read or write it are cache misses."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._name = function.__name__
        self._inner: Any = None
        folder = cache_folder()
        if folder is None:
            return
        with contextlib.suppress(OSError, RuntimeError):
            self._inner = FunctionFiles(function, folder)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The compiled code, None where there is none."""
        found = None
        if self._inner is not None:
            try:
                found = self._inner.load(sig, target_context)
            except Exception:  # a damaged cache file raises whatever its bytes lead to; compile anew instead
                found = None
        if found is None:
            about_to_compile(self._name)
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep compiled code."""
        if self._inner is None:
            return
        try:
            self._inner.save_overload(sig, data)
        except Exception:  # a full disk, a folder that has become read-only: go on without
            self._inner = None


number_from_random_start()


def compile_kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Numba's compiled form of a kernel, which is called with arrays; see c_entry.py for the other form."""
    begin()
    dispatcher = numba.njit(**OPTIONS)(function)
    use_cache(dispatcher, KernelCache(function))
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


def _register_helpers() -> None:
    """Make what the reference kernels call, in their files and in fixedpoint.py, callable from compiled kernels."""
    files = [importlib.import_module(f"{reference.__name__}.{name}") for name in sorted({*KERNELS.values()})]
    for module in (fixedpoint, arithmetic, *files):
        for name, found in vars(module).items():
            own = inspect.isfunction(found) and found.__module__ == module.__name__
            if own and name not in KERNELS and found is not arithmetic.fma32:
                register_jitable(found)


_register_helpers()
