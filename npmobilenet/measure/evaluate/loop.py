"""The loop: prepared images to predictions, kept in the state as they come."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from npmobilenet.errors import InputError
from npmobilenet.images import labels
from npmobilenet.images.prefetch import batches, in_order
from npmobilenet.images.recipes import get_recipe
from npmobilenet.measure.datasets import Dataset, open_dataset
from npmobilenet.measure.evaluate.metrics import FEWEST_FOR_TOP5, Evaluation
from npmobilenet.measure.evaluate.state import DONE, Identity, ScoresFile, State
from npmobilenet.model import CHUNK, Model
from npmobilenet.modeldata import Array

SAVE_EVERY = 5.0  # seconds between two writings of the state
# Prepared images that wait for the model: 600 KB each at 224 x 224. Two batches keep it busy while the next is read.
AHEAD = 3 * CHUNK

Prepared = Array | InputError


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
) -> Evaluation:
    """Classify every image of `data` (see `datasets.open_dataset`) and compare with its class.

    Each prediction is the one of `model.predict(image, 5, recipe)`. An image that can't be read is counted and named,
    and is not part of the accuracy. `limit` takes that many images at equal distances in the order of `data`. `state`
    is a file that keeps what is done, written every few seconds and at the end, also an early one; if it exists, its
    images are not run again. `scores` keeps all outputs of every image, in a file that the result's `close` removes.

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
        _run(model, data, recipe, todo, kept, rows, _Reporter(kept, data, chosen, on_progress))
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


def _run(
    model: Model, data: Dataset, recipe: str | None, todo: Sequence[int], kept: State, rows: ScoresFile | None,
    report: Callable[[], None],
) -> None:  # fmt: skip
    """Predict the images `todo` and keep the results; however this ends, the state is written."""
    saved = time.monotonic()
    try:
        report()
        with in_order(lambda i: (i, prepare(model, data, i, recipe)), todo, AHEAD) as results:
            for batch in batches(results, CHUNK):
                _keep_batch(model, batch, kept, rows)
                report()
                if time.monotonic() - saved > SAVE_EVERY:
                    kept.save(rows)
                    saved = time.monotonic()
    finally:
        kept.save(rows)


def _keep_batch(model: Model, batch: Sequence[tuple[int, Prepared]], kept: State, rows: ScoresFile | None) -> None:
    readable = [(i, x) for i, x in batch if not isinstance(x, InputError)]
    for i, error in batch:
        if isinstance(error, InputError):
            kept.unreadable(i, str(error))
    if not readable:
        return
    output = model.run(np.concatenate([x for _, x in readable]))
    best = labels.decode(model.scores(output), model.info, kept.ids.shape[1])
    for (i, _), row, prediction in zip(readable, output, best, strict=True):
        if rows is not None:
            rows.write(kept.readable, row)
        kept.predicted(i, [p[0] for p in prediction], [p[2] for p in prediction])


def prepare(model: Model, data: Dataset, i: int, recipe: str | None) -> Prepared:
    """The input tensor of image i, or why there is none."""
    try:
        return model.preprocess(data.source(i), recipe)
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
