"""Compares the configuration of a Keras model, layer by layer, with the model that it claims to be.

A file with the right variables may still compute something else: a layer in between, other strides, another wiring.
Where a file has a configuration (`.keras`, whole-model `.h5`), all of it that bears on the result is checked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from npmobilenet.errors import ConversionError
from npmobilenet.formats.keras.config import Config, Layer, close, function_name, unknown
from npmobilenet.formats.keras.layers import Variant
from npmobilenet.formats.keras.names import SUPPORTED, layer_names
from npmobilenet.graph import Graph

# Settings that older Keras versions don't write, and that then have the value expected here.
_OPTIONAL = frozenset({"groups", "dilation_rate", "data_format", "negative_slope", "threshold", "renorm"})


def check_config(config: Config, names: Mapping[str, str], graph: Graph, variant: Variant) -> None:
    """Compare every layer with the one that Keras builds for `variant`.

    `names` maps names to Keras 3's spelling. Layers that Keras numbers by itself (`re_lu_4`) are compared without name.
    Raises `ConversionError` at the first layer that differs.
    """
    try:
        _check(config, names, graph, variant)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ConversionError(
            f"the model's configuration is not of the form that Keras writes: {type(error).__name__}: {error}"
        ) from error


def _check(config: Config, names: Mapping[str, str], graph: Graph, variant: Variant) -> None:
    wanted = expected_layers(graph, variant, any(layer.kind == "TFOpLambda" for layer in config.layers))
    position = {config.input: -1}
    for index, layer in enumerate(config.layers):
        if index >= len(wanted):
            raise unknown(layer.kind, layer.name)
        want = wanted[index]
        name = names.get(layer.name, layer.name)
        if layer.kind != want.kind or want.name not in ("", name):
            raise unknown(layer.kind, layer.name, f"{want.kind} {want.name}".strip())
        _check_layer(layer, want)
        sources = tuple(str(position.get(source, "?")) for source in layer.inputs)
        if sources != want.inputs:
            raise ConversionError(
                f"layer {layer.name!r} ({layer.kind}) reads {layer.inputs}, not what Keras' model does"
            )
        position[layer.name] = index
    if len(config.layers) < len(wanted):
        want = wanted[len(config.layers)]
        raise ConversionError(f"the model ends before its {want.kind} {want.name}".rstrip() + f"; {SUPPORTED}")


def _check_layer(layer: Layer, want: Layer) -> None:
    for key, value in want.config.items():
        if key not in layer.config and key in _OPTIONAL:
            continue
        found = layer.config.get(key)
        found = function_name(found) if key == "activation" else found
        if not _agrees(found, value):
            raise ConversionError(f"layer {layer.name!r} ({layer.kind}) has {key} {found!r}, expected {value!r}")
    if layer.kind == "BatchNormalization" and not 0 < float(layer.config["epsilon"]) < 1:
        raise ConversionError(f"layer {layer.name!r} has epsilon {layer.config['epsilon']}, expected between 0 and 1")
    if len(layer.numbers) != len(want.numbers) or not all(map(close, layer.numbers, want.numbers)):
        raise ConversionError(f"layer {layer.name!r} ({layer.kind}) has constants {layer.numbers}, not {want.numbers}")


def expected_layers(graph: Graph, variant: Variant, lambdas: bool) -> list[Layer]:
    """What Keras builds for the graph's nodes, in Keras' order; `inputs` are indices into the list ("-1": the input).

    `lambdas`: Keras 2 writes hard-swish as five operations, and arithmetic as TFOpLambda.
    """
    return _Writer(graph, variant, lambdas).layers


class _Writer:
    def __init__(self, graph: Graph, variant: Variant, lambdas: bool) -> None:
        self.layers: list[Layer] = []
        self.lambdas = lambdas
        at = {graph.inputs[0]: -1}
        v3_top = variant.family.startswith("v3") and variant.classes > 0
        for node in graph.nodes:
            sources = [at[name] for name in node.inputs if name in at]
            index = sources[0]
            if node.op in ("conv2d", "depthwise_conv2d"):
                conv, norm = layer_names(variant.family, node.scope)
                shape = graph.tensors[node.inputs[1]].shape
                index = self.convolution(index, node.op, conv, shape, node.attrs["stride"], not node.batch_norm)
                if node.batch_norm:
                    index = self.add("BatchNormalization", [index], norm, scale=True, center=True, renorm=False,
                                     axis=-1)  # fmt: skip
                index = self.activation(index, node.attrs["activation"])
            elif node.op == "mean" or (node.op == "average_pool" and not (v3_top and node.output == "global_pool")):
                index = self.add("GlobalAveragePooling2D", sources)
            elif node.op in ("add", "mul"):
                index = self.add({"add": "Add", "mul": "Multiply"}[node.op], sorted(sources))
            at[node.output] = index
        if variant.classes and variant.family != "v2":
            self.add("Activation", [len(self.layers) - 1], activation=variant.activation)

    def add(
        self, kind: str, inputs: Sequence[int], name: str = "", numbers: tuple[float, ...] = (), **config: Any
    ) -> int:
        self.layers.append(Layer(kind, name, tuple(map(str, inputs)), numbers, config))
        return len(self.layers) - 1

    def convolution(
        self, index: int, op: str, name: str, shape: tuple[int, ...], stride: tuple[int, int], bias: bool
    ) -> int:
        if name == "predictions":
            return self.add("Dense", [index], name, units=shape[3], use_bias=True)
        own: dict[str, Any] = {"filters": shape[3], "groups": 1} if op == "conv2d" else {"depth_multiplier": 1}
        return self.add(
            "Conv2D" if op == "conv2d" else "DepthwiseConv2D", [index], name, kernel_size=shape[:2], strides=stride,
            dilation_rate=(1, 1), data_format="channels_last", use_bias=bias, activation="linear", **own,
        )  # fmt: skip

    def arithmetic(self, index: int, kind: str, number: float) -> int:
        if not self.lambdas:
            return self.add(kind, [index], numbers=(number,))
        function = {"Add": "__operators__.add", "Multiply": "math.multiply"}[kind]
        return self.add("TFOpLambda", [index], numbers=(number,), function=function)

    def gate(self, index: int) -> int:
        """relu6(x + 3) / 6, as three layers."""
        index = self.arithmetic(index, "Add", 3.0)
        index = self.add("ReLU", [index], max_value=6.0, negative_slope=0.0, threshold=0.0)
        return self.arithmetic(index, "Multiply", 1 / 6)

    def activation(self, index: int, function: str) -> int:
        if function == "none":
            return index
        if function == "hard_sigmoid":
            return self.gate(index)
        if function == "hard_swish":
            if self.lambdas:
                return self.add("Multiply", [index, self.gate(index)])
            return self.add("Activation", [index], activation="hard_silu")
        limit = 6.0 if function == "relu6" else None
        return self.add("ReLU", [index], max_value=limit, negative_slope=0.0, threshold=0.0)


def _agrees(found: Any, wanted: Any) -> bool:
    if wanted == -1:  # the channel axis: -1, 3 or a list of one
        return found in (-1, 3, [-1], [3])
    if isinstance(wanted, tuple):
        return isinstance(found, list) and tuple(found) == wanted
    if isinstance(wanted, float):
        return isinstance(found, (int, float)) and close(found, wanted)
    return bool(found == wanted)
