"""Generators of the integer depthwise convolution's vector code.

A depthwise filter has no depth to sum over, so the products that one instruction sums (gemm_s8._multiply_add) come from
different rows of the image: four rows of bytes, or two of int16, are interleaved, value by value, into words of 32
bits. A word is then multiplied by a word of weights, those of one column of the window; as windows overlap, each
interleaved column serves several outputs.
"""

from __future__ import annotations

import itertools
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from npmobilenet.kernels.compiler.numba_private import alloca_once, for_range, for_range_slice
from npmobilenet.kernels.vectorcode.gemm_s8 import BYTES, LinearEpilogue, _multiply_add, kr_of
from npmobilenet.kernels.vectorcode.vector import outlined, pointers_of, row_addresses, row_pointers
from npmobilenet.kernels.vectorcode.vector_s8 import (
    INT,
    INT8,
    INT16,
    INT32,
    constant,
    lanes_of,
    load,
    max_of,
    min_of,
    splat,
    vector,
)

QUAD = 16  # bytes that the instructions for interleaving take together: 128 bits


def _row_starts(builder: Any, rows: Any, group: int, column: Any, offset: Any) -> list[tuple[Any, Any]]:
    """Of each of the group's rows the address of channel `offset` of pixel `column`, and the distance of pixels."""
    starts = []
    for k in range(group):
        first, distance = (builder.load(builder.gep(rows, [INT(2 * k + i)])) for i in (0, 1))
        at = builder.add(first, builder.add(builder.mul(column, distance), offset))
        starts.append((at, distance))
    return starts


def raised(kind: str, signed: bool) -> int:
    """What is added to x beside signed weights: "vnni" wants it unsigned, "dotprod" signed; others don't care."""
    if kind == "vnni":
        return 128 if signed else 0
    return -128 if kind == "dotprod" and not signed else 0


def _operand(builder: Any, value: Any, kind: str, signed: bool) -> Any:
    """x + raised(kind, signed), a byte: its uppermost bit turned over, or x itself."""
    if not raised(kind, signed):
        return value
    top = ir.Constant(INT8, 0x80)
    return builder.xor(value, constant(INT8, 0x80, value.type.count) if value.type != INT8 else top)


def _words_of_four(builder: Any, values: list[Any]) -> list[Any]:
    """Four vectors of bytes, interleaved: words (a0 b0 c0 d0), (a1 b1 c1 d1) and so on, in order, in four vectors.

    Within each 128 bits two rounds of unpacking do it. They leave words 0 to 3 of each 128 bits in the first vector,
    words 4 to 7 in the second: so the rows' values move beforehand to where that is the right order. Vectors of 4 or 8
    bytes are filled up to 128 bits, and give one vector or two.
    """
    width = values[0].type.count
    if width < QUAD:
        filled = [i % width for i in range(QUAD)]
        return _words_of_four(builder, [lanes_of(builder, value, filled) for value in values])[: width // 4]
    quads = width // QUAD
    order = [quads * v + q for q in range(quads) for v in range(4)]
    moved = []
    for value in values:
        words = builder.bitcast(value, vector(INT32, width // 4))
        words = builder.shuffle_vector(words, words, ir.Constant(words.type, order)) if quads > 1 else words
        moved.append(builder.bitcast(words, value.type))

    def unpack(a: Any, b: Any, size: int) -> list[Any]:
        """The lower and the upper halves of each 128 bits, interleaved in pieces of `size` bytes."""
        kind, count = ir.IntType(8 * size), QUAD // size
        a, b = (builder.bitcast(v, vector(kind, width // size)) for v in (a, b))
        results = []
        for half in (0, 1):
            chosen = [
                q * count + half * count // 2 + i // 2 + (width // size) * (i % 2)
                for q, i in itertools.product(range(quads), range(count))
            ]
            results.append(builder.shuffle_vector(a, b, ir.Constant(vector(INT32, width // size), chosen)))
        return results

    first, second = unpack(moved[0], moved[1], 1), unpack(moved[2], moved[3], 1)
    return [v for half in (0, 1) for v in unpack(first[half], second[half], 2)]


def _words_of_two(builder: Any, values: list[Any], signed: bool, lanes: int) -> list[Any]:
    """Two vectors of bytes, interleaved and extended: words of two int16, in order, in vectors of `lanes` words."""
    width = values[0].type.count
    results = []
    for first in range(0, width, lanes):
        chosen = [first + i // 2 + width * (i % 2) for i in range(2 * lanes)]
        mixed = builder.shuffle_vector(*values, ir.Constant(vector(INT32, 2 * lanes), chosen))
        results.append((builder.sext if signed else builder.zext)(mixed, vector(INT16, 2 * lanes)))
    return results


def fill_tile(lanes: int) -> Any:
    """An intrinsic that fills in what lies outside the image.

    tile(words, words_at, step, number, first, count, value): words[words_at + v * step + p * lanes + j] becomes `value`
    for vectors v < number and pixels first <= p < first + count. Nothing is checked.
    """

    @intrinsic
    def tile(typingctx, words, words_at, step, number, first, count, value):
        def codegen(context, builder, signature, args):
            outlined(builder, f"fill_{lanes}", pointers_of(context, builder, signature, args), body)
            return context.get_dummy_value()

        def body(builder, args):
            words, words_at, step, number, first, count, value = args
            to = builder.gep(words, [builder.add(words_at, builder.mul(first, INT(lanes)))])
            filled = splat(builder, builder.trunc(value, INT32), lanes)
            with for_range(builder, count) as pixel, for_range(builder, number) as loop:
                at = builder.add(builder.mul(loop.index, step), builder.mul(pixel.index, INT(lanes)))
                pointer = builder.gep(to, [at])
                builder.store(filled, builder.bitcast(pointer, filled.type.as_pointer()), align=4)

        integer = types.int64
        return types.void(words, integer, integer, integer, integer, integer, integer), codegen

    return tile


def interleave_tile(width: int, lanes: int, kind: str) -> Any:
    """An intrinsic that interleaves `width` channels of `count` pixels of a group of rows.

    tile(x, rows, rows_at, column, channel, count, words, words_at, step): of row k, rows[rows_at + 2k] is the address
    and rows[rows_at + 2k + 1] the distance between pixels (0 for a row of one pixel, repeated). words[words_at +
    v * step + p * lanes + j] gets the rows' values of channel `channel + v * lanes + j` of pixel `column + p`, the
    first row's lowest: four bytes (BYTES), plus `raised`, or two int16. x only gives the type. Nothing is checked.
    """

    @intrinsic
    def tile(typingctx, x, rows, rows_at, column, channel, count, words, words_at, step):
        signed = x.dtype == types.int8

        def codegen(context, builder, signature, args):
            pointers = pointers_of(context, builder, signature, args)
            outlined(builder, f"interleave_{width}_{lanes}_{kind}_{signed}", pointers, body)
            return context.get_dummy_value()

        def body(builder, args):
            _, rows, rows_at, column, channel, count, words, words_at, step = args
            group = kr_of(kind)
            starts = _row_starts(builder, builder.gep(rows, [rows_at]), group, column, channel)
            to = builder.gep(words, [words_at])
            with for_range(builder, count) as loop:
                pixel = loop.index
                values = []
                for at, distance in starts:
                    address = builder.add(at, builder.mul(pixel, distance))
                    values.append(load(builder, builder.inttoptr(address, INT8.as_pointer()), INT8, width))
                if kind in BYTES:
                    results = _words_of_four(builder, [_operand(builder, value, kind, signed) for value in values])
                else:
                    results = _words_of_two(builder, values, signed, lanes)
                place = builder.gep(to, [builder.mul(pixel, INT(lanes))])
                for i, result in enumerate(results):
                    v, lane = divmod(i * width // len(results), lanes)
                    pointer = builder.gep(place, [builder.add(builder.mul(step, INT(v)), INT(lane))])
                    builder.store(result, builder.bitcast(pointer, result.type.as_pointer()), align=4)

        integer = types.int64
        return types.void(x, rows, integer, integer, integer, integer, words, integer, integer), codegen

    return tile


def interleave_one(lanes: int, kind: str) -> Any:
    """An intrinsic as `interleave_tile`, channel by channel, for few channels or several outputs for each.

    tile(x, rows, rows_at, column, channel, count, words, words_at, step, channels, multiplier): `channels` channels, of
    which `channel + j` reads that of x with the number (channel + j) // multiplier.
    """

    @intrinsic
    def tile(typingctx, x, rows, rows_at, column, channel, count, words, words_at, step, channels, multiplier):
        signed = x.dtype == types.int8

        def codegen(context, builder, signature, args):
            pointers = pointers_of(context, builder, signature, args)
            outlined(builder, f"interleave_one_{lanes}_{kind}_{signed}", pointers, body)
            return context.get_dummy_value()

        def body(builder, args):
            _, rows, rows_at, column, channel, count, words, words_at, step, channels, multiplier = args
            part = INT8 if kind in BYTES else INT16
            starts = _row_starts(builder, builder.gep(rows, [rows_at]), kr_of(kind), column, INT(0))
            to = builder.gep(words, [words_at])
            with for_range(builder, count) as outer, for_range(builder, channels) as loop:
                pixel = outer.index
                source = builder.udiv(builder.add(channel, loop.index), multiplier)
                v, lane = builder.udiv(loop.index, INT(lanes)), builder.urem(loop.index, INT(lanes))
                within = builder.add(builder.mul(pixel, INT(lanes)), lane)
                place = builder.gep(to, [builder.add(builder.mul(v, step), within)])
                place = builder.bitcast(place, part.as_pointer())
                for k, (at, distance) in enumerate(starts):
                    address = builder.add(builder.add(at, source), builder.mul(pixel, distance))
                    value = builder.load(builder.inttoptr(address, INT8.as_pointer()))
                    if kind in BYTES:
                        value = _operand(builder, value, kind, signed)
                    else:
                        value = (builder.sext if signed else builder.zext)(value, INT16)
                    builder.store(value, builder.gep(place, [INT(k)]))

        integer = types.int64
        return types.void(
            x, rows, integer, integer, integer, integer, words, integer, integer, integer, integer
        ), codegen

    return tile


def column_tile(
    pixels: int, rows: int, lanes: int, kind: str, window: tuple[int, int] | None = None, linear: bool = False
) -> Any:
    """An intrinsic that filters `count` neighbouring outputs in each of `rows` rows, in `number` vectors of channels.

    tile(words, group_step, vector_step, column_step, stride, count, parts, vectors, first, number, w, taps, shifts,
    shift, shift_step, bias, channel, acc, acc_at, acc_step, acc_row): vectors holds three numbers for each vector, and
    those of v < number, from 3 (first + v) on, are called part, some and place. acc[acc_at + r * acc_row +
    p * acc_step + v * lanes + j] is bias[channel + v * lanes + j] plus the sum over i < some and k < taps of the dot
    product of words[parts[part + i] * group_step + v * vector_step + (p * stride + k * column_step) * lanes + j] with
    the word of weights ((i * taps + k) * shifts + shift + r * shift_step) * lanes + j from w[place] on. Fewer than
    `pixels` outputs are filled up to as many. `window` = (taps, stride), where given, is what these are, and
    column_step is 1: each of words is then loaded once for all outputs that read it. Nothing is checked.

    `linear`: acc is the output, of bytes, and further arguments (slope, offset, below, exceptions, line, low, high) say
    by which lines the accumulators become that, see gemm_s8.gemm_s8_linear_kernel. No outputs are filled up: count
    must be at least `pixels`.
    """

    def generator(given: Any) -> Any:
        """The tile's code for arguments of these types."""
        signed = linear and given[17].dtype == types.int8

        def codegen(context, builder, signature, args):
            pointers = pointers_of(context, builder, signature, args)
            name = f"columns_{pixels}_{rows}_{lanes}_{kind}_{window}_{signed if linear else 'sums'}"
            outlined(builder, name, pointers, body)
            return context.get_dummy_value()

        def body(builder, args):
            (words, group_step, vector_step, column_step, stride, count, parts, vectors, first, number, w, taps, shifts,
             shift, shift_step, bias, channel, acc, acc_at, acc_step, acc_row, *more) = args  # fmt: skip
            end = LinearEpilogue(builder, more, lanes, signed) if linear else None
            slots = [[alloca_once(builder, vector(INT32, lanes)) for _ in range(pixels)] for _ in range(rows)]
            taps, stride = (INT(n) for n in window) if window else (taps, stride)
            tap_step = builder.mul(shifts, INT(lanes))
            row_step = builder.mul(shift_step, INT(lanes))
            part_step = builder.mul(tap_step, taps)

            def weight(base, r):
                return load(builder, builder.gep(base, [builder.mul(row_step, INT(r))]), INT32, lanes)

            def add(slot, value, factor):
                total = _multiply_add(builder, builder.load(slot), value, factor, kind, lanes, kind == "dotprod")
                builder.store(total, slot)

            def unrolled(source, base):
                bases = [builder.gep(base, [builder.mul(tap_step, INT(k))]) for k in range(window[0])]
                factors = [[weight(tap, r) for r in range(rows)] for tap in bases]
                for column in range((pixels - 1) * window[1] + window[0]):
                    value = load(builder, builder.gep(source, [INT(column * lanes)]), INT32, lanes)
                    for k in range(window[0]):
                        p, rest = divmod(column - k, window[1])
                        if rest == 0 and 0 <= p < pixels:
                            for r in range(rows):
                                add(slots[r][p], value, factors[k][r])

            def looped(source, base):
                with for_range(builder, taps) as loop:
                    factors = [weight(builder.gep(base, [builder.mul(tap_step, loop.index)]), r) for r in range(rows)]
                    skip = builder.mul(loop.index, builder.mul(column_step, INT(lanes)))
                    pixel_step = builder.mul(stride, INT(lanes))
                    for p, pointer in enumerate(
                        row_addresses(builder, row_pointers(builder, source, pixel_step, pixels), skip)
                    ):
                        value = load(builder, pointer, INT32, lanes)
                        for r in range(rows):
                            add(slots[r][p], value, factors[r])

            last = max_of(builder, builder.sub(count, INT(pixels)), INT(0))
            with for_range(builder, number) as outer:
                v = outer.index
                row = builder.gep(vectors, [builder.mul(builder.add(first, v), INT(3))])
                part, some, place = (builder.load(builder.gep(row, [INT(i)])) for i in range(3))
                weights = builder.bitcast(builder.gep(w, [place]), INT32.as_pointer())
                weights = builder.gep(weights, [builder.mul(shift, INT(lanes))])
                shift_of_lanes = builder.mul(v, INT(lanes))
                start = load(builder, builder.gep(bias, [builder.add(channel, shift_of_lanes)]), INT32, lanes)
                source_of_lanes = builder.gep(words, [builder.mul(v, vector_step)])
                result = builder.gep(acc, [builder.add(acc_at, shift_of_lanes)])
                mine = builder.gep(parts, [part])
                lines = end.lines(builder, builder.add(channel, shift_of_lanes), 1) if end else []
                with for_range_slice(builder, INT(0), count, INT(pixels)) as (index, _):
                    pixel = min_of(builder, index, last)
                    for slot in itertools.chain(*slots):
                        builder.store(start, slot)
                    at = builder.mul(builder.mul(pixel, stride), INT(lanes))
                    with for_range(builder, some) as loop:
                        g = builder.load(builder.gep(mine, [loop.index]))
                        source = builder.gep(source_of_lanes, [builder.add(at, builder.mul(g, group_step))])
                        base = builder.gep(weights, [builder.mul(part_step, loop.index)])
                        (unrolled if window else looped)(source, base)
                    for r, row in enumerate(slots):
                        to = builder.add(builder.mul(pixel, acc_step), builder.mul(acc_row, INT(r)))
                        if end:
                            end.store(builder, lines, row, builder.gep(result, [to]), acc_step)
                            continue
                        for p, slot in enumerate(row):
                            pointer = builder.gep(result, [builder.add(to, builder.mul(acc_step, INT(p)))])
                            builder.store(builder.load(slot), builder.bitcast(pointer, slot.type), align=4)

        integer = types.int64
        words, parts, vectors, w, bias, acc = (given[i] for i in (0, 6, 7, 10, 15, 17))
        return types.void(
            words, integer, integer, integer, integer, integer, parts, vectors, integer, integer, w, integer, integer,
            integer, integer, bias, integer, acc, integer, integer, integer, *given[21:],
        ), codegen  # fmt: skip

    @intrinsic
    def tile(typingctx, words, group_step, vector_step, column_step, stride, count, parts, vectors, first, number, w,
             taps, shifts, shift, shift_step, bias, channel, acc, acc_at, acc_step, acc_row):  # fmt: skip
        return generator((words, group_step, vector_step, column_step, stride, count, parts, vectors, first, number, w,
                          taps, shifts, shift, shift_step, bias, channel, acc, acc_at, acc_step, acc_row))  # fmt: skip

    @intrinsic
    def line_tile(typingctx, words, group_step, vector_step, column_step, stride, count, parts, vectors, first, number,
                  w, taps, shifts, shift, shift_step, bias, channel, acc, acc_at, acc_step, acc_row, slope, offset,
                  below, exceptions, line, low, high):  # fmt: skip
        return generator((words, group_step, vector_step, column_step, stride, count, parts, vectors, first, number, w,
                          taps, shifts, shift, shift_step, bias, channel, acc, acc_at, acc_step, acc_row, slope, offset,
                          below, exceptions, types.int64, types.int64, types.int64))  # fmt: skip

    return line_tile if linear else tile
