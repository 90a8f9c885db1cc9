"""One node at a time: making its arrays and running it with a kernel set; strategies for nodes of every op."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from npmobilenet.arithmetic.dialects import dialect
from npmobilenet.graph import ACTIVATIONS, Graph, GraphBuilder, Node
from npmobilenet.kernels import kernel_set
from npmobilenet.runtime.binding import NodeContext, bind

Array = np.ndarray[Any, Any]


def single(op: str, operands: list[tuple[int, ...]], weights: list[tuple[int, ...]], **attrs: Any) -> Graph:
    """A graph of one node on inputs and constants of these shapes."""
    builder = GraphBuilder("case")
    inputs = [builder.input(f"x{i}", shape) for i, shape in enumerate(operands)]
    constants = [builder.constant(f"w{i}", shape) for i, shape in enumerate(weights)]
    return builder.finish([builder.node(op, inputs + constants, "y", **attrs)])


def arrays_for(graph: Graph, node: Node, rng: np.random.Generator, batch: int = 1) -> list[Array]:
    """Random inputs: values around 0 that reach beyond all the activations' corners."""
    arrays = []
    for name in node.inputs:
        tensor = graph.tensors[name]
        shape = tensor.shape if tensor.constant else (batch, *tensor.shape[1:])
        arrays.append((rng.standard_normal(shape, dtype=np.float32) * np.float32(2)).astype(np.float32))
    return arrays


def run_node(graph: Graph, node: Node, inputs: list[Array], kernels: str) -> Array:
    """The node's output, from memory that holds NaN before: every element must be written."""
    batch = inputs[0].shape[0]
    operands, result = [graph.tensors[name] for name in node.inputs], graph.tensors[node.output]
    out = np.full((batch, *result.shape[1:]), np.nan, np.float32)
    context = NodeContext(node, operands, inputs, result, out, kernel_set(kernels), dialect("tflite-reference"))
    for step in bind(context):
        step.kernel(*step.args)
    return out


def same_bits(a: Array, b: Array) -> bool:
    """Equal to the bit, signed zeros included."""
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


# ---------------------------------------------------------------------------------------------------------------------
# Strategies: small legal nodes

sizes = st.integers(1, 9)
channels = st.sampled_from([1, 2, 3, 4, 5, 8, 15, 16, 17, 24, 33])
kernel = st.integers(1, 5)
step = st.integers(1, 3)
activations = st.sampled_from(ACTIVATIONS)
pads = st.tuples(st.tuples(st.integers(0, 2), st.integers(0, 2)), st.tuples(st.integers(0, 2), st.integers(0, 2)))


@st.composite
def conv2d(draw: st.DrawFn) -> Graph:
    h, w, c, k = draw(sizes), draw(sizes), draw(channels), draw(st.tuples(kernel, kernel))
    out = draw(st.sampled_from([1, 3, 8, 31, 32, 33, 40]))
    attrs = draw(_window(h, w, k))
    return single("conv2d", [(1, h, w, c)], [(*k, c, out), (out,)], activation=draw(activations), **attrs)


@st.composite
def depthwise_conv2d(draw: st.DrawFn) -> Graph:
    h, w, c, k = draw(sizes), draw(sizes), draw(channels), draw(st.tuples(kernel, kernel))
    m = draw(st.sampled_from([1, 1, 2, 3]))
    attrs = draw(_window(h, w, k))
    return single("depthwise_conv2d", [(1, h, w, c)], [(*k, c * m), (c * m,)], multiplier=m,
                  activation=draw(activations), **attrs)  # fmt: skip


@st.composite
def _window(draw: st.DrawFn, h: int, w: int, k: tuple[int, int], dilated: bool = True) -> dict[str, Any]:
    dilation = draw(st.tuples(st.integers(1, 2), st.integers(1, 2))) if dilated else (1, 1)
    (top, bottom), (left, right) = draw(pads)
    # Enough padding below and on the right for the window to fit at all.
    bottom = max(bottom, (k[0] - 1) * dilation[0] + 1 - h - top)
    right = max(right, (k[1] - 1) * dilation[1] + 1 - w - left)
    attrs: dict[str, Any] = {"stride": draw(st.tuples(step, step)), "padding": ((top, bottom), (left, right))}
    return attrs | ({"dilation": dilation} if dilated else {})


@st.composite
def pointwise(draw: st.DrawFn) -> Graph:
    h, w, c = draw(st.integers(1, 14)), draw(st.integers(1, 14)), draw(st.integers(1, 70))
    out = draw(st.integers(1, 140))
    return single("conv2d", [(1, h, w, c)], [(1, 1, c, out), (out,)], stride=(1, 1), padding=((0, 0), (0, 0)),
                  activation=draw(activations))  # fmt: skip


@st.composite
def fully_connected(draw: st.DrawFn) -> Graph:
    features, out = draw(st.integers(1, 200)), draw(st.integers(1, 70))
    rows = draw(st.lists(st.integers(1, 9), max_size=2))
    more = {"keepdims": True} if rows else {}
    return single("fully_connected", [(1, *rows, features)], [(features, out), (out,)], activation=draw(activations),
                  **more)  # fmt: skip


@st.composite
def average_pool(draw: st.DrawFn) -> Graph:
    h, w, c, k = draw(sizes), draw(sizes), draw(channels), draw(st.tuples(kernel, kernel))
    attrs = draw(_window(h, w, k, dilated=False))
    return single("average_pool", [(1, h, w, c)], [], kernel=k, activation=draw(activations), **attrs)


@st.composite
def mean(draw: st.DrawFn) -> Graph:
    return single("mean", [(1, draw(sizes), draw(sizes), draw(channels))], [], keepdims=draw(st.booleans()))


@st.composite
def binary(draw: st.DrawFn) -> Graph:
    full = (1, draw(sizes), draw(sizes), draw(channels))
    kind = draw(st.sampled_from(["gate", "scalar", "full", "any"]))
    mixed = (1, *(draw(st.sampled_from([d, 1])) for d in full[1:]))
    other = {"gate": (1, 1, 1, full[3]), "scalar": (1, 1, 1, 1), "full": full, "any": mixed}[kind]
    pair = [full, other] if draw(st.booleans()) else [other, full]
    return single(draw(st.sampled_from(["add", "sub", "mul"])), pair, [], activation=draw(activations))


@st.composite
def activation(draw: st.DrawFn) -> Graph:
    return single("activation", [(1, draw(sizes), draw(sizes), draw(channels))], [], function=draw(activations))


@st.composite
def softmax(draw: st.DrawFn) -> Graph:
    return single("softmax", [(1, draw(st.integers(1, 300)))], [], beta=draw(st.sampled_from([1.0, 0.5, 2.0])))


@st.composite
def move(draw: st.DrawFn) -> Graph:
    h, w, c = draw(sizes), draw(sizes), draw(channels)
    kind = draw(st.sampled_from(["pad", "reshape", "concat", "resize"]))
    if kind == "pad":
        return single("pad", [(1, h, w, c)], [], padding=draw(pads))
    if kind == "reshape":
        return single("reshape", [(1, h, w, c)], [], shape=draw(st.sampled_from([(1, h * w * c), (1, h, w * c)])))
    if kind == "concat":
        axis = draw(st.integers(1, 3))
        shapes = [tuple(draw(sizes) if i == axis else d for i, d in enumerate((1, h, w, c))) for _ in range(3)]
        return single("concat", shapes, [], axis=axis, activation=draw(activations))
    corners = draw(st.sampled_from([(False, False), (True, False), (False, True)]))
    size = (draw(st.integers(1, 20)), draw(st.integers(1, 20)))
    return single("resize_bilinear", [(1, h, w, c)], [], size=size, align_corners=corners[0],
                  half_pixel_centers=corners[1])  # fmt: skip


STRATEGIES = {
    "conv2d": conv2d(),
    "pointwise": pointwise(),
    "depthwise_conv2d": depthwise_conv2d(),
    "fully_connected": fully_connected(),
    "average_pool": average_pool(),
    "mean": mean(),
    "binary": binary(),
    "activation": activation(),
    "softmax": softmax(),
    "move": move(),
}
