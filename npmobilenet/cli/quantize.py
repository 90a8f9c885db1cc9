"""`npmobilenet quantize`: the 8-bit twin of a float model."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from npmobilenet.cli.options import json_option, recipe_option, threads_option
from npmobilenet.cli.output import compile_notice, print_assumed, print_facts, print_json, unreadable_lines
from npmobilenet.errors import InputError

if TYPE_CHECKING:
    from npmobilenet.modeldata import ModelData
    from npmobilenet.quantize import Calibration, Images

SAMPLES = 100


@click.command()
@click.argument("model")
@click.option("--data", required=True, metavar="DATA",
              help="Images to calibrate with: a folder, an .npz archive, or prepared values (.npy).")  # fmt: skip
@click.option("-o", "--output", required=True, metavar="FILE", help="The weight file to write (.h5).")
@click.option("--scheme", type=click.Choice(["int8", "uint8"]), default="int8", show_default=True,
              help="int8: weights symmetric, a scale for each output channel. uint8: the legacy form, asymmetric, one "
                   "scale for each tensor, with which most pretrained models need --equalize.")  # fmt: skip
@click.option("--io", "ports", type=click.Choice(["int8", "uint8", "float32"]),
              help="The dtype of inputs and outputs. Default: the scheme's.")  # fmt: skip
@click.option("--samples", type=click.IntRange(min=1), default=SAMPLES, show_default=True, metavar="N",
              help="Calibrate with N images, at equal distances in the order of DATA.")  # fmt: skip
@click.option("--split", metavar="NAME", help="The part of an .npz archive to take. Default: train.")
@click.option("--exact-ranges", "exact", is_flag=True,
              help="Take the true ranges of tensors, not those that TensorFlow's calibrator sees.")  # fmt: skip
@click.option("--equalize", "even", is_flag=True,
              help="First give the channels of each layer like sizes, and let biases make up for rounded weights: what "
                   "--scheme uint8 needs with most pretrained models.")  # fmt: skip
@recipe_option()
@click.option("--name", default="", metavar="NAME", help="The new model's name. Default: MODEL's, and the dtype.")
@threads_option("Threads of the float model. Default: all cores.")
@click.option("--force", is_flag=True, help="Overwrite FILE.")
@json_option("Print JSON, with the ranges that were found.")
def quantize(
    model: str, data: str, output: str, scheme: str, ports: str | None, samples: int, split: str | None, exact: bool,
    even: bool, recipe: str | None, name: str, threads: int | None, force: bool, as_json: bool,
) -> None:  # fmt: skip
    """Make an 8-bit model of the float MODEL, as TensorFlow's converter would (docs/quantize.md).

    The model runs over images that are like those it is meant for, and the smallest and largest value of each tensor
    become its scale and zero point. The images need no classes; photographs of any folder will do.
    """
    from npmobilenet.formats import weightfile
    from npmobilenet.formats.model_path import load_data
    from npmobilenet.quantize import calibrate, equalize, open_images
    from npmobilenet.quantize import quantize as run

    target = Path(output)
    _check_target(target, [model, data], force)
    source = load_data(model)
    print_assumed(source.info, recipe)
    images = open_images(data, samples, split, recipe)
    with compile_notice(), _progress() as report:
        if even:
            source = equalize(source, calibrate(source, images, threads=threads, on_progress=report).peaks)
    with compile_notice(), _progress() as report:
        found = calibrate(source, images, exact=exact, threads=threads, on_progress=report)
    made = run(source, found.ranges, scheme, ports, name, found.means if even else None)
    made = _with_provenance(made, images, found, exact)
    weightfile.write(target, made)
    facts = {
        "file": os.fspath(target),
        "name": made.info.name,
        "scheme": scheme,
        "input": made.graph.tensors[made.graph.inputs[0]].dtype,
        "images": found.images,
        "unreadable": found.unreadable,
        "bytes": target.stat().st_size,
        "sha256": weightfile.sha256(target),
        "ranges": {key: list(value) for key, value in found.ranges.items()},
    }
    if as_json:
        print_json(facts)
        return
    print_facts(
        [
            ("written", output),
            ("model", facts["name"]),
            ("scheme", made.info.provenance["quantization"]),
            ("input, output", _ports(made)),
            ("calibration", f"{found.images} images of {images.where}"),
            *([("equalization", made.info.provenance["equalization"])] if even else []),
            *unreadable_lines(found.unreadable),
            ("bytes", f"{facts['bytes']:,}"),
            ("sha256", facts["sha256"]),
        ]
    )


def _with_provenance(made: ModelData, images: Images, found: Calibration, exact: bool) -> ModelData:
    """What the calibration was, without the path of the machine that made it."""
    seen = "as the values have them" if exact else "as TensorFlow's calibrator sees them"
    facts = {"calibration": f"{found.images} images of {Path(images.where).name}; ranges {seen}"}
    return dataclasses.replace(made, info=dataclasses.replace(made.info, provenance={**made.info.provenance, **facts}))


def _ports(made: ModelData) -> str:
    texts = []
    for name in (made.graph.inputs[0], made.graph.outputs[0]):
        tensor = made.graph.tensors[name]
        q = tensor.quantization
        texts.append(tensor.dtype + (f" (scale {q.scale[0]:.8g}, zero point {q.zero_point[0]})" if q else ""))
    return ", ".join(texts)


def _check_target(target: Path, inputs: list[str], force: bool) -> None:
    """Refuse before the work what would be refused after it."""
    if target.suffix != ".h5":
        raise InputError(f"-o '{target}': the name of a weight file ends in .h5, for instance {target.stem}.h5")
    if not target.parent.is_dir():
        raise InputError(f"-o '{target}': there is no folder '{target.parent}'; make it first")
    if not target.exists():
        return
    if any(os.path.exists(other) and target.samefile(other) for other in inputs):
        raise InputError(f"-o '{target}' is read by this command, so it can't be written; give another name")
    if not force:
        raise InputError(f"-o '{target}' exists; --force overwrites it")


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error; where that isn't a terminal, a line for every tenth of the images."""
    if not sys.stderr.isatty():
        yield _line_by_tenths()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("calibrating"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("")
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _line_by_tenths() -> Callable[[int, int], None]:
    last = 0

    def show(done: int, total: int) -> None:
        nonlocal last
        tenth = 10 * done // max(total, 1)
        if tenth > last:
            last = tenth
            click.echo(f"npmobilenet: calibrated with {done} of {total} images", err=True)

    return show
