"""The soaks with small counts; tools/soak.py has the large ones, and docs/many.md what they measured."""

from __future__ import annotations

import gc
import json
import mmap
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from models import tiny
from PIL import Image

from npmobilenet.formats import weightfile

TOOL = Path(__file__).parents[2] / "tools" / "soak.py"
if not TOOL.is_file():
    pytest.skip("not a checkout: tools/ is not installed", allow_module_level=True)
sys.path.insert(0, str(TOOL.parent))

import soak  # noqa: E402

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="this platform has no /proc")


@pytest.fixture
def model(tmp_path: Path) -> Iterator[str]:
    weightfile.write(tmp_path / "tiny.h5", tiny().data)
    gc.freeze()  # A soak collects fifty times; what earlier tests left would be walked each time.
    yield str(tmp_path / "tiny.h5")
    gc.unfreeze()


# The heap takes some forty loads to reach the size at which it stays.
@pytest.mark.parametrize(("what", "count"), [("runs", 500), ("loads", 250), ("refused", 100)])
def test_nothing_is_left_behind(what: str, count: int, model: str) -> None:
    # A process of its own: what earlier tests left in this one's heap, and their threads, would be measured, too.
    command = [sys.executable, str(TOOL), what, model, "--count", str(count)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    facts = json.loads(done.stdout)
    assert done.returncode == 0, facts
    assert (facts["count"], facts["passed"]) == (count, True)
    assert facts["descriptors"][0] == facts["descriptors"][1]


def test_what_is_left_behind_is_seen(monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    """A megabyte for each file, a descriptor, and an output that changes."""
    there, kept, opened = soak.load(model), [], []

    def memory(path: str, **_: object) -> object:
        # Pages of its own: an array may be given memory that an earlier test has freed, and nothing grows.
        kept.append(mmap.mmap(-1, 2**20))
        kept[-1].write(bytes(2**20))
        return there

    def files(path: str, **_: object) -> object:
        opened.append(open(path, "rb"))  # noqa: SIM115
        return there

    others = iter([there, *[tiny(family="v2")] * 200])
    for leak in (memory, files, lambda path, **_: next(others)):
        monkeypatch.setattr(soak, "load", leak)
        assert soak.main(["loads", model, "--count", "101"]) == 1
        kept.clear()
    for file in opened:
        file.close()


@pytest.mark.filterwarnings("ignore")  # Dask's own, when a worker is killed
def test_a_cluster_beside_the_local_run(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("distributed", reason="Dask is not installed (extra [dask])")
    photos, folder = tmp_path / "photos", tmp_path / "work"
    photos.mkdir()
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(20):
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8)).save(photos / f"{i}.jpg")
    assert soak.main(["embed", model, "--count", "3000", "--photos", str(photos), "--folder", str(folder)]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["images"], facts["unreadable"], facts["killed"], facts["differing"]) == (3000, 50, True, 0)
