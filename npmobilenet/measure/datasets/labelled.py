"""Labelled images elsewhere: a Parquet file with a column of classes, a remote folder with a subfolder for each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from npmobilenet.errors import InputError
from npmobilenet.measure.datasets import remote
from npmobilenet.measure.datasets.classes import ClassFinder
from npmobilenet.measure.datasets.dataset import Dataset, fingerprint


def open_parquet(path: str, classes: ClassFinder) -> Dataset:
    """The rows of a Parquet file: images as `remote.rows` reads them, and a column of class names or indices.

    Raises `InputError`, `MissingExtra`.
    """
    sizes = remote.groups(path)
    with remote.table(path) as file:
        there = file.schema_arrow.names
        column = next((name for name in remote.LABELS if name in there), None)
        if column is None:
            raise InputError(
                f"'{path}' has the columns {', '.join(there[:20])}: expected one of {', '.join(remote.LABELS)} with "
                "the classes"
            )
        labels = [str(value) for value in file.read(columns=[column]).column(column).to_pylist()]
        weights = [file.metadata.row_group(i).total_byte_size for i in range(len(sizes))]
        named = next((name for name in (*remote.PATHS, "name", "id") if name in there), None)
        names = file.read(columns=[named]).column(named).to_pylist() if named else None
    rows = [remote.Row(path, group, i) for group, size in enumerate(sizes) for i in range(size)]
    if not rows:
        raise InputError(f"'{path}' has no rows: expected one for each image")
    texts = tuple(map(str, names)) if names else tuple(f"{path}#{row.group}.{row.row}" for row in rows)
    sums = (weights[row.group] for row in rows)
    return _dataset("parquet", path, texts, labels, list(sums), rows, classes)


def open_address(folder: str, classes: ClassFinder) -> Dataset:
    """The images below a folder of a remote file system, each of the class that the first subfolder names.

    Raises `InputError`, `MissingExtra`.
    """
    found = remote.tree(folder)
    loose = [name for name, _, _ in found if "/" not in name]
    if loose or not found:
        there = f"images itself ('{loose[0]}')" if loose else "no images"
        raise InputError(f"DATA '{folder}' holds {there}: expected a subfolder of images for each class")
    names, sources, sizes = zip(*found, strict=True)
    labels = [name.partition("/")[0] for name in names]
    return _dataset("class folders", folder, names, labels, list(sizes), list(sources), classes)


def _dataset(
    layout: str, where: str, names: tuple[str, ...], labels: list[str], sizes: list[int], sources: Sequence[object],
    classes: ClassFinder,
) -> Dataset:  # fmt: skip
    outputs = classes.match(labels, f"DATA '{where}'")
    truths = np.array([outputs[label] for label in labels], np.int32)
    rows = zip(names, sizes, truths.tolist(), strict=True)
    return Dataset(layout, where, names, truths, fingerprint(layout, rows), sources.__getitem__)
