"""Pictures of models: graphs for Graphviz, and what matplotlib draws."""

from __future__ import annotations

import re
import runpy
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from models import images, tiny
from test_explore import HOSTILE, renamed

from npmobilenet.cli import info
from npmobilenet.cli.app import run
from npmobilenet.graph import GraphBuilder
from npmobilenet.measure.benchmark.random_model import random_input
from npmobilenet.model import Model, load
from npmobilenet.modeldata import ModelData
from npmobilenet.views import graph_page as graph_views
from npmobilenet.views import plots, timings
from npmobilenet.views.dot import dot
from npmobilenet.views.graph_page import graph_page
from npmobilenet.views.ranges import ranges
from npmobilenet.zoo.build import build_model
from npmobilenet.zoo.checkpoints import CHECKPOINTS

ROOT = Path(__file__).parents[2]
NAME = HOSTILE + '"$x^{\n名'  # begins a formula of matplotlib's, a line, and letters that its font lacks


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


def test_hostile_names_are_drawn_as_text(tmp_path: Path) -> None:
    """No formula, no error and no warning: pytest makes one an error."""
    pytest.importorskip("matplotlib", reason="pictures are drawn with the extra [plot]")
    model = Model(renamed(tiny("reference").data, NAME), "reference")
    rows = ranges(model, [{"input": images(1)}])
    for picture in (plots.memory(model.plan(), NAME), plots.ranges(rows, NAME, 1)):
        root = ET.fromstring(picture.decode())
        assert any("$x^{" in "".join(text.itertext()) for text in root.iter("{http://www.w3.org/2000/svg}text"))


@pytest.mark.parametrize("model", ["flowers", "flowers_uint8"])
def test_ranges_of_weights_and_outputs(model: str, tmp_path: Path) -> None:
    """Every layer with weights; what a relu6 gives lies in 0 ... 6, and within what its 8 bits hold."""
    pytest.importorskip("matplotlib", reason="pictures are drawn with the extra [plot]")
    engine = load(model)
    rows = ranges(engine, [{engine.input.name: random_input(engine.input.shape, engine.input.dtype)}])
    with_weights = [n for n in engine.graph.nodes if n.op in ("conv2d", "depthwise_conv2d", "fully_connected")]
    assert len(rows) == len(with_weights)
    assert all(-1e-6 <= row.found[0] <= row.found[1] <= 6.01 for row in rows if "expansion" in row.name)
    assert all((row.holds is None) == (model == "flowers") for row in rows)
    assert all(row.holds[0] <= row.found[0] <= row.found[1] <= row.holds[1] for row in rows if row.holds)
    assert len(rows[0].weights) == 16
    target = tmp_path / "ranges.svg"
    assert run(["plot", "ranges", model, "random:1", "random:2", "-o", str(target)]) == 0
    text = target.read_text(encoding="utf-8")
    ET.fromstring(text)
    assert ("what 8 bits hold" in text) == (model == "flowers_uint8")
    for part in ("2 images", "real value of weights", "layer_2/depthwise_output", "the middle half"):
        assert part in text


def test_ranges_of_zeros_and_infinities() -> None:
    """Channels of zeros are left out of the picture, values that aren't finite out of the numbers."""
    pytest.importorskip("matplotlib", reason="pictures are drawn with the extra [plot]")
    data = tiny("reference").data
    arrays = {name: array.copy() for name, array in data.tensors.items()}
    first, second = [node.inputs[1] for node in data.graph.nodes if node.op == "conv2d"][:2]
    arrays[first][..., 0], arrays[second][:] = np.inf, 0
    model = Model(ModelData(data.graph, arrays, data.info), "reference")
    rows = ranges(model, [{"input": images(1)}])
    assert all(np.isfinite([*row.weights, *row.found]).all() for row in rows)
    assert b"real value" in plots.ranges(rows, "zeros", 1)


def test_every_picture_of_the_docs_is_remade_by_a_command() -> None:
    tool = runpy.run_path(str(ROOT / "tools" / "make_pictures.py"))
    known = {*tool["COMMANDS"], *tool["SCREENSHOTS"], *tool["OTHERS"]}
    there = {p.name for p in (ROOT / "docs").iterdir() if p.suffix in (".svg", ".png")}
    assert there == known
    pages = "".join(p.read_text(encoding="utf-8") for p in [*(ROOT / "docs").glob("*.md"), ROOT / "README.md"])
    assert not [name for name in there if name not in pages]
    for name in (name for name in there if name.endswith(".svg")):
        ET.fromstring((ROOT / "docs" / name).read_text(encoding="utf-8"))


# -- info --html -------------------------------------------------------------------------------------------------------


class _Page(HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not {"src", "href", "onerror"} & {name for name, _ in attrs}
        if tag not in ("meta", "path", "circle"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("path", "circle"):
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_graph_as_a_page(capsys: pytest.CaptureFixture[str]) -> None:
    """A row for each value that is computed, a line for each that is read, the cost; the shares make up the whole."""
    assert run(["info", "mobilenet_v3_small_1.0_224", "--html"]) == 0
    text = capsys.readouterr().out
    assert text.isascii()
    graph = build_model("mobilenet_v3_small_1.0_224")
    found = _Page(text)
    assert not found.open
    assert found.tags.count("tr") == len(graph.nodes) + 2
    edges = {(n, node.output) for node in graph.nodes for n in node.inputs if not graph.tensors[n].constant}
    assert found.tags.count("path") == len(edges)
    assert {"script", "img", "link", "iframe"}.isdisjoint(found.tags)
    words = " ".join(found.words)
    for part in ("float32 112x112x16", "conv2d 3x3 stride 2x2 hard_swish", "5.419", "published at"):
        assert part in words
    shares = [float(share) for share in re.findall(r"([\d.]+)%", words)]
    assert abs(sum(shares) - 200) < 0.05 * len(shares)


def test_hostile_names_stay_text_in_the_page() -> None:
    graph = renamed(tiny("reference").data, NAME).graph
    layers = [info._layer(graph, node) for node in graph.nodes]
    text = graph_page(graph, layers, [("name", NAME)])
    assert text.isascii()
    assert not {"script", "img"} & set(_Page(text).tags)


def test_a_branchy_graph_stays_narrow() -> None:
    """More lines side by side than there are lanes share the last one."""
    builder = GraphBuilder("branches")
    value = builder.input("input", (1, 4, 4, 2))
    seen = [builder.node("activation", [value], f"a{i}", function="relu") for i in range(30)]
    total = seen[-1]
    for i, name in enumerate(seen[:-1]):
        total = builder.node("add", [total, name], f"s{i}", activation="none")
    graph = builder.finish([total])
    text = graph_page(graph, [info._layer(graph, node) for node in graph.nodes], [])
    assert re.search(r'<svg width="(\d+)"', text)[1] == str((graph_views.MOST_LANES + 2) * graph_views.LANE)  # type: ignore[index]


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
    assert run(["plot", verb, "-o", str(target), *size, "--turn", "0", "--rounds", "1"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith(("v", "e"))]
    assert len(rows) == 2 * 3
    assert all(float(row[-1]) > 0 for row in rows)
    text = target.read_text(encoding="utf-8")
    ET.fromstring(text)
    for part in ("ms for one image", f"One image, {dtype}, 1 thread", *(row[0] for row in rows)):
        assert part in text


def test_colours_are_told_apart() -> None:
    """As many colours and marks as the picture with the most families has, none twice."""
    most = max(len(timings.FLOATS), len(timings.EIGHT_BIT), len({c.family for c in CHECKPOINTS}))
    assert len(set(plots.COLOURS)) >= most
    assert len(set(plots.MARKS)) >= most
