"""A dump of an image says which recipe prepared it, and the command whether that was only assumed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("PIL", reason="images are decoded with the extra [cli]")
pytest.importorskip("tflite", reason="the extra [convert] is not installed")

from PIL import Image

import npmobilenet as nm
from npmobilenet.cli import main


def test_record_of_an_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tflite_maker import File, Op, T

    file = File([T((1, 4, 4, 3)), T((1, 4, 4, 3))], [Op("LOGISTIC", [0], [1])], outputs=[1])
    (tmp_path / "m.tflite").write_bytes(file.bytes())
    Image.new("RGB", (6, 6), (10, 200, 30)).save(tmp_path / "a.png")
    recipe = nm.load(tmp_path / "m.tflite").info.preprocessing
    command = ["golden", "record", str(tmp_path / "m.tflite")]
    assert main([*command, str(tmp_path / "a.png"), "-o", str(tmp_path / "a")]) == 0
    assert f"recipe assumed: {recipe}" in capsys.readouterr().err
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    assert (manifest["input"]["recipe"], manifest["input"]["assumed"]) == (recipe, f"recipe assumed: {recipe}")
    assert main([*command, "random:0", "-o", str(tmp_path / "b")]) == 0
    assert "assumed" not in capsys.readouterr().err
    nm.convert(tmp_path / "m.tflite", tmp_path / "m.h5", preprocess=recipe)
    assert main(["golden", "record", str(tmp_path / "m.h5"), str(tmp_path / "a.png"), "-o", str(tmp_path / "c")]) == 0
    assert "assumed" not in capsys.readouterr().err
