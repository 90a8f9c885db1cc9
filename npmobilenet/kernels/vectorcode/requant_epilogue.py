"""The generator of the step from int32 accumulators to uint8, int8 or int32 outputs, a block of them at a time.

Bytes under a rule that only ever scales down, which is nearly every layer, take one of the short ways of
requant_rules.py, where their proofs are. All else goes lane by lane through GeneralRequant, which follows
fixedpoint.py to the letter.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

from llvmlite import ir

from npmobilenet.arithmetic.fixedpoint import Rounding
from npmobilenet.kernels.compiler.deferred import alloca_once_value, for_range, for_range_slice, types
from npmobilenet.kernels.vectorcode.general_requant import GeneralRequant
from npmobilenet.kernels.vectorcode.generated import Cells, generated, is_signed, outlined
from npmobilenet.kernels.vectorcode.requant_rules import (
    CENTRED,
    HALVED,
    LINE_FORMS,
    SCALED,
    DownscaleRequant,
    Line,
    NarrowToBytes,
    packs,
)
from npmobilenet.kernels.vectorcode.vector import (
    INT,
    INT32,
    lanes_of,
    load,
    max_of,
    min_of,
    splat,
    store,
    two_pieces,
    variable,
    vector,
)

ZERO_POINTS = 256  # zero points that the short way takes: -256 ... 255


class Tile(NamedTuple):
    """The micro-kernel's arguments."""

    acc: Cells
    rows: Any
    columns: Any
    channel: Any
    requant: Any  # a LinearRequant
    rule: Any
    line: Any
    out: Cells


class Block:
    """Where a group of channels of a Tile reads and writes."""

    def __init__(self, builder: Any, tile: Tile, lanes: int, signed: bool) -> None:
        self.tile, self.requant = tile, tile.requant
        self.rows, self.columns, self.rule = tile.rows, tile.columns, tile.rule
        self.lanes, self.signed = lanes, signed
        self.slot = variable(builder, INT32, lanes)  # room for a vector on the stack

    def parameters_at(self, builder: Any, column: Any) -> tuple[Any, Any, Any]:
        """Pointers to multiplier, shift and scale of a column's channel."""
        at, r = [builder.add(self.tile.channel, column)], self.requant
        return builder.gep(r.multiplier, at), builder.gep(r.shift, at), builder.gep(r.scale, at)

    def line_at(self, builder: Any, column: Any) -> Line:
        """The lines of the channels from a column's on."""
        return Line(builder, self.requant, builder.add(self.tile.channel, column), self.lanes)

    def source(self, builder: Any, row: Any, column: Any) -> Any:
        """The accumulators of a vector."""
        acc = self.tile.acc
        at = builder.add(acc.at, builder.add(builder.mul(row, acc.step), column))
        return load(builder, builder.gep(acc.data, [at]), INT32, self.lanes)

    def target(self, builder: Any, row: Any, column: Any) -> Any:
        """Where a vector's outputs go."""
        out = self.tile.out
        at = builder.add(out.at, builder.add(builder.mul(row, out.step), column))
        return builder.gep(out.data, [at])

    def plain(self, builder: Any) -> Any:
        """Whether zero point and range are a byte's, as those of any sound file are."""
        least, most = (-128, 127) if self.signed else (0, 255)
        near = builder.icmp_unsigned("<", builder.add(self.requant.zero_point, INT(ZERO_POINTS)), INT(2 * ZERO_POINTS))
        ends = (self.requant.low, self.requant.high)
        fits = [builder.icmp_unsigned("<=", builder.sub(v, INT(least)), INT(most - least)) for v in ends]
        return builder.and_(near, builder.and_(*fits))


def _store_some(builder: Any, value: Any, pointer: Any, count: Any, slot: Any) -> None:
    """Store the first `count` lanes, fewer than there are, by way of the stack."""
    kind = value.type.element
    start = builder.bitcast(slot, kind.as_pointer())
    store(builder, value, start)
    for at, size in two_pieces(builder, count, value.type.count):
        store(builder, load(builder, builder.gep(start, [at]), kind, size), builder.gep(pointer, [at]))


def _any(builder: Any, lanes: Any) -> Any:
    """Whether any lane of a vector of booleans is set."""
    bits = ir.IntType(lanes.type.count)
    return builder.icmp_unsigned("!=", builder.bitcast(lanes, bits), bits(0))


def _below(builder: Any, value: Any, limit: Any) -> Any:
    """max(min(value, limit), 0) of scalars."""
    return max_of(builder, min_of(builder, value, limit), INT(0))


def _any_way(builder: Any, args: tuple[Tile, Any], lanes: int, signed: bool) -> None:
    """The columns from the last argument on, by any rule and to any output."""
    tile, start = args
    block = Block(builder, tile, lanes, signed)
    kind = tile.out.data.type.pointee
    scalars = (tile.requant.zero_point, tile.requant.low, tile.requant.high)
    zero_point, low, high = (splat(builder, builder.trunc(value, INT32), lanes) for value in scalars)
    whole = builder.icmp_signed(">=", block.columns, INT(lanes))
    with for_range_slice(builder, start, block.columns, INT(lanes)) as (first, _):
        column = _below(builder, first, builder.sub(block.columns, INT(lanes)))
        step = GeneralRequant(builder, *block.parameters_at(builder, column), lanes)
        for code, function in step.by_rule().items():
            with (
                builder.if_then(builder.icmp_signed("==", block.rule, INT(int(code)))),
                for_range(builder, block.rows) as loop,
            ):
                value = builder.add(function(builder, block.source(builder, loop.index, column)), zero_point)
                value = min_of(builder, max_of(builder, value, low), high)
                value = value if kind == INT32 else builder.trunc(value, vector(kind, lanes))
                pointer = block.target(builder, loop.index, column)
                with builder.if_else(whole) as (yes, no):
                    with yes:
                        store(builder, value, pointer)
                    with no:
                        _store_some(builder, value, pointer, block.columns, block.slot)


def _rows(
    builder: Any, block: Block, columns: list[Any], narrow: NarrowToBytes, form: int, functions: list[Any]
) -> None:
    """Two vectors of channels, all rows, two at a time; where both are the same channels, four rows at a time.

    Rows that would come after the last are the last, computed again. functions: accumulators -> int32 of a `form` that
    NarrowToBytes takes, one for each vector.
    """
    lanes, last = block.lanes, builder.sub(block.rows, INT(1))
    adjacent = builder.icmp_signed("==", builder.sub(columns[1], columns[0]), INT(lanes))
    whole = builder.icmp_signed(">=", block.columns, INT(lanes))
    between = builder.zext(builder.icmp_signed("==", *columns), INT)  # rows between a pair's vectors
    apart = builder.add(between, INT(1))  # rows between the pairs
    taken = builder.shl(apart, INT(1))
    with for_range(builder, builder.udiv(builder.add(last, taken), taken)) as loop:
        first = builder.mul(loop.index, taken)
        starts = [[first, builder.add(first, between)]]
        starts.append([builder.add(row, apart) for row in starts[0]])
        rows = [[min_of(builder, row, last) for row in pair] for pair in starts]
        values = [
            [f(block.source(builder, row, c)) for f, row, c in zip(functions, pair, columns, strict=True)]
            for pair in rows
        ]
        done = narrow(builder, values, form)
        with builder.if_else(adjacent) as (wide, split):
            with wide:
                for pair, value in zip(rows, done, strict=True):
                    store(builder, value, block.target(builder, pair[0], columns[0]))
            with split:
                for pair, value in zip(rows, done, strict=True):
                    for v, (row, column) in enumerate(zip(pair, columns, strict=True)):
                        part = lanes_of(builder, value, range(v * lanes, (v + 1) * lanes))
                        pointer = block.target(builder, row, column)
                        with builder.if_else(whole) as (yes, no):
                            with yes:
                                store(builder, part, pointer)
                            with no:
                                _store_some(builder, part, pointer, block.columns, block.slot)


def _short_way(builder: Any, args: tuple[Tile, Any], lanes: int, signed: bool) -> None:
    """The columns of bytes that may go the short way, from the first on; the last argument gets how many they are."""
    tile, done = args
    block, requant = Block(builder, tile, lanes, signed), tile.requant
    narrow = NarrowToBytes(builder, requant.zero_point, requant.low, requant.high, lanes, signed)
    plain, leave = block.plain(builder), builder.append_basic_block()
    is_rule = {
        code: builder.icmp_signed("==", block.rule, INT(int(code)))
        for code in (Rounding.DOUBLE, Rounding.SINGLE, Rounding.FLOAT32)
    }
    once = builder.or_(builder.icmp_signed("==", block.rule, INT(int(Rounding.UPWARD))), is_rule[Rounding.SINGLE])
    half = splat(builder, builder.select(is_rule[Rounding.SINGLE], INT(0), INT(1 << 30)), lanes // 2)
    least = 1 if packs(lanes) else 2
    with for_range_slice(builder, INT(0), block.columns, INT(2 * lanes)) as (start, _):
        # The last vector of an odd number stands alone: then both are the same channels.
        single = builder.icmp_signed("<=", builder.sub(block.columns, start), INT(lanes))
        taken = builder.select(single, INT(lanes), INT(2 * lanes))
        first = _below(builder, start, builder.sub(block.columns, taken))
        columns = [first, _below(builder, builder.add(first, INT(lanes)), builder.sub(block.columns, INT(lanes)))]
        following = builder.append_basic_block()
        for code, method in LINE_FORMS.items():
            with builder.if_then(builder.icmp_signed("==", tile.line, INT(code))):
                each = [block.line_at(builder, column) for column in columns]
                _rows(
                    builder,
                    block,
                    columns,
                    narrow,
                    CENTRED,
                    [functools.partial(method, line, builder) for line in each],
                )
                builder.branch(following)
        downs = [DownscaleRequant(builder, *block.parameters_at(builder, column), lanes) for column in columns]
        fits = builder.not_(_any(builder, builder.or_(*(down.short(builder, least) for down in downs))))
        ways = [
            (builder.and_(is_rule[Rounding.DOUBLE], fits), DownscaleRequant.double, HALVED),
            (builder.and_(once, fits), DownscaleRequant.once, HALVED),
            (is_rule[Rounding.FLOAT32], DownscaleRequant.float32, SCALED),
        ]
        for wanted, way, form in ways:
            with builder.if_then(builder.and_(plain, wanted)):
                functions = [functools.partial(way, d, builder, half=half, by=d.by(builder, 1)) for d in downs]
                _rows(builder, block, columns, narrow, form, functions)
                builder.branch(following)
        builder.store(start, done)
        builder.branch(leave)
        builder.position_at_end(following)
    builder.store(block.columns, done)
    builder.branch(leave)
    builder.position_at_end(leave)


def requantize_kernel(lanes: int) -> Any:
    """An intrinsic that takes the step from accumulators to outputs for a block of rows and channels.

    kernel(acc: Cells, rows, columns, channel, requant, rule, line, out: Cells): out's row r, column j =
    fixedpoint.requantized(acc's, channel + j, requant) with `rule` for all channels, for r < rows and j < columns.
    line: one of LINE_FORMS where all these channels have such a line, else 0. Nothing is checked.

    Vectors of channels load their parameters once for all rows. Where columns are no whole number of vectors (or, of
    bytes, of pairs of them), the last one starts earlier and computes some outputs again; of fewer columns than a
    vector has lanes, accumulators and parameters are read for all lanes and the outputs of the first are stored.
    """

    @generated
    def kernel(builder, kinds, acc, rows, columns, channel, requant, rule, line, out):
        dtype, signed = kinds.out.data.dtype, is_signed(kinds.out.data)
        tile, done = Tile(acc, rows, columns, channel, requant, rule, line, out), alloca_once_value(builder, INT(0))
        ways = {way: functools.partial(way, lanes=lanes, signed=signed) for way in (_short_way, _any_way)}
        if dtype != types.int32:
            outlined(builder, f"requantize_short_{lanes}_{dtype}", (tile, done), ways[_short_way])
        first = builder.load(done)
        with builder.if_then(builder.icmp_signed("<", first, columns), likely=False):
            outlined(builder, f"requantize_any_{lanes}_{dtype}", (tile, first), ways[_any_way])

    return kernel
