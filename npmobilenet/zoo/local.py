"""The weight files that are found by name: those in the box, and those in the folder NPMOBILENET_WEIGHTS."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from npmobilenet.zoo.names import normalise


def weight_folders() -> list[Path]:
    """Where named weight files are looked for: the package's own, a checkout's `weights/`, NPMOBILENET_WEIGHTS."""
    package = Path(__file__).parent.parent
    folders = [package / "weights"]
    if (package.parent / "pyproject.toml").is_file():  # a checkout, not some site-packages/weights
        folders.append(package.parent / "weights")
    if os.environ.get("NPMOBILENET_WEIGHTS"):
        folders.append(Path(os.environ["NPMOBILENET_WEIGHTS"]))
    return folders


def weight_files() -> Iterator[Path]:
    """Each .h5 file of the folders, by name; of files with the same name, the first folder's."""
    seen: set[str] = set()
    for folder in weight_folders():
        try:
            files = sorted(path for path in folder.iterdir() if path.suffix == ".h5" and path.is_file())
        except OSError:  # no such folder, or one that can't be listed: `doctor` shows them
            continue
        yield from (path for path in files if normalise(path.stem) not in seen)
        seen.update(normalise(path.stem) for path in files)
