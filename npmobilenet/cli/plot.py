"""`npmobilenet plot`: pictures of models, as SVG files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from npmobilenet.cli.options import json_option
from npmobilenet.cli.output import Column, print_json, print_line, print_table

if TYPE_CHECKING:
    from npmobilenet.views.timings import Timed

OUTPUT = click.option("-o", "--output", metavar="FILE", required=True, help="The .svg file to write.")


@click.group()
def plot() -> None:
    """Draw pictures of models (SVG; needs the extra [plot])."""


@plot.command()
@OUTPUT
def zoo(output: str) -> None:
    """Draw every published model: accuracy over multiply-accumulates."""
    from npmobilenet.views import plots

    _write(output, plots.zoo())


@plot.command()
@click.argument("model")
@OUTPUT
def memory(model: str, output: str) -> None:
    """Draw how the intermediate values of MODEL share memory over the steps of a run."""
    from npmobilenet.model import load
    from npmobilenet.views import plots

    engine = load(model, "reference")
    _write(output, plots.memory(engine.plan(), engine.name))


def _measured(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of what is measured before it is drawn."""
    options = (
        OUTPUT,
        click.option("--width", "widths", type=click.FloatRange(0, 4, min_open=True), multiple=True, metavar="W",
                     help="May be repeated. Default: 0.35, 0.5, 0.75, 1, 1.4."),
        click.option("--resolution", "resolutions", type=click.IntRange(32, 1024), multiple=True, metavar="PIXELS",
                     help="May be repeated. Default: 96, 128, 160, 192, 224; edgetpu: 224."),
        click.option("--threads", type=click.IntRange(1), default=1, show_default=True, metavar="N"),
        click.option("--seconds", type=click.FloatRange(0, 60), default=0.5, show_default=True, metavar="S",
                     help="Of a network's turn."),
        click.option("--rounds", type=click.IntRange(1, 100), default=3, show_default=True, metavar="N",
                     help="Turns of each network, in alternation; the median counts."),
        json_option("Print what was measured as JSON, not as a table."),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


@plot.command()
@_measured
def latency(output: str, as_json: bool, **measured: Any) -> None:
    """Measure and draw V2, V3 and the minimalistic V3 in float32, by width and by resolution.

    Weights are random, which takes the same time. All widths run at the largest resolution, all resolutions at width 1.
    The defaults take about two minutes and 1 GB of memory, and more when kernels have to be compiled.
    """
    from npmobilenet.views import plots, timings

    plots.pyplot()  # which may be missing, before minutes pass
    found = _measure(timings.FLOATS, False, as_json, **measured)
    _write(output, plots.latency(found, f"float32, {_threads(measured)}"), not as_json)


@plot.command()
@_measured
def edgetpu(output: str, as_json: bool, **measured: Any) -> None:
    """Measure and draw EdgeTPU, V2 and the minimalistic V3 in 8 bits, by width, and by published accuracy.

    Random weights, quantized to int8 with a scale for each channel. The defaults take about a minute and a half.
    """
    from npmobilenet.views import plots, timings

    plots.pyplot()
    found = _measure(timings.EIGHT_BIT, True, as_json, **measured)
    _write(output, plots.edgetpu(found, f"int8, {_threads(measured)}"), not as_json)


def _threads(measured: dict[str, Any]) -> str:
    return "1 thread" if measured["threads"] == 1 else f"{measured['threads']} threads"


def _measure(
    families: Sequence[str], eight_bit: bool, as_json: bool, widths: tuple[float, ...], resolutions: tuple[int, ...],
    **turns: Any,
) -> list[Timed]:  # fmt: skip
    """Times, which are printed, too."""
    from npmobilenet.cli.progress import progress_bar
    from npmobilenet.views import timings

    usual = timings.RESOLUTIONS[-1:] if eight_bit else timings.RESOLUTIONS
    chosen = timings.sizes(widths or timings.WIDTHS, resolutions or usual)
    with progress_bar("turns") as show:
        found = timings.measure(families, chosen, eight_bit, timings.Turns(**turns), show)
    if as_json:
        dtype = "int8" if eight_bit else "float32"
        print_json({"dtype": dtype, **turns, "networks": [row._asdict() for row in found]})
    else:
        columns = [Column("family"), *(Column(text, right=True) for text in ("width", "pixels", "ms"))]
        print_table(columns, [(row.family, f"{row.width:g}", row.resolution, f"{row.ms:.3f}") for row in found])
    return found


def _write(output: str, picture: bytes, say: bool = True) -> None:
    from npmobilenet.measure.evaluate.state import write_whole

    write_whole(Path(output), lambda file: file.write(picture))
    if say:
        print_line(output)
