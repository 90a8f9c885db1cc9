"""The integer convolution where channels fill half a vector, so that two outputs may be computed as one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from cases import Q, arrays_q, run_q, single_q

from npmobilenet.graph import Quantization, same_padding
from npmobilenet.kernels.compiler.cpu import LANES, isa
from npmobilenet.kernels.fast.conv2d_q import outputs_as_one

HALF = LANES[isa()] // 2


@pytest.mark.skipif(not HALF, reason="one lane has no half")
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_two_outputs_as_one(dtype: str) -> None:
    """Bytes and accumulators as the reference kernel's: depths, strides, even and odd widths, zero points, windows."""
    rng, taken = np.random.default_rng(0), 0
    cases = itertools.product(
        (1, 3, 8), ((3, 3), (1, 2), (5, 5)), ((1, 1), (2, 2), (1, 3)), ((1, 1), (2, 2)), (6, 12, 25)
    )
    for depth, kernel, stride, dilation, width in cases:
        size = (4, width)
        padding = tuple(same_padding(n, k, s, d) for n, k, s, d in zip(size, kernel, stride, dilation, strict=True))
        low = int(np.iinfo(dtype).min)
        zeros = [int(z) for z in rng.integers(low, low + 256, 2)]
        scales = tuple(float(np.float32(s)) for s in rng.uniform(0.001, 0.02, HALF if dtype == "int8" else 1))
        weights = Quantization(scales, (0,) * HALF if dtype == "int8" else (131,), 3 if dtype == "int8" else None)
        bias = Quantization(tuple(float(np.float32(s) * np.float32(0.02)) for s in scales), (0,) * len(scales),
                            0 if dtype == "int8" else None)  # fmt: skip
        graph = single_q(
            "conv2d", [((1, *size, depth), dtype, Q((float(np.float32(0.02)),), (zeros[0],)))],
            [((*kernel, depth, HALF), dtype, weights), ((HALF,), "int32", bias)],
            (dtype, Q((float(np.float32(0.05)),), (zeros[1],))), stride=stride, dilation=dilation, padding=padding,
        )  # fmt: skip
        arrays = arrays_q(graph, rng, batch=2)
        for stage in ("output", "accumulator"):
            found, expected = (run_q(graph, arrays, kernels, stage=stage) for kernels in ("fast", "reference"))
            assert np.array_equal(found, expected), (depth, kernel, stride, dilation, width, stage)
        taken += outputs_as_one(found.shape[2], HALF, dilation) == 2
    assert taken == 45
