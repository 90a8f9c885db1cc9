""".npz archives read without trust, and data sets in them."""

from __future__ import annotations

import hashlib
import os
import sys
import zipfile
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from npmobilenet.errors import InputError
from npmobilenet.formats import archive
from npmobilenet.measure.datasets.classes import ClassFinder
from npmobilenet.measure.datasets.dataset import Dataset, fingerprint

Array = NDArray[Any]
MAX_BYTES = 8 * 2**30  # of one array
# What an array must be: kinds of its dtype, number of dimensions.
Form = tuple[str, int]


def read_arrays(path: Path, wanted: Mapping[str, Form], what: str) -> dict[str, Array]:
    """The `wanted` arrays of an .npz file; never pickled objects, never more bytes than the file can account for.

    Raises `InputError`: no archive, damaged (zip checksums), an array missing or of another kind or rank.
    """
    try:
        with archive.opened(path) as file:
            return {name: _read(file, name, form) for name, form in wanted.items()}
    except InputError as error:
        raise InputError(f"{what} '{path}': {error}") from None
    except archive.ERRORS as error:
        raise InputError(f"{what} '{path}' can't be read ({type(error).__name__}: {str(error)[:120]})") from error


def _read(file: zipfile.ZipFile, name: str, form: Form) -> Array:
    kinds, rank = form
    try:
        info = file.getinfo(f"{name}.npy")
    except KeyError:
        there = ", ".join(n.removesuffix(".npy") for n in file.namelist()[:20])
        raise InputError(f"there is no array '{name}' in it; there are {there or 'none'}") from None
    size = info.file_size
    with archive.member(file, info, MAX_BYTES) as content:
        version = npy.read_magic(content)
        reader = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
        if reader is None:
            raise InputError(f"array '{name}' has .npy version {version}: expected 1.0 or 2.0; save it with np.savez")
        shape, _, dtype = reader(content)
        expected = f"kind {' or '.join(kinds)}, {rank} dimension{'s' * (rank != 1)}"
        if dtype.hasobject or dtype.itemsize == 0 or dtype.kind not in kinds or len(shape) != rank:
            raise InputError(f"array '{name}' is {dtype} {shape}: expected {expected}, and items of at least one byte")
        count = 1
        for extent in shape:
            count *= int(extent)
        if count * dtype.itemsize != size - content.tell():
            raise InputError(f"array '{name}' declares {dtype} {shape}, and {size - content.tell():,} bytes follow")
    with archive.member(file, info, MAX_BYTES) as content:
        array: Array = npy.read_array(content, allow_pickle=False)
        content.read()  # to the end, where the zip checksum is compared
    if dtype.kind == "U":
        codes = np.frombuffer(array.tobytes(), np.dtype(np.uint32).newbyteorder(dtype.byteorder))
        if codes.size and codes.max() > sys.maxunicode:  # Python would make a str of it that breaks later
            raise InputError(f"array '{name}' holds {codes.max():#x}, which is no character: the file is damaged")
    return array


def open_npz(path: Path, classes: ClassFinder, split: str) -> Dataset:
    """The data set `split` of an archive with `{split}_{jpeg,offsets,labels,names}` and `classes`.

    Image i is the file `jpeg[offsets[i]:offsets[i + 1]]`, of class `classes[labels[i]]`. The arrays: uint8, integers
    (N + 1,), integers (N,), strings (N,), strings. Raises `InputError`.
    """
    where = f"DATA '{path}'"
    _check_split(path, split)
    forms = {"jpeg": ("u", 1), "offsets": ("iu", 1), "labels": ("iu", 1), "names": ("U", 1)}
    wanted = {f"{split}_{key}": form for key, form in forms.items()} | {"classes": ("U", 1)}
    arrays = read_arrays(path, wanted, "DATA")
    jpeg, offsets, labels, names = (arrays[f"{split}_{key}"] for key in forms)
    count = len(labels)
    if jpeg.dtype != np.uint8 or count == 0 or len(names) != count or len(offsets) != count + 1:
        raise InputError(
            f"{where}: {split}_jpeg {jpeg.dtype}, {count} labels, {len(names)} names, {len(offsets)} offsets: expected "
            "uint8, as many labels as names, at least one, and one offset more"
        )
    bounds = [int(o) for o in offsets]
    if bounds[0] < 0 or bounds[-1] > len(jpeg) or any(a > b for a, b in pairwise(bounds)):
        raise InputError(f"{where}: {split}_offsets must ascend from 0 to at most {len(jpeg):,}, the bytes there are")
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or highest >= len(arrays["classes"]):
        raise InputError(
            f"{where}: {split}_labels run from {lowest} to {highest}, and there are {len(arrays['classes'])} classes"
        )
    used = [str(arrays["classes"][i]) for i in labels]
    outputs = classes.match(dict.fromkeys(str(c) for c in arrays["classes"]), where)
    truths = np.array([outputs[name] for name in used], np.int32)
    texts = tuple(str(name) for name in names)
    sizes = [b - a for a, b in pairwise(bounds)]
    rows = zip(texts, sizes, truths.tolist(), strict=True)
    identity = fingerprint("npz", rows, hashlib.sha256(jpeg.data).digest())

    def source(i: int) -> bytes:
        content: bytes = jpeg[bounds[i] : bounds[i + 1]].tobytes()
        return content

    return Dataset("npz", f"{os.fspath(path)} ({split})", texts, truths, identity, source)


def _check_split(path: Path, split: str) -> None:
    try:
        with archive.opened(path) as file:
            ending = "_jpeg.npy"
            splits = [n.removesuffix(ending) for n in file.namelist() if n.endswith(ending)]
    except archive.ERRORS as error:  # as in read_arrays
        raise InputError(f"DATA '{path}' can't be read ({type(error).__name__}: {str(error)[:120]})") from error
    if split not in splits:
        raise InputError(f"DATA '{path}' has no split '{split}': it has {', '.join(splits[:20]) or 'none'} (--split)")
