"""Average pooling over windows.

Of 8-bit tensors the raw values are averaged, as input and output share scale and zero point.
"""

from __future__ import annotations

import numpy as np

from npmobilenet.kernels.reference.activation import activate


def average_pool_f32(x, kernel, stride, pad, activation, out):
    """out[n,oy,ox,c] = act((sum of the window's pixels inside the image) / (their number)).

    The sum adds in the order (row, column) from 0, then one division; pixels outside the image don't count, and a
    window without any gives 0.

    x: (N, H, W, C) float32. kernel, stride: (h, w). pad: (top, left). activation: code. out: (N, OH, OW, C).
    """
    batch, in_h, in_w, channels = x.shape
    for n in range(batch):
        for oy in range(out.shape[1]):
            for ox in range(out.shape[2]):
                for c in range(channels):
                    acc = np.float32(0)
                    count = 0
                    top, left = oy * stride[0] - pad[0], ox * stride[1] - pad[1]
                    for iy in range(max(top, 0), min(top + kernel[0], in_h)):
                        for ix in range(max(left, 0), min(left + kernel[1], in_w)):
                            acc = acc + x[n, iy, ix, c]
                            count += 1
                    out[n, oy, ox, c] = activate(acc / np.float32(max(count, 1)), activation)


def rounded_quotient(total, count):
    """total / count to the nearest integer, ties away from zero, for count >= 1.

    C's (total +- count / 2) / count with the sign of total, where C's division drops the fraction: of magnitudes, that
    is floor((|total| + floor(count / 2)) / count).
    """
    magnitude = (abs(total) + count // 2) // count
    return magnitude if total >= 0 else -magnitude


def average_pool_q(x, kernel, stride, pad, p, out):
    """out[n,oy,ox,c] = clamp((sum of the window's pixels inside the image) / (their number)), ties away from zero.

    The mean of q is the mean of s (q - z), moved and scaled alike, so that no zero point is needed (which is also why
    ties part from those of `mean`). A window without any pixel gives the zero point. |sum| <= 255 * pixels fits into
    int32 for windows of up to 8.4 million pixels.

    x: (N, H, W, C) uint8 or int8. kernel, stride: (h, w). pad: (top, left). p: arithmetic.pooling.Pool.
    out: (N, OH, OW, C).
    """
    batch, in_h, in_w, channels = x.shape
    for n in range(batch):
        for oy in range(out.shape[1]):
            for ox in range(out.shape[2]):
                for c in range(channels):
                    acc = np.int64(0)
                    count = 0
                    top, left = oy * stride[0] - pad[0], ox * stride[1] - pad[1]
                    for iy in range(max(top, 0), min(top + kernel[0], in_h)):
                        for ix in range(max(left, 0), min(left + kernel[1], in_w)):
                            acc += np.int64(x[n, iy, ix, c])
                            count += 1
                    v = rounded_quotient(acc, count) if count > 0 else p.zero_point
                    out[n, oy, ox, c] = min(max(v, p.low), p.high)
