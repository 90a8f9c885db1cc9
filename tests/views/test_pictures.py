"""Pictures of models: graphs for Graphviz, and what matplotlib draws."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from models import tiny
from test_explore import HOSTILE, renamed

from npmobilenet.cli.app import run
from npmobilenet.views import plots, timings
from npmobilenet.views.dot import dot
from npmobilenet.zoo.checkpoints import CHECKPOINTS

ROOT = Path(__file__).parents[2]


def test_graph_for_graphviz(capsys: pytest.CaptureFixture[str]) -> None:
    """A node for each value that is computed, an edge for each that is read."""
    graph = tiny("reference").graph
    text = dot(graph)
    assert len(re.findall(r"^  t\d+ \[", text, re.MULTILINE)) == len(graph.nodes) + 1
    edges = sum(len({n for n in node.inputs if not graph.tensors[n].constant}) for node in graph.nodes)
    assert text.count(" -> ") == edges
    assert run(["info", "mobilenet_v2_0.35_96", "--dot"]) == 0
    assert capsys.readouterr().out.startswith('digraph "mobilenet_v2_0.35_96" {')


def test_hostile_names_stay_in_their_quotes() -> None:
    evil = renamed(tiny("reference").data, HOSTILE + '"];\n x -> y; \\').graph
    for line in dot(evil).splitlines():
        assert len(re.findall(r'(?<!\\)(?:\\\\)*"', line)) % 2 == 0, line
    assert "\n x -> y" not in dot(evil)


def test_published_models(tmp_path: Path) -> None:
    """Every family with an accuracy, as text in the picture; the same bytes each time."""
    pytest.importorskip("matplotlib", reason="pictures are drawn with the extra [plot]")
    target = tmp_path / "zoo.svg"
    assert run(["plot", "zoo", "-o", str(target)]) == 0
    text = target.read_text(encoding="utf-8")
    ET.fromstring(text)
    for family in {c.family for c in CHECKPOINTS if c.top1}:
        assert f">{family}</text>" in text
        assert f">{family}</text>" in (ROOT / "docs" / "zoo.svg").read_text(encoding="utf-8")
    assert "millions" in text


def test_memory_over_time(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pictures are drawn with the extra [plot]")
    target = tmp_path / "memory.svg"
    assert run(["plot", "memory", "flowers", "-o", str(target)]) == 0
    first = target.read_bytes()
    assert b"KiB of intermediate values" in first
    assert run(["plot", "memory", "flowers", "-o", str(target)]) == 0
    assert target.read_bytes() == first
    plan = tiny("reference").plan()
    values = list(plan.placed.values())
    for i, (at, life) in enumerate(values):
        for other_at, other in values[:i]:
            apart = at + life.size <= other_at or other_at + other.size <= at
            assert apart or life.last < other.first or other.last < life.first


def test_which_sizes_are_timed() -> None:
    """All widths at the largest resolution, all resolutions at width 1, none twice."""
    found = timings.sizes((0.5, 1.0, 1.4), (224, 96))
    assert found == [(0.5, 224), (1.0, 96), (1.0, 224), (1.4, 224)]
    assert timings.sizes((0.35, 0.5), (64, 32)) == [(0.35, 64), (0.5, 32), (0.5, 64)]


@pytest.mark.parametrize(
    ("verb", "families", "dtype"), [("latency", "FLOATS", "float32"), ("edgetpu", "EIGHT_BIT", "int8")]
)
def test_times_on_this_machine(
    verb: str, families: str, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Small networks of two families, a turn each: numbers for all, and a picture that names them with units."""
    pytest.importorskip("matplotlib", reason="pictures are drawn with the extra [plot]")
    monkeypatch.setattr(timings, families, getattr(timings, families)[:2])
    target = tmp_path / "times.svg"
    size = ["--width", "0.35", "--width", "0.5", "--resolution", "32", "--resolution", "64"]
    assert run(["plot", verb, "-o", str(target), *size, "--seconds", "0", "--rounds", "1", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["dtype"] == dtype
    assert len(document["networks"]) == 2 * 3
    assert all(row["ms"] > 0 for row in document["networks"])
    text = target.read_text(encoding="utf-8")
    ET.fromstring(text)
    for part in ("ms for one image", f"One image, {dtype}, 1 thread", *(row["family"] for row in document["networks"])):
        assert part in text


def test_colours_are_told_apart() -> None:
    """As many colours and marks as the picture with the most families has, none twice."""
    most = max(len(timings.FLOATS), len(timings.EIGHT_BIT), len({c.family for c in CHECKPOINTS}))
    assert len(set(plots.COLOURS)) >= most
    assert len(set(plots.MARKS)) >= most
