"""tools/litert_arm.py: LiteRT's own arm64 kernels, on emulated CPUs, and what the tool says where it can't run them.

The shipped 8-bit model is what CI runs there. The first test sets up some 120 MB; where no mirror or package index can
be reached, these tests skip.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tflite_export import to_tflite

import npmobilenet as nm

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "litert_arm.py"
if not TOOL.is_file():
    pytest.skip("this platform has no checkout: tools/ is not installed", allow_module_level=True)
sys.path.insert(0, str(TOOL.parent))

import litert_arm  # noqa: E402

SMALL = "cortex-a53"  # the kernels of this and its kin are others than those of all other CPUs


@pytest.fixture(scope="module")
def arms() -> Iterator[dict[str, litert_arm.ArmLiteRT]]:
    """LiteRT on two kinds of CPU."""
    try:
        with litert_arm.ArmLiteRT(SMALL) as small, litert_arm.ArmLiteRT("neoverse-n1") as large:
            yield {SMALL: small, "neoverse-n1": large}
    except litert_arm.ArmError as error:
        pytest.skip(f"this platform has no LiteRT for arm64: {error}")


@pytest.fixture(scope="module")
def flowers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped 8-bit model as a .tflite file."""
    path = tmp_path_factory.mktemp("arm") / "flowers_uint8.tflite"
    path.write_bytes(to_tflite(nm.load("flowers_uint8").data)[0])
    return path


def picture(model: nm.Model) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, model.input.shape, np.uint8)


@pytest.mark.equal("the shipped 8-bit model", "fast", "LiteRT 2.3.0 for arm64 on two emulated CPUs", "bits")
def test_the_reference_kernels_are_the_same_everywhere(arms: dict[str, litert_arm.ArmLiteRT], flowers: Path) -> None:
    model = nm.load(flowers)
    x = picture(model)
    for arm in arms.values():
        rows = litert_arm.compare(model, x, arm.run(flowers, {0: x}, "reference"))
        assert len(rows) == len(model.graph.nodes)
        assert not [row for row in rows if row[2]]


def test_what_litert_refuses_is_said(arms: dict[str, litert_arm.ArmLiteRT]) -> None:
    """And the same process goes on."""
    with pytest.raises(litert_arm.ArmError, match="LiteRT on cortex-a53: ValueError"):
        arms[SMALL].run(b"no model", {}, "reference")


def test_an_unknown_cpu_is_said(arms: dict[str, litert_arm.ArmLiteRT]) -> None:
    with litert_arm.ArmLiteRT("cortex-z99") as arm, pytest.raises(litert_arm.ArmError, match=r"ended.*cortex-z99"):
        arm.run(b"", {}, "reference")


# -- without a network -------------------------------------------------------------------------------------------------


def test_without_apt_it_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], flowers: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert litert_arm.main([str(flowers), "--cache", str(tmp_path / "new")]) == 2
    assert "this machine has no 'apt-get'" in capsys.readouterr().err
    assert not list((tmp_path / "new").iterdir())


def test_a_mirror_is_taken_from_apt(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "http://x.test/debian-security/ sid-security main\nhttp://x.test/debian/ sid main\n"
    monkeypatch.setattr(litert_arm, "_call", lambda *_, **__: lines)
    assert litert_arm._mirror() == "http://x.test/debian/"
    monkeypatch.setattr(litert_arm, "_call", lambda *_, **__: "http://x.test/other sid main\n")
    with pytest.raises(litert_arm.ArmError, match="name no Debian archive"):
        litert_arm._mirror()


def test_a_version_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(litert_arm, "WHEELS", ("npmobilenet-nothing",))
    with pytest.raises(litert_arm.ArmError, match="npmobilenet-nothing isn't installed"):
        litert_arm.set_up(tmp_path)


def test_a_program_that_fails_or_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(litert_arm.ArmError, match=r"failed \(3\): no such thing"):
        litert_arm._call(sys.executable, "-c", "import sys; print('no such thing', file=sys.stderr); sys.exit(3)")
    monkeypatch.setattr(litert_arm, "SECONDS", 0.2)
    with pytest.raises(litert_arm.ArmError, match=r"more than 0.2 s"):
        litert_arm._call(sys.executable, "-c", "import time; time.sleep(9)")
