"""What a model is before it is planned: its graph, its weights, and what a user must know about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from numpy.typing import NDArray

from npmobilenet.errors import PlanError, nearest
from npmobilenet.graph import Graph

Array = NDArray[Any]

ASSUMED = "assumed"  # the key of a model's provenance for what its file didn't tell
_BETWEEN = "; "


def assumptions(sentences: Iterable[str]) -> dict[str, str]:
    """What was taken for granted when a file was read, as an entry of its provenance; none where nothing was."""
    text = _BETWEEN.join(sentences)
    return {ASSUMED: text} if text else {}


def recipe_assumed(name: str) -> str:
    """The sentence for a recipe that nothing in the file tells."""
    return f"recipe assumed: {name}"


def imagenet_labels(num_classes: int) -> tuple[str | tuple[str, ...], int]:
    """Labels and their offset: TF-slim's ImageNet models have 1001 classes, 0 being background; 1000 are without it."""
    return {1001: ("imagenet", 1), 1000: ("imagenet", 0)}.get(num_classes, ((), 0))


def shared_prefix(names: Sequence[str]) -> str:
    """The folders that all names begin with, "MobilenetV1/MobilenetV1/": what can be left out where they are listed."""
    first, last = (min(names), max(names)) if len(names) > 1 else ("", "")
    common = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return first[: first.rfind("/", 0, common) + 1]


@dataclass(frozen=True)
class ModelInfo:
    """Facts that travel with the weights.

    `labels` names a bundled list ("imagenet") or is the tuple of class names itself, () for a model that isn't a
    classifier. `label_offset` is the output index of the first label: 1 where class 0 is "background" (TF-slim's 1001
    classes), else 0. `preprocessing` is a recipe of recipes.py. `provenance` holds strings: source file or URL, its
    sha256, converter and version, accuracy, notes. What the file didn't tell stands under "assumed" (`assumed`).
    """

    name: str
    labels: str | tuple[str, ...] = ()
    label_offset: int = 0
    preprocessing: str = "slim_inception_eval"
    provenance: Mapping[str, str] = field(default_factory=dict)

    @property
    def assumed(self) -> tuple[str, ...]:
        """What nothing in the file tells and was taken for granted: sentences, "recipe assumed: raw_pixels" one."""
        return tuple(self.provenance[ASSUMED].split(_BETWEEN)) if ASSUMED in self.provenance else ()


@dataclass(frozen=True)
class ModelData:
    """A graph, one array for each of its constants (same names, shapes and dtypes), and the facts about them."""

    graph: Graph
    tensors: Mapping[str, Array]
    info: ModelInfo

    def until(self, outputs: Sequence[str]) -> ModelData:
        """The part of the model that computes these endpoints or tensors (`cut`); the whole for none."""
        if not outputs:
            return self
        graph, facts = cut(self.graph, outputs), {**self.info.provenance, "outputs": ", ".join(outputs)}
        tensors = {name: self.tensors[name] for name in graph.constants}
        return ModelData(graph, tensors, replace(self.info, provenance=facts))

    def __repr__(self) -> str:
        size = sum(array.nbytes for array in self.tensors.values())
        return f"<ModelData {self.info.name}: {self.graph!r}, {size:,} bytes of weights>"


def cut(graph: Graph, outputs: Sequence[str]) -> Graph:
    """The part of a graph that computes these endpoints or tensors, its outputs then; its inputs are the same.

    Raises `PlanError` for a name that there isn't.
    """
    computed = [name for name, tensor in graph.tensors.items() if not tensor.constant]
    ends = [graph.endpoints.get(name, name) for name in outputs]
    for given, name in zip(outputs, ends, strict=True):
        if name not in computed:
            near = ", ".join(map(repr, nearest(given, [*graph.endpoints, *computed])))
            raise PlanError(f"outputs: '{graph.name}' has no tensor '{given}'; did you mean one of {near}?")
    wanted = set(ends)
    for node in reversed(graph.nodes):
        if node.output in wanted:
            wanted.update(node.inputs)
    nodes = tuple(node for node in graph.nodes if node.output in wanted)
    wanted.update(graph.inputs)
    tensors = {name: tensor for name, tensor in graph.tensors.items() if name in wanted}
    endpoints = {end: name for end, name in graph.endpoints.items() if name in wanted}
    return Graph(graph.name, graph.inputs, tuple(ends), tensors, nodes, endpoints)
