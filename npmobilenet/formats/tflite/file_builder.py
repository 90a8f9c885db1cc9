"""The workbench of the .tflite exporter: tensors and operators so far, and what each name of the graph stands for.

Source of the versions: TensorFlow 2.18, tensorflow/compiler/mlir/lite/tools/versioning/op_version.cc.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np

from npmobilenet.errors import ConversionError
from npmobilenet.formats.layer_names import unused_name
from npmobilenet.formats.tflite.writing import OutOperator, OutTensor
from npmobilenet.graph import Node, Quantization
from npmobilenet.modeldata import Array, ModelData

TYPES = ("float32", "uint8", "int8")  # of values that operators compute with; int32 and int64 are indices
FUSED = {"none": 0, "relu": 1, "relu_n1_to_1": 2, "relu6": 3}  # schema.fbs, enum ActivationFunctionType
FUNCTIONS = {
    "relu": "RELU", "relu6": "RELU6", "relu_n1_to_1": "RELU_N1_TO_1", "relu_0_to_1": "RELU_0_TO_1",
    "hard_swish": "HARD_SWISH", "sigmoid": "LOGISTIC",
}  # fmt: skip
GATES = {"hard_sigmoid": np.float32(1 / 6), "hard_sigmoid_slim": np.float32(0.16667)}  # relu6(x + 3) times these
TABLES = {
    "ADD": "AddOptions", "SUB": "SubOptions", "MUL": "MulOptions", "CONCATENATION": "ConcatenationOptions",
    "ARG_MAX": "ArgMaxOptions", "MEAN": "ReducerOptions", "SOFTMAX": "SoftmaxOptions", "PAD": "PadOptions",
    "RESHAPE": "ReshapeOptions", "RESIZE_BILINEAR": "ResizeBilinearOptions", "TRANSPOSE": "TransposeOptions",
    "RESIZE_NEAREST_NEIGHBOR": "ResizeNearestNeighborOptions", "SPLIT_V": "SplitVOptions",
    "LEAKY_RELU": "LeakyReluOptions", "QUANTIZE": "QuantizeOptions", "DEQUANTIZE": "DequantizeOptions",
    "CONV_2D": "Conv2DOptions", "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions", "AVERAGE_POOL_2D": "Pool2DOptions", "MAX_POOL_2D": "Pool2DOptions",
    "HARD_SWISH": "HardSwishOptions", "SPACE_TO_BATCH_ND": "SpaceToBatchNDOptions",
    "BATCH_TO_SPACE_ND": "BatchToSpaceNDOptions", "GELU": "GeluOptions", "STRIDED_SLICE": "StridedSliceOptions",
    "PADV2": "PadV2Options", "DIV": "DivOptions", "MAXIMUM": "MaximumMinimumOptions", "EXP": "ExpOptions",
    "MINIMUM": "MaximumMinimumOptions", "L2_NORMALIZATION": "L2NormOptions", "ABS": "AbsOptions",
}  # fmt: skip
# The first version of an operator that takes int8; 2 where it isn't listed, 1 for other types.
INT8_VERSIONS = {
    "CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 4, "RESHAPE": 1, "HARD_SWISH": 1, "PRELU": 1,
    "QUANTIZE": 1, "RELU_0_TO_1": 1, "RELU_N1_TO_1": 1, "ELU": 1, "SPLIT_V": 2,
}  # fmt: skip
_HYBRID_VERSIONS = {"CONV_2D": 2, "DEPTHWISE_CONV_2D": 4, "FULLY_CONNECTED": 3}  # float32 input, int8 weights


def refuse(node: Node, message: str) -> NoReturn:
    """Raise `ConversionError` with the node's name and op."""
    raise ConversionError(f"node '{node.name}' ({node.op}): {message}")


class Exporter:
    """The file as it grows."""

    def __init__(self, data: ModelData) -> None:
        self.graph, self.arrays = data.graph, data.tensors
        self.tensors: list[OutTensor] = []
        self.operators: list[OutOperator] = []
        self.index: dict[str, int] = {}
        self._constants: dict[tuple[object, ...], int] = {}
        self._names = set(data.graph.tensors)
        for name in data.graph.inputs:
            self.computed(name)

    def computed(self, name: str) -> int:
        """A tensor of the graph that is an input or computed."""
        if name not in self.index:
            t = self.graph.tensors[name]
            self.index[name] = self._add(OutTensor(name, t.shape, t.dtype, None, t.quantization))
        return self.index[name]

    def between(self, name: str, like: str, shape: Sequence[int] = ()) -> int:
        """A value that the graph doesn't have, of another's type and scale."""
        t = self.graph.tensors[like]
        return self._add(OutTensor(self._fresh(name), tuple(shape) or t.shape, t.dtype, None, t.quantization))

    def constant(self, name: str, array: Array, q: Quantization | None = None) -> int:
        """A constant in the file's layout; equal ones of one name are one."""
        key = (name, array.shape, str(array.dtype), q, array.tobytes() if array.size <= 64 else id(array))
        if key not in self._constants:
            self._constants[key] = self._add(OutTensor(self._fresh(name), array.shape, str(array.dtype), array, q))
        return self._constants[key]

    def weight(self, name: str, layout: str = "", change: Callable[[Array], Array] = np.asarray, axis: int = 0) -> int:
        """A constant of the graph, its layout changed; scales for each channel lie along `axis` then."""
        key = (name, layout)
        if key not in self._constants:
            array = np.ascontiguousarray(change(self.arrays[name]))
            q = self.graph.tensors[name].quantization
            if q is not None and q.axis is not None:
                q = Quantization(q.scale, q.zero_point, axis)
            label = name if name not in {t.name for t in self.tensors} else self._fresh(name)
            self._constants[key] = self._add(OutTensor(label, array.shape, str(array.dtype), array, q))
        return self._constants[key]

    def operand(self, name: str) -> int:
        """A computed value, or a constant as it is."""
        return self.weight(name) if self.graph.tensors[name].constant else self.computed(name)

    def emit(self, node: Node, op: str, inputs: Sequence[int], *outputs: int, **options: Any) -> None:
        """Add an operator, which writes the node's output unless others are given."""
        targets = outputs or (self.computed(node.output),)
        types = [self.tensors[i].dtype for i in (inputs[0], targets[0])]
        for dtype in types:
            if dtype not in TYPES and not (op == "ARG_MAX" and dtype.startswith("int")):
                refuse(node, f"values of {dtype}; a .tflite file is written of {', '.join(TYPES)}; write a weight file "
                             "(.h5) instead, which keeps them")  # fmt: skip
        version = INT8_VERSIONS.get(op, 2) if "int8" in types else 1
        if op in _HYBRID_VERSIONS and types[0] == "float32" and self.tensors[inputs[1]].dtype == "int8":
            version = _HYBRID_VERSIONS[op]
        self.operators.append(OutOperator(op, tuple(inputs), targets, TABLES.get(op, ""), options, version))

    def activated(self, node: Node, op: str, inputs: Sequence[int], **options: Any) -> None:
        """An operator that fuses the node's activation, or that an activation of its own follows."""
        function = str(node.attrs.get("activation", "none"))
        if function in FUSED:
            self.emit(node, op, inputs, FusedActivationFunction=FUSED[function], **options)
            return
        middle = self.between(f"{node.output}/linear", node.output)
        self.emit(node, op, inputs, middle, FusedActivationFunction=0, **options)
        self.function(node, function, middle)

    def function(self, node: Node, function: str, x: int) -> None:
        """The activation of a value, as the node's output."""
        result = self.graph.tensors[node.output]
        if function in FUNCTIONS:
            self.emit(node, FUNCTIONS[function], [x])
        elif function == "none":
            q = result.quantization
            self.emit(node, *(("RESHAPE", [x, self.shape(result.shape)]) if q is None else ("QUANTIZE", [x])))
        elif result.dtype != "float32":
            refuse(node, f"no TFLite operator computes '{function}' of {result.dtype}; quantize the float model with "
                         "'npmobilenet quantize', which writes it as an addition and a product")  # fmt: skip
        else:
            ones = (1,) * len(result.shape)
            three = self.constant(f"{node.output}/three", np.full(ones, 3, np.float32))
            gate = self.constant(f"{node.output}/factor", np.full(ones, GATES[function], np.float32))
            middle = self.between(f"{node.output}/relu6", node.output)
            self.emit(node, "ADD", [x, three], middle, FusedActivationFunction=FUSED["relu6"])
            self.emit(node, "MUL", [middle, gate], FusedActivationFunction=0)

    def integers(self, name: str, values: Sequence[int]) -> int:
        """A constant vector of int32."""
        return self.constant(name, np.array(values, np.int32))

    def shape(self, shape: Sequence[int]) -> int:
        """A shape to bring values into; the batch is what is left."""
        return self.integers("shape", (-1, *shape[1:]))

    def _add(self, tensor: OutTensor) -> int:
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def _fresh(self, name: str) -> str:
        return unused_name(name, self._names)
