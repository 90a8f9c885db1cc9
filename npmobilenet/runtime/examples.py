"""The examples of the table of ops as graphs of one node: what `warmup` compiles, `doctor` checks and tests try."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from npmobilenet.graph import OPS, Graph, GraphBuilder, Quantization
from npmobilenet.modeldata import Array
from npmobilenet.ops import Example

DTYPES = ("float32", "uint8", "int8")
_OTHER = {"uint8": "int8", "int8": "uint8"}


def examples(dtype: str) -> Iterator[Graph]:
    """One graph for each example of each op that has kernels for values of this dtype."""
    for op, spec in OPS.items():
        if spec.computes(dtype):
            yield from (graph_of(op, example, dtype) for example in spec.examples)


def graph_of(op: str, example: Example, dtype: str) -> Graph:
    """The example's node on values of one of DTYPES, alone in a graph called after the op."""
    builder, integer = GraphBuilder(op), dtype != "float32"
    given, result = (_OTHER[dtype] if name == "other" else name or dtype for name in (example.given, example.result))
    names = [
        builder.input(f"x{i}", shape, given, quantization=_quantization(given))
        for i, shape in enumerate(example.operands)
    ]
    for i, shape in enumerate(example.weights):
        bias = len(shape) == 1
        kind = ("int32" if bias else dtype) if integer else "float32"
        if integer and given == result == "float32":  # weights of a float32 layer are int8, its bias isn't
            kind = "float32" if bias else "int8"
        q = Quantization((1 / 256**2 if bias else 1 / 256,), (0,)) if kind != "float32" else None
        names.append(builder.constant(f"w{i}", shape, kind, quantization=q))
    q = _quantization(result)
    if op == "l2_normalize" and q is not None:  # the only one that LiteRT takes
        q = Quantization((1 / 128,), (q.zero_point[0] + 128,))
    node = builder.node(op, names, "y", dtype=result, quantization=q, **example.attrs)
    return builder.finish([node])


def random_arrays(graph: Graph, rng: np.random.Generator, batch: int = 1) -> dict[str, Array]:
    """Inputs and weights over the full ranges of their dtypes; floats around 0, biases of int32 within +-2^14."""
    arrays: dict[str, Array] = {}
    for name in (*graph.inputs, *graph.constants):
        tensor = graph.tensors[name]
        shape = tensor.shape if tensor.constant else (batch, *tensor.shape[1:])
        if tensor.dtype == "float32":
            arrays[name] = 2 * rng.standard_normal(shape, np.float32)
        elif tensor.dtype == "int32":
            arrays[name] = rng.integers(-(2**14), 2**14, shape, np.int32)
        else:
            limits = np.iinfo(tensor.dtype)
            arrays[name] = rng.integers(limits.min, limits.max, shape, tensor.dtype, endpoint=True)
    return arrays


def _quantization(dtype: str) -> Quantization | None:
    """Scale 1/256 and the dtype's least value, which every op accepts: they are what softmax gives."""
    return None if dtype in ("float32", "int64") else Quantization((1 / 256,), (-128 if dtype == "int8" else 0,))
