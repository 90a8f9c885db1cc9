"""Addition, subtraction, multiplication and concatenation: what their kernels need to know.

The plan finds here, beside scales and zero points, where a dialect rounds differently from one element to the next:
LiteRT's optimized kernels take full vectors of 8 or 16 elements in NEON arithmetic and the rest of each run in scalar
arithmetic, and the two don't always round alike. A run is what one call of such a kernel covers.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from npmobilenet.arithmetic.dialects import Dialect
from npmobilenet.arithmetic.fixedpoint import Rounding, VectorRule, everywhere, in_vectors, rounding
from npmobilenet.arithmetic.ranges import (
    LIMITS,
    activation_range,
    multiplier_of,
    real_factor,
    scale_of,
    xnnpack_range,
    zero_point_of,
)
from npmobilenet.errors import PlanError
from npmobilenet.ops import Node, Tensor, misfit

LEFT_SHIFT = 20  # of operands before they are scaled: 9 bits (a difference of two 8-bit values) and 20 make 29


class Sum(NamedTuple):
    """Parameters of add_q: out = zero_point + (x - zero_x) * s_x / s_out +- (y - zero_y) * s_y / s_out.

    sign: 1 for addition, -1 for subtraction. multiplier_*, shift_*: as fixedpoint.quantize_multiplier gives them; for
    the rule "linear" integers in units of 2^-shift. rule: of Rounding, for each element. low, high: the clamp.
    """

    zero_x: int
    multiplier_x: int
    shift_x: int
    zero_y: int
    multiplier_y: int
    shift_y: int
    sign: int
    multiplier: int
    shift: int
    rule: VectorRule
    zero_point: int
    low: int
    high: int


class Product(NamedTuple):
    """Parameters of mul_q: out = zero_point + (x - zero_x) * (y - zero_y) * (s_x * s_y / s_out).

    multiplier, shift, scale: the factor in brackets, as integers and as float64. rule: of Rounding, for each element.
    """

    zero_x: int
    zero_y: int
    multiplier: int
    shift: int
    scale: float
    rule: VectorRule
    zero_point: int
    low: int
    high: int


class Rescaling(NamedTuple):
    """Parameters of concat_q for one operand. copy: 1 where its scale and zero point are the output's."""

    copy: int
    scale: np.float32
    bias: np.float32
    zero_point: int
    low: int
    high: int


def broadcast_run(x: tuple[int, ...], y: tuple[int, ...]) -> tuple[int, bool]:
    """The run of elements of one call of an optimized binary kernel, for one image, and whether one operand is a
    single value in it. (1, False) stands for the loop for general broadcasts, which takes elements one by one.

    Equal shapes are one run. Else dimensions are merged from the last to the first into y4 (equal in both), y3 (1 in
    the operand a that broadcasts last), y2 (equal), y1 (1 in the other operand b), y0 (equal); what is left over makes
    it general. A run is y4 elements of both, or, where y4 is 1, y3 elements of b and one value of a.

    Source: LiteRT, tflite/kernels/internal/reference/process_broadcast_shapes.h and BinaryBroadcastFiveFold in
    tflite/kernels/internal/optimized/optimized_ops.h, commit f67457790.
    """
    if x == y:
        return math.prod(x), False
    pairs = list(zip(x, y, strict=True))[::-1]
    if next(b for a, b in pairs if a != b) == 1:
        pairs = [(b, a) for a, b in pairs]

    def merged(position: int, ones: int | None) -> tuple[int, int]:
        size = 1
        while position < len(pairs):
            a, b = pairs[position]
            if (a != b) if ones is None else (pairs[position][ones] != 1):
                break
            size, position = size * max(a, b), position + 1
        return size, position

    y4, at = merged(0, None)
    y3, at = merged(at, 0)
    for ones in (None, 1, None):
        _, at = merged(at, ones)
    if at < len(pairs):
        return 1, False
    return (y4, False) if y4 > 1 else (y3, True)


def _delegated_sum(x: Tensor, y: Tensor, result: Tensor) -> bool:
    """Whether the delegate hands the addition or subtraction to XNNPACK: 2^-10 <= s_in / s_out < 2^8 for both.

    Source: LiteRT, tflite/delegates/xnnpack/xnnpack_delegate.cc, VisitBinaryNode, commit f67457790.
    """
    with np.errstate(all="ignore"):
        return all(np.float32(2**-10) <= scale_of(t) / scale_of(result) < np.float32(2**8) for t in (x, y))


def addition(node: Node, x: Tensor, y: Tensor, result: Tensor, dialect: Dialect) -> Sum:
    """Parameters of `add` and `sub` nodes. Raises `PlanError` where TFLite itself gives up (see `_fixed_sum`)."""
    rule = dialect.rule(node.op, result.dtype)
    if rule == "linear":
        if _delegated_sum(x, y, result):
            return _linear_sum(node, x, y, result)
        rule = dialect.rule(node.op, "undelegated")
    return _fixed_sum(node, x, y, result, rule)


def _fixed_sum(node: Node, x: Tensor, y: Tensor, result: Tensor, rule: str) -> Sum:
    """TFLite's: operands scaled to twice the greater of their scales, added, and scaled to the output's.

    Twice, so that both factors are at most 1/2 and the sum of two 28-bit magnitudes has 28 bits again. The last factor,
    2 max(s_x, s_y) / (2^20 s_out), has to be below 1: above, TFLite aborts (addition) or shifts by a negative
    amount, whose result C leaves open (subtraction).

    Source: LiteRT, tflite/kernels/add.cc and sub.cc, Prepare; optimized/integer_ops/add.h (int8: 16 lanes, 8 beside a
    single value) and optimized/optimized_ops.h (uint8: 8 lanes), AddElementwise, AddScalarBroadcast, commit f67457790.
    """
    s_x, s_y, s_out = (np.float64(scale_of(t)) for t in (x, y, result))
    largest = 2 * max(s_x, s_y)
    (m_x, shift_x), (m_y, shift_y) = (
        multiplier_of(node, float(s / largest), [t], None) for s, t in ((s_x, x), (s_y, y))
    )
    factor = float(largest / (2.0**LEFT_SHIFT * s_out))
    multiplier, shift = multiplier_of(node, factor, [x, y], result) if factor < 1 else (0, 1)
    if shift > 0:
        raise PlanError(
            f"node '{node.name}' ({node.op}): its output's scale {s_out:.3g} is less than 2^-19 of an operand's "
            f"({largest / 2:.3g}); TFLite doesn't define the result: quantize the tensor '{result.name}' anew"
        )
    if rule == "neon":
        run, single = broadcast_run(x.shape, y.shape)
        inside, lanes = (Rounding.FUSED, 16) if result.dtype == "int8" and not single else (Rounding.FLOOR, 8)
        where = in_vectors(inside, Rounding.DOUBLE, run, lanes)
    else:
        where = everywhere(rounding(rule))
    low, high = activation_range(node, result)
    sign = -1 if node.op == "sub" else 1
    return Sum(zero_point_of(x), m_x, shift_x, zero_point_of(y), m_y, shift_y, sign, multiplier, shift,
               where, zero_point_of(result), low, high)  # fmt: skip


def _linear_sum(node: Node, x: Tensor, y: Tensor, result: Tensor) -> Sum:
    """XNNPACK's: both factors s_in / s_out as integers in units of 2^-shift, the greater one in [2^20, 2^21].

    shift = 20 - floor(log2(greater factor)) is in [13, 30]. |x - z| <= 255, so that two products and the half that
    rounds stay below 2^30 + 2^29.

    Source: XNNPACK, src/microparams-init.c, xnn_init_qs8_add_minmax_scalar_params, commit 75db3c093b.
    """
    factors = [scale_of(t) / scale_of(result) for t in (x, y)]
    shift = 20 - (math.frexp(float(max(factors)))[1] - 1)
    m_x, m_y = (int(np.rint(f * np.float32(2.0**shift))) for f in factors)
    sign = -1 if node.op == "sub" else 1
    low, high = xnnpack_range(node, result)
    return Sum(zero_point_of(x), m_x, 0, zero_point_of(y), m_y, 0, sign, 1, shift,
               everywhere(Rounding.LINEAR), zero_point_of(result), low, high)  # fmt: skip


def multiplication(node: Node, x: Tensor, y: Tensor, result: Tensor, dialect: Dialect) -> Product:
    """Parameters of `mul` nodes. The factor s_x * s_y / s_out is rounded to float32 after each step by all runtimes.

    Source: LiteRT, tflite/kernels/mul.cc, Prepare; optimized/integer_ops/mul.h (int8: 16 lanes) and
    optimized/optimized_ops.h (uint8: 8 lanes), MulElementwise, MulSimpleBroadcast; delegates/xnnpack/
    xnnpack_delegate.cc, VisitBinaryNode (delegated: 2^-16 <= factor < 2^8), commit f67457790. XNNPACK,
    src/microparams-init.c, xnn_init_qs8_mul_minmax_scalar_params, commit 75db3c093b.
    """
    factor = real_factor(node, [x, y], result, dialect.most_shift)
    rule = dialect.rule(node.op, result.dtype)
    if rule in ("float32", "rndnu") and not np.float32(2**-16) <= factor < np.float32(2**8):
        rule = dialect.rule(node.op, "undelegated")
    low, high = (xnnpack_range if rule in ("float32", "rndnu") else activation_range)(node, result)
    if rule == "neon":
        run, single = broadcast_run(x.shape, y.shape)
        inside = Rounding.WRAPPED if single and result.dtype == "uint8" else Rounding.SATURATED
        where = in_vectors(inside, Rounding.DOUBLE, run, 16 if result.dtype == "int8" else 8)
    else:
        where = everywhere(rounding(rule))
    multiplier, shift = multiplier_of(node, float(factor), [x, y], result, most=dialect.most_shift)
    return Product(
        zero_point_of(x), zero_point_of(y), multiplier, shift, float(factor), where,
        zero_point_of(result), low, high,
    )  # fmt: skip


def rescaling(node: Node, x: Tensor, result: Tensor) -> Rescaling:
    """Parameters for one operand of a concatenation: uint8 operands may have scales of their own, int8 ones may not.

    scale = s_x * (1 / s_out), bias = -z_x * scale, all in float32.

    Source: LiteRT, tflite/kernels/concatenation.cc and internal/reference/concatenation.h, ConcatenationWithScaling,
    commit f67457790. Raises `PlanError`.
    """
    if node.attrs.get("activation", "none") != "none":
        raise misfit(node, "no fused activation in integers, as in TFLite", node.attrs["activation"])
    s_x, s_out, z_x, z_out = scale_of(x), scale_of(result), zero_point_of(x), zero_point_of(result)
    copy = s_x == s_out and z_x == z_out
    if not copy and result.dtype == "int8":
        raise PlanError(
            f"node '{node.name}' (concat): int8 operand '{x.name}' has scale {s_x:.6g} and zero point {z_x}, the "
            f"output {s_out:.6g} and {z_out}: TFLite demands that they are equal; put a quantize node between"
        )
    if not copy:
        real_factor(node, [x], result, 22)
    scale = s_x * (np.float32(1) / s_out)
    low, high = LIMITS[result.dtype]
    return Rescaling(int(copy), scale, np.float32(-z_x) * scale, z_out, low, high)
