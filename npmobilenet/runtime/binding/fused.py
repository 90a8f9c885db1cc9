"""Binders of groups of nodes that one kernel call computes, as runtime/fusion.py has put them together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from npmobilenet.graph import Node
from npmobilenet.kernels import KernelSet
from npmobilenet.modeldata import Array
from npmobilenet.runtime.binding.context import Step, code_of
from npmobilenet.runtime.binding.row_tiled_block import bind_row_tiled_block, joined, residual


def bind_group(nodes: Sequence[Node], arrays: Mapping[str, Array], kernels: KernelSet) -> Step:
    """The kernel call of several nodes. `arrays` has all tensors but those that only nodes of the group see."""
    if any(node.op == "depthwise_conv2d" for node in nodes):
        return bind_row_tiled_block(nodes, arrays, kernels)
    if nodes[0].op in ("mean", "average_pool"):
        return _squeeze_excite(nodes, arrays, kernels)
    return _convolution_and_addition(nodes, arrays, kernels)


def _convolution_and_addition(nodes: Sequence[Node], arrays: Mapping[str, Array], kernels: KernelSet) -> Step:
    """As the pointwise convolution alone, with what is added before the output."""
    first, last = nodes
    x, weights, bias = (arrays[name] for name in first.inputs)
    matrix, out = kernels.pack("pointwise_conv2d_f32", weights[0, 0]), arrays[last.output]
    flat, more = (array.reshape(-1, array.shape[3]) for array in (out, residual(nodes, arrays)))
    args = (x.reshape(-1, x.shape[3]), matrix, bias, code_of(first), more, flat)
    return Step(kernels.pointwise_add_f32, args, joined(nodes))


def _squeeze_excite(nodes: Sequence[Node], arrays: Mapping[str, Array], kernels: KernelSet) -> Step:
    """Pool, two products, operations with constants, and the multiplication; reshapes between them change no value."""
    pool, *between, last = [node for node in nodes if node.op != "reshape"]
    x, out = arrays[pool.inputs[0]], arrays[last.output]
    products = []
    for node in between[:2]:
        weights, bias = (arrays[name] for name in node.inputs[1:])
        matrix = kernels.pack("pointwise_conv2d_f32", weights.reshape(-1, weights.shape[-1]))
        products.append((matrix, bias, code_of(node)))
    codes = [(("add", "sub", "mul").index(node.op), code_of(node)) for node in between[2:]]
    constants = [arrays[name].item() for node in between[2:] for name in node.inputs if name in arrays]
    scales = np.array(codes, np.int64).reshape(-1, 2), np.array(constants, np.float32)
    return Step(kernels.squeeze_excite_f32, (x, *products, scales, code_of(last), out), joined(nodes))
