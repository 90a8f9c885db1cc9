"""From the name or path that a user gives to the file of a model, and to what is in it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from npmobilenet.errors import ConversionError, ModelNotFound, WeightFileError
from npmobilenet.formats import Resolution, is_model_folder, is_weight_file, of_size, read_model, weightfile
from npmobilenet.modeldata import ModelData

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
        raise ModelNotFound(
            f"there is no file {text}; {_of_pytorch(text) or '`npmobilenet models` lists the names that are known'}"
        )
    row = row or checkpoints.resolve(text)
    also = f", and the folder '{text}' is no checkpoint" if folder else ""
    raise ModelNotFound(
        f"the weights of {row.name} are not on this machine{also}. npmobilenet pull {row.name} fetches them; without a "
        f"network, fetch {row.url} by other means, then: npmobilenet pull {row.name} --archive FILE.tgz"
    )


def _of_pytorch(text: str) -> str:
    """What to do with a name of timm's or torchvision's, whose weights lie in the user's own file; "" for others."""
    from npmobilenet.zoo.pytorch import torch_model

    if not text.startswith(("timm/", "torchvision/")):
        return ""
    try:
        name = torch_model(text).name
    except ModelNotFound as error:
        return str(error)
    return f"that is a name of PyTorch's: save its state dict, then load('FILE.pth', model='{name}')"


def load_data(
    name_or_path: str | os.PathLike[str], outputs: str | Iterable[str] = (), resolution: Resolution = None,
    model: str | None = None,
) -> ModelData:  # fmt: skip
    """What `load` loads, before it is planned, as the file tells it."""
    path = find(name_or_path)
    ends = (outputs,) if isinstance(outputs, str) else tuple(outputs)
    try:
        own = is_weight_file(path)
        if own and model is not None:
            raise ConversionError(f"{path}: a weight file of this project says which model it is; leave model= away")
        data = weightfile.read(path).until(ends) if own else read_model(path, model, "auto", ends, resolution)
        return of_size(data, resolution)
    except (ConversionError, WeightFileError) as error:
        from npmobilenet.zoo.checkpoints import locate

        hidden = locate(os.fspath(name_or_path))
        if hidden is None or hidden == path:
            raise
        raise type(error)(f"{error} (it hides the model of that name, '{hidden}': pass that, or rename it)") from error
