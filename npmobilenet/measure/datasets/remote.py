"""Images that aren't files of this machine: addresses of fsspec's file systems, and rows of Parquet files.

What stands for an image here is small and can be sent to other machines; `read` fetches its bytes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple

from npmobilenet.errors import InputError, MissingExtra
from npmobilenet.formats.model_path import is_address
from npmobilenet.images.decoding import MAX_FILE_BYTES
from npmobilenet.images.finding import is_image_name

BYTES, PATHS = (
    ("bytes", "image", "jpeg", "content"),
    ("path", "file", "url", "uri"),
)  # columns of Parquet, by preference
MAX_LIST_BYTES = 2**30
LABELS = ("label", "class", "target", "truth")


class Address(NamedTuple):
    """An image in a file system of fsspec."""

    url: str


class Row(NamedTuple):
    """An image in a Parquet file: the place of its row."""

    path: str
    group: int
    row: int


def arrow() -> Any:
    """pyarrow. Raises `MissingExtra`."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingExtra("pyarrow", "parquet", "A Parquet file") from None
    return pyarrow


def fsspec() -> Any:
    """fsspec. Raises `MissingExtra`."""
    try:
        import fsspec as package
    except ImportError:
        raise MissingExtra("fsspec", "dask", "An address of images") from None
    return package


def read(source: Any) -> Any:
    """What `Model.preprocess` takes for an image: bytes of addresses and rows; all else is returned as it is.

    Raises `InputError`: it can't be read, it is too large, a row without an image.
    """
    if isinstance(source, InputError):
        raise source
    if isinstance(source, Row):
        return read(rows(source.path, source.group)[source.row][1])
    if not isinstance(source, Address):
        return source
    try:
        with opened(source.url) as file:
            content: bytes = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError, ImportError) as error:
        raise InputError(f"'{source.url}' can't be read: {type(error).__name__}: {str(error)[:200]}") from error
    if len(content) > MAX_FILE_BYTES:
        raise InputError(f"'{source.url}' has more than {MAX_FILE_BYTES:,} bytes: expected an image file")
    return content


def source_of(text: str) -> str | Address:
    """What stands for the image at a path or address."""
    return Address(text) if is_address(text) else text


def opened(path: str) -> Any:
    """A file by path or address, for reading. Raises `OSError`, also for a pipe, which could block for ever."""
    if is_address(path):
        return fsspec().open(path, "rb")
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError("it is no regular file")
    return open(path, "rb")


def addresses(argument: str) -> list[str]:
    """The files that a pattern or a folder of a remote file system holds. Raises `InputError`."""
    try:
        system, path = fsspec().core.url_to_fs(argument)
        if system.isdir(path):
            names = sorted(name for name in system.ls(path, detail=False) if is_image_name(name))
        else:
            names = sorted(system.glob(path)) if any(sign in path for sign in "*?[") else [path]
        return [str(system.unstrip_protocol(name)) for name in names]
    except (OSError, ValueError, ImportError) as error:
        raise InputError(f"'{argument}' can't be listed: {type(error).__name__}: {str(error)[:200]}") from error


def tree(argument: str) -> list[tuple[str, Address, int]]:
    """(path below it, address, size) of all images below a remote folder, sorted. Raises `InputError`."""
    try:
        system, root = fsspec().core.url_to_fs(argument)
        root = root.rstrip("/")
        found = sorted(system.find(root, detail=True).items())
        return [
            (name[len(root) + 1 :], Address(str(system.unstrip_protocol(name))), int(about.get("size") or 0))
            for name, about in found
            if is_image_name(name)
        ]
    except (OSError, ValueError, ImportError) as error:
        raise InputError(f"'{argument}' can't be listed: {type(error).__name__}: {str(error)[:200]}") from error


def lines(path: str) -> list[str]:
    """The lines of a text file, by path or address, that aren't empty. Raises `InputError`."""
    try:
        with opened(path) as file:
            content: bytes = file.read(MAX_LIST_BYTES + 1)
        if len(content) > MAX_LIST_BYTES:
            raise InputError(f"'{path}' has more than {MAX_LIST_BYTES:,} bytes: is it a list of images?")
        return [line.strip() for line in content.decode("utf-8-sig").splitlines() if line.strip()]
    except (OSError, ValueError, ImportError) as error:
        raise InputError(f"'{path}' can't be read as a list of images: {str(error)[:200]}") from error


def groups(path: str) -> list[int]:
    """The number of rows of each row group of a Parquet file of images. Raises `InputError`, `MissingExtra`."""
    with table(path) as file:
        column(path, file.schema_arrow.names)
        return [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]


@contextmanager
def table(path: str) -> Iterator[Any]:
    """An open Parquet file (`pyarrow.parquet.ParquetFile`). What goes wrong in the block comes out as `InputError`."""
    pa = arrow()
    try:
        with opened(path) as file:
            yield pa.parquet.ParquetFile(file)
    except (OSError, ValueError, ImportError, pa.ArrowException) as error:
        raise InputError(f"'{path}' can't be read as Parquet: {str(error)[:200]}") from error


@lru_cache(maxsize=2)
def rows(path: str, group: int) -> list[tuple[str, Any]]:
    """Names and sources (what `read` takes, or why there is none) of a row group. Raises `InputError`."""
    with table(path) as file:
        there = file.schema_arrow.names
        images = column(path, there)
        named = next((name for name in (*PATHS, "name", "id") if name in there), None)
        got = file.read_row_group(group, columns=list(dict.fromkeys([images, *([named] if named else [])])))
        values = got.column(images).to_pylist()
        names = got.column(named).to_pylist() if named else [None] * len(values)
    made: list[tuple[str, Any]] = []
    for i, (name, value) in enumerate(zip(names, values, strict=True)):
        text = str(name) if name is not None else f"{path}#{group}.{i}"
        inner = value.get("bytes") or value.get("path") if isinstance(value, dict) else value  # Hugging Face's images
        if isinstance(inner, str):
            inner = source_of(inner)
        elif not isinstance(inner, bytes):
            inner = InputError(f"'{text}' has no image: expected bytes or a path")
        made.append((text, inner))
    return made


def column(path: str, names: Sequence[str]) -> str:
    """The column that holds the images. Raises `InputError`."""
    found = next((name for name in (*BYTES, *PATHS) if name in names), None)
    if found is None:
        raise InputError(
            f"'{path}' has the columns {', '.join(names[:20])}: expected one of {', '.join(BYTES)} with the bytes of "
            f"image files, or of {', '.join(PATHS)}"
        )
    return found
