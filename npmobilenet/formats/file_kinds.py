"""What sort of file this is, told by its content, and what its holder can do: one table of kinds.

A kind that is read here names its `reader`; any other says what to do with the file at hand. A new format is a row of
`KINDS`; once something reads it, its row gets a reader. Nothing is unpacked or parsed: signs are looked for in the
first and last bytes, where a zip archive has its members' names.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from npmobilenet.errors import ConversionError

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
TABLE_MAGIC = bytes.fromhex("57fb808b247547db")  # the last bytes of a checkpoint's table files
_MOST_BYTES = 1 << 16  # that are looked at, at each end


class Sample(NamedTuple):
    """The first and last bytes of a file (the same ones of a short file), its size and its suffix."""

    head: bytes
    tail: bytes
    size: int
    suffix: str

    def holds(self, *signs: bytes) -> bool:
        """Whether all signs stand at one of the ends."""
        return all(sign in self.head or sign in self.tail for sign in signs)


class Kind(NamedTuple):
    """`name` is as in "this is ...". `vague`: a container or text that may well be a damaged file of another kind."""

    name: str
    told: Callable[[Sample], bool]
    advice: str = ""
    reader: str = ""
    vague: bool = False


def _starts(*signs: bytes) -> Callable[[Sample], bool]:
    return lambda s: s.head.startswith(signs)


def _zipped(*signs: bytes) -> Callable[[Sample], bool]:
    """A zip archive whose list of members holds all signs; without one, as it is cut short, its ends hold them.

    Of a list longer than what is looked at, the first members are named at the file's head, too.
    """

    def told(s: Sample) -> bool:
        if not s.head.startswith(b"PK\x03\x04"):
            return False
        end = s.tail.rfind(b"PK\x05\x06")
        length = int.from_bytes(s.tail[end + 12 : end + 16], "little")
        last = end - 76 if s.tail[max(end - 20, 0) : end].startswith(b"PK\x06\x07") else end  # ZIP64: two records more
        names = s.tail[max(last - length, 0) : end] + (s.head if length > last else b"")
        return s.holds(*signs) if end < 0 else all(sign in names for sign in signs)

    return told


def _html(s: Sample) -> bool:
    return s.head.lstrip(b"\xef\xbb\xbf \r\n\t")[:14].lower().startswith((b"<!doctype html", b"<html"))


def _safetensors(s: Sample) -> bool:
    """The length of a JSON header in 8 bytes, then the header."""
    length = int.from_bytes(s.head[:8], "little")
    return s.head[8:9] == b"{" and 2 <= length <= s.size - 8 and b'"dtype"' in s.head


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Protobuf's number of variable length at `at`, and the place behind it."""
    value = 0
    for i, byte in enumerate(data[at : at + 5]):
        value |= (byte & 127) << 7 * i
        if byte < 128:
            return value, at + i + 1
    return 0, at


def _field(data: bytes, at: int, tag: int) -> tuple[bytes, int]:
    """The bytes of a protobuf field with this tag at `at`, as far as they are there, and the place behind it."""
    if data[at : at + 1] != bytes([tag]):
        return b"", -1
    length, start = _varint(data, at + 1)
    return data[start : start + length], start + length


def _text(data: bytes) -> bool:
    return bool(data) and data.isascii() and data.decode("ascii").isprintable()


def _onnx(s: Sample) -> bool:
    """ModelProto: ir_version (field 1), then the producer's name (2), the graph (7) or the opset (8)."""
    if s.head[:1] != b"\x08" or not b"\1" <= s.head[1:2] <= b"\x20":
        return False
    producer, _ = _field(s.head, 2, 0x12)
    return _text(producer) or s.head[2:3] in (b"\x3a", b"\x42")


def _core_ml(s: Sample) -> bool:
    """Model: specificationVersion (field 1), description (2), whose first field is the description of an input."""
    description, _ = _field(s.head, 2, 0x12)
    port, _ = _field(description, 0, 0x0A)
    name, _ = _field(port, 0, 0x0A)
    return s.head[:1] == b"\x08" and _text(name) and not _saved_model(s)


def _saved_model(s: Sample) -> bool:
    """SavedModel: version 1 (field 1), then one MetaGraphDef (2) up to the end of the file."""
    return s.head[:3] == b"\x08\x01\x12" and _field(s.head, 2, 0x12)[1] == s.size


def _frozen(s: Sample) -> bool:
    """GraphDef: nodes (field 1) with a name (1) and an op (2)."""
    node, _ = _field(s.head, 0, 0x0A)
    name, at = _field(node, 0, 0x0A)
    return _text(name) and at > 0 and _text(_field(node, at, 0x12)[0])


def _json(*keys: bytes) -> Callable[[Sample], bool]:
    return lambda s: s.head.lstrip()[:1] == b"{" and any(b'"%s"' % key in s.head + s.tail for key in keys)


def _plain_text(s: Sample) -> bool:
    text = s.head[:4096].decode("utf-8", "replace").rstrip("\ufffd")  # a character may be cut off at the end
    return len(text) > 1 and "\ufffd" not in text and all(c.isprintable() or c.isspace() for c in text)


_UNPACK = "unpack it first, and pass the model file in it"
_LITERT = "litert_torch.convert(model.eval(), (sample,)).export('model.tflite')"
_ORIGINAL = "it can't be turned back; convert the model that it was made from"
_CONVERTER = "make a .tflite of it with TensorFlow: tf.lite.TFLiteConverter"
_SAVED_MODEL = f"{_CONVERTER}.from_saved_model(FOLDER).convert() gives its bytes"
_AGAIN = "download the file itself"

KINDS: tuple[Kind, ...] = (
    # Read here.
    Kind("a TFLite model", lambda s: s.head[4:8] == b"TFL3", "its name should end in .tflite", "tflite"),
    Kind("an HDF5 file", _starts(HDF5_MAGIC), "Keras weights or a converted model, not a checkpoint", "hdf5"),
    Kind(
        "a Keras model (.keras)", _zipped(b"config.json", b"model.weights.h5"), "its name should end in .keras", "keras"
    ),
    Kind(
        "a table file: a checkpoint of format V1, or an index",
        lambda s: s.tail.endswith(TABLE_MAGIC),
        "save it anew with TensorFlow, or give an index the suffix .index",
        "checkpoint",
    ),
    Kind("safetensors weights", _safetensors, "their name should end in .safetensors", "safetensors"),
    Kind(
        "PyTorch weights (.pth, .pt)",
        lambda s: (
            _zipped(b"/data.pkl")(s)
            and not _zipped(b"constants.pkl", b"/code/")(s)
            and not _zipped(b"archive_format")(s)
        ),
        "their name should end in .pth",
        "pytorch",
    ),
    # What downloads turn out to be.
    Kind(
        "a web page (HTML)",
        _html,
        f"a link's page was saved instead of what it leads to; {_AGAIN} (on GitHub: the 'Raw' button)",
    ),
    Kind(
        "a Git LFS pointer",
        _starts(b"version https://git-lfs.github.com/spec/"),
        "it stands for a file that wasn't fetched; run 'git lfs pull' in its repository, or " + _AGAIN,
    ),
    Kind("a git-annex pointer", _starts(b"/annex/objects/"), "run 'git annex get' on it in its repository"),
    # Models of others.
    Kind(
        "a TorchScript model",
        _zipped(b"constants.pkl", b"/code/"),
        "save its weights with PyTorch: torch.save(torch.jit.load(FILE).state_dict(), 'weights.pth'), and pass that; "
        f"or export the model that it was made from: {_LITERT}",
    ),
    Kind(
        "an exported program of PyTorch (.pt2)",
        _zipped(b"archive_format", b"/data/"),
        "save its weights with PyTorch: torch.save(torch.export.load(FILE).state_dict, 'weights.pth')",
    ),
    Kind(
        "PyTorch weights in the old form (.pth, .pt)",
        _starts(b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"),
        "save them in today's form with PyTorch: torch.save(torch.load(FILE, weights_only=True), 'weights.pth')",
    ),
    Kind(
        "PyTorch weights in the oldest form (a tar archive)",
        lambda s: s.head[257:262] == b"ustar" and s.holds(b"sys_info", b"storages"),
        "save them in today's form with PyTorch, if you know where the file is from: "
        "torch.save(torch.load(FILE, weights_only=False), 'weights.pth')",
    ),
    Kind(
        "a Python pickle",
        lambda s: s.head[:1] == b"\x80" and s.head[1:2] in b"\2\3\4\5" and s.tail.endswith(b"."),
        "pickles can run code and are never opened here; if it holds PyTorch weights, save them with PyTorch: "
        "torch.save(model.state_dict(), 'weights.pth')",
    ),
    Kind(
        "GGUF weights", _starts(b"GGUF"), "they are of a language model, as a rule; no MobileNet is spread in this form"
    ),
    Kind(
        "an ONNX Runtime model (.ort)",
        lambda s: s.head[4:8] == b"ORTM",
        "take the .onnx that it was made from: onnx2tf -i FILE makes a .tflite",
    ),
    Kind("an ExecuTorch program", lambda s: s.head[4:6] == b"ET", f"export its model anew: {_LITERT}"),
    Kind("a SavedModel (saved_model.pb)", _saved_model, _SAVED_MODEL + ", FOLDER being that of this file"),
    Kind("a Core ML model", _core_ml, _ORIGINAL),
    Kind(
        "an ONNX model",
        _onnx,
        "make a .tflite of it (pip install onnx2tf; onnx2tf -i FILE) and pass the _float32.tflite that it writes",
    ),
    Kind(
        "a frozen graph or SavedModel (.pb)",
        lambda s: _frozen(s) and s.suffix != ".meta",
        "make a .tflite of it with TensorFlow: "
        "tf.compat.v1.lite.TFLiteConverter.from_frozen_graph(FILE, [INPUT], [OUTPUT]).convert() gives its bytes",
    ),
    Kind(
        "a frozen graph or SavedModel (.pb)",
        lambda s: s.suffix == ".pb",
        "make a .tflite of it with TensorFlow's TFLiteConverter",
    ),
    Kind(
        "a MetaGraph (.meta): the graph without the values",
        lambda s: s.suffix == ".meta",
        "the values are in the files beside it",
    ),
    Kind(
        "a TensorFlow.js model",
        _json(b"modelTopology", b"weightsManifest"),
        "'tensorflowjs_converter --input_format tfjs_layers_model --output_format keras model.json model.h5' makes a "
        "Keras file of a layers model; from Teachable Machine, export 'Tensorflow' (Keras or TFLite) instead",
    ),
    Kind(
        "Teachable Machine's metadata",
        _json(b"tfjsVersion", b"tmVersion"),
        "export 'Tensorflow' (Keras or TFLite) there, and pass that file",
    ),
    Kind(
        "a Keras configuration without weights", _json(b"class_name"), "save the whole model: model.save('model.keras')"
    ),
    Kind(
        "an OpenVINO model (.xml)",
        lambda s: s.head.lstrip().startswith(b"<") and b"<net " in s.head and b"<layers" in s.head,
        _ORIGINAL,
    ),
    Kind("an ncnn model (.param)", _starts(b"7767517"), _ORIGINAL),
    # Other things.
    Kind("a list of checkpoints", _starts(b"model_checkpoint_path"), "it names the prefix to pass"),
    Kind(
        "an image",
        _starts(b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM"),
        "npmobilenet classify IMAGE --model MODEL takes it as IMAGE",
        vague=True,
    ),
    Kind(
        "NumPy arrays (.npy, .npz)",
        lambda s: s.head.startswith(b"\x93NUMPY") or _zipped(b".npy")(s),
        "they say nothing of a model",
    ),
    Kind("a gzip archive", _starts(b"\x1f\x8b"), "its name should end in .tgz", "tar"),
    Kind("a tar archive", lambda s: s.head[257:262] == b"ustar" or s.suffix == ".tar", "it should end in .tar", "tar"),
    Kind(
        "a packed archive", _starts(b"BZh", b"\xfd7zXZ\0", b"7z\xbc\xaf\x27\x1c", b"Rar!", b"\x28\xb5\x2f\xfd"), _UNPACK
    ),
    Kind(
        "a zip archive of a SavedModel",
        lambda s: _zipped(b"saved_model.pb")(s) and not any(_zipped(sign)(s) for sign in (b".tflite", b".h5")),
        f"unpack it, and {_SAVED_MODEL}",
    ),
    Kind("a zip archive", _starts(b"PK\x03\x04", b"PK\x05\x06"), _UNPACK, "zip", vague=True),
    Kind("a text file", _plain_text, "it is no model; pass the model that it belongs to", vague=True),
)

# Operators that stand for a whole compiled model: what the .tflite was compiled for, and what to do.
COMPILED = {
    "edgetpu-custom-op": "for the Edge TPU: pass the .tflite that edgetpu_compiler was given (its name lacks _edgetpu)",
    "ethos-u": "for an Ethos-U: pass the .tflite that Vela was given (its name lacks _vela)",
}
# Folders, by what lies in them.
FOLDERS = {
    ("saved_model.pb",): f"a SavedModel. What you can do: {_SAVED_MODEL}; or, if its variables have TF-slim's names, "
    "pass FOLDER/variables/variables",
    ("model.json",): "a TensorFlow.js model. Pass its model.json to learn how it can be read",
    ("Manifest.json", "Data"): f"a Core ML package, and {_ORIGINAL}",
    ("config.json", "model.weights.h5"): "an unpacked .keras file. Zip its files again, and pass that",
}
BY_SUFFIX = {
    ".tflite": "tflite", ".h5": "hdf5", ".hdf5": "hdf5", ".keras": "keras", ".safetensors": "safetensors",
    ".pth": "pytorch", ".pt": "pytorch",
}  # fmt: skip
_CHECKPOINT = re.compile(r"\.index|\.data-\d+-of-\d+")


def kind_of(path: str | os.PathLike[str]) -> Kind | None:
    """The kind of a regular file, None for one of no kind that is known. Raises `OSError`."""
    with open(path, "rb") as file:
        head = file.read(_MOST_BYTES)
        size = file.seek(0, 2)
        file.seek(max(size - _MOST_BYTES, 0))
        sample = Sample(head, file.read(_MOST_BYTES), size, Path(path).suffix)
    return next((kind for kind in KINDS if head and kind.told(sample)), None)


def reader_of(path: Path) -> str:
    """Which reader takes a path: tflite, hdf5, keras (a .keras archive), pytorch (a .pth in zip form), safetensors,
    zip and tar (archives with a model in them; a tar may be gzipped), or checkpoint (also what isn't a file).

    Content counts before the name. Raises `ConversionError` for a kind that nothing here reads, with what to do.
    """
    if path.is_dir() and not any(path.glob("*.index")):
        for marks, text in FOLDERS.items():
            if all((path / mark).exists() for mark in marks):
                raise ConversionError(f"{path}: this folder is {text}")
    if not path.is_file() or _CHECKPOINT.fullmatch(path.suffix):
        return "checkpoint"  # a prefix or a folder; its reader says what is missing
    try:
        kind = kind_of(path)
    except OSError as error:
        raise ConversionError(f"{path}: can't be read: {error.strerror or error}") from error
    named = BY_SUFFIX.get(path.suffix, "")
    if kind is None or (kind.vague and named):
        return named or "checkpoint"
    if not kind.reader:
        raise ConversionError(f"{path}: this is {kind.name}, which can't be read here. What you can do: {kind.advice}")
    return kind.reader
