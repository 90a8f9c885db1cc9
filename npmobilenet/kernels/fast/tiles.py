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
FEW = 3  # rows of the middle tile, for what the tall one leaves

tall_tile = matrix_tile(ROWS, VECTORS, LANE)
few_tile = matrix_tile(FEW, VECTORS, LANE)
one_tile = matrix_tile(1, VECTORS, LANE)
# Activations that the tiles leave to activate_all.
LEFT_OUT = tuple(code for code in range(1, len(ACTIVATIONS)) if code not in VECTOR_ACTIVATIONS)


def pack_panels(weights: np.ndarray) -> np.ndarray:
    """(depth, Cout) -> (panels, depth, WIDTH): output channels in groups of WIDTH, the last filled with zeros."""
    depth, channels = weights.shape
    panels = -(-channels // WIDTH)
    packed = np.zeros((panels, depth, WIDTH), np.float32)
    for p in range(panels):
        part = weights[:, p * WIDTH : (p + 1) * WIDTH]
        packed[p, :, : part.shape[1]] = part
    return packed


@register_jitable
def rows_at_once(left):
    """The tallest tile that `left` rows fill."""
    if left >= ROWS:
        return ROWS
    return FEW if left >= FEW else 1


@register_jitable
def compute(x, x_at, row_step, x_segment, w, w_at, w_segment, segments, depth,
            bias, channel, activation, out, out_at, out_step, rows):  # fmt: skip
    """`rows` (ROWS, FEW or 1) rows of a whole panel, straight into `out`."""
    if rows == ROWS:
        tall_tile(x, x_at, row_step, x_segment, w, w_at, w_segment, segments, depth, bias, channel, activation,
                  out, out_at, out_step)  # fmt: skip
    elif rows == FEW:
        few_tile(x, x_at, row_step, x_segment, w, w_at, w_segment, segments, depth, bias, channel, activation,
                 out, out_at, out_step)  # fmt: skip
    else:
        one_tile(x, x_at, row_step, x_segment, w, w_at, w_segment, segments, depth, bias, channel, activation,
                 out, out_at, out_step)  # fmt: skip


@register_jitable
def block(x, x_at, row_step, x_segment, w, w_at, w_segment, segments, depth,
          bias, channel, columns, activation, out, out_at, out_step, rows, scratch):  # fmt: skip
    """As `compute`, for the last panel too, of which only `columns` columns exist.

    A narrow panel is computed whole, with zero weights and biases, into `scratch`, and its columns are copied out.
    `scratch` holds WIDTH biases and then ROWS * WIDTH values.
    """
    if columns == WIDTH:
        compute(x, x_at, row_step, x_segment, w, w_at, w_segment, segments, depth, bias, channel, activation,
                out, out_at, out_step, rows)  # fmt: skip
    else:
        for j in range(WIDTH):
            scratch[j] = bias[channel + j] if j < columns else np.float32(0)
        compute(x, x_at, row_step, x_segment, w, w_at, w_segment, segments, depth, scratch, 0, activation,
                scratch, WIDTH, WIDTH, rows)  # fmt: skip
        for r in range(rows):
            for j in range(columns):
                out[out_at + r * out_step + j] = scratch[WIDTH + r * WIDTH + j]
    if activation in LEFT_OUT:
        for r in range(rows):
            activate_all(out, out_at + r * out_step, columns, activation)


@register_jitable
def matrix_block(x, depth, packed, bias, activation, out, channels, row, stop, panel, panel_stop):
    """Rows row ... stop - 1 by panels panel ... panel_stop - 1 of a matrix product; x and out flat and contiguous."""
    scratch = np.empty((1 + ROWS) * WIDTH, np.float32)
    w = packed.reshape(-1)
    for p in range(panel, panel_stop):
        first = p * WIDTH
        columns = min(WIDTH, channels - first)
        r = row
        while r < stop:
            rows = rows_at_once(stop - r)
            block(x, r * depth, depth, 0, w, p * depth * WIDTH, 0, 1, depth, bias, first, columns, activation,
                  out, r * channels + first, channels, rows, scratch)  # fmt: skip
            r += rows
