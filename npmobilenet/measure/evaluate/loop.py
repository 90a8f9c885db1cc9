"""The loop: prepared images to predictions, kept in the state as they come."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from npmobilenet.errors import InputError
from npmobilenet.images import labels
from npmobilenet.images.prefetch import batches
from npmobilenet.images.recipes import get_recipe
from npmobilenet.measure.datasets import Dataset, open_dataset, remote
from npmobilenet.measure.evaluate.metrics import FEWEST_FOR_TOP5, Evaluation
from npmobilenet.measure.evaluate.state import DONE, Identity, ScoresFile, State
from npmobilenet.model import CHUNK, Model
from npmobilenet.modeldata import Array

SAVE_EVERY = 5.0  # seconds between two writings of the state

Prepared = Array | InputError


class Outcome(NamedTuple):
    """An image's best classes and, if it was asked for, the model's output; or why it can't be read."""

    best: list[labels.Prediction]
    output: Array | None
    error: str | None


Outcomes = Iterator[list[tuple[int, Outcome]]]
Run = Callable[[Iterable[tuple[int, Any]], int, bool], Outcomes]  # of numbered images; how many classes; outputs, too


@dataclass(frozen=True)
class Progress:
    """How far an evaluation is. `top1` and `top5` are shares of the readable images so far, None where undefined."""

    done: int
    total: int
    unreadable: int
    top1: float | None
    top5: float | None


def evaluate(
    model: Model,
    data: Dataset | str | os.PathLike[str],
    truth: str | os.PathLike[str] | None = None,
    split: str | None = None,
    recipe: str | None = None,
    limit: int | None = None,
    state: str | os.PathLike[str] | None = None,
    scores: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
    run: Run | None = None,
) -> Evaluation:
    """Classify every image of `data` (see `datasets.open_dataset`) and compare with its class.

    Each prediction is the one of `model.predict(image, 5, recipe)`. An image that can't be read is counted and named,
    and is not part of the accuracy. `limit` takes that many images at equal distances in the order of `data`. `state`
    is a file that keeps what is done, written every few seconds and at the end, also an early one; if it exists, its
    images are not run again. `scores` keeps all outputs of every image, in a file that the result's `close` removes.
    `run` computes as `outcomes_of` does, elsewhere (`measure/many`), in any order.

    Raises `InputError`: unfit data, no classifier, another model, data or recipe than the state's, no readable image.
    """
    rehearse(model, recipe)
    if limit is not None and (isinstance(limit, bool) or limit < 1):
        raise InputError(f"limit {limit}: expected at least 1, or None for all images")
    classes = model.output.shape[1]
    if not isinstance(data, Dataset):
        data = open_dataset(data, model.info, classes, truth, split)
    chosen = spread(len(data), limit)
    identity = Identity.of(model, data, recipe)
    path = None if state is None else Path(state)
    kept = State.open(path, identity, len(data), classes, scores)
    rows = ScoresFile(path, model, kept.readable) if scores else None
    start, before = time.perf_counter(), kept.done
    try:
        todo = [i for i in chosen if not kept.status[i]]
        sources = ((i, data.source(i)) for i in todo)
        results = (run or partial(outcomes_of, model, recipe))(sources, kept.ids.shape[1], scores)
        _run(results, kept, rows, _Reporter(kept, data, chosen, on_progress))
    except BaseException:
        if rows is not None:
            rows.close()
        raise
    seconds = time.perf_counter() - start
    result = Evaluation.of(model, data, identity.recipe, chosen, kept, rows, kept.done - before, seconds)
    if not result.readable:
        result.close()
        first = next(iter(result.unreadable.items()))
        raise InputError(f"none of the {len(chosen)} images could be read; {first[0]}: {first[1]}")
    return result


def rehearse(model: Model, recipe: str | None = None) -> None:
    """Predict a black image: what is wrong with model or recipe is told now, and the kernels are compiled.

    Raises `InputError`: unknown recipe, no classifier, a recipe that doesn't fit the input.
    """
    if recipe is not None:
        get_recipe(recipe)
    model.predict(np.zeros((8, 8, 3), np.uint8), 1, recipe)


def spread(count: int, limit: int | None) -> list[int]:
    """`limit` of `count` indices at equal distances: `i * count // limit`; all if that isn't fewer."""
    if limit is None or limit >= count:
        return list(range(count))
    return [i * count // limit for i in range(limit)]


def _run(results: Outcomes, kept: State, rows: ScoresFile | None, report: Callable[[], None]) -> None:
    """Keep the results; however this ends, the state is written."""
    saved = time.monotonic()
    try:
        report()
        with closing(results):  # type: ignore[type-var]
            for batch in results:
                _keep_batch(batch, kept, rows)
                report()
                if time.monotonic() - saved > SAVE_EVERY:
                    kept.save(rows)
                    saved = time.monotonic()
    finally:
        kept.save(rows)


def outcomes_of(
    model: Model, recipe: str | None, images: Iterable[tuple[int, Any]], top: int, outputs: bool = False
) -> Outcomes:
    """Predictions of numbered images, a few at a time, in their order: each that of `model.predict(image, top)`."""

    def outcome(engine: Model, given: tuple[int, Prepared]) -> tuple[int, Outcome]:
        i, x = given
        if isinstance(x, InputError):
            return i, Outcome([], None, str(x))
        output = engine.run(x)
        return i, Outcome(labels.decode(model.scores(output), model.info, top)[0], output[0] if outputs else None, None)

    with model.in_order(lambda item: (item[0], prepare(model, item[1], recipe)), outcome, images) as results:
        yield from batches(results, CHUNK)


def _keep_batch(batch: Sequence[tuple[int, Outcome]], kept: State, rows: ScoresFile | None) -> None:
    for i, outcome in batch:
        if outcome.error is not None:
            kept.unreadable(i, outcome.error)
            continue
        if rows is not None and outcome.output is not None:
            rows.write(kept.readable, outcome.output)
        kept.predicted(i, [p[0] for p in outcome.best], [p[2] for p in outcome.best])


def prepare(model: Model, source: Any, recipe: str | None) -> Prepared:
    """The input tensor of an image, or why there is none."""
    try:
        return model.preprocess(remote.read(source), recipe)
    except InputError as error:
        return error


class _Reporter:
    """Running counts for the progress display, over the chosen images that are done."""

    def __init__(
        self, kept: State, data: Dataset, chosen: Sequence[int], listener: Callable[[Progress], None] | None
    ) -> None:
        self.kept, self.truths, self.listener = kept, data.truths, listener
        self.total, self.chosen = len(chosen), set(chosen)
        self.seen = self.done = self.readable = self.top1 = self.top5 = 0

    def __call__(self) -> None:
        if self.listener is None:
            return
        for i in self.kept.order[self.seen :]:
            self.seen += 1
            if i not in self.chosen:
                continue
            hits = self.kept.ids[i] == self.truths[i]  # all false for an unreadable image
            self.done += 1
            self.readable += self.kept.status[i] == DONE
            self.top1 += hits[0]
            self.top5 += hits.any()
        shares = [float(n / self.readable) if self.readable else None for n in (self.top1, self.top5)]
        top5 = shares[1] if self.kept.classes >= FEWEST_FOR_TOP5 else None
        self.listener(Progress(self.done, self.total, int(self.done - self.readable), shares[0], top5))
