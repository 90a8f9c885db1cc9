"""Malformed files of every format: each gives its documented error, and exit code 2 with one line, on the command line.

The converters' and the weight file's own tests go deeper (thousands of damaged files); this table is the overview.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from npmobilenet.cli import main
from npmobilenet.errors import InputError, NpMobilenetError
from npmobilenet.formats import weightfile
from npmobilenet.model import Model, load
from npmobilenet.modeldata import ModelData, ModelInfo
from npmobilenet.zoo import SPECS
from npmobilenet.zoo.build import build

FLOAT = "mobilenet_v1_0.25_128.tflite"
CHECKPOINT = "mobilenet_v2_0.35_96"


def damaged(content: bytes, seed: int, flips: int = 40, low: int = 0, high: int | None = None) -> bytes:
    """The bytes with some bits between two offsets flipped."""
    data, rng = bytearray(content), np.random.default_rng(seed)
    for at in rng.integers(low, high or len(data), flips):
        data[at] ^= 1 << int(rng.integers(8))
    return bytes(data)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A sound weight file of this project."""
    graph = build(SPECS["v2"], depth_multiplier=0.35, resolution=32, num_classes=3)
    rng = np.random.default_rng(0)
    weights = {n: rng.standard_normal(t.shape).astype(np.float32) for n, t in graph.constants.items()}
    path = tmp_path_factory.mktemp("own") / "own.h5"
    weightfile.write(path, ModelData(graph, weights, ModelInfo("own", ("a", "b", "c"))))
    return path.read_bytes()


def hdf5(build_file: Callable[[h5py.File], None]) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        build_file(file)
    return buffer.getvalue()


def edited(content: bytes, change: Callable[[h5py.File], None]) -> bytes:
    buffer = io.BytesIO(content)
    with h5py.File(buffer, "r+") as file:
        change(file)
    return buffer.getvalue()


def replace(file: h5py.File, link: object) -> None:
    name = next(iter(file["tensors"]))
    del file["tensors"][name]
    file["tensors"][name] = link


def reshape_first(file: h5py.File) -> None:
    group = file["tensors"]
    name = next(n for n in group if group[n].ndim == 4)
    wrong = np.ascontiguousarray(group[name][...]).reshape(-1)
    del group[name]
    group[name] = wrong


def huge(file: h5py.File) -> None:
    name = next(iter(file["tensors"]))
    del file["tensors"][name]
    file["tensors"].create_dataset(name, shape=(2**32,), dtype="f4", chunks=(2**20,))  # 16 GiB declared, none stored


def keras_with_external_link(file: h5py.File) -> None:
    weights = file.create_group("model_weights")
    weights.attrs["layer_names"] = np.array([b"conv1"])
    weights["conv1"] = h5py.ExternalLink("/etc/hostname", "/")


def keras_archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("config.json", '{"class_name": "Lambda", "config": {"function": "import os"}}')
    return buffer.getvalue()


def drop_first(file: h5py.File) -> None:
    del file["tensors"][next(iter(file["tensors"]))]


# Name -> file name, its bytes made from a sound weight file; or, in REAL, from the shared data folder.
MODELS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "empty weight file": ("m.h5", lambda own: b""),
    "text called .h5": ("m.h5", lambda own: b"not a weight file\n"),
    "truncated weight file": ("m.h5", lambda own: own[: len(own) * 2 // 3]),
    "weight file of another format version": (
        "m.h5", lambda own: edited(own, lambda f: f.attrs.modify("schema", 9))),
    "weight file with flipped weights": ("m.h5", lambda own: damaged(own, 1, 3, len(own) // 2, len(own) - 64)),
    "weight file with a wrong shape": ("m.h5", lambda own: edited(own, reshape_first)),
    "weight file with an external link": (
        "m.h5", lambda own: edited(own, lambda f: replace(f, h5py.ExternalLink("/etc/hostname", "/x")))),
    "weight file with a soft link": (
        "m.h5", lambda own: edited(own, lambda f: replace(f, h5py.SoftLink("/graph")))),
    "weight file declaring 16 GiB": ("m.h5", lambda own: edited(own, huge)),
    "weight file without a tensor": ("m.h5", lambda own: edited(own, drop_first)),
    "empty .tflite": ("m.tflite", lambda own: b""),
    "eight bytes of .tflite": ("m.tflite", lambda own: b"\x1c\0\0\0TFL3"),
    "text called .index": ("model.ckpt.index", lambda own: b"model_checkpoint_path: 'model.ckpt'\n" * 5),
    ".index of zeros": ("model.ckpt.index", lambda own: bytes(200)),
    "HDF5's signature alone": ("m.h5", lambda own: b"\x89HDF\r\n\x1a\n"),
    "HDF5's signature and zeros": ("m.h5", lambda own: b"\x89HDF\r\n\x1a\n" + bytes(4096)),
    **{f"{share} of a weight file": ("m.h5", lambda own, share=share: own[: int(share * len(own))])
       for share in (0.1, 0.5, 0.9, 0.999)},
    "text called .tflite": ("m.tflite", lambda own: b"hello, world"),
    "a .tflite's magic and zeros": ("m.tflite", lambda own: b"\x1c\0\0\0TFL3" + bytes(64)),
    "a .tflite's magic and ones": ("m.tflite", lambda own: b"\x1c\0\0\0TFL3" + b"\xff" * 256),
    "a zip file's magic and text": ("k.keras", lambda own: b"PK\x03\x04 and so on"),
    "empty .keras": ("k.keras", lambda own: b""),
    "no model at all": ("model.bin", lambda own: b"\0\1\2"),
    "Keras file with an external link": ("k.h5", lambda own: hdf5(keras_with_external_link)),
    "Keras file of a foreign model": (
        "k.weights.h5", lambda own: hdf5(lambda f: f.create_group("layers/lstm_1/cell/vars").update({}) or None)),
    "Keras archive with code in it": ("k.keras", lambda own: keras_archive()),
    "truncated Keras archive": ("k.keras", lambda own: keras_archive()[:-30]),
}  # fmt: skip
REAL: dict[str, tuple[str, Callable[[Path], bytes]]] = {
    "truncated .tflite": ("m.tflite", lambda data: (data / "weights" / FLOAT).read_bytes()[:5000]),
    ".tflite with flipped bits": (
        "m.tflite", lambda data: damaged((data / "weights" / FLOAT).read_bytes(), 2, 400, high=4000)),
    "JPEG called .tflite": (
        "m.tflite", lambda data: next((data / "images" / "imagenet100").glob("*.JPEG")).read_bytes()),
    "truncated checkpoint index": (
        "model.ckpt.index",
        lambda data: (data / "golden/slim" / CHECKPOINT / "model.ckpt.index").read_bytes()[:-70]),
    "checkpoint index with flipped bits": (
        "model.ckpt.index",
        lambda data: damaged((data / "golden/slim" / CHECKPOINT / "model.ckpt.index").read_bytes(), 3)),
    "checkpoint index without its data": (
        "model.ckpt.index", lambda data: (data / "golden/slim" / CHECKPOINT / "model.ckpt.index").read_bytes()),
}  # fmt: skip


def one_error(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"error: [^\n]+\n", err), err
    return err


def refused(path: Path, content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    """By `load`, and by each verb in one line; and nothing is written."""
    path.write_bytes(content)
    with pytest.raises(NpMobilenetError):
        load(path)
    photo, target = path.with_name("photo.ppm"), path.with_name("out.h5")
    photo.write_bytes(b"P6 8 8 255\n" + bytes(192))
    before = sorted(path.parent.iterdir())
    for command in (["classify", photo, "--model", path], ["info", path], ["convert", path, target]):
        one_error([str(word) for word in command], capsys)
    assert sorted(path.parent.iterdir()) == before  # no temporary file is left behind


@pytest.mark.parametrize("name", MODELS)
def test_malformed_models(name: str, own: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, make = MODELS[name]
    refused(tmp_path / file, make(own), capsys)


@pytest.mark.parametrize("name", REAL)
def test_malformed_real_models(name: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, make = REAL[name]
    refused(tmp_path / file, make(data), capsys)


# A picture's bytes, made from one that is sound.
IMAGES: dict[str, Callable[[bytes], bytes]] = {
    "text": lambda jpeg: b"this is no picture\n" * 20,
    "empty": lambda jpeg: b"",
    "a JPEG's first bytes": lambda jpeg: b"\xff\xd8\xff\xe0 cut",
    "a BMP's magic and zeros": lambda jpeg: b"BM" + bytes(60),
    "a PNG's signature and zeros": lambda jpeg: b"\x89PNG\r\n\x1a\n" + bytes(40),
    "truncated": lambda jpeg: jpeg[: len(jpeg) // 2],
    "a bitmap that declares 60,000 x 60,000 pixels": lambda jpeg: b"BM" + b"\0" * 12 + (40).to_bytes(4, "little")
    + (60_000).to_bytes(4, "little") * 2 + b"\1\0\x18\0" + b"\0" * 24,
}  # fmt: skip


@pytest.mark.parametrize("name", IMAGES)
def test_malformed_images(name: str, own: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image, file = pytest.importorskip("PIL.Image", reason="decodes files: pip install 'npmobilenet[cli]'"), io.BytesIO()
    image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(file, "JPEG")
    (tmp_path / "own.h5").write_bytes(own)
    (tmp_path / "photo.jpg").write_bytes(IMAGES[name](file.getvalue()))
    message = one_error(["classify", str(tmp_path / "photo.jpg"), "--model", str(tmp_path / "own.h5")], capsys)
    assert "photo.jpg" in message
    with pytest.raises(InputError):
        load(tmp_path / "own.h5").predict(tmp_path / "photo.jpg")


def test_unfit_arrays(own: bytes, tmp_path: Path) -> None:
    (tmp_path / "own.h5").write_bytes(own)
    model: Model = load(tmp_path / "own.h5")
    for images in (np.zeros((3, 64, 64), np.uint8), np.zeros((2, 3, 64, 64), np.uint8), np.zeros((8, 8, 3)), []):
        with pytest.raises(InputError):
            model.predict(images)
    with pytest.raises(InputError, match="transpose"):
        model.run(np.zeros((1, 3, 32, 32), np.float32))


WATCHED = """
import sys
import npmobilenet.formats.keras.model, npmobilenet.formats.tflite.model, npmobilenet.formats.weightfile.reader
import h5py, tflite, zipfile
from pathlib import Path
from npmobilenet.errors import NpMobilenetError
from npmobilenet.formats.npy import Archive
from npmobilenet.formats.model_path import load_data

BAD = ("subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.fork", "socket.", "pickle.", "exec",
       "os.mkdir", "os.rename", "os.remove", "shutil.", "tempfile.", "urllib.", "ctypes.dlopen")
seen = []

def watch(event, arguments):
    writing = event == "open" and (set(str(arguments[1])) & set("wax+") or (arguments[2] or 0) & 3)
    if event.startswith(BAD) or writing or (event == "import" and arguments[0].startswith("evil")):
        seen.append((event, str(arguments)[:200]))

def read(path):
    return Archive(Path(path)).read("x.npy") if path.endswith(".npz") else load_data(path)

for round in (0, 1):  # the first one imports what is imported late
    for path in sys.argv[1:]:
        try:
            read(path)
        except NpMobilenetError:
            pass
    if not round:
        sys.addaudithook(watch)
print(*seen, sep="\\n")
"""


def test_reading_starts_writes_and_imports_nothing(own: bytes, tmp_path: Path) -> None:
    """No program, no socket, no unpickling, no compiling, no file written: Python's own audit events tell."""
    from tflite_maker import File, Op, T

    evil = b"cos\nsystem\n(S'id'\ntR."
    tensors = [T((1, 4), name="evil"), T((1, 4))]
    code = '{"class_name": "Lambda", "module": "evil", "registered_name": "evil>x", "config": {"function": "evil"}}'
    array, archive, keras = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.save(array, np.array([None]), allow_pickle=True)
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("x.npy", array.getvalue() + evil)
    with zipfile.ZipFile(keras, "w") as file:
        for name, text in (("config.json", code), ("metadata.json", "{}"), ("model.weights.h5", own)):
            file.writestr(name, text)
    contents = {
        "own.h5": own, "m.tflite": File(tensors, [Op("RELU", [0], [1])]).bytes(), "m.keras": keras.getvalue(),
        "x.npz": archive.getvalue(), "lambda.h5": hdf5(lambda f: f.attrs.update({"layer_names": [b"evil"],
        "model_config": code}) or None), "m.pkl": evil,
    }  # fmt: skip
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    words = [sys.executable, "-c", WATCHED, *(str(tmp_path / name) for name in contents)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == "\n"
    assert {p.name for p in tmp_path.iterdir()} == set(contents)
