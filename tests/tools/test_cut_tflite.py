"""tools/cut_tflite.py: a copy that ends at a tensor computes that tensor, bit for bit, and says what it can't do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from litert import Peer, random_inputs
from tflite_maker import File, Op, T

from npmobilenet.errors import ConversionError

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "cut_tflite.py"
if not TOOL.is_file():
    pytest.skip("not a checkout: tools/ is not installed", allow_module_level=True)
pytest.importorskip("ai_edge_litert", reason="pip install 'npmobilenet[test]'")
sys.path.insert(0, str(TOOL.parent))

import cut_tflite  # noqa: E402

SUM = ("AddOptions", {"FusedActivationFunction": 0})


def chain(name: str = "b", **file: object) -> bytes:
    """a = x + 1, b = a + 2, c = b + 4; and d = a + 8, which c doesn't need."""
    tensors = [T((1, 3), name="x")]
    tensors += [T(data=np.full((1, 3), v, np.float32), name=f"w{v}") for v in (1, 2, 4, 8)]
    tensors += [T((1, 3), name=n) for n in ("a", name, "c", "d")]
    ops = [Op("ADD", pair, [y], SUM) for pair, y in (((0, 1), 5), ((5, 2), 6), ((5, 4), 8), ((6, 3), 7))]
    return File(tensors, ops, outputs=(7, 8), **file).bytes()  # type: ignore[arg-type]


def run(content: bytes, dialect: str = "xnnpack") -> dict[int, list[float]]:
    return {i: v.ravel().tolist() for i, v in Peer(content, dialect).run(np.zeros((1, 3), np.float32)).items()}


@pytest.mark.parametrize("dialect", ["tflite-reference", "xnnpack"])
def test_the_copy_computes_the_tensor(dialect: str) -> None:
    assert run(cut_tflite.cut(chain(), "c"), dialect)[7] == [7.0] * 3
    assert run(cut_tflite.cut(chain(), "#5"), dialect) == {5: [1.0] * 3}
    assert run(cut_tflite.cut(chain(), 8, "b", "8"), "xnnpack") == {8: [9.0] * 3, 6: [3.0] * 3}


def test_only_what_is_needed_stays() -> None:
    file = cut_tflite.parse(cut_tflite.cut(chain(metadata={"notes": b"x" * 5000}), "d"))
    assert [o.outputs for o in file.operators] == [(5,), (8,)]
    assert file.outputs == (8,)
    assert len(file.tensors) == 9, "indices stay"
    held = [t.index for t in file.tensors if t.data is not None]
    assert held == [1, 4]
    assert len(cut_tflite.cut(chain(metadata={"notes": b"x" * 5000}), "d")) < 3000


def test_a_name_that_looks_like_an_index() -> None:
    assert cut_tflite.find_tensor(cut_tflite.parse(chain("5")), "5") == 6
    assert cut_tflite.find_tensor(cut_tflite.parse(chain("5")), 5) == 5


def test_what_computed_by_lists() -> None:
    file = cut_tflite.parse(chain())
    assert cut_tflite.computed_by(file) == cut_tflite.computed_by(file, "ADD") == [5, 6, 8, 7]
    assert cut_tflite.computed_by(file, "MUL") == []


@pytest.mark.parametrize(
    ("content", "tensor", "message"),
    [
        (chain(), "nothing", "no tensor is called 'nothing'"),
        (chain(), "9", "not a tensor: the last one is #8"),
        (chain(), "#0", "an input or a constant"),
        (chain(), "w4", "an input or a constant"),
        (chain("a"), "a", "all called 'a'"),
        (chain(), "²", "no tensor is called"),
        (chain(subgraphs=2), "c", "2 subgraphs"),
        (chain()[:200], "c", "damaged"),
        (b"no model at all, but long enough to be one", "c", "not a .tflite file"),
    ],
)
def test_errors_are_sentences(content: bytes, tensor: str, message: str) -> None:
    with pytest.raises(ConversionError, match=message):
        cut_tflite.cut(content, tensor)


def test_the_program(tmp_path: Path) -> None:
    source, out = tmp_path / "model.tflite", tmp_path / "cut.tflite"
    source.write_bytes(chain())
    subprocess.run([sys.executable, TOOL, source, "b", "-o", out], check=True, capture_output=True, cwd=ROOT)
    assert out.read_bytes() == cut_tflite.cut(chain(), "b")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cut.tflite", "model.tflite"]


def test_the_program_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "model.tflite"
    source.write_bytes(chain())
    for arguments, message in (
        ([source, "zz", "-o", tmp_path / "out.tflite"], "no tensor is called 'zz'"),
        ([tmp_path / "gone.tflite", "b", "-o", tmp_path / "out.tflite"], "can't be read"),
        ([source, "b", "-o", tmp_path / "no folder" / "out.tflite"], "can't be written"),
    ):
        assert cut_tflite.main([str(a) for a in arguments]) == 2
        assert message in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["model.tflite"]


def test_a_real_model(data: Path) -> None:
    """Every tenth tensor of a real file, alone and under the kernels whose inner tensors can be read."""
    path = data / "weights" / "mobilenet_v2_0_5_96_quant.tflite"
    content = path.read_bytes()
    whole = Peer(path, "tflite-optimized")
    x = random_inputs(whole.inputs, 0)
    expected = whole.run(*x)
    for index in cut_tflite.computed_by(cut_tflite.parse(content))[::10]:
        copy = Peer(cut_tflite.cut(content, index), "tflite-optimized")
        np.testing.assert_array_equal(copy.run(*x)[index], expected[index])
