"""A Keras model of any make, layer by layer from its configuration.

The model is right by construction: each layer's rule (rules.py) says what it computes, each variable is found by the
way of names or counted classes that leads to its layer, and one without a place, or a place without one, is an error.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from npmobilenet.errors import ConversionError, GraphError
from npmobilenet.formats.keras.hdf5 import MAX_FILE_BYTES, Variable, listed, read
from npmobilenet.formats.keras.rules import emit
from npmobilenet.formats.keras.sheet import Sheet
from npmobilenet.formats.keras.store import Store, leaf
from npmobilenet.formats.keras.topology import Call, Topology, Value, is_model, topology
from npmobilenet.formats.misfit import LISTED, in_lines
from npmobilenet.graph import Graph
from npmobilenet.modeldata import Array, recipe_assumed

MAX_SIDE = 8192
DEFAULT_SIDE = 224

# Variables in the order in which a numbered file counts them; what a layer's settings switch off isn't counted.
# Source: Keras 3.15.1, keras/src/layers/layer.py (save_own_variables) and the `build` of each class.
_ORDER: dict[str, tuple[tuple[str, str], ...]] = {
    "SeparableConv2D": (("depthwise_kernel", ""), ("pointwise_kernel", ""), ("bias", "use_bias")),
    "DepthwiseConv2D": (("depthwise_kernel", ""), ("bias", "use_bias")),
    "BatchNormalization": (("gamma", "scale"), ("beta", "center"), ("moving_mean", ""), ("moving_variance", "")),
    "Normalization": (("mean", ""), ("variance", ""), ("count", "")),
    "LayerNormalization": (("gamma", "scale"), ("beta", "center")),
    "GroupNormalization": (("gamma", "scale"), ("beta", "center")),
    "PReLU": (("alpha", ""),),
}
_PLAIN = (("kernel", ""), ("bias", "use_bias"))
_UNUSED = ("count", "seed_generator_state", "state")  # variables that say nothing of inference


class Weights:
    """The variables of a file, by call; `problems` collects what is missing or misshapen."""

    def __init__(self, store: Store, file: str, whole: Topology) -> None:
        self.store, self.file = store, file
        self._names = {call.name for call in whole.calls}
        self.problems: list[str] = []
        self._used: set[tuple[str, str]] = set()

    def __call__(self, call: Call, name: str, shape: tuple[int, ...]) -> Array:
        """The array of a variable; ones, and a line in `problems`, where it isn't there or has another shape."""
        place = "/".join(call.path)
        part, key = self._find(call, name)
        if not key:
            self.problems.append(f"missing: {place[:120]}/{name} {shape}")
        elif (found := self.store.parts[part][key]).shape != shape:
            self.problems.append(f"misshapen: {place[:120]}/{name} is {found.shape}, expected {shape}")
        else:
            self._used.add((part, key))
            return read(found, shape, f"'{self.file}': {place[:120]}/{name}")
        if len(self.problems) > LISTED or 4 * math.prod(shape) > MAX_FILE_BYTES:
            self.check()
        return np.ones(shape, np.float32)

    def _find(self, call: Call, name: str) -> tuple[str, str]:
        if self.store.kind != "legacy .h5":
            part = "/".join(call.keys)
            if self.store.keys.get(part, call.name) != call.name:
                raise ConversionError(
                    f"'{self.file}': model.weights.h5 calls layer {'/'.join(call.path)[:120]!r} otherwise: "
                    f"{self.store.keys[part][:80]!r}"
                )
            order = [n for n, flag in _ORDER.get(call.kind, _PLAIN) if not flag or call.config.get(flag, True)]
            number = str(order.index(name)) if name in order else ""
            return part, number if number in self.store.parts.get(part, {}) else ""
        group = self.store.parts.get(call.path[0], {})
        names = {name, "kernel"} if name == "depthwise_kernel" and call.kind == "DepthwiseConv2D" else {name}
        found = [weight for weight in group if leaf(weight) in names]
        if len(call.path) > 1:  # a nested model's weights lie in one group, by the names of their layers
            found = [weight for weight in found if self._owner(weight) == call.name]
        for depth in range(2, len(call.path)):
            way = "/".join(call.path[-depth:])
            nearer = [weight for weight in found if f"/{weight}".rpartition("/")[0].endswith(f"/{way}")]
            if len(found) == 1 or not nearer:
                break
            found = nearer
        if len(found) > 1:
            raise ConversionError(
                f"'{self.file}': {listed(found)} in group {call.path[0][:80]!r} may all be the {name} of layer "
                f"{'/'.join(call.path)[:120]!r}; save the model in the format of Keras 3: model.save('model.keras')"
            )
        return call.path[0], found[0] if found else ""

    def _owner(self, weight: str) -> str:
        """The layer that a weight's name tells: `a/b/kernel:0` may be of a layer `b`, or, in Keras 2, of one `a/b`.

        TF 1 counted the names of a graph's variables: where a model was made a second time, `b` wrote `b_1/kernel:0`.
        """
        parts = weight.split("/")[:-1]
        ends = ["/".join(parts[start:]) for start in range(len(parts))]
        stems = [re.sub(r"_\d+$", "", end) for end in ends]
        return next((end for end in (*ends, *stems) if end in self._names), "")

    def check(self) -> None:
        """Raise one `ConversionError` that lists what is missing, misshapen or left over."""
        left = [
            f"left over: {part[:80]}/{key[:80]} {found.shape}"
            for part, group in self.store.parts.items()
            for key, found in group.items()
            if (part, key) not in self._used and not _idle(key, found)
        ]
        problems = self.problems + (left if len(self.problems) <= LISTED else [])
        if problems:
            raise ConversionError(
                f"'{self.file}': its variables don't fit its layers ({len(problems)}):{in_lines(problems)}"
            )


def _idle(key: str, found: Variable) -> bool:
    """Whether a variable says nothing of inference: a counter, the state of a random generator."""
    return leaf(key) in _UNUSED or (found.shape in ((), (2,)) and found.dataset.dtype.kind in "iu")


def input_shape(
    name: str, shape: Sequence[Any], resolution: tuple[int, int] | None, notes: list[str], default: tuple[int, int]
) -> tuple[int, ...]:
    """(1, ...) of a declared shape; None for height and width takes the resolution, or else the default.

    Raises `ConversionError`.
    """
    given = list(shape)[1:]
    if not 1 <= len(given) <= 3:
        raise ConversionError(f"input {name[:80]!r} has the shape {shape!r:.80}: expected a picture (None, h, w, c)")
    if len(given) == 3:
        for place in (0, 1):
            said = given[place]
            if said is None:
                if resolution is None:
                    notes.append(f"the file gives no input size: {default[0]} x {default[1]} is assumed "
                                 "(pass resolution=, or a model name, for another)")  # fmt: skip
                    resolution = default
                given[place] = resolution[place]
            elif resolution is not None and resolution[place] != said:
                raise ConversionError(f"the model takes pictures of {given[0]} x {given[1]}, not of {resolution}")
    if not all(isinstance(d, int) and not isinstance(d, bool) and 1 <= d <= MAX_SIDE for d in given):
        raise ConversionError(f"input {name[:80]!r} has the shape {shape!r:.80}: expected sides from 1 to {MAX_SIDE}")
    return (1, *given)


def _default(whole: Topology, given: Value) -> tuple[int, int]:
    """The size of an input that the file leaves open: what a Resizing layer makes of it, which then does nothing."""
    for call in whole.calls:
        height, width = call.config.get("height"), call.config.get("width")
        if call.kind == "Resizing" and given in call.operands and isinstance(height, int) and isinstance(width, int):
            return height, width
    return DEFAULT_SIDE, DEFAULT_SIDE


def build(
    store: Store, file: str, name: str, resolution: tuple[int, int] | None, assumed: list[str], notes: list[str]
) -> tuple[Graph, dict[str, Array], str]:
    """Graph, arrays and recipe of a model with a configuration; what was assumed or left out goes into the lists."""
    assert store.config is not None
    whole = topology(store.config)
    if not whole.inputs:
        raise ConversionError("the model has no input")
    said: list[str] = []
    shapes = {v.number: input_shape(n, shape, resolution, said, _default(whole, v)) for n, shape, v in whole.inputs}
    assumed += said[:1]
    weights = Weights(store, file, whole)
    try:
        sheet = _filled(whole, shapes, weights, not store.version.startswith(("1.", "2.")))
        weights.check()
        recipe, start = _recipe(sheet, notes)
        if is_teachable_machine(store.config):
            recipe = "teachable_machine"
        else:
            assumed.insert(0, recipe_assumed(recipe))
        graph, arrays = sheet.finish(name, start)
    except GraphError as error:
        raise ConversionError(f"'{file}': {error}") from error
    notes += list(dict.fromkeys(sheet.notes))
    return graph, arrays, recipe


def is_teachable_machine(config: Mapping[str, Any]) -> bool:
    """Whether a model is built as Teachable Machine builds them: [[MobileNetV2, pool], [Dense, Dense without bias]]."""
    kinds = ("Sequential", "GlobalAveragePooling2D", "Dense")
    try:
        body, head = (part for part in config["config"]["layers"] if part["class_name"] != "InputLayer")
        first, second = ([e for e in part["config"]["layers"] if e["class_name"] != "InputLayer"]
                         for part in (body, head))  # fmt: skip
        built = [config["class_name"], body["class_name"], head["class_name"]] == [kinds[0]] * 3
        ends = [first[1]["class_name"], second[0]["class_name"], second[1]["class_name"]] == [*kinds[1:], kinds[2]]
        return built and ends and is_model(first[0]) and second[1]["config"]["use_bias"] is False
    except (KeyError, TypeError, ValueError, IndexError):
        return False


def _filled(whole: Topology, shapes: dict[int, tuple[int, ...]], weights: Weights, keras3: bool) -> Sheet:
    sheet = Sheet(whole, shapes, weights, keras3)
    for call in whole.calls:
        try:
            tensor = sheet.operand(call) if sheet.is_absorbed(call) else emit(sheet, call)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
            if isinstance(error, ConversionError):
                raise
            raise ConversionError(
                f"layer {'/'.join(call.path)!r:.120} ({call.kind:.60}) has settings that Keras doesn't write: "
                f"{type(error).__name__}: {error}"
            ) from error
        sheet.gave(call, tensor)
    return sheet


def _recipe(sheet: Sheet, notes: list[str]) -> tuple[str, str]:
    """The recipe, and the tensor that the graph's input stands for: behind a scaling that a recipe does as well."""
    scale, shift, at = sheet.scaling()
    first = sheet.inputs[0]
    if at == first:
        return "keras_nearest", first
    known = {"tf2_bilinear": (1 / 127.5, -1.0, "[-1, 1]"), "unit_range": (1 / 255, 0.0, "[0, 1]")}
    for recipe, (factor, offset, text) in known.items():
        if np.allclose(scale, factor, rtol=1e-5, atol=0) and np.allclose(shift, offset, rtol=1e-5, atol=1e-6):
            notes.append(f"Rescaling left out: the input is {text}, not 0..255")
            return recipe, at
    return "raw_pixels", first
