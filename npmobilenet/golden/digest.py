"""A digest: a short hash for every tensor of a run, and one for all, so that two machines are compared by a string.

The text, version 1: a line "npmobilenet-digest 1"; facts, "# key: value"; a line "HASH DTYPE SHAPE NAME" for each
tensor in graph order, the name as Python's unicode_escape has it; and "HASH all", the last. A tensor's HASH is the
first 16 hexadecimal digits of the sha256 of a line "DTYPE SHAPE DATA", where SHAPE is "1x28x28x16" and DATA the sha256
of its elements in C order, little-endian, which a recorded dump's manifest has, too. That of all is the first 32 digits
of the sha256 of all lines "HASH DTYPE SHAPE": names don't enter. Each line ends with a newline.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeGuard

from npmobilenet.errors import InputError
from npmobilenet.golden.causes.locating import locate
from npmobilenet.golden.diff_verdict import Diff, TensorDiff, Tolerance
from npmobilenet.golden.dump import MAX_BYTES, Dump, Entry, catalogue
from npmobilenet.golden.foreign_dumps import NameMap, read_map
from npmobilenet.golden.inputs import DumpView, little_endian, load_input, model_facts
from npmobilenet.golden.recording import EVERYTHING, choose, run_taps
from npmobilenet.images.inputs import Inputs
from npmobilenet.model import Model, load
from npmobilenet.modeldata import Array, ModelData

MAGIC = b"npmobilenet-digest "
VERSION = 1
_LINE = re.compile(r"([0-9a-f]{16}) ([a-z][a-z0-9]*) ([0-9]+(?:x[0-9]+)*|-) (.+)")


@dataclass(frozen=True)
class Digest:
    """The hashes of a run. `hashes`: by tensor or tap, in graph order; `entries` describe these."""

    entries: tuple[Entry, ...]
    hashes: Mapping[str, str]
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def total(self) -> str:
        """The hash of all."""
        lines = "".join(f"{self.hashes[e.name]} {e.dtype} {_shape(e.shape)}\n" for e in self.entries)
        return hashlib.sha256(lines.encode()).hexdigest()[:32]

    def __str__(self) -> str:
        """The text, as `read_digest` reads it."""
        lines = [f"{MAGIC.decode()}{VERSION}", *(f"# {key}: {_escaped(text)}" for key, text in self.facts.items())]
        lines += [f"{self.hashes[e.name]} {e.dtype} {_shape(e.shape)} {_escaped(e.name)}" for e in self.entries]
        return "\n".join([*lines, f"{self.total} all"])


def digest(
    model: Model | str | os.PathLike[str],
    x: Inputs | str | os.PathLike[str],
    taps: str | Iterable[str] = (),
    *,
    kernels: str = "fast",
    dialect: str = "tflite-reference",
    threads: int | None = None,
) -> Digest:
    """The digest of a run. `model` and `x` are as for `record`; `taps` too, but by default every tensor and no more.

    Raises `InputError`, `PlanError`, and what `load` raises.
    """
    path = None if isinstance(model, Model) else model
    engine = model if isinstance(model, Model) else load(model, kernels, dialect, threads)
    arrays, source = load_input(engine, x)
    batch = max(len(next(iter(arrays.values()))), 1)
    wanted = [taps] if isinstance(taps, str) else list(taps)
    chosen = choose(engine, EVERYTHING if wanted in ([], [EVERYTHING]) else wanted, batch)
    chosen = chosen if wanted else [entry for entry in chosen if not entry.prefix]
    entries = run_taps(engine, arrays, chosen, None, True, None)
    named = model_facts(engine.data, path)
    facts = {"model": f"{named['name']} {named['sha256'][:16]}", "input": f"{source['source']} {source['sha256'][:16]}"}
    facts["dialect"] = engine.dialect
    return Digest(entries, {entry.name: _hash(entry) for entry in entries}, facts)


def _hash(entry: Entry) -> str:
    return hashlib.sha256(f"{entry.dtype} {_shape(entry.shape)} {entry.sha256}\n".encode()).hexdigest()[:16]


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "-"


def _escaped(text: str) -> str:
    return text.encode("unicode_escape").decode("ascii")


# ---------------------------------------------------------------------------------------------------------------------
# Reading and comparing


def is_digest(path: Dump | str | os.PathLike[str]) -> TypeGuard[str | os.PathLike[str]]:
    """Whether a file begins as a digest does."""
    if isinstance(path, Dump):
        return False
    try:
        if not Path(path).is_file():
            return False
        with open(path, "rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except (OSError, ValueError):
        return False


def read_digest(path: str | os.PathLike[str]) -> Digest:
    """The digest in a file. Raises `InputError` if it can't be read, is of another version, or isn't whole."""
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES:,} bytes")
        head, *lines = data.decode("ascii").splitlines()
        if head.encode() != MAGIC + str(VERSION).encode():
            raise ValueError(f"its first line is '{head[:80]}', and this version reads '{MAGIC.decode()}{VERSION}'")
        return _parsed(lines)
    except OSError as error:
        raise InputError(f"'{path}' can't be read: {error.strerror or error}") from error
    except ValueError as error:
        raise InputError(
            f"'{path}' is no whole digest: {str(error)[:300]}; write it anew: npmobilenet golden digest "
            "MODEL INPUT > FILE"
        ) from error


def _parsed(lines: Sequence[str]) -> Digest:
    facts: dict[str, str] = {}
    entries: dict[str, Entry] = {}
    hashes: dict[str, str] = {}
    for number, line in enumerate(lines[:-1], 2):
        key, _, text = line.removeprefix("# ").partition(": ")
        if line.startswith("# "):
            facts[key] = text
            continue
        parts = _LINE.fullmatch(line)
        if parts is None:
            raise ValueError(f"line {number}: '{line[:80]}', expected HASH DTYPE SHAPE NAME")
        name = parts[4].encode("ascii").decode("unicode_escape")
        if name in entries:
            raise ValueError(f"line {number}: '{parts[4][:80]}' is listed twice")
        shape = () if parts[3] == "-" else tuple(int(d) for d in parts[3].split("x"))
        entries[name], hashes[name] = Entry(name, shape, parts[2]), parts[1]
    found = Digest(tuple(entries.values()), hashes, facts)
    if not entries or lines[-1] != f"{found.total} all":
        raise ValueError(f"its last line is '{lines[-1][:80] if lines else ''}', expected '{found.total} all'")
    return found


def diff_digests(
    a: Dump | str | os.PathLike[str], b: Dump | str | os.PathLike[str], *,
    names: NameMap | str | os.PathLike[str] | None = None, model: ModelData | None = None, layout: str = "auto",
    tolerance: Tolerance | None = None,
) -> Diff:  # fmt: skip
    """Compare two digests, or a digest and a dump: which tensors are equal, and no more. As `comparing.diff`."""
    if (tolerance or Tolerance()) != Tolerance():
        raise InputError(
            "a digest tells equal from unequal, not by how much: compare dumps (golden record) to tolerate"
        )
    sides = [read_digest(d) if is_digest(d) else d if isinstance(d, Dump) else Dump(d) for d in (a, b)]
    known = _known(sides, model)
    mapping = read_map(names)
    notes, found = [], []
    for side, letter in zip(sides, "AB", strict=True):
        if isinstance(side, Digest):
            notes.append(f"{letter} is a digest: a tensor is equal or not, by how much isn't known")
            found.append((dict(side.hashes), [n for n in side.hashes if n not in {e.name for e in known}]))
        else:
            view = DumpView(side, known, mapping, layout)
            notes += view.notes(letter)
            found.append(({e.name: _of_array(view, e) for e in known if e.name in view}, list(view.left_over)))
    pair = [_facts(side) for side in sides]
    notes += [f"another {key}: A {pair[0][key]}, B {pair[1][key]}" for key in pair[0]
              if pair[1].get(key, pair[0][key]) != pair[0][key]]  # fmt: skip
    (one, _), (other, _) = found
    rows = [TensorDiff(e, "equal" if one[e.name] == other[e.name] else "differs") for e in known
            if e.name in one and e.name in other]  # fmt: skip
    if not rows:
        raise InputError(f"'{a}' and '{b}' have no tensor in common")
    missing = [entry.name for entry in known if not (entry.name in one and entry.name in other)]
    left_over = {letter: left for (_, left), letter in zip(found, "AB", strict=True)}
    paths = [str(d.path) if isinstance(d, Dump) else os.fspath(d) for d in (a, b)]
    result = Diff(paths[0], paths[1], rows, missing, left_over, notes, Tolerance())
    locate(result, known)
    return result


def _known(sides: Sequence[Digest | Dump], model: ModelData | None) -> list[Entry]:
    """The tensors in order: with ops and inputs where a model or a manifest tells them, of a digest's shapes."""
    first = next(side for side in sides if isinstance(side, Digest))
    lines = {entry.name: entry for entry in first.entries}
    told = catalogue(model.graph) if model is not None else next((d.entries for d in sides if isinstance(d, Dump)), [])
    if not told:
        return list(lines.values())
    return [replace(e, shape=lines[e.name].shape, dtype=lines[e.name].dtype) for e in told if e.name in lines]


def _of_array(view: DumpView, entry: Entry) -> str:
    """The hash of a dump's array, in the entry's shape where it can be brought into it."""
    array, _ = view.read(entry)
    fitted = view.fit(array, entry, entry.shape)
    return _hash(_entry_of(entry, array if fitted.array is None else fitted.array))


def _entry_of(entry: Entry, array: Array) -> Entry:
    """The entry with the dtype, shape and sha256 of an array."""
    data = hashlib.sha256(little_endian(array)).hexdigest()
    return replace(entry, shape=array.shape, dtype=str(array.dtype), sha256=data)


def _facts(side: Digest | Dump) -> Mapping[str, str]:
    if isinstance(side, Digest):
        return side.facts
    manifest = side.manifest
    if manifest is None:
        return {}
    pairs = {"model": (manifest.model, "name"), "input": (manifest.input, "source")}
    facts = {what: f"{texts.get(key, '')} {texts.get('sha256', '')[:16]}" for what, (texts, key) in pairs.items()}
    return {**facts, "dialect": manifest.dialect}
