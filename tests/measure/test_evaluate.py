"""`evaluate`: the same numbers as a plain loop, in any layout, interrupted or not, and with bad images among good."""

from __future__ import annotations

import csv
import dataclasses
import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import weakref
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("PIL", reason="images are decoded with the extra [cli]")
pytest.importorskip("click", reason="the command line needs the extra [cli]")

from click.testing import CliRunner, Result
from PIL import Image

import npmobilenet as nm
from npmobilenet.cli.app import app
from npmobilenet.errors import InputError, MissingExtra
from npmobilenet.formats import weightfile
from npmobilenet.graph import GraphBuilder
from npmobilenet.measure.datasets import ClassFinder, open_dataset
from npmobilenet.measure.evaluate import (
    Evaluation,
    Progress,
    evaluate,
    wilson,
    write_confusion,
    write_predictions,
)
from npmobilenet.measure.evaluate.files import confusion_matrix
from npmobilenet.model import AHEAD, CHUNK, Model
from npmobilenet.modeldata import ModelData, ModelInfo
from npmobilenet.zoo import SPECS
from npmobilenet.zoo.build import build

Array = np.ndarray[Any, Any]
TEN = tuple(f"kind {i}" for i in range(10))
COLOURS = {"red": (250, 10, 40), "green": (10, 250, 40), "blue": (40, 10, 250)}


def colour_model() -> Model:
    """Softmax of the mean colour: its classes are background (of four, never given), red, green and blue."""
    b = GraphBuilder("colours")
    y = b.node("mean", [b.input("input", (1, 2, 2, 3))], "mean", keepdims=False)
    graph = b.finish([b.node("softmax", [y], "softmax", beta=4.0)])
    return Model(ModelData(graph, {}, ModelInfo("colours", tuple(COLOURS))), threads=1)


def ten_data(seed: int = 0) -> ModelData:
    graph = build(SPECS["v2"], depth_multiplier=0.35, resolution=32, num_classes=10)
    rng = np.random.default_rng(seed)
    weights = {}
    for name, tensor in graph.constants.items():
        fan_in = max(int(np.prod(tensor.shape[:-1])), 1)
        fan_in = 9 if "depthwise" in name else fan_in
        weights[name] = (rng.standard_normal(tensor.shape) * (2 / fan_in) ** 0.5).astype(np.float32)
    return ModelData(graph, weights, ModelInfo("ten", TEN))


def save(path: Path, pixels: Array) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def noise(rng: np.random.Generator, height: int = 40, width: int = 36) -> Array:
    small = rng.integers(0, 256, (5, 5, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height)))


@pytest.fixture(scope="module")
def ten() -> Model:
    return Model(ten_data(), threads=1)  # waiting for other threads is slow on a busy machine


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """43 images in ten class folders, two of them unreadable, and two files that are no images."""
    root, rng = tmp_path_factory.mktemp("ten"), np.random.default_rng(2)
    for i in range(41):
        save(root / TEN[i % 10] / f"{i:02}.png", noise(rng))
    (root / TEN[3] / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    (root / TEN[7] / "empty.png").write_bytes(b"")
    (root / TEN[0] / "notes.txt").write_text("not an image")
    (root / "README.md").write_text("neither")
    (root / ".hidden").mkdir()
    save(root / ".hidden" / "x.png", noise(rng))
    return root


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    """Two red, one green and one blue picture; one of the red ones is green."""
    root = tmp_path / "colours"
    for name, colour in {"red/a": "red", "red/b": "green", "green/a": "green", "blue/a": "blue"}.items():
        save(root / f"{name}.png", np.full((4, 5, 3), COLOURS[colour], np.uint8))
    return root


def cli(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments), "--threads=1"])


def same(a: Evaluation, b: Evaluation) -> None:
    """Equal in all but time and in where the predictions came from."""
    assert a.names == b.names
    for name in ("truths", "ids", "scores", "is_readable"):
        assert getattr(a, name).tobytes() == getattr(b, name).tobytes(), name
    assert a.unreadable == b.unreadable


def stop_after(count: int) -> Any:
    def listener(progress: Progress) -> None:
        if progress.done >= count:
            raise KeyboardInterrupt

    return listener


# ---------------------------------------------------------------------------------------------------------------------
# The numbers


def test_labels_of_the_caller(colours: Path, tmp_path: Path) -> None:
    """A model without labels is measured by those of a file; the state of another list isn't taken."""
    data = colour_model().data
    weightfile.write(tmp_path / "m.h5", dataclasses.replace(data, info=ModelInfo("m")))
    (tmp_path / "labels.txt").write_text("0 red\n1 green\n2 blue\n")
    (tmp_path / "other.txt").write_text("0 red\n1 blue\n2 green\n")
    state = tmp_path / "state"
    found = cli(tmp_path / "m.h5", colours, "--labels", tmp_path / "labels.txt", "--json", "--resume", state)
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["top1"]["accuracy"] == 0.75
    again = cli(tmp_path / "m.h5", colours, "--labels", tmp_path / "other.txt", "--resume", state)
    assert again.exit_code == 2
    assert "belongs to another evaluation" in again.stderr
    wrong = cli(tmp_path / "m.h5", colours, "--labels", tmp_path / "none.txt")
    assert wrong.exit_code == 2
    assert "no such file" in wrong.stderr


def test_equals_a_plain_loop(ten: Model, folder: Path) -> None:
    seen: list[Progress] = []
    result = evaluate(ten, folder, on_progress=seen.append)
    assert len(result.names) == 43
    assert result.readable == 41
    assert sorted(result.unreadable) == ["kind 3/broken.jpg", "kind 7/empty.png"]
    assert result.skipped == 2
    hits = [0, 0]
    for i, name in enumerate(result.names):
        assert result.truths[i] == TEN.index(name.split("/")[0])
        if not result.is_readable[i]:
            continue
        (expected,) = ten.predict(folder / name)
        assert [(c, s) for c, _, s in expected] == list(
            zip(result.ids[i].tolist(), result.scores[i].tolist(), strict=True)
        )
        classes = [c for c, _, _ in expected]
        hits[0] += classes[0] == result.truths[i]
        hits[1] += result.truths[i] in classes
    assert [result.top1_hits, result.top5_hits] == hits
    assert 0 < hits[0] < hits[1] < 41
    assert (seen[-1].done, seen[-1].total, seen[-1].unreadable) == (43, 43, 2)
    assert seen[-1].top1 == hits[0] / 41
    assert seen[-1].top5 == hits[1] / 41


def test_real_photos_equal_a_plain_loop(data: Path) -> None:
    model = nm.load(data / "weights" / "mobilenet_v2_1.0_224_float.tflite", threads=1)
    photos = data / "images" / "imagenet100"
    result = evaluate(model, photos, limit=20)
    assert len(result.names) == 20
    for i, name in enumerate(result.names):
        (expected,) = model.predict(photos / name)
        assert [(c, s) for c, _, s in expected] == list(
            zip(result.ids[i].tolist(), result.scores[i].tolist(), strict=True)
        )
    assert result.top1_hits >= 17  # 93 of all 100


def test_classes_of_real_names(data: Path) -> None:
    """All 100 names find a class, and that order is the order of their synsets."""
    found = open_dataset(data / "images" / "imagenet100", ModelInfo("v2", "imagenet", 1), 1001)
    assert np.array_equal(found.truths, 6 + 10 * np.arange(100))  # every tenth class was taken, from 5 on
    flowers = data / "datasets" / "flowers144.npz"
    labels = ("sunflowers", "roses", "dandelion", "daisy", "tulips")  # another order than the archive's
    found = open_dataset(flowers, ModelInfo("f", labels), 5)
    assert len(found) == 736
    assert all(labels[t] == name.split("/")[0] for t, name in zip(found.truths, found.names, strict=True))
    assert found.source(1)[:3] == b"\xff\xd8\xff"


def test_tally(colours: Path) -> None:
    result = evaluate(colour_model(), colours)
    assert (result.readable, result.top1_hits, result.top5_hits) == (4, 3, None)
    facts = result.facts()
    assert facts["top5"] is None
    assert facts["top1"] == {"correct": 3, "accuracy": 0.75, "interval_95": list(wilson(3, 4))}
    assert [(c["label"], c["images"], c["correct"]) for c in facts["classes"]] == [
        ("red", 2, 1), ("green", 1, 1), ("blue", 1, 1),
    ]  # fmt: skip
    assert facts["classes"][0]["most_confused_with"] == {"class_id": 1, "label": "green", "images": 1}
    rows, columns, shares = confusion_matrix(result)
    assert (rows, columns) == ([0, 1, 2], [0, 1, 2])
    np.testing.assert_array_equal(shares, [[0.5, 0.5, 0], [0, 1, 0], [0, 0, 1]])


def test_wilson() -> None:
    # Published example values: R. G. Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
    for hits, count, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611),
                                   (1, 29, 0.0061, 0.1718)):  # fmt: skip
        np.testing.assert_allclose(wilson(hits, count), (low, high), atol=5e-5)
    assert wilson(29, 29)[1] == 1.0


def test_limit_is_spread(ten: Model, folder: Path) -> None:
    whole, part = evaluate(ten, folder), evaluate(ten, folder, limit=7)
    index = [i * 43 // 7 for i in range(7)]
    assert part.names == tuple(whole.names[i] for i in index)
    assert np.array_equal(part.ids, whole.ids[index])
    same(whole, evaluate(ten, folder, limit=1000))


def test_memory_does_not_grow(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tensors that are alive at any time are bounded, however slow the model is."""
    model = Model(ten_data(), threads=1)
    prepare, run = model.preprocess, model.run
    alive: set[int] = set()
    most = 0

    def counting(image: Any, recipe: str | None = None) -> Array:
        nonlocal most
        x = prepare(image, recipe)
        alive.add(id(x))
        weakref.finalize(x, alive.discard, id(x))
        most = max(most, len(alive))
        return x

    def slow(x: Array) -> Array:
        time.sleep(0.02)
        return run(x)

    monkeypatch.setattr(model, "preprocess", counting)
    monkeypatch.setattr(model, "run", slow)
    names = sorted(p.as_posix() for p in folder.glob("kind */??.png"))
    peaks = []
    for count in (100, 400):
        most = 0
        dataset = open_dataset(folder, model.info, 10)
        many = type(dataset)("test", "", tuple(map(str, range(count))), np.zeros(count, np.int32), str(count),
                             lambda i: names[i % len(names)])  # fmt: skip
        assert evaluate(model, many).readable == count
        peaks.append(most)
    assert max(peaks) <= AHEAD + CHUNK
    assert peaks[0] > 1  # they do run ahead


# ---------------------------------------------------------------------------------------------------------------------
# Layouts


def test_truth_files(colours: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for i, colour in enumerate(("blue", "red", "green"), 1):
        save(flat / f"ILSVRC2012_val_0000000{i}.png", np.full((3, 3, 3), COLOURS[colour], np.uint8))
    truth = tmp_path / "truth.txt"
    name = "ILSVRC2012_val_0000000"
    forms = (
        "2\n0\n1\n",
        "blue\nRED\n\ngreen",
        "\ufeff2\r\n0\r\n1\r\n",
        f"{name}3.png green\n{name}1.png blue\n{name}2.png 0\n",
        f"{name}3\tgreen\n{name}1\tblue\n{name}2\tred\n{name}9\tno such image\n",
        f"ImageId,PredictionString\n{name}3,green\n{name}1,2\n{name}2,'red'\n",
    )
    for text in forms:
        truth.write_text(text)
        result = evaluate(colour_model(), flat, truth=truth)
        assert result.top1_hits == 3, text
        assert result.truths.tolist() == [2, 0, 1]
    for text, message in (
        ("2\n0\n", "has 2 lines, and there are 3 images"),
        ("", "is empty"),
        (f"{name}1 blue\n", "says nothing about 2 of the 3 images"),
        (f"{name}1\n{name}2 red\n", "line 1: .* has no class"),
        (f"{name}1 blue\n{name}1 red\n", "line 2: .* another class"),
        ("x.png red\ny.png red\nz.png red", "names none of the images"),
        ("2\n0\n3\n", r"1 of 3 classes .*'3' \(beyond the last label, 2; indices start at 0\)"),
        ("2\n0\nyellow\n", "'yellow'"),
    ):
        truth.write_text(text)
        with pytest.raises(InputError, match=message):
            evaluate(colour_model(), flat, truth=truth)
    truth.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="UTF-8"):
        evaluate(colour_model(), flat, truth=truth)
    with pytest.raises(InputError, match="can't be read"):
        evaluate(colour_model(), flat, truth=tmp_path / "none")
    with pytest.raises(InputError, match="file names don't tell a class"):
        evaluate(colour_model(), flat)


def imagenet(offset: int = 1) -> ClassFinder:
    return ClassFinder(ModelInfo("i", "imagenet", offset), 1000 + offset)


def test_imagenet_names() -> None:
    texts = ["n01496331_electric_ray", "crampfish", "5"]
    for offset in (0, 1):
        for text in texts:
            assert imagenet(offset).match([text], "x") == {text: 5 + offset}
    with pytest.raises(InputError, match=r"'0' and 'tench' are both 'tench'"):
        imagenet().match(["0", "tench"], "x")
    with pytest.raises(InputError, match=r"'n03126707_crane' may be any of 134 .* 517"):
        imagenet().match(["n03126707_crane"], "x")
    # Classes stand in the order of synset ids, so others tell which of two is meant.
    known = ["n02017213_European_gallinule", "n03126707_crane", "n02012849_crane", "n01440764_tench"]
    assert list(imagenet(0).match(known, "x").values())[1:3] == [517, 134]
    ids = [f"n{i:08}" for i in range(1000, 2000)]
    assert list(imagenet().match(ids[::-1], "x").values()) == list(range(1000, 0, -1))
    with pytest.raises(InputError, match=r"999 of 999 .* and 979 more.* synset ids alone tell"):
        imagenet().match(ids[1:], "x")
    with pytest.raises(InputError, match=r"'eletric ray' \(did you mean 'electric ray'"):
        imagenet().match(["eletric ray"], "x")


def test_names_of_imagenet_files(tmp_path: Path) -> None:
    """Numbers after a synset id are no words; Kaggle's truth file gives boxes after it; both need all the ids."""
    labels = ModelInfo("m", ("n01440764", "n01443537", "n01484850"))
    for i, name in enumerate(("n01440764_10026.JPEG", "val_3_n01443537.JPEG", "n01484850_1.JPEG")):
        save(tmp_path / "a" / name, np.full((3, 3, 3), 80 * i, np.uint8))
    assert open_dataset(tmp_path / "a", labels, 3).truths.tolist() == [0, 2, 1]
    truth = tmp_path / "LOC_val_solution.csv"
    truth.write_text(
        "ImageId,PredictionString\nn01440764_10026,n01443537 1 2 3 4 \n"
        "val_3_n01443537,n01484850 1 2 3 4 n01484850 5 6 7 8\nn01484850_1,n01440764 9 9 9 9\n"
    )
    assert open_dataset(tmp_path / "a", labels, 3, truth).truths.tolist() == [1, 0, 2]


def archive(path: Path, **changes: Any) -> Path:
    """An .npz of three pictures: blue, red, green, in two splits."""
    files = []
    for colour in ("blue", "red", "green"):
        save(path.parent / "one.png", np.full((3, 3, 3), COLOURS[colour], np.uint8))
        files.append((path.parent / "one.png").read_bytes())
    arrays: dict[str, Any] = {"classes": np.array(["green", "red", "blue"])}
    for split in ("train", "val"):
        arrays |= {
            f"{split}_jpeg": np.frombuffer(b"".join(files), np.uint8),
            f"{split}_offsets": np.cumsum([0, *map(len, files)]),
            f"{split}_labels": np.array([2, 1, 0], np.uint8),
            f"{split}_names": np.array(["b", "r", "g"]),
        }
    arrays |= changes
    np.savez(path, **{k: v for k, v in arrays.items() if v is not None})
    return path


def test_npz(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.npz", train_labels=np.array([1, 1, 1]))
    assert evaluate(colour_model(), path).top1_hits == 3
    assert evaluate(colour_model(), path, split="train").top1_hits == 1
    bad: dict[str, tuple[dict[str, Any], str]] = {
        "no labels": ({"val_labels": None}, "no array 'val_labels'"),
        "objects": ({"val_names": np.array(["b", 1, None], object)}, "object"),
        "label": ({"val_labels": np.array([0, 1, 3])}, "run from 0 to 3, and there are 3 classes"),
        "negative": ({"val_labels": np.array([0, -1, 2])}, "run from -1"),
        "floats": ({"val_labels": np.array([0.0, 1, 2])}, "expected kind i or u"),
        "offsets": ({"val_offsets": np.array([0, 5, 3, 9])}, "must ascend"),
        "beyond": ({"val_offsets": np.array([0, 5, 9, 10**9])}, "must ascend"),
        "few": ({"val_offsets": np.array([0, 5])}, "one offset more"),
        "names": ({"val_names": np.array(["a"])}, "1 names"),
        "classes": ({"classes": np.array(["green", "red", "violet"])}, "'violet'"),
        "none": ({"val_labels": np.zeros(0, int), "val_names": np.zeros(0, "U1"), "val_offsets": np.zeros(1, int)},
                 "at least one"),
    }  # fmt: skip
    for case, (changes, message) in bad.items():
        with pytest.raises(InputError, match=message):
            evaluate(colour_model(), archive(tmp_path / f"{case}.npz", **changes))
    with pytest.raises(InputError, match=r"no split 'test': it has train, val"):
        evaluate(colour_model(), path, split="test")
    with pytest.raises(InputError, match="has its own labels"):
        evaluate(colour_model(), path, truth=path)
    content = path.read_bytes()
    for damaged in (content[:-30], content[:200], content.replace(b"IHDR", b"XHDR")):
        (tmp_path / "damaged.npz").write_bytes(damaged)
        with pytest.raises(InputError, match="can't be read"):
            evaluate(colour_model(), tmp_path / "damaged.npz")
    with zipfile.ZipFile(tmp_path / "lies.npz", "w") as lies:
        header = b"{'descr': '<i8', 'fortran_order': False, 'shape': (99999999999,), }"
        for name in ("val_jpeg", "val_offsets", "val_labels", "val_names", "classes"):
            lies.writestr(f"{name}.npy", b"\x93NUMPY\x01\x00" + bytes([len(header) + 1, 0]) + header + b"\n")
    with pytest.raises(InputError, match=r"expected kind u|bytes follow"):
        evaluate(colour_model(), tmp_path / "lies.npz")
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("val_jpeg.npy", bytes(65 * 2**20))
    with pytest.raises(InputError, match="refused"):
        evaluate(colour_model(), tmp_path / "bomb.npz")


def test_unfit_data(colours: Path, tmp_path: Path) -> None:
    model = colour_model()
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no images"):
        evaluate(model, tmp_path / "empty")
    (tmp_path / "empty" / "a.txt").write_text("a")
    with pytest.raises(InputError, match=r"holds no images \(1 other"):
        evaluate(model, tmp_path / "empty")
    with pytest.raises(InputError, match="does not exist"):
        evaluate(model, tmp_path / "missing")
    with pytest.raises(InputError, match=r"no \.npz archive"):
        evaluate(model, tmp_path / "empty" / "a.txt")
    with pytest.raises(InputError, match=r"only \.npz archives have splits"):
        evaluate(model, colours, split="val")
    with pytest.raises(InputError, match="limit 0"):
        evaluate(model, colours, limit=0)
    with pytest.raises(InputError, match="unknown preprocessing recipe"):
        evaluate(model, colours, recipe="none")
    shutil.copytree(colours / "red", colours / "crimson")
    shutil.copytree(colours / "red", colours / "Reds")
    with pytest.raises(InputError, match=r"2 of 5 classes don't match .*'Reds' \(did you mean 'red'\?\); 'crimson'"):
        evaluate(model, colours)
    shutil.rmtree(colours / "crimson")
    shutil.rmtree(colours / "Reds")
    save(colours / "loose.png", np.zeros((3, 3, 3), np.uint8))
    with pytest.raises(InputError, match="expected one or the other"):
        evaluate(model, colours)
    for path in colours.rglob("*.png"):
        path.write_bytes(b"nothing")
    (colours / "loose.png").unlink()
    with pytest.raises(InputError, match=r"none of the 4 images could be read; blue/a.png: "):
        evaluate(model, colours)


# ---------------------------------------------------------------------------------------------------------------------
# Resuming


@pytest.mark.parametrize("stop", [0, 8, 16, 40])
def test_resumed_equals_uninterrupted(ten: Model, folder: Path, tmp_path: Path, stop: int) -> None:
    state = tmp_path / "state.npz"
    whole = evaluate(ten, folder, scores=True)
    with pytest.raises(KeyboardInterrupt):
        evaluate(ten, folder, state=state, scores=True, on_progress=stop_after(stop))
    kept = len(np.load(state)["index"])
    assert stop <= kept < 43
    resumed = evaluate(ten, folder, state=state, scores=True)
    assert resumed.ran == 43 - kept
    same(whole, resumed)
    write_predictions(whole, tmp_path / "whole.npz")
    write_predictions(resumed, tmp_path / "resumed.npz")
    assert (tmp_path / "whole.npz").read_bytes() == (tmp_path / "resumed.npz").read_bytes()
    again = evaluate(ten, folder, state=state)
    assert again.ran == 0
    assert again.images_per_second is None
    same(whole, again)
    assert sorted(p.name for p in tmp_path.glob(".*")) == []
    for result in (whole, resumed):
        result.close()


def test_a_limit_can_be_raised(ten: Model, folder: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    evaluate(ten, folder, state=state, limit=10, scores=True).close()
    resumed = evaluate(ten, folder, state=state, scores=True)
    assert resumed.ran == 33
    same(evaluate(ten, folder), resumed)
    write_predictions(resumed, tmp_path / "p.npz")
    resumed.close()
    with np.load(tmp_path / "p.npz") as arrays:
        best = arrays["probabilities"].argmax(axis=1)
        assert np.array_equal(best[arrays["readable"]], arrays["predicted"][arrays["readable"]])


def test_a_state_of_something_else(ten: Model, folder: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    evaluate(ten, folder, state=state, limit=8)
    before = state.read_bytes()
    with pytest.raises(InputError, match=r"differs in model \("):
        evaluate(Model(ten_data(1), threads=1), folder, state=state)
    with pytest.raises(InputError, match=r"differs in recipe \(recipe: slim_inception_eval there, whole_image here\)"):
        evaluate(ten, folder, state=state, recipe="whole_image")
    with pytest.raises(InputError, match=r"differs in dialect"):
        evaluate(Model(ten_data(), dialect="xnnpack", threads=1), folder, state=state)
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    evaluate(ten, copy, state=state, limit=8)  # the same data in another place
    (copy / TEN[9] / "09.png").unlink()
    with pytest.raises(InputError, match=r"differs in data \("):
        evaluate(ten, copy, state=state)
    with pytest.raises(InputError, match=r"begun without keeping all scores"):
        evaluate(ten, folder, state=state, scores=True)
    assert state.read_bytes() == before
    same(evaluate(Model(ten_data(), "reference", threads=1), folder, state=state), evaluate(ten, folder))


def test_damaged_states(ten: Model, folder: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    evaluate(ten, folder, state=state, limit=30, scores=True).close()
    content = state.read_bytes()
    arrays = dict(np.load(state))
    header = json.loads(arrays["header"].tobytes())

    def fails(message: str, **changes: Any) -> None:
        with open(state, "wb") as file:
            np.savez(file, **(arrays | changes))
        with pytest.raises(InputError, match=message):
            evaluate(ten, folder, state=state)

    def text(**changes: Any) -> Array:
        return np.frombuffer(json.dumps(header | changes).encode(), np.uint8)

    fails("is not a state file", header=text(format="another"))
    fails("version 2, expected 1", header=text(version=2))
    fails("counts other images", header=text(images=1))
    fails("errors differ", header=text(errors={}))
    fails("errors differ", header=text(errors=[]))
    fails("no JSON", header=arrays["header"][:-1])
    fails("different lengths", index=arrays["index"][1:])
    fails("out of range, or occurs twice", index=arrays["index"] + 40)
    fails("out of range, or occurs twice", index=arrays["index"] * 0)
    fails("neither predicted nor unreadable", status=arrays["status"] + 1)
    fails("class id or a score is out of range", ids=arrays["ids"] + 6)
    fails("class id or a score is out of range", best=arrays["best"] * np.nan)
    fails("object", ids=np.array([None]))
    for damaged in (b"", b"{}", content[: len(content) // 2]):
        state.write_bytes(damaged)
        with pytest.raises(InputError, match="can't be read"):
            evaluate(ten, folder, state=state)
        assert state.read_bytes() == damaged  # whatever it is, it is left alone
    state.write_bytes(content)
    scores = tmp_path / "state.scores"
    scores.write_bytes(bytes(scores.stat().st_size))
    result = evaluate(ten, folder, state=state, limit=30, scores=True)
    with pytest.raises(InputError, match="differs from the prediction that the state keeps"):
        write_predictions(result, tmp_path / "p.npz")
    assert not (tmp_path / "p.npz").exists()
    result.close()
    os.truncate(tmp_path / "state.scores", 100)
    with pytest.raises(InputError, match="has 100 bytes, and the state beside it counts"):
        evaluate(ten, folder, state=state, scores=True)
    (tmp_path / "state.scores").unlink()
    with pytest.raises(InputError, match="No such file"):
        evaluate(ten, folder, state=state, scores=True)
    with pytest.raises(InputError, match="there is no folder"):
        evaluate(ten, folder, state=tmp_path / "no" / "state")
    with pytest.raises(InputError, match="is not a file"):
        evaluate(ten, folder, state=tmp_path)


# ---------------------------------------------------------------------------------------------------------------------
# Files and the command line


@pytest.fixture(scope="module")
def ten_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "ten.h5"
    weightfile.write(path, ten_data())
    return path


def test_predictions(ten: Model, folder: Path, tmp_path: Path, ten_file: Path) -> None:
    for name in ("p.npz", "p.csv"):
        assert cli(ten_file, folder, "--predictions", tmp_path / name).exit_code == 0
    result = evaluate(ten, folder)
    with np.load(tmp_path / "p.npz", allow_pickle=False) as arrays:
        assert tuple(arrays["names"]) == result.names
        assert tuple(arrays["labels"]) == TEN
        assert np.array_equal(arrays["truth"], result.truths)
        assert np.array_equal(arrays["readable"], result.is_readable)
        assert np.array_equal(arrays["top_ids"], result.ids)
        assert np.array_equal(arrays["top_scores"], result.scores)
        probabilities = arrays["probabilities"]
    assert probabilities.shape == (43, 10)
    for i in np.flatnonzero(result.is_readable)[::10]:
        assert probabilities[i].tobytes() == ten.run(ten.preprocess(folder / result.names[i])).tobytes()
    with open(tmp_path / "p.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 43
    for i, row in enumerate(rows):
        assert row["file"] == result.names[i]
        if result.is_readable[i]:
            assert int(row["predicted"]) == result.ids[i, 0]
            assert row["predicted_label"] == TEN[result.ids[i, 0]]
            assert float(row["score"]) == result.scores[i, 0]
            assert [int(x) for x in row["top_ids"].split()] == result.ids[i].tolist()
        else:
            assert row["predicted"] == ""


def test_predictions_of_an_8_bit_model(tmp_path: Path) -> None:
    """All scores in the archive are the real values that `predict` gives, also of images that came from a state."""
    model, rng = nm.load("flowers_uint8", threads=1), np.random.default_rng(4)
    for i, name in enumerate(model.info.labels):
        save(tmp_path / "data" / name / f"{i}.png", noise(rng))
    files = tmp_path / "whole.npz", tmp_path / "resumed.npz"
    assert cli("flowers_uint8", tmp_path / "data", "--predictions", files[0]).exit_code == 0
    evaluate(model, tmp_path / "data", limit=2, state=tmp_path / "state", scores=True).close()
    resume = ("--resume", tmp_path / "state", "--predictions", files[1])
    for _ in range(2):  # the second time, all of it comes from the state
        result = cli("flowers_uint8", tmp_path / "data", *resume)
        assert result.exit_code == 0, result.stderr
        assert ["dialect", "tflite-reference"] in [line.split() for line in result.stdout.splitlines()]
        assert files[0].read_bytes() == files[1].read_bytes()
    document = json.loads(cli("flowers_uint8", tmp_path / "data", "--dialect", "xnnpack", "--json").stdout)
    assert document["dialect"] == "xnnpack"
    with np.load(files[0], allow_pickle=False) as arrays:
        for name, row, ids, best in zip(
            arrays["names"], arrays["probabilities"], arrays["top_ids"], arrays["top_scores"], strict=True
        ):
            assert row.dtype == np.float32
            assert row[ids].tolist() == best.tolist()
            output = model.run(model.preprocess(tmp_path / "data" / name))
            assert row.tobytes() == model.scores(output)[0].tobytes()


def test_confusion_picture(colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib", reason="pictures need the extra [plot]")
    result = evaluate(colour_model(), colours)
    write_confusion(result, tmp_path / "c.png")
    with Image.open(tmp_path / "c.png") as picture:
        picture.load()
        assert min(picture.size) > 300
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtra, match=r"npmobilenet\[plot\]"):
        write_confusion(result, tmp_path / "d.png")
    assert not (tmp_path / "d.png").exists()


def test_command_line(folder: Path, ten_file: Path, ten: Model) -> None:
    result = cli(ten_file, folder)
    assert result.exit_code == 0, result.stderr
    expected = evaluate(ten, folder)
    low, high = wilson(expected.top1_hits, 41)
    share = f"{expected.top1_hits / 41:.4f}  ({expected.top1_hits} of 41; 95 % interval {low:.4f} to {high:.4f})"
    assert share in result.stdout
    assert "dialect" not in result.stdout
    assert "43, 2 of them unreadable and not counted; 2 files that are no images were passed over" in result.stdout
    assert "kind 3/broken.jpg: " in result.stdout
    lines = result.stderr.splitlines()
    assert 3 <= len(lines) <= 10
    assert lines[-1].startswith("npmobilenet: 43 of 43 images: top-1 ")
    assert lines[-1].endswith(", 2 unreadable")
    document = json.loads(cli(ten_file, folder, "--json").stdout)
    facts = expected.facts()
    for key in ("top1", "top5", "classes", "images", "readable", "unreadable", "model", "preprocessing", "dialect"):
        assert document[key] == facts[key], key


def test_command_line_errors(folder: Path, ten_file: Path, tmp_path: Path) -> None:
    photo = folder / TEN[0] / "00.png"
    for arguments, message in (
        ((ten_file, tmp_path / "none"), "does not exist"),
        ((tmp_path / "none.h5", folder), "there is no file"),
        ((ten_file, folder, "--predictions", "p.txt"), "ends in .npz or .csv"),
        ((ten_file, folder, "--predictions", tmp_path / "no" / "p.csv"), "there is no folder"),
        ((ten_file, folder, "--confusion", "c.jpg"), "ends in .png"),
        ((ten_file, photo), "no .npz archive"),
        ((ten_file, folder, "--resume", photo), "can't be read"),
        ((ten_file, folder, "--preprocess", "none"), "unknown preprocessing recipe"),
        ((ten_file, folder, "--limit", "0"), "0 is not in the range"),
        ((ten_file,), "Missing argument 'DATA'"),
    ):
        result = cli(*arguments)
        assert result.exit_code == 2, message
        assert result.stdout == ""
        assert message in result.stderr
        assert result.stderr.count("\n") == 1
    path = archive(tmp_path / "a.npz")
    before = path.read_bytes()
    result = cli(ten_file, path, "--predictions", path)
    assert result.exit_code == 2
    assert "is read by this evaluation" in result.stderr
    assert path.read_bytes() == before


@pytest.mark.skipif(sys.platform == "win32", reason="this platform can't send SIGINT to a process")
def test_ctrl_c(tmp_path: Path, ten_file: Path) -> None:
    """The real program, stopped by the real signal: the state is kept, and the rest is done by the same command."""
    rng, count = np.random.default_rng(3), 1440  # seconds of work behind the first tenth
    for i in range(12):
        save(tmp_path / f"{i}.jpg", noise(rng, 400, 400))
    for i in range(count):
        place = tmp_path / "many" / TEN[i % 10] / f"{i}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        os.link(tmp_path / f"{i % 12}.jpg", place)
    arguments = ["evaluate", ten_file, tmp_path / "many", "--json", "--threads=1", "--resume", tmp_path / "state"]
    resumable = [sys.executable, "-m", "npmobilenet", *arguments]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it
    gc.disable()  # a walk through what all tests before have left takes seconds, in which the program could end
    try:
        running = subprocess.Popen(resumable, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert running.stderr is not None
        while "images:" not in (line := running.stderr.readline()):
            assert line, "it ended before it was stopped"
        running.send_signal(signal.SIGINT)
    finally:
        gc.enable()
        signal.signal(signal.SIGINT, before)
    with running:
        stdout, stderr = running.communicate(timeout=60)
    assert running.returncode == 130
    assert stdout == ""
    assert "is kept in" in stderr
    assert "Traceback" not in stderr
    kept = len(np.load(tmp_path / "state")["index"])
    assert 0 < kept < count
    resumed = json.loads(subprocess.run(resumable, capture_output=True, check=True, timeout=120).stdout)
    assert resumed["images_run"] == count - kept
    whole = json.loads(cli(ten_file, tmp_path / "many", "--json").stdout)
    for key in ("top1", "top5", "classes", "images"):
        assert resumed[key] == whole[key]


def test_characters_beyond_unicode(tmp_path: Path) -> None:
    from npmobilenet.measure.datasets.npz import read_arrays

    for number in (0x110000, 0xFFFFFFFF):
        np.savez(tmp_path / "d.npz", names=np.array([65, number], np.uint32).view("<U2"))
        with pytest.raises(InputError, match="which is no character"):
            read_arrays(tmp_path / "d.npz", {"names": ("U", 1)}, "DATA")
