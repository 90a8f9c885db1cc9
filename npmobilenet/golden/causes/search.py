"""Trying the hypotheses on a case, and what came of it in words."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from npmobilenet.errors import NpMobilenetError
from npmobilenet.golden.causes.case import Case, Change
from npmobilenet.golden.causes.table import BEFORE, BEHIND, ROWS, Row
from npmobilenet.modeldata import Array

SECONDS = 60.0  # for one node
CLOSE = 1e-4  # of max(1, the largest value): what two float32 engines may differ by (docs/exactness.md)
SHOWN = 8  # kinds of hypotheses that explain everything
OF_ONE_KIND = 4  # hypotheses of a kind that are shown
PARTIAL = 3  # hypotheses whose share is computed over the whole layer if none explains everything
SINGLE = "single number"
FEW_VALUES = 32  # that single numbers explain where another cause may as well
JOINT = re.compile(" and (any of|bit|its) ")  # one for each channel
LEAST = 0.5  # of the differing values: what a partial explanation has to explain


@dataclass(frozen=True)
class Hypothesis:
    """One that was computed whole: `explained` of the differing values, `spoiled` of those that agreed."""

    kind: str
    text: str
    explained: int
    spoiled: int


@dataclass
class Finding:
    """What the search for a cause came to. `causes` explain everything; `partly` the best of the others.

    `differing` of `total` values are wrong; `tried` hypotheses; `left_out`: the kinds that time didn't suffice
    for.
    """

    dialect: str
    differing: int
    total: int
    causes: list[Hypothesis] = field(default_factory=list)
    partly: list[Hypothesis] = field(default_factory=list)
    tried: int = 0
    left_out: list[str] = field(default_factory=list)
    seconds: float = 0.0
    node: str = ""  # where several nodes could have it

    @property
    def proved(self) -> bool:
        """Whether a cause is named: one explains all values, and more than one value differs."""
        return bool(self.causes) and self.differing > 1

    @property
    def text(self) -> str:
        """A sentence; empty if there is nothing to say."""
        where = f"in '{self.node}', " if self.node else ""
        if self.proved:
            first, *others = _grouped(self.causes)
            text = f"{where}{first}: explains all {self.total:,} values, {self.differing:,} of which differ"
            if others:
                shown = "; ".join(others[: SHOWN - 1]) + (
                    f"; or {len(others) + 1 - SHOWN} more kinds" if len(others) >= SHOWN else ""
                )
                text += f". The same values come out if {shown}"
            return text + self._unfinished
        if self.causes:
            return (
                f"one value alone differs, which proves no cause; {where}it would come out of: "
                + "; or ".join(_grouped(self.causes)[:SHOWN]) + ". More inputs would tell them apart"
            )  # fmt: skip
        if self.partly:
            best = self.partly[0]
            but = f", but spoils {best.spoiled:,} that agree" if best.spoiled else ""
            return (
                f"no cause found: none of {self.tried:,} hypotheses explains everything. The nearest, not proved: "
                f"{where}{best.text} would explain {best.explained:,} of {self.differing:,} differing values{but}"
                f"{self._unfinished}"
            )
        return f"no cause found: none of {self.tried:,} hypotheses explains half of what differs{self._unfinished}"

    @property
    def _unfinished(self) -> str:
        if not self.left_out:
            return ""
        return f" ({self.seconds:.0f} s were up: not tried: {', '.join(self.left_out)})"

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        lists = {key: [vars(h) for h in getattr(self, key)] for key in ("causes", "partly")}
        return {
            "text": self.text, "proved": self.proved, "dialect": self.dialect, "node": self.node,
            "differing": self.differing, "total": self.total, **lists, "tried": self.tried, "left_out": self.left_out,
        }  # fmt: skip


def _grouped(causes: list[Hypothesis]) -> list[str]:
    """A text for each kind; where several of a kind give the same values, the first, their number and the last."""
    kinds: dict[str, list[str]] = {}
    for cause in causes:
        kinds.setdefault(cause.kind, []).append(cause.text)
    texts = []
    for said in kinds.values():
        if len(said) <= OF_ONE_KIND:
            texts.append(", or ".join(said))
        else:
            shown = ", or ".join([*said[1 : OF_ONE_KIND - 1], said[-1]])
            rest = len(said) - OF_ONE_KIND
            texts.append(f"{said[0]} (or {shown}, or one of {rest} more of this kind that give the same)")
    return texts


def find_cause(case: Case, seconds: float = SECONDS, side: str = "") -> Finding:
    """Try all hypotheses on one node. `side`: "before" or "behind" the accumulators, if a tap has told which."""
    begin = time.monotonic()
    if case.ours.shape != case.found.shape and case.finish is None:
        return Finding(case.dialect, 0, 0)
    right = case.ours if case.finish is None else case.finish(case.ours)
    differing = int(np.count_nonzero(right != case.found)) if right.shape == case.found.shape else case.found.size
    finding = Finding(case.dialect, differing, case.found.size)
    shares: list[tuple[float, Row, Change]] = []
    for row in ROWS:
        if not _applies(row, case, side) or (row.last and finding.causes and not (row.beside and _few(finding))):
            continue
        if time.monotonic() - begin > seconds:
            finding.left_out.append(row.kind)
            continue
        try:
            for change in row.make(case):
                finding.tried += 1
                _try(case, row, change, finding, shares)
                if time.monotonic() - begin > seconds:
                    finding.left_out.append(f"{row.kind} (in part)")
                    break
        except (NpMobilenetError, AssertionError):  # a hypothesis that the node has no room for
            continue
    finding.causes.sort(
        key=lambda h: h.kind == SINGLE and bool(JOINT.search(h.text))
    )  # one cause before one for each channel
    if not finding.causes:
        for _, row, change in sorted(shares, key=lambda s: -s[0])[:PARTIAL]:
            _whole(case, row, change, finding)
        finding.partly = sorted(
            (h for h in finding.partly if h.explained - h.spoiled >= LEAST * differing),
            key=lambda h: h.spoiled - h.explained,
        )[:PARTIAL]
    finding.seconds = time.monotonic() - begin
    return finding


def _few(finding: Finding) -> bool:
    """Whether single numbers alone explain a few values: another step of the whole layer may do so, too."""
    return 1 < finding.differing < FEW_VALUES and all(c.kind == SINGLE for c in finding.causes)


def _applies(row: Row, case: Case, side: str) -> bool:
    if row.ops and case.what.node.op not in row.ops:
        return False
    if case.what.accumulates and row.ops and not case.layered:
        return False
    if case.stage == "accumulator" and row.side == BEHIND:
        return False
    return not (side == BEHIND and row.side == BEFORE)


def _try(case: Case, row: Row, change: Change, finding: Finding, shares: list[tuple[float, Row, Change]]) -> None:
    try:
        share = case.first_try(change)
    except NpMobilenetError:
        return
    if share is None or share == 1.0:
        _whole(case, row, change, finding)
    else:
        shares.append((share, row, change))
        shares.sort(key=lambda s: -s[0])
        del shares[PARTIAL:]


def _whole(case: Case, row: Row, change: Change, finding: Finding) -> None:
    try:
        values = case.whole(change)
    except NpMobilenetError:
        return
    if values.shape != case.found.shape:
        return
    good = _same(values, case.found)
    if good.all():
        finding.causes.append(Hypothesis(row.kind, change.text, finding.differing, 0))
    elif case.finish is None:
        explained, spoiled = int((good & case.wrong).sum()), int((~good & ~case.wrong).sum())
        finding.partly.append(Hypothesis(row.kind, change.text, explained, spoiled))


def _same(values: Array, found: Array) -> Array:
    """Equal integers, or floats as near as sums in another order come."""
    if found.dtype.kind != "f":
        return np.asarray(values == found)
    with np.errstate(all="ignore"):
        size = float(np.abs(found[np.isfinite(found)]).max(initial=1.0))
        return np.asarray(np.abs(values.astype(np.float64) - found) <= CLOSE * size)
