"""Which memory the pieces of a call touch, and so which pieces of the call before must be done when one begins.

A kernel says of which rows of its arrays a range of its units takes its inputs, and which rows it writes. All else that
it is given counts as read as a whole by each piece. Two pieces that touch the same bytes, of which one writes some,
must run in their order; values that share a place in memory one after the other are kept apart by that as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np


class Rows(NamedTuple):
    """Rows first ... stop - 1 of an array, seen as `of` rows of equal size."""

    array: Any
    first: int
    stop: int
    of: int


# first, stop -> what units first ... stop - 1 touch: rows that they read, and last those that they write.
Touch = Callable[[int, int], Sequence[Rows]]


class Touched(NamedTuple):
    """Of each piece of a call: the spans of addresses, (first, end), that it touches and that it writes; the latter are
    among the former. (pieces, spans, 2).
    """

    all: np.ndarray
    written: np.ndarray


def alike(of: int, *arrays: Any) -> Touch:
    """For a kernel whose units are equal parts, `of` of them, of all these arrays; the last one is written."""
    return lambda first, stop: [Rows(array, first, stop, of) for array in arrays]


def under_windows(x: Any, out: Any, taps: int, stride: int, pad: int, dilation: int, more: Any = None) -> Touch:
    """For a kernel whose units are rows of `out`, images filtered by windows of so many rows of x.

    more: an array of out's shape that is read as out is written, or an empty one.
    """
    in_h, out_h = x.shape[1], out.shape[1]

    def touch(first: int, stop: int) -> list[Rows]:
        (n, top), (last, bottom) = divmod(first, out_h), divmod(stop - 1, out_h)
        begin = n * in_h + min(max(top * stride - pad, 0), in_h)
        end = last * in_h + min(max(bottom * stride - pad + (taps - 1) * dilation + 1, 0), in_h)
        lines = out.shape[0] * out_h
        added = [] if more is None or more.size == 0 else [Rows(more, first, stop, lines)]
        return [Rows(x, begin, max(begin, end), x.shape[0] * in_h), *added, Rows(out, first, stop, lines)]

    return touch


def by_groups(rows: Touch, height: int, together: int) -> Touch:
    """What `rows` says of rows, for a kernel whose units are `together` rows of an image, or those left at its end."""
    groups = -(-height // together)

    def touch(first: int, stop: int) -> Sequence[Rows]:
        (n, begin), (last, end) = divmod(first, groups), divmod(stop - 1, groups)
        return rows(n * height + begin * together, last * height + min((end + 1) * together, height))

    return touch


def _arrays(args: Any) -> Iterator[np.ndarray]:
    for arg in args:
        if isinstance(arg, tuple):
            yield from _arrays(arg)
        elif isinstance(arg, np.ndarray) and arg.size:
            yield arg


def touched(touch: Touch, args: Sequence[Any], units: int, pieces: int) -> Touched:
    """What each piece of a call touches, whose units it shares out as equally as it can; args: the kernel's."""
    parts = [touch(units * p // pieces, units * (p + 1) // pieces) for p in range(pieces)]
    starts = np.array([row.array.ctypes.data for row in parts[0]])
    steps = np.array([row.array.nbytes // max(row.of, 1) for row in parts[0]])
    spans = np.array([[(row.first, row.stop) for row in rows] for rows in parts]) * steps[:, None] + starts[:, None]
    named = {(start, row.array.nbytes) for start, row in zip(starts.tolist(), parts[0], strict=True)}
    given = {(array.ctypes.data, array.nbytes) for array in _arrays(args)}
    whole = [(start, start + size) for start, size in given - named]
    both = np.broadcast_to(np.array(whole, np.int64).reshape(1, -1, 2), (len(parts), len(whole), 2))
    return Touched(np.concatenate([spans, both], 1), spans[:, -1:])


def _meet(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Which pieces (of a, of b) have a span in common."""
    near = (a[..., 0].min(0) < b[..., 1].max()) & (b[..., 0].min() < a[..., 1].max(0))  # of a's spans, few
    a = a[:, near]
    a, b = a[:, None, :, None], b[None, :, None, :]
    return np.asarray(((a[..., 0] < b[..., 1]) & (b[..., 0] < a[..., 1])).any((2, 3)))


def needs(before: Touched | None, now: Touched | None, counts: tuple[int, int]) -> np.ndarray:
    """For each piece of a call the range of pieces of the call before that it must wait for: (pieces, 2).

    counts: the numbers of pieces of both. All of them where nothing is known of one (None).
    """
    if before is None or now is None:
        return np.tile(np.array([[0, counts[0]]]), (counts[1], 1))
    hits = _meet(now.all, before.written) | _meet(now.written, before.all)
    last = hits.shape[1] - hits[:, ::-1].argmax(1)
    return np.where(hits.any(1)[:, None], np.stack([hits.argmax(1), last], 1), 0)
