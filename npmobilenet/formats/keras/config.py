"""Reads the configuration of a Keras model as plain data; no class of it is ever looked up or loaded."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from npmobilenet.errors import ConversionError
from npmobilenet.formats.keras.layers import SAME
from npmobilenet.formats.keras.names import SUPPORTED
from npmobilenet.graph import Padding

MAX_SIDE = 8192
_CLASS_KEYS = {
    "Conv2D": "conv2d",
    "DepthwiseConv2D": "depthwise_conv2d",
    "BatchNormalization": "batch_normalization",
    "Dense": "dense",
}
_RESCALING = (1 / 127.5, -1.0)


@dataclass(frozen=True)
class Layer:
    """A layer that computes something: what it is, what it reads, and the numbers passed to it besides tensors."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    numbers: tuple[float, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Config:
    """What a configuration says, once the layers that change nothing in inference are taken out.

    `keys` maps the keys of a numbered store (`conv2d_3`) to layer names. `size` has None where the model takes any.
    """

    input: str = ""
    layers: list[Layer] = field(default_factory=list)
    keys: dict[str, str] = field(default_factory=dict)
    size: tuple[int | None, int | None] = (None, None)
    channels: int = 3
    rescaling: bool = False
    paddings: dict[str, str | Padding] = field(default_factory=dict)

    def epsilon(self, names: Mapping[str, str]) -> dict[str, float]:
        """Epsilon of each batch norm, by its name in Keras 3's spelling."""
        return {
            names.get(layer.name, layer.name): float(layer.config["epsilon"])
            for layer in self.layers
            if layer.kind == "BatchNormalization"
        }

    @property
    def activation(self) -> str:
        """The activation of the last layer: of a Dense classifier, or of the Activation behind a convolution."""
        return function_name(self.layers[-1].config.get("activation")) if self.layers else "linear"

    @property
    def pooling(self) -> str:
        """`avg` or `max` if the model ends with a global pool."""
        last = self.layers[-1].kind if self.layers else ""
        return {"GlobalAveragePooling2D": "avg", "GlobalMaxPooling2D": "max"}.get(last, "")


def parse_config(data: Mapping[str, Any]) -> Config:
    """Read the configuration of a functional model. Raises `ConversionError` if it isn't one of the expected form."""
    try:
        return _parse(data)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RecursionError, OverflowError) as error:
        raise ConversionError(
            f"the model's configuration is not of the form that Keras writes: {type(error).__name__}: {error}"
        ) from error


def _parse(data: Mapping[str, Any]) -> Config:
    kind = str(data["class_name"])
    if kind not in ("Functional", "Model"):
        raise ConversionError(f"the model is a {kind!r}, not a functional model; {SUPPORTED}")
    body = data["config"]
    result = Config()
    reader = _Reader(result)
    for entry in body["layers"]:
        reader.layer(entry)
    result.keys.update(names_of_keys((e["class_name"], e["config"]["name"]) for e in body["layers"]))
    outputs, _ = _references(body["output_layers"])
    last = result.layers[-1].name if result.layers else ""
    if [reader.aliases.get(name, name) for name in outputs] != [last] or not last:
        raise ConversionError(
            f"the model's outputs are {outputs}, expected the last layer alone ({last!r}); {SUPPORTED}"
        )
    return result


def names_of_keys(layers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Store keys (`conv2d_3`) to layer names, for (class, name) of all layers in Keras' order.

    Source: Keras 3.15.1, keras/src/saving/saving_lib.py, _save_container_state: the class in snake case, and a counter.
    """
    keys: dict[str, str] = {}
    counts: dict[str, int] = {}
    for kind, name in layers:
        stem = _CLASS_KEYS.get(kind)
        if stem is not None:
            count = counts.get(stem, 0)
            counts[stem] = count + 1
            keys[f"{stem}_{count}" if count else stem] = str(name)
    return keys


class _Reader:
    """Takes in the layers one by one; `aliases` leads from a layer that changes nothing to the one before it."""

    def __init__(self, result: Config) -> None:
        self.result = result
        self.aliases: dict[str, str] = {}
        self.seen: set[str] = set()
        self.pads: dict[str, Padding] = {}
        self.small: set[str] = set()  # layers whose map is 1 x 1, so that a reshape keeps the order of the values

    def layer(self, entry: Mapping[str, Any]) -> None:
        kind, config = str(entry["class_name"]), entry["config"]
        name = str(config["name"])
        if name in self.seen:
            raise ConversionError(f"two layers are called {name!r}")
        self.seen.add(name)
        module = str(entry.get("module") or "keras")
        if module.partition(".")[0] not in ("keras", "tf_keras", "tensorflow") or "layers" in config:
            raise unknown(kind, name)
        if kind == "InputLayer":
            self.take_input(name, config)
            return
        if len(entry["inbound_nodes"]) != 1:
            raise ConversionError(f"layer {name!r} is used {len(entry['inbound_nodes'])} times, expected once")
        sources, numbers = _references(entry["inbound_nodes"])
        inputs = tuple(self.aliases.get(source, source) for source in sources)
        if self.passes(kind, name, config, inputs):
            self.aliases[name] = inputs[0]
            if sources[0] in self.pads:
                self.pads[name] = self.pads[sources[0]]
            return
        if any(source in self.pads for source in sources) and kind not in ("Conv2D", "DepthwiseConv2D"):
            raise ConversionError(f"layer {name!r} ({kind}) reads a padded tensor; {SUPPORTED}")
        if kind in ("Conv2D", "DepthwiseConv2D"):
            self.result.paddings[name] = self.padding(name, config, sources[0])
        self.result.layers.append(Layer(kind, name, inputs, tuple(numbers), config))
        if kind == "GlobalAveragePooling2D" or all(source in self.small for source in inputs):
            self.small.add(name)

    def take_input(self, name: str, config: Mapping[str, Any]) -> None:
        shape = config["batch_shape"] if "batch_shape" in config else config["batch_input_shape"]
        if self.result.input or len(shape) != 4:
            raise ConversionError(
                f"input {name!r} of shape {shape}: expected one input (None, height, width, channels)"
            )
        height, width, channels = shape[1:]
        for side in (height, width, channels):
            if side is not None and (not isinstance(side, int) or not 1 <= side <= MAX_SIDE):
                raise ConversionError(f"input {name!r} has shape {shape}: expected sides from 1 to {MAX_SIDE}")
        if channels is None:
            raise ConversionError(f"input {name!r} has shape {shape}: the number of channels is not given")
        self.result.input = name
        self.result.size, self.result.channels = (height, width), channels

    def passes(self, kind: str, name: str, config: Mapping[str, Any], inputs: tuple[str, ...]) -> bool:
        """Whether a layer hands on its input: dropout, a reshape of a 1 x 1 map, rescaling, padding (noted)."""
        if kind == "Dropout":
            return True
        if kind in ("Reshape", "Flatten"):
            target = [d for d in config.get("target_shape", ()) if d != 1]
            if inputs[0] not in self.small or len(target) > 1:
                raise unknown(kind, name)
            return True
        if kind == "Rescaling":
            found = (float(config["scale"]), float(config["offset"]))
            if inputs != (self.result.input,) or not all(map(close, found, _RESCALING)):
                raise ConversionError(f"layer {name!r} rescales by {found}, expected {_RESCALING} on the model's input")
            self.result.rescaling = True
            return True
        if kind == "ZeroPadding2D":
            (top, bottom), (left, right) = config["padding"]
            pads = ((top, bottom), (left, right))
            if not all(isinstance(p, int) and 0 <= p <= 16 for pair in pads for p in pair):
                raise ConversionError(f"layer {name!r} pads by {pads}, expected 0 to 16 pixels")
            self.pads[name] = pads
            return True
        return False

    def padding(self, name: str, config: Mapping[str, Any], source: str) -> str | Padding:
        said, before = config["padding"], self.pads.get(source)
        if said == "same" and before is None:
            return SAME
        if said != "valid":
            raise ConversionError(f"layer {name!r} has padding {said!r} after {before or 'none'}; {SUPPORTED}")
        return before or ((0, 0), (0, 0))


def _references(value: Any) -> tuple[list[str], list[float]]:
    """The layers that a node reads, and its other numbers, in Keras 3's form and in Keras 2's.

    Keras 3: `{"class_name": "__keras_tensor__", "config": {"keras_history": [layer, 0, 0]}}`. Keras 2: `[layer, 0, 0]`
    or `[layer, 0, 0, {"y": 3.0}]`.
    """
    names: list[str] = []
    numbers: list[float] = []

    def call(item: Sequence[Any]) -> bool:
        return len(item) in (3, 4) and isinstance(item[0], str) and all(isinstance(i, int) for i in item[1:3])

    def walk(item: Any) -> None:
        if isinstance(item, dict):
            if item.get("class_name") == "__keras_tensor__":
                walk(item["config"]["keras_history"])
                return
            item = list(item.values())
        if isinstance(item, list):
            if call(item):
                names.append(item[0])
                item = item[3:]
            for inner in item:
                walk(inner)
        elif isinstance(item, (int, float)) and not isinstance(item, bool):
            numbers.append(float(item))

    walk(value)
    return names, numbers


def function_name(value: Any) -> str:
    """The name of an activation function: a string, None (linear), or `{"class_name": "function", "config": name}`."""
    if isinstance(value, Mapping):
        value = value.get("config")
    name = "linear" if value is None else str(value)
    return "hard_silu" if name == "hard_swish" else name


def close(found: float, wanted: float) -> bool:
    """Whether two settings are the same number, a float32 one perhaps printed with fewer digits."""
    return math.isclose(found, wanted, rel_tol=1e-6)


def unknown(kind: str, name: str, expected: str = "") -> ConversionError:
    """The error for a layer that doesn't belong, with what is supported."""
    instead = f", where {expected} is expected" if expected else ""
    return ConversionError(
        f"layer {name!r} ({kind}) is not part of a model that can be converted{instead}; {SUPPORTED}"
    )
