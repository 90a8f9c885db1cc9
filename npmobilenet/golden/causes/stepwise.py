"""Accumulators that saturate at every addition: other values than a sum that saturates at its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from npmobilenet.golden.causes.bits import pixels_of
from npmobilenet.golden.causes.case import Case, Change
from npmobilenet.golden.derivation import zero_point_of
from npmobilenet.modeldata import Array

MOST_PRODUCTS = 5 * 10**7  # of the layer: what a few seconds suffice for
MOST_PIXELS = 10**7  # that are held at once
WIDTHS = range(12, 29)


def stepwise(c: Case) -> Iterator[Change]:
    """In the order of a kernel's loops (rows, columns, channels of the window), the bias first or last."""
    w = c.what.arrays[1].astype(np.int64) - zero_point_of(c.what.operands[1])
    flat, count = w.reshape(-1, w.shape[-1]), c.sums.shape[-1]
    elements = np.arange(c.sums[..., 0].size)
    depthwise = c.what.node.op == "depthwise_conv2d"
    held = elements.size * (flat.size if depthwise else len(flat))
    if c.finish is not None or elements.size * flat.size > MOST_PRODUCTS or held > MOST_PIXELS:
        return
    bias = c.what.arrays[2].astype(np.int64)
    shared = None if depthwise else pixels_of(c, 0, elements)
    step = [pixels_of(c, ch, elements) for ch in range(count)] if depthwise else []

    def products(k: int) -> Array:
        if shared is None:
            return np.asarray(np.stack([pixels[:, k] for pixels in step], axis=1) * flat[k])
        return np.asarray(shared[:, k : k + 1] * flat[k])

    def total(bits: int, first: bool) -> tuple[Array, int]:
        half = 1 << bits - 1
        acc = np.zeros((elements.size, count), np.int64) + (bias if first else 0)
        largest = 0
        for k in range(len(flat)):
            acc += products(k)
            largest = max(largest, int(np.abs(acc).max(initial=0)))
            np.clip(acc, -half, half - 1, out=acc)
        return (acc if first else np.clip(acc + bias, -half, half - 1)).reshape(c.sums.shape), largest

    for first in (True, False):
        _, largest = total(40, first)
        for bits in WIDTHS:
            if 1 << bits - 1 <= largest < 1 << bits + 5:
                sums, _ = total(bits, first)
                order = "the bias first" if first else "the bias last"
                yield Change(f"its accumulators saturate at {bits} bits at every addition ({order})", sums=_given(sums))


def _given(sums: Array) -> Callable[[Array], Array]:
    return lambda _: sums
