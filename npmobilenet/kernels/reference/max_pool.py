"""Max pooling over windows."""

from __future__ import annotations

import numpy as np

from npmobilenet.kernels.reference.activation import activate

LOWEST = np.float32(-3.4028234663852886e38)  # of finite float32


def max_pool_f32(x, kernel, stride, pad, activation, out):
    """out[n,oy,ox,c] = act(the greatest of the window's pixels inside the image, or LOWEST).

    A pixel takes the place of the greatest so far if it is greater, in the order (row, column): a NaN never does.

    x: (N, H, W, C) float32. kernel, stride: (h, w). pad: (top, left). activation: code. out: (N, OH, OW, C).
    """
    batch, in_h, in_w, channels = x.shape
    for n in range(batch):
        for oy in range(out.shape[1]):
            for ox in range(out.shape[2]):
                for c in range(channels):
                    best = LOWEST
                    top, left = oy * stride[0] - pad[0], ox * stride[1] - pad[1]
                    for iy in range(max(top, 0), min(top + kernel[0], in_h)):
                        for ix in range(max(left, 0), min(left + kernel[1], in_w)):
                            v = x[n, iy, ix, c]
                            best = v if v > best else best
                    out[n, oy, ox, c] = activate(best, activation)


def max_pool_q(x, least, kernel, stride, pad, p, out):
    """out[n,oy,ox,c] = clamp(the greatest of the window's pixels inside the image, or `least`, the dtype's).

    Input and output share scale and zero point, so the order of values is that of the integers.

    x: (N, H, W, C) uint8 or int8. kernel, stride: (h, w). pad: (top, left). p: arithmetic.pooling.Pool.
    out: (N, OH, OW, C).
    """
    batch, in_h, in_w, channels = x.shape
    for n in range(batch):
        for oy in range(out.shape[1]):
            for ox in range(out.shape[2]):
                for c in range(channels):
                    best = least
                    top, left = oy * stride[0] - pad[0], ox * stride[1] - pad[1]
                    for iy in range(max(top, 0), min(top + kernel[0], in_h)):
                        for ix in range(max(left, 0), min(left + kernel[1], in_w)):
                            best = max(best, np.int64(x[n, iy, ix, c]))
                    out[n, oy, ox, c] = min(max(best, p.low), p.high)
