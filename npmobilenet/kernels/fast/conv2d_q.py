"""Fast twin of reference/conv2d_q.py: a product of matrices whose rows are windows of the image."""

from __future__ import annotations

import numpy as np
from numba.extending import register_jitable

from npmobilenet.kernels.fast.task import Work, task
from npmobilenet.kernels.fast.tiles_q import (
    GROUP,
    IN_PLACE,
    ROWS,
    as_row_value,
    dot_block,
    new_accumulators,
    new_rows,
    pack_dot,
    row_sum,
)
from npmobilenet.kernels.fast.windows_q import windows_in_place


def pack_conv2d_q(weights, bias, zeros):
    """(kh, kw, Cin, Cout) -> (panels, kh, groups, WIDTH, GROUP): filter rows are filled up to whole groups."""
    _, kw, depth, channels = weights.shape
    rows = [pack_dot(row.reshape(kw * depth, channels), 0 * bias, zeros) for row in weights]
    start = sum(part.astype(np.int64) for _, part in rows)
    start[:channels] += bias
    return np.ascontiguousarray(np.stack([panels for panels, _ in rows], 1)), start.astype(np.int32)


@register_jitable
def copy_window(x, n, iy, ix, dilation, taps, z_in, buffer, at, padded):
    """The taps of one output, filter row by filter row, each filled up to `padded` values with zeros.

    Taps outside the image get the input's zero point, whose real value is 0.
    """
    in_h, in_w, in_c = x.shape[1], x.shape[2], x.shape[3]
    for ky in range(taps[0]):
        row = buffer[at + ky * padded : at + (ky + 1) * padded]
        y = iy + ky * dilation[0]
        for kx in range(taps[1]):
            column = ix + kx * dilation[1]
            inside = y >= 0 and y < in_h and column >= 0 and column < in_w
            for c in range(in_c):
                value = x[n, y, column, c] if inside else z_in
                row[kx * in_c + c] = as_row_value(value, z_in)
        for k in range(taps[1] * in_c, padded):
            row[k] = 0


def output_rows(x, weights, bias, zeros, taps, stride, pad, dilation, step, out):
    """Units are output rows."""
    return Work(out.shape[0] * out.shape[1], out.shape[2] * weights.size)


@task(output_rows)
def conv2d_q(start, stop, x, weights, bias, zeros, taps, stride, pad, dilation, step, out):
    """As the book's. Moves: the taps (kx, ci) of a filter row lie side by side in the image, so tiles that multiply
    bytes read windows where they are, filter row by filter row, weights of 0 covering what a group reads too much;
    other windows (cut off by the border, dilated, or for tiles that multiply int16) are copied, which fills in the
    padding. Then register tiles as in pointwise_conv2d_q. Threads take output rows.
    """
    panels, groups = weights.shape[0], weights.shape[2]
    packed, flat_x, flat_out = weights.reshape(-1), x.reshape(-1), out.reshape(-1)
    in_h, in_w, in_c = x.shape[1], x.shape[2], x.shape[3]
    out_h, out_w, channels = out.shape[1], out.shape[2], out.shape[3]
    padded, window = groups * GROUP, taps[1] * in_c
    lines = taps[0]
    for row in range(start, stop):
        sums, acc = np.empty(max(ROWS, out_w), np.int32), new_accumulators()
        buffer = new_rows(x, ROWS * lines * padded)
        n, oy = row // out_h, row % out_h
        iy = oy * stride[0] - pad[0]
        whole = IN_PLACE and dilation[1] == 1 and iy >= 0 and iy + (lines - 1) * dilation[0] < in_h
        ox = 0
        while ox < out_w:
            ix = ox * stride[1] - pad[1]
            count = 0
            at = ((n * in_h + iy) * in_w + ix) * in_c
            segment = dilation[0] * in_w * in_c
            if whole and ix >= 0:
                # Windows that lie inside the row, and whose last group doesn't reach beyond the array.
                count = min((in_w - taps[1] - ix) // stride[1] + 1, out_w - ox)
                while count > 0 and at + (count - 1) * stride[1] * in_c + (lines - 1) * segment + padded > flat_x.size:
                    count -= 1
            if count > 0:
                windows_in_place(
                    flat_x, at, stride[1] * in_c, segment, lines, window, groups, packed, sums, bias, zeros, step,
                    flat_out, channels, row * out_w + ox, count, panels, acc
                )  # fmt: skip
            else:
                count = min(ROWS, out_w - ox) if not whole else 1
                for r in range(count):
                    copy_window(x, n, iy, (ox + r) * stride[1] - pad[1], dilation, taps, zeros[0], buffer,
                                r * lines * padded, padded)  # fmt: skip
                    sums[r] = row_sum(buffer, r * lines * padded, lines * padded, x, zeros)
                dot_block(
                    buffer, 0, lines * padded, padded, lines, groups, packed, sums, bias, step, flat_out, channels,
                    row * out_w + ox, count, 0, panels, acc
                )  # fmt: skip
            ox += count
