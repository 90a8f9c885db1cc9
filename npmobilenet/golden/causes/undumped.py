"""Single numbers and exchanged channels of a layer whose output a dump lacks: they are seen in the node that reads it.

Of each candidate the layer's new values at a few pixels are computed, and what the reader makes of them is compared
with the dump; what is left is computed whole. A reader that keeps channels apart tells the layer's channel; one that
sums over them at each pixel leaves each channel an interval of changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from npmobilenet.arithmetic.fixedpoint import Requantization
from npmobilenet.golden.causes.bits import allowed, pixels_of
from npmobilenet.golden.causes.case import Case, Change, of_channels
from npmobilenet.golden.causes.geometry import Axis
from npmobilenet.golden.causes.results import factor_edit
from npmobilenet.golden.causes.rounding import requantize_all
from npmobilenet.golden.derivation import zero_point_of
from npmobilenet.golden.single_node import run
from npmobilenet.modeldata import Array

APART = ("add", "sub", "mul", "activation", "leaky_relu", "quantize")  # element by element
WHOLE = ("average_pool", "mean")  # of all pixels of a channel
ELEMENTS = 64  # of the reader that are looked at, for one channel
PIXELS = 16  # of the reader that are looked at, over all channels
MOST_CHANNELS = 4  # that may have the fault
MOST_LEFT = 24  # candidates that are computed whole
NAMED = 3
MOST_VALUES = 2 * 10**7


@dataclass(frozen=True)
class _Candidate:
    """One number that may be another one."""

    text: str
    channel: int
    weights: tuple[tuple[int, ...], int] | None = None  # index and value
    bias: int | None = None
    factor: tuple[int, int] | None = None


def undumped(c: Case) -> Iterator[Change]:
    """One number of one channel; two channels' weights exchanged."""
    b = seen_by_reader(c)
    if b is None:
        return
    seen: Mapping[int, tuple[Array, Apart | _Mixed]] = _mixed(c, b) if mixes(b) else _apart(c, b)
    for channel, (pixels, fits) in list(seen.items())[:MOST_CHANNELS]:
        yield from _single(c, channel, pixels, fits)
    if not mixes(b) and len(seen) == 2:
        yield from exchange(c, *sorted(seen))


def seen_by_reader(c: Case) -> Case | None:
    """The node that reads the layer, as a case of its own, if it alone stands between layer and dump."""
    if c.finish is None or c.reader is None or not c.layered:
        return None
    b = Case(c.reader, c.found, c.dialect)
    return b if b.ours.shape == b.found.shape and b.wrong.sum() > 1 else None


def mixes(b: Case) -> bool:
    """Whether the reader sums over the channels of single pixels."""
    if not b.layered or b.what.node.op not in ("conv2d", "fully_connected"):
        return False
    x, w = b.what.arrays[:2]
    return w.size == w.shape[-2] * w.shape[-1] and x.shape[-1] == w.shape[-2] and x[..., 0].size == b.ours[..., 0].size


class Apart:
    """What a reader that keeps channels apart gives at some of its elements for new values of the layer's channel."""

    def __init__(self, c: Case, b: Case, channel: int, elements: int = ELEMENTS) -> None:
        self.b, self.c, self.channel = b, c, channel
        own = c.ours[..., channel]
        if b.what.node.op == "depthwise_conv2d":
            m = b.what.node.attrs.get("multiplier", 1)
            self.out = [channel * m + i for i in range(m)]
            wrong = b.wrong[..., self.out].any(axis=-1).reshape(-1)
        else:
            self.out = [channel]
            wrong = b.wrong[..., channel].reshape(-1)
        self.elements = np.argsort(~wrong, kind="stable")[:elements]
        self.inside = np.ones(1, bool)
        if b.what.node.op in WHOLE:
            self.pixels = np.arange(own.size)
        elif b.what.node.op in APART:
            self.pixels = self.elements
        else:
            rows, columns = (Axis(b.what, i).at() for i in (0, 1))
            n, oy, ox = np.unravel_index(self.elements, b.ours.shape[:3])
            ys, xs = rows[oy][:, :, None], columns[ox][:, None, :]
            h, w = own.shape[1:3]
            self.inside = ((ys >= 0) & (ys < h) & (xs >= 0) & (xs < w)).reshape(len(n), -1)
            at = (n[:, None, None] * h + np.clip(ys, 0, h - 1)) * w + np.clip(xs, 0, w - 1)
            self.pixels = at.reshape(-1)

    def __call__(self, v: Array) -> Array:
        """Which of the values (candidates, pixels) give what the dump holds."""
        b, own = self.b, self.c.ours[..., self.channel].reshape(-1)[self.pixels]
        if b.what.node.op == "depthwise_conv2d":
            moved = np.where(self.inside, (v - own).reshape(len(v), *self.inside.shape), 0)
            good = np.ones(len(v), bool)
            for out in self.out:
                w = b.what.arrays[1][..., out].astype(np.int64).reshape(-1) - zero_point_of(b.what.operands[1])
                sums = b.sums[..., out].reshape(-1)[self.elements] + moved @ w
                given = requantize_all(sums[..., None], of_channels(b.requant, np.array([out])))[..., 0]
                good &= (given == b.found[..., out].reshape(-1)[self.elements]).all(axis=1)
            return good
        return self._run(v)

    def _run(self, v: Array) -> Array:
        """Through the node itself: each candidate is an image of one channel."""
        b = self.b
        whole = b.what.node.op in WHOLE
        count = len(v)
        arrays, operands = [], []
        for i, (tensor, x) in enumerate(zip(b.what.operands, b.what.arrays, strict=True)):
            if i == self.c.position:
                images = len(self.c.ours)
                side = self.c.ours.shape[1:3]
                small = v.reshape(count * images, *side, 1) if whole else v.reshape(count, -1, 1, 1)
            else:
                lane = np.broadcast_to(x, b.ours.shape)[..., self.channel].reshape(-1)[self.elements]
                small = np.broadcast_to(lane[None, :, None, None], (count, len(lane), 1, 1))
            small = np.ascontiguousarray(small.astype(x.dtype))
            arrays.append(small)
            operands.append(replace(tensor, shape=(1, *small.shape[1:]), constant=False))
        shape = (1, *b.ours.shape[1:-1], 1) if whole else (1, len(self.elements), 1, 1)
        what = replace(b.what, operands=tuple(operands), arrays=tuple(arrays),
                       result=replace(b.what.result, shape=shape))  # fmt: skip
        given = run(what, b.dialect).reshape(count, -1)
        found = b.found[..., self.channel].reshape(-1)
        return np.asarray((given == (found if whole else found[self.elements])).all(axis=1))


def keeps_apart(c: Case, b: Case) -> bool:
    """Whether the reader computes each channel of one channel of the layer."""
    if b.what.node.op == "depthwise_conv2d":
        return b.layered
    return b.what.node.op in (*APART, *WHOLE) and b.ours.shape[-1] == c.ours.shape[-1]


def _apart(c: Case, b: Case) -> dict[int, tuple[Array, Apart]]:
    node = b.what.node
    if not keeps_apart(c, b):
        return {}
    odd = np.flatnonzero(b.wrong.reshape(-1, b.wrong.shape[-1]).any(axis=0))
    m = node.attrs.get("multiplier", 1) if node.op == "depthwise_conv2d" else 1
    channels = list(dict.fromkeys((odd // m).tolist()))
    if len(channels) > 2:
        return {}
    seen = {ch: Apart(c, b, ch) for ch in channels}
    return {ch: (s.pixels, s) for ch, s in seen.items()}


class _Mixed:
    """The interval of a channel's change at each pixel."""

    def __init__(self, own: Array, low: Array, high: Array) -> None:
        self.own, self.low, self.high = own, low, high

    def __call__(self, v: Array) -> Array:
        d = v - self.own
        return np.asarray(((self.low <= d) & (d <= self.high)).all(axis=1))


def limits(b: Case) -> tuple[Array, Array, Array]:
    """Pixels of the reader, and what its accumulators there may be moved by, (pixels, channels)."""
    count = b.wrong.shape[-1]
    wrong = b.wrong.reshape(-1, count).sum(axis=1)
    order = np.argsort(-wrong, kind="stable")
    pixels = np.unique(np.concatenate([order[: PIXELS // 2], order[PIXELS // 2 :][-PIXELS // 2 :]]))
    sums, low, high = b.sums.reshape(-1, count)[pixels], [], []
    small = replace(b, found=b.found.reshape(-1, count)[pixels])
    for ch in range(count):
        least, most = allowed(small, ch)
        low.append(least - sums[:, ch])
        high.append(most - sums[:, ch])
    return pixels, np.stack(low, axis=1), np.stack(high, axis=1)


def _mixed(c: Case, b: Case) -> dict[int, tuple[Array, _Mixed]]:
    """The channels that may have the fault alone, those first that leave least."""
    pixels, low, high = limits(b)
    w = b.what.arrays[1].astype(np.int64).reshape(-1, b.what.arrays[1].shape[-1]) - zero_point_of(b.what.operands[1])
    values = c.ours.reshape(-1, c.ours.shape[-1])
    found = {}
    for ch in range(len(w)):
        row = w[ch]
        safe = np.where(row == 0, 1, row)
        up, down = np.where(row > 0, low, high), np.where(row > 0, high, low)
        a, z = -((-up) // safe), down // safe
        still = (row != 0) | ((low <= 0) & (high >= 0))
        least, most = np.where(row == 0, -(2**30), a).max(axis=1), np.where(row == 0, 2**30, z).min(axis=1)
        if still.all() and (least <= most).all() and ((least > 0) | (most < 0)).any():
            found[ch] = (pixels, _Mixed(values[pixels, ch], least, most))
    return dict(sorted(found.items(), key=lambda f: int((f[1][1].high - f[1][1].low).sum())))


def _single(c: Case, channel: int, pixels: Array, fits: Apart | _Mixed) -> Iterator[Change]:
    """Flipped bits of a channel's weights, bias and multiplier; its shift; another channel's weights."""
    terms = pixels_of(c, channel, pixels)
    if len(pixels) * terms.shape[1] * 8 > MOST_VALUES:
        return
    sums = c.sums.reshape(-1, c.sums.shape[-1])[pixels, channel]
    r = of_channels(c.requant, np.array([channel]))
    own = c.what.arrays[1][..., channel].reshape(-1)
    m, s = int(np.asarray(c.requant.multiplier)[channel]), int(np.asarray(c.requant.shift)[channel])
    kinds: dict[str, list[_Candidate]] = {}
    window = c.what.arrays[1].shape[:-1]
    names = ("ky", "kx", "ci")[: len(window)] if len(window) > 1 else ("i",)
    weights, moved = [], []
    for bit in range(8):
        other = (own.view(np.uint8) ^ np.uint8(1 << bit)).view(own.dtype)
        moved.append((terms * (other.astype(np.int64) - own)).T + sums)
        for k in range(len(own)):
            at = tuple(int(i) for i in np.unravel_index(k, window))
            where = ", ".join(f"{n} {i}" for n, i in zip(names, at, strict=True))
            text = f"bit {bit} of its weight ({where}, co {channel}) flipped: {other[k]} instead of {own[k]}"
            weights.append(_Candidate(text, channel, weights=((*at, channel), int(other[k]))))
    good = fits(requantize_all(np.concatenate(moved)[..., None], r)[..., 0])
    kinds["single flipped bits of its weights"] = [weights[i] for i in np.flatnonzero(good)]
    value = int(c.what.arrays[2][channel])
    flips = [int(np.int64((value & 0xFFFFFFFF) ^ 1 << bit).astype(np.uint32).view(np.int32)) for bit in range(32)]
    biases = [_Candidate(f"bit {i} of its bias of channel {channel} flipped: {v} instead of {value}", channel, bias=v)
              for i, v in enumerate(flips)]  # fmt: skip
    biases.append(_Candidate(f"its bias of channel {channel} is missing", channel, bias=0))
    moved = [sums - value + (b.bias or 0) for b in biases]
    good = fits(requantize_all(np.stack(moved)[..., None], r)[..., 0])
    kinds["bits of its bias"] = [biases[i] for i in np.flatnonzero(good)]
    factors = [_Candidate(f"bit {bit} of its multiplier of channel {channel} flipped: {m ^ 1 << bit} instead of {m}",
                          channel, factor=(m ^ 1 << bit, s)) for bit in range(31)]  # fmt: skip
    factors += [_Candidate(f"its shift of channel {channel} is {s + d} instead of {s}", channel, factor=(m, s + d))
                for d in (1, -1, 2, -2, 3, -3) if -31 <= s + d <= 30]  # fmt: skip
    given = [requantize_all(sums[:, None], _factored(r, *f.factor))[:, 0] for f in factors if f.factor]
    kinds["other multipliers or shifts"] = [factors[i] for i in np.flatnonzero(fits(np.stack(given)))]
    for what, candidates in kinds.items():
        yield from _told(c, what, candidates)


def _factored(r: Requantization, multiplier: int, shift: int) -> Requantization:
    m, s = np.array([multiplier]), np.array([shift])
    return r._replace(multiplier=m, shift=s, scale=m * 2.0 ** (s - 31))


def _told(c: Case, what: str, candidates: list[_Candidate]) -> Iterator[Change]:
    """Those that explain everything, as one."""
    if not 0 < len(candidates) <= MOST_LEFT:
        return
    right = [(one, change) for one in candidates if np.array_equal(c.whole(change := _change(c, one)), c.found)]
    if right:
        text = right[0][0].text
        if len(right) > 1:
            more = ", ".join(one.text for one, _ in right[1:NAMED])
            text = f"any of {len(right)} {what} that give the same ({text}, or {more}" + (
                ", ...)" if len(right) > NAMED else ")"
            )
        yield replace(right[0][1], text=text)


def _change(c: Case, one: _Candidate) -> Change:
    arrays, edit, channel = {}, None, one.channel
    if one.weights is not None:
        arrays[1] = c.what.arrays[1].copy()
        arrays[1][one.weights[0]] = one.weights[1]
    if one.bias is not None:
        arrays[2] = c.what.arrays[2].copy()
        arrays[2][channel] = one.bias
    if one.factor is not None:
        m, s = (np.asarray(v, np.int64).copy() for v in (c.requant.multiplier, c.requant.shift))
        m[channel], s[channel] = one.factor
        edit = factor_edit(m, s)
    return Change(one.text, c.arrays("", arrays).what if arrays else None, edit=edit)


def exchange(c: Case, a: int, b: int) -> Iterator[Change]:
    """Two output channels' weights, or all of their numbers."""
    order = np.arange(c.ours.shape[-1])
    order[[a, b]] = b, a
    yield c.arrays(f"the weights of channels {a} and {b} are swapped", {1: c.what.arrays[1][..., order]})
    yield c.arrays(f"the biases of channels {a} and {b} are swapped", {2: c.what.arrays[2][order]})
    yield c.arrays(f"the weights and biases of channels {a} and {b} are swapped",
                   {1: c.what.arrays[1][..., order], 2: c.what.arrays[2][order]})  # fmt: skip
    yield Change(f"channels {a} and {b} are swapped", values=c.ours[..., order])
    if c.what.node.op == "depthwise_conv2d" and c.what.arrays[0].shape[-1] == len(order):
        yield c.arrays(f"channels {a} and {b} of its input are swapped", {0: c.what.arrays[0][..., order]})
