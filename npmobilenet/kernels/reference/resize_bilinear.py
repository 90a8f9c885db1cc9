"""Bilinear resize of a feature map: each output mixes the four input pixels around the place where it falls.

In 8 bits input and output have the same scale and zero point, so integers are mixed. Where an output row or column
falls in the input is computed while planning there (arithmetic/resize.py), as each runtime does it: two neighbours, and
the distance from the first, for each.
"""

from __future__ import annotations

import numpy as np

from npmobilenet.arithmetic.fixedpoint import shift_away, shift_upward
from npmobilenet.kernels.reference.arithmetic import fma32


def source_position(o, size_in, size_out, align_corners, half_pixel):
    """Where output index `o` falls in the input, in float32.

    o * in/out; with half_pixel_centers (o + 0.5) * in/out - 0.5; with align_corners o * (in-1)/(out-1).
    Source: TensorFlow, tensorflow/lite/kernels/internal/reference/resize_bilinear.h, ComputeInterpolationValues.
    """
    scale = np.float32(size_in) / np.float32(size_out)
    if align_corners and size_out > 1:
        scale = np.float32(size_in - 1) / np.float32(size_out - 1)
    if half_pixel:
        return fma32(np.float32(o) + np.float32(0.5), scale, np.float32(-0.5))
    return np.float32(o) * scale


def resize_bilinear_f32(x, align_corners, half_pixel, out):
    """Mix the four nearest pixels: along the row, top = fma(right - left, dx, left), then top to bottom by dy alike.

    x: (N, H, W, C) float32. out: (N, OH, OW, C). align_corners, half_pixel: bool. Positions outside are clamped.
    """
    batch, in_h, in_w, channels = x.shape
    out_h, out_w = out.shape[1], out.shape[2]
    for n in range(batch):
        for oy in range(out_h):
            sy = source_position(oy, in_h, out_h, align_corners, half_pixel)
            y0 = min(max(int(np.floor(sy)), 0), in_h - 1)
            y1 = min(int(np.ceil(sy)), in_h - 1)
            dy = sy - np.float32(y0)
            for ox in range(out_w):
                sx = source_position(ox, in_w, out_w, align_corners, half_pixel)
                x0 = min(max(int(np.floor(sx)), 0), in_w - 1)
                x1 = min(int(np.ceil(sx)), in_w - 1)
                dx = sx - np.float32(x0)
                for c in range(channels):
                    top = fma32(x[n, y0, x1, c] - x[n, y0, x0, c], dx, x[n, y0, x0, c])
                    bottom = fma32(x[n, y1, x1, c] - x[n, y1, x0, c], dx, x[n, y1, x0, c])
                    out[n, oy, ox, c] = fma32(bottom - top, dy, top)


def resize_bilinear_fixed_q(x, rows, columns, bits, upward, out):
    """out = ((a (1 - dx) + b dx) (1 - dy) + (c (1 - dx) + d dx) dy), distances with `bits` bits, rounded once.

    a, b: pixels of the upper row, c, d: of the lower. Ties go away from zero, or upward.

    x: (N, H, W, C) uint8 or int8. rows: (first, second, distance), int32 (OH,) each; columns: (OW,).
    out: (N, OH, OW, C).
    """
    one = np.int64(1) << np.int64(bits)
    batch, out_h, out_w, channels = out.shape
    for n in range(batch):
        for oy in range(out_h):
            y0, y1, dy = rows[0][oy], rows[1][oy], np.int64(rows[2][oy])
            for ox in range(out_w):
                x0, x1, dx = columns[0][ox], columns[1][ox], np.int64(columns[2][ox])
                for c in range(channels):
                    top = np.int64(x[n, y0, x0, c]) * (one - dx) + np.int64(x[n, y0, x1, c]) * dx
                    bottom = np.int64(x[n, y1, x0, c]) * (one - dx) + np.int64(x[n, y1, x1, c]) * dx
                    total = top * (one - dy) + bottom * dy
                    shifted = shift_upward(total, 2 * bits) if upward else shift_away(total, 2 * bits)
                    out[n, oy, ox, c] = shifted


def resize_bilinear_float_q(x, rows, columns, weighted, out):
    """out = a (1-dy) (1-dx) + c dy (1-dx) + b (1-dy) dx + d dy dx + 0.5, in float32 in this order, truncated.

    a, b: pixels of the upper row, c, d: of the lower. weighted: 1: each pixel times the product of its two distances,
    in the order a, b, c, d, instead; 2: the same, each product but b's rounded with the sum that takes it.

    x: (N, H, W, C) uint8. rows: (first, second, distance), (OH,), int32 and float32; columns: (OW,).
    out: (N, OH, OW, C) uint8.
    """
    one = np.float32(1)
    batch, out_h, out_w, channels = out.shape
    for n in range(batch):
        for oy in range(out_h):
            y0, y1, dy = rows[0][oy], rows[1][oy], rows[2][oy]
            for ox in range(out_w):
                x0, x1, dx = columns[0][ox], columns[1][ox], columns[2][ox]
                for ch in range(channels):
                    a, b = np.float32(x[n, y0, x0, ch]), np.float32(x[n, y0, x1, ch])
                    c, d = np.float32(x[n, y1, x0, ch]), np.float32(x[n, y1, x1, ch])
                    if weighted == 2:
                        total = fma32(a, (one - dy) * (one - dx), b * ((one - dy) * dx))
                        total = fma32(d, dy * dx, fma32(c, dy * (one - dx), total))
                    elif weighted == 1:
                        total = a * ((one - dy) * (one - dx)) + b * ((one - dy) * dx)
                        total = total + c * (dy * (one - dx)) + d * (dy * dx)
                    else:
                        total = a * (one - dy) * (one - dx) + c * dy * (one - dx)
                        total = total + b * (one - dy) * dx + d * dy * dx
                    out[n, oy, ox, ch] = np.int64(total + np.float32(0.5))
