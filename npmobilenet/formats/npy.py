"""Arrays from files that may be hostile: .npy files and the members of .npz archives. Nothing is ever unpickled.

The header is read first, by NumPy's own parser, and what it declares (a dtype from a fixed list, a shape, at most
`MAX_BYTES`) must be exactly what the file holds, before anything of that size is allocated.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from npmobilenet.errors import InputError
from npmobilenet.formats import archive
from npmobilenet.modeldata import Array

MAX_BYTES = 2**31  # of one array; the largest tensor of a MobileNet at batch 1 has 5 MB
MAX_MEMBERS = archive.MAX_MEMBERS
DTYPES = ("float16", "float32", "float64", "int8", "int16", "int32", "int64",
          "uint8", "uint16", "uint32", "uint64", "bool")  # fmt: skip


def read_npy(path: Path) -> Array:
    """The array of a .npy file. Raises `InputError`."""
    with _told(str(path)), _regular(path) as file:
        return _read(file, os.fstat(file.fileno()).st_size)


@contextmanager
def _regular(path: Path) -> Iterator[IO[bytes]]:
    if not stat.S_ISREG(path.stat().st_mode):  # a pipe could block for ever
        raise ValueError("expected a regular file")
    with open(path, "rb") as file:
        yield file


@contextmanager
def _told(where: str) -> Iterator[None]:
    """Whatever goes wrong inside is an `InputError` that says where."""
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"'{where}' does not exist; check the path") from None
    except archive.ERRORS as error:
        remedy = "" if isinstance(error, archive.ArchiveError) else "; write it with numpy.save"
        text = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise InputError(f"'{where}' can't be read as an array: {text[:300]}{remedy}") from error


def _read(file: IO[bytes], size: int) -> Array:
    shape, fortran, dtype = _header(file)
    count = math.prod(shape)
    wanted, held = count * dtype.itemsize, size - file.tell()
    if wanted != held:
        raise ValueError(f"its header declares {dtype} {shape}, {wanted:,} bytes, and {held:,} bytes follow it")
    data = file.read(wanted)
    if len(data) != wanted:
        raise ValueError(f"{wanted:,} bytes expected, {len(data):,} found")
    flat = np.frombuffer(bytearray(data), dtype)  # of a bytearray, so that the array may be written to
    array = flat.reshape(shape[::-1]).transpose() if fortran else flat.reshape(shape)
    return np.ascontiguousarray(array, dtype.newbyteorder("=")).reshape(shape)


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version} of the .npy format, expected 1.0 or 2.0")
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype.hasobject or dtype.newbyteorder("=").name not in DTYPES:
        raise ValueError(f"its dtype is {dtype}, expected one of {', '.join(DTYPES)}")
    if any(not isinstance(d, int) or d < 0 for d in shape) or len(shape) > 8:
        raise ValueError(f"its shape is {shape}")
    if math.prod(shape) * dtype.itemsize > MAX_BYTES:
        raise ValueError(f"its header declares {dtype} {shape}, more than {MAX_BYTES:,} bytes")
    return shape, fortran, dtype


class Archive:
    """The members of an .npz archive, each read when it is asked for. Raises `InputError`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with _told(str(path)), _regular(path), archive.opened(path) as file:
            infos = file.infolist()
            self._sizes = {i.filename: i.file_size for i in infos}
            if len(self._sizes) < len(infos):
                raise ValueError("two of its members have the same name")

    @property
    def names(self) -> list[str]:
        """All members."""
        return list(self._sizes)

    def read(self, name: str) -> Array:
        """A member that is a .npy file."""
        with self._member(name, MAX_BYTES + 2**16) as member:
            return _read(member, self._sizes[name])

    def text(self, name: str, most: int) -> bytes:
        """A member's bytes, `most` of them at most."""
        with self._member(name, most) as member:
            return member.read(most)

    @contextmanager
    def _member(self, name: str, most: int) -> Iterator[IO[bytes]]:
        where = _told(f"{self.path}: {name}")
        with where, archive.opened(self.path) as file, archive.member(file, file.getinfo(name), most) as member:
            yield member


class ArrayWriter:
    """Writes a .npy file piece by piece along the first axis: C order, little-endian, the header that NumPy writes."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: str) -> None:
        self.dtype = np.dtype(dtype).newbyteorder("<")
        self._left = math.prod(shape)
        self._file = open(path, "xb")  # noqa: SIM115
        header = {"descr": npy.dtype_to_descr(self.dtype), "fortran_order": False, "shape": shape}
        npy.write_array_header_1_0(self._file, header)

    def write(self, piece: Array) -> bytes:
        """Append the next images; returns their bytes as written."""
        data = np.ascontiguousarray(piece, self.dtype).tobytes()
        self._left -= piece.size
        self._file.write(data)
        return data

    def close(self) -> None:
        """Close the file; all of its declared elements must have been written."""
        self._file.close()
        if self._left:
            raise RuntimeError(f"{self._left} elements of {self._file.name} were not written")
