"""The private parts of Numba: this module touches them, and no other does.

Where Numba isn't imported, without_numba.py loads some of their files.

What is private may change with any release, so pyproject.toml bounds Numba's version, and
tests/kernels/test_numba_private.py names each part, says what it is for and fails where one is missing.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from numba import config
from numba.core import caching
from numba.core.bytecode import FunctionIdentity
from numba.core.caching import NullCache
from numba.core.ccallback import CFunc
from numba.core.cgutils import (
    alloca_once,
    alloca_once_value,
    create_struct_proxy,
    for_range,
    for_range_slice,
    get_or_insert_function,
)
from numba.core.registry import cpu_target
from numba.core.runtime import rtsys
from numba.extending import typeof_impl
from numba.np.numpy_support import as_dtype, from_dtype

from npmobilenet.kernels.compiler import deferred
from npmobilenet.kernels.compiler.entries import sealed, unsealed

__all__ = [
    "FunctionFiles", "NullCache", "alloca_once", "alloca_once_value", "array_data", "array_value",
    "as_dtype", "c_function", "compile_object", "compile_target", "flat_array", "for_range", "for_range_slice",
    "from_dtype", "get_or_insert_function", "initialize_runtime", "parallel_for_address", "number_from_random_start",
    "use_cache", "without_owner",
]  # fmt: skip


@typeof_impl.register(deferred.intrinsic)  # type: ignore[untyped-decorator]  # Numba has no types
def _type_of_intrinsic(value: deferred.intrinsic, context: Any) -> Any:
    """Numba's type of an intrinsic that was put off: that of its own object, which is told to Numba once it is made."""
    if "numbas" not in vars(value):
        value.numbas  # noqa: B018  # made here
        cpu_target.typing_context.refresh()
        cpu_target.target_context.refresh()
    return cpu_target.typing_context.resolve_value_type(value.numbas)


# ---------------------------------------------------------------------------------------------------------------------
# What generators of LLVM code need, beside the functions of cgutils


def array_data(context: Any, builder: Any, kind: Any, array: Any) -> Any:
    """Pointer to the first element of an array of Numba's type `kind`."""
    return create_struct_proxy(kind)(context, builder, array).data


def without_owner(context: Any, builder: Any, kind: Any, array: Any) -> Any:
    """The same array, not counted among the references to its memory."""
    proxy = create_struct_proxy(kind)(context, builder, array)
    proxy.meminfo = proxy.meminfo.type(None)
    return proxy._getvalue()


def flat_array(context: Any, builder: Any, kind: Any, flat: Any, array: Any) -> Any:
    """The elements of a whole array of type `kind` side by side, of type `flat`, not counted among the references."""
    proxy = create_struct_proxy(kind)(context, builder, array)
    address = builder.ptrtoint(proxy.data, proxy.nitems.type)
    parts = {"shape": (proxy.nitems,), "strides": (proxy.itemsize,), "itemsize": proxy.itemsize}
    return array_value(context, builder, flat, data=address, **parts)


def array_value(context: Any, builder: Any, kind: Any, **parts: Any) -> Any:
    """An array of Numba's type `kind` made of its parts: data, shape, strides, itemsize."""
    array = context.make_array(kind)(context, builder)
    parts["data"] = builder.inttoptr(parts["data"], array.data.type)
    context.populate_array(array, **parts, meminfo=None)
    return array._getvalue()


# ---------------------------------------------------------------------------------------------------------------------
# Machine code


def compile_target() -> tuple[str, str, str]:
    """What Numba compiles for, whatever its settings say: LLVM's triple, name of the CPU, and string of features."""
    triple, name, features = cpu_target.target_context.codegen().magic_tuple()
    return str(triple), str(name), str(features)


def compile_object(symbol: str, define: Callable[[Any], None]) -> bytes:
    """The object file of the module that `define` fills."""
    library = cpu_target.target_context.codegen().create_library(symbol)
    library.enable_object_caching()
    module = library.create_ir_module(symbol)
    define(module)
    library.add_ir_module(module)
    library.finalize()
    _, _, (code, _) = library.serialize_using_object_code()
    return bytes(code)


def initialize_runtime() -> None:
    """Let code find the runtime's functions for memory, which Numba compiles in every process."""
    rtsys.initialize(cpu_target.target_context)


def parallel_for_address(layer: str) -> int:
    """The address of the function that shares a loop out among the threads of a layer, which is loaded."""
    name = {"tbb": "tbbpool", "omp": "omppool", "workqueue": "workqueue"}[layer]
    return int(importlib.import_module(f"numba.np.ufunc.{name}").parallel_for)


def c_function(entry: Callable[..., Any], signature: Any, options: dict[str, Any]) -> tuple[Any, str, bytes]:
    """A function compiled to C's calling convention, the symbol of its entry point, and the object file.

    Its `address` is the entry point; the code goes when the function does.
    """
    function: Any = CFunc(entry, signature, {}, options)
    function.compile()
    _, _, (code, _) = function._library.serialize_using_object_code()
    return function, str(function.native_name), code


def use_cache(function: Any, cache: NullCache) -> None:
    """Let a function that Numba compiles keep its code in `cache`."""
    function._cache = cache


def number_from_random_start() -> None:
    """Number the functions that Numba compiles from here on, in this process, from a random start.

    Numba numbers them from 1 in each process, and their symbols carry the number. Code from the cache keeps the numbers
    of the process that compiled it, so two functions made by one factory (same name, same types) could share a symbol,
    and the first to be loaded would be called for both. Numbers from a random start don't meet.
    """
    FunctionIdentity._unique_ids = itertools.count(int.from_bytes(os.urandom(6), "big") << 12)


# ---------------------------------------------------------------------------------------------------------------------
# Files of compiled functions


class _Place(caching.UserProvidedCacheLocator):  # type: ignore[misc]  # Numba has no types
    """The folder that CACHE_DIR names, also where it can only be read: Numba wants to write into it first."""

    def ensure_cache_path(self) -> None:
        """Make the folder if that is possible."""
        with contextlib.suppress(OSError):
            os.makedirs(self.get_cache_path(), exist_ok=True)


class _Parts(caching.CompileResultCacheImpl):  # type: ignore[misc]  # Numba has no types
    """What a cache file holds: a function's code."""

    _locator_classes = [_Place]  # noqa: RUF012


class _Entries(caching.IndexDataCacheFile):  # type: ignore[misc]  # Numba has no types
    """A file for each form of a function, named by its key, with a sum (entries.py).

    Numba numbers them and keeps the numbers in an index; two processes that write at the same time, or one that is
    killed between its two files, can then leave a number that stands for another form's code.
    """

    def __init__(self, folder: str, base: str) -> None:
        super().__init__(folder, base, None)
        self._base = base

    def _entry(self, key: Any) -> str:
        return f"{self._base}.{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}.nbc"

    def load(self, key: Any) -> Any:
        """What was saved; None where there is no such file, or none that is whole."""
        name = self._entry(key)
        return None if unsealed(Path(self._data_path(name))) is None else self._load_data(name)

    def save(self, key: Any, data: Any) -> None:
        """Write it, whole or not at all."""
        self._save_data(self._entry(key), data)

    @contextlib.contextmanager
    def _open_for_write(self, filepath: str) -> Iterator[io.BytesIO]:
        with super()._open_for_write(filepath) as file:
            content = io.BytesIO()
            yield content
            file.write(sealed(Path(filepath).name, content.getvalue()))  # what follows a pickle isn't read


class FunctionFiles(caching.FunctionCache):  # type: ignore[misc]  # Numba has no types
    """Numba's cache files of one function in a folder.

    Methods raise whatever a full disk leads to, or a file that isn't what it was.
    """

    _impl_class = _Parts

    def __init__(self, function: Callable[..., Any], folder: Path) -> None:
        ours = {"CACHE_DIR": str(folder), "CACHE_LOCATOR_CLASSES": ""}  # the second: other places that a user named
        previous = {name: getattr(config, name, "") for name in ours}
        vars(config).update(ours)
        try:
            super().__init__(function)
        finally:
            vars(config).update(previous)
        self._cache_file = _Entries(self.cache_path, self._impl.filename_base)

    def load(self, sig: Any, target_context: Any) -> Any:
        """The compiled code, None where there is none.

        Numba's own load_overload begins by importing all that it can compile, 0.2 s. Compiled code needs only the
        runtime's functions for memory, and to know where they are.
        """
        rtsys.initialize(target_context)
        return self._load_overload(sig, target_context)
