"""Hypotheses on the multiplication behind the accumulators: its width, its nudge, its order, its shifter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from npmobilenet.golden.causes.case import Case, Change
from npmobilenet.golden.causes.results import factor_edit
from npmobilenet.golden.causes.rounding import Rule, away_shift, by_rule, floor_shift, upward_shift
from npmobilenet.modeldata import Array

WIDE = 31  # what the high half of a product is shifted by


def multiplying(c: Case) -> Iterator[Change]:
    """Products and left shifts of too few bits, nudges of the wrong sign, another order of steps, short shifters."""
    m, s = (np.asarray(v, np.int64) for v in (c.requant.multiplier, c.requant.shift))
    for text, edit in _factors(m, s):
        yield Change(text, edit=edit)
    for text, rule in _rules(int(np.abs(c.sums).max(initial=0)), int(s.max(initial=0))):
        yield Change(text, scaling=by_rule(rule))


def _factors(m: Array, s: Array) -> Iterator[tuple[str, Callable[[Any], Any]]]:
    """Multipliers whose highest bit is taken for a sign; shifts of too few bits."""
    for low in (0, 15, 16):
        said = f" in {32 - low} bits" if low else ""
        yield f"its multiplier's highest bit is taken for a sign{said}", factor_edit((m >> low << low) - 2**31, s)
    for bits in (2, 3, 4):
        if (-s >= 1 << bits).any():
            short = np.where(s < 0, -(-s & (1 << bits) - 1), s)
            yield f"its right shifts have {bits} bits alone", factor_edit(m, short)
    if (s > 0).any() and (s < 0).any():
        yield "its left shifts are taken for right ones", factor_edit(m, -np.abs(s))


def _rules(largest: int, left: int) -> Iterator[tuple[str, Rule]]:
    for bits in (32, 36, 40, 44, 48):
        if largest << max(left, 0) + WIDE >= 1 << bits - 1:
            yield f"its products with the multiplier wrap at {bits} bits", _two(after=_wrapped(bits))
            yield f"its products with the multiplier saturate at {bits} bits", _two(after=_clipped(bits))
    if left > 0 and largest << left >= 1 << 31:
        yield "its accumulators overflow 32 bits (wrap) where they are shifted left", _two(before=_wrapped(32))
        yield "its accumulators saturate at 32 bits where they are shifted left", _two(before=_clipped(32))
    yield "its doubling high multiplication takes the nudge of the sign, but shifts instead of dividing", _nudged
    yield "its last right shift compares what is left with >= instead of >, as if below one half", _generous
    for name, shift in (("rounded half away from zero", away_shift), ("rounded half up", upward_shift),
                        ("cut off", floor_shift)):  # fmt: skip
        yield f"its accumulators are shifted right ({name}) before they are multiplied", _shift_first(shift)


def _two(before: Callable[[Any], Any] = lambda v: v, after: Callable[[Any], Any] = lambda v: v) -> Rule:
    """gemmlowp's two roundings, with what befalls the shifted accumulator and the product."""
    return lambda acc, m, s: away_shift(
        upward_shift(after(before(acc << np.maximum(s, 0)) * m), np.int64(WIDE)), np.maximum(-s, 0)
    )


def _wrapped(bits: int) -> Callable[[Any], Any]:
    half = 1 << bits - 1
    return lambda v: ((v + half) & (2 * half - 1)) - half


def _clipped(bits: int) -> Callable[[Any], Any]:
    return lambda v: np.clip(v, -(1 << bits - 1), (1 << bits - 1) - 1)


def _nudged(acc: Any, m: Any, s: Any) -> Any:
    product = (acc << np.maximum(s, 0)) * m
    high = (product + np.where(product >= 0, 1 << WIDE - 1, 1 - (1 << WIDE - 1))) >> WIDE
    return away_shift(high, np.maximum(-s, 0))


def _generous(acc: Any, m: Any, s: Any) -> Any:
    high, right = upward_shift((acc << np.maximum(s, 0)) * m, np.int64(WIDE)), np.maximum(-s, 0)
    mask = (np.int64(1) << right) - 1
    return (high >> right) + ((right > 0) & ((high & mask) >= (mask >> 1) + (high < 0)))


def _shift_first(shift: Callable[[Any, Any], Any]) -> Rule:
    return lambda acc, m, s: upward_shift((shift(acc, np.maximum(-s, 0)) << np.maximum(s, 0)) * m, np.int64(WIDE))
