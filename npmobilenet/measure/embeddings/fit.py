"""A classifier of one's own pictures: the vectors of a model, a head trained on them, both in one weight file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from npmobilenet.errors import InputError
from npmobilenet.images.finding import Found
from npmobilenet.measure.datasets import Dataset, open_dataset
from npmobilenet.measure.datasets.folder import class_folders
from npmobilenet.measure.datasets.npz import read_arrays
from npmobilenet.measure.embeddings.embed import vectors_of
from npmobilenet.measure.embeddings.head import choose_strength, logistic_regression, with_head
from npmobilenet.measure.evaluate.metrics import wilson
from npmobilenet.model import Model
from npmobilenet.modeldata import ModelData, ModelInfo
from npmobilenet.runtime.pooled import POOLED, layer_of

STRENGTH = 0.01  # scikit-learn's C, where there are too few images to choose it
HELD = 0.2  # share of each class's images on which the accuracy is measured
FOLDS = 3  # parts of the others, each named by heads trained on the rest, by which the strength is chosen


@dataclass(frozen=True)
class Fitted:
    """A model with its new head, trained on all images, and how one trained without the held ones did on these."""

    data: ModelData
    counts: dict[str, int]  # readable images of each class
    held: int
    hits: int
    unreadable: dict[str, str]

    @property
    def accuracy(self) -> float | None:
        """The share of held images that were named right; None where none could be held."""
        return self.hits / self.held if self.held else None


def fit(
    model: Model,
    images: str | os.PathLike[str],
    name: str,
    split: str | None = None,
    recipe: str | None = None,
    strength: float | None = None,
    on_progress: Callable[[int, int, int], None] | None = None,
) -> Fitted:
    """Train a head for the classes of `images`: a folder with a subfolder for each, or one `split` of an .npz archive.

    The head is a logistic regression on `model.features(images, recipe=recipe)`, found without chance: the same images
    give the same model. A fifth of each class, chosen by the sums of the files' names, is held out to measure the
    accuracy; then the head is trained anew on all. `strength` is scikit-learn's C; None: chosen by cross-validation
    among the images that aren't held out.

    Raises `InputError`: unfit data, fewer than two classes with an image that can be read.
    """
    if strength is not None and not 0 < strength < float("inf"):
        raise InputError(f"strength {strength}: expected a number above 0; larger trusts the images more")
    data, labels = _open(Path(images), split)
    found = [Found(data.names[i], data.source(i)) for i in range(len(data))]
    rows, bad = [], 0
    for batch in vectors_of(model, found, POOLED, False, recipe):
        rows += batch
        bad += sum(row.vector is None for row in batch)
        if on_progress is not None:
            on_progress(len(rows), len(found), bad)
    good = [i for i, row in enumerate(rows) if row.vector is not None]
    truths = data.truths[good]
    counts = {label: int((truths == i).sum()) for i, label in enumerate(labels)}
    empty = [label for label, count in counts.items() if not count]
    unreadable = {row.name: row.error or "" for row in rows if row.vector is None}
    if empty:
        why = next(iter(unreadable.values()))
        raise InputError(f"no image of class {', '.join(map(repr, empty[:5]))} could be read; the first: {why}")
    vectors = np.stack([row.vector for row in rows if row.vector is not None])
    held, fold_of = _shares([data.names[i] for i in good], truths)
    chosen = strength is None
    if strength is None:
        strength = choose_strength(vectors[~held], truths[~held], len(labels), fold_of[~held]) or STRENGTH
    hits = 0
    if held.any():
        w, b = logistic_regression(vectors[~held], truths[~held], len(labels), strength)
        hits = int((np.argmax(vectors[held] @ w + b, 1) == truths[held]).sum())
    w, b = logistic_regression(vectors, truths, len(labels), strength)
    how = f"C = {strength:g}" + (", by cross-validation" if chosen else "")
    facts = {
        "head": f"logistic regression ({how}) on {len(good)} images of {len(labels)} classes",
        "head accuracy": _told(hits, int(held.sum())),
        "head data": f"sha256 {data.fingerprint} of {data.layout}",
    }
    layer = layer_of(model.graph, POOLED).name
    made = with_head(model.data, layer, w, b, labels, facts, name, recipe)
    return Fitted(made, counts, int(held.sum()), hits, unreadable)


def _told(hits: int, held: int) -> str:
    if not held:
        return "not measured: no class has two images"
    low, high = wilson(hits, held)
    return f"{hits / held:.4f} ({hits} of {held} held out; 95 % interval {low:.4f} to {high:.4f})"


def _open(path: Path, split: str | None) -> tuple[Dataset, tuple[str, ...]]:
    """The images, and the names of their classes."""
    if path.is_dir():
        names = class_folders(path)
    else:
        info = ModelInfo("the archive", ())
        if path.is_file() and path.suffix == ".npz":
            names = tuple(str(name) for name in read_arrays(path, {"classes": ("U", 1)}, "DATA")["classes"])
            split = split or "train"
        else:
            open_dataset(path, info, 1)  # says what is wrong
            names = ()
    if len(names) < 2:
        raise InputError(
            f"'{path}' has {len(names)} classes: expected a folder with a subfolder of images for each, at least 2"
        )
    if len(set(names)) < len(names):
        raise InputError(f"'{path}': two classes have the same name")
    return open_dataset(path, ModelInfo("the new head", names), len(names), None, split), names


def _shares(names: Sequence[str], truths: NDArray[np.int32]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Which images measure the accuracy, and to which fold each other belongs, both by the sums of names.

    A fifth of each class is held (of two to five images one). A class of which one image is left is in no fold: -1.
    """
    held, fold_of = np.zeros(len(names), bool), np.full(len(names), -1)
    order = sorted(range(len(names)), key=lambda i: hashlib.sha256(names[i].encode(errors="surrogateescape")).digest())
    for label in np.unique(truths):
        of_class = [i for i in order if truths[i] == label]
        share = max(round(HELD * len(of_class)), 1) if len(of_class) > 1 else 0
        held[of_class[:share]] = True
        if len(of_class) > share + 1:
            fold_of[of_class[share:]] = np.arange(len(of_class) - share) % FOLDS
    return held, fold_of
