"""Folders of images: a subfolder for each class, files named by their class, or a ground-truth file beside them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from npmobilenet.errors import InputError
from npmobilenet.images.finding import SUFFIXES, is_folder, is_image_name
from npmobilenet.measure.datasets.classes import LISTED, ClassFinder, synset_of
from npmobilenet.measure.datasets.dataset import Dataset, fingerprint

MAX_TRUTH_BYTES = 64 * 2**20
# Column headings of Kaggle's LOC_val_solution.csv, whose second column is "synset x y x y", repeated for each box.
KAGGLE_HEADING = "ImageId,PredictionString"
LAYOUTS = (
    "a subfolder for each class, files named like n01496331_electric_ray.JPEG, or any files with a ground-truth file "
    "(--truth FILE)"
)


def open_folder(folder: Path, classes: ClassFinder, truth: Path | None) -> Dataset:
    """The data set in a folder. Raises `InputError` as `open_dataset` does."""
    loose, subfolders, skipped = _scan(folder)
    if truth is not None:
        names = loose or [name for _, files in subfolders.items() for name in files]
        _check_any(folder, names, skipped)
        return _dataset("truth file", folder, sorted(names), classes, _read_truth(truth, sorted(names)), skipped)
    if loose and any(subfolders.values()):
        raise InputError(
            f"DATA '{folder}' holds images ('{loose[0]}') and class folders ('{next(iter(subfolders))}'): expected one "
            f"or the other; {LAYOUTS}"
        )
    if loose:
        return _dataset("synset-named files", folder, loose, classes, _by_name(folder, loose), skipped)
    labels = {name: group for group, files in subfolders.items() for name in files}
    _check_any(folder, labels, skipped)
    return _dataset("class folders", folder, list(labels), classes, labels, skipped)


def class_folders(folder: Path) -> tuple[str, ...]:
    """The names of the subfolders that hold images, sorted. Raises `InputError`: there are none, or loose images."""
    try:
        loose, subfolders, skipped = _scan(folder)
    except OSError as error:
        raise InputError(f"DATA '{folder}' can't be listed: {error.strerror or error}") from error
    if loose:
        raise InputError(
            f"DATA '{folder}' holds images itself ('{loose[0]}'): expected a subfolder for each class, and nothing else"
        )
    _check_any(folder, [name for files in subfolders.values() for name in files], skipped)
    return tuple(subfolders)


def _scan(folder: Path) -> tuple[list[str], dict[str, list[str]], int]:
    """Images directly in the folder, images under each subfolder, both sorted, and the number of other files.

    Hidden files and folders are left out. Folder links are not followed below the first level, so no loop is.
    """
    loose: list[str] = []
    subfolders: dict[str, list[str]] = {}
    skipped = 0
    for entry in sorted(os.scandir(folder), key=lambda e: e.name):
        if entry.name.startswith("."):
            continue
        if not is_folder(entry):
            skipped += not is_image_name(entry.name)
            loose += [entry.name] * is_image_name(entry.name)
            continue
        files: list[str] = []
        for place, inner, names in os.walk(entry.path):
            inner[:] = sorted(n for n in inner if not n.startswith("."))
            seen = sorted(n for n in names if not n.startswith("."))
            kept = [n for n in seen if is_image_name(n)]
            skipped += len(seen) - len(kept)
            files += [(Path(place) / n).relative_to(folder).as_posix() for n in kept]
        if files:
            subfolders[entry.name] = files
    return loose, subfolders, skipped


def _check_any(folder: Path, names: Sequence[str] | Mapping[str, str], skipped: int) -> None:
    if not names:
        others = f" ({skipped} other files)" if skipped else ""
        raise InputError(f"DATA '{folder}' holds no images{others}: expected {', '.join(SUFFIXES)} files in {LAYOUTS}")


def _dataset(
    layout: str, folder: Path, names: Sequence[str], classes: ClassFinder, labels: Mapping[str, str], skipped: int
) -> Dataset:
    outputs = classes.match((labels[name] for name in names), f"DATA '{folder}'")
    truths = np.array([outputs[labels[name]] for name in names], np.int32)
    rows = ((name, _size(folder / name), int(t)) for name, t in zip(names, truths, strict=True))
    return Dataset(
        layout, os.fspath(folder), tuple(names), truths, fingerprint(layout, rows), lambda i: folder / names[i], skipped
    )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # a dangling link: an unreadable image, later
        return -1


def _by_name(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """Each file's synset id and words; digits after the id (n01440764_10026.JPEG) number the pictures of a class."""
    labels = {}
    other = []
    for name in names:
        stem = name.rpartition(".")[0]
        # The synset stands in front, or last (ILSVRC2012_val_00000001_n01751748.JPEG).
        synset = synset_of(stem) or synset_of(stem.rpartition("_")[2])
        if synset is None:
            other.append(name)
        else:
            labels[name] = "_".join(part for part in synset if part)
    if other:
        raise InputError(
            f"DATA '{folder}': {len(other)} of {len(names)} file names don't tell a class, for instance '{other[0]}': "
            f"expected {LAYOUTS}"
        )
    return labels


# ---------------------------------------------------------------------------------------------------------------------
# Ground-truth files


def _read_truth(path: Path, names: Sequence[str]) -> dict[str, str]:
    """The class of each file, as a ground-truth file gives it: by file name, or line by line in the order of names."""
    try:
        if path.exists() and not path.is_file():  # a pipe could block for ever
            raise OSError("it is no regular file")
        if path.stat().st_size > MAX_TRUTH_BYTES:
            raise InputError(f"truth file '{path}' has more than {MAX_TRUTH_BYTES:,} bytes: is it a text file?")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a null character in the path
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"truth file '{path}' can't be read ({reason}): expected a text file, UTF-8") from error
    lines = [(i, line.strip()) for i, line in enumerate(text.splitlines(), 1) if line.strip()]
    if lines and lines[0][1].replace(" ", "") == KAGGLE_HEADING:
        del lines[0]
    if not lines:
        raise InputError(f"truth file '{path}' is empty: expected one line for each of the {len(names)} images")
    files = {key: name for name in names for key in (name.rpartition(".")[0], name)}
    if _split(lines[0][1])[0] in files or _split(lines[0][1])[1]:
        named = _named(path, lines, files)
        missing = [name for name in names if name not in named]
        if missing:
            raise InputError(
                f"truth file '{path}' says nothing about {len(missing)} of the {len(names)} images: "
                f"{', '.join(missing[:LISTED])}{' ...' if len(missing) > LISTED else ''}"
            )
        return named
    if len(lines) != len(names):
        raise InputError(
            f"truth file '{path}' has {len(lines)} lines, and there are {len(names)} images: expected one line for "
            "each, in the order of the sorted file names, or lines 'NAME CLASS'"
        )
    return {name: _label(line) for name, (_, line) in zip(names, lines, strict=True)}


def _named(path: Path, lines: Sequence[tuple[int, str]], files: Mapping[str, str]) -> dict[str, str]:
    """Lines "NAME CLASS". Lines about images that aren't there are let be: DATA may be a part of the whole."""
    labels: dict[str, str] = {}
    for number, line in lines:
        name, label = _split(line)
        if not label:
            raise InputError(f"truth file '{path}', line {number}: '{line[:80]}' has no class: expected 'NAME CLASS'")
        file = files.get(name)
        if file is None:
            continue
        if labels.get(file, _label(label)) != _label(label):
            raise InputError(f"truth file '{path}', line {number}: '{name}' has another class than in a line above")
        labels[file] = _label(label)
    if not labels:
        raise InputError(
            f"truth file '{path}' names none of the images; its first line is '{lines[0][1][:80]}': expected a class "
            f"in each line, or 'NAME CLASS', NAME such as '{next(iter(files.values()))}'"
        )
    return labels


def _split(line: str) -> tuple[str, str]:
    """Name and class, parted by a tab, a comma or spaces, in this order of preference."""
    for separator in ("\t", ",", " "):
        name, found, label = line.partition(separator)
        if found:
            return name.strip(), label.strip()
    return line, ""


def _label(text: str) -> str:
    """A class as written, without quotation marks; of "synset numbers ..." (Kaggle's boxes) only the synset id."""
    text = text.strip().strip("\"'")
    boxes = re.fullmatch(r"(n\d{8})(?:\s+(?:\d+|\1))+", text)
    return boxes[1] if boxes else text
