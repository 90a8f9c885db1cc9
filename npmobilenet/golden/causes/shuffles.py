"""Wrong orders of values along an axis, and memory in one order read as another."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator

import numpy as np

from npmobilenet.modeldata import Array

GROUPS = (2, 3, 4, 8, 16, 32, 64)


def orders(size: int, what: str = "channels") -> Iterator[tuple[str, Array]]:
    """Permutations of an axis of that size: a text, and for each position the one that stands there."""
    own = np.arange(size)
    if size < 2:
        return
    for d in (1, -1):
        yield f"{what} rolled by {d}", np.roll(own, d)
    yield f"{what} in reverse order", own[::-1].copy()
    if size % 2 == 0:
        yield f"halves of the {what} swapped", np.roll(own, size // 2)
        yield f"neighbouring {what} swapped in pairs", own.reshape(-1, 2)[:, ::-1].reshape(-1)
    for groups in GROUPS:
        if size % groups == 0 and groups < size:
            yield f"{what} interleaved in {groups} groups", own.reshape(groups, -1).T.reshape(-1)
            yield f"{what} interleaved in groups of {groups}", own.reshape(-1, groups).T.reshape(-1)
            inside = own.reshape(-1, groups)[:, ::-1].reshape(-1)
            yield f"{what} in reverse order within groups of {groups}", inside
            yield f"groups of {groups} {what} in reverse order", own.reshape(-1, groups)[::-1].reshape(-1)
    for d in (2, -2, 4, -4, 8, -8, 16, -16):
        if abs(d) < size:
            yield f"{what} rolled by {d}", np.roll(own, d)


def distinct(found: Iterator[tuple[str, Array]]) -> Iterator[tuple[str, Array]]:
    """Those that aren't the order itself or one that came before."""
    seen: set[bytes] = set()
    for text, order in found:
        key = order.tobytes()
        if key not in seen and not np.array_equal(order, np.arange(len(order))):
            seen.add(key)
            yield text, order


def misread(array: Array, axes: str, common: tuple[str, ...]) -> Iterator[tuple[str, Array]]:
    """Memory that holds `array` (its axes named by letters) in one order of axes, read as another; distinct ones.

    Orders of `common` first, then all; of each pair one is among the common ones.
    """
    every = ["".join(p) for p in itertools.permutations(axes)]
    names = [*common, *(p for p in every if p not in common)]
    pairs = [(s, r) for s, r in itertools.product(names, names) if s != r and (s in common or r in common)]
    pairs.sort(key=lambda pair: (pair[0] not in common) + (pair[1] not in common))
    sizes = dict(zip(axes, array.shape, strict=True))
    own, same = array.tobytes(), dict[bytes, list[str]]()
    arrays: dict[bytes, tuple[str, str]] = {}
    for stored, read in pairs:
        flat = array.transpose([axes.index(a) for a in stored]).reshape([sizes[a] for a in read])
        found = np.ascontiguousarray(flat.transpose([read.index(a) for a in axes]))
        key = hashlib.sha256(found.tobytes()).digest()
        if found.tobytes() != own:
            same.setdefault(key, []).append(f"{stored.upper()} read as {read.upper()}")
            arrays.setdefault(key, (stored, read))
    for key, texts in same.items():
        stored, read = arrays[key]
        flat = array.transpose([axes.index(a) for a in stored]).reshape([sizes[a] for a in read])
        yield ", or ".join(texts[:3]), np.ascontiguousarray(flat.transpose([read.index(a) for a in axes]))
