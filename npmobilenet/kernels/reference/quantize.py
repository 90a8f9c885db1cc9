"""From float32 to 8 bits. Other steps between types are tables: lookup_q in activation.py."""

from __future__ import annotations

import numpy as np

from npmobilenet.arithmetic.fixedpoint import Rounding, clamped32, round_away, round_away32, rule_at


def quantized(v, scale, rule):
    """v / scale as a whole float32, by a rule.

    quotient32: the quotient in float32, ties away from zero. reciprocal: v times it, each in float32, ties to even.
    quotient64: the quotient in float64, ties away from zero, held within +-2^24, where float32 counts in ones.
    """
    if rule == Rounding.QUOTIENT32:
        return round_away32(v / scale)
    if rule == Rounding.RECIPROCAL:
        return np.rint(v * (np.float32(1) / scale))
    quotient = np.float64(v) / np.float64(scale)
    return np.float32(round_away(np.fmin(np.fmax(quotient, -16777216.0), 16777216.0)))


def quantize_q(x, scale, rule, limits, out):
    """out[n,i] = clamp(zero_point + x[n,i] / scale, rounded): `quantized`.

    x: (N, elements) float32. scale: float32. rule: VectorRule. limits: (zero_point, low, high).
    out: (N, elements) uint8 or int8. NaN becomes low.
    """
    rows, size = x.shape
    for n in range(rows):
        for i in range(size):
            v = quantized(x[n, i], scale, rule_at(i, rule))
            out[n, i] = np.int64(clamped32(v, limits[0], limits[1], limits[2]))
