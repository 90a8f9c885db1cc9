"""Hypotheses on pools and means."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from npmobilenet.golden.causes.case import Case, Change
from npmobilenet.golden.causes.geometry import PICKS, Axis
from npmobilenet.golden.causes.realvalues import clamped, parameters, set_fields
from npmobilenet.golden.causes.results import clamp_edits
from npmobilenet.golden.causes.rounding import FLOAT_RULES, RULES
from npmobilenet.golden.derivation import zero_point_of
from npmobilenet.modeldata import Array

_QUOTIENTS: dict[str, Callable[[Any, Any], Any]] = {
    "cut off toward zero instead of rounded": lambda t, n: np.sign(t) * (np.abs(t) // n),
    "cut off toward minus infinity instead of rounded": lambda t, n: t // n,
    "rounded half up": lambda t, n: (2 * t + n) // (2 * n),
    "rounded half down": lambda t, n: -((-2 * t + n) // (2 * n)),
    "rounded half to even": lambda t, n: np.rint(t / n),
    "rounded half away from zero": lambda t, n: np.sign(t) * ((2 * np.abs(t) + n) // (2 * n)),
    "rounded up to the next integer": lambda t, n: -(-t // n),
}


def pool(c: Case) -> Iterator[Change]:
    """Average pools: the quotient's rounding, what is counted, which pixels."""
    p, axes = parameters(c), [Axis(c.what, i) for i in (0, 1)]
    z = zero_point_of(c.what.operands[0])
    x = c.what.arrays[0].astype(np.int64)
    area = np.int64(axes[0].taps * axes[1].taps)
    own = [a.at() for a in axes]
    total, count = _window_sums(x, *own)
    picked = np.where(count > 0, count, 1)
    average = c.what.node.op == "average_pool"
    for text, edit in clamp_edits(c, p.zero_point, p.low, p.high):
        yield Change(text, edit=edit)
    if not average:
        yield Change("it takes the mean in place of the greatest", values=_QUOTIENTS["rounded half up"](total, picked))
        yield from _maxima(c, axes, x)
        return
    for name, quotient in _QUOTIENTS.items():
        for about, moved in (("", 0), (" of the values less the zero point", z)):
            yield Change(
                f"its mean{about} is {name}", values=clamped(c, quotient(total - moved * picked, picked) + moved, p)
            )
            yield Change(
                f"its sum{about} is divided by the whole window, {name}",
                values=clamped(c, quotient(total - moved * picked, area) + moved, p),
            )
    for divisor in _divisors(int(area), axes[0].taps, axes[1].taps):
        if divisor != area and divisor > 0:
            yield Change(
                f"its sum is divided by {divisor} instead of {area}",
                values=clamped(c, _QUOTIENTS["rounded half away from zero"](total, np.int64(divisor)), p),
            )
    for bits in range(8, 32):
        factor = np.rint(2.0**bits / picked).astype(np.int64)
        low = (2**bits) // picked
        for how, f in (("rounded", factor), ("cut off", low)):
            for add, name in ((1 << bits >> 1, "rounded half up"), (0, "cut off")):
                yield Change(f"its mean is a product with 1/{area} in {bits} bits ({how}), {name}",
                             values=clamped(c, total * f + add >> bits, p))  # fmt: skip
    yield Change("it takes the greatest value in place of the mean", values=_greatest(x, own[0], own[1]))
    yield Change("it takes the first pixel in place of the mean",
                 values=x[:, np.maximum(own[0][:, 0], 0)][:, :, np.maximum(own[1][:, 0], 0)])  # fmt: skip
    half = _QUOTIENTS["rounded half away from zero"]
    for text, rows, columns in _picked(axes):
        sums, counts = _window_sums(x, rows, columns)
        yield Change(text, values=clamped(c, half(sums, np.maximum(counts, 1)), p))
    for text, rows, columns in (("row", own[0][:, :-1], own[1]), ("column", own[0], own[1][:, :-1])):
        if rows.size and columns.size:
            sums, _ = _window_sums(x, rows, columns)
            yield Change(f"the last {text} of its window is left out", values=clamped(c, half(sums, picked), p))
    if min(a.taps for a in axes) > 1:
        sums, counts = _window_sums(x, own[0][:, :-1], own[1][:, :-1])
        for how, quotient in _QUOTIENTS.items():
            text = f"the last row and column of its window are left out, its mean {how}"
            yield Change(
                f"{text}, their pixels not counted", values=clamped(c, quotient(sums, np.maximum(counts, 1)), p)
            )
            yield Change(text, values=clamped(c, quotient(sums, picked), p))
    for first, name in ((0, "columns"), (1, "rows")):  # one axis after the other, rounded twice
        for how, quotient in _QUOTIENTS.items():
            values = _twice(x, own, first, quotient)
            yield Change(f"the mean of its {name} is rounded before that of what is left ({how})",
                         values=clamped(c, values, p))  # fmt: skip
    for bits in range(8, 17):
        yield Change(
            f"its sums saturate at {bits} bits",
            values=clamped(c, half(np.clip(total, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1), picked), p),
        )
        yield Change(
            f"its sums wrap at {bits} bits",
            values=clamped(c, half((total + 2 ** (bits - 1) & 2 * 2 ** (bits - 1) - 1) - 2 ** (bits - 1), picked), p),
        )


def _divisors(count: int, height: int, width: int) -> list[int]:
    """Other counts than the right one that a sum may be divided by."""
    tries = [count - 1, count + 1, 2 ** (count - 1).bit_length(), 2 ** (count.bit_length() - 1), height, width,
             2 * count, count // 2, (height - 1) * (width - 1), (height + 1) * (width + 1), height * (width - 1),
             (height - 1) * width, 1]  # fmt: skip
    return [n for n in dict.fromkeys(tries) if n not in (0, count)]


def _picked(axes: list[Axis]) -> Iterator[tuple[str, Array, Array]]:
    """Other choices of pixels: texts, rows and columns."""
    for text, pick in PICKS.items():
        yield text, pick(axes[0]), pick(axes[1])
    for dy, dx in itertools.product((0, 1, -1, 2, -2), repeat=2):
        if dy or dx:
            said = f"{axes[0].before - dy} above instead of {axes[0].before}, {axes[1].before - dx} left"
            yield f"the padding lies on the other side: {said}", axes[0].at(shift=dy), axes[1].at(shift=dx)


def _maxima(c: Case, axes: list[Axis], x: Array) -> Iterator[Change]:
    """Greatest values of other pixels, with padding that counts, or the least ones."""
    own = np.iinfo(c.what.result.dtype)
    z = zero_point_of(c.what.operands[0])
    rows, columns = (a.at() for a in axes)
    for value in dict.fromkeys((0, z, 128, own.max, -1, 1)):
        if own.min < value <= own.max:
            yield Change(f"the padding holds {value} instead of the lowest value {own.min}",
                         values=_greatest(x, rows, columns, value))  # fmt: skip
    for text, r, s in _picked(axes):
        yield Change(text, values=_greatest(x, r, s, own.min))
    yield Change("it takes the least in place of the greatest", values=-_greatest(-x, rows, columns, -own.max - 1))
    yield Change("it takes the first pixel in place of the greatest",
                 values=_greatest(x, rows[:, :1], columns[:, :1]))  # fmt: skip
    if own.min < 0:
        unsigned = _greatest(x & 255, rows, columns, -1)
        yield Change("it compares bytes as uint8", values=unsigned - 256 * (unsigned > 127))
    else:
        signed = _greatest((x + 128) % 256 - 128, rows, columns, -129)
        yield Change("it compares bytes as int8", values=signed & 255)
    for name, r, s in (("row", rows[:, :-1], columns), ("column", rows, columns[:, :-1])):
        if r.size and s.size:
            yield Change(f"the last {name} of its window is left out", values=_greatest(x, r, s, own.min))


def _window_sums(x: Array, rows: Array, columns: Array) -> tuple[Array, Array]:
    """The sum of each window's pixels inside the image, and their number."""
    height, width = x.shape[1:3]
    good = [((at >= 0) & (at < size)).astype(np.int64) for at, size in ((rows, height), (columns, width))]
    picks = [np.zeros((len(at), size), np.int64) for at, size in ((rows, height), (columns, width))]
    for matrix, at, inside in zip(picks, (rows, columns), good, strict=True):
        np.add.at(matrix, (np.arange(len(at))[:, None], np.clip(at, 0, matrix.shape[1] - 1)), inside)
    sums = np.einsum("oy,nyxc,px->nopc", picks[0], x, picks[1], optimize=True)
    counts = picks[0].sum(axis=1)[:, None] * picks[1].sum(axis=1)
    return sums, counts[None, :, :, None]


def _twice(x: Array, at: list[Array], first: int, quotient: Callable[[Any, Any], Any]) -> Array:
    """The mean along one axis of the windows, and of these along the other, each in whole numbers."""
    values = x
    for axis in (first, 1 - first):
        lone = np.arange(values.shape[2 - axis])[:, None]
        rows, columns = (at[0], lone) if axis == 0 else (lone, at[1])
        sums, counts = _window_sums(values, rows, columns)
        values = quotient(sums, np.maximum(counts, 1)).astype(np.int64)
    return values


def _greatest(x: Array, rows: Array, columns: Array, filling: int | None = None) -> Array:
    """Of each window; outside the image stands `filling`, or else the border pixel."""
    height, width = x.shape[1:3]
    some = x[:, np.clip(rows, 0, height - 1)][:, :, :, np.clip(columns, 0, width - 1)]
    if filling is not None:
        inside = ((rows >= 0) & (rows < height))[:, :, None, None] & ((columns >= 0) & (columns < width))
        some = np.where(inside[None, ..., None], some, filling)
    return np.asarray(some.max(axis=(2, 4)))


def mean(c: Case) -> Iterator[Change]:
    """Means: zero points, factor, rounding."""
    p, x = parameters(c), c.what.arrays[0]
    total = x.astype(np.int64).sum(axis=(1, 2))
    count = x.shape[1] * x.shape[2]
    z_in, z_out = (zero_point_of(t) for t in (c.what.operands[0], c.what.result))
    shape = c.ours.shape
    rows = total.reshape(shape)

    def given(v: Array) -> Array:
        return np.clip(v, p.low, p.high).reshape(shape)

    for text, edit in clamp_edits(c, z_out, p.low, p.high):
        yield Change(text, edit=edit)
    for text, d in (
        ("missing (0)", -z_in),
        *((f"off by {d:+d}", d) for d in (1, -1, 2, -2)),
        ("that of the output", z_out - z_in),
    ):
        yield Change(f"its input's zero point is {text}", edit=set_fields(start=p.start - d * count))
    for text, d in (
        ("missing (0)", -z_out),
        *((f"off by {d:+d}", d) for d in (1, -1, 2, -2)),
        ("that of the input", z_in - z_out),
    ):
        yield Change(f"its output's zero point is {text}", edit=set_fields(offset=p.offset + d))
    factor = np.float64(p.scale)
    fewer = {"its last row is left out": x[:, :-1], "its last column is left out": x[:, :, :-1],
             "its first row is left out": x[:, 1:], "its first column is left out": x[:, :, 1:]}  # fmt: skip
    for name, whole in FLOAT_RULES.items():
        for divisor in _divisors(count, x.shape[1], x.shape[2]):
            yield Change(
                f"its sum is divided by {divisor} instead of {count} ({name})",
                values=given(whole((rows - z_in * count) * factor * count / divisor) + z_out),
            )
        for text, part in fewer.items():
            some = (part.astype(np.int64) - z_in).sum(axis=(1, 2)).reshape(shape)
            yield Change(f"{text} ({name})", values=given(whole(some * factor) + z_out))
            if part.size:
                n = part.shape[1] * part.shape[2]
                yield Change(f"{text}, its pixels not counted ({name})",
                             values=given(whole(some * factor * count / n) + z_out))  # fmt: skip
    for name, whole in FLOAT_RULES.items():
        yield Change(f"it is computed in floats and {name}",
                     values=given(whole((rows - z_in * count) * factor) + z_out))  # fmt: skip
    for name, quotient in _QUOTIENTS.items():
        n = np.int64(count)
        yield Change(
            f"its scales are ignored: the mean of the stored values, {name}",
            values=given(quotient(rows, n)),
        )
        yield Change(f"its scales are ignored: the mean of the stored values less the zero point, {name}",
                     values=given(quotient(rows - n * z_in, n) + z_out))  # fmt: skip
    for axis, name in ((1, "columns"), (2, "rows")):
        for how, quotient in _QUOTIENTS.items():
            for about, z in (("", 0), (" of the values less the zero point", z_in)):
                first = quotient((x.astype(np.int64) - z).sum(axis=axis), np.int64(x.shape[axis]))
                second = quotient(first.sum(axis=1), np.int64(x.shape[3 - axis])) + z - z_in
                once = first.sum(axis=1) / x.shape[3 - axis] + z - z_in
                for last, means in ((", and so is what is left", second), ("", once)):
                    yield Change(
                        f"the mean{about} of its {name} is {how} before that of what is left{last}",
                        values=given(FLOAT_RULES["rounded half away from zero"](means * factor * count).reshape(shape)
                                     + z_out))  # fmt: skip
    whole = FLOAT_RULES["rounded half away from zero"]
    for how, quotient in _QUOTIENTS.items():
        for about, z in (("", 0), (" of the values less the zero point", z_in)):
            means = quotient(rows - z * count, np.int64(count)) + z - z_in
            yield Change(f"its mean{about} is {how} in the input's scale before it is rescaled",
                         values=given(whole(means * factor * count) + z_out))  # fmt: skip
    for name, rule in RULES.items():
        yield Change(
            f"its sums are {name}",
            values=given(rule(rows - z_in * count, np.int64(p.multiplier), np.int64(p.shift)) + z_out),
        )
    for bits in range(1, 28):
        cut = p.multiplier >> bits << bits
        yield Change(
            f"its multiplier has {31 - bits} bits: the low {bits} are dropped", edit=set_fields(multiplier=cut)
        )
    for d in (1, -1):
        yield Change(f"its shift is off by {d:+d}", edit=set_fields(shift=p.shift + d))
    yield Change("it takes the greatest value in place of the mean", values=x.max(axis=(1, 2)).reshape(shape))
    for bits in range(8, 17):
        h = 2 ** (bits - 1)
        yield Change(
            f"its sums saturate at {bits} bits",
            values=given(
                RULES["scaled in two steps, the second rounded half away from zero"](
                    np.clip(rows - z_in * count, -h, h - 1), np.int64(p.multiplier), np.int64(p.shift)
                )
                + z_out
            ),
        )
