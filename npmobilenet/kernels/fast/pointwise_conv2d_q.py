"""Fast twin of reference/pointwise_conv2d_q.py: the same sums, four or two products at a time."""

from __future__ import annotations

import numba
import numpy as np

from npmobilenet.kernels.fast.tiles_q import BLOCK, GROUP, ROWS, dot_block, gather_rows, pack_dot
from npmobilenet.kernels.jit import compile_kernel


def pack_pointwise_conv2d_q(weights, bias, zeros):
    """(Cin, Cout) -> panels of output channels in groups of products, see tiles_q.pack_dot."""
    return pack_dot(weights, bias, zeros)


def pointwise_conv2d_q(x, weights, bias, zeros, step, out):
    """As the book's. Moves: weights in panels of grouped products; rows read where they are, or copied into the form
    that the tiles need; register tiles of ROWS pixels, requantized while in the first-level cache; threads take blocks
    of pixels, or panels where pixels are few.
    """
    pixels, depth = x.shape
    channels = out.shape[1]
    panels, groups = weights.shape[0], weights.shape[1]
    padded = groups * GROUP
    flat_x, flat_w, flat_out = x.reshape(-1), weights.reshape(-1), out.reshape(-1)
    if pixels < 8 * BLOCK and panels >= 4:
        sums = np.empty(pixels, np.int32)
        buffer = gather_rows(flat_x, depth, 0, pixels, padded, zeros, sums)
        for p in numba.prange(panels):
            dot_block(
                buffer, 0, padded, 0, 1, groups, flat_w, sums, bias, step, flat_out, channels, 0, pixels, p, p + 1
            )
    else:
        block = BLOCK if pixels >= 8 * BLOCK else ROWS
        for b in numba.prange(-(-pixels // block)):
            first = b * block
            count = min(block, pixels - first)
            few_sums = np.empty(block, np.int32)
            rows = gather_rows(flat_x, depth, first, count, padded, zeros, few_sums)
            dot_block(
                rows, 0, padded, 0, 1, groups, flat_w, few_sums, bias, step, flat_out, channels, first, count, 0, panels
            )


pointwise_conv2d_q = compile_kernel(pointwise_conv2d_q, parallel=True)
