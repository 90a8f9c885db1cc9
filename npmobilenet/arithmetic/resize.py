"""Bilinear resize: where each output row or column falls in the input, as each runtime computes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from npmobilenet.arithmetic.dialects import Dialect
from npmobilenet.arithmetic.ranges import scale_of, zero_point_of
from npmobilenet.errors import PlanError
from npmobilenet.modeldata import Array
from npmobilenet.ops import Node, Tensor

# rule -> bits of the distance (0: float32), and whether ties go upward (float32: whether weights are multiplied first).
RULES = {
    "float": (0, False),
    "float_weights": (0, True),
    "fixed10": (10, False),
    "fixed10_upward": (10, True),
    "fixed11": (11, True),
}


class Axis(NamedTuple):
    """For each output index the two input indices and the distance from the first; int32, or float32 distances."""

    first: Array
    second: Array
    distance: Array


def check(node: Node, x: Tensor, result: Tensor) -> None:
    """Input and output must mean the same by their integers, which are mixed without scaling. Raises `PlanError`."""
    same = scale_of(x) == scale_of(result) and zero_point_of(x) == zero_point_of(result)
    if x.dtype != result.dtype or not same:
        raise PlanError(
            f"node '{node.name}' (resize_bilinear): expected input and output of the same dtype, scale and zero point, "
            f"got {x.dtype}, {scale_of(x)}, {zero_point_of(x)} and {result.dtype}, {scale_of(result)}, "
            f"{zero_point_of(result)}"
        )


def axes(node: Node, x: Tensor, result: Tensor, dialect: Dialect) -> tuple[Axis, Axis, int, bool]:
    """Rows, columns, and the rule's entry of RULES."""
    rule = dialect.rule("resize_bilinear", x.dtype)
    align, half = bool(node.attrs["align_corners"]), bool(node.attrs["half_pixel_centers"])
    compute = {"fixed11": _q11}.get(rule, _q10 if rule.startswith("fixed10") else _float)
    rows, columns = (compute(x.shape[i], result.shape[i], align, half) for i in (1, 2))
    return rows, columns, *RULES[rule]


def _axis(found: Sequence[tuple[int, int, float]], dtype: type) -> Axis:
    first, second, distance = zip(*found, strict=True)
    return Axis(np.array(first, np.int32), np.array(second, np.int32), np.array(distance, dtype))


def _ratio(size_in: int, size_out: int, align: bool) -> np.float32:
    """in / out, or (in - 1) / (out - 1) with align_corners."""
    less = 1 if align and size_out > 1 else 0
    return np.float32(size_in - less) / np.float32(size_out - less)


def _float(size_in: int, size_out: int, align: bool, half: bool) -> Axis:
    """o * ratio, or (o + 0.5) * ratio - 0.5, in float32; its floor and ceiling within the input.

    Before the first pixel's centre the distance is negative, and both neighbours are that pixel.
    Source: LiteRT, tflite/kernels/internal/reference/resize_bilinear.h, ComputeInterpolationValues, commit f67457790.
    """
    ratio, found = _ratio(size_in, size_out, align), []
    for o in range(size_out):
        at = (np.float32(o) + np.float32(0.5)) * ratio - np.float32(0.5) if half else np.float32(o) * ratio
        first = min(max(int(np.floor(at)), 0), size_in - 1)
        found.append((first, min(int(np.ceil(at)), size_in - 1), float(at - np.float32(first))))
    return _axis(found, np.float32)


def _q10(size_in: int, size_out: int, align: bool, half: bool) -> Axis:
    """As `_float`, in integers with 10 fractional bits; the ratio is rounded to them, ties upward.

    C's division truncates; here only positions before the first pixel's centre are negative, and become pixel 0.
    Source: LiteRT, tflite/kernels/internal/reference/resize_bilinear.h, ResizeBilinearInteger, commit f67457790.
    """
    less = 1 if align and size_out > 1 else 0
    ratio, found = ((1 << 10) * (size_in - less) + (size_out - less) // 2) // (size_out - less), []
    for o in range(size_out):
        at = o * ratio + (ratio // 2 - (1 << 9) if half else 0)
        first = min(max(at >> 10, 0), size_in - 1)  # a ratio rounded up may pass the end: the runtime reads beyond it
        second = min(max((at + (1 << 10) - 1) >> 10, 0), size_in - 1)
        found.append((first, second, min(at - (first << 10), 1 << 10)))
    return _axis(found, np.int32)


def _q11(size_in: int, size_out: int, align: bool, half: bool) -> Axis:
    """Positions in float32, held within the input, the distance rounded to 11 bits, ties to even.

    Source: XNNPACK, src/indirection.c, xnn_indirection_init_resize_bilinear2d_hwc_q11, commit 75db3c093b.
    """
    ratio, found = _ratio(size_in, size_out, align), []
    offset = np.float32(0.5) * ratio - np.float32(0.5) if half else np.float32(0)
    for o in range(size_out):
        at = min(max(np.float32(o) * ratio + offset, np.float32(0)), np.float32(size_in - 1))
        first = int(at)
        distance = int(np.rint((at - np.float32(first)) * np.float32(2**11)))
        found.append((first, min(first + 1, size_in - 1), distance))
    return _axis(found, np.int32)
