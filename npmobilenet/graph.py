"""The graph: typed tensors and nodes, one representation for zoo models and imported files.

A `Graph` is plain data (it round-trips through JSON, `to_json` and `from_json`) and holds no weights: constants are
declared here by name, shape and dtype, and their arrays travel beside the graph in a dict with the same names.

Conventions
-----------
* Activations are NHWC. Shapes carry a leading batch dimension that is always 1 here: a graph describes the work for
  one image, and the engine runs any batch size. No op may mix the batch dimension with another.
* Convolution weights are `(kernel_h, kernel_w, in_channels, out_channels)`; depthwise weights
  `(kernel_h, kernel_w, in_channels * multiplier)` with output channel `c * multiplier + m`; fully connected weights
  `(in_features, out_features)`; biases `(out_channels,)`.
* Padding is explicit: `((top, bottom), (left, right))` in pixels. `same_padding` gives TensorFlow's "SAME".
* Batch norm does not occur: it is folded into weights and biases when a model is converted (`formats/batch_norm.py`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

from npmobilenet.errors import GraphError
from npmobilenet.ops import (
    ACTIVATIONS,
    DTYPES,
    MAX_RANK,
    OPS,
    Node,
    Padding,
    Quantization,
    Tensor,
    infer_shape,
    misfit,
    same_padding,
    window_output,
)

__all__ = [
    "ACTIVATIONS", "DTYPES", "OPS", "Graph", "GraphBuilder", "Node", "Padding", "Quantization", "Tensor", "infer_shape",
    "same_padding", "window_output",
]  # fmt: skip


MAX_NODES = 10_000  # MobileNets have some 120; what planning does for each pair of values takes seconds at this number


@dataclass(frozen=True)
class Graph:
    """Nodes in execution order, the tensors that they connect, and names for what a user may want to look at.

    `endpoints` maps a published name (TF-slim's endpoint, a TFLite tensor index) to the tensor that holds it.

    Raises `GraphError` when made from parts that don't fit: duplicate or dangling names, a value used before it is
    computed, an unknown op or attribute, a shape that the op doesn't produce, a tensor nobody uses.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    tensors: Mapping[str, Tensor]
    nodes: tuple[Node, ...]
    endpoints: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        return (
            f"<Graph {self.name}: {len(self.nodes)} nodes, inputs {self.inputs!r:.200}, outputs {self.outputs!r:.200}>"
        )

    def __post_init__(self) -> None:
        object.__setattr__(self, "tensors", MappingProxyType(dict(self.tensors)))
        object.__setattr__(self, "endpoints", MappingProxyType(dict(self.endpoints)))
        self._check()

    def __reduce__(self) -> tuple[Any, ...]:
        """For copy and pickle, which can't take a MappingProxyType."""
        maps = dict(self.tensors), self.nodes, dict(self.endpoints)
        return Graph, (self.name, self.inputs, self.outputs, *maps)

    def _check(self) -> None:
        if len(self.inputs) < 1 or len(self.outputs) < 1:
            raise GraphError(f"graph '{self.name}': it has no input or no output")
        if max(len(self.nodes), len(self.inputs)) > MAX_NODES:
            raise GraphError(f"graph '{self.name}': more than {MAX_NODES} nodes or inputs; no MobileNet has so many")
        for key, tensor in self.tensors.items():
            if key != tensor.name:
                raise GraphError(f"graph '{self.name}': tensor '{tensor.name}' is listed under the name '{key}'")
            _check_tensor(tensor)
        _unique("input", self.inputs)
        _unique("node", [node.name for node in self.nodes])
        ready = {name for name, tensor in self.tensors.items() if tensor.constant}
        for name in self.inputs:
            if name not in self.tensors or name in ready:
                raise GraphError(f"graph '{self.name}': input '{name}' is not a declared, non-constant tensor")
            ready.add(name)
        used: set[str] = set(self.outputs)
        for node in self.nodes:
            self._check_node(node, ready)
            ready.add(node.output)
            used.update(node.inputs)
        for what, name in [*(("output", n) for n in self.outputs), *self.endpoints.items()]:
            if name not in ready or self.tensors[name].constant:
                raise GraphError(f"graph '{self.name}': {what} names the tensor '{name}', which nothing computes")
        idle = [n for n, t in self.tensors.items() if n not in ready or (t.constant and n not in used)]
        if idle:
            raise GraphError(f"graph '{self.name}': tensors that no node computes or uses: {', '.join(sorted(idle))}")

    def _check_node(self, node: Node, ready: set[str]) -> None:
        spec = OPS.get(node.op)
        if spec is None:
            raise GraphError(f"node '{node.name}': unknown op '{node.op}'; known: {', '.join(OPS)}")
        dangling = [name for name in node.inputs if name not in ready]
        if dangling:
            raise GraphError(f"node '{node.name}' ({node.op}) reads {', '.join(map(repr, dangling))}, "
                             "which nothing before it computes")  # fmt: skip
        if node.output in ready or node.output not in self.tensors:
            state = "written twice" if node.output in ready else "not declared"
            raise GraphError(f"node '{node.name}' ({node.op}): its output '{node.output}' is {state}")
        inputs = [self.tensors[name] for name in node.inputs]
        shape = infer_shape(node, inputs)
        if shape != self.tensors[node.output].shape:
            raise misfit(node, f"an output of shape {shape}", self.tensors[node.output].shape)

    @property
    def constants(self) -> dict[str, Tensor]:
        """The declared weights, in the order of their first use."""
        return {n: self.tensors[n] for node in self.nodes for n in node.inputs if self.tensors[n].constant}

    @cached_property
    def producers(self) -> Mapping[str, Node]:
        """The node that computes each tensor, by the tensor's name."""
        return MappingProxyType({node.output: node for node in self.nodes})

    def macs(self, node: Node) -> int:
        """Multiply-accumulates of a convolution or fully connected node for one image, padded taps included."""
        if OPS[node.op].weights < 2:
            return 0
        weights = self.tensors[node.inputs[1]].shape
        positions = math.prod(self.tensors[node.output].shape[1:-1])
        return positions * math.prod(weights)

    def params(self, node: Node, batch_norm: bool = False) -> int:
        """Weights and biases of a node as its checkpoint holds them.

        A convolution followed by batch norm has no bias of its own; `batch_norm=True` counts its gamma and beta
        (2 for each output channel) instead. Moving statistics are never counted, as in the published tables.
        """
        if OPS[node.op].weights < 2:
            return 0
        weights, bias = (self.tensors[name].size for name in node.inputs[1:3])
        if not node.batch_norm:
            return weights + bias
        return weights + (2 * bias if batch_norm else 0)

    @property
    def total_macs(self) -> int:
        """Sum of `macs` over all nodes."""
        return sum(self.macs(node) for node in self.nodes)

    def total_params(self, batch_norm: bool = False) -> int:
        """Sum of `params` over all nodes."""
        return sum(self.params(node, batch_norm) for node in self.nodes)

    def to_json(self) -> str:
        """The graph as JSON with sorted keys: equal graphs give equal text."""
        return json.dumps(
            {
                "name": self.name,
                "inputs": self.inputs,
                "outputs": self.outputs,
                "endpoints": dict(self.endpoints),
                "tensors": [_tensor_to_json(t) for t in self.tensors.values()],
                "nodes": [_node_to_json(n) for n in self.nodes],
            },
            sort_keys=True,
            separators=(",", ":"),
        )

    @staticmethod
    def from_json(text: str | bytes) -> Graph:
        """Inverse of `to_json`. Raises `GraphError` on anything that isn't a sound graph."""
        try:
            data = json.loads(text)
            return Graph(
                name=_typed(data["name"], str),
                inputs=_names(data["inputs"]),
                outputs=_names(data["outputs"]),
                tensors=_by_name(_tensor_from_json(t) for t in data["tensors"]),
                nodes=tuple(_node_from_json(n) for n in data["nodes"]),
                endpoints={_typed(k, str): _typed(v, str) for k, v in data["endpoints"].items()},
            )
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, OverflowError) as error:
            raise GraphError(
                f"the graph's JSON is not of the expected form: {type(error).__name__}: {error}"
            ) from error


def _check_tensor(tensor: Tensor) -> None:
    if tensor.dtype not in DTYPES:
        raise GraphError(f"tensor '{tensor.name}': dtype '{tensor.dtype}' is not one of {', '.join(DTYPES)}")
    if len(tensor.shape) > MAX_RANK:
        raise GraphError(f"tensor '{tensor.name}': {len(tensor.shape)} dimensions, expected at most {MAX_RANK}")
    if any(d < 1 for d in tensor.shape) or (not tensor.constant and tensor.shape[:1] != (1,)):
        wanted = "dimensions of at least 1" + ("" if tensor.constant else ", the first of them 1")
        raise GraphError(f"tensor '{tensor.name}': shape {tensor.shape}, expected {wanted}")


class GraphBuilder:
    """Adds tensors and nodes one by one, inferring shapes; `finish` returns the checked `Graph`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.tensors: dict[str, Tensor] = {}
        self.nodes: list[Node] = []
        self.inputs: list[str] = []
        self.endpoints: dict[str, str] = {}

    def tensor(self, tensor: Tensor) -> str:
        """Declare a tensor; a second one of the same name is refused."""
        if tensor.name in self.tensors:
            raise GraphError(f"graph '{self.name}': two tensors are called '{tensor.name}'")
        _check_tensor(tensor)
        self.tensors[tensor.name] = tensor
        return tensor.name

    def input(self, name: str, shape: tuple[int, ...], dtype: str = "float32", **more: Any) -> str:
        """Declare an input of the graph; `shape` has the leading batch dimension 1."""
        self.inputs.append(self.tensor(Tensor(name, shape, dtype, **more)))
        return name

    def constant(self, name: str, shape: tuple[int, ...], dtype: str = "float32", **more: Any) -> str:
        """Declare a weight, whose array is kept elsewhere under the same name."""
        return self.tensor(Tensor(name, shape, dtype, constant=True, **more))

    def node(
        self, op: str, inputs: Iterable[str], output: str, *, name: str = "", dtype: str = "float32",
        quantization: Quantization | None = None, source: str = "", scope: str = "", batch_norm: bool = False,
        **attrs: Any,
    ) -> str:  # fmt: skip
        """Add a node writing the new tensor `output`, its shape inferred; the node is called `name` or `output`."""
        node = Node(name or output, op, tuple(inputs), output, attrs, scope, batch_norm)
        if op not in OPS:
            raise GraphError(f"node '{node.name}': unknown op '{op}'; known: {', '.join(OPS)}")
        missing = [n for n in node.inputs if n not in self.tensors]
        if missing:
            raise GraphError(
                f"node '{node.name}' ({op}) reads {', '.join(map(repr, missing))}, which doesn't exist yet"
            )
        shape = infer_shape(node, [self.tensors[n] for n in node.inputs])
        self.tensor(Tensor(output, shape, dtype, quantization=quantization, source=source))
        self.nodes.append(node)
        return output

    def finish(self, outputs: Iterable[str]) -> Graph:
        """The graph, with everything checked once more as a whole."""
        return Graph(self.name, tuple(self.inputs), tuple(outputs), self.tensors, tuple(self.nodes), self.endpoints)


# ---------------------------------------------------------------------------------------------------------------------
# JSON


def _tensor_to_json(tensor: Tensor) -> dict[str, Any]:
    data: dict[str, Any] = {"name": tensor.name, "shape": tensor.shape, "dtype": tensor.dtype}
    if tensor.constant:
        data["constant"] = True
    if tensor.source:
        data["source"] = tensor.source
    if tensor.quantization is not None:
        q = tensor.quantization
        data["quantization"] = {"scale": q.scale, "zero_point": q.zero_point, "axis": q.axis}
    return data


def _tensor_from_json(data: Mapping[str, Any]) -> Tensor:
    quantization = None
    if "quantization" in data:
        q = data["quantization"]
        quantization = Quantization(
            tuple(float(s) for s in q["scale"]),
            tuple(_typed(z, int) for z in q["zero_point"]),
            None if q["axis"] is None else _typed(q["axis"], int),
        )
    return Tensor(
        _typed(data["name"], str),
        tuple(_typed(d, int) for d in data["shape"]),
        _typed(data["dtype"], str),
        _typed(data.get("constant", False), bool),
        quantization,
        _typed(data.get("source", ""), str),
    )


def _node_to_json(node: Node) -> dict[str, Any]:
    facts = {"open_shapes": True} if node.open_shapes else {}
    return {"name": node.name, "op": node.op, "inputs": node.inputs, "output": node.output, "attrs": dict(node.attrs),
            "scope": node.scope, "batch_norm": node.batch_norm, **facts}  # fmt: skip


def _node_from_json(data: Mapping[str, Any]) -> Node:
    attrs = {_typed(k, str): _attr(v) for k, v in data["attrs"].items()}
    undelegated = attrs.pop("delegated", True) is False  # how older files say that shapes are open
    return Node(
        _typed(data["name"], str),
        _typed(data["op"], str),
        _names(data["inputs"]),
        _typed(data["output"], str),
        attrs,
        _typed(data.get("scope", ""), str),
        _typed(data.get("batch_norm", False), bool),
        undelegated or _typed(data.get("open_shapes", False), bool),
    )


def _names(value: Any) -> tuple[str, ...]:
    return tuple(_typed(name, str) for name in _typed(value, list))


def _attr(value: Any) -> Any:
    """JSON's lists are tuples here; nothing but numbers, strings, booleans and tuples of them is allowed."""
    if isinstance(value, list):
        return tuple(_attr(v) for v in value)
    if isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"attribute value {value!r}")


def _typed(value: Any, kind: type) -> Any:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TypeError(f"{value!r} where a {kind.__name__} is expected")
    return value


def _unique(what: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise GraphError(f"two {what}s are called '{name}'")
        seen.add(name)


def _by_name(tensors: Iterable[Tensor]) -> dict[str, Tensor]:
    found = list(tensors)
    _unique("tensor", [t.name for t in found])
    return {t.name: t for t in found}
