"""From a Keras configuration to a plain list of layer calls, models inside models taken apart.

A configuration is data: no class is looked up, nothing is run.

* Functional: each layer lists its calls (references.py).
* Sequential: each layer reads the one before it.
* A model may be a layer; its calls are listed with the path of names that leads to them.

Source: Keras 3.15.1, keras/src/models/functional.py (serialize_node, functional_from_config), models/sequential.py;
tf_keras 2.21, tf_keras/src/engine/functional.py (get_network_config: calls of a model begin at 1).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any

from npmobilenet.errors import ConversionError
from npmobilenet.formats.keras.hdf5 import MAX_LAYERS, limit
from npmobilenet.formats.keras.references import Reference, arguments, inner, numbers, plain, references
from npmobilenet.formats.keras.store import MAX_DEPTH
from npmobilenet.modeldata import Array

MODELS = ("Functional", "Model", "Sequential")
# Other names of a class. TF 1.13's tf.keras wrote the first two; a batch norm over several machines computes the same.
_CLASSES = {"BatchNormalizationV1": "BatchNormalization", "BatchNormalizationV2": "BatchNormalization",
            "SyncBatchNormalization": "BatchNormalization"}  # fmt: skip


@dataclass(frozen=True)
class Value:
    """What a call gives, by a number of its own."""

    number: int


Operand = Value | float | Array


@dataclass(frozen=True)
class Call:
    """A layer at work: its class, the names that lead to it, its settings, what it is called with, and its result.

    `keys` is the way to its variables in a numbered file (`("sequential", "conv2d_1")`), `module` where its class is
    from, "" where the file doesn't say.
    """

    kind: str
    module: str
    path: tuple[str, ...]
    keys: tuple[str, ...]
    config: Mapping[str, Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    result: Value

    @property
    def name(self) -> str:
        """The layer's own name."""
        return self.path[-1]

    @property
    def operands(self) -> list[Operand]:
        """The values, numbers and arrays that it is called with, in order."""
        found: list[Operand] = []
        for item in (*self.args, *self.kwargs.values()):
            whole = numbers(item)
            for part in item if whole is None and isinstance(item, list) else [item if whole is None else whole]:
                array = numbers(part)
                if array is not None:
                    found.append(array)
                elif isinstance(part, Value) or (isinstance(part, (int, float)) and not isinstance(part, bool)):
                    found.append(part)
        return found


@dataclass
class Topology:
    """The calls in an order in which they can be computed, and the inputs' (shape, value) and outputs of the whole."""

    calls: list[Call] = field(default_factory=list)
    inputs: list[tuple[str, Sequence[Any], Value]] = field(default_factory=list)
    outputs: list[tuple[str, Value]] = field(default_factory=list)


def topology(config: Mapping[str, Any]) -> Topology:
    """The calls of a model. Raises `ConversionError` for what Keras doesn't write, or too many or too deep models."""
    try:
        return _Walk().whole(config)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RecursionError, OverflowError) as error:
        raise ConversionError(
            f"the model's configuration is not of the form that Keras writes: {type(error).__name__}: {error}"
        ) from error


class _Walk:
    def __init__(self) -> None:
        self.result = Topology()
        self.count = 0

    def value(self) -> Value:
        self.count += 1
        if self.count > MAX_LAYERS:
            raise ConversionError(f"more than {MAX_LAYERS} calls of layers: this is not a MobileNet")
        return Value(self.count)

    def whole(self, entry: Mapping[str, Any]) -> Topology:
        kind = str(entry["class_name"])
        if not is_model(entry):
            if kind in MODELS:
                raise TypeError(f"a {kind} without a list of layers")
            raise ConversionError(
                f"the model is a {kind[:80]!r}, a class of its maker's own, which is never run here; build it from "
                "Keras' layers (Functional or Sequential), or make a .tflite of it: "
                "tf.lite.TFLiteConverter.from_keras_model(model).convert() gives its bytes, which load here"
            )
        outputs = self.model(entry, (), (), None)
        self.result.outputs = [(name, value) for name, value in outputs if isinstance(value, Value)]
        if not self.result.outputs:
            raise ConversionError("the model has no output")
        return self.result

    def model(
        self, entry: Mapping[str, Any], path: tuple[str, ...], keys: tuple[str, ...], given: list[Value] | None
    ) -> list[tuple[str, Value]]:
        """The outputs of a model that is given these values; None: the values of its own inputs."""
        self.value()  # counts: models in models that are called often may be without end
        if len(path) > MAX_DEPTH:
            raise ConversionError(f"more than {MAX_DEPTH} models inside each other: this is not a MobileNet")
        body = entry["config"]
        layers = body if isinstance(body, list) else body["layers"]
        limit(len(layers), MAX_LAYERS, "layers")
        names = _keys(layers)
        if str(entry["class_name"]) == "Sequential":
            return self.sequential(body, layers, path, keys, names, given)
        return self.functional(body, layers, path, keys, names, given)

    def sequential(
        self, body: Any, layers: list[Any], path: tuple[str, ...], keys: tuple[str, ...], names: Mapping[str, str],
        given: list[Value] | None,
    ) -> list[tuple[str, Value]]:  # fmt: skip
        if given is None:
            given = [self.take_input(*_first_shape(layers, body))]
        values, last = given, "input"
        for layer in (entry for entry in layers if entry["class_name"] != "InputLayer"):
            last = _name(layer)
            values = self.layer(layer, path, keys, names, list(values), {})
        if len(values) != 1:
            raise ConversionError(f"a Sequential model hands on {len(values)} values, expected one")
        return [(last, values[0])]

    def functional(
        self, body: Any, layers: list[Any], path: tuple[str, ...], keys: tuple[str, ...], names: Mapping[str, str],
        given: list[Value] | None,
    ) -> list[tuple[str, Value]]:  # fmt: skip
        by_name = {_name(layer): layer for layer in layers}
        if len(by_name) != len(layers):
            double = next(n for n in by_name if sum(_name(layer) == n for layer in layers) > 1)
            raise ConversionError(f"two layers are called {double[:80]!r}")
        results: dict[tuple[str, int], list[Value]] = {}
        for place, (name, _, _) in enumerate(references(body["input_layers"])):
            if given is None:
                results[name, 0] = [self.take_input(name, _shape(by_name[name]["config"]))]
            elif place < len(given):
                results[name, 0] = [given[place]]
        calls: dict[tuple[str, int], tuple[list[Any], dict[str, Any]]] = {}
        sorter: TopologicalSorter[tuple[str, int]] = TopologicalSorter()
        for name, layer in by_name.items():
            for number, node in enumerate(layer.get("inbound_nodes") or ()):
                args, kwargs = arguments(node)
                calls[name, number] = args, kwargs
                sources = [_key(ref, by_name) for ref in inner([*args, *kwargs.values()])]
                sorter.add((name, number), *sources)
        try:
            order = list(sorter.static_order())
        except CycleError as error:
            raise ConversionError("the model's layers read each other in a circle") from error
        for key in order:
            if key in results or key not in calls:
                continue
            args, kwargs = calls[key]
            args = [_resolved(item, results, by_name) for item in args]
            kwargs = {word: _resolved(item, results, by_name) for word, item in kwargs.items()}
            results[key] = self.layer(by_name[key[0]], path, keys, names, args, kwargs)
        outputs = []
        for reference in references(body["output_layers"]):
            outputs.append((reference[0], _resolved(Reference(*reference), results, by_name)))
        return outputs

    def layer(
        self, entry: Mapping[str, Any], path: tuple[str, ...], keys: tuple[str, ...], names: Mapping[str, str],
        args: list[Any], kwargs: dict[str, Any],
    ) -> list[Value]:  # fmt: skip
        """The values that a layer gives: one, or those of a model's outputs."""
        name = _name(entry)
        place = (*path, name)
        if is_model(entry):
            given = [part for item in args for part in (item if isinstance(item, list) else [item])]
            values = [item for item in given if isinstance(item, Value)]
            return [value for _, value in self.model(entry, place, (*keys, names[name]), values)]
        kind = str(entry["class_name"])
        call = Call(
            _CLASSES.get(kind, kind),
            str(entry.get("module") or ""),
            place,
            (*keys, names[name]),
            {key: plain(value) for key, value in entry["config"].items()},
            tuple(args),
            kwargs,
            self.value(),
        )
        self.result.calls.append(call)
        return [call.result]

    def take_input(self, name: str, shape: Sequence[Any]) -> Value:
        value = self.value()
        self.result.inputs.append((name, shape, value))
        return value


def is_model(entry: Mapping[str, Any]) -> bool:
    """Whether a layer is a model of Keras' own classes, with layers in it."""
    body = entry.get("config")
    listed = isinstance(body, list) or (isinstance(body, Mapping) and isinstance(body.get("layers"), list))
    return listed and str(entry.get("class_name")) in MODELS


def _name(entry: Mapping[str, Any]) -> str:
    config = entry["config"]
    return str(config["name"] if isinstance(config, Mapping) and "name" in config else entry["name"])


def _keys(layers: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Layer names to the keys of a numbered file: the class in snake case, counted.

    Source: Keras 3.15.1, keras/src/saving/saving_lib.py (_save_container_state), utils/naming.py (to_snake_case).
    """
    counts: dict[str, int] = {}
    keys: dict[str, str] = {}
    for layer in layers:
        kind = str(layer["class_name"]).rpartition(">")[2]
        stem = snake_case("Functional" if kind == "Model" else kind)
        if stem == "input_layer":
            continue
        count = counts.get(stem, 0)
        counts[stem] = count + 1
        keys[_name(layer)] = f"{stem}_{count}" if count else stem
    return keys


def snake_case(name: str) -> str:
    """`DepthwiseConv2D` -> `depthwise_conv2d`, `SeparableConv2D` -> `separable_conv2d`, `ReLU` -> `re_lu`."""
    return re.sub(r"(?<=.)(?=[A-Z][a-z])|(?<=[a-z])(?=[A-Z])", "_", name).lower()


def _shape(config: Mapping[str, Any]) -> Sequence[Any]:
    found = config["batch_shape"] if "batch_shape" in config else config["batch_input_shape"]
    if not isinstance(found, (list, tuple)):
        raise ConversionError(f"an input has the shape {found!r:.80}")
    return found


def _first_shape(layers: list[Any], body: Any) -> tuple[str, Sequence[Any]]:
    """The input of a Sequential: its InputLayer's, its first layer's, or the one it was built with."""
    entry = layers[0]
    for _ in range(MAX_DEPTH):
        config = entry["config"]
        if isinstance(config, Mapping) and ("batch_shape" in config or "batch_input_shape" in config):
            return _name(entry), _shape(config)
        if not is_model(entry):
            break
        entry = (config if isinstance(config, list) else config["layers"])[0]
    shape = body.get("build_input_shape") if isinstance(body, Mapping) else None
    if isinstance(shape, list):
        return "input", shape
    raise ConversionError("the model was saved without the shape of its input; call it once, and save it again")


def _key(reference: Reference, layers: Mapping[str, Mapping[str, Any]]) -> tuple[str, int]:
    """A layer and the number of its call; Keras 2 counts a model's own inside as call 0."""
    entry = layers.get(reference.layer)
    if entry is None:
        raise ConversionError(f"a layer reads {reference.layer[:80]!r}, which isn't in the model")
    calls = len(entry.get("inbound_nodes") or ())
    shifted = reference.keras2 and is_model(entry) and 1 <= reference.call <= calls
    return reference.layer, reference.call - shifted


def _resolved(item: Any, results: Mapping[tuple[str, int], list[Value]], layers: Mapping[str, Any]) -> Any:
    if isinstance(item, list):
        return [_resolved(part, results, layers) for part in item]
    if not isinstance(item, Reference):
        return item
    values = results.get(_key(item, layers))
    if values is None or not 0 <= item.output < len(values):
        raise ConversionError(f"output {item.output} of call {item.call} of layer {item.layer[:80]!r} doesn't exist")
    return values[item.output]
