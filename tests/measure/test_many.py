"""Many images on a cluster of two processes, one of which is killed: each image once, equal by bits."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import same_bits
from models import tiny
from PIL import Image

from npmobilenet.cli import main
from npmobilenet.errors import InputError
from npmobilenet.formats import weightfile
from npmobilenet.measure.evaluate import Progress, evaluate, write_predictions
from npmobilenet.measure.many import embed_many, evaluate_many, sources
from npmobilenet.measure.many import run as many
from npmobilenet.model import Model

pytest.importorskip("distributed", reason="Dask is not installed (extra [dask])")
pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra [parquet])")
pytestmark = pytest.mark.filterwarnings("ignore")  # Dask's own, when a worker is killed


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny()


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with many.cluster(None, 2) as found:
        yield found


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Fifty pictures, and two that are broken."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(50):
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8)).save(folder / f"{i:02}.png")
    for name in ("07b.png", "40b.png"):
        (folder / name).write_bytes(b"no picture")
    return folder


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [row for path in sorted(folder.glob("part-*.parquet")) for row in pa.parquet.read_table(path).to_pylist()]


def check(folder: Path, model: Model, photos: Path) -> None:
    """Every image is there once, in order, with the vector of the local run."""
    rows = rows_of(folder)
    assert [row["file"] for row in rows] == [str(p) for p in sorted(photos.iterdir())]
    for row in rows:
        if row["error"] is None:
            assert same_bits(np.array(row["vector"], np.float32), model.features(row["file"])[0])
    assert [Path(row["file"]).name for row in rows if row["vector"] is None] == ["07b.png", "40b.png"]
    manifest = json.loads((folder / "manifest.json").read_text())
    for part in manifest["parts"]:
        assert hashlib.sha256((folder / part["file"]).read_bytes()).hexdigest() == part["sha256"]
    assert sum(part["images"] for part in manifest["parts"]) == len(rows)


def test_a_worker_is_killed(
    model: Model, client: Any, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its part is redone by another; then the run is repeated, and interrupted and resumed."""
    monkeypatch.setattr(sources, "PART", 4)
    killed = []

    def kill(done: int, total: int, bad: int) -> None:
        if not killed:
            killed.extend(client.run(os.getpid).values())
            os.kill(killed[0], getattr(signal, "SIGKILL", signal.SIGTERM))

    done = embed_many(model, [str(photos)], tmp_path / "out", client, on_progress=kill)
    assert (done.images, done.parts, done.ran, len(done.unreadable)) == (52, 13, 52, 2)
    check(tmp_path / "out", model, photos)
    assert embed_many(model, [str(photos)], tmp_path / "out", client).ran == 0
    (tmp_path / "out" / "part-000003.parquet").write_bytes(b"damaged")
    (tmp_path / "out" / "part-000005.parquet").unlink()
    assert embed_many(model, [str(photos)], tmp_path / "out", client).ran == 8
    check(tmp_path / "out", model, photos)

    def stop(done: int, total: int, bad: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed_many(model, [str(photos)], tmp_path / "again", client, on_progress=stop)
    assert 0 < embed_many(model, [str(photos)], tmp_path / "again", client).ran < 52
    check(tmp_path / "again", model, photos)


def test_parquet_and_addresses(model: Model, client: Any, photos: Path, tmp_path: Path) -> None:
    """Bytes, paths and addresses give the same vectors."""
    paths = sorted(photos.iterdir())[:5]
    contents = [path.read_bytes() for path in paths]
    texts = [str(path) for path in paths]
    tables = {
        "bytes": {"image": pa.array(contents), "name": pa.array(texts)},
        "paths": {"path": pa.array(texts)},
        "hugging": {"image": pa.array([{"bytes": c, "path": None} for c in contents]), "file": pa.array(texts)},
    }
    expected = model.features(texts)
    inputs = [f"file://{photos}/0[0-4].png"]
    for name, columns in tables.items():
        pa.parquet.write_table(pa.table(columns), tmp_path / f"{name}.parquet", row_group_size=3)
        inputs.append(str(tmp_path / f"{name}.parquet"))
    for i, given in enumerate(inputs):
        embed_many(model, [given], tmp_path / f"out{i}", client)
        rows = rows_of(tmp_path / f"out{i}")
        assert same_bits(np.array([row["vector"] for row in rows], np.float32), expected), given
        assert [row["file"].removeprefix("file://") for row in rows] == texts
    pa.parquet.write_table(pa.table({"x": [1]}), tmp_path / "other.parquet")
    with pytest.raises(InputError, match="has the columns x"):
        embed_many(model, [str(tmp_path / "other.parquet")], tmp_path / "no", client)


def test_folders_of_others(model: Model, client: Any, photos: Path, tmp_path: Path) -> None:
    one = [str(photos / "00.png")]
    embed_many(model, one, tmp_path / "out", client)
    for options in ({"l2": True}, {"recipe": "torchvision"}):
        with pytest.raises(InputError, match="belongs to other vectors"):
            embed_many(model, one, tmp_path / "out", client, **options)  # type: ignore[arg-type]
    (tmp_path / "out" / "manifest.json").unlink()
    with pytest.raises(InputError, match="and no manifest"):
        embed_many(model, one, tmp_path / "out", client)


def test_command(model: Model, client: Any, photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    weightfile.write(tmp_path / "tiny.h5", model.data)
    command = ["embed", str(photos), "--model", str(tmp_path / "tiny.h5"), "-o", str(tmp_path / "out")]
    assert main([*command, "--scheduler", client.scheduler.address, "--json"]) == 2  # two are broken
    facts = json.loads(capfd.readouterr().out)
    assert (facts["images"], len(facts["unreadable"])) == (52, 2)
    check(tmp_path / "out", model, photos)


def test_classes(model: Model, client: Any, photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """`classify` by parts: what `predict` gives, from a folder, a list, and rows that hold bytes or paths."""
    weightfile.write(tmp_path / "tiny.h5", model.data)
    texts = [str(p) for p in sorted(photos.iterdir())]
    (tmp_path / "list.txt").write_text("\n".join([texts[0], f"file://{texts[1]}", *texts[2:]]))
    table = {"path": pa.array(texts), "bytes": pa.array([Path(text).read_bytes() for text in texts])}
    pa.parquet.write_table(pa.table(table), tmp_path / "rows.parquet", row_group_size=30)
    command = ["classify", "--model", str(tmp_path / "tiny.h5"), "--top", "3", "--json"]
    command += ["--scheduler", client.scheduler.address]
    for i, given in enumerate((str(photos), str(tmp_path / "list.txt"), str(tmp_path / "rows.parquet"))):
        out = tmp_path / f"out{i}"
        assert main([*command, given, "-o", str(out)]) == 2  # two are broken
        assert json.loads(capfd.readouterr().out)["images"] == 52
        rows = rows_of(out)
        assert [row["file"].removeprefix("file://") for row in rows] == texts
        assert [row["file"] for row in rows if row["class_ids"] is None] == [t for t in texts if "b.png" in t]
        for row in rows[:9]:
            if row["error"] is None:
                best = list(zip(row["class_ids"], row["labels"], row["scores"], strict=True))
                assert best == model.predict(row["file"].removeprefix("file://"), 3)[0]
    assert main([*command[:3], str(photos), "--workers", "1"]) == 2
    assert "-o FOLDER" in capfd.readouterr().err
    with pytest.raises(InputError, match="belongs to other vectors or predictions"):
        embed_many(model, [str(photos)], tmp_path / "out0", client)


def labelled(photos: Path, tmp_path: Path) -> dict[str, str]:
    """The photos by class, in each form that `evaluate` takes."""
    paths = sorted(photos.iterdir())
    for i, path in enumerate(paths):
        folder = tmp_path / "tree" / str(i % 10)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / path.name).write_bytes(path.read_bytes())
    columns = {"image": pa.array([p.read_bytes() for p in paths]), "path": pa.array([p.name for p in paths])}
    columns["label"] = pa.array([i % 10 for i in range(len(paths))])
    pa.parquet.write_table(pa.table(columns), tmp_path / "bytes.parquet", row_group_size=20)
    columns = {"file": pa.array([f"file://{p}" for p in paths]), "class": columns["label"].cast(pa.string())}
    pa.parquet.write_table(pa.table(columns), tmp_path / "paths.parquet", row_group_size=20)
    tree = tmp_path / "tree"
    return {"tree": str(tree), "address": f"file://{tree}"} | {
        name: str(tmp_path / f"{name}.parquet") for name in ("bytes", "paths")
    }


def test_evaluate(model: Model, client: Any, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal to the local run, whose state it shares; a worker is killed half-way, and the run is interrupted."""
    monkeypatch.setattr(sources, "PART", 4)
    for name, data in labelled(photos, tmp_path).items():
        expected = evaluate(model, data, scores=True)
        killed: list[int] = []

        def kill(progress: Progress, killed: list[int] = killed) -> None:
            if progress.done > 10 and not killed:
                killed.extend(client.run(os.getpid).values())
                os.kill(killed[0], getattr(signal, "SIGKILL", signal.SIGTERM))

        got = evaluate_many(model, data, client, scores=True, on_progress=kill if name == "tree" else None)
        assert (len(got.names), got.readable, got.ran) == (52, 50, 52)
        assert (got.names, got.unreadable) == (expected.names, expected.unreadable)
        assert same_bits(got.ids, expected.ids)
        assert same_bits(got.scores, expected.scores)
        for i, result in enumerate((expected, got)):
            write_predictions(result, tmp_path / f"{name}{i}.npz")
            result.close()
        assert (tmp_path / f"{name}0.npz").read_bytes() == (tmp_path / f"{name}1.npz").read_bytes()

    def stop(progress: Progress) -> None:
        if progress.done >= 8:
            raise KeyboardInterrupt

    state = tmp_path / "state.npz"
    with pytest.raises(KeyboardInterrupt):
        evaluate_many(model, tmp_path / "tree", client, state=state, on_progress=stop)
    local = evaluate(model, tmp_path / "tree", state=state, limit=26)
    assert 0 < local.ran < 26
    again = evaluate_many(model, tmp_path / "tree", client, state=state)
    assert 0 < again.ran <= 52 - local.ran - 8
    assert same_bits(again.scores, evaluate(model, tmp_path / "tree").scores)


def test_labels_that_are_not_there(model: Model, photos: Path, tmp_path: Path) -> None:
    pa.parquet.write_table(pa.table({"image": [b"x"]}), tmp_path / "x.parquet")
    (tmp_path / "y.parquet").write_bytes(b"PAR1 nothing of the kind PAR1")
    for data, said in (
        (tmp_path / "x.parquet", "expected one of label, class"),
        (tmp_path / "y.parquet", "can't be read as Parquet"),
        (tmp_path / "none.parquet", "No such file"),
        (f"file://{photos}", "expected a subfolder of images for each class"),
        ("nosuch://bucket/photos", "can't be listed"),
    ):
        with pytest.raises(InputError, match=said):
            evaluate(model, data)


def test_a_part_that_kills_its_workers(model: Model, client: Any) -> None:
    """The cluster gives up in one line."""
    with pytest.raises(InputError, match="lost with several workers"):
        list(many.hand_out(client, model, end_this_process, [(1,)]))


def end_this_process(plugin: str, number: int) -> None:
    os._exit(1)
