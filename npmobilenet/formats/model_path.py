"""From the name or path that a user gives to the file of a model."""

from __future__ import annotations

import os
import re
from pathlib import Path

from npmobilenet.errors import ModelNotFound
from npmobilenet.formats import is_model_folder

SUFFIXES = (
    ".h5",
    ".tflite",
    ".keras",
    ".safetensors",
    ".pth",
    ".pt",
    ".zip",
    ".index",
    ".ckpt",
)  # of names that can only be meant as files


def is_address(path: str) -> bool:
    """Whether a text is an address in a network rather than a path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", path) is not None


def find(name_or_path: str | os.PathLike[str]) -> Path:
    """The file that a name or path stands for. Raises `ModelNotFound`.

    What there is at a path comes before a name, but for a folder that is no model.
    """
    if not isinstance(name_or_path, (str, os.PathLike)):
        raise ModelNotFound(f"expected a model's name or the path of a file, got {type(name_or_path).__name__}")
    path = Path(name_or_path)
    text = os.fspath(name_or_path)
    if is_address(text):
        raise ModelNotFound(f"{text} is an address, and nothing is downloaded: save it, and pass the file's path")
    try:
        folder = bool(text) and path.is_dir()
        if text and not folder and (path.exists() or path.with_name(path.name + ".index").is_file()):
            return path
    except (OSError, ValueError) as error:  # a name too long for the file system, or with a null byte
        raise ModelNotFound(f"{text[:80]!r} can be neither a file nor a model's name: {error}") from error
    if folder and is_model_folder(path):
        return path
    from npmobilenet.zoo import checkpoints  # the tables: 15 ms that a file's path doesn't need

    if (found := checkpoints.locate(text)) is not None:
        return found
    row = checkpoints.published_row(text)
    if row is None and folder:
        return path  # its reader says what is missing
    if row is None and (path.suffix in SUFFIXES or path.name != text) and checkpoints.relative_note(text) is None:
        raise ModelNotFound(f"there is no file {text}; `npmobilenet models` lists the names that are known")
    row = row or checkpoints.resolve(text)
    also = f", and the folder '{text}' is no checkpoint" if folder else ""
    raise ModelNotFound(
        f"the weights of {row.name} are not on this machine{also}. Download {row.url}, unpack it, then: "
        f"npmobilenet convert FILE {row.name}.h5 (FILE: the .tflite or checkpoint in it), and pass that .h5's path "
        "or put it into the folder that NPMOBILENET_WEIGHTS names"
    )
