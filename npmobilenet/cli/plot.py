"""`npmobilenet plot`: pictures of models, as SVG files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from npmobilenet.cli.options import threads_option
from npmobilenet.cli.output import Column, compile_notice, print_line, print_table
from npmobilenet.errors import InputError

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


@plot.command()
@click.argument("model")
@click.argument("images", nargs=-1)
@OUTPUT
def ranges(model: str, images: tuple[str, ...], output: str) -> None:
    """Draw the ranges of MODEL's weights, channel by channel, and of its layers' outputs on IMAGES.

    What a quantizer goes by: where channels of a layer differ much, one scale for all of them is coarse for most. For
    8-bit models the range that each output can hold is drawn, too. IMAGES are images, .npy files or random:SEED;
    without one it is the example picture.
    """
    from npmobilenet.golden.inputs import load_input
    from npmobilenet.images.example import draw_sunflower
    from npmobilenet.model import load
    from npmobilenet.views import plots
    from npmobilenet.views.ranges import ranges

    plots.pyplot()
    engine = load(model)
    given = [load_input(engine, image)[0] for image in images]
    given = given or [load_input(engine, engine.preprocess([draw_sunflower()]))[0]]
    with compile_notice():
        rows = ranges(engine, given)
    if not rows:
        raise InputError(f"{engine.name}: no layer of it holds weights")
    _write(output, plots.ranges(rows, engine.name, len(given)))


def _measured(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of what is measured before it is drawn."""
    options = (
        OUTPUT,
        click.option("--width", "widths", type=click.FloatRange(0, 4, min_open=True), multiple=True, metavar="W",
                     help="May be repeated. Default: 0.35, 0.5, 0.75, 1, 1.4."),
        click.option("--resolution", "resolutions", type=click.IntRange(32, 1024), multiple=True, metavar="PIXELS",
                     help="May be repeated. Default: 96, 128, 160, 192, 224; edgetpu: 224."),
        threads_option("Default: 1."),
        click.option("--turn", "seconds", type=click.FloatRange(0, 60), default=0.5, show_default=True, metavar="S",
                     help="How long a network runs before the next."),
        click.option("--rounds", type=click.IntRange(1, 100), default=3, show_default=True, metavar="N",
                     help="Turns of each network, in alternation; the median counts."),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


@plot.command()
@_measured
def latency(output: str, **measured: Any) -> None:
    """Measure and draw V2, V3 and the minimalistic V3 in float32, by width and by resolution.

    Weights are random, which takes the same time. All widths run at the largest resolution, all resolutions at width 1.
    The defaults take about two minutes and 1 GB of memory, and more when kernels have to be compiled.
    """
    from npmobilenet.views import plots, timings

    plots.pyplot()  # which may be missing, before minutes pass
    found = _measure(timings.FLOATS, False, **measured)
    _write(output, plots.latency(found, f"float32, {_threads(measured)}"))


@plot.command()
@_measured
def edgetpu(output: str, **measured: Any) -> None:
    """Measure and draw EdgeTPU, V2 and the minimalistic V3 in 8 bits, by width, and by published accuracy.

    Random weights, quantized to int8 with a scale for each channel. The defaults take about a minute and a half.
    """
    from npmobilenet.views import plots, timings

    plots.pyplot()
    found = _measure(timings.EIGHT_BIT, True, **measured)
    _write(output, plots.edgetpu(found, f"int8, {_threads(measured)}"))


def _threads(measured: dict[str, Any]) -> str:
    return f"{measured['threads']} threads" if (measured["threads"] or 1) > 1 else "1 thread"


def _measure(
    families: Sequence[str], eight_bit: bool, widths: tuple[float, ...], resolutions: tuple[int, ...],
    threads: int | None, **turns: Any,
) -> list[Timed]:  # fmt: skip
    """Times, which are printed, too."""
    from npmobilenet.cli.progress import progress_bar
    from npmobilenet.views import timings

    turns["threads"] = threads or 1
    usual = timings.RESOLUTIONS[-1:] if eight_bit else timings.RESOLUTIONS
    chosen = timings.sizes(widths or timings.WIDTHS, resolutions or usual)
    with progress_bar("turns") as show:
        found = timings.measure(families, chosen, eight_bit, timings.Turns(**turns), show)
    columns = [Column("family"), *(Column(text, right=True) for text in ("width", "pixels", "ms"))]
    print_table(columns, [(row.family, f"{row.width:g}", row.resolution, f"{row.ms:.3f}") for row in found])
    return found


def _write(output: str, picture: bytes) -> None:
    from npmobilenet.measure.evaluate.state import write_whole

    write_whole(Path(output), lambda file: file.write(picture))
    print_line(output)
