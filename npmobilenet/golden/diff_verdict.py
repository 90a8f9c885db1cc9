"""What `diff` says: where and by how much dumps differ, the verdict in one sentence, the cause, JSON."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npmobilenet.errors import short_name
from npmobilenet.golden.causes.search import Finding
from npmobilenet.golden.dump import Entry

MOST_NAMED = 6  # nodes that the fault may lie in


@dataclass(frozen=True)
class Tolerance:
    """What passes for equal: `lsb` for integers; for floats `ulp` or `atol`, whichever is kinder. All 0: equal bits."""

    lsb: int = 0
    ulp: int = 0
    atol: float = 0.0


@dataclass
class Comparison:
    """The differences b - a of two arrays of equal shape and dtype.

    `count` of `total` elements differ (beyond the tolerance). `first` is the first of them in row-major order, `worst`
    the one of the largest difference; `largest` its size in `unit`, "LSB" or "ulp"; `largest_abs` the largest |b - a|
    as a number. `histogram` counts elements by difference. `where` counts differing elements along each axis, `plane`
    holds for each pixel the number of differing channels, summed over the batch (rank 4 only).
    """

    total: int
    unit: str
    count: int = 0
    first: tuple[int, ...] | None = None
    first_values: tuple[float, float] | None = None
    worst: tuple[int, ...] | None = None
    worst_values: tuple[float, float] | None = None
    largest: int = 0
    largest_abs: float = 0.0
    histogram: dict[str, int] = field(default_factory=dict)
    where: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    plane: NDArray[np.int64] | None = None

    @property
    def share(self) -> float:
        """The share of elements that differ."""
        return self.count / self.total if self.total else 0.0


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
    `nodes`: the tensors whose nodes the first fault may lie in, in graph order. `unfed`: an input of the model that
    these read and that isn't in both. `side`: on which side of the accumulators. `users`: the tensors computed from the
    first diverging one, where all of these agree. `taken`: how the dump should have been taken. `cause`: why the first
    diverges, where the model is known.
    """

    a: str
    b: str
    rows: list[TensorDiff]
    missing: list[str]
    left_over: dict[str, list[str]]
    notes: list[str]
    tolerance: Tolerance
    nodes: list[Entry] = field(default_factory=list)
    unfed: str = ""
    side: str = ""
    users: list[str] = field(default_factory=list)
    taken: str = ""
    cause: Finding | None = None

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
        text = f"first diverging: {short_name(first.name)}" + (f" ({first.entry.op})" if first.entry.op else "")
        if self.taken:
            return f"{text}; {self.taken}"
        parts = [text]
        if len(self.nodes) > 1:
            names = ", ".join(f"{short_name(e.name)} ({e.op})" for e in self.nodes[:MOST_NAMED])
            more = f", ... {short_name(self.nodes[-1].name)}" if len(self.nodes) > MOST_NAMED else ""
            parts.append(
                f"the fault lies in one of {len(self.nodes)} nodes ({names}{more}): what is between isn't in both dumps"
            )
        elif first.entry.inputs and not self.unfed:
            parts.append("its inputs agree, so the fault lies in this node")
        if self.unfed:
            parts.append(f"the model's input '{short_name(self.unfed)}' is not in both dumps, so it may lie there, too")
        parts += [self.side] if self.side else []
        if self.users:
            parts.append(
                f"what is computed from it ({', '.join(map(short_name, self.users[:3]))}) agrees, so only what stands "
                "under its name differs: the device fuses another step with it, or wrote another tensor there"
            )
        return "; ".join(parts)

    @property
    def why(self) -> list[str]:
        """Sentences: the cause, if it is known; else what is wrong with the first tensor, and what its pattern says."""
        first = self.first
        if first is None or self.taken:
            return []
        if self.cause is not None and (self.cause.proved or self.cause.causes):
            return [self.cause.text]
        found = [first.problem] if first.problem else [] if self.cause is None else [self.cause.text]
        return [*found, *(f"looks like: {hint}" for hint in first.hints)]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        first = self.first
        return {
            "a": self.a,
            "b": self.b,
            "equal": self.equal,
            "verdict": self.verdict,
            "first": None if first is None else first.name,
            "nodes": [entry.name for entry in self.nodes],
            "why": self.why,
            "cause": None if self.cause is None else self.cause.to_dict(),
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
            "first_index": c.first and list(c.first), "first_values": _json_numbers(c.first_values),
            "worst_index": c.worst and list(c.worst), "worst_values": _json_numbers(c.worst_values),
            "histogram": c.histogram,
        }  # fmt: skip
    return data


def _json_numbers(pair: tuple[float, float] | None) -> list[float | str] | None:
    """JSON has no NaN and no infinity: these are texts."""
    return None if pair is None else [v if math.isfinite(v) else str(v) for v in pair]
