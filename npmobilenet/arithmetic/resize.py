"""Resizing: where each output row or column falls in the input, as each runtime computes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from npmobilenet.arithmetic.dialects import Dialect
from npmobilenet.arithmetic.fixedpoint import round_away32
from npmobilenet.arithmetic.ranges import scale_of, zero_point_of
from npmobilenet.errors import PlanError
from npmobilenet.modeldata import Array
from npmobilenet.ops import Node, Tensor

# rule -> bits of the distance (0: float32), and whether ties go upward (float32: 1 where weights are multiplied first,
# 2 where sums are fused besides).
RULES: Mapping[str, tuple[int, int]] = {
    "float": (0, 0),
    "float_weights": (0, 1),
    "float_weights_fused": (0, 2),
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
            f"node '{node.name}' ({node.op}): expected input and output of the same dtype, scale and zero point, "
            f"got {x.dtype}, {scale_of(x)}, {zero_point_of(x)} and {result.dtype}, {scale_of(result)}, "
            f"{zero_point_of(result)}"
        )


def axes(node: Node, x: Tensor, result: Tensor, dialect: Dialect) -> tuple[Axis, Axis, int, int]:
    """Rows, columns, and the rule's entry of RULES."""
    rule = dialect.rule("resize_bilinear", x.dtype)
    align, half = bool(node.attrs["align_corners"]), bool(node.attrs["half_pixel_centers"])
    rows, columns = (axis(rule, x.shape[i], result.shape[i], align, half) for i in (1, 2))
    return rows, columns, *RULES[rule]


def axis(rule: str, size_in: int, size_out: int, align: bool, half: bool) -> Axis:
    """The table of one side, by a rule of RULES: arrays of size_out numbers, which ops.MAX_SIDE bounds."""
    if rule.startswith("float"):
        return _float(size_in, size_out, align, half, rule.endswith("fused"))
    return (_q11 if rule == "fixed11" else _q10)(size_in, size_out, align, half)


def nearest(node: Node, x: Tensor, result: Tensor, dialect: Dialect) -> tuple[Array, Array]:
    """The input row of each output row, and the columns, of a resize to the nearest pixel; int32.

    o * ratio, or (o + 0.5) * ratio, in float32; its floor, or with align_corners the nearest integer, half away from
    zero. "fixed16": o times the ratio with 16 fractional bits, cut off and raised by one.

    Source: LiteRT, tflite/kernels/internal/reference/resize_nearest_neighbor.h, GetNearestNeighbor, and
    internal/optimized/optimized_ops.h, ResizeNearestNeighbor, commit f67457790.
    """
    align, half = bool(node.attrs["align_corners"]), bool(node.attrs["half_pixel_centers"])
    rule = dialect.rule("resize_nearest", x.dtype)
    if rule == "fixed16" and not (align or half):
        return _nearest_fixed(x.shape[1], result.shape[1]), _nearest_fixed(x.shape[2], result.shape[2])
    rows, columns = (_nearest(x.shape[i], result.shape[i], align, half) for i in (1, 2))
    return rows, columns


def _nearest(size_in: int, size_out: int, align: bool, half: bool) -> Array:
    ratio, o = _ratio(size_in, size_out, align), np.arange(size_out).astype(np.float32)
    at = (o + np.float32(0.5 if half else 0)) * ratio
    whole = round_away32(at) if align else np.floor(at)
    return np.asarray(np.clip(whole, 0, size_in - 1), np.int32)


def _nearest_fixed(size_in: int, size_out: int) -> Array:
    ratio = (size_in << 16) // size_out + 1
    return np.asarray(np.minimum(np.arange(size_out, dtype=np.int64) * ratio >> 16, size_in - 1), np.int32)


def _axis(first: Array, second: Array, distance: Array, dtype: type) -> Axis:
    return Axis(first.astype(np.int32), second.astype(np.int32), distance.astype(dtype))


def _ratio(size_in: int, size_out: int, align: bool) -> np.float32:
    """in / out, or (in - 1) / (out - 1) with align_corners."""
    less = 1 if align and size_out > 1 else 0
    return np.float32(size_in - less) / np.float32(size_out - less)


def _float(size_in: int, size_out: int, align: bool, half: bool, fused: bool = False) -> Axis:
    """o * ratio, or (o + 0.5) * ratio - 0.5, in float32; its floor and ceiling within the input. fused: the latter is
    rounded once (in float64 it is exact: the product has 41 bits at most).

    Before the first pixel's centre the distance is negative, and both neighbours are that pixel.
    Source: LiteRT, tflite/kernels/internal/reference/resize_bilinear.h, ComputeInterpolationValues, commit f67457790.
    """
    ratio, o = _ratio(size_in, size_out, align), np.arange(size_out).astype(np.float32)
    at = (o + np.float32(0.5)) * ratio - np.float32(0.5) if half else o * ratio
    if fused and half:
        at = ((o + np.float32(0.5)).astype(np.float64) * np.float64(ratio) - 0.5).astype(np.float32)
    first = np.clip(np.floor(at), 0, np.float32(size_in - 1))
    return _axis(first, np.minimum(np.ceil(at), np.float32(size_in - 1)), at - first, np.float32)


def _q10(size_in: int, size_out: int, align: bool, half: bool) -> Axis:
    """As `_float`, in integers with 10 fractional bits; the ratio is rounded to them, ties upward.

    C's division truncates; here only positions before the first pixel's centre are negative, and become pixel 0.
    Source: LiteRT, tflite/kernels/internal/reference/resize_bilinear.h, ResizeBilinearInteger, commit f67457790.
    """
    less = 1 if align and size_out > 1 else 0
    ratio = ((1 << 10) * (size_in - less) + (size_out - less) // 2) // (size_out - less)
    at = np.arange(size_out, dtype=np.int64) * ratio + (ratio // 2 - (1 << 9) if half else 0)
    first = np.clip(at >> 10, 0, size_in - 1)  # a ratio rounded up may pass the end: the runtime reads beyond it
    second = np.clip((at + (1 << 10) - 1) >> 10, 0, size_in - 1)
    return _axis(first, second, np.minimum(at - (first << 10), 1 << 10), np.int32)


def _q11(size_in: int, size_out: int, align: bool, half: bool) -> Axis:
    """Positions in float32, held within the input, the distance rounded to 11 bits, ties to even.

    Source: XNNPACK, src/indirection.c, xnn_indirection_init_resize_bilinear2d_hwc_q11, commit 75db3c093b.
    """
    ratio, o = _ratio(size_in, size_out, align), np.arange(size_out).astype(np.float32)
    offset = np.float32(0.5) * ratio - np.float32(0.5) if half else np.float32(0)
    at = np.clip(o * ratio + offset, np.float32(0), np.float32(size_in - 1))
    first = np.floor(at)
    distance = np.rint((at - first) * np.float32(2**11))
    return _axis(first, np.minimum(first + 1, np.float32(size_in - 1)), distance, np.int32)
