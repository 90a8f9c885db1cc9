"""The weight files that are found by name: those in the box, in the folder NPMOBILENET_WEIGHTS, and those pulled."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from npmobilenet.zoo.names import normalise


def data_home() -> Path:
    """NPMOBILENET_HOME, or `npmobilenet` in the user's data folder: XDG_DATA_HOME, or the platform's own.

    A relative XDG_DATA_HOME counts as none (XDG Base Directory Specification 0.8).
    """
    if chosen := os.environ.get("NPMOBILENET_HOME"):
        return Path(chosen)
    base = Path(os.environ.get("XDG_DATA_HOME", ""))
    if not base.is_absolute():
        own = {"win32": Path(os.environ.get("LOCALAPPDATA", "")), "darwin": Path.home() / "Library/Application Support"}
        base = own.get(sys.platform, Path())
    return (base if base.is_absolute() else Path.home() / ".local" / "share") / "npmobilenet"


def models_folder() -> Path:
    """Where `pull` puts weight files."""
    return data_home() / "models"


def weight_folders() -> list[Path]:
    """Where named weight files are looked for: the package's, a checkout's `weights/`, NPMOBILENET_WEIGHTS, pulled."""
    package = Path(__file__).parent.parent
    folders = [package / "weights"]
    if (package.parent / "pyproject.toml").is_file():  # a checkout, not some site-packages/weights
        folders.append(package.parent / "weights")
    if os.environ.get("NPMOBILENET_WEIGHTS"):
        folders.append(Path(os.environ["NPMOBILENET_WEIGHTS"]))
    return [*folders, models_folder()]


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
