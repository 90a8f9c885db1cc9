"""From a float model and the ranges of its tensors to a quantized model, in the form that a quantized .tflite has."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from npmobilenet.arithmetic.unary import in_integers
from npmobilenet.errors import InputError
from npmobilenet.graph import OPS, Graph, Node, Quantization, Tensor
from npmobilenet.modeldata import Array, ModelData, ModelInfo
from npmobilenet.quantize import parameters
from npmobilenet.quantize.equalize import bias_error
from npmobilenet.quantize.lower import LAYERS, free, lower
from npmobilenet.quantize.parameters import SCHEMES, Range
from npmobilenet.quantize.scales import EXTREMA, Given, Scales

CHANNELS: Mapping[str, int] = {"conv2d": 3, "depthwise_conv2d": 2, "fully_connected": 1}  # the weights' output axis
PORTS = ("int8", "uint8", "float32")
DESCRIPTIONS = {"int8": "int8, weights per channel", "uint8": "uint8, per tensor"}


def quantize(
    data: ModelData, ranges: Mapping[str, Given], scheme: str = "int8", ports: str | None = None, name: str = "",
    means: Mapping[str, Array] | None = None,
) -> ModelData:  # fmt: skip
    """The quantized twin of a float model.

    `ranges` holds for each tensor of `Scales(lower(data).graph).needed()` its (low, high), as `calibrate` measures
    them, or its `Quantization`; others are ignored. `scheme`: "int8" has int8 weights, symmetric, a scale for each
    output channel, and int8 values; "uint8" has both in uint8, asymmetric, a scale for each tensor. Biases are int32.
    `ports` is the dtype of inputs and outputs, the scheme's by default: the graph begins and ends with nodes that
    convert where it is another. `name` is the new model's, default `NAME_<ports or scheme>`. `means` are those of
    `calibrate`: with them, biases make up for what the rounding of weights adds on average (`equalize.bias_error`).

    Raises `InputError`: a model that isn't float32, missing or unfit ranges, an unknown scheme or dtype.
    """
    if scheme not in SCHEMES:
        raise InputError(f"scheme '{scheme}': expected one of {', '.join(SCHEMES)}")
    if (ports or scheme) not in PORTS:
        raise InputError(f"inputs and outputs in '{ports}': expected one of {', '.join(PORTS)}")
    data = lower(data)
    work = _Quantizing(data, ranges, scheme, means or {})
    for node in data.graph.nodes:
        work.add(node)
    work.convert_ports(ports or scheme)
    name = name or f"{data.info.name.removesuffix('_float')}_{scheme if ports in (None, 'float32') else ports}"
    graph = Graph(name, work.inputs, work.outputs, work.used_tensors(), tuple(work.nodes), work.endpoints)
    return ModelData(graph, {key: work.arrays[key] for key in graph.constants}, _facts(data.info, name, scheme))


def _facts(info: ModelInfo, name: str, scheme: str) -> ModelInfo:
    """What is known of the float model, its accuracy marked as such."""
    kept = {"float_accuracy" if key == "accuracy" else key: text for key, text in info.provenance.items()}
    return dataclasses.replace(info, name=name, provenance={**kept, "quantization": DESCRIPTIONS[scheme]})


class _Quantizing:
    """The quantized graph as it grows."""

    def __init__(self, data: ModelData, ranges: Mapping[str, Given], dtype: str, means: Mapping[str, Array]) -> None:
        self.dtype = dtype
        self.means = means
        self.floats = data.tensors
        scales = Scales(data.graph)
        self.found = scales.parameters(ranges, dtype)
        self.rescaled = {(node.name, position) for node, position in scales.rescaled}
        self.arrays: dict[str, Array] = {}
        self.nodes: list[Node] = []
        self.inputs, self.outputs = data.graph.inputs, data.graph.outputs
        self.endpoints = dict(data.graph.endpoints)
        self.tensors = {
            name: dataclasses.replace(t, dtype=dtype, quantization=self.found[name]) if name in self.found else t
            for name, t in data.graph.tensors.items()
            if not t.constant
        }
        self.taken = dict(data.graph.tensors)  # names that a new tensor must not have
        self._made: dict[tuple[object, ...], str] = {}  # constants by source and quantization

    def add(self, node: Node) -> None:
        """A node with its constants quantized, and its operands rescaled where need be."""
        if not _in_integers(node):
            self.in_floats(node)
            return
        if node.op in LAYERS:
            inputs: tuple[str, ...] = self.layer(node)
        else:
            inputs = tuple(self.operand(node, i, name) for i, name in enumerate(node.inputs))
        attrs = {key: value for key, value in node.attrs.items() if (key, value) != ("activation", "none")}
        self.nodes.append(dataclasses.replace(node, inputs=inputs, attrs=attrs, scope="", batch_norm=False))

    def in_floats(self, node: Node) -> None:
        """A node that no runtime defines for 8 bits, between nodes that convert, as TensorFlow writes it."""
        inputs = [
            self.constant(name, self.floats[name], None) if name in self.floats
            else self.convert(name, f"{name}/float32", "float32", None, "dequantize")
            for name in node.inputs
        ]  # fmt: skip
        inside = free(f"{node.output}/float32", self.taken)
        tensor = dataclasses.replace(self.tensors[node.output], name=inside, dtype="float32", quantization=None)
        self.taken[inside] = self.tensors[inside] = dataclasses.replace(tensor, source="")
        self.nodes.append(dataclasses.replace(node, inputs=tuple(inputs), output=inside))
        name = free(f"{node.output}/quantize", {n.name: n for n in self.nodes})
        self.nodes.append(Node(name, "quantize", (inside,), node.output))

    def layer(self, node: Node) -> tuple[str, str, str]:
        """Weights and bias in steps that suit the input's scale."""
        x, kernel, added = node.inputs
        arrays = self.floats[kernel], self.floats[added]
        how = CHANNELS[node.op], self.found[x].scale[0], self.dtype
        values, integers, (q, bias_q) = parameters.layer(arrays[0], arrays[1], *how)
        if x in self.means:
            gained = bias_error(arrays[0], parameters.real(values, q), self.means[x], node.op)
            corrected = (arrays[1] - gained).astype(np.float32)
            values, integers, (q, bias_q) = parameters.layer(arrays[0], corrected, *how)
        return x, self.constant(kernel, values, q), self.constant(added, integers, bias_q)

    def operand(self, node: Node, position: int, name: str) -> str:
        """An operand: a constant quantized by its own range, a value rescaled if the op needs another scale of it."""
        if name in self.floats and node.op in EXTREMA:
            q = self.found[node.output]
            return self.constant(name, parameters.in_steps(self.floats[name], q, self.dtype), q)
        if name in self.floats:
            return self.constant(name, *parameters.constant(self.floats[name], self.dtype))
        if (node.name, position) in self.rescaled:
            return self.convert(name, f"{name}/for/{node.output}", self.dtype, self.found[node.output], "quantize")
        return name

    def constant(self, name: str, array: Array, q: Quantization | None) -> str:
        """Declare a constant; once for uses that quantize it equally."""
        key = (name, str(array.dtype), q)
        if key not in self._made:
            new = name if name not in self.arrays else free(name, self.taken)
            self.taken[new] = self.tensors[new] = Tensor(new, array.shape, str(array.dtype), True, q)
            self.arrays[new] = array
            self._made[key] = new
        return self._made[key]

    def convert(self, name: str, target: str, dtype: str, q: Quantization | None, op: str) -> str:
        """Add a node that gives `name` in another number format, as a new tensor."""
        target = free(target, self.taken)
        tensor = dataclasses.replace(self.tensors[name], name=target, dtype=dtype, quantization=q, source="")
        self.taken[target] = self.tensors[target] = tensor
        self.nodes.append(Node(free(f"{target}/{op}", {n.name: n for n in self.nodes}), op, (name,), target))
        return target

    # Inputs and outputs keep their names; the values inside the graph are renamed.

    def convert_ports(self, dtype: str) -> None:
        """Make inputs and outputs of another dtype, with nodes at the edges that convert."""
        if dtype == self.dtype:
            return
        ports = [name for name in (*self.inputs, *self.outputs) if name in self.found]
        names = {name: free(f"{name}/{self.dtype}", self.taken) for name in ports}
        inside, self.nodes = self.nodes, []
        for name, new in names.items():
            tensor = self.tensors[name]
            self.taken[new] = self.tensors[new] = dataclasses.replace(tensor, name=new, source="")
            self.tensors[name] = dataclasses.replace(tensor, dtype=dtype, quantization=_shifted(tensor, dtype))
        for name in self.inputs:
            self.nodes.append(Node(names[name], "quantize", (name,), names[name]))
        for node in inside:
            inputs = tuple(names.get(name, name) for name in node.inputs)
            self.nodes.append(dataclasses.replace(node, inputs=inputs, output=names.get(node.output, node.output)))
        op = "dequantize" if dtype == "float32" else "quantize"
        for name in dict.fromkeys(self.outputs):
            if name in names and name not in self.inputs:
                self.nodes.append(
                    Node(free(f"{name}/{op}", dict.fromkeys(n.name for n in inside)), op, (names[name],), name)
                )

    def used_tensors(self) -> dict[str, Tensor]:
        """The tensors, in an order that doesn't depend on how they came about: computed ones, then constants."""
        return {n: t for n, t in self.tensors.items() if not t.constant} | {n: self.tensors[n] for n in self.arrays}


def _in_integers(node: Node) -> bool:
    """Whether a runtime defines it for 8 bits."""
    return OPS[node.op].computes("int8") and (node.op != "unary" or in_integers(str(node.attrs["formula"])))


def _shifted(tensor: Tensor, dtype: str) -> Quantization | None:
    """The same scale in another 8-bit type: int8's zero point is 128 below uint8's. None for float32."""
    q = tensor.quantization
    if dtype == "float32" or q is None:
        return None
    offset = {"int8": -128, "uint8": 128}[dtype]
    return Quantization(q.scale, tuple(z + offset for z in q.zero_point))


__all__ = ["PORTS", "Range", "quantize"]
