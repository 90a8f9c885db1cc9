"""Quantize and dequantize: float32 to 8 bits, 8 bits to another scale or to float32.

Optimized TFLite works in vectors of 8 or 16 elements, and on what is left over at the end by another rule. Images are
taken one at a time, so that an image's result doesn't depend on the batch that it is in (the runtime, given a batch,
counts it as a whole).
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np

from npmobilenet.arithmetic.dialects import Dialect
from npmobilenet.arithmetic.fixedpoint import Requantization, Rounding, VectorRule, everywhere, in_vectors, rounding
from npmobilenet.arithmetic.ranges import LIMITS, scale_of, zero_point_of
from npmobilenet.arithmetic.tables import rescaling
from npmobilenet.errors import PlanError
from npmobilenet.ops import Node, Tensor

T = TypeVar("T")
ByPlace = tuple[T, T, VectorRule]  # a thing and another, and which of them (0, 1) is for an element of an image


def quantizing(x: Tensor, dialect: Dialect) -> VectorRule:
    """The rules of Rounding for a float32 input."""
    rule = dialect.rule("quantize", "float32")
    if rule == "blocks8":
        return in_vectors(Rounding.RECIPROCAL, Rounding.QUOTIENT64, x.size, 8)
    return everywhere(rounding(rule))


def check_types(node: Node, x: Tensor, result: Tensor) -> None:
    """Which dtypes quantize and dequantize go between. Raises `PlanError`."""
    integers, floats = tuple(LIMITS), ("float32",)
    starts, ends = (integers, floats) if node.op == "dequantize" else (floats + integers, integers)
    if x.dtype not in starts or result.dtype not in ends:
        wanted = "uint8 or int8 to float32" if node.op == "dequantize" else "float32, uint8 or int8 to uint8 or int8"
        raise PlanError(f"node '{node.name}' ({node.op}): expected {wanted}, got {x.dtype} to {result.dtype}")


def delegated(x: Tensor, result: Tensor) -> bool:
    """Whether XNNPACK's delegate takes a change of scale: same dtype, scales within a factor of 1/256 to 128.

    Source: LiteRT, tflite/delegates/xnnpack/xnnpack_delegate.cc, VisitUnaryNode, commit f67457790.
    """
    with np.errstate(all="ignore"):
        ratio = scale_of(x) / scale_of(result)
    return x.dtype == result.dtype and bool(np.float32(1 / 256) <= ratio <= np.float32(128))


def requantizing(node: Node, x: Tensor, result: Tensor, dialect: Dialect) -> ByPlace[Requantization]:
    """From one scale to another.

    The factor is s_in / s_out in float64; XNNPACK rounds the float32 quotient to a multiple of 1/256, ties to even.
    Source: LiteRT, tflite/kernels/quantize.cc, Prepare, and internal/optimized/optimized_ops.h, Requantize, commit
    f67457790; XNNPACK, src/microparams-init.c, xnn_init_qs8_cvt_scalar_params, and src/qs8-vcvt, commit 75db3c093b.
    """
    rule = dialect.rule("quantize", x.dtype)
    if rule == "multiplier8" and delegated(x, result):
        factor = float(np.rint(np.float32(256) * (scale_of(x) / scale_of(result)))) / 256
        inside, outside, which = "single", "single", everywhere(0)
    else:
        factor = float(scale_of(x)) / float(scale_of(result))
        rule = dialect.rule("quantize", "undelegated") if rule == "multiplier8" else rule
        inside, outside, which = rule, rule, everywhere(0)
        if rule == "blocks16":
            inside, outside, which = "upward", "double", in_vectors(0, 1, x.size, 16)
    first, rest = (
        rescaling(node, factor, x, result, name, LIMITS[result.dtype], dialect.most_shift) for name in (inside, outside)
    )
    return first, rest, which


def dequantizing(x: Tensor, dialect: Dialect) -> ByPlace[str]:
    """The rules: "exact", (q - z) * s rounded once; "two_products", q * s - z * s, both and their sum rounded;
    "two_fused", q * s rounded with the sum.
    """
    rule = dialect.rule("dequantize")
    if rule == "blocks8_fused":
        return "two_fused", "exact", in_vectors(0, 1, x.size, 8)
    if rule == "blocks8":
        return "two_products", "exact", in_vectors(0, 1, x.size, 8)
    return rule, rule, everywhere(0)


def dequantized(q: int, x: Tensor, rule: str) -> np.float32:
    """The real value of q by a rule of `dequantizing`. A product of 24 and 9 bits is exact in float64.

    Source: LiteRT, tflite/kernels/internal/reference/dequantize.h, and internal/optimized/optimized_ops.h, Dequantize,
    commit f67457790; XNNPACK, src/qs8-f32-vcvt, commit 75db3c093b.
    """
    scale, zero_point = scale_of(x), zero_point_of(x)
    with np.errstate(all="ignore"):  # beyond float32 it is infinite, or NaN, as the runtimes'
        if rule == "two_products":
            return np.float32(q) * scale + np.float32(-zero_point * float(scale))
        if rule == "two_fused":  # 34 bits at most: exact in float64
            return np.float32(q * float(scale) + float(np.float32(-zero_point * float(scale))))
        return np.float32(float(scale) * (q - zero_point))
