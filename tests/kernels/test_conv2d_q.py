"""The integer convolution where channels fill half a vector, so that two outputs may be computed as one."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from cases import Q, arrays_q, run_q, single_q

from npmobilenet.graph import Graph, Quantization, same_padding
from npmobilenet.kernels.compiler.cpu import LANES, isa
from npmobilenet.kernels.fast.conv2d_q import outputs_as_one
from npmobilenet.runtime.plan import Plan

HALF = LANES[isa()] // 2
Pair = tuple[int, int]


def layer(dtype: str, size: Pair, depth: int, kernel: Pair, stride: Pair, dilation: Pair, rng: Any) -> Graph:
    """A convolution with HALF channels, padded to the same size; in int8 with a scale for each channel."""
    padding = tuple(same_padding(n, k, s, d) for n, k, s, d in zip(size, kernel, stride, dilation, strict=True))
    low, channels, axis = int(np.iinfo(dtype).min), HALF if dtype == "int8" else 1, 0 if dtype == "int8" else None
    zeros = [int(z) for z in rng.integers(low, low + 256, 2)]
    s_in, s_out, *s_w = (float(np.float32(s)) for s in (0.02, 0.05, *rng.uniform(0.001, 0.02, channels)))
    weights = Quantization(tuple(s_w), (0 if dtype == "int8" else 131,) * channels, 3 if dtype == "int8" else None)
    bias = Quantization(tuple(float(np.float32(s) * np.float32(s_in)) for s in s_w), (0,) * channels, axis)
    return single_q(
        "conv2d",
        [((1, *size, depth), dtype, Q((s_in,), (zeros[0],)))],
        [((*kernel, depth, HALF), dtype, weights), ((HALF,), "int32", bias)],
        (dtype, Q((s_out,), (zeros[1],))),
        stride=stride,
        dilation=dilation,
        padding=padding,
    )


@pytest.mark.skipif(not HALF, reason="one lane has no half")
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_two_outputs_as_one(dtype: str) -> None:
    """Bytes and accumulators as the reference kernel's: depths, strides, even and odd widths, zero points, windows."""
    rng, taken = np.random.default_rng(0), 0
    kernels, strides, dilations = ((3, 3), (1, 2), (5, 5)), ((1, 1), (2, 2), (1, 3)), ((1, 1), (2, 2))
    for case in itertools.product((6, 12, 25), (1, 3, 8), kernels, strides, dilations):
        graph = layer(dtype, (4, case[0]), *case[1:], rng)
        arrays = arrays_q(graph, rng, batch=2)
        for stage in ("output", "accumulator"):
            found, expected = (run_q(graph, arrays, kernels, stage=stage) for kernels in ("fast", "reference"))
            assert np.array_equal(found, expected), (case, stage)
        taken += outputs_as_one(found.shape[2], HALF, case[-1]) == 2
    assert taken == 45


@pytest.mark.skipif(not HALF, reason="one lane has no half")
def test_plans_of_all_batches_share_packed_weights() -> None:
    graph, packed = layer("int8", (8, 8), 3, (3, 3), (2, 2), (1, 1), np.random.default_rng(0)), dict[Any, Any]()
    tensors = {n: np.ones(t.shape, t.dtype) for n, t in graph.constants.items()}
    kept = [(Plan(graph, tensors, batch=batch, packed=packed), len(packed))[1] for batch in (1, 2, 5)]
    assert kept[0] == kept[1] == kept[2] > 0
