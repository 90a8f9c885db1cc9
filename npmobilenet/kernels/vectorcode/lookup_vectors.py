"""Generators of integer vector code: functions of streams of bytes, and the lookup of bytes in a table of 256."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from npmobilenet.kernels.compiler.deferred import alloca_once, for_range_slice
from npmobilenet.kernels.vectorcode.generated import micro_kernel
from npmobilenet.kernels.vectorcode.vector import (
    INT,
    INT8,
    INT16,
    constant,
    intrinsic_call,
    load,
    store,
    two_pieces,
    vector,
)


def _copy_some(builder: Any, source: Any, target: Any, count: Any, size: int) -> None:
    """Copy `count` bytes, 0 < count < size = 2^n."""
    for at, piece in two_pieces(builder, count, size):
        store(builder, load(builder, builder.gep(source, [at]), INT8, piece), builder.gep(target, [at]))


def for_blocks(
    builder: Any, size: int, sources: list[Any], target: Any, count: Any, function: Callable[[list[Any]], Any]
) -> None:
    """target = function(sources), of `count` bytes behind each pointer, in vectors of `size`.

    The last block, where it isn't whole, goes by way of the stack, so that nothing beyond the bytes is read or written.
    A block is read before it is written, and never again: the target may be one of the sources.
    """
    kind = vector(INT8, size)
    slots = [builder.bitcast(alloca_once(builder, kind), INT8.as_pointer()) for _ in (*sources, target)]
    with for_range_slice(builder, INT(0), count, INT(size)) as (at, _):
        left = builder.sub(count, at)
        partly = builder.icmp_unsigned("<", left, INT(size))
        there = [builder.gep(pointer, [at]) for pointer in (*sources, target)]
        with builder.if_then(partly, likely=False):
            for pointer, slot in zip(there[:-1], slots, strict=False):
                _copy_some(builder, pointer, slot, left, size)
        used = [builder.select(partly, slot, pointer) for slot, pointer in zip(slots, there, strict=True)]
        result = function([load(builder, pointer, INT8, size) for pointer in used[:-1]])
        store(builder, result, used[-1])
        with builder.if_then(partly, likely=False):
            _copy_some(builder, slots[-1], there[-1], left, size)


def _by_permutation(builder: Any, table: Any, size: int) -> Callable[[list[Any]], Any]:
    """VBMI: each of two instructions looks 7 bits up in 128 bytes (two registers); the top bit chooses between them."""
    kind = vector(INT8, 64)
    quarters = [load(builder, builder.gep(table, [INT(64 * i)]), INT8, 64) for i in range(4)]

    def look_up(values: list[Any]) -> Any:
        x = values[0]
        low, high = (
            intrinsic_call(builder, "llvm.x86.avx512.vpermi2var.qi.512", kind, [quarters[i], x, quarters[i + 1]])
            for i in (0, 2)
        )
        return builder.select(builder.icmp_signed("<", x, constant(INT8, 0, size)), high, low)

    return look_up


def _by_nibbles(builder: Any, table: Any, size: int) -> Callable[[list[Any]], Any]:
    """The low 4 bits are looked up in 16 tables of 16 bytes (PSHUFB, 128 bits by 128 bits); the others choose, one at
    a time, from the lowest: 16 results become 8, 4, 2 and 1. A bit moved to the top of its byte is a sign.
    """
    kind, halves = vector(INT8, size), vector(INT16, size // 2)
    undefined = ir.Constant(vector(INT8, 16), ir.Undefined)
    repeated = ir.Constant(vector(ir.IntType(32), size), [*range(16)] * (size // 16))
    parts = [load(builder, builder.gep(table, [INT(16 * i)]), INT8, 16) for i in range(16)]
    parts = [builder.shuffle_vector(part, undefined, repeated) for part in parts]
    name = {32: "llvm.x86.avx2.pshuf.b", 64: "llvm.x86.avx512.pshuf.b.512"}[size]

    def look_up(values: list[Any]) -> Any:
        x = values[0]
        low = builder.and_(x, constant(INT8, 15, size))
        found = [intrinsic_call(builder, name, kind, [part, low]) for part in parts]
        for bit in range(4, 8):
            moved = builder.bitcast(builder.shl(builder.bitcast(x, halves), constant(INT16, 7 - bit, size // 2)), kind)
            is_set = builder.icmp_signed("<", moved, constant(INT8, 0, size))
            found = [builder.select(is_set, b, a) for a, b in zip(found[::2], found[1::2], strict=True)]
        return found[0]

    return look_up


def lookup_kernel(lanes: int, permutes: bool) -> Any:
    """An intrinsic that looks bytes up in a table.

    kernel(x, x_at, table, table_at, out, out_at, count): out[out_at + i] = table[table_at + (x[x_at + i] modulo 256)]
    for i < count. Arrays are flat, of bytes; nothing is checked. lanes: 8 or 16 words in a vector; permutes: whether
    the machine has AVX-512 VBMI.
    """
    size = 4 * lanes
    prepare = _by_permutation if permutes else _by_nibbles

    @micro_kernel(f"lookup_{lanes}_{permutes}")
    def kernel(builder, kinds, x, x_at, table, table_at, out, out_at, count):
        function = prepare(builder, builder.gep(table, [table_at]), size)
        for_blocks(builder, size, [builder.gep(x, [x_at])], builder.gep(out, [out_at]), count, function)

    return kernel


__all__ = ["for_blocks", "lookup_kernel"]
