"""One node at a time: its arrays, and running it with a kernel set under a dialect. Random ones: node_cases.py."""

from __future__ import annotations

from typing import Any

import numpy as np

from npmobilenet.arithmetic.dialects import DIALECTS, Dialect
from npmobilenet.arithmetic.dialects import dialect as dialect_named
from npmobilenet.arithmetic.vela import refuse_undefined
from npmobilenet.errors import PlanError
from npmobilenet.graph import Graph, GraphBuilder, Node, Quantization
from npmobilenet.kernels import kernel_set
from npmobilenet.runtime.binding import NodeContext, bind

Array = np.ndarray[Any, Any]
Q = Quantization
# What lies in an output's memory before, by kernel set: an element that two of them leave as it is tells them apart.
BEFORE = {"fast": 0x5A, "reference": 0xA5, "python": 0x3C}


def q(scale: float, zero_point: int) -> Quantization:
    """One scale (rounded to float32, as files hold it) and zero point for a tensor."""
    return Quantization((float(np.float32(scale)),), (zero_point,))


def single(op: str, operands: list[tuple[int, ...]], weights: list[tuple[int, ...]], **attrs: Any) -> Graph:
    """A graph of one float32 node on inputs and constants of these shapes."""
    ends = [[(shape, "float32", None) for shape in shapes] for shapes in (operands, weights)]
    return single_q(op, *ends, ("float32", None), **attrs)


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


def arrays_for(graph: Graph, node: Node, rng: np.random.Generator, batch: int = 1) -> list[Array]:
    """Random inputs: floats around 0 that reach beyond all the activations' corners, 8 bits of their whole ranges,
    int32 (biases) of +-2^14.
    """
    arrays: list[Array] = []
    for name in node.inputs:
        tensor = graph.tensors[name]
        shape = tensor.shape if tensor.constant else (batch, *tensor.shape[1:])
        if tensor.dtype == "float32":
            arrays.append((rng.standard_normal(shape, dtype=np.float32) * np.float32(2)).astype(np.float32))
        elif tensor.dtype == "int32":
            arrays.append(rng.integers(-(2**14), 2**14, shape, np.int32))
        else:
            limits = np.iinfo(tensor.dtype)
            arrays.append(rng.integers(limits.min, limits.max, shape, tensor.dtype, endpoint=True))
    return arrays


def arrays_q(graph: Graph, rng: np.random.Generator, batch: int = 1) -> list[Array]:
    return arrays_for(graph, graph.nodes[0], rng, batch)


def defining(graph: Graph) -> list[str]:
    """The dialects under which a graph of one node has a result: not all nodes are defined on an NPU."""
    node = graph.nodes[0]
    operands, result = [graph.tensors[n] for n in node.inputs], graph.tensors[node.output]

    def defines(found: Dialect) -> bool:
        try:
            if found.npu:
                refuse_undefined(node, operands, result)
        except PlanError:
            return False
        return True

    return [name for name, found in DIALECTS.items() if result.dtype == "float32" or defines(found)]


def run_node(
    graph: Graph, node: Node, inputs: list[Array], kernels: str, dialect: str = "tflite-reference", **ctx: Any
) -> Array:
    """The node's output. `ctx`: stage="accumulator" or "preactivation" gives those, as int32."""
    result = graph.tensors[node.output]
    dtype = "int32" if ctx else result.dtype
    shape = (inputs[0].shape[0], *result.shape[1:])
    out = np.full(int(np.prod(shape)) * np.dtype(dtype).itemsize, BEFORE[kernels], np.uint8).view(dtype).reshape(shape)
    operands = [graph.tensors[n] for n in node.inputs]
    for step in bind(
        NodeContext(node, operands, inputs, result, out, kernel_set(kernels), dialect_named(dialect), **ctx)
    ):
        step.kernel(*step.args)
    return out


def run_q(graph: Graph, inputs: list[Array], kernels: str, dialect: str = "tflite-reference", **ctx: Any) -> Array:
    """The output of a graph of one node."""
    return run_node(graph, graph.nodes[0], inputs, kernels, dialect, **ctx)


def same_bits(a: Array, b: Array) -> bool:
    """Equal to the bit, signed zeros included."""
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()
