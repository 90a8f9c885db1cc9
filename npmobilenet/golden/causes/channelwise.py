"""Hypotheses that give every channel numbers of its own: a factor, or a factor and a bias.

Whether numbers a, b with low <= a s + b <= high for all of a channel's accumulators s exist is asked by halving: what
the worst element lacks is a convex function of a. Numbers prove nothing unless many more values differ than there are
numbers.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from npmobilenet.golden.causes.case import Case, Change
from npmobilenet.golden.causes.solved import ELEMENTS, exact_factors, interval, little, rescaling
from npmobilenet.golden.derivation import zero_point_of
from npmobilenet.modeldata import Array

PROVING = 5  # differing values for each number
HALVINGS = 60
MOST = 4096  # elements of a channel that are looked at


def own_numbers(c: Case) -> Iterator[Change]:
    """A factor of its own for every channel that differs; a factor and a bias."""
    odd = np.asarray(c.wrong.reshape(-1, c.wrong.shape[-1]).any(axis=0))
    if little(c) or c.stage == "accumulator" or c.sums[..., 0].size < ELEMENTS:
        return
    own, bounds, slack = rescaling(c)
    bias, wide = c.what.arrays[2].astype(np.int64), np.minimum(2 * slack, 0.25)
    kinds = {"its multipliers": bias * 0, "its products (the scales of its weights), not its biases,": bias}
    for text, rest in kinds.items() if c.wrong.sum() >= PROVING * odd.sum() else ():
        least, most = interval(c, c.sums * own, (c.sums - rest) * own, bounds, wide)
        found = _combined(c, own, _between(odd, least, most, rest)) if (least <= most).all() else None
        if found is not None:
            said = f"{text} are off in {int(odd.sum())} of {len(odd)} channels, by factors of their own"
            yield _changed(f"{said}, {found[0].min():.4g} to {found[0].max():.4g}", own, *found)
            return
    if c.wrong.sum() >= 2 * PROVING * odd.sum():
        yield from _affine(c, odd, own, bounds, slack)


def _changed(text: str, own: Array, k: Array, moved: Array) -> Change:
    """Multipliers k times as large, and accumulators moved before."""
    return Change(text, edit=exact_factors(own * k), sums=lambda s: s + moved)


def _combined(c: Case, own: Array, tries: Iterator[tuple[Array, Array]]) -> tuple[Array, Array] | None:
    """For each channel the first numbers that explain it to the bit; None if one has none."""
    count = len(own)
    factors, moved, done = np.ones(count), np.zeros(count, np.int64), np.zeros(count, bool)
    for k, d in tries:
        values = c.whole(_changed("", own, k, d))
        good = (values == c.found).reshape(-1, count).all(axis=0) & ~done
        factors, moved = np.where(good, k, factors), np.where(good, d, moved)
        done |= good
        if done.all():
            return factors, moved
    return None


def _between(odd: Array, least: Array, most: Array, rest: Array) -> Iterator[tuple[Array, Array]]:
    """Factors between bounds, of which either may be infinite; `rest` of the accumulators isn't multiplied."""
    low = np.where(np.isfinite(least), least, np.where(np.isfinite(most), most, 0.0))
    high = np.where(np.isfinite(most), most, low)
    for beside in (0, 1, -1) if rest.any() else (0,):
        for part in (0.5, 0.25, 0.75, 0.1, 0.9, 0.4, 0.6, 0.02, 0.98):
            k = np.where(odd, np.maximum(1 + low + part * (high - low), 2.0**-10), 1.0)
            yield k, np.where(odd, np.rint(rest / k).astype(np.int64) - rest + beside, 0)


def _affine(c: Case, odd: Array, own: Array, bounds: tuple[int, int, int], slack: Array) -> Iterator[Change]:
    count = len(own)
    z, low, high = bounds
    step = max(c.sums[..., 0].size // MOST, 1)
    s, v = (array.reshape(-1, count)[::step].astype(np.float64) for array in (c.sums, c.found))
    s, v = s * own, v - z
    a = np.where(v + z <= low, -np.inf, v - 0.5 - slack)
    b = np.where(v + z >= high, np.inf, v + 0.5 + slack)
    least, most = np.full(count, 1 / 64), np.full(count, 64.0)

    def lacking(k: Array) -> Array:
        with np.errstate(all="ignore"):
            return np.asarray((a - k * s).max(axis=0) - (b - k * s).min(axis=0))

    for _ in range(HALVINGS):
        left, right = least + (most - least) / 3, most - (most - least) / 3
        worse = lacking(left) > lacking(right)
        least, most = np.where(worse, left, least), np.where(worse, most, right)
    told = np.isfinite(a).any(axis=0) & np.isfinite(b).any(axis=0)  # the others lie at a bound everywhere
    k = np.where(odd & told, (least + most) / 2, 1.0)
    if (lacking(k) > 0).any() or 2 * (odd & ~told).sum() > odd.sum():
        return

    def tries() -> Iterator[tuple[Array, Array]]:
        for beside in (0, 5e-4, -5e-4, 1e-3, -1e-3, 2e-3, -2e-3, 4e-3, -4e-3):
            near = np.where(odd & told, k * (1 + beside), k)
            with np.errstate(all="ignore"):
                lower, upper = (a - near * s).max(axis=0), (b - near * s).min(axis=0)
                one = np.where(np.isfinite(lower), lower + 1, np.where(np.isfinite(upper), upper - 1, 0.0))
                middle = np.where(told, (lower + upper) / 2, one) / np.where(own > 0, near * own, 1.0)
            for d in (0, 1, -1):
                yield near, np.where(odd, np.rint(middle + d), 0).astype(np.int64)

    found = _combined(c, own, tries())
    if found is not None:
        yield _changed(
            f"every channel's values are scaled ({found[0].min():.4g} to {found[0].max():.4g} times) and moved by "
            f"numbers of its own, in {int(odd.sum())} of {count} channels (batch norm folded twice, or not "
            "at all, or scales of the weights that are off?)",
            own, *found,
        )  # fmt: skip


def few_bits(c: Case) -> Iterator[Change]:
    """Weights quantized anew to fewer bits, with a scale of their own for the tensor or each channel."""
    own, z = c.what.arrays[1], zero_point_of(c.what.operands[1])
    w, bias = own.astype(np.int64) - z, c.what.arrays[2].astype(np.float64)
    limits, factors = np.iinfo(own.dtype), rescaling(c)[0]
    axes = tuple(range(w.ndim - 1))
    peaks = {"127": np.full(w.shape[-1], 127), "the largest weight": np.full(w.shape[-1], np.abs(w).max()),
             "each channel's largest weight": np.abs(w).max(axis=axes)}  # fmt: skip
    for bits in range(7, 1, -1) if c.finish is None else (7, 4):
        for name, peak in peaks.items():
            for top in (2 ** (bits - 1) - 1, 2 ** (bits - 1)) if c.finish is None else (2 ** (bits - 1) - 1,):
                step = np.where(peak > 0, peak, top) / top
                q = np.clip(np.rint(w / step), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
                text = f"its weights are quantized anew to {bits} bits, {name} being {top}"
                fake = np.clip(np.rint(q * step) + z, limits.min, limits.max).astype(own.dtype)
                yield c.arrays(f"{text}, then back to 8 bits", {1: fake})
                if c.stage == "accumulator":
                    continue
                stored = np.clip(q + z, limits.min, limits.max).astype(own.dtype)
                biases = np.clip(np.rint(bias / step), -(2**31), 2**31 - 1).astype(np.int32)
                what = c.arrays("", {1: stored, 2: biases}).what
                yield Change(f"{text}, with a scale of their own", what, edit=exact_factors(factors * step))
