"""Zip archives that may be hostile: .keras files, .npz files, label files packed behind a .tflite model.

`opened` looks at the archive's directory before Python's zipfile parses it, since that takes 20 us for each of as many
members as the directory declares; `member` looks at a member's declared size and compression before it is unpacked.
Source of the layout: PKWARE's APPNOTE.TXT 6.3.10, sections 4.3.12 to 4.3.16.
"""

from __future__ import annotations

import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import IO

MAX_MEMBERS = 20_000
MAX_DIRECTORY_BYTES = 8 * 2**20  # 46 bytes a member and its name
# Deflate reaches 1000:1 on zeros. Weights, photos, names and counters don't: a large member that does is a bomb.
SMALL_BYTES = 64 * 2**20
MOST_RATIO = 20
KINDS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

# What zipfile, zlib and NumPy's parser of headers raise on damaged archives depends on where they notice.
ERRORS = (
    OSError, ValueError, LookupError, TypeError, RuntimeError, ArithmeticError, MemoryError, EOFError,
    zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, struct.error, SyntaxError, tokenize.TokenError,
)  # fmt: skip

_END, _END64, _ENTRY = b"PK\x05\x06", b"PK\x06\x06", b"PK\x01\x02"
_END_BYTES, _END64_BYTES, _LOCATOR_BYTES, _COMMENT_BYTES = 22, 56, 20, 2**16


def is_resource_fork(name: str) -> bool:
    """Whether a member is what macOS adds beside each file: `__MACOSX/._model.tflite`."""
    return name.startswith("__MACOSX/") or PurePosixPath(name).name.startswith("._")


class ArchiveError(ValueError):
    """An archive is damaged, or holds what isn't read; callers say of which file."""


@contextmanager
def opened(source: str | os.PathLike[str] | IO[bytes]) -> Iterator[zipfile.ZipFile]:
    """The archive at a path, or in an open file. Raises `ArchiveError`, also for damage found while it is read."""
    try:
        if isinstance(source, (str, os.PathLike)):
            with open(source, "rb") as file:
                _check_directory(file)
        else:
            _check_directory(source)
        found = zipfile.ZipFile(source)
    except (ArchiveError, FileNotFoundError):
        raise
    except ERRORS as error:
        raise _damaged(error) from error
    with found as archive:
        try:
            yield archive
        except (zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, struct.error, EOFError) as error:
            raise _damaged(error) from error


def _damaged(error: Exception) -> ArchiveError:
    return ArchiveError(f"damaged, or no zip archive ({type(error).__name__}: {str(error)[:120]})")


@contextmanager
def member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, most: int) -> Iterator[IO[bytes]]:
    """A member, open for reading, that has at most `most` bytes. Raises `ArchiveError`."""
    name = repr(info.filename[:80])
    if info.compress_type not in KINDS:
        raise ArchiveError(
            f"member {name} is compressed by method {info.compress_type}, expected stored (0) or deflated (8); "
            "pack the archive again with one of these"
        )
    if info.flag_bits & 1:
        raise ArchiveError(f"member {name} is encrypted")
    if info.file_size > most or (info.file_size > SMALL_BYTES and info.file_size > MOST_RATIO * info.compress_size):
        raise ArchiveError(
            f"member {name} declares {info.file_size:,} bytes packed into {info.compress_size:,}: refused, at most "
            f"{most:,} are read, and above {SMALL_BYTES:,} at most {MOST_RATIO} for each packed one"
        )
    try:
        file = archive.open(info)
    except ERRORS as error:
        raise _damaged(error) from error
    with file:
        yield file


def _check_directory(file: IO[bytes]) -> None:
    """Count the members as zipfile will find them: the directory ends where the end record begins."""
    size = file.seek(0, os.SEEK_END)
    start = max(0, size - _END_BYTES - _COMMENT_BYTES)
    file.seek(start)
    tail = file.read(size - start)
    at = len(tail) - _END_BYTES
    if at < 0 or tail[at : at + 4] != _END or tail[-2:] != b"\0\0":
        at = tail.rfind(_END)
    if at < 0 or at + _END_BYTES > len(tail):
        raise ArchiveError("no zip archive, or cut short: it has no end record")
    length, end = int.from_bytes(tail[at + 12 : at + 16], "little"), start + at
    if end >= _LOCATOR_BYTES + _END64_BYTES:
        file.seek(end - _LOCATOR_BYTES - _END64_BYTES)
        record = file.read(_END64_BYTES)
        if record[:4] == _END64:
            length, end = int.from_bytes(record[40:48], "little"), end - _LOCATOR_BYTES - _END64_BYTES
    if length > min(MAX_DIRECTORY_BYTES, end):
        raise ArchiveError(f"its directory has {length:,} bytes, at most {MAX_DIRECTORY_BYTES:,} are read")
    file.seek(end - length)
    count = file.read(length).count(_ENTRY)
    if count > MAX_MEMBERS:
        raise ArchiveError(f"{count:,} members, at most {MAX_MEMBERS:,} are read")
    file.seek(0)
