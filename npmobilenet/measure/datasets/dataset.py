"""What a data set is once its layout has been understood."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Dataset:
    """Images in a fixed order: names, right outputs of the model, and how to get at them.

    `truths` (N,) int32 are output indices. `source(i)` is the path or the bytes of image i. `fingerprint` is a sha256
    over names, sizes (of an archive: contents) and truths. `skipped` counts files that were no images by their names.
    """

    layout: str
    where: str
    names: tuple[str, ...]
    truths: NDArray[np.int32]
    fingerprint: str
    source: Callable[[int], Any]
    skipped: int = 0

    def __len__(self) -> int:
        return len(self.names)


def fingerprint(layout: str, rows: Iterable[tuple[str, int, int]], content: bytes = b"") -> str:
    """The sha256 over the layout, a line "size truth name" for each image, and what identifies the contents."""
    total = hashlib.sha256(f"{layout}\n".encode())
    for name, size, truth in rows:
        total.update(f"{size} {truth} {name}\n".encode(errors="surrogateescape"))
    total.update(content)
    return total.hexdigest()
