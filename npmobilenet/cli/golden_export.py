"""`npmobilenet golden export`: constants and vectors for RTL and C test benches."""

from __future__ import annotations

import click

from npmobilenet.cli.options import dialect_option, json_option
from npmobilenet.cli.output import compile_notice, print_facts, print_json


@click.command()
@click.argument("model")
@click.argument("source", metavar="[INPUT]", required=False)
@click.option("-o", "--output", metavar="DIR", required=True, help="The new folder.")
@click.option("--format", "kind", type=click.Choice(["hex", "c", "npy"]), default="hex", show_default=True,
              help="hex: for $readmemh, a value in each line, two's complement; c: headers; npy.")  # fmt: skip
@click.option("--order", type=click.Choice(["hwio", "ohwi"]), default="hwio", show_default=True,
              help="Of convolution weights: output channels last, or first as in TFLite.")  # fmt: skip
@click.option("--taps", metavar="PATTERN", multiple=True,
              help="With INPUT: which tensors, as for record; may be repeated. Default: everything.")  # fmt: skip
@click.option("--bench", metavar="NAME",
              help="With INPUT: also write bench.v (hex) or bench.c (c), which computes the layer of that output, and "
              "compares.")  # fmt: skip
@dialect_option("The arithmetic that multipliers, shifts, tables and vectors are for.")
@click.option("--force", is_flag=True, help="Replace an export that is there already.")
@json_option("Print the manifest.")
def export(
    model: str, source: str | None, output: str, kind: str, order: str, taps: tuple[str, ...], bench: str | None,
    dialect: str, force: bool, as_json: bool,
) -> None:  # fmt: skip
    """Write MODEL's constants for hardware and C; with INPUT, every tensor as well.

    Weights, biases, multipliers and shifts of each channel, tables of activations, and for INPUT the vectors of all
    tensors, accumulators and pre-activation values, with a manifest.json that says what each file holds.
    """
    from npmobilenet import golden

    with compile_notice():
        manifest = golden.export(
            model, output, source, kind, dialect=dialect, order=order, taps=list(taps) or "*", bench=bench, force=force
        )
    if as_json:
        print_json(manifest)
        return
    kinds = [part for node in manifest["nodes"] for part in node["files"]]
    counts = {part: kinds.count(part) for part in dict.fromkeys(kinds)}
    print_facts(
        [
            ("written", output),
            ("model", f"{manifest['model']['name']}, sha256 {manifest['model']['sha256'][:16]}..."),
            ("dialect", dialect),
            ("constants", f"{len(kinds)} files: {', '.join(f'{count} {part}' for part, count in counts.items())}"),
            (
                "vectors",
                f"{len(manifest['vectors'])} files" if "vectors" in manifest else "none; give an INPUT for them",
            ),
        ]
    )
