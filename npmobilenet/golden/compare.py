"""One pair of arrays: where they differ, by how much, and what the pattern suggests.

Integers are compared in LSB (b - a), floats in ulp: the number of float32 values from one to the other. +0 and -0 are
equal, and so are two NaNs; a NaN beside a number differs by more than any number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npmobilenet.modeldata import Array

NAN_ULP = 2**33  # above the distance of any two float32 values (2^32 at most) or clipped float64 ones
EXACT = 8  # differences of up to so many LSB have a bar of their own
_PIECE = 2**20  # elements looked at together


@dataclass(frozen=True)
class Tolerance:
    """What passes for equal: `lsb` for integers; for floats `ulp` or `atol`, whichever is kinder. All 0: equal bits."""

    lsb: int = 0
    ulp: int = 0
    atol: float = 0.0


@dataclass
class Comparison:
    """The differences b - a of two arrays of equal shape and dtype.

    `count` of `total` elements differ (beyond the tolerance). `first` is the first of them in row-major order, `worst`
    the one of the largest difference; `largest` its size in `unit`, "LSB" or "ulp"; `largest_abs` the largest |b - a|
    as a number. `histogram` counts elements by difference. `where` counts differing elements along each axis, `plane`
    holds for each pixel the number of differing channels, summed over the batch (rank 4 only).
    """

    total: int
    unit: str
    count: int = 0
    first: tuple[int, ...] | None = None
    first_values: tuple[float, float] | None = None
    worst: tuple[int, ...] | None = None
    worst_values: tuple[float, float] | None = None
    largest: int = 0
    largest_abs: float = 0.0
    histogram: dict[str, int] = field(default_factory=dict)
    where: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    plane: NDArray[np.int64] | None = None

    @property
    def share(self) -> float:
        """The share of elements that differ."""
        return self.count / self.total if self.total else 0.0


def ulps(a: Array, b: Array) -> NDArray[np.int64]:
    """The signed number of float32 steps from a to b. Bits as sign and magnitude become one line of integers."""
    keys = []
    for array in (a, b):
        bits = array.astype(np.float32).view(np.int32).astype(np.int64)
        keys.append(np.where(bits < 0, -(bits & 0x7FFFFFFF), bits))
    steps = keys[1] - keys[0]
    nan_a, nan_b = np.isnan(a), np.isnan(b)
    steps[nan_a & nan_b] = 0
    steps[nan_a ^ nan_b] = NAN_ULP
    return steps


def differences(a: Array, b: Array) -> NDArray[np.int64]:
    """b - a in LSB for integers, in ulp for floats."""
    if a.dtype.kind == "f":
        return ulps(a, b)
    steps: NDArray[np.int64] = b.astype(np.int64) - a.astype(np.int64)
    return steps


def compare(a: Array, b: Array, tolerance: Tolerance | None = None) -> Comparison:
    """Compare two arrays of equal shape and dtype."""
    tolerance = tolerance or Tolerance()
    floats = a.dtype.kind == "f"
    found = Comparison(a.size, "ulp" if floats else "LSB")
    names = axes(a.ndim)
    found.where = {name: np.zeros(size, np.int64) for name, size in zip(names, a.shape, strict=True)}
    if a.ndim == 4:
        found.plane = np.zeros(a.shape[1:3], np.int64)
    bars: dict[int, int] = {}
    for n in range(a.shape[0] if a.ndim else 1):  # image by image, so that memory stays a few times one image
        pair = (a[n], b[n]) if a.ndim else (a, b)
        steps = differences(*pair)
        _count(bars, steps)
        with np.errstate(invalid="ignore", over="ignore"):
            gaps = np.abs(pair[1].astype(np.float64) - pair[0].astype(np.float64))
        beyond = np.abs(steps) > (tolerance.ulp if floats else tolerance.lsb)
        if floats and tolerance.atol > 0:
            beyond &= ~(gaps <= tolerance.atol)
        _add(found, beyond, steps, gaps, pair, (n,) if a.ndim else ())
    found.histogram = _histogram(bars)
    return found


def _add(
    found: Comparison, beyond: NDArray[np.bool_], steps: NDArray[np.int64], gaps: NDArray[np.float64],
    pair: tuple[Array, Array], image: tuple[int, ...],
) -> None:  # fmt: skip
    """One image's differences into the result."""
    count = int(np.count_nonzero(beyond))
    if not count:
        return
    found.count += count
    if found.first is None:
        at = np.unravel_index(int(np.argmax(beyond)), beyond.shape)
        found.first, found.first_values = _place(image, at), _values(pair, at)
    sizes = np.where(beyond, np.abs(steps), 0)
    at = np.unravel_index(int(np.argmax(sizes)), sizes.shape)
    if int(sizes[at]) > found.largest:
        found.largest = int(sizes[at])
        found.worst, found.worst_values = _place(image, at), _values(pair, at)
    finite = gaps[beyond & np.isfinite(gaps)]
    found.largest_abs = max(found.largest_abs, float(finite.max(initial=0.0)))
    names = list(found.where)
    if image:
        found.where[names[0]][image[0]] += count
    for axis, name in enumerate(names[len(image) :]):
        others = tuple(i for i in range(beyond.ndim) if i != axis)
        found.where[name] += np.count_nonzero(beyond, axis=others)
    if found.plane is not None:
        found.plane += np.count_nonzero(beyond, axis=2)


def _place(image: tuple[int, ...], at: tuple[Any, ...]) -> tuple[int, ...]:
    return (*image, *(int(i) for i in at))


def _values(pair: tuple[Array, Array], at: tuple[Any, ...]) -> tuple[float, float]:
    a, b = (array[at].item() for array in pair)
    return a, b


def axes(rank: int) -> tuple[str, ...]:
    """What the axes of an array are called: N, then H and W where there are as many, C last."""
    names = {0: (), 1: ("N",), 2: ("N", "C"), 3: ("N", "W", "C"), 4: ("N", "H", "W", "C")}
    return names.get(rank, ("N", *(f"d{i}" for i in range(1, rank - 1)), "C"))


# ---------------------------------------------------------------------------------------------------------------------
# Histograms


def _bar(step: int) -> int:
    """The bar that a difference belongs to, by its least magnitude and sign: 9 for 9..16, 17 for 17..32."""
    size = abs(step)
    if size > EXACT:
        size = (1 << ((size - 1).bit_length() - 1)) + 1
    return -size if step < 0 else size


def _count(bars: dict[int, int], steps: NDArray[np.int64]) -> None:
    flat = steps.reshape(-1)
    for start in range(0, flat.size, _PIECE):
        piece = flat[start : start + _PIECE]
        if not piece.any():
            bars[0] = bars.get(0, 0) + piece.size
            continue
        for step, count in zip(*np.unique(piece, return_counts=True), strict=True):
            bar = _bar(int(step))
            bars[bar] = bars.get(bar, 0) + int(count)


def _histogram(bars: Mapping[int, int]) -> dict[str, int]:
    """Counts by label, from the most negative difference to the most positive."""
    return {bar_label(bar): bars[bar] for bar in sorted(bars)}


def bar_label(bar: int) -> str:
    """What stands below a bar: "-1", "0", "+3", "+9..+16", "-16..-9"; "NaN" for a NaN beside a number."""
    size = abs(bar)
    if size > 2**32:
        return "NaN"
    sign = "-" if bar < 0 else "+" if bar > 0 else ""
    if size <= EXACT:
        return f"{sign}{size}"
    near, far = f"{sign}{size}", f"{sign}{(size - 1) * 2}"
    return f"{far}..{near}" if bar < 0 else f"{near}..{far}"
