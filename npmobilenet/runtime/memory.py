"""Where intermediate values live: one block of memory, shared over time by values whose lifetimes don't overlap."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

ALIGNMENT = 64  # bytes: a cache line, and the widest vector register


@dataclass(frozen=True)
class Lifetime:
    """A value is written at step `first` and last read at step `last`; it needs `size` bytes."""

    first: int
    last: int
    size: int


def arena_offsets(lifetimes: Mapping[str, Lifetime]) -> tuple[dict[str, int], int]:
    """Byte offset of each value, and the size of the whole block.

    Greedy by size: the largest value first, each at the lowest offset where it overlaps no value already placed that
    is alive at the same time. (Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference",
    arXiv:2001.03288, section 5.2.) Ties go by name, so the layout is the same everywhere. All sizes together must fit
    into int64.
    """
    order = sorted(lifetimes.items(), key=lambda item: (-item[1].size, item[0]))
    first, last, start, end = np.zeros((4, len(order)), np.int64)
    for i, (_, value) in enumerate(order):
        size = -(-value.size // ALIGNMENT) * ALIGNMENT
        alive = np.flatnonzero((first[:i] <= value.last) & (value.first <= last[:i]))
        alive = alive[np.argsort(start[alive])]
        free = np.concatenate([[0], np.maximum.accumulate(end[alive])])  # the end of all that lies before each gap
        fits = np.append(start[alive] - free[:-1] >= size, True)
        first[i], last[i], start[i] = value.first, value.last, free[fits.argmax()]
        end[i] = start[i] + size
    offsets = {name: int(offset) for (name, _), offset in zip(order, start, strict=True)}
    return offsets, int(end.max(initial=0))
