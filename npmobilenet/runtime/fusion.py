"""Fusion: which nodes a plan computes together. Passes over the graph's nodes, each with a name that switches it on.

A pass never changes a value, only where values between nodes live, and hides no tensor that somebody looks at: taps
keep theirs. A plan for the reference kernels fuses nothing.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from types import MappingProxyType

from npmobilenet.errors import PlanError
from npmobilenet.graph import Graph, Node, Tensor

# What one kernel call computes: a node, or several, of which only the last one's output remains.
Group = tuple[Node, ...]

JOINED = " + "  # between the names of nodes that have become one
ACTIVATED = ("conv2d", "depthwise_conv2d", "fully_connected", "average_pool", "add", "sub", "mul", "div")
ELEMENTWISE = ("activation", "unary", "leaky_relu", "quantize", "dequantize")
# Bytes from which on an image beside a depthwise convolution is worth splitting into bands: about what a second-level
# cache holds. Of V2 1.0_224, on a core with 1 MiB of it, blocks with images of 4.8 MB take 0.73 of the time, of 1.6 MB
# 0.81 to 1, of 0.6 and 0.45 MB 1 on one thread, and more on two, which both compute the rows where their parts meet.
LARGE = 900_000
# Weights from which on two threads share out a product of one pixel (task.py: two pieces). With two such products,
# 7 x 7 x 960 took 37 us in one step, not 27, on two threads, and as long as the separate steps on one.
SHARED = 200_000


class _Uses:
    """Who writes and reads the tensors, as the passes go on."""

    def __init__(self, groups: Iterable[Group], visible: Collection[str]) -> None:
        self.writer: dict[str, Group] = {}
        self.readers: dict[str, list[Group]] = {}
        for group in groups:
            self.writer[group[-1].output] = group
            for node in group:
                for name in node.inputs:
                    self.readers.setdefault(name, []).append(group)
        self.visible = visible

    def only_reader(self, name: str) -> Group | None:
        """The group that reads this tensor, if it is the only one and nobody looks at the tensor."""
        readers = self.readers.get(name, [])
        return readers[0] if len(readers) == 1 and name not in self.visible else None

    def hidden_writer(self, name: str) -> Group | None:
        """The group that writes this tensor, if it does so for one reader alone."""
        return self.writer.get(name) if self.only_reader(name) else None


def cancel_transposes(graph: Graph, groups: list[Group], visible: Collection[str]) -> list[Group]:
    """Two transposes that undo each other vanish, be they neighbours or around a function of single elements.

    PyTorch's models, which have channels first, are full of them once they are .tflite files.
    """
    uses = _Uses(groups, visible)
    instead: dict[str, str] = {}  # a tensor that is gone -> the one of the same values
    changed: dict[str, Node] = {}  # output -> the node that writes it now
    gone: set[str] = set()
    for (node,) in groups:
        if node.op != "transpose" or node.output in visible:
            continue
        before = uses.writer.get(node.inputs[0], ())
        middle = before[0] if before and before[0].op in ELEMENTWISE and uses.hidden_writer(node.inputs[0]) else None
        first = uses.writer.get(middle.inputs[0], ()) if middle else before
        if not first or first[0].op != "transpose" or first[0].output in gone:
            continue
        there, back = first[0].attrs["order"], node.attrs["order"]
        if [there[axis] for axis in back] != list(range(len(back))):
            continue
        if middle is None:
            instead[node.output] = first[0].inputs[0]
        else:
            changed[node.output] = dataclasses.replace(middle, inputs=first[0].inputs, output=node.output)
            gone.add(middle.output)
        gone.update({node.output} - set(changed))
        if uses.only_reader(first[0].output) is not None:
            gone.add(first[0].output)

    def now(name: str) -> str:
        while name in instead:
            name = instead[name]
        return name

    left = [changed.get(node.output, node) for (node,) in groups if node.output not in gone]
    return [(dataclasses.replace(node, inputs=tuple(map(now, node.inputs))),) for node in left]


def fold_activations(graph: Graph, groups: list[Group], visible: Collection[str]) -> list[Group]:
    """A float32 activation becomes part of the node before it, whose kernel applies it while the values are at hand.

    TensorFlow's converter leaves hard-swish as a node of its own.
    """
    uses = _Uses(groups, visible)
    folded: dict[str, Group] = {}  # output of the first node -> the two as one
    gone: set[str] = set()
    for (node,) in (group for group in groups if len(group) == 1):
        if node.op not in ACTIVATED or node.attrs.get("activation", "none") != "none":
            continue
        reader = uses.only_reader(node.output)
        if reader is None or reader[0].op != "activation" or not _is_float(graph, node):
            continue
        attrs = {**node.attrs, "activation": reader[0].attrs["function"]}
        name = JOINED.join([node.name, reader[0].name])
        folded[node.output] = (dataclasses.replace(node, name=name, output=reader[0].output, attrs=attrs),)
        gone.add(reader[0].output)
    return [folded.get(group[-1].output, group) for group in groups if group[-1].output not in gone]


def fold_padding(graph: Graph, groups: list[Group], visible: Collection[str]) -> list[Group]:
    """Zero points around an 8-bit image become the padding of the convolution that alone reads it.

    Keras pads in front of a stride of 2 by a layer. In float32 a tap of 0 may still turn -0 into 0, so there it stays.
    """
    uses = _Uses(groups, visible)
    folded: dict[str, Group] = {}  # output of the convolution -> it, with more padding
    gone: set[str] = set()
    for (node,) in (group for group in groups if len(group) == 1):
        before = uses.hidden_writer(node.inputs[0]) if node.op in ("conv2d", "depthwise_conv2d") else None
        if before is None or before[0].op != "pad" or before[0].attrs.get("value", 0) != 0:
            continue
        x, padded = (graph.tensors[name] for name in (before[0].inputs[0], node.inputs[0]))
        if x.dtype not in ("int8", "uint8") or x.quantization != padded.quantization:
            continue
        (top, bottom), (left, right) = before[0].attrs["padding"]
        (above, below), (west, east) = node.attrs["padding"]
        attrs = {**node.attrs, "padding": ((top + above, bottom + below), (left + west, right + east))}
        folded[node.output] = (dataclasses.replace(node, inputs=(x.name, *node.inputs[1:]), attrs=attrs),)
        gone.add(padded.name)
    return [folded.get(group[-1].output, group) for group in groups if group[-1].output not in gone]


def split_into_bands(graph: Graph, groups: list[Group], visible: Collection[str]) -> list[Group]:
    """Expansion, depthwise convolution and projection become one, by bands of rows, if what is between is LARGE.

    Each of the two pointwise convolutions may be missing. Float32 only. A projection comes along with an expansion from
    a quarter of LARGE on: behind a stride of 2 its image has a quarter of the pixels.
    """
    uses = _Uses(groups, visible)
    chains: dict[str, Group] = {}  # output -> the nodes up to it
    gone: set[str] = set()  # outputs inside a chain
    for group in groups:
        node = group[0]
        if len(group) > 1 or node.op != "depthwise_conv2d" or not _is_float(graph, node):
            continue
        x, result = graph.tensors[node.inputs[0]], graph.tensors[node.output]
        if x.shape[-1] != result.shape[-1]:
            continue
        before, after = uses.hidden_writer(x.name), uses.only_reader(result.name)
        if before and before[-1].output in chains:  # MobileNetV1: the projection of the depthwise convolution before
            before = None
        expand = before if before and x.nbytes >= LARGE and _is_pointwise(graph, before) else ()
        project = after if after and result.nbytes >= LARGE / 4 and _is_pointwise(graph, after) else ()
        if not expand and not (project and result.nbytes >= LARGE):
            continue
        chain = (*expand, node, *project)
        chains[chain[-1].output] = chain
        gone |= {part.output for part in chain[:-1]}
    return [chains.get(g[-1].output, g) for g in groups if g[-1].output not in gone]


def add_residuals(graph: Graph, groups: list[Group], visible: Collection[str]) -> list[Group]:
    """An addition becomes part of the pointwise convolution, alone or at the end of bands, that writes an operand.

    The kernel adds the other operand, as large as the first, to what it has just computed. Float32 only, and only an
    addition without activation: none of a MobileNet's residual additions has one.
    """
    uses = _Uses(groups, visible)
    grown: dict[str, Group] = {}  # output of the addition -> convolution and addition
    gone: set[str] = set()
    for group in groups:
        node = group[0]
        if len(group) > 1 or node.op != "add" or node.attrs.get("activation", "none") != "none":
            continue
        # A constant has the values of one image, where a batch has several.
        alike = all(not t.constant and t.shape == graph.tensors[node.output].shape for t in _operands(graph, node))
        before = [w for name in node.inputs if (w := uses.hidden_writer(name)) and _is_pointwise(graph, w[-1:])]
        if alike and before and _is_float(graph, node):
            grown[node.output] = (*before[0], node)
            gone.add(before[0][-1].output)
    return [grown.get(g[-1].output, g) for g in groups if g[-1].output not in gone]


def join_squeeze_excite(graph: Graph, groups: list[Group], visible: Collection[str]) -> list[Group]:
    """An image, multiplied by a gate made of its own mean, becomes one step: squeeze-and-excite.

    The gate is the mean or average pool over the whole image, through two pointwise convolutions or fully connected
    layers with less than SHARED weights each, and through operations with one constant. Float32 only.
    """
    uses = _Uses(groups, visible)
    joined: dict[str, Group] = {}
    gone: set[str] = set()
    for group in groups:
        node = group[0]
        if len(group) > 1 or node.op != "mul" or not _is_float(graph, node):
            continue
        for image, gate in (node.inputs, node.inputs[::-1]):
            chain = _gate_of(graph, uses, image, gate)
            if chain and graph.tensors[image].shape == graph.tensors[node.output].shape:
                joined[node.output] = (*chain, node)
                gone |= {part.output for part in chain}
                break
    return [joined.get(g[-1].output, g) for g in groups if g[-1].output not in gone]


def _gate_of(graph: Graph, uses: _Uses, image: str, gate: str) -> Group:
    """The nodes that make a gate of an image; empty where it isn't such a gate."""
    channels = graph.tensors[image].shape[-1]
    if graph.tensors[image].constant or graph.tensors[gate].shape != (1, 1, 1, channels):
        return ()
    chain: list[Node] = []
    products, name = 0, gate
    while (writer := uses.hidden_writer(name)) and len(writer) == 1 and _is_float(graph, writer[0]):
        node = writer[0]
        name = node.inputs[0]
        x = graph.tensors[name]
        if node.op in ("conv2d", "fully_connected"):
            weights = graph.tensors[node.inputs[1]]
            all_of_x = math.prod(x.shape) == math.prod(weights.shape[:-1]) and not _is_padded(node)
            if not all_of_x or math.prod(weights.shape) >= SHARED:
                return ()
            products += 1
        elif node.op in ("add", "sub", "mul") and products == 0:
            constants = [n for n in node.inputs if graph.tensors[n].constant and math.prod(graph.tensors[n].shape) == 1]
            if len(constants) != 1 or (node.op == "sub" and constants[0] == name):
                return ()
            name = next(n for n in node.inputs if n != constants[0])
        elif node.op in ("mean", "average_pool") and products == 2 and name == image:
            whole = node.op == "mean" or (node.attrs["kernel"] == x.shape[1:3] and not _is_padded(node))
            plain = node.attrs.get("activation", "none") == "none"
            return (node, *reversed(chain)) if whole and plain and len(x.shape) == 4 else ()
        elif node.op != "reshape":
            return ()
        chain.append(node)
    return ()


def _is_padded(node: Node) -> bool:
    return bool(node.attrs.get("padding", ((0, 0), (0, 0))) != ((0, 0), (0, 0)))


def _operands(graph: Graph, node: Node) -> list[Tensor]:
    return [graph.tensors[name] for name in node.inputs]


def _is_float(graph: Graph, node: Node) -> bool:
    return all(graph.tensors[name].dtype == "float32" for name in (*node.inputs, node.output))


def _is_pointwise(graph: Graph, group: Group) -> bool:
    node = group[0]
    if len(group) > 1 or node.op != "conv2d" or not _is_float(graph, node):
        return False
    window = math.prod(graph.tensors[node.inputs[1]].shape[:2])
    return window == 1 and node.attrs["stride"] == (1, 1) and node.attrs["padding"] == ((0, 0), (0, 0))


Pass = Callable[[Graph, list[Group], Collection[str]], list[Group]]
PASSES: Mapping[str, Pass] = MappingProxyType(
    {
        "transposes": cancel_transposes,
        "activations": fold_activations,
        "padding": fold_padding,
        "bands": split_into_bands,
        "residuals": add_residuals,
        "squeeze_excite": join_squeeze_excite,
    }
)


def chosen_passes(names: Iterable[str] | None = None) -> tuple[str, ...]:
    """The names of the passes to run: `names`, else those in NPMOBILENET_FUSIONS (by commas, or "none"), else all.

    Raises `PlanError` for a name that there isn't.
    """
    if names is None:
        text = os.environ.get("NPMOBILENET_FUSIONS")
        names = PASSES if text is None else [n.strip() for n in text.split(",") if n.strip() not in ("", "none")]
    wanted = tuple(names)
    for name in wanted:
        if name not in PASSES:
            raise PlanError(f"fusion '{name}' is not one of {', '.join(PASSES)}, none")
    return wanted


def fused(graph: Graph, visible: Collection[str], names: Iterable[str] | None = None) -> list[Group]:
    """The graph's nodes in groups, in an order in which they can be computed. `visible`: tensors to be kept."""
    kept = {*visible, *graph.outputs, *graph.inputs}
    groups: list[Group] = [(node,) for node in graph.nodes]
    for name in chosen_passes(names):
        groups = PASSES[name](graph, groups, kept)
    return groups


__all__ = ["JOINED", "PASSES", "Group", "chosen_passes", "fused"]
