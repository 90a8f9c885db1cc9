"""A dump: its entries in graph order, its manifest, and how it is read.

An entry is a tensor, an accumulator or a pre-activation value. A catalogue of entries comes from a recorded dump's
manifest (JSON, schema 1) or from a model's graph. `Dump` reads what `record` wrote, or anyone's folder or .npz archive
of arrays.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from npmobilenet.errors import InputError
from npmobilenet.formats.array_files import ENDS, SHAPES, Shape, read_array, read_arrays, read_shapes
from npmobilenet.formats.npy import MAX_MEMBERS, Archive
from npmobilenet.graph import Graph, Node, Quantization, Tensor
from npmobilenet.modeldata import Array
from npmobilenet.runtime.taps import ACC, ACCUMULATING, PRE, shown_tensor, split_prefix

INPUT = "input"  # what stands in place of an op for the graph's inputs
LONGEST_STEM = 100  # characters of a name kept in a file's name


@dataclass(frozen=True)
class Entry:
    """One array of a dump. `shape` includes the batch; `inputs` names the computed values that its node reads.

    `name` is the tap: a tensor's name, "acc:NAME" or "pre:NAME". `source` is the tensor's index in a TFLite file
    ("#12", "acc:#12"), `aliases` are endpoints that mean the same. `file` is its .npy file within the dump.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    op: str = ""
    quantization: Quantization | None = None
    source: str = ""
    aliases: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    file: str = ""
    sha256: str = ""

    @property
    def prefix(self) -> str:
        """The prefix of its name: "acc:", "pre:" or nothing."""
        return split_prefix(self.name)[0]

    @property
    def tensor(self) -> str:
        """The name of the graph's tensor that this belongs to."""
        return self.name.removeprefix(self.prefix)


def catalogue(graph: Graph, batch: int = 1) -> list[Entry]:
    """An entry for every computed value of a graph, in graph order; accumulators and pre-activations included."""
    aliases: dict[str, list[str]] = {}
    for endpoint, name in graph.endpoints.items():
        aliases.setdefault(name, []).append(endpoint)
    found = [_entry(graph.tensors[n], INPUT, (), aliases.get(n, ()), batch) for n in graph.inputs]
    for node in graph.nodes:
        reads = tuple(n for n in node.inputs if not graph.tensors[n].constant)
        value = _entry(graph.tensors[node.output], node.op, reads, aliases.get(node.output, ()), batch)
        if node.op in ACCUMULATING:
            found += [_marked(graph, node, value, prefix) for prefix in (ACC, PRE)]
        found.append(value)
    return found


def _entry(tensor: Tensor, op: str, reads: tuple[str, ...], aliases: Iterable[str], batch: int) -> Entry:
    others = tuple(a for a in aliases if a not in (tensor.name, tensor.source))
    shape = (batch, *tensor.shape[1:])
    return Entry(tensor.name, shape, tensor.dtype, op, tensor.quantization, tensor.source, others, reads)


def _marked(graph: Graph, node: Node, value: Entry, prefix: str) -> Entry:
    """The accumulators or pre-activation values of a node; in float32 models they are of the output's kind."""
    aliases = tuple(prefix + alias for alias in value.aliases)
    entry = replace(value, name=prefix + value.name, source=value.source and prefix + value.source, aliases=aliases)
    if value.dtype == "float32":
        return entry
    shown = shown_tensor(graph, node, prefix)
    return replace(entry, dtype=shown.dtype, quantization=shown.quantization)


# ---------------------------------------------------------------------------------------------------------------------
# Names as files


def sanitized(name: str) -> str:
    """A name made of letters, digits, ".", "_" and "-" only: anything else becomes "_"."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name)


def stems(entries: Iterable[Entry]) -> dict[str, str]:
    """A file name, without its end, for each entry: its place in the order, the name sanitized, ".acc" or ".pre".

    The number makes them unique and sorts them; names that differ in letter case only don't meet either.
    """
    found: dict[str, str] = {}
    for place, entry in enumerate(entries):
        middle = sanitized(entry.tensor).strip("._-")[-LONGEST_STEM:] or "tensor"
        end = f".{entry.prefix[:-1]}" if entry.prefix else ""
        found[entry.name] = f"{place:04d}-{middle}{end}"
    return found


# ---------------------------------------------------------------------------------------------------------------------
# JSON


def entry_to_json(entry: Entry) -> dict[str, Any]:
    """An entry of the manifest."""
    q = entry.quantization
    return {
        "name": entry.name, "file": entry.file, "shape": list(entry.shape), "dtype": entry.dtype, "op": entry.op,
        "quantization": None if q is None else {
            "scale": list(q.scale), "zero_point": list(q.zero_point), "axis": q.axis,
        },
        "source": entry.source, "aliases": list(entry.aliases), "inputs": list(entry.inputs), "sha256": entry.sha256,
    }  # fmt: skip


def entry_from_json(data: Mapping[str, Any]) -> Entry:
    """Inverse of `entry_to_json`. Raises `ValueError`, `KeyError` or `TypeError` on anything else."""
    q = data["quantization"]
    quantization = None
    if q is not None:
        scale = tuple(float(s) for s in _list(q["scale"]))
        zero_point = tuple(_whole(z) for z in _list(q["zero_point"]))
        axis = None if q["axis"] is None else _whole(q["axis"])
        if len(scale) != len(zero_point) or not scale or (axis is None and len(scale) > 1):
            raise ValueError(f"{len(scale)} scales and {len(zero_point)} zero points along axis {axis}")
        quantization = Quantization(scale, zero_point, axis)
    shape = tuple(_whole(d) for d in _list(data["shape"]))
    if min(shape, default=1) < 1:
        raise ValueError(f"shape {shape}")
    lists = (tuple(_text(v) for v in _list(data[key])) for key in ("aliases", "inputs"))
    texts = {key: _text(data[key]) for key in ("name", "dtype", "op", "source", "file", "sha256")}
    aliases, inputs = lists
    return Entry(shape=shape, quantization=quantization, aliases=aliases, inputs=inputs, **texts)


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r:.80} where a list is expected")
    return value


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 2**31:
        raise TypeError(f"{value!r:.80} where a whole number is expected")
    return value


MANIFEST = "manifest.json"
FORMAT = "npmobilenet-golden"
SCHEMA = 1
MAX_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Manifest:
    """The facts of a dump.

    `model`: name, sha256 (of graph and weights, whatever file they came from), file and its own sha256. `input`: what
    was fed, and the sha256 of its bytes. `versions`: of npmobilenet, numpy, numba and python.
    """

    entries: tuple[Entry, ...]
    dialect: str
    kernels: str
    batch: int
    model: Mapping[str, str] = field(default_factory=dict)
    input: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)


# ---------------------------------------------------------------------------------------------------------------------
# The manifest


def to_json(manifest: Manifest) -> bytes:
    """The manifest's text, a tensor in each line; equal manifests give equal bytes."""
    facts = {
        "format": FORMAT, "schema": SCHEMA, "model": dict(manifest.model), "input": dict(manifest.input),
        "dialect": manifest.dialect, "kernels": manifest.kernels, "batch": manifest.batch,
        "versions": dict(manifest.versions),
    }  # fmt: skip
    head = json.dumps(facts, indent=1, allow_nan=False).removesuffix("\n}")
    tensors = ",\n  ".join(json.dumps(entry_to_json(entry), allow_nan=False) for entry in manifest.entries)
    return f'{head},\n "tensors": [\n  {tensors}\n ]\n}}\n'.encode()


def from_json(text: bytes, where: str) -> Manifest:
    """Inverse of `to_json`. Raises `InputError`."""
    try:
        data = json.loads(text)
        if data["format"] != FORMAT:
            raise ValueError(f"its format is {data['format']!r:.80}, expected '{FORMAT}'")
        if data["schema"] != SCHEMA:
            raise ValueError(f"its schema is {data['schema']!r:.80}, and this version reads {SCHEMA}")
        entries = tuple(entry_from_json(entry) for entry in data["tensors"])
        manifest = Manifest(
            entries,
            _text(data["dialect"]),
            _text(data["kernels"]),
            int(data["batch"]),
            *(_texts(data[key]) for key in ("model", "input", "versions")),
        )
        _check(manifest)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, OverflowError) as error:
        raise InputError(
            f"'{where}' is not a manifest of a golden dump: {type(error).__name__}: {str(error)[:300]}; record the "
            "dump anew, or rename that file if the dump is someone else's"
        ) from error
    return manifest


def _check(manifest: Manifest) -> None:
    """Files are plain names inside the dump, names and files unique, scales finite and positive."""
    for what in ("name", "file"):
        values = [getattr(entry, what) for entry in manifest.entries]
        if len(set(values)) < len(values):
            raise ValueError(f"two tensors have the same {what}")
    for entry in manifest.entries:
        if not entry.file.endswith(".npy") or set("/\\:\0") & set(entry.file) or entry.file.startswith("."):
            raise ValueError(f"'{entry.file[:80]}' is not the name of a .npy file inside the dump")
        q = entry.quantization
        if q is not None and not all(math.isfinite(s) and s > 0 for s in q.scale):
            raise ValueError(f"'{entry.name[:80]}' has a scale that isn't a positive number")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.80} where a text is expected")
    return value


def _texts(value: Any) -> dict[str, str]:
    return {_text(k): _text(v) for k, v in value.items()}


# ---------------------------------------------------------------------------------------------------------------------
# Reading


class Dump:
    """A folder of files with one array each (.npy, .csv, .json; raw .bin, whose shapes may stand in shapes.json or
    shapes.csv), an .npz archive, a .json file of arrays by name, or what TFLite Micro's layer-by-layer tool writes.

    `manifest` is None for a foreign dump. `files` maps each array's name (its file's name without its end) to its file.

    Raises `InputError` if it can't be read, or its manifest is damaged.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._archive: Archive | None = None
        self._arrays: dict[str, Array] = {}
        self._shapes: dict[str, Shape] = {}
        try:
            is_folder = self.path.is_dir()
            names = [p.name for p in self.path.iterdir()] if is_folder else []
        except (OSError, ValueError) as error:
            raise InputError(f"'{path}' can't be read: {error}") from error
        if not is_folder and self.path.suffix == ".npy":
            raise InputError(f"'{path}' is a single array: expected a folder of .npy files, or an .npz archive")
        if not is_folder and (self.path.suffix == ".npz" or not self.path.is_file()):
            self._archive = Archive(self.path)
            names = self._archive.names
        elif not is_folder:
            self._arrays = read_arrays(self.path)
        if len(names) > MAX_MEMBERS:
            raise InputError(f"'{path}' holds {len(names):,} files, at most {MAX_MEMBERS:,} are allowed")
        folder = set(names) if is_folder else set()
        for name in folder & set(SHAPES):
            self._shapes |= read_shapes(self.path / name)
        self.files = {name: name for name in self._arrays}
        for name in sorted(set(names) - {MANIFEST, *SHAPES}):
            stem, _, end = name.rpartition(".")
            if stem and end in (ENDS if is_folder else ("npy",)):
                self.files.setdefault(stem, name)
        self.manifest = self._read_manifest() if MANIFEST in names else None
        if not self.files:
            raise InputError(f"'{path}' holds no .npy, .bin, .csv or .json files: expected one array in each file")

    def _read_manifest(self) -> Manifest:
        where = self.path / MANIFEST
        if self._archive is not None:
            text = self._archive.text(MANIFEST, MAX_BYTES)
        else:
            try:
                if not where.is_file():
                    raise OSError("expected a regular file")
                with open(where, "rb") as file:
                    text = file.read(MAX_BYTES + 1)
            except OSError as error:
                raise InputError(f"'{where}' can't be read: {error.strerror or error}") from error
            if len(text) > MAX_BYTES:
                raise InputError(f"'{where}' has more than {MAX_BYTES:,} bytes: that is no manifest")
        manifest = from_json(text, str(where))
        lost = [entry.file for entry in manifest.entries if entry.file.removesuffix(".npy") not in self.files]
        if lost:
            raise InputError(
                f"'{self.path}' lacks {len(lost)} of the {len(manifest.entries)} files that its manifest lists, "
                f"{lost[0]} for one; record it anew, or delete the manifest to read the rest as a foreign dump"
            )
        return manifest

    def __repr__(self) -> str:
        return f"<Dump {self.path}: {len(self.files)} arrays{'' if self.manifest else ', no manifest'}>"

    @property
    def entries(self) -> list[Entry]:
        """What the manifest lists, in graph order; none for a foreign dump."""
        return [] if self.manifest is None else list(self.manifest.entries)

    def read(self, name: str) -> Array:
        """The array of a file, by the name in `files`. Raises `InputError`."""
        if name not in self.files:
            raise InputError(f"'{self.path}' has no array '{name}'")
        if name in self._arrays:
            return self._arrays[name]
        member = self.files[name]
        if self._archive is not None:
            return self._archive.read(member)
        return read_array(self.path / member, self._shapes.get(name, self._shapes.get(member)))

    def __getitem__(self, name: str) -> Array:
        """The array of a tensor or tap by its name in the manifest, or of a file. Raises `InputError`."""
        for entry in self.entries:
            if name in (entry.name, entry.source, *entry.aliases):
                return self.read(entry.file.removesuffix(".npy"))
        return self.read(name)

    def changed(self, entry: Entry, array: Array) -> bool:
        """Whether a recorded array is no longer the one whose sha256 the manifest gives."""
        data = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
        return bool(entry.sha256) and hashlib.sha256(data).hexdigest() != entry.sha256
