"""TensorFlow checkpoints of format V2, read without TensorFlow: `<prefix>.index` and `<prefix>.data-00000-of-00001`.

The index is read at once (see checkpoint_index.py), the variables' bytes when asked for, each checked against its
CRC-32C. Source of names and layout: tensorflow/tensorflow v2.15 core/util/tensor_bundle/{naming,tensor_bundle}.cc.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np

from npmobilenet.errors import ConversionError
from npmobilenet.formats.file_kinds import kind_of
from npmobilenet.formats.tensorflow.checkpoint_index import Entry, read_index
from npmobilenet.formats.tensorflow.crc32c import crc32c, unmask
from npmobilenet.modeldata import Array

# DataType numbers of tensorflow/core/framework/types.proto, with NumPy's dtype where the reader knows how.
_DTYPES: Mapping[int, tuple[str, str | None]] = MappingProxyType({
    1: ("float32", "<f4"), 2: ("float64", "<f8"), 3: ("int32", "<i4"), 4: ("uint8", "u1"), 5: ("int16", "<i2"),
    6: ("int8", "i1"), 7: ("string", None), 8: ("complex64", None), 9: ("int64", "<i8"), 10: ("bool", "?"),
    14: ("bfloat16", None), 17: ("uint16", "<u2"), 18: ("complex128", None), 19: ("float16", "<f2"),
    20: ("resource", None), 21: ("variant", None), 22: ("uint32", "<u4"), 23: ("uint64", "<u8"),
})  # fmt: skip
_DATA = re.compile(r"(.+)\.data-(\d{5})-of-(\d{5})", re.DOTALL)
_MAX_RANK = 32
_PASS = "pass the checkpoint's prefix (such as model.ckpt-1000), its .index or one of its .data files"


@dataclass(frozen=True)
class Variable:
    """What the index says of a variable: its shape and TensorFlow's name of its dtype."""

    shape: tuple[int, ...]
    dtype: str


class Checkpoint:
    """An open checkpoint: `variables` (name -> shape and dtype, sorted by name) and `read(name)`.

    `path` is the prefix, the `.index` file, any `.data-*` file, or a folder that holds exactly one checkpoint.

    Raises `ConversionError` when there is no checkpoint there (and says what is there instead), when a data file is
    missing, or when the index is damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.prefix = find_prefix(Path(path))
        header, self._entries = read_index(Path(f"{self.prefix}.index"))
        self.files = tuple(
            Path(f"{self.prefix}.data-{i:05d}-of-{header.num_shards:05d}") for i in range(header.num_shards)
        )
        missing = [file.name for file in self.files if not file.is_file()]
        if missing:
            raise ConversionError(
                f"checkpoint '{self.prefix}': {len(missing)} of its {len(self.files)} data files are "
                f"missing: {_some(missing)}; put them beside the .index file"
            )
        self.variables: Mapping[str, Variable] = MappingProxyType(
            {name: Variable(e.shape, _dtype_name(e.dtype)) for name, e in self._entries.items()}
        )

    def read(self, name: str) -> Array:
        """The value of one variable, in its own dtype (little endian).

        Raises `ConversionError` for an unknown name, a dtype without a NumPy twin (strings), a partitioned variable,
        bytes that aren't there, a size that isn't the shape's, or a checksum that differs.
        """
        entry = self._entries.get(name)
        where = f"checkpoint '{self.prefix}', variable '{name}'"
        if entry is None:
            raise ConversionError(f"{where}: there is none of that name; `.variables` lists the {len(self.variables)}")
        if entry.sliced:
            raise ConversionError(
                f"{where}: it is stored in slices (made with a partitioner), which isn't supported; "
                "load it in TensorFlow without a partitioner and save it again"
            )
        dtype = _DTYPES.get(entry.dtype, ("", None))[1]
        if dtype is None:
            raise ConversionError(f"{where}: dtype {_dtype_name(entry.dtype)}, expected a float or integer type")
        if len(entry.shape) > _MAX_RANK:
            raise ConversionError(f"{where}: rank {len(entry.shape)}, expected at most {_MAX_RANK}")
        expected = math.prod(entry.shape) * np.dtype(dtype).itemsize
        if entry.size != expected:
            raise ConversionError(
                f"{where}: {entry.size} bytes stored, expected {expected} for shape {entry.shape} of "
                f"{_dtype_name(entry.dtype)}; the index is damaged: copy the checkpoint again"
            )
        return np.frombuffer(self._bytes(entry, where), dtype).reshape(entry.shape)

    def _bytes(self, entry: Entry, where: str) -> bytes:
        if entry.shard >= len(self.files):
            raise ConversionError(
                f"{where}: it lies in data file {entry.shard}, and there are {len(self.files)}; "
                "the index is damaged: copy the checkpoint again"
            )
        path = self.files[entry.shard]
        try:
            size = path.stat().st_size
            if entry.offset + entry.size > size:
                raise ConversionError(
                    f"{where}: its bytes {entry.offset} to {entry.offset + entry.size} lie beyond the "
                    f"end of '{path.name}' ({size} bytes): the file is cut short, copy it again"
                )
            with path.open("rb") as file:
                file.seek(entry.offset)
                data = file.read(entry.size)
        except OSError as error:
            raise ConversionError(f"{where}: '{path}' can't be read: {error.strerror or error}") from error
        found, expected = crc32c(data), unmask(entry.crc32c)
        if found != expected:
            raise ConversionError(
                f"{where}: CRC-32C 0x{found:08x}, expected 0x{expected:08x} (bytes {entry.offset} to "
                f"{entry.offset + entry.size} of '{path.name}'): the file is damaged, copy it again"
            )
        return data


def read_checkpoint(path: str | Path) -> dict[str, Array]:
    """All numeric variables of a checkpoint by name; strings (bookkeeping of TensorFlow 2) are left out."""
    checkpoint = Checkpoint(path)
    readable = {name for _, (name, dtype) in _DTYPES.items() if dtype}
    return {name: checkpoint.read(name) for name, v in checkpoint.variables.items() if v.dtype in readable}


def find_prefix(path: Path) -> Path:
    """The prefix of the checkpoint that `path` means: see `Checkpoint`."""
    try:
        if path.is_dir():
            return _in_folder(path)
        data = _DATA.fullmatch(str(path))
        prefix = str(path)[: -len(".index")] if path.suffix == ".index" else data[1] if data else str(path)
        if Path(f"{prefix}.index").is_file():
            return Path(prefix)
        raise ConversionError(_why_not(path, Path(prefix)))
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise ConversionError(f"checkpoint {str(path)!r}: can't be read: {error}") from error


def _in_folder(folder: Path) -> Path:
    found = sorted(p for p in folder.iterdir() if p.suffix == ".index" and p.is_file())
    if len(found) == 1:
        return found[0].with_suffix("")
    if found:
        raise ConversionError(
            f"folder '{folder}': it holds {len(found)} checkpoints "
            f"({_some([p.stem for p in found])}); pass the one you mean"
        )
    raise ConversionError(f"folder '{folder}': no .index file in it, so no checkpoint; {_PASS}")


def _why_not(path: Path, prefix: Path) -> str:
    """What to say where `<prefix>.index` doesn't exist: what `path` is instead, or which file is missing."""
    if prefix == path and path.is_file():
        return f"'{path}' is {_kind(path)}, expected a TensorFlow checkpoint: {_PASS}"
    if prefix == path and path.exists():
        return f"'{path}' is a pipe or a device: save what it gives as a file, and pass that file's path"
    if prefix.parent.is_dir() and any(_DATA.fullmatch(p.name) and p.name.startswith(f"{prefix.name}.data-")
                                      for p in prefix.parent.iterdir()):  # fmt: skip
        return f"checkpoint '{prefix}': its data is there but '{prefix.name}.index' is missing; put it beside the data"
    return f"checkpoint '{prefix}': there is no file '{prefix}.index'; {_PASS}"


def _kind(path: Path) -> str:
    """What sort of file this is, and what to do with it."""
    kind = kind_of(path)
    if not path.stat().st_size:
        return "an empty file (fetch it again)"
    return f"{kind.name} ({kind.advice})" if kind else f"a file of {path.stat().st_size} bytes of unknown kind"


def _dtype_name(number: int) -> str:
    return _DTYPES[number][0] if number in _DTYPES else f"number {number}"


def _some(names: list[str], limit: int = 5) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
