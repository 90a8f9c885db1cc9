"""`npmobilenet fit`: a classifier of one's own pictures."""

from __future__ import annotations

from pathlib import Path

import click

from npmobilenet.cli.classify import DEFAULT_MODEL, IMAGENET_MODEL
from npmobilenet.cli.convert import check_target
from npmobilenet.cli.options import json_option, recipe_option, threads_option
from npmobilenet.cli.output import (
    compile_notice,
    print_advice,
    print_assumed,
    print_facts,
    print_json,
    unreadable_lines,
)
from npmobilenet.cli.progress import progress_bar


@click.command()
@click.argument("folder")
@click.option("-o", "--output", metavar="FILE", required=True, help="The weight file to write, .h5.")
@click.option("-m", "--model", metavar="MODEL",
              help="Whose features are used. Default: mobilenet_v2_1.0_224 if it is there, else flowers.")  # fmt: skip
@click.option("--split", metavar="NAME", help="The part of an .npz archive to take. Default: train.")
@click.option("--strength", type=click.FloatRange(min=0, min_open=True), metavar="C", default=None,
              help="The less, the smaller the weights: scikit-learn's C. Default: by cross-validation.")  # fmt: skip
@click.option("--force", is_flag=True, help="Overwrite FILE.")
@recipe_option()
@threads_option("Images that the model works on at once, a thread for each. Default: one for each core.")
@json_option()
def fit(
    folder: str, output: str, model: str | None, split: str | None, strength: float | None, force: bool,
    recipe: str | None, threads: int | None, as_json: bool,
) -> None:  # fmt: skip
    """Train a classifier of your own pictures: FOLDER has a subfolder of images for each class.

    The model's last layer is replaced by a logistic regression on its features, which takes a minute rather than a
    GPU. Its accuracy is measured on a fifth of the images, which the training doesn't see; the one that is written is
    trained on all. FILE is a model like any other: npmobilenet classify photo.jpg --model FILE. The same images give
    the same file.
    """
    from npmobilenet.formats import weightfile
    from npmobilenet.measure.embeddings import fit as run
    from npmobilenet.model import load
    from npmobilenet.zoo.checkpoints import locate

    target = Path(output)
    check_target("FILE", Path(folder), target, (".h5",), force)
    if model is None and (model := _path(locate(IMAGENET_MODEL))) is None:
        model = _path(locate(DEFAULT_MODEL)) or DEFAULT_MODEL
        print_advice(f"npmobilenet: the features are those of '{DEFAULT_MODEL}', which has seen nothing but flowers; "
                     f"--model {IMAGENET_MODEL} knows more, once it is on this machine")  # fmt: skip
    engine = load(model, threads=threads)
    print_assumed(engine.info, recipe)
    with compile_notice(), progress_bar() as show:
        made = run(engine, folder, target.stem, split, recipe, strength,
                   lambda done, total, bad: show(done, total, f"{bad} unreadable" if bad else ""))  # fmt: skip
    weightfile.write(target, made.data)
    if as_json:
        print_json({
            "file": output, "model": made.data.info.name, "features": engine.name, "classes": made.counts,
            "held": made.held, "correct": made.hits, "accuracy": made.accuracy,
            "unreadable": [{"file": name, "error": error} for name, error in made.unreadable.items()],
            "sha256": weightfile.sha256(target),
        })  # fmt: skip
        return
    provenance = made.data.info.provenance
    print_facts([
        ("written", output),
        ("features of", engine.name),
        ("head", provenance["head"]),
        ("accuracy", provenance["head accuracy"]),
        ("classes", ", ".join(f"{label} ({count})" for label, count in made.counts.items())),
        *unreadable_lines(made.unreadable),
    ])  # fmt: skip


def _path(found: Path | None) -> str | None:
    return None if found is None else str(found)
