"""Comparing two dumps, tensor by tensor in graph order."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from npmobilenet.errors import InputError
from npmobilenet.golden.catalogue import Entry, catalogue
from npmobilenet.golden.compare import Comparison, Tolerance, compare
from npmobilenet.golden.diff_patterns import find_patterns
from npmobilenet.golden.dump import Dump
from npmobilenet.golden.dump_view import DumpView
from npmobilenet.golden.name_match import NameMap, read_map
from npmobilenet.golden.shape_match import ShapeMatch
from npmobilenet.model import Model
from npmobilenet.modeldata import Array

DumpPath = Dump | str | os.PathLike[str]


@dataclass
class TensorDiff:
    """One tensor of two dumps. `status`: "equal", "differs", "quantization", "shape" or "dtype" (then `problem`).

    `comparison` is None where the arrays could not be compared. `notes` say what was done to make them comparable,
    `hints` what the pattern of differences suggests.
    """

    entry: Entry
    status: str
    comparison: Comparison | None = None
    problem: str = ""
    notes: list[str] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The tensor's or tap's name."""
        return self.entry.name

    @property
    def equal(self) -> bool:
        """Whether nothing differs."""
        return self.status == "equal"


@dataclass
class Diff:
    """Two dumps compared: `rows` in graph order for all that both hold. `a` is what is right, if either is.

    `missing`: entries of the catalogue that one of them lacks. `left_over`: arrays that match nothing, by dump.
    """

    a: str
    b: str
    rows: list[TensorDiff]
    missing: list[str]
    left_over: dict[str, list[str]]
    notes: list[str]
    tolerance: Tolerance

    @property
    def equal(self) -> bool:
        """Whether nothing differs in what both hold."""
        return all(row.equal for row in self.rows)

    @property
    def first(self) -> TensorDiff | None:
        """The first diverging tensor in graph order."""
        return next((row for row in self.rows if not row.equal), None)

    @property
    def verdict(self) -> str:
        """One sentence: what diverges first, and whether its inputs still agreed."""
        first = self.first
        if first is None:
            return f"all {len(self.rows)} tensors are equal"
        text = f"first diverging: {first.name}" + (f" ({first.entry.op})" if first.entry.op else "")
        states = {row.name: row.equal for row in self.rows}
        if not first.entry.inputs:
            return text
        unseen = [name for name in first.entry.inputs if name not in states]
        if unseen:
            return f"{text}; its input {unseen[0]} is not in both dumps, so the fault lies in it or before it"
        return f"{text}; its inputs agree, so the fault lies in this node"

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        first = self.first
        return {
            "a": self.a,
            "b": self.b,
            "equal": self.equal,
            "verdict": self.verdict,
            "first": None if first is None else first.name,
            "compared": len(self.rows),
            "differing": sum(not row.equal for row in self.rows),
            "missing": self.missing,
            "left_over": self.left_over,
            "notes": self.notes,
            "tolerance": {"lsb": self.tolerance.lsb, "ulp": self.tolerance.ulp, "atol": self.tolerance.atol},
            "tensors": [_row_to_dict(row) for row in self.rows],
        }


def _row_to_dict(row: TensorDiff) -> dict[str, Any]:
    c = row.comparison
    data: dict[str, Any] = {
        "name": row.name, "op": row.entry.op, "source": row.entry.source, "shape": list(row.entry.shape),
        "dtype": row.entry.dtype, "status": row.status, "problem": row.problem, "notes": row.notes, "hints": row.hints,
    }  # fmt: skip
    if c is not None:
        data |= {
            "total": c.total, "differing": c.count, "unit": c.unit,
            "largest": c.largest, "largest_abs": c.largest_abs,
            "first_index": c.first and list(c.first), "first_values": _numbers(c.first_values),
            "worst_index": c.worst and list(c.worst), "worst_values": _numbers(c.worst_values),
            "histogram": c.histogram,
        }  # fmt: skip
    return data


def _numbers(pair: tuple[float, float] | None) -> list[float | str] | None:
    """JSON has no NaN and no infinity: these are texts."""
    return None if pair is None else [v if math.isfinite(v) else str(v) for v in pair]


def diff(
    a: DumpPath,
    b: DumpPath,
    *,
    names: NameMap | str | os.PathLike[str] | None = None,
    model: Model | None = None,
    layout: str = "auto",
    tolerance: Tolerance | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Diff:
    """Compare two dumps; `a` is the one to go by. Either may be foreign, as `Dump` reads it.

    `names` maps the foreign dump's names to ours (a dict, or the path of a .json or .csv file). The order and the
    quantization come from the manifest of `a` or else `b`, or from `model` if given. `layout` is the foreign arrays'
    of rank 4: "nhwc", "nchw", or "auto", which looks at the shapes.

    Raises `InputError` for dumps that can't be read or have nothing in common.
    """
    one, other = (d if isinstance(d, Dump) else Dump(d) for d in (a, b))
    tolerance = tolerance or Tolerance()
    known = _known(one, other, model)
    mapping = read_map(names)
    sides = [DumpView(dump, known, mapping, layout) for dump in (one, other)]
    notes = [note for side, letter in zip(sides, "AB", strict=True) for note in side.notes(letter)]
    if one.manifest and other.manifest:
        notes += _manifest_notes(one, other)
    rows = []
    shared = [entry for entry in known if all(entry.name in side.files for side in sides)]
    if not shared:
        raise InputError(f"'{one.path}' and '{other.path}' have no tensor in common")
    for entry in shared:
        rows.append(_compare(entry, sides, tolerance))
        if progress is not None:
            progress(len(rows), len(shared))
    missing = [entry.name for entry in known if not all(entry.name in side.files for side in sides)]
    left_over = {letter: list(side.left_over) for side, letter in zip(sides, "AB", strict=True)}
    return Diff(str(one.path), str(other.path), rows, missing, left_over, notes, tolerance)


def _known(one: Dump, other: Dump, model: Model | None) -> list[Entry]:
    """The catalogue to match against; without manifest and model, the names that both have, in natural order."""
    if model is not None:
        return catalogue(model.graph)
    for dump in (one, other):
        if dump.manifest is not None:
            return dump.entries
    shared = sorted(set(one.files) & set(other.files), key=_natural)
    found = []
    for name in shared:
        array = one.read(name)
        found.append(Entry(name, array.shape, str(array.dtype)))
    return found


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Sorts "t9" before "t10"."""
    digits, parts = "", []
    for character in [*name, "\0"]:
        if character.isdecimal() and character.isascii():
            digits += character
            continue
        if digits:
            parts.append((0, int(digits), ""))
            digits = ""
        parts.append((1, 0, character))
    return parts


def _compare(entry: Entry, sides: Sequence[DumpView], tolerance: Tolerance) -> TensorDiff:
    reference, notes_a = sides[0].read(entry)
    other, notes_b = sides[1].read(entry)
    notes = [f"A: {n}" for n in notes_a] + [f"B: {n}" for n in notes_b]
    shape = (_batch(reference, other, entry), *entry.shape[1:]) if entry.shape else ()
    pair: list[ShapeMatch] = []
    for side, letter, array in zip(sides, "AB", (reference, other), strict=True):
        fitted = side.fit(array, entry, shape)
        notes += [f"{letter}: {note}" for note in fitted.notes]
        if fitted.problem:
            return TensorDiff(entry, fitted.status, problem=f"{letter}: {fitted.problem}", notes=notes)
        pair.append(fitted)
    x, y = (fitted.array for fitted in pair)
    assert x is not None
    assert y is not None
    found = compare(x, y, tolerance)
    entry = replace(entry, shape=shape)
    if found.count:
        return TensorDiff(entry, "differs", found, "", notes, find_patterns(x, y, found, entry.quantization))
    problem = _quantization_problem(entry, sides)
    return TensorDiff(entry, "quantization" if problem else "equal", found, problem, notes)


def _batch(one: Array, other: Array, entry: Entry) -> int:
    """The batch size of what has a batch dimension."""
    rank = len(entry.shape)
    return next((array.shape[0] for array in (one, other) if array.ndim == rank), entry.shape[0])


def _quantization_problem(entry: Entry, sides: Sequence[DumpView]) -> str:
    both = [side.own[entry.name].quantization for side in sides if entry.name in side.own]
    if len(both) < 2 or both[0] == both[1]:
        return ""
    texts = ["none" if q is None else f"scale {q.scale[0]:.9g}, zero point {q.zero_point[0]}" for q in both]
    if texts[0] == texts[1]:
        texts = [f"{len(q.scale)} scales along axis {q.axis}" if q else "none" for q in both]
    return f"the same numbers mean something else: A has {texts[0]}, B {texts[1]}"


def _manifest_notes(one: Dump, other: Dump) -> list[str]:
    """Facts in which two recorded dumps differ."""
    assert one.manifest is not None
    assert other.manifest is not None
    notes = []
    for what, key in (("model", "model"), ("input", "input")):
        pair = [getattr(d.manifest, key).get("sha256", "") for d in (one, other)]
        if pair[0] != pair[1]:
            labels = [
                getattr(d.manifest, key).get("name") or getattr(d.manifest, key).get("source", "") for d in (one, other)
            ]
            notes.append(f"another {what}: A {labels[0]} ({pair[0][:12]}), B {labels[1]} ({pair[1][:12]})")
    if one.manifest.dialect != other.manifest.dialect:
        notes.append(f"another dialect: A {one.manifest.dialect}, B {other.manifest.dialect}")
    return notes
