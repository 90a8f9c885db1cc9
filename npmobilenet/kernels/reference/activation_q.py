"""Activations of one 8-bit value, in integers as in TFLite. Plans call them 256 times and keep the answers."""

from __future__ import annotations

import numpy as np

from npmobilenet.arithmetic.fixedpoint import requantized


def saturate16(v):
    """v, or the nearest int16."""
    return min(max(v, -32768), 32767)


def high_mul16(a, b):
    """a * b / 2^15 for int16 a and b, rounded to nearest, ties upward: high_mul of fixedpoint.py for 16 bits."""
    return saturate16((np.int64(a) * np.int64(b) + np.int64(16384)) >> np.int64(15))


def high_mul16_truncated(a, b):
    """a * b / 2^15 for int16 a and b, rounded toward zero. Floors the magnitude, as C's division does."""
    product = np.int64(a) * np.int64(b)
    magnitude = np.abs(product) >> np.int64(15)
    return saturate16(magnitude if product >= 0 else -magnitude)


def shift_away16(v, s):
    """v / 2^s for an int16 v, rounded to nearest, ties away from zero, with gemmlowp's 16-bit mask.

    For s >= 16 the mask 2^s - 1 is cut to 16 ones, which read as -1: the result is then 1 for v >= 0 and -1 below.
    """
    mask = (np.int64(1) << np.int64(s)) - np.int64(1) if s < 16 else np.int64(-1)
    threshold = (mask >> np.int64(1)) + (np.int64(1) if v < 0 else np.int64(0))
    return (np.int64(v) >> np.int64(s)) + (np.int64(1) if (np.int64(v) & mask) > threshold else np.int64(0))


def hard_swish_16(q, p):
    """x * relu6(x + 3) / 6 for the real x = s_in * (q - z_in), in 16-bit fixed point; p: arithmetic.tables.HardSwish.

    With v = 128 (q - z_in), which is within +-32,640:
      scaled = v * p.output_multiplier / 2^15, which is x / s_out, not yet shifted right by -p.output_exponent;
      gate = x / 3 with 2^15 for 1, saturating at +-1, then (gate + 1) / 2: the relu6(x + 3) / 6;
      product = gate * scaled / 2^15, truncated on purpose (it undoes the upward bias of the roundings before);
      result = z_out + product / 2^-p.output_exponent, rounded, clamped.

    Where x / 3 needs a left shift, all of it but the last bit comes before the multiplication by gate_multiplier, which
    is between a half and 1, so that a value saturated there saturates at the end anyway.

    Source: LiteRT, tflite/kernels/internal/reference/hard_swish.h, HardSwish, commit f67457790.
    """
    v = (q - p.input_zero_point) * 128
    scaled = high_mul16(v, p.output_multiplier)
    gate = v
    if p.gate_exponent > 0:
        gate = saturate16(gate << (p.gate_exponent - 1))
    gate = high_mul16(gate, p.gate_multiplier)
    if p.gate_exponent > 0:
        gate = saturate16(gate << 1)
    if p.gate_exponent < 0:
        gate = shift_away16(gate, -p.gate_exponent)
    gate = (gate + 32768) >> 1
    product = high_mul16_truncated(gate, scaled)
    return min(max(shift_away16(product, -p.output_exponent) + p.output_zero_point, p.low), p.high)


def rescaled(q, zero_point, step):
    """q at another scale and zero point, within bounds: relu, relu6, relu_n1_to_1 and requantization.

    step: Requantization of one channel.

    Source: LiteRT, tflite/kernels/internal/reference/reference_ops.h, ReluX, and requantize.h, commit f67457790.
    """
    return requantized(q - zero_point, 0, step)
