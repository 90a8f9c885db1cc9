"""Images to calibrate with: no classes are needed, so any folder will do."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from npmobilenet.errors import InputError
from npmobilenet.images.finding import SUFFIXES
from npmobilenet.images.recipes import get_recipe
from npmobilenet.measure.datasets.npz import read_arrays
from npmobilenet.measure.evaluate.loop import spread

NPY_MAGIC, ZIP_MAGIC = b"\x93NUMPY", b"PK\x03\x04"
DEFAULT_SPLIT = "train"


@dataclass(frozen=True)
class Images:
    """Names, and for each index a path, the bytes of a file, or a prepared float32 array (H, W, C).

    `where` describes the source; `recipe` is how pictures are prepared, None for the model's own.
    """

    where: str
    names: tuple[str, ...]
    source: Callable[[int], Any]
    recipe: str | None = None

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return ((name, self.source(i)) for i, name in enumerate(self.names))


def open_images(
    data: str | os.PathLike[str], samples: int | None = None, split: str | None = None, recipe: str | None = None
) -> Images:
    """`samples` images at equal distances in the order of `data`; all if there are no more, or it is None.

    `data` is a folder, whose images are taken from all depths in the order of their paths; an .npz archive of JPEG
    files (docs/evaluate.md), of which one `split` is taken (default: train, or the only one); or a .npy file (N, H, W,
    C) of float32 values that are prepared already.

    Raises `InputError`: nothing there, no images, an ill-formed archive or array, an unknown split or recipe.
    """
    if samples is not None and samples < 1:
        raise InputError(f"samples {samples}: expected at least 1")
    if recipe is not None:
        get_recipe(recipe)
    path = Path(data)
    try:
        if path.is_dir():
            found = _folder(path, split)
        elif path.is_file():
            with path.open("rb") as file:
                found = _file(path, file.read(len(NPY_MAGIC)), split)
        else:
            raise InputError(f"DATA '{path}' does not exist, or is neither a folder nor a file; check the path")
    except (OSError, ValueError) as error:
        raise InputError(f"DATA '{path}' can't be read: {getattr(error, 'strerror', None) or error}") from error
    chosen = spread(len(found), samples)
    names = tuple(found.names[i] for i in chosen)
    return Images(found.where, names, lambda i: found.source(chosen[i]), recipe)


def _folder(path: Path, split: str | None) -> Images:
    if split is not None:
        raise InputError(f"split '{split}': only .npz archives have splits, and '{path}' is a folder")
    names: list[str] = []
    for place, inner, files in os.walk(path):
        inner[:] = sorted(n for n in inner if not n.startswith("."))
        kept = (n for n in files if n.lower().endswith(SUFFIXES) and not n.startswith("."))
        names += [(Path(place) / n).relative_to(path).as_posix() for n in kept]
    if not names:
        raise InputError(f"DATA '{path}' holds no images: expected {', '.join(SUFFIXES)} files, at any depth")
    names.sort()
    return Images(os.fspath(path), tuple(names), lambda i: path / names[i])


def _file(path: Path, head: bytes, split: str | None) -> Images:
    if head == NPY_MAGIC:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if array.ndim != 4 or array.dtype != np.float32 or not len(array):
            raise InputError(f"DATA '{path}' is {array.dtype} {array.shape}: expected float32 (N, H, W, C), N above 0")
        names = tuple(f"image {i}" for i in range(len(array)))
        return Images(os.fspath(path), names, lambda i: np.array(array[i]))
    if not head.startswith(ZIP_MAGIC):
        raise InputError(f"DATA '{path}' is neither an .npz archive nor a .npy array: expected one, or a folder")
    return _archive(path, split)


def _archive(path: Path, split: str | None) -> Images:
    split = split or DEFAULT_SPLIT
    forms = {f"{split}_jpeg": ("u", 1), f"{split}_offsets": ("iu", 1), f"{split}_names": ("U", 1)}
    try:
        jpeg, offsets, names = read_arrays(path, forms, "DATA").values()
    except InputError as error:
        raise InputError(f"{error} (--split names the part to take; '{split}' was looked for)") from None
    bounds = [int(o) for o in offsets]
    ascending = all(a <= b for a, b in pairwise(bounds))
    if jpeg.dtype != np.uint8 or len(names) < 1 or len(bounds) != len(names) + 1 or not ascending:
        raise InputError(
            f"DATA '{path}': {split}_jpeg {jpeg.dtype}, {len(names)} names, {len(bounds)} offsets: expected uint8, at "
            "least one name, and one offset more, ascending"
        )
    if bounds[0] < 0 or bounds[-1] > len(jpeg):
        raise InputError(f"DATA '{path}': {split}_offsets go beyond the {len(jpeg):,} bytes of {split}_jpeg")
    texts = tuple(str(name) for name in names)
    return Images(f"{os.fspath(path)} ({split})", texts, lambda i: jpeg[bounds[i] : bounds[i + 1]].tobytes())
