"""Writing a weight file: everything is checked first, and the same data give the same bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from npmobilenet.formats.weightfile.limits import HEADER_BYTES, MAX_FILE_BYTES, check_json_size
from npmobilenet.formats.weightfile.schema import (
    FORMAT,
    NOT_WRITTEN,
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
    info_to_json,
    stored_type,
    tensors_digest,
)
from npmobilenet.formats.whole_file import write_whole
from npmobilenet.graph import Graph
from npmobilenet.modeldata import Array, ModelData


def write(path: FilePath, data: ModelData) -> None:
    """Write `data` to `path`, replacing a file there only once the new one is complete.

    Equal `ModelData` give equal bytes: fixed HDF5 format bounds, no times, creation in graph order,
    JSON with sorted keys. Raises `WeightFileError` if tensors and graph don't agree, a value isn't
    finite, the facts are ill-formed, or the file can't be written; a file that was there before is
    then untouched.
    """
    target = Path(path)
    try:
        content = _checked_content(data)
        _check_target(target)
        image = _hdf5_image(data.graph, *content)
        write_whole(target, lambda file: file.write(image))
    except RefusalError as refusal:
        raise failure(path, refusal.text, refusal.remedy or NOT_WRITTEN) from refusal
    except (OSError, RuntimeError, ValueError) as error:
        remedy = "Check that the folder may be written to and that its disk has room."
        raise failure(path, f"can't be written: {error}.", remedy) from error


def _checked_content(data: ModelData) -> tuple[bytes, bytes, dict[str, Array]]:
    """Graph and info as JSON and the arrays in graph order, all as `read` will demand them."""
    graph_json, info_json = _to_json(data)
    check_quantization(data.graph)
    check_labels(data.graph, info_from_json(info_json))
    tensors = _checked_tensors(data)
    total = len(graph_json) + len(info_json) + sum(a.nbytes for a in tensors.values())
    most = MAX_FILE_BYTES - HEADER_BYTES
    if total > most:
        raise RefusalError("graph, info and tensors", f"at most {most} bytes", f"{total} bytes")
    return graph_json, info_json, tensors


def _to_json(data: ModelData) -> tuple[bytes, bytes]:
    try:
        graph_json = data.graph.to_json().encode()
        info_json = info_to_json(data.info)
    except (TypeError, ValueError, RecursionError) as error:
        expected = "numbers, strings, booleans and their tuples"
        raise RefusalError("graph or info as JSON", expected, error) from error
    for name, text in (("graph", graph_json), ("info", info_json)):
        check_json_size(name, len(text))
    return graph_json, info_json


def _checked_tensors(data: ModelData) -> dict[str, Array]:
    """The arrays in graph order, C-contiguous, of the declared dtype and shape, and finite."""
    constants = data.graph.constants
    check_names("tensors", constants, data.tensors)
    tensors = {}
    for name, tensor in constants.items():
        array = data.tensors[name]
        if not isinstance(array, np.ndarray):
            raise RefusalError(called(name), "a NumPy array", type(array).__name__)
        if array.dtype != np.dtype(tensor.dtype) or array.shape != tensor.shape:
            declared = f"{tensor.dtype} {tensor.shape}"
            raise RefusalError(called(name), declared, f"{array.dtype} {array.shape}")
        check_finite(name, array)
        tensors[name] = np.require(array, requirements="C")
    return tensors


def _check_target(target: Path) -> None:
    if not target.parent.is_dir():
        remedy = f"Create the folder '{target.parent}' first."
        raise RefusalError("can't be written", "an existing folder", "none of that name", remedy)
    if target.exists() and not target.is_file():
        remedy = "Choose another name."
        raise RefusalError("can't be written", "a file or nothing", "a folder or device", remedy)


def _hdf5_image(graph: Graph, graph_json: bytes, info_json: bytes, tensors: Mapping[str, Array]) -> bytes:
    """The file's bytes. The HDF5 calls are at h5py's low level: no global setting or version's default has a say.

    Made in memory: HDF5 writes when it closes a file, and ends the process where the disk is full by then.

    Format bounds 1.8: every header, index and heap block has a checksum (older formats have none),
    and the superblock has no flag for "a writer has the file open" (1.10 has).
    """
    import h5py

    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    image = io.BytesIO()
    access.set_fileobj_driver(h5py.h5fd.fileobj_driver, image)
    access.set_libver_bounds(h5py.h5f.LIBVER_V18, h5py.h5f.LIBVER_V18)
    creation = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    creation.set_obj_track_times(False)
    timeless = h5py.h5p.create(h5py.h5p.GROUP_CREATE)
    timeless.set_obj_track_times(False)
    attributes = {
        "format": np.bytes_(FORMAT),
        "schema": np.int64(SCHEMA),
        "graph_sha256": np.bytes_(digest(graph_json)),
        "info_sha256": np.bytes_(digest(info_json)),
        "tensors_sha256": np.bytes_(tensors_digest(graph, tensors)),
    }
    file_id = h5py.h5f.create(b"in memory", h5py.h5f.ACC_TRUNC, creation, access)
    with h5py.File(file_id) as file:
        for name, value in attributes.items():
            space = h5py.h5s.create(h5py.h5s.SCALAR)
            kind = stored_type(value.dtype)
            h5py.h5a.create(file.id, name.encode(), kind, space).write(np.asarray(value))
        _write_dataset(file.id, "graph", np.array(graph_json))
        _write_dataset(file.id, "info", np.array(info_json))
        group = h5py.h5g.create(file.id, b"tensors", gcpl=timeless)
        for name, array in tensors.items():
            _write_dataset(group, encode_name(name), array)
    return image.getvalue()


def _write_dataset(owner: Any, name: str, array: Array) -> None:
    import h5py

    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_layout(h5py.h5d.CONTIGUOUS)
    creation.set_obj_track_times(False)
    scalar = array.shape == ()
    space = h5py.h5s.create(h5py.h5s.SCALAR) if scalar else h5py.h5s.create_simple(array.shape)
    dataset = h5py.h5d.create(owner, name.encode(), stored_type(array.dtype), space, creation)
    dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, array)
