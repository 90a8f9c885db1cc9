"""Activations: functions of one value, and the op that applies one to a whole tensor.

In float32, convolutions, additions and pools apply the same functions to each result before storing it; the codes are
the positions in `npmobilenet.graph.ACTIVATIONS`. Of 8 bits there are 256 values: plans call the integer functions, in
integers as in TFLite, once for each, and `lookup_q` looks the answers up.
"""

from __future__ import annotations

import numpy as np

from npmobilenet.arithmetic.fixedpoint import requantize, requantized, rule_at, shift_away
from npmobilenet.kernels.reference.arithmetic import exp32
from npmobilenet.kernels.reference.softmax import exp_negative, one_over_one_plus

ZERO, ONE, THREE, SIX = np.float32(0), np.float32(1), np.float32(3), np.float32(6)
SIXTH = np.float32(1 / 6)  # Keras' gate, and both libraries' hard-swish
SLIM_GATE = np.float32(0.16667)  # TF-slim's squeeze-excite gate (research/slim/nets/mobilenet/mobilenet_v3.py)


def relu(v: np.float32) -> np.float32:
    """max(v, 0); a NaN stays."""
    return ZERO if v < ZERO else v


def relu6(v: np.float32) -> np.float32:
    """min(max(v, 0), 6); a NaN stays."""
    if v < ZERO:
        return ZERO
    return SIX if v > SIX else v


def relu_n1_to_1(v: np.float32) -> np.float32:
    """min(max(v, -1), 1); a NaN stays. TFLite's RELU_N1_TO_1."""
    if v < -ONE:
        return -ONE
    return ONE if v > ONE else v


def relu_0_to_1(v: np.float32) -> np.float32:
    """min(max(v, 0), 1); a NaN stays. TFLite's RELU_0_TO_1."""
    if v < ZERO:
        return ZERO
    return ONE if v > ONE else v


def hard_swish(v: np.float32) -> np.float32:
    """(v * relu6(v + 3)) * float32(1/6), rounded after each operation, as TF-slim writes it."""
    return (v * relu6(v + THREE)) * SIXTH


def hard_sigmoid(v: np.float32) -> np.float32:
    """relu6(v + 3) * float32(1/6), as Keras writes it."""
    return relu6(v + THREE) * SIXTH


def hard_sigmoid_slim(v: np.float32) -> np.float32:
    """relu6(v + 3) * float32(0.16667): TF-slim's gate, which reaches 1.00002."""
    return relu6(v + THREE) * SLIM_GATE


def sigmoid(v: np.float32) -> np.float32:
    """1 / (1 + exp(-v)), with this project's exp: exactly 0 below -88.7."""
    return ONE / (ONE + exp32(-v))


def activate(v: np.float32, code: int) -> np.float32:
    """Apply activation number `code` of `npmobilenet.graph.ACTIVATIONS`."""
    if code == 0:
        return v
    if code == 1:
        return relu(v)
    if code == 2:
        return relu6(v)
    if code == 3:
        return relu_n1_to_1(v)
    if code == 4:
        return hard_swish(v)
    if code == 5:
        return hard_sigmoid(v)
    if code == 6:
        return hard_sigmoid_slim(v)
    if code == 7:
        return sigmoid(v)
    return relu_0_to_1(v)


def activation_f32(x, activation, out):
    """out[i] = activate(x[i]).

    x, out: (elements,) float32. activation: code.
    """
    for i in range(x.shape[0]):
        out[i] = activate(x[i], activation)


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


def rescaled(q, zero_point, requant):
    """q at another scale and zero point, within bounds: relu, relu6, relu_n1_to_1 and requantization.

    requant: Requantization of one channel.

    Source: LiteRT, tflite/kernels/internal/reference/reference_ops.h, ReluX, and requantize.h, commit f67457790.
    """
    return requantized(q - zero_point, 0, requant)


def logistic_fixed(q, p):
    """1 / (1 + e^-x) of one 8-bit value, x with 27 fractional bits, the result with 8: TFLite Micro's.

    p: arithmetic.tables.Logistic. Source: TFLite Micro, tensorflow/lite/kernels/internal/reference/integer_ops/
    logistic.h, commit 90b983c2; gemmlowp, fixedpoint/fixedpoint.h, logistic.
    """
    v = q - p.zero_point
    if abs(v) >= p.radius:
        return p.low if v <= -p.radius else p.high
    a = requantize(v, p.multiplier, p.shift, 0.0, p.rule)
    if a == 0:
        return p.low + 128
    y = one_over_one_plus(exp_negative(-abs(a), 4))
    y = y if a > 0 else 2147483647 - y
    return min(p.low + shift_away(y, 23), p.high)


def lookup_q(x, tables, which, out):
    """out[n,i] = tables[which, x[n,i] modulo 256].

    A negative int8 thus has its two's complement as index: -1 is entry 255. `which` table (a VectorRule): the
    first, or the second for elements that a runtime computes by another rule.

    x: (N, elements) uint8 or int8. tables: (2, 256) of out's dtype. out: (N, elements).
    """
    rows, size = x.shape
    for n in range(rows):
        for i in range(size):
            entry = np.int64(x[n, i]) & 255
            out[n, i] = tables[rule_at(i, which), entry]
