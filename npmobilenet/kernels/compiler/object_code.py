"""Object files: of the fast kernels (c_entry.py), and of the tiles, which kernels call: made once on a machine.

A tile is a function in LLVM IR (see vectorcode/generated.py). Inside the kernels it would be optimized and compiled
again for each of them, and again for each function between them and the tile, since Numba compiles every function that
it meets on its own before it puts it into its caller. Here it becomes an object of its own; kernels only name it, and
the loader puts in its address. Its name ends with a hash of its IR, so there can't be two tiles of one name.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir

from npmobilenet.kernels.compiler import loading
from npmobilenet.kernels.compiler.cache import cache_folder
from npmobilenet.kernels.compiler.deferred import compile_object
from npmobilenet.kernels.compiler.entries import keep, unsealed
from npmobilenet.kernels.compiler.remembered import holds

NAME = re.compile(rb"npmobilenet_tile_\w+")

Body = Callable[[Any, Any], None]  # emits a tile's code, from a builder and its arguments

KERNEL = ".kernel"  # a file of that suffix is a kernel's

_there: set[str] = set()  # tiles whose code is in memory


def declare(module: Any, name: str, kind: Any, body: Body) -> Any:
    """The tile as an external function of type `kind` in `module`; its code is in memory when this returns."""
    plain = ir.Module("tile")
    plain.triple = module.triple
    define(plain, "tile", kind, body)
    number = hashlib.sha256(str(plain).encode()).hexdigest()[:16]
    symbol = re.sub(r"\W+", "_", f"npmobilenet_tile_{name}_{number}")
    if symbol not in _there and not _load(symbol):
        _compile(symbol, kind, body)
    llvm.add_symbol(symbol, loading.address_of(symbol))  # for Numba's engine, which doesn't know ours
    function = module.globals.get(symbol)
    return ir.Function(module, kind, symbol) if function is None else function


def define(module: Any, name: str, kind: Any, body: Body) -> Any:
    """The tile as a function in `module`.

    "optsize" keeps LLVM from unrolling the loop over k, whose doubled loads don't fit into the registers: spills made
    V2 1.0_224 take 12 to 20 ms, by the stack's address, instead of 10.
    """
    function = ir.Function(module, kind, name)
    function.attributes.add("noinline")
    function.attributes.add("optsize")
    function.attributes.add("nounwind")
    builder = ir.IRBuilder(function.append_basic_block())
    body(builder, function.args)
    builder.ret_void()
    return function


def allow(function: Any, feature: str) -> None:
    """Let LLVM use the instructions of a feature in a function, also where it doesn't know that the CPU has them.

    Without, an instruction asked for by name ends the process. (`add` refuses what llvmlite has no name for.)
    """
    set.add(function.attributes, f'"target-features"="+{feature}"')


def load_function(name: str) -> int | None:
    """The address of a kernel's entry point, from its file; None where that, or what it needs, isn't there and whole.

    A name without code would end the process when the kernel is linked.
    """
    symbol, _, rest = (_kept_as(f"{name}{KERNEL}") or b"").partition(b"\0")
    outside, _, code = rest.partition(b"\0")
    if not code or not all(tile in _there or _load(tile) for tile in {found.decode() for found in NAME.findall(code)}):
        return None
    if not loading.all_there(outside.decode().split()):
        return None
    loading.add(code)
    return loading.address_of(symbol.decode()) or None


def keep_function(name: str, symbol: str, code: bytes) -> None:
    """Keep a kernel's object file, with the symbol of its entry point and the names that it needs from outside."""
    outside = [known for known in loading.outside(code) if not NAME.match(known.encode())]
    _keep(f"{name}{KERNEL}", b"\0".join([symbol.encode(), " ".join(outside).encode(), code]))


def _compile(symbol: str, kind: Any, body: Body) -> None:
    code = compile_object(symbol, lambda module: define(module, symbol, kind, body))
    loading.add(code)
    _there.add(symbol)
    _keep(f"{symbol}.o", code)


def _keep(name: str, content: bytes) -> None:
    folder = cache_folder()
    if folder is not None and holds():
        keep(folder / name, content)


def _kept_as(name: str) -> bytes | None:
    """What a file holds; None where it is missing or damaged."""
    folder = cache_folder()
    return None if folder is None else unsealed(folder / name)


def _load(symbol: str) -> bool:
    """Whether the tile's code is on disk, undamaged; it is in memory then."""
    code = _kept_as(f"{symbol}.o")
    if code is None:
        return False
    loading.add(code)
    _there.add(symbol)
    return True
