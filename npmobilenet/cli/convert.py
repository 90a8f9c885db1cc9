"""`npmobilenet convert`: a foreign model file to a weight file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import click

from npmobilenet.cli.options import json_option, labels_option, recipe_option, until_option
from npmobilenet.cli.output import print_assumed, print_facts, print_json
from npmobilenet.errors import ConversionError

EMA: dict[str, bool | str] = {"auto": "auto", "yes": True, "no": False}


@click.command()
@click.argument("src")
@click.argument("dst")
@click.option("--model", metavar="NAME",
              help="The architecture where SRC doesn't tell: mobilenet_v2_0.5_160, timm/mobilenetv2_110d.")  # fmt: skip
@click.option("--ema", type=click.Choice(list(EMA)), default="auto", show_default=True,
              help="Of a checkpoint or state dict: use the moving averages; auto: if there are any.")  # fmt: skip
@until_option()
@labels_option()
@recipe_option("How its pictures are prepared: see 'classify --help'. Default: what SRC tells.")
@click.option("--force", is_flag=True, help="Overwrite DST.")
@json_option()
def convert(
    src: str, dst: str, model: str | None, ema: str, until: tuple[str, ...], labels: str | None, recipe: str | None,
    force: bool, as_json: bool,
) -> None:  # fmt: skip
    """Convert a model file to a weight file (.h5).

    SRC is a .tflite file, a TensorFlow checkpoint (its prefix, .index or .data file), a Keras .h5, .weights.h5 or
    .keras file, a state dict of timm or torchvision (.safetensors, .pth), or a .tgz with one of them in it. Neither
    TensorFlow nor PyTorch is needed. DST keeps --labels and --preprocess; to add them, SRC may be a weight file, too.
    """
    from npmobilenet.formats import weightfile
    from npmobilenet.model import convert as convert_file

    target = Path(dst)
    check_target("DST", Path(src), target, (".h5",), force)
    data = convert_file(src, target, model, EMA[ema], until, labels=labels, preprocess=recipe)
    assumed = print_assumed(data.info)
    facts = {
        "file": os.fspath(target),
        "name": data.info.name,
        "tensors": len(data.tensors),
        "bytes": target.stat().st_size,
        "sha256": weightfile.sha256(target),
        "assumed": assumed,
        "provenance": dict(data.info.provenance),
    }
    if as_json:
        print_json(facts)
        return
    notes = [("", f"{key}: {value}") for key, value in data.info.provenance.items()]
    print_facts(
        [
            ("written", dst),
            ("model", facts["name"]),
            ("tensors", facts["tensors"]),
            ("bytes", f"{facts['bytes']:,}"),
            ("sha256", facts["sha256"]),
            *([("provenance", notes[0][1]), *notes[1:]] if notes else []),
        ]
    )


def check_target(what: str, source: Path, target: Path, suffixes: Sequence[str], force: bool) -> None:
    """Refuse before the work what would be refused after it."""
    if target.suffix not in suffixes:
        kind = "a weight file" if suffixes == (".h5",) else "what is exported"
        ends = " or ".join(suffixes)
        raise ConversionError(
            f"{what} '{target}': the name of {kind} ends in {ends}, for instance {target.stem}{suffixes[0]}"
        )
    if not target.parent.is_dir():
        raise ConversionError(f"{what} '{target}': there is no folder '{target.parent}'; make it first")
    if not target.exists():
        return
    if source.exists() and target.samefile(source):
        raise ConversionError(f"{what} '{target}' is {'SRC' if what == 'DST' else 'MODEL'} itself; give another name")
    if not force:
        raise ConversionError(f"{what} '{target}' exists; --force overwrites it")
