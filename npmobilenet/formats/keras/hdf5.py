"""What the readers of Keras files share: careful access to HDF5 files that somebody else made.

Only hard links are followed, on every component of a path; datasets must be plain (contiguous, not external, not
virtual) floats of the expected shape, all of it in the file; attributes are measured before they are read.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from npmobilenet.errors import ConversionError
from npmobilenet.formats.keras.attributes import HeaderError, attribute_data, heap_strings
from npmobilenet.modeldata import Array

MAX_FILE_BYTES = 512 << 20  # MobileNetV2 1.4 with its optimizer's state needs 75 MB
MAX_JSON_BYTES = 16 << 20
MAX_LAYERS = 10_000

HDF5_ERRORS = (
    OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError, IndexError, OverflowError, MemoryError,
)  # fmt: skip


_SOURCES: dict[int, Any] = {}  # HDF5's number of an open file -> what `open_hdf5` was given for it
# -> bytes of variables that may still be read of it. Many names may stand for one dataset; honest files have few such.
_LEFT: dict[int, int] = {}
_MOST_USES, _MOST_BYTES = (
    4,
    64 << 20,
)  # together these are what may be read: so often the file's size, and so many bytes


@contextmanager
def open_hdf5(source: Any, name: str) -> Iterator[Any]:
    """An `h5py.File` open for reading; `source` is a path or a file in memory. Raises `ConversionError`."""
    import h5py

    try:
        file = h5py.File(source, "r")
    except HDF5_ERRORS as error:
        raise ConversionError(f"'{name}' is damaged: HDF5 says: {error}") from error
    try:
        number = guard(name, lambda: h5py.h5o.get_info(file.id).fileno)
        size = len(source.getbuffer()) if hasattr(source, "getbuffer") else os.path.getsize(source)
        _SOURCES[number], _LEFT[number] = source, _MOST_USES * size + _MOST_BYTES
        try:
            yield file
        finally:
            del _SOURCES[number], _LEFT[number]
    finally:
        file.close()


def guard(name: str, function: Any, *args: Any) -> Any:
    """Call `function`; whatever h5py raises on a damaged file becomes a `ConversionError`."""
    try:
        return function(*args)
    except (*HDF5_ERRORS, RecursionError) as error:
        raise ConversionError(f"'{name}' is damaged: {type(error).__name__}: {error}") from error


def read_names(group: Any, attribute: str) -> list[str]:
    """A list of names from an attribute, which Keras splits into `name0`, `name1`, ... above 64,512 bytes."""
    parts = [attribute] if attribute in group.attrs else []
    while not parts or parts[0] != attribute:
        part = f"{attribute}{len(parts)}"
        if part not in group.attrs:
            break
        parts.append(part)
    names = [name for part in parts for name in _strings(group, part)]
    limit(len(names), MAX_LAYERS, f"entries in '{attribute}'")
    return names


def read_text(group: Any, attribute: str) -> str:
    """A string attribute, which may be bytes."""
    found = _strings(group, attribute)
    if len(found) != 1:
        raise ConversionError(f"attribute '{attribute}' holds {len(found)} strings, expected one")
    return found[0]


def _strings(group: Any, name: str) -> list[str]:
    """The strings of an attribute, measured before they are read; those of variable length are read without HDF5."""
    import h5py

    raw = group.attrs.get_id(name)
    entries = math.prod(raw.shape or ())
    limit(entries, MAX_LAYERS, f"entries in attribute '{name}'")
    kind = raw.get_type()
    if entries == 0:
        return []  # an empty list of names has numbers for its type
    if not isinstance(kind, h5py.h5t.TypeStringID) or raw.dtype.itemsize == 0:
        raise ConversionError(f"attribute '{name}' has type {raw.dtype}, expected strings")
    if kind.is_variable_str():
        found = _variable_strings(group, name, entries)
    else:
        limit(entries * raw.dtype.itemsize, MAX_JSON_BYTES, f"bytes in attribute '{name}'")
        found = [bytes(value) for value in np.asarray(group.attrs[name]).reshape(-1)]
    return [value.decode() for value in found]


def _variable_strings(group: Any, name: str, entries: int) -> list[bytes]:
    import h5py

    info = h5py.h5o.get_info(group.id)
    source = _SOURCES[info.fileno]
    try:
        with nullcontext(source) if hasattr(source, "getbuffer") else open(source, "rb") as file:
            data = attribute_data(file, info.addr, name.encode(), 16 * entries)
            sizes = [int.from_bytes(data[i : i + 4], "little") for i in range(0, 16 * entries, 16)]
            limit(sum(sizes), MAX_JSON_BYTES, f"bytes in attribute '{name}'")
            return heap_strings(file, data)
    except HeaderError as error:
        raise ConversionError(f"attribute '{name}' {error}") from error


def has_link(group: Any, name: str) -> bool:
    """Whether `group` has a link called `name`, of any kind; unlike `name in group`, this never follows it."""
    return bool(group.id.links.exists(name.encode()))


def child(parent: Any, path: str, kind: str) -> Any:
    """The group or dataset at `path`, every component of it reached through a hard link."""
    import h5py

    current = parent
    for part in path.split("/"):
        if part in ("", ".", "..") or not isinstance(current, h5py.Group) or not has_link(current, part):
            raise ConversionError(f"{path!r} is missing in group {parent.name!r}")
        if current.id.links.get_info(part.encode()).type != h5py.h5l.TYPE_HARD:
            raise ConversionError(f"{part!r} in group {current.name!r} is a soft or external link, which is refused")
        current = current[part]
    if not isinstance(current, h5py.Group if kind == "group" else h5py.Dataset):
        raise ConversionError(f"{path!r} in group {parent.name!r} is not a {kind}")
    return current


@dataclass(frozen=True)
class Variable:
    """A dataset of an open file, and its shape (read while damage was still expected)."""

    dataset: Any
    shape: tuple[int, ...]


def variable(parent: Any, path: str) -> Variable:
    """The dataset at `path`; nothing of its data is read."""
    dataset = child(parent, path, "dataset")
    return Variable(dataset, tuple(dataset.shape or ()))


def read(found: Variable, shape: tuple[int, ...], what: str) -> Array:
    """The array of a variable, after checking that it is a plain one of `shape` and is all there; each value is finite.

    Raises `ConversionError` if it isn't. The dtype is the file's: float32, float16 or float64.
    """
    values: Array = np.asarray(guard(what, _read, found.dataset, shape, what))
    if not np.isfinite(values).all():
        raise ConversionError(f"{what} has NaN or infinite values: the model was damaged or training diverged")
    return values


def _read(dataset: Any, shape: tuple[int, ...], what: str) -> Any:
    import h5py

    if dataset.shape != shape:
        raise ConversionError(f"{what} has shape {dataset.shape}, expected {shape}")
    if dataset.external or dataset.is_virtual or dataset.chunks is not None:
        raise ConversionError(f"{what} is stored externally, virtually or in chunks; Keras writes plain datasets")
    if dataset.dtype.kind != "f" or dataset.dtype.itemsize not in (2, 4, 8):
        raise ConversionError(f"{what} has dtype {dataset.dtype}, expected float32, float16 or float64")
    size, stored = math.prod(shape) * dataset.dtype.itemsize, dataset.id.get_storage_size()
    if size > MAX_FILE_BYTES or stored != size:
        raise ConversionError(f"{what} declares {size} bytes, of which {stored} are in the file")
    _LEFT[number := h5py.h5o.get_info(dataset.id).fileno] -= size
    if _LEFT[number] < 0:
        raise ConversionError(f"{what} shares its bytes with too many others: the file is damaged; save the model anew")
    return dataset[()]


def limit(count: int, most: int, what: str) -> None:
    """Raise `ConversionError` if there is more of something than any MobileNet has."""
    if count > most:
        raise ConversionError(f"{count} {what}, more than {most}: this is not a MobileNet")


def listed(names: list[str], most: int = 8) -> str:
    """Names for an error message, the first few of them."""
    shown = ", ".join(repr(name[:80]) for name in names[:most])
    return (shown or "nothing") + (f" and {len(names) - most} more" if len(names) > most else "")
