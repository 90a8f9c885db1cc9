"""Pictures of models: graphs for Graphviz, and what matplotlib draws."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from models import tiny
from test_explore import HOSTILE, renamed

from npmobilenet.cli.app import run
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
