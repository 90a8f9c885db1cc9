"""Hypotheses on single numbers of a layer: one weight, one channel's bias, multiplier or shift.

They are solved for, not tried: the dump's value of each element allows an interval of accumulators, and a change of a
weight or bias moves the accumulators of its channel by known amounts. What is found is exact where every element was
looked at, and computed by the engine over the whole layer afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from npmobilenet.arithmetic.fixedpoint import INT32_MAX, INT32_MIN
from npmobilenet.golden.causes.case import Case, Change, of_channels
from npmobilenet.golden.causes.geometry import Axis
from npmobilenet.golden.causes.rounding import requantize_all
from npmobilenet.golden.derivation import zero_point_of
from npmobilenet.modeldata import Array

FEW = 4  # channels that differ at most
MOST_PIXELS = 4096
PROVING = 3  # differing values for each number of its own that a channel is given
NAMED = 3  # of several bits that give the same, these are named


@dataclass(frozen=True)
class _Fix:
    """One change of a channel's numbers that explains it: of the weights, bias, multipliers or shifts."""

    text: str
    part: str  # "weights", "bias", "multiplier", "shift"
    at: tuple[int, ...]
    value: int


def single_numbers(c: Case) -> Iterator[Change]:
    """For each channel that differs one number that explains it, kind by kind."""
    channels = np.flatnonzero(c.wrong.reshape(-1, c.wrong.shape[-1]).any(axis=0))
    if c.finish is not None or not 0 < len(channels) <= FEW:
        return
    kinds: dict[str, Callable[[Case, int], list[_Fix]]] = {
        "single flipped bits of its weights": _weight_bits, "biases": _bias,
        "single flipped bits of its multiplier": _multiplier_bits, "shifts": _shifts,
        "single weights of another value": _weight_values,
    }  # fmt: skip
    explained = False
    for what, kind in kinds.items():
        if (c.stage == "accumulator" and kind in (_multiplier_bits, _shifts)) or (explained and kind is _weight_values):
            continue
        found = [kind(c, int(ch)) for ch in channels]
        if all(found):
            yield _joined(c, found, what)
            explained |= kind is _weight_bits
    yield from _of_others(c, channels)


def _joined(c: Case, found: list[list[_Fix]], what: str) -> Change:
    """All channels' fixes as one change; several for one channel are ties."""
    texts = []
    for fixes in found:
        text = fixes[0].text
        if len(fixes) > 1:
            more = ", ".join(f.text for f in fixes[1:NAMED])
            text = f"any of {len(fixes)} {what} that give the same ({text}, or {more}"
            text += ", ...)" if len(fixes) > NAMED else ")"
        texts.append(text)
    arrays = {1: c.what.arrays[1].copy(), 2: c.what.arrays[2].copy()}
    multiplier, shift = (np.asarray(v, np.int64).copy() for v in (c.requant.multiplier, c.requant.shift))
    for fixes in found:
        fix = fixes[0]
        target = {"weights": arrays[1], "bias": arrays[2], "multiplier": multiplier, "shift": shift}[fix.part]
        target[fix.at] = fix.value
    parts = {fixes[0].part for fixes in found}
    edit = None
    if parts & {"multiplier", "shift"}:
        from npmobilenet.golden.causes.results import factor_edit

        edit = factor_edit(multiplier, shift)
    changed = c.arrays("", arrays).what if parts & {"weights", "bias"} else None
    return Change(" and ".join(texts), changed, edit=edit)


# ---------------------------------------------------------------------------------------------------------------------
# What accumulators a channel needs


def allowed(c: Case, channel: int) -> tuple[Array, Array]:
    """The least and the greatest accumulator that gives the dump's value, for each element of a channel."""
    found = c.found.reshape(-1, c.found.shape[-1])[:, channel].astype(np.int64)
    if c.stage == "accumulator":
        return found, found
    values, inverse = np.unique(found, return_inverse=True)
    r = of_channels(c.requant, np.array([channel]))

    def first(reached: Callable[[Array], Array]) -> Array:
        low, high = np.full(values.shape, INT32_MIN), np.full(values.shape, INT32_MAX + 1)
        while (low < high).any():
            middle = (low + high) >> 1
            good = reached(requantize_all(middle[:, None], r)[:, 0])
            low, high = np.where(good, low, middle + 1), np.where(good, middle, high)
        return low

    return first(lambda v: v >= values)[inverse], first(lambda v: v > values)[inverse] - 1


def pixels_of(c: Case, channel: int, chosen: Array) -> Array:
    """x - z of every product of a channel, (elements, weights); 0 outside the image."""
    x, z = c.what.arrays[0].astype(np.int64), zero_point_of(c.what.operands[0])
    if c.what.node.op == "fully_connected":
        return x.reshape(-1, c.what.arrays[1].shape[0])[chosen] - z
    if c.what.node.op == "depthwise_conv2d":
        source = channel // c.what.node.attrs.get("multiplier", 1)
        x = x[..., source : source + 1]
    rows, columns = (Axis(c.what, i).at() for i in (0, 1))
    _, oh, ow, _ = c.ours.shape
    n, oy, ox = np.unravel_index(chosen, (len(x), oh, ow))
    ys, xs = rows[oy][:, :, None], columns[ox][:, None, :]
    inside = (ys >= 0) & (ys < x.shape[1]) & (xs >= 0) & (xs < x.shape[2])
    picked = x[n[:, None, None], np.clip(ys, 0, x.shape[1] - 1), np.clip(xs, 0, x.shape[2] - 1)] - z
    return np.where(inside[..., None], picked, 0).reshape(len(chosen), -1)


def moves_of(c: Case, channel: int, times: Array | None) -> tuple[Array, Array]:
    """The interval of changes d with accumulator + d * times in what is allowed everywhere; `times` None: 1 for all."""
    low, high = allowed(c, channel)
    sums = c.sums.reshape(-1, c.sums.shape[-1])[:, channel]
    low, high = low - sums, high - sums
    if times is None:
        return np.array([low.max()]), np.array([high.min()])
    chosen = _chosen(c, channel)
    a, b = low[chosen][:, None], high[chosen][:, None]
    far = np.int64(2**40)
    safe = np.where(times == 0, 1, times)
    up, down = np.where(times > 0, a, b), np.where(times > 0, b, a)
    least, most = -((-up) // safe), down // safe
    still = (a <= 0) & (b >= 0)
    least = np.where(times == 0, np.where(still, -far, far), least)
    most = np.where(times == 0, np.where(still, far, -far), most)
    return least.max(axis=0), most.min(axis=0)


def _chosen(c: Case, channel: int) -> Array:
    """Elements of a channel to look at: those that differ, and others."""
    wrong = c.wrong.reshape(-1, c.wrong.shape[-1])[:, channel]
    order = np.argsort(~wrong, kind="stable")
    if len(order) <= MOST_PIXELS:
        return order
    return np.concatenate([order[: MOST_PIXELS // 2], order[-MOST_PIXELS // 2 :]])


def _weight_moves(c: Case, channel: int) -> tuple[Array, Array, Array]:
    """For each weight of a channel: its value, and the least and greatest change of it that explains the channel."""
    weights = c.what.arrays[1]
    least, most = moves_of(c, channel, pixels_of(c, channel, _chosen(c, channel)))
    own = weights[..., channel].reshape(-1)
    limits = np.iinfo(weights.dtype)
    return (
        own,
        np.maximum(least, limits.min - own.astype(np.int64)),
        np.minimum(most, limits.max - own.astype(np.int64)),
    )


def _place(c: Case, k: int, channel: int) -> tuple[tuple[int, ...], str]:
    at = tuple(int(i) for i in np.unravel_index(k, c.what.arrays[1].shape[:-1]))
    names = ("ky", "kx", "ci")[: len(at)] if len(at) > 1 else ("i",)
    where = ", ".join(f"{name} {i}" for name, i in zip(names, at, strict=True))
    return (*at, channel), f"({where}, co {channel})"


def _weight_bits(c: Case, channel: int) -> list[_Fix]:
    own, least, most = _weight_moves(c, channel)
    fixes = []
    for bit in range(own.itemsize * 8):
        other = (own.view(np.uint8) ^ np.uint8(1 << bit)).view(own.dtype)
        change = other.astype(np.int64) - own
        for k in np.flatnonzero((least <= change) & (change <= most)):
            at, where = _place(c, int(k), channel)
            text = f"bit {bit} of its weight {where} flipped: {other[k]} instead of {own[k]}"
            fixes.append(_Fix(text, "weights", at, int(other[k])))
    return fixes


def _weight_values(c: Case, channel: int) -> list[_Fix]:
    own, least, most = _weight_moves(c, channel)
    fixes = []
    for k in np.flatnonzero(least <= most):
        at, where = _place(c, int(k), channel)
        first, last = int(own[k]) + int(least[k]), int(own[k]) + int(most[k])
        value = f"{first}" if first == last else f"{first} to {last}"
        fixes.append(_Fix(f"its weight {where} is {value} instead of {own[k]}", "weights", at, first))
    return fixes


def _bias(c: Case, channel: int) -> list[_Fix]:
    """The bias of one channel, by any amount; a single flipped bit among these is named."""
    least, most = (int(v[0]) for v in moves_of(c, channel, None))
    if least > most:
        return []
    own = c.what.arrays[2]
    value = int(own[channel])
    flips = []
    for bit in range(32):
        other = int((own[channel : channel + 1].view(np.uint32) ^ np.uint32(1 << bit)).view(np.int32)[0])
        if least <= other - value <= most:
            flips.append((bit, other))
    nearest = min(max(0, least), most) if least * most > 0 else least
    by = f"{least:+,}" if least == most else f"{least:+,} to {most:+,}"
    if most > 2**29 or least < -(2**29):
        by = f"at least {least:+,}" if most > 2**29 else f"at most {most:+,}"
        nearest = least if most > 2**29 else most
    text = f"its bias of channel {channel} is off by {by}"
    if value + nearest == 0 or least <= -value <= most:
        text += ", or missing"
    if flips:
        bit, other = flips[0]
        more = f", or one of {len(flips) - 1} other bits" if len(flips) > 1 else ""
        text = f"bit {bit} of its bias of channel {channel} flipped: {other} instead of {value}{more}; that is, {text}"
        return [_Fix(text, "bias", (channel,), other)]
    return [_Fix(text, "bias", (channel,), value + nearest)]


def _gives(c: Case, channel: int, multiplier: int, shift: int) -> bool:
    """Whether a multiplier and shift explain a channel."""
    r = of_channels(c.requant, np.array([channel]))
    m, s = np.array([multiplier]), np.array([shift])
    sums = c.sums.reshape(-1, c.sums.shape[-1])[:, channel : channel + 1]
    values = requantize_all(sums, r._replace(multiplier=m, shift=s, scale=m * 2.0 ** (s - 31)))
    return bool((values == c.found.reshape(-1, c.found.shape[-1])[:, channel : channel + 1]).all())


def _multiplier_bits(c: Case, channel: int) -> list[_Fix]:
    m, s = int(np.asarray(c.requant.multiplier)[channel]), int(np.asarray(c.requant.shift)[channel])
    return [
        _Fix(f"bit {bit} of its multiplier of channel {channel} flipped: {m ^ 1 << bit} instead of {m}", "multiplier",
             (channel,), m ^ 1 << bit)
        for bit in range(31) if _gives(c, channel, m ^ 1 << bit, s)
    ]  # fmt: skip


def _shifts(c: Case, channel: int) -> list[_Fix]:
    m, s = int(np.asarray(c.requant.multiplier)[channel]), int(np.asarray(c.requant.shift)[channel])
    found = [
        d for d in (1, -1, 2, -2, 3, -3, 4, -4, 8, -8, 16, -16) if -31 <= s + d <= 30 and _gives(c, channel, m, s + d)
    ]
    return [
        _Fix(f"its shift of channel {channel} is {s + d} instead of {s}", "shift", (channel,), s + d) for d in found
    ]


# ---------------------------------------------------------------------------------------------------------------------
# Another channel's numbers


def _of_others(c: Case, channels: Array) -> Iterator[Change]:
    """The differing channels have another channel's bias, multiplier, weights, or values."""
    from npmobilenet.golden.causes.results import factor_edit

    weights, bias = c.what.arrays[1:3]
    m, s = (np.asarray(v, np.int64) for v in (c.requant.multiplier, c.requant.shift))
    if len(channels) > 2:
        return
    count = weights.shape[-1]
    found, ours = (v.reshape(-1, count) for v in (c.found, c.ours))
    for ch in channels if len(channels) == 1 else ():
        same = [o for o in range(count) if o != ch and np.array_equal(found[:, ch], ours[:, o])]
        for other in same:
            order = np.arange(count)
            order[ch] = other
            yield Change(f"channel {ch} holds the values of channel {other}", values=c.ours[..., order])
        nearby = sorted((o for o in range(count) if o != ch), key=lambda o: abs(o - ch))
        for other in nearby if c.stage != "accumulator" else ():
            if (m[other], s[other]) != (m[ch], s[ch]) and _gives(c, int(ch), int(m[other]), int(s[other])):
                a, b = m.copy(), s.copy()
                a[ch], b[ch] = m[other], s[other]
                yield Change(f"channel {ch} has the multiplier and shift of channel {other}", edit=factor_edit(a, b))
        low, high = allowed(c, int(ch))
        sums = c.sums.reshape(-1, count)[:, ch]
        for other in nearby:
            moved = sums + (int(bias[other]) - int(bias[ch]))
            if ((low <= moved) & (moved <= high)).all():
                changed = bias.copy()
                changed[ch] = bias[other]
                yield c.arrays(f"channel {ch} has the bias of channel {other}", {2: changed})
    if len(channels) == 2:
        order = np.arange(count)
        order[channels] = channels[::-1]
        a, b = channels
        yield Change(f"channels {a} and {b} are swapped", values=c.ours[..., order])
        yield c.arrays(f"the weights of channels {a} and {b} are swapped", {1: weights[..., order]})
        if c.what.node.op == "depthwise_conv2d" and c.what.arrays[0].shape[-1] == count:
            yield c.arrays(f"channels {a} and {b} of its input are swapped", {0: c.what.arrays[0][..., order]})
        yield c.arrays(f"the biases of channels {a} and {b} are swapped", {2: bias[order]})
        if c.stage != "accumulator":
            yield Change(f"the multipliers of channels {a} and {b} are swapped", edit=factor_edit(m[order], s[order]))


def shared_bias(c: Case) -> Iterator[Change]:
    """All channels' accumulators are moved by one amount; or each channel's by one of its own."""
    count = c.sums.shape[-1]
    if c.finish is not None or c.sums[..., 0].size < 4:
        return
    intervals = []
    for channel in range(count):
        least, most = (int(v[0]) for v in moves_of(c, channel, None))
        if least > most:
            return
        intervals.append((least, most))
    low, high = max(i[0] for i in intervals), min(i[1] for i in intervals)
    if low <= high:
        value = min(max(0, low), high)
        text = f"{low:+,}" if low == high else f"{low:+,} to {high:+,}"
        yield Change(f"the bias of every channel is off by {text}", sums=lambda s: s + value)
        return
    own = np.array([min(max(0, a), b) for a, b in intervals], np.int64)
    lone = np.ptp(c.found.reshape(-1, count).astype(np.int64), axis=0) == 0  # a large amount gives that always
    if 2 * np.count_nonzero(own[lone]) >= np.count_nonzero(own) or c.wrong.sum() < PROVING * np.count_nonzero(own):
        return
    yield Change(
        f"every channel's accumulators are moved by an amount of its own (bias, or what zero points add to it), "
        f"{int(np.count_nonzero(own))} of {count} channels, by {own.min():+,} to {own.max():+,}",
        sums=lambda s: s + own,
    )  # fmt: skip
