"""Binders of the integer ops that are functions of single values, and of softmax and bilinear resize."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from npmobilenet.arithmetic import edges, resize, softmax, tables
from npmobilenet.arithmetic.ranges import LIMITS, scale_of, zero_point_of
from npmobilenet.errors import PlanError
from npmobilenet.kernels.reference.activation import hard_swish_16, rescaled
from npmobilenet.kernels.reference.softmax import exp_negative
from npmobilenet.modeldata import Array
from npmobilenet.runtime.binding.context import NodeContext, Step

Function = Callable[[int], Any]


def lookup_tables(ctx: NodeContext) -> tuple[Array, int]:
    """What `lookup_q` gets for a node: two tables (2, 256), and the number of an image's elements under the first.

    Entry b is the function of the 8-bit value whose bits are b (for int8, entries from 128 on are negative values).
    """
    makers = {"activation": _activation, "quantize": _requantize, "dequantize": _dequantize}
    first, rest, split = makers[ctx.node.op](ctx)
    high = LIMITS[ctx.operands[0].dtype][1]
    values = [b - 256 if b > high else b for b in range(256)]
    entries = [first(v) for v in values]
    others = entries if rest is first else [rest(v) for v in values]
    return np.array([entries, others], ctx.result.dtype), split


def _activation(ctx: NodeContext) -> tuple[Function, Function, int]:
    node, x, result = ctx.node, ctx.operands[0], ctx.result
    function = node.attrs["function"]
    if x.dtype not in LIMITS or result.dtype != x.dtype:
        raise PlanError(
            f"node '{node.name}' ({function}): expected uint8 to uint8 or int8 to int8, got {x.dtype} to {result.dtype}"
        )
    if function == "hard_swish":
        one: Function = partial(hard_swish_16, p=tables.hard_swish(node, x, result))
    elif function == "sigmoid":
        tables.check_logistic(node, result)
        logistic = {"float32": tables.logistic_float32, "float64": tables.logistic_float64}
        one = partial(logistic[ctx.dialect.rule("activation", "sigmoid")], x=x, result=result)
    elif function.startswith("relu"):
        one = partial(rescaled, zero_point=zero_point_of(x), requant=tables.clipping(node, x, result, ctx.dialect))
    else:
        raise PlanError(
            f"node '{node.name}': {function} has no integer rule: TFLite has no such op and writes it as ADD with a "
            "fused RELU6, then MUL. Export the model through TensorFlow's converter, which does so"
        )
    return one, one, x.size


def _requantize(ctx: NodeContext) -> tuple[Function, Function, int]:
    first, rest, split = edges.requantizing(ctx.node, ctx.operands[0], ctx.result, ctx.dialect)
    z_in = zero_point_of(ctx.operands[0])
    return partial(rescaled, zero_point=z_in, requant=first), partial(rescaled, zero_point=z_in, requant=rest), split


def _dequantize(ctx: NodeContext) -> tuple[Function, Function, int]:
    x = ctx.operands[0]
    first, rest, split = edges.dequantizing(x, ctx.dialect)
    return partial(edges.dequantized, x=x, rule=first), partial(edges.dequantized, x=x, rule=rest), split


def _images(array: Array) -> Array:
    return array.reshape(array.shape[0], -1)


def _lookup(ctx: NodeContext) -> list[Step]:
    args = (_images(ctx.inputs[0]), *lookup_tables(ctx), _images(ctx.out))
    return [Step(ctx.kernels.lookup_q, args, ctx.node.name)]


def activation(ctx: NodeContext) -> list[Step]:
    """Any function of one 8-bit value is a table."""
    return _lookup(ctx)


def dequantize(ctx: NodeContext) -> list[Step]:
    """To float32: a table of 256 real values."""
    edges.check_types(ctx.node, ctx.operands[0], ctx.result)
    return _lookup(ctx)


def quantize(ctx: NodeContext) -> list[Step]:
    """From float32; or from integers, which is a table."""
    x, result = ctx.operands[0], ctx.result
    edges.check_types(ctx.node, x, result)
    if x.dtype != "float32":
        return _lookup(ctx)
    first, rest, split = edges.quantizing(x, ctx.dialect)
    rules = edges.QUANTIZATIONS.index(first), edges.QUANTIZATIONS.index(rest)
    step = (zero_point_of(result), *LIMITS[result.dtype])
    args = (_images(ctx.inputs[0]), scale_of(result), rules, split, step, _images(ctx.out))
    return [Step(ctx.kernels.quantize_q, args, ctx.node.name)]


def softmax_(ctx: NodeContext) -> list[Step]:
    """All but the last dimension are rows."""
    node, x, result = ctx.node, ctx.operands[0], ctx.result
    softmax.check(node, x, result)
    rows, limits = (-1, ctx.out.shape[-1]), LIMITS[result.dtype]
    flat, out = ctx.inputs[0].reshape(rows), ctx.out.reshape(rows)
    rule = ctx.dialect.rule("softmax")
    if rule == "float32":
        step = (zero_point_of(result), *limits)
        args = (flat, softmax.float_exponentials(node, x), scale_of(result), step, out)
        return [Step(ctx.kernels.softmax_float_q, args, node.name)]
    exponentials = softmax.fixed_exponentials(node, x, rule, exp_negative)
    return [Step(ctx.kernels.softmax_fixed_q, (flat, exponentials, *limits, out), node.name)]


def resize_bilinear(ctx: NodeContext) -> list[Step]:
    """The size shows in the output's shape."""
    node, x, result = ctx.node, ctx.operands[0], ctx.result
    resize.check(node, x, result)
    rows, columns, bits, flag = resize.axes(node, x, result, ctx.dialect)
    if bits:
        args = (ctx.inputs[0], tuple(rows), tuple(columns), bits, flag, ctx.out)
        return [Step(ctx.kernels.resize_bilinear_fixed_q, args, node.name)]
    return [
        Step(
            ctx.kernels.resize_bilinear_float_q,
            (ctx.inputs[0], tuple(rows), tuple(columns), flag, ctx.out),
            node.name,
        )
    ]


BINDERS: Mapping[str, Callable[[NodeContext], list[Step]]] = {
    "activation": activation,
    "softmax": softmax_,
    "quantize": quantize,
    "dequantize": dequantize,
    "resize_bilinear": resize_bilinear,
}
