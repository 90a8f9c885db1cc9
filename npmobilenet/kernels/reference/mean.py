"""Mean over height and width: squeeze-excite's squeeze, and the last pooling of newer models.

In 8 bits real mean = s_in * (sum - H W z_in) / (H W), so that output = z_out + (s_in / (H W s_out)) * (sum - H W z_in).
The runtimes part in how they hold that factor, and in whether z_in is taken off before the scaling or after.
"""

from __future__ import annotations

import numpy as np

from npmobilenet.arithmetic.fixedpoint import Rounding, requantize, rule_at
from npmobilenet.kernels.reference.arithmetic import fma32


def mean_f32(x, out):
    """out[n,c] = (sum over y, x of x[n,y,x,c]) / (H * W), added in the order (row, column) from 0, one division.

    x: (N, H, W, C) float32. out: (N, C).
    """
    batch, height, width, channels = x.shape
    for n in range(batch):
        for c in range(channels):
            acc = np.float32(0)
            for y in range(height):
                for i in range(width):
                    acc = acc + x[n, y, i, c]
            out[n, c] = acc / np.float32(height * width)


def mean_of(acc, p, rule):
    """The unclamped output for the sum `acc` of a channel's pixels."""
    if rule in (Rounding.FLOAT32, Rounding.FLOAT32_FUSED):
        real = np.float32(acc) * np.float32(p.scale) + p.real_offset
        if rule == Rounding.FLOAT32_FUSED:
            real = fma32(np.float32(acc), np.float32(p.scale), p.real_offset)
        return np.int64(np.rint(min(max(real, np.float32(-2147483648.0)), np.float32(2147483520.0))))
    return requantize(acc + p.start, p.multiplier, p.shift, p.scale, rule) + p.offset


def mean_q(x, p, out):
    """out[n,c] = mean_of(sum over y, x of x[n,y,x,c]), clamped.

    |sum| <= 255 H W, which fits into int32 for images of up to 8.4 million pixels.

    x: (N, H, W, C) uint8 or int8. p: arithmetic.pooling.Mean. out: (N, C).
    """
    batch, height, width, channels = x.shape
    for n in range(batch):
        for c in range(channels):
            acc = np.int64(0)
            for y in range(height):
                for i in range(width):
                    acc += np.int64(x[n, y, i, c])
            v = mean_of(acc, p, rule_at(c, p.rule))
            out[n, c] = min(max(v, p.low), p.high)
