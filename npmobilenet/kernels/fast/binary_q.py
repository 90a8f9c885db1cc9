"""Fast twins of reference/binary.py."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from npmobilenet.arithmetic.fixedpoint import Rounding, single_rounding
from npmobilenet.kernels.compiler.deferred import register_jitable
from npmobilenet.kernels.compiler.task import Task, TaskFamily
from npmobilenet.kernels.fast.binary import FULL, OTHER, VECTOR, _spread, output_rows
from npmobilenet.kernels.fast.gemm_s8 import LANE
from npmobilenet.kernels.fast.lhs_packing import is_signed
from npmobilenet.kernels.reference import binary as reference
from npmobilenet.kernels.vectorcode.elementwise_s8 import product_kernel, sum_kernel
from npmobilenet.kernels.vectorcode.generated import flat_view
from npmobilenet.kernels.vectorcode.requant_rules import packs

# The rounding steps of fixedpoint.py in 32-bit arithmetic, without the cases that can't occur here. Operands are
# differences of 8-bit values, |v| < 2^8; multipliers are in [0, 2^31), so that nothing saturates.


@register_jitable
def _high_mul(v, multiplier):
    """|v| <= 2^31 - 1: the product and the half stay below 2^62."""
    return np.int32((np.int64(v) * np.int64(multiplier) + np.int64(1073741824)) >> np.int64(31))


@register_jitable
def _shift_away(v, s):
    """Add half, less 1 for negative v, and floor. |v| < 2^30 where s > 0, so that the sum fits into int32."""
    half = np.int32((np.int64(1) << np.int64(s)) >> np.int64(1))
    below = np.int32(1 if s > 0 else 0)
    return np.int32(np.int32(v + half + np.int32(np.int32(v >> np.int32(31)) & -below)) >> np.int32(s))


@register_jitable
def _shifted(v, multiplier):
    """high_mul(v << 20, multiplier) = (v * multiplier + 2^10) >> 11, below 2^28."""
    return np.int32((np.int64(v) * np.int64(multiplier) + np.int64(1024)) >> np.int64(11))


@register_jitable
def _unit_double(v, multiplier, shift):
    return _shift_away(_shifted(v, multiplier), -shift)


@register_jitable
def _unit_floor(v, multiplier, shift):
    return np.int32(_shifted(v, multiplier) >> np.int32(-shift))


@register_jitable
def _unit_fused(v, multiplier, shift):
    left, right = np.int32(max(20 + shift, 0)), np.int32(max(-20 - shift, 0))
    return _high_mul(np.int32(np.int32(v << left) >> right), multiplier)


@register_jitable
def _unit_single(v, multiplier, shift):
    return np.int32(single_rounding(np.int64(v) << np.int64(20), multiplier, shift))


@register_jitable
def _unit_linear(v, multiplier, shift):
    return np.int32(v * np.int32(multiplier))


@register_jitable
def _end_double(v, p):
    return _shift_away(_high_mul(v, p.multiplier), -p.shift)


@register_jitable
def _end_wrapped(v, p):
    """As NEON ends: the zero point is added in 16 bits, which wrap. Less the zero point, which `segment` adds."""
    return np.int32(np.int16(_end_double(v, p) + np.int32(p.zero_point))) - np.int32(p.zero_point)


@register_jitable
def _end_single(v, p):
    return np.int32(single_rounding(v, p.multiplier, p.shift))


@register_jitable
def _end_linear(v, p):
    return np.int32(np.int32(v + np.int32(1 << (p.shift - 1))) >> np.int32(p.shift))


def _segment(function: Callable[..., Any]) -> Callable[..., None]:
    """out[i] = clamp(function + zero point) for `count` neighbours: one vectorized loop for one rule.

    The clamp comes first, with its bounds moved, so that adding the zero point can't overflow.
    """

    @register_jitable
    def segment(x, x_at, y, y_at, p, out, at, count):
        # Slices, so that Numba sees indices from 0 and leaves its handling of negative ones out of the loop.
        a, b, result = x[x_at : x_at + count], y[y_at : y_at + count], out[at : at + count]
        zero_x, zero_y, zero = np.int32(p.zero_x), np.int32(p.zero_y), np.int32(p.zero_point)
        low, high = np.int32(p.low - p.zero_point), np.int32(p.high - p.zero_point)
        for i in range(count):
            v = function(np.int32(np.int32(a[i]) - zero_x), np.int32(np.int32(b[i]) - zero_y), p)
            result[i] = np.int32(min(max(np.int32(v), low), high) + zero)

    return segment


def _sum(unit: Callable[..., Any], end: Callable[..., Any]) -> Callable[..., None]:
    @register_jitable
    def rule_of_sum(a, b, p):
        scaled = unit(a, p.multiplier_x, p.shift_x) + np.int32(p.sign) * unit(b, p.multiplier_y, p.shift_y)
        return end(np.int32(scaled), p)

    return _segment(rule_of_sum)


@register_jitable
def _is_byte(v, signed):
    return 0 <= v + (128 if signed else 0) <= 255


@register_jitable
def _are_bytes(p, signed):
    """Whether zero points and range are of the operands' type, as those of any sound file are."""
    inputs = _is_byte(p.zero_x, signed) and _is_byte(p.zero_y, signed)
    return inputs and _is_byte(p.zero_point, signed) and _is_byte(p.low, signed) and _is_byte(p.high, signed)


HALF = 1 << 30  # the multiplier of a factor of 1/2


def _double_sum() -> Callable[..., None]:
    """The rule "double" by a generated kernel, where its conditions hold."""
    general = _sum(_unit_double, _end_double)
    if not packs(LANE):
        return general
    kernel = sum_kernel(LANE)

    @register_jitable
    def segment(x, x_at, y, y_at, p, out, at, count):
        fits = p.sign == 1 and min(p.shift_x, p.shift_y, p.shift) >= -31 and max(p.shift_x, p.shift_y) <= 0
        fits = fits and p.shift <= -1 and _are_bytes(p, is_signed(x))
        # The operand of the greater scale comes first.
        if fits and p.multiplier_x == HALF and p.shift_x == 0:
            scalars = (p.zero_x, p.zero_y, p.multiplier_y, p.shift_y,
                       p.multiplier, p.shift, p.zero_point, p.low, p.high)  # fmt: skip
            kernel(x, x_at, y, y_at, scalars, out, at, count)
        elif fits and p.multiplier_y == HALF and p.shift_y == 0:
            scalars = (p.zero_y, p.zero_x, p.multiplier_x, p.shift_x,
                       p.multiplier, p.shift, p.zero_point, p.low, p.high)  # fmt: skip
            kernel(y, y_at, x, x_at, scalars, out, at, count)
        else:
            general(x, x_at, y, y_at, p, out, at, count)

    return segment


def _double_product() -> Callable[..., None]:
    """The rule "double" by a generated kernel, where its conditions hold."""
    general = _segment(_double_of)
    if not packs(LANE):
        return general
    kernel = product_kernel(LANE)

    @register_jitable
    def segment(x, x_at, y, y_at, p, out, at, count):
        if -31 <= p.shift <= -1 and _are_bytes(p, is_signed(x)):
            scalars = (p.zero_x, p.zero_y, p.multiplier, p.shift, p.zero_point, p.low, p.high)
            kernel(x, x_at, y, y_at, scalars, out, at, count)
        else:
            general(x, x_at, y, y_at, p, out, at, count)

    return segment


_SUMS = {
    Rounding.DOUBLE: _double_sum(),
    Rounding.SINGLE: _sum(_unit_single, _end_single),
    Rounding.FUSED: _sum(_unit_fused, _end_wrapped),
    Rounding.FLOOR: _sum(_unit_floor, _end_wrapped),
    Rounding.LINEAR: _sum(_unit_linear, _end_linear),
}


@register_jitable
def _double_of(a, b, p):
    """A shift left wraps, as in the reference kernels; then there is none to the right."""
    left, right = np.int32(max(p.shift, 0)), np.int32(max(-p.shift, 0))
    return _shift_away(_high_mul(np.int32(np.int32(a * b) << left), p.multiplier), right)


@register_jitable
def _single_of(a, b, p):
    return np.int32(single_rounding(np.int32(a * b), p.multiplier, p.shift))


@register_jitable
def _float_of(a, b, p):
    """Below 2^16 * 2^8 (the delegate's limit), so that the float32 fits into int32."""
    return np.int32(np.rint(np.float32(np.int32(a * b)) * np.float32(p.scale)))


@register_jitable
def _saturated_of(a, b, p):
    v = min(max(_double_of(a, b, p), np.int32(-32768)), np.int32(32767))
    return np.int32(np.int16(v + np.int32(p.zero_point))) - np.int32(p.zero_point)


@register_jitable
def _wrapped_of(a, b, p):
    return np.int32(np.int16(_double_of(a, b, p) + np.int32(p.zero_point))) - np.int32(p.zero_point)


_PRODUCTS = {
    Rounding.DOUBLE: _double_product(),
    Rounding.SINGLE: _segment(_single_of),
    Rounding.FLOAT32: _segment(_float_of),
    Rounding.SATURATED: _segment(_saturated_of),
    Rounding.WRAPPED: _segment(_wrapped_of),
}


@register_jitable
def _fill(row, operand, spread, n):
    """The values that a spread operand has in each row of image n."""
    flat = flat_view(operand)
    channels = operand.shape[3] if spread == VECTOR else 1
    first = n % operand.shape[0] * channels if spread == VECTOR else 0
    if channels == 1:
        row[:] = flat[first]
        return
    pixel = flat[first : first + channels]
    for at in range(0, row.shape[0], channels):
        copy = row[at : at + channels]
        for c in range(channels):
            copy[c] = pixel[c]


def _either(full: Callable[..., None], rest: Callable[..., None]) -> Callable[..., None]:
    """A segment by one rule or the other; one copy of it where they are the same."""

    @register_jitable
    def either(inside, x, x_at, y, y_at, p, out, at, count):
        if inside:
            full(x, x_at, y, y_at, p, out, at, count)
        else:
            rest(x, x_at, y, y_at, p, out, at, count)

    @register_jitable
    def alike(inside, x, x_at, y, y_at, p, out, at, count):
        rest(x, x_at, y, y_at, p, out, at, count)

    return alike if rest is full else either


def _fast(full: Callable[..., None], rest: Callable[..., None], general: Callable[..., None], name: str) -> Task:
    """The kernel for a pair of rules: of full vectors, and of the rest.

    Moves: where one operand has the result's shape and the other too, or is one value or one pixel (squeeze-excite's
    gate), threads take rows; what is spread is written out for a whole row, once for each image. Rows are cut where the
    rounding rule changes, or, where there is but one and no operand is spread, not even between each other; each piece
    is one vectorized loop of one rule. Any other broadcast goes through the reference loops.
    """
    segment = _either(full, rest)

    def kernel(start, stop, x, y, p, out):
        _, height, width, channels = out.shape
        spread_x, spread_y = _spread(x, out), _spread(y, out)
        if min(spread_x, spread_y) != FULL or max(spread_x, spread_y) == OTHER:
            general(x, y, p, out)
            return
        rows = 1  # taken at a time
        if max(spread_x, spread_y) == FULL and p.rule.inside == p.rule.outside:
            rows = max(stop - start, 1)
        long = width * channels
        flat_x, flat_y, flat_out = flat_view(x), flat_view(y), flat_view(out)
        if spread_x != FULL:
            flat_x = np.empty(long, x.dtype)
        if spread_y != FULL:
            flat_y = np.empty(long, y.dtype)
        filled = -1  # the image that they are written out for
        for row in range(start, stop, rows):
            n, first = row // height, row % height * long  # first: of the row, in its image
            if n != filled and spread_x != FULL:
                _fill(flat_x, x, spread_x, n)
            if n != filled and spread_y != FULL:
                _fill(flat_y, y, spread_y, n)
            filled = n
            moved = n * height * long
            i, last = first, first + rows * long
            while i < last:
                place = i % p.rule.run
                inside = place < p.rule.full
                end = min(last, i - place + (p.rule.full if inside else p.rule.run))
                x_at = moved + i if spread_x == FULL else i - first
                y_at = moved + i if spread_y == FULL else i - first
                segment(inside, flat_x, x_at, flat_y, y_at, p, flat_out, moved + i, end - i)
                i = end

    kernel.__name__ = name
    return Task(kernel, output_rows)


_add_general, _mul_general = register_jitable(reference.add_q), register_jitable(reference.mul_q)


@functools.cache
def _add(inside: Rounding, outside: Rounding) -> Task:
    return _fast(_SUMS[inside], _SUMS[outside], _add_general, f"add_q_{inside}_{outside}")


@functools.cache
def _mul(inside: Rounding, outside: Rounding) -> Task:
    return _fast(_PRODUCTS[inside], _PRODUCTS[outside], _mul_general, f"mul_q_{inside}_{outside}")


# A kernel for each pair of rules.
add_q = TaskFamily("add_q", lambda x, y, p, out: _add(*p.rule[:2]))
mul_q = TaskFamily("mul_q", lambda x, y, p, out: _mul(*p.rule[:2]))
