"""Hypotheses with a number that the dump tells: a zero point, a scale, a padding's value, a bias, off by any amount.

What a node rounds is real + t * move, in units of its output, with one unknown t. The dump's value leaves t an interval
at each element. What all of them leave is computed by the engine, so that a cause is exact though its number was found
with floats; `slack` is what a runtime's rounding may be away from the nearest integer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from npmobilenet.arithmetic.fixedpoint import INT32_MAX, INT32_MIN, quantize_multiplier
from npmobilenet.golden.causes.case import Case, Change, listed
from npmobilenet.golden.causes.constants import zero_point_sums
from npmobilenet.golden.causes.geometry import Axis, gathered, sides_of
from npmobilenet.golden.causes.realvalues import set_fields
from npmobilenet.golden.causes.results import factor_edit
from npmobilenet.golden.derivation import zero_point_of
from npmobilenet.golden.single_node import run
from npmobilenet.modeldata import Array

MOST = 3  # integers that are tried
ELEMENTS = 16  # of a channel, below which a number of its own proves nothing
LEAST = 4  # differing values, below which a number that was solved for proves nothing
FAR = 12  # how far off a zero point is tried where it can't be solved for
SLACK = 0.05
Bounds = tuple[int, int, int]  # zero point, least and greatest value


def interval(c: Case, real: Array, move: Any, bounds: Bounds, slack: Any = SLACK) -> tuple[Array, Array]:
    """For each channel the least and the greatest t; the least is the larger one where none is left."""
    z, low, high = bounds
    v = c.found.astype(np.float64) - z
    a = np.where(c.found <= low, -np.inf, v - 0.5 - slack) - real
    b = np.where(c.found >= high, np.inf, v + 0.5 + slack) - real
    moved = np.broadcast_to(move, a.shape)
    with np.errstate(all="ignore"):
        x, y = a / moved, b / moved
    still = moved == 0
    free = np.where((a <= 0) & (b >= 0), np.inf, -np.inf)
    least = np.where(still, -free, np.where(moved > 0, x, y)).reshape(-1, a.shape[-1])
    most = np.where(still, free, np.where(moved > 0, y, x)).reshape(-1, a.shape[-1])
    return least.max(axis=0), most.min(axis=0)


def integers(least: Array, most: Array, zero: bool = False) -> list[int]:
    """The whole numbers that all channels leave (0 only if `zero`), the nearest to 0 first."""
    a, b = float(least.max()), float(most.min())
    if not (np.isfinite(a) and np.isfinite(b)) or b - a > 2**20:
        return []
    found = [d for d in range(int(np.ceil(a - 1e-6)), int(np.floor(b + 1e-6)) + 1) if d or zero]
    return sorted(found, key=abs)[:MOST]


def numbers(least: Array, most: Array, about: float = 1.0, inverse: bool = False) -> list[float]:
    """Numbers about + t (or 1 by that) that all channels leave: round ones first."""
    a, b = about + float(least.max()), about + float(most.min())
    if inverse and a > 0:
        a, b = 1 / b, 1 / a
    if not (np.isfinite(a) and np.isfinite(b)) or a > b:
        return []
    round_ones = [round((a + b) / 2, digits) for digits in range(1, 9)]
    found = [v for v in (*round_ones, *np.linspace(b, a, 9)) if a <= v <= b and v > 0 and v != about]
    return list(dict.fromkeys(float(v) for v in found))


def first_that_fits(c: Case, changes: Iterable[Change]) -> Iterator[Change]:
    """The first that explains everything; if none does, the first."""
    kept: Change | None = None
    for change in changes:
        kept = kept or change
        if c.first_try(change) in (None, 1.0) and np.array_equal(c.whole(change), c.found):
            yield change
            return
    if kept is not None:
        yield kept


def little(c: Case) -> bool:
    """Whether a partial dump, or too few values, would prove no number."""
    return c.finish is not None or int(c.wrong.sum()) < LEAST


# ---------------------------------------------------------------------------------------------------------------------
# Layers with accumulators


def layers(c: Case) -> Iterator[Change]:
    """Zero points, the padding's value, the scale, the bias: off by any amount; biases and multipliers rolled."""
    if c.finish is not None:
        yield from _tried(c)
    if little(c):
        return
    own, bounds, slack = rescaling(c)
    real, bias = c.sums * own, c.what.arrays[2].astype(np.int64)
    w_sums, every, x_sums = zero_point_sums(c)
    moves = [("its input's zero point is off by {:+d}", w_sums), ("its weights' zero point is off by {:+d}", x_sums)]
    if c.what.node.op != "fully_connected":
        moves.append(("its input's zero point is off by {:+d}, though not in the padding", every))
    for text, sums in moves:
        for d in integers(*interval(c, real, -sums * own, bounds, slack)):
            yield Change(text.format(d), sums=lambda s, d=d, sums=sums: s - d * sums)  # type: ignore[misc]
    yield from _weights_of_some(c, real, x_sums, own, bounds, slack)
    yield from _padding(c, real, own, bounds, slack)
    near = interval(c, real, bias * own, bounds, slack + own)
    yield from first_that_fits(c, (
        Change(f"its bias is {k:.6g} times what it should be ({how})",
               sums=lambda s, k=k, whole=whole: s - bias + whole(k * bias).astype(np.int64))  # type: ignore[misc]
        for k in numbers(*near) for how, whole in (("rounded", np.rint), ("cut off", np.trunc))))  # fmt: skip
    near = interval(c, real, (c.sums - bias) * own, bounds, slack + own)
    yield from first_that_fits(c, (
        Change(f"its products are {k:.6g} times what they should be, its bias is not",
               sums=lambda s, k=k: bias + np.rint(k * (s - bias)).astype(np.int64))  # type: ignore[misc]
        for k in numbers(*near)))  # fmt: skip
    yield from _biases(c, real, own, bias, bounds, slack)
    if c.stage != "accumulator":
        yield from _scaled(c, real, own, bounds, slack)


def _tried(c: Case) -> Iterator[Change]:
    """In a partial dump nothing can be solved for: small amounts are tried."""
    w_sums, _, x_sums = zero_point_sums(c)
    bias, r = c.what.arrays[2].astype(np.int64), c.requant
    for d in (sign * size for size in range(4, FAR + 1) for sign in (1, -1)):
        yield Change(f"its input's zero point is off by {d:+d}", sums=lambda s, d=d: s - d * w_sums)  # type: ignore[misc]
        if c.what.operands[1].dtype == "uint8":
            yield Change(f"its weights' zero point is off by {d:+d}", sums=lambda s, d=d: s - d * x_sums)  # type: ignore[misc]
        text = f"its output's zero point is off by {d:+d}"
        yield Change(text, edit=set_fields(zero_point=r.zero_point + d, low=r.low, high=r.high))
    for d in range(1, min(len(bias), 2 * FAR)):
        moved = np.roll(bias, d) - bias
        yield Change(f"its bias has its channels {_by(d, len(bias))}", sums=lambda s, moved=moved: s + moved)  # type: ignore[misc]


def rescaling(c: Case) -> tuple[Array, Bounds, Array]:
    """Each channel's factor, the bounds of its values, and the slack of two roundings."""
    count = c.sums.shape[-1]
    if c.stage == "accumulator":
        return np.ones(count), (0, INT32_MIN, INT32_MAX), np.zeros(count)
    r = c.requant
    shift = np.asarray(r.shift, np.float64)
    slack = np.where(shift < 0, 0.51 * 2.0**shift, 0.01)
    return np.asarray(r.multiplier, np.float64) * 2.0 ** (shift - 31), (r.zero_point, r.low, r.high), slack


def _weights_of_some(c: Case, real: Array, x_sums: Array, own: Array, bounds: Bounds, slack: Array) -> Iterator[Change]:
    """The weights of some channels are all off, each channel's by an amount of its own."""
    odd = np.flatnonzero(c.wrong.reshape(-1, c.wrong.shape[-1]).any(axis=0))
    least, most = interval(c, real, -x_sums * own, bounds, slack)
    off = np.zeros(len(own), np.int64)
    if c.sums[..., 0].size < ELEMENTS or len(odd) == len(own):
        return
    for ch in odd:
        found = integers(least[ch : ch + 1], most[ch : ch + 1])
        if not found:
            return
        off[ch] = found[0]
    said = listed([f"{ch} by {off[ch]:+d}" for ch in odd])
    yield Change(f"its weights' zero point is off in channels {said}", sums=lambda s: s - off * x_sums)


def _padding(c: Case, real: Array, own: Array, bounds: Bounds, slack: Array) -> Iterator[Change]:
    if c.what.node.op == "fully_connected":
        return
    axes = [Axis(c.what, i) for i in (0, 1)]
    at = [a.at() for a in axes]
    if not any(((p < 0) | (p >= a.size)).any() for p, a in zip(at, axes, strict=True)):
        return
    z, limits = zero_point_of(c.what.operands[0]), np.iinfo(c.what.arrays[0].dtype)
    by = 1 if z < limits.max else -1
    sides = sides_of(at[0].reshape(-1), at[1].reshape(-1), axes[0].size, axes[1].size)
    for side in ("", *(name for name, picked in sides.items() if picked.any())):
        one = gathered(c, "", at[0], at[1], filling=z + by, side=side).what
        assert one is not None
        each = by * (run(one, c.dialect, stage="accumulator").astype(np.int64) - c.sums)
        for d in integers(*interval(c, real, each * own, bounds, slack)):
            if limits.min <= z + d <= limits.max:
                text = f"the padding{' ' * bool(side)}{side} holds {z + d} instead of the zero point {z}"
                yield Change(text, sums=lambda s, d=d, each=each: s + d * each)  # type: ignore[misc]


def _biases(
    c: Case, real: Array, own: Array, bias: Array, bounds: Bounds, slack: Array
) -> Iterator[Change]:  # fmt: skip
    """The bias of another channel, so many channels away: each channel's accumulators allow some biases only."""
    least, most = interval(c, real, own, bounds, slack)
    for d in range(1, len(bias)):
        moved = np.roll(bias, d)
        if ((least <= moved - bias) & (moved - bias <= most)).all():
            yield Change(f"its bias has its channels {_by(d, len(bias))}",
                         sums=lambda s, moved=moved: s + (moved - bias))  # type: ignore[misc]  # fmt: skip
    order = _elsewhere(least + bias, most + bias, bias)
    if order is not None:
        yield Change(f"its biases are in other places: {_places(order)}", sums=lambda s: s + (bias[order] - bias))


def _elsewhere(least: Array, most: Array, own: Array) -> Array | None:
    """For each channel the nearest one whose number it may have; None if one has none, or most would do."""
    fits = (least[:, None] <= own) & (own <= most[:, None])
    odd = ~np.diagonal(fits)
    if not odd.any() or not fits.any(axis=1).all() or fits[odd].mean() > 0.25:
        return None
    away = np.abs(np.arange(len(own))[:, None] - np.arange(len(own)))
    return np.asarray(np.where(fits, away, len(own)).argmin(axis=1))


def _places(order: Array) -> str:
    return listed([f"{i} has that of {order[i]}" for i in np.flatnonzero(order != np.arange(len(order)))], 3)


def _by(d: int, count: int) -> str:
    return f"rolled by {d if d <= count // 2 else d - count}"


def _scaled(c: Case, real: Array, own: Array, bounds: Bounds, slack: Array) -> Iterator[Change]:
    """One factor too much in all channels; one multiplier for all; multipliers rolled."""
    yield from first_that_fits(c, (
        Change(f"its multipliers are {k:.6g} times what they should be (a scale of its input, weights or output)",
               edit=exact_factors(own * k))
        for wider in (1, 2, 8) for k in numbers(*interval(c, real, real, bounds, np.minimum(wider * slack, 0.25)))
    ))  # fmt: skip
    yield from _scaled_channels(c, real, own, bounds, np.minimum(2 * slack, 0.25))
    least, most = interval(c, np.zeros_like(real), c.sums.astype(np.float64), bounds)
    if np.ptp(own):
        means = {"mean": own.mean(), "median": np.median(own), "geometric mean": np.exp(np.log(own[own > 0]).mean())}
        every = "all channels have one multiplier"
        yield from first_that_fits(c, (
            Change(f"{every}, the {name} of their own", edit=exact_factors(own * 0 + k))
            for name, k in means.items()))  # fmt: skip
        yield from first_that_fits(c, (
            Change(f"{every}, {k:.6g}, in place of their own", edit=exact_factors(own * 0 + k))
            for wider in (0, 1, 2)
            for k in numbers(*interval(c, np.zeros_like(real), c.sums.astype(np.float64), bounds, wider * slack), 0.0)
        ))  # fmt: skip
        for d in range(1, len(own)):
            moved = np.roll(own, d)
            if ((least <= moved) & (moved <= most)).all():
                yield Change(
                    f"its multipliers and shifts have their channels {_by(d, len(own))}", edit=exact_factors(moved)
                )
        order = _elsewhere(least, most, own)
        if order is not None:
            text = f"its multipliers and shifts are in other places: {_places(order)}"
            yield Change(text, edit=exact_factors(own[order]))


def _scaled_channels(c: Case, real: Array, own: Array, bounds: Bounds, slack: Array) -> Iterator[Change]:
    """Some channels' multipliers are off, each by a factor of its own."""
    odd = np.flatnonzero(c.wrong.reshape(-1, c.wrong.shape[-1]).any(axis=0))
    if c.sums[..., 0].size < ELEMENTS or 2 * len(odd) > len(own):
        return
    least, most = interval(c, real, real, bounds, slack)
    factors = np.ones(len(own))
    for ch in odd:
        found = numbers(least[ch : ch + 1], most[ch : ch + 1])
        if not found:
            return
        factors[ch] = found[0]
    said = listed([f"{ch} ({factors[ch]:.4g} times)" for ch in odd])
    yield Change(f"its multiplier is off in channels {said}", edit=exact_factors(own * factors))


def half_scales(c: Case) -> Iterator[Change]:
    """Scales or their products in floats of 16 bits."""
    own = rescaling(c)[0]
    for name, short in (("float16", _float16), ("bfloat16", _bfloat16)):
        yield Change(f"its multipliers are rounded to {name}", edit=exact_factors(short(own)))
        scales = [np.asarray(t.quantization.scale) for t in (*c.what.operands[:2], c.what.result) if t.quantization]
        x, w, o = (short(s) for s in scales)
        yield Change(f"the scales of its input, weights and output are rounded to {name}",
                     edit=exact_factors(np.broadcast_to(x * w / o, own.shape)))  # fmt: skip


def exact_factors(factors: Array) -> Any:
    """An edit of multipliers and shifts: these real factors."""
    pairs = [quantize_multiplier(float(f)) for f in factors]
    multiplier, shift = (np.array(part, np.int64) for part in zip(*pairs, strict=True))
    return factor_edit(multiplier, np.minimum(shift, 30))


def _float16(v: Array) -> Array:
    with np.errstate(over="ignore"):
        return np.asarray(np.nan_to_num(v.astype(np.float16).astype(np.float64), posinf=65504.0))


def _bfloat16(v: Array) -> Array:
    """The upper half of a float32, rounded to nearest."""
    raw = np.atleast_1d(v).astype(np.float32).view(np.uint32).astype(np.int64)
    return np.asarray(((raw + 0x7FFF + (raw >> 16 & 1)) >> 16 << 16).astype(np.uint32).view(np.float32), np.float64)
