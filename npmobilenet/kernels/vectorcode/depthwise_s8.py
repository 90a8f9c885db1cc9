"""Generators of the integer depthwise convolution's vector code.

A depthwise filter has no depth to sum over, so the products that one instruction sums (gemm_s8._multiply_add) come from
different rows of the image: four rows of bytes, or two of int16, are interleaved, value by value, into words of 32
bits. A word is then multiplied by a word of weights, those of one column of the window; as windows overlap, each
interleaved column serves several outputs.
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

from llvmlite import ir

from npmobilenet.kernels.compiler.deferred import for_range, for_range_slice
from npmobilenet.kernels.vectorcode.gemm_s8 import BYTES, LinearEpilogue, _multiply_add, kr_of
from npmobilenet.kernels.vectorcode.generated import is_signed, micro_kernel
from npmobilenet.kernels.vectorcode.vector import (
    INT,
    INT8,
    INT16,
    INT32,
    constant,
    interleaved,
    lanes_of,
    load,
    max_of,
    min_of,
    row_addresses,
    row_pointers,
    splat,
    store,
    variable,
    vector,
)

QUAD = 16  # bytes that the instructions for interleaving take together: 128 bits


class RowGroup(NamedTuple):
    """A group of rows of the image: row k begins at address rows[at + 2k], its pixels are rows[at + 2k + 1] apart.

    (Which is 0 for a row of one pixel, repeated.)
    """

    rows: Any
    at: Any


class Words(NamedTuple):
    """Interleaved rows: word j of pixel p, of vector v, of group g of rows is data[g * group_step + v * vector_step +
    p * lanes + j]. Windows are `stride` pixels apart, and their columns `column_step`.
    """

    data: Any
    group_step: Any
    vector_step: Any
    column_step: Any
    stride: Any


class Filters(NamedTuple):
    """Packed filters, see pack_depthwise_conv2d_q; `columns` and `shifts` are the numbers of those of each part."""

    weights: Any
    parts: Any
    vectors: Any
    bias: Any
    columns: Any
    shifts: Any


class Block(NamedTuple):
    """Channels channel ... channel + number * lanes - 1: `number` vectors of Filters.vectors from `first` on."""

    first: Any
    number: Any
    channel: Any


class OutputRows(NamedTuple):
    """`rows` rows of `count` outputs: channel j of pixel p of row r is data[at + r * row + p * step + j]."""

    data: Any
    at: Any
    step: Any
    row: Any
    count: Any
    rows: Any


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
        kind = vector(ir.IntType(8 * size), width // size)
        return interleaved(builder, builder.bitcast(a, kind), builder.bitcast(b, kind))

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


def fill_kernel(lanes: int) -> Any:
    """An intrinsic that fills in what lies outside the image.

    kernel(words: Cells, number, first, count, value): words[at + v * step + p * lanes + j] becomes `value` for vectors
    v < number and pixels first <= p < first + count. Nothing is checked.
    """

    @micro_kernel(f"fill_{lanes}")
    def kernel(builder, kinds, words, number, first, count, value):
        to = builder.gep(words.data, [builder.add(words.at, builder.mul(first, INT(lanes)))])
        filled = splat(builder, builder.trunc(value, INT32), lanes)
        with for_range(builder, count) as pixel, for_range(builder, number) as loop:
            at = builder.add(builder.mul(loop.index, words.step), builder.mul(pixel.index, INT(lanes)))
            store(builder, filled, builder.gep(to, [at]))

    return kernel


def interleave_kernel(width: int, lanes: int, kind: str) -> Any:
    """An intrinsic that interleaves `width` channels of `count` pixels of a group of rows.

    kernel(x, group: RowGroup, column, channel, count, words: Cells): words[at + v * step + p * lanes + j] gets the
    rows' values of channel `channel + v * lanes + j` of pixel `column + p`, the first row's lowest: four bytes (BYTES),
    plus `raised`, or two int16. x only gives the type. Nothing is checked.
    """

    @micro_kernel(f"interleave_{width}_{lanes}_{kind}")
    def kernel(builder, kinds, x, group, column, channel, count, words):
        signed = is_signed(kinds.x)
        starts = _row_starts(builder, builder.gep(group.rows, [group.at]), kr_of(kind), column, channel)
        to = builder.gep(words.data, [words.at])
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
                at = builder.add(builder.mul(words.step, INT(v)), INT(lane))
                store(builder, result, builder.gep(place, [at]))

    return kernel


def interleave_one_kernel(lanes: int, kind: str) -> Any:
    """An intrinsic as `interleave_kernel`, channel by channel, for few channels or several outputs for each.

    kernel(x, group, column, channel, count, words, channels, multiplier): `channels` channels, of which
    `channel + j` reads that of x with the number (channel + j) // multiplier.
    """

    @micro_kernel(f"interleave_one_{lanes}_{kind}")
    def kernel(builder, kinds, x, group, column, channel, count, words, channels, multiplier):
        signed, part = is_signed(kinds.x), INT8 if kind in BYTES else INT16
        starts = _row_starts(builder, builder.gep(group.rows, [group.at]), kr_of(kind), column, INT(0))
        to = builder.gep(words.data, [words.at])
        with for_range(builder, count) as outer, for_range(builder, channels) as loop:
            pixel = outer.index
            source = builder.udiv(builder.add(channel, loop.index), multiplier)
            v, lane = builder.udiv(loop.index, INT(lanes)), builder.urem(loop.index, INT(lanes))
            within = builder.add(builder.mul(pixel, INT(lanes)), lane)
            place = builder.gep(to, [builder.add(builder.mul(v, words.step), within)])
            place = builder.bitcast(place, part.as_pointer())
            for k, (at, distance) in enumerate(starts):
                address = builder.add(builder.add(at, source), builder.mul(pixel, distance))
                value = builder.load(builder.inttoptr(address, INT8.as_pointer()))
                if kind in BYTES:
                    value = _operand(builder, value, kind, signed)
                else:
                    value = (builder.sext if signed else builder.zext)(value, INT16)
                builder.store(value, builder.gep(place, [INT(k)]))

    return kernel


def depthwise_s8_kernel(
    pixels: int,
    rows: int,
    lanes: int,
    kind: str,
    window: tuple[int, int] | None = None,
    linear: bool = False,
    unit: int = 0,
) -> Any:
    """An intrinsic that filters out.count neighbouring outputs in each of `rows` rows, in some vectors of channels.

    kernel(words: Words, filters: Filters, block: Block, shift, shift_step, out: OutputRows): filters.vectors
    holds three numbers for each vector, and those of v < number, from 3 (first + v) on, are called part, some and
    place. Channel v * lanes + j of output p of row r is its bias plus the sum over i < some and k < columns of the dot
    product of the word of group parts[part + i], vector v, pixel p * stride + k * column_step by the word of weights
    ((i * columns + k) * shifts + shift + r * shift_step) * lanes + j from weights[place] on. Fewer than `pixels`
    outputs are filled up to as many. `window` = (columns, stride), where given, is what these are, and column_step is
    1: each of words is then loaded once for all outputs that read it. Nothing is checked.

    `unit`, where given, is the words of a pixel (else `lanes`) of fewer channels than lanes: an output is then as many
    neighbouring pixels as fill a vector, and `window` has their distance, lanes / unit, for its stride.

    `linear`: out is of bytes, and further arguments (requant, line) say by which lines the accumulators become that,
    see gemm_s8.gemm_s8_linear_kernel. Outputs beyond out.count are computed, but not stored. (Nor are, in both
    forms, rows beyond out.rows.)
    """
    unit = unit or lanes

    def emit(builder, end, words, filters, block, shift, shift_step, out):
        slots = [[variable(builder, INT32, lanes) for _ in range(pixels)] for _ in range(rows)]
        taps, stride = (INT(n) for n in window) if window else (filters.columns, words.stride)
        tap_step = builder.mul(filters.shifts, INT(lanes))
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
                readers = [(k, (column - k) // window[1]) for k in range(window[0]) if (column - k) % window[1] == 0]
                readers = [(k, p) for k, p in readers if 0 <= p < pixels]
                if readers:
                    value = load(builder, builder.gep(source, [INT(column * unit)]), INT32, lanes)
                for k, p in readers:
                    for r in range(rows):
                        add(slots[r][p], value, factors[k][r])

        def looped(source, base):
            with for_range(builder, taps) as loop:
                factors = [weight(builder.gep(base, [builder.mul(tap_step, loop.index)]), r) for r in range(rows)]
                skip = builder.mul(loop.index, builder.mul(words.column_step, INT(lanes)))
                pixel_step = builder.mul(stride, INT(lanes))
                starts = row_pointers(builder, source, pixel_step, pixels)
                for p, pointer in enumerate(row_addresses(builder, starts, skip)):
                    value = load(builder, pointer, INT32, lanes)
                    for r in range(rows):
                        add(slots[r][p], value, factors[r])

        last = max_of(builder, builder.sub(out.count, INT(pixels)), INT(0))

        def offsets(number, step, count):  # those beyond the last one's are that one's, which is stored after them
            return [builder.mul(step, min_of(builder, INT(i), builder.sub(count, INT(1)))) for i in range(number)]

        pixel_offsets, row_offsets = offsets(pixels, out.step, out.count), offsets(rows, out.row, out.rows)
        with for_range(builder, block.number) as outer:
            v = outer.index
            row = builder.gep(filters.vectors, [builder.mul(builder.add(block.first, v), INT(3))])
            part, some, place = (builder.load(builder.gep(row, [INT(i)])) for i in range(3))
            weights = builder.bitcast(builder.gep(filters.weights, [place]), INT32.as_pointer())
            weights = builder.gep(weights, [builder.mul(shift, INT(lanes))])
            lane = builder.mul(v, INT(lanes))
            channel = builder.add(block.channel, lane)
            start = load(builder, builder.gep(filters.bias, [channel]), INT32, lanes)
            source_of_lanes = builder.gep(words.data, [builder.mul(v, words.vector_step)])
            result = builder.gep(out.data, [builder.add(out.at, lane)])
            mine = builder.gep(filters.parts, [part])
            lines = end.lines(builder, channel, 1) if end else []
            with for_range_slice(builder, INT(0), out.count, INT(pixels)) as (index, _):
                pixel = min_of(builder, index, last)
                for slot in itertools.chain(*slots):
                    builder.store(start, slot)
                at = builder.mul(builder.mul(pixel, stride), INT(unit))
                with for_range(builder, some) as loop:
                    g = builder.load(builder.gep(mine, [loop.index]))
                    source = builder.gep(source_of_lanes, [builder.add(at, builder.mul(g, words.group_step))])
                    base = builder.gep(weights, [builder.mul(part_step, loop.index)])
                    (unrolled if window else looped)(source, base)
                for r, row in reversed([*enumerate(slots)]):
                    to = builder.add(builder.mul(pixel, out.step), row_offsets[r])
                    if end:
                        end.store(builder, lines, row, builder.gep(result, [to]), pixel_offsets)
                        continue
                    for p, slot in enumerate(row):
                        pointer = builder.gep(result, [builder.add(to, builder.mul(out.step, INT(p)))])
                        store(builder, builder.load(slot), pointer)

    @micro_kernel(f"depthwise_s8_{pixels}_{rows}_{lanes}_{unit}_{kind}_{window}")
    def kernel(builder, kinds, words, filters, block, shift, shift_step, out):
        emit(builder, None, words, filters, block, shift, shift_step, out)

    @micro_kernel(f"depthwise_s8_linear_{pixels}_{rows}_{lanes}_{unit}_{kind}_{window}")
    def linear_kernel(builder, kinds, words, filters, block, shift, shift_step, out, requant, line):
        end = LinearEpilogue(builder, requant, line, lanes, is_signed(kinds.out.data))
        emit(builder, end, words, filters, block, shift, shift_step, out)

    return linear_kernel if linear else kernel
