"""A float model of this project as an ONNX graph with the same weights, for ONNX Runtime to run in a comparison."""

from __future__ import annotations

from typing import Any

import numpy as np

from npmobilenet.graph import Node
from npmobilenet.modeldata import Array, ModelData

OPSET = 17


def to_onnx(data: ModelData, batch: int) -> bytes:
    """The ONNX file, channels first, for a fixed batch. Raises `KeyError` with what there is no rule for."""
    return _Export(data, batch).file()


class _Export:
    def __init__(self, data: ModelData, batch: int) -> None:
        from onnx import helper, numpy_helper

        self.data, self.batch, self.helper, self.numpy_helper = data, batch, helper, numpy_helper
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def file(self) -> bytes:
        from onnx import TensorProto

        graph, helper = self.data.graph, self.helper
        for node in graph.nodes:
            if any(graph.tensors[name].dtype != "float32" for name in (*node.inputs, node.output)):
                raise KeyError(f"the integer node {node.name}")
            self.node(node)
        (x,), (y,) = graph.inputs, graph.outputs
        shape = graph.tensors[x].shape
        ports = [
            helper.make_tensor_value_info(x, TensorProto.FLOAT, (self.batch, shape[3], shape[1], shape[2])),
            helper.make_tensor_value_info(y, TensorProto.FLOAT, None),
        ]
        made = helper.make_graph(self.nodes, "model", ports[:1], ports[1:], self.constants)
        model = helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
        found: bytes = model.SerializeToString()
        return found

    def constant(self, name: str, array: Array) -> str:
        self.constants.append(self.numpy_helper.from_array(np.array(array, order="C"), name))
        return name

    def scalar(self, node: Node, value: float) -> str:
        return self.constant(f"{node.output}/{len(self.constants)}", np.array(value, np.float32))

    def emit(self, op: str, inputs: list[str], output: str, **attrs: Any) -> str:
        self.nodes.append(self.helper.make_node(op, inputs, [output], **attrs))
        return output

    def node(self, node: Node) -> None:
        activation = node.attrs.get("activation", "none")
        if node.op == "activation":
            self.activate(node, node.inputs[0], node.attrs["function"], node.output)
            return
        target = node.output if activation == "none" else f"{node.output}/before"
        self.plain(node, target)
        if activation != "none":
            self.activate(node, target, activation, node.output)

    def plain(self, node: Node, out: str) -> None:
        graph, tensors, attrs = self.data.graph, self.data.tensors, node.attrs
        x = node.inputs[0]
        shape = graph.tensors[node.output].shape
        if node.op in ("conv2d", "depthwise_conv2d"):
            weights = tensors[node.inputs[1]]
            order = (3, 2, 0, 1) if node.op == "conv2d" else (2, 0, 1)
            weights = weights.transpose(order)
            groups = 1
            if node.op == "depthwise_conv2d":
                weights, groups = weights[:, None], graph.tensors[x].shape[3]
            bias = self.constant(f"{out}/bias", tensors[node.inputs[2]])
            inputs = [x, self.constant(f"{out}/weights", weights), bias]
            (top, bottom), (left, right) = attrs["padding"]
            self.emit("Conv", inputs, out, kernel_shape=weights.shape[2:], strides=attrs["stride"], group=groups,
                      pads=(top, left, bottom, right), dilations=attrs.get("dilation", (1, 1)))  # fmt: skip
        elif node.op == "fully_connected":
            dense = [self.constant(f"{out}/{i}", tensors[node.inputs[i]]) for i in (1, 2)]
            self.emit("Gemm", [self.emit("Flatten", [x], f"{out}/flat"), *dense], out)
        elif node.op == "average_pool" and tuple(attrs["kernel"]) == graph.tensors[x].shape[1:3]:
            self.emit("GlobalAveragePool", [x], out)
        elif node.op == "mean":
            keep = int(attrs["keepdims"])
            self.emit("ReduceMean", [x], out, axes=[2, 3], keepdims=keep)
        elif node.op in ("add", "sub", "mul"):
            inputs = [self.constant(f"{out}/{n}", self.first(tensors[n])) if n in tensors else n for n in node.inputs]
            self.emit(node.op.title(), inputs, out)
        elif node.op == "softmax":
            beta = attrs["beta"]
            scaled = x if beta == 1 else self.emit("Mul", [x, self.scalar(node, beta)], f"{out}/scaled")
            self.emit("Softmax", [scaled], out, axis=-1)
        elif node.op == "reshape" and max(graph.tensors[x].shape[1:3], default=1) == 1:
            to = self.constant(f"{out}/shape", np.array([self.batch, *self.channels_first(shape)], np.int64))
            self.emit("Reshape", [x, to], out)
        else:
            raise KeyError(f"{node.op} as in {node.name}")

    @staticmethod
    def first(array: Array) -> Array:
        """A constant operand with channels first."""
        return array.transpose(0, 3, 1, 2) if array.ndim == 4 else array

    @staticmethod
    def channels_first(shape: tuple[int, ...]) -> tuple[int, ...]:
        return (shape[3], *shape[1:3]) if len(shape) == 4 else shape[1:]

    def activate(self, node: Node, x: str, function: str, out: str) -> None:
        if function == "relu":
            self.emit("Relu", [x], out)
        elif function == "sigmoid":
            self.emit("Sigmoid", [x], out)
        elif function == "hard_swish":
            self.emit("HardSwish", [x], out)
        elif function in ("hard_sigmoid", "hard_sigmoid_slim"):
            alpha = 0.16667 if function == "hard_sigmoid_slim" else 1 / 6
            self.emit("HardSigmoid", [x], out, alpha=alpha, beta=3 * alpha)
        elif function == "relu6":
            self.emit("Clip", [x, self.scalar(node, 0), self.scalar(node, 6)], out)
        else:
            raise KeyError(f"the activation {function}")
