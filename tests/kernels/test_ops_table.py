"""The table of ops, row by row: each op's examples in every dtype, dialect and kernel set; nothing is left untold."""

from __future__ import annotations

import re
from pathlib import Path

import numba
import numpy as np
import pytest
from cases import same_bits

from npmobilenet.arithmetic.dialects import DIALECTS
from npmobilenet.errors import PlanError
from npmobilenet.graph import OPS, Graph
from npmobilenet.modeldata import Array
from npmobilenet.ops import ATTRIBUTES
from npmobilenet.runtime.binding import BINDERS
from npmobilenet.runtime.engine import run
from npmobilenet.runtime.examples import DTYPES, graph_of, random_arrays
from npmobilenet.runtime.plan import Plan

PAGES = Path(__file__).resolve().parents[2] / "docs"


def result(graph: Graph, values: dict[str, Array], kernels: str, dialect: str, threads: int = 1) -> Array:
    """A copy of the output of a one-node graph."""
    weights = {name: values[name] for name in graph.constants}
    inputs = [values[name] for name in graph.inputs]
    plan = Plan(graph, weights, kernels, batch=len(inputs[0]), dialect=dialect)
    return run(plan, *inputs, threads=threads)[0].copy()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", OPS)
def test_examples_are_the_same_in_every_set(op: str, dtype: str) -> None:
    """Plain Python == reference, compiled == fast, by bits, under every dialect, for each example and two images."""
    if not OPS[op].computes(dtype):
        with pytest.raises(PlanError, match="no kernel"):
            Plan(graph_of(op, OPS[op].examples[0], dtype), {}, "python")
        return
    rng = np.random.default_rng(15)
    for example in OPS[op].examples:
        graph = graph_of(op, example, dtype)
        values = random_arrays(graph, rng, batch=2)
        for dialect in DIALECTS if dtype != "float32" else list(DIALECTS)[:1]:
            expected = result(graph, values, "python", dialect)
            assert same_bits(expected, result(graph, values, "reference", dialect)), dialect
            for threads in (1, min(2, numba.config.NUMBA_NUM_THREADS)):
                assert same_bits(expected, result(graph, values, "fast", dialect, threads)), dialect


def test_every_row_is_whole() -> None:
    """An op has kernels, examples in which they all occur, known attributes, one binder, and rules for integers."""
    assert set(BINDERS) == set(OPS)
    ruled = {key.partition(":")[0] for dialect in DIALECTS.values() for key in dialect.rules}
    assert ruled == {op for op, spec in OPS.items() if spec.computes("int8")}, (
        "say in arithmetic/dialects.py by which rule"
    )
    for op, spec in OPS.items():
        assert spec.kernels, f"{op}: name its kernels"
        assert spec.examples, f"{op}: give an example"
        assert set(spec.attrs) | set(spec.optional) <= set(ATTRIBUTES), f"{op}: say in ATTRIBUTES what they may be"
        called = set()
        for dtype in DTYPES:
            if spec.computes(dtype):
                for graph in (graph_of(op, example, dtype) for example in spec.examples):
                    zeros = {name: np.zeros(t.shape, t.dtype) for name, t in graph.constants.items()}
                    for dialect in DIALECTS:
                        called |= {step.kernel.__name__ for step in Plan(graph, zeros, "python", dialect=dialect).steps}
        assert called == {kernel.split(".")[1] for kernel in spec.kernels}, f"{op}: kernels that no example calls"


def test_every_op_is_in_the_docs() -> None:
    """Its rule in floats stands in docs/float32.md, its rule in integers in docs/arithmetic.md."""
    for dtype, page in (("float32", "float32.md"), ("int8", "arithmetic.md")):
        text = (PAGES / page).read_text(encoding="utf-8")
        missing = [op for op, spec in OPS.items() if spec.computes(dtype) and not re.search(rf"[`#|] ?{op}\b", text)]
        assert not missing, f"docs/{page} doesn't tell the rule of {missing}"
