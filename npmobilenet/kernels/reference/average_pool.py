"""Average pooling over windows."""

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
