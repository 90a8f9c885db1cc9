"""Other people's dumps: which file is which tensor, and their shapes and dtypes made comparable.

Names are matched to a catalogue of entries. Each change of an array is said in a note; what can't be compared is
explained. Nothing is converted that could hide a difference: every conversion of values is exact, or undone by the
quantization and then compared.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from npmobilenet.errors import InputError
from npmobilenet.formats.array_files import read_bytes
from npmobilenet.golden.dump import Dump, Entry, sanitized
from npmobilenet.graph import Quantization
from npmobilenet.modeldata import Array

MAX_BYTES = 8 * 2**20
NameMap = Mapping[str, str]
_INDEX = re.compile(r"(?:#|t|tensor[_-]?|index[_-]?)?0*([0-9]+)", re.IGNORECASE)


@dataclass(frozen=True)
class NameMatch:
    """`files`: an entry's name to the name of the dump's array. `left_over`: the dump's arrays that match nothing."""

    files: Mapping[str, str]
    left_over: tuple[str, ...]


def read_map(source: NameMap | str | os.PathLike[str] | None) -> dict[str, str]:
    """A name map, theirs to ours: a dict, a .json file with one object, or a .csv file with two columns.

    A first row of a .csv file that reads "theirs,ours" is a heading. Raises `InputError`.
    """
    if source is None:
        return {}
    pairs = list(source.items()) if isinstance(source, Mapping) else _read_pairs(Path(source))
    for pair in pairs:
        if not all(isinstance(name, str) for name in pair):
            raise InputError(f"the name map holds {pair!r:.120}: expected two names, theirs and ours")
    found = dict(pairs)
    if len(found) < len(pairs):
        raise InputError("the name map lists one of their names twice")
    return found


def _read_pairs(path: Path) -> list[tuple[str, str]]:
    try:
        text = read_bytes(path, MAX_BYTES).decode("utf-8-sig")
        if path.suffix == ".csv":
            rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
            rows = rows[1:] if rows and [cell.strip().lower() for cell in rows[0]] == ["theirs", "ours"] else rows
            if any(len(row) != 2 for row in rows):
                raise ValueError("a row doesn't have two columns, theirs and ours")
            return [(row[0].strip(), row[1].strip()) for row in rows]
        found = json.loads(text, object_pairs_hook=list)
        if not isinstance(found, list) or any(not isinstance(p, tuple) for p in found):
            raise ValueError("expected one object, of their names to ours")
        return found
    except (InputError, ValueError, csv.Error, RecursionError) as error:
        raise InputError(
            f"'{path}' can't be read as a name map: {str(error)[:200]}; docs/golden.md shows one"
        ) from error


def match_names(dump: Dump, known: Sequence[Entry], names: NameMap) -> NameMatch:
    """Find each array's entry: by the map, or by what its file is called.

    Without an entry in the map, a file may be called as the entry is in a recorded dump; by the tensor's name, an
    endpoint's, or either one sanitized (any run of other characters than letters, digits, ".", "_" and "-" written as
    "_"); or by its index in the TFLite file: "12", "#12", "t12", "tensor_12". An accumulator's file has "acc:" or
    "acc_" in front or ".acc" behind, and "pre" alike.

    Raises `InputError` if nothing matches, two arrays match one entry, or the map names what isn't there.
    """
    finder = _Finder(known)
    files: dict[str, str] = {}
    left_over: list[str] = []
    if absent := [name for name in names if name.removesuffix(".npy") not in dump.files]:
        raise InputError(f"the name map speaks of '{absent[0]}', which is no array of '{dump.path}'")
    mapped = {theirs.removesuffix(".npy"): ours for theirs, ours in names.items()}
    own = {entry.file.removesuffix(".npy"): entry.name for entry in dump.entries}
    for stem in dump.files:
        name = finder.mapped(mapped[stem]) if stem in mapped else finder.find(own.get(stem, stem))
        if name is None:
            left_over.append(stem)
        elif name in files:
            raise InputError(
                f"'{dump.path}': '{files[name]}' and '{stem}' both stand for '{name}'; say which by a name map "
                "(--map), or delete the other"
            )
        else:
            files[name] = stem
    if not files:
        raise InputError(
            f"none of the {len(dump.files)} arrays of '{dump.path}' ({', '.join(list(dump.files)[:3])}, ...) has the "
            f"name of a tensor ({', '.join(e.name for e in list(known)[:3])}, ...): write a name map (--map names.json "
            'with {"theirs": "ours", ...}), or name the files by TFLite tensor index'
        )
    return NameMatch(files, tuple(left_over))


class _Finder:
    """Entries by all the names that they may be called."""

    def __init__(self, known: Sequence[Entry]) -> None:
        self._exact: dict[str, str] = {}
        self._index: dict[str, str] = {}
        self._loose: dict[str, str | None] = {}  # None: two entries would have that name
        for entry in known:
            self._exact[entry.name] = entry.name
        for entry in known:
            for alias in (entry.source, *entry.aliases, entry.file.removesuffix(".npy")):
                if alias:
                    self._exact.setdefault(alias, entry.name)
            bare = entry.source.removeprefix(entry.prefix)
            if bare.startswith("#"):
                self._index.setdefault(entry.prefix + bare[1:], entry.name)
            for spelling in {sanitized(n.removeprefix(entry.prefix)) for n in (entry.name, *entry.aliases)}:
                for form in _forms(spelling, entry.prefix):
                    same = self._loose.get(form, entry.name) == entry.name
                    self._loose[form] = entry.name if same else None

    def find(self, stem: str) -> str | None:
        """The entry for a file's name, or None."""
        if stem in self._exact:
            return self._exact[stem]
        loose = self._loose.get(stem, self._loose.get(sanitized(stem)))
        if loose is not None:
            return loose
        for prefix in ("acc:", "pre:", ""):
            for form in _stripped(stem, prefix):
                digits = _INDEX.fullmatch(form)
                if digits:
                    return self._index.get(prefix + digits[1])
        return None

    def mapped(self, ours: str) -> str:
        """The entry that the map names."""
        found = self.find(ours)
        if found is None:
            raise InputError(
                f"the name map says '{ours}', which is no tensor here; `npmobilenet info --layers` lists them"
            )
        return found


def _forms(spelling: str, prefix: str) -> Iterable[str]:
    """The ways in which a file may spell a name with a prefix."""
    if not prefix:
        return (spelling,)
    word = prefix[:-1]
    return tuple(form.format(spelling, word) for form in ("{0}.{1}", "{1}_{0}", "{1}.{0}"))


def _stripped(stem: str, prefix: str) -> list[str]:
    """What remains of a file's name without the mark of an accumulator or pre-activation; none if it has no mark."""
    if not prefix:
        return [stem]
    word = prefix[:-1]
    heads = [stem[len(word) + 1 :] for mark in ":_." if stem.startswith(word + mark)]
    return heads + ([stem.removesuffix(f".{word}")] if stem.endswith(f".{word}") else [])


# ---------------------------------------------------------------------------------------------------------------------
# Shapes and dtypes

LAYOUTS = ("auto", "nhwc", "nchw")


@dataclass
class ShapeMatch:
    """An array in the shape and dtype that were wanted, and what was done to it; `problem` if it can't be."""

    array: Array | None = None
    problem: str = ""
    status: str = ""  # with a problem: "shape" or "dtype"
    notes: list[str] = field(default_factory=list)


def detect(shapes: Iterable[tuple[tuple[int, ...], tuple[int, ...]]]) -> str:
    """The layout, "nhwc" or "nchw", that pairs of (found, wanted) shapes speak for.

    Raises `InputError` if some fit only the one and some only the other.
    """
    only: dict[str, list[tuple[int, ...]]] = {"nhwc": [], "nchw": []}
    for found, wanted in shapes:
        if len(wanted) != 4 or len(found) not in (3, 4):
            continue
        whole = found if len(found) == 4 else (1, *found)
        if whole == wanted and whole != channels_first(wanted):
            only["nhwc"].append(found)
        elif whole == channels_first(wanted) and whole != wanted:
            only["nchw"].append(found)
    if only["nhwc"] and only["nchw"]:
        raise InputError(
            f"some arrays are NHWC {only['nhwc'][0]} and some NCHW {only['nchw'][0]}: export them in one layout, or "
            "say which is meant (--layout nhwc)"
        )
    return "nchw" if only["nchw"] else "nhwc"


def channels_first(shape: tuple[int, ...]) -> tuple[int, ...]:
    """(N, H, W, C) as (N, C, H, W)."""
    return (shape[0], shape[3], shape[1], shape[2])


VIEW, OFFSET = "view", "offset"  # how uint8 stands for int8, or int8 for uint8
_SAID = {VIEW: "the same bytes, x.view(np.{0})", OFFSET: "128 away, (x ^ 128).view(np.{0})"}


def fit(
    found: Array, shape: tuple[int, ...], dtype: str, q: Quantization | None, layout: str, eight_bits: str = ""
) -> ShapeMatch:  # fmt: skip
    """A found array as `dtype` of `shape` (N, H, W, C); `q` is the quantization of the wanted tensor; `eight_bits` says
    how the other 8-bit type stands for it: VIEW, OFFSET, or "" where it isn't known.
    """
    if found.size == 0:
        return ShapeMatch(problem=f"no values, expected {math.prod(shape[1:]):,} for each image", status="shape")
    raw = found.dtype == np.uint8 and found.ndim == 1 and np.dtype(dtype).itemsize > 1
    if raw and found.size == math.prod(shape) * np.dtype(dtype).itemsize:  # a raw file whose dtype nothing told
        found = found.view(np.dtype(dtype).newbyteorder("<")).astype(dtype)
    fitted = _shaped(found, shape, layout)
    other = {"int8": "uint8", "uint8": "int8"}.get(dtype, "")
    if fitted.array is not None and eight_bits and fits_other(fitted.array, other):
        small = fitted.array.astype(other)
        small = small if eight_bits == VIEW else (small.view(np.uint8) ^ 128).view(other)
        said = f"{found.dtype} where {dtype} is expected; {_SAID[eight_bits].format(dtype)}, told by the input"
        return ShapeMatch(small.view(dtype), notes=[*fitted.notes, said])
    if fitted.array is not None and str(fitted.array.dtype) != dtype:
        fitted = _typed(fitted, np.dtype(dtype), q)
    return fitted


def fits_other(array: Array, other: str) -> bool:
    """Whether an array is of the other 8-bit type, or whole numbers that fit into it."""
    if not other or str(array.dtype) == other:
        return bool(other)
    wide = array.dtype.kind in "iu" and array.dtype.itemsize > 1 and array.size > 0
    return bool(wide and np.iinfo(other).min <= int(array.min()) and int(array.max()) <= np.iinfo(other).max)


def _shaped(found: Array, shape: tuple[int, ...], layout: str) -> ShapeMatch:
    if layout == "nchw" and len(shape) == 4:
        first = channels_first(shape)
        if found.shape in (first, first[1:]) and (found.shape == first or shape[0] == 1):
            return ShapeMatch(np.ascontiguousarray(found.reshape(first).transpose(0, 2, 3, 1)))
    if found.shape == shape:
        return ShapeMatch(found)
    if found.shape == shape[1:] and shape[0] == 1:
        return ShapeMatch(found[None], notes=["without its batch dimension"])
    squeezed = tuple(d for d in found.shape if d != 1)
    if squeezed == tuple(d for d in shape if d != 1):
        return ShapeMatch(found.reshape(shape), notes=[f"shape {found.shape}, read as {shape}"])
    if found.ndim == 1 and found.size == math.prod(shape) and layout != "nchw":
        return ShapeMatch(
            found.reshape(shape), notes=[f"flat, {found.size:,} values, read as {shape} in row-major order"]
        )
    return ShapeMatch(
        problem=f"its shape is {found.shape}, expected {shape}{_hint(found.shape, shape)}", status="shape"
    )


def _hint(found: tuple[int, ...], shape: tuple[int, ...]) -> str:
    if len(shape) == 4 and found in (channels_first(shape), channels_first(shape)[1:]):
        return "; it is NCHW: --layout nchw, or transpose(0, 2, 3, 1)"
    if found[1:] == shape[1:]:
        return f"; the batch differs, {found[0]} images and {shape[0]}"
    if math.prod(found) == math.prod(shape):
        return "; the number of values is right, so a reshape or transpose is missing"
    return ""


def _typed(fitted: ShapeMatch, wanted: np.dtype[Any], q: Quantization | None) -> ShapeMatch:
    array = fitted.array
    assert array is not None
    what = f"{array.dtype} where {wanted} is expected"
    if wanted.kind in "iu":
        limits = np.iinfo(wanted)
        whole = array if array.dtype.kind in "iub" else _whole(array)
        if whole is not None and whole.size and int(whole.min()) >= limits.min and int(whole.max()) <= limits.max:
            return ShapeMatch(
                whole.astype(wanted), notes=[*fitted.notes, f"{what}; all values fit, compared as {wanted}"]
            )
        if array.dtype.kind == "f":
            return _quantized(array, wanted, q, fitted, what)
        return ShapeMatch(
            problem=f"{what}, values {array.min()} to {array.max()}{_offset(array, wanted)}", status="dtype"
        )
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):
            cast = array.astype(wanted)
        exact = np.array_equal(cast.astype(array.dtype), array, equal_nan=True)
        how = "all values fit" if exact else "values were rounded"
        return ShapeMatch(cast, notes=[*fitted.notes, f"{what}; {how}, compared as {wanted}"])
    return ShapeMatch(problem=f"{what}: quantized values of a float tensor; dump the real values", status="dtype")


def _whole(array: Array) -> Array | None:
    """Floats that are all whole numbers, as int64; None otherwise."""
    if not np.isfinite(array).all() or np.abs(array).max(initial=0) >= 2**53 or (np.trunc(array) != array).any():
        return None
    return array.astype(np.int64)


def _offset(array: Array, wanted: np.dtype[Any]) -> str:
    if {str(array.dtype), str(wanted)} == {"int8", "uint8"}:
        ways = f"x.view(np.{wanted}) if they are the same bytes, (x ^ 128).view(np.{wanted}) if 128 was added"
        return f"; {ways}: the input in the dump would tell which"
    return "; accumulators instead of outputs? Theirs may be named acc:NAME in the map" if wanted.itemsize < 4 else ""


def _quantized(
    array: Array, wanted: np.dtype[Any], q: Quantization | None, fitted: ShapeMatch, what: str
) -> ShapeMatch:  # fmt: skip
    """Dequantized values, back to integers by the wanted tensor's scale, if they lie on its grid."""
    if q is None or len(q.scale) != 1 or not np.isfinite(array).all():
        return ShapeMatch(problem=f"{what}, and the values aren't whole numbers: dump the integers", status="dtype")
    scale, zero = np.float64(np.float32(q.scale[0])), q.zero_point[0]
    steps = array.astype(np.float64) / scale
    nearest = np.rint(steps)
    # float32(scale * n) is within 2^-24 of it, and a dump may have been printed with 6 digits.
    if (np.abs(steps - nearest) > 1e-5 * np.maximum(np.abs(nearest), 1) + 1e-3).any():
        return ShapeMatch(
            problem=f"{what}, and the values aren't multiples of its scale {q.scale[0]:g}: another scale, or floats "
            "that were never quantized",
            status="dtype",
        )
    limits = np.iinfo(str(wanted))
    if (whole := nearest + zero).min() < limits.min or whole.max() > limits.max:
        return ShapeMatch(problem=f"{what}; as multiples of its scale they leave {wanted}'s range", status="dtype")
    note = f"{what}; dequantized values, compared as integers by scale {q.scale[0]:g} and zero point {zero}"
    return ShapeMatch(whole.astype(wanted), notes=[*fitted.notes, note])
