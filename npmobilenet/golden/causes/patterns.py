"""What a tensor's pattern of differences usually means. What can be proved of it is in `causes/`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from npmobilenet.golden.diff_verdict import Comparison
from npmobilenet.graph import Quantization
from npmobilenet.modeldata import Array

FEW_CHANNELS = 3
CLOSE = 1e-4  # of max(1, the largest value): what two float32 engines may differ by (docs/exactness.md)
_FIT = 0.02  # of the values' spread: how far the others may lie from a straight line


def find_patterns(a: Array, b: Array, found: Comparison, q: Quantization | None) -> list[str]:
    """Sentences about the differences b - a; `q` is the tensor's quantization."""
    if not found.count:
        return []
    sentences = [_channels(found), _border(found), _offset(a, b, found), _scale(a, b, found, q), _layout(a, b, found),
                 _clamp(a, b, found), _rounding(found), _close(a, found)]  # fmt: skip
    return [sentence for sentence in sentences if sentence]


def _rounding(found: Comparison) -> str:
    if found.largest != 1 or found.share > 0.6:
        return ""
    if found.unit == "LSB":
        return f"all differ by 1 LSB, {100 * found.share:.3g} % of the values: another rounding rule (golden identify)"
    return "all differ by 1 ulp: another order of summation, or no fused multiply-add"


def _close(a: Array, found: Comparison) -> str:
    """Floats: differences that sums in another order make."""
    if found.unit != "ulp" or found.largest <= 1 or "NaN" in found.histogram:
        return ""
    size = float(np.abs(a[np.isfinite(a)]).max(initial=1.0))
    if found.largest_abs > CLOSE * size:
        return ""
    return (
        f"within {found.largest_abs:.2g} of each other: sums in another order, not a fault (--atol {CLOSE * size:.1g})"
    )


def _channels(found: Comparison) -> str:
    profile = found.where.get("C")
    if profile is None or profile.size < 4:
        return ""
    touched = np.flatnonzero(profile)
    if touched.size > min(FEW_CHANNELS, profile.size // 4):
        return ""
    names = ", ".join(map(str, touched))
    which = f"channel {names}" if touched.size == 1 else f"channels {names}"
    return f"only {which} of {profile.size}: weights, bias or multiplier of that output channel"


def _border(found: Comparison) -> str:
    """Differences in the outermost rows or columns alone."""
    rows, columns = found.where.get("H"), found.where.get("W")
    plane = found.plane
    if rows is None or columns is None or plane is None or min(plane.shape) < 4:
        return ""
    if plane[1:-1, 1:-1].any():
        return ""
    sides = {"first row": plane[0], "last row": plane[-1], "first column": plane[:, 0], "last column": plane[:, -1]}
    long = [name for name, line in sides.items() if np.count_nonzero(line) > 2]
    where = ", ".join(long or [name for name, line in sides.items() if line.any()])
    return f"at the border only ({where}): padding, its amount on each side or its value (the zero point, not 0)"


def _offset(a: Array, b: Array, found: Comparison) -> str:
    """The same difference everywhere (but where both are clamped)."""
    bars = [label for label in found.histogram if label != "0"]
    if found.unit != "LSB" or len(bars) != 1 or found.share < 0.6 or ".." in bars[0]:
        return ""
    share = f"{100 * found.share:.3g} % of the values"
    return f"a difference of {bars[0]} in {share}: another zero point, or signed and unsigned"


def _scale(a: Array, b: Array, found: Comparison, q: Quantization | None) -> str:
    """b is proportional to a, away from the clamps, by a factor other than 1."""
    zero = float(q.zero_point[0]) if q is not None and len(q.zero_point) == 1 else 0.0
    x, y = (v.reshape(-1).astype(np.float64) - zero for v in (a, b))
    usable = np.isfinite(x) & np.isfinite(y) & _inside(a) & _inside(b)
    x, y = x[usable], y[usable]
    if found.share < 0.25 or x.size < 16:
        return ""
    power = float((x * x).sum())
    if power == 0:
        return ""
    slope = float((x * y).sum()) / power
    rest = float(np.sqrt(((y - slope * x) ** 2).mean()))
    size = float(np.sqrt((y * y).mean()))
    noise = 1.5 if found.unit == "LSB" else 0.0  # a half from each rounding, and some
    if abs(slope - 1) < 0.01 or slope < 0.01 or rest > max(_FIT * size, noise) or size < 4 * noise:
        return ""
    return f"B is {slope:.4g} times A about the zero point: a scale is wrong, of this tensor, its weights or its input"


def _inside(array: Array) -> NDArray[np.bool_]:
    """Values that aren't the tensor's least or largest, where an activation may have cut."""
    flat = array.reshape(-1)
    inside: NDArray[np.bool_] = (flat > flat.min()) & (flat < flat.max())
    return inside


def _layout(a: Array, b: Array, found: Comparison) -> str:
    if found.share < 0.05 or a.ndim < 2 or not np.array_equal(np.sort(a, axis=None), np.sort(b, axis=None)):
        return ""
    return "the same values in other places: another layout or order of channels (NCHW as NHWC?)"


def _clamp(a: Array, b: Array, found: Comparison) -> str:
    """One side stops where the other goes on."""
    for near, far, name in ((a, b, "A"), (b, a, "B")):
        for limit, beyond, what in ((near.max(), far > near.max(), "above"), (near.min(), far < near.min(), "below")):
            stopped = int(np.count_nonzero(beyond))
            if stopped == found.count and not (beyond & (near != limit)).any():
                return f"all where {name} stops at {limit} and the other goes on {what} it: an activation's clamp"
    return ""
