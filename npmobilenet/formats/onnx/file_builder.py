"""The workbench of the .onnx exporter: the file's nodes so far, and what each name of the graph stands for."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

from npmobilenet.errors import ConversionError, MissingExtra
from npmobilenet.formats.layer_names import unused_name
from npmobilenet.graph import Node
from npmobilenet.modeldata import Array, ModelData

OPSET, IR_VERSION = 18, 8  # of 2022
BATCH = "batch"
IMAGE = 4  # dimensions of a value that is held with its channels in front
TO_NCHW, TO_NHWC = (0, 3, 1, 2), (0, 2, 3, 1)
CLIPS = {"relu6": (0, 6), "relu_n1_to_1": (-1, 1), "relu_0_to_1": (0, 1)}
SLIM_GATE = 0.16667  # relu6(x + 3) times this; HardSigmoid's sixth is the other one's
KINDS = {"float32": 1, "int32": 6, "int64": 7}  # onnx.proto3, TensorProto.DataType


def refuse(node: Node, message: str) -> NoReturn:
    """Raise `ConversionError` with the node's name and op."""
    raise ConversionError(f"node '{node.name}' ({node.op}): {message}")


class Exporter:
    """The file as it grows. A tensor's name stands for its value as it is held; `NAME/nhwc` for the other order."""

    def __init__(self, data: ModelData) -> None:
        try:
            self.onnx: Any = importlib.import_module("onnx")
        except ImportError as error:
            raise MissingExtra("onnx", "onnx", "writing an .onnx file") from error
        self.graph, self.arrays = data.graph, data.tensors
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        self._held: dict[str, str] = {}  # the graph's tensor -> the file's value, channels in front
        self._plain: dict[str, str] = {}  # the same in NHWC
        self._names = set(data.graph.tensors)
        self._weights = set(data.graph.constants)
        for name in data.graph.inputs:
            if data.graph.tensors[name].dtype != "float32":
                found = f"input '{name}' is {data.graph.tensors[name].dtype}"
                raise ConversionError(f"{found}: .onnx is written of float32 models; export an 8-bit one to .tflite")
            self._plain[name] = name

    # Values

    def rank(self, name: str) -> int:
        """Dimensions of a tensor."""
        return len(self.graph.tensors[name].shape)

    def held(self, name: str) -> str:
        """A computed tensor as it is held: NCHW where it is an image."""
        if self.rank(name) != IMAGE:
            return self.plain(name)
        if name not in self._held:
            self._held[name] = self.op("Transpose", [self._plain[name]], self.fresh(f"{name}/nchw"), perm=TO_NCHW)
        return self._held[name]

    def plain(self, name: str) -> str:
        """A computed tensor in the graph's own order."""
        if name not in self._plain:
            target = name if name in self.graph.outputs else self.fresh(f"{name}/nhwc")
            self._plain[name] = self.op("Transpose", [self._held[name]], target, perm=TO_NHWC)
        return self._plain[name]

    def operand(self, name: str) -> str:
        """A computed tensor as it is held, or a constant that suits one."""
        if not self.graph.tensors[name].constant:
            return self.held(name)
        array = self.arrays[name]
        return self.constant(name, array.transpose(TO_NCHW) if array.ndim == IMAGE else array)

    def constant(self, name: str, array: Array) -> str:
        """An initializer, under a name that is free."""
        name = name if name in self._weights - self.constants.keys() else self.fresh(name)
        self.constants[name] = self.onnx.numpy_helper.from_array(np.ascontiguousarray(array), _utf8(name))
        return name

    def scalar(self, name: str, value: float) -> str:
        """A constant of no dimensions."""
        return self.constant(name, np.array(value, np.float32))

    def integers(self, name: str, values: Sequence[int]) -> str:
        """A vector of int64, as ONNX has shapes and axes."""
        return self.constant(name, np.array(values, np.int64))

    def fresh(self, name: str) -> str:
        """A name that nothing has yet."""
        return unused_name(name, self._names)

    def op(self, op: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Add a node of the file."""
        self.nodes.append(self.onnx.helper.make_node(op, [_utf8(x) for x in inputs], [_utf8(output)], **attributes))
        return output

    # Nodes

    def result(self, name: str) -> str:
        """The name under which a node's output is held."""
        if self.rank(name) != IMAGE:
            self._plain[name] = name
            return name
        self._held[name] = self.fresh(f"{name}/nchw") if name in self.graph.outputs else name
        return self._held[name]

    def function(self, function: str, x: str, target: str) -> None:
        """An activation."""
        if function in CLIPS:
            bounds = [
                self.scalar(f"{target}/{what}", v) for what, v in zip(("min", "max"), CLIPS[function], strict=True)
            ]
            self.op("Clip", [x, *bounds], target)
        elif function == "hard_sigmoid":
            self.op("HardSigmoid", [x], target, alpha=1 / 6, beta=0.5)
        elif function == "hard_sigmoid_slim":
            moved = self.op("Add", [x, self.scalar(f"{target}/three", 3)], self.fresh(f"{target}/moved"))
            self.function("relu6", moved, middle := self.fresh(f"{target}/relu6"))
            self.op("Mul", [middle, self.scalar(f"{target}/factor", SLIM_GATE)], target)
        else:
            name = {"relu": "Relu", "hard_swish": "HardSwish", "sigmoid": "Sigmoid", "none": "Identity"}[function]
            self.op(name, [x], target)

    # The file

    def finish(self, data: ModelData, names: Sequence[str]) -> bytes:
        """The whole, checked."""
        helper, graph = self.onnx.helper, self.graph
        for name in graph.outputs:
            self.plain(name)
        ports = [[self._port(name) for name in ends] for ends in (graph.inputs, graph.outputs)]
        whole = helper.make_graph(self.nodes, _utf8(graph.name), *ports, list(self.constants.values()))
        opset = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(whole, opset_imports=opset, ir_version=IR_VERSION, producer_name="npmobilenet")
        info = data.info
        facts = {"preprocessing": info.preprocessing, "label_offset": str(info.label_offset)}
        facts |= {"labels": json.dumps(list(names))} if names else {}
        helper.set_model_props(model, {**{k: _utf8(v) for k, v in info.provenance.items()}, **facts})
        errors = (self.onnx.checker.ValidationError, self.onnx.shape_inference.InferenceError)
        try:
            self.onnx.checker.check_model(model, full_check=True)
        except errors as error:
            raise ConversionError(f"ONNX's checker refuses '{graph.name}': {error}; export it to .tflite") from error
        return bytes(model.SerializeToString())

    def _port(self, name: str) -> Any:
        tensor = self.graph.tensors[name]
        return self.onnx.helper.make_tensor_value_info(_utf8(name), KINDS[tensor.dtype], [BATCH, *tensor.shape[1:]])


def _utf8(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
