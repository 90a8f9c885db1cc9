"""Fusion: which nodes a plan computes together. Passes over the graph's nodes, each with a name that switches it on.

A pass never changes a value, only where values between nodes live, and hides no tensor that somebody looks at: taps
keep theirs. A plan for the book's kernels fuses nothing.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from types import MappingProxyType

from npmobilenet.errors import PlanError
from npmobilenet.graph import Graph, Node

# What one kernel call computes: a node, or several, of which only the last one's output remains.
Group = tuple[Node, ...]

JOINED = " + "  # between the names of nodes that have become one
ACTIVATED = ("conv2d", "depthwise_conv2d", "fully_connected", "average_pool", "add", "sub", "mul")
# Bytes from which on an image beside a depthwise convolution is worth splitting into bands: about what a second-level
# cache holds. Of V2 1.0_224, on a core with 1 MiB of it, blocks with images of 4.8 MB take 0.73 of the time, of 1.6 MB
# 0.81 to 1, of 0.6 and 0.45 MB 1 on one thread, and more on two, which both compute the rows where their parts meet.
LARGE = 900_000


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


def _is_float(graph: Graph, node: Node) -> bool:
    return all(graph.tensors[name].dtype == "float32" for name in (*node.inputs, node.output))


def _is_pointwise(graph: Graph, group: Group) -> bool:
    node = group[0]
    if len(group) > 1 or node.op != "conv2d" or not _is_float(graph, node):
        return False
    window = math.prod(graph.tensors[node.inputs[1]].shape[:2])
    return window == 1 and node.attrs["stride"] == (1, 1) and node.attrs["padding"] == ((0, 0), (0, 0))


Pass = Callable[[Graph, list[Group], Collection[str]], list[Group]]
PASSES: Mapping[str, Pass] = MappingProxyType({"activations": fold_activations, "bands": split_into_bands})


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
