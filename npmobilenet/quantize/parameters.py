"""Scales, zero points and quantized arrays: the 8-bit specification of TFLite as arithmetic, without any graph.

All of it is TensorFlow's converter step for step, with the same roundings to float32 in the same places, so that the
same ranges give the same numbers to the last bit.

Sources: TensorFlow 2.21, tensorflow/compiler/mlir/lite/quantization/common/quantization_lib/quantization_utils.cc
(GetQuantizedType, DownCastScale, ExtractMinMaxFromAttr, QuantizeLegacy, GetUniformQuantizedTypeForBias) with
`legacy_float_scale`, which its Python interface sets; tfl_quantization_driver.cc (SetBiasParamsWithAdjustments);
tensorflow/compiler/mlir/tools/optimize/quantization_utils.cc (SymmetricPerChannelQuantizeValues,
SymmetricBiasQuantize).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npmobilenet.graph import Quantization
from npmobilenet.modeldata import Array

SCHEMES = ("int8", "uint8")
FIXED: dict[str, Quantization] = {  # of softmax and sigmoid: [0, 1) in steps of 1/256
    "int8": Quantization((1 / 256,), (-128,)),
    "uint8": Quantization((1 / 256,), (0,)),
}
UNIT: dict[str, Quantization] = {  # of l2_normalize, as LiteRT's kernel demands: [-1, 1) in steps of 1/128
    "int8": Quantization((1 / 128,), (0,)),
    "uint8": Quantization((1 / 128,), (128,)),
}
NEAR_ZERO = 1e-6  # a constant's narrowest range: kNearZeroTolerance
MOST_BIAS = (2**31 - 1) // 2  # largest |bias| in steps, so that products have room in the accumulator: kBiasMax

Floats = NDArray[np.float32]


class Range(NamedTuple):
    """The smallest and largest value of a tensor."""

    low: float
    high: float

    def union(self, other: Range) -> Range:
        """The range that covers both."""
        return Range(min(self.low, other.low), max(self.high, other.high))


def round_away(x: Any) -> Any:
    """C's round: to the nearest whole number, halves away from zero; same shape and dtype.

    `x - trunc(x)` is exact, whereas `trunc(x + 0.5)` would round 0.49999997 up.
    """
    whole = np.trunc(x)
    return whole + np.where(np.abs(x - whole) >= 0.5, np.sign(x), 0).astype(x.dtype)


def activation(found: Range, dtype: str) -> Quantization:
    """One scale and zero point for a computed tensor, asymmetric, 0 exactly representable.

    The range is widened to include 0: scale = (high - low) / 255 in float32, zero_point =
    round(qmin - low / scale), the quotient in float64 from the rounded scale, rounded to float32 before `round`. A
    tensor of nothing but 0 gets scale 1 and the lowest zero point.
    """
    limits = np.iinfo(dtype)
    low, high = np.float32(min(found.low, 0.0)), np.float32(max(found.high, 0.0))
    scale = (high - low) / np.float32(limits.max - limits.min)
    if scale < np.finfo(np.float32).tiny:
        return Quantization((1.0,), (int(limits.min),))
    from_low = np.float32(limits.min - np.float64(low) / np.float64(scale))
    zero_point = np.clip(round_away(from_low), limits.min, limits.max)
    return Quantization((float(scale),), (int(zero_point),))


def weights(array: Floats, axis: int, dtype: str) -> tuple[Array, Quantization]:
    """A layer's weights: int8 symmetric in [-127, 127] for each index of `axis`, or uint8 for the whole tensor.

    int8: scale = float32(2 * max|w|) / 254, q = round(w * float32(1 / scale)). uint8: asymmetric in [1, 255], the
    range of kernels that subtract 128 and multiply as int8, whose sums of two products would not fit 16 bits at -128.
    """
    if dtype == "uint8":
        return _per_tensor(array, dtype, lowest=1)
    largest = np.abs(array).max(axis=_others(array, axis)).astype(np.float64)
    largest = np.where(2 * largest > NEAR_ZERO, largest, np.maximum(largest, NEAR_ZERO / 2))
    bound = largest.astype(np.float32)
    return symmetric(array, axis, (bound + bound) / np.float32(254))


def symmetric(array: Floats, axis: int, scale: Floats) -> tuple[Array, Quantization]:
    """Weights in steps of the given scales, one for each index of `axis`."""
    inverse = (1.0 / scale.astype(np.float64)).astype(np.float32)
    steps = round_away(array * _along(inverse, axis, array.ndim))
    values = np.clip(steps, -127, 127).astype(np.int8)
    return values, Quantization(*_pairs(scale), axis if len(scale) > 1 else None)


def constant(array: Floats, dtype: str) -> tuple[Array, Quantization]:
    """A constant operand of add, sub or mul: asymmetric over the type's whole range, from its own values."""
    return _per_tensor(array, dtype, lowest=int(np.iinfo(dtype).min))


def in_steps(array: Floats, q: Quantization, dtype: str) -> Array:
    """A constant in the steps of another tensor; what lies outside of its range becomes the nearest end."""
    limits = np.iinfo(dtype)
    steps = round_away(array.astype(np.float64) / q.scale[0]) + q.zero_point[0]
    found: Array = np.clip(steps, limits.min, limits.max).astype(dtype)
    return found


def _per_tensor(array: Floats, dtype: str, lowest: int) -> tuple[Array, Quantization]:
    """Asymmetric with quantized values from `lowest` up: q = round(w / scale + zero_point) in float64."""
    highest = int(np.iinfo(dtype).max)
    low, high = min(float(array.min()), 0.0), max(float(array.max()), 0.0)
    if high - low <= NEAR_ZERO:
        low, high = min(low, -NEAR_ZERO / 2), max(high, NEAR_ZERO / 2)
    scale = (np.float32(high) - np.float32(low)) / np.float32(highest - lowest)
    zero_point = int(np.clip(round_away(np.float32(lowest - low / np.float64(scale))), lowest, highest))
    steps = round_away(array.astype(np.float64) / np.float64(scale) + zero_point)
    values = np.clip(steps, lowest, highest).astype(dtype)
    return values, Quantization((float(scale),), (zero_point,))


def bias(array: Floats, scale: Floats) -> tuple[Array, Quantization]:
    """int32 in steps of `scale` (one, or one for each element), zero point 0: round(b * float32(1 / scale))."""
    inverse = (1.0 / scale.astype(np.float64)).astype(np.float32)
    with np.errstate(over="ignore"):
        steps = round_away(array * inverse).astype(np.float64)
    values = np.clip(steps, -(2**31 - 1), 2**31 - 1).astype(np.int32)
    return values, Quantization(*_pairs(scale), 0 if len(scale) > 1 else None)


def layer(
    kernel: Floats, added: Floats, axis: int, entering: float, dtype: str
) -> tuple[Array, Array, list[Quantization]]:
    """Weights and bias of a layer whose input has the scale `entering`; their quantizations in this order.

    The bias has the scale of the accumulator, float32(entering * scale of the weights). Where it would take more than
    2^30 steps (a dead channel: tiny weights, ordinary bias), the weights' scale is raised until it doesn't.
    """
    values, q = weights(kernel, axis, dtype)
    scale = np.array(q.scale, np.float32)
    product = (np.float64(entering) * scale.astype(np.float64)).astype(np.float32)
    size = np.abs(added)
    if len(scale) == 1:
        size = size.max(keepdims=True)
    steps = size.astype(np.float64) / product.astype(np.float64)
    wide = steps > MOST_BIAS if len(scale) > 1 else steps >= MOST_BIAS
    if wide.any():
        raised = size.astype(np.float64) / MOST_BIAS
        product = np.where(wide, raised.astype(np.float32), product)
        scale = np.where(wide, (raised / np.float64(entering)).astype(np.float32), scale)
        if dtype == "int8":
            values, q = symmetric(kernel, axis, scale)
        else:
            values, q = _around_zero(kernel, scale[0])
    integers, bias_q = bias(added, product)
    return values, integers, [q, bias_q]


def real(values: Array, q: Quantization) -> NDArray[np.float64]:
    """scale * (values - zero_point), in float64, which holds it exactly."""
    axis = q.axis or 0
    rank = values.ndim if q.axis is not None else 1
    scale, zero = (_along(np.array(v, np.float64), axis, rank) for v in (q.scale, q.zero_point))
    found: NDArray[np.float64] = (values.astype(np.float64) - zero) * scale
    return found


def _around_zero(array: Floats, scale: np.float32) -> tuple[Array, Quantization]:
    """uint8 weights in steps of a given scale, zero point 128."""
    steps = round_away(array.astype(np.float64) / np.float64(scale)) + 128
    return np.clip(steps, 1, 255).astype(np.uint8), Quantization((float(scale),), (128,))


def _others(array: Array, axis: int) -> tuple[int, ...]:
    return tuple(i for i in range(array.ndim) if i != axis)


def _along(values: Array, axis: int, rank: int) -> Array:
    shape = [1] * rank
    shape[axis] = -1
    return values.reshape(shape)


def _pairs(scale: Floats) -> tuple[tuple[float, ...], tuple[int, ...]]:
    return tuple(float(s) for s in scale), (0,) * len(scale)
