"""Writes a quantized (or float) model of this project as a .tflite file, so that LiteRT can run the same graph."""

from __future__ import annotations

from typing import Any

import numpy as np
from litert import Array, Peer
from tflite_maker import File, Op, T

from npmobilenet.graph import Graph, Node, same_padding
from npmobilenet.modeldata import ModelData, ModelInfo

_FUSED = {"none": 0, "relu": 1, "relu_n1_to_1": 2, "relu6": 3}
_SAME, _VALID = 0, 1
# The first versions of the ops that take int8 (tflite/tools/versioning/op_version.cc).
_VERSIONS = {
    "CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 4, "AVERAGE_POOL_2D": 2, "MEAN": 2, "ADD": 2, "SUB": 2,
    "MUL": 2, "LOGISTIC": 2, "SOFTMAX": 2, "PAD": 2, "CONCATENATION": 2, "RESIZE_BILINEAR": 3, "QUANTIZE": 2,
    "DEQUANTIZE": 2, "RELU": 2, "RELU6": 2,
}  # fmt: skip
_FUNCTIONS = {"relu": "RELU", "relu6": "RELU6", "relu_n1_to_1": "RELU_N1_TO_1", "hard_swish": "HARD_SWISH",
              "sigmoid": "LOGISTIC"}  # fmt: skip


def to_tflite(data: ModelData) -> tuple[bytes, dict[str, int]]:
    """The file, and the index in it of each computed tensor. Raises `KeyError` for what TFLite has no op for."""
    export = _Export(data)
    return export.file(), export.index


def litert_output(graph: Graph, arrays: list[Array], peer: str) -> Array:
    """What LiteRT gives for a graph of one node, in the shape that it has here."""
    names = graph.nodes[0].inputs
    constants = {n: a for n, a in zip(names, arrays, strict=True) if graph.tensors[n].constant}
    file, index = to_tflite(ModelData(graph, constants, ModelInfo("case")))
    found = Peer(file, peer).run(*(a for n, a in zip(names, arrays, strict=True) if n not in constants))
    return found[index[graph.nodes[0].output]].reshape(graph.tensors[graph.nodes[0].output].shape)


class _Export:
    def __init__(self, data: ModelData) -> None:
        self.data = data
        self.tensors: list[T] = []
        self.ops: list[Op] = []
        self.index: dict[str, int] = {}
        for name in data.graph.inputs:
            self.index[name] = self.computed(name)

    def file(self) -> bytes:
        for node in self.data.graph.nodes:
            self.node(node)
        outputs = [self.index[name] for name in self.data.graph.outputs]
        inputs = [self.index[name] for name in self.data.graph.inputs]
        return File(self.tensors, self.ops, inputs, outputs).bytes()

    def add(self, tensor: T) -> int:
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def computed(self, name: str, shape: tuple[int, ...] = (), label: str = "") -> int:
        t = self.data.graph.tensors[name]
        q = t.quantization
        scale, zero = (q.scale, q.zero_point) if q else ((), ())
        return self.add(T(shape or t.shape, type=t.dtype, name=label or name, scale=scale, zero_point=zero))

    def constant(self, name: str, order: tuple[int, ...] = (), front: bool = False) -> int:
        """A weight in TFLite's layout: axes in `order`, with a dimension of 1 in `front`."""
        t, array = self.data.graph.tensors[name], self.data.tensors[name]
        array = array.transpose(order) if order else array
        q = t.quantization
        axis = 0 if q is None or q.axis is None else (order.index(q.axis) if order else q.axis) + front
        array = array[None] if front else array
        scale, zero = (q.scale, q.zero_point) if q else ((), ())
        return self.add(T(data=np.ascontiguousarray(array), name=name, scale=scale, zero_point=zero, axis=axis))

    def integers(self, values: Any) -> int:
        return self.add(T(data=np.array(values, np.int32)))

    def emit(self, op: str, inputs: list[int], node: Node, options: tuple[str, dict[str, Any]] | None = None) -> None:
        self.index[node.output] = self.computed(node.output)
        self.ops.append(Op(op, inputs, [self.index[node.output]], options, _VERSIONS.get(op, 1)))

    def node(self, node: Node) -> None:
        graph, attrs = self.data.graph, node.attrs
        x = self.index.get(node.inputs[0], -1)
        fused = {"FusedActivationFunction": _FUSED[attrs.get("activation", "none")]}
        if node.op in ("conv2d", "depthwise_conv2d"):
            kernel = graph.tensors[node.inputs[1]].shape
            x, window = self.window(node, x, (kernel[0], kernel[1]))
            bias = self.constant(node.inputs[2])
            if node.op == "conv2d":
                inputs = [x, self.constant(node.inputs[1], (3, 0, 1, 2)), bias]
                self.emit("CONV_2D", inputs, node, ("Conv2DOptions", {**window, **fused}))
            else:
                inputs = [x, self.constant(node.inputs[1], front=True), bias]
                options = {**window, **fused, "DepthMultiplier": attrs.get("multiplier", 1)}
                self.emit("DEPTHWISE_CONV_2D", inputs, node, ("DepthwiseConv2DOptions", options))
        elif node.op == "fully_connected":
            inputs = [x, self.constant(node.inputs[1], (1, 0)), self.constant(node.inputs[2])]
            self.emit("FULLY_CONNECTED", inputs, node, ("FullyConnectedOptions", fused))
        elif node.op == "average_pool":
            x, window = self.window(node, x, attrs["kernel"])
            size = {"FilterHeight": attrs["kernel"][0], "FilterWidth": attrs["kernel"][1]}
            self.emit("AVERAGE_POOL_2D", [x], node, ("Pool2DOptions", {**window, **size, **fused}))
        elif node.op == "mean":
            self.emit("MEAN", [x, self.integers([1, 2])], node, ("ReducerOptions", {"KeepDims": attrs["keepdims"]}))
        elif node.op in ("add", "sub", "mul"):
            inputs = [self.index[n] if n in self.index else self.constant(n) for n in node.inputs]
            self.emit(node.op.upper(), inputs, node, (f"{node.op.title()}Options", fused))
        elif node.op == "activation":
            self.emit(_FUNCTIONS[attrs["function"]], [x], node)
        elif node.op == "softmax":
            self.emit("SOFTMAX", [x], node, ("SoftmaxOptions", {"Beta": attrs["beta"]}))
        elif node.op == "reshape":
            self.emit("RESHAPE", [x, self.integers(attrs["shape"])], node)
        elif node.op == "pad":
            self.emit("PAD", [x, self.integers([(0, 0), *attrs["padding"], (0, 0)])], node)
        elif node.op == "concat":
            inputs = [self.index[n] for n in node.inputs]
            self.emit("CONCATENATION", inputs, node, ("ConcatenationOptions", {"Axis": attrs["axis"], **fused}))
        elif node.op == "resize_bilinear":
            flags = {"AlignCorners": attrs["align_corners"], "HalfPixelCenters": attrs["half_pixel_centers"]}
            self.emit("RESIZE_BILINEAR", [x, self.integers(attrs["size"])], node, ("ResizeBilinearOptions", flags))
        else:
            self.emit({"quantize": "QUANTIZE", "dequantize": "DEQUANTIZE"}[node.op], [x], node)

    def window(self, node: Node, x: int, kernel: tuple[int, int]) -> tuple[int, dict[str, int]]:
        """Stride and padding; where TFLite has no name for the padding, a PAD goes in front."""
        stride, dilation, padding = node.attrs["stride"], node.attrs.get("dilation", (1, 1)), node.attrs["padding"]
        options = {"StrideH": stride[0], "StrideW": stride[1]}
        if node.op != "average_pool":
            options |= {"DilationHFactor": dilation[0], "DilationWFactor": dilation[1]}
        shape = self.data.graph.tensors[node.inputs[0]].shape
        same = tuple(same_padding(shape[1 + i], kernel[i], stride[i], dilation[i]) for i in (0, 1))
        if padding in (same, ((0, 0), (0, 0))):
            return x, {**options, "Padding": _SAME if padding == same else _VALID}
        assert node.op != "average_pool"
        (top, bottom), (left, right) = padding
        padded = (1, top + shape[1] + bottom, left + shape[2] + right, shape[3])
        wide = self.computed(node.inputs[0], padded, f"{node.inputs[0]}/padded")
        amounts = self.integers([(0, 0), *padding, (0, 0)])
        self.ops.append(Op("PAD", [x, amounts], [wide], None, _VERSIONS["PAD"]))
        return wide, {**options, "Padding": _VALID}
