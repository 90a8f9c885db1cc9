"""`npmobilenet embed`: images to vectors."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from npmobilenet.cli import BAD_INPUT
from npmobilenet.cli.cluster import cluster_options, run_parts, wanted
from npmobilenet.cli.options import dialect_option, json_option, recipe_option, threads_option
from npmobilenet.cli.output import compile_notice, print_assumed, print_error, print_facts, print_json, unreadable_lines
from npmobilenet.cli.progress import progress_bar


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
@cluster_options("; FILE is then a folder of .parquet files")
@recipe_option()
@dialect_option()
@threads_option("Images that the model works on at once, a thread for each. Default: one for each core.")
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
    from npmobilenet.measure.embeddings import check_output, write_vectors
    from npmobilenet.measure.embeddings import embed as run
    from npmobilenet.model import load
    from npmobilenet.zoo.checkpoints import locate

    threads, as_json = how["threads"], how["as_json"]
    if wanted(how):
        from npmobilenet.measure.many import embed_many

        if state is not None:
            raise click.UsageError("--resume: a folder of parts needs no state, the same command goes on from it")
        engine = load(model or locate("flowers") or "flowers", "fast", dialect, threads or 1)
        return run_parts(embed_many, engine, images, output, how, layer=layer, l2=l2, recipe=recipe)
    check_output(output, (*images, model, state))
    found = list(find_images(images))
    engine = load(model or locate("flowers") or "flowers", "fast", dialect, threads)
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
