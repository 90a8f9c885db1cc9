"""The vectors of the images that are done, in the order of the images, in one growing file: a header, then records.

A record stands or falls as a whole (its CRC-32), so a file that ends anywhere holds all of its whole records. What is
done is the longest run of records, from the first one on, that agrees with the images asked for.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npmobilenet.errors import InputError
from npmobilenet.images.finding import Found

FORMAT = "npmobilenet embedding state 1"
MAX_HEADER_BYTES = 2**20
MAX_PART_BYTES = 2**20  # of a name, or of what is kept of an image
_RECORD = struct.Struct("<IIII")  # CRC-32 of the rest; bytes of name and stamp, of the vector, of the error


class Row(NamedTuple):
    """An image's name, what told it from others of that name, and its vector or why there is none."""

    name: str
    stamp: str
    vector: NDArray[np.float32] | None
    error: str | None


def stamp(found: Found) -> str:
    """What tells an image from a later one of its name: size and time of a file, the sum of bytes."""
    if isinstance(found.source, InputError):
        return f"error {found.source}"
    if isinstance(found.source, bytes):
        return hashlib.sha256(found.source).hexdigest()
    try:
        about = os.stat(found.source)
    except (OSError, ValueError):
        return "no file"
    return f"{about.st_size} {about.st_mtime_ns}"


class Spool:
    """The file. `path` None: a temporary one, which vanishes when closed. `width`: values of a vector."""

    def __init__(self, path: Path | None, identity: dict[str, str], width: int) -> None:
        self.path, self.width, self.done, self.unreadable = path, width, 0, 0
        self._header = json.dumps({"format": FORMAT, "width": width, **identity}, sort_keys=True).encode() + b"\n"
        if path is None:
            self._file: IO[bytes] = tempfile.TemporaryFile(prefix="npmobilenet-vectors-")  # noqa: SIM115
            self._file.write(self._header)
            return
        if not path.parent.is_dir():
            raise InputError(f"state '{path}': there is no folder '{path.parent}'; make it first")
        try:
            self._file = open(path, "r+b" if path.exists() else "x+b")  # noqa: SIM115
        except OSError as error:
            raise InputError(f"state '{path}' can't be opened: {error.strerror or error}") from error
        try:
            self._check_header()
        except BaseException:
            self._file.close()
            raise

    def _check_header(self) -> None:
        line = self._file.readline(MAX_HEADER_BYTES)
        if not line:
            self._file.write(self._header)
            return
        try:
            there = json.loads(line)
        except (ValueError, RecursionError):
            there = None
        if not isinstance(there, dict) or there.get("format") != FORMAT:
            raise InputError(f"'{self.path}' is not a state file of embed, so it is left alone: name another file")
        wanted = json.loads(self._header)
        different = [key for key, value in wanted.items() if there.get(key) != value]
        if different or line != self._header:
            raise InputError(
                f"state '{self.path}' belongs to other vectors, it differs in {', '.join(different) or 'its form'}: "
                "give the same again, or another state"
            )

    def keep_agreeing(self, images: Sequence[Found]) -> None:
        """Keep the records that agree with the first of these images, and cut off the rest."""
        self._file.seek(len(self._header))
        end = self._file.tell()
        for found in images:
            row = self._read()
            if row is None or (row.name, row.stamp) != (found.name, stamp(found)):
                break
            self._count(row)
            end = self._file.tell()
        self._file.seek(end)
        self._file.truncate()

    def append(self, row: Row) -> None:
        """Add an image's record. Raises `InputError` if the disk is full."""
        name = json.dumps([row.name, row.stamp]).encode()
        vector = b"" if row.vector is None else row.vector.astype("<f4", copy=False).tobytes()
        error = b"" if row.error is None else json.dumps(row.error).encode()
        body = name + vector + error
        sizes = _RECORD.pack(0, len(name), len(vector), len(error))[4:]
        try:
            self._file.write(_RECORD.pack(zlib.crc32(sizes + body), len(name), len(vector), len(error)) + body)
        except OSError as problem:
            raise InputError(f"the vectors can't be kept: {problem.strerror or problem}") from problem
        self._count(row)

    def _count(self, row: Row) -> None:
        self.done += 1
        self.unreadable += row.vector is None

    def _read(self) -> Row | None:
        """The record at the file's place; None where no whole one is."""
        head = self._file.read(_RECORD.size)
        if len(head) < _RECORD.size:
            return None
        total, *sizes = _RECORD.unpack(head)
        if sizes[0] > MAX_PART_BYTES or sizes[1] not in (0, 4 * self.width) or sizes[2] > MAX_PART_BYTES:
            return None
        body = self._file.read(sum(sizes))
        if len(body) < sum(sizes) or zlib.crc32(head[4:] + body) != total:
            return None
        name, kept = json.loads(body[: sizes[0]])
        error = body[sizes[0] + sizes[1] :]
        vector = np.frombuffer(body, "<f4", self.width, sizes[0]).astype(np.float32) if sizes[1] else None
        return Row(name, kept, vector, json.loads(error) if error else None)

    def rows(self) -> Iterator[Row]:
        """All records, in order."""
        self.flush()
        self._file.seek(len(self._header))
        for _ in range(self.done):
            row = self._read()
            if row is None:
                raise InputError(f"the vectors in {self.path or 'a temporary file'} were damaged meanwhile: begin anew")
            yield row
        self._file.seek(0, os.SEEK_END)

    def flush(self) -> None:
        """Hand everything to the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close, and so remove a temporary one."""
        self._file.close()
