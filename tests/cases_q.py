"""One quantized node at a time: making its arrays and running it with a kernel set, under a dialect."""

from __future__ import annotations

from typing import Any

import numpy as np

from npmobilenet.arithmetic.dialects import dialect as dialect_named
from npmobilenet.graph import Graph, GraphBuilder, Quantization
from npmobilenet.kernels import kernel_set
from npmobilenet.runtime.binding import NodeContext, bind

Array = np.ndarray[Any, Any]
Q = Quantization


def q(scale: float, zero_point: int) -> Quantization:
    """One scale (rounded to float32, as files hold it) and zero point for a tensor."""
    return Quantization((float(np.float32(scale)),), (zero_point,))


def single_q(
    op: str,
    operands: list[tuple[tuple[int, ...], str, Quantization | None]],
    weights: list[tuple[tuple[int, ...], str, Quantization | None]],
    result: tuple[str, Quantization | None],
    **attrs: Any,
) -> Graph:
    """A graph of one node; operands and weights are (shape, dtype, quantization), the result (dtype, quantization)."""
    builder = GraphBuilder("case")
    names = [builder.input(f"x{i}", s, d, quantization=z) for i, (s, d, z) in enumerate(operands)]
    names += [builder.constant(f"w{i}", s, d, quantization=z) for i, (s, d, z) in enumerate(weights)]
    return builder.finish([builder.node(op, names, "y", dtype=result[0], quantization=result[1], **attrs)])


def arrays_q(graph: Graph, rng: np.random.Generator, batch: int = 1) -> list[Array]:
    """Random operands over the full ranges of their dtypes (float32: standard normal; int32, biases: +-2^14)."""
    arrays: list[Array] = []
    for name in graph.nodes[0].inputs:
        tensor = graph.tensors[name]
        shape = tensor.shape if tensor.constant else (batch, *tensor.shape[1:])
        if tensor.dtype == "float32":
            arrays.append(rng.standard_normal(shape, dtype=np.float32))
        elif tensor.dtype == "int32":
            arrays.append(rng.integers(-(2**14), 2**14, shape, np.int32))
        else:
            limits = np.iinfo(tensor.dtype)
            arrays.append(rng.integers(limits.min, limits.max, shape, tensor.dtype, endpoint=True))
    return arrays


def run_q(graph: Graph, inputs: list[Array], kernels: str, dialect: str = "tflite-reference", **ctx: Any) -> Array:
    """The node's output, from memory that holds a pattern before: every element must be written.

    `ctx`: stage="accumulator" or "preactivation" gives those, as int32.
    """
    node = graph.nodes[0]
    result = graph.tensors[node.output]
    dtype = "int32" if ctx else result.dtype
    size = inputs[0].shape[0] * result.size * np.dtype(dtype).itemsize
    out = np.full(size, 0x5A, np.uint8).view(dtype).reshape(inputs[0].shape[0], *result.shape[1:])
    operands = [graph.tensors[n] for n in node.inputs]
    steps = bind(NodeContext(node, operands, inputs, result, out, kernel_set(kernels), dialect_named(dialect), **ctx))
    for step in steps:
        step.kernel(*step.args)
    return out
