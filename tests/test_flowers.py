"""The model in the box: what `classify` does without a model or an image, and the shipped weights themselves."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

import npmobilenet as nm
from npmobilenet.cli import main
from npmobilenet.cli.classify import DEFAULT_MODEL, LOW_CONFIDENCE
from npmobilenet.formats import weightfile
from npmobilenet.formats.model_path import find
from npmobilenet.images.example import draw_sunflower

FLOWERS = ("daisy", "dandelion", "roses", "sunflowers", "tulips")


def test_the_drawing_is_the_same_everywhere() -> None:
    picture = draw_sunflower()
    assert (picture.shape, picture.dtype) == ((224, 224, 3), np.uint8)
    digest = hashlib.sha256(picture.tobytes()).hexdigest()
    assert digest == "4d6f1d97b3929826d20fce49aa554d928e5928c916d8118898ce6c3500e59923"
    assert draw_sunflower(96).shape == (96, 96, 3)


def test_the_drawing_in_the_docs_is_this_one() -> None:
    image = pytest.importorskip("PIL.Image", reason="needs the extra [cli]")
    with image.open(Path(__file__).parent.parent / "docs" / "example.png") as shown:
        assert np.array_equal(np.asarray(shown.convert("RGB")), draw_sunflower())


def test_classify_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classify"]) == 0
    out, _ = capsys.readouterr()
    assert "the example picture" in out
    assert out.splitlines()[2].split()[:3] == ["1", "3", "sunflowers"]
    assert main(["classify", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    [result] = document["images"]
    assert result["example"]
    assert result["predictions"][0]["label"] == "sunflowers"
    assert result["predictions"][0]["score"] > LOW_CONFIDENCE
    assert document["model"]["name"] == DEFAULT_MODEL


def test_a_photo_without_a_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the model in the box knows is said beside the result, not in it, and never behind a failure."""
    image = pytest.importorskip("PIL.Image", reason="needs the extra [cli]")
    monkeypatch.delenv("NPMOBILENET_WEIGHTS", raising=False)
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    path = tmp_path / "noise.png"
    image.fromarray(noise).save(path)
    monkeypatch.setattr("npmobilenet.cli.classify.LOW_CONFIDENCE", 1.1)
    assert main(["classify", str(path)]) == 0
    out, err = capsys.readouterr()
    assert f"knows five flowers only: {', '.join(FLOWERS)}." in err
    assert "npmobilenet convert mobilenet_v2_1.0_224.tflite" in err
    assert nm.list_models("mobilenet_v2_1.0_224") == ["mobilenet_v2_1.0_224"]
    assert [line.split()[0] for line in out.splitlines()[1:]] == ["rank", "1", "2", "3", "4", "5"]
    assert main(["classify", str(path), str(tmp_path / "none.png")]) == 2
    _, err = capsys.readouterr()
    assert err.splitlines()[-1].startswith("error: ")
    for arguments in (["classify", str(tmp_path / "none.png")], ["classify", str(path), "--model", "flowers"]):
        main(arguments)
        assert "knows five flowers only" not in capsys.readouterr().err
    monkeypatch.setenv("NPMOBILENET_WEIGHTS", str(tmp_path))
    (tmp_path / "mobilenet_v2_1.0_224.h5").touch()
    main(["classify", str(path)])
    assert capsys.readouterr().err.splitlines()[-1].endswith("npmobilenet classify IMAGE --model mobilenet_v2_1.0_224")
    monkeypatch.setattr("npmobilenet.cli.classify.LOW_CONFIDENCE", 0.0)
    main(["classify", str(path)])
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_low_confidence_is_flagged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = pytest.importorskip("PIL.Image", reason="needs the extra [cli]")
    path = tmp_path / "grey.png"
    image.fromarray(np.full((60, 80, 3), 128, np.uint8)).save(path)
    main(["classify", str(path), "--json"])
    [result] = json.loads(capsys.readouterr().out)["images"]
    assert result["low_confidence"] == (result["predictions"][0]["score"] < LOW_CONFIDENCE)
    main(["classify", str(path)])
    assert ("low confidence" in capsys.readouterr().err) == result["low_confidence"]


def test_the_file_says_what_it_is() -> None:
    data = weightfile.read(find("flowers"))
    assert data.info.labels == FLOWERS
    assert data.info.label_offset == 0
    assert "top-1 0.8" in data.info.provenance["accuracy"]
    assert "train_flowers.py" in data.info.provenance["source"]
    assert sum(a.nbytes for a in data.tensors.values()) <= 8_000_000


def test_accuracy_on_the_validation_split(data: Path) -> None:
    """At least 0.86, and what the file itself says."""
    with np.load(data / "datasets" / "flowers144.npz", allow_pickle=False) as flowers:
        blob, offsets, labels = flowers["val_jpeg"].tobytes(), flowers["val_offsets"], flowers["val_labels"]
    model = nm.load("flowers")
    right = 0
    for first in range(0, len(labels), 8):
        images = [blob[offsets[i] : offsets[i + 1]] for i in range(first, min(first + 8, len(labels)))]
        right += int((model.run(model.preprocess(images)).argmax(1) == labels[first : first + 8]).sum())
    assert right / len(labels) >= 0.86
    assert f"({right} of {len(labels)})" in model.info.provenance["accuracy"]
