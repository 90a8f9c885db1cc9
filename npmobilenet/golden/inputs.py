"""What a model is fed: an image, an exact input tensor from a .npy or .npz file, or reproducible random numbers."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from npmobilenet.errors import InputError
from npmobilenet.golden.arrays import Archive, read_npy
from npmobilenet.graph import Tensor
from npmobilenet.images.recipes import value_range
from npmobilenet.model import Inputs, Model
from npmobilenet.modeldata import Array, ModelData

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
    facts["sha256"] = hashlib.sha256(b"".join(_bytes(arrays[name]) for name in sorted(arrays))).hexdigest()
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
        arrays = {first: model.preprocess(path)}
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


def _bytes(array: Array) -> bytes:
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
    from npmobilenet.formats.weightfile.limits import digest, tensors_digest

    both = digest(data.graph.to_json().encode()) + tensors_digest(data.graph, data.tensors)
    facts = {"name": data.info.name, "sha256": digest(both.encode())}
    if path is not None and Path(path).is_file():
        facts |= {"file": Path(path).name, "file_sha256": file_sha256(Path(path))}
    elif "sha256" in data.info.provenance:
        facts["source_sha256"] = data.info.provenance["sha256"]
    return facts
