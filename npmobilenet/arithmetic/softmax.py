"""Softmax's tables: the exponential of each of the 256 differences from the largest value."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from npmobilenet.arithmetic.exponential import exp_float32
from npmobilenet.arithmetic.fixedpoint import double_rounding, quantize_multiplier, single_rounding
from npmobilenet.arithmetic.ranges import LIMITS, scale_of, zero_point_of
from npmobilenet.errors import PlanError
from npmobilenet.modeldata import Array
from npmobilenet.ops import Node, Tensor

INTEGER_BITS = 5  # of the exponential's argument in fixed point: differences of -32 ... 0, with 26 fractional bits


def check(node: Node, x: Tensor, result: Tensor) -> None:
    """The output's scale must be 1/256 and its zero point the dtype's least value, for int8, as LiteRT demands it.

    For uint8 LiteRT's kernels take it for granted. Raises `PlanError`.
    """
    low = LIMITS[result.dtype][0]
    near = abs(float(scale_of(result)) - 1 / 256) <= 0.001 / 256
    if result.dtype != x.dtype or not near or zero_point_of(result) != low:
        raise PlanError(
            f"node '{node.name}' (softmax): expected an output of {x.dtype} with scale 1/256 and zero point {low}, "
            f"got {result.dtype}, {scale_of(result)}, {zero_point_of(result)}"
        )


def fixed_exponentials(node: Node, x: Tensor, rule: str, exp_negative: Callable[[int], int]) -> Array:
    """e^(-d s_in beta) for d = 0 ... 255, 31 fractional bits, int32: (256,); 0 from -31.99 or so on.

    d is brought to 26 fractional bits by a multiplier of at most 2^31 - 1 ("single": 2^30 - 1) in units of 2^-26.
    exp_negative: that of the reference (kernels/reference/softmax.py).

    Source: LiteRT, tflite/kernels/internal/quantization_util.cc, PreprocessSoftmaxScaling and CalculateInputRadius, and
    internal/reference/softmax.h, commit f67457790.
    """
    single = rule == "single"
    multiplier, shift = fixed_factor(node, x, single)
    radius = math.floor(((1 << INTEGER_BITS) - 1) * 2 ** (31 - INTEGER_BITS) / 2**shift)
    found = np.zeros(256, np.int32)
    for d in range(min(radius, 255) + 1):
        scaled = single_rounding(-d, multiplier, shift) if single else double_rounding(-d, multiplier, shift)
        found[d] = exp_negative(int(scaled))
    return found


def fixed_factor(node: Node, x: Tensor, single: bool) -> tuple[int, int]:
    """Multiplier and shift that bring a difference of input values to 26 fractional bits."""
    real = float(np.float32(node.attrs["beta"])) * float(scale_of(x)) * 2 ** (31 - INTEGER_BITS)
    if real <= 1:
        raise PlanError(
            f"node '{node.name}' (softmax): its input's scale times beta is {real / 2**26}, too small for fixed point "
            "with 26 bits (LiteRT ends the process there): quantize the model anew"
        )
    # A shift of 31 (30), which no int32 takes, is one where only d = 0 counts: the radius.
    return quantize_multiplier(min(real, (2**30 if single else 2**31) - 1.0))


def float_exponentials(node: Node, x: Tensor) -> Array:
    """expf((-s_in * beta) * d) for d = 0 ... 255, float32: (256,).

    Source: LiteRT, tflite/kernels/internal/optimized/optimized_ops.h, PopulateSoftmaxLookupTable, commit f67457790.
    """
    with np.errstate(all="ignore"):  # a product beyond float32 is -inf, whose exponential is 0
        scale = -scale_of(x) * np.float32(node.attrs["beta"])
        if not -np.inf < scale <= 0:
            raise PlanError(
                f"node '{node.name}' (softmax): its input's scale {scale_of(x):.3g} times beta "
                f"{node.attrs['beta']:.3g} is {-scale:.3g}, expected a float32 of at least 0: quantize the model anew"
            )
        return np.array([exp_float32(scale * np.float32(d)) for d in range(256)], np.float32)


def table_of_16_bits(node: Node, x: Tensor) -> Array:
    """65535 expf((s_in * beta) * -d) for d = 0 ... 255, each product in float32, half added and cut off: int32, (256,).

    Source: LiteRT, tflite/kernels/internal/optimized/optimized_ops.h, PopulateSoftmaxUInt8LookupTable, commit
    f67457790.
    """
    reals = float_exponentials(node, x) * np.float32(65535)
    return np.minimum(np.floor(reals.astype(np.float64) + 0.5), 65535).astype(np.int32)
