"""The architecture tables, laid out: the design's numbers, TF-slim's shapes, the options of its builders."""

from __future__ import annotations

import re

import pytest
from design import MACS

from npmobilenet.errors import GraphError, ModelNotFound
from npmobilenet.graph import Graph
from npmobilenet.zoo import SPECS
from npmobilenet.zoo.build import build, build_model
from npmobilenet.zoo.rows import Conv, ReduceTo1x1, make_divisible


def shape(graph: Graph, endpoint: str) -> tuple[int, ...]:
    return graph.tensors[graph.endpoints[endpoint]].shape[1:]


@pytest.mark.parametrize("name", MACS)
def test_macs(name: str) -> None:
    assert round(build_model(name).total_macs / 1e6, 1) == MACS[name]


def test_make_divisible() -> None:
    assert [make_divisible(v) for v in (3, 8, 11, 12, 18, 66, 67)] == [8, 8, 16, 16, 24, 64, 64]
    assert make_divisible(17.6, 1) == 18
    assert make_divisible(5, 8, 16) == 16


def test_widths_that_trap() -> None:
    small = build_model("mobilenet_v3_small_0.75_224")
    assert shape(small, "layer_4/expansion_output") == (28, 28, 88)  # 24 channels again at 0.75, times 88/24
    assert shape(small, "layer_15") == (1, 1, 1024)  # kept wide
    assert shape(build(SPECS["v3_small"], depth_multiplier=0.75, finegrain=False), "layer_15") == (1, 1, 768)
    assert shape(build_model("mobilenet_v2_1.4_224"), "layer_19") == (7, 7, 1792)
    assert shape(build_model("mobilenet_v2_0.35_224"), "layer_19") == (7, 7, 1280)
    assert shape(build_model("mobilenet_v1_0.25_128"), "Conv2d_13_pointwise") == (4, 4, 256)
    edgetpu = build_model("mobilenet_edgetpu_1.0_224")
    assert "layer_2/expansion_output" not in edgetpu.endpoints  # a lone projection
    adds = {node.output for node in edgetpu.nodes if node.op == "add"}
    assert "layer_14/output" in adds
    assert "layer_15/output" not in adds  # no residual although the shapes allow one


def test_squeeze_excite_comes_after_the_endpoint() -> None:
    graph = build_model("mobilenet_v3_large_1.0_224")
    readers = [n.op for n in graph.nodes if graph.endpoints["layer_5/depthwise_output"] in n.inputs]
    assert readers == ["mean", "mul"]
    gates = {n.attrs["activation"] for n in graph.nodes if n.name.endswith("/excite")}
    assert gates == {"hard_sigmoid_slim"}


@pytest.mark.parametrize("family", SPECS)
def test_any_size_and_class_count(family: str) -> None:
    for resolution in (33, 96, (160, 192), 225):
        graph = build(SPECS[family], resolution=resolution, num_classes=7)
        assert graph.tensors["Predictions"].shape == (1, 7)
    features = build(SPECS[family], num_classes=0)
    assert features.tensors[features.outputs[0]].shape[:3] == (1, 1, 1)
    base = build(SPECS[family], base_only=True)
    assert "Predictions" not in base.endpoints


@pytest.mark.parametrize("family", SPECS)
@pytest.mark.parametrize("stride", [8, 16])
def test_output_stride_dilates_instead(family: str, stride: int) -> None:
    last, end = "Conv2d_13_pointwise", [type(row) for row in SPECS[family].rows[-2:]]
    if end[1] is Conv:  # the row before the layers that end the network, counted from 1
        last = f"layer_{len(SPECS[family].rows) - (2 if end[0] is ReduceTo1x1 else 1)}"
    graph = build(SPECS[family], resolution=224, output_stride=stride, final_endpoint=last, base_only=True)
    assert shape(graph, last)[:2] == (224 // stride, 224 // stride)
    assert any(node.attrs.get("dilation", (1, 1)) != (1, 1) for node in graph.nodes)
    plain = build(SPECS[family], resolution=224, final_endpoint=last, base_only=True)
    assert {n: t.shape for n, t in graph.constants.items()} == {n: t.shape for n, t in plain.constants.items()}


@pytest.mark.parametrize("family", SPECS)
def test_explicit_padding_keeps_the_shapes(family: str) -> None:
    same = build(SPECS[family], base_only=True)
    explicit = build(SPECS[family], base_only=True, use_explicit_padding=True)
    assert {n: t.shape for n, t in same.tensors.items()} == {n: t.shape for n, t in explicit.tensors.items()}
    first = explicit.nodes[0].attrs["padding"]
    assert first == ((1, 1), (1, 1))
    assert same.nodes[0].attrs["padding"] == ((0, 1), (0, 1))


def test_min_depth_and_divisible_by() -> None:
    graph = build(SPECS["v2"], depth_multiplier=0.1, min_depth=16, divisible_by=4, finegrain=False)
    assert shape(graph, "layer_1") == (112, 112, 16)
    assert shape(build(SPECS["v2"], depth_multiplier=0.35, divisible_by=1, min_depth=1), "layer_1") == (112, 112, 11)
    assert shape(build(SPECS["v1"], depth_multiplier=0.1, min_depth=5), "Conv2d_0") == (112, 112, 5)


def test_detection_backbones() -> None:
    large = build(SPECS["v3_large_detection"], base_only=True, final_endpoint="layer_17", resolution=320)
    assert shape(large, "layer_14") == (10, 10, 80)
    assert shape(large, "layer_17") == (10, 10, 480)
    small = build(SPECS["v3_small_detection"], base_only=True, final_endpoint="layer_13", resolution=320)
    assert shape(small, "layer_13") == (10, 10, 288)


def test_v1_pools_as_tf_slim_does() -> None:
    assert "AvgPool_1a" in build_model("mobilenet_v1_1.0_224").endpoints
    with pytest.raises(GraphError, match="global_pool=True"):
        build(SPECS["v1"], resolution=320)
    assert "global_pool" in build(SPECS["v1"], resolution=320, global_pool=True).endpoints


def test_bad_options_are_refused() -> None:
    for options, message in (
        ({"depth_multiplier": 0}, "depth_multiplier is 0"),
        ({"depth_multiplier": float("nan")}, "depth_multiplier is nan"),
        ({"resolution": (5,)}, "resolution is (5,)"),
        ({"resolution": 224.0}, "resolution is 224.0"),
        ({"output_stride": 3}, "output_stride is 3"),
        ({"final_endpoint": "layer_99"}, "final_endpoint 'layer_99' is not one of layer_1, layer_2"),
        ({"num_classes": -1}, "num_classes at least 0"),
        ({"resolution": 0}, "dimensions of at least 1"),
    ):
        with pytest.raises(GraphError, match=re.escape(message)):
            build(SPECS["v2"], **options)  # type: ignore[arg-type]
    with pytest.raises(ModelNotFound):
        build_model("mobilenet_v9")


@pytest.mark.parametrize(("spec", "hint"), [("v2", r"expected SPECS\['v2'\]"), ("v9", "v3_small"), (["v2"], "edgetpu")])
def test_a_name_is_no_architecture(spec: object, hint: str) -> None:
    with pytest.raises(GraphError, match=rf"spec is .*{hint}.*; build_model takes names such as mobilenet_v2_1.0_224"):
        build(spec)  # type: ignore[arg-type]


# MobileNetV4: MACs in G and parameters in M, as timm's model cards print them; then what is computed.
V4 = {
    "mobilenet_v4_conv_small_1.0_224": ("0.2", "3.8", 186.0, 3774024),
    "mobilenet_v4_conv_small_0.5_224": ("", "2.2", 64.7, 2238952),
    "mobilenet_v4_conv_medium_1.0_256": ("1.1", "9.7", 1080.2, 9715512),
    "mobilenet_v4_conv_large_1.0_384": ("6.4", "32.6", 6376.2, 32590864),
}


@pytest.mark.parametrize("name", V4)
def test_v4_counts(name: str) -> None:
    macs, params, millions, exact = V4[name]
    graph = build_model(name, num_classes=1000)
    assert round(graph.total_macs / 1e6, 1) == millions
    assert graph.total_params(batch_norm=True) == exact  # as PyTorch counts timm's
    assert macs in ("", f"{graph.total_macs / 1e9:.1f}")
    assert params == f"{exact / 1e6:.1f}"


def test_v4_blocks() -> None:
    graph = build_model("mobilenet_v4_conv_small_0.35_224")
    assert shape(graph, "layer_1") == (112, 112, 32)  # kept, as is the last one
    assert shape(graph, "layer_20") == (1, 1, 1280)
    first = graph.producers["layer_6/start_depthwise_output"]
    assert (first.attrs["activation"], first.attrs["stride"]) == ("none", (1, 1))
    assert graph.producers["layer_6/depthwise_output"].attrs["stride"] == (2, 2)
    medium = build_model("mobilenet_v4_conv_medium_1.0_256")
    assert "layer_11/depthwise_output" not in medium.endpoints  # two 1x1 layers alone
    assert "layer_11/start_depthwise_output" not in medium.endpoints
    assert medium.producers["layer_11/output"].op == "add"
