"""Where values come from: an image, an exact tensor, reproducible random numbers, a run, or anyone's dump."""

from __future__ import annotations

import fnmatch
import hashlib
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from npmobilenet.errors import InputError, nearest, short_name
from npmobilenet.formats.model_path import load_data
from npmobilenet.formats.npy import Archive, read_npy
from npmobilenet.golden.dump import Dump, Entry, catalogue
from npmobilenet.golden.foreign_dumps import (
    LAYOUTS,
    OFFSET,
    VIEW,
    NameMap,
    ShapeMatch,
    detect,
    fit,
    fits_other,
    match_names,
    read_map,
)  # fmt: skip
from npmobilenet.graph import Graph, Tensor
from npmobilenet.images.inputs import Inputs
from npmobilenet.images.recipes import value_range
from npmobilenet.model import Model, load
from npmobilenet.modeldata import Array, ModelData, recipe_assumed
from npmobilenet.runtime.taps import ACCUMULATING, split_prefix

RANDOM = "random:"
_STEPS = 2**24  # random floats are a whole number of steps of their range, so the same float32 everywhere


def load_input(model: Model, source: Inputs | str | os.PathLike[str]) -> tuple[dict[str, Array], dict[str, str]]:
    """The arrays for a model's inputs, by name, and the facts about them for a manifest.

    `source` is an array or a dict of arrays, as for `Model.run`, or one of:

    * `random:SEED`: `random_input` with batch 1.
    * the path of a .npy file: the exact input tensor, with or without its batch dimension.
    * the path of an .npz file: an array for each input, by name (or a single one).
    * the path of an image, prepared by the model's recipe and, for an integer model, quantized.

    Raises `InputError`.
    """
    facts: dict[str, str] = {}
    if isinstance(source, Mapping):
        arrays, facts["source"] = dict(source), "arrays"
    elif isinstance(source, np.ndarray):
        arrays, facts["source"] = {model.graph.inputs[0]: source}, "array"
    elif isinstance(source, (str, os.PathLike)):
        arrays, facts = _from_source(model, os.fspath(source))
    else:
        raise InputError(
            f"the input: expected an array, a dict of arrays, a path or 'random:SEED', got {type(source).__name__}"
        )
    arrays = {name: _batched(np.asarray(array), model.graph.tensors.get(name)) for name, array in arrays.items()}
    facts["sha256"] = hashlib.sha256(b"".join(little_endian(arrays[name]) for name in sorted(arrays))).hexdigest()
    return arrays, facts


def _from_source(model: Model, source: str) -> tuple[dict[str, Array], dict[str, str]]:
    if source.startswith(RANDOM):
        return random_input(model, _seed(source)), {"source": source}
    path = Path(source)
    first = model.graph.inputs[0]
    if path.suffix == ".npy":
        arrays = {first: read_npy(path)}
    elif path.suffix == ".npz":
        archive = Archive(path)
        found = {name.removesuffix(".npy"): name for name in archive.names if name.endswith(".npy")}
        single = len(found) == 1 and len(model.graph.inputs) == 1
        arrays = {first if single else name: archive.read(member) for name, member in found.items()}
        if not arrays:
            raise InputError(f"'{path}' holds no arrays: expected one for each input, {', '.join(model.graph.inputs)}")
    else:
        recipe = model.info.preprocessing
        said = [text for text in model.info.assumed if text == recipe_assumed(recipe)]
        prepared = {first: model.preprocess(path)}  # refuses a file that isn't there
        facts = {"source": path.name, "file_sha256": file_sha256(path), "recipe": recipe}
        return prepared, {**facts, **({"assumed": said[0]} if said else {})}
    return arrays, {"source": path.name, "file_sha256": file_sha256(path)}


def _seed(source: str) -> int:
    text = source.removeprefix(RANDOM)
    if not re.fullmatch(r"[0-9]{1,10}", text) or int(text) >= 2**32:
        raise InputError(f"'{source}': expected '{RANDOM}SEED' with a whole number from 0 to 4294967295")
    return int(text)


def random_input(model: Model, seed: int, batch: int = 1) -> dict[str, Array]:
    """Uniform random arrays for all inputs: integers over their whole range, floats over the recipe's range.

    From NumPy's RandomState, whose streams are frozen: the same numbers in every version and on every machine. Floats
    are low + (high - low) * k / 2^24 with k uniform in 0 ... 2^24 - 1.
    """
    random = np.random.RandomState(seed)
    low, high = (np.float32(v) for v in value_range(model.info.preprocessing))
    found: dict[str, Array] = {}
    for name in model.graph.inputs:
        tensor = model.graph.tensors[name]
        shape = (batch, *tensor.shape[1:])
        if tensor.dtype.startswith("float"):
            unit = random.randint(0, _STEPS, shape).astype(np.float32) / np.float32(_STEPS)
            found[name] = low + (high - low) * unit
        else:
            limits = np.iinfo(tensor.dtype)
            found[name] = random.randint(limits.min, int(limits.max) + 1, shape, np.int64).astype(tensor.dtype)
    return found


def _batched(array: Array, tensor: Tensor | None) -> Array:
    """A tensor that lacks its batch dimension gets one; anything else is left for the model's own checks."""
    if tensor is not None and array.shape == tensor.shape[1:] and len(tensor.shape) > 1:
        return array[None]
    return array


def little_endian(array: Array) -> bytes:
    """The bytes of the elements in C order."""
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()


def file_sha256(path: Path) -> str:
    """The sha256 of a file, read in pieces."""
    total = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(2**20):
            total.update(piece)
    return total.hexdigest()


def model_facts(data: ModelData, path: str | os.PathLike[str] | None) -> dict[str, Any]:
    """Name and sha256 of a model: of its graph and weights, which a conversion to .h5 leaves alone, and of its file."""
    from npmobilenet.formats.weightfile.schema import digest, tensors_digest

    both = digest(data.graph.to_json().encode()) + tensors_digest(data.graph, data.tensors)
    facts = {"name": data.info.name, "sha256": digest(both.encode())}
    if path is not None and Path(path).is_file():
        facts |= {"file": Path(path).name, "file_sha256": file_sha256(Path(path))}
    elif "sha256" in data.info.provenance:
        facts["source_sha256"] = data.info.provenance["sha256"]
    return facts


# ---------------------------------------------------------------------------------------------------------------------
# Runs and dumps

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


def is_dump(source: ValueSource, names: object = None) -> bool:
    """Whether values come from a dump, rather than from a run on an input: a folder, an archive with a manifest, or any
    file of arrays where a name map is given.
    """
    if isinstance(source, Dump):
        return True
    if not isinstance(source, (str, os.PathLike)):
        return False
    path = Path(source)
    try:
        if path.is_dir() or (path.suffix == ".npz" and path.is_file() and Dump(path).manifest is not None):
            return True
        return path.is_file() and (bool(names) or path.suffix in (".json", ".flatbuffer", ".fb", ".lbl"))
    except (OSError, ValueError):
        return False


class DumpView:
    """A dump whose arrays are matched to a catalogue: `files` maps an entry's name to the dump's array."""

    def __init__(self, dump: Dump, known: Sequence[Entry], names: NameMap, layout: str) -> None:
        if layout not in LAYOUTS:
            raise InputError(f"layout='{layout}' is not one of {', '.join(LAYOUTS)}")
        self.dump = dump
        self.entries = {entry.name: entry for entry in known}
        self.own = {entry.name: entry for entry in dump.entries}
        matching = match_names(dump, known, {} if dump.manifest else names)
        self.files, self.left_over = matching.files, matching.left_over
        self.layout, self.eight_bits = "nhwc" if dump.manifest else layout, ""
        if self.layout == "auto":
            pairs = [(dump.read(stem).shape, self.entries[name].shape) for name, stem in self.files.items()]
            self.layout = detect(pairs)

    def notes(self, letter: str) -> list[str]:
        """What to say of this side as a whole."""
        found = []
        if self.dump.manifest is None:
            found.append(f"{letter} has no manifest: {len(self.files)} arrays matched by name")
            if self.layout == "nchw":
                found.append(f"{letter} is NCHW: its arrays of rank 4 were transposed to NHWC")
        if self.left_over:
            names = ", ".join(self.left_over[:4]) + (", ..." if len(self.left_over) > 4 else "")
            found.append(f"{letter}: {len(self.left_over)} arrays match nothing: {names}")
        return found

    def __contains__(self, name: str) -> bool:
        return name in self.files

    def read(self, entry: Entry) -> tuple[Array, list[str]]:
        """The entry's array as it is in the dump, and what to say of it."""
        array = self.dump.read(self.files[entry.name])
        own = self.own.get(entry.name)
        edited = own is not None and self.dump.changed(own, array)
        return array, ["edited since it was recorded"] if edited else []

    def settle_type(self, mistakes: Callable[[], float]) -> None:
        """Where the dump has the other 8-bit type, find how it stands for the right one: what makes fewer mistakes."""
        others = [e for name, e in self.entries.items() if name in self.files and e.dtype in ("int8", "uint8")]
        if self.dump.manifest is not None or not any(self._other_type(entry) for entry in others):
            return
        made = {}
        for self.eight_bits in (VIEW, OFFSET):
            made[self.eight_bits] = mistakes()
        best = min(made, key=lambda how: made[how])
        self.eight_bits = best if made[VIEW] != made[OFFSET] else ""

    def _other_type(self, entry: Entry) -> bool:
        """Whether an array's values show that it is of the other 8-bit type."""
        array = self.dump.read(self.files[entry.name])
        other = "uint8" if entry.dtype == "int8" else "int8"
        limits = np.iinfo(entry.dtype)
        beyond = (
            array.dtype.kind in "iu"
            and array.size
            and not (limits.min <= int(array.min()) and int(array.max()) <= limits.max)
        )
        return str(array.dtype) == other or bool(beyond and fits_other(array, other))

    def fit(self, array: Array, entry: Entry, shape: tuple[int, ...]) -> ShapeMatch:
        """An array of this dump as one of the entry's dtype and of the given shape."""
        return fit(array, shape, entry.dtype, entry.quantization, self.layout, self.eight_bits)

    def __getitem__(self, name: str) -> Array:
        """An entry's array, in its dtype and, but for the batch, its shape. Raises `InputError`."""
        if name not in self:
            raise InputError(f"'{self.dump.path}' has no array for '{name}'")
        entry = self.entries[name]
        array, _ = self.read(entry)
        one = math.prod(entry.shape[1:])
        flat = array.ndim == 1 and len(entry.shape) > 1 and array.size % one == 0
        batch = array.size // one if flat else array.shape[0] if array.ndim == len(entry.shape) else entry.shape[0]
        fitted = self.fit(array, entry, (batch, *entry.shape[1:]))
        if fitted.array is None:
            raise InputError(f"'{self.dump.path}': '{self.files[entry.name]}' for '{entry.name}': {fitted.problem}")
        return fitted.array

    def get(self, name: str) -> Array | None:
        """The same, or None if the dump doesn't have it."""
        if name not in self:
            return None
        return self[name]


def view_of(
    data: ModelData, dump: DumpPath, names: NameMap | str | os.PathLike[str] | None, layout: str
) -> DumpView:  # fmt: skip
    """A dump's values by a model's names."""
    return DumpView(dump if isinstance(dump, Dump) else Dump(dump), catalogue(data.graph), read_map(names), layout)


def run_values(model: Model, source: Inputs | str | os.PathLike[str], names: Iterable[str]) -> dict[str, Array]:
    """The values of these tensors and taps in a run of the model."""
    arrays, _ = load_input(model, source)
    wanted = list(dict.fromkeys(names))
    _, taps = model.run(arrays, taps=wanted)
    return taps


def find_tensor(graph: Graph, name: str) -> tuple[str, str]:
    """A tap's prefix and its tensor for a name, an endpoint, "#12", or a pattern of one. Raises `InputError`."""
    prefix, bare = split_prefix(name)
    tensor = graph.endpoints.get(bare, bare)
    if tensor not in graph.tensors and set("*?[") & set(bare):
        tensor = _only_match(graph, bare)
    if tensor not in graph.tensors or graph.tensors[tensor].constant:
        known = [*graph.endpoints, *(n for n, t in graph.tensors.items() if not t.constant)]
        as_shown = [name for name in known if short_name(name) == bare]
        if len(as_shown) == 1:
            return find_tensor(graph, prefix + as_shown[0])
        near = ", ".join(map(short_name, nearest(bare, known)))
        raise InputError(f"no tensor of '{graph.name}' is called '{bare}'; did you mean one of {near}?")
    node = graph.producers.get(tensor)
    if prefix and (node is None or node.op not in ACCUMULATING):
        what = f"computed by {node.op}" if node else "an input"
        raise InputError(f"'{name}': '{tensor}' is {what}; only {', '.join(ACCUMULATING)} have accumulators")
    return prefix, tensor


def _only_match(graph: Graph, pattern: str) -> str:
    """The one computed tensor whose name or endpoint matches; the pattern itself if none does."""
    names = {n: n for n, t in graph.tensors.items() if not t.constant} | dict(graph.endpoints)
    found = list(dict.fromkeys(tensor for name, tensor in names.items() if fnmatch.fnmatchcase(name, pattern)))
    if len(found) > 1:
        shown = ", ".join(found[:4]) + (", ..." if len(found) > 4 else "")
        raise InputError(f"'{pattern}' matches {len(found)} tensors ({shown}): one is expected")
    return found[0] if found else pattern
