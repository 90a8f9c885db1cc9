"""Generators of integer vector code: tiles of dot products, as LLVM vector IR.

Integer sums are exact in any order, so a tile only has to form the same sums as the book.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from npmobilenet.kernels.fast.vector import _data, outlined, pointers_of, row_addresses, row_pointers
from npmobilenet.kernels.fast.vector_q import (
    INT,
    INT16,
    INT32,
    constant,
    intrinsic_call,
    load,
    splat,
    vector,
)  # fmt: skip


def _multiply_add(builder: Any, total: Any, x: Any, w: Any, kind: str, lanes: int, signed: bool) -> Any:
    """total + the dot products of groups: of four bytes or of two int16 ("pairs").

    "vnni" multiplies unsigned by signed bytes: x by w, or, where x is signed, w by x.
    """
    words = vector(INT32, lanes)
    if kind == "vnni":
        x, w = (w, x) if signed else (x, w)
        return intrinsic_call(builder, "llvm.x86.avx512.vpdpbusd.512", words, [total, x, w])
    halves = vector(INT16, 2 * lanes)
    x, w = builder.bitcast(x, halves), builder.bitcast(w, halves)
    if kind == "pairs" and lanes in (8, 16):
        name = {8: "llvm.x86.avx2.pmadd.wd", 16: "llvm.x86.avx512.pmaddw.d.512"}[lanes]
        return builder.add(total, intrinsic_call(builder, name, words, [x, w]))
    wide = vector(INT32, 2 * lanes)
    product = builder.mul(builder.sext(x, wide), builder.sext(w, wide))
    for odd in (0, 1):
        chosen = ir.Constant(words, [2 * lane + odd for lane in range(lanes)])
        total = builder.add(total, builder.shuffle_vector(product, ir.Constant(wide, ir.Undefined), chosen))
    return total


def dot_tile(rows: int, vectors: int, lanes: int, kind: str, panel_width: int | None = None) -> Any:
    """An intrinsic for `rows` rows by `vectors * lanes` columns of a product of integer matrices.

    tile(x, x_at, row_step, x_segment, segments, w, w_at, groups, sums, sums_at, bias, channel, acc): of row r and
    column j, acc[r * width + j] is bias[channel + j] - sums[sums_at + r] + the sum over s < segments and g < groups of
    the dot product of the group of x at x_at + r * row_step + s * x_segment + g * group with that of w at w_at +
    ((s * groups + g) * width + j) * group; a group is four bytes or two int16, see _multiply_add. width is
    panel_width, or as many columns as are computed. Nothing is checked.
    """
    width = panel_width or vectors * lanes
    group = 4 if kind == "vnni" else 2

    @intrinsic
    def tile(typingctx, x, x_at, row_step, x_segment, segments, w, w_at, groups, sums, sums_at, bias, channel, acc):
        signed = x.dtype == types.int8

        def codegen(context, builder, signature, args):
            pointers = pointers_of(context, builder, signature, args)
            outlined(builder, f"dot_{rows}_{vectors}_{lanes}_{kind}_{width}_{signed}", pointers, body)
            return context.get_dummy_value()

        def body(builder, args):
            x, x_at, row_step, x_segment, segments, w, w_at, groups, sums, sums_at, bias, channel, acc = args
            w_data = builder.gep(w, [w_at])
            slots = [cgutils.alloca_once(builder, vector(INT32, lanes)) for _ in range(rows * vectors)]
            for r in range(rows):
                taken = builder.load(builder.gep(sums, [builder.add(sums_at, INT(r))]))
                taken = splat(builder, taken, lanes)
                for v in range(vectors):
                    first = load(builder, builder.gep(bias, [builder.add(channel, INT(v * lanes))]), INT32, lanes)
                    builder.store(builder.sub(first, taken), slots[r * vectors + v])
            row_data = row_pointers(builder, builder.gep(x, [x_at]), row_step, rows)
            with cgutils.for_range(builder, segments) as outer:
                skip = builder.mul(outer.index, x_segment)
                panels = builder.gep(w_data, [builder.mul(outer.index, builder.mul(groups, INT(width * group)))])
                starts = [(builder.gep(base, [skip]), steps) for base, steps in row_data]
                with cgutils.for_range(builder, groups) as loop:
                    panel = builder.gep(panels, [builder.mul(loop.index, INT(width * group))])
                    columns = [
                        load(builder, builder.gep(panel, [INT(v * lanes * group)]), INT32, lanes)
                        for v in range(vectors)
                    ]
                    at = builder.mul(loop.index, INT(group))
                    for r, address in enumerate(row_addresses(builder, starts, at)):
                        value = builder.load(builder.bitcast(address, INT32.as_pointer()), align=1)
                        value = splat(builder, value, lanes)
                        for v in range(vectors):
                            slot = slots[r * vectors + v]
                            total = _multiply_add(builder, builder.load(slot), value, columns[v], kind, lanes, signed)
                            builder.store(total, slot)
            for i, slot in enumerate(slots):
                pointer = builder.gep(acc, [INT(i // vectors * width + i % vectors * lanes)])
                builder.store(builder.load(slot), builder.bitcast(pointer, slot.type), align=4)

        integer = types.int64
        return types.void(
            x, integer, integer, integer, integer, w, integer, integer, sums, integer, bias, integer, acc,
        ), codegen  # fmt: skip

    return tile


def row_sum_tile() -> Any:
    """An intrinsic for the sum of `count` bytes (a multiple of 4) of a row, 64 at a time; AVX-512 VNNI only.

    tile(x, at, count) -> int32.
    """

    @intrinsic
    def tile(typingctx, x, at, count):
        signed = x.dtype == types.int8

        def codegen(context, builder, signature, args):
            lanes, words = 16, vector(INT32, 16)
            data = builder.gep(_data(context, builder, signature.args[0], args[0]), [args[1]])
            ones = constant(INT32, 0x01010101, lanes)
            slot = cgutils.alloca_once_value(builder, constant(INT32, 0, lanes))
            with cgutils.for_range(builder, builder.udiv(args[2], INT(64))) as loop:
                bytes_ = load(builder, builder.gep(data, [builder.mul(loop.index, INT(64))]), INT32, lanes)
                total = _multiply_add(builder, builder.load(slot), bytes_, ones, "vnni", lanes, signed)
                builder.store(total, slot)
            rest = builder.trunc(builder.udiv(builder.urem(args[2], INT(64)), INT(4)), INT32)
            mask = builder.icmp_signed("<", ir.Constant(words, list(range(lanes))), splat(builder, rest, lanes))
            last = builder.gep(data, [builder.sub(args[2], builder.urem(args[2], INT(64)))])
            pointer = builder.bitcast(last, words.as_pointer())
            kind = ir.FunctionType(words, [pointer.type, INT32, mask.type, words])
            masked = cgutils.get_or_insert_function(builder.module, kind, "llvm.masked.load.v16i32.p0")
            bytes_ = builder.call(masked, [pointer, INT32(1), mask, constant(INT32, 0, lanes)])
            total = _multiply_add(builder, builder.load(slot), bytes_, ones, "vnni", lanes, signed)
            return intrinsic_call(builder, "llvm.vector.reduce.add.v16i32", INT32, [total])

        return types.int32(x, types.int64, types.int64), codegen

    return tile


@intrinsic
def address_of(typingctx, array):
    """The address of an array's first element."""

    def codegen(context, builder, signature, args):
        return builder.ptrtoint(_data(context, builder, signature.args[0], args[0]), INT)

    return types.int64(array), codegen
