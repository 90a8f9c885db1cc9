"""Models as files of other programs: one function, which asks the name of the file for the format."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from npmobilenet.errors import ConversionError
from npmobilenet.formats.whole_file import write_whole
from npmobilenet.modeldata import ModelData

SUFFIXES = (".tflite", ".onnx")


def write_model(path: str | os.PathLike[str], data: ModelData, names: Sequence[str] = ()) -> int:
    """Write `data` as a .tflite file (float or 8-bit) or an .onnx file (float), by the name; returns its bytes.

    `names` are those of the classes, one for each output (`images.labels.label_names`): they go where other programs
    look for them. Recipe and labels of this project are kept beside them. A file is written whole or not at all.

    Raises `ConversionError` for what the format can't say, with op and node, or where it can't be written, and
    `MissingExtra`.
    """
    target = Path(path)
    if target.suffix == ".tflite":
        from npmobilenet.formats.tflite.exporting import write_tflite

        content = write_tflite(data, names)
    elif target.suffix == ".onnx":
        from npmobilenet.formats.onnx.exporting import write_onnx

        content = write_onnx(data, names)
    else:
        raise ConversionError(f"'{path}': the name of what is exported ends in {' or '.join(SUFFIXES)}")
    try:
        write_whole(target, lambda file: file.write(content))
    except (OSError, ValueError) as error:
        raise ConversionError(
            f"'{path}' can't be written: {error}; check the folder, and the room on its disk"
        ) from error
    return len(content)
