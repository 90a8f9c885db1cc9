"""The chain of equality: by hand == reference in plain Python == reference compiled == fast; bits, not tolerances."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest
from cases import STRATEGIES, Array, arrays_for, run_node, same_bits, single
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from npmobilenet.graph import Graph, Node
from npmobilenet.kernels import KERNELS, kernel_set
from npmobilenet.kernels.compiler.jit import ISAS, isa
from npmobilenet.zoo import SPECS
from npmobilenet.zoo.build import build
from npmobilenet.zoo.checkpoints import CHECKPOINTS

SETTINGS = settings(derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
F = np.float32


def test_every_kernel_has_both_forms() -> None:
    for kernel in KERNELS:
        assert callable(getattr(kernel_set("fast"), kernel))
        assert callable(getattr(kernel_set("python"), kernel))


# -- by hand: inputs small enough that the answers are written out -----------------------------------------------------


def by_hand(graph: Graph, *inputs: list[object]) -> Array:
    arrays = [np.array(x, F) for x in inputs]
    results = [run_node(graph, graph.nodes[0], arrays, kernels) for kernels in ("python", "reference", "fast")]
    assert same_bits(results[0], results[1])
    assert same_bits(results[0], results[2])
    return results[0]


def test_conv2d_by_hand() -> None:
    # 3x3 image 1..9, 2x2 kernel [[1, 10], [100, 1000]], one pixel of padding on the right and below.
    graph = single("conv2d", [(1, 3, 3, 1)], [(2, 2, 1, 1), (1,)], stride=(1, 1), padding=((0, 1), (0, 1)))
    image = np.arange(1, 10).reshape(1, 3, 3, 1).tolist()
    y = by_hand(graph, image, [[[[1]], [[10]]], [[[100]], [[1000]]]], [0.5])
    assert y[0, :, :, 0].tolist() == [[5421.5, 6532.5, 603.5], [8754.5, 9865.5, 906.5], [87.5, 98.5, 9.5]]


def test_conv2d_stride_and_dilation_by_hand() -> None:
    graph = single("conv2d", [(1, 1, 5, 1)], [(1, 2, 1, 1), (1,)], stride=(1, 2), dilation=(1, 2),
                   padding=((0, 0), (1, 1)), activation="relu")  # fmt: skip
    # taps at ix = 2 ox - 1 and + 2 more: (-, 2), (2, 4), (4, -) of 1 2 3 4 5
    y = by_hand(graph, [[[[1], [2], [3], [4], [5]]]], [[[[1]], [[-10]]]], [0])
    assert y.ravel().tolist() == [0.0, 0.0, 4.0]


def test_depthwise_by_hand() -> None:
    graph = single("depthwise_conv2d", [(1, 1, 2, 2)], [(1, 2, 4), (4,)], stride=(1, 1), padding=((0, 0), (0, 0)),
                   multiplier=2, activation="relu6")  # fmt: skip
    y = by_hand(graph, [[[[1, 2], [3, 4]]]], [[[1, 2, 3, 4], [-1, 0, 1, 1]]], [0, 0, 0, -6])
    assert y.ravel().tolist() == [0.0, 2.0, 6.0, 6.0]


def test_pool_and_mean_by_hand() -> None:
    graph = single("average_pool", [(1, 2, 2, 1)], [], kernel=(2, 2), stride=(1, 1), padding=((0, 1), (0, 1)))
    # windows: all four, the right column, the lower row, the last pixel; outside pixels don't count
    assert by_hand(graph, [[[[1], [2]], [[3], [6]]]]).ravel().tolist() == [3.0, 4.0, 4.5, 6.0]
    graph = single("mean", [(1, 2, 2, 1)], [], keepdims=False)
    assert by_hand(graph, [[[[1], [2]], [[3], [6]]]]).tolist() == [[3.0]]


def test_activations_by_hand() -> None:
    x = [[-4.0, -1.5, -0.5, 0.0, 1.5, 3.0, 7.0]]
    expected = {
        "none": x[0],
        "relu": [0, 0, 0, 0, 1.5, 3, 7],
        "relu6": [0, 0, 0, 0, 1.5, 3, 6],
        "relu_n1_to_1": [-1, -1, -0.5, 0, 1, 1, 1],
        "hard_swish": [0, -0.375, -0.20833333, 0, 1.125, 3, 7],
        "hard_sigmoid": [0, 0.25, 0.41666667, 0.5, 0.75, 1, 1],
        "hard_sigmoid_slim": [0, 0.250005, 0.416675, 0.50001, 0.750015, 1.00002, 1.00002],
        "sigmoid": [0.01798621, 0.18242552, 0.37754067, 0.5, 0.81757448, 0.95257413, 0.99908895],
    }
    for function, values in expected.items():
        y = by_hand(single("activation", [(1, 7)], [], function=function), x)
        np.testing.assert_allclose(y[0], values, rtol=2e-7, atol=0)


def test_softmax_by_hand() -> None:
    y = by_hand(single("softmax", [(1, 3)], [], beta=1.0), [[0.0, np.log(2.0), np.log(5.0)]])
    np.testing.assert_allclose(y[0], [0.125, 0.25, 0.625], rtol=2e-7)


def test_resize_by_hand() -> None:
    def resized(align: bool, half: bool) -> list[float]:
        graph = single("resize_bilinear", [(1, 1, 2, 1)], [], size=(1, 4), align_corners=align, half_pixel_centers=half)
        return [float(v) for v in by_hand(graph, [[[[0], [6]]]]).ravel()]

    assert resized(False, False) == [0, 3, 6, 6]
    assert resized(True, False) == pytest.approx([0, 2, 4, 6])
    assert resized(False, True) == [0, 1.5, 4.5, 6]


def test_broadcast_and_concat_by_hand() -> None:
    graph = single("mul", [(1, 1, 2, 2), (1, 1, 1, 2)], [])
    assert by_hand(graph, [[[[1, 2], [3, 4]]]], [[[[10, 100]]]]).ravel().tolist() == [10, 200, 30, 400]
    graph = single("concat", [(1, 1, 1, 1), (1, 1, 1, 2)], [], axis=3)
    assert by_hand(graph, [[[[1]]]], [[[[2, 3]]]]).ravel().tolist() == [1, 2, 3]


# -- generated cases ---------------------------------------------------------------------------------------------------


@pytest.mark.equal("every kernel", "fast, 1 and 2 threads", "reference, compiled; generated cases", "bits")
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_fast_equals_reference(strategy: str) -> None:
    @given(STRATEGIES[strategy], st.integers(0, 2**32 - 1), st.integers(1, 3), st.integers(1, 2))
    @settings(SETTINGS, max_examples=120)
    def check(graph: Graph, seed: int, batch: int, threads: int) -> None:
        node = graph.nodes[0]
        inputs = arrays_for(graph, node, np.random.default_rng(seed), batch)
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
        try:
            assert same_bits(run_node(graph, node, inputs, "reference"), run_node(graph, node, inputs, "fast"))
        finally:
            numba.set_num_threads(numba.config.NUMBA_NUM_THREADS)

    check()


@pytest.mark.equal("every kernel", "reference, compiled", "reference, plain Python; generated cases", "bits")
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_compiled_reference_equals_plain_python(strategy: str) -> None:
    @given(STRATEGIES[strategy], st.integers(0, 2**32 - 1))
    @settings(SETTINGS, max_examples=12)
    def check(graph: Graph, seed: int) -> None:
        if sum(graph.macs(n) for n in graph.nodes) > 20_000:  # plain Python does some 200,000 a second
            return
        inputs = arrays_for(graph, graph.nodes[0], np.random.default_rng(seed))
        plain = run_node(graph, graph.nodes[0], inputs, "python")
        assert same_bits(plain, run_node(graph, graph.nodes[0], inputs, "reference"))

    check()


# -- every layer shape of the zoo --------------------------------------------------------------------------------------


def layer_shapes(family: str) -> list[tuple[Graph, Node]]:
    """Every distinct node of every published size of a family (of size 224 where none is published)."""
    sizes = {(c.depth_multiplier, c.resolution) for c in CHECKPOINTS if c.family == family} or {(1.0, 224)}
    found: dict[object, tuple[Graph, Node]] = {}
    for multiplier, resolution in sorted(sizes, reverse=True):
        graph = build(SPECS[family], depth_multiplier=multiplier, resolution=resolution)
        for node in graph.nodes:
            shapes = tuple(graph.tensors[n].shape for n in node.inputs)
            found.setdefault((node.op, shapes, tuple(sorted(node.attrs.items()))), (graph, node))
    return list(found.values())


@pytest.mark.equal("zoo", "fast, 1 and 2 threads", "reference, compiled; every layer of every published size", "bits")
@pytest.mark.parametrize("family", SPECS)
def test_fast_equals_reference_on_every_zoo_layer(family: str) -> None:
    rng = np.random.default_rng(20)
    layers = layer_shapes(family)
    assert len(layers) > 20
    for graph, node in layers:
        inputs = arrays_for(graph, node, rng)
        results = []
        for threads in (1, 2):
            numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
            results.append(run_node(graph, node, inputs, "fast"))
        assert same_bits(results[0], results[1]), f"{node.name}: threads"
        assert same_bits(results[0], run_node(graph, node, inputs, "reference")), node.name


# -- other machines ----------------------------------------------------------------------------------------------------


def digest() -> str:
    """Of what the fast kernels give for a sample of the zoo's layers, large ones left out."""
    found = hashlib.sha256()
    for family in ("v2", "v3_small"):
        for graph, node in layer_shapes(family)[::4]:
            if graph.macs(node) < 2_000_000:
                inputs = arrays_for(graph, node, np.random.default_rng(1))
                found.update(run_node(graph, node, inputs, "fast").tobytes())
    return found.hexdigest()


@pytest.mark.equal("zoo", "fast, AVX2 or no FMA at all", "fast, all that this CPU has; a sample of layers", "bits")
@pytest.mark.parametrize("variable", [f"NPMOBILENET_ISA={ISAS[1]}", "NUMBA_CPU_NAME=generic"])
def test_lesser_instruction_sets_give_the_same_bits(variable: str, tmp_path: Path) -> None:
    """Vectors of half the width; and a CPU without FMA, where libm's fmaf does it in 4 lanes of SSE."""
    name, value = variable.split("=")
    if value not in ("generic", *ISAS[: ISAS.index(isa()) + 1]):
        pytest.skip(f"this CPU has no {value}")
    env = {**os.environ, "NPMOBILENET_CACHE": str(tmp_path), "NPMOBILENET_QUIET": "1", name: value}
    program = "import sys; sys.path[:0] = sys.argv[1:]; import test_kernels; print(test_kernels.digest())"
    command = [sys.executable, "-c", program, *map(str, Path(__file__).parents[:2])]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == digest()
