"""Taps: names of intermediate values to look at, and the graph in which each has memory of its own.

A tap is an endpoint or a tensor's name; prefixed by "acc:", a convolution's or fully connected layer's accumulators
(float32: its result before the activation; integers: bias plus the sum of products, int32), and by "pre:", its result
before the activation's clamp (int32 in integer models: scaled and moved by the zero point; float32: as "acc:").
"""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass, field

from npmobilenet.arithmetic.convolution import accumulator_quantization
from npmobilenet.errors import PlanError, nearest, short_name
from npmobilenet.graph import Graph, Node, Tensor

ACC, PRE = "acc:", "pre:"
ACCUMULATING = ("conv2d", "depthwise_conv2d", "fully_connected")
_STAGES = {ACC: "accumulator", PRE: "preactivation"}


@dataclass
class Tapped:
    """The graph to plan; the tensor that each tap reads; and the stage (binding/context.py) of nodes added for taps."""

    graph: Graph
    kept: dict[str, str] = field(default_factory=dict)
    stages: dict[str, str] = field(default_factory=dict)


def split_prefix(tap: str) -> tuple[str, str]:
    """`("acc:" or "pre:" or "", the rest)`."""
    prefix = next((p for p in (ACC, PRE) if tap.startswith(p)), "")
    return prefix, tap.removeprefix(prefix)


def match_taps(graph: Graph, model: str, patterns: str | Iterable[str]) -> tuple[str, ...]:
    """The tap names that a pattern, or several, stand for, in graph order.

    Raises `PlanError` if one matches nothing, with the nearest names. `model` is what the message calls the model.
    """
    if not isinstance(patterns, Iterable):
        raise PlanError(f"taps={patterns!r}: expected a name, a pattern, or a list of them")
    values = [n for n, t in graph.tensors.items() if not t.constant]
    known = list(dict.fromkeys([*graph.endpoints, *values]))
    found: dict[str, None] = {}
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        if not isinstance(pattern, str):
            raise PlanError(f"tap {pattern!r}: expected a name or pattern, got {type(pattern).__name__}")
        prefix, bare = split_prefix(pattern)
        names = [n for n in known if _accumulates(graph, n)] if prefix else known
        hits = [bare] if bare in names else [n for n in names if fnmatch.fnmatchcase(n, bare) or short_name(n) == bare]
        if not hits and not (prefix and bare in known):
            near = ", ".join(prefix + short_name(name) for name in nearest(bare, names))
            hint = f"did you mean one of {near}?" if near else f"only {', '.join(ACCUMULATING)} have accumulators"
            raise PlanError(f"tap '{pattern}' matches nothing in {model}; {hint}")
        found.update(dict.fromkeys(prefix + n for n in hits or [bare]))
    return tuple(found)


def _accumulates(graph: Graph, name: str) -> bool:
    node = graph.producers.get(graph.endpoints.get(name, name))
    return node is not None and node.op in ACCUMULATING


def with_taps(graph: Graph, taps: Iterable[str]) -> Tapped:
    """The graph with what the taps ask for made visible. Raises `PlanError` for a tap that there isn't.

    A tap never changes another value. A float32 node with an activation is split in two; beside an integer node a
    second one writes the accumulators, or the unclamped results, from the same inputs.
    """
    tapped = Tapped(graph)
    wanted: dict[str, dict[str, str]] = {}  # node's output -> prefix -> name of the tensor that shows it
    for tap in taps:
        prefix, target = split_prefix(tap)
        name = graph.endpoints.get(target, target)
        if name not in graph.tensors or graph.tensors[name].constant:
            raise PlanError(f"no endpoint or tensor of '{graph.name}' is called '{target}'")
        tapped.kept[tap] = name
        if not prefix:
            continue
        node = graph.producers.get(name)
        if node is None or node.op not in ACCUMULATING:
            what = f"computed by {node.op}" if node else "an input"
            raise PlanError(f"'{tap}': '{name}' is {what}; only {', '.join(ACCUMULATING)} have accumulators")
        integer = graph.tensors[name].dtype != "float32"
        if not integer and node.attrs.get("activation", "none") == "none":
            continue
        shown = prefix if integer else ACC  # for float32 the two are the same
        tapped.kept[tap] = wanted.setdefault(name, {})[shown] = shown + name
    if wanted:
        tapped.graph = _show(graph, wanted, tapped.stages)
    return tapped


def _show(graph: Graph, wanted: dict[str, dict[str, str]], stages: dict[str, str]) -> Graph:
    nodes: list[Node] = []
    tensors = dict(graph.tensors)
    for node in graph.nodes:
        result = tensors[node.output]
        shown = wanted.get(node.output, {})
        if not shown or result.dtype != "float32":
            nodes.append(node)
        for prefix, name in shown.items():
            nodes.append(dataclasses.replace(node, name=name, output=name))
            if result.dtype == "float32":
                nodes[-1] = dataclasses.replace(node, output=name, attrs={**node.attrs, "activation": "none"})
                function = {"function": node.attrs["activation"]}
                nodes.append(Node(f"{name}/activation", "activation", (name,), node.output, function))
                tensors[name] = dataclasses.replace(result, name=name)
            else:
                tensors[name] = shown_tensor(graph, node, prefix)
                stages[name] = _STAGES[prefix]
    return dataclasses.replace(graph, nodes=tuple(nodes), tensors=tensors)


def shown_tensor(graph: Graph, node: Node, prefix: str) -> Tensor:
    """What a prefixed tap on an integer node holds: int32, with the quantization that gives it a real meaning."""
    result = graph.tensors[node.output]
    q = result.quantization
    if prefix == ACC:
        q = accumulator_quantization(graph.tensors[node.inputs[0]], graph.tensors[node.inputs[1]])
    return dataclasses.replace(result, name=prefix + node.output, dtype="int32", quantization=q)
