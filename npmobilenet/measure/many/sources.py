"""What is to be done, cut into parts: files, addresses of fsspec, rows of Parquet files. No image is read here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

from npmobilenet.errors import InputError, MissingExtra
from npmobilenet.formats.model_path import is_address
from npmobilenet.images.decoding import MAX_FILE_BYTES
from npmobilenet.images.finding import Found, find_images, is_image_name
from npmobilenet.measure.embeddings.spool import stamp

PART = 256  # images: half a minute of one core with V2 1.0_224, so little is lost with a worker
BYTES, PATHS = (
    ("bytes", "image", "jpeg", "content"),
    ("path", "file", "url", "uri"),
)  # columns of Parquet, by preference


class Part(NamedTuple):
    """Images that one worker does at a time: names with what tells a later version, or rows of a Parquet file."""

    images: tuple[tuple[str, str], ...] = ()  # path or address, stamp
    parquet: str = ""
    group: int = -1
    rows: int = 0

    @property
    def size(self) -> int:
        """The number of images."""
        return self.rows or len(self.images)


def cut(inputs: Iterable[str]) -> list[Part]:
    """The parts of files, folders and patterns (as `find_images`), addresses (fsspec) and .parquet files, in order.

    A row group of a Parquet file is a part; its images are a column of bytes, or of paths or addresses.
    Raises `InputError`, `MissingExtra`.
    """
    parts: list[Part] = []
    loose: list[tuple[str, str]] = []
    for argument in inputs:
        if argument.endswith(".parquet"):
            parts += _of_parquet(argument)
        elif is_address(argument):
            loose += [(name, "address") for name in _addresses(argument)]
        else:
            loose += [(found.name, stamp(found)) for found in find_images([argument])]
    rest = iter(loose)
    while images := tuple(islice(rest, PART)):
        parts.append(Part(images))
    return parts


def fingerprint(parts: Sequence[Part]) -> str:
    """The sha256 over all parts."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _fsspec() -> Any:
    try:
        import fsspec
    except ImportError:
        raise MissingExtra("fsspec", "dask", "An address of images") from None
    return fsspec


def _addresses(argument: str) -> list[str]:
    """The files that a pattern or a folder of a remote file system holds."""
    fsspec = _fsspec()
    try:
        system, path = fsspec.core.url_to_fs(argument)
        if system.isdir(path):
            names = sorted(name for name in system.ls(path, detail=False) if is_image_name(name))
        else:
            names = sorted(system.glob(path)) if any(sign in path for sign in "*?[") else [path]
        return [str(system.unstrip_protocol(name)) for name in names]
    except (OSError, ValueError, ImportError) as error:
        raise InputError(f"'{argument}' can't be listed: {type(error).__name__}: {str(error)[:200]}") from error


def _of_parquet(path: str) -> list[Part]:
    from npmobilenet.measure.embeddings.files import arrow

    pa = arrow()
    try:
        with _opened(path) as file:
            table = pa.parquet.ParquetFile(file)
            _column(path, table.schema_arrow.names)
            sizes = [table.metadata.row_group(i).num_rows for i in range(table.metadata.num_row_groups)]
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"'{path}' can't be read as Parquet: {str(error)[:200]}") from error
    return [Part((), path, group, rows) for group, rows in enumerate(sizes) if rows]


def _opened(path: str) -> Any:
    return _fsspec().open(path, "rb") if is_address(path) else open(path, "rb")


def _column(path: str, names: Sequence[str]) -> str:
    found = next((name for name in (*BYTES, *PATHS) if name in names), None)
    if found is None:
        raise InputError(
            f"'{path}' has the columns {', '.join(names[:20])}: expected one of {', '.join(BYTES)} with the bytes of "
            f"image files, or of {', '.join(PATHS)}"
        )
    return found


def images_of(part: Part) -> Iterator[Found]:
    """The images of a part, read from where they are but for paths, which are read later."""
    if part.parquet:
        yield from _rows(part)
        return
    for name, _ in part.images:
        yield _found(name, name)


def _found(name: str, source: str) -> Found:
    if not is_address(source):
        return next(iter(find_images([source]))) if source == "-" else Found(name, source)
    try:
        with _opened(source) as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError, ImportError) as error:
        return Found(name, InputError(f"'{source}' can't be read: {type(error).__name__}: {str(error)[:200]}"))
    if len(content) > MAX_FILE_BYTES:
        return Found(name, InputError(f"'{source}' has more than {MAX_FILE_BYTES:,} bytes: expected an image file"))
    return Found(name, content)


def _rows(part: Part) -> Iterator[Found]:
    from npmobilenet.measure.embeddings.files import arrow

    with _opened(part.parquet) as file:
        table = arrow().parquet.ParquetFile(file)
        column = _column(part.parquet, table.schema_arrow.names)
        named = next((name for name in (*PATHS, "name", "id") if name in table.schema_arrow.names), None)
        read = table.read_row_group(part.group, columns=list(dict.fromkeys([column, *([named] if named else [])])))
    names = read.column(named).to_pylist() if named else [None] * part.rows
    for i, (name, value) in enumerate(zip(names, read.column(column).to_pylist(), strict=True)):
        text = str(name) if name is not None else f"{part.parquet}#{part.group}.{i}"
        inner = value.get("bytes") or value.get("path") if isinstance(value, dict) else value  # Hugging Face's images
        if isinstance(inner, str):
            yield _found(text, inner)
        elif isinstance(inner, bytes):
            yield Found(text, inner)
        else:
            yield Found(text, InputError(f"'{text}' has no image: expected bytes or a path"))
