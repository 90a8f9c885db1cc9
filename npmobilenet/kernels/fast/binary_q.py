"""Fast twins of reference/binary_q.py."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numba.extending import register_jitable

from npmobilenet.fixedpoint import single_rounding
from npmobilenet.kernels.fast.binary import FULL, OTHER, SCALAR, _spread, output_rows
from npmobilenet.kernels.fast.task import Task, TaskFamily
from npmobilenet.kernels.reference import binary_q as book

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


# In the order of SUMS.
_SUMS = (
    _sum(_unit_double, _end_double),
    _sum(_unit_single, _end_single),
    _sum(_unit_fused, _end_wrapped),
    _sum(_unit_floor, _end_wrapped),
    _sum(_unit_linear, _end_linear),
)


@register_jitable
def _double_of(a, b, p):
    """A shift left wraps, as in the book; then there is none to the right."""
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


# By rule (REQUANTIZATIONS), and in the order of NARROWINGS.
_PRODUCTS = {1: _segment(_double_of), 3: _segment(_single_of), 4: _segment(_float_of)}
_NARROWED = {book.SATURATE: _segment(_saturated_of), book.WRAP: _segment(_wrapped_of)}


@register_jitable
def _row(operand, spread, length):
    """The operand's values in a row; of a single value, a row of them."""
    flat = operand.reshape(-1)
    if spread != SCALAR:
        return flat
    row = np.empty(length, operand.dtype)
    row[:] = flat[0]
    return row


def _fast(rest: Callable[..., None], full: Callable[..., None], general: Callable[..., None], name: str) -> Task:
    """The kernel for a pair of rules: of the rest, and of full vectors.

    Moves: where one operand has the result's shape and the other too, or is one value
    or one pixel (squeeze-excite's gate), threads take rows, which are cut where the rounding rule changes; each piece
    is one vectorized loop of one rule. Any other broadcast goes through the book's loops.
    """

    def kernel(start, stop, x, y, p, out):
        _, height, width, channels = out.shape
        spread_x, spread_y = _spread(x, out), _spread(y, out)
        if min(spread_x, spread_y) != FULL or max(spread_x, spread_y) == OTHER:
            general(x, y, p, out)
            return
        long = width * channels
        flat_x, flat_y, flat_out = _row(x, spread_x, long), _row(y, spread_y, long), out.reshape(-1)
        piece = channels if 1 in (spread_x, spread_y) else long  # a pixel beside a gate
        for row in range(start, stop):
            n, first = row // height, row % height * long  # first: of the row, in its image
            moved = n * height * long
            i = first
            while i < first + long:
                end = i - (i - first) % piece + piece
                inside = i % p.run < p.full
                if p.full > 0:
                    end = min(end, i - i % p.run + (p.full if inside else p.run))
                x_at = moved + i
                y_at = moved + i
                if spread_x != FULL:
                    x_at = (n % x.shape[0] * channels if spread_x == 1 else 0) + (i - first) % piece
                if spread_y != FULL:
                    y_at = (n % y.shape[0] * channels if spread_y == 1 else 0) + (i - first) % piece
                if inside:
                    full(flat_x, x_at, flat_y, y_at, p, flat_out, moved + i, end - i)
                else:
                    rest(flat_x, x_at, flat_y, y_at, p, flat_out, moved + i, end - i)
                i = end

    kernel.__name__ = name
    return Task(kernel, output_rows)


_add_general, _mul_general = register_jitable(book.add_q), register_jitable(book.mul_q)


@functools.cache
def _add(rule: int, lanes: int) -> Task:
    return _fast(_SUMS[rule], _SUMS[lanes], _add_general, f"add_q_{rule}{lanes}")


@functools.cache
def _mul(rule: int, narrow: int) -> Task:
    return _fast(_PRODUCTS[rule], _NARROWED.get(narrow, _PRODUCTS[rule]), _mul_general, f"mul_q_{rule}{narrow}")


# A kernel for each pair of rules.
add_q = TaskFamily("add_q", lambda x, y, p, out: _add(p.rule, p.lanes))
mul_q = TaskFamily("mul_q", lambda x, y, p, out: _mul(p.rule, p.narrow))
