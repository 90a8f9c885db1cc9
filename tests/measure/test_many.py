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
from npmobilenet.measure.many import embed_many, sources
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
