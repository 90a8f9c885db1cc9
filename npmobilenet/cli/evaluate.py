"""`npmobilenet evaluate`: the accuracy of a model on labelled images."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from npmobilenet.cli.cluster import cluster_options, wanted
from npmobilenet.cli.options import (
    dialect_option,
    json_option,
    kernels_option,
    labels_option,
    recipe_option,
    threads_option,
)
from npmobilenet.cli.output import (
    Column,
    compile_notice,
    on_terminal,
    print_assumed,
    print_error,
    print_facts,
    print_json,
    print_line,
    print_table,
    unreadable_lines,
)
from npmobilenet.cli.progress import progress_bar

if TYPE_CHECKING:
    from npmobilenet.measure.evaluate import Evaluation, Progress

SHOWN = 40  # classes of the table on a terminal; a pipe and --json get all


@click.command()
@click.argument("model")
@click.argument("data")
@click.option("--truth", metavar="FILE", help="The classes of the images in DATA: one a line, or lines 'NAME CLASS'.")
@click.option("--split", metavar="NAME", help="The part of an .npz archive to take. Default: val.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N",
              help="Take N images only, at equal distances in the order of DATA.")  # fmt: skip
@click.option("--resume", "state", metavar="STATE",
              help="A file that keeps what is done: an interrupted run goes on where it was.")  # fmt: skip
@click.option("--predictions", metavar="FILE", help="Write every image's prediction: a .csv or .npz file.")
@click.option("--confusion", metavar="FILE", help="Draw the confusion matrix: a .png file.")
@cluster_options()
@labels_option()
@recipe_option()
@kernels_option()
@dialect_option()
@threads_option("Images that the model works on at once, a thread for each. Default: one for each core.")
@json_option()
def evaluate(
    model: str, data: str, truth: str | None, split: str | None, limit: int | None, state: str | None,
    predictions: str | None, confusion: str | None, labels: str | None, recipe: str | None, **how: Any,
) -> None:  # fmt: skip
    """Measure the accuracy of MODEL on the labelled images DATA.

    DATA is a folder with a subfolder for each class, a folder of files named like n01496331_electric_ray.JPEG, any
    folder of images with a ground-truth file, an .npz archive of JPEG files, a .parquet file with columns of images and
    labels, or a remote folder's address. Images that can't be read are counted and named, and the others make the
    accuracy.
    """
    from npmobilenet.measure.evaluate import check_output, rehearse, write_confusion, write_predictions
    from npmobilenet.measure.evaluate.files import PREDICTIONS, check_matplotlib
    from npmobilenet.model import load

    inputs = (model, data, truth, state)
    if predictions is not None:
        check_output(predictions, PREDICTIONS, inputs)
    if confusion is not None:
        check_output(confusion, [".png"], inputs)
        check_matplotlib()
    threads = how["threads"] or (1 if wanted(how) else None)
    engine = load(model, how["kernels"], how["dialect"], threads, labels=labels)
    print_assumed(engine.info, recipe)
    with compile_notice():
        rehearse(engine, recipe)
    all_scores = predictions is not None and predictions.endswith(".npz")
    try:
        with _evaluator(how) as run, progress_bar() as show:
            result = run(
                engine, data, truth=truth, split=split, recipe=recipe, limit=limit, state=state, scores=all_scores,
                on_progress=partial(_report, show),
            )  # fmt: skip
    except KeyboardInterrupt:
        if state is not None and os.path.exists(state):
            print_error(f"interrupted; what is done is kept in '{state}': the same command goes on from there")
        raise
    with closing(result):
        if predictions is not None:
            write_predictions(result, predictions)
        if confusion is not None:
            write_confusion(result, confusion)
        if how["as_json"]:
            print_json(result.facts())
        else:
            _print(result)


@contextmanager
def _evaluator(how: dict[str, Any]) -> Iterator[Callable[..., Evaluation]]:
    """`evaluate`, or the same by a cluster that the options ask for."""
    if wanted(how):
        from npmobilenet.measure.many import evaluate_many
        from npmobilenet.measure.many.run import cluster

        with cluster(how["scheduler"], how["workers"]) as client:
            yield partial(evaluate_many, client=client)
        return
    from npmobilenet.measure.evaluate import evaluate as run

    yield run


def _print(result: Evaluation) -> None:
    print_facts(
        [
            ("model", result.model),
            ("preprocessing", result.recipe),
            *([] if result.dialect is None else [("dialect", result.dialect)]),
            ("data", f"{result.where} ({result.layout})"),
            ("images", _images(result)),
            ("top-1", _share(result, result.top1_hits)),
            *([] if result.top5_hits is None else [("top-5", _share(result, result.top5_hits))]),
            ("speed", _speed(result)),
            *unreadable_lines(result.unreadable),
        ]
    )
    print_line()
    rows = result.per_class()
    shown = rows
    if on_terminal() and len(rows) > SHOWN:
        shown = sorted(rows, key=lambda row: (row.correct / row.count, row.class_id))[:SHOWN]
    columns = [
        Column("class", right=True), Column("label"), Column("images", right=True), Column("correct", right=True),
        Column("accuracy", right=True), Column("most confused with", rank=1), Column("times", right=True, rank=2),
    ]  # fmt: skip
    print_table(
        columns,
        [
            (r.class_id, r.label, r.count, r.correct, f"{r.correct / r.count:.3f}", r.confused_label,
             r.confused_count or None)
            for r in shown
        ],
    )  # fmt: skip
    if len(shown) < len(rows):
        print_line(f"the {len(shown)} classes of lowest accuracy, of {len(rows)}; all are in --json, and in a pipe")


def _images(result: Evaluation) -> str:
    bad = len(result.names) - result.readable
    text = str(len(result.names)) + (f", {bad} of them unreadable and not counted" if bad else "")
    return text + (f"; {result.skipped} files that are no images were passed over" if result.skipped else "")


def _share(result: Evaluation, hits: int) -> str:
    from npmobilenet.measure.evaluate import wilson

    low, high = wilson(hits, result.readable)
    return f"{hits / result.readable:.4f}  ({hits} of {result.readable}; 95 % interval {low:.4f} to {high:.4f})"


def _speed(result: Evaluation) -> str:
    if result.images_per_second is None:
        return "nothing to run: all of it was in the state"
    kept = len(result.names) - result.ran
    more = f"; {kept} came from the state" if kept > 0 else ""
    return f"{result.images_per_second:.1f} images/s ({result.ran} in {result.seconds:.1f} s{more})"


# ---------------------------------------------------------------------------------------------------------------------
# Progress


def _report(show: Callable[[int, int, str], None], progress: Progress) -> None:
    show(progress.done, progress.total, describe(progress))


def describe(progress: Progress) -> str:
    """The running accuracies and the unreadable images, as far as there are any."""
    parts = [] if progress.top1 is None else [f"top-1 {progress.top1:.4f}"]
    parts += [] if progress.top5 is None else [f"top-5 {progress.top5:.4f}"]
    parts += [f"{progress.unreadable} unreadable"] if progress.unreadable else []
    return ", ".join(parts)
