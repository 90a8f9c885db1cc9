"""Pipes and devices where files are expected, links that lead in circles, and many tensors that are the same bytes."""

from __future__ import annotations

import importlib
import io
import json
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import pytorch_maker as maker
from platforms import make_pipe

from npmobilenet.errors import ConversionError, DownloadError, InputError
from npmobilenet.formats import tarred, whole_file
from npmobilenet.formats.keras.model import convert_keras
from npmobilenet.formats.pytorch import zip_file
from npmobilenet.golden.foreign_dumps import read_map
from npmobilenet.golden.recording import check_target
from npmobilenet.images.finding import find_images
from npmobilenet.measure.datasets import folder as folders
from npmobilenet.measure.datasets import remote

pull = importlib.import_module("npmobilenet.formats.download.pull")  # the function has its name
READERS: dict[str, Callable[[Path], Any]] = {
    "truth file": lambda path: folders._read_truth(path, ["a.png"]),
    "name map": read_map,
    "list of images": lambda path: remote.lines(str(path)),
    "archive to pull": pull._sum,
    "Parquet": lambda path: remote.groups(str(path)),
}


@pytest.mark.parametrize("reader", READERS)
def test_a_pipe_is_refused(tmp_path: Path, reader: str) -> None:
    """To open one would wait for its writer, for ever."""
    if reader == "Parquet":
        pytest.importorskip("pyarrow", reason="Parquet needs the extra [parquet]")
    if not make_pipe(tmp_path / "pipe"):
        pytest.skip("this platform has no named pipes")
    with pytest.raises((InputError, DownloadError), match="no regular file"):
        READERS[reader](tmp_path / "pipe")


def test_a_dump_whose_manifest_is_a_pipe_is_none(tmp_path: Path) -> None:
    if not make_pipe(tmp_path / "manifest.json"):
        pytest.skip("this platform has no named pipes")
    with pytest.raises(InputError, match="is not a golden dump, so it isn't replaced"):
        check_target(tmp_path, force=True)


def test_only_files_are_replaced(tmp_path: Path) -> None:
    """A device such as /dev/null, or a pipe, would be gone."""
    folder = tmp_path / "folder"
    folder.mkdir()
    targets = [folder, *([tmp_path / "pipe"] if make_pipe(tmp_path / "pipe") else [])]
    for target in targets:
        kind = target.stat().st_mode
        with pytest.raises(OSError, match="no regular file, so it isn't replaced"):
            whole_file.write_whole(target, lambda file: file.write(b"x"))
        assert target.stat().st_mode == kind
    assert sorted(tmp_path.iterdir()) == sorted(targets)


def test_links_that_lead_in_circles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each picture once, and soon: through two links to the folder itself there are 2^40 ways."""
    for name in ("a.png", "b/c.png", "b/d/e[1].png", ".hidden/f.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    try:
        for name, target in {"b/up": "..", "b/d/up": "../..", "b/d/here": ".", "self": "self", "z": "b/d"}.items():
            os.symlink(target, tmp_path / name)
    except OSError:
        pytest.skip("this platform has no links")
    monkeypatch.chdir(tmp_path)

    def found(pattern: str) -> list[str]:
        return [str(f.source) for f in find_images([pattern])]

    everything = ["a.png", os.path.join("b", "c.png"), os.path.join("b", "d", "e[1].png")]
    assert found("**/*.png") == everything
    assert found("**/**/*.png") == everything
    assert found(f"{tmp_path}/**/*.png") == [str(tmp_path / name) for name in everything]
    assert found("b*/**/e*.png") == everything[2:]
    assert found("b/**") == [*everything[1:], *(os.path.join("b", "up", n) for n in ("a.png", "self"))]
    assert found("*.png") == ["a.png"]
    assert found(".") == [os.path.join(".", "a.png")]
    assert folders._scan(tmp_path)[0] == ["a.png"]


def test_layers_that_share_their_bytes(tmp_path: Path) -> None:
    """A thousand names for one dataset: each is read anew, so 4 MB would take 4 GB."""
    count, width, path = 40, 1024, tmp_path / "m.h5"
    names = [f"d{i}" for i in range(count)]
    dense = {"units": width, "use_bias": False, "activation": "relu"}
    layers = [{"class_name": "InputLayer", "config": {"name": "in", "batch_shape": [None, width]}}]
    layers += [{"class_name": "Dense", "config": {**dense, "name": name}} for name in names]
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": {"name": "s", "layers": layers}})
        root = file.create_group("model_weights")
        root.attrs["layer_names"] = [name.encode() for name in names]
        kernel = root.create_dataset("d0/d0/kernel:0", data=np.zeros((width, width), np.float32))
        for name in names:
            root.require_group(f"{name}/{name}")
            if name != "d0":
                root[f"{name}/{name}/kernel:0"] = kernel
            root[name].attrs["weight_names"] = [f"{name}/kernel:0".encode()]
    assert path.stat().st_size < 2 * 4 * width**2
    with pytest.raises(ConversionError, match="shares its bytes with too many others"):
        convert_keras(path)


def test_a_block_of_many_tensors_is_unpacked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = maker.tup(maker.text("storage"), b"ctorch\nFloatStorage\n", maker.text("0"), maker.text("cpu"), b"K\x08")
    parts = {
        f"w{i}": b"ctorch._utils\n_rebuild_tensor_v2\n"
        + maker.tup(storage + b"Q", maker.number(i), maker.numbers((1,)), maker.numbers((1,)), b"\x89", b"}")
        + b"R"
        for i in range(8)
    }
    path = tmp_path / "m.pth"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("m/data.pkl", b"\x80\x02" + maker.mapping(parts) + b".")
        file.writestr("m/data/0", np.arange(8, dtype=np.float32).tobytes())
    read: list[str] = []
    content = zip_file._content
    monkeypatch.setattr(
        zip_file, "_content", lambda f, info, most: read.append(info.filename) or content(f, info, most)
    )
    with zipfile.ZipFile(path) as file:
        found = zip_file.read_zip(file)
        assert [found[f"w{i}"].read().tolist() for i in range(8)] == [[float(i)] for i in range(8)]
    assert read == ["m/data.pkl", "m/data/0"]


def test_resource_forks_of_a_tar_archive(tmp_path: Path) -> None:
    """As in zip archives: macOS's tar adds ._NAME beside each file."""
    path = tmp_path / "m.tar"
    with tarfile.open(path, "w") as archive:
        for name in ("./._m.tflite", "./m.tflite", "__MACOSX/m.tflite"):
            info = tarfile.TarInfo(name)
            info.size = 4
            archive.addfile(info, io.BytesIO(b"1234"))
    (tmp_path / "out").mkdir()
    assert tarred.unpack(path, tmp_path / "out") == [tmp_path / "out" / "m.tflite"]
