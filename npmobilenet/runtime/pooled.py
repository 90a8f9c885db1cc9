"""The layer whose values describe a picture: which tensor of a graph that is, and its values as vectors.

Found by the graph's structure, since every source has its own name for it: TF-slim `global_pool`, Keras
`global_average_pooling2d`, a .tflite file anything. All ways from the picture to the scores lead through it, which they
don't through the mean of a squeeze-excite block.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from npmobilenet.errors import InputError, nearest
from npmobilenet.graph import Graph, Node
from npmobilenet.images.inputs import NHWC, Port, port_of, real_values
from npmobilenet.modeldata import Array

POOLED = "pooled"
POOLS = ("average_pool", "max_pool", "mean")
_ACCUMULATING = ("conv2d", "fully_connected")
_FOLLOWS = ("reshape", "quantize", "dequantize")  # nodes that change a vector's form alone


def pooled_layer(graph: Graph) -> str:
    """The tensor that a published model's classifier reads: the last pool's result, or that of the layer behind it.

    V3 and V4 have one more convolution between the pool and the classifier; TF-slim pools its single pixel again
    (`global_pool`), Keras, timm and torchvision don't. It is part of the published model, so its result counts, as in
    TensorFlow Hub's feature vectors, timm's `pre_logits` and MediaPipe's embedder. A fully connected layer with relu is
    a head that somebody put there, and doesn't count.

    A model without a pool, whose head takes the last map flat, has that map. Raises `InputError` for any other graph.
    """
    chain = _cut_points(graph)
    at = max((i for i, node in enumerate(chain) if node.op in POOLS and _is_vector(graph, node.output)), default=-1)
    if at < 0:
        maps = [node.output for node in chain if len(graph.tensors[node.output].shape) == NHWC]
        if maps and len(graph.tensors[graph.outputs[0]].shape) < NHWC:
            return maps[-1]  # which the head takes flat, pixel by pixel; its average is what a pool would give
        raise InputError(
            f"{graph.name} gives {graph.tensors[graph.outputs[0]].shape}, and has no pooled layer through which every "
            f"way to that leads: choose a layer by its name, layer={maps[-1] if maps else graph.outputs[0]!r:.200}"
        )
    behind = [node for node in chain[at + 1 :] if node.op not in _FOLLOWS]
    widened = _published_layer(behind)
    return chain[at].output if widened is None else widened.output


def _published_layer(behind: list[Node]) -> Node | None:
    """The node that ends the convolution of V3 and V4 behind the pool, if the first of these nodes is one."""
    if not behind or behind[0].op not in _ACCUMULATING:
        return None
    first, rest = behind[0], behind[1:]
    end, function = first, first.attrs.get("activation", "none")
    if function == "none" and rest and rest[0].op == "activation":
        end, function, rest = rest[0], rest[0].attrs["function"], rest[1:]
    classified = any(node.op in _ACCUMULATING for node in rest)
    published = function == "hard_swish" or (first.op == "conv2d" and function in ("relu", "relu6") and classified)
    return end if published else None


def _cut_points(graph: Graph) -> list[Node]:
    """The nodes through whose results every way from the inputs to the first output leads, in order of execution."""
    wanted = {graph.outputs[0]}
    nodes = []
    for node in reversed(graph.nodes):
        if node.output in wanted:
            nodes.append(node)
            wanted.update(name for name in node.inputs if not graph.tensors[name].constant)
    nodes.reverse()
    last_use = {name: i for i, node in enumerate(nodes) for name in node.inputs}
    last_use[graph.outputs[0]] = len(nodes)
    alive = {name for name in graph.inputs if name in wanted}
    found = []
    for i, node in enumerate(nodes):
        alive = {name for name in (*alive, node.output) if last_use[name] > i}
        if alive == {node.output}:
            found.append(node)
    return found


def _is_vector(graph: Graph, name: str) -> bool:
    shape = graph.tensors[name].shape
    return math.prod(shape) == shape[-1]


def layer_of(graph: Graph, layer: str) -> Port:
    """The layer of that name: "pooled", an endpoint or a tensor. Raises `InputError`, with the nearest names."""
    if layer == POOLED and POOLED not in graph.endpoints and POOLED not in graph.tensors:
        return port_of(graph, pooled_layer(graph))
    name = graph.endpoints.get(layer, layer) if isinstance(layer, str) else ""
    if name not in graph.tensors or graph.tensors[name].constant:
        known = [*graph.endpoints, *(n for n, t in graph.tensors.items() if not t.constant)]
        near = ", ".join(map(repr, nearest(str(layer), known)))
        raise InputError(f"layer {layer!r:.80}: {graph.name} has none of that name; did you mean one of {near}?")
    if name in graph.inputs:
        raise InputError(f"layer '{layer}' is an input of {graph.name}: preprocess() gives its values")
    return port_of(graph, name)


def as_vectors(values: Array, port: Port, l2: bool = False) -> NDArray[np.float32]:
    """(N, channels) float32: a layer's real values, those of a map averaged over its pixels, of length 1 with `l2`.

    Sums are exact or in a fixed order, so a vector depends neither on the other images of a batch nor on the machine.
    """
    real = real_values(values, port).astype(np.float32, copy=False)
    if real.ndim == NHWC and real.shape[1:3] != (1, 1):
        pixels = real.reshape(len(real), -1, real.shape[-1])
        total = np.zeros((len(real), real.shape[-1]))
        for i in range(pixels.shape[1]):
            total += pixels[:, i]
        real = (total / pixels.shape[1]).astype(np.float32)
    vectors = np.ascontiguousarray(real.reshape(len(real), -1))
    return unit_length(vectors) if l2 else vectors


def unit_length(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each row `v / sqrt(sum v^2)`, the sum exactly rounded; a row of zeros stays as it is."""
    squares = vectors.astype(np.float64) ** 2
    lengths = np.array([math.sqrt(math.fsum(row)) or 1.0 for row in squares.tolist()])
    return np.asarray(vectors / lengths[:, None], np.float32)


def last_node(graph: Graph, output: str) -> Node | None:
    """The node that computes the output, behind any that only change its shape or number format."""
    node = graph.producers.get(output)
    while node is not None and node.op in _FOLLOWS:
        node = graph.producers.get(node.inputs[0])
    return node
