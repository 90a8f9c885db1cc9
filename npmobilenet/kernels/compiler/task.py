"""Tasks: fast kernels compiled to one common form, so that a whole plan can run without returning to Python.

A kernel here is a function `kernel(first, stop, *args)` that computes units `first` to `stop - 1` of its result, rows
of the output mostly; units are independent of each other, so any thread may take any of them. Compiled, every kernel
has the same C signature (c_entry.py). What a program (work_sharing.py) needs of a call is then three numbers and a
function's address.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from npmobilenet.kernels.compiler.c_entry import address_of, kinds_of, words_of
from npmobilenet.kernels.compiler.deferred import register_jitable
from npmobilenet.kernels.compiler.pool import pool
from npmobilenet.kernels.compiler.work_sharing import Call, Program, Work


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
        kinds = kinds_of(args)
        address = self._addresses.get(kinds)
        if address is None:
            address = self._addresses[kinds] = address_of(self._function, self.__name__, kinds)
        return Call(address, np.array(words_of(args), np.int64), self._work(*args), args)

    def __call__(self, *args: Any) -> None:
        """Run it now."""
        Program([self.bind(*args)]).run(pool().share())


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
