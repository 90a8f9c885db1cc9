"""From a model and a dump's values to cases: which nodes may have the fault, what they read, what lies beside them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from npmobilenet.arithmetic.dialects import DIALECTS
from npmobilenet.errors import InputError, NpMobilenetError
from npmobilenet.golden.causes.case import Case, requant_of
from npmobilenet.golden.causes.search import SECONDS, Finding, find_cause
from npmobilenet.golden.causes.table import BEHIND
from npmobilenet.golden.dump import Entry
from npmobilenet.golden.single_node import STAGES, IsolatedNode, isolate, run, steps
from npmobilenet.graph import Node, Tensor
from npmobilenet.modeldata import Array, ModelData
from npmobilenet.runtime.taps import ACC, ACCUMULATING

NEAR = 16  # tensors before a node whose values may stand in its buffers
BESIDE = 3  # nodes on each side whose constants may stand in place of a node's own
BEHIND_NODES = 3  # nodes behind one whose values may already stand in its dump
MOST_NODES = 8  # of a part that a dump has nothing of


class Values(Protocol):
    """Values by the model's names; `get` is None for what isn't there."""

    def __contains__(self, name: str) -> bool: ...

    def __getitem__(self, name: str) -> Array: ...


def chain_of(data: ModelData, name: str, values: Values) -> list[Node]:
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


def run_chain(
    data: ModelData,
    chain: list[Node],
    values: Values,
    dialect: str,
    stage: str,
    done: Mapping[str, Array] | None = None,
) -> tuple[IsolatedNode, dict[str, Array]]:
    """The last node of a chain, and what all of them give; `done` are values that are there already."""
    found = dict(done or {})
    what: IsolatedNode | None = None
    for node in chain:
        given = {n: found[n] if n in found else values[n] for n in node.inputs if not data.graph.tensors[n].constant}
        what = isolate(data, node, given)
        found[node.output] = run(what, dialect, stage=stage if node is chain[-1] else "output")
    assert what is not None
    return what, found


def cause_of(
    data: ModelData, entry: Entry, found: Array, values: Values, dialect: str, seconds: float = SECONDS
) -> Finding:  # fmt: skip
    """Why an entry's values in a dump, `found`, aren't what the model gives from the dump's values before it.

    Where the dump lacks what lies between, every node of that part is tried. If nothing explains everything under the
    dialect, a fault under another one is looked for. Raises `InputError` where the node can't be computed.
    """
    end = time.monotonic() + seconds
    chain = chain_of(data, entry.tensor, values)
    best: Finding | None = None
    tried: list[object] = []
    for name in (dialect, *(d for d in DIALECTS if d != dialect)):
        try:
            if len(chain) == 1:
                given = _given(run_chain(data, chain, values, name, "output")[0], name)
                if given in tried:  # the same search as before
                    continue
                tried.append(given)
            finding = _under(data, entry, found, values, name, chain, end - time.monotonic())
        except NpMobilenetError:
            if name == dialect and best is None and not _is_integer(data, chain):
                raise
            continue
        if best is None:
            best = finding
        if finding.causes or end - time.monotonic() < seconds / 4:
            best = finding if finding.causes else best
            break
        if not _is_integer(data, chain) or len(chain) > 1:
            break
    if best is None:
        raise InputError(f"'{entry.name}' can't be computed under any dialect")
    if best.causes and best.dialect != dialect:
        best.causes = [replace(c, text=f"{c.text}, under {best.dialect}") for c in best.causes]
    return best


def _given(what: IsolatedNode, dialect: str) -> object:
    """What a node's kernels are given under a dialect: equal for dialects that can't be told apart there."""

    def plain(value: object) -> object:
        if isinstance(value, np.ndarray):
            return value.shape, value.dtype.str, value.tobytes()
        return tuple(plain(v) for v in value) if isinstance(value, tuple) else value

    calls, _ = steps(what, dialect, "python")
    return [(step.kernel.__name__, plain(step.args)) for step in calls]


def _is_integer(data: ModelData, chain: list[Node]) -> bool:
    return any(data.graph.tensors[n].dtype != "float32" for node in chain for n in (*node.inputs, node.output))


def _under(
    data: ModelData, entry: Entry, found: Array, values: Values, dialect: str, chain: list[Node], seconds: float
) -> Finding:  # fmt: skip
    """The search under one dialect, over the nodes of the chain."""
    stage = STAGES[entry.prefix]
    _, done = run_chain(data, chain, values, dialect, stage)
    if len(chain) == 1:
        node = chain[0]
        case = case_of(data, node, found, values, dialect, stage)
        side = ""
        if entry.prefix != ACC and ACC + entry.tensor in values and case.layered:
            side = BEHIND if np.array_equal(case.sums, values[ACC + entry.tensor]) else ""
        return find_cause(case, seconds, side)
    end, findings = time.monotonic() + seconds, []
    tail = chain[-MOST_NODES:]
    for i, node in enumerate(tail):
        last = node is chain[-1]
        known = _Layered(done if last else {k: v for k, v in done.items() if k != chain[-1].output}, values)
        case = case_of(data, node, found, known, dialect, stage if last else "output")
        case.finish = None if last else _rest(data, chain, node, known, dialect, stage)
        if i == len(tail) - 2 and stage == "output":
            reads = [n for n in chain[-1].inputs if not data.graph.tensors[n].constant]
            case.reader = isolate(data, chain[-1], {n: done[n] if n in done else values[n] for n in reads})
            case.position = chain[-1].inputs.index(node.output) if node.output in reads else -1
            case.reader = case.reader if case.position >= 0 else None
        finding = find_cause(case, max((end - time.monotonic()) / (len(tail) - i), 1.0))
        finding.node = node.output
        findings.append(finding)
    good = [f for f in findings if f.causes]
    if not good:
        return findings[-1]
    for other in good[1:]:
        good[0].causes += [replace(c, text=f"in '{other.node}', {c.text}", kind=f"{c.kind} of '{other.node}'")
                           for c in other.causes]  # fmt: skip
    return good[0]


def _rest(
    data: ModelData, chain: list[Node], node: Node, values: Values, dialect: str, stage: str
) -> Callable[[Array], Array]:  # fmt: skip
    """From a node's output to the last of the chain."""
    place = chain.index(node)
    changed = {node.output}
    after = []
    for other in chain[place + 1 :]:
        if changed & set(other.inputs):
            changed.add(other.output)
            after.append(other)

    def finish(output: Array) -> Array:
        _, found = run_chain(data, after, values, dialect, stage, {node.output: output})
        return found[chain[-1].output]

    return finish


class _Layered:
    """Values that were computed, before those of the dump."""

    def __init__(self, first: Mapping[str, Array], rest: Values) -> None:
        self.first, self.rest = first, rest

    def __contains__(self, name: str) -> bool:
        return name in self.first or name in self.rest

    def __getitem__(self, name: str) -> Array:
        return self.first[name] if name in self.first else self.rest[name]


class Fed:
    """A dump's values, and the model's inputs from another dump where it lacks them."""

    def __init__(self, dump: Values, other: Values, inputs: Sequence[str]) -> None:
        self.dump, self.other, self.inputs = dump, other, inputs

    def __contains__(self, name: str) -> bool:
        return name in self.dump or (name in self.inputs and name in self.other)

    def __getitem__(self, name: str) -> Array:
        return self.dump[name] if name in self.dump else self.other[name]


def case_of(data: ModelData, node: Node, found: Array, values: Values, dialect: str, stage: str) -> Case:
    """A node with what it reads in the dump, and what lies beside it."""
    tensors = data.graph.tensors
    given = {n: values[n] for n in node.inputs if not tensors[n].constant}
    what = isolate(data, node, given)
    place = next(i for i, n in enumerate(data.graph.nodes) if n.name == node.name)
    before = [*data.graph.inputs, *(n.output for n in data.graph.nodes[:place])][-NEAR:][::-1]
    others = {n: values[n] for n in before if n in values}
    constants: dict[str, list[Array]] = {}
    rescalings: dict[str, tuple[Array, Array]] = {}
    for other in data.graph.nodes[max(place - BESIDE, 0) : place + BESIDE + 1]:
        if other.name != node.name and other.op in ACCUMULATING and what.accumulates:
            arrays = [data.tensors[n] for n in other.inputs if tensors[n].constant]
            if arrays:
                constants[other.output] = arrays
                rescalings |= _rescaling(data, other, dialect)
    case = Case(what, found, dialect, stage, others, {}, constants, rescalings)
    if stage == "output":
        case.later = _behind(data, node, case.ours, values, dialect)
    return case


def _rescaling(data: ModelData, node: Node, dialect: str) -> dict[str, tuple[Array, Array]]:
    """Multipliers and shifts of a layer in 8 bits, by its name."""
    operands = tuple(data.graph.tensors[n] for n in node.inputs)
    what = IsolatedNode(node, operands, (), data.graph.tensors[node.output])
    if len(operands) < 3 or not {t.dtype for t in (*operands[:2], what.result)} <= {"int8", "uint8"}:
        return {}
    try:
        r = requant_of(what, dialect, "output")
    except NpMobilenetError:
        return {}
    return {node.output: (np.asarray(r.multiplier, np.int64), np.asarray(r.shift, np.int64))}


def _behind(data: ModelData, node: Node, ours: Array, values: Values, dialect: str) -> dict[str, Array]:
    """What the next nodes give for the right values of this one."""
    done = {node.output: ours}
    place = next(i for i, n in enumerate(data.graph.nodes) if n.name == node.name)
    for other in data.graph.nodes[place + 1 : place + 1 + 2 * BEHIND_NODES]:
        computed = [n for n in other.inputs if not data.graph.tensors[n].constant]
        if not done.keys() & set(computed) or not all(n in done or n in values for n in computed):
            continue
        try:
            _, found = run_chain(data, [other], values, dialect, "output", done)
        except NpMobilenetError:
            continue
        done[other.output] = found[other.output]
        if len(done) > BEHIND_NODES:
            break
    del done[node.output]
    return done


def cause_of_input(tensor: Tensor, right: Array, found: Array, seconds: float = SECONDS) -> Finding:
    """Why a model's input isn't the right one: its values moved, or in other places."""
    node = Node("input", "reshape", (tensor.name,), tensor.name, {"shape": tensor.shape})
    what = IsolatedNode(node, (tensor,), (right,), tensor)
    return find_cause(Case(what, found, next(iter(DIALECTS))), seconds)
