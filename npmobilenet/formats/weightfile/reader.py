"""Reading a weight file that may be damaged or hostile: look, compare, and only then read."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np

from npmobilenet.errors import GraphError
from npmobilenet.formats.file_kinds import HDF5_MAGIC, kind_of
from npmobilenet.formats.hdf5_names import member_names
from npmobilenet.formats.weightfile.limits import (
    MAX_FILE_BYTES,
    check_declared,
    check_json_size,
    check_shape,
    check_stored,
)
from npmobilenet.formats.weightfile.schema import (
    CHECK_PATH,
    CONVERT,
    DAMAGED,
    FORMAT,
    H5PY_ERRORS,
    MEMBERS,
    MOST_CHARACTERS,
    SCHEMA,
    FilePath,
    RefusalError,
    called,
    check_finite,
    check_labels,
    check_names,
    check_quantization,
    digest,
    encode_name,
    failure,
    info_from_json,
    is_fixed_string,
    listed,
    shown,
    tensors_digest,
    type_name,
)
from npmobilenet.formats.whole_file import is_leftover
from npmobilenet.graph import Graph, Tensor
from npmobilenet.modeldata import Array, ModelData


def sha256(path: FilePath) -> str:
    """The sha256 of a whole file, in hex. Raises `WeightFileError` where it can't be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError) as error:
        raise failure(path, f"can't be read: {error}.", CHECK_PATH) from error


def read(path: FilePath) -> ModelData:
    """Read a weight file, checking everything; the arrays are new, C-contiguous, in native order.

    Raises `WeightFileError`, and nothing else, on a file that is missing, no weight file, damaged,
    or holds what the format forbids; the message has the path, the part, what was expected and
    found, and what to do.
    """
    import h5py

    size = _check_file(path)
    try:
        with h5py.File(path, "r") as file:
            _check_root(file)
            graph = _read_graph(file)
            info = info_from_json(_read_json(file, "info"))
            check_labels(graph, info)
            return ModelData(graph, _read_tensors(file, graph, size), info)
    except RefusalError as refusal:
        raise failure(path, refusal.text, refusal.remedy or DAMAGED) from refusal
    except H5PY_ERRORS as error:
        text = f"HDF5 can't read it: {type(error).__name__}: {error}."
        raise failure(path, text, DAMAGED) from error


def _check_file(path: FilePath) -> int:
    """A regular file of sensible size that starts like HDF5; returns its size."""
    if is_leftover(Path(path)):
        raise failure(path, "left over from a write that was interrupted.", "Delete it; its target is as it was.")
    try:
        status = os.stat(path)  # before opening: to open a pipe would wait for its writer
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a device, pipe or socket"
            raise failure(path, f"not a weight file but {kind}.", "Give the path of a .h5 file.")
        with open(path, "rb") as file:
            head = file.read(8)
    except FileNotFoundError as error:
        raise failure(path, "there is no such file.", "Check the path.") from error
    except (OSError, ValueError) as error:
        raise failure(path, f"can't be read: {error}.", CHECK_PATH) from error
    if status.st_size > MAX_FILE_BYTES:
        text = f"too large: expected at most {MAX_FILE_BYTES} bytes, found {status.st_size}."
        raise failure(path, text, "No MobileNet needs that much: check what the file is.")
    if head != HDF5_MAGIC:
        known = kind_of(path)
        found = known.name if known else f"a file that begins with {head!r}" if head else "an empty file"
        text = f"not a weight file: expected an HDF5 file, found {found}."
        raise failure(path, text, CONVERT if head else DAMAGED)
    return status.st_size


def _check_root(file: Any) -> None:
    """Format, schema and members; Keras' HDF5 files and other schemas are told by name."""
    members = member_names(file)
    if _attribute(file, "format") != FORMAT:
        found = "a Keras model" if _is_keras(file) else f"HDF5 with the members {listed(members)}"
        expected = f"the root attribute format='{FORMAT}'"
        raise RefusalError("not a weight file", expected, found, CONVERT)
    schema = _attribute(file, "schema")
    if schema != SCHEMA:
        remedy = (
            "If a later npmobilenet made the file, upgrade with 'pip install -U npmobilenet'; "
            "else make it again with 'npmobilenet convert SRC DST.h5'."
        )
        expected = f"{SCHEMA} (the only one that is supported)"
        raise RefusalError("schema version", expected, shown(schema), remedy)
    check_names("members of the root group", MEMBERS, members)


def _is_keras(file: Any) -> bool:
    """Whole models of Keras 2 and 3 (.h5), weights alone of Keras 2 (.h5) and 3 (.weights.h5)."""
    members = {"model_weights", "layers", "_layer_checkpoint_dependencies"}
    return not members.isdisjoint(member_names(file)) or "keras_version" in file.attrs or "layer_names" in file.attrs


def _attribute(file: Any, name: str) -> int | str | None:
    """A scalar root attribute, an integer or a short fixed-length string; None for all else."""
    import h5py

    if not h5py.h5a.exists(file.id, name.encode()):
        return None
    attribute = h5py.h5a.open(file.id, name.encode())
    kind = attribute.get_type()
    whole = isinstance(kind, h5py.h5t.TypeIntegerID)
    if not (whole or is_fixed_string(kind)) or attribute.shape != ():
        return None
    if kind.get_size() > MOST_CHARACTERS:
        return None
    value = np.empty((), attribute.dtype)
    attribute.read(value)
    return int(value) if whole else bytes(value[()]).decode("ascii", "backslashreplace")


def _read_graph(file: Any) -> Graph:
    text = _read_json(file, "graph")
    try:
        graph = Graph.from_json(text)
    except (GraphError, ArithmeticError) as error:
        raise RefusalError("graph", "a sound graph", f"this: {error}") from error
    check_quantization(graph)
    return graph


def _read_json(file: Any, name: str) -> bytes:
    """The bytes of a scalar fixed-length string, checked against their sum; not yet parsed."""
    dataset = _open_dataset(file.id, name, name)
    kind = dataset.get_type()
    if not is_fixed_string(kind) or dataset.shape != ():
        raise RefusalError(name, "one fixed-length string", f"{type_name(dataset)} {dataset.shape}")
    check_json_size(name, kind.get_size())
    check_stored(name, dataset, kind.get_size())
    text = bytes(_read_array(dataset, np.empty((), dataset.dtype))[()])
    _check_digest(file, name, digest(text))
    return text


def _read_tensors(file: Any, graph: Graph, size: int) -> dict[str, Array]:
    """An array for each constant; declared sizes must fit into the file before any is allocated."""
    import h5py

    group = _follow(file.id, "tensors", "tensors")
    if not isinstance(group, h5py.h5g.GroupID):
        raise RefusalError("tensors", "a group", type(group).__name__)
    constants = graph.constants
    check_declared(constants.values(), size)
    check_names("datasets of 'tensors'", map(encode_name, constants), member_names(h5py.Group(group)))
    tensors = {name: _read_tensor(group, tensor) for name, tensor in constants.items()}
    _check_digest(file, "tensors", tensors_digest(graph, tensors))
    return tensors


def _read_tensor(group: Any, tensor: Tensor) -> Array:
    what = called(tensor.name)
    dataset = _open_dataset(group, encode_name(tensor.name), what)
    check_shape(what, dataset, tensor)
    array = _read_array(dataset, np.empty(tensor.shape, tensor.dtype))
    check_finite(tensor.name, array)
    return array


def _read_array(dataset: Any, array: Array) -> Array:
    import h5py

    dataset.read(h5py.h5s.ALL, h5py.h5s.ALL, array)
    return array


def _open_dataset(group: Any, name: str, what: str) -> Any:
    """A member of `group` that is a plain dataset: contiguous, in this file, without filters."""
    import h5py

    dataset = _follow(group, name, what)
    if not isinstance(dataset, h5py.h5d.DatasetID):
        raise RefusalError(what, "a dataset", type(dataset).__name__)
    d = h5py.h5d
    creation = dataset.get_create_plist()
    layout = creation.get_layout()
    if layout != d.CONTIGUOUS:
        names = {d.COMPACT: "compact", d.CHUNKED: "chunked", d.VIRTUAL: "virtual"}
        raise RefusalError(what, "contiguous storage", f"{names.get(layout, layout)} storage")
    if creation.get_external_count() > 0:
        raise RefusalError(what, "storage in this file", "external storage (another file)")
    if creation.get_nfilters() > 0:
        raise RefusalError(what, "no filters", f"{creation.get_nfilters()} (compression?)")
    return dataset


def _follow(group: Any, name: str, what: str) -> Any:
    """The object behind one path component, if its link is hard: no other kind is ever followed.

    h5py's low level is used here and for datasets: with some 110 tensors it saves a third of the time.
    """
    import h5py

    kind = group.links.get_info(name.encode()).type
    if kind != h5py.h5l.TYPE_HARD:
        names = {h5py.h5l.TYPE_SOFT: "soft", h5py.h5l.TYPE_EXTERNAL: "external"}
        raise RefusalError(what, "a hard link", f"a link of type {names.get(kind, kind)}")
    return h5py.h5o.open(group, name.encode())


def _check_digest(file: Any, name: str, found: str) -> None:
    expected = _attribute(file, f"{name}_sha256")
    if found != expected:
        wanted = f"sha256 {shown(expected)} (root attribute {name}_sha256)"
        raise RefusalError(f"content of '{name}'", wanted, repr(found))
