"""`npmobilenet bench`: how long a model takes here, from import to steady runs, and how much memory."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from npmobilenet.cli.options import json_option, threads_option
from npmobilenet.cli.output import Column, mebibytes, millions, print_facts, print_json, print_line, print_table
from npmobilenet.errors import short_name

STAGES = {
    "import": "import npmobilenet",
    "load": "load the model",
    "plan": "plan it (and import Numba)",
    "compile": "compile its kernels",
    "first": "first inference",
}


@click.command()
@click.argument("model")
@click.option("--batch", type=click.IntRange(min=1), default=1, show_default=True, metavar="N",
              help="Images in one run, up to 8.")  # fmt: skip
@threads_option()
@click.option("--runs", type=click.IntRange(min=1), default=100, show_default=True, metavar="N",
              help="Steady runs to measure.")  # fmt: skip
@click.option("--layers", is_flag=True, help="Time each layer, beside what this machine can do at most.")
@click.option("--overhead", is_flag=True, help="Take apart what a run costs beyond its kernels.")
@click.option("--no-compile", is_flag=True, help="Leave out the time to compile, which takes that time to measure.")
@json_option()
def bench(
    model: str,
    batch: int,
    threads: int | None,
    runs: int,
    layers: bool,
    overhead: bool,
    no_compile: bool,
    as_json: bool,
) -> None:
    """Measure how fast MODEL runs on this machine, and the memory it takes.

    Everything is measured in fresh processes: import, load, plan and first inference with the kernels in the cache,
    then steady runs; compiling with an empty cache. A registered float model whose weights aren't here runs with random
    ones, which take the same time. The peak that layers are compared with is measured too: register tiles on data in
    the first-level cache.
    """
    from npmobilenet.measure.benchmark.subprocess_run import Options, measure_fresh

    options = Options(batch, threads, runs, layers, overhead)
    with _status():
        document = measure_fresh(model, options, not no_compile)
    if as_json:
        print_json(document)
        return
    print_facts(_facts(document))
    if layers:
        print_line()
        print_table(*_layers(document))
    if overhead:
        print_line()
        print_table(*_overhead(document))


@contextmanager
def _status() -> Iterator[None]:
    """A line on a terminal while the measuring processes run; nothing else should run then."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True, highlight=False).status("measuring; compiling can take up to a minute"):
        yield


def _facts(document: dict[str, Any]) -> list[tuple[str, object]]:
    machine, steady, memory = document["machine"], document["steady_ms"], document["memory"]
    arithmetic, shape = document["arithmetic"], " x ".join(map(str, document["input"]["shape"]))
    unit = "GOP/s" if arithmetic["integer"] else "GFLOP/s"
    weights = ", random weights" if document["weights"] == "random" else ""
    load = machine["load_average"]
    rss = memory["peak_rss"]
    return [
        ("model", f"{document['model']}: {document['input']['dtype']} {shape}{weights}"),
        ("machine", f"{machine['cpu']}; {machine['cores']} cores; load average {'unknown' if load is None else load}"),
        ("instructions", machine["instruction_set"] + (" (forced)" if machine["forced_instruction_set"] else "")),
        ("threads", f"{document['threads']} (layer: {machine['threading_layer'] or 'none'})"),
        ("kernels", ", ".join(document["kernels"])),
        *((text, _stage(document, stage)) for stage, text in STAGES.items()),
        ("steady inference", f"{steady['p50']:.3f} ms (median of {document['runs']}; least {steady['min']:.3f})"),
        ("p50, p90, p99", f"{steady['p50']:.3f}, {steady['p90']:.3f}, {steady['p99']:.3f} ms"),
        ("images per second", f"{document['images_per_second']:.1f}"),
        ("arithmetic", f"{millions(arithmetic['macs'])} M MACs: {arithmetic['gops']:.1f} {unit}, "
                       f"{arithmetic['of_peak']:.0%} of the {arithmetic['peak_gops']:.1f} measured as peak"),
        ("peak memory", "unknown" if rss is None else f"{mebibytes(rss)} of the whole process"),
        ("planned memory", f"{mebibytes(memory['planned'])}: {mebibytes(memory['weights'])} weights, "
                           f"{mebibytes(memory['arena'])} intermediate values"),
        ("ideal", f"{mebibytes(memory['ideal'])} (planned: {memory['planned_to_ideal']:.2f} times that)"),
    ]  # fmt: skip


def _stage(document: dict[str, Any], stage: str) -> str:
    seconds = document["seconds"][stage]
    if seconds is None:
        return "not measured"
    note = f" ({document['compiled']} kernels, empty cache)" if stage == "compile" else ""
    note = " (kernels from the cache)" if stage == "first" else note
    return f"{seconds:.3f} s{note}"


def _layers(document: dict[str, Any]) -> tuple[list[Column], list[list[object]]]:
    from npmobilenet.measure.benchmark.measure import JOINED

    unit = "GOP/s" if document["arithmetic"]["integer"] else "GFLOP/s"
    columns = [
        Column("layer"),
        Column("kernel", rank=2),
        Column("output", rank=3),
        Column("M MACs", right=True, rank=1),
        Column("ms", right=True),
        Column("time", right=True),
        Column(unit, right=True),
        Column("of peak", right=True),
    ]
    rows: list[list[object]] = [
        [
            JOINED.join(map(short_name, layer["node"].split(JOINED))),
            layer["kernel"],
            None if layer["output_shape"] is None else "x".join(map(str, layer["output_shape"])),
            millions(layer["macs"]) if layer["macs"] else None,
            f"{layer['ms']:.3f}",
            f"{layer['share']:.1%}",
            None if layer["gops"] is None else f"{layer['gops']:.1f}",
            None if layer["of_peak"] is None else f"{layer['of_peak']:.0%}",
        ]
        for layer in document["layers"]
    ]
    return columns, rows


def _overhead(document: dict[str, Any]) -> tuple[list[Column], list[list[object]]]:
    from npmobilenet.measure.benchmark.overhead import PARTS

    found: dict[str, dict[str, float]] = document["overhead"]
    columns = [Column("part of a run")]
    for threads in found:
        columns += [Column(f"us, threads: {threads}", right=True), Column("time", right=True, rank=1)]
    sums = {threads: sum(us.values()) for threads, us in found.items()}
    rows: list[list[object]] = [[text] for text in PARTS.values()]
    for row, part in zip(rows, PARTS, strict=True):
        for threads, us in found.items():
            row += [f"{us[part]:.1f}", f"{us[part] / sums[threads]:.1%}"]
    return columns, rows
