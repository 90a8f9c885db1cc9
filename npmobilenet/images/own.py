"""What a user says of a model that its file doesn't: the names of its classes, the recipe of its pictures."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

from npmobilenet.errors import InputError
from npmobilenet.formats.label_file import label_list, read_labels
from npmobilenet.images.labels import BUNDLED, SCORES_RANK, short_names
from npmobilenet.images.recipes import get_recipe
from npmobilenet.modeldata import ASSUMED, ModelData, assumptions

Labels = str | os.PathLike[str] | Sequence[str] | Mapping[str, int]
GIVEN = "given"  # the key of a model's provenance for what its file didn't tell and a user did


def with_own(data: ModelData, labels: Labels | None = None, preprocess: str | None = None) -> ModelData:
    """The model with the labels and the recipe that a user gives; what was assumed in their place is forgotten.

    `labels`: the path of a label file (formats/label_file.py), the names themselves, "imagenet", or the index of each
    name (Keras' `class_indices`). `preprocess`: a name of recipes.py. None leaves what the file says.

    Raises `InputError`: labels that aren't as many as the first output has scores, an unknown recipe.
    """
    info, said = data.info, list(data.info.assumed)
    given = [text for text in info.provenance.get(GIVEN, "").split("; ") if text]
    if labels is not None:
        names, offset = _fitting(data, labels)
        info = replace(info, labels=names, label_offset=offset)
        told = "labels"
        if isinstance(labels, (str, os.PathLike)) and labels not in BUNDLED:
            told = f"labels from {os.path.basename(os.fspath(labels))}"
        said, given = _without(said, "labels"), [*_without(given, "labels"), told]
    if preprocess is not None:
        get_recipe(preprocess)
        info = replace(info, preprocessing=preprocess)
        said, given = _without(said, "recipe"), [*_without(given, "recipe"), f"recipe {preprocess}"]
    if labels is None and preprocess is None:
        return data
    rest = {key: text for key, text in info.provenance.items() if key not in (ASSUMED, GIVEN)}
    provenance = {**rest, GIVEN: "; ".join(given), **assumptions(said)}
    return ModelData(data.graph, data.tensors, replace(info, provenance=provenance))


def _without(sentences: list[str], subject: str) -> list[str]:
    return [text for text in sentences if not text.startswith(subject)]


def _fitting(data: ModelData, labels: Labels) -> tuple[str | tuple[str, ...], int]:
    """Labels and the output of the first one."""
    shape = data.graph.tensors[data.graph.outputs[0]].shape
    if len(shape) != SCORES_RANK:
        raise InputError(f"labels: {data.info.name} gives {shape}, no score for each class: expected (1, classes)")
    classes = shape[1]
    if isinstance(labels, str) and labels in BUNDLED:
        count = len(short_names(labels))
        offsets = {count: 0, count + 1: 1}
        if classes not in offsets:
            raise InputError(f"labels '{labels}': {count} names, and {data.info.name} has {classes} outputs")
        return labels, offsets[classes]
    named = isinstance(labels, (str, os.PathLike))
    names = read_labels(labels) if isinstance(labels, (str, os.PathLike)) else label_list(labels, "labels")
    offset = data.info.label_offset if len(names) + data.info.label_offset == classes else 0
    if len(names) + offset != classes:
        where = f"labels '{labels}'" if named else "labels"
        hint = "name them all, in the order of the outputs"
        if classes == 1:
            hint = "give one, the name of the class that a score of 1 stands for"
        raise InputError(f"{where}: {len(names)} names, and {data.info.name} has {classes} outputs; {hint}")
    return names, offset
