"""What is said in few words of many tensors: exceptions of one op told together, and the headline of the report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("click", reason="the command line needs the extra [cli]")

from test_golden_tools_integer import other_weights, small

import npmobilenet as nm
from npmobilenet import golden
from npmobilenet.cli import golden_identify
from npmobilenet.golden.dump import Entry
from npmobilenet.golden.identifying import Identification, Row

DIALECTS = ("tflite-reference", "xnnpack", "cmsis-nn")


def row(name: str, op: str, *wrong: int) -> Row:
    return Row(Entry(name, (1, 2), "int8", op), 10, dict(zip(DIALECTS, wrong, strict=True)))


def found(*rows: Row) -> Identification:
    return Identification("model", "dump", list(rows), [])


LAYERS = [row(f"conv_{i}", "conv2d", 0, 3, 1) for i in range(6)]


def test_all_layers_of_an_op_that_follow_another_dialect() -> None:
    """The one where both agree is counted with them, and what two of them follow besides isn't said."""
    odd = [row("dw_0", "depthwise_conv2d", 2, 0, 0), row("dw_1", "depthwise_conv2d", 1, 0, 4),
           row("dw_2", "depthwise_conv2d", 0, 0, 0), row("dw_3", "depthwise_conv2d", 5, 0, 1)]  # fmt: skip
    said = found(*LAYERS, *odd)
    assert said.verdict == (
        "follows tflite-reference in 7 of 10 tensors, but not in all 4 depthwise_conv2d: it is xnnpack there"
    )
    assert [(g.label, g.fits) for g in said.groups] == [("all 4 depthwise_conv2d", ("xnnpack",))]
    assert [row.name for row in said.exceptions] == ["dw_0", "dw_1", "dw_3"]
    assert said.to_dict()["groups"][0]["tensors"] == [row.name for row in odd]


def test_some_layers_and_single_ones(capsys: pytest.CaptureFixture[str]) -> None:
    """What follows nothing is told by itself, as are fewer than three."""
    some = [row(f"dw_{i}", "depthwise_conv2d", 2, 0, 1) for i in range(3)]
    rest = [row("dw_8", "depthwise_conv2d", 0, 1, 1), row("dw_9", "depthwise_conv2d", 7, 8, 9)]
    pair = [row(f"sum_{i}", "add", 1, 0, 1) for i in range(2)]
    said = found(*LAYERS, *some, *rest, *pair)
    assert [g.label for g in said.groups] == ["3 of 5 depthwise_conv2d", "dw_9", "sum_0", "sum_1"]
    golden_identify._print(said, everything=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:5] == ["3", "of", "5", "depthwise_conv2d", "depthwise_conv2d"]
    assert any("told together" in line for line in lines)
    assert all(len(line) <= 100 for line in lines[:6])
    golden_identify._print(said, everything=True)
    assert "told together" not in capsys.readouterr().out


def test_the_headline_of_a_report_has_the_cause(tmp_path: Path) -> None:
    data = small("int8")
    taps = ["conv", "dw", "sum"]
    right = golden.record(nm.Model(data), "random:1", tmp_path / "right", taps=taps)

    def change(array: object) -> None:
        array[1, 1, 7] ^= 64  # type: ignore[index]

    wrong = golden.record(nm.Model(other_weights(data, "dw/w", change)), "random:1", tmp_path / "wrong", taps=taps)
    golden.write_report(golden.diff(right, wrong, model=data), tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<h1>dw: bit 6 of its weight (ky 1, kx 1, co 7) flipped" in text
    golden.write_report(golden.diff(right, wrong), tmp_path / "r.html")
    assert "<h1>first diverging: dw" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_channels_that_hold_one_value_are_no_moved_sums(tmp_path: Path) -> None:
    """Each alone could come of a large amount added; as a cause that is never offered for channels that were lost."""
    right = golden.record(nm.Model(small("int8")), "random:1", tmp_path / "right", taps=["conv"])
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    np.save(wrong / "input.npy", right["input"])
    values = right["conv"].copy()
    values[..., ::2] = values.min()
    np.save(wrong / "conv.npy", values)
    cause = golden.diff(right, wrong, model=small("int8")).cause
    assert cause is not None
    assert "amount of its own" not in cause.text
