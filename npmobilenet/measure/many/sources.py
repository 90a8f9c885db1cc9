"""What is to be done, cut into parts: files, addresses of fsspec, rows of Parquet files. No image is read here."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

from npmobilenet.errors import InputError
from npmobilenet.formats.model_path import is_address
from npmobilenet.images.finding import Found, find_images
from npmobilenet.measure.datasets import remote
from npmobilenet.measure.embeddings.spool import stamp

PART = 256  # images: half a minute of one core with V2 1.0_224, so little is lost with a worker


class Part(NamedTuple):
    """Images that one worker does at a time: names with what tells a later version, or rows of a Parquet file."""

    images: tuple[tuple[str, str], ...] = ()  # path or address, stamp
    parquet: str = ""
    group: int = -1
    first: int = 0
    rows: int = 0

    @property
    def size(self) -> int:
        """The number of images."""
        return self.rows or len(self.images)


def cut(inputs: Iterable[str]) -> list[Part]:
    """The parts of files, folders and patterns (as `find_images`), addresses (fsspec) and .parquet files, in order.

    A row group of a Parquet file is a part, or several; its images are a column of bytes, or of paths or addresses.
    A .txt file lists paths or addresses, one a line.
    Raises `InputError`, `MissingExtra`.
    """
    parts: list[Part] = []
    loose: list[tuple[str, str]] = []
    for argument in inputs:
        if argument.endswith(".parquet"):
            for group, size in enumerate(remote.groups(argument)):
                parts += [Part((), argument, group, i, min(PART, size - i)) for i in range(0, size, PART)]
        elif argument.endswith(".txt"):
            loose += [(line, "listed") for line in remote.lines(argument)]
        elif is_address(argument):
            loose += [(name, "address") for name in remote.addresses(argument)]
        else:
            loose += [(found.name, stamp(found)) for found in find_images([argument])]
    rest = iter(loose)
    while images := tuple(islice(rest, PART)):
        parts.append(Part(images))
    return parts


def fingerprint(parts: Sequence[Part]) -> str:
    """The sha256 over all parts."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def images_of(part: Part, base: str = "") -> Iterator[Found]:
    """The images of a part, read from where they are but for paths, which are read later, from the folder `base`."""
    if part.parquet:
        named: Iterable[tuple[str, Any]] = remote.rows(part.parquet, part.group)[part.first : part.first + part.rows]
    else:
        named = ((name, remote.source_of(name)) for name, _ in part.images)
    for name, source in named:
        try:
            content = remote.read(source)
            yield Found(name, os.path.join(base, content) if isinstance(content, str) else content)
        except InputError as error:
            yield Found(name, error)
