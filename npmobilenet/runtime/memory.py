"""Where intermediate values live: one block of memory, shared over time by values whose lifetimes don't overlap."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

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
    arXiv:2001.03288, section 5.2.) Ties go by name, so the layout is the same everywhere.
    """
    placed: list[tuple[int, int, Lifetime]] = []  # (offset, end, lifetime), by offset
    offsets: dict[str, int] = {}
    for name, value in sorted(lifetimes.items(), key=lambda item: (-item[1].size, item[0])):
        size = -(-value.size // ALIGNMENT) * ALIGNMENT
        offset = 0
        for start, end, other in placed:
            if other.first <= value.last and value.first <= other.last and start < offset + size:
                offset = max(offset, end)
        offsets[name] = offset
        placed.append((offset, offset + size, value))
        placed.sort(key=lambda entry: entry[0])
    return offsets, max((end for _, end, _ in placed), default=0)
