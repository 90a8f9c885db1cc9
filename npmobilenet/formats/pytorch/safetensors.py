"""`.safetensors`: the length of a header in 8 bytes, the header in JSON, then the tensors' bytes without gaps.

Source: huggingface/safetensors, README.md (Format) and safetensors/src/tensor.rs (read_metadata, validate).
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from npmobilenet.errors import ConversionError
from npmobilenet.formats.pytorch.values import DTYPES, MAX_TENSORS, TensorEntry, check_view, contiguous

MAX_HEADER = 16 * 2**20  # 100 bytes a tensor are usual


def read_safetensors(path: Path) -> dict[str, TensorEntry]:
    """The tensors of a file, by name. Nothing is read but the header; its offsets are checked against the file.

    Raises `ConversionError` for anything that the format forbids.
    """
    where = f"'{path.name}'"
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise ConversionError(
                f"{where}: its header is said to have {length:,} bytes and the file has {size:,}; it was cut short: "
                "fetch it again"
            )
        if length > MAX_HEADER:
            raise ConversionError(f"{where}: its header has {length:,} bytes, at most {MAX_HEADER:,} are read")
        header = _header(where, file.read(length))
    start, ends = 8 + length, 0
    found: dict[str, TensorEntry] = {}
    spans: list[tuple[int, int, str]] = []
    for name, facts in header.items():
        entry, begin, end = _entry(path, f"{where}: tensor {name[:80]!r}", facts, start)
        found[name] = entry
        spans.append((begin, end, name))
    for begin, end, name in sorted(spans):
        if begin != ends:
            raise ConversionError(
                f"{where}: tensor {name[:80]!r} begins at byte {begin} of the data, expected {ends}: tensors must "
                "follow each other without gaps; the file is damaged"
            )
        ends = end
    if ends != size - start:
        raise ConversionError(
            f"{where}: its tensors end at byte {ends} of {size - start}; the file is damaged or cut short"
        )
    return found


def _header(where: str, text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text, object_pairs_hook=_unique)
        if not isinstance(header, dict):
            raise TypeError(f"a {type(header).__name__} where an object is expected")
    except (ValueError, TypeError, RecursionError) as error:
        raise ConversionError(f"{where}: its header isn't that of safetensors: {str(error)[:200]}") from error
    header.pop("__metadata__", None)
    if len(header) > MAX_TENSORS:
        raise ConversionError(f"{where}: {len(header)} tensors, at most {MAX_TENSORS} are read")
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _entry(path: Path, what: str, facts: Any, start: int) -> tuple[TensorEntry, int, int]:
    try:
        dtype, shape, (begin, end) = facts["dtype"], tuple(facts["shape"]), facts["data_offsets"]
        numbers = (begin, end, *shape)
    except (TypeError, KeyError, ValueError) as error:
        raise ConversionError(f"{what}: expected dtype, shape and data_offsets, found {str(facts)[:120]}") from error
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ConversionError(f"{what}: dtype {str(dtype)[:20]!r}, expected one of {', '.join(DTYPES)}")
    if not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in numbers):
        raise ConversionError(f"{what}: shape and data_offsets {str(numbers)[:120]}, expected numbers of at least 0")
    count, width = math.prod(shape), np.dtype(DTYPES[dtype]).itemsize
    if end - begin != count * width:
        raise ConversionError(f"{what}: {count} values of {dtype} take {count * width} bytes, it has {end - begin}")
    check_view(what, dtype, shape, contiguous(shape), 0, count)

    def block() -> bytes:
        with path.open("rb") as file:
            file.seek(start + begin)
            return file.read(end - begin)

    return TensorEntry(dtype, shape, contiguous(shape), 0, count, block), begin, end
