"""The manifest of a recorded dump: what was run, under which arithmetic, and what each file holds. JSON, schema 1."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from npmobilenet.errors import InputError
from npmobilenet.golden.catalogue import Entry, entry_from_json, entry_to_json

MANIFEST = "manifest.json"
FORMAT = "npmobilenet-golden"
SCHEMA = 1
MAX_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Manifest:
    """The facts of a dump.

    `model`: name, sha256 (of graph and weights, whatever file they came from), file and its own sha256. `input`: what
    was fed, and the sha256 of its bytes. `versions`: of npmobilenet, numpy, numba and python.
    """

    entries: tuple[Entry, ...]
    dialect: str
    kernels: str
    batch: int
    model: Mapping[str, str] = field(default_factory=dict)
    input: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)


def to_json(manifest: Manifest) -> bytes:
    """The manifest's text, a tensor in each line; equal manifests give equal bytes."""
    facts = {
        "format": FORMAT,
        "schema": SCHEMA,
        "model": dict(manifest.model),
        "input": dict(manifest.input),
        "dialect": manifest.dialect,
        "kernels": manifest.kernels,
        "batch": manifest.batch,
        "versions": dict(manifest.versions),
    }
    head = json.dumps(facts, indent=1, allow_nan=False).removesuffix("\n}")
    tensors = ",\n  ".join(json.dumps(entry_to_json(entry), allow_nan=False) for entry in manifest.entries)
    return f'{head},\n "tensors": [\n  {tensors}\n ]\n}}\n'.encode()


def from_json(text: bytes, where: str) -> Manifest:
    """Inverse of `to_json`. Raises `InputError`."""
    try:
        data = json.loads(text)
        if data["format"] != FORMAT:
            raise ValueError(f"its format is {data['format']!r:.80}, expected '{FORMAT}'")
        if data["schema"] != SCHEMA:
            raise ValueError(f"its schema is {data['schema']!r:.80}, and this version reads {SCHEMA}")
        entries = tuple(entry_from_json(entry) for entry in data["tensors"])
        manifest = Manifest(
            entries,
            _text(data["dialect"]),
            _text(data["kernels"]),
            int(data["batch"]),
            *(_texts(data[key]) for key in ("model", "input", "versions")),
        )
        _check(manifest)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, OverflowError) as error:
        raise InputError(
            f"'{where}' is not a manifest of a golden dump: {type(error).__name__}: {str(error)[:300]}; record the "
            "dump anew, or rename that file if the dump is someone else's"
        ) from error
    return manifest


def _check(manifest: Manifest) -> None:
    """Files are plain names inside the dump, names and files unique, scales finite and positive."""
    for what in ("name", "file"):
        values = [getattr(entry, what) for entry in manifest.entries]
        if len(set(values)) < len(values):
            raise ValueError(f"two tensors have the same {what}")
    for entry in manifest.entries:
        if not entry.file.endswith(".npy") or set("/\\:\0") & set(entry.file) or entry.file.startswith("."):
            raise ValueError(f"'{entry.file[:80]}' is not the name of a .npy file inside the dump")
        q = entry.quantization
        if q is not None and not all(math.isfinite(s) and s > 0 for s in q.scale):
            raise ValueError(f"'{entry.name[:80]}' has a scale that isn't a positive number")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.80} where a text is expected")
    return value


def _texts(value: Any) -> dict[str, str]:
    return {_text(k): _text(v) for k, v in value.items()}
