"""From predictions to accuracies, intervals and a table of classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npmobilenet.measure.datasets import ClassFinder, Dataset
from npmobilenet.measure.evaluate.state import DONE, UNREADABLE, ScoresFile, State
from npmobilenet.model import Model

FEWEST_FOR_TOP5 = 6  # classes; with five, the right one is always among the best five
Z95 = 1.959963984540054  # the normal distribution's 97.5 % quantile


def wilson(hits: int, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval for a share, `hits` of `count` (at least 1).

    `(p + z^2/2n -+ z sqrt(p (1 - p) / n + z^2/4n^2)) / (1 + z^2/n)`, p = hits/n, z = 1.96. Unlike p -+ z sqrt(...) it
    stays within 0 and 1 and holds for few images and for shares near 0 or 1.

    Source: E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927), 209.
    """
    share, z2 = hits / count, Z95 * Z95 / count
    middle = (share + z2 / 2) / (1 + z2)
    half = Z95 / (1 + z2) * (share * (1 - share) / count + z2 / (4 * count)) ** 0.5
    # At the ends the interval reaches 0 or 1 itself; rounding may miss it by 1e-17.
    return (0.0 if hits == 0 else middle - half, 1.0 if hits == count else middle + half)


@dataclass(frozen=True)
class ClassRow:
    """One class: of its `count` readable images `correct` are right; the wrong class given most often, how often."""

    class_id: int
    label: str
    count: int
    correct: int
    confused_id: int | None
    confused_label: str | None
    confused_count: int


@dataclass(frozen=True)
class Evaluation:
    """The result. Arrays hold one entry for each image, in the order of the data (N images, T of at most 5 classes).

    `names` (N), `truths` (N,), `ids` (N, T) and `scores` (N, T): the best classes, best first; -1 and 0 for an
    unreadable image. `readable` (N,) tells which ones count. `labels` name all outputs of the model. `ran` images were
    run in `seconds`, the others came from the state. `dialect` is None for a model without integers.
    """

    model: str
    recipe: str
    dialect: str | None
    layout: str
    where: str
    labels: tuple[str, ...]
    names: tuple[str, ...]
    truths: NDArray[np.int32]
    ids: NDArray[np.int32]
    scores: NDArray[np.float64]
    is_readable: NDArray[np.bool_]
    unreadable: dict[str, str]
    skipped: int
    ran: int
    seconds: float
    all_scores: ScoresFile | None = field(default=None, repr=False)
    score_rows: NDArray[np.int64] | None = field(default=None, repr=False)

    @classmethod
    def of(
        cls, model: Model, data: Dataset, recipe: str, chosen: Sequence[int], kept: State, rows: ScoresFile | None,
        ran: int, seconds: float,
    ) -> Evaluation:  # fmt: skip
        """The result for the `chosen` images, of a state in which all of them are done."""
        index = np.array(chosen)
        labels = ClassFinder(model.info, model.output.shape[1]).names
        row_of = np.full(len(data), -1, np.int64)
        readable = [i for i in kept.order if kept.status[i] == DONE]
        row_of[readable] = np.arange(len(readable))
        return cls(
            model.name, recipe, model.arithmetic, data.layout, data.where, labels, tuple(data.names[i] for i in chosen),
            data.truths[index], kept.ids[index], kept.best[index], kept.status[index] == DONE,
            {data.names[i]: kept.errors[i] for i in chosen if kept.status[i] == UNREADABLE}, data.skipped,
            ran, seconds, rows, row_of[index],
        )  # fmt: skip

    def close(self) -> None:
        """Close the file of all scores; without a state, that removes it."""
        if self.all_scores is not None:
            self.all_scores.close()

    @property
    def readable(self) -> int:
        """The number of images that the accuracies are about."""
        return int(self.is_readable.sum())

    @property
    def top1_hits(self) -> int:
        """The number of images whose best class is right."""
        return int((self.ids[:, 0] == self.truths)[self.is_readable].sum())

    @property
    def top5_hits(self) -> int | None:
        """The number of images with the right class among the best five; None for a model with fewer than six."""
        if len(self.labels) < FEWEST_FOR_TOP5:
            return None
        return int((self.ids == self.truths[:, None]).any(axis=1)[self.is_readable].sum())

    @property
    def images_per_second(self) -> float | None:
        """Images a second of this run; None if all came from the state."""
        return self.ran / self.seconds if self.ran and self.seconds > 0 else None

    def confusion(self) -> Counter[tuple[int, int]]:
        """How often the model gave class p to a readable image of class t: `{(t, p): count}`."""
        truths, given = self.truths[self.is_readable].tolist(), self.ids[self.is_readable, 0].tolist()
        return Counter(zip(truths, given, strict=True))

    def per_class(self) -> list[ClassRow]:
        """A row for each class that has a readable image, by class id. Ties of confusions go to the lower id."""
        by_truth: dict[int, dict[int, int]] = {}
        for (truth, given), count in self.confusion().items():
            by_truth.setdefault(truth, {})[given] = count
        rows = []
        for truth, given_counts in sorted(by_truth.items()):
            wrong = {given: count for given, count in given_counts.items() if given != truth}
            worst = min(wrong, key=lambda given: (-wrong[given], given)) if wrong else None
            confused = (None, None, 0) if worst is None else (worst, self.labels[worst], wrong[worst])
            total = sum(given_counts.values())
            rows.append(ClassRow(truth, self.labels[truth], total, given_counts.get(truth, 0), *confused))
        return rows

    def facts(self) -> dict[str, Any]:
        """Everything but the single predictions, ready for JSON."""
        top5 = self.top5_hits
        return {
            "model": self.model,
            "preprocessing": self.recipe,
            "dialect": self.dialect,
            "data": {"path": self.where, "layout": self.layout, "skipped_files": self.skipped},
            "images": len(self.names),
            "readable": self.readable,
            "unreadable": [{"file": name, "error": error} for name, error in self.unreadable.items()],
            "top1": self._share(self.top1_hits),
            "top5": None if top5 is None else self._share(top5),
            "images_run": self.ran,
            "seconds": round(self.seconds, 3),
            "images_per_second": None if self.images_per_second is None else round(self.images_per_second, 2),
            "classes": [
                {
                    "class_id": row.class_id,
                    "label": row.label,
                    "images": row.count,
                    "correct": row.correct,
                    "accuracy": row.correct / row.count,
                    "most_confused_with": None
                    if row.confused_id is None
                    else {"class_id": row.confused_id, "label": row.confused_label, "images": row.confused_count},
                }
                for row in self.per_class()
            ],
        }

    def _share(self, hits: int) -> dict[str, Any]:
        return {"correct": hits, "accuracy": hits / self.readable, "interval_95": list(wilson(hits, self.readable))}
