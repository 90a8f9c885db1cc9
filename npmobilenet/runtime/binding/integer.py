"""Binders of the integer ops: `BINDERS`, op -> function of a NodeContext."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from npmobilenet.arithmetic import convolution as conv
from npmobilenet.arithmetic.fixedpoint import Requantization
from npmobilenet.arithmetic.ranges import check_dtypes, zero_point_of
from npmobilenet.runtime.binding import integer_elementwise, integer_functions
from npmobilenet.runtime.binding.context import NodeContext, Step, top_left

LARGEST_PANEL = 64  # output channels that a fast kernel of any instruction set computes together, at most


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
        return _padded(conv.raw(weights.shape[-1]))
    # A tap of the pre-activation writes int32. Its scale and range are those of the output, which has x's dtype.
    result = dataclasses.replace(ctx.result, dtype=x.dtype)
    full = conv.requantization(ctx.node, x, weights, result, ctx.dialect, bias)
    return _padded(conv.preactivation(full) if ctx.stage == "preactivation" else full)


def _padded(requant: Requantization) -> Requantization:
    """The channels' parameters filled up with zeros to whole panels: fast kernels compute the last panel whole."""
    channels = len(requant.multiplier)
    more = -channels % LARGEST_PANEL
    multiplier, shift, scale = (
        np.pad(array, (0, more)) for array in (requant.multiplier, requant.shift, requant.scale)
    )
    return requant._replace(multiplier=multiplier, shift=shift, scale=scale)


def conv2d(ctx: NodeContext) -> list[Step]:
    """A 1x1 convolution without stride and padding is pointwise: pixels of all images in one matrix."""
    node, (x, weights, bias), out, kernels = ctx.node, ctx.inputs, ctx.out, ctx.kernels
    zero_points, requant = _zero_points_and_requant(ctx)
    plain = node.attrs["stride"] == (1, 1) and node.attrs["padding"] == ((0, 0), (0, 0))
    if weights.shape[:2] == (1, 1) and plain:
        packed = kernels.pack_q("pointwise_conv2d_q", weights[0, 0], bias, zero_points)
        flat = (x.reshape(-1, x.shape[3]), *packed, zero_points, requant, out.reshape(-1, out.shape[3]))
        return [Step(kernels.pointwise_conv2d_q, flat, node.name)]
    packed = kernels.pack_q("conv2d_q", weights, bias, zero_points)
    dilation = node.attrs.get("dilation", (1, 1))
    args = (x, *packed, zero_points, weights.shape[:2], node.attrs["stride"], top_left(node), dilation, requant, out)
    return [Step(kernels.conv2d_q, args, node.name)]


def depthwise_conv2d(ctx: NodeContext) -> list[Step]:
    """The multiplier shows in the shapes."""
    node, (x, weights, bias), kernels = ctx.node, ctx.inputs, ctx.kernels
    zero_points, requant = _zero_points_and_requant(ctx)
    packed = kernels.pack_q("depthwise_conv2d_q", weights, bias, zero_points)
    dilation = node.attrs.get("dilation", (1, 1))
    args = (
        x,
        *packed,
        zero_points,
        weights.shape[:2],
        node.attrs["stride"],
        top_left(node),
        dilation,
        requant,
        ctx.out,
    )
    return [Step(kernels.depthwise_conv2d_q, args, node.name)]


def fully_connected(ctx: NodeContext) -> list[Step]:
    """The input as rows, one for each image or, with keepdims, for each of its rows."""
    x, weights, bias = ctx.inputs
    zero_points, requant = _zero_points_and_requant(ctx)
    packed = ctx.kernels.pack_q("fully_connected_q", weights, bias, zero_points)
    rows, out = x.reshape(-1, weights.shape[0]), ctx.out.reshape(-1, weights.shape[1])
    args = (rows, *packed, zero_points, requant, out)
    return [Step(ctx.kernels.fully_connected_q, args, ctx.node.name)]


Binder = Callable[[NodeContext], list[Step]]
BINDERS: Mapping[str, Binder] = {
    "conv2d": conv2d,
    "depthwise_conv2d": depthwise_conv2d,
    "fully_connected": fully_connected,
    **integer_elementwise.BINDERS,
    **integer_functions.BINDERS,
}
