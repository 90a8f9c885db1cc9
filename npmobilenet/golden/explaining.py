"""One value taken apart: what it is computed from, step by step, under every dialect, and which of them gives V.

All arithmetic is the project's own: the node is cut down to the one element (nodes.py), run by the uncompiled
reference kernels, and its calls are watched (tracing.py).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from npmobilenet.arithmetic.dialects import DIALECTS, Dialect
from npmobilenet.arithmetic.fixedpoint import REQUANTIZATIONS, Requantization
from npmobilenet.errors import InputError, PlanError
from npmobilenet.golden.likely_bugs import LikelyBug, likely_bugs
from npmobilenet.golden.name_match import NameMap
from npmobilenet.golden.nodes import STAGES, VECTOR, IsolatedNode, check_index, crop, in_vector, isolate, run, steps
from npmobilenet.golden.products import Product, outside, products
from npmobilenet.golden.tracing import Trace, TracedCall, parameters, scalar, subtrees, traced, watch
from npmobilenet.golden.value_source import (
    DumpValues,
    ModelSource,
    ValueSource,
    data_of,
    find_tensor,
    is_dump,
    model_of,
    run_values,
)
from npmobilenet.graph import Node, Tensor
from npmobilenet.modeldata import Array
from npmobilenet.runtime.binding import Step
from npmobilenet.runtime.taps import ACC

Number = int | float
FLOAT = "float32"
POOLS = ("average_pool", "mean")
TABLES = ("activation", "quantize", "dequantize")  # computed for all 256 values when they read integers
BY_PLACE = ("run", "full", "split", "tail")  # parameters that say where in the layer a rule holds


@dataclass
class Derivation:
    """How some dialects (`dialects`, which agree in every step) get their value.

    `rule` and `source` come from the table of dialects. `parameters` are what the kernel is given; `trace` its calls.
    `note` says what to know of the element's place: whether it is one of a full vector.
    """

    dialects: list[str]
    rule: str
    source: str
    parameters: dict[str, Any]
    trace: Trace
    value: Number
    note: str = ""


@dataclass
class Explanation:
    """One value of a model. `value` is ours, under `dialect`; `got` the value in question, if there is one.

    `products`, `bias` and `accumulator` are there for nodes that accumulate. `matching` lists the dialects that give
    `got`, `likely_bugs` slips that would.
    """

    model: str
    tensor: str
    index: tuple[int, ...]
    dialect: str
    node: Node
    operands: tuple[Tensor, ...]
    result: Tensor
    value: Number
    derivations: list[Derivation]
    inputs: dict[str, Number] = field(default_factory=dict)
    products: list[Product] = field(default_factory=list)
    skipped: int = 0
    bias: Number | None = None
    accumulator: Number | None = None
    refusals: dict[str, str] = field(default_factory=dict)
    got: Number | None = None
    matching: list[str] = field(default_factory=list)
    likely_bugs: list[LikelyBug] = field(default_factory=list)

    @property
    def is_integer(self) -> bool:
        """Whether the node computes in integers."""
        return any(t.dtype != "float32" for t in (*self.operands, self.result))

    @property
    def verdict(self) -> str:
        """One sentence: who gives the value in question."""
        if self.got is None:
            return f"{self.value} under {self.dialect}" if self.is_integer else f"{self.value}"
        if self.got == self.value and not self.is_integer:
            return f"{self.got} is right"
        if len(self.matching) == len(DIALECTS):
            return f"{self.got} is right under every dialect"
        if self.matching:
            return f"{self.got} is what {', '.join(self.matching)} {'gives' if len(self.matching) == 1 else 'give'}"
        return f"no dialect gives {self.got}" if self.is_integer else f"{self.got} is not {self.value}"

    def to_dict(self) -> dict[str, Any]:
        """For JSON, with every product."""
        return {
            "model": self.model, "tensor": self.tensor, "index": list(self.index), "op": self.node.op,
            "dialect": self.dialect, "value": self.value, "got": self.got, "matching": self.matching,
            "verdict": self.verdict, "attributes": {k: _plain(v) for k, v in self.node.attrs.items()},
            "operands": [_tensor(t) for t in self.operands], "result": _tensor(self.result), "inputs": self.inputs,
            "terms": [
                {"filter": list(t.filter_at), "input": list(t.input_at), "x": t.x, "weight": t.weight,
                 "product": t.value}
                for t in self.products
            ],
            "refusals": self.refusals, "outside": self.skipped, "bias": self.bias, "accumulator": self.accumulator,
            "derivations": [
                {"dialects": d.dialects, "rule": d.rule, "source": d.source, "parameters": d.parameters,
                 "steps": [{"depth": c.depth, "call": c.name, "arguments": c.arguments, "result": c.result}
                           for c in d.trace.calls],
                 "steps_left_out": d.trace.left_out, "note": d.note, "value": d.value}
                for d in self.derivations
            ],
            "suspects": [{"what": s.text, "kind": s.kind} for s in self.likely_bugs],
        }  # fmt: skip


def _plain(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, tuple) else value


def _tensor(tensor: Tensor) -> dict[str, Any]:
    q = tensor.quantization
    return {
        "name": tensor.name, "dtype": tensor.dtype, "shape": list(tensor.shape), "constant": tensor.constant,
        "source": tensor.source, "scales": 0 if q is None else len(q.scale),
        "scale": None if q is None else q.scale[0], "zero_point": None if q is None else q.zero_point[0],
    }  # fmt: skip


def explain(
    model: ModelSource,
    x: ValueSource,
    tensor: str,
    index: Sequence[int],
    got: Number | None = None,
    *,
    dialect: str = "tflite-reference",
    names: NameMap | str | os.PathLike[str] | None = None,
    layout: str = "auto",
) -> Explanation:
    """Derive one value: `tensor[index]` of a model for an input.

    `x` is an input as for `record`, or a dump (a folder, or an archive with a manifest): then the node's inputs are the
    dump's own, and `got` is by default the dump's value. `tensor` is a tensor's name, an endpoint, "#12", or one of
    these with "acc:" or "pre:" in front. `names` and `layout` are for foreign dumps, as in `diff`.

    Raises `InputError` for a tensor or an index that isn't there, an input of the graph, `PlanError`.
    """
    data = data_of(model)
    prefix, name = find_tensor(data.graph, tensor)
    node = data.graph.producers.get(name)
    if node is None:
        raise InputError(f"'{tensor}' is an input of the model: nothing computes it")
    wanted = [n for n in node.inputs if not data.graph.tensors[n].constant]
    values: dict[str, Array]
    if is_dump(x):
        dump = DumpValues(data, x, names, layout)  # type: ignore[arg-type]
        values = {n: dump[n] for n in wanted}
        theirs = dump.get(prefix + name)
    else:
        values = run_values(model_of(model, dialect), x, wanted)  # type: ignore[arg-type]
        theirs = None
    shape = (len(values[wanted[0]]), *data.graph.tensors[name].shape[1:])
    problem = check_index(index, shape)
    if problem:
        raise InputError(f"'{tensor}': {problem}")
    if got is None and theirs is not None:
        got = scalar(theirs[tuple(index)])
    what = isolate(data, node, values, tuple(index))
    return _explain(data.info.name, what, prefix, dialect, got)


def _explain(name: str, what: IsolatedNode, prefix: str, dialect: str, got: Number | None) -> Explanation:
    stage = STAGES[prefix]
    derivations, refusals = derive(what, stage)
    if dialect in refusals:
        raise PlanError(refusals[dialect])
    value = next(d.value for d in derivations if dialect in d.dialects)
    found = Explanation(
        name, prefix + what.result.name, what.at, dialect, what.node, what.operands, what.result, value, derivations,
        refusals=refusals,
    )  # fmt: skip
    cut = crop(what, what.at)
    if what.accumulates:
        _add_sum(found, what, cut)
    elif cut.cropped:
        found.inputs = _inputs(cut)
    if got is not None:
        found.got = int(got) if what.is_integer and _dtype(what, stage) != FLOAT else scalar(np.float32(got))
        fits = [d for part in derivations if _same(part.value, found.got) for d in part.dialects]
        found.matching = [d for d in DIALECTS if d in fits]
        if not found.matching and what.is_integer:
            found.likely_bugs = likely_bugs(what, cut, dialect, int(got), stage, found.accumulator)
    return found


def _inputs(cut: IsolatedNode) -> dict[str, Number]:
    """The values that an element is made from; of a pool or mean, their number and sum."""
    if cut.node.op in POOLS:
        x = cut.arrays[0]
        kind = np.int64 if x.dtype.kind in "iu" else np.float64
        return {
            "pixels": x.size,
            "their sum": scalar(x.sum(dtype=kind)),
            "least": scalar(x.min()),
            "most": scalar(x.max()),
        }
    if any(a.size > 1 for a in cut.arrays):
        return {}
    return {t.name: scalar(a.reshape(-1)[0]) for t, a in zip(cut.operands, cut.arrays, strict=True)}


def _dtype(what: IsolatedNode, stage: str) -> str:
    """What the output, or a stage before it, is made of."""
    return "int32" if what.is_integer and stage != "output" else what.result.dtype


def _same(a: Number, b: Number) -> bool:
    return a == b or bool(np.isnan(a) and np.isnan(b))


def _add_sum(found: Explanation, what: IsolatedNode, cut: IsolatedNode) -> None:
    """Products, bias and accumulator; that they agree is checked."""
    found.products = products(what, what.at)
    found.skipped = outside(what, what.at)
    found.bias = scalar(cut.arrays[2][0])
    out = run(cut, found.dialect, "python", STAGES[ACC])
    found.accumulator = scalar(out[cut.at])
    if what.is_integer:
        total = int(cut.arrays[2][0]) + sum(t.value for t in found.products if t.value is not None)
        if total != found.accumulator:
            raise RuntimeError(f"'{what.node.name}' at {what.at}: the products give {total}, not {found.accumulator}")


def derive(what: IsolatedNode, stage: str) -> tuple[list[Derivation], dict[str, str]]:
    """The derivations of element `what.at`, dialects that take the same steps together; and why some refuse the node.

    Float32 has one arithmetic.
    """
    found: list[Derivation] = []
    refusals: dict[str, str] = {}
    for dialect in DIALECTS.values() if what.is_integer else [next(iter(DIALECTS.values()))]:
        try:
            part = _derivation(what, dialect, stage)
        except PlanError as error:
            refusals[dialect.name] = str(error)
            continue
        same = next((p for p in found if _steps_of(p) == _steps_of(part)), None)
        if same is None:
            found.append(part)
        else:
            same.dialects.append(dialect.name)
    if not found:
        raise PlanError(next(iter(refusals.values())))
    if not what.is_integer:
        found[0].dialects = list(DIALECTS)
    return found, refusals


def _steps_of(part: Derivation) -> tuple[Any, ...]:
    return part.parameters, part.trace.calls, part.value


def _derivation(what: IsolatedNode, dialect: Dialect, stage: str) -> Derivation:
    """One dialect's: the reference kernels' value of the element alone and that of the whole layer must agree."""
    bound, _ = steps(what, dialect.name, "python", stage)
    vector = in_vector(bound, what, what.at)
    cut = crop(what, what.at, VECTOR if vector else 1)
    asked = scalar(cut.arrays[0].reshape(-1)[0]) if what.node.op in TABLES and cut.cropped else None
    with watch(asked) as made:
        calls, out = steps(cut, dialect.name, "python", stage)
    given = {k: v for step in calls for k, v in parameters(step).items() if k not in BY_PLACE}
    trace = traced(calls, cut.copies)
    if asked is not None:  # a function of one value: what made the table's entry
        groups = subtrees(made.calls)
        trace.calls = [*(groups[-1 if vector is False else 0] if groups else []), *trace.calls]
    elif what.node.op == "softmax":
        trace.calls = _of_class(trace.calls, cut)
    rule, source = _rule(dialect, what, bound)
    note = {True: "inside one of the runtime's full vectors", False: "among the elements that its vectors leave over"}
    part = Derivation(
        [dialect.name], rule, source, given, trace, scalar(out[cut.at]), note[vector] if vector is not None else ""
    )
    whole = scalar(run(what, dialect.name, stage=stage)[what.at])
    if not _same(part.value, whole):  # its place in the layer has a say that the element alone doesn't show
        part.value, part.trace, part.note = whole, Trace(), "taken from the whole layer"
    return part


def _of_class(calls: list[TracedCall], cut: IsolatedNode) -> list[TracedCall]:
    """Of all calls of a row's softmax those that concern one class: its term, the reciprocal of the sum, its product.

    reference/softmax.py: softmax_fixed_q makes, in this order, one call for each class (its term of the sum), some
    calls for the reciprocal, and two for each class (the product and its shift). The class is found by counting. Where
    there are fewer calls than these, as in the float rule, all are returned.
    """
    groups, classes, i = subtrees(calls), cut.result.shape[-1], cut.at[-1]
    if len(groups) < 3 * classes:
        return calls
    own = [groups[i], *groups[classes : -2 * classes], *groups[len(groups) - 2 * (classes - i) :][:2]]
    return [call for group in own for call in group]


def _rule(dialect: Dialect, what: IsolatedNode, calls: Sequence[Step]) -> tuple[str, str]:
    """The rule's name and source for the node; nothing where the table has none.

    A dialect may leave a node to another rule than its op's; what the kernel is given tells which.
    """
    if not what.is_integer:
        return "", ""
    op, dtype = what.node.op, what.operands[0].dtype
    kinds = [what.node.attrs.get("function", ""), dtype, "", f"undelegated:{dtype}", "undelegated"]
    rows = [dialect.rules[key] for kind in kinds if (key := f"{op}:{kind}".rstrip(":")) in dialect.rules]
    used = [REQUANTIZATIONS[arg.rule] for step in calls for arg in step.args if isinstance(arg, Requantization)]
    rule = next((row for row in rows if row.name in used), rows[0] if rows else None)
    return (rule.name, rule.source) if rule is not None else ("", "")
