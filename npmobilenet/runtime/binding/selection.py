"""Binders of ops that pick values out or move them, and of those that multiply negative values, for all dtypes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from npmobilenet.arithmetic import pooling, resize, tables
from npmobilenet.arithmetic.fixedpoint import everywhere
from npmobilenet.arithmetic.ranges import LIMITS, check_dtypes, scale_of, zero_point_of
from npmobilenet.errors import PlanError
from npmobilenet.kernels.reference.activation import rescaled
from npmobilenet.modeldata import Array
from npmobilenet.runtime.binding.context import NodeContext, Step, as_nhwc, code_of, top_left
from npmobilenet.runtime.binding.functions import lookup


def _is_float(ctx: NodeContext) -> bool:
    return ctx.operands[0].dtype == "float32"


def _step(ctx: NodeContext, kernel: str, *args: object) -> list[Step]:
    """A call of the kernel for the first operand's dtype."""
    return [ctx.step(kernel + ("_f32" if _is_float(ctx) else "_q"), *args)]


def _same_units(ctx: NodeContext) -> None:
    """Values are moved as they are, so integers must mean the same. Raises `PlanError`, `GraphError`."""
    if not _is_float(ctx):
        check_dtypes(ctx.node, ctx.operands, ctx.result)
        resize.check(ctx.node, ctx.operands[0], ctx.result)


def transpose(ctx: NodeContext) -> list[Step]:
    """Strides of the input in the order of the output's axes."""
    _same_units(ctx)
    x, order = ctx.inputs[0], ctx.node.attrs["order"]
    return _strided(ctx, 0, [x.strides[axis] // x.itemsize for axis in order])


def slice_(ctx: NodeContext) -> list[Step]:
    """The input's strides, from the first index of the axis on."""
    _same_units(ctx)
    x, axis = ctx.inputs[0], ctx.node.attrs["axis"]
    strides = [stride // x.itemsize for stride in x.strides]
    offset = ctx.node.attrs["first"] * strides[axis]
    strides[axis] *= ctx.node.attrs.get("step", 1)
    return _strided(ctx, offset, strides)


def _strided(ctx: NodeContext, offset: int, strides: list[int]) -> list[Step]:
    """Up to rank 4: axes of 1 go between the batch and the rest, as in as_nhwc. Of more, stretches become one axis."""
    shape = ctx.out.shape
    if len(shape) > 4:
        shape, strides = _merged(shape, strides)
    more = 4 - len(shape)
    if more < 0:
        raise PlanError(f"node '{ctx.node.name}' ({ctx.node.op}): {len(shape)} separate axes, expected at most 4")
    out = ctx.out.reshape(shape[0], *(1,) * more, *shape[1:])
    return _step(ctx, "transpose", ctx.inputs[0].reshape(-1), offset, (strides[0], *(0,) * more, *strides[1:]), out)


def _merged(shape: tuple[int, ...], strides: list[int]) -> tuple[tuple[int, ...], list[int]]:
    """Sizes and strides where neighbouring axes that are one stretch of the input are one axis."""
    sizes, steps = [shape[0]], [strides[0]]
    for size, stride in zip(shape[1:], strides[1:], strict=True):
        if size == 1:
            continue
        if steps[-1] == size * stride or sizes[-1] == 1:
            sizes[-1], steps[-1] = sizes[-1] * size, stride
        else:
            sizes, steps = [*sizes, size], [*steps, stride]
    return tuple(sizes), steps


def max_pool(ctx: NodeContext) -> list[Step]:
    """Bottom and right padding show in the output's shape."""
    node, x, out = ctx.node, ctx.inputs[0], ctx.out
    window = node.attrs["kernel"], node.attrs["stride"], top_left(node)
    if _is_float(ctx):
        return _step(ctx, "max_pool", x, *window, code_of(node), out)
    _same_units(ctx)
    p = pooling.pool(node, ctx.operands[0], ctx.result)
    return _step(ctx, "max_pool", x, LIMITS[ctx.result.dtype][0], *window, p, out)


def resize_nearest(ctx: NodeContext) -> list[Step]:
    """Tables say which pixel each output takes."""
    _same_units(ctx)
    rows, columns = resize.nearest(ctx.node, ctx.operands[0], ctx.result, ctx.dialect)
    return _step(ctx, "resize_nearest", ctx.inputs[0], rows, columns, ctx.out)


def arg_max(ctx: NodeContext) -> list[Step]:
    """The axis between what lies before and behind it. Places stand for themselves, in any dtype."""
    if ctx.result.dtype in LIMITS and (scale_of(ctx.result) != 1 or zero_point_of(ctx.result) != 0):
        raise PlanError(f"node '{ctx.node.name}' (arg_max): places of {ctx.result.dtype} with a scale; expected none")
    x, axis = ctx.inputs[0], ctx.node.attrs["axis"]
    outer, inner = math.prod(x.shape[:axis]), math.prod(x.shape[axis + 1 :])
    return _step(ctx, "arg_max", x.reshape(outer, x.shape[axis], inner), ctx.out.reshape(outer, inner))


def extremum(ctx: NodeContext) -> list[Step]:
    """minimum, maximum: both operands seen as rank 4; integers must mean the same in all three."""
    _same_units(ctx)
    if not _is_float(ctx):
        resize.check(ctx.node, ctx.operands[1], ctx.result)
    return _step(ctx, ctx.node.op, *(as_nhwc(array) for array in (*ctx.inputs, ctx.out)))


def prelu(ctx: NodeContext) -> list[Step]:
    """Rows of as many values as there are factors: the last axis where the others share them, else whole images."""
    if not ctx.operands[1].constant or ctx.operands[1].shape[0] != 1 or ctx.out.ndim != ctx.inputs[0].ndim:
        raise PlanError(f"node '{ctx.node.name}' (prelu): expected constant factors, one for each channel or pixel")
    alpha, shape = ctx.inputs[1][0], ctx.out.shape[1:]
    if math.prod(alpha.shape[:-1]) == 1:
        alpha, shape = alpha.reshape(-1), shape[-1:]
    flat: Array = np.ascontiguousarray(np.broadcast_to(alpha, shape)).reshape(-1)
    rows = ctx.inputs[0].reshape(-1, flat.size), flat
    if _is_float(ctx):
        return _step(ctx, "prelu", *rows, ctx.out.reshape(-1, flat.size))
    check_dtypes(ctx.node, ctx.operands, ctx.result)
    x, factors = ctx.operands
    p = tables.prelu(ctx.node, x, factors, ctx.result, ctx.dialect)
    return _step(ctx, "prelu", *rows, p, ctx.out.reshape(-1, flat.size))


def leaky_relu(ctx: NodeContext) -> list[Step]:
    """As prelu with one factor; of integers a table."""
    if _is_float(ctx):
        width = ctx.out.shape[-1]
        alpha = np.full(width, ctx.node.attrs["alpha"], np.float32)
        return _step(ctx, "prelu", ctx.inputs[0].reshape(-1, width), alpha, ctx.out.reshape(-1, width))
    check_dtypes(ctx.node, ctx.operands, ctx.result)
    x = ctx.operands[0]
    up, down = tables.leaky_relu(ctx.node, x, ctx.result, ctx.dialect)
    zero = zero_point_of(x)

    def one(q: int) -> Any:
        return rescaled(q, zero, up if q >= zero else down)  # type: ignore[no-untyped-call]

    return lookup(ctx, (one, one, everywhere(0)))
