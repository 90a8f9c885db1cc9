"""Bilinear resize of a feature map."""

from __future__ import annotations

import numpy as np

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
