"""Addition, subtraction, multiplication and division of two tensors, with broadcast.

In 8 bits a product is easy: (x - z_x)(y - z_y) is an integer in units of s_x * s_y, and one factor takes it to the
output's units. A sum is not: x counts in units of s_x and y in units of s_y, so both are brought to a common unit
first. TFLite takes 2 max(s_x, s_y) / 2^20: shifted left by 20 bits, an operand is scaled by s / (2 max(s_x, s_y)) <=
1/2 with a rounding error of 2^-20 of a step, the two are added, and a last factor leads to the output. |x - z_x| <= 255
< 2^8, so that a shifted operand is below 2^28, a scaled one at most 2^27, and the sum at most 2^28: nothing overflows
an int32. XNNPACK needs no unit: it multiplies each by the factor s / s_out in integers, and rounds once, at the end.
"""

from __future__ import annotations

import numpy as np

from npmobilenet.arithmetic.fixedpoint import (
    Rounding,
    double_rounding,
    high_mul,
    requantize,
    rule_at,
    shift_upward,
    single_rounding,
)
from npmobilenet.kernels.reference.activation import activate


def add_f32(x, y, activation, out):
    """out = act(x + y): the residual connection.

    x, y: rank 4 float32, each dimension equal to out's or 1 (then repeated). activation: code. out: (N, H, W, C).
    """
    for n in range(out.shape[0]):
        for oy in range(out.shape[1]):
            for ox in range(out.shape[2]):
                for c in range(out.shape[3]):
                    a = x[n % x.shape[0], oy % x.shape[1], ox % x.shape[2], c % x.shape[3]]
                    b = y[n % y.shape[0], oy % y.shape[1], ox % y.shape[2], c % y.shape[3]]
                    out[n, oy, ox, c] = activate(a + b, activation)


def sub_f32(x, y, activation, out):
    """out = act(x - y); shapes as in add_f32."""
    for n in range(out.shape[0]):
        for oy in range(out.shape[1]):
            for ox in range(out.shape[2]):
                for c in range(out.shape[3]):
                    a = x[n % x.shape[0], oy % x.shape[1], ox % x.shape[2], c % x.shape[3]]
                    b = y[n % y.shape[0], oy % y.shape[1], ox % y.shape[2], c % y.shape[3]]
                    out[n, oy, ox, c] = activate(a - b, activation)


def mul_f32(x, y, activation, out):
    """out = act(x * y); shapes as in add_f32. Squeeze-excite's gate is (N, 1, 1, C)."""
    for n in range(out.shape[0]):
        for oy in range(out.shape[1]):
            for ox in range(out.shape[2]):
                for c in range(out.shape[3]):
                    a = x[n % x.shape[0], oy % x.shape[1], ox % x.shape[2], c % x.shape[3]]
                    b = y[n % y.shape[0], oy % y.shape[1], ox % y.shape[2], c % y.shape[3]]
                    out[n, oy, ox, c] = activate(a * b, activation)


def quotient32(a: np.float32, b: np.float32) -> np.float32:
    """a / b as IEEE 754 has it, where b is 0, too, which Python and Numba refuse."""
    if b == np.float32(0):
        return a * np.copysign(np.float32(np.inf), b)
    return a / b


def div_f32(x, y, activation, out):
    """out = act(x / y); shapes as in add_f32."""
    for n in range(out.shape[0]):
        for oy in range(out.shape[1]):
            for ox in range(out.shape[2]):
                for c in range(out.shape[3]):
                    a = x[n % x.shape[0], oy % x.shape[1], ox % x.shape[2], c % x.shape[3]]
                    b = y[n % y.shape[0], oy % y.shape[1], ox % y.shape[2], c % y.shape[3]]
                    out[n, oy, ox, c] = activate(quotient32(a, b), activation)


def wrap16(v):
    """v modulo 2^16, as an int16: what NEON's narrowing (VMOVN) and its 16-bit addition (VADD) keep."""
    return ((np.int64(v) + np.int64(32768)) & np.int64(65535)) - np.int64(32768)


def common_unit(v, multiplier, shift, rule):
    """An operand v = x - z_x in units of 2 max(s_x, s_y) / 2^20: v * 2^20 * multiplier * 2^(shift - 31), shift <= 0.

    double, single: as in fixedpoint.py. fused: the shift by `shift` bits is taken out of the 20 (VSHL, exact down to
    -20), so that only high_mul rounds. floor: high_mul, then a plain shift right (VSHL by a negative count). linear:
    v * multiplier, in units of 2^-shift of the output's.
    """
    if rule == Rounding.LINEAR:
        return np.int64(v) * np.int64(multiplier)
    if rule == Rounding.FUSED:
        left, right = max(20 + shift, 0), max(-20 - shift, 0)
        return high_mul((np.int64(v) << np.int64(left)) >> np.int64(right), multiplier)
    if rule == Rounding.FLOOR:
        return high_mul(np.int64(v) << np.int64(20), multiplier) >> np.int64(-shift)
    if rule == Rounding.SINGLE:
        return single_rounding(np.int64(v) << np.int64(20), multiplier, shift)
    return double_rounding(np.int64(v) << np.int64(20), multiplier, shift)


def sum_of(a, b, p, rule):
    """The unclamped output for two operands' values. NEON (fused, floor) adds the zero point in 16 bits, which wrap."""
    total = common_unit(a - p.zero_x, p.multiplier_x, p.shift_x, rule)
    total += p.sign * common_unit(b - p.zero_y, p.multiplier_y, p.shift_y, rule)
    if rule == Rounding.LINEAR:
        return shift_upward(total, p.shift) + p.zero_point
    if rule == Rounding.SINGLE:
        return single_rounding(total, p.multiplier, p.shift) + p.zero_point
    v = double_rounding(total, p.multiplier, p.shift) + p.zero_point
    return wrap16(v) if rule in (Rounding.FUSED, Rounding.FLOOR) else v


def product_of(a, b, p, rule):
    """The unclamped output for two operands' values.

    saturated, wrapped: double, narrowed to 16 bits in this way before NEON adds the zero point in 16 bits.
    """
    product = (a - p.zero_x) * (b - p.zero_y)
    if rule == Rounding.SATURATED:
        v = double_rounding(product, p.multiplier, p.shift)
        return wrap16(min(max(v, -32768), 32767) + p.zero_point)
    if rule == Rounding.WRAPPED:
        return wrap16(double_rounding(product, p.multiplier, p.shift) + p.zero_point)
    return requantize(product, p.multiplier, p.shift, p.scale, rule) + p.zero_point


def add_q(x, y, p, out):
    """out = x + y (or x - y, where p.sign is -1) in real numbers: sum_of, clamped.

    x, y: rank 4, uint8 or int8, each dimension equal to out's or 1 (then repeated). p: arithmetic.elementwise.Sum.
    out: (N, H, W, C) of x's dtype.
    """
    batch, height, width, channels = out.shape
    for n in range(batch):
        for oy in range(height):
            for ox in range(width):
                for c in range(channels):
                    i = (oy * width + ox) * channels + c
                    a = np.int64(x[n % x.shape[0], oy % x.shape[1], ox % x.shape[2], c % x.shape[3]])
                    b = np.int64(y[n % y.shape[0], oy % y.shape[1], ox % y.shape[2], c % y.shape[3]])
                    v = sum_of(a, b, p, rule_at(i, p.rule))
                    out[n, oy, ox, c] = min(max(v, p.low), p.high)


def mul_q(x, y, p, out):
    """out = x * y in real numbers: product_of, clamped. Squeeze-excite's gate is (N, 1, 1, C).

    Shapes and dtypes as in add_q. p: arithmetic.elementwise.Product.
    """
    batch, height, width, channels = out.shape
    for n in range(batch):
        for oy in range(height):
            for ox in range(width):
                for c in range(channels):
                    i = (oy * width + ox) * channels + c
                    a = np.int64(x[n % x.shape[0], oy % x.shape[1], ox % x.shape[2], c % x.shape[3]])
                    b = np.int64(y[n % y.shape[0], oy % y.shape[1], ox % y.shape[2], c % y.shape[3]])
                    v = product_of(a, b, p, rule_at(i, p.rule))
                    out[n, oy, ox, c] = min(max(v, p.low), p.high)
