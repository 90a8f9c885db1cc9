"""Labelled images to evaluate a model on: folders of several layouts, .npz archives of JPEG files, Parquet files.

`open_dataset` finds out which layout DATA has and matches its classes to a model's. Nothing is decoded here.
"""

from __future__ import annotations

import os
from pathlib import Path

from npmobilenet.errors import InputError
from npmobilenet.formats.model_path import is_address
from npmobilenet.measure.datasets.classes import ClassFinder
from npmobilenet.measure.datasets.dataset import Dataset
from npmobilenet.measure.datasets.folder import open_folder
from npmobilenet.measure.datasets.labelled import open_address, open_parquet
from npmobilenet.measure.datasets.npz import open_npz
from npmobilenet.modeldata import ModelInfo

__all__ = ["ClassFinder", "Dataset", "open_dataset"]

Pathish = str | os.PathLike[str]
ZIP_MAGIC = b"PK\x03\x04"


def open_dataset(
    data: Pathish, info: ModelInfo, outputs: int, truth: Pathish | None = None, split: str | None = None
) -> Dataset:
    """The images of `data` and the output of a model (`info`, number of `outputs`) that is right for each.

    `data` is a folder with a subfolder for each class, a folder of images with a ground-truth file `truth`, a folder
    of files named by synset and class, an .npz archive, of which one `split` is taken, a .parquet file with columns of
    images and of classes, or the address of a remote folder with a subfolder for each class (docs/evaluate.md).

    Raises `InputError`: no such file or folder, no images, another layout, an ill-formed archive or truth file, and
    classes that don't match the model's, all in one error. `WeightFileError`: the model's labels don't fit its outputs.
    """
    text, classes = os.fspath(data), ClassFinder(info, outputs)
    if text.endswith(".parquet") or is_address(text):
        if truth is not None or split is not None:
            raise InputError(f"'{text}' has its own classes: neither a ground-truth file nor a split goes with it")
        return (open_parquet if text.endswith(".parquet") else open_address)(text, classes)
    path = Path(data)
    try:
        if path.is_dir():
            if split is not None:
                raise InputError(f"split '{split}': only .npz archives have splits, and '{path}' is a folder")
            return open_folder(path, classes, None if truth is None else Path(truth))
        if not path.is_file():
            raise InputError(f"DATA '{path}' does not exist, or is neither a folder nor a file; check the path")
        with open(path, "rb") as file:
            magic = file.read(len(ZIP_MAGIC))
    except (OSError, ValueError) as error:
        raise InputError(f"DATA '{path}' can't be read: {getattr(error, 'strerror', None) or error}") from error
    if magic != ZIP_MAGIC:
        raise InputError(f"DATA '{path}' is a file, but no .npz archive: expected one, or a folder of images")
    if truth is not None:
        raise InputError(f"a ground-truth file goes with a folder of images; the archive '{path}' has its own labels")
    return open_npz(path, classes, split or "val")
