"""Functions of one 8-bit value: parameters of hard-swish, and the rules of logistic, dequantize and rescaling.

The hard-swish rule itself is in kernels/reference/activation.py. Tables are made from these in binding/.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import numpy as np

from npmobilenet.arithmetic.dialects import Dialect
from npmobilenet.arithmetic.exponential import exp_float32, exp_float64
from npmobilenet.arithmetic.fixedpoint import (
    Requantization,
    Rounding,
    everywhere,
    quantize_multiplier,
    round_away,
    round_away32,
    rounding,
)
from npmobilenet.arithmetic.ranges import (
    LIMITS,
    MOST_SHIFT,
    activation_range,
    multiplier_of,
    real_factor,
    scale_of,
    zero_point_of,
)
from npmobilenet.errors import PlanError
from npmobilenet.ops import Node, Tensor, misfit


class HardSwish(NamedTuple):
    """What `hard_swish_16` needs: two 16-bit multipliers (15 fractional bits), their exponents, zero points, limits."""

    input_zero_point: int
    output_zero_point: int
    output_multiplier: int
    output_exponent: int
    gate_multiplier: int
    gate_exponent: int
    low: int
    high: int


def hard_swish(node: Node, x: Tensor, result: Tensor, rule: str = "fixed16") -> HardSwish:
    """s_in / 128 / s_out and s_in / 128 / (3/32768) in float32, as multipliers of 15 bits and powers of two.

    Raises `PlanError` where s_in > 128 s_out, as LiteRT refuses it. "fixed16_wide": both quotients in float64.
    Source: LiteRT, tflite/kernels/activations.cc, HardSwishPrepare, commit f67457790; Vela 5.2.0,
    ethosu/vela/tflite_graph_optimiser.py, convert_hardswish_to_lut.
    """
    kind = np.float64 if rule == "fixed16_wide" else np.float32
    fine = kind(1 / 128) * kind(scale_of(x))
    with np.errstate(all="ignore"):
        factors = fine / kind(scale_of(result)), fine / kind(3 / 32768)
    output, output_exponent = multiplier_of(node, float(factors[0]), [x], result)
    gate, gate_exponent = multiplier_of(node, float(factors[1]), [x], None)
    if output_exponent > 0:
        raise PlanError(
            f"node '{node.name}' (hard_swish): its output's scale {scale_of(result)} is less than 1/128 of its input's "
            f"scale {scale_of(x)}, which leaves no 16-bit multiplier; LiteRT refuses that too"
        )
    return HardSwish(
        zero_point_of(x),
        zero_point_of(result),
        _to_16_bits(output),
        output_exponent,
        _to_16_bits(gate),
        gate_exponent,
        *LIMITS[result.dtype],
    )


def _to_16_bits(multiplier: int) -> int:
    """From 31 fractional bits to 15, ties upward; at most 2^15 - 1.

    Source: LiteRT, tflite/kernels/internal/common.h, DownScaleInt32ToInt16Multiplier, commit f67457790.
    """
    return min((multiplier + 2**15) >> 16, 2**15 - 1)


def clipping(node: Node, x: Tensor, result: Tensor, dialect: Dialect) -> Requantization:
    """relu, relu6, relu_n1_to_1: to the output's scale, within the function's bounds. One channel.

    Source: LiteRT, tflite/kernels/activations.cc, ReluPrepare and QuantizedReluX, commit f67457790.
    """
    bounded = dataclasses.replace(node, attrs={"activation": node.attrs["function"]})
    factor = real_factor(node, [x], result, dialect.most_shift)
    limits = activation_range(bounded, result)
    return rescaling(node, float(factor), x, result, dialect.rule("activation"), limits, dialect.most_shift)


class Prelu(NamedTuple):
    """Parameters of prelu_q: zero points of input, alpha and output; multipliers and shifts of values from zero on and
    of those below; a Rounding; the clamp.
    """

    zero_points: tuple[int, int, int]
    multipliers: tuple[int, int]
    shifts: tuple[int, int]
    rule: int
    low: int
    high: int


def prelu(node: Node, x: Tensor, alpha: Tensor, result: Tensor, dialect: Dialect) -> Prelu:
    """s_in / s_out and s_in * s_alpha / s_out, in float32 each.

    Source: LiteRT, tflite/kernels/activations.cc, PreluPrepare, internal/reference/prelu.h, commit f67457790.
    """
    most = dialect.most_shift
    factors = (float(real_factor(node, top, result, most)) for top in ([x], [x, alpha]))
    (m0, s0), (m1, s1) = (multiplier_of(node, factor, [x], result, most=most) for factor in factors)
    rule = rounding(dialect.rule("prelu"))
    zeros = zero_point_of(x), zero_point_of(alpha), zero_point_of(result)
    return Prelu(zeros, (m0, m1), (s0, s1), rule, *LIMITS[result.dtype])


def leaky_relu(node: Node, x: Tensor, result: Tensor, dialect: Dialect) -> tuple[Requantization, Requantization]:
    """The steps of values from zero on, and of those below. One channel each.

    XNNPACK ("fixed8") holds both factors with 8 fractional bits, and adds a half before it drops them; factors that
    don't fit there (2^-8 to 2^7) it leaves to LiteRT.

    Source: LiteRT, tflite/kernels/activations.cc, LeakyReluPrepare, internal/reference/leaky_relu.h, and
    delegates/xnnpack/xnnpack_delegate.cc, VisitLeakyReluNode, commit f67457790; XNNPACK, src/qs8-vlrelu,
    src/operators/unary-elementwise-nc.c, commit 75db3c093b.
    """
    with np.errstate(all="ignore"):
        up = scale_of(x) / scale_of(result)
        down = scale_of(x) * np.float32(node.attrs["alpha"]) / scale_of(result)
    if down < 0:
        raise PlanError(f"node '{node.name}' (leaky_relu): alpha {node.attrs['alpha']:g}, expected 0 or more of 8-bit "
                        "values; keep it in float32")  # fmt: skip
    rule = dialect.rule("leaky_relu")
    if rule == "fixed8":
        if all(2.0**-8 <= abs(f) <= 2.0**7 for f in (up, down)):
            return _of_8_bits(float(up), result), _of_8_bits(float(down), result)
        rule = dialect.rule("leaky_relu", "undelegated")
    limits, most = LIMITS[result.dtype], dialect.most_shift
    first, rest = (rescaling(node, float(factor), x, result, rule, limits, most) for factor in (up, down))
    return first, rest


def _of_8_bits(real: float, result: Tensor) -> Requantization:
    """(v * factor + 128) >> 8 for factor = round(256 real): "single" by the multiplier factor * 2^16, the shift 7."""
    factor = round(256 * real)
    arrays = np.array([int(factor) << 16], np.int64), np.array([7], np.int32), np.array([factor / 256])
    return Requantization(*arrays, everywhere(Rounding.SINGLE), zero_point_of(result), *LIMITS[result.dtype])


def rescaling(
    node: Node, factor: float, x: Tensor, result: Tensor, rule: str, limits: tuple[int, int], most: int = MOST_SHIFT
) -> Requantization:
    """A Requantization of one channel by a real factor, from the scale of x to the result's."""
    multiplier, shift = multiplier_of(node, factor, [x], result, most=most)
    arrays = np.array([multiplier], np.int32), np.array([shift], np.int32), np.array([factor], np.float64)
    return Requantization(*arrays, everywhere(rounding(rule)), zero_point_of(result), *limits)


def check_logistic(node: Node, result: Tensor) -> None:
    """The output's scale must be 1/256, as LiteRT demands. Raises `PlanError`."""
    if scale_of(result) != np.float32(1 / 256):
        raise misfit(node, "an output scale of 1/256 (0.00390625)", scale_of(result))


class Logistic(NamedTuple):
    """What `logistic_fixed` needs: the input's zero point, its scale as a factor to 27 fractional bits, a rule; from
    which distance on the result is 0 or 1; and the limits of the output.
    """

    zero_point: int
    multiplier: int
    shift: int
    rule: int
    radius: int
    low: int
    high: int


def logistic(x: Tensor, result: Tensor, rule: str) -> Logistic:
    """Parameters of the rules "fixed", and "fixed_once" with a single rounding.

    Source: TFLite Micro, tensorflow/lite/micro/kernels/logistic_common.cc and lite/kernels/internal/
    quantization_util.cc, CalculateInputRadius, commit 90b983c2.
    """
    multiplier, shift = quantize_multiplier(float(scale_of(x)) * 2**27)
    radius = math.floor(15 * 2**27 / 2**shift)
    code = Rounding.SINGLE if rule == "fixed_once" else Rounding.DOUBLE
    return Logistic(zero_point_of(x), multiplier, shift, code, min(radius, 256), *LIMITS[result.dtype])


def logistic_float32(q: int, x: Tensor, result: Tensor) -> int:
    """clamp(round(256 / (1 + expf(-s_in (q - z_in)))) + z_out), each step in float32, ties away from zero.

    Source: LiteRT, tflite/kernels/activations.cc, SigmoidPrepare, and internal/common.h, LUTPopulateInt8.
    """
    one = np.float32(1)
    with np.errstate(over="ignore"):
        v = scale_of(x) * np.float32(q - zero_point_of(x))
    # expf overflows from 88.73 on; 1 / (1 + e) * 256 is 0 when rounded from 13 on.
    y = one / (one + exp_float32(min(-v, np.float32(80)))) * (one / scale_of(result))
    low, high = LIMITS[result.dtype]
    return int(min(max(round_away32(y) + np.float32(zero_point_of(result)), low), high))


def logistic_float64(q: int, x: Tensor, result: Tensor) -> int:
    """e = exp(s_in (q - z_in)), e / (1 + e) in float64, to float32, times 256, plus z_out, ties to even.

    Source: XNNPACK, src/reference/unary-elementwise.cc, SigmoidOp, and src/xnnpack/reference-utils.h, commit
    75db3c093b.
    """
    with np.errstate(over="ignore"):
        v = float((np.float32(q) - np.float32(zero_point_of(x))) * scale_of(x))
    e = exp_float64(min(max(v, -100.0), 100.0))
    y = np.float32(e / (1 + e)) * (np.float32(1) / scale_of(result)) + np.float32(zero_point_of(result))
    low, high = LIMITS[result.dtype]
    return int(np.rint(min(max(y, np.float32(low)), np.float32(high))))


def logistic_clamped(q: int, x: Tensor, result: Tensor) -> int:
    """round(z_out + y / s_out) for y = 1 / (1 + exp(-v)), v = s_in (q - z_in) in float64; from +-8 on y is 0 or 1.

    Source: Vela 5.2.0, ethosu/vela/numeric_util.py, clamp_sigmoid, and its C++ core's tables of 8-bit functions.
    """
    v = float(scale_of(x)) * (q - zero_point_of(x))
    y = 0.0 if v <= -8 else 1.0 if v >= 8 else 1 / (1 + exp_float64(-v))
    low, high = LIMITS[result.dtype]
    return min(max(int(round_away(zero_point_of(result) + y / float(scale_of(result)))), low), high)
