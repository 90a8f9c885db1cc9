"""Tasks: fast kernels compiled to one common form, so that a whole plan can run without returning to Python.

A kernel here is a function `kernel(first, stop, *args)` that computes units `first` to `stop - 1` of its result, rows
of the output mostly; units are independent of each other, so any thread may take any of them. Compiled, every kernel
has the same C signature, `int64 (int64 words, int64 first, int64 stop)`: `words` is the address of the arguments,
written out as 64-bit words, and the result is 1, or 0 where there was no memory for what the kernel needs. What a
program (work_sharing.py) needs of a call is then three numbers and a function's address.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.extending import intrinsic, register_jitable

from npmobilenet.kernels.compiler.jit import OPTIONS, KernelCache
from npmobilenet.kernels.compiler.numba_private import array_value, c_function
from npmobilenet.kernels.compiler.work_sharing import WORD, Call, Program, Work

types: Any = numba.types  # some of which Numba's type hints don't know

SIGNATURE = (types.int64, types.int64, types.int64)


class Task:
    """A fast kernel. Calling it runs it at once, on Numba's current number of threads."""

    def __init__(self, function: Callable[..., None], work: Callable[..., Work]) -> None:
        self.__name__ = function.__name__
        self.__doc__ = function.__doc__
        self._function = register_jitable(function)
        self._work = work
        self._addresses: dict[Any, int] = {}

    def bind(self, *args: Any) -> Call:
        """The call with these arguments. Compiles the kernel where it hasn't been for arguments of such types."""
        kinds = tuple(_kind(numba.typeof(arg)) for arg in args)
        address = self._addresses.get(kinds)
        if address is None:
            address = self._addresses[kinds] = _compile(self._function, self.__name__, kinds)
        return Call(address, np.array(_words(args), np.int64), self._work(*args), args)

    def __call__(self, *args: Any) -> None:
        """Run it now."""
        Program([self.bind(*args)]).run(numba.get_num_threads())


class TaskFamily:
    """Kernels of one name that are chosen by an argument's value, so that only what a model needs is compiled."""

    def __init__(self, name: str, choose: Callable[..., Task]) -> None:
        self.__name__ = name
        self.__doc__ = choose.__doc__
        self._choose = choose

    def member(self, *args: Any) -> Task:
        """The kernel for these arguments."""
        return self._choose(*args)

    def bind(self, *args: Any) -> Call:
        """As Task.bind."""
        return self.member(*args).bind(*args)

    def __call__(self, *args: Any) -> None:
        """Run it now."""
        self.member(*args)(*args)


def task(work: Callable[..., Work]) -> Callable[[Callable[..., None]], Task]:
    """Make a kernel of a function; `work` gets the same arguments, without `first` and `stop`."""
    return lambda function: Task(function, work)


def in_one(kernel: Callable[..., None]) -> Task:
    """A reference kernel as a task of one unit, for what takes a few microseconds anyway."""
    body = register_jitable(kernel)

    def all_of(first, stop, *args):
        body(*args)

    all_of.__name__, all_of.__doc__ = kernel.__name__, kernel.__doc__
    return Task(all_of, lambda *args: Work(1, 1))


def _kind(kind: Any) -> Any:
    """The type that a kernel is compiled for: arrays are contiguous and writable, whether or not the kernel writes."""
    if isinstance(kind, types.Array):
        if kind.layout != "C":
            raise TypeError(f"a kernel got an array that isn't contiguous: {kind}")
        return types.Array(kind.dtype, kind.ndim, "C")
    if isinstance(kind, types.IntEnumMember):
        return types.int64  # kernels switch on the number
    if isinstance(kind, types.BaseNamedTuple):
        return types.NamedTuple([_kind(k) for k in kind.types], kind.instance_class)
    if isinstance(kind, types.BaseTuple):
        return types.Tuple([_kind(k) for k in kind.types])
    return kind


def _words(args: Any) -> list[int]:
    """The arguments as 64-bit words: an array is its address and its shape, a tuple its parts, a float its bits."""
    words: list[int] = []
    for arg in args:
        if isinstance(arg, np.ndarray):
            words += [arg.ctypes.data, *arg.shape]
        elif isinstance(arg, tuple):
            words += _words(arg)
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


def _compile(kernel: Callable[..., None], name: str, kinds: tuple[Any, ...]) -> int:
    """The address of the kernel compiled for arguments of types `kinds`, from the cache if it is there."""
    unpack = _unpacker(kinds)

    def entry(words, first, stop):
        # max: LLVM then knows that indices aren't negative, and so don't count from the end.
        kernel(max(first, 0), stop, *unpack(words))
        return 1  # an exception in the kernel leaves 0, see Numba's create_cfunc_wrapper

    # Cache files are named after it. All entries have the same signature, so their names must tell the forms apart.
    entry.__name__ = name
    entry.__qualname__ = f"{name}_{hashlib.sha256(str(kinds).encode()).hexdigest()[:16]}"
    function = c_function(entry, (SIGNATURE, types.int64), OPTIONS, KernelCache(entry, named=True))
    KEPT.append(function)
    return int(function.address)


KEPT: list[Any] = []  # compiled functions: their machine code goes when they do
