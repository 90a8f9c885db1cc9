"""Binders of the float32 ops: `BINDERS`, op -> function of the node, its input and output arrays and the kernel set."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from npmobilenet.graph import ACTIVATIONS, Node
from npmobilenet.kernels import KernelSet
from npmobilenet.modeldata import Array
from npmobilenet.runtime.binding.context import Step, as_nhwc, top_left


def code_of(node: Node, attr: str = "activation") -> int:
    """The number of the activation that this attribute names."""
    return ACTIVATIONS.index(node.attrs.get(attr, "none"))


def conv2d(node: Node, inputs: list[Array], out: Array, kernels: KernelSet) -> list[Step]:
    """A 1x1 convolution without stride and padding is pointwise: pixels of all images in one matrix."""
    x, weights, bias = inputs
    plain = node.attrs["stride"] == (1, 1) and node.attrs["padding"] == ((0, 0), (0, 0))
    if weights.shape[:2] == (1, 1) and plain:
        matrix = kernels.pack("pointwise_conv2d_f32", weights[0, 0])
        flat = (x.reshape(-1, x.shape[3]), matrix, bias, code_of(node), out.reshape(-1, out.shape[3]))
        return [Step(kernels.pointwise_conv2d_f32, flat, node.name)]
    packed = kernels.pack("conv2d_f32", weights)
    stride, dilation = node.attrs["stride"], node.attrs.get("dilation", (1, 1))
    args = (x, packed, bias, stride, top_left(node), dilation, code_of(node), out)
    return [Step(kernels.conv2d_f32, args, node.name)]


def depthwise_conv2d(node: Node, inputs: list[Array], out: Array, kernels: KernelSet) -> list[Step]:
    """The weights are read as they are; the multiplier shows in the shapes."""
    x, weights, bias = inputs
    dilation = node.attrs.get("dilation", (1, 1))
    args = (x, weights, bias, node.attrs["stride"], top_left(node), dilation, code_of(node), out)
    return [Step(kernels.depthwise_conv2d_f32, args, node.name)]


def fully_connected(node: Node, inputs: list[Array], out: Array, kernels: KernelSet) -> list[Step]:
    """The input as rows, one for each image or, with keepdims, for each of its rows."""
    x, weights, bias = inputs
    matrix = kernels.pack("fully_connected_f32", weights)
    args = (x.reshape(-1, weights.shape[0]), matrix, bias, code_of(node), out.reshape(-1, weights.shape[1]))
    return [Step(kernels.fully_connected_f32, args, node.name)]


def average_pool(node: Node, inputs: list[Array], out: Array, kernels: KernelSet) -> list[Step]:
    """Bottom and right padding show in the output's shape."""
    args = (inputs[0], node.attrs["kernel"], node.attrs["stride"], top_left(node), code_of(node), out)
    return [Step(kernels.average_pool_f32, args, node.name)]


def mean(node: Node, inputs: list[Array], out: Array, kernels: KernelSet) -> list[Step]:
    """Whether the output keeps its dimensions of 1 makes no difference to its memory."""
    return [Step(kernels.mean_f32, (inputs[0], out.reshape(out.shape[0], -1)), node.name)]


def binary(node: Node, inputs: list[Array], out: Array, kernels: KernelSet) -> list[Step]:
    """Add, sub and mul, both operands seen as rank 4."""
    kernel = {"add": kernels.add_f32, "sub": kernels.sub_f32, "mul": kernels.mul_f32}[node.op]
    return [Step(kernel, (as_nhwc(inputs[0]), as_nhwc(inputs[1]), code_of(node), as_nhwc(out)), node.name)]


def activation(node: Node, inputs: list[Array], out: Array, kernels: KernelSet) -> list[Step]:
    """Any shape, seen as one row of elements."""
    args = (inputs[0].reshape(-1), code_of(node, "function"), out.reshape(-1))
    return [Step(kernels.activation_f32, args, node.name)]


def softmax(node: Node, inputs: list[Array], out: Array, kernels: KernelSet) -> list[Step]:
    """All but the last dimension are rows."""
    rows = (-1, out.shape[-1])
    args = (inputs[0].reshape(rows), np.float32(node.attrs["beta"]), out.reshape(rows))
    return [Step(kernels.softmax_f32, args, node.name)]


def pad(node: Node, inputs: list[Array], out: Array, kernels: KernelSet) -> list[Step]:
    """Bottom and right padding show in the output's shape."""
    return [Step(kernels.pad_f32, (inputs[0], top_left(node), out), node.name)]


def reshape(node: Node, inputs: list[Array], out: Array, kernels: KernelSet) -> list[Step]:
    """A copy in row-major order."""
    return [Step(kernels.reshape_f32, (inputs[0].reshape(-1), out.reshape(-1)), node.name)]


def concat(node: Node, inputs: list[Array], out: Array, kernels: KernelSet) -> list[Step]:
    """One step for each operand."""
    axis = node.attrs["axis"]
    outer, inner = math.prod(out.shape[:axis]), math.prod(out.shape[axis + 1 :])
    target = out.reshape(outer, out.shape[axis], inner)
    steps, offset = [], 0
    for x in inputs:
        args = (x.reshape(outer, x.shape[axis], inner), offset, code_of(node), target)
        steps.append(Step(kernels.concat_f32, args, node.name))
        offset += x.shape[axis]
    return steps


def resize_bilinear(node: Node, inputs: list[Array], out: Array, kernels: KernelSet) -> list[Step]:
    """The size shows in the output's shape."""
    args = (inputs[0], bool(node.attrs["align_corners"]), bool(node.attrs["half_pixel_centers"]), out)
    return [Step(kernels.resize_bilinear_f32, args, node.name)]


Binder = Callable[[Node, list[Array], Array, KernelSet], list[Step]]
BINDERS: Mapping[str, Binder] = {
    "conv2d": conv2d,
    "depthwise_conv2d": depthwise_conv2d,
    "fully_connected": fully_connected,
    "average_pool": average_pool,
    "mean": mean,
    "add": binary,
    "sub": binary,
    "mul": binary,
    "activation": activation,
    "softmax": softmax,
    "pad": pad,
    "reshape": reshape,
    "concat": concat,
    "resize_bilinear": resize_bilinear,
}
