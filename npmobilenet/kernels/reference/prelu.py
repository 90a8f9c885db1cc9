"""PReLU: negative values are multiplied, each channel's by a number of its own."""

from __future__ import annotations

import numpy as np

from npmobilenet.arithmetic.fixedpoint import requantize, wrap32


def prelu_f32(x, alpha, out):
    """out[r,c] = x[r,c] if it is at least 0, else x[r,c] * alpha[c].

    x, out: (rows, C) float32. alpha: (C,).
    """
    for r in range(x.shape[0]):
        for c in range(x.shape[1]):
            v = x[r, c]
            out[r, c] = v if v >= np.float32(0) else v * alpha[c]


def prelu_q(x, alpha, p, out):
    """out[r,c] = clamp(z_out + requantize(x - z_in)), for x < z_in of (x - z_in) * (alpha[c] - z_alpha), by its factor.

    x, out: (rows, C) uint8 or int8. alpha: (C,) of the same dtype. p: arithmetic.tables.Prelu.
    """
    for r in range(x.shape[0]):
        for c in range(x.shape[1]):
            v = np.int64(x[r, c]) - p.zero_points[0]
            if v >= 0:
                v = requantize(v, p.multipliers[0], p.shifts[0], 0.0, p.rule)
            else:
                v = requantize(v * (np.int64(alpha[c]) - p.zero_points[1]), p.multipliers[1], p.shifts[1], 0.0, p.rule)
            out[r, c] = min(max(wrap32(v + p.zero_points[2]), p.low), p.high)
