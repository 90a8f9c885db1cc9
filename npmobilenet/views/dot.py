"""A graph in the language of Graphviz: nodes with their shapes and cost, edges where values go."""

from __future__ import annotations

from npmobilenet.errors import one_line
from npmobilenet.formats.layer_names import short_names
from npmobilenet.graph import Graph


def dot(graph: Graph) -> str:
    """The graph as a DOT document; the darker a node, the larger its share of the multiply-accumulates."""
    values = [name for name, tensor in graph.tensors.items() if not tensor.constant]
    short, number = short_names(values), {name: i for i, name in enumerate(values)}
    most = max([graph.macs(node) for node in graph.nodes] + [1])
    lines = [f"digraph {_quoted(graph.name)} {{", "  node [shape=box, style=filled, fontname=sans];"]
    for name in graph.inputs:
        lines.append(f"  t{number[name]} [label={_label(short[name], 'input', _shape(graph, name))}, fillcolor=white];")
    for node in graph.nodes:
        macs = graph.macs(node)
        cost = [f"{macs / 1e6:.3g} M MACs"] if macs else []
        label = _label(short[node.output], node.op, _shape(graph, node.output), *cost)
        lines.append(f'  t{number[node.output]} [label={label}, fillcolor="0.08 {macs / most:.2f} 1.0"];')
        sources = dict.fromkeys(name for name in node.inputs if name in number)
        lines += [f"  t{number[name]} -> t{number[node.output]};" for name in sources]
    return "\n".join([*lines, "}", ""])


def _shape(graph: Graph, name: str) -> str:
    tensor = graph.tensors[name]
    return f"{tensor.dtype} {'x'.join(map(str, tensor.shape[1:]))}"


def _quoted(text: str) -> str:
    return '"' + one_line(text).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _label(*lines: str) -> str:
    return '"' + "\\n".join(_quoted(line)[1:-1] for line in lines) + '"'
