"""Average pooling and mean over height and width: two ops with two roundings.

Pooling divides the sum of the raw values by their number; mean goes through the scales of input and output.
The rounding itself stands with the kernels: `rounded_quotient` in kernels/reference/average_pool.py.
"""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

import numpy as np

from npmobilenet.arithmetic.dialects import Dialect
from npmobilenet.arithmetic.fixedpoint import (
    INT32_MAX,
    Rounding,
    VectorRule,
    everywhere,
    in_vectors,
    nearest32,
    rounding,
)
from npmobilenet.arithmetic.ranges import (
    LIMITS,
    activation_range,
    check_factor,
    multiplier_of,
    real_factor,
    scale_of,
    zero_point_of,
)
from npmobilenet.errors import PlanError
from npmobilenet.ops import Node, Tensor


class Pool(NamedTuple):
    """Parameters of average_pool_q: the clamp, and what a window without any pixel gives."""

    zero_point: int
    low: int
    high: int


class Mean(NamedTuple):
    """Parameters of mean_q: out = offset + requantized(start + sum of x).

    multiplier, shift, scale: the factor s_in / (H * W * s_out), as integers and as float64. rule: of Rounding, for
    each channel. offset: added in integers, or, under the rule "float32", real_offset before the rounding to an
    integer. low, high: the clamp.
    """

    start: int
    multiplier: int
    shift: int
    scale: float
    rule: VectorRule
    offset: int
    real_offset: np.float32
    low: int
    high: int


def pool(node: Node, x: Tensor, result: Tensor) -> Pool:
    """Parameters of `average_pool` nodes: the same in every dialect, as no runtime looks at the scales.

    (XNNPACK's delegate leaves quantized pooling to LiteRT: xnnpack_delegate.cc, VisitAveragePool2DNode.)
    """
    (kernel_h, kernel_w), (_, height, width, _) = node.attrs["kernel"], x.shape
    _check_pixels(node, min(kernel_h, height) * min(kernel_w, width))
    return Pool(zero_point_of(result), *activation_range(node, result))


def _check_pixels(node: Node, pixels: int) -> None:
    """Sums of 8-bit values, each less a zero point, must fit into int32, which every runtime adds in."""
    if 255 * pixels > INT32_MAX:
        raise PlanError(
            f"node '{node.name}' ({node.op}): sums {pixels:,} pixels, expected at most {INT32_MAX // 255:,}: more than "
            "that overflow an int32; use a smaller input size"
        )


def mean(node: Node, x: Tensor, result: Tensor, dialect: Dialect) -> Mean:
    """Parameters of `mean` nodes. LiteRT's optimized kernel serves only where the dimensions are kept."""
    _check_pixels(node, _counted(x))
    rule = dialect.rule(node.op, x.dtype)
    real_factor(node, [x], result, dialect.most_shift)
    if rule in ("float32", "float32_fused"):
        return _float_mean(node, x, result, rounding(rule))
    if rule == "neon":
        if node.attrs["keepdims"]:
            return _biased_mean(node, x, result)
        rule = "double"
    return _centred_mean(node, x, result, rule, dialect.most_shift)


def _counted(x: Tensor) -> int:
    return x.shape[1] * x.shape[2]


def _centred_mean(node: Node, x: Tensor, result: Tensor, rule: str, most: int) -> Mean:
    """The reference kernel's: zero points are subtracted first, and 1 / (H * W) goes into the integer multiplier.

    The multiplier of s_in / s_out is shifted left by floor(log2(H * W)) bits and divided, dropping the remainder, so
    that it keeps 30 bits. The shift stays at -31 or above.

    Source: LiteRT, tflite/kernels/reduce.cc, PrepareMeanOrSum; internal/reference/reduce.h, QuantizedMeanOrSum, commit
    f67457790.
    """
    count, low_high = _counted(x), LIMITS[result.dtype]
    factor = float(np.float64(scale_of(x)) / np.float64(scale_of(result)))
    multiplier, shift = multiplier_of(node, factor, [x], result, most=most)
    extra = min(count.bit_length() - 1, 32, 31 + shift)
    multiplier, shift = (multiplier << extra) // count, shift - extra
    start = -zero_point_of(x) * count
    return Mean(
        start,
        multiplier,
        shift,
        factor / count,
        everywhere(rounding(rule)),
        zero_point_of(result),
        np.float32(0),
        *low_high,
    )


def _biased_mean(node: Node, x: Tensor, result: Tensor) -> Mean:
    """The optimized kernel's: the raw sum is scaled, and a rounded bias takes the zero points' part.

    bias = z_out - round(z_in * s_in / s_out), half away from zero, and the factor, in float32. Channels are taken 16
    at a time with the rule "upward", the rest with "double". (With more threads LiteRT cuts the channels into parts,
    each with its own rest: the dialect is LiteRT with one thread.)

    Source: LiteRT, tflite/kernels/internal/optimized/reduce.h and optimized/integer_ops/mean.h, commit f67457790.
    """
    s_in, s_out = scale_of(x), scale_of(result)
    real_factor(node, [x], result, 22)  # 255 times it, twice, stays within int32: bias and sum
    with np.errstate(all="ignore"):
        moved = np.float32(zero_point_of(x)) * s_in / s_out
        moved = moved + np.float32(0.5) if moved > 0 else moved - np.float32(0.5)
        factor = float(s_in / (np.float32(_counted(x)) * s_out))
    check_factor(node, abs(float(moved)), [x], result)  # infinite for the greatest scales
    multiplier, shift = multiplier_of(node, factor, [x], result)
    where = in_vectors(Rounding.UPWARD, Rounding.DOUBLE, result.shape[-1], 16)
    offset = zero_point_of(result) - int(moved)
    return Mean(0, multiplier, shift, factor, where, offset, np.float32(0), *LIMITS[result.dtype])


def _float_mean(node: Node, x: Tensor, result: Tensor, rule: Rounding) -> Mean:
    """XNNPACK's: float32(sum) * factor + offset, each step rounded to float32, then to nearest, ties to even.

    factor = (s_in / s_out) * (1 / (H * W)), offset = z_out - (H * W * z_in) * factor. "float32_fused": a product and
    the sum behind it are rounded once, in both formulas, as compilers for arm64 have it.

    Source: XNNPACK, src/operators/reduce-nd.c and src/xnnpack/reference-utils.h, quantize, commit 75db3c093b.
    """
    count = np.float32(_counted(x))
    factor = scale_of(x) / scale_of(result) * (np.float32(1) / count)
    moved = count * np.float32(zero_point_of(x))
    offset = np.float32(zero_point_of(result)) - moved * factor
    if rule == Rounding.FLOAT32_FUSED and np.isfinite(moved * factor):
        offset = nearest32(zero_point_of(result) - Fraction(float(moved)) * Fraction(float(factor)))
    multiplier, shift = multiplier_of(node, float(factor), [x], result)
    return Mean(0, multiplier, shift, float(factor), everywhere(rule), 0, offset, *LIMITS[result.dtype])
