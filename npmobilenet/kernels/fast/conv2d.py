"""Fast twin of reference/conv2d.py: same fma chain for each output, other loops."""

from __future__ import annotations

import numpy as np

from npmobilenet.kernels.compiler.deferred import register_jitable
from npmobilenet.kernels.compiler.spans import under_windows
from npmobilenet.kernels.compiler.task import task
from npmobilenet.kernels.compiler.work_sharing import Work
from npmobilenet.kernels.fast.gemm_f32 import MR, NR, Layer, block, new_scratch, pack_panels
from npmobilenet.kernels.vectorcode.generated import Cells, Lhs, Panel, flat_view


def pack_conv2d_f32(weights: np.ndarray) -> np.ndarray:
    """(kh, kw, Cin, Cout) -> panels of output channels, gemm_f32.pack_panels."""
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


@register_jitable
def whole_windows(taps, stride, pad, dilation, size, out_size):
    """The range of outputs none of whose taps lies outside the image; empty ranges are (first, first)."""
    first = (pad + stride - 1) // stride
    end = min((size - 1 - (taps - 1) * dilation + pad) // stride + 1, out_size)
    return first, max(end, first)


@register_jitable
def filter_pixels(windows, corner, layer, shape, out, rows, scratch):
    """All channels of `rows` outputs whose windows have the same taps.

    windows: Lhs. corner: the first filter row and column. shape: (kh, kw, Cin, as many channels as are packed, Cout).
    """
    kernel_h, kernel_w, in_c, padded, out_c = shape
    for first in range(0, padded, NR):
        segment = kernel_w * in_c * min(NR, padded - first)
        w_at = kernel_h * kernel_w * in_c * first + (corner[0] * kernel_w + corner[1]) * in_c * min(NR, padded - first)
        panel, to = Panel(layer.weights, w_at, segment, layer.bias, first), Cells(out.data, out.at + first, out.step)
        block(windows, panel, min(NR, out_c - first), layer.activation, layer.more, to, rows, scratch)


def output_rows(x, weights, bias, stride, pad, dilation, activation, out):
    """Units are output rows, some at a time: columns of a few outputs are left over at either side of them."""
    touch = under_windows(x, out, weights.shape[0], stride[0], pad[0], dilation[0])
    return Work(out.shape[0] * out.shape[1], out.shape[2] * weights.size, 3, touch)


@task(output_rows)
def conv2d_f32(start, stop, x, weights, bias, stride, pad, dilation, activation, out):
    """As the reference. Moves: weights in panels; register tiles of MR outputs along a row; taps of a row in one go.

    In NHWC the taps (kx, ci) of one filter row lie side by side, in the image as in the panel, so a tile takes kw * Cin
    terms for each filter row, a segment. With dilation along the row they don't, and each output's taps are copied side
    by side. Outputs whose taps are cut off by the left or right border, and those that are left over between the tiles
    and the border, are tiles down a column: their windows lie one image row below the other. Filter rows outside are
    skipped. Threads take output rows.
    """
    _, in_h, in_w, in_c = x.shape
    kernel_h, kernel_w = weights.shape[0], weights.shape[1]
    out_h, out_w, out_c = out.shape[1], out.shape[2], out.shape[3]
    flat_x, flat_out, shape = flat_view(x), flat_view(out), (*weights.shape, out_c)
    layer = Layer(flat_view(weights), bias, activation, flat_x[:0])
    x_line, line = dilation[0] * in_w * in_c, stride[0] * in_w * in_c  # to the next filter row, the next output row
    scratch, apart = new_scratch(), dilation[1] > 1
    copied = np.empty(kernel_h * kernel_w * in_c if apart else 0, np.float32)
    top, bottom = whole_windows(kernel_h, stride[0], pad[0], dilation[0], in_h, out_h)
    left, right = whole_windows(kernel_w, stride[1], pad[1], dilation[1], in_w, out_w)
    row = start
    while row < stop:
        n, oy = row // out_h, row % out_h
        whole = not apart and oy >= top and oy < bottom
        count = min(bottom - oy, stop - row) if whole else 1  # rows with the same taps
        across = 0 if apart else right - left if count == 1 else (right - left) // MR * MR  # in tiles along the row
        ky_first, ky_last = valid_taps(oy * stride[0] - pad[0], kernel_h, dilation[0], in_h)
        segments = max(ky_last - ky_first, 0)
        first = (n * in_h + oy * stride[0] - pad[0] + ky_first * dilation[0]) * in_w  # the pixel at the row's beginning
        if across > 0:
            for r in range(count):
                x_at = (first + left * stride[1] - pad[1]) * in_c + r * line
                windows = Lhs(flat_x, x_at, stride[1] * in_c, x_line, segments, kernel_w * in_c)
                to = Cells(flat_out, ((row + r) * out_w + left) * out_c, out_c)
                filter_pixels(windows, (ky_first, 0), layer, shape, to, across, scratch)
        for ox in range(out_w):
            if ox >= left and ox < left + across:
                continue
            ix = ox * stride[1] - pad[1]
            kx_first, kx_last = valid_taps(ix, kernel_w, dilation[1], in_w)
            width = max(kx_last - kx_first, 0)
            x_at, source, x_segment = (first + ix + kx_first * dilation[1]) * in_c, flat_x, x_line
            if apart:
                copy_taps(flat_x, x_at, x_line, dilation[1] * in_c, in_c, segments, width, copied)
                x_at, source, x_segment = 0, copied, width * in_c
            windows = Lhs(source, x_at, line, x_segment, segments, width * in_c)
            to = Cells(flat_out, (row * out_w + ox) * out_c, out_w * out_c)
            filter_pixels(windows, (ky_first, kx_first), layer, shape, to, count, scratch)
        row += count
