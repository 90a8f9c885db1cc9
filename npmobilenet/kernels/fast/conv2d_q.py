"""Fast twin of reference/conv2d.py: a product of matrices whose rows are windows of the image."""

from __future__ import annotations

import numpy as np

from npmobilenet.kernels.compiler.deferred import register_jitable
from npmobilenet.kernels.compiler.spans import under_windows
from npmobilenet.kernels.compiler.task import task
from npmobilenet.kernels.compiler.work_sharing import Work
from npmobilenet.kernels.fast.gemm_s8 import KR, LANE, MR, Layer, gemm_block, new_accumulators, pack_rhs
from npmobilenet.kernels.fast.lhs_packing import as_row_value, copy_rows, new_rows, new_sums, row_sums
from npmobilenet.kernels.vectorcode.generated import Cells, Lhs, flat_view


@register_jitable
def outputs_as_one(out_w, channels, dilation):
    """How many neighbouring outputs are computed as one: 2 where the channels of two fill a vector, else 1."""
    return 2 if 2 * channels == LANE and out_w % 2 == 0 and dilation[1] == 1 else 1


def pack_conv2d_q(weights, bias, zero_points, stride, pad, dilation, out_w):
    """(kh, kw, Cin, Cout) -> (panels, kh, groups, NR, KR): filter rows are filled up to whole groups.

    Two outputs as one are those of a window that is wider by a stride, with twice the channels; the second half's
    weights lie a stride further on. Elsewhere weights are their zero point, which adds nothing.
    """
    if outputs_as_one(out_w, weights.shape[3], dilation) == 2:
        kh, kw, depth, channels = weights.shape
        wide = np.full((kh, kw + stride[1], depth, 2 * channels), zero_points[1], weights.dtype)
        wide[:, :kw, :, :channels] = wide[:, stride[1] :, :, channels:] = weights
        weights, bias = wide, np.concatenate([bias, bias])
    _, kw, depth, channels = weights.shape
    rows = [pack_rhs(row.reshape(kw * depth, channels), 0 * bias, zero_points) for row in weights]
    folded_bias = sum(part.astype(np.int64) for _, part in rows)
    folded_bias[:channels] += bias
    return np.ascontiguousarray(np.stack([panels for panels, _ in rows], 1)), folded_bias.astype(np.int32)


@register_jitable
def copy_window(x, n, corner, dilation, taps, z_in, buffer, padded):
    """The taps of one output, filter row by filter row, each filled up to `padded` values with zeros.

    Taps outside the image get the input's zero point, whose real value is 0.
    """
    in_h, in_w, in_c = x.shape[1], x.shape[2], x.shape[3]
    for ky in range(taps[0]):
        row = buffer[ky * padded : (ky + 1) * padded]
        y = corner[0] + ky * dilation[0]
        for kx in range(taps[1]):
            column = corner[1] + kx * dilation[1]
            inside = y >= 0 and y < in_h and column >= 0 and column < in_w
            for c in range(in_c):
                value = x[n, y, column, c] if inside else z_in
                row[kx * in_c + c] = as_row_value(x, value, z_in)
        for k in range(taps[1] * in_c, padded):
            row[k] = 0


@register_jitable
def fill(to, value):
    """All of an array."""
    for k in range(to.size):
        to[k] = value


@register_jitable
def copy_lines(x, n, iy, ix, dilation, lines, z_in, buffer, line):
    """`lines` rows of image n from row iy and column ix on, `line` values each, the zero point around the image."""
    in_h, row = x.shape[1], x.shape[2] * x.shape[3]
    flat, first, outside = flat_view(x), ix * x.shape[3], as_row_value(x, z_in, z_in)
    for ky in range(lines):
        y, to = iy + ky * dilation, buffer[ky * line : (ky + 1) * line]
        inside = y >= 0 and y < in_h
        left = min(max(-first, 0), line) if inside else line
        right = max(min(row - first, line), left)
        fill(to[:left], outside)
        middle, at = to[left:right], (n * in_h + y) * row + first + left
        copy_rows(flat[at : at + middle.size] if inside else flat[:0], middle, z_in)
        fill(to[right:], outside)


def output_rows(x, weights, bias, zero_points, taps, stride, pad, dilation, requant, out):
    """Units are output rows."""
    touch = under_windows(x, out, taps[0], stride[0], pad[0], dilation[0])
    return Work(out.shape[0] * out.shape[1], out.shape[2] * weights.size, touch=touch)


@task(output_rows)
def conv2d_q(start, stop, x, weights, bias, zero_points, taps, stride, pad, dilation, requant, out):
    """As the reference. Moves: the image's rows under a row of outputs are copied, with the padding around them and in
    the form that the tiles need. In the copy the taps (kx, ci) of a filter row lie side by side: the tiles read windows
    where they are, filter row by filter row, weights of 0 covering what a group reads too much. Dilated windows are
    copied one by one. Then register tiles as in pointwise_conv2d_q; where channels fill half a vector, two outputs
    share it. Threads take output rows.
    """
    panels, groups = weights.shape[0], weights.shape[2]
    layer, flat_out = Layer(flat_view(weights), bias, requant), flat_view(out)
    side = outputs_as_one(out.shape[2], out.shape[3], dilation)
    in_c, out_h, out_w, channels = x.shape[3], out.shape[1], out.shape[2] // side, out.shape[3] * side
    padded, window, lines = groups * KR, (taps[1] + (side - 1) * stride[1]) * in_c, taps[0]
    step = side * stride[1] * in_c  # from window to window
    line = (out_w - 1) * step + padded
    acc, sums = new_accumulators(), new_sums(x, zero_points, out_w)
    buffer = new_rows(x, max(lines * line, MR * lines * padded))
    for row in range(start, stop):
        n, oy = row // out_h, row % out_h
        iy = oy * stride[0] - pad[0]
        if dilation[1] == 1:
            copy_lines(x, n, iy, -pad[1], dilation[0], lines, zero_points[0], buffer, line)
            row_sums(Lhs(buffer, 0, step, line, lines, window), out_w, x, zero_points, sums)
            windows = Lhs(buffer, 0, step, line, lines, groups)
            gemm_block(windows, sums, layer, Cells(flat_out, row * out_w * channels, channels), out_w, (0, panels), acc)
            continue
        for ox in range(0, out_w, MR):
            count = min(MR, out_w - ox)
            for r in range(count):
                ix, copied = (ox + r) * stride[1] - pad[1], buffer[r * lines * padded : (r + 1) * lines * padded]
                copy_window(x, n, (iy, ix), dilation, taps, zero_points[0], copied, padded)
            row_sums(Lhs(buffer, 0, lines * padded, 0, 1, lines * padded), count, x, zero_points, sums)
            windows = Lhs(buffer, 0, lines * padded, padded, lines, groups)
            to = Cells(flat_out, (row * out_w + ox) * channels, channels)
            gemm_block(windows, sums, layer, to, count, (0, panels), acc)
