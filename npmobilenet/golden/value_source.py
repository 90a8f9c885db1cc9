"""Where the golden tools take a model and its values from: a run of their own, or anyone's dump."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from npmobilenet.errors import InputError, nearest
from npmobilenet.golden.catalogue import Entry, catalogue
from npmobilenet.golden.dump import Dump
from npmobilenet.golden.dump_view import DumpView
from npmobilenet.golden.inputs import load_input
from npmobilenet.golden.name_match import NameMap, read_map
from npmobilenet.graph import Graph
from npmobilenet.model import Inputs, Model, load, load_data
from npmobilenet.modeldata import Array, ModelData
from npmobilenet.runtime.taps import ACCUMULATING, split_prefix

ModelSource = Model | ModelData | str | os.PathLike[str]
ValueSource = Dump | Inputs | str | os.PathLike[str]
DumpPath = Dump | str | os.PathLike[str]


def data_of(model: ModelSource) -> ModelData:
    """Graph and weights of whatever names a model; nothing is planned."""
    if isinstance(model, Model):
        return model.data
    return model if isinstance(model, ModelData) else load_data(model)


def model_of(model: ModelSource, dialect: str) -> Model:
    """A model ready to run under a dialect."""
    if isinstance(model, Model):
        return model if model.dialect == dialect else Model(model.data, model.kernels, dialect, model.threads)
    return Model(model, dialect=dialect) if isinstance(model, ModelData) else load(model, dialect=dialect)


def is_dump(source: ValueSource) -> bool:
    """Whether values come from a dump, rather than from a run on an input: a folder, or an archive with a manifest."""
    if isinstance(source, Dump):
        return True
    if not isinstance(source, (str, os.PathLike)):
        return False
    path = Path(source)
    try:
        return path.is_dir() or (path.suffix == ".npz" and path.is_file() and Dump(path).manifest is not None)
    except (OSError, ValueError):
        return False


class DumpValues:
    """The values of a dump by a model's names."""

    def __init__(
        self, data: ModelData, dump: DumpPath, names: NameMap | str | os.PathLike[str] | None, layout: str
    ) -> None:  # fmt: skip
        self.dump = dump if isinstance(dump, Dump) else Dump(dump)
        self.entries: dict[str, Entry] = {entry.name: entry for entry in catalogue(data.graph)}
        self.view = DumpView(self.dump, list(self.entries.values()), read_map(names), layout)

    def __contains__(self, name: str) -> bool:
        return name in self.view

    def get(self, name: str) -> Array | None:
        """The value, or None if the dump doesn't have it."""
        if name not in self:
            return None
        return self[name]

    def __getitem__(self, name: str) -> Array:
        if name not in self.view:
            raise InputError(f"'{self.dump.path}' has no array for '{name}'")
        return self.view.get(self.entries[name])


def run_values(model: Model, source: Inputs | str | os.PathLike[str], names: Iterable[str]) -> dict[str, Array]:
    """The values of these tensors and taps in a run of the model."""
    arrays, _ = load_input(model, source)
    wanted = list(dict.fromkeys(names))
    _, taps = model.run(arrays, taps=wanted)
    return taps


def find_tensor(graph: Graph, name: str) -> tuple[str, str]:
    """A tap's prefix and its tensor for a name, an endpoint or "#12". Raises `InputError`."""
    prefix, bare = split_prefix(name)
    tensor = graph.endpoints.get(bare, bare)
    if tensor not in graph.tensors or graph.tensors[tensor].constant:
        known = [*graph.endpoints, *(n for n, t in graph.tensors.items() if not t.constant)]
        near = ", ".join(nearest(bare, known))
        raise InputError(f"no tensor of '{graph.name}' is called '{bare}'; did you mean one of {near}?")
    node = graph.producers.get(tensor)
    if prefix and (node is None or node.op not in ACCUMULATING):
        what = f"computed by {node.op}" if node else "an input"
        raise InputError(f"'{name}': '{tensor}' is {what}; only {', '.join(ACCUMULATING)} have accumulators")
    return prefix, tensor
