"""`npmobilenet info`: all that is known of a model without running it. Nothing is compiled."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from npmobilenet.cli.figures import figure, figures
from npmobilenet.cli.options import json_option
from npmobilenet.cli.output import (
    Column,
    mebibytes,
    millions,
    print_assumed,
    print_facts,
    print_json,
    print_line,
    print_table,
    shape_text,
)
from npmobilenet.errors import ModelNotFound, PlanError, short_name

if TYPE_CHECKING:
    from npmobilenet.graph import Graph, Node
    from npmobilenet.modeldata import ModelData, ModelInfo


@click.command()
@click.argument("model")
@click.option("--layers", is_flag=True, help="Add the table of layers.")
@click.option("--dot", "as_dot", is_flag=True, help="Print the graph for Graphviz instead: shapes, and cost as colour.")
@click.option("--html", "as_html", is_flag=True, help="Print a page with the graph instead: layers, shapes, cost.")
@json_option()
def info(model: str, layers: bool, as_dot: bool, as_html: bool, as_json: bool) -> None:
    """Describe MODEL without running it.

    Input, output, work, memory, labels, provenance. MODEL is a name (no weights needed) or the path of a model file.
    MACs are multiply-accumulates for one image; parameters are what the file or checkpoint holds, moving statistics of
    batch norm left out. In JSON, "computed" counts one by one and "published" is the published cell, in millions, as
    printed.
    """
    data, path = _find(model)
    graph, facts = data.graph, data.info
    if as_dot:
        from npmobilenet.views.dot import dot

        click.echo(dot(graph), nl=False)  # whose names are printable already
        return
    document = describe(graph, facts, path)
    document["dead_channels"] = _dead(data)
    if layers or as_html:
        document["layers"] = [_layer(graph, node) for node in graph.nodes]
    if as_html:
        from npmobilenet.views.graph_page import graph_page

        click.echo(graph_page(graph, document["layers"], _lines(document)), nl=False)
        return
    if as_json:
        print_assumed(facts)
        print_json(document)
        return
    print_facts(_lines(document))
    if layers:
        print_line()
        _print_layers(document["layers"])


def _find(model: str) -> tuple[ModelData, Path | None]:
    """A file's model; or, for a name whose weights aren't on this machine, the zoo's, without any."""
    from npmobilenet.formats.model_path import find, load_data
    from npmobilenet.modeldata import ModelData, ModelInfo
    from npmobilenet.zoo.build import build_model
    from npmobilenet.zoo.checkpoints import parse, relative_note

    try:
        path = find(model)
    except ModelNotFound as error:
        try:
            name = parse(model)
        except ModelNotFound:
            raise error from None
        note = relative_note(model)
        facts = ModelInfo(str(name), "imagenet", label_offset=1, provenance={"name": note} if note else {})
        return ModelData(build_model(str(name)), {}, facts), None
    return load_data(path), path


# ---------------------------------------------------------------------------------------------------------------------
# What is known


def describe(graph: Graph, facts: ModelInfo, path: Path | None) -> dict[str, Any]:
    """Everything but the layers, ready for JSON. `path` is None for a graph of the zoo, without weights."""
    from npmobilenet.zoo.checkpoints import resolve

    try:
        row: dict[str, Any] | None = figures(resolve(facts.name))
    except ModelNotFound:
        row = None
    labels = facts.labels if isinstance(facts.labels, str) else list(facts.labels)
    return {
        "name": facts.name,
        "file": None if path is None else os.fspath(path),
        "inputs": [_port(graph, name) for name in graph.inputs],
        "outputs": [_port(graph, name) for name in graph.outputs],
        "nodes": len(graph.nodes),
        "ops": dict(Counter(node.op for node in graph.nodes).most_common()),
        "macs": figure(graph.total_macs, row["macs"]["published"] if row else None),
        "params": {
            **figure(graph.total_params(), row["params"]["published"] if row else None),
            "computed_with_batch_norm": graph.total_params(batch_norm=True),
        },
        "note": row["note"] if row else "",
        "memory": _memory(graph),
        "labels": labels,
        "label_offset": facts.label_offset,
        "preprocessing": facts.preprocessing,
        "assumed": list(facts.assumed),
        "published_name": row["name"] if row else None,
        "url": row["url"] if row else None,
        "published": row["published"] if row else {},
        "provenance": dict(facts.provenance),
    }


def _port(graph: Graph, name: str) -> dict[str, Any]:
    tensor = graph.tensors[name]
    q = tensor.quantization
    return {
        "name": name,
        "shape": list(tensor.shape),
        "dtype": tensor.dtype,
        "scale": q.scale[0] if q else None,
        "zero_point": q.zero_point[0] if q else None,
    }


def _memory(graph: Graph) -> dict[str, Any]:
    """Bytes for one image. `arena` (intermediate values) and `ideal` are None where the graph can't be planned."""
    import numpy as np

    from npmobilenet.runtime.plan import Plan, ideal_bytes

    sizes = {name: t.size * np.dtype(t.dtype).itemsize for name, t in graph.constants.items()}
    memory: dict[str, Any] = {"weights": sum(sizes.values()), "arena": None, "ideal": None}
    zeros = {name: np.zeros(t.shape, t.dtype) for name, t in graph.constants.items()}
    try:
        plan = Plan(graph, zeros, "python")  # this kernel set needs no compiler
    except PlanError:
        return memory
    return {**memory, "arena": plan.arena_bytes, "ideal": ideal_bytes(graph)}


def _dead(data: ModelData) -> dict[str, int]:
    """How many channels of each integer layer have the factor 0 in fixed point, so that no accumulator shows."""
    from npmobilenet.arithmetic.convolution import requantization
    from npmobilenet.arithmetic.dialects import DIALECTS, dialect
    from npmobilenet.runtime.taps import ACCUMULATING

    tensors, rules, found = data.graph.tensors, dialect(next(iter(DIALECTS))), {}
    for node in data.graph.nodes if data.tensors else ():
        if node.op in ACCUMULATING and tensors[node.output].dtype != "float32":
            x, weights = (tensors[name] for name in node.inputs[:2])
            try:
                step = requantization(node, x, weights, tensors[node.output], rules)
            except PlanError:
                continue
            if count := int((step.multiplier == 0).sum()):
                found[node.name] = count
    return found


def _layer(graph: Graph, node: Node) -> dict[str, Any]:
    """A node; `kernel` and `stride` are (height, width), None where the op has none."""
    kernel = node.attrs.get("kernel")
    if node.op in ("conv2d", "depthwise_conv2d"):
        kernel = graph.tensors[node.inputs[1]].shape[:2]
    stride = node.attrs.get("stride")
    return {
        "name": node.name,
        "op": node.op,
        "kernel": None if kernel is None else list(kernel),
        "stride": None if stride is None else list(stride),
        "activation": node.attrs.get("function", node.attrs.get("activation", "none")),
        "output": node.output,
        "output_shape": list(graph.tensors[node.output].shape),
        "macs": graph.macs(node),
        "params": graph.params(node),
        "params_with_batch_norm": graph.params(node, batch_norm=True),
    }


# ---------------------------------------------------------------------------------------------------------------------
# As text


def _lines(document: dict[str, Any]) -> list[tuple[str, object]]:
    from npmobilenet.modeldata import ASSUMED

    macs, params = document["macs"], document["params"]
    with_batch_norm = params["computed_with_batch_norm"]
    counted = f"{params['computed'] / 1e6:.2f} M"
    if with_batch_norm != params["computed"]:
        counted += f", {with_batch_norm / 1e6:.2f} M with batch norm"
    lines: list[tuple[str, object]] = [
        ("name", document["name"]),
        ("file", document["file"] or "none: the zoo's graph, without weights"),
        *(("input", _port_text(port)) for port in document["inputs"]),
        *(("output", _port_text(port)) for port in document["outputs"]),
        ("ops", ", ".join(f"{count} {op}" for op, count in document["ops"].items())),
        ("MACs", f"{millions(macs['computed'])} M{_published(macs, document)}"),
        ("parameters", f"{counted}{_published(params, document)}"),
    ]
    if document["note"]:
        lines.append(("", document["note"]))
    if dead := document["dead_channels"]:
        text = "their factor is 0, which makes their output constant and hides an accumulator that overflows"
        lines.append(("dead channels", f"{sum(dead.values())} in {len(dead)} layers: {text}"))
    lines += [
        ("memory", _memory_text(document["memory"])),
        ("labels", _labels_text(document)),
        ("preprocessing", document["preprocessing"]),
        *(("" if i else "assumed", sentence) for i, sentence in enumerate(document["assumed"])),
    ]
    if document["url"]:
        lines.append(("published at", document["url"]))
    notes = [f"{key}: {value}" for key, value in document["provenance"].items() if key != ASSUMED]
    return [*lines, *(("" if i else "provenance", note) for i, note in enumerate(notes))]


def _port_text(port: dict[str, Any]) -> str:
    quantized = "" if port["scale"] is None else f", scale {port['scale']:g}, zero point {port['zero_point']}"
    return f"{short_name(port['name'])}: {port['dtype']} {shape_text(port['shape'])}{quantized}"


def _published(counted: dict[str, Any], document: dict[str, Any]) -> str:
    """The published cell. A file is taken for a published model by its name only, so that name is given."""
    name = document["published_name"]
    whose = "" if name == document["name"] else f" for {name}"
    return f" (published{whose}: {counted['published']})" if counted["published"] else ""


def _memory_text(memory: dict[str, Any]) -> str:
    weights = f"{mebibytes(memory['weights'])} weights"
    if memory["arena"] is None:
        return f"{weights}; this version can't run the model, so no plan was made"
    arena, ideal = mebibytes(memory["arena"]), mebibytes(memory["ideal"])
    return f"{weights} + {arena} intermediate values for one image (no plan can need less than {ideal} in all)"


def _labels_text(document: dict[str, Any]) -> str:
    labels, offset = document["labels"], document["label_offset"]
    if not labels:
        return "none"
    what = f"the bundled list '{labels}'" if isinstance(labels, str) else f"{len(labels)} names: {_some(labels)}"
    return f"{what}, from class {offset} on" + (" (0 is background)" if offset == 1 else "")


def _some(names: list[str]) -> str:
    return "; ".join(names if len(names) <= 8 else [*names[:3], "...", names[-1]])


def _print_layers(layers: list[dict[str, Any]]) -> None:
    from npmobilenet.formats.layer_names import short_names

    short = short_names([layer["name"] for layer in layers])
    columns = [
        Column("layer"), Column("op"), Column("kernel"), Column("stride", rank=1), Column("activation", rank=2),
        Column("output"), Column("MACs M", right=True), Column("params", right=True),
    ]  # fmt: skip
    rows = [
        (
            short_name(short[layer["name"]]),
            layer["op"],
            _pair(layer["kernel"]),
            _pair(layer["stride"]),
            layer["activation"] if layer["activation"] != "none" else None,
            "x".join(map(str, layer["output_shape"][1:])),
            f"{layer['macs'] / 1e6:.3f}" if layer["macs"] else None,
            layer["params"] or None,
        )
        for layer in layers
    ]
    print_table(columns, rows)


def _pair(pair: list[int] | None) -> str | None:
    return None if pair is None else "x".join(map(str, pair))
