"""Tables of layers: within 100 columns in a pipe, names that still tell, what was left out; the compiling notice."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

pytest.importorskip("click", reason="the command line needs the extra [cli]")

from npmobilenet.cli.golden_record import short_names
from npmobilenet.cli.output import NARROW, Column, compile_notice, print_table
from npmobilenet.golden.dump import Entry
from npmobilenet.kernels.compiler import notices

COLUMNS = [Column("#", rank=1), Column("tensor"), Column("op", rank=2), Column("count", right=True),
           Column("histogram", rank=4)]  # fmt: skip


def table(capsys: pytest.CaptureFixture[str], name: str, histogram: str = "") -> list[str]:
    print_table(COLUMNS, [("#1", name, "conv2d", 3, histogram), ("#2", "b", "mean", 12, "")], narrow=True)
    return capsys.readouterr().out.splitlines()


def test_what_fits_stays(capsys: pytest.CaptureFixture[str]) -> None:
    lines = table(capsys, "a/Relu6", "+1: 3")
    assert lines[1].split("  ")[0] == "#1"
    assert lines[1].endswith("+1: 3")
    assert len(lines) == 3


def test_columns_go_first_and_then_the_middle_of_names(capsys: pytest.CaptureFixture[str]) -> None:
    lines = table(capsys, "a/Relu6", "x" * 100)
    assert max(map(len, lines)) <= NARROW
    assert lines[-1] == "left out for want of room: histogram (in --json)"
    lines = table(capsys, "block_13_expand_relu/" + "x" * 200 + "/FusedBatchNormV3")
    assert max(map(len, lines)) <= NARROW
    assert "block_13_expand_relu/" in lines[1]
    assert "../FusedBatchNormV3".removeprefix("..") in lines[1]


def test_names_lose_what_all_have(capsys: pytest.CaptureFixture[str]) -> None:
    make: Callable[[str, str], Entry] = lambda name, source: Entry(name, (1, 4), "int8", source=source)  # noqa: E731
    entries = [make("acc:A/B/one", "acc:#1"), make("A/B/two", "#12"), make("A/Bc", "")]
    assert short_names(entries) == ("A/", [("#1", "acc:B/one"), ("#12", "B/two"), ("", "Bc")])


@pytest.mark.parametrize(("kind", "moving"), [("xterm", True), ("dumb", False)])
def test_a_terminal_without_a_cursor_gets_no_moving_status(
    kind: str, moving: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There, as in a notebook's cell, the kernels' own listener says one plain line."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.delenv("NPMOBILENET_QUIET", raising=False)
    monkeypatch.setenv("TERM", kind)
    before = len(notices._listeners)
    with compile_notice():
        assert (len(notices._listeners) > before) == moving
