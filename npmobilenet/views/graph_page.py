"""The page of `npmobilenet info --html`: what is known of a model, and its graph, layer under layer, with their cost.

One file in ASCII without scripts; it loads nothing. Whatever comes from a model stands in it as escaped text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from npmobilenet.errors import one_line
from npmobilenet.formats.layer_names import short_names
from npmobilenet.graph import Graph

ROW, LANE = 26, 9  # pixels: a row's height, and the distance between lines that pass by each other
MOST_LANES = 12  # beyond, lines share the last

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --dim: #57606a; --line: #d0d7de; --bar: #0072b2; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --dim: #9aa5b1; --line: #39424d; --bar: #56b4e9; } }
body { margin: 1rem; color: var(--ink); font: 14px/1.4 system-ui, sans-serif; }
h1 { font-size: 1.25rem; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .1rem 1rem; }
dt { color: var(--dim); } dd { margin: 0; overflow-wrap: anywhere; }
.graph { display: flex; overflow-x: auto; }
svg { flex: none; } path { fill: none; stroke: var(--dim); } circle { fill: var(--bar); }
table { border-collapse: collapse; } tr { height: ROWpx; }
td, th { padding: 0 .6rem; white-space: nowrap; border-bottom: 1px solid var(--line); text-align: left; }
th { color: var(--dim); font-weight: 400; } .n { text-align: right; font-variant-numeric: tabular-nums; }
i { display: inline-block; height: 9px; background: var(--bar); }
""".replace("ROW", str(ROW))


def graph_page(graph: Graph, layers: Sequence[Mapping[str, Any]], facts: Sequence[tuple[str, object]]) -> str:
    """The page as HTML. `layers`: the rows of `info --layers --json`; `facts`: labels and texts, shown above."""
    names = [*graph.inputs, *(node.output for node in graph.nodes)]
    short = short_names(names)
    whole = [max(1, sum(layer[key] for layer in layers)) for key in ("macs", "params")]
    rows = [_row(short[name], "input", graph, name, (0, 0), whole) for name in graph.inputs]
    rows += [
        _row(short[layer["output"]], _op(layer), graph, layer["output"], (layer["macs"], layer["params"]), whole)
        for layer in layers
    ]
    heads = "".join(f"<th>{text}</th>" for text in ("layer", "op", "values"))
    heads += "".join(f'<th class="n">{text}</th><th>share</th>' for text in ("MACs, M", "parameters"))
    known = "".join(f"<dt>{_text(label)}</dt><dd>{_text(text)}</dd>" for label, text in facts)
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>npmobilenet: {_text(graph.name)}</title>\n<style>{STYLE}</style></head>\n<body>\n"
        f"<h1>{_text(graph.name)}</h1>\n<dl>{known}</dl>\n"
        f'<div class="graph">{_lines(graph, names)}\n<table><tr>{heads}</tr>\n' + "\n".join(rows) + "\n</table></div>\n"
        "</body></html>\n"
    )
    return page.encode("ascii", "xmlcharrefreplace").decode("ascii")


def _text(text: object) -> str:
    return escape(one_line(str(text)))


def _op(layer: Mapping[str, Any]) -> str:
    kernel, stride = layer["kernel"], layer["stride"]
    parts = [layer["op"], "x".join(map(str, kernel)) if kernel else ""]
    parts += [f"stride {stride[0]}x{stride[1]}"] if stride and list(stride) != [1, 1] else []
    parts += [layer["activation"]] if layer["activation"] != "none" else []
    return " ".join(filter(None, parts))


def _row(name: str, op: str, graph: Graph, tensor: str, costs: tuple[int, int], whole: Sequence[int]) -> str:
    known = graph.tensors[tensor]
    cells = [name, op, f"{known.dtype} {'x'.join(map(str, known.shape[1:]))}"]
    shown = f"{costs[0] / 1e6:.3f}" if costs[0] else "", f"{costs[1]:,}" if costs[1] else ""
    row = f'<tr title="{_text(tensor)}">' + "".join(f"<td>{_text(cell)}</td>" for cell in cells)
    for text, cost, total in zip(shown, costs, whole, strict=True):
        share = cost / total
        row += f'<td class="n">{text}</td><td><i style="width:{400 * share:.1f}px"></i>'
        row += f" {share:.1%}</td>" if cost else "</td>"
    return row + "</tr>"


def _lines(graph: Graph, names: Sequence[str]) -> str:
    """Points and lines beside the table: straight down to the next row, else past the rows between, on a free lane."""
    place = {name: i for i, name in enumerate(names)}
    edges = sorted(
        {(place[name], place[node.output]) for node in graph.nodes for name in node.inputs if name in place},
        key=lambda edge: (edge[1] - edge[0], edge),
    )
    taken: list[list[tuple[int, int]]] = [[] for _ in range(MOST_LANES)]
    paths, most = [], 0
    for a, b in edges:
        if b == a + 1:
            paths.append((a, b, 0))
            continue
        free = (i for i, lane in enumerate(taken) if all(b <= first or last <= a for first, last in lane))
        lane = next(free, MOST_LANES - 1)
        taken[lane].append((a, b))
        paths.append((a, b, lane + 1))
        most = max(most, lane + 1)
    x = (most + 1) * LANE
    middle = [ROW * (i + 1) + ROW / 2 for i in range(len(names))]  # below the table's head
    drawn = [
        f'<path d="M{x} {middle[a]:g}' + (f"H{x - lane * LANE}" if lane else "") + f'V{middle[b]:g}H{x}"/>'
        for a, b, lane in paths
    ]
    drawn += [f'<circle cx="{x}" cy="{y:g}" r="3.5"/>' for y in middle]
    size = f'width="{x + LANE}" height="{ROW * (len(names) + 1)}"'
    return f'<svg {size} role="img" aria-label="which layer reads which">{"".join(drawn)}</svg>'
