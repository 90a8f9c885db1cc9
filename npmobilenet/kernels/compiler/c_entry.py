"""Kernels compiled to C functions that all have one signature, and kept as object files.

`int64 (int64 words, int64 first, int64 stop)`: `words` is the address of the arguments, written out as 64-bit words;
the result is 1, or 0 where there was no memory for what the kernel needs.

A function's object file is loaded as the tiles' are (object_code.py). Numba's own cache loads a pickle, the function's
LLVM code beside its machine code, and first compiles the runtime's functions for memory: of a start with everything in
the cache that took a fifth.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir

from npmobilenet.kernels.compiler import object_code
from npmobilenet.kernels.compiler.deferred import OPTIONS, array_value, begin, c_function, from_dtype, intrinsic, types
from npmobilenet.kernels.compiler.notices import about_to_compile

WORD = ir.IntType(64)
NUMBERS = {bool: np.dtype(np.bool_), int: np.dtype(np.int64), float: np.dtype(np.float64)}


def kinds_of(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """What a kernel is compiled for: an array's dtype and dimensions, a number's dtype, a tuple's class and parts."""
    return tuple(map(_kind, args))


def _kind(arg: Any) -> Any:
    if isinstance(arg, np.ndarray):
        if not arg.flags.c_contiguous:
            raise TypeError(f"a kernel got an array that isn't contiguous: {arg.dtype} {arg.shape}")
        return arg.dtype, arg.ndim
    if isinstance(arg, tuple):
        return type(arg), tuple(map(_kind, arg))
    if isinstance(arg, np.generic):
        return arg.dtype
    for python, dtype in NUMBERS.items():  # a bool is an int
        if isinstance(arg, python):
            return dtype
    raise TypeError(f"a kernel got an argument of {type(arg)}")


def _named(kind: Any) -> str:
    """A kind in words, the same in every process."""
    if not isinstance(kind, tuple):
        return str(kind)
    first, second = kind
    if isinstance(first, np.dtype):
        return f"{first}[{second}]"
    return f"{first.__module__}.{first.__qualname__}({','.join(map(_named, second))})"


def _numbas(kind: Any) -> Any:
    """Numba's type: arrays are contiguous and writable, whether or not the kernel writes."""
    if not isinstance(kind, tuple):
        return from_dtype(kind)
    first, second = kind
    if isinstance(first, np.dtype):
        return types.Array(from_dtype(first), second, "C")
    parts = list(map(_numbas, second))
    return types.Tuple(parts) if first is tuple else types.NamedTuple(parts, first)


def words_of(args: Any) -> list[int]:
    """The arguments as 64-bit words: an array is its address and its shape, a tuple its parts, a float its bits."""
    words: list[int] = []
    for arg in args:
        if isinstance(arg, np.ndarray):
            words += [arg.ctypes.data, *arg.shape]
        elif isinstance(arg, tuple):
            words += words_of(arg)
        elif isinstance(arg, np.float32):
            words.append(int(arg.view(np.int32)))
        elif isinstance(arg, float):
            words.append(int(np.float64(arg).view(np.int64)))
        else:
            words.append(int(arg))
    return words


def _value(context: Any, builder: Any, kind: Any, take: Callable[[], Any]) -> Any:
    """LLVM code for an argument of type `kind`, from the words that `take` loads one by one."""
    if isinstance(kind, types.Array):
        data = take()
        shape = [take() for _ in range(kind.ndim)]
        size = context.get_abi_sizeof(context.get_data_type(kind.dtype))
        strides = [ir.Constant(WORD, size)]
        for extent in shape[:0:-1]:
            strides.insert(0, builder.mul(strides[0], extent))
        itemsize = ir.Constant(WORD, size)
        return array_value(context, builder, kind, data=data, shape=shape, strides=strides, itemsize=itemsize)
    if isinstance(kind, types.BaseTuple):
        return context.make_tuple(builder, kind, [_value(context, builder, k, take) for k in kind.types])
    word, wanted = take(), context.get_value_type(kind)
    if isinstance(kind, types.Float):
        bits = builder.trunc(word, ir.IntType(32)) if kind.bitwidth == 32 else word
        return builder.bitcast(bits, wanted)
    return word if wanted == WORD else builder.trunc(word, wanted)


def _unpacker(kinds: tuple[Any, ...]) -> Any:
    """An intrinsic: unpack(words) is the tuple of arguments of types `kinds` that lie at the address `words`."""

    @intrinsic
    def unpack(typingctx, words):
        result = types.Tuple(kinds)

        def codegen(context, builder, signature, args):
            pointer = builder.inttoptr(args[0], WORD.as_pointer())
            count = 0

            def take():
                nonlocal count
                count += 1
                return builder.load(builder.gep(pointer, [ir.Constant(WORD, count - 1)]))

            return _value(context, builder, result, take)

        return result(words), codegen

    return unpack


def address_of(kernel: Callable[..., None], name: str, kinds: tuple[Any, ...]) -> int:
    """The address of the kernel compiled for arguments of types `kinds`: from its object file if that is there."""
    unique = f"{name}_{hashlib.sha256(','.join(map(_named, kinds)).encode()).hexdigest()[:16]}"
    address = object_code.load_function(unique)
    if address is not None:
        return address
    about_to_compile(name)
    unpack = _unpacker(tuple(map(_numbas, kinds)))
    begin()

    def entry(words, first, stop):
        # max: LLVM then knows that indices aren't negative, and so don't count from the end.
        kernel(max(first, 0), stop, *unpack(words))
        return 1  # an exception in the kernel leaves 0, see Numba's create_cfunc_wrapper

    # Symbols are named after it. All entries have the same signature, so their names must tell the forms apart.
    entry.__name__, entry.__qualname__ = name, unique
    function, symbol, code = c_function(entry, ((types.int64,) * 3, types.int64), OPTIONS)
    object_code.keep_function(unique, symbol, code)
    KEPT.append(function)
    return int(function.address)


KEPT: list[Any] = []  # compiled functions: their machine code goes when they do
