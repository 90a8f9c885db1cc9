"""Fast twin of reference/pointwise_conv2d_q.py: the same sums, four or two products at a time."""

from __future__ import annotations

import numpy as np

from npmobilenet.kernels.fast.pointwise_conv2d import blocks, rows_of_unit
from npmobilenet.kernels.fast.task import task
from npmobilenet.kernels.fast.tiles_q import GROUP, dot_block, gather_rows, pack_dot


def pack_pointwise_conv2d_q(weights, bias, zeros):
    """(Cin, Cout) -> panels of output channels in groups of products, see tiles_q.pack_dot."""
    return pack_dot(weights, bias, zeros)


@task(blocks)
def pointwise_conv2d_q(start, stop, x, weights, bias, zeros, step, out):
    """As the book's. Moves: weights in panels of grouped products; rows read where they are, or copied into the form
    that the tiles need; register tiles of ROWS pixels, requantized while in the first-level cache; threads take blocks
    of pixels, or panels where pixels are few.
    """
    pixels, depth = x.shape
    channels = out.shape[1]
    panels, groups = weights.shape[0], weights.shape[1]
    padded = groups * GROUP
    flat_x, flat_w, flat_out = x.reshape(-1), weights.reshape(-1), out.reshape(-1)
    few = rows_of_unit(pixels, panels)
    rows = few if few > 0 else pixels
    first_panel, last_panel = (0, panels) if few > 0 else (start, stop)
    first_block, last_block = (start, stop) if few > 0 else (0, 1)
    sums = np.empty(rows, np.int32)
    for unit in range(first_block, last_block):
        first = unit * rows
        count = min(rows, pixels - first)
        buffer = gather_rows(flat_x, depth, first, count, padded, zeros, sums)
        dot_block(
            buffer, 0, padded, 0, 1, groups, flat_w, sums, bias, step, flat_out, channels, first, count,
            first_panel, last_panel
        )  # fmt: skip
