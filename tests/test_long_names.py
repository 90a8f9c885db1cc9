"""Tensor names as people read them: at most 60 characters, the last ones; of a list the first."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import npmobilenet as nm
from npmobilenet.cli import main
from npmobilenet.errors import ConversionError, InputError, short_name

pytest.importorskip("tflite", reason="the extra [convert] is not installed")

FAR = "mobilenet_of_a_long_name/" * 5
LIST = f"{FAR}block_1/Relu6;{FAR}block_1/BatchNorm;{FAR}block_1/Conv2D"
PLAIN = f"{FAR}block_2/Softmax"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    from tflite_maker import File, Op, T

    file = File(
        [T((1, 4), name="x"), T((1, 4), name=LIST), T((1, 4), name=PLAIN)],
        [Op("LOGISTIC", [0], [1]), Op("SOFTMAX", [1], [2], ("SoftmaxOptions", {"Beta": 1.0}))], outputs=[2],
    )  # fmt: skip
    (tmp_path / "m.tflite").write_bytes(file.bytes())
    return tmp_path / "m.tflite"


def test_short_name() -> None:
    assert short_name("a" * 60) == "a" * 60
    assert short_name("a" * 61) == "..." + "a" * 57
    assert short_name("a;b;c") == "a;b;c"
    assert short_name(LIST) == f"...{FAR}block_1/Relu6"[:3] + f"{FAR}block_1/Relu6"[-57:]
    assert short_name("conv/Relu6;" + "b" * 60) == "conv/Relu6"
    assert short_name(";" * 100) == "..." + ";" * 57
    assert all(len(short_name(name)) <= 60 for name in (LIST, PLAIN, ";;" + LIST, "é" * 100))


def test_messages_shorten_names_and_keep_paths() -> None:
    path = "/home/someone/" + "deep/" * 20 + "model"
    relative, digest = "deep/" * 20 + "model.tflite", "0123456789abcdef" * 4
    text = str(InputError(f"'{path}': tensor '{PLAIN}' of '{relative}', sum '{digest}', list '{LIST}'"))
    assert all(f"'{kept}'" in text for kept in (path, relative, digest, short_name(PLAIN), short_name(LIST)))
    assert PLAIN not in text


def test_names_are_short_where_people_read_them(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["info", str(model), "--layers"]) == 0
    assert main(["golden", "record", str(model), "random:0", "-o", str(tmp_path / "a")]) == 0
    assert main(["golden", "record", str(model), "random:1", "-o", str(tmp_path / "b")]) == 0
    assert main(["golden", "diff", str(tmp_path / "a"), str(tmp_path / "b")]) == 1
    assert main(["golden", "explain", str(model), "random:0", "--tensor", short_name(LIST), "--index", "0,1"]) == 0
    assert main(["golden", "identify", str(model), str(tmp_path / "a"), "--all"]) in (0, 1)
    text = capsys.readouterr().out
    assert "block_1" in text
    assert LIST not in text
    assert PLAIN not in text
    assert main(["golden", "diff", str(tmp_path / "a"), str(tmp_path / "b"), "--json"]) == 1
    names = [row["name"] for row in json.loads(capsys.readouterr().out)["tensors"]]
    assert {LIST, PLAIN} <= set(names), "JSON has them whole"
    assert main(["info", str(model), "--layers", "--json"]) == 0
    assert LIST in capsys.readouterr().out


def test_a_shown_name_can_be_given_back(model: Path) -> None:
    loaded = nm.load(model)
    x = np.zeros((1, 4), np.float32)
    _, taps = loaded.run(x, taps=short_name(LIST))
    assert list(taps) == [LIST]
    with pytest.raises(nm.PlanError, match=r"did you mean one of \.\.\.") as caught:
        loaded.run(x, taps=FAR + "block_1/Relu7")
    assert LIST not in str(caught.value)


def test_refusals_are_short(tmp_path: Path) -> None:
    from tflite_maker import File, Op, T

    file = File([T((1, 4)), T((1, 4), name=LIST), T((2, 4), name=PLAIN)], [Op("ADD", [0, 1], [2])], outputs=[2])
    (tmp_path / "m.tflite").write_bytes(file.bytes())
    with pytest.raises(ConversionError) as caught:
        nm.load(tmp_path / "m.tflite")
    assert short_name(LIST) in str(caught.value)
    assert FAR not in str(caught.value)
