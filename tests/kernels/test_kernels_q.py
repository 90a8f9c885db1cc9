"""Integer convolutions: reference in plain Python == reference compiled == fast; accumulators and rule give the output.

The other integer ops' chains are in test_elementwise_q.py and test_functions_q.py.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest
from cases_q import Q, arrays_q, q, run_q, single_q
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import npmobilenet as nm
from npmobilenet.arithmetic import convolution
from npmobilenet.arithmetic.dialects import DIALECTS, dialect
from npmobilenet.arithmetic.fixedpoint import requantized
from npmobilenet.graph import Graph, Quantization
from npmobilenet.kernels.compiler import jit
from npmobilenet.kernels.compiler.jit import ISAS

SETTINGS = settings(derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
LIMITS = {"uint8": (0, 255), "int8": (-128, 127)}
DTYPES = ("uint8", "int8")
FILES = ("mobilenet_v2_0_5_96_quant", "mlperf_tiny_vww_96_int8", "person_detect", "v3-small_224_1.0_uint8",
         "coral_tf2_mobilenet_v2_1.0_224_ptq")  # fmt: skip

sizes = st.integers(1, 9)
channels = st.sampled_from([1, 2, 3, 4, 5, 8, 15, 16, 17, 24, 32, 33, 40, 64, 70])
scales = st.floats(2.0**-9, 2.0**-3)


@st.composite
def layer(draw: st.DrawFn, op: str, dtype: str) -> Graph:
    """A node with random sizes, scales, zero points and activation; factors from 2^-12 to 4."""
    depth, out = draw(channels), draw(channels)
    h, w = draw(sizes), draw(sizes)
    kernel = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    window = {}
    if op in ("conv2d", "depthwise_conv2d"):
        dilation = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
        sides = [draw(st.integers(0, 2)) for _ in range(2)]
        needed = [(k - 1) * d + 1 - size - side
                  for k, d, size, side in zip(kernel, dilation, (h, w), sides, strict=True)]  # fmt: skip
        padding = tuple((side, max(draw(st.integers(0, 2)), n)) for side, n in zip(sides, needed, strict=True))
        stride = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
        window = {"stride": stride, "padding": padding, "dilation": dilation}
    if op == "pointwise":
        window = {"stride": (1, 1), "padding": ((0, 0), (0, 0))}
    multiplier = draw(st.sampled_from([1, 1, 1, 2, 3])) if op == "depthwise_conv2d" else 1
    features = draw(st.sampled_from([1, 3, 4, 7, 60, 64, 255, 1024, 2048]))
    shape, weights = {
        "conv2d": ((1, h, w, depth), (*kernel, depth, out)),
        "pointwise": ((1, 3 * h, 3 * w, depth), (1, 1, depth, out)),
        "depthwise_conv2d": ((1, h, w, depth), (*kernel, depth * multiplier)),
        "fully_connected": ((1, features), (features, out)),
    }[op]
    low, high = LIMITS[dtype]
    zero = st.integers(low, high)
    count = weights[-1]
    if dtype == "int8" and draw(st.booleans()):
        each = draw(st.lists(scales, min_size=count, max_size=count))
        kind = Q(tuple(float(np.float32(s)) for s in each), (0,) * count, len(weights) - 1)
    else:
        kind = q(draw(scales), draw(zero) if dtype == "uint8" else 0)
    attrs = window | ({"multiplier": multiplier} if op == "depthwise_conv2d" else {})
    result: tuple[str, Quantization | None] = (dtype, q(draw(st.floats(2.0**-7, 2.0)), draw(zero)))
    node = "conv2d" if op == "pointwise" else op
    return single_q(node, [(shape, dtype, q(draw(scales), draw(zero)))],
                    [(weights, dtype, kind), ((count,), "int32", None)], result,
                    activation=draw(st.sampled_from(["none", "relu", "relu6", "relu_n1_to_1"])), **attrs)  # fmt: skip


OPS = ("conv2d", "pointwise", "depthwise_conv2d", "fully_connected")


@pytest.mark.equal("uint8, int8 convolutions", "fast, 1 and 2 threads, every dialect", "reference, compiled", "bits")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", OPS)
def test_fast_equals_reference(op: str, dtype: str) -> None:
    @given(layer(op, dtype), st.integers(0, 2**32 - 1), st.integers(1, 3), st.integers(1, 2))
    @settings(SETTINGS, max_examples=150)
    def check(graph: Graph, seed: int, batch: int, threads: int) -> None:
        inputs = arrays_q(graph, np.random.default_rng(seed), batch)
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
        try:
            for name in DIALECTS:
                assert np.array_equal(run_q(graph, inputs, "fast", name), run_q(graph, inputs, "reference", name)), name
            for stage in ("accumulator", "preactivation"):
                fast, reference = (run_q(graph, inputs, kernels, stage=stage) for kernels in ("fast", "reference"))
                assert np.array_equal(fast, reference), stage
        finally:
            numba.set_num_threads(numba.config.NUMBA_NUM_THREADS)

    check()


@pytest.mark.equal("uint8, int8 convolutions", "reference, compiled", "reference, plain Python", "bits")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", OPS)
def test_compiled_reference_equals_plain_python(op: str, dtype: str) -> None:
    @given(layer(op, dtype), st.integers(0, 2**32 - 1), st.sampled_from(sorted(DIALECTS)))
    @settings(SETTINGS, max_examples=10)
    def check(graph: Graph, seed: int, name: str) -> None:
        if graph.macs(graph.nodes[0]) > 10_000:  # plain Python does some 100,000 a second
            return
        inputs = arrays_q(graph, np.random.default_rng(seed))
        assert np.array_equal(run_q(graph, inputs, "python", name), run_q(graph, inputs, "reference", name))

    check()


def test_conv2d_by_hand() -> None:
    # (10 - 2)(7 - 3) + (4 - 2)(1 - 3) = 28, + 12 = 40; times 0.5 * 0.25 / 0.75 = 1/6: 6.67 -> 7, + 5 = 12.
    graph = single_q("conv2d", [((1, 1, 2, 1), "uint8", q(0.5, 2))],
                     [((1, 2, 1, 1), "uint8", q(0.25, 3)), ((1,), "int32", None)], ("uint8", q(0.75, 5)),
                     stride=(1, 1), padding=((0, 0), (0, 0)))  # fmt: skip
    arrays = [np.array(v, d) for v, d in (([[[[10], [4]]]], "uint8"), ([[[[7]], [[1]]]], "uint8"), ([12], "int32"))]
    for kernels in ("python", "reference", "fast"):
        assert run_q(graph, arrays, kernels).ravel().tolist() == [12]
        assert run_q(graph, arrays, kernels, stage="accumulator").ravel().tolist() == [40]


@pytest.mark.equal("5 files", "acc: taps under the rule, in plain Python", "the output, every layer", "integers")
@pytest.mark.parametrize("stem", FILES)
def test_accumulators_and_rule_give_the_output(data: Path, stem: str) -> None:
    path = data / "weights" / f"{stem}.tflite"
    for name in ("tflite-reference", "tflite-optimized", "xnnpack"):
        model = nm.load(path, dialect=name)
        rng = np.random.default_rng(5)
        low, high = LIMITS[model.input.dtype]
        x = rng.integers(low, high, model.input.shape, model.input.dtype, endpoint=True)
        _, taps = model.run(x, taps=["*", "acc:*", "pre:*"])
        layers = 0
        for node in model.graph.nodes:
            if f"acc:{node.output}" not in taps:
                continue
            tensors = model.graph.tensors
            a, w, b = (tensors[n] for n in node.inputs)
            step = convolution.requantization(node, a, w, tensors[node.output], dialect(name), b)
            acc, pre, out = (taps[p + node.output].reshape(-1, w.shape[-1]) for p in ("acc:", "pre:", ""))
            for row in rng.integers(0, len(acc), 4):  # of each layer, all channels of four pixels
                expected = [int(requantized(int(v), c, step)) for c, v in enumerate(acc[row])]
                assert out[row].tolist() == expected, node.name
            assert np.array_equal(np.clip(pre, step.low, step.high), out), node.name
            layers += 1
        assert layers == sum(f"acc:{n.output}" in taps for n in model.graph.nodes) > 10


def digest() -> str:
    """Of what the fast kernels give for some layers of every kind."""
    found = hashlib.sha256()
    rng = np.random.default_rng(1)
    for dtype, zero in (("uint8", 131), ("int8", -3)):
        x, y = q(0.02, zero), q(0.31, zero // 2)
        kind = q(0.03, 120 if dtype == "uint8" else 0)
        for op, shape, weights, attrs in (
            ("conv2d", (1, 9, 11, 3), (3, 3, 3, 40), {"stride": (2, 2), "padding": ((0, 1), (0, 1))}),
            ("conv2d", (1, 20, 20, 24), (1, 1, 24, 70), {"stride": (1, 1), "padding": ((0, 0), (0, 0))}),
            ("depthwise_conv2d", (1, 9, 11, 75), (3, 3, 75), {"stride": (1, 1), "padding": ((1, 1), (1, 1))}),
            ("depthwise_conv2d", (1, 9, 11, 64), (5, 5, 64), {"stride": (2, 2), "padding": ((1, 2), (1, 2))}),
        ):  # fmt: skip
            bias = ((weights[-1],), "int32", None)
            graph = single_q(op, [(shape, dtype, x)], [(weights, dtype, kind), bias], (dtype, y), **attrs)
            inputs = arrays_q(graph, rng)
            for name in DIALECTS:
                found.update(run_q(graph, inputs, "fast", name).tobytes())
    return found.hexdigest()


@pytest.mark.equal("uint8, int8 convolutions", "fast, AVX-512, AVX2 or less", "fast, all that this CPU has", "bits")
@pytest.mark.parametrize("isa", ISAS[-2::-1])  # avx512, avx2, generic
def test_lesser_instruction_sets_give_the_same_bits(isa: str, tmp_path: Path) -> None:
    """Bytes (VNNI), pairs of int16 in both widths, and plain products."""
    if ISAS.index(isa) > ISAS.index(jit.isa()):
        pytest.skip(f"this CPU has no {isa}")
    env = {**os.environ, "NPMOBILENET_CACHE": str(tmp_path), "NPMOBILENET_QUIET": "1", "NPMOBILENET_ISA": isa}
    program = "import sys; sys.path[:0] = sys.argv[1:]; import test_kernels_q; print(test_kernels_q.digest())"
    command = [sys.executable, "-c", program, *map(str, Path(__file__).parents[:2])]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == digest()
