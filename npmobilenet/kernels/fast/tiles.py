"""The tiles that this machine's instruction set calls for, and the loops around them that several kernels share."""

from __future__ import annotations

import numpy as np
from numba.extending import register_jitable

from npmobilenet.kernels.fast.vector import matrix_tile
from npmobilenet.kernels.jit import LANES, isa
from npmobilenet.kernels.reference.activation import activate, hard_swish, relu, relu6

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
def start(acc, rows, bias, first, columns):
    """Fill `rows` rows of a tile with the bias of output channels first ... first + columns - 1, then zeros."""
    for r in range(rows):
        for j in range(columns):
            acc[r * WIDTH + j] = bias[first + j]
        for j in range(columns, WIDTH):
            acc[r * WIDTH + j] = np.float32(0)


@register_jitable
def accumulate(x, x_at, row_step, w, w_at, depth, acc, rows):
    """Add `depth` terms to the first `rows` (ROWS, FEW or 1) rows of a tile."""
    if rows == ROWS:
        tall_tile(x, x_at, row_step, w, w_at, depth, acc)
    elif rows == FEW:
        few_tile(x, x_at, row_step, w, w_at, depth, acc)
    else:
        one_tile(x, x_at, row_step, w, w_at, depth, acc)


@register_jitable
def rows_at_once(left):
    """The tallest tile that `left` rows fill."""
    if left >= ROWS:
        return ROWS
    return FEW if left >= FEW else 1


@register_jitable
def finish(acc, rows, columns, activation, out, out_at, out_step):
    """Apply the activation to a tile and store it: row r at out[out_at + r * out_step]."""
    for r in range(rows):
        a, o = r * WIDTH, out_at + r * out_step
        if activation == 0:
            for j in range(columns):
                out[o + j] = acc[a + j]
        elif activation == 1:
            for j in range(columns):
                out[o + j] = relu(acc[a + j])
        elif activation == 2:
            for j in range(columns):
                out[o + j] = relu6(acc[a + j])
        elif activation == 4:
            for j in range(columns):
                out[o + j] = hard_swish(acc[a + j])
        else:
            for j in range(columns):
                out[o + j] = activate(acc[a + j], activation)


@register_jitable
def matrix_block(x, depth, packed, bias, activation, out, channels, row, stop, panel, panel_stop):
    """Rows row ... stop - 1 by panels panel ... panel_stop - 1 of a matrix product; x and out flat and contiguous."""
    acc = np.empty(ROWS * WIDTH, np.float32)
    w = packed.reshape(-1)
    for p in range(panel, panel_stop):
        first = p * WIDTH
        columns = min(WIDTH, channels - first)
        r = row
        while r < stop:
            rows = rows_at_once(stop - r)
            start(acc, rows, bias, first, columns)
            accumulate(x, r * depth, depth, w, p * depth * WIDTH, depth, acc, rows)
            finish(acc, rows, columns, activation, out, r * channels + first, channels)
            r += rows
