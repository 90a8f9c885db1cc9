"""Accumulators that saturate at every addition: other values than a sum that saturates at its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from npmobilenet.golden.causes.bits import pixels_of
from npmobilenet.golden.causes.case import Case, Change
from npmobilenet.golden.derivation import zero_point_of
from npmobilenet.modeldata import Array

MOST_PRODUCTS = 2 * 10**8  # of the layer: what a few seconds suffice for
HELD = 10**6  # pixels of windows that are held at once
FEW = 96  # elements that are tried first
WIDTHS = range(12, 29)
BLOCKS = (4, 8, 16, 32, 64)


def stepwise(c: Case) -> Iterator[Change]:
    """In the order of a kernel's loops (rows, columns, channels of the window), the bias first or last."""
    size, wrong = c.what.arrays[1].size // c.sums.shape[-1], c.wrong.reshape(-1, c.wrong.shape[-1])
    if c.finish is not None or not c.wrong.any() or wrong.size * size > MOST_PRODUCTS:
        return
    few = np.argsort(-wrong.sum(axis=1), kind="stable")
    few = np.unique(np.concatenate([few[: FEW // 2], few[FEW // 2 :: max(len(few) // FEW, 1)][:FEW]]))
    some = _Sums(c, few)
    for text, adding in _kinds(c, some):
        values = c._behind(Change(""), c.what, adding(some), None)
        if np.array_equal(values, c.found.reshape(wrong.shape)[few]):
            yield Change(text, sums=_whole(c, adding))


class _Sums:
    """What is added to the accumulators of some elements."""

    def __init__(self, c: Case, elements: Array) -> None:
        w = c.what.arrays[1].astype(np.int64) - zero_point_of(c.what.operands[1])
        self.flat, self.bias = w.reshape(-1, w.shape[-1]), c.what.arrays[2].astype(np.int64)
        self.depthwise = c.what.node.op == "depthwise_conv2d"
        self.inner = 1 if self.depthwise else w.shape[-2]
        channels = range(w.shape[-1]) if self.depthwise else (0,)
        self.pixels = np.stack([pixels_of(c, ch, elements) for ch in channels], axis=-1)  # (elements, terms, 1 or C)

    def products(self, k: int, size: int) -> Array:
        """The sums of so many products from the k-th on."""
        pixels, w = self.pixels[:, k : k + size], self.flat[k : k + size]
        if self.depthwise:
            return np.asarray((pixels * w).sum(axis=1))
        return np.asarray((pixels[..., 0].astype(np.float64) @ w.astype(np.float64)).astype(np.int64))


def _kinds(c: Case, some: _Sums) -> Iterator[tuple[str, Callable[[_Sums], Array]]]:
    """Texts, and how the accumulators of elements come about."""
    for size in (1, *(n for n in BLOCKS if some.inner % n == 0 and some.inner > n)):
        where = "at every addition" if size == 1 else f"behind every {size} input channels"
        for first in (True, False):
            order = "the bias first" if first else "the bias last"
            largest: list[int] = []
            _saturating(40, first, size, some, largest)
            for bits in (n for n in WIDTHS if 1 << n - 1 <= max(largest) < 1 << n + 5):
                text = f"its accumulators saturate at {bits} bits {where} ({order})"
                yield text, partial(_saturating, bits, first, size)
    if not some.depthwise and not zero_point_of(c.what.operands[1]):
        by = zero_point_of(c.what.operands[0]) + (128 if c.what.arrays[0].dtype == np.int8 else 0)
        yield (
            "pairs of its products saturate at 16 bits (pixels as uint8, as vpmaddubsw adds them)",
            partial(_pairs, by),
        )


def _saturating(bits: int, first: bool, size: int, s: _Sums, largest: list[int] | None = None) -> Array:
    """`largest` gets the sizes of all sums on the way."""
    half = 1 << bits - 1
    acc = np.zeros((len(s.pixels), len(s.bias)), np.int64) + (s.bias if first else 0)
    for k in range(0, len(s.flat), size):
        acc = np.clip(acc + s.products(k, size), -half, half - 1)
        if largest is not None:
            largest.append(int(np.abs(acc).max(initial=0)))
    return np.asarray(acc if first else np.clip(acc + s.bias, -half, half - 1))


def _pairs(by: int, s: _Sums) -> Array:
    """Unsigned pixels times signed weights, of which two products are added in 16 bits."""
    acc = np.zeros((len(s.pixels), len(s.bias)), np.int64) + s.bias - by * s.flat.sum(axis=0)
    for k in range(0, len(s.flat), 2):
        two = s.products(k, 2) + by * s.flat[k : k + 2].sum(axis=0)
        acc += np.clip(two, -(2**15), 2**15 - 1)
    return np.asarray(acc)


def _whole(c: Case, adding: Callable[[_Sums], Array]) -> Callable[[Array], Array]:
    """Of all elements, a few at a time."""

    def sums(s: Array) -> Array:
        count = s[..., 0].size
        held = max(HELD // (c.what.arrays[1].size // s.shape[-1] * (s.shape[-1] if s.ndim == 4 else 1)), 1)
        pieces = [adding(_Sums(c, np.arange(i, min(i + held, count)))) for i in range(0, count, held)]
        return np.concatenate(pieces).reshape(s.shape)

    return sums
