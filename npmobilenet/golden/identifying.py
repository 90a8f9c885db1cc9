"""Whose arithmetic a dump follows, tensor by tensor.

Each node is run alone, under every dialect, from the dump's own values, and compared with the dump's result: so an
early divergence doesn't spoil what comes after it. Where a dump lacks a node's inputs, the nodes between are run too.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from npmobilenet.arithmetic.dialects import DIALECTS
from npmobilenet.errors import InputError, NpMobilenetError, short_name
from npmobilenet.golden.causes.building import cause_of, chain_of, run_chain
from npmobilenet.golden.causes.patterns import find_patterns
from npmobilenet.golden.causes.search import SECONDS, Finding
from npmobilenet.golden.comparing import compare
from npmobilenet.golden.diff_verdict import Comparison
from npmobilenet.golden.dump import Entry, catalogue
from npmobilenet.golden.foreign_dumps import NameMap
from npmobilenet.golden.inputs import DumpPath, DumpView, ModelSource, data_of, model_facts, view_of
from npmobilenet.golden.single_node import STAGES
from npmobilenet.modeldata import Array, ModelData

ALIKE = 3  # exceptions of an op that are told as one
FLOAT = "float32"  # what stands for the one arithmetic of float32 nodes


@dataclass(eq=False)
class Row:
    """One tensor (or tap) of the dump. `counts`: differing values under each dialect; `fits`: those with none.

    `note` says why it wasn't checked, or what it was computed from. `hints`, `finding` and its text `cause` speak of
    what fits none.
    """

    entry: Entry
    total: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    note: str = ""
    hints: list[str] = field(default_factory=list)
    cause: str = ""
    finding: Finding | None = None
    largest: str = ""

    @property
    def name(self) -> str:
        """The tensor's or tap's name."""
        return self.entry.name

    @property
    def checked(self) -> bool:
        """Whether it could be computed."""
        return bool(self.counts)

    @property
    def fits(self) -> list[str]:
        """The dialects that give exactly the dump's values."""
        return [name for name, count in self.counts.items() if count == 0]

    @property
    def telling(self) -> bool:
        """Whether the dialects differ here, so that it tells them apart."""
        return len(set(self.counts.values())) > 1


@dataclass(frozen=True)
class Group:
    """Exceptions that are told together: one of them, or all of an op that follow the same dialects, `fits`.

    `of`: how many tensors of that op were checked.
    """

    rows: tuple[Row, ...]
    of: int
    fits: tuple[str, ...]

    @property
    def label(self) -> str:
        """Its tensor's name, or how many of which op: "all 13 depthwise_conv2d"."""
        entry = self.rows[0].entry
        if len(self.rows) == 1:
            return entry.name
        return f"{'all' if len(self.rows) == self.of else f'{len(self.rows)} of'} {self.of} {entry.prefix}{entry.op}"


@dataclass
class Identification:
    """What a dump follows. `rows` in graph order."""

    model: str
    dump: str
    rows: list[Row]
    notes: list[str]

    @property
    def checked(self) -> list[Row]:
        """The rows that could be computed."""
        return [row for row in self.rows if row.checked]

    @property
    def integers(self) -> list[Row]:
        """Those of integer nodes."""
        return [row for row in self.checked if FLOAT not in row.counts]

    @property
    def fits(self) -> list[str]:
        """The dialects that every integer tensor follows."""
        return [d for d in DIALECTS if self.integers and all(d in row.fits for row in self.integers)]

    @property
    def best(self) -> str:
        """The dialect that the most tensors follow; the first in the table's order of several."""
        return max(DIALECTS, key=lambda d: sum(d in row.fits for row in self.integers))

    @property
    def exceptions(self) -> list[Row]:
        """The tensors that don't follow `best`, and float ones that differ."""
        return [row for row in self.checked if (FLOAT if FLOAT in row.counts else self.best) not in row.fits]

    @property
    def groups(self) -> list[Group]:
        """The exceptions, those of an op that some dialect gives told together from three on.

        Those of the op that follow it as well, since the dialects agree there, are counted with them.
        """
        odd, found = self.exceptions, list[Group]()
        while odd:
            first = odd[0]
            kin = [r for r in self.checked if (r.entry.op, r.entry.prefix) == (first.entry.op, first.entry.prefix)]
            fits = first.fits
            for row in (row for row in kin if row in odd and row.fits):
                fits = [d for d in fits if d in row.fits] or fits
            alike = [row for row in kin if fits and set(fits) <= set(row.fits)]
            if sum(row in odd for row in alike) < ALIKE:
                alike, fits = [first], first.fits
            found.append(Group(tuple(alike), len(kin), tuple(fits)))
            odd = [row for row in odd if row not in alike]
        return found

    @property
    def verdict(self) -> str:
        """One sentence."""
        odd = self.exceptions
        if not self.integers:
            return f"{len(self.checked) - len(odd)} of {len(self.checked)} float32 tensors have equal bits"
        telling = sum(row.telling for row in self.integers)
        if self.fits and not odd:
            which = f"{len(self.checked)} tensors, {telling} of which tell dialects apart"
            return f"follows {' and '.join(DIALECTS[d].title for d in self.fits)}: {which}"
        groups = self.groups
        shown = "; ".join(f"{short_name(g.label)}: {self._what(g)}" for g in groups[:3]) + "; ..." * (len(groups) > 3)
        count = sum(self.best in row.fits for row in self.integers)
        if count == 0:
            return f"follows no dialect: {shown}"
        return f"follows {DIALECTS[self.best].title} in {count} of {len(self.integers)} tensors, but not in {shown}"

    @staticmethod
    def _what(group: Group) -> str:
        if group.fits:
            return f"it is {' or '.join(DIALECTS[d].title for d in group.fits)} there"
        return group.rows[0].cause or "no dialect fits"

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "model": self.model, "dump": self.dump, "verdict": self.verdict, "fits": self.fits,
            "best": self.best if self.integers else None, "notes": self.notes,
            "exceptions": [row.name for row in self.exceptions],
            "groups": [{"label": g.label, "tensors": [row.name for row in g.rows], "fits": list(g.fits)}
                       for g in self.groups],
            "tensors": [
                {"name": row.name, "op": row.entry.op, "source": row.entry.source, "total": row.total,
                 "differing": row.counts, "fits": row.fits, "telling": row.telling, "note": row.note,
                 "largest": row.largest, "hints": row.hints, "cause": row.cause,
                 "finding": None if row.finding is None else row.finding.to_dict()}
                for row in self.rows
            ],
        }  # fmt: skip


def identify(
    model: ModelSource,
    dump: DumpPath,
    *,
    names: NameMap | str | os.PathLike[str] | None = None,
    layout: str = "auto",
    seconds: float = SECONDS,
    progress: Callable[[int, int], object] | None = None,
) -> Identification:
    """Find the dialect that a dump follows, and causes of what no dialect gives, as far as `seconds` suffice.

    `names` and `layout` are for foreign dumps, as in `diff`.

    Raises `InputError` if the dump can't be read, has nothing in common with the model, or can't be checked at all.
    """
    data = data_of(model)
    values = view_of(data, dump, names, layout)
    settle_type(data, values)
    other = _other_model(data, values)
    try:
        rows = _rows(data, values, progress)
    except InputError as error:
        raise InputError(f"'{values.dump.path}' {other}, so it says nothing of this one" if other else error) from error
    notes = values.notes("the dump")
    found = Identification(
        data.info.name, str(values.dump.path), rows, [*notes, *([f"the dump {other}"] if other else [])]
    )
    _add_causes(data, found, values, seconds)
    return found


def settle_type(data: ModelData, values: DumpView) -> None:
    """Which way a dump of the other 8-bit type is meant: as its first nodes give what follows them."""

    def mistakes() -> float:
        for node in data.graph.nodes:
            if node.output in values and data.graph.tensors[node.output].dtype in ("int8", "uint8"):
                try:
                    chain = chain_of(data, node.output, values)
                    _, done = run_chain(data, chain, values, next(iter(DIALECTS)), "output")
                    found = values[node.output]
                except NpMobilenetError:
                    continue
                if found.shape == done[node.output].shape:
                    return float(np.mean(found != done[node.output]))
        return 0.0

    values.settle_type(mistakes)


def _other_model(data: ModelData, values: DumpView) -> str:
    """What to say of a dump whose manifest names another graph or other weights; "" of any other dump."""
    recorded = values.dump.manifest.model if values.dump.manifest is not None else {}
    if recorded.get("sha256", "") in ("", model_facts(data, None)["sha256"]):
        return ""
    return f"was recorded from another model, '{recorded.get('name', 'unknown')}', than '{data.info.name}'"


def _rows(data: ModelData, values: DumpView, progress: Callable[[int, int], object] | None) -> list[Row]:
    """One row for each tensor of the dump, computed by itself."""
    rows: list[Row] = []
    wanted = [entry for entry in catalogue(data.graph) if entry.name in values and entry.op != "input"]
    for entry in wanted:
        rows.append(_row(data, entry, values))
        if progress is not None:
            progress(len(rows), len(wanted))
    if not any(row.checked for row in rows):
        why = next((row.note for row in rows if row.note), "it holds the model's inputs only")
        raise InputError(f"'{values.dump.path}': none of its tensors can be checked: {why}")
    return rows


def _row(data: ModelData, entry: Entry, values: DumpView) -> Row:
    """Compute one tensor under each dialect and compare."""
    row = Row(entry)
    found = values[entry.name]
    row.total = found.size
    try:
        chain = chain_of(data, entry.tensor, values)
    except InputError as error:
        row.note = str(error)
        return row
    if len(chain) > 1:
        row.note = f"from {len(chain)} nodes: the dump lacks what lies between"
    tensors = data.graph.tensors
    integer = any(tensors[n].dtype != FLOAT for node in chain for n in (*node.inputs, node.output))
    outputs: dict[str, Array] = {}
    for dialect in DIALECTS if integer else [next(iter(DIALECTS))]:
        try:
            output = run_chain(data, chain, values, dialect, STAGES[entry.prefix])[1][chain[-1].output]
        except NpMobilenetError as error:
            row.note = row.note or str(error)
            continue
        if output.shape != found.shape:
            row.note = f"the dump's batch is {found.shape[0]}, its inputs give {output.shape[0]}"
            return row
        outputs[dialect] = output
        row.counts[dialect if integer else FLOAT] = compare(output, found).count
    if row.counts and not row.fits:
        _explain_misfit(row, outputs, found)
    return row


def _explain_misfit(row: Row, outputs: dict[str, Array], found: Array) -> None:
    """Hints, from the dialect that comes nearest."""
    nearest = min(outputs, key=lambda d: row.counts.get(d, row.counts.get(FLOAT, 0)))
    difference: Comparison = compare(outputs[nearest], found)
    row.largest = f"{difference.largest} {difference.unit}"
    row.hints = find_patterns(outputs[nearest], found, difference, row.entry.quantization)


def _add_causes(data: ModelData, found: Identification, values: DumpView, seconds: float) -> None:
    """Causes of the tensors that no dialect gives: of each node, what comes first of accumulators and output."""
    end = time.monotonic() + seconds
    seen: dict[str, str] = {}
    odd = [row for row in found.exceptions if not row.fits]
    for i, row in enumerate(odd):
        node = row.entry.tensor
        if node in seen:
            row.cause = seen[node] and f"see {seen[node]}"
            continue
        left = end - time.monotonic()
        if left <= 0:
            row.cause = f"{seconds:.0f} s were up before its cause was looked for"
            continue
        seen[node] = row.name
        finding = cause_of(data, row.entry, values[row.name], values, found.best, max(left / (len(odd) - i), 5.0))
        row.finding = finding
        row.cause = finding.text
