"""Integer matrix products: this machine's micro-kernels, packing for them, and the loops around them.

A micro-kernel computes a tile of MR rows by NR columns, each lane from KR products at a time.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from npmobilenet.arithmetic.fixedpoint import Requantization, Rounding
from npmobilenet.kernels.compiler.cpu import LANES, REGISTERS, isa
from npmobilenet.kernels.compiler.deferred import register_jitable
from npmobilenet.kernels.vectorcode.gemm_s8 import BYTES, ON_ARM, gemm_s8_kernel, gemm_s8_linear_kernel, kr_of
from npmobilenet.kernels.vectorcode.generated import Cells, Lhs, Panel, RowSums, borrowed, one_of, stack_array
from npmobilenet.kernels.vectorcode.requant_epilogue import requantize_kernel
from npmobilenet.kernels.vectorcode.requant_rules import ONE_OFFSET, PATCHED, TWO_OFFSETS

LANE = LANES[isa()]
# "vnni": dot products of four bytes, one operand signed; "dotprod": of four bytes alike; "i8mm": of eight, two rows by
# two columns; "pairs": of two int16.
KIND = "vnni" if "vnni" in isa() else isa() if isa() in ON_ARM else "pairs" if LANE >= 8 else "generic"
LANE_KIND = "dotprod" if KIND == "i8mm" else KIND  # where each lane has operands of its own: depthwise, sums of rows
KR = kr_of(KIND)
PACKED = np.int8 if KIND in BYTES else np.int16
SIGN_OFFSET = 128 if KIND == "vnni" else 0  # by how much uint8 weights move down and int8 rows up, see pack_rhs
# MR rows x VECTORS: accumulators + weight vectors + one broadcast fill the registers, as in gemm_f32.py.
MR = 12 if REGISTERS[isa()] == 32 else 6
VECTORS = 2
NR = VECTORS * LANE  # output channels in a panel
MR_LOW = 4 if KIND == "i8mm" else 3

# By the number of rows, and whether that is all: negative where a panel's channels fit into one vector.
sums_of = one_of(
    {MR: gemm_s8_kernel(MR, VECTORS, LANE, KIND), MR_LOW: gemm_s8_kernel(MR_LOW, VECTORS, LANE, KIND),
     1: gemm_s8_kernel(1, VECTORS, LANE, KIND), -MR: gemm_s8_kernel(MR, 1, LANE, KIND, NR),
     -1: gemm_s8_kernel(1, 1, LANE, KIND, NR)}
)  # fmt: skip
# For panels whose channels all have a line, by whether they take all vectors; negative for MR_LOW rows.
bytes_of = one_of(
    {v if rows == MR else -v: gemm_s8_linear_kernel(rows, v, LANE, KIND, NR)
     for rows in (MR, MR_LOW) for v in (VECTORS, 1)}
)  # fmt: skip
requantize_vectors = requantize_kernel(LANE)


def pack_rhs(weights: np.ndarray, bias: np.ndarray, zero_points: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """(depth, Cout) and bias -> panels (panels, groups, NR, KR), bias (panels * NR,), zeros filling up.

    sum (x - z_in)(w - z_w) = sum x' w' - v' sum x' - z' sum (w - z_w), where x' = x + z' - z_in and w' = w + v' - z_w
    are what the tiles multiply. The last term goes into the bias here; the tile subtracts the one before it, which is
    lhs_packing.row_sums. "vnni": the instruction wants x' unsigned and w' signed: uint8 weights become w' = w - 128,
    int8 rows x' = x + 128. "dotprod", "i8mm": both unsigned or both signed, so x' = x and w' = w. "pairs", "generic":
    the weights without their zero point (v' = 0); rows lose theirs when they are copied (z' = 0).
    """
    depth, channels = weights.shape
    panels, groups = -(-channels // NR), -(-depth // KR)
    centred_weights, folded_bias = weights.astype(np.int64) - zero_points[1], np.zeros(panels * NR, np.int64)
    folded_bias[:channels] = bias
    padded = np.zeros((groups * KR, panels * NR), PACKED)
    if KIND in BYTES:
        signed = weights.dtype == np.int8  # as the rows are
        padded[:depth, :channels] = weights.view(np.int8)
        if SIGN_OFFSET and not signed:
            padded[:depth, :channels] ^= np.int8(-128)  # the uppermost bit turned over: w - 128
        folded_bias[:channels] -= (zero_points[0] + SIGN_OFFSET * signed) * centred_weights.sum(0)
    else:
        padded[:depth, :channels] = centred_weights
    packed = padded.reshape(groups, KR, panels, NR).transpose(2, 0, 3, 1)
    return np.ascontiguousarray(packed), folded_bias.astype(np.int32)


@register_jitable
def line_form(requant, channel, columns):
    """One of requant_rules.LINE_FORMS where these channels have a line, else 0."""
    requant, stop = borrowed(requant), channel + columns
    if requant.one_offset[stop] - requant.one_offset[channel] == columns:
        return ONE_OFFSET
    if requant.two_offsets[stop] - requant.two_offsets[channel] == columns:
        return TWO_OFFSETS
    return PATCHED if requant.patched[stop] - requant.patched[channel] == columns else 0


@register_jitable
def requantize_block(acc, rows, columns, channel, requant, rule, out):
    """The outputs (Cells) of `rows` rows by `columns` channels from their accumulators (Cells), all by one rule.

    acc and the parameters are read a whole vector at least, so fewer columns have to be filled up to LANE.
    """
    acc, requant, out = borrowed((acc, requant, out))
    # "upward" differs from "double" only in ties below zero, which a clamp at or above the zero point hides (relu).
    if rule == Rounding.DOUBLE and requant.low >= requant.zero_point:
        rule = Rounding.UPWARD
    requantize_vectors(acc, rows, columns, channel, requant, rule, line_form(requant, channel, columns), out)


class Layer(NamedTuple):
    """What all outputs of a layer share: packed weights, biases, and the LinearRequant."""

    weights: Any
    bias: Any
    requant: Any


new_accumulators = stack_array(MR * NR, "int32")  # what gemm_block needs


@register_jitable
def linear_rows(lhs, sums, panel, requant, out, count, columns):
    """The rows of a panel whose channels have a line, in tiles of MR, or MR_LOW if they are fewer; how many those are.

    Where the rest is better computed by a tile that begins earlier, and does some rows again, it is all of them. (In
    clocks of Zen 4, a tile takes some 24 for each group and 100; low tiles 2 and 100 for each row.)
    """
    lhs, sums, panel, requant, out = borrowed((lhs, sums, panel, requant, out))
    line = line_form(requant, panel.channel, columns)
    if line == 0 or count < MR_LOW or (columns % LANE != 0 and LANE != 16):
        return 0
    height, vectors, sums_at = MR if count >= MR else MR_LOW, 2 if columns > LANE else 1, 0 if sums.size > 0 else -1
    tiles = count // height
    rest, depth, number = count - tiles * height, lhs.segments * lhs.depth, vectors if height == MR else -vectors
    bytes_of(number, lhs, panel, RowSums(sums, sums_at), requant, line, out, tiles, columns)
    if rest * (2 * depth + 100) <= 2 * height * depth + 100:
        return count - rest
    skip = count - height
    lhs = Lhs(lhs.data, lhs.at + skip * lhs.step, lhs.step, lhs.segment, lhs.segments, lhs.depth)
    out = Cells(out.data, out.at + skip * out.step, out.step)
    bytes_of(number, lhs, panel, RowSums(sums[skip:], sums_at), requant, line, out, 1, columns)
    return count


@register_jitable
def gemm_block(lhs, sums, layer, out, count, panels, acc):
    """`count` rows of lhs by panels panels[0] ... panels[1] - 1.

    lhs: Lhs, whose depth is groups. sums: of the rows, see pack_rhs, or empty. out: Cells, whose step is the number of
    channels. acc: new_accumulators().
    """
    lhs, sums, layer, out, acc = borrowed((lhs, sums, layer, out, acc))
    segment = lhs.depth * NR * KR
    for p in range(panels[0], panels[1]):
        channel = p * NR
        columns = min(NR, out.step - channel)
        panel = Panel(layer.weights, p * lhs.segments * segment, segment, layer.bias, channel)
        to = Cells(out.data, out.at + channel, out.step)
        r = linear_rows(lhs, sums, panel, layer.requant, to, count, columns)
        while r < count:
            rows = MR if count - r >= MR else MR_LOW if count - r >= MR_LOW and columns > LANE else 1
            some = Lhs(lhs.data, lhs.at + r * lhs.step, lhs.step, lhs.segment, lhs.segments, lhs.depth)
            number, sums_at = rows if columns > LANE else -rows, r if sums.size > 0 else -1
            sums_of(number, some, panel, RowSums(sums, sums_at), acc)
            target = Cells(out.data, to.at + r * out.step, out.step)
            requantize_block(
                Cells(acc, 0, NR), rows, columns, channel, layer.requant, layer.requant.rule.inside, target
            )
            r += rows


# ---------------------------------------------------------------------------------------------------------------------
# Panels

LARGEST_PANEL = 64  # output channels that a micro-kernel of any instruction set computes together, at most


def filled_up(requant: Requantization) -> Requantization:
    """The channels' parameters filled up with zeros to whole panels: the last panel is computed whole.

    Half a vector of channels is repeated: two pixels may be computed as one (depthwise_conv2d_q.py, conv2d_q.py).
    """
    count = len(requant.multiplier)
    size = count + -count % LARGEST_PANEL
    repeated = size if 2 * count == LANE else count
    multiplier, shift, scale = (np.pad(np.resize(array, repeated), (0, size - repeated)) for array in requant[:3])
    return requant._replace(multiplier=multiplier, shift=shift, scale=scale)
