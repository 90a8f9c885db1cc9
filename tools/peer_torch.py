"""A float model of this project as a PyTorch program with the same weights, for a comparison."""

from __future__ import annotations

from typing import Any

import numpy as np

from npmobilenet.graph import Node
from npmobilenet.modeldata import Array, ModelData


def to_torch(data: ModelData, nhwc: Array) -> tuple[Any, Any]:
    """The program, traced and frozen for the shape of `nhwc`, and that input as it wants it (channels last).

    Raises `KeyError` with what there is no rule for.
    """
    import torch

    program = _module(torch, data).eval()
    x = torch.from_numpy(np.ascontiguousarray(nhwc.transpose(0, 3, 1, 2))).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        traced = torch.jit.trace(program, x)
        return torch.jit.optimize_for_inference(torch.jit.freeze(traced)), x


def _module(torch: Any, data: ModelData) -> Any:
    """A module whose `forward` walks the graph; tracing leaves the operations only."""
    functional = torch.nn.functional
    graph = data.graph
    weights: dict[str, Any] = {}
    for node in graph.nodes:
        if any(graph.tensors[name].dtype != "float32" for name in (*node.inputs, node.output)):
            raise KeyError(f"the integer node {node.name}")
        for name in node.inputs:
            if name in data.tensors:
                weights[name] = _weight(torch, node, data.tensors[name])

    def padded(node: Node, x: Any) -> tuple[Any, tuple[int, int]]:
        """PyTorch pads both sides alike; where the model doesn't, zeros are put around by themselves."""
        (top, bottom), (left, right) = node.attrs["padding"]
        if (top, left) == (bottom, right):
            return x, (top, left)
        return functional.pad(x, (left, right, top, bottom)), (0, 0)

    def apply(node: Node, inputs: list[Any]) -> Any:
        x, attrs = inputs[0], node.attrs
        if node.op in ("conv2d", "depthwise_conv2d"):
            x, padding = padded(node, x)
            groups = 1 if node.op == "conv2d" else int(x.shape[1])
            return functional.conv2d(x, *inputs[1:], attrs["stride"], padding, attrs.get("dilation", (1, 1)), groups)
        if node.op == "fully_connected":
            return functional.linear(x.flatten(1), *inputs[1:])
        if node.op == "average_pool" and tuple(attrs["kernel"]) == tuple(x.shape[2:]):
            return functional.adaptive_avg_pool2d(x, 1)
        if node.op == "mean":
            return x.mean((2, 3), keepdim=attrs["keepdims"])
        if node.op in ("add", "sub", "mul"):
            return getattr(torch, node.op)(*inputs)
        if node.op == "softmax":
            return functional.softmax(x * attrs["beta"] if attrs["beta"] != 1 else x, -1)
        if node.op == "reshape" and x[0, 0].numel() == 1:
            shape = graph.tensors[node.output].shape
            return x.reshape(-1, *((shape[3], *shape[1:3]) if len(shape) == 4 else shape[1:]))
        if node.op == "activation":
            return activate(x, attrs["function"])
        raise KeyError(f"{node.op} as in {node.name}")

    def activate(x: Any, name: str) -> Any:
        functions = {
            "none": lambda v: v,
            "relu": functional.relu,
            "relu6": functional.relu6,
            "hard_swish": functional.hardswish,
            "hard_sigmoid": functional.hardsigmoid,
            "hard_sigmoid_slim": lambda v: functional.relu6(v + 3) * 0.16667,
            "sigmoid": torch.sigmoid,
        }
        return functions[name](x)

    class Program(torch.nn.Module):  # type: ignore[misc]  # PyTorch isn't there for mypy
        def forward(self, x: Any) -> Any:
            values = {**weights, graph.inputs[0]: x}
            for node in graph.nodes:
                y = apply(node, [values[name] for name in node.inputs])
                values[node.output] = activate(y, node.attrs.get("activation", "none"))
            return values[graph.outputs[0]]

    return Program()


def _weight(torch: Any, node: Node, array: Array) -> Any:
    """A constant in PyTorch's order of axes."""
    if node.op == "conv2d" and array.ndim == 4:
        array = array.transpose(3, 2, 0, 1)
    elif node.op == "depthwise_conv2d" and array.ndim == 3:
        array = array.transpose(2, 0, 1)[:, None]
    elif node.op == "fully_connected" and array.ndim == 2:
        array = array.T
    elif array.ndim == 4:
        array = array.transpose(0, 3, 1, 2)
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.to(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
