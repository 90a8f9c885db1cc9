"""Binders of the integer ops without weights: sums, products, pools, and ops that move values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from npmobilenet.arithmetic import elementwise, pooling
from npmobilenet.arithmetic.ranges import check_dtypes, zero_point_of
from npmobilenet.runtime.binding.context import NodeContext, Step, as_nhwc, top_left


def _checked(ctx: NodeContext) -> NodeContext:
    check_dtypes(ctx.node, ctx.operands, ctx.result)
    return ctx


def sums(ctx: NodeContext) -> list[Step]:
    """Add and sub: one kernel, which knows the sign."""
    x, y = _checked(ctx).operands
    p = elementwise.addition(ctx.node, x, y, ctx.result, ctx.dialect)
    args = (as_nhwc(ctx.inputs[0]), as_nhwc(ctx.inputs[1]), p, as_nhwc(ctx.out))
    return [Step(ctx.kernels.add_q, args, ctx.node.name)]


def mul(ctx: NodeContext) -> list[Step]:
    """Both operands seen as rank 4."""
    x, y = _checked(ctx).operands
    p = elementwise.multiplication(ctx.node, x, y, ctx.result, ctx.dialect)
    args = (as_nhwc(ctx.inputs[0]), as_nhwc(ctx.inputs[1]), p, as_nhwc(ctx.out))
    return [Step(ctx.kernels.mul_q, args, ctx.node.name)]


def average_pool(ctx: NodeContext) -> list[Step]:
    """Bottom and right padding show in the output's shape."""
    attrs, p = _checked(ctx).node.attrs, pooling.pool(ctx.node, ctx.operands[0], ctx.result)
    args = (ctx.inputs[0], attrs["kernel"], attrs["stride"], top_left(ctx.node), p, ctx.out)
    return [Step(ctx.kernels.average_pool_q, args, ctx.node.name)]


def mean(ctx: NodeContext) -> list[Step]:
    """Whether the output keeps its dimensions of 1 makes no difference to its memory, but may to its rounding."""
    p = pooling.mean(ctx.node, _checked(ctx).operands[0], ctx.result, ctx.dialect)
    return [Step(ctx.kernels.mean_q, (ctx.inputs[0], p, ctx.out.reshape(ctx.out.shape[0], -1)), ctx.node.name)]


def pad(ctx: NodeContext) -> list[Step]:
    """Filled with the output's zero point; values are moved as they are, as every runtime does."""
    args = (ctx.inputs[0], zero_point_of(_checked(ctx).result), top_left(ctx.node), ctx.out)
    return [Step(ctx.kernels.pad_q, args, ctx.node.name)]


def reshape(ctx: NodeContext) -> list[Step]:
    """A copy in row-major order."""
    _checked(ctx)
    return [Step(ctx.kernels.reshape_q, (ctx.inputs[0].reshape(-1), ctx.out.reshape(-1)), ctx.node.name)]


def concat(ctx: NodeContext) -> list[Step]:
    """One step for each operand."""
    node, out, axis = _checked(ctx).node, ctx.out, ctx.node.attrs["axis"]
    outer, inner = math.prod(out.shape[:axis]), math.prod(out.shape[axis + 1 :])
    target = out.reshape(outer, out.shape[axis], inner)
    steps, offset = [], 0
    for tensor, x in zip(ctx.operands, ctx.inputs, strict=True):
        p = elementwise.rescaling(node, tensor, ctx.result)
        args = (x.reshape(outer, x.shape[axis], inner), offset, p, target)
        steps.append(Step(ctx.kernels.concat_q, args, node.name))
        offset += x.shape[axis]
    return steps


BINDERS: Mapping[str, Callable[[NodeContext], list[Step]]] = {
    "add": sums,
    "sub": sums,
    "mul": mul,
    "average_pool": average_pool,
    "mean": mean,
    "pad": pad,
    "reshape": reshape,
    "concat": concat,
}
