"""Fixed-point arithmetic: real multipliers as integers, and every rounding step that an integer runtime takes.

Plain functions of integers, exact in 64 bits, each with its proof; the reference kernels use them as they stand (Numba
compiles them: `kernels/compiler/jit.py`), and so do the golden tools. Which runtime takes which step where:
`arithmetic/dialects.py`.
"""

from __future__ import annotations

import math
from enum import IntEnum
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1


class Rounding(IntEnum):
    """How kernels round: they switch on the number, and traces print the name.

    The first row is of accumulators (`requantize`); then what sums have besides, and products (binary.py below
    kernels/reference/); floats made integers (quantize.py); inputs and sums of dynamic range (dynamic_range.py);
    accumulators on arm64, and means there.
    """

    (
        NONE, DOUBLE, UPWARD, SINGLE, FLOAT32, FLOAT64,
        FUSED, FLOOR, LINEAR, SATURATED, WRAPPED,
        QUOTIENT32, RECIPROCAL, QUOTIENT64,
        SYMMETRIC, ASYMMETRIC, ASYMMETRIC_RECIPROCAL, CHANNEL_FIRST, PRODUCT, ROW_FIRST,
        UPWARD_LATE, RNDNU16, FLOAT32_FUSED,
    ) = range(23)  # fmt: skip
    RNDNU = SINGLE  # XNNPACK's name of it, with a factor of its own (convolution.py: real_factors)

    def __str__(self) -> str:
        return self.name.lower()

    __repr__ = __str__


# Those of accumulators, by name.
REQUANTIZATIONS = ("none", "double", "upward", "single", "float32", "float64", "upward_late", "rndnu16")


def rounding(name: str) -> Rounding:
    """The rule of that name."""
    return Rounding[name.upper()]


class VectorRule(NamedTuple):
    """Which rule holds where. A runtime's full vectors take `inside`; what fills none follows `outside`.

    Of each `run` elements of an image, counted in memory order, the first `full` are inside (`rule_at`). Channels count
    as elements of a pixel. Most rules hold `everywhere`.
    """

    inside: int
    outside: int
    run: int
    full: int


def everywhere(rule: int) -> VectorRule:
    """One rule for all elements."""
    return VectorRule(rule, rule, INT32_MAX, INT32_MAX)


def in_vectors(inside: int, outside: int, run: int, lanes: int) -> VectorRule:
    """`inside` for the elements that fill vectors of `lanes`, run by run."""
    full = run - run % lanes
    return VectorRule(inside, outside, run, full) if full else everywhere(outside)


def rule_at(i, rule):
    """The rule of a VectorRule for element i of an image."""
    return rule.inside if i % rule.run < rule.full else rule.outside


class Requantization(NamedTuple):
    """All that a kernel needs to turn accumulators (int32) into its output: `requantized` below is the formula.

    multiplier, shift: int32, one for each output channel; real factor = multiplier * 2^(shift - 31).
    scale: float64, the same real factors as the float rules take them. rule: of Rounding, for each channel.
    zero_point, low, high: the output's zero point and the range that it is clamped to.
    """

    multiplier: Any
    shift: Any
    scale: Any
    rule: VectorRule
    zero_point: int
    low: int
    high: int


def quantize_multiplier(real: float) -> tuple[int, int]:
    """A real factor of at least 0 as `(multiplier, shift)`: real = multiplier * 2^(shift - 31) to 31 bits.

    multiplier is 0 or in [2^30, 2^31): frexp gives a fraction in [1/2, 1), which times 2^31 is rounded half away from
    zero, as C's round does; where that gives 2^31 itself, it is halved and the shift raised. Factors below 2^-32 become
    0 (their shift would push every bit of an int32 out).

    Source: LiteRT, tflite/kernels/internal/quantization_util.cc, QuantizeMultiplier, commit f67457790.
    """
    if real == 0:
        return 0, 0
    fraction, shift = math.frexp(real)
    multiplier = math.floor(fraction * 2**31 + 0.5)  # exact: a 53-bit fraction below 2^32 keeps the half
    if multiplier == 2**31:
        multiplier, shift = 2**30, shift + 1
    if shift < -31:
        return 0, 0
    return multiplier, shift


def wrap32(v):
    """v modulo 2^32, as an int32: what a C int32 holds after an overflow."""
    return ((v + 2147483648) & 4294967295) - 2147483648


def saturate32(v):
    """v, or the nearest int32."""
    return min(max(v, -2147483648), 2147483647)


def high_mul(a, b):
    """a * b / 2^31 for int32 a and b, rounded to nearest, ties upward; INT32_MIN * INT32_MIN saturates.

    The product has at most 62 bits and a sign, so the sum is exact in int64, and `>>` floors. gemmlowp writes it as an
    addition of 2^30 or 1 - 2^30 by sign and a division that truncates. For a negative product p = -q these give
    -floor((q + 2^30 - 1) / 2^31) = ceil((p - 2^30 + 1) / 2^31) = floor((p + 2^30) / 2^31), the same.

    Source: gemmlowp, fixedpoint/fixedpoint.h, SaturatingRoundingDoublingHighMul; Arm's VQRDMULH.
    """
    if a == -2147483648 and b == -2147483648:
        return np.int64(2147483647)
    return (np.int64(a) * np.int64(b) + np.int64(1073741824)) >> np.int64(31)


def shift_away(v, s):
    """v / 2^s (0 <= s <= 31), rounded to nearest, ties away from zero.

    v >> s floors and leaves the remainder r in [0, 2^s). The result goes up by one when r is above a half, or at a half
    with v >= 0: r > (2^s - 1) >> 1 for v >= 0, r > ((2^s - 1) >> 1) + 1 for v < 0.

    Source: gemmlowp, fixedpoint/fixedpoint.h, RoundingDivideByPOT.
    """
    mask = (np.int64(1) << np.int64(s)) - np.int64(1)
    threshold = (mask >> np.int64(1)) + (np.int64(1) if v < 0 else np.int64(0))
    up = np.int64(1) if (np.int64(v) & mask) > threshold else np.int64(0)
    return (np.int64(v) >> np.int64(s)) + up


def shift_upward(v, s):
    """v / 2^s, rounded to nearest, ties upward: add half, then floor. Arm's VRSHL; s = 0 leaves v.

    The half is 2^s >> 1, which is 0 for s = 0.
    """
    half = (np.int64(1) << np.int64(s)) >> np.int64(1)
    return (np.int64(v) + half) >> np.int64(s)


def round_away(v: Any) -> Any:
    """The integer nearest to a float64, ties away from zero, as C's round: floor(|v| + 1/2) with v's sign.

    Below 2^51 the addition is exact, but for the value next below a half, 0.5 - 2^-54, whose sum rounds up to 1: the
    fraction is looked at instead.
    """
    magnitude = math.fabs(v)
    whole = math.floor(magnitude)
    if magnitude - whole >= 0.5:  # exact: whole is at most a factor of 2 away, or 0 (Sterbenz)
        whole = whole + 1
    return np.int64(whole) if v >= 0 else np.int64(-whole)


def nearest32(v: Fraction) -> np.float32:
    """The float32 nearest to a rational number, ties to even.

    By way of float64 alone it might be rounded twice, to a neighbour's side of a tie.
    """
    found = np.float32(float(v))
    around = (found, np.nextafter(found, np.float32(-np.inf)), np.nextafter(found, np.float32(np.inf)))
    return min((f for f in around if np.isfinite(f)), key=lambda f: abs(Fraction(float(f)) - v), default=found)


def round_away32(v: Any) -> Any:
    """A float32 to the nearest whole float32, ties away from zero; of scalars and NumPy arrays.

    v - trunc(v) is exact, whereas trunc(v + 0.5) would round 0.49999997 up.
    """
    whole = np.trunc(v)
    return whole + np.copysign(np.float32(np.abs(v - whole) >= np.float32(0.5)), v)


def saturate16(v):
    """v, or the nearest int16."""
    return min(max(v, -32768), 32767)


def clamped32(v: Any, zero_point: int, low: int, high: int) -> Any:
    """v + zero_point within low ... high, for a whole float32 v of any size; of scalars and NumPy arrays.

    Clamped before the addition, in float32, so that nothing leaves the range of integers. NaN becomes low. (C leaves
    what TFLite's kernels do with values beyond int32 undefined.)
    """
    return np.fmin(np.fmax(v, np.float32(low - zero_point)), np.float32(high - zero_point)) + np.float32(zero_point)


def double_rounding(acc: Any, multiplier: Any, shift: Any) -> Any:
    """acc * multiplier * 2^(shift - 31) in two roundings: high_mul, then shift_away where shift is negative.

    A positive shift is applied to acc beforehand, modulo 2^32 as in C.

    Source: LiteRT, tflite/kernels/internal/common.cc, MultiplyByQuantizedMultiplier, commit f67457790.
    """
    left, right = max(shift, 0), max(-shift, 0)
    return shift_away(high_mul(wrap32(np.int64(acc) << np.int64(left)), multiplier), right)


def upward_rounding(acc, multiplier, shift):
    """As double_rounding, with shift_upward as its second rounding.

    Source: LiteRT, tflite/kernels/internal/optimized/optimized_ops.h, Quantize (NEON, and its emulation on x86), commit
    f67457790; ruy, ruy/kernel_avx.cc, kernel_avx2_fma.cc, kernel_avx512.cc, commit 3286a34cc.
    """
    left, right = max(shift, 0), max(-shift, 0)
    return shift_upward(high_mul(wrap32(np.int64(acc) << np.int64(left)), multiplier), right)


def single_rounding(acc: Any, multiplier: Any, shift: Any) -> Any:
    """acc * multiplier * 2^(shift - 31), rounded once, ties upward.

    |acc * multiplier| < 2^62 and the half is at most 2^61, so that the sum is exact in int64. A result that is no int32
    wraps, as C's cast does.

    Source: LiteRT, tflite/kernels/internal/common.cc under TFLITE_SINGLE_ROUNDING, commit f67457790.
    """
    total = np.int64(31) - np.int64(shift)
    half = np.int64(1) << (total - np.int64(1))
    return wrap32((np.int64(acc) * np.int64(multiplier) + half) >> total)


def upward_late_rounding(acc, multiplier, shift):
    """As upward_rounding, but that a positive shift follows high_mul, saturating, and leaves zeros behind.

    Source: LiteRT, tflite/kernels/internal/optimized/integer_ops/depthwise_conv_3x3_filter.h (SQRDMULH, SQRSHL), commit
    f67457790.
    """
    left, right = max(shift, 0), max(-shift, 0)
    return saturate32(shift_upward(high_mul(acc, multiplier), right) << np.int64(left))


def rndnu16_rounding(acc, multiplier, shift):
    """acc * 2^shift, rounded upward and saturated to 16 bits; times multiplier / 2^31, rounded upward again.

    multiplier has 15 bits and 16 zeros (convolution.py: to_15_bits). Results are those of 16 bits: beyond 8 bits they
    are not exact, and are clamped. A shift to the left saturates before or behind, which is the same.

    Source: XNNPACK, src/qs8-gemm/neon-mlal-lane.c.in, requantization RNDNU16 (VQRSHL, VQMOVN, VQRDMULH), commit
    75db3c093b.
    """
    left, right = max(shift, 0), max(-shift, 0)
    wide = saturate16(saturate16(shift_upward(acc, right)) << np.int64(left))
    return (wide * (np.int64(multiplier) >> np.int64(16)) + np.int64(16384)) >> np.int64(15)


def float32_rounding(acc, scale):
    """float32(acc) * float32(scale) in float32, then to the nearest integer, ties to even.

    Two roundings come before the one to an integer: of acc to 24 bits (exact below 2^24), and of the product. Beyond
    2^30 nothing is told apart: a clamp to 8 bits follows. (Below -2^31 XNNPACK's kernels for AVX-512 give the upper end
    of the output's range where its zero point is negative, those for AVX2 the lower end, as here.)

    Source: XNNPACK, src/qs8-qc8w-gemm and src/qu8-gemm, "fp32" requantization on x86 (CVTPS2DQ), commit 75db3c093b.
    """
    product = np.float32(acc) * np.float32(scale)
    return np.int64(np.rint(min(max(product, np.float32(-1073741824.0)), np.float32(1073741824.0))))


def float64_rounding(acc, scale):
    """float64(acc) * scale, then to the nearest integer, ties away from zero.

    What is no int32 becomes INT32_MIN, whatever its sign: so does x86's conversion (CVTTSD2SI); C leaves it open.

    Source: LiteRT, tflite/kernels/internal/reference/integer_ops/fully_connected.h, commit f67457790.
    """
    v = np.float64(acc) * np.float64(scale)
    if math.fabs(v) >= 2147483647.5:  # INT32_MIN - 1/2 < v <= INT32_MIN rounds to INT32_MIN as well
        return np.int64(-2147483648)
    return round_away(v)


def requantize(acc, multiplier, shift, scale, rule):
    """The accumulator in units of the output's scale, by a rule of Rounding."""
    if rule == Rounding.DOUBLE:
        return double_rounding(acc, multiplier, shift)
    if rule == Rounding.UPWARD:
        return upward_rounding(acc, multiplier, shift)
    if rule == Rounding.SINGLE:
        return single_rounding(acc, multiplier, shift)
    if rule == Rounding.FLOAT32:
        return float32_rounding(acc, scale)
    if rule == Rounding.FLOAT64:
        return float64_rounding(acc, scale)
    if rule == Rounding.UPWARD_LATE:
        return upward_late_rounding(acc, multiplier, shift)
    if rule == Rounding.RNDNU16:
        return rndnu16_rounding(acc, multiplier, shift)
    return np.int64(acc)


def requantized(acc, c, r):
    """The output for an accumulator of channel c under the Requantization r: scaled, moved by the zero point, clamped.

    The sum with the zero point wraps like C's int32: only a scaled accumulator at the very ends of int32 can tell.
    """
    v = wrap32(requantize(acc, r.multiplier[c], r.shift[c], r.scale[c], rule_at(c, r.rule)) + r.zero_point)
    return min(max(v, r.low), r.high)
