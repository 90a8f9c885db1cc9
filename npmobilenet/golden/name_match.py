"""Whose file is which tensor: the names of a foreign dump's files, matched to a catalogue of entries."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from npmobilenet.errors import InputError
from npmobilenet.golden.catalogue import Entry, sanitized
from npmobilenet.golden.dump import Dump

MAX_BYTES = 8 * 2**20
NameMap = Mapping[str, str]
_INDEX = re.compile(r"(?:#|t|tensor[_-]?|index[_-]?)?0*([0-9]+)", re.IGNORECASE)


@dataclass(frozen=True)
class NameMatch:
    """`files`: an entry's name to the name of the dump's array. `left_over`: the dump's arrays that match nothing."""

    files: Mapping[str, str]
    left_over: tuple[str, ...]


def read_map(source: NameMap | str | os.PathLike[str] | None) -> dict[str, str]:
    """A name map, theirs to ours: a dict, a .json file with one object, or a .csv file with two columns.

    A first row of a .csv file that reads "theirs,ours" is a heading. Raises `InputError`.
    """
    if source is None:
        return {}
    pairs = list(source.items()) if isinstance(source, Mapping) else _read_pairs(Path(source))
    for pair in pairs:
        if not all(isinstance(name, str) for name in pair):
            raise InputError(f"the name map holds {pair!r:.120}: expected two names, theirs and ours")
    found = dict(pairs)
    if len(found) < len(pairs):
        raise InputError("the name map lists one of their names twice")
    return found


def _read_pairs(path: Path) -> list[tuple[str, str]]:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES:,} bytes")
        text = data.decode("utf-8-sig")
        if path.suffix == ".csv":
            rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
            rows = rows[1:] if rows and [cell.strip().lower() for cell in rows[0]] == ["theirs", "ours"] else rows
            if any(len(row) != 2 for row in rows):
                raise ValueError("a row doesn't have two columns, theirs and ours")
            return [(row[0].strip(), row[1].strip()) for row in rows]
        found = json.loads(text, object_pairs_hook=list)
        if not isinstance(found, list) or any(not isinstance(p, tuple) for p in found):
            raise ValueError("expected one object, of their names to ours")
        return found
    except (OSError, ValueError, csv.Error, RecursionError) as error:
        raise InputError(
            f"'{path}' can't be read as a name map: {str(error)[:200]}; docs/golden.md shows one"
        ) from error


def match_names(dump: Dump, known: Sequence[Entry], names: NameMap) -> NameMatch:
    """Find each array's entry: by the map, or by what its file is called.

    Without an entry in the map, a file may be called as the entry is in a recorded dump; by the tensor's name, an
    endpoint's, or either one sanitized (any run of other characters than letters, digits, ".", "_" and "-" written as
    "_"); or by its index in the TFLite file: "12", "#12", "t12", "tensor_12". An accumulator's file has "acc:" or
    "acc_" in front or ".acc" behind, and "pre" alike.

    Raises `InputError` if nothing matches, two arrays match one entry, or the map names what isn't there.
    """
    finder = _Finder(known)
    files: dict[str, str] = {}
    left_over: list[str] = []
    absent = [name for name in names if name.removesuffix(".npy") not in dump.files]
    if absent:
        raise InputError(f"the name map speaks of '{absent[0]}', which is no array of '{dump.path}'")
    mapped = {theirs.removesuffix(".npy"): ours for theirs, ours in names.items()}
    own = {entry.file.removesuffix(".npy"): entry.name for entry in dump.entries}
    for stem in dump.files:
        name = finder.mapped(mapped[stem]) if stem in mapped else finder.find(own.get(stem, stem))
        if name is None:
            left_over.append(stem)
        elif name in files:
            raise InputError(
                f"'{dump.path}': '{files[name]}' and '{stem}' both stand for '{name}'; say which by a name map "
                "(--map), or delete the other"
            )
        else:
            files[name] = stem
    if not files:
        raise InputError(
            f"none of the {len(dump.files)} arrays of '{dump.path}' ({', '.join(list(dump.files)[:3])}, ...) has the "
            f"name of a tensor ({', '.join(e.name for e in list(known)[:3])}, ...): write a name map (--map names.json "
            'with {"theirs": "ours", ...}), or name the files by TFLite tensor index'
        )
    return NameMatch(files, tuple(left_over))


class _Finder:
    """Entries by all the names that they may be called."""

    def __init__(self, known: Sequence[Entry]) -> None:
        self._exact: dict[str, str] = {}
        self._index: dict[str, str] = {}
        self._loose: dict[str, str | None] = {}  # None: two entries would have that name
        for entry in known:
            self._exact[entry.name] = entry.name
        for entry in known:
            for alias in (entry.source, *entry.aliases, entry.file.removesuffix(".npy")):
                if alias:
                    self._exact.setdefault(alias, entry.name)
            bare = entry.source.removeprefix(entry.prefix)
            if bare.startswith("#"):
                self._index.setdefault(entry.prefix + bare[1:], entry.name)
            for spelling in {sanitized(n.removeprefix(entry.prefix)) for n in (entry.name, *entry.aliases)}:
                for form in _forms(spelling, entry.prefix):
                    same = self._loose.get(form, entry.name) == entry.name
                    self._loose[form] = entry.name if same else None

    def find(self, stem: str) -> str | None:
        """The entry for a file's name, or None."""
        if stem in self._exact:
            return self._exact[stem]
        loose = self._loose.get(stem, self._loose.get(sanitized(stem)))
        if loose is not None:
            return loose
        for prefix in ("acc:", "pre:", ""):
            for form in _stripped(stem, prefix):
                digits = _INDEX.fullmatch(form)
                if digits:
                    return self._index.get(prefix + digits[1])
        return None

    def mapped(self, ours: str) -> str:
        """The entry that the map names."""
        found = self.find(ours)
        if found is None:
            raise InputError(
                f"the name map says '{ours}', which is no tensor here; `npmobilenet info --layers` lists them"
            )
        return found


def _forms(spelling: str, prefix: str) -> Iterable[str]:
    """The ways in which a file may spell a name with a prefix."""
    if not prefix:
        return (spelling,)
    word = prefix[:-1]
    return tuple(form.format(spelling, word) for form in ("{0}.{1}", "{1}_{0}", "{1}.{0}"))


def _stripped(stem: str, prefix: str) -> list[str]:
    """What remains of a file's name without the mark of an accumulator or pre-activation; none if it has no mark."""
    if not prefix:
        return [stem]
    word = prefix[:-1]
    heads = [stem[len(word) + 1 :] for mark in ":_." if stem.startswith(word + mark)]
    return heads + ([stem.removesuffix(f".{word}")] if stem.endswith(f".{word}") else [])
