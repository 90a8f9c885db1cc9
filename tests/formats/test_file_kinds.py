"""Files of other formats: told by their content, whatever they are called, and what their holder can do."""

from __future__ import annotations

import io
import json
import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

import npmobilenet as nm
from npmobilenet.errors import ConversionError, NpMobilenetError, PlanError
from npmobilenet.formats.file_kinds import COMPILED, KINDS, Sample, kind_of, reader_of


def zipped(*names: str) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name in names:
            archive.writestr(name, b"x" * 100)
    return target.getvalue()


def field(number: int, content: bytes) -> bytes:
    """A protobuf field of bytes."""
    length, size = len(content), b""
    while length > 127:
        size, length = size + bytes([128 | length & 127]), length >> 7
    return bytes([number << 3 | 2]) + size + bytes([length]) + content


def tensors() -> bytes:
    header = json.dumps({"classifier.weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(4)


NODE = field(1, field(1, b"input") + field(2, b"Placeholder") + bytes(200))
PORT = field(1, field(1, b"image") + field(2, b"a picture"))
PICKLE = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."
FILES: dict[str, tuple[bytes, str, str]] = {
    "ONNX of PyTorch": (b"\x08\x08" + field(2, b"pytorch") + field(3, b"2.1") + field(7, NODE), "an ONNX", "onnx2tf"),
    "ONNX of no producer": (b"\x08\x07" + field(7, bytes(300)), "an ONNX model", "onnx2tf -i"),
    "old PyTorch": (PICKLE, "PyTorch weights in the old form", r"torch\.save"),
    "oldest PyTorch": (b"sys_info" + bytes(249) + b"ustar\0storages", "in the oldest form", r"torch\.save"),
    "pickle": (b"\x80\x04\x95\x10\0\0\0\0\0\0\0.", "a Python pickle", "never opened"),
    "TorchScript": (zipped("m/data.pkl", "m/code/__torch__/a.py", "m/constants.pkl"), "TorchScript", "jit"),
    "exported": (zipped("m/archive_format", "m/models/model.json", "m/data/weights/x"), "exported", "state_dict"),
    "TF.js": (b'{"format": "layers-model", "modelTopology": {}}', "a TensorFlow.js model", "tensorflowjs_converter"),
    "TF.js, long": (b'{"format": 1, "x": "' + bytes(200_000) + b'", "weightsManifest": []}', "TensorFlow.js", "Keras"),
    "metadata": (b'{"tfjsVersion": "1.7", "labels": []}', "Teachable Machine's metadata", "export"),
    "Keras configuration": (b'{"class_name": "Functional", "config": {}}', "without weights", "model.save"),
    "frozen graph": (NODE + NODE, "a frozen graph", "from_frozen_graph"),
    "saved_model.pb": (b"\x08\x01" + field(2, field(1, bytes(100)) + NODE), "a SavedModel", "from_saved_model"),
    "zipped SavedModel": (zipped("m/saved_model.pb", "m/variables/x.index"), "zip archive of a SavedModel", "unpack"),
    "Core ML": (b"\x08\x04" + field(2, PORT) + bytes(50), "a Core ML model", "made from"),
    "GGUF": (b"GGUF\3\0\0\0", "GGUF weights", "language model"),
    "OpenVINO": (b'<?xml version="1.0"?>\n<net name="m" version="11">\n<layers>', "an OpenVINO model", "made from"),
    "ncnn": (b"7767517\n75 83\n", "an ncnn model", "made from"),
    "ONNX Runtime": (b"\x18\0\0\0ORTM" + bytes(50), "an ONNX Runtime model", r"\.onnx"),
    "HTML": (b"\n<!DOCTYPE html>\n<html lang='en'>", "a web page", "download the file itself"),
    "html": (b"\xef\xbb\xbf<html><head>", "a web page", "Raw"),
    "LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "a Git LFS pointer", "git lfs pull"),
    "annex": (b"/annex/objects/SHA256E-s9--00.h5\n", "a git-annex pointer", "git annex get"),
    "7z": (b"7z\xbc\xaf\x27\x1c" + bytes(30), "a packed archive", "unpack"),
}  # fmt: skip
VAGUE: dict[str, tuple[bytes, str, str]] = {
    "zip": (zipped("notes.md", "labels.txt"), "a zip archive", "unpack it first"),
    "JPEG": (b"\xff\xd8\xff\xe0" + bytes(30), "an image", "classify IMAGE --model MODEL"),
    "PNG": (b"\x89PNG\r\n\x1a\n" + bytes(30), "an image", "classify IMAGE"),
    "labels": ("0 tulipe\n1 marguerite ordinaire\n2 œillet\n".encode(), "a text file", "no model"),
}


@pytest.mark.parametrize("suffix", ["", ".bin", ".h5", ".tflite", ".keras", ".pth"])
@pytest.mark.parametrize("name", FILES)
def test_the_format_is_named_with_what_to_do(tmp_path: Path, name: str, suffix: str) -> None:
    content, kind, advice = FILES[name]
    check(tmp_path / f"made{suffix}", content, kind, advice)


@pytest.mark.parametrize("name", VAGUE)
def test_what_a_damaged_model_may_look_like(tmp_path: Path, name: str) -> None:
    """Behind a suffix of ours such a file is a damaged one of that format."""
    content, kind, advice = VAGUE[name]
    check(tmp_path / "made.bin", content, kind, advice)
    for suffix in (".h5", ".tflite", ".keras"):
        (tmp_path / f"made{suffix}").write_bytes(content)
        with pytest.raises(NpMobilenetError, match=r"expected|damaged|not a|neither"):
            nm.load(tmp_path / f"made{suffix}")


def check(path: Path, content: bytes, kind: str, advice: str) -> None:
    path.write_bytes(content)
    for read in (nm.load, lambda p: nm.convert(p, path.with_name("out.h5"))):
        with pytest.raises(ConversionError, match=f"this is .*{kind}.*What you can do: .*{advice}") as caught:
            read(path)
        assert str(caught.value).isprintable()


def test_every_cut_of_every_file_is_told_or_not() -> None:
    """No sign reads beyond the end."""
    for content, _, _ in (*FILES.values(), *VAGUE.values()):
        for length in range(min(len(content), 300)):
            cut = content[:length]
            for kind in KINDS:
                assert kind.told(Sample(cut, cut, length, "")) in (True, False)


@pytest.mark.parametrize("members", [3, 2000])
@pytest.mark.parametrize("name", ["epoch=3.ckpt", "pytorch_model.bin", "weights"])
def test_pytorch_weights_of_any_name(tmp_path: Path, name: str, members: int) -> None:
    """With the two records of ZIP64 that torch.save writes; a long list of members begins before what is looked at."""
    content = zipped("b/data.pkl", *(f"b/data/{i}" for i in range(members)))
    records = b"PK\6\6" + struct.pack("<Q", 44) + bytes(44) + b"PK\6\7" + bytes(16)
    path = tmp_path / name
    path.write_bytes(content[:-22] + records + content[-22:])
    assert reader_of(path) == "pytorch"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this platform has no named pipes")
def test_pipes_devices_and_empty_files(tmp_path: Path) -> None:
    """Such as a shell's `<(...)`: nothing waits, and what to do is said."""
    (tmp_path / "empty.png").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe.tflite")
    for path in (tmp_path / "pipe.tflite", Path(os.devnull)):
        with pytest.raises(ConversionError, match="is a pipe or a device: save what it gives as a file"):
            nm.load(path)
    with pytest.raises(ConversionError, match=r"an empty file \(fetch it again\)"):
        nm.load(tmp_path / "empty.png")


def test_folders(tmp_path: Path) -> None:
    for name, files, text in (
        ("saved", ["saved_model.pb"], r"a SavedModel.*from_saved_model\(FOLDER\).*variables/variables"),
        ("js", ["model.json", "weights.bin"], "TensorFlow.js"),
        ("m.mlpackage", ["Manifest.json", "Data"], "Core ML"),
        ("keras", ["config.json", "metadata.json", "model.weights.h5"], "Zip its files again"),
    ):
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).write_bytes(b"")
        with pytest.raises(ConversionError, match=text):
            nm.load(tmp_path / name)


def test_compiled_models(tmp_path: Path) -> None:
    pytest.importorskip("tflite", reason="the extra [convert] is not installed")
    from tflite_maker import File, Op, T

    for custom, said in COMPILED.items():
        file = File([T((1, 4)), T((1, 4))], [Op("CUSTOM", [0], [1], custom=custom)])
        (tmp_path / "m.tflite").write_bytes(file.bytes())
        with pytest.raises(ConversionError, match=f"compiled {said[:10]}.*: pass the .tflite that"):
            nm.load(tmp_path / "m.tflite")


def test_int16x8_models(tmp_path: Path) -> None:
    pytest.importorskip("tflite", reason="the extra [convert] is not installed")
    from tflite_maker import File, Op, T

    x = T((1, 4, 4, 2), type="int16", scale=(0.001,))
    weights = T(data=np.ones((3, 1, 1, 2), np.int8), scale=(0.1,))
    conv = Op("CONV_2D", [0, 1, -1], [2], ("Conv2DOptions", {"StrideH": 1, "StrideW": 1}))
    file = File([x, weights, T((1, 4, 4, 3), type="int16", scale=(0.001,))], [conv])
    (tmp_path / "m.tflite").write_bytes(file.bytes())
    with pytest.raises(PlanError, match="int16x8 model: convert the float model again"):
        nm.load(tmp_path / "m.tflite")


def test_files_from_the_field(data: Path) -> None:
    for name, text in (
        ("mobilenet_v2_0.35_128.onnx", "this is an ONNX model.*onnx2tf"),
        (
            "mobilenet_v1_compiled_for_edgetpu.tflite",
            "compiled for the Edge TPU: pass the .tflite that edgetpu_compiler",
        ),
        ("manifest.json", "unknown kind|a text file"),
    ):
        with pytest.raises(ConversionError, match=text):
            nm.load(data / "field" / name)
    for path in sorted((data / "weights").glob("*.tflite")):
        kind = kind_of(path)
        assert kind is not None
        assert kind.reader == "tflite"
