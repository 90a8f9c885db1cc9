"""The sheet on which a Keras model becomes a graph: nodes so far, what each call gave, and the variables.

Nodes are first collected, then joined (an activation with the node before it), pruned (what nothing reads), and built.
Hard-swish and its gate, which Keras 2 and people spell as `x * relu6(x + 3) / 6` in up to five layers, are recognised
while they are written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn, Protocol

import numpy as np

from npmobilenet.errors import ConversionError, GraphError
from npmobilenet.formats.keras.topology import Call, Topology, Value
from npmobilenet.graph import Graph, GraphBuilder
from npmobilenet.modeldata import Array
from npmobilenet.ops import OPS, Padding

LONGEST_NAME = 200
ROUTE = (
    "a way that works: tf.lite.TFLiteConverter.from_keras_model(model).convert() gives the bytes of a .tflite, "
    "which loads here"
)
_SIXTH = float(np.float32(1 / 6))


def refuse(call: Call, what: str) -> NoReturn:
    """Raise the error for a layer that can't be converted, with its name and class."""
    raise ConversionError(f"layer {'/'.join(call.path)!r:.120} ({call.kind:.60}): {what}; {ROUTE}")


class Variables(Protocol):
    """Where the arrays come from: an array of the shape for a call's variable."""

    def __call__(self, call: Call, name: str, shape: tuple[int, ...]) -> Array:
        """The array."""
        ...


@dataclass(frozen=True)
class Item:
    """A node that may still change."""

    op: str
    inputs: tuple[str, ...]
    output: str
    attrs: Mapping[str, Any]


class Sheet:
    """See the module. `keras3` says whose formulas hold where the two differ; `notes` is for the provenance."""

    def __init__(self, whole: Topology, shapes: Mapping[int, tuple[int, ...]], variables: Variables, keras3: bool):
        self.keras3 = keras3
        self.notes: list[str] = []
        self.variable = variables
        self.arrays: dict[str, Array] = {}
        self._builder = GraphBuilder("keras")
        self._items: list[Item] = []
        self._repeats: Counter[str] = Counter()
        self._tensors: dict[int, str] = {}
        self._absorbed: set[int] = set()
        formats = [call.config["data_format"] for call in whole.calls if call.config.get("data_format")]
        self.channels_first = bool(formats) and all(said == "channels_first" for said in formats)
        self._outputs = [value for _, value in whole.outputs]
        self._meaning: dict[str, tuple[str, str]] = {}  # tensor -> (part of a hard-swish, the x in it)
        self._readers: dict[int, list[Call | None]] = {}
        for call in whole.calls:
            for operand in call.operands:
                if isinstance(operand, Value):
                    self._readers.setdefault(operand.number, []).append(call)
        for _, value in whole.outputs:
            self._readers.setdefault(value.number, []).append(None)
        self.inputs: list[str] = []
        for name, _, value in whole.inputs:
            self._tensors[value.number] = self._builder.input(self.free(name), shapes[value.number])
            self.inputs.append(self._tensors[value.number])

    # What the rules ask

    def tensor(self, value: Value) -> str:
        """The tensor of a value."""
        return self._tensors[value.number]

    def operand(self, call: Call) -> str:
        """The tensor that a layer of one input reads."""
        values = [operand for operand in call.operands if isinstance(operand, Value)]
        if len(values) != 1:
            raise ConversionError(f"layer {'/'.join(call.path)!r:.120} reads {len(values)} tensors, expected one")
        return self.tensor(values[0])

    def swapped(self, value: Value, tensor: str) -> str:
        """Let a value be another tensor; returns the one that it was."""
        before, self._tensors[value.number] = self._tensors[value.number], tensor
        return before

    def shape(self, tensor: str) -> tuple[int, ...]:
        """Its shape, the batch as 1."""
        return self._builder.tensors[tensor].shape

    def rank_after(self, op: str) -> int:
        """Of the output of a layer with weights."""
        return 2 if op == "fully_connected" else 4

    def only_reader(self, call: Call, kind: str) -> Call | None:
        """The one call that reads this one's result, if it is of that class."""
        readers = self._readers.get(call.result.number, [])
        reader = readers[0] if len(readers) == 1 else None
        return reader if reader is not None and reader.kind == kind else None

    def absorbed(self, call: Call) -> None:
        """Say that the layer before computes this one, too."""
        self._absorbed.add(call.result.number)

    def is_absorbed(self, call: Call) -> bool:
        """Whether the layer before computes it."""
        return call.result.number in self._absorbed

    def gave(self, call: Call, tensor: str) -> None:
        """Note the tensor that a call gave."""
        self._tensors[call.result.number] = tensor

    def free(self, name: str) -> str:
        """A tensor name like this one that isn't taken."""
        plain = "".join(c if c.isprintable() else "?" for c in name)[:LONGEST_NAME] or "tensor"
        taken = self._builder.tensors
        if plain not in taken:
            return plain
        while True:
            self._repeats[plain] += 1
            if f"{plain}_{self._repeats[plain]}" not in taken:
                return f"{plain}_{self._repeats[plain]}"

    def unpadded(self, tensor: str) -> tuple[str, Padding]:
        """The input and the padding of the `pad` that gave this tensor; else the tensor, and none."""
        for item in reversed(self._items[-8:]):
            if item.output == tensor and item.op == "pad":
                return item.inputs[0], item.attrs["padding"]
        return tensor, ((0, 0), (0, 0))

    # Nodes

    def node(self, op: str, inputs: list[str], name: str, **attrs: Any) -> str:
        """Add a node; returns its output."""
        if op == "activation":
            kind, x = self._meaning.get(inputs[0], ("", ""))
            if attrs["function"] == "relu6" and kind == "plus3":
                return self._means(self._add(op, inputs, name, attrs), "capped", x)
        if op == "mul" and len(inputs) == 2:
            for x, other in (inputs, inputs[::-1]):
                kind, inner = self._meaning.get(other, ("", ""))
                if inner == x and kind == "gate":
                    return self._add("activation", [x], name, {"function": "hard_swish"})
                if inner == x and kind == "capped":
                    return self._means(self._add(op, inputs, name, attrs), "product", x)
        return self._add(op, inputs, name, attrs)

    def _add(self, op: str, inputs: list[str], name: str, attrs: Mapping[str, Any]) -> str:
        output = self.free(name)
        try:
            self._builder.node(op, inputs, output, **attrs)
        except GraphError as error:
            raise ConversionError(f"layer {name!r:.120}: {error}") from error
        self._items.append(Item(op, tuple(inputs), output, dict(attrs)))
        return output

    def _means(self, tensor: str, kind: str, x: str) -> str:
        self._meaning[tensor] = kind, x
        return tensor

    def weighted(self, op: str, x: str, weights: Array, bias: Array, name: str, **attrs: Any) -> str:
        """A node with weights and bias."""
        if op == "depthwise_conv2d" and attrs.get("multiplier") == 1:
            del attrs["multiplier"]
        names = [self._constant(f"{name}/weights", weights), self._constant(f"{name}/biases", bias)]
        return self._add(op, [x, *names], name, attrs)

    def _constant(self, name: str, array: Array) -> str:
        name = self._builder.constant(self.free(name), array.shape)
        self.arrays[name] = np.ascontiguousarray(array, np.float32)
        return name

    def numbers(self, numbers: Array | float, like: str, name: str) -> str:
        """A constant for a tensor: one number, one for each channel, or an array that is read as broadcasting does."""
        with np.errstate(over="ignore"):
            values = np.atleast_1d(np.asarray(numbers, np.float64)).astype(np.float32)
        if not np.isfinite(values).all():
            raise ConversionError(f"layer {name!r:.120} has numbers that float32 doesn't hold")
        rank = len(self.shape(like))
        while values.ndim > rank and values.shape[0] == 1:
            values = values[0]
        shape = (1,) * (rank - values.ndim) + values.shape
        if len(shape) > rank or shape[0] != 1:
            raise ConversionError(
                f"layer {name!r:.120}: an array {values.shape} for a tensor {self.shape(like)}; expected one that is "
                "the same for every image"
            )
        return self._constant(f"{name}/values", values.reshape(shape))

    def constant_op(self, op: str, x: str, numbers: Array | float, name: str) -> str:
        """A node of a tensor and a constant (see `numbers`)."""
        constant = self.numbers(numbers, x, name)
        values = self.arrays[constant]
        number = float(values.reshape(-1)[0]) if values.size == 1 else None
        kind, inner = self._meaning.get(x, ("", ""))
        if op == "mul" and number is not None and abs(number - _SIXTH) < 1e-6 and kind in ("capped", "product"):
            function = "hard_sigmoid" if kind == "capped" else "hard_swish"
            gate = self._add("activation", [inner], name, {"function": function})
            return self._means(gate, "gate", inner) if kind == "capped" else gate
        tensor = self._add(op, [x, constant], name, {})
        return self._means(tensor, "plus3", x) if op == "add" and number == 3 else tensor

    def binary(self, op: str, x: str, y: str, name: str) -> str:
        """`add`, `sub` or `mul` of two tensors; Keras lets the shorter shape lack leading dimensions."""
        a, b = self.shape(x), self.shape(y)
        if len(a) != len(b):
            short, rank = (x, len(b)) if len(a) < len(b) else (y, len(a))
            dims = self.shape(short)[1:]
            wide = self.node("reshape", [short], f"{short}_wide", shape=(1,) * (rank - len(dims)) + dims)
            x, y = (wide, y) if short == x else (x, wide)
        return self.node(op, [x, y], name)

    # The graph

    def scaling(self, most: int = 8) -> tuple[Array, Array, str]:
        """What the first nodes do to the input, if each only scales or shifts: (scale, shift, their last tensor)."""
        scale, shift, at = np.ones(1), np.zeros(1), self.inputs[0]
        kept = [self.tensor(value) for value in self._outputs]
        for _ in range(most):
            readers = [item for item in self._items if at in item.inputs]
            if len(readers) != 1 or readers[0].op not in ("mul", "add") or at in kept:
                break
            others = [name for name in readers[0].inputs if name != at]
            if len(others) != 1 or others[0] not in self.arrays:
                break
            values = self.arrays[others[0]].reshape(-1).astype(np.float64)
            if values.size not in (1, self.shape(at)[-1]):
                break
            scale, shift = (scale * values, shift * values) if readers[0].op == "mul" else (scale, shift + values)
            at = readers[0].output
        return scale, shift, at

    def finish(self, name: str, start: str) -> tuple[Graph, dict[str, Array]]:
        """The graph, whose first input stands for the tensor `start`, and its arrays."""
        kept = tuple(dict.fromkeys(self.tensor(value) for value in self._outputs))
        items = [self._renamed(item, {start: self.inputs[0]}) for item in self._items if item.output != start]
        items = _joined(_pruned(items, kept), kept)
        builder = GraphBuilder(name)
        for tensor in self.inputs:
            builder.input(tensor, self.shape(tensor))
        arrays: dict[str, Array] = {}
        for item in items:
            for constant in item.inputs:
                if constant in self.arrays and constant not in arrays:
                    arrays[constant] = self.arrays[constant]
                    builder.constant(constant, arrays[constant].shape)
            builder.node(item.op, item.inputs, item.output, **item.attrs)
            builder.endpoints[item.output] = item.output
        last = next((item for item in reversed(items) if item.op == "softmax"), None)
        if last is not None and last.output == kept[0]:
            builder.endpoints.setdefault("Logits", last.inputs[0])
        return builder.finish(list(kept)), arrays

    def _renamed(self, item: Item, names: Mapping[str, str]) -> Item:
        return replace(item, inputs=tuple(names.get(tensor, tensor) for tensor in item.inputs))


def _pruned(items: list[Item], kept: tuple[str, ...]) -> list[Item]:
    """The items that an output needs."""
    wanted, found = set(kept), []
    for item in reversed(items):
        if item.output in wanted:
            wanted.update(item.inputs)
            found.append(item)
    return found[::-1]


def _joined(items: list[Item], kept: tuple[str, ...]) -> list[Item]:
    """Activations into the node before, where nothing else reads that."""
    readers = Counter(tensor for item in items for tensor in item.inputs)
    at: dict[str, int] = {}
    result: list[Item] = []
    for item in items:
        before = result[at[item.inputs[0]]] if item.op == "activation" and item.inputs[0] in at else None
        if (
            before is not None and readers[before.output] == 1 and before.output not in kept
            and "activation" in OPS[before.op].optional and "activation" not in before.attrs
        ):  # fmt: skip
            attrs = {**before.attrs, "activation": item.attrs["function"]}
            place = at.pop(before.output)
            result[place] = Item(before.op, before.inputs, item.output, attrs)
            at[item.output] = place
            continue
        at[item.output] = len(result)
        result.append(item)
    return result


Rule = Callable[[Sheet, Call], str]
