"""The table of hypotheses: one row for each kind, the likeliest and cheapest first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from npmobilenet.arithmetic.dialects import DIALECTS
from npmobilenet.errors import NpMobilenetError
from npmobilenet.golden.causes import (
    bits,
    channelwise,
    constants,
    elementwise,
    exchanged,
    geometry,
    loops,
    memory,
    moves,
    multiplying,
    places,
    pools,
    results,
    solved,
    solved_ops,
    stepwise,
    tables,
    undumped,
    undumped_pairs,
)
from npmobilenet.golden.causes.case import Case, Change
from npmobilenet.golden.single_node import run
from npmobilenet.runtime.taps import ACCUMULATING

WINDOWS = ("conv2d", "depthwise_conv2d")
POOLS = ("average_pool", "max_pool")
BEFORE, BEHIND, ANYWHERE = "before", "behind", "anywhere"  # on which side of the accumulators


@dataclass(frozen=True)
class Row:
    """A kind of cause: its name, the ops that it may occur in (none named: all), the side of the accumulators on which
    it lies, and what makes its changes. `last`: only where nothing else explains everything. `beside`: then, too, if a
    few values are explained by single numbers alone.
    """

    kind: str
    ops: tuple[str, ...]
    side: str
    make: Callable[[Case], Iterator[Change]]
    last: bool = False
    beside: bool = False


def _dialects(c: Case) -> Iterator[Change]:
    """Another dialect's rounding."""
    for name in DIALECTS:
        if name != c.dialect:
            try:
                values = run(c.what, name, stage=c.stage)
            except NpMobilenetError:
                continue
            yield Change(f"it rounds as {name} does", values=values)


ROWS = (
    Row("dialect", (), BEHIND, _dialects),
    Row("single number", ACCUMULATING, BEFORE, bits.single_numbers),
    Row("bias", ACCUMULATING, BEFORE, constants.bias),
    Row("padding and window", WINDOWS, BEFORE, geometry.windows),
    Row("padding's value", WINDOWS, BEFORE, geometry.fillings),
    Row("zero point or type of operands", ACCUMULATING, BEFORE, constants.zero_points),
    Row("exchanged numbers", ACCUMULATING, BEFORE, exchanged.exchanged),
    Row("clamp or zero point", ACCUMULATING, BEHIND, results.clamps),
    Row("activation fused later", ACCUMULATING, BEHIND, results.fused),
    Row("bias behind the rescaling", ACCUMULATING, ANYWHERE, results.bias_behind),
    Row("multiplier", ACCUMULATING, BEHIND, results.factors),
    Row("rounding", ACCUMULATING, BEHIND, results.roundings),
    Row("multiplier's bits", ACCUMULATING, BEHIND, results.short_multipliers),
    Row("scales of 16 bits", ACCUMULATING, BEHIND, solved.half_scales),
    Row("accumulator", ACCUMULATING, BEFORE, results.limits),
    Row("weights", ACCUMULATING, BEFORE, constants.weights),
    Row("products left out", ACCUMULATING, BEFORE, constants.taps),
    Row("number of a layer that isn't dumped", ACCUMULATING, ANYWHERE, undumped.undumped, last=True),
    Row("channels of a layer that isn't dumped", ACCUMULATING, BEFORE, undumped_pairs.undumped_pairs, last=True),
    Row("cast", ACCUMULATING, BEHIND, results.casts, last=True, beside=True),
    Row("cast of a function", ("activation", "leaky_relu", "quantize"), ANYWHERE, tables.casts, last=True),
    Row("multiplication", ACCUMULATING, BEHIND, multiplying.multiplying, last=True, beside=True),
    Row("another layer's numbers", ACCUMULATING, ANYWHERE, memory.pointers, last=True),
    Row("weights apart", ("conv2d",), BEFORE, memory.apart, last=True),
    Row("depth multiplier", ("depthwise_conv2d",), BEFORE, memory.channels_modulo, last=True),
    Row("weights of few bits", ACCUMULATING, BEFORE, channelwise.few_bits, last=True),
    Row("tiles", WINDOWS, BEFORE, loops.halos, last=True),
    Row("sums not cleared", ACCUMULATING, BEFORE, loops.sums, last=True, beside=True),
    Row("part of the products", ACCUMULATING, BEFORE, loops.parts, last=True),
    Row("lanes and bytes", ACCUMULATING, BEFORE, loops.lanes, last=True),
    Row("sum or product", ("add", "sub", "mul"), ANYWHERE, elementwise.binary),
    Row("pool", POOLS, ANYWHERE, pools.pool),
    Row("mean", ("mean",), ANYWHERE, pools.mean),
    Row("function", ("activation", "unary", "leaky_relu", "quantize"), ANYWHERE, tables.table),
    Row("softmax", ("softmax",), ANYWHERE, tables.softmax),
    Row("resize", ("resize_bilinear", "resize_nearest"), ANYWHERE, moves.resize),
    Row("concat", ("concat",), ANYWHERE, moves.concat),
    Row("moved values", ("pad", "reshape", "transpose", "slice"), ANYWHERE, moves.moves),
    Row("scale", (), ANYWHERE, results.scales),
    Row("buffer", (), ANYWHERE, geometry.stale),
    Row("order of an operand", (), BEFORE, geometry.inputs),
    Row("input's channels rolled", ACCUMULATING, BEFORE, exchanged.rolled_inputs, last=True),
    Row("order of the output", (), ANYWHERE, places.places),
    Row("values", (), BEHIND, places.values),
    Row("unwritten", (), ANYWHERE, places.unwritten),
    Row("input of another time", WINDOWS, BEFORE, memory.partly_stale, last=True),
    Row("memory", (), ANYWHERE, memory.memory, last=True),
    Row("overlapping buffers", (), ANYWHERE, memory.overlaps, last=True),
    Row("number off by any amount", ACCUMULATING, ANYWHERE, solved.layers, last=True),
    Row("operand off by any amount", ("add", "sub", "mul"), ANYWHERE, solved_ops.elementwise, last=True),
    Row("divisor or scale", ("average_pool", "mean"), ANYWHERE, solved_ops.averages, last=True),
    Row("scale of a function", ("activation", "leaky_relu", "quantize"), ANYWHERE, solved_ops.functions, last=True),
    Row("floats of 8-bit values", ("dequantize",), ANYWHERE, solved_ops.dequantized, last=True),
    Row("exponent", ("softmax",), ANYWHERE, solved_ops.softmax, last=True),
    Row("rows or channels standing elsewhere", (), ANYWHERE, places.moved_lines, last=True),
    Row("entries of a table", ("activation", "leaky_relu", "quantize"), ANYWHERE, tables.learnt, last=True),
    Row("exchanged weights", ACCUMULATING, BEFORE, exchanged.weights_of_one, last=True),
    Row("exchanged channels", ACCUMULATING, BEFORE, exchanged.channels_of_others, last=True),
    Row("accumulator, step by step", ACCUMULATING, BEFORE, stepwise.stepwise, last=True, beside=True),
    Row("multiplier's bits and rounding", ACCUMULATING, BEHIND, results.short_and_rounded, last=True, beside=True),
    Row("shared bias", ACCUMULATING, BEFORE, bits.shared_bias, last=True),
    Row("numbers of each channel", ACCUMULATING, ANYWHERE, channelwise.own_numbers, last=True),
)
