"""The loop: a few threads read and prepare images, a bounded number of them ahead of the model."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from npmobilenet import labels
from npmobilenet.datasets import Dataset, open_dataset
from npmobilenet.errors import InputError
from npmobilenet.evaluate.state import DONE, Identity, ScoresFile, State
from npmobilenet.evaluate.tally import FEWEST_FOR_TOP5, Evaluation
from npmobilenet.model import CHUNK, Model
from npmobilenet.modeldata import Array
from npmobilenet.preprocess import get_recipe

SAVE_EVERY = 5.0  # seconds between two writings of the state
# Prepared images that wait for the model: 600 KB each at 224 x 224. Two batches keep it busy while the next is read.
AHEAD = 3 * CHUNK
MOST_WORKERS = 4  # a decoded photo of the largest size allowed has 300 MB, so not one for each of many cores

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
    rows = ScoresFile(path, classes, model.output.dtype, kept.readable) if scores else None
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
        with _prepared(model, data, recipe, todo) as results:
            for batch in _batches(results):
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


def _batches(results: Iterator[tuple[int, Prepared]]) -> Iterator[list[tuple[int, Prepared]]]:
    batch: list[tuple[int, Prepared]] = []
    for result in results:
        batch.append(result)
        if len(batch) == CHUNK:
            yield batch
            batch = []
    if batch:
        yield batch


def prepare(model: Model, data: Dataset, i: int, recipe: str | None) -> Prepared:
    """The input tensor of image i, or why there is none."""
    try:
        return model.preprocess(data.source(i), recipe)
    except InputError as error:
        return error


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def workers() -> int:
    """The number of threads that prepare images."""
    return min(MOST_WORKERS, cores())


def model_threads() -> int:
    """The number of threads that suits a model which `evaluate` runs: the cores that the preparation leaves over.

    Preparing a photo takes longer than classifying it, and kernels wait for their slowest thread: on two cores
    MobileNet V2 1.0_224 ran 20 images a second on one thread, 11 on two.
    """
    return max(1, cores() - workers())


@contextmanager
def _prepared(
    model: Model, data: Dataset, recipe: str | None, todo: Sequence[int]
) -> Iterator[Iterator[tuple[int, Prepared]]]:
    """Images in the order of `todo`, prepared by threads: at most `AHEAD` of them exist at a time, besides a batch.

    Reading, decoding and resizing release Python's lock for most of their time, so threads are enough.
    """
    pool = ThreadPoolExecutor(workers(), "npmobilenet-images")
    waiting: deque[tuple[int, Future[Prepared]]] = deque()

    def results() -> Iterator[tuple[int, Prepared]]:
        rest = iter(todo)
        while True:
            while len(waiting) < AHEAD and (i := next(rest, None)) is not None:
                waiting.append((i, pool.submit(prepare, model, data, i, recipe)))
            if not waiting:
                return
            index, future = waiting.popleft()
            yield index, future.result()

    try:
        yield results()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


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
