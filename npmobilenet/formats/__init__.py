"""Foreign model files to this project's: one module for each format, none of which needs TensorFlow."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from npmobilenet.errors import ConversionError, WeightFileError
from npmobilenet.formats.file_kinds import reader_of
from npmobilenet.formats.hdf5_names import member_names
from npmobilenet.formats.label_file import BESIDE, labels_beside
from npmobilenet.formats.whole_file import is_leftover
from npmobilenet.modeldata import ModelData, assumptions

SCORES_RANK = 2  # of an output that is one score for each class


Resolution = int | tuple[int, int] | None
MAX_SIDE = 8192


def read_model(
    path: str | os.PathLike[str], model: str | None = None, ema: bool | str = "auto", outputs: Sequence[str] = (),
    resolution: Resolution = None,
) -> ModelData:  # fmt: skip
    """A model from a .tflite file, a TensorFlow checkpoint, a Keras file or weights of PyTorch, told apart by content,
    or from a zip archive of one (its labels.txt with it).

    It may be packed in a tar archive (.tgz).

    `model` names the architecture (`mobilenet_v2_0.5_160`, `timm/mobilenetv2_110d`) where the file doesn't tell it:
    checkpoints, weights-only Keras files, state dicts of PyTorch. `ema` is for checkpoints and state dicts: True uses
    the exponential moving averages, False the live weights, "auto" the averages if there are any. `outputs` are
    endpoints or tensors to end at, if it isn't to be the whole model. `resolution`, a number or (height, width), is
    that of PyTorch's weights and of a Keras model for pictures of any size; of another it must be the one that it has.

    A classifier whose labels its file doesn't tell has those of a file labels.txt beside it, if they are as many.

    Raises `ConversionError` with what is wrong and where.
    """
    if is_leftover(Path(path)):
        raise ConversionError(
            f"{path}: left over from a write that was interrupted: delete it; its target is as it was"
        )
    return of_size(
        _with_labels_beside(_read(Path(path), model, ema, outputs, _pair(resolution)), Path(path)), resolution
    )


def _pair(resolution: Resolution) -> tuple[int, int] | None:
    pair = (resolution, resolution) if isinstance(resolution, int) else resolution
    if pair is not None and not (len(pair) == 2 and all(isinstance(n, int) and 1 <= n <= MAX_SIDE for n in pair)):
        raise ConversionError(f"resolution {resolution!r:.80}: expected a number, or (height, width), 1 to {MAX_SIDE}")
    return pair


def of_size(data: ModelData, resolution: Resolution) -> ModelData:
    """The model itself, whose pictures have that size, or any for None. Raises `ConversionError`."""
    pair, shape = _pair(resolution), data.graph.tensors[data.graph.inputs[0]].shape
    if pair is not None and pair not in (shape[1:3], shape[2:4]):
        raise ConversionError(
            f"{data.info.name}: its input has the shape {shape}, not the resolution {pair}. Only PyTorch's weights "
            "and Keras models for pictures of any size take another; a checkpoint is converted with "
            "--model NAME_RESOLUTION"
        )
    return data


def _read(
    source: Path, model: str | None, ema: bool | str, outputs: Sequence[str], resolution: tuple[int, int] | None
) -> ModelData:
    """What the file itself tells."""
    reader = reader_of(source)
    if reader in ("zip", "tar"):
        return _read_packed(source, reader, model, ema, outputs, resolution)
    if reader == "tflite":
        from npmobilenet.formats.tflite.model import convert_tflite

        return convert_tflite(source, outputs)
    if reader in ("hdf5", "keras"):
        if reader == "hdf5" and _hdf5_kind(source) == "own":
            raise ConversionError(f"{source}: a weight file of this project already; load it as it is")
        from npmobilenet.formats.keras.model import convert_keras

        return convert_keras(source, model, resolution).until(outputs)
    if reader in ("pytorch", "safetensors"):
        from npmobilenet.formats.pytorch.model import convert_pytorch

        return convert_pytorch(source, reader, model, ema, resolution).until(outputs)
    from npmobilenet.formats.tensorflow.model import convert_checkpoint

    return convert_checkpoint(source, model, ema).until(outputs)


def _read_packed(
    source: Path, reader: str, model: str | None, ema: bool | str, outputs: Sequence[str],
    resolution: tuple[int, int] | None,
) -> ModelData:  # fmt: skip
    """The one model in a zip archive, with the labels.txt in it, or in a tar archive, as published ones come (.tgz)."""
    from npmobilenet.formats import tarred, weightfile, zipped

    with (zipped if reader == "zip" else tarred).unpacked(source) as file:
        try:
            if is_weight_file(file):
                return weightfile.read(file).until(outputs)
            data = _with_labels_beside(_read(file, model, ema, outputs, resolution), file)
        except (ConversionError, WeightFileError) as error:  # ways out that name the file are those of the archive
            text = str(error).replace(f"record {file} ", f"record {shlex.quote(str(source))} ")
            raise type(error)(text.replace(str(file), str(source))) from error
    provenance = {**data.info.provenance, "source": f"{source.name}: {data.info.provenance.get('source', file.name)}"}
    return replace(data, info=replace(data.info, provenance=provenance))


def _with_labels_beside(data: ModelData, source: Path) -> ModelData:
    """Labels of a file beside the model, in the place of none or of those that were only assumed."""
    told = bool(data.info.labels) and not any(text.startswith("labels assumed") for text in data.info.assumed)
    shape = data.graph.tensors[data.graph.outputs[0]].shape
    names = () if told or len(shape) != SCORES_RANK else labels_beside(source, shape[1])
    if not names:
        return data
    sentences = [text for text in data.info.assumed if not text.startswith("labels assumed")]
    sentences.append(f"labels assumed: those of {BESIDE} beside the model")
    provenance = {**data.info.provenance, **assumptions(sentences)}
    return replace(data, info=replace(data.info, labels=names, label_offset=0, provenance=provenance))


def is_model_folder(path: Path) -> bool:
    """Whether a folder looks like a checkpoint, a SavedModel or TensorFlow.js' model, readable or not."""
    marks = ("*.index", "*.data-*-of-*", "saved_model.pb", "model.json")
    return any(True for mark in marks for _ in path.glob(mark))


def is_weight_file(path: Path) -> bool:
    """Whether a file is to be read as this project's own: HDF5 without the marks of Keras. A damaged one is."""
    return reader_of(path) == "hdf5" and _hdf5_kind(path) != "keras"


def _hdf5_kind(path: Path) -> str:
    """Which of own, keras and damaged an HDF5 file is."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            keras = {"model_weights", "layers", "_layer_checkpoint_dependencies"} & {*member_names(file)}
            return "keras" if keras or "layer_names" in file.attrs else "own"
    except (OSError, RuntimeError, ValueError, KeyError):
        return "damaged"
