"""A float graph in the ops that have integer kernels: what no kernel fuses becomes nodes of its own.

As TensorFlow's converter writes it: convolutions fuse relu, relu6 and relu_n1_to_1; hard-swish and sigmoid follow as
ops; a hard sigmoid is relu6(x + 3) * c, whose 3 goes into the bias of the convolution before it, and whose product with
c is a multiplication by a constant. The values are those of the float graph but for that 3, added in another order.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from npmobilenet.errors import InputError
from npmobilenet.graph import Graph, Node, Tensor
from npmobilenet.modeldata import Array, ModelData

FUSED = ("none", "relu", "relu6", "relu_n1_to_1")
GATES: Mapping[str, np.float32] = {"hard_sigmoid": np.float32(1 / 6), "hard_sigmoid_slim": np.float32(0.16667)}
LAYERS = ("conv2d", "depthwise_conv2d", "fully_connected")
NOTHING_FUSED = ("concat",)


def lower(data: ModelData) -> ModelData:
    """The same model, every node of it one that an integer kernel can run. Lowering twice changes nothing more.

    New tensors are called after the value that they lead to: `NAME/linear` before a separate activation, `NAME/relu6`
    and `NAME/factor` within a hard sigmoid. Raises `InputError` if the model isn't float32 throughout.
    """
    places = {node.output for node in data.graph.nodes if node.op == "arg_max"}
    other = [
        f"'{t.name}' ({t.dtype})" for t in data.graph.tensors.values() if t.dtype != "float32" and t.name not in places
    ]
    if other:
        raise InputError(
            f"'{data.info.name}' is not a float32 model: {len(other)} tensors are not, such as {other[0]}; "
            "quantize the float model that it was made from"
        )
    work = _Lowering(data)
    for node in data.graph.nodes:
        work.add(node)
    graph = dataclasses.replace(data.graph, nodes=tuple(work.nodes), tensors=work.used_tensors())
    return ModelData(graph, {name: work.arrays[name] for name in graph.constants}, data.info)


class _Lowering:
    """The graph as it grows; arrays of constants that are no longer used are left out at the end."""

    def __init__(self, data: ModelData) -> None:
        self.graph: Graph = data.graph
        self.tensors = dict(data.graph.tensors)
        self.arrays: dict[str, Array] = dict(data.tensors)
        self.nodes: list[Node] = []

    def add(self, node: Node) -> None:
        """The node itself, or the nodes that it becomes."""
        attr = "function" if node.op == "activation" else "activation"
        name = str(node.attrs.get(attr, "none"))
        if node.op == "activation":
            if name in GATES:
                three = self.scalar(f"{node.output}/three", np.float32(3), node.inputs[0])
                x = self.value(f"{node.output}/relu6", node.output)
                attrs = {"activation": "relu6"}
                self.nodes.append(Node(self.node_name(f"{node.name}/relu6"), "add", (node.inputs[0], three), x, attrs))
                self.gate(node, x, GATES[name])
            else:
                self.nodes.append(node)
        elif name in ("none", *FUSED) and (name == "none" or node.op not in NOTHING_FUSED):
            self.nodes.append(node)
        elif name in GATES and node.op in LAYERS:
            x = self.value(f"{node.output}/relu6", node.output)
            shifted = self.constant(f"{node.inputs[2]}_plus_3", self.arrays[node.inputs[2]] + np.float32(3))
            inputs = (*node.inputs[:2], shifted)
            attrs = {**node.attrs, "activation": "relu6"}
            self.nodes.append(dataclasses.replace(node, inputs=inputs, output=x, attrs=attrs))
            self.gate(node, x, GATES[name])
        else:
            x = self.value(f"{node.output}/linear", node.output)
            attrs = {k: v for k, v in node.attrs.items() if k != "activation"}
            self.nodes.append(dataclasses.replace(node, output=x, attrs=attrs))
            follow = Node(self.node_name(f"{node.name}/{name}"), "activation", (x,), node.output, {"function": name})
            self.add(follow)

    def gate(self, node: Node, x: str, factor: np.float32) -> None:
        """`node.output` = x * factor."""
        constant = self.scalar(f"{node.output}/factor", factor, x)
        self.nodes.append(Node(self.node_name(f"{node.name}/gate"), "mul", (x, constant), node.output))

    def value(self, name: str, like: str) -> str:
        """Declare a computed tensor of the shape of `like`."""
        name = self.fresh(name)
        self.tensors[name] = dataclasses.replace(self.tensors[like], name=name, source="")
        return name

    def constant(self, name: str, array: Array) -> str:
        """Declare a constant."""
        name = self.fresh(name)
        self.tensors[name] = Tensor(name, array.shape, "float32", constant=True)
        self.arrays[name] = array
        return name

    def scalar(self, name: str, value: np.float32, like: str) -> str:
        """Declare a constant of one element, of the rank of `like`."""
        rank = len(self.tensors[like].shape)
        return self.constant(name, np.full((1,) * rank, value, np.float32))

    def fresh(self, name: str) -> str:
        """A tensor name that is free, from the one given."""
        return free(name, self.tensors)

    def node_name(self, name: str) -> str:
        """A node name that is free, from the one given."""
        return free(name, {node.name: node for node in (*self.graph.nodes, *self.nodes)})

    def used_tensors(self) -> dict[str, Tensor]:
        """All tensors but constants that no node reads any more."""
        read = {name for node in self.nodes for name in node.inputs}
        return {name: t for name, t in self.tensors.items() if not t.constant or name in read}


def free(name: str, taken: Mapping[str, object]) -> str:
    """`name`, or `name_2`, `name_3`, ... if it is taken."""
    found, count = name, 1
    while found in taken:
        count += 1
        found = f"{name}_{count}"
    return found
