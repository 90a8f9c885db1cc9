"""Fast twin of reference/pointwise_conv2d.py: same fma chain for each output, other loops."""

from __future__ import annotations

import numpy as np
from numba.extending import register_jitable

from npmobilenet.kernels.fast.task import Work, task
from npmobilenet.kernels.fast.tiles import BLOCK, ROWS, WIDTH, matrix_block, new_scratch, pack_panels


def pack_pointwise_conv2d_f32(weights: np.ndarray) -> np.ndarray:
    """(Cin, Cout) -> panels of output channels, see tiles.pack_panels."""
    return pack_panels(weights)


@register_jitable
def rows_of_unit(pixels, panels):
    """The rows of a unit of work: BLOCK, ROWS, or, where there are too few to share out, all: then units are panels."""
    if pixels >= 8 * BLOCK:
        return BLOCK
    return 0 if panels >= 4 else ROWS


def blocks(x, weights, *rest):
    """Units are blocks of pixels, or panels of output channels."""
    pixels, panels, operations = x.shape[0], -(-rest[-1].shape[1] // WIDTH), x.shape[0] * weights.size
    rows = rows_of_unit(pixels, panels)
    units = -(-pixels // rows) if rows else panels
    return Work(units, operations // max(units, 1))


@task(blocks)
def pointwise_conv2d_f32(start, stop, x, weights, bias, activation, out):
    """As the book's. Moves: weights in panels; register tiles of ROWS pixels; threads take blocks of pixels.

    BLOCK rows at a time pass over all panels, so that they stay in the first-level cache while the panels stream by.
    Where there are too few pixels to share out, threads take panels of output channels instead.
    """
    pixels, depth = x.shape
    channels = out.shape[1]
    panels = -(-channels // WIDTH)
    flat_x, flat_out = x.reshape(-1), out.reshape(-1)
    rows, scratch = rows_of_unit(pixels, panels), new_scratch()
    if rows == 0:
        matrix_block(flat_x, depth, weights, bias, activation, flat_out, channels, 0, pixels, start, stop, scratch)
    else:
        for unit in range(start, stop):
            first, end = unit * rows, min((unit + 1) * rows, pixels)
            matrix_block(flat_x, depth, weights, bias, activation, flat_out, channels, first, end, 0, panels, scratch)
