"""Hypotheses on pairs: two input channels, taps or output channels exchanged, or one standing in place of another.

There are a million pairs of 1024 channels. They are solved for, not tried: at one element, exchanging a and b moves the
accumulator by S[a, b] + S[b, a] - S[a, a] - S[b, b], where S[a, b] is the sum of products of a's pixels with b's
weights, and what each element allows (bits.allowed) leaves few pairs after a few elements.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from npmobilenet.golden.causes.bits import FEW, allowed, pixels_of
from npmobilenet.golden.causes.case import Case, Change, listed
from npmobilenet.golden.derivation import zero_point_of
from npmobilenet.modeldata import Array

ELEMENTS = 48  # that are looked at, half of which differ
MOST_SIZE = 2048  # channels of which the pairs are looked at
SEVERAL = 8  # values that have to differ if there is a pair of weights that explains them
DECIDING, MOST_LEFT = 12, 10**5  # after so many elements no more pairs may be left
MOST_PAIRS = 4  # that are computed over the whole layer


def exchanged(c: Case) -> Iterator[Change]:
    """Pairs of input channels and of taps, in all output channels or in one."""
    if c.finish is not None or not c.wrong.any():
        return
    w = c.what.arrays[1]
    counts = c.wrong.reshape(-1, c.wrong.shape[-1]).sum(axis=0)
    few = max(FEW, ELEMENTS // (c.wrong.size // c.wrong.shape[-1]))
    looked = [int(ch) for ch in np.argsort(-counts, kind="stable")[:few] if counts[ch]]
    seen = {ch: _elements(c, ch) for ch in looked}
    inner = w.shape[-2] if c.what.node.op != "depthwise_conv2d" else 1
    taps = w[..., 0].size // inner
    if inner > 1:
        yield from _pairs(c, seen, (taps, inner), "channels", None)
    if taps > 1:
        yield from _pairs(c, seen, (taps, inner), "taps", None)


def weights_of_one(c: Case) -> Iterator[Change]:
    """Two weights of the one output channel that differs."""
    channels = np.flatnonzero(c.wrong.reshape(-1, c.wrong.shape[-1]).any(axis=0))
    if c.finish is not None or len(channels) != 1 or c.wrong.sum() < SEVERAL:
        return
    channel = int(channels[0])
    size = c.what.arrays[1][..., 0].size
    yield from _pairs(c, {channel: _elements(c, channel)}, (1, size), "weights", channel)


def _elements(c: Case, channel: int) -> tuple[Array, Array, Array]:
    """Pixels and the interval of what moves the accumulator rightly, of some elements of a channel."""
    wrong = c.wrong.reshape(-1, c.wrong.shape[-1])[:, channel]
    odd, even = np.flatnonzero(wrong), np.flatnonzero(~wrong)
    half = ELEMENTS // 2
    chosen = np.concatenate([v[:: max(len(v) // half, 1)][:half] for v in (odd, even)])
    low, high = allowed(c, channel)
    sums = c.sums.reshape(-1, c.sums.shape[-1])[:, channel]
    return pixels_of(c, channel, chosen), (low - sums)[chosen], (high - sums)[chosen]


def _pairs(c: Case, seen: dict[int, tuple[Array, Array, Array]], shape: tuple[int, int], what: str,
           only: int | None) -> Iterator[Change]:  # fmt: skip
    """Pairs along the second axis of `shape` ("channels", "weights") or the first ("taps")."""
    w = c.what.arrays[1].astype(np.int64) - zero_point_of(c.what.operands[1])
    size = shape[0] if what == "taps" else shape[1]
    if size > MOST_SIZE:
        return
    looked = [(channel, *one) for channel, v in seen.items() for one in zip(*v, strict=True)]
    looked.sort(key=lambda e: int(e[3] - e[2]))  # those first that allow least
    left: dict[str, Array] | None = None
    for i, (channel, pixels, least, most) in enumerate(looked):
        a, b = (v.reshape(shape).astype(np.float64) for v in (pixels, w[..., channel]))
        left = _remaining(a, b, least, most, left) if what == "taps" else _remaining(a.T, b.T, least, most, left)
        count = sum(pairs.size for pairs in left.values())
        if not count or (i >= DECIDING and count > MOST_LEFT):
            return
    for kind, pairs in (left or {}).items():
        chosen = [(int(p) // size, int(p) % size) for p in pairs]
        chosen = [p for p in chosen if p[0] < p[1] or (kind != "swap" and p[0] != p[1])]
        for a_, b_ in chosen if len(chosen) <= MOST_PAIRS else ():  # with more it is chance
            yield _change(c, kind, shape, what, (a_, b_), only)


def _remaining(x: Array, w: Array, least: int, most: int, left: dict[str, Array] | None) -> dict[str, Array]:
    """The pairs (a * size + b) that move one accumulator rightly; x and w: (size, terms)."""
    size = len(x)
    if left is None or 4 * sum(pairs.size for pairs in left.values()) * x.shape[1] > size * size:  # all at once
        s = x @ w.T
        own = np.diagonal(s)
        moves = {"swap": s + s.T - own[:, None] - own, "weights": s.T - own, "pixels": s - own}
        good = {k: ((least <= m) & (m <= most)).reshape(-1) for k, m in moves.items()}
        return {k: np.flatnonzero(g) if left is None else left[k][g[left[k]]] for k, g in good.items()}
    found = {}
    for kind, pairs in left.items():
        a, b = pairs // size, pairs % size
        dx, dw = x[a] - x[b], w[a] - w[b]
        moved = -(dx * dw) if kind == "swap" else x[b] * dw if kind == "weights" else dx * w[b]
        move = moved.sum(axis=1)
        found[kind] = pairs[(least <= move) & (move <= most)]
    return found


def _change(c: Case, kind: str, shape: tuple[int, int], what: str, pair: tuple[int, int], only: int | None) -> Change:
    """A pair's change of the weights; of "pixels", what the weights are for the pixel that is read."""
    own = c.what.arrays[1]
    array = own.reshape(*shape, own.shape[-1]).copy()
    a, b = pair

    def at(i: int) -> tuple[Any, ...]:
        if only is not None:
            return slice(None), i, only
        return (i,) if what == "taps" else (slice(None), i)

    if kind == "swap":
        array[at(a)], array[at(b)] = array[at(b)].copy(), array[at(a)].copy()
    elif kind == "weights":
        array[at(b)] = array[at(a)]
    names = tuple(_named(c, shape, what, i) for i in pair)
    inside = "" if only is None else f" of output channel {only}"
    one = {"channels": "input channel", "taps": "tap", "weights": "weight"}[what]
    if kind == "swap":
        text = f"{one}s {names[0]} and {names[1]}{inside} are swapped (in its weights, or what it reads of its input)"
    elif kind == "weights":
        text = f"the weights of {one} {names[0]} stand in place of those of {names[1]} as well{inside}"
    else:
        return _read(
            c, what, shape, pair, f"it reads {one} {names[0]} of its input in place of {names[1]}{inside}", only
        )
    return c.arrays(text, {1: array.reshape(own.shape)})


def _named(c: Case, shape: tuple[int, int], what: str, i: int) -> str:
    if what == "channels":
        return str(i)
    window = c.what.arrays[1].shape[:-1]
    if what == "taps":
        window = window[:2]
    return f"({', '.join(str(int(v)) for v in np.unravel_index(i, window))})"


def _read(c: Case, what: str, shape: tuple[int, int], pair: tuple[int, int], text: str, only: int | None) -> Change:
    """One channel of the input read in place of another. Taps and single weights: the weights of both are joined.

    x_a w_a + x_a w_b = x_a (w_a + w_b): that sum may not fit 8 bits, so accumulators are moved instead.
    """
    x = c.what.arrays[0]
    a, b = pair
    if what == "channels":
        order = np.arange(x.shape[-1])
        order[b] = a
        return c.arrays(text, {0: np.ascontiguousarray(x[..., order])})
    w = c.what.arrays[1].astype(np.int64) - zero_point_of(c.what.operands[1])
    flat = w.reshape(*shape, w.shape[-1])
    moved = np.zeros((c.sums[..., 0].size, w.shape[-1]), np.int64)
    every = np.arange(len(moved))
    depthwise = c.what.node.op == "depthwise_conv2d"
    for channels in [[k] for k in range(w.shape[-1])] if depthwise else [list(range(w.shape[-1]))]:
        pixels = pixels_of(c, channels[0], every).reshape(-1, *shape)
        d = pixels[:, a] - pixels[:, b] if what == "taps" else pixels[:, :, a] - pixels[:, :, b]
        rows = flat[b] if what == "taps" else flat[:, b]
        moved[:, channels] = d @ rows[:, channels]
    if only is not None:
        moved[:, np.arange(w.shape[-1]) != only] = 0
    total = moved.reshape(c.sums.shape)
    return Change(text, sums=lambda sums: sums + total)


def channels_of_others(c: Case) -> Iterator[Change]:
    """Every channel that differs has the weights of another one, with or without its bias: any permutation."""
    count = c.wrong.shape[-1]
    if c.finish is not None or count < 2 or c.sums[..., 0].size < ELEMENTS // 3:
        return
    wrong = c.wrong.reshape(-1, count)
    channels, bias = np.flatnonzero(wrong.any(axis=0)), c.what.arrays[2].astype(np.int64)
    w = c.what.arrays[1].astype(np.int64) - zero_point_of(c.what.operands[1])
    flat = w.reshape(-1, count).astype(np.float64)
    orders: dict[str, dict[int, Array]] = {"weights": {}, "weights and bias": {}}
    for ch in channels.tolist():
        pixels, low, high = _elements(c, ch)
        products = (pixels.astype(np.float64) @ flat).astype(np.int64)  # of every channel's weights
        here = products[:, ch]
        for what in list(orders):
            move = products - here[:, None] + (bias - bias[ch] if what != "weights" else 0)
            fits = np.flatnonzero(((low[:, None] <= move) & (move <= high[:, None])).all(axis=0))
            fits = fits[fits != ch]
            if not fits.size:
                del orders[what]
                continue
            orders[what][ch] = fits
        if not orders:
            return
    for what, fitting in orders.items():
        order = _nearest(fitting, count)
        yield from _rolled(c, fitting, count, what)
        moved = [f"{i} those of {order[i]}" for i in channels]
        text = f"the {what} of its output channels are in other places: {listed(moved, 3)}"
        if len(channels) == 2 and order[channels[0]] == channels[1] and order[channels[1]] == channels[0]:
            text = f"the {what} of channels {channels[0]} and {channels[1]} are swapped"
        arrays = {1: np.ascontiguousarray(c.what.arrays[1][..., order])}
        if what != "weights":
            arrays[2] = c.what.arrays[2][order]
        yield c.arrays(text, arrays)


def _nearest(fitting: dict[int, Array], count: int) -> Array:
    """For each channel the nearest one that fits."""
    order = np.arange(count)
    for ch, fits in fitting.items():
        order[ch] = fits[np.abs(fits - ch).argmin()]
    return order


def _rolled(c: Case, fitting: dict[int, Array], count: int, what: str) -> Iterator[Change]:
    """The amount by which all may be rolled, if one fits all."""
    amounts = set.intersection(*({(ch - int(f)) % count for f in fits} for ch, fits in fitting.items()))
    for d in sorted(amounts)[:MOST_PAIRS]:
        arrays = {1: np.roll(c.what.arrays[1], d, -1)}
        if what != "weights":
            arrays[2] = np.roll(c.what.arrays[2], d)
        yield c.arrays(f"its {what} have their output channels rolled by {d if d <= count // 2 else d - count}", arrays)


def rolled_inputs(c: Case) -> Iterator[Change]:
    """The input's channels rolled by any amount: what a few elements allow, then the engine."""
    x, w = c.what.arrays[0], c.what.arrays[1].astype(np.int64) - zero_point_of(c.what.operands[1])
    count = x.shape[-1]
    if c.finish is not None or not 2 < count <= MOST_SIZE or not c.wrong.any():
        return
    amounts = np.arange(1, count)
    if c.what.node.op != "depthwise_conv2d":
        counts = c.wrong.reshape(-1, c.wrong.shape[-1]).sum(axis=0)
        for ch in np.argsort(-counts, kind="stable")[:FEW].tolist():
            pixels, low, high = _elements(c, ch)
            taps = w[..., ch].reshape(-1, count)
            own = pixels @ taps.reshape(-1)
            moves = np.array([pixels @ np.roll(taps, -d, -1).reshape(-1) for d in amounts]).reshape(-1, len(own)) - own
            amounts = amounts[((low <= moves) & (moves <= high)).all(axis=1)]
    for d in amounts.tolist() if len(amounts) <= 256 else ():
        text = f"it reads its input's channels rolled by {d if d <= count // 2 else d - count}"
        yield c.arrays(text, {0: np.roll(x, d, -1)})
