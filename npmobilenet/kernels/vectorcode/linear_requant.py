"""Requantization by a straight line: three instructions for 8 or 16 accumulators, for any rule, where they are enough.

To bytes, every rule of fixedpoint.py is a staircase: as the accumulator x grows, the output takes at most 255 steps up,
each from x = T_k - 1 to x = T_k, the least accumulator whose output is at least k. Now take

    f(x) = rint(fma(float32(x), slope, offset)), clamped.

Conversion, fma, rint and clamp each round to nearest or cut off, and so never fall where their argument grows: f is a
staircase too. Two staircases that take each step at the same place are the same function. So f is the rule itself, for
every x that the layer can reach, if f(T_k) >= k and f(T_k - 1) < k for each k; and that is a pair of bounds for the
offset, which `fit_lines` computes. About a thousand accumulators lie within a step, so that float32's 24 bits place
most steps right, and some slope near the real factor nearly always places all of them.

"double" rounds away from zero: its steps below zero lie apart from those above, by more than a line can hide where
the output shows both. There the offset is another for x < 0. And where no slope takes all steps right, the line may
take one or two of them one accumulator late. That is patched: at those "exceptions" one is added.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import numpy as np

from npmobilenet.arithmetic.fixedpoint import INT32_MIN, Requantization, Rounding, VectorRule, rule_at
from npmobilenet.kernels.compiler.cpu import isa
from npmobilenet.kernels.vectorcode.requant_rules import MOST_EXCEPTIONS

Array = np.ndarray[Any, Any]

# A machine without fma would have to call one.
RULES = (Rounding.DOUBLE, Rounding.UPWARD, Rounding.SINGLE) if isa() != "generic" else ()
CENTRES = {"uint8": 128, "int8": 0}  # taken off the output: values about zero have the finest float32
DEEPEST = 22  # shifts to the right for which k 2^(31 + s) is an int64
NO_EXCEPTION = INT32_MIN  # in `exceptions`
NEIGHBOURS = 6  # slopes tried on either side of the real factor: 4 in 5 channels take the first, 1 in 50 none


class LinearRequant(NamedTuple):
    """A Requantization (its fields) and its lines, channel by channel.

    slope, offset, below: float32; `below` is the offset for negative accumulators. exceptions: int32 (channels,
    MOST_EXCEPTIONS), the accumulators at which the line is one too low. one_offset, two_offsets, patched: int32, one
    more than there are channels: how many of those before this one have a line with one offset and no exceptions; with
    one or two and none; a line at all.
    """

    multiplier: Any
    shift: Any
    scale: Any
    rule: VectorRule
    zero_point: int
    low: int
    high: int
    slope: Any
    offset: Any
    below: Any
    exceptions: Any
    one_offset: Any
    two_offsets: Any
    patched: Any


def thresholds(multiplier: Array, shift: Array, rule: Array, results: Array) -> Array:
    """T_k of each channel (rows) for each result k (columns, before the zero point), for s = -shift in 1 ... DEEPEST.

    "upward": floor((v + 2^(s - 1)) / 2^s) >= k <=> v >= k 2^s - 2^(s - 1), and v = floor((x m + 2^30) / 2^31) >= V <=>
    x >= (V 2^31 - 2^30) / m. "double" is the same of v - [v < 0], so below zero V is one more. "single":
    floor((x m + 2^(30 + s)) / 2^(31 + s)) >= k <=> x >= (k 2^(31 + s) - 2^(30 + s)) / m.
    """
    m, s, rules = multiplier.astype(np.int64)[:, None], -shift.astype(np.int64)[:, None], rule[:, None]
    least = (results << s) - (np.int64(1) << (s - 1))
    least += (rules == Rounding.DOUBLE) & (least < 0)
    return -((np.int64(2**30) * (rules != Rounding.SINGLE) - (least << np.int64(31))) // m)


class _StepsWithin:
    """The steps that lie within accumulators first ... last, and what they ask of a line: of each channel (rows), where
    it is at least and at most `least` and `most` (columns: steps).
    """

    def __init__(self, steps: Array, places: tuple[Array, Array], first: Array, last: Array) -> None:
        """places: what a line must reach at T_k, and must not exceed at T_k - 1, for each k."""
        self.at = np.maximum(steps, first).astype(np.float32).astype(np.float64)
        self.before = np.minimum(steps - 1, last).astype(np.float32).astype(np.float64)
        self.least = np.where(steps <= last, places[0], -np.inf)
        self.most = np.where(steps > first, places[1], np.inf)

    def of(self, rows: Array) -> _StepsWithin:
        """The same of some rows."""
        if len(rows) == len(self.at):
            return self
        same = copy.copy(self)
        same.at, same.before, same.least, same.most = (a[rows] for a in (self.at, self.before, self.least, self.most))
        return same

    def offsets(self, slope: Array) -> tuple[Array, Array]:
        """A float32 offset for each row with its slope, and whether there is one that takes all steps right.

        Where the range has steps on one side only, half a step from them.
        """
        slope = slope.astype(np.float64)[:, None]
        least = (self.least - slope * self.at).max(1)
        most = (self.most - slope * self.before).min(1)
        low = np.where(np.isinf(least), most - 1, least)
        middle = ((np.where(np.isinf(low), 0, low) + np.where(np.isinf(most), low + 1, most)) / 2).astype(np.float32)
        return middle, (middle >= least) & (middle <= most)

    def latest(self, slope: Array) -> Array:
        """Of each row, the step that asks for the greatest offset."""
        return (self.least - slope.astype(np.float64)[:, None] * self.at).argmax(1)


class _LineSearch:
    """Lines as they are found, and what they are looked for by."""

    def __init__(
        self, steps: Array, factor: Array, places: tuple[Array, Array], acc_range: tuple[Array, Array]
    ) -> None:
        self.steps, self.factor, self.places, self.reach = steps, factor, places, acc_range
        self.slope, self.offset, self.below = (np.zeros(len(factor), np.float32) for _ in range(3))
        self.exceptions = np.full((len(factor), MOST_EXCEPTIONS), NO_EXCEPTION, np.int32)
        self.found = np.zeros(len(factor), bool)

    def search(self, channels: Array, two_offsets: bool, late: int) -> None:
        """Lines of these channels, with `two_offsets` or one, with so many steps taken late and patched."""
        left = np.flatnonzero(channels & ~self.found)
        steps, (first, last) = self.steps[left], (end[left].astype(np.int64)[:, None] for end in self.reach)
        sides = [(np.maximum(first, 0), last), (first, np.minimum(last, -1))] if two_offsets else [(first, last)]
        spans = [_StepsWithin(steps, self.places, *side) for side in sides]
        rows = np.arange(len(left))
        for j in sorted(range(-NEIGHBOURS, NEIGHBOURS + 1), key=abs):
            if not len(rows):
                break
            slope = (self.factor[left[rows]].view(np.int32) + np.int32(j)).view(np.float32)
            some, exceptions = [acc_range.of(rows) for acc_range in spans], []
            delayed = steps[rows] if late else steps
            for _ in range(late):
                exceptions.append(self._delay(delayed, slope, some))
                some = [_StepsWithin(delayed, self.places, *(end[rows] for end in side)) for side in sides]
            (above, good), (below, well) = some[0].offsets(slope), some[-1].offsets(slope)
            taken = good & well
            done = left[rows[taken]]
            self.found[done] = True
            for k, places in enumerate(exceptions):
                self.exceptions[done, k] = places[taken]
            self.slope[done], self.offset[done], self.below[done] = slope[taken], above[taken], below[taken]
            rows = rows[~taken]

    @staticmethod
    def _delay(steps: Array, slope: Array, spans: list[_StepsWithin]) -> Array:
        """One T_k of each channel, that which asks most; in `steps` it is one later then."""
        rows = np.arange(len(steps))
        latest = np.where(spans[0].offsets(slope)[1], spans[-1].latest(slope), spans[0].latest(slope))
        exceptions = steps[rows, latest]
        steps[rows, latest] += 1
        return exceptions


def fit_lines(
    multiplier: Array,
    shift: Array,
    rule: Array,
    limits: tuple[int, int, int],
    centre: int,
    acc_range: tuple[Array, Array],
) -> tuple[Array, Array, Array, Array, Array]:
    """Slope, offset, offset below zero and exceptions of each channel, and whether there is such a line, for
    accumulators within `acc_range`.

    limits: zero point, lowest and highest output. Channels with a left shift or a shift beyond DEEPEST have no line.

    What a line must satisfy for a step to k. Let t be the line's real value, r the float32 that the fma rounds it to,
    and h half the distance between float32 values at k - 1/2. rint(r) has to be at least k at T_k, and less at T_k - 1.
    A tie goes to the even neighbour:
    - k odd: rint(k - 1/2) = k - 1. So r > k - 1/2 at T_k, which t > k - 1/2 + h ensures; at T_k - 1, t < k - 1/2 + h.
    - k even: rint(k - 1/2) = k. So r >= k - 1/2 at T_k, which t > k - 1/2 - h ensures; at T_k - 1, t < k - 1/2 - h.
    The bounds used are stricter by a thousandth of h. That excludes ties of the fma, and covers the rounding of the
    float64 arithmetic here, which is exact to 2^-45.
    """
    zero_point, low, high = limits
    ruled = np.isin(rule, RULES)
    able = (multiplier > 0) & (shift <= -1) & (shift >= -DEEPEST) & ruled
    results = np.arange(low + 1, high + 1, dtype=np.int64)
    exact = results - centre - 0.5
    half = np.spacing(np.abs(exact).astype(np.float32)).astype(np.float64) / 2
    side = np.where((results - centre) % 2 == 1, half, -half)
    places = exact + side + half * 2.0**-10, exact + side - half * 2.0**-10
    steps = thresholds(np.where(able, multiplier, 1), np.where(able, shift, -1), rule, results - zero_point)
    layer = _LineSearch(steps, (multiplier * 2.0 ** (shift - 31.0)).astype(np.float32), places, acc_range)
    layer.found = ((multiplier == 0) | (low >= high)) & ruled  # one result for all accumulators
    layer.offset[layer.found] = layer.below[layer.found] = min(max(zero_point, low), high) - centre
    # Where "double" shows results of both signs, a straight line doesn't fit: 2^-s lies between, and a step is less.
    both = (rule == Rounding.DOUBLE) & (acc_range[0] < 0) & (low < zero_point)
    for late in range(MOST_EXCEPTIONS + 1):
        layer.search(able & ~both, False, late)
        layer.search(able & both, True, late)
    return layer.slope, layer.offset, layer.below, layer.exceptions, layer.found


def linear_requant(requant: Requantization, acc_range: tuple[Array, Array], dtype: str) -> LinearRequant:
    """The step for outputs of that dtype, of accumulators within `acc_range` (least, greatest; channels).

    Where one factor serves the whole layer, so does one line. `requant` is filled up to whole panels, and so are the
    lines, of which the first are repeated; the channels that fill up have one, as they don't count.
    """
    count, size = len(acc_range[0]), len(requant.multiplier)
    slope, offset, below = (np.zeros(size, np.float32) for _ in range(3))
    exceptions, there = np.full((size, MOST_EXCEPTIONS), NO_EXCEPTION, np.int32), np.zeros(size, bool)
    if dtype in CENTRES and requant.rule.inside in RULES:
        rule = np.array([rule_at(c, requant.rule) for c in range(count)])
        keys: Any = [requant.multiplier[:count], requant.shift[:count], rule]
        if all((key == key[0]).all() for key in keys):
            keys, acc_range = (
                [key[:1] for key in keys],
                (acc_range[0].min(keepdims=True), acc_range[1].max(keepdims=True)),
            )
        multiplier, shift, rule = keys
        found = fit_lines(
            multiplier, shift, rule, (requant.zero_point, requant.low, requant.high), CENTRES[dtype], acc_range
        )
        for parts, some in zip((slope, offset, below, exceptions, there), found, strict=True):
            parts[:] = np.resize(np.broadcast_to(some, (count, *some.shape[1:])), parts.shape)
        there[count:] = True
    regular = there & (exceptions == NO_EXCEPTION).all(1)
    kinds = regular & (offset == below), regular, there
    counts = (np.add.accumulate(np.concatenate([[False], flags]), dtype=np.int32) for flags in kinds)
    return LinearRequant(*requant, slope, offset, below, exceptions, *counts)


__all__ = ["LinearRequant", "fit_lines", "linear_requant", "thresholds"]
