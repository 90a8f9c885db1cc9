"""Binders of the ops that have weights: convolutions and fully connected layers."""

from __future__ import annotations

import dataclasses
from typing import Any

from npmobilenet.arithmetic import convolution as conv
from npmobilenet.arithmetic.fixedpoint import Requantization
from npmobilenet.arithmetic.ranges import check_dtypes, zero_point_of
from npmobilenet.modeldata import Array
from npmobilenet.runtime.binding.context import NodeContext, Step, code_of, top_left


def _zero_points_and_requant(ctx: NodeContext) -> tuple[tuple[int, int], Any]:
    """Zero points of input and weights, and the requantization as the kernels read it.

    Raises `GraphError` for dtypes that don't go together, `PlanError` for accumulators that may not fit into int32.
    """
    x, weights, _ = ctx.operands
    check_dtypes(ctx.node, [x, weights], ctx.result if ctx.stage == "output" else x)
    z_in, z_w = zero_point_of(x), conv.weight_zero_point(ctx.node, weights)
    sums, bias = conv.signed_sums(ctx.inputs[1], z_w), ctx.inputs[2]
    bound, requant = conv.accumulator_bound(x, sums, bias, z_in), _requantization(ctx)
    conv.check_accumulators(ctx.node, bound, conv.dead_channels(requant, bound))
    acc_range = conv.accumulator_range(x, sums, bias, z_in)
    return (z_in, z_w), ctx.kernels.requant_q(requant, acc_range, str(ctx.out.dtype))


def _requantization(ctx: NodeContext) -> Requantization:
    """The step after the accumulators, or the part of it that a tap asks for."""
    x, weights, bias = ctx.operands
    if ctx.stage == "accumulator":
        return conv.raw(weights.shape[-1])
    # A tap of the pre-activation writes int32. Its scale and range are those of the output, which has x's dtype.
    result = dataclasses.replace(ctx.result, dtype=x.dtype)
    full = conv.requantization(ctx.node, x, weights, result, ctx.dialect, bias)
    return conv.preactivation(full) if ctx.stage == "preactivation" else full


def _bound(ctx: NodeContext, kernel: str, x: Array, weights: Array, out: Array, *window: Any) -> list[Step]:
    """The call of a layer's kernel for float32 or 8 bits, its weights packed; window: what says where taps lie."""
    bias = ctx.inputs[2]
    if not ctx.integer:
        name = f"{kernel}_f32"
        return [ctx.step(name, x, ctx.kernels.pack(name, weights), bias, *window, code_of(ctx.node), out)]
    name = f"{kernel}_q"
    zero_points, requant = _zero_points_and_requant(ctx)
    where = (*window, out.shape[2]) if kernel == "conv2d" else ()  # not the batch: its plans share what is packed
    packed, taps = ctx.kernels.pack_q(name, weights, bias, zero_points, *where), (weights.shape[:2],) if window else ()
    return [ctx.step(name, x, *packed, zero_points, *taps, *window, requant, out)]


def _window(ctx: NodeContext) -> tuple[Any, ...]:
    return ctx.node.attrs["stride"], top_left(ctx.node), ctx.node.attrs.get("dilation", (1, 1))


def conv2d(ctx: NodeContext) -> list[Step]:
    """A 1x1 convolution without stride and padding is pointwise: pixels of all images in one matrix."""
    x, weights, _ = ctx.inputs
    plain = ctx.node.attrs["stride"] == (1, 1) and ctx.node.attrs["padding"] == ((0, 0), (0, 0))
    if weights.shape[:2] == (1, 1) and plain:
        flat, out = x.reshape(-1, x.shape[3]), ctx.out.reshape(-1, ctx.out.shape[3])
        return _bound(ctx, "pointwise_conv2d", flat, weights[0, 0], out)
    return _bound(ctx, "conv2d", x, weights, ctx.out, *_window(ctx))


def depthwise_conv2d(ctx: NodeContext) -> list[Step]:
    """The multiplier shows in the shapes."""
    return _bound(ctx, "depthwise_conv2d", ctx.inputs[0], ctx.inputs[1], ctx.out, *_window(ctx))


def fully_connected(ctx: NodeContext) -> list[Step]:
    """The input as rows, one for each image or, with keepdims, for each of its rows."""
    x, weights, _ = ctx.inputs
    rows, out = x.reshape(-1, weights.shape[0]), ctx.out.reshape(-1, weights.shape[1])
    return _bound(ctx, "fully_connected", rows, weights, out)
