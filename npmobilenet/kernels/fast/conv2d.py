"""Fast twin of reference/conv2d.py: same fma chain for each output, other loops."""

from __future__ import annotations

import numba
import numpy as np
from numba.extending import register_jitable

from npmobilenet.kernels.fast.tiles import ROWS, WIDTH, accumulate, finish, pack_panels, rows_at_once, start
from npmobilenet.kernels.jit import compile_kernel


def pack_conv2d_f32(weights: np.ndarray) -> np.ndarray:
    """(kh, kw, Cin, Cout) -> (panels, kh, kw, Cin, WIDTH): a panel of output channels is contiguous."""
    kh, kw, depth, channels = weights.shape
    panels = pack_panels(weights.reshape(kh * kw * depth, channels))
    return panels.reshape(panels.shape[0], kh, kw, depth, WIDTH)


@register_jitable
def valid_taps(position, taps, dilation, size):
    """The range of taps k for which 0 <= position + k * dilation < size."""
    first = 0 if position >= 0 else -(position // dilation)
    last = min(taps, -((position - size) // dilation))
    return min(first, taps), max(last, 0)


def conv2d_f32(x, weights, bias, stride, pad, dilation, activation, out):
    """As the book's. Moves: weights in panels; register tiles of ROWS outputs along a row; taps of a row in one go.

    In NHWC the taps (kx, ci) of one filter row lie side by side, in the image as in the panel, so without dilation a
    tile adds kw * Cin terms at a time. Outputs whose taps are cut off by the left or right border go one by one over
    the taps that remain; rows outside are skipped. Nothing is copied. Threads take output rows.
    """
    batch, in_h, in_w, in_c = x.shape
    panels, kernel_h, kernel_w = weights.shape[0], weights.shape[1], weights.shape[2]
    out_h, out_w, out_c = out.shape[1], out.shape[2], out.shape[3]
    flat_x, flat_w, flat_out = x.reshape(-1), weights.reshape(-1), out.reshape(-1)
    for row in numba.prange(batch * out_h):
        acc = np.empty(ROWS * WIDTH, np.float32)
        n, oy = row // out_h, row % out_h
        iy = oy * stride[0] - pad[0]
        ky_first, ky_last = valid_taps(iy, kernel_h, dilation[0], in_h)
        for p in range(panels):
            first = p * WIDTH
            columns = min(WIDTH, out_c - first)
            ox = 0
            while ox < out_w:
                ix = ox * stride[1] - pad[1]
                kx_first, kx_last = valid_taps(ix, kernel_w, dilation[1], in_w)
                rows = 1
                if kx_first == 0 and kx_last == kernel_w:
                    whole = (in_w - 1 - (kernel_w - 1) * dilation[1] - ix) // stride[1] + 1
                    rows = rows_at_once(min(whole, out_w - ox))
                start(acc, rows, bias, first, columns)
                for ky in range(ky_first, ky_last):
                    line = ((n * in_h + iy + ky * dilation[0]) * in_w + ix) * in_c
                    panel = (p * kernel_h + ky) * kernel_w * in_c * WIDTH
                    step = kx_last - kx_first if dilation[1] == 1 else 1
                    for kx in range(kx_first, kx_last, max(step, 1)):
                        accumulate(flat_x, line + kx * dilation[1] * in_c, stride[1] * in_c,
                                   flat_w, panel + kx * in_c * WIDTH, step * in_c, acc, rows)  # fmt: skip
                finish(acc, rows, columns, activation, flat_out, (row * out_w + ox) * out_c + first, out_c)
                ox += rows


conv2d_f32 = compile_kernel(conv2d_f32, parallel=True)
