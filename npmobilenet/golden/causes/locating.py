"""Where the fault of two compared dumps lies: the nodes it can be in, and dumps that were taken the wrong way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from npmobilenet.golden.dump import INPUT, Entry
from npmobilenet.modeldata import Array
from npmobilenet.runtime.taps import ACC, PRE

if TYPE_CHECKING:
    from npmobilenet.golden.diff_verdict import Diff, TensorDiff

BYTES = 16  # at the start of a buffer that are compared with other tensors
REUSED = 0.5  # of the inner tensors: how many differ in a dump of buffers that were used again
STANDING = 2  # tensors at least that hold a later one's values


class Arrays(Protocol):
    """Arrays by name."""

    def __getitem__(self, name: str, /) -> Array: ...


PRESERVE = (
    "B was taken from buffers that had been used again: take it with experimental_preserve_all_tensors=True (LiteRT: "
    "Interpreter(model_path, experimental_preserve_all_tensors=True), then invoke() and get_tensor(index)). Until then "
    "only what the model puts out, and the last user of each buffer, can be compared"
)


def locate(result: Diff, known: Sequence[Entry]) -> None:
    """Fill in where the first fault may lie, on which side of the accumulators, and what goes on rightly."""
    first = result.first
    if first is None:
        return
    states = {row.name: row.equal for row in result.rows}
    result.nodes = between(first, known, states)
    fed = {entry.name for entry in known if entry.op == INPUT and entry.name not in states}
    result.unfed = next((name for entry in result.nodes for name in entry.inputs if name in fed), "")
    result.side = side(first, states)
    result.users = goes_on_rightly(first, result.rows)


def between(first: TensorDiff, known: Sequence[Entry], states: Mapping[str, bool]) -> list[Entry]:
    """The nodes that the fault may lie in: from the tensors before it that were compared (and agree) to the first that
    differs, in graph order. A model's input that isn't there is taken for right.
    """
    by_name = {entry.name: entry for entry in known}
    found: set[str] = set()
    front = [first.entry.tensor]
    while front:
        entry = by_name.get(front.pop())
        if entry is None or entry.op == INPUT or entry.name in found:
            continue
        found.add(entry.name)
        front += [name for name in entry.inputs if name not in states]
    return [entry for entry in known if entry.name in found]


def side(first: TensorDiff, states: Mapping[str, bool]) -> str:
    """On which side of its accumulators a node's fault lies, where a dump has them."""
    prefix, tensor = first.entry.prefix, first.entry.tensor
    if prefix == ACC:
        return "its accumulators differ, so the fault lies before them: input, padding, weights or bias"
    if states.get(PRE + tensor) and prefix != PRE:
        return "its values before the clamp agree, so the fault lies in the clamp of its activation or type"
    if states.get(ACC + tensor):
        return "its accumulators agree, so the fault lies behind them: multiplier, shift, rounding, zero point or clamp"
    return ""


def goes_on_rightly(first: TensorDiff, rows: Sequence[TensorDiff]) -> list[str]:
    """The tensors computed from the first diverging one, if all of them agree."""
    users = [row for row in rows if first.entry.tensor in row.entry.inputs and not row.entry.prefix]
    return [row.name for row in users] if users and all(row.equal for row in users) else []


def taken_too_late(result: Diff, ours: Arrays, theirs: Arrays) -> bool:
    """Whether most tensors hold what a runtime put into their buffers later.

    Then most differ, values of later tensors stand in earlier ones, and what the model puts out agrees.
    """
    plain = [row for row in result.rows if not row.entry.prefix and row.comparison is not None]
    inner = [row for row in plain if row.entry.op != INPUT]
    if len(inner) < 4:
        return False
    read = {name for row in plain for name in row.entry.inputs}
    ends = [row for row in inner if row.name not in read]
    middle = [row for row in inner if row.name in read]
    odd = [row for row in middle if not row.equal]
    if len(odd) < REUSED * len(middle):
        return False
    standing = _standing(odd, plain, ours, theirs)
    return standing >= STANDING and (all(row.equal for row in ends) or standing >= REUSED * len(odd))


def _standing(odd: Sequence[TensorDiff], plain: Sequence[TensorDiff], ours: Arrays, theirs: Arrays) -> int:
    """How many tensors begin with the right values of a later one."""
    place = {row.name: i for i, row in enumerate(plain)}
    starts: dict[bytes, int] = {}
    for row in plain:
        head = _head(ours[row.name])
        if len(set(head)) > BYTES // 4:  # and not a constant
            starts[head] = place[row.name]
    return sum(starts.get(_head(theirs[row.name]), -1) > place[row.name] for row in odd)


def _head(array: Array) -> bytes:
    flat = np.ascontiguousarray(array).reshape(-1)
    return flat[: BYTES // flat.itemsize].tobytes() if flat.nbytes >= BYTES else b""
