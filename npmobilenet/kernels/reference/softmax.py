"""Softmax: in float32; of 8-bit values in fixed point, or through a table of float32 exponentials.

Both integer kernels look exp((x - largest) * scale * beta) up by the difference, of which there are 256;
arithmetic/softmax.py makes the tables while planning, with `exp_negative` below for the fixed-point one.
"""

from __future__ import annotations

import numpy as np

from npmobilenet.arithmetic.fixedpoint import (
    high_mul,
    quantize_multiplier,
    round_away,
    saturate32,
    shift_away,
    upward_rounding,
)
from npmobilenet.kernels.reference.arithmetic import exp32

# e^(-1/4), e^(-1/2), ... e^-16 with 31 fractional bits.
POWERS_OF_E = (1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242)
EXP_MINUS_EIGHTH, ONE_THIRD = 1895147668, 715827883  # 31 fractional bits
FORTY_EIGHT_17THS, MINUS_32_17THS = 1515870810, -1010580540  # 29 fractional bits


def softmax_f32(x, beta, out):
    """out[r,i] = e[i] / (e[0] + e[1] + ...), e[i] = exp((x[r,i] - max of row r) * beta), summed in index order from 0.

    x, out: (rows, classes) float32. beta: float32. exp is exp32, so the largest term is exactly 1.
    """
    rows, classes = x.shape
    for r in range(rows):
        largest = x[r, 0]
        for i in range(1, classes):
            largest = x[r, i] if x[r, i] > largest else largest
        total = np.float32(0)
        for i in range(classes):
            out[r, i] = exp32((x[r, i] - largest) * beta)
            total = total + out[r, i]
        for i in range(classes):
            out[r, i] = out[r, i] / total


def exp_quarter(a):
    """e^a for -1/4 <= a < 0, both with 31 fractional bits: Taylor's polynomial of degree 4 around -1/8.

    With x = a + 1/8: e^-1/8 * (1 + x + x^2/2 + x^3/6 + x^4/24), the last three as (x^2 + (x^3 + x^4/4) / 3) / 2.
    Source: gemmlowp, fixedpoint/fixedpoint.h, exp_on_interval_between_negative_one_quarter_and_0_excl.
    """
    x = a + (1 << 28)
    x2 = high_mul(x, x)
    x3, x4 = high_mul(x2, x), high_mul(x2, x2)
    rest = shift_away(high_mul(shift_away(x4, 2) + x3, ONE_THIRD) + x2, 1)
    return EXP_MINUS_EIGHTH + high_mul(EXP_MINUS_EIGHTH, x + rest)


def exp_negative(a, integer_bits=5):
    """e^a for -2^integer_bits <= a <= 0 with 31 bits; the result with 31 fractional ones, at most 2^31 - 1.

    a = r - k/4 with -1/4 <= r < 0: e^r times e^(-2^b) for each bit b of k/4. e^0 is apart.
    Source: gemmlowp, fixedpoint/fixedpoint.h, exp_on_negative_values.
    """
    if a == 0:
        return np.int64(2147483647)
    quarter = 1 << (29 - integer_bits)
    r = (a & (quarter - 1)) - quarter
    result = exp_quarter(r << integer_bits)
    for bit in range(integer_bits + 2):
        if (r - a) & (quarter << bit):
            result = high_mul(result, POWERS_OF_E[bit])
    return result


def one_over_one_plus(a):
    """1 / (1 + a) for 0 <= a < 1, both with 31 fractional bits: Newton's method on d = (1 + a) / 2, three steps.

    x = 48/17 - 32/17 d is within 1/17 of 1/d (relatively); x + x (1 - d x) squares that error each time.
    Source: gemmlowp, fixedpoint/fixedpoint.h, one_over_one_plus_x_for_x_in_0_1.
    """
    d = (np.int64(a) + np.int64(2147483648)) >> np.int64(1)
    x = FORTY_EIGHT_17THS + high_mul(d, MINUS_32_17THS)
    for _ in range(3):
        error = np.int64(536870912) - high_mul(d, x)
        x = x + saturate32(high_mul(x, error) << np.int64(2))
    return saturate32(x << np.int64(1))


def softmax_fixed_q(x, exponentials, low, high, out):
    """out[r,i] = low + e[i] / (e[0] + e[1] + ...) * 256, e[i] = exponentials[largest of row r - x[r,i]].

    The sum has 19 fractional bits, each term rounded to them; 1 / sum is 1 / (1 + a) * 2^shift / 2^12 where shift
    brings the sum between 1 and 2 with 31 bits. TFLite's kernel ends the process where the sum is 512 or more, as
    another 31-bit shift isn't enough; here the rule goes on.

    x, out: (rows, classes) uint8 or int8. exponentials: (256,) int32, 31 fractional bits. low, high: out's limits.
    Source: LiteRT, tflite/kernels/internal/reference/softmax.h and internal/common.h, GetReciprocal, commit f67457790.
    """
    rows, classes = x.shape
    for r in range(rows):
        largest = np.int64(x[r, 0])
        for i in range(1, classes):
            largest = max(largest, np.int64(x[r, i]))
        total = np.int64(0)
        for i in range(classes):
            total += shift_away(exponentials[largest - np.int64(x[r, i])], 12)
        shift = np.int64(0)
        while (total << shift) < 2147483648:
            shift += np.int64(1)
        over = np.int64(0)
        while (total >> over) >= 4294967296:  # from 8,192 on
            over += np.int64(1)
        inverse = one_over_one_plus(((total << shift) >> over) - np.int64(2147483648))
        exponent = 12 - shift + over + 31 - 8
        for i in range(classes):
            e = exponentials[largest - np.int64(x[r, i])]
            out[r, i] = min(shift_away(high_mul(inverse, e), exponent) + low, high)


def softmax_float_q(x, exponentials, scale, limits, out):
    """out[r,i] = zero_point + rounded(e[i] * (1 / ((e[0] + e[1] + ...) * scale))), in float32, in index order from 0.

    e[i] = exponentials[largest of row r - x[r,i]]. Ties go away from zero; for uint8, whose zero point counts as 0, by
    adding 0.5 and truncating.

    x, out: (rows, classes) uint8 or int8. exponentials: (256,) float32. scale: float32, out's. limits: zero point, low,
    high of out. Source: LiteRT, tflite/kernels/internal/optimized/optimized_ops.h, Softmax, commit f67457790.
    """
    rows, classes = x.shape
    zero_point, low, high = limits
    for r in range(rows):
        largest = np.int64(x[r, 0])
        for i in range(1, classes):
            largest = max(largest, np.int64(x[r, i]))
        total = np.float32(0)
        for i in range(classes):
            total = total + exponentials[largest - np.int64(x[r, i])]
        inverse = np.float32(1) / (total * scale)
        for i in range(classes):
            v = exponentials[largest - np.int64(x[r, i])] * inverse
            whole = np.int64(v + np.float32(0.5)) if low == 0 else round_away(np.float64(v)) + zero_point
            out[r, i] = min(max(whole, low), high)


def softmax_lut_q(x, exponentials, scale, limits, out):
    """out[r,i] = zero_point + e[i] * (1 / ((e[0] + e[1] + ...) * scale)), the factor as multiplier and shift.

    e[i] = exponentials[largest of row r - x[r,i]], exact sums of 16-bit integers; the factor in float32. The product is
    rounded twice, ties upward: no e is negative, so that "double" and "upward" are the same here.

    x, out: (rows, classes) uint8 or int8. exponentials: (256,) int32. scale: float32, out's. limits: zero point, low,
    high of out. Source: LiteRT, tflite/kernels/internal/optimized/optimized_ops.h, SoftmaxInt8LUT, commit f67457790.
    """
    rows, classes = x.shape
    zero_point, low, high = limits
    for r in range(rows):
        largest = np.int64(x[r, 0])
        for i in range(1, classes):
            largest = max(largest, np.int64(x[r, i]))
        total = np.int64(0)
        for i in range(classes):
            total += np.int64(exponentials[largest - np.int64(x[r, i])])
        multiplier, shift = quantize_multiplier(np.float64(np.float32(1) / (np.float32(total) * scale)))
        for i in range(classes):
            e = np.int64(exponentials[largest - np.int64(x[r, i])])
            out[r, i] = min(max(upward_rounding(e, multiplier, shift) + zero_point, low), high)
