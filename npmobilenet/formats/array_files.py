"""Arrays as people write them down: raw bytes, text (CSV), JSON, and TFLite Micro's layer-by-layer debugger.

Each reader gives an array, or arrays by name; what isn't told (the shape of raw bytes or of a list of numbers) is left
flat, and whoever knows the tensor gives it its shape. Sizes are checked before anything is read.
"""

from __future__ import annotations

import csv
import io
import json
import math
import operator
import os
import re
import stat
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from npmobilenet.errors import InputError
from npmobilenet.formats.npy import DTYPES, read_npy
from npmobilenet.modeldata import Array

MAX_BYTES = 2**28  # of a file of text or a flatbuffer
MAX_RAW_BYTES = 2**31
MAX_TENSORS = 10_000
ENDS = ("npy", "bin", "raw", "csv", "txt", "json")  # of files that hold an array each
SHAPES = ("shapes.json", "shapes.csv")  # beside raw files: what each holds
BETWEEN = re.compile(r"[\s,;]+")  # numbers of a text
WORD = re.compile(r"[A-DF-Zac-df-z_]")  # no number has such a character,
NO_NUMBER = re.compile(r"[+-]?(nan|inf(inity)?)", re.IGNORECASE)  # but these, which floats may be
Shape = tuple[str, tuple[int, ...]]  # dtype ("" if not told) and shape

# tensorflow/tflite-micro, tensorflow/lite/micro/tools/layer_by_layer_schema.fbs, commit 22013c418: TensorTypes.
_TYPES = {0: "float32", 1: "float16", 2: "int32", 3: "uint8", 4: "int64", 6: "bool", 7: "int16", 9: "int8",
          10: "float64", 12: "uint64", 15: "uint32", 16: "uint16"}  # fmt: skip
# Places of fields in the tables' vtables, same source.
_INPUTS, _SUBGRAPHS, _OUTPUTS, _TENSOR, _SHAPE, _DTYPE, _DATA = 0, 1, 0, 1, 2, 3, 4


def read_bytes(path: Path, most: int = MAX_BYTES) -> bytes:
    """A regular file's bytes, `most` at most. Raises `InputError`."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError(f"'{path}' is no regular file")
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size > most:
                raise InputError(f"'{path}' has more than {most:,} bytes")
            return file.read(most)
    except OSError as error:
        raise InputError(f"'{path}' can't be read: {error.strerror or error}") from error


def read_array(path: Path, known: Shape | None = None) -> Array:
    """The array of a file, by the end of its name (ENDS). Raises `InputError`."""
    if path.suffix == ".npy":
        return read_npy(path)
    if path.suffix == ".json":
        return one_array(path, known)
    return (read_csv if path.suffix in (".csv", ".txt") else read_raw)(path, known)


def read_arrays(path: Path) -> dict[str, Array]:
    """The arrays of one file by name: JSON, or TFLite Micro's layer-by-layer debugger's. Raises `InputError`."""
    return (read_json if path.suffix == ".json" else read_layer_by_layer)(path)


def read_raw(path: Path, known: Shape | None = None) -> Array:
    """Raw bytes, little-endian, of a known dtype and shape; else uint8 and flat. Raises `InputError`."""
    data = read_bytes(path, MAX_RAW_BYTES)
    dtype, shape = known or ("", ())
    flat = np.frombuffer(bytearray(data), np.uint8)
    if dtype:
        size = np.dtype(dtype).itemsize
        if len(data) % size:
            raise InputError(f"'{path}' has {len(data):,} bytes, which isn't a whole number of {dtype}")
        flat = flat.view(np.dtype(dtype).newbyteorder("<")).astype(dtype)
    if not shape:
        return flat
    if math.prod(shape) != flat.size:
        raise InputError(f"'{path}' holds {flat.size:,} values of {dtype or 'one byte'}, its shape says {shape}")
    return flat.reshape(shape)


def read_shapes(path: Path) -> dict[str, Shape]:
    """What raw files hold: {"name": [1, 8, 8, 3]} or {"name": {"shape": [...], "dtype": "int8"}} in shapes.json; lines
    of name, dtype, 1x8x8x3 (or name, 1x8x8x3) in shapes.csv. Raises `InputError`.
    """
    text = read_bytes(path).decode("utf-8", "replace")
    try:
        if path.suffix == ".json":
            return {str(name): _shape(value) for name, value in _object(text).items()}
        rows = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(text)) if row]
        rows = [row for row in rows if len(row) < 2 or re.search(r"\d", row[-1])]  # without a heading
        return {row[0]: _shape({"shape": re.split(r"[x\s;*]+", row[-1]), "dtype": row[1] if len(row) > 2 else ""})
                for row in rows}  # fmt: skip
    except (ValueError, TypeError, KeyError, IndexError, csv.Error, RecursionError) as error:
        raise InputError(f"'{path}' can't be read as a list of shapes: {str(error)[:200]}; docs/golden.md shows one"
                         ) from error  # fmt: skip


def _object(text: str) -> dict[str, Any]:
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError("expected one object, of names to arrays")
    return found


def _shape(value: Any) -> Shape:
    dtype = value.get("dtype") if isinstance(value, Mapping) else None
    dims = value["shape"] if isinstance(value, Mapping) else value
    if dtype is not None and not (isinstance(dtype, str) and dtype in ("", *DTYPES)):
        raise ValueError(f"dtype {dtype!r:.40} is not one of {', '.join(DTYPES)}")
    shape = tuple(int(d) if isinstance(d, str) else operator.index(d) for d in dims)  # 1.5 and infinity are none
    if min(shape, default=1) < 0 or len(shape) > 8:
        raise ValueError(f"shape {shape}")
    return dtype or "", shape


def read_csv(path: Path, known: Shape | None = None) -> Array:
    """Numbers with commas, semicolons or blanks between them; a first line without numbers is a heading.

    Flat, or of the known shape; whole numbers as int64, others as float64. Raises `InputError`.
    """
    text = read_bytes(path).decode("utf-8-sig", "replace")
    head, _, rest = text.partition("\n")
    heading = any(WORD.search(cell) and not NO_NUMBER.fullmatch(cell) for cell in BETWEEN.split(head))
    return _numbers([word for word in BETWEEN.split(rest if heading else text) if word], path, known)


def _numbers(words: Any, path: Path, known: Shape | None) -> Array:
    try:
        with np.errstate(all="ignore"):
            values = np.array(words, np.float64)
        whole = values.size and np.isfinite(values).all() and (np.trunc(values) == values).all()
        array = values.astype(np.int64) if whole and np.abs(values).max() < 2**53 else values
        dtype, shape = known or ("", ())
        if dtype and np.dtype(dtype).kind == "f":
            array = values.astype(dtype)
        return array.reshape(shape) if shape else array
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise InputError(f"'{path}' can't be read as numbers: {str(error)[:200]}") from error


def read_json(path: Path) -> dict[str, Array]:
    """{"name": [[...]]} or {"name": {"shape": [...], "dtype": "int8", "data": [...]}}. Raises `InputError`."""
    try:
        found = _object(read_bytes(path).decode("utf-8", "replace"))
        arrays = {}
        for name, value in found.items():
            if isinstance(value, Mapping):
                known = _shape({"shape": value.get("shape", ()), "dtype": value.get("dtype")})
                arrays[name] = _numbers(value["data"], path, known)
            elif isinstance(value, list):
                arrays[name] = _numbers(value, path, None)
        return arrays
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(f"'{path}' can't be read as arrays by name: {str(error)[:200]}; docs/golden.md shows one"
                         ) from error  # fmt: skip


def one_array(path: Path, known: Shape | None = None) -> Array:
    """A .json file that holds one array: a list, or {"shape", "dtype", "data"}. Raises `InputError`."""
    try:
        value = json.loads(read_bytes(path).decode("utf-8", "replace"))
        if isinstance(value, Mapping):
            known = _shape({"shape": value.get("shape", ()), "dtype": value.get("dtype")})
            value = value["data"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(f"'{path}' can't be read as an array: {str(error)[:200]}") from error
    return _numbers(value, path, known)


# ---------------------------------------------------------------------------------------------------------------------
# TFLite Micro's layer-by-layer debugger


def read_layer_by_layer(path: Path) -> dict[str, Array]:
    """The arrays of the file that TFLite Micro's layer_by_layer_output_tool writes, by their tensors' indices.

    Only the first subgraph's, and the inputs. Raises `InputError`.
    """
    data = read_bytes(path)
    try:
        root = _Table(data, struct.unpack_from("<I", data)[0])
        tables = root.tables(_INPUTS)
        for subgraph in root.tables(_SUBGRAPHS)[:1]:
            tables += subgraph.tables(_OUTPUTS)
        if sum(table.vector(_DATA, np.dtype("u1")).size for table in tables) > len(data):
            raise ValueError("its tensors share their bytes")  # each has a copy of them
        arrays = {str(table.number(_TENSOR, "<I", 0)): _tensor(table) for table in tables}
        if not arrays:
            raise ValueError("it holds no tensors")
        return arrays
    except (struct.error, ValueError, KeyError, IndexError, OverflowError) as error:
        raise InputError(
            f"'{path}' is no dump that can be read ({str(error)[:120]}): expected a folder of .npy, .bin, .csv or "
            ".json files, an .npz or .json file, or what TFLite Micro's layer_by_layer_output_tool writes"
        ) from error


def _tensor(table: _Table) -> Array:
    dtype = np.dtype(_TYPES[table.number(_DTYPE, "<b", 0)]).newbyteorder("<")
    shape = tuple(int(d) for d in table.vector(_SHAPE, np.dtype("<i4")))
    flat = table.vector(_DATA, np.dtype("u1"))
    if min(shape, default=1) < 0 or math.prod(shape) * dtype.itemsize != flat.size:
        raise ValueError(f"a tensor of {dtype} {shape} has {flat.size:,} bytes")
    return flat.copy().view(dtype).reshape(shape).astype(dtype.newbyteorder("="))


class _Table:
    """A flatbuffer's table: fields found through its vtable; every offset is checked by struct and slices."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at = data, at
        vtable = at - struct.unpack_from("<i", data, at)[0]
        if vtable < 0:
            raise ValueError("an offset leads out of the file")
        size = struct.unpack_from("<H", data, vtable)[0]
        self.fields = struct.unpack_from(f"<{max(size // 2 - 2, 0)}H", data, vtable + 4)

    def place(self, field: int) -> int:
        """Where a field lies; 0 if it is absent."""
        offset = self.fields[field] if field < len(self.fields) else 0
        return self.at + offset if offset else 0

    def number(self, field: int, kind: str, default: int) -> int:
        """A scalar."""
        at = self.place(field)
        return int(struct.unpack_from(kind, self.data, at)[0]) if at else default

    def vector(self, field: int, dtype: np.dtype[Any]) -> Array:
        """A vector of scalars."""
        at = self.place(field)
        if not at:
            return np.zeros(0, dtype)
        start = at + struct.unpack_from("<I", self.data, at)[0]
        count = struct.unpack_from("<I", self.data, start)[0]
        if count * dtype.itemsize > len(self.data) - start - 4:
            raise ValueError(f"a vector of {count:,} values leaves the file")
        return np.frombuffer(self.data, dtype, count, start + 4)

    def tables(self, field: int) -> list[_Table]:
        """A vector of tables."""
        at = self.place(field)
        if not at:
            return []
        start = at + struct.unpack_from("<I", self.data, at)[0]
        count = struct.unpack_from("<I", self.data, start)[0]
        if count > MAX_TENSORS:
            raise ValueError(f"a vector of {count:,} tables, at most {MAX_TENSORS:,} are read")
        places = [start + 4 + 4 * i for i in range(count)]
        return [_Table(self.data, p + struct.unpack_from("<I", self.data, p)[0]) for p in places]
