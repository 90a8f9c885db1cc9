"""Integer matrix products: this machine's micro-kernels, packing for them, and the loops around them.

A micro-kernel computes a tile of MR rows by NR columns, each lane from KR products at a time.
"""

from __future__ import annotations

import numpy as np
from numba.extending import register_jitable

from npmobilenet.kernels.compiler.jit import LANES, REGISTERS, isa
from npmobilenet.kernels.vectorcode.gemm_s8 import BYTES, gemm_s8_kernel, gemm_s8_linear_kernel, kr_of
from npmobilenet.kernels.vectorcode.requant_epilogue import requantize_tile
from npmobilenet.kernels.vectorcode.requant_rules import ONE_OFFSET, PATCHED, TWO_OFFSETS
from npmobilenet.kernels.vectorcode.vector_s8 import DOUBLE_ROUNDING, UPWARD

LANE = LANES[isa()]
# "vnni": dot products of four bytes, one operand signed; "dotprod": of four bytes alike; "pairs": of two int16.
KIND = {"avx512vnni": "vnni", "dotprod": "dotprod"}.get(isa(), "pairs" if LANE >= 8 else "generic")
KR = kr_of(KIND)
PACKED = np.int8 if KIND in BYTES else np.int16
SIGN_OFFSET = 128 if KIND == "vnni" else 0  # by how much uint8 weights move down and int8 rows up, see pack_rhs
# MR rows x VECTORS: accumulators + weight vectors + one broadcast fill the registers, as in gemm_f32.py.
MR = 12 if REGISTERS[isa()] == 32 else 6
VECTORS = 2
NR = VECTORS * LANE  # output channels in a panel
MR_LOW = 3

tall_kernel = gemm_s8_kernel(MR, VECTORS, LANE, KIND)
few_kernel = gemm_s8_kernel(MR_LOW, VECTORS, LANE, KIND)
one_kernel = gemm_s8_kernel(1, VECTORS, LANE, KIND)
# For the last panel where its channels fit into one vector.
tall_half_kernel = gemm_s8_kernel(MR, 1, LANE, KIND, NR)
one_half_kernel = gemm_s8_kernel(1, 1, LANE, KIND, NR)
# For panels whose channels all have a line.
tall_linear_kernel = gemm_s8_linear_kernel(MR, VECTORS, LANE, KIND, NR)
tall_half_linear_kernel = gemm_s8_linear_kernel(MR, 1, LANE, KIND, NR)
requantize_vectors = requantize_tile(LANE)


def pack_rhs(weights: np.ndarray, bias: np.ndarray, zero_points: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """(depth, Cout) and bias -> panels (panels, groups, NR, KR), bias (panels * NR,), zeros filling up.

    sum (x - z_in)(w - z_w) = sum x' w' - v' sum x' - z' sum (w - z_w), where x' = x + z' - z_in and w' = w + v' - z_w
    are what the tiles multiply. The last term goes into the bias here; the tile subtracts the one before it, which is
    lhs_packing.row_sums. "vnni": the instruction wants x' unsigned and w' signed: uint8 weights become w' = w - 128,
    int8 rows x' = x + 128. "dotprod": two unsigned or two signed operands, so x' = x and w' = w. "pairs", "generic":
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
    stop = channel + columns
    if requant.one_offset[stop] - requant.one_offset[channel] == columns:
        return ONE_OFFSET
    if requant.two_offsets[stop] - requant.two_offsets[channel] == columns:
        return TWO_OFFSETS
    return PATCHED if requant.patched[stop] - requant.patched[channel] == columns else 0


@register_jitable
def requantize_block(acc, acc_step, rows, columns, channel, requant, out, out_at, out_step):
    """The outputs of `rows` rows by `columns` channels from their accumulators.

    acc and the parameters are read a whole vector at least, so fewer columns have to be filled up to LANE.
    """
    # "upward" differs from "double" only in ties below zero, which a clamp at or above the zero point hides (relu).
    rule = UPWARD if requant.rule == DOUBLE_ROUNDING and requant.low >= requant.zero_point else requant.rule
    requantize_vectors(acc, 0, acc_step, rows, columns, channel, requant.multiplier, requant.shift, requant.scale, rule,
                       requant.zero_point, requant.low, requant.high, requant.slope, requant.offset, requant.below,
                       requant.exceptions, line_form(requant, channel, columns), out, out_at, out_step)  # fmt: skip


@register_jitable
def new_accumulators():
    """What gemm_block needs: asking for memory in each call took a quarter of the first convolution's time."""
    return np.empty(MR * NR, np.int32)


@register_jitable
def linear_kernels(buffer, start, row_step, x_segment, segments, groups, w, w_at, sums, bias, channel, requant, line,
                   out, at, channels, columns, count):  # fmt: skip
    """`count` tiles of MR rows from `start` on."""
    sums_at = 0 if sums.size > 0 else -1
    if columns > LANE:
        tall_linear_kernel(buffer, start, row_step, x_segment, segments, w, w_at, groups, sums, sums_at, bias, channel,
                       requant.slope, requant.offset, requant.below, requant.exceptions, line, requant.low,
                       requant.high, out, at, channels, count, columns)  # fmt: skip
    else:
        tall_half_linear_kernel(buffer, start, row_step, x_segment, segments, w, w_at, groups, sums, sums_at, bias,
                                channel, requant.slope, requant.offset, requant.below, requant.exceptions, line,
                                requant.low, requant.high, out, at, channels, count, columns)  # fmt: skip


@register_jitable
def linear_rows(buffer, start, row_step, x_segment, segments, groups, w, w_at, sums, bias, requant, out, channels,
                first, count, channel, columns):  # fmt: skip
    """The rows of a panel whose channels have a line, in tiles of MR; how many those are.

    Where the rest is better computed by a tile that begins earlier, and does some rows again, it is all of them. (In
    clocks of Zen 4, a tile takes some 24 for each group and 100; low tiles 2 and 100 for each row.)
    """
    line, at = line_form(requant, channel, columns), first * channels + channel
    if line == 0 or count < MR or (columns % LANE != 0 and LANE != 16):
        return 0
    tiles = count // MR
    rest, depth = count - tiles * MR, segments * groups
    linear_kernels(buffer, start, row_step, x_segment, segments, groups, w, w_at, sums, bias, channel, requant, line,
                   out, at, channels, columns, tiles)  # fmt: skip
    if rest * (2 * depth + 100) <= 2 * MR * depth + 100:
        return count - rest
    skip = count - MR
    linear_kernels(buffer, start + skip * row_step, row_step, x_segment, segments, groups, w, w_at, sums[skip:], bias,
                 channel, requant, line, out, at + skip * channels, channels, columns, 1)  # fmt: skip
    return count


@register_jitable
def gemm_block(buffer, start, row_step, x_segment, segments, groups, w, sums, bias, requant, out, channels, first,
               count, panel, panel_stop, acc):  # fmt: skip
    """`count` rows of the buffer from `start`, the output rows from `first`, by panels panel ... panel_stop - 1.

    sums: of the rows, see pack_rhs, or empty. acc: new_accumulators().
    """
    for p in range(panel, panel_stop):
        channel, w_at = p * NR, p * segments * groups * NR * KR
        columns = min(NR, channels - channel)
        r = linear_rows(buffer, start, row_step, x_segment, segments, groups, w, w_at, sums, bias, requant, out,
                        channels, first, count, channel, columns)  # fmt: skip
        while r < count:
            rows = MR if count - r >= MR else MR_LOW if count - r >= MR_LOW and channels - channel > LANE else 1
            at, sums_at = start + r * row_step, r if sums.size > 0 else -1
            if channels - channel <= LANE:
                if rows == MR:
                    tall_half_kernel(
                        buffer, at, row_step, x_segment, segments, w, w_at, groups, sums, sums_at, bias, channel, acc
                    )  # fmt: skip
                else:
                    one_half_kernel(
                        buffer, at, row_step, x_segment, segments, w, w_at, groups, sums, sums_at, bias, channel, acc
                    )  # fmt: skip
            elif rows == MR:
                tall_kernel(
                    buffer, at, row_step, x_segment, segments, w, w_at, groups, sums, sums_at, bias, channel, acc
                )
            elif rows == MR_LOW:
                few_kernel(
                    buffer, at, row_step, x_segment, segments, w, w_at, groups, sums, sums_at, bias, channel, acc
                )
            else:
                one_kernel(
                    buffer, at, row_step, x_segment, segments, w, w_at, groups, sums, sums_at, bias, channel, acc
                )
            requantize_block(acc, NR, rows, columns, channel, requant, out, (first + r) * channels + channel,
                             channels)  # fmt: skip
            r += rows
