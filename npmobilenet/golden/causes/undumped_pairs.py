"""Exchanged channels of a layer whose output a dump lacks, through the node that reads it: pairs are solved for."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from npmobilenet.golden.causes.bits import pixels_of
from npmobilenet.golden.causes.case import Case, Change, of_channels
from npmobilenet.golden.causes.rounding import requantize_all
from npmobilenet.golden.causes.undumped import (
    ELEMENTS,
    MOST_CHANNELS,
    MOST_VALUES,
    Apart,
    exchange,
    keeps_apart,
    limits,
    mixes,
    seen_by_reader,
)
from npmobilenet.golden.derivation import zero_point_of
from npmobilenet.modeldata import Array

FEW = 6  # elements or channels that are looked at, one after the other
PIECE = 4096  # pairs at once
MOST_INPUTS = 1024


def undumped_pairs(c: Case) -> Iterator[Change]:
    """Two output channels' weights, or two input channels, exchanged."""
    b = seen_by_reader(c)
    if b is None:
        return
    if mixes(b):
        yield from _outputs(c, b)
    yield from _inputs(c, b)


def _outputs(c: Case, b: Case) -> Iterator[Change]:
    """Any two output channels, through a reader that sums over channels."""
    count = c.ours.shape[-1]
    pixels, low, high = limits(b)
    own = c.what.arrays[1].reshape(-1, count).astype(np.int64) - zero_point_of(c.what.operands[1])
    if count * count * len(pixels) > 4 * MOST_VALUES:
        return
    depthwise = c.what.node.op == "depthwise_conv2d"
    bias = c.what.arrays[2].astype(np.int64)
    moves = np.empty((len(pixels), count, count), np.int32)  # of channel a, with the weights of channel b
    shared = None if depthwise else pixels_of(c, 0, pixels) @ own
    values = c.ours.reshape(-1, count)[pixels].astype(np.int64)
    for a in range(count):
        sums = (pixels_of(c, a, pixels) @ own if shared is None else shared) + bias[a]
        given = requantize_all(sums[..., None], of_channels(c.requant, np.array([a])))[..., 0]
        moves[:, a] = given - values[:, a, None]
    w = b.what.arrays[1].reshape(-1, b.what.arrays[1].shape[-1]).astype(np.int64) - zero_point_of(b.what.operands[1])
    first, second = np.triu_indices(count, 1)
    narrow = np.argsort((high - low).reshape(-1), kind="stable")
    for place in narrow[: ELEMENTS * 4]:
        p, out = divmod(int(place), w.shape[1])
        moved = moves[p, first, second] * w[first, out] + moves[p, second, first] * w[second, out]
        good = (low[p, out] <= moved) & (moved <= high[p, out])
        first, second = first[good], second[good]
        if not first.size:
            return
    for i, j in zip(first.tolist(), second.tolist(), strict=True) if len(first) <= MOST_CHANNELS else ():
        yield next(exchange(c, i, j))


def _inputs(c: Case, b: Case) -> Iterator[Change]:
    """Any two input channels of a layer that sums over them: most of its output channels change."""
    own = c.what.arrays[1]
    if c.what.node.op == "depthwise_conv2d" or not 1 < own.shape[-2] <= MOST_INPUTS:
        return
    w = own.reshape(-1, *own.shape[-2:]).astype(np.int64) - zero_point_of(c.what.operands[1])  # (taps, inputs, outputs)
    first, second = np.triu_indices(own.shape[-2], 1)
    looked = _through_all(c, b, w) if mixes(b) else _through_one(c, b, w)
    for fits in looked:
        good = np.concatenate([fits(first[i : i + PIECE], second[i : i + PIECE]) for i in range(0, len(first), PIECE)])
        first, second = first[good], second[good]
        if not first.size:
            return
    for i, j in zip(first.tolist(), second.tolist(), strict=True) if len(first) <= MOST_CHANNELS else ():
        order = np.arange(own.shape[-2])
        order[[i, j]] = j, i
        text = f"input channels {i} and {j} are swapped (in its weights, or what it reads of its input)"
        yield c.arrays(text, {1: np.take(own, order, -2)})


def _moved(pixels: Array, w: Array, i: Array, j: Array) -> Array:
    """What exchanging i and j adds to accumulators: pixels (pixels, taps, inputs), w (taps, inputs)."""
    total = np.zeros((len(i), len(pixels)), np.int64)
    for t in range(len(w)):
        total += ((pixels[:, t, i] - pixels[:, t, j]) * (w[t, j] - w[t, i])).T
    return total


def _through_one(c: Case, b: Case, w: Array) -> Iterator[Callable[[Array, Array], Array]]:
    """Channel by channel, those first that differ most."""
    if not keeps_apart(c, b):
        return
    counts = b.wrong.reshape(-1, b.wrong.shape[-1]).sum(axis=0)
    m = b.what.node.attrs.get("multiplier", 1) if b.what.node.op == "depthwise_conv2d" else 1
    for ch in dict.fromkeys((np.argsort(-counts, kind="stable")[:FEW] // m).tolist()):
        seen = Apart(c, b, ch, FEW)
        pixels = pixels_of(c, ch, seen.pixels).reshape(len(seen.pixels), *w.shape[:2])
        sums = c.sums.reshape(-1, c.sums.shape[-1])[seen.pixels, ch]
        r = of_channels(c.requant, np.array([ch]))
        yield lambda i, j, seen=seen, pixels=pixels, sums=sums, r=r, ch=ch: seen(  # type: ignore[misc]
            requantize_all((sums + _moved(pixels, w[..., ch], i, j))[..., None], r)[..., 0]
        )


def _through_all(c: Case, b: Case, w: Array) -> Iterator[Callable[[Array, Array], Array]]:
    """Pixel by pixel, through a reader that sums over channels."""
    at, low, high = limits(b)
    count = c.ours.shape[-1]
    pixels = pixels_of(c, 0, at).reshape(len(at), *w.shape[:2])
    read = b.what.arrays[1].reshape(count, -1).astype(np.float64) - zero_point_of(b.what.operands[1])
    for p in range(min(len(at), FEW)):
        sums, right = (v.reshape(-1, count)[at[p]].astype(np.int64) for v in (c.sums, c.ours))

        def fits(i: Array, j: Array, p: int = p, sums: Array = sums, right: Array = right) -> Array:
            acc = np.stack([_moved(pixels[p : p + 1], w[..., ch], i, j)[:, 0] for ch in range(count)], axis=1) + sums
            moved = (requantize_all(acc, c.requant) - right).astype(np.float64) @ read
            return np.asarray(((low[p] <= moved) & (moved <= high[p])).all(axis=1))

        yield fits
