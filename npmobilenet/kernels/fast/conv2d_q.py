"""Fast twin of reference/conv2d_q.py: the taps of each output laid side by side, then a product of matrices."""

from __future__ import annotations

import numba
import numpy as np
from numba.extending import register_jitable

from npmobilenet.kernels.fast.tiles_q import GROUP, ROWS, as_row_value, dot_block, new_rows, pack_dot, row_sum
from npmobilenet.kernels.jit import compile_kernel


def pack_conv2d_q(weights, bias, zeros):
    """(kh, kw, Cin, Cout) -> panels of a (kh * kw * Cin, Cout) matrix, see tiles_q.pack_dot."""
    return pack_dot(weights.reshape(-1, weights.shape[3]), bias, zeros)


@register_jitable
def copy_window(x, n, iy, ix, dilation, taps, z_in, row):
    """The taps of one output, row by row; those outside the image are the input's zero point, whose real value is 0."""
    in_h, in_w, in_c = x.shape[1], x.shape[2], x.shape[3]
    at = 0
    for ky in range(taps[0]):
        y = iy + ky * dilation[0]
        for kx in range(taps[1]):
            column = ix + kx * dilation[1]
            if y < 0 or y >= in_h or column < 0 or column >= in_w:
                for c in range(in_c):
                    row[at + c] = as_row_value(z_in, z_in)
            else:
                for c in range(in_c):
                    row[at + c] = as_row_value(x[n, y, column, c], z_in)
            at += in_c
    for k in range(at, row.shape[0]):
        row[k] = 0


def conv2d_q(x, weights, bias, zeros, taps, stride, pad, dilation, step, out):
    """As the book's. Moves: the windows of ROWS outputs copied side by side, which fills in the padding; then register
    tiles as in pointwise_conv2d_q. Threads take output rows.
    """
    panels, groups = weights.shape[0], weights.shape[1]
    packed = weights.reshape(-1)
    padded = groups * GROUP
    out_h, out_w, channels = out.shape[1], out.shape[2], out.shape[3]
    flat_out = out.reshape(-1)
    for row in numba.prange(x.shape[0] * out_h):
        buffer, sums = new_rows(x, ROWS * padded), np.empty(ROWS, np.int32)
        n, oy = row // out_h, row % out_h
        for first in range(0, out_w, ROWS):
            count = min(ROWS, out_w - first)
            for r in range(count):
                row_values = buffer[r * padded : (r + 1) * padded]
                copy_window(x, n, oy * stride[0] - pad[0], (first + r) * stride[1] - pad[1], dilation, taps, zeros[0],
                            row_values)  # fmt: skip
                sums[r] = row_sum(buffer, r * padded, padded, x, zeros)
            dot_block(buffer, padded, groups, packed, sums, bias, step, flat_out, channels, row * out_w + first, count,
                      0, panels)  # fmt: skip


conv2d_q = compile_kernel(conv2d_q, parallel=True)
