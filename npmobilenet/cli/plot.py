"""`npmobilenet plot`: pictures of models, as SVG files."""

from __future__ import annotations

from pathlib import Path

import click

from npmobilenet.cli.output import print_line

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


def _write(output: str, picture: bytes) -> None:
    from npmobilenet.measure.evaluate.state import write_whole

    write_whole(Path(output), lambda file: file.write(picture))
    print_line(output)
