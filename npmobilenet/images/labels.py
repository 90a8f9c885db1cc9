"""Class names, and from a model's scores to the best few of them.

A class id is always the model's own output index. How far the labels are shifted against it belongs to the model
(`ModelInfo.label_offset`): TF-slim's models have 1001 outputs, 0 is "background" and 1 is ImageNet's first class.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npmobilenet.errors import InputError, WeightFileError
from npmobilenet.modeldata import ModelInfo

Array = NDArray[Any]
Prediction = tuple[int, str, float]  # class id, label, score

BUNDLED = ("imagenet",)
BACKGROUND = "background"
SCORES_RANK = 2


@cache
def synonyms(name: str = "imagenet") -> tuple[str, ...]:
    """The bundled list `name`: one string for each class, its names separated by ", ", in the order of the classes.

    "imagenet" are the 1000 classes of ILSVRC 2012 in the order of their synset ids, 0 (tench) to 999 (toilet tissue).
    Two classes share the name crane there; they are told apart by an addition in parentheses.

    Raises `WeightFileError` (only a model can have asked) if there is no such list.
    """
    if name not in BUNDLED:
        raise WeightFileError(f"unknown label list '{name}': expected one of {', '.join(BUNDLED)}, or the names")
    text = (resources.files("npmobilenet") / "data" / f"{name}_labels.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())


@cache
def short_names(name: str = "imagenet") -> tuple[str, ...]:
    """The first of each class's names, or all of them where the first alone is not unique ("maillot, tank suit")."""
    lines = synonyms(name)
    firsts = [line.split(", ")[0] for line in lines]
    return tuple(first if firsts.count(first) == 1 else line for first, line in zip(firsts, lines, strict=True))


def label_names(info: ModelInfo, classes: int) -> tuple[str, ...] | None:
    """One label for each of the model's `classes` outputs, or None for a model without labels.

    Output `label_offset + i` gets label i. The outputs before the first label are "background" where there is one of
    them, else "class <id>".

    Raises `WeightFileError` if the labels don't fit the number of outputs: a shifted label would be a wrong answer.
    """
    if not info.labels:
        return None
    names = short_names(info.labels) if isinstance(info.labels, str) else tuple(info.labels)
    offset = info.label_offset
    if offset < 0 or offset + len(names) != classes:
        raise WeightFileError(
            f"model '{info.name}': {len(names)} labels from output {offset} on don't fit its {classes} outputs; "
            f"expected {classes - offset} labels, so its labels or label_offset are wrong: convert it again"
        )
    before = (BACKGROUND,) if offset == 1 else tuple(f"class {i}" for i in range(offset))
    return before + names


def decode(scores: Array, info: ModelInfo, top: int = 5) -> list[list[Prediction]]:
    """For each image its `top` best classes: `[(class_id, label, score), ...]`, best first, ties by lower class id.

    `scores` is (N, classes), numbers of any kind (logits, probabilities, quantized); they are only sorted. `top` beyond
    the number of classes gives all. A model without labels gets "class <id>".

    Raises `InputError` for scores of another rank, none, or NaN, and for `top` below 1.
    """
    scores = np.asarray(scores)
    if scores.ndim != SCORES_RANK or scores.shape[1] == 0 or scores.dtype.kind not in "fiu":
        raise InputError(
            f"scores: expected numbers of shape (N, classes), got {scores.dtype} {scores.shape}; "
            f"is the model a classifier?"
        )
    if isinstance(top, bool) or not isinstance(top, (int, np.integer)) or top < 1:
        raise InputError(f"top: expected a whole number of at least 1, got {top!r}")
    if np.isnan(scores).any():
        raise InputError("scores: they hold NaN, so there is no best class; check the weights and the input")
    names = label_names(info, scores.shape[1])
    return [_best(row, names, int(top)) for row in scores]


def _best(row: Array, names: tuple[str, ...] | None, top: int) -> list[Prediction]:
    # A stable ascending sort of the reversed row, read backwards: descending scores, ties by lower index. (Negating
    # the scores instead would wrap for unsigned integers.)
    order = (row.size - 1 - np.argsort(row[::-1], kind="stable"))[::-1][:top]
    return [(int(i), names[i] if names else f"class {i}", float(row[i])) for i in order]
