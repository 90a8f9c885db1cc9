"""Fast twin of reference/pointwise_conv2d.py: same fma chain for each output, other loops."""

from __future__ import annotations

import numba
import numpy as np

from npmobilenet.kernels.fast.tiles import ROWS, matrix_block, pack_panels
from npmobilenet.kernels.jit import compile_kernel

BLOCK = 4 * ROWS


def pack_pointwise_conv2d_f32(weights: np.ndarray) -> np.ndarray:
    """(Cin, Cout) -> panels of output channels, see tiles.pack_panels."""
    return pack_panels(weights)


def pointwise_conv2d_f32(x, weights, bias, activation, out):
    """As the book's. Moves: weights in panels; register tiles of ROWS pixels; threads take blocks of pixels.

    BLOCK rows at a time pass over all panels, so that they stay in the first-level cache while the panels stream by.
    Where there are too few pixels to share out, threads take panels of output channels instead.
    """
    pixels, depth = x.shape
    channels = out.shape[1]
    panels = weights.shape[0]
    flat_x, flat_out = x.reshape(-1), out.reshape(-1)
    if pixels < 8 * BLOCK and panels >= 4:
        for p in numba.prange(panels):
            matrix_block(flat_x, depth, weights, bias, activation, flat_out, channels, 0, pixels, p, p + 1)
    else:
        block = BLOCK if pixels >= 8 * BLOCK else ROWS
        for b in numba.prange(-(-pixels // block)):
            row, stop = b * block, min((b + 1) * block, pixels)
            matrix_block(flat_x, depth, weights, bias, activation, flat_out, channels, row, stop, 0, panels)


pointwise_conv2d_f32 = compile_kernel(pointwise_conv2d_f32, parallel=True)
