"""The tiles that this machine's instruction set calls for, and the loops around them that several kernels share."""

from __future__ import annotations

import numpy as np
from numba.extending import register_jitable

from npmobilenet.graph import ACTIVATIONS
from npmobilenet.kernels.fast.activation import activate_all
from npmobilenet.kernels.fast.vector import VECTOR_ACTIVATIONS, matrix_tile
from npmobilenet.kernels.jit import LANES, isa

LANE = LANES[isa()]
# Rows x vectors of the matrix tile: accumulators + weight vectors + one broadcast fill the registers:
# 32 of AVX-512 hold 12 x 2 + 2 + 1, the 16 of AVX2 (and SSE) 6 x 2 + 2 + 1.
ROWS = 12 if LANE == 16 else 6
VECTORS = 2
WIDTH = VECTORS * LANE  # output channels in a panel
BLOCK = 4 * ROWS  # rows that pass over all panels before the next ones
FEW = 3  # rows of the middle tile, for what the tall one leaves

HALF = LANE // 2

# Tiles by their height; of a panel that is whole, three quarters, a half or a quarter of WIDTH.
tall_tile = matrix_tile(ROWS, (LANE, LANE))
few_tile = matrix_tile(FEW, (LANE, LANE))
one_tile = matrix_tile(1, (LANE, LANE))
tall_tile_3 = matrix_tile(ROWS, (LANE, HALF))
one_tile_3 = matrix_tile(1, (LANE, HALF))
tall_tile_2 = matrix_tile(ROWS, (LANE,))
one_tile_2 = matrix_tile(1, (LANE,))
tall_tile_1 = matrix_tile(ROWS, (HALF,))
one_tile_1 = matrix_tile(1, (HALF,))
# Activations that the tiles leave to activate_all.
LEFT_OUT = tuple(code for code in range(1, len(ACTIVATIONS)) if code not in VECTOR_ACTIVATIONS)


def pack_panels(weights: np.ndarray) -> np.ndarray:
    """(..., depth, Cout) -> (..., depth, padded): one panel of WIDTH output channels after the other.

    The last panel is as wide as its channels need, in steps of HALF, filled up with zeros. The shape only tells the
    numbers of taps and channels; in memory panel p, (..., depth, its width), begins at p * WIDTH * (taps * depth).
    """
    *taps, channels = weights.shape
    padded = -(-channels // HALF) * HALF
    matrix = weights.reshape(-1, channels)
    flat = np.zeros((len(matrix), padded), np.float32)
    flat[:, :channels] = matrix
    panels = [flat[:, first : first + WIDTH].reshape(-1) for first in range(0, padded, WIDTH)]
    return np.concatenate(panels).reshape(*taps, padded)


@register_jitable
def rows_at_once(left):
    """The tallest tile that `left` rows fill."""
    if left >= ROWS:
        return ROWS
    return FEW if left >= FEW else 1


@register_jitable
def compute(x, x_at, row_step, x_segment, w, w_at, w_segment, segments, depth,
            bias, channel, activation, more, adds, out, out_at, out_step, rows, width):  # fmt: skip
    """`rows` (ROWS, FEW or 1) rows of a panel of `width` columns, straight into `out`; more, adds: see matrix_tile."""
    if width == WIDTH:
        if rows == ROWS:
            tall_tile(x, x_at, row_step, x_segment, w, w_at, w_segment, segments, depth, bias, channel, activation,
                      more, adds, out, out_at, out_step)  # fmt: skip
        elif rows == FEW:
            few_tile(x, x_at, row_step, x_segment, w, w_at, w_segment, segments, depth, bias, channel, activation,
                     more, adds, out, out_at, out_step)  # fmt: skip
        else:
            one_tile(x, x_at, row_step, x_segment, w, w_at, w_segment, segments, depth, bias, channel, activation,
                     more, adds, out, out_at, out_step)  # fmt: skip
    elif rows == ROWS:
        if width == 3 * HALF:
            tall_tile_3(x, x_at, row_step, x_segment, w, w_at, w_segment, segments, depth, bias, channel, activation,
                        more, adds, out, out_at, out_step)  # fmt: skip
        elif width == LANE:
            tall_tile_2(x, x_at, row_step, x_segment, w, w_at, w_segment, segments, depth, bias, channel, activation,
                        more, adds, out, out_at, out_step)  # fmt: skip
        else:
            tall_tile_1(x, x_at, row_step, x_segment, w, w_at, w_segment, segments, depth, bias, channel, activation,
                        more, adds, out, out_at, out_step)  # fmt: skip
    else:
        for r in range(rows):
            if width == 3 * HALF:
                one_tile_3(x, x_at + r * row_step, row_step, x_segment, w, w_at, w_segment, segments, depth, bias,
                           channel, activation, more, adds, out, out_at + r * out_step, out_step)  # fmt: skip
            elif width == LANE:
                one_tile_2(x, x_at + r * row_step, row_step, x_segment, w, w_at, w_segment, segments, depth, bias,
                           channel, activation, more, adds, out, out_at + r * out_step, out_step)  # fmt: skip
            else:
                one_tile_1(x, x_at + r * row_step, row_step, x_segment, w, w_at, w_segment, segments, depth, bias,
                           channel, activation, more, adds, out, out_at + r * out_step, out_step)  # fmt: skip


@register_jitable
def block(x, x_at, row_step, x_segment, w, w_at, w_segment, segments, depth,
          bias, channel, columns, activation, more, out, out_at, out_step, rows, scratch):  # fmt: skip
    """As `compute`, for panels of any number of columns.

    One that doesn't fill its vectors is computed whole, with zero weights and biases, into `scratch`, and its columns
    are copied out. `scratch` holds WIDTH biases and then ROWS * WIDTH values. `more`, laid out as `out`, is added to
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
        compute(x, x_at, row_step, x_segment, w, w_at, w_segment, segments, depth, scratch, 0, activation,
                more, False, scratch, WIDTH, WIDTH, rows, width)  # fmt: skip
        for r in range(rows):
            for j in range(columns):
                out[out_at + r * out_step + j] = scratch[WIDTH + r * WIDTH + j]
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
    return np.empty((1 + ROWS) * WIDTH, np.float32)


@register_jitable
def matrix_block(
    x, row_step, depth, packed, bias, activation, more, out, channels, row, stop, panel, panel_stop, scratch
):
    """Rows row ... stop - 1 by panels panel ... panel_stop - 1 of a matrix product; x and out flat.

    more, scratch: see block.
    """
    w = packed.reshape(-1)
    for p in range(panel, panel_stop):
        first = p * WIDTH
        columns = min(WIDTH, channels - first)
        r = row
        while r < stop:
            rows = rows_at_once(stop - r)
            block(x, r * row_step, row_step, 0, w, p * depth * WIDTH, 0, 1, depth, bias, first, columns, activation,
                  more, out, r * channels + first, channels, rows, scratch)  # fmt: skip
            r += rows


@register_jitable
def matrix_rows(x, depth, packed, bias, activation, more, out, channels, count, scratch):
    """The first `count` rows of a matrix product, BLOCK at a time: they stay near while the panels stream by.

    `more`: see matrix_block.
    """
    panels = (channels + WIDTH - 1) // WIDTH
    for row in range(0, count, BLOCK):
        matrix_block(x, depth, depth, packed, bias, activation, more, out, channels, row, min(row + BLOCK, count),
                     0, panels, scratch)  # fmt: skip
