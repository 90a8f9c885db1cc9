"""Hypotheses on a device's loops and memory: tiles without their neighbours, sums not cleared, lanes, bytes turned."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from npmobilenet.golden.causes.case import Case, Change, listed
from npmobilenet.golden.causes.exchanged import _elements
from npmobilenet.golden.causes.geometry import Axis, gathered
from npmobilenet.golden.causes.places import regions
from npmobilenet.golden.derivation import zero_point_of
from npmobilenet.golden.single_node import run
from npmobilenet.modeldata import Array

TILES = (2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64)
LANES = (2, 4, 8, 16)
BLOCKS = (4, 8, 16, 32, 64)
LOOKED, MOST = 4, 4  # output channels that are looked at; input channels that may fit


def halos(c: Case) -> Iterator[Change]:
    """Where tiles meet, windows read padding, or their own tile's border, in place of the neighbouring tile."""
    if c.finish is not None:
        return
    axes = [Axis(c.what, i) for i in (0, 1)]
    own = [a.at() for a in axes]
    wrong = c.wrong.any(axis=(0, 3))
    for size in TILES:
        for repeated in (False, True):
            cut = [_in_tile(a, at, size, repeated) for a, at in zip(axes, own, strict=True)]
            for which, rows, columns in (
                ("rows and columns", cut[0], cut[1]),
                ("rows", cut[0], own[1]),
                ("columns", own[0], cut[1]),
            ):
                moved = (rows != own[0]).any(axis=1)[:, None] | (columns != own[1]).any(axis=1)
                if moved.any() and not (wrong & ~moved).any():
                    what = "its own border" if repeated else "padding"
                    yield gathered(
                        c, f"a tile of {size} {which} reads {what} in place of its neighbour's pixels", rows, columns
                    )


def _in_tile(axis: Axis, at: Array, size: int, repeated: bool) -> Array:
    """Pixels of the image outside a window's tile: none (-1), or the tile's first or last."""
    if size >= axis.outputs or axis.taps == 1:
        return at
    first = (np.arange(axis.outputs) // size * size * axis.stride)[:, None]
    last = first + size * axis.stride - 1
    outside = ((at < first) | (at > last)) & (at >= 0) & (at < axis.size)
    return np.where(outside, np.clip(at, first, last) if repeated else -1, at)


def sums(c: Case) -> Iterator[Change]:
    """Accumulators that aren't cleared, products or biases that are missing or added several times."""
    bias = c.what.arrays[2].astype(np.int64)
    axes = {-1: "channel", 2: "column", 1: "row"} if c.sums.ndim == 4 else {-1: "channel"}
    yield from _packed(c, bias)
    for axis, name in axes.items():
        yield Change(f"its accumulators aren't cleared from {name} to {name}: products add up, each with its own bias",
                     sums=_cumulated(axis, bias))  # fmt: skip
        yield Change(f"its accumulators aren't cleared from {name} to {name}: products and biases add up",
                     sums=_cumulated(axis, bias * 0))  # fmt: skip
        yield Change(f"its accumulators still hold those of the {name} before", sums=_with_before(axis))
    weights = c.what.arrays[1]
    terms = [weights[..., 0].size, *weights.shape[:-1], int(np.prod(weights.shape[:2]))]
    for n in dict.fromkeys([3, 4, 5, 6, 7, 8, 9, *terms, *(-(-t // b) for t in terms for b in BLOCKS)]):
        if n > 2:
            yield Change(f"its bias is added {n} times", sums=_plus((n - 1) * bias))
    own = c.what.arrays[2]
    halves = own.view(np.int16)
    for text, other in (
        ("has its bytes in the other order (big- and little-endian)", own.byteswap()),
        ("is read as 16-bit integers", halves[: own.size]),
        ("has its upper and lower 16 bits swapped", halves.reshape(-1, 2)[:, ::-1].copy().view(own.dtype)[:, 0]),
    ):  # fmt: skip
        yield Change(f"its bias {text}", sums=_plus(other.astype(np.int64) - bias))
    odd = np.flatnonzero(c.wrong.reshape(-1, c.wrong.shape[-1]).any(axis=0))
    if c.finish is None and 0 < len(odd) < len(bias):
        some = listed(list(map(str, odd)))
        for text, times in (("missing", -1), ("subtracted", -2), ("added twice", 1)):
            yield Change(f"the products of channel {some} are {text}", sums=_times(bias, odd, times))


def _packed(c: Case, bias: Array) -> Iterator[Change]:
    """Two products in one multiplier, whose lower sum borrows from the upper one where it is negative."""
    names = {-1: "channel", 2: "column"} if c.sums.ndim == 4 else {-1: "channel"}
    for axis, name in names.items():
        place = np.arange(c.sums.shape[axis])
        for first, by in ((0, 1), (1, -1), (0, -1), (1, 1)):
            partner = place + by
            picked = np.where((place % 2 == first) & (partner >= 0) & (partner < len(place)))[0]
            which = ("even", "odd")[first] + f" {name}s"
            for text, products in (("", bias), (" with their bias", bias * 0)):
                yield Change(f"two products share a multiplier: the sums of {which} lack 1 where those of the {name} "
                             f"{'behind' if by > 0 else 'before'}{text} are negative (no correction of the borrow)",
                             sums=_borrowed(axis, picked, picked + by, products))  # fmt: skip


def _borrowed(axis: int, picked: Array, partner: Array, bias: Array) -> Callable[[Array], Array]:
    def lowered(s: Array) -> Array:
        found = s.copy()
        np.moveaxis(found, axis, 0)[picked] -= np.moveaxis(s - bias < 0, axis, 0)[partner]
        return found

    return lowered


def _cumulated(axis: int, bias: Array) -> Callable[[Array], Array]:
    return lambda s: np.cumsum(s - bias, axis=axis) + bias


def _with_before(axis: int) -> Callable[[Array], Array]:
    def added(s: Array) -> Array:
        before = np.roll(s, 1, axis)
        np.moveaxis(before, axis, 0)[0] = 0
        return s + before

    return added


def _plus(d: Array) -> Callable[[Array], Array]:
    return lambda s: s + d


def _times(bias: Array, channels: Array, times: int) -> Callable[[Array], Array]:
    """Products of some channels, so many times more."""
    picked = np.isin(np.arange(len(bias)), channels)
    return lambda s: s + np.where(picked, times * (s - bias), 0)


def lanes(c: Case) -> Iterator[Change]:
    """Every n-th input channel left out, blocks of them read again, weights read beside their place, bits turned."""
    x, own, _ = c.what.arrays
    z = zero_point_of(c.what.operands[1])
    if c.what.node.op != "depthwise_conv2d":
        yield from _lone(c)
        count = own.shape[-2]
        for n in LANES:
            for lane in range(n) if n < count else ():
                left = own.copy()
                left[..., lane::n, :] = z
                yield c.arrays(f"input channels {lane}, {lane + n}, ... (every {n}th) are left out", {1: left})
        for n in BLOCKS:
            if n < count:
                again = np.arange(count) % n
                read = np.ascontiguousarray(x[..., np.arange(x.shape[-1]) % n])
                yield c.arrays(f"it reads the first {n} channels of its input again and again", {0: read})
                yield c.arrays(f"its weights of the first {n} input channels stand in all blocks of {n}",
                               {1: own[..., again, :]})  # fmt: skip
    for name, axes in _memories(own).items():
        flat = own.transpose(axes)
        for d in (1, -1, 2, -2, 4, -4):
            moved = np.roll(flat.reshape(-1), -d).reshape(flat.shape).transpose(np.argsort(axes))
            yield c.arrays(f"its weights are read {d:+d} bytes beside their place in memory ({name})",
                           {1: np.ascontiguousarray(moved)})  # fmt: skip


def _memories(own: Array) -> dict[str, tuple[int, ...]]:
    if own.ndim == 4:
        return {"OHWI": (3, 0, 1, 2), "HWIO": (0, 1, 2, 3)}
    return {"HWC": (0, 1, 2)} if own.ndim == 3 else {"OI": (1, 0), "IO": (0, 1)}


def _lone(c: Case) -> Iterator[Change]:
    """One input channel, solved for: its products missing, twice, or subtracted."""
    own, z = c.what.arrays[1], zero_point_of(c.what.operands[1])
    if c.finish is not None or not c.wrong.any():
        return
    w = own.astype(np.int64) - z
    counts = c.wrong.reshape(-1, c.wrong.shape[-1]).sum(axis=0)
    kinds = {"left out": -1, "summed twice": 1, "subtracted": -2}
    fits = {text: np.ones(own.shape[-2], bool) for text in kinds}
    count = own.shape[-2]
    first, last = np.ones(count, bool), np.ones(count, bool)
    tiles = [(i, min(i + n, count)) for n in BLOCKS for i in range(n, count - n, n)]
    starts, ends = np.array(tiles, np.int64).reshape(-1, 2).T
    fitting = np.ones(len(tiles), bool)
    for ch in (int(i) for i in np.argsort(-counts, kind="stable")[:LOOKED]):
        pixels, low, high = _elements(c, ch)
        each = (pixels * w[..., ch].reshape(-1)).reshape(len(pixels), -1, own.shape[-2]).sum(axis=1)
        for text, times in kinds.items():
            fits[text] &= ((low[:, None] <= times * each) & (times * each <= high[:, None])).all(axis=0)
        up_to, total = each.cumsum(axis=1), each.sum(axis=1, keepdims=True)
        first &= ((low[:, None] <= up_to - total) & (up_to - total <= high[:, None])).all(axis=0)
        last &= ((low[:, None] <= -up_to) & (-up_to <= high[:, None])).all(axis=0)
        tile = up_to[:, starts - 1] - up_to[:, ends - 1]
        fitting &= ((low[:, None] <= tile) & (tile <= high[:, None])).all(axis=0)
    for k in np.flatnonzero(fitting)[:MOST] if fitting.sum() <= MOST else ():
        left = own.copy()
        left[..., starts[k] : ends[k], :] = z
        yield c.arrays(f"input channels {starts[k]} to {ends[k] - 1} of {count} are left out", {1: left})
    for text, good in fits.items():
        found = np.flatnonzero(good)
        for k in found if len(found) <= MOST else ():
            without = own.copy()
            without[..., k, :] = z
            what = c.arrays("", {1: without}).what
            assert what is not None
            products = c.sums - run(what, c.dialect, stage="accumulator").astype(np.int64)
            yield Change(f"input channel {k} is {text}", sums=_plus(kinds[text] * products))
    for k in np.flatnonzero(first)[:MOST] if first.sum() <= MOST else ():
        left = own.copy()
        left[..., k + 1 :, :] = z
        yield c.arrays(f"only the first {k + 1} of {count} input channels are summed", {1: left})
    for k in np.flatnonzero(last)[:MOST] if last.sum() <= MOST else ():
        left = own.copy()
        left[..., : k + 1, :] = z
        yield c.arrays(f"the first {k + 1} of {count} input channels are left out", {1: left})


def parts(c: Case) -> Iterator[Change]:
    """A part of the image or of the channels whose products are missing, or whose accumulators are 0."""
    if c.finish is not None or not c.wrong.any() or c.wrong.all():
        return
    bias = c.what.arrays[2].astype(np.int64)
    for text, region in regions(c.wrong):
        yield Change(f"the products of {text} are missing: the bias alone is there", sums=_where(region, bias))
        yield Change(f"the accumulators of {text} are 0", sums=_where(region, bias * 0))
        yield Change(f"the bias of {text} is missing", sums=lambda s, region=region: s - np.where(region, bias, 0))  # type: ignore[misc]


def _where(region: Array, value: Array) -> Callable[[Array], Array]:
    return lambda s: np.where(region, value, s)
