"""Whose arithmetic a dump follows, tensor by tensor.

Each node is run alone, under every dialect, from the dump's own values, and compared with the dump's result: so an
early divergence doesn't spoil what comes after it. Where a dump lacks a node's inputs, the nodes between are run too.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from npmobilenet.arithmetic.dialects import DIALECTS
from npmobilenet.errors import InputError, NpMobilenetError, short_name
from npmobilenet.golden.comparing import compare
from npmobilenet.golden.diff_verdict import Comparison
from npmobilenet.golden.dump import Entry, catalogue
from npmobilenet.golden.foreign_dumps import NameMap
from npmobilenet.golden.inputs import DumpPath, DumpView, ModelSource, data_of, model_facts, view_of
from npmobilenet.golden.likely_causes import find_cause, find_patterns
from npmobilenet.golden.single_node import STAGES, IsolatedNode, isolate, run
from npmobilenet.graph import Node
from npmobilenet.modeldata import Array, ModelData

FLOAT = "float32"  # what stands for the one arithmetic of float32 nodes


@dataclass
class Row:
    """One tensor (or tap) of the dump. `counts`: differing values under each dialect; `fits`: those with none.

    `note` says why it wasn't checked, or what it was computed from. `hints` and `cause` speak of what fits none.
    """

    entry: Entry
    total: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    note: str = ""
    hints: list[str] = field(default_factory=list)
    cause: str = ""
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
    def verdict(self) -> str:
        """One sentence."""
        odd = self.exceptions
        if not self.integers:
            return f"{len(self.checked) - len(odd)} of {len(self.checked)} float32 tensors have equal bits"
        telling = sum(row.telling for row in self.integers)
        if self.fits and not odd:
            which = f"{len(self.checked)} tensors, {telling} of which tell dialects apart"
            return f"follows {' and '.join(self.fits)}: {which}"
        shown = "; ".join(f"{short_name(row.name)}: {self._what(row)}" for row in odd[:3]) + (
            "; ..." if len(odd) > 3 else ""
        )
        count = sum(self.best in row.fits for row in self.integers)
        if count == 0:
            return f"follows no dialect: {shown}"
        return f"follows {self.best} in {count} of {len(self.integers)} tensors, but not in {shown}"

    @staticmethod
    def _what(row: Row) -> str:
        if row.fits:
            return f"it is {' or '.join(row.fits)} there"
        return row.cause or "no dialect fits"

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "model": self.model, "dump": self.dump, "verdict": self.verdict, "fits": self.fits,
            "best": self.best if self.integers else None, "notes": self.notes,
            "exceptions": [row.name for row in self.exceptions],
            "tensors": [
                {"name": row.name, "op": row.entry.op, "source": row.entry.source, "total": row.total,
                 "differing": row.counts, "fits": row.fits, "telling": row.telling, "note": row.note,
                 "largest": row.largest, "hints": row.hints, "cause": row.cause}
                for row in self.rows
            ],
        }  # fmt: skip


def identify(
    model: ModelSource,
    dump: DumpPath,
    *,
    names: NameMap | str | os.PathLike[str] | None = None,
    layout: str = "auto",
    progress: Callable[[int, int], object] | None = None,
) -> Identification:
    """Find the dialect that a dump follows. `names` and `layout` are for foreign dumps, as in `diff`.

    Raises `InputError` if the dump can't be read, has nothing in common with the model, or can't be checked at all.
    """
    data = data_of(model)
    values = view_of(data, dump, names, layout)
    other = _other_model(data, values)
    try:
        rows = _rows(data, values, progress)
    except InputError as error:
        raise InputError(f"'{values.dump.path}' {other}, so it says nothing of this one" if other else error) from error
    notes = values.notes("the dump")
    return Identification(
        data.info.name, str(values.dump.path), rows, [*notes, *([f"the dump {other}"] if other else [])]
    )


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
        chain = _chain(data, entry.tensor, values)
    except InputError as error:
        row.note = str(error)
        return row
    if len(chain) > 1:
        row.note = f"from {len(chain)} nodes: the dump lacks what lies between"
    integer = any(_isolated(data, node, {}).is_integer for node in chain)
    outputs: dict[str, tuple[IsolatedNode, Array]] = {}
    for dialect in DIALECTS if integer else [next(iter(DIALECTS))]:
        try:
            what, output = _compute(data, chain, values, dialect, STAGES[entry.prefix])
        except NpMobilenetError as error:
            row.note = row.note or str(error)
            continue
        if output.shape != found.shape:
            row.note = f"the dump's batch is {found.shape[0]}, its inputs give {output.shape[0]}"
            return row
        outputs[dialect] = what, output
        row.counts[dialect if integer else FLOAT] = compare(output, found).count
    if row.counts and not row.fits:
        _explain_misfit(row, outputs, found)
    return row


def _chain(data: ModelData, name: str, values: DumpView) -> list[Node]:
    """The nodes to run for a tensor, from what the dump has. Raises `InputError` if a graph's input is missing."""
    needed: set[str] = set()
    front = [name]
    while front:
        node = data.graph.producers.get(front.pop())
        if node is None:
            raise InputError("the model's input is missing, and nothing between it and this tensor is there")
        if node.name in needed:
            continue
        needed.add(node.name)
        front += [n for n in node.inputs if not data.graph.tensors[n].constant and n not in values]
    return [node for node in data.graph.nodes if node.name in needed]


def _isolated(data: ModelData, node: Node, values: Mapping[str, Array]) -> IsolatedNode:
    """The node with whatever values there are: for its tensors, not to be run."""
    empty = {n: values.get(n, np.zeros(0)) for n in node.inputs}
    return isolate(data, node, empty)


def _compute(
    data: ModelData, chain: list[Node], values: DumpView, dialect: str, stage: str
) -> tuple[IsolatedNode, Array]:
    """The last node of the chain, and what it gives."""
    done: dict[str, Array] = {}
    for node in chain:
        given = {n: done[n] if n in done else values[n] for n in node.inputs if not data.graph.tensors[n].constant}
        what = isolate(data, node, given)
        last = node is chain[-1]
        done[node.output] = run(what, dialect, stage=stage if last else "output")
    return what, done[chain[-1].output]


def _explain_misfit(row: Row, outputs: dict[str, tuple[IsolatedNode, Array]], found: Array) -> None:
    """Hints, from the dialect that comes nearest, and a cause where one can be proved."""
    nearest = min(outputs, key=lambda d: row.counts.get(d, row.counts.get(FLOAT, 0)))
    what, output = outputs[nearest]
    difference: Comparison = compare(output, found)
    row.largest = f"{difference.largest} {difference.unit}"
    row.hints = find_patterns(output, found, difference, row.entry.quantization)
    if what.is_integer and not row.note:
        row.cause = find_cause({d: pair[1] for d, pair in outputs.items()}, what, found, STAGES[row.entry.prefix])
