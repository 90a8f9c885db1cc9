"""Requantization of whole layers in NumPy: the rules of arithmetic/fixedpoint.py, and those that only faults follow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from npmobilenet.arithmetic.fixedpoint import Requantization, Rounding

Rule = Callable[[Any, Any, Any], Any]  # accumulators, multiplier, shift (int64) to scaled integers


def floor_shift(v: Any, s: Any) -> Any:
    """v / 2^s toward minus infinity."""
    return v >> s


def toward_zero_shift(v: Any, s: Any) -> Any:
    """v / 2^s toward zero."""
    return np.where(v < 0, -((-v) >> s), v >> s)


def upward_shift(v: Any, s: Any) -> Any:
    """v / 2^s to nearest, ties upward."""
    return (v + ((np.int64(1) << s) >> 1)) >> s


def away_shift(v: Any, s: Any) -> Any:
    """v / 2^s to nearest, ties away from zero."""
    return np.where(v < 0, -upward_shift(-v, s), upward_shift(v, s))


def down_shift(v: Any, s: Any) -> Any:
    """v / 2^s to nearest, ties downward."""
    return -upward_shift(-v, s)


def even_shift(v: Any, s: Any) -> Any:
    """v / 2^s to nearest, ties to even."""
    up = upward_shift(v, s)
    tie = (s > 0) & ((v & ((np.int64(1) << s) - 1)) == ((np.int64(1) << s) >> 1))
    return np.where(tie & (up & 1 == 1), up - 1, up)


def up_shift(v: Any, s: Any) -> Any:
    """v / 2^s toward plus infinity."""
    return -((-v) >> s)


def half_cut_shift(v: Any, s: Any) -> Any:
    """(v + 2^s / 2) / 2^s, cut off toward zero: what C's division makes of it."""
    return toward_zero_shift(v + ((np.int64(1) << s) >> 1), s)


Shift = Callable[[Any, Any], Any]
SHIFTS: Mapping[str, Shift] = {
    "cut off toward zero instead of rounded": toward_zero_shift,
    "cut off toward minus infinity (a plain right shift) instead of rounded": floor_shift,
    "rounded half up": upward_shift,
    "rounded half to even": even_shift,
    "rounded half away from zero": away_shift,
    "rounded half down": down_shift,
    "rounded up to the next integer": up_shift,
}


def _left(acc: Any, s: Any) -> Any:
    return (acc << np.maximum(s, 0)).astype(np.int64)


def once(shift: Shift) -> Rule:
    """acc * multiplier * 2^(shift - 31), rounded once."""
    return lambda acc, m, s: shift(acc * m, 31 - s)


def twice(first: Shift, second: Shift) -> Rule:
    """The high half of the product, and what remains to shift, each rounded in its own way."""
    return lambda acc, m, s: second(first(_left(acc, s) * m, np.int64(31)), np.maximum(-s, 0))


def _late(acc: Any, m: Any, s: Any) -> Any:
    """fixedpoint.upward_late_rounding."""
    high = upward_shift(upward_shift(acc * m, np.int64(31)), np.maximum(-s, 0))
    return np.clip(high << np.maximum(s, 0), -(2**31), 2**31 - 1)


def _in_16_bits(acc: Any, m: Any, s: Any) -> Any:
    """fixedpoint.rndnu16_rounding."""
    wide = np.clip(upward_shift(acc, np.maximum(-s, 0)), -(2**15), 2**15 - 1) << np.maximum(s, 0)
    return upward_shift(np.clip(wide, -(2**15), 2**15 - 1) * (m >> 16), np.int64(15))


DIALECT_RULES: Mapping[int, Rule] = {
    Rounding.DOUBLE: twice(upward_shift, away_shift),
    Rounding.UPWARD: twice(upward_shift, upward_shift),
    Rounding.SINGLE: once(upward_shift),
    Rounding.UPWARD_LATE: _late,
    Rounding.RNDNU16: _in_16_bits,
}

# What a device may do instead, by what it is called: in one step, and in two.
RULES: Mapping[str, Rule] = {
    **{f"scaled in one step, {name}": once(shift) for name, shift in SHIFTS.items()},
    **{f"scaled in two steps, the second {name}": twice(upward_shift, shift) for name, shift in SHIFTS.items()},
    **{f"scaled in two steps, the first cut off, the second {name}": twice(floor_shift, shift)
       for name, shift in SHIFTS.items()},
    "scaled in two steps, both cut off toward zero": twice(toward_zero_shift, toward_zero_shift),
}  # fmt: skip

_RAISED = "raised by one half and cut off toward zero"
RAISED_RULES: Mapping[str, Rule] = {
    f"scaled in one step, {_RAISED}": once(half_cut_shift),
    f"scaled in two steps, the first {_RAISED}": twice(half_cut_shift, away_shift),
    f"scaled in two steps, the second {_RAISED}": twice(upward_shift, half_cut_shift),
}

FLOAT_RULES: Mapping[str, Callable[[Any], Any]] = {
    "rounded half to even": np.rint,
    "rounded half away from zero": lambda v: np.trunc(v + np.copysign(0.5, v)),
    "rounded half up": lambda v: np.floor(v + 0.5),
    "cut off toward zero": np.trunc,
    "cut off toward minus infinity": np.floor,
}


def cast_rules(z: int) -> Mapping[str, Callable[[Any], Any]]:
    """What C's casts make of floats: cut off toward zero, before or after the zero point `z` is added."""
    rules: dict[str, Callable[[Any], Any]] = {
        _RAISED: lambda v: np.trunc(v + 0.5),
        "cut off toward zero, after the zero point is added": lambda v: np.trunc(v + z) - z,
        f"{_RAISED}, after the zero point is added": lambda v: np.trunc(v + z + 0.5) - z,
        "rounded half away from zero, after the zero point is added": lambda v: (
            np.trunc(v + z + np.copysign(0.5, v + z)) - z
        ),
    }
    return rules


def _float32(acc: Any, scale: Any) -> Any:
    return np.rint(np.clip(acc.astype(np.float32) * scale.astype(np.float32), -(2.0**30), 2.0**30)).astype(np.int64)


def _float64(acc: Any, scale: Any) -> Any:
    v = acc * scale
    whole = np.trunc(v)
    rounded = whole + np.copysign(np.abs(v - whole) >= 0.5, v)
    return np.where(np.abs(v) >= 2147483647.5, -(2.0**31), rounded).astype(np.int64)


def scaled(acc: Any, r: Requantization) -> Any:
    """Accumulators (..., C) in units of the output's scale, by the rule that `r` names."""
    with np.errstate(all="ignore"):
        inside, outside, _, full = r.rule
        if inside in DIALECT_RULES:
            m, s = (np.asarray(v, np.int64) for v in (r.multiplier, r.shift))
            values = DIALECT_RULES[inside](acc, m, s)
            if full < acc.shape[-1]:
                rest = DIALECT_RULES[outside](acc[..., full:], m[full:], s[full:])
                values = np.concatenate([values[..., :full], rest], axis=-1)
            return values
        scale = np.asarray(r.scale, np.float64)
        if inside == Rounding.FLOAT32:
            return _float32(acc, scale)
        return _float64(acc, scale) if inside == Rounding.FLOAT64 else acc


def requantize_all(acc: Any, r: Requantization) -> Any:
    """`fixedpoint.requantized` of a whole layer: acc is (..., C), int64."""
    return np.clip(scaled(acc, r) + r.zero_point, r.low, r.high)


def by_rule(rule: Rule) -> Callable[[Any, Requantization], Any]:
    """The same, with another rule in place of `r`'s."""

    def requantize(acc: Any, r: Requantization) -> Any:
        with np.errstate(all="ignore"):
            m, s = (np.asarray(v, np.int64) for v in (r.multiplier, r.shift))
            return np.clip(rule(acc, m, s) + r.zero_point, r.low, r.high)

    return requantize


def by_float(dtype: type, rule: Callable[[Any], Any]) -> Callable[[Any, Requantization], Any]:
    """The same in floats of one kind, rounded to an integer by `rule`."""

    def requantize(acc: Any, r: Requantization) -> Any:
        with np.errstate(all="ignore"):
            v = rule(acc.astype(dtype) * np.asarray(r.scale).astype(dtype))
            return np.clip(np.clip(v, -(2.0**31), 2.0**31) + r.zero_point, r.low, r.high).astype(np.int64)

    return requantize
