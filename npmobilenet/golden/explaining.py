"""One value taken apart: what it is computed from, step by step, under every dialect, and which of them gives V.

All arithmetic is the project's own: the node is cut down to the one element (single_node.py), run by the uncompiled
reference kernels, and its calls are watched (derivation.py). What one value would need is said as such; causes are
looked for over the whole layer of a dump (causes/).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from npmobilenet.arithmetic.dialects import DIALECTS
from npmobilenet.arithmetic.dialects import dialect as dialect_named
from npmobilenet.arithmetic.fixedpoint import Requantization
from npmobilenet.errors import InputError, PlanError
from npmobilenet.golden.causes.building import cause_of
from npmobilenet.golden.causes.search import SECONDS, Finding
from npmobilenet.golden.derivation import Derivation, Product, derive, outside, products, same_value, zero_point_of
from npmobilenet.golden.foreign_dumps import NameMap
from npmobilenet.golden.identifying import settle_type
from npmobilenet.golden.inputs import (
    ModelSource,
    ValueSource,
    data_of,
    find_tensor,
    is_dump,
    model_of,
    run_values,
    view_of,
)
from npmobilenet.golden.single_node import (
    STAGES,
    IsolatedNode,
    Number,
    check_index,
    crop,
    element_inputs,
    isolate,
    plain,
    requantization,
    run,
    scalar,
)
from npmobilenet.graph import Node, Tensor
from npmobilenet.modeldata import Array
from npmobilenet.runtime.taps import ACC


@dataclass
class Explanation:
    """One value of a model. `value` is ours, under `dialect`; `got` the value in question, if there is one.

    `products`, `bias` and `accumulator` are there for nodes that accumulate. `matching` lists the dialects that give
    `got`; where none does, `needed` says what accumulator would, and `cause` what explains all of the layer's values in
    a dump.
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
    needed: list[Needed] = field(default_factory=list)
    cause: Finding | None = None

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
            "verdict": self.verdict, "attributes": {k: plain(v) for k, v in self.node.attrs.items()},
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
            "needed": [{"what": s.text, "kind": s.kind} for s in self.needed],
            "cause": None if self.cause is None else self.cause.to_dict(),
        }  # fmt: skip


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
    seconds: float = SECONDS,
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
    view = view_of(data, x, names, layout) if is_dump(x, names) else None  # type: ignore[arg-type]
    if view is not None:
        settle_type(data, view)
        values = {n: view[n] for n in wanted}
        theirs = view.get(prefix + name)
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
    found = _explain(data.info.name, what, prefix, dialect_named(dialect).name, got)
    own = theirs is not None and found.got == scalar(theirs[tuple(index)])
    if view is not None and theirs is not None and own and not found.matching and found.got != found.value:
        entry = view.entries[prefix + name]
        found.cause = cause_of(data, entry, theirs, view, dialect, seconds)
    return found


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
        found.inputs = element_inputs(cut)
    if got is not None:
        found.got = int(got) if what.is_integer and what.dtype(stage) != "float32" else scalar(np.float32(got))
        fits = [d for part in derivations if same_value(part.value, found.got) for d in part.dialects]
        found.matching = [d for d in DIALECTS if d in fits]
        if not found.matching and what.is_integer and stage == "output" and isinstance(found.accumulator, int):
            found.needed = _factor(cut, dialect, int(got), found.accumulator)
    return found


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


# ---------------------------------------------------------------------------------------------------------------------
# What a value would need


@dataclass(frozen=True)
class Needed:
    """What would give the value in question; `kind` is a short name of it. No cause: one value proves none."""

    kind: str
    text: str


def _exact_factor(r: Requantization) -> Fraction:
    return int(r.multiplier[0]) * Fraction(2) ** (int(r.shift[0]) - 31)


def _factor(cut: IsolatedNode, dialect: str, got: int, accumulator: int) -> list[Needed]:
    """How far off the factor, or the accumulator, would have to be."""
    r = requantization(cut, dialect)
    if r is None or accumulator == 0 or not int(r.multiplier[0]):
        return []
    factor = _exact_factor(r)
    steps_away = Fraction(got - r.zero_point)
    if got in (r.low, r.high):
        bound = int((steps_away + (Fraction(1, 2) if got == r.low else Fraction(-1, 2))) / factor)
        side = "at most" if got == r.low else "at least"
        text = f"an accumulator of {side} about {bound} instead of {accumulator}: {got} ends the range"
        return [Needed("range", text)]
    ratio = steps_away / (accumulator * factor)
    low, high = (int((steps_away + half) / factor) for half in (Fraction(-1, 2), Fraction(1, 2)))
    text = f"an accumulator from about {low} to {high} instead of {accumulator}"
    if ratio > 0:
        text += f", or a factor {float(ratio):.4g} times as large"
    return [Needed("accumulator", text), *_bits(cut, accumulator, low, high)]


def _bits(cut: IsolatedNode, accumulator: int, low: int, high: int) -> list[Needed]:
    """How many single flipped bits of weights would give an accumulator from `low` to `high`.

    A product is (x - zero point) * (weight - zero point), so another weight moves the sum by x times the difference.
    """
    found, tried = 0, products(cut, cut.at)
    for product in (p for p in tried if p.value is not None):
        x = int(product.x) - zero_point_of(cut.operands[0])
        for bit in range(8):
            flipped = int(np.array(int(product.weight) & 255 ^ 1 << bit, np.uint8).view(cut.operands[1].dtype))
            found += low <= accumulator + x * (flipped - int(product.weight)) <= high
    text = f"{found} of {8 * len(tried)} single flipped bits of its weights would give such an accumulator"
    return [Needed("bit", text)] if found else []
