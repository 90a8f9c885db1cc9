"""The generator of sums of rows of bytes, which layers whose weights have a zero point subtract (gemm_s8.pack_rhs)."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from npmobilenet.kernels.compiler.deferred import for_range, for_range_slice
from npmobilenet.kernels.vectorcode.gemm_s8 import _multiply_add
from npmobilenet.kernels.vectorcode.generated import is_signed, micro_kernel
from npmobilenet.kernels.vectorcode.vector import (
    INT,
    INT8,
    INT32,
    constant,
    load,
    masked_load,
    masked_store,
    min_of,
    splat,
    store,
    variable,
    vector,
)


def _totals(builder: Any, sums: list[Any]) -> Any:
    """The totals of 2^n vectors of as many lanes, one in each lane: neighbouring lanes of two are added n times."""
    while len(sums) > 1:
        lanes = sums[0].type.count
        picks = [ir.Constant(sums[0].type, [2 * lane + odd for lane in range(lanes)]) for odd in (0, 1)]
        sums = [
            builder.add(*(builder.shuffle_vector(a, b, pick) for pick in picks))
            for a, b in zip(sums[::2], sums[1::2], strict=True)
        ]
    return sums[0]


def _first_bytes(builder: Any, pointer: Any, count: int, lanes: int) -> Any:
    """`count` bytes, 2^n, in a vector of words whose other bytes are 0; nothing else is read."""
    kind = ir.IntType(8 * count)
    value = builder.load(builder.bitcast(pointer, kind.as_pointer()), align=1)
    return builder.insert_element(constant(kind, 0, 4 * lanes // count), value, INT32(0))


def row_sums_kernel(kind: str, lanes: int) -> Any:
    """An intrinsic for the sums of rows of bytes (with "vnni" of uint8), by one of BYTES, `lanes` rows at a time.

    kernel(x: Lhs, count, factor, sums): sums[r] is factor times the sum of row r's terms, for r < count. Nothing is
    checked.
    """
    size = 4 * lanes  # bytes in a vector

    @micro_kernel(f"row_sums_{kind}_{lanes}")
    def kernel(builder, kinds, x, count, factor, sums):
        signed = is_signed(kinds.x.data)
        words = vector(INT32, lanes)
        ones = constant(INT32, 0x01010101, lanes)
        slots = [variable(builder, INT32, lanes) for _ in range(lanes)]
        rest, last = builder.urem(x.depth, INT(size)), builder.sub(count, INT(1))
        numbers = ir.Constant(vector(INT8, size), list(range(size)))
        tail = builder.icmp_unsigned("<", numbers, splat(builder, builder.trunc(rest, INT8), size))

        def add(pointers, offset, read):
            for slot, pointer in zip(slots, pointers, strict=True):
                value = builder.bitcast(read(builder.gep(pointer, [offset])), words)
                total = _multiply_add(builder, builder.load(slot), value, ones, kind, lanes, signed)
                builder.store(total, slot)

        # AVX-512 reads and stores the first bytes of a vector alone. Elsewhere that goes lane by lane, so pieces of
        # 2^n bytes are read, and sums stored as whole vectors but for the last.
        def add_rest(pointers, offset):
            if lanes == 16:
                with builder.if_then(builder.icmp_unsigned("!=", rest, INT(0))):
                    add(pointers, offset, lambda pointer: masked_load(builder, pointer, tail))
                return
            for piece in (1 << n for n in reversed(range(size.bit_length() - 1))):
                mine = builder.and_(rest, INT(piece))
                with builder.if_then(builder.icmp_unsigned("!=", mine, INT(0))):
                    before = builder.and_(rest, INT(size - 2 * piece))  # bytes of the greater pieces
                    add(pointers, builder.add(offset, before),
                        lambda pointer, piece=piece: _first_bytes(builder, pointer, piece, lanes))  # fmt: skip

        def store_sums(totals, target, left):
            some = splat(builder, builder.trunc(left, INT32), lanes)
            there = builder.icmp_signed("<", ir.Constant(words, list(range(lanes))), some)
            if lanes == 16:
                masked_store(builder, totals, target, there)
                return
            with builder.if_else(builder.icmp_signed(">=", left, INT(lanes))) as (yes, no):
                with yes:
                    store(builder, totals, target)
                with no:
                    masked_store(builder, totals, target, there)

        with for_range_slice(builder, INT(0), count, INT(lanes)) as (first, _):
            rows = [min_of(builder, builder.add(first, INT(r)), last) for r in range(lanes)]
            starts = [builder.gep(x.data, [builder.add(x.at, builder.mul(row, x.step))]) for row in rows]
            for slot in slots:
                builder.store(constant(INT32, 0, lanes), slot)
            with for_range(builder, x.segments) as outer:
                skip = builder.mul(outer.index, x.segment)
                with for_range_slice(builder, INT(0), builder.sub(x.depth, rest), INT(size)) as (k, _):
                    add(starts, builder.add(skip, k), lambda pointer: load(builder, pointer, INT8, size))
                add_rest(starts, builder.add(skip, builder.sub(x.depth, rest)))
            totals = _totals(builder, [builder.load(slot) for slot in slots])
            totals = builder.mul(totals, splat(builder, builder.trunc(factor, INT32), lanes))
            store_sums(totals, builder.gep(sums, [first]), builder.sub(count, first))

    return kernel
