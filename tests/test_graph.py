"""Graphs: what is refused, and that JSON gives back the same graph."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
from typing import Any

import pytest

from npmobilenet.errors import GraphError
from npmobilenet.graph import Graph, GraphBuilder, Node, Tensor, same_padding
from npmobilenet.zoo import SPECS
from npmobilenet.zoo.build import build


def small() -> GraphBuilder:
    builder = GraphBuilder("small")
    builder.input("x", (1, 8, 8, 3))
    builder.constant("w", (3, 3, 3, 4))
    builder.constant("b", (4,))
    return builder


def conv(builder: GraphBuilder, output: str = "y", **attrs: Any) -> str:
    return builder.node("conv2d", ["x", "w", "b"], output,
                        **{"stride": (2, 2), "padding": ((0, 1), (0, 1)), **attrs})  # fmt: skip


def test_shapes_macs_and_params() -> None:
    builder = small()
    graph = builder.finish([conv(builder)])
    assert graph.tensors["y"].shape == (1, 4, 4, 4)
    assert graph.total_macs == 16 * 9 * 3 * 4
    assert graph.total_params() == 108 + 4


def test_same_padding_is_tensorflows() -> None:
    assert same_padding(224, 3, 2) == (0, 1)
    assert same_padding(225, 3, 2) == (1, 1)
    assert same_padding(7, 5, 1) == (2, 2)
    assert same_padding(28, 3, 1, dilation=2) == (2, 2)
    assert same_padding(4, 1, 2) == (0, 0)


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("stride of floats", {"stride": (2.0, 2.0)}, "stride: two whole numbers"),
    ("stride 0", {"stride": (0, 1)}, "stride: two whole numbers"),
    ("negative padding", {"padding": ((-1, 0), (0, 0))}, "padding"),
    ("unknown activation", {"activation": "swishy"}, "activation: one of none, relu"),
    ("unknown attribute", {"groups": 2}, "unknown groups"),
    ("window too large", {"padding": ((0, 0), (0, 0)), "dilation": (4, 4)}, "a window of"),
]


@pytest.mark.parametrize(("attrs", "message"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_bad_attributes_are_refused(attrs: dict[str, Any], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        conv(small(), **attrs)


def test_names_must_be_unique_and_known() -> None:
    builder = small()
    conv(builder)
    with pytest.raises(GraphError, match="two tensors are called 'y'"):
        conv(builder)
    with pytest.raises(GraphError, match="reads 'nothing', which doesn't exist yet"):
        builder.node("add", ["y", "nothing"], "z")
    with pytest.raises(GraphError, match="unknown op 'frobnicate'"):
        builder.node("frobnicate", ["y"], "z")
    with pytest.raises(GraphError, match="output names the tensor 'z', which nothing computes"):
        builder.finish(["z"])
    builder.constant("idle", (3,))
    with pytest.raises(GraphError, match="no node computes or uses: idle"):
        builder.finish(["y"])


def test_order_and_double_writes_are_checked() -> None:
    builder = small()
    graph = builder.finish([builder.node("activation", [conv(builder)], "z", function="relu")])
    with pytest.raises(GraphError, match="reads 'y', which nothing before it computes"):
        dataclasses.replace(graph, nodes=graph.nodes[::-1])
    twice = (*graph.nodes, dataclasses.replace(graph.nodes[1], name="again"))
    with pytest.raises(GraphError, match="its output 'z' is written twice"):
        dataclasses.replace(graph, nodes=twice)
    wrong = dict(graph.tensors) | {"z": Tensor("z", (1, 4, 4, 5))}
    with pytest.raises(GraphError, match=r"expected an output of shape \(1, 4, 4, 4\)"):
        dataclasses.replace(graph, tensors=wrong)


def test_weights_must_be_constants() -> None:
    builder = GraphBuilder("g")
    builder.input("x", (1, 4))
    builder.input("w", (1, 4))
    builder.constant("b", (4,))
    with pytest.raises(GraphError, match="expected constant weights and bias"):
        builder.node("fully_connected", ["x", "w", "b"], "y")


def test_constants_stand_only_where_images_meet_them() -> None:
    """A constant has no batch: only add, sub and mul take one, beside a computed operand."""

    def builder() -> GraphBuilder:
        found = GraphBuilder("g")
        found.input("x", (1, 4, 4, 2))
        found.constant("c", (1, 4, 4, 2))
        return found

    assert builder().node("mul", ["c", "x"], "y") == "y"
    for op, inputs, attrs in (
        ("activation", ["c"], {"function": "relu"}),
        ("concat", ["x", "c"], {"axis": 3}),
        ("reshape", ["c"], {"shape": (1, 32)}),
        ("mean", ["c"], {"keepdims": True}),
        ("add", ["c", "c"], {}),
    ):
        with pytest.raises(GraphError, match="computed operand"):
            builder().node(op, inputs, "y", **attrs)
    made = builder()
    made.node("mul", ["c", "x"], "y")
    with pytest.raises(GraphError, match="names the tensor 'c'"):
        made.finish(["c"])
    made.endpoints["e"] = "c"
    with pytest.raises(GraphError, match="names the tensor 'c'"):
        made.finish(["y"])
    flat = GraphBuilder("g")
    flat.input("x", (1,))
    with pytest.raises(GraphError, match="rank 2 or more"):
        flat.node("softmax", ["x"], "y", beta=1.0)
    deep = GraphBuilder("g")
    deep.input("x", (1, 2, 2, 2, 2))
    with pytest.raises(GraphError, match="rank 4 at most"):
        deep.node("add", ["x", "x"], "y")


@pytest.mark.parametrize("rank", [9, 70])
def test_ranks_are_bounded(rank: int) -> None:
    """NumPy has 64 dimensions at most, and 8 are more than any model needs."""
    with pytest.raises(GraphError, match=f"'x': {rank} dimensions, expected at most 8"):
        GraphBuilder("g").input("x", (1,) * rank)
    with pytest.raises(GraphError, match=f"'w': {rank} dimensions, expected at most 8"):
        GraphBuilder("g").constant("w", (1,) * rank)
    builder = GraphBuilder("g")
    with pytest.raises(GraphError, match="shape: 1 to 8 whole numbers"):
        builder.node("reshape", [builder.input("x", (1, 1))], "y", shape=(1,) * rank)


@pytest.mark.parametrize(
    ("rows", "size"), [(1, (1 << 24, 1)), (1, (1, 65537)), (65537, (1, 1))], ids=["height", "width", "input"]
)
def test_images_to_resize_are_bounded(rows: int, size: tuple[int, int]) -> None:
    """What a node declares, planning makes a table of, a file of 500 bytes may declare anything."""
    builder = GraphBuilder("g")
    x = builder.input("x", (1, rows, 1, 1))
    with pytest.raises(GraphError, match="65536"):
        builder.node("resize_bilinear", [x], "y", size=size, align_corners=False, half_pixel_centers=False)


def test_graphs_can_be_copied() -> None:
    builder = small()
    graph = builder.finish([conv(builder)])
    assert copy.deepcopy(graph) == graph == pickle.loads(pickle.dumps(graph))


def test_attributes_cannot_be_changed() -> None:
    node = Node("n", "softmax", ("x",), "y", {"beta": 1.0})
    with pytest.raises(TypeError):
        node.attrs["beta"] = 2.0  # type: ignore[index]


@pytest.mark.parametrize("family", SPECS)
def test_json_round_trip(family: str) -> None:
    graph = build(SPECS[family], resolution=96)
    again = Graph.from_json(graph.to_json())
    assert again == graph
    assert again.to_json() == graph.to_json()


def test_open_shapes_are_a_fact_of_the_import() -> None:
    """No attribute of the op; and files that had it there still load."""
    builder = small()
    graph = builder.finish([conv(builder)])
    assert "open_shapes" not in graph.to_json()
    data = json.loads(graph.to_json())
    data["nodes"][0]["attrs"]["delegated"] = False
    old = Graph.from_json(json.dumps(data))
    assert old.nodes[0].open_shapes
    assert old.nodes[0].attrs == graph.nodes[0].attrs
    assert old == Graph.from_json(old.to_json()) == copy.deepcopy(old) != graph
    data["nodes"][0]["attrs"]["delegated"] = True
    assert Graph.from_json(json.dumps(data)) == graph


def test_hostile_json_is_refused() -> None:
    builder = small()
    text = builder.finish([conv(builder)]).to_json()
    for change in (
        lambda d: d["nodes"][0].update(op=["conv2d"]),
        lambda d: d["nodes"][0]["attrs"].update(stride=[1.5, 2]),
        lambda d: d["nodes"][0]["attrs"].update(stride={"a": 1}),
        lambda d: d["tensors"][0].update(shape=[1, 8, 8, True]),
        lambda d: d["tensors"][0].update(shape=[1, 8, 8, 2**70]),
        lambda d: d["tensors"].append(d["tensors"][0]),
        lambda d: d.pop("nodes"),
        lambda d: d.update(inputs="x"),
        lambda d: d.update(endpoints={"a": "gone"}),
    ):
        data = json.loads(text)
        change(data)
        with pytest.raises(GraphError):
            Graph.from_json(json.dumps(data))
    for junk in ("", "[", "null", "[" * 100_000, '{"name": 1}'):
        with pytest.raises(GraphError):
            Graph.from_json(junk)
