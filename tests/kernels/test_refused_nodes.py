"""8-bit nodes that no runtime defines, or no kernel computes: refused while planning, and told why."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import Q, arrays_q, q, run_q, single_q

from npmobilenet.errors import GraphError, NpMobilenetError, PlanError
from npmobilenet.graph import Graph

UINT8, INT8 = ("uint8", q(0.1, 3)), ("int8", q(0.1, 3))
Z = q(1, 0)


def two(op: str, x: Any, y: Any, out: Any = ("int8", Z), **attrs: Any) -> Graph:
    """A node on two rows of two values."""
    return single_q(op, [((1, 2), *x), ((1, 2), *y)], [], out, **attrs)


def scaled(op: str, x: float, y: float, out: float, **attrs: Any) -> Graph:
    """A node on two int8 operands of these scales."""
    return two(op, ("int8", q(x, 0)), ("int8", q(y, 0)), ("int8", q(out, 0)), **attrs)


def one(op: str, start: Any, end: Any, **attrs: Any) -> Graph:
    return single_q(op, [((1, 2), *start)], [], end, **attrs)


def act(function: str, start: Any, end: Any) -> Graph:
    return one("activation", start, end, function=function)


SUM = r"node 'y' .*2\^-19.*quantize the tensor 'y' anew"
REFUSED: dict[str, tuple[Graph, type[NpMobilenetError], str]] = {
    "a sum of a vast factor": (scaled("add", 1, 1, 2.0**-19), PlanError, SUM),
    "a difference of a vast factor": (scaled("sub", 1, 1, 2.0**-19), PlanError, SUM),
    "a product of an infinite factor": (scaled("mul", 1e30, 1e30, 1), PlanError, "factor .*inf"),
    "a product of a vast factor": (scaled("mul", 1e5, 1e5, 1), PlanError, r"below 2\^30"),
    "a scale of nothing": (scaled("mul", 1e-50, 1, 1), PlanError, "scale"),
    "an activation without clamps": (
        scaled("mul", 1, 1, 1, activation="hard_swish"), GraphError, "a fused activation among"),
    "dtypes mixed": (
        two("add", ("int8", Z), ("uint8", Z)), GraphError, "one dtype, uint8 or int8, got int8, uint8, int8"),
    "an operand without a scale": (two("add", ("int8", Z), ("int8", None)), PlanError, "one scale"),
    "int8 parts of other scales": (
        two("concat", ("int8", Z), ("int8", q(0.5, 0)), axis=1), PlanError, "int8 operand 'x1' has scale 0.5"),
    "parts with an activation": (
        two("concat", ("int8", Z), ("int8", Z), axis=1, activation="relu"), GraphError, "no fused activation"),
    "parts of far scales": (
        two("concat", ("uint8", Z), ("uint8", q(1e9, 0)), ("uint8", Z), axis=1), PlanError, r"below 2\^22"),
    "a reshape to another dtype": (one("reshape", ("int32", Z), ("int8", Z), shape=(1, 2)), GraphError, "one dtype"),
    "a mean of an infinite factor": (
        single_q("mean", [((1, 2, 2, 1), "int8", q(1e30, 0))], [], ("int8", q(1e-30, 0)), keepdims=True),
        PlanError, "inf"),
    "a resize between scales": (
        single_q("resize_bilinear", [((1, 1, 1, 1), "int8", Z)], [], ("int8", q(2, 0)), size=(2, 2),
                 align_corners=False, half_pixel_centers=False), PlanError, "same dtype, scale and zero point"),
    "hard sigmoid": (
        act("hard_sigmoid", UINT8, UINT8), NpMobilenetError, "no integer rule.*Export the model"),
    "hard sigmoid of slim": (act("hard_sigmoid_slim", UINT8, UINT8), NpMobilenetError, "no integer rule"),
    "relu to another dtype": (act("relu", UINT8, INT8), NpMobilenetError, "expected uint8 to uint8"),
    "relu without a scale": (act("relu", UINT8, ("uint8", None)), NpMobilenetError, "expected one scale"),
    "sigmoid to another scale": (act("sigmoid", UINT8, UINT8), NpMobilenetError, "an output scale of 1/256"),
    "hard swish of a vast factor": (
        act("hard_swish", ("int8", q(1, 0)), ("int8", q(1 / 300, 0))), NpMobilenetError, "less than 1/128"),
    "softmax to another scale": (one("softmax", UINT8, UINT8, beta=1.0), NpMobilenetError, "scale 1/256"),
    "softmax to another zero point": (
        one("softmax", UINT8, ("uint8", q(1 / 256, 1)), beta=1.0), NpMobilenetError, "zero point 0"),
    "softmax to another dtype": (
        one("softmax", UINT8, ("int8", q(1 / 256, -128)), beta=1.0), NpMobilenetError, "expected an output of uint8"),
    "softmax of a scale too small": (
        one("softmax", ("int8", q(1e-9, 0)), ("int8", q(1 / 256, -128)), beta=1.0), NpMobilenetError, "too small"),
    "to int16": (
        one("quantize", UINT8, ("int16", Z)), NpMobilenetError, "to uint8 or int8, got uint8 to int16"),
    "to int32": (one("quantize", ("float32", None), ("int32", Z)), NpMobilenetError, "got float32 to int32"),
    "from int16": (
        one("dequantize", ("int16", Z), ("float32", None)), NpMobilenetError, "expected uint8 or int8 to float32"),
    "from several scales": (
        one("dequantize", ("uint8", Q((1.0, 2.0), (0, 0), 1)), ("float32", None)), NpMobilenetError,
        "expected one scale.*2 scales"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    graph, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        run_q(graph, arrays_q(graph, np.random.default_rng(0)), "python")
