"""The table of ops: examples and random nodes of each, in every dtype, dialect and kernel set; nothing left untold.

The chain of equality: reference in plain Python == reference compiled == fast, by bits. By hand: test_by_hand.py;
where runtimes part: test_convolution_q.py, test_elementwise_q.py, test_functions_q.py.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numba
import numpy as np
import pytest
from cases import defining, run_q, same_bits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from node_cases import FORMS, FUNCTIONS, LAYERS, LIMITS, MOVES, Case, random_case
from tflite_export import litert_output

from npmobilenet.arithmetic.dialects import DIALECTS
from npmobilenet.errors import PlanError
from npmobilenet.graph import OPS, Graph
from npmobilenet.kernels import KERNELS, kernel_set
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
        for dialect in defining(graph) if dtype != "float32" else list(DIALECTS)[:1]:
            expected = result(graph, values, "python", dialect)
            assert same_bits(expected, result(graph, values, "reference", dialect)), dialect
            for threads in (1, min(2, numba.config.NUMBA_NUM_THREADS)):
                assert same_bits(expected, result(graph, values, "fast", dialect, threads)), dialect


# -- random nodes ------------------------------------------------------------------------------------------------------

SETTINGS = settings(derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
PEERS = ("tflite-reference", "tflite-optimized", "xnnpack")
# What docs/exactness.md calls the kinds, their dtypes, and how many random nodes of each are tried.
KINDS = {
    "every kernel": (tuple(FORMS), ("float32",), 120),
    "uint8, int8 convolutions": (tuple(LAYERS), tuple(LIMITS), 150),
    "sums, pools and moves": (tuple(MOVES), tuple(LIMITS), 60),
    "integer functions": (FUNCTIONS, tuple(LIMITS), 16),
}


def table(a: str, b: str, groups: Sequence[str] = tuple(KINDS)) -> pytest.MarkDecorator:
    """A test of each kind in each of its dtypes, which proves that a equals b."""
    return pytest.mark.parametrize(("kind", "dtype", "count"), [
        pytest.param(kind, dtype, KINDS[group][2], marks=pytest.mark.equal(group, a, b, "bits"), id=f"{kind}-{dtype}")
        for group in groups for kind in KINDS[group][0] for dtype in KINDS[group][1]
    ])  # fmt: skip


def dialects(dtype: str) -> list[str]:
    return list(DIALECTS) if dtype != "float32" else list(DIALECTS)[:1]


@table("fast, 1 and 2 threads, each dialect", "reference, compiled; random nodes")
def test_fast_equals_reference(kind: str, dtype: str, count: int) -> None:
    @given(random_case(kind, dtype), st.integers(1, 2), st.sampled_from(dialects(dtype)))
    @settings(SETTINGS, max_examples=count)
    def check(case: Case, threads: int, one: str) -> None:
        graph, arrays = case
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
        names = [name for name in dialects(dtype) if name in defining(graph)]
        for name in names:
            expected, got = (run_q(graph, arrays, kernels, name) for kernels in ("reference", "fast"))
            assert same_bits(got, expected), (name, threads)
        tensors = [graph.tensors[name] for name in graph.nodes[0].inputs]
        images = range(len(arrays[0]) if len(arrays[0]) > 1 else 0)
        alone = [[a if t.constant else a[i : i + 1] for a, t in zip(arrays, tensors, strict=True)] for i in images]
        one = one if one in names else names[0]
        whole = run_q(graph, arrays, "fast", one)
        for i, image in enumerate(alone):
            assert same_bits(run_q(graph, image, "fast", one), whole[i : i + 1]), "a result depends on its batch"
        for stage in ("accumulator", "preactivation") if kind in LAYERS and dtype != "float32" else ():
            assert same_bits(*(run_q(graph, arrays, kernels, stage=stage) for kernels in ("fast", "reference"))), stage

    before = numba.get_num_threads()
    try:
        check()
    finally:
        numba.set_num_threads(before)


@table("reference, compiled", "reference, plain Python; random nodes")
def test_reference_equals_plain_python(kind: str, dtype: str, count: int) -> None:
    @given(random_case(kind, dtype, small=True), st.sampled_from(dialects(dtype)))
    @settings(SETTINGS, max_examples=30 if count < 100 else 12)
    def check(case: Case, name: str) -> None:
        graph, arrays = case
        work = max(graph.macs(graph.nodes[0]), *(t.size for t in graph.tensors.values()))
        if name in defining(graph) and work * len(arrays[0]) < 20_000:  # plain Python does some 100,000 a second
            assert same_bits(run_q(graph, arrays, "python", name), run_q(graph, arrays, "reference", name)), name

    check()


@table("fast", "LiteRT 2.3.0, one-op models, each resolver", ("sums, pools and moves", "integer functions"))
def test_equals_litert(kind: str, dtype: str, count: int) -> None:
    """(Layers, whose outputs are to span their range, in test_convolution_q.py.)"""

    @given(random_case(kind, dtype))
    @settings(SETTINGS, max_examples=60 if count > 50 else 24)
    def check(case: Case) -> None:
        tensors = [case.graph.tensors[n] for n in case.graph.nodes[0].inputs]
        arrays = [a if t.constant else a[:1] for a, t in zip(case.arrays, tensors, strict=True)]
        for peer in PEERS:
            ours = run_q(case.graph, arrays, "fast", peer)
            assert same_bits(ours, litert_output(case.graph, arrays, peer)), (peer, case.graph.tensors)

    check()


# -- nothing is left untold --------------------------------------------------------------------------------------------


def test_every_kernel_has_both_forms() -> None:
    for kernel in KERNELS:
        assert callable(getattr(kernel_set("fast"), kernel))
        assert callable(getattr(kernel_set("python"), kernel))


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
                    for dialect in defining(graph):
                        called |= {step.kernel.__name__ for step in Plan(graph, zeros, "python", dialect=dialect).steps}
        assert called == {kernel.split(".")[1] for kernel in spec.kernels}, f"{op}: kernels that no example calls"


def test_every_op_is_in_the_docs() -> None:
    """Its rule in floats stands in docs/float32.md, its rule in integers in docs/arithmetic.md."""
    for dtype, page in (("float32", "float32.md"), ("int8", "arithmetic.md")):
        text = (PAGES / page).read_text(encoding="utf-8")
        missing = [op for op, spec in OPS.items() if spec.computes(dtype) and not re.search(rf"[`#|] ?{op}\b", text)]
        assert not missing, f"docs/{page} doesn't tell the rule of {missing}"
