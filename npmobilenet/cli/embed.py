"""`npmobilenet embed`: images to vectors."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from npmobilenet.cli import BAD_INPUT
from npmobilenet.cli.options import dialect_option, json_option, recipe_option, threads_option
from npmobilenet.cli.output import compile_notice, print_assumed, print_error, print_facts, print_json, unreadable_lines
from npmobilenet.cli.progress import progress_bar

if TYPE_CHECKING:
    from npmobilenet.model import Model


@click.command()
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@click.option("-m", "--model", metavar="MODEL",
              help="A registered name, or the path of a model file. Default: flowers, in the box.")  # fmt: skip
@click.option("-o", "--output", metavar="FILE", required=True, help="A .parquet, .npz, .csv or .npy file.")
@click.option("--layer", default="pooled", show_default=True, metavar="NAME",
              help="The layer: an endpoint or tensor; maps are averaged over their pixels.")  # fmt: skip
@click.option("--l2", is_flag=True, help="Make each vector's length 1: products are then cosines.")
@click.option("--resume", "state", metavar="STATE",
              help="A file that keeps what is done: an interrupted run goes on where it was.")  # fmt: skip
@click.option("--scheduler", metavar="ADDRESS", help="A Dask cluster does it; FILE is then a folder of .parquet files.")
@click.option("--workers", type=click.IntRange(min=1), metavar="N",
              help="The same on N processes of this machine, started for it.")  # fmt: skip
@recipe_option()
@dialect_option()
@threads_option("Threads of the model. Default: the cores that reading images leaves over.")
@json_option()
def embed(
    images: tuple[str, ...], model: str | None, output: str, layer: str, l2: bool, state: str | None,
    recipe: str | None, dialect: str, **how: Any,
) -> int:  # fmt: skip
    """Write a vector for each IMAGE: what the model saw in it, before it decided on a class.

    IMAGE is a file, a folder (the images in it), a pattern in quotes such as 'photos/**/*.jpg', or - for standard
    input. The vectors are those of the pooled layer, which the classifier reads. An image that can't be read is
    listed, the others are written, and the exit code is 2.
    """
    from npmobilenet.images.finding import find_images
    from npmobilenet.images.prefetch import model_threads
    from npmobilenet.measure.embeddings import check_output, write_vectors
    from npmobilenet.measure.embeddings import embed as run
    from npmobilenet.model import load
    from npmobilenet.zoo.checkpoints import locate

    threads, as_json = how["threads"], how["as_json"]
    if how["scheduler"] is not None or how["workers"] is not None:
        if state is not None:
            raise click.UsageError("--resume: a folder of parts needs no state, the same command goes on from it")
        engine = load(model or locate("flowers") or "flowers", "fast", dialect, threads or 1)
        return _on_cluster(engine, images, Path(output), (layer, l2, recipe), how)
    check_output(output, (*images, model, state))
    found = list(find_images(images))
    engine = load(model or locate("flowers") or "flowers", "fast", dialect, threads or model_threads())
    assumed = print_assumed(engine.info, recipe)
    try:
        with compile_notice(), progress_bar() as show:
            result = run(engine, found, layer, l2, recipe, None if state is None else Path(state),
                         lambda done, total, bad: show(done, total, f"{bad} unreadable" if bad else ""))  # fmt: skip
    except KeyboardInterrupt:
        if state is not None and os.path.exists(state):
            print_error(f"interrupted; what is done is kept in '{state}': the same command goes on from there")
        raise
    with closing(result):
        written = write_vectors(result, output)
        broken = result.unreadable
        facts = {
            "files": [os.fspath(path) for path in written],
            **result.facts,
            "images": result.spool.done,
            "images_run": result.ran,
            "width": result.spool.width,
            "seconds": round(result.seconds, 3),
            "unreadable": [{"file": name, "error": error} for name, error in broken.items()],
            "assumed": assumed,
        }
    if as_json:
        print_json(facts)
    else:
        told = f"{facts['images']}" + (f", {len(broken)} of them unreadable" if broken else "")
        print_facts([
            *(("written", path) for path in written),
            ("model", engine.name),
            ("layer", result.facts["layer"]),
            ("vectors", f"float32, {result.spool.width} values" + (", of length 1" if l2 else "")),
            ("images", told),
            *unreadable_lines(broken),
        ])  # fmt: skip
    return BAD_INPUT if broken else 0


def _on_cluster(
    engine: Model, images: tuple[str, ...], folder: Path, what: tuple[Any, ...], how: dict[str, Any]
) -> int:
    """The same by parts, on a Dask cluster."""
    from npmobilenet.measure.many import embed_many
    from npmobilenet.measure.many.run import cluster

    assumed = print_assumed(engine.info, what[2])
    with cluster(how["scheduler"], how["workers"]) as client, progress_bar() as show:
        done = embed_many(
            engine, images, folder, client, layer=what[0], l2=what[1], recipe=what[2],
            on_progress=lambda have, total, bad: show(have, total, f"{bad} unreadable" if bad else ""),
        )  # fmt: skip
    if how["as_json"]:
        print_json({
            "folder": os.fspath(done.folder), "images": done.images, "parts": done.parts, "images_run": done.ran,
            "seconds": round(done.seconds, 3), "assumed": assumed,
            "unreadable": [{"file": name, "error": error} for name, error in done.unreadable.items()],
        })  # fmt: skip
    else:
        print_facts([
            ("written", f"{done.folder} ({done.parts} parts)"),
            ("model", engine.name),
            ("images", f"{done.images}, {done.ran} of them run now"),
            *unreadable_lines(done.unreadable),
        ])  # fmt: skip
    return BAD_INPUT if done.unreadable else 0
