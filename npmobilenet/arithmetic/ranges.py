"""Scales, zero points and clamping ranges of tensors."""

from __future__ import annotations

import numpy as np

from npmobilenet.errors import PlanError
from npmobilenet.ops import Node, Tensor, misfit

# Quantized dtypes and what they hold.
LIMITS = {"uint8": (0, 255), "int8": (-128, 127)}
_BOUNDS = {"relu": (0.0, None), "relu6": (0.0, 6.0), "relu_n1_to_1": (-1.0, 1.0)}


def check_dtypes(node: Node, operands: list[Tensor], result: Tensor) -> None:
    """Refuse operands that aren't all uint8 or all int8, as the result is. Raises `GraphError`."""
    dtypes = [t.dtype for t in (*operands, result)]
    if len(set(dtypes)) != 1 or dtypes[0] not in LIMITS:
        raise misfit(node, "operands and result of one dtype, uint8 or int8", ", ".join(dtypes))


def scale_of(tensor: Tensor) -> np.float32:
    """The one scale of a tensor quantized as a whole, a positive float32. Raises `PlanError`."""
    with np.errstate(all="ignore"):
        scale = np.float32(_whole(tensor)[0])
    if not 0 < scale < np.inf:
        raise PlanError(f"tensor '{tensor.name}' ({tensor.dtype}): its scale is {scale}, expected a positive float32")
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


def activation_range(node: Node, result: Tensor) -> tuple[int, int]:
    """The least and greatest quantized value that a node may write: its dtype's range, cut by a fused activation.

    A bound b becomes zero_point + round(b / scale), the quotient in float32, rounded half away from zero.

    Source: LiteRT, tflite/kernels/kernel_util.cc, CalculateActivationRangeQuantized, commit f67457790.
    """
    low, high = LIMITS[result.dtype]
    activation = node.attrs.get("activation", "none")
    if activation == "none":
        return low, high
    if activation not in _BOUNDS:
        raise misfit(node, f"a fused activation among {', '.join(_BOUNDS)} in integers", activation)
    scale, zero_point = scale_of(result), zero_point_of(result)
    below, above = _BOUNDS[activation]
    low = max(low, zero_point + _rounded(np.float32(below) / scale))
    if above is not None:
        high = min(high, zero_point + _rounded(np.float32(above) / scale))
    return low, high


def xnnpack_range(node: Node, result: Tensor) -> tuple[int, int]:
    """As activation_range, as XNNPACK cuts it: round(b / scale + zero_point) in float32, ties to even.

    Source: XNNPACK, src/xnnpack/requantization.h, xnn_qs8_quantize, commit 75db3c093b.
    """
    limits, (below, above) = LIMITS[result.dtype], _BOUNDS.get(node.attrs.get("activation", "none"), (None, None))
    activation_range(node, result)  # refuses what can't be fused
    scale, zero_point = scale_of(result), np.float32(zero_point_of(result))
    low, high = limits
    if below is not None:
        low = int(np.rint(np.clip(np.float32(below) / scale + zero_point, *limits)))
    if above is not None:
        high = int(np.rint(np.clip(np.float32(above) / scale + zero_point, *limits)))
    return low, high


def _rounded(v: np.float32) -> int:
    """Half away from zero; a float32 plus a half is exact in float64. Huge values stay in int32."""
    bounded = min(max(float(v), -(2.0**31)), 2.0**31 - 1)
    return int(np.floor(abs(bounded) + 0.5)) * (1 if bounded >= 0 else -1)
