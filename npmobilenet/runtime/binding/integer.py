"""Binders of the integer ops: `BINDERS`, op -> function of a Site."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from npmobilenet.arithmetic import convolution as conv
from npmobilenet.arithmetic.fixedpoint import Requantization
from npmobilenet.arithmetic.ranges import check_dtypes, zero_point_of
from npmobilenet.runtime.binding import integer_elementwise, integer_functions
from npmobilenet.runtime.binding.context import Site, Step, corner

LARGEST_PANEL = 64  # output channels that a fast kernel of any instruction set computes together, at most


def _zeros_and_step(site: Site) -> tuple[tuple[int, int], Any]:
    """Zero points of input and weights, and the step after the accumulators as the kernels read it.

    Raises `GraphError` for dtypes that don't go together, `PlanError` for accumulators that may not fit into int32.
    """
    x, weights, _ = site.operands
    check_dtypes(site.node, [x, weights], site.result if site.stage == "output" else x)
    z_in, z_w = zero_point_of(x), conv.weight_zero_point(site.node, weights)
    sums, bias = conv.signed_sums(site.inputs[1], z_w), site.inputs[2]
    conv.check_accumulators(site.node, x, sums, bias, z_in)
    reach = conv.accumulator_reach(x, sums, bias, z_in)
    return (z_in, z_w), site.kernels.step_q(_requantization(site), reach, str(site.out.dtype))


def _requantization(site: Site) -> Requantization:
    """The step after the accumulators, or the part of it that a tap asks for."""
    x, weights, bias = site.operands
    if site.stage == "accumulator":
        return _padded(conv.raw(weights.shape[-1]))
    result = dataclasses.replace(site.result, dtype=x.dtype)  # of a pre-activation tap it is int32
    full = conv.requantization(site.node, x, weights, result, site.dialect, bias)
    return _padded(conv.preactivation(full) if site.stage == "preactivation" else full)


def _padded(step: Requantization) -> Requantization:
    """The channels' parameters filled up with zeros to whole panels: fast kernels compute the last panel whole."""
    channels = len(step.multiplier)
    more = -channels % LARGEST_PANEL
    multiplier, shift, scale = (np.pad(array, (0, more)) for array in (step.multiplier, step.shift, step.scale))
    return step._replace(multiplier=multiplier, shift=shift, scale=scale)


def conv2d(site: Site) -> list[Step]:
    """A 1x1 convolution without stride and padding is pointwise: pixels of all images in one matrix."""
    node, (x, weights, bias), out, kernels = site.node, site.inputs, site.out, site.kernels
    zeros, step = _zeros_and_step(site)
    plain = node.attrs["stride"] == (1, 1) and node.attrs["padding"] == ((0, 0), (0, 0))
    if weights.shape[:2] == (1, 1) and plain:
        packed = kernels.pack_q("pointwise_conv2d_q", weights[0, 0], bias, zeros)
        flat = (x.reshape(-1, x.shape[3]), *packed, zeros, step, out.reshape(-1, out.shape[3]))
        return [Step(kernels.pointwise_conv2d_q, flat, node.name)]
    packed = kernels.pack_q("conv2d_q", weights, bias, zeros)
    dilation = node.attrs.get("dilation", (1, 1))
    args = (x, *packed, zeros, weights.shape[:2], node.attrs["stride"], corner(node), dilation, step, out)
    return [Step(kernels.conv2d_q, args, node.name)]


def depthwise_conv2d(site: Site) -> list[Step]:
    """The multiplier shows in the shapes."""
    node, (x, weights, bias), kernels = site.node, site.inputs, site.kernels
    zeros, step = _zeros_and_step(site)
    packed = kernels.pack_q("depthwise_conv2d_q", weights, bias, zeros)
    dilation = node.attrs.get("dilation", (1, 1))
    args = (x, *packed, zeros, weights.shape[:2], node.attrs["stride"], corner(node), dilation, step, site.out)
    return [Step(kernels.depthwise_conv2d_q, args, node.name)]


def fully_connected(site: Site) -> list[Step]:
    """The input is flattened to one row for each image."""
    x, weights, bias = site.inputs
    zeros, step = _zeros_and_step(site)
    packed = site.kernels.pack_q("fully_connected_q", weights, bias, zeros)
    args = (x.reshape(x.shape[0], -1), *packed, zeros, step, site.out)
    return [Step(site.kernels.fully_connected_q, args, site.node.name)]


Binder = Callable[[Site], list[Step]]
BINDERS: Mapping[str, Binder] = {
    "conv2d": conv2d,
    "depthwise_conv2d": depthwise_conv2d,
    "fully_connected": fully_connected,
    **integer_elementwise.BINDERS,
    **integer_functions.BINDERS,
}
