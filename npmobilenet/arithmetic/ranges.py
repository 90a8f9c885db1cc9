"""Scales, zero points and clamping ranges of tensors, and the factors that scales give: what of them is accepted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from npmobilenet.arithmetic.fixedpoint import INT32_MAX, quantize_multiplier
from npmobilenet.errors import PlanError
from npmobilenet.ops import Node, Tensor, misfit

# Quantized dtypes and what they hold.
LIMITS = {"uint8": (0, 255), "int8": (-128, 127)}
LEAST_SCALE = np.finfo(np.float32).tiny  # 2^-126: below it float32 loses digits, and 1 / scale overflows
# The greatest shift to the left that every runtime defines: "shift >= -31 && shift <= 30" (LiteRT, tflite/kernels/
# internal/common.cc, MultiplyByQuantizedMultiplier, commit f67457790). From 31 on `1 << shift` is no int32 in C; builds
# with TFLITE_SINGLE_ROUNDING hold the factor at 2^30 instead (Dialect.most_shift).
MOST_SHIFT = 30
_BOUNDS = {"relu": (0.0, None), "relu6": (0.0, 6.0), "relu_n1_to_1": (-1.0, 1.0), "relu_0_to_1": (0.0, 1.0)}


def check_dtypes(node: Node, operands: list[Tensor], result: Tensor) -> None:
    """Refuse operands that aren't all uint8 or all int8, as the result is. Raises `GraphError`."""
    dtypes = [t.dtype for t in (*operands, result)]
    if len(set(dtypes)) != 1 or dtypes[0] not in LIMITS:
        raise misfit(node, "operands and result of one dtype, uint8 or int8", ", ".join(dtypes))


def scale_of(tensor: Tensor) -> np.float32:
    """The one scale of a tensor quantized as a whole, a positive normal float32. Raises `PlanError`.

    XNNPACK refuses others, too (LiteRT, tflite/delegates/xnnpack/xnnpack_delegate.cc: std::isnormal, commit f67457790).
    """
    with np.errstate(all="ignore"):
        scale = np.float32(_whole(tensor)[0])
    if not LEAST_SCALE <= scale < np.inf:
        raise PlanError(
            f"tensor '{tensor.name}' ({tensor.dtype}): its scale is {_whole(tensor)[0]:.6g}, expected a positive "
            "float32 of at least 2^-126: quantize the tensor anew"
        )
    return scale


def zero_point_of(tensor: Tensor) -> int:
    """The one zero point of a tensor. Raises `PlanError`."""
    return _whole(tensor)[1]


def _whole(tensor: Tensor) -> tuple[float, int]:
    q = tensor.quantization
    if q is None or len(q.scale) != 1:
        got = "none" if q is None else f"{len(q.scale)} scales"
        raise PlanError(f"tensor '{tensor.name}' ({tensor.dtype}): expected one scale and zero point, got {got}")
    return q.scale[0], q.zero_point[0]


def check_factor(
    node: Node, factor: float, top: Sequence[Tensor], bottom: Tensor | None, channel: int | None = None, most: int = 30
) -> None:
    """Refuse a real factor that isn't in 0 ... 2^most: a `PlanError` that names node, channel and scales.

    top, bottom: the tensors whose scales are multiplied, and whose scale divides them. From 2^most on, integers (or the
    conversion to them) overflow in every runtime.
    """
    if 0 <= factor < 2.0**most:
        return
    tensors = (*top, *([] if bottom is None else [bottom]))
    scales = ", ".join(f"'{t.name}' {_scale_at(t, channel):.3g}" for t in tensors)
    where = "" if channel is None else f"channel {channel}: "
    raise PlanError(
        f"node '{node.name}' ({node.op}): {where}the scales {scales} give the factor {factor:.3g}, expected one below "
        f"2^{most}: quantize the tensor '{tensors[-1].name}' anew"
    )


def _scale_at(tensor: Tensor, channel: int | None) -> float:
    scales = tensor.quantization.scale if tensor.quantization is not None else (float("nan"),)
    return scales[(channel or 0) if len(scales) > 1 else 0]


def multiplier_of(
    node: Node, factor: float, top: Sequence[Tensor], bottom: Tensor | None, channel: int | None = None,
    most: int = MOST_SHIFT,
) -> tuple[int, int]:  # fmt: skip
    """A real factor as `(multiplier, shift)`; see quantize_multiplier. Every op's factor comes through here.

    Raises `PlanError` where the factor isn't below 2^`most` (`check_factor`). Shifts beyond MOST_SHIFT are held there.

    Source: LiteRT, tflite/kernels/internal/quantization_util.cc, QuantizeMultiplier, commit f67457790.
    """
    check_factor(node, factor, top, bottom, channel, most)
    multiplier, shift = quantize_multiplier(factor)
    if shift > most:  # rounded up to 2^30
        check_factor(node, 2.0**most, top, bottom, channel, most)
    return (multiplier, shift) if shift <= MOST_SHIFT else (INT32_MAX, MOST_SHIFT)


def real_factor(node: Node, top: Sequence[Tensor], bottom: Tensor, most: int = MOST_SHIFT) -> np.float32:
    """The product of some tensors' scales by another's, rounded to float32 after each step. Raises `PlanError`."""
    with np.errstate(all="ignore"):
        factor = scale_of(top[0])
        for tensor in top[1:]:
            factor = factor * scale_of(tensor)
        factor = factor / scale_of(bottom)
    check_factor(node, float(factor), top, bottom, most=most)
    return factor


def activation_range(node: Node, result: Tensor) -> tuple[int, int]:
    """The least and greatest quantized value that a node may write: its dtype's range, cut by a fused activation.

    A bound b becomes zero_point + round(b / scale), the quotient in float32, rounded half away from zero. One that
    int32 doesn't hold is refused: fused, TFLite refuses it, too, and alone (ReluX) converts it, which C leaves open.

    Source: LiteRT, tflite/kernels/kernel_util.cc, CalculateActivationRangeQuantized and Quantize, commit f67457790.
    """
    low, high = LIMITS[result.dtype]
    below, above = _bounds(node)
    if below is not None:
        low = max(low, _bound(node, below, result))
    if above is not None:
        high = min(high, _bound(node, above, result))
    return low, high


def _bounds(node: Node) -> tuple[float | None, float | None]:
    """Of the fused activation."""
    activation = node.attrs.get("activation", "none")
    if activation != "none" and activation not in _BOUNDS:
        raise misfit(node, f"a fused activation among {', '.join(_BOUNDS)} in integers", activation)
    return _BOUNDS.get(activation, (None, None))


def _bound(node: Node, bound: float, result: Tensor) -> int:
    scale = scale_of(result)
    with np.errstate(all="ignore"):
        quotient = float(np.float32(bound) / scale)
    # A float32 plus a half is exact in float64.
    if abs(quotient) + 0.5 + abs(zero_point_of(result)) > INT32_MAX:
        raise PlanError(
            f"node '{node.name}' ({node.op}): its bound {bound:g} is {quotient:.3g} steps of the scale {scale:.3g} of "
            f"'{result.name}', more than int32 holds; TFLite doesn't define that: quantize the tensor anew"
        )
    return zero_point_of(result) + int(np.floor(abs(quotient) + 0.5)) * (1 if quotient >= 0 else -1)


def xnnpack_range(node: Node, result: Tensor) -> tuple[int, int]:
    """As activation_range, as XNNPACK cuts it: round(b / scale + zero_point) in float32, ties to even.

    Source: XNNPACK, src/xnnpack/requantization.h, xnn_qs8_quantize, commit 75db3c093b.
    """
    limits, (below, above) = LIMITS[result.dtype], _bounds(node)
    scale, zero_point = scale_of(result), np.float32(zero_point_of(result))
    low, high = limits
    with np.errstate(all="ignore"):  # an infinite quotient is clamped
        if below is not None:
            low = int(np.rint(np.clip(np.float32(below) / scale + zero_point, *limits)))
        if above is not None:
            high = int(np.rint(np.clip(np.float32(above) / scale + zero_point, *limits)))
    return low, high
