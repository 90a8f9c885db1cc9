"""Binders of the ops on single values: sums and products, activations, quantize and dequantize; and of softmax."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from npmobilenet.arithmetic import edges, elementwise, softmax, tables, unary
from npmobilenet.arithmetic.fixedpoint import everywhere
from npmobilenet.arithmetic.ranges import LIMITS, check_dtypes, scale_of, zero_point_of
from npmobilenet.errors import PlanError
from npmobilenet.kernels.reference.activation import hard_swish_16, logistic_fixed, rescaled
from npmobilenet.kernels.reference.l2_normalize import inverse_root
from npmobilenet.kernels.reference.softmax import exp_negative
from npmobilenet.modeldata import Array
from npmobilenet.ops import UNARY
from npmobilenet.runtime.binding.context import NodeContext, Step, as_nhwc, code_of

Function = Callable[[int], Any]
Functions = edges.ByPlace[Function]


def lookup(ctx: NodeContext, functions: Functions) -> list[Step]:
    """Functions of one 8-bit value as tables (2, 256), and which of them an element is looked up in.

    Entry b is the function of the 8-bit value whose bits are b (for int8, entries from 128 on are negative values).
    """
    first, rest, which = functions
    high = LIMITS[ctx.operands[0].dtype][1]
    values = [b - 256 if b > high else b for b in range(256)]
    entries = [first(v) for v in values]
    others = entries if rest is first else [rest(v) for v in values]
    made = np.array([entries, others], ctx.result.dtype)
    return [Step(ctx.kernels.lookup_q, (_images(ctx.inputs[0]), made, which, _images(ctx.out)), ctx.node.name)]


def _activation(ctx: NodeContext) -> Functions:
    node, x, result = ctx.node, ctx.operands[0], ctx.result
    function = node.attrs["function"]
    if x.dtype not in LIMITS or result.dtype != x.dtype:
        raise PlanError(
            f"node '{node.name}' ({function}): expected uint8 to uint8 or int8 to int8, got {x.dtype} to {result.dtype}"
        )
    if function == "hard_swish":
        parameters = tables.hard_swish(node, x, result, ctx.dialect.rule("activation", "hard_swish"))
        one: Function = partial(hard_swish_16, p=parameters)
    elif function == "sigmoid":
        tables.check_logistic(node, result)
        rule = ctx.dialect.rule("activation", "sigmoid")
        if rule.startswith("fixed"):
            one = partial(logistic_fixed, p=tables.logistic(x, result, rule))
        else:
            floats = {"float32": tables.logistic_float32, "float64": tables.logistic_float64,
                      "clamped64": tables.logistic_clamped}  # fmt: skip
            one = partial(floats[rule], x=x, result=result)
    elif function.startswith("relu"):
        one = partial(rescaled, zero_point=zero_point_of(x), requant=tables.clipping(node, x, result, ctx.dialect))
    else:
        raise PlanError(
            f"node '{node.name}': {function} has no integer rule: TFLite has no such op and writes it as ADD with a "
            "fused RELU6, then MUL. Export the model through TensorFlow's converter, which does so"
        )
    return one, one, everywhere(0)


def _requantize(ctx: NodeContext) -> Functions:
    first, rest, which = edges.requantizing(ctx.node, ctx.operands[0], ctx.result, ctx.dialect)
    z_in = zero_point_of(ctx.operands[0])
    return partial(rescaled, zero_point=z_in, requant=first), partial(rescaled, zero_point=z_in, requant=rest), which


def _dequantize(ctx: NodeContext) -> Functions:
    x = ctx.operands[0]
    first, rest, which = edges.dequantizing(x, ctx.dialect)
    return partial(edges.dequantized, x=x, rule=first), partial(edges.dequantized, x=x, rule=rest), which


def _images(array: Array) -> Array:
    return array.reshape(array.shape[0], -1)


def binary(ctx: NodeContext) -> list[Step]:
    """Add, sub and mul, both operands seen as rank 4. In 8 bits one kernel adds and subtracts: it knows the sign."""
    node, arrays = ctx.node, [as_nhwc(array) for array in (*ctx.inputs, ctx.out)]
    if not ctx.integer:
        return [ctx.step(f"{node.op}_f32", *arrays[:2], code_of(node), arrays[2])]
    check_dtypes(node, ctx.operands, ctx.result)
    x, y = ctx.operands
    if node.op == "mul":
        product = elementwise.multiplication(node, x, y, ctx.result, ctx.dialect)
        return [ctx.step("mul_q", *arrays[:2], product, arrays[2])]
    return [ctx.step("add_q", *arrays[:2], elementwise.addition(node, x, y, ctx.result, ctx.dialect), arrays[2])]


def activation(ctx: NodeContext) -> list[Step]:
    """Any shape, seen as one row of elements. Any function of one 8-bit value is a table."""
    if ctx.integer:
        return lookup(ctx, _activation(ctx))
    return [ctx.step("activation_f32", ctx.inputs[0].reshape(-1), code_of(ctx.node, "function"), ctx.out.reshape(-1))]


def unary_(ctx: NodeContext) -> list[Step]:
    """Any shape, seen as one row of elements; of 8 bits a table."""
    node, x, result = ctx.node, ctx.operands[0], ctx.result
    kind = str(node.attrs["formula"])
    if not ctx.integer:
        return [ctx.step("unary_f32", ctx.inputs[0].reshape(-1), UNARY.index(kind), ctx.out.reshape(-1))]
    check_dtypes(node, ctx.operands, result)
    if kind == "abs":
        requant, zero = unary.distance(node, x, result, ctx.dialect), zero_point_of(x)
        one: Function = lambda q: rescaled(abs(q - zero), 0, requant)  # type: ignore[no-untyped-call] # noqa: E731
    elif kind == "rsqrt":
        one = partial(inverse_root, p=unary.inverse_root(node, x, result, ctx.dialect))
    else:
        one = unary.table_entry(node, x, result, ctx.dialect)
    return lookup(ctx, (one, one, everywhere(0)))


def l2_normalize(ctx: NodeContext) -> list[Step]:
    """All but the last dimension are rows."""
    rows = (-1, ctx.out.shape[-1])
    flat, out = ctx.inputs[0].reshape(rows), ctx.out.reshape(rows)
    if not ctx.integer:
        return [ctx.step("l2_normalize_f32", flat, out)]
    check_dtypes(ctx.node, ctx.operands, ctx.result)
    return [
        ctx.step("l2_normalize_q", flat, unary.normalization(ctx.node, ctx.operands[0], ctx.result, ctx.dialect), out)
    ]


def dequantize(ctx: NodeContext) -> list[Step]:
    """To float32: a table of 256 real values."""
    edges.check_types(ctx.node, ctx.operands[0], ctx.result)
    return lookup(ctx, _dequantize(ctx))


def quantize(ctx: NodeContext) -> list[Step]:
    """From float32; or from integers, which is a table."""
    x, result = ctx.operands[0], ctx.result
    edges.check_types(ctx.node, x, result)
    if x.dtype != "float32":
        return lookup(ctx, _requantize(ctx))
    step = (zero_point_of(result), *LIMITS[result.dtype])
    args = (_images(ctx.inputs[0]), scale_of(result), edges.quantizing(x, ctx.dialect), step, _images(ctx.out))
    return [Step(ctx.kernels.quantize_q, args, ctx.node.name)]


def softmax_(ctx: NodeContext) -> list[Step]:
    """All but the last dimension are rows."""
    node, x, result = ctx.node, ctx.operands[0], ctx.result
    rows = (-1, ctx.out.shape[-1])
    flat, out = ctx.inputs[0].reshape(rows), ctx.out.reshape(rows)
    if not ctx.integer:
        return [ctx.step("softmax_f32", flat, np.float32(node.attrs["beta"]), out)]
    softmax.check(node, x, result)
    rule, limits = ctx.dialect.rule("softmax"), LIMITS[result.dtype]
    if rule == "float32":
        step = (zero_point_of(result), *limits)
        return [ctx.step("softmax_float_q", flat, softmax.float_exponentials(node, x), scale_of(result), step, out)]
    if rule == "lut16":
        step = (zero_point_of(result), *limits)
        return [ctx.step("softmax_lut_q", flat, softmax.table_of_16_bits(node, x), scale_of(result), step, out)]
    exponentials = softmax.fixed_exponentials(node, x, rule, exp_negative)
    return [ctx.step("softmax_fixed_q", flat, exponentials, *limits, out)]
