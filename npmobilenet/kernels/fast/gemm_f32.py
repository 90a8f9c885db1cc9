"""Float matrix products: the micro-kernels that this machine's instruction set calls for, and the loops around them.

A micro-kernel computes a tile of MR rows by NR columns in registers.
"""

from __future__ import annotations

import numpy as np
from numba.extending import register_jitable

from npmobilenet.graph import ACTIVATIONS
from npmobilenet.kernels.compiler.jit import LANES, REGISTERS, isa
from npmobilenet.kernels.fast.activation import activate_all
from npmobilenet.kernels.vectorcode.vector import VECTOR_ACTIVATIONS, gemm_f32_kernel

LANE = LANES[isa()]
# MR rows x VECTORS: accumulators + weight vectors + one broadcast fill the registers:
# 32 of AVX-512 (and NEON) hold 12 x 2 + 2 + 1, the 16 of AVX2 (and SSE) 6 x 2 + 2 + 1.
MR = 12 if REGISTERS[isa()] == 32 else 6
VECTORS = 2
NR = VECTORS * LANE  # output channels in a panel
BLOCK = 4 * MR  # rows, at least, that pass over all panels before the next ones
NEAR = 4096  # values of the rows that do so: half of a first-level cache
MR_LOW = 4  # rows of the middle micro-kernel, for what the tall one leaves

HALF = LANE // 2

# Micro-kernels by their height; of a panel that is whole, three quarters, a half or a quarter of NR.
tall_kernel, few_kernel, one_kernel = (gemm_f32_kernel(rows, (LANE, LANE)) for rows in (MR, MR_LOW, 1))
tall_kernel_3, few_kernel_3, one_kernel_3 = (gemm_f32_kernel(rows, (LANE, HALF)) for rows in (MR, MR_LOW, 1))
tall_kernel_2, few_kernel_2, one_kernel_2 = (gemm_f32_kernel(rows, (LANE,)) for rows in (MR, MR_LOW, 1))
tall_kernel_1, few_kernel_1, one_kernel_1 = (gemm_f32_kernel(rows, (HALF,)) for rows in (MR, MR_LOW, 1))
# Activations that the micro-kernels leave to activate_all.
LEFT_OUT = tuple(code for code in range(1, len(ACTIVATIONS)) if code not in VECTOR_ACTIVATIONS)


def pack_panels(weights: np.ndarray) -> np.ndarray:
    """(..., depth, Cout) -> (..., depth, padded): one panel of NR output channels after the other.

    The last panel is as wide as its channels need, in steps of HALF, filled up with zeros. The shape only tells the
    numbers of taps and channels; in memory panel p, (..., depth, its width), begins at p * NR * (taps * depth).
    """
    *taps, channels = weights.shape
    padded = -(-channels // HALF) * HALF
    matrix = weights.reshape(-1, channels)
    flat = np.zeros((len(matrix), padded), np.float32)
    flat[:, :channels] = matrix
    panels = [flat[:, first : first + NR].reshape(-1) for first in range(0, padded, NR)]
    return np.concatenate(panels).reshape(*taps, padded)


@register_jitable
def compute(x, x_at, row_step, x_segment, w, w_at, w_segment, segments, depth,
            bias, channel, activation, more, adds, out, out_at, out_step, rows, width):  # fmt: skip
    """`rows` rows of a panel of `width` columns, straight into `out`; more, adds: see gemm_f32_kernel."""
    tall = rows // MR
    few = (rows - tall * MR) // MR_LOW
    one = rows - tall * MR - few * MR_LOW
    if tall > 0:
        if width == NR:
            tall_kernel(x, x_at, row_step, x_segment, w, w_at, w_segment, segments, depth, bias, channel, activation,
                      more, adds, out, out_at, out_step, tall)  # fmt: skip
        elif width == 3 * HALF:
            tall_kernel_3(x, x_at, row_step, x_segment, w, w_at, w_segment, segments, depth, bias, channel, activation,
                        more, adds, out, out_at, out_step, tall)  # fmt: skip
        elif width == LANE:
            tall_kernel_2(x, x_at, row_step, x_segment, w, w_at, w_segment, segments, depth, bias, channel, activation,
                        more, adds, out, out_at, out_step, tall)  # fmt: skip
        else:
            tall_kernel_1(x, x_at, row_step, x_segment, w, w_at, w_segment, segments, depth, bias, channel, activation,
                        more, adds, out, out_at, out_step, tall)  # fmt: skip
        x_at, out_at = x_at + tall * MR * row_step, out_at + tall * MR * out_step
    if few > 0:
        if width == NR:
            few_kernel(x, x_at, row_step, x_segment, w, w_at, w_segment, segments, depth, bias, channel, activation,
                     more, adds, out, out_at, out_step, few)  # fmt: skip
        elif width == 3 * HALF:
            few_kernel_3(x, x_at, row_step, x_segment, w, w_at, w_segment, segments, depth, bias, channel, activation,
                       more, adds, out, out_at, out_step, few)  # fmt: skip
        elif width == LANE:
            few_kernel_2(x, x_at, row_step, x_segment, w, w_at, w_segment, segments, depth, bias, channel, activation,
                       more, adds, out, out_at, out_step, few)  # fmt: skip
        else:
            few_kernel_1(x, x_at, row_step, x_segment, w, w_at, w_segment, segments, depth, bias, channel, activation,
                       more, adds, out, out_at, out_step, few)  # fmt: skip
        x_at, out_at = x_at + few * MR_LOW * row_step, out_at + few * MR_LOW * out_step
    if one > 0:
        if width == NR:
            one_kernel(x, x_at, row_step, x_segment, w, w_at, w_segment, segments, depth, bias, channel, activation,
                     more, adds, out, out_at, out_step, one)  # fmt: skip
        elif width == 3 * HALF:
            one_kernel_3(x, x_at, row_step, x_segment, w, w_at, w_segment, segments, depth, bias, channel, activation,
                       more, adds, out, out_at, out_step, one)  # fmt: skip
        elif width == LANE:
            one_kernel_2(x, x_at, row_step, x_segment, w, w_at, w_segment, segments, depth, bias, channel, activation,
                       more, adds, out, out_at, out_step, one)  # fmt: skip
        else:
            one_kernel_1(x, x_at, row_step, x_segment, w, w_at, w_segment, segments, depth, bias, channel, activation,
                       more, adds, out, out_at, out_step, one)  # fmt: skip


@register_jitable
def block(x, x_at, row_step, x_segment, w, w_at, w_segment, segments, depth,
          bias, channel, columns, activation, more, out, out_at, out_step, rows, scratch):  # fmt: skip
    """As `compute`, for panels of any number of columns.

    One that doesn't fill its vectors is computed whole, with zero weights and biases, into `scratch`, and its columns
    are copied out. `scratch` holds NR biases and then MR * NR values. `more`, laid out as `out`, is added to
    the results unless it is empty.
    """
    width = (columns + HALF - 1) // HALF * HALF
    adds = more.size > 0
    at_once = adds and columns == width and activation not in LEFT_OUT
    if columns == width:
        compute(x, x_at, row_step, x_segment, w, w_at, w_segment, segments, depth, bias, channel, activation,
                more, at_once, out, out_at, out_step, rows, width)  # fmt: skip
    else:
        for j in range(width):
            scratch[j] = bias[channel + j] if j < columns else np.float32(0)
        for first in range(0, rows, MR):
            count = min(MR, rows - first)
            compute(x, x_at + first * row_step, row_step, x_segment, w, w_at, w_segment, segments, depth, scratch, 0,
                    activation, more, False, scratch, NR, NR, count, width)  # fmt: skip
            for r in range(count):
                for j in range(columns):
                    out[out_at + (first + r) * out_step + j] = scratch[NR + r * NR + j]
    if activation in LEFT_OUT:
        for r in range(rows):
            activate_all(out, out_at + r * out_step, columns, activation)
    if adds and not at_once:
        for r in range(rows):
            first = out_at + r * out_step
            for i in range(first, first + columns):
                out[i] = out[i] + more[i]


@register_jitable
def new_scratch():
    """What block needs."""
    return np.empty((1 + MR) * NR, np.float32)


@register_jitable
def matrix_block(
    x, row_step, depth, packed, bias, activation, more, out, channels, row, stop, panel, panel_stop, scratch
):
    """Rows row ... stop - 1 by panels panel ... panel_stop - 1 of a matrix product; x and out flat.

    more, scratch: see block.
    """
    w = packed.reshape(-1)
    for p in range(panel, panel_stop):
        first = p * NR
        columns = min(NR, channels - first)
        block(x, row * row_step, row_step, 0, w, p * depth * NR, 0, 1, depth, bias, first, columns, activation,
              more, out, row * channels + first, channels, stop - row, scratch)  # fmt: skip


@register_jitable
def matrix_rows(x, row_step, depth, packed, bias, activation, more, out, channels, first, stop, scratch):
    """Rows first ... stop - 1 of a matrix product, some at a time: they stay near while the panels stream by.

    more, scratch: see matrix_block.
    """
    panels = (channels + NR - 1) // NR
    rows = max(NEAR // max(depth, 1) // MR * MR, BLOCK)
    for row in range(first, stop, rows):
        matrix_block(x, row_step, depth, packed, bias, activation, more, out, channels, row, min(row + rows, stop),
                     0, panels, scratch)  # fmt: skip
