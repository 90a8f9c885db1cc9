"""`npmobilenet classify`: the best classes of images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from npmobilenet.cli import BAD_INPUT
from npmobilenet.cli.cluster import cluster_options, run_parts, wanted
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
    print_advice,
    print_assumed,
    print_csv,
    print_error,
    print_facts,
    print_json,
    print_line,
    print_table,
)
from npmobilenet.errors import InputError

if TYPE_CHECKING:
    from npmobilenet.images.finding import Found
    from npmobilenet.model import Model
    from npmobilenet.modeldata import Array

DEFAULT_MODEL = "flowers"  # in the box, whatever the working folder holds
IMAGENET_MODEL = "mobilenet_v2_1.0_224"  # the one whose archive is suggested for photographs of other things
EXAMPLE = "the example picture (a sunflower that the package draws; name an image to classify your own)"
# Below this probability an answer is marked as doubtful: docs/training.md has the share that is right above and below.
LOW_CONFIDENCE = 0.6
CSV_COLUMNS = ("image", "rank", "class_id", "label", "score", "error")


class _WithRecipes(click.Command):
    """Help that ends with the list of recipes, taken from images/recipes.py."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from npmobilenet.images.recipes import recipes

        with formatter.section("Recipes"):
            formatter.write_dl(list(recipes().items()))


@click.command(cls=_WithRecipes)
@click.argument("images", metavar="[IMAGE]...", nargs=-1)
@click.option(
    "-m",
    "--model",
    metavar="MODEL",
    help="A registered name, or the path of a model file. Default: the flowers model of the package.",
)
@click.option("--top", type=click.IntRange(min=1), default=5, show_default=True, help="How many classes to print.")
@labels_option()
@recipe_option("How images are prepared. Default: the model's recipe.")
@kernels_option()
@dialect_option()
@threads_option()
@json_option()
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV: a line for each class of each image.")
@cluster_options(", and writes a folder of .parquet files")
@click.option("-o", "--output", metavar="FOLDER", help="That folder, which all workers see.")
def classify(
    images: tuple[str, ...], model: str | None, top: int, labels: str | None, recipe: str | None, kernels: str,
    dialect: str, threads: int | None, as_csv: bool, **how: Any,
) -> int:  # fmt: skip
    """Name what IMAGE shows; without one, classify an example picture that the package draws.

    IMAGE is a file, a folder (the images in it), a pattern in quotes such as 'photos/**/*.jpg', or - for standard
    input. Prints the model's best classes with their probabilities. A class id is the model's own output index. An
    image that can't be read is reported, the others are classified, and the exit code is 2.
    """
    from npmobilenet.cli.soonest import Soonest
    from npmobilenet.images.finding import Found, find_images
    from npmobilenet.images.prefetch import in_order
    from npmobilenet.images.recipes import get_recipe
    from npmobilenet.model import AHEAD, load
    from npmobilenet.zoo.checkpoints import locate

    as_json, output = how["as_json"], how["output"]
    if as_json and as_csv:
        raise click.UsageError("--json and --csv: expected one of them")
    if recipe is not None:
        get_recipe(recipe)
    name = model or locate(DEFAULT_MODEL) or DEFAULT_MODEL
    if wanted(how) != (output is not None) or (wanted(how) and (as_csv or not images)):
        raise click.UsageError("--workers or --scheduler, images, and -o FOLDER for what they show: all or none")
    if output is not None:
        from npmobilenet.measure.many import predict_many

        engine = load(name, kernels, dialect, threads or 1, labels=labels, preprocess=recipe)
        return run_parts(predict_many, engine, images, output, how, top=top, recipe=recipe)
    soonest = Soonest(
        lambda some: load(name, some, dialect, threads, labels=labels, preprocess=recipe), kernels, str(name), dialect
    )
    engine = soonest.model
    engine.check_classifier()
    assumed = print_assumed(engine.info)
    kind = score_kind(engine)
    results: list[dict[str, Any]] = []
    doubtful: list[str] = []
    failed = named = False
    todo = find_images(images) if images else iter([Found(EXAMPLE, b"")])
    if as_csv:
        print_csv(CSV_COLUMNS)
    with in_order(lambda found: (found.name, _prepared(engine, found)), todo, AHEAD) as prepared:
        for image, x in prepared:
            with compile_notice():
                result = _classify_one(soonest.now(), image, x, top)
            if as_json:
                results.append(result)
            if as_csv:
                _print_rows(result)
            if result["error"]:
                failed = True
                print_error(result["error"])
            elif not (as_json or as_csv):
                _print_result(result, kind, first=not named)
                named = True
            if result["low_confidence"]:
                doubtful.append(result["image"])
    if as_json:
        about = {
            "name": engine.name,
            "preprocessing": engine.info.preprocessing,
            "kernels": kernels,
            "dialect": engine.arithmetic,
        }
        print_json({"model": about, "assumed": assumed, "score": kind, "images": results})
    elif named:
        if engine.arithmetic is not None:
            print_line()
            print_facts([("dialect", engine.arithmetic)])
        if model is None and images and not failed:
            _print_about_default(engine, doubtful)
    return BAD_INPUT if failed else 0


def score_kind(model: Model) -> str:
    """What the model's outputs are: "probability" where they come out of a softmax, else "score"."""
    return "probability" if model.gives_probabilities else "score"


def _prepared(model: Model, found: Found) -> Array | InputError:
    """The input tensor of an image, or why there is none; of the example picture by its name."""
    if isinstance(found.source, InputError):
        return found.source
    try:
        return model.preprocess([_example() if found.name == EXAMPLE else found.source])
    except InputError as error:
        return error


def _classify_one(model: Model, image: str, x: Array | InputError, top: int) -> dict[str, Any]:
    """The best classes of an image, by its input tensor."""
    about = {"image": image, "example": image == EXAMPLE}
    try:
        if isinstance(x, InputError):
            raise x
        (best,) = model.best_classes(x, top)
    except InputError as error:
        return {**about, "predictions": [], "low_confidence": False, "error": str(error)}
    predictions = [
        {"rank": rank, "class_id": class_id, "label": label, "score": score}
        for rank, (class_id, label, score) in enumerate(best, 1)
    ]
    doubtful = model.gives_probabilities and best[0][2] < LOW_CONFIDENCE
    return {**about, "predictions": predictions, "low_confidence": doubtful, "error": None}


def _print_rows(result: dict[str, Any]) -> None:
    """An image's lines of CSV: one for each class, or the one that says why there is none."""
    if result["error"]:
        print_csv((result["image"], None, None, None, None, result["error"]))
    for p in result["predictions"]:
        print_csv((result["image"], p["rank"], p["class_id"], p["label"], p["score"], None))


def _example() -> Any:
    from npmobilenet.images.example import draw_sunflower

    return draw_sunflower()


def _print_about_default(model: Model, doubtful: list[str]) -> None:
    """What the model in the box knows; where it doubts, how to get a model that knows more."""
    from npmobilenet.zoo.checkpoints import locate, resolve

    labels = model.info.labels
    names = ", ".join(labels) if isinstance(labels, tuple) else labels
    print_advice(f"The model in the box, {model.name}, knows five flowers only: {names}. --model names another.")
    for image in doubtful:
        print_advice(f"{image}: low confidence (below {LOW_CONFIDENCE:g}), perhaps none of these.")
    if not doubtful:
        return
    if locate(IMAGENET_MODEL) is not None:
        print_advice(f"For ImageNet's 1000 classes: npmobilenet classify IMAGE --model {IMAGENET_MODEL}")
        return
    print_advice("For ImageNet's 1000 classes: download and unpack")
    print_advice(f"  {resolve(IMAGENET_MODEL).url}")
    print_advice("then convert the .tflite or checkpoint in it, once, and name the result:")
    print_advice(f"  npmobilenet convert {IMAGENET_MODEL}.tflite {IMAGENET_MODEL}.h5")
    print_advice(f"  npmobilenet classify IMAGE --model {IMAGENET_MODEL}.h5")


def _print_result(result: dict[str, Any], kind: str, first: bool) -> None:
    if not first:
        print_line()
    print_line(result["image"])
    columns = [Column("rank", right=True), Column("class", right=True), Column("label"), Column(kind, right=True)]
    rows = [(p["rank"], p["class_id"], p["label"], f"{p['score']:.4f}") for p in result["predictions"]]
    if on_terminal():
        print_line()
    print_table(columns, rows)
