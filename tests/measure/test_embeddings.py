"""Vectors of images: the loop, its state, the files; and heads trained on them."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import same_bits
from models import tiny
from PIL import Image

from npmobilenet.cli import main
from npmobilenet.errors import InputError, MissingExtra
from npmobilenet.formats import weightfile
from npmobilenet.images.finding import Found, find_images
from npmobilenet.measure.embeddings import embed, fit, write_vectors
from npmobilenet.measure.embeddings import files as vector_files
from npmobilenet.measure.embeddings.head import STRENGTHS, choose_strength, logistic_regression, with_head
from npmobilenet.measure.evaluate import evaluate
from npmobilenet.model import Model, load


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Eleven pictures and a broken one."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(11):
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8)).save(folder / f"{i:02}.png")
    (folder / "05b.png").write_bytes(b"no picture")
    return folder


def found(folder: Path) -> list[Found]:
    return list(find_images([str(folder)]))


def test_vectors_are_the_models(model: Model, photos: Path) -> None:
    done = embed(model, found(photos))
    rows = list(done.spool.rows())
    assert [row.name for row in rows] == [str(p) for p in sorted(photos.iterdir())]
    assert list(done.unreadable) == [str(photos / "05b.png")]
    for row in rows:
        assert row.vector is None or same_bits(row.vector, model.features(row.name)[0])
    done.close()


def test_files(model: Model, photos: Path, tmp_path: Path) -> None:
    """Every format holds the same vectors and names, and the same run gives the same bytes."""
    pa = pytest.importorskip("pyarrow", reason="Parquet needs the extra [parquet]")
    done = embed(model, found(photos), l2=True)
    names = [str(p) for p in sorted(photos.iterdir()) if p.name != "05b.png"]
    expected = model.features(names, l2=True)
    for suffix in vector_files.OUTPUTS:
        write_vectors(done, tmp_path / f"v{suffix}")
        write_vectors(done, tmp_path / f"w{suffix}")
        assert (tmp_path / f"v{suffix}").read_bytes() == (tmp_path / f"w{suffix}").read_bytes()
    assert same_bits(np.load(tmp_path / "v.npy"), expected)
    assert (tmp_path / "v.names.txt").read_text().splitlines() == names
    with np.load(tmp_path / "v.npz", allow_pickle=False) as arrays:
        assert same_bits(arrays["vectors"], expected)
        assert arrays["names"].tolist() == names
        assert arrays["unreadable"].tolist() == [str(photos / "05b.png")]
        assert "not an image" in arrays["errors"][0]
        assert "l2=yes" in arrays["facts"].tolist()
    with open(tmp_path / "v.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    good = [row for row in rows if not row["error"]]
    read = np.array([[float(row[str(i)]) for i in range(expected.shape[1])] for row in good], np.float32)
    assert same_bits(read, expected)
    table = pa.parquet.read_table(tmp_path / "v.parquet")
    assert table.column_names == ["file", "vector", "error"]
    vectors = table.column("vector").to_pylist()
    assert vectors.count(None) == 1
    assert same_bits(np.array([v for v in vectors if v is not None], np.float32), expected)
    done.close()


def test_resuming(model: Model, photos: Path, tmp_path: Path) -> None:
    """Interrupted anywhere, even amid a record, a state goes on where it was; a changed image is run again."""
    state, images = tmp_path / "state", found(photos)
    whole = embed(model, images, state=state)
    rows = list(whole.spool.rows())
    whole.close()
    content = state.read_bytes()
    start = content.index(b"\n") + 1
    for size in (0, start, start + 7, start + 2000, len(content) - 1):
        state.write_bytes(content[:size])
        again = embed(model, images, state=state)
        assert again.ran > 0
        assert [r.name for r in again.spool.rows()] == [r.name for r in rows]
        again.close()
        assert state.read_bytes() == content
    os.utime(photos / "08.png", (1, 1))
    changed = embed(model, images, state=state)
    assert changed.ran == 3  # and those behind it
    changed.close()


def test_interrupted_from_within(model: Model, photos: Path, tmp_path: Path) -> None:
    def stop(done: int, total: int, bad: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed(model, found(photos), state=tmp_path / "state", on_progress=stop)
    again = embed(model, found(photos), state=tmp_path / "state")
    assert 0 < again.ran < 12
    again.close()


def test_states_of_others(model: Model, photos: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    embed(model, found(photos)[:1], state=state).close()
    before = state.read_bytes()
    for options in ({"l2": True}, {"layer": "Logits"}, {"recipe": "torchvision"}):
        with pytest.raises(InputError, match="belongs to other vectors"):
            embed(model, found(photos), state=state, **options)  # type: ignore[arg-type]
    assert state.read_bytes() == before
    state.write_text("mine")
    with pytest.raises(InputError, match="left alone"):
        embed(model, found(photos), state=state)
    with pytest.raises(InputError, match="no folder"):
        embed(model, found(photos), state=tmp_path / "none" / "state")


def test_command(photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], model: Model) -> None:
    weightfile.write(tmp_path / "tiny.h5", model.data)
    out = tmp_path / "v.npz"
    common = ["embed", "--model", str(tmp_path / "tiny.h5"), "--threads", "1"]
    assert main([*common, str(photos), "-o", str(out), "--json"]) == 2  # one is broken
    facts = json.loads(capfd.readouterr().out)
    assert (facts["images"], facts["width"]) == (12, np.load(out)["vectors"].shape[1])
    assert facts["unreadable"][0]["file"].endswith("05b.png")
    assert main([*common, str(photos / "00.png"), "-o", str(out)]) == 0
    for wrong in ("v.pkl", "none/v.npz", "tiny.h5"):
        assert main([*common, str(photos), "-o", str(tmp_path / wrong)]) == 2
    assert main([*common, str(photos), "-o", str(out), "--layer", "nowhere"]) == 2
    assert "did you mean" in capfd.readouterr().err


def test_parquet_without_pyarrow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"npmobilenet\[parquet\]"):
        vector_files.check_output(tmp_path / "v.parquet")


def test_search_finds_itself(model: Model, photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """By brute force, and by each index that is installed."""
    example = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "search.py"))
    weightfile.write(tmp_path / "tiny.h5", model.data)
    vectors = model.features([p for p in sorted(photos.iterdir()) if p.name != "05b.png"], l2=True)
    for package, function in (("faiss", "by_faiss"), ("hnswlib", "by_hnswlib"), ("numpy", "nearest")):
        if importlib.util.find_spec(package):
            best, cosines = example[function](vectors, vectors[3], 4)
            assert best[0] == 3
            assert cosines[0] == pytest.approx(1, abs=1e-5)
            assert list(cosines) == sorted(cosines, reverse=True)
    embed_it = ["embed", str(photos), "--model", str(tmp_path / "tiny.h5"), "-o", str(tmp_path / "v.npz"), "--l2"]
    assert main(embed_it) == 2
    capfd.readouterr()
    example["main"](str(tmp_path / "tiny.h5"), str(photos / "03.png"), str(tmp_path / "v.npz"), 1)
    assert capfd.readouterr().out == f"1.000  {photos / '03.png'}\n"


# -- heads -------------------------------------------------------------------------------------------------------------


def gaussians(seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    classes = np.arange(90) % 3
    return (rng.standard_normal((90, 6)) + classes[:, None] * [1, 0, 2, 0, 0, 0]).astype(np.float32), classes


@pytest.mark.parametrize("strength", [0.01, 1.0, 100.0])
def test_regression_is_at_its_minimum(strength: float) -> None:
    """The slope of the loss, written out anew, is 0 there; scikit-learn finds the same weights."""
    x, y = gaussians()
    x[:, 5] = 7  # a feature that never changes
    w, b = logistic_regression(x, y, 3, strength)
    assert not w[5].any()
    scaled = (x - x.mean(0, np.float64)) / np.where(x.std(0), x.std(0, dtype=np.float64), 1)
    z = x @ w + b
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    slope = scaled.T @ (p - np.eye(3)[y]) + w * np.where(x.std(0), x.std(0, dtype=np.float64), 1)[:, None] / strength
    assert np.abs(slope).max() < 1e-3
    linear = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is not installed (extra [sklearn])")
    theirs = linear.LogisticRegression(C=strength, tol=1e-8, max_iter=10000).fit(scaled, y)
    assert np.allclose(p, theirs.predict_proba(scaled), atol=1e-4)


def test_regression_is_the_same_each_time() -> None:
    x, y = gaussians()
    first, second = (logistic_regression(x, y, 3, 1.0) for _ in range(2))
    assert all(same_bits(a, b) for a, b in zip(first, second, strict=True))


def test_a_new_head_computes_what_it_says(model: Model) -> None:
    """Also on the features of a map, of which the head takes the average."""
    x = np.random.default_rng(2).uniform(-1, 1, (3, 32, 32, 3)).astype(np.float32)
    for layer in ("global_pool", "layer_5/output"):
        name = model.graph.endpoints[layer]
        values = model.run(x, [name])[1][name].mean((1, 2), dtype=np.float64)
        w = np.random.default_rng(3).standard_normal((values.shape[1], 4))
        made = Model(with_head(model.data, name, w, np.arange(4.0), ("a", "b", "c", "d"), {}, "mine"))
        z = values @ w + np.arange(4)
        expected = np.exp(z) / np.exp(z).sum(1, keepdims=True)
        assert np.allclose(made.run(x), expected, atol=1e-5)
        assert made.is_classifier


def classes_of(tmp_path: Path) -> Path:
    """Dark and bright pictures in two folders, and a broken one."""
    rng = np.random.default_rng(0)
    for name, low in (("bright", 180), ("dark", 0)):
        folder = tmp_path / "two" / name
        folder.mkdir(parents=True)
        for i in range(8):
            Image.fromarray(rng.integers(low, low + 60, (16, 16, 3), np.uint8)).save(folder / f"{i}.png")
    (tmp_path / "two" / "dark" / "broken.png").write_bytes(b"no picture")
    return tmp_path / "two"


def test_fit(model: Model, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """From folders to a file that classifies by itself; the same bytes each time."""
    folder = classes_of(tmp_path)
    made = fit(model, folder, "mine")
    assert made.counts == {"bright": 8, "dark": 8}
    assert (made.held, made.hits, made.accuracy) == (4, 4, 1.0)
    assert list(made.unreadable) == ["dark/broken.png"]
    weightfile.write(tmp_path / "tiny.h5", model.data)
    common = ["fit", str(folder), "--model", str(tmp_path / "tiny.h5"), "--threads", "1"]
    for name in ("mine.h5", "mine2.h5"):
        (tmp_path / name[:-3]).mkdir()
        assert main([*common, "-o", str(tmp_path / name[:-3] / "mine.h5")]) == 0
    assert (tmp_path / "mine" / "mine.h5").read_bytes() == (tmp_path / "mine2" / "mine.h5").read_bytes()
    assert "1.0000 (4 of 4 held out" in capfd.readouterr().out
    own = load(tmp_path / "mine" / "mine.h5")
    assert own.predict(str(folder / "dark" / "0.png"), 1)[0][0][:2] == (1, "dark")
    result = evaluate(own, folder)
    assert result.top1_hits == 16
    assert main([*common, "-o", str(tmp_path / "mine" / "mine.h5")]) == 2  # it exists
    assert main(["fit", str(folder / "dark"), "-o", str(tmp_path / "x.h5")]) == 2


def test_fit_refuses(model: Model, tmp_path: Path) -> None:
    folder = classes_of(tmp_path)
    for path in (tmp_path / "none", folder / "dark", folder / "dark" / "0.png"):
        with pytest.raises(InputError):
            fit(model, path, "mine")
    for name in folder.joinpath("bright").iterdir():
        name.write_bytes(b"broken")
    with pytest.raises(InputError, match="no image of class 'bright' could be read"):
        fit(model, folder, "mine")


def test_the_strength_is_chosen_among_images_left_out() -> None:
    """By the plain loop that it stands for; images in no fold are always trained on."""
    x, y = gaussians()
    x = np.hstack([x, np.random.default_rng(9).standard_normal((90, 100))])  # that mislead a strong head
    fold_of = np.arange(len(x)) % 4 - 1
    losses = []
    for strength in STRENGTHS:
        loss = 0.0
        for fold in range(3):
            w, b = logistic_regression(x[fold_of != fold], y[fold_of != fold], 3, strength)
            z = x[fold_of == fold] @ w + b
            p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
            loss -= np.log(p[np.arange(len(z)), y[fold_of == fold]]).sum()
        losses.append(loss)
    assert 0 < np.argmin(losses) < len(STRENGTHS) - 1
    assert choose_strength(x, y, 3, fold_of) == STRENGTHS[int(np.argmin(losses))]
    assert choose_strength(x, y, 3, np.full(len(x), -1)) is None


def test_held_images_have_no_say(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in the strength, nor in the head that they measure."""
    seen: list[int] = []

    def counted(x: Any, classes: Any, count: int, fold_of: Any) -> float | None:
        seen.append(len(x))
        assert sorted(np.bincount(fold_of).tolist()) == [4, 4, 4]
        return choose_strength(x, classes, count, fold_of)

    monkeypatch.setattr(sys.modules["npmobilenet.measure.embeddings.fit"], "choose_strength", counted)
    made = fit(model, classes_of(tmp_path), "mine")
    assert (made.held, seen) == (4, [12])
    assert "by cross-validation" in made.data.info.provenance["head"]
    assert "(C = 2)" in fit(model, classes_of(tmp_path / "again"), "mine", strength=2).data.info.provenance["head"]


def test_fit_on_flowers(data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A sixth of the archive with the smallest V1: far above chance on photos that it didn't see, by its file alone."""
    with np.load(data / "datasets" / "flowers144.npz") as whole:
        jpeg, offsets, labels, names = (whole[f"val_{key}"] for key in ("jpeg", "offsets", "labels", "names"))
        arrays = {"classes": whole["classes"]}
    for split, chosen in (("train", np.arange(len(labels)) % 5 > 0), ("val", np.arange(len(labels)) % 5 == 0)):
        files = [jpeg[offsets[i] : offsets[i + 1]] for i in np.flatnonzero(chosen)]
        arrays[f"{split}_jpeg"], arrays[f"{split}_offsets"] = np.concatenate(files), np.cumsum([0, *map(len, files)])
        arrays[f"{split}_labels"], arrays[f"{split}_names"] = labels[chosen], names[chosen]
    np.savez(tmp_path / "part.npz", **arrays)
    small, mine = data / "weights" / "mobilenet_v1_0.25_128.tflite", str(tmp_path / "mine.h5")
    assert main(["fit", str(tmp_path / "part.npz"), "-o", mine, "--model", str(small), "--json"]) == 0
    made = json.loads(capfd.readouterr().out)
    assert made["held"] > 110
    assert made["accuracy"] > 0.7
    assert main(["evaluate", mine, str(tmp_path / "part.npz"), "--json"]) == 0
    result = json.loads(capfd.readouterr().out)
    assert result["images"] > 140
    assert result["top1"]["accuracy"] > 0.7
