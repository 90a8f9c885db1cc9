"""Binders of pools, of the bilinear resize, and of the ops that move values: pad, reshape, concat."""

from __future__ import annotations

import math

import numpy as np

from npmobilenet.arithmetic import elementwise, pooling, resize
from npmobilenet.arithmetic.ranges import LIMITS, check_dtypes, scale_of, zero_point_of
from npmobilenet.runtime.binding.context import NodeContext, Step, code_of, top_left


def _checked(ctx: NodeContext) -> NodeContext:
    if ctx.integer:
        check_dtypes(ctx.node, ctx.operands, ctx.result)
    return ctx


def average_pool(ctx: NodeContext) -> list[Step]:
    """Bottom and right padding show in the output's shape."""
    attrs = _checked(ctx).node.attrs
    where = ctx.inputs[0], attrs["kernel"], attrs["stride"], top_left(ctx.node)
    if ctx.integer:
        return [ctx.step("average_pool_q", *where, pooling.pool(ctx.node, ctx.operands[0], ctx.result), ctx.out)]
    return [ctx.step("average_pool_f32", *where, code_of(ctx.node), ctx.out)]


def mean(ctx: NodeContext) -> list[Step]:
    """Whether the output keeps its dimensions of 1 makes no difference to its memory, but may to its rounding."""
    (x,), out = _checked(ctx).inputs, ctx.out.reshape(ctx.out.shape[0], -1)
    if ctx.integer:
        return [ctx.step("mean_q", x, pooling.mean(ctx.node, ctx.operands[0], ctx.result, ctx.dialect), out)]
    return [ctx.step("mean_f32", x, out)]


def pad(ctx: NodeContext) -> list[Step]:
    """Bottom and right padding show in the output's shape. Filled with real 0: in 8 bits the output's zero point."""
    (x,), at, value = _checked(ctx).inputs, top_left(ctx.node), ctx.node.attrs.get("value", 0)
    if ctx.integer:
        low, high = LIMITS[ctx.result.dtype]
        steps = round(min(max(value / float(scale_of(ctx.result)), low - high), high - low))
        return [ctx.step("pad_q", x, min(max(steps + zero_point_of(ctx.result), low), high), at, ctx.out)]
    return [ctx.step("pad_f32", x, np.float32(value), at, ctx.out)]


def reshape(ctx: NodeContext) -> list[Step]:
    """A copy in row-major order, also of arg_max's places."""
    if {t.dtype for t in (*ctx.operands, ctx.result)} not in ({"int32"}, {"int64"}):
        _checked(ctx)
    kernel = "reshape_q" if ctx.integer else "reshape_f32"
    return [ctx.step(kernel, ctx.inputs[0].reshape(-1), ctx.out.reshape(-1))]


def concat(ctx: NodeContext) -> list[Step]:
    """One step for each operand."""
    node, out, axis = _checked(ctx).node, ctx.out, ctx.node.attrs["axis"]
    outer, inner = math.prod(out.shape[:axis]), math.prod(out.shape[axis + 1 :])
    target = out.reshape(outer, out.shape[axis], inner)
    steps, offset = [], 0
    for tensor, x in zip(ctx.operands, ctx.inputs, strict=True):
        part = x.reshape(outer, x.shape[axis], inner)
        if ctx.integer:
            steps.append(ctx.step("concat_q", part, offset, elementwise.rescaling(node, tensor, ctx.result), target))
        else:
            steps.append(ctx.step("concat_f32", part, offset, code_of(node), target))
        offset += x.shape[axis]
    return steps


def resize_bilinear(ctx: NodeContext) -> list[Step]:
    """The size shows in the output's shape."""
    node, x, result = ctx.node, ctx.operands[0], ctx.result
    if not ctx.integer:
        flags = bool(node.attrs["align_corners"]), bool(node.attrs["half_pixel_centers"])
        return [ctx.step("resize_bilinear_f32", ctx.inputs[0], *flags, ctx.out)]
    resize.check(node, x, result)
    rows, columns, bits, flag = resize.axes(node, x, result, ctx.dialect)
    if bits:
        return [ctx.step("resize_bilinear_fixed_q", ctx.inputs[0], tuple(rows), tuple(columns), bits, flag, ctx.out)]
    return [ctx.step("resize_bilinear_float_q", ctx.inputs[0], tuple(rows), tuple(columns), flag, ctx.out)]
