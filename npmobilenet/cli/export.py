"""`npmobilenet export`: a model as a file that other programs run."""

from __future__ import annotations

import os
from pathlib import Path

import click

from npmobilenet.cli.convert import check_target
from npmobilenet.cli.options import json_option, labels_option, recipe_option, until_option
from npmobilenet.cli.output import print_assumed, print_facts, print_json


@click.command()
@click.argument("model")
@click.argument("out")
@until_option()
@labels_option()
@recipe_option("The recipe that is kept in OUT: see 'classify --help'. Default: the model's.")
@click.option("--force", is_flag=True, help="Overwrite OUT.")
@json_option()
def export(
    model: str, out: str, until: tuple[str, ...], labels: str | None, recipe: str | None, force: bool, as_json: bool
) -> None:
    """Write MODEL as a .tflite file (float or 8-bit) or an .onnx file (float), for other programs to run.

    MODEL is whatever the engine runs. An 8-bit .tflite gives the same integers in TFLite's reference kernels, tensor by
    tensor; docs/exports.md says how near floats come. Labels and recipe go with it.
    """
    from npmobilenet.formats.exporting import SUFFIXES, write_model
    from npmobilenet.formats.model_path import load_data
    from npmobilenet.formats.weightfile import sha256
    from npmobilenet.images.labels import label_names
    from npmobilenet.images.own import with_own

    target = Path(out)
    check_target("OUT", Path(model), target, SUFFIXES, force)
    data = with_own(load_data(model, until), labels, recipe)
    assumed = print_assumed(data.info, recipe)
    shape = data.graph.tensors[data.graph.outputs[0]].shape
    names = label_names(data.info, shape[1]) if len(shape) == 2 and len(data.graph.outputs) == 1 else ()
    size = write_model(target, data, names or ())
    kinds = {t.dtype for t in data.graph.tensors.values() if not t.constant}
    facts = {
        "file": os.fspath(target),
        "name": data.info.name,
        "types": sorted(kinds),
        "labels": len(names or ()),
        "preprocessing": data.info.preprocessing,
        "bytes": size,
        "sha256": sha256(target),
        "assumed": assumed,
    }
    if as_json:
        print_json(facts)
        return
    print_facts(
        [
            ("written", out),
            ("model", facts["name"]),
            ("values", ", ".join(sorted(kinds))),
            ("labels", facts["labels"] or "none"),
            ("recipe", facts["preprocessing"]),
            ("bytes", f"{size:,}"),
            ("sha256", facts["sha256"]),
        ]
    )
