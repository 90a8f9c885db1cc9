"""`npmobilenet golden digest`: a run's values as hashes."""

from __future__ import annotations

import click

from npmobilenet.cli.options import dialect_option, json_option, kernels_option, threads_option
from npmobilenet.cli.output import compile_notice, print_json


@click.command()
@click.argument("model")
@click.argument("source", metavar="INPUT")
@click.option("--taps", metavar="PATTERN", multiple=True,
              help="As for record; may be repeated. Default: every tensor; '*': the accumulators, too.")  # fmt: skip
@dialect_option()
@kernels_option()
@threads_option()
@json_option()
def digest(
    model: str, source: str, taps: tuple[str, ...], dialect: str, kernels: str, threads: int | None, as_json: bool
) -> None:
    """Print a hash for every tensor that MODEL computes for INPUT, and one for all.

    Two machines that print the same last line computed the same values; golden diff takes the whole text, kept in a
    file, in place of a dump. INPUT is as for record. docs/golden.md says what is hashed.
    """
    from npmobilenet import golden

    with compile_notice():
        found = golden.digest(model, source, taps, kernels=kernels, dialect=dialect, threads=threads)
    if not as_json:
        click.echo(str(found))
        return
    rows = [
        {"name": e.name, "dtype": e.dtype, "shape": list(e.shape), "hash": found.hashes[e.name]} for e in found.entries
    ]
    print_json({**found.facts, "tensors": rows, "all": found.total})
