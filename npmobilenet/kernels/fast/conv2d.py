"""Fast twin of reference/conv2d.py: same fma chain for each output, other loops."""

from __future__ import annotations

import numpy as np
from numba.extending import register_jitable

from npmobilenet.kernels.fast.task import Work, task
from npmobilenet.kernels.fast.tiles import WIDTH, block, new_scratch, pack_panels


def pack_conv2d_f32(weights: np.ndarray) -> np.ndarray:
    """(kh, kw, Cin, Cout) -> panels of output channels, see tiles.pack_panels."""
    return pack_panels(weights)


@register_jitable
def valid_taps(position, taps, dilation, size):
    """The range of taps k for which 0 <= position + k * dilation < size."""
    first = 0 if position >= 0 else -(position // dilation)
    last = min(taps, -((position - size) // dilation))
    return min(first, taps), max(last, 0)


@register_jitable
def copy_taps(x, x_at, x_line, x_step, in_c, lines, width, taps):
    """Lay the taps of one output side by side: (lines, width, in_c), from pixels that are x_step apart."""
    for ky in range(lines):
        for kx in range(width):
            for c in range(in_c):
                taps[(ky * width + kx) * in_c + c] = x[x_at + ky * x_line + kx * x_step + c]


def output_rows(x, weights, bias, stride, pad, dilation, activation, out):
    """Units are output rows."""
    return Work(out.shape[0] * out.shape[1], out.shape[2] * weights.size)


@task(output_rows)
def conv2d_f32(start, stop, x, weights, bias, stride, pad, dilation, activation, out):
    """As the book's. Moves: weights in panels; register tiles of ROWS outputs along a row; taps of a row in one go.

    In NHWC the taps (kx, ci) of one filter row lie side by side, in the image as in the panel, so a tile takes kw * Cin
    terms for each filter row, a segment. With dilation along the row they don't, and each output's taps are copied side
    by side. Outputs whose taps are cut off by the left or right border go one by one over the taps that remain; filter
    rows outside are skipped. Threads take output rows.
    """
    _, in_h, in_w, in_c = x.shape
    kernel_h, kernel_w = weights.shape[0], weights.shape[1]
    out_h, out_w, out_c = out.shape[1], out.shape[2], out.shape[3]
    padded = weights.shape[3]
    flat_x, flat_w, flat_out = x.reshape(-1), weights.reshape(-1), out.reshape(-1)
    x_line, taps_in_panel = dilation[0] * in_w * in_c, kernel_h * kernel_w * in_c
    scratch, none = new_scratch(), flat_x[:0]
    for row in range(start, stop):
        taps = np.empty(kernel_h * kernel_w * in_c if dilation[1] > 1 else 0, np.float32)
        n, oy = row // out_h, row % out_h
        iy = oy * stride[0] - pad[0]
        ky_first, ky_last = valid_taps(iy, kernel_h, dilation[0], in_h)
        segments = max(ky_last - ky_first, 0)
        line = (n * in_h + iy + ky_first * dilation[0]) * in_w
        ox = 0
        while ox < out_w:
            ix = ox * stride[1] - pad[1]
            kx_first, kx_last = valid_taps(ix, kernel_w, dilation[1], in_w)
            width = max(kx_last - kx_first, 0)
            rows = 1
            x_at = (line + ix + kx_first * dilation[1]) * in_c
            if dilation[1] > 1:
                copy_taps(flat_x, x_at, x_line, dilation[1] * in_c, in_c, segments, width, taps)
            elif width == kernel_w:
                whole = (in_w - kernel_w - ix) // stride[1] + 1
                rows = min(whole, out_w - ox)
            for first in range(0, padded, WIDTH):
                panel = min(WIDTH, padded - first)
                w_at = taps_in_panel * first + (ky_first * kernel_w + kx_first) * in_c * panel
                w_line = kernel_w * in_c * panel
                columns, out_at = min(WIDTH, out_c - first), (row * out_w + ox) * out_c + first
                if dilation[1] > 1:
                    block(taps, 0, 0, width * in_c, flat_w, w_at, w_line, segments, width * in_c,
                          bias, first, columns, activation, none, flat_out, out_at, out_c, rows, scratch)  # fmt: skip
                else:
                    block(flat_x, x_at, stride[1] * in_c, x_line, flat_w, w_at, w_line, segments, width * in_c,
                          bias, first, columns, activation, none, flat_out, out_at, out_c, rows, scratch)  # fmt: skip
            ox += rows
