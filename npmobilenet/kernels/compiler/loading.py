"""Loading object files: an engine of LLVM's of our own, which needs no Numba."""

from __future__ import annotations

import functools
import importlib
import re
from collections.abc import Iterable
from typing import Any

import llvmlite.binding as llvm

from npmobilenet.kernels.compiler import without_numba

NAME = re.compile(rb"(?<=\0)[A-Za-z_][\w.$]*(?=\0)")  # among an object file's symbols


@functools.cache
def _engine() -> Any:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    triple = llvm.get_process_triple()
    machine = llvm.Target.from_triple(triple).create_target_machine(jit=True)
    module = llvm.parse_assembly("")
    module.triple = triple
    return llvm.create_mcjit_compiler(module, machine)


@functools.cache
def _add_helpers(by_numba: bool) -> None:
    """Let loaded code find what Numba's code calls: functions for memory, shapes and errors."""
    if not by_numba:
        try:
            for name, address in without_numba.helpers().items():
                llvm.add_symbol(name, address)
            return
        except (ImportError, OSError, AttributeError):  # a release of Numba that has them elsewhere
            pass
    importlib.import_module("npmobilenet.kernels.compiler.numba_private").initialize_runtime()


def outside(code: bytes) -> list[str]:
    """The names that an object file may need from outside: all in it that this process knows."""
    names = {found.decode() for found in NAME.findall(code)}
    return sorted(name for name in names if llvm.address_of_symbol(name))


def all_there(names: Iterable[str]) -> bool:
    """Whether this process has these names. Code that is linked without would end it."""
    names = list(names)
    for by_numba in (True,) if without_numba.imported() else (False, True):
        _add_helpers(by_numba)
        if all(llvm.address_of_symbol(name) for name in names):
            return True
    return False


def add(code: bytes) -> None:
    """Load an object file."""
    _engine().add_object_file(llvm.ObjectFileRef.from_data(code))


def address_of(symbol: str) -> int:
    """The address of a function in the files loaded so far; 0 where there is none."""
    return int(_engine().get_function_address(symbol))
