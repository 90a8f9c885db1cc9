"""Functions of one 8-bit value that runtimes take from tables, but hard-swish and the logistic one (tables.py).

Each entry is a float32 function of a dequantized value. The functions are computed in float64 here and rounded once,
which gives what a libm within 1 ulp gives but where a product lies within an ulp of a half.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np

from npmobilenet.arithmetic.dialects import Dialect
from npmobilenet.arithmetic.exponential import exp_float32
from npmobilenet.arithmetic.fixedpoint import INT32_MAX, Requantization, round_away32, rounding
from npmobilenet.arithmetic.ranges import LIMITS, multiplier_of, real_factor, scale_of, zero_point_of
from npmobilenet.arithmetic.tables import rescaling
from npmobilenet.errors import PlanError
from npmobilenet.ops import Node, Tensor

F = np.float32
HALF, ONE = F(0.5), F(1)
MINUS_SQRT_HALF = F(-math.sqrt(0.5))
GELU_INNER, GELU_CUBE = F(math.sqrt(2 / math.pi)), F(0.044715)


class Normalization(NamedTuple):
    """Parameters of l2_normalize_q: values are multiplied by `factor` before the inverse root, shifted left with it."""

    zero_in: int
    factor: int
    shift: int
    rule: int
    zero_out: int
    low: int
    high: int


def normalization(node: Node, x: Tensor, result: Tensor, dialect: Dialect) -> Normalization:
    """The output counts in 1/128 around the middle of its range, as LiteRT demands. Raises `PlanError`.

    A row of more values than int32 holds the squares of is refused: LiteRT adds them in int32.

    Source: LiteRT, tflite/kernels/l2norm.cc, Prepare, commit f67457790.
    """
    if x.shape[-1] * 255**2 > INT32_MAX:
        raise PlanError(f"node '{node.name}' (l2_normalize): adds {x.shape[-1]:,} squares, expected at most "
                        f"{INT32_MAX // 255**2:,}, which int32 holds")  # fmt: skip
    unsigned, (low, high) = x.dtype == "uint8", LIMITS[result.dtype]
    middle = 128 if unsigned else 0
    if scale_of(result) != F(1 / 128) or zero_point_of(result) != middle:
        got = scale_of(result), zero_point_of(result)
        raise PlanError(f"node '{node.name}' (l2_normalize): expected an output of scale 1/128, zero point {middle}, "
                        f"got {got[0]:.6g} and {got[1]}; LiteRT refuses that too")  # fmt: skip
    rule = rounding(dialect.rule("l2_normalize"))
    return Normalization(zero_point_of(x), *((128, 0) if unsigned else (1, 7)), rule, middle, low, high)


def _gelu(v: np.float32) -> np.float32:
    return HALF * v * F(math.erfc(v * MINUS_SQRT_HALF))


def _gelu_tanh(v: np.float32) -> np.float32:
    return HALF * v * (ONE + F(math.tanh(GELU_INNER * (v + GELU_CUBE * v * v * v))))


# Source: LiteRT, tflite/kernels/activations.cc, exp.cc, elementwise.cc, internal/reference/gelu.h, commit f67457790.
_FUNCTIONS: Mapping[str, Callable[[np.float32], np.float32]] = {
    "tanh": lambda v: F(math.tanh(v)),
    "elu": lambda v: F(math.expm1(v)) if v < 0 else v,
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "exp": lambda v: exp_float32(min(v, F(88))),
    "log": lambda v: F(math.log(v)) if v > 0 else F(-np.inf),
}


def in_integers(formula: str) -> bool:
    """Whether a runtime defines the function for 8 bits."""
    return formula in _FUNCTIONS or formula in ("abs", "sqrt", "rsqrt")


# Those that TFLite has in uint8, where it converts a step to int32 before it clamps (internal/common.h, LUTPopulate).
_CAST = ("tanh", "gelu", "gelu_tanh")


def _dequantized(q: int, x: Tensor) -> np.float32:
    with np.errstate(over="ignore"):
        return scale_of(x) * F(q - zero_point_of(x))


def _entry(q: int, x: Tensor, result: Tensor, kind: str, even: bool) -> int:
    """round(f(s_in (q - z_in)) * (1 / s_out)) + z_out in float32, half away from zero; `even`: to even, after z_out."""
    with np.errstate(all="ignore"):
        y = _FUNCTIONS[kind](_dequantized(q, x)) * (ONE / scale_of(result))
    zero, (low, high) = F(zero_point_of(result)), LIMITS[result.dtype]
    if np.isnan(y) or (not even and x.dtype == "uint8" and kind in _CAST and abs(y) > 2**31 - 2**8):
        raise PlanError(
            f"tensor '{x.name}' ({x.dtype}): with its scale {scale_of(x):.3g} {kind} of {q} is {y:.3g} steps of the "
            f"scale {scale_of(result):.3g} of '{result.name}', more than int32 holds: quantize '{x.name}' anew"
        )
    if even:
        return int(np.rint(min(max(y + zero, F(low)), F(high))))
    return int(min(max(round_away32(y) + zero if np.isfinite(y) else y, low), high))


def _root(q: int, x: Tensor, result: Tensor) -> int:
    """trunc(sqrt(s_in (q - z_in)) / s_out) + z_out; LiteRT stops at values below zero, which count as 0 here.

    Source: LiteRT, tflite/kernels/elementwise.cc, SqrtEvalQuantized, commit f67457790.
    """
    high = LIMITS[result.dtype][1]
    with np.errstate(over="ignore"):
        steps = min(np.sqrt(max(_dequantized(q, x), F(0))) / scale_of(result), F(2**16))  # more is clamped anyway
    return min(int(steps) + zero_point_of(result), high)


def table_entry(node: Node, x: Tensor, result: Tensor, dialect: Dialect) -> Callable[[int], int]:
    """The function of an 8-bit value that a unary node's table holds, but of abs and rsqrt. Raises `PlanError`."""
    kind = str(node.attrs["formula"])
    rule = dialect.rule("unary", kind)
    if rule == "truncated":
        return partial(_root, x=x, result=result)
    if kind not in _FUNCTIONS or rule == "fixed":
        raise PlanError(
            f"node '{node.name}': {kind} of 8 bits has no rule under dialect '{dialect.name}'; keep it in float32, or "
            "run the model under 'tflite-reference'"
        )
    return partial(_entry, x=x, result=result, kind=kind, even=rule == "float32_even")


def distance(node: Node, x: Tensor, result: Tensor, dialect: Dialect) -> Requantization:
    """abs: what is added to the zero point, |q - z_in| by s_in / s_out, exact where the scales are equal.

    Source: LiteRT, tflite/kernels/elementwise.cc, AbsEvalQuantized, commit f67457790.
    """
    same = scale_of(x) == scale_of(result)
    factor = float(real_factor(node, [x], result, dialect.most_shift))
    rule = "none" if same else dialect.rule("unary", "abs")
    return rescaling(node, factor, x, result, rule, LIMITS[result.dtype], dialect.most_shift)


class InverseRoot(NamedTuple):
    """rsqrt: the factor 1 / (sqrt(s_in) s_out) as multiplier and shift, a Rounding, zero points, the clamp."""

    zero_in: int
    multiplier: int
    shift: int
    rule: int
    zero_out: int
    low: int
    high: int


def inverse_root(node: Node, x: Tensor, result: Tensor, dialect: Dialect) -> InverseRoot:
    """Source: LiteRT, tflite/kernels/elementwise.cc, RsqrtEvalQuantizedInt8, commit f67457790. Raises `PlanError`."""
    with np.errstate(all="ignore"):
        factor = float(1 / np.float64(np.sqrt(scale_of(x)) * scale_of(result)))
    multiplier, shift = multiplier_of(node, factor, [x], result, most=dialect.most_shift)
    rule = rounding(dialect.rule("unary", "rsqrt"))
    return InverseRoot(zero_point_of(x), multiplier, shift, rule, zero_point_of(result), *LIMITS[result.dtype])
