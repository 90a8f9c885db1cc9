"""Exported models in the programs that they are for: LiteRT, bit for bit in 8 bits, and ONNX Runtime."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tflite", reason="the extra [convert] is not installed")
pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed (extra [test])")

from click.testing import CliRunner
from litert import Peer, differing, random_inputs
from models import images, random_weights, tiny

import npmobilenet as nm
from npmobilenet.cli.app import app
from npmobilenet.errors import ConversionError
from npmobilenet.formats.exporting import write_model
from npmobilenet.formats.model_path import load_data
from npmobilenet.formats.tflite.exporting import RULES
from npmobilenet.formats.tflite.flatbuffer import parse
from npmobilenet.formats.tflite.metadata import METADATA, OWN, input_normalization, labels
from npmobilenet.graph import Graph, GraphBuilder
from npmobilenet.model import Model, load
from npmobilenet.modeldata import ModelData, ModelInfo
from npmobilenet.quantize import calibrate, quantize
from npmobilenet.runtime.examples import examples, random_arrays

FLOATS = ("flowers", "v3_small", "v3_large_minimalistic", "v4")
INTEGERS = ("flowers_uint8", "v2 int8", "v3_small uint8")
CLOSE = 1e-5  # of the largest value: sums of a few hundred terms in another order


def model_of(name: str) -> ModelData:
    if name.startswith("flowers"):
        return load_data(name)
    family, _, scheme = name.partition(" ")
    data = tiny(family={"v4": "v4_conv_small"}.get(family, family)).data
    return quantize(data, calibrate(data, images(4)).ranges, scheme) if scheme else data


def tapped(path: Path, x: np.ndarray) -> dict[str, np.ndarray]:
    """What the exported file's own tensors hold, by '#index'."""
    model = load(path)
    names = [f"#{i}" for i in range(10_000) if f"#{i}" in model.graph.endpoints]
    return dict(zip(names, model.run(x, taps=names)[1].values(), strict=True))


@pytest.mark.parametrize("name", INTEGERS)
def test_integers_in_litert(name: str, tmp_path: Path) -> None:
    """Every tensor, bit for bit, and those of the model that was exported."""
    data = model_of(name)
    write_model(path := tmp_path / "m.tflite", data)
    peer = Peer(path, "tflite-reference")
    x = random_inputs(peer.inputs, 1)
    theirs = peer.run(*x)
    assert not differing(tapped(path, x[0]), theirs)
    assert len(theirs) >= len(data.graph.nodes)
    ours = Model(data).run(x[0], taps=list(data.graph.tensors.keys() - data.tensors.keys() - {*data.graph.inputs}))[1]
    by_name = {d["name"]: theirs[d["index"]] for d in peer.interpreter.get_tensor_details() if d["index"] in theirs}
    for tensor, value in ours.items():
        assert np.array_equal(value, by_name[tensor].reshape(value.shape)), tensor


@pytest.mark.parametrize("name", FLOATS)
def test_floats_in_litert_and_onnx_runtime(name: str, tmp_path: Path) -> None:
    data = model_of(name)
    x = np.random.default_rng(3).uniform(-1, 1, (1, *data.graph.tensors[data.graph.inputs[0]].shape[1:]))
    x = x.astype(np.float32)
    expected = Model(data).run(x)
    write_model(path := tmp_path / "m.tflite", data)
    (theirs,) = Peer(path, "xnnpack").run(x).values()
    near(theirs, expected, 1e-4)
    assert np.array_equal(load(path).run(x), expected) or name.startswith("v3")  # whose gates are written out
    near(onnx_outputs(data, tmp_path, x)[0], expected, CLOSE)


def near(got: np.ndarray, expected: np.ndarray, limit: float) -> None:
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= limit * max(float(np.abs(expected).max()), 1e-3)


def onnx_outputs(data: ModelData, folder: Path, *inputs: np.ndarray) -> list[Any]:
    pytest.importorskip("onnx", reason="the extra [onnx] is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed (extra [test])")
    write_model(path := folder / "m.onnx", data)
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return list(session.run(None, dict(zip((i.name for i in session.get_inputs()), inputs, strict=True))))


# Nodes of the table's examples that a format can't say: TFLite pads pools in its own way alone.
REFUSED = {"average_pool", "max_pool"}


def is_read(op: str) -> bool:
    """Whether the reader of .tflite files names an op: what it reads, the exporters must write."""
    sources = Path(parse.__code__.co_filename).parent.glob("*.py")
    return any(f'"{op}"' in path.read_text(encoding="utf-8") for path in sources if path.stem != "exporting")


@pytest.mark.parametrize("dtype", ["float32", "uint8", "int8"])
def test_every_op(dtype: str, tmp_path: Path) -> None:
    """A graph of one node for each example of the table of ops: written, or refused if no .tflite file brings it."""
    assert is_read("conv2d")
    assert not is_read("an op that isn't there")
    rng = np.random.default_rng(5)
    for graph in examples(dtype):
        arrays = random_arrays(graph, rng)
        data = ModelData(graph, {name: arrays[name] for name in graph.constants}, ModelInfo(graph.name))
        inputs = [arrays[name] for name in graph.inputs]
        if graph.nodes[0].op not in RULES and not is_read(graph.nodes[0].op):
            with pytest.raises(ConversionError, match="no TFLite operator is known"):
                write_model(tmp_path / "m.tflite", data)
            continue
        if graph.name in REFUSED:
            with pytest.raises(ConversionError, match=f"node 'y' \\({graph.name}\\): its padding"):
                write_model(tmp_path / "m.tflite", data)
        else:
            in_litert(data, inputs, tmp_path)
        both = graph.nodes[0].attrs.get("align_corners") and graph.nodes[0].attrs.get("half_pixel_centers")
        if dtype == "float32" and not both and not {"uint8", "int8"} & {t.dtype for t in graph.tensors.values()}:
            expected = Model(data, "reference").run(dict(zip(graph.inputs, inputs, strict=True)), check_range=False)
            near(onnx_outputs(data, tmp_path, *inputs)[0], expected, 2e-6)
        elif dtype == "float32":
            with pytest.raises(ConversionError, match="export"):
                write_model(tmp_path / "m.onnx", data)


def in_litert(data: ModelData, inputs: list[np.ndarray], folder: Path) -> None:
    write_model(path := folder / "m.tflite", data)
    given: Mapping[str, np.ndarray] = dict(zip(data.graph.inputs, inputs, strict=True))
    expected = Model(data, "reference").run(given, check_range=False)
    again = load(path, "reference")
    assert np.array_equal(again.run(dict(zip(again.graph.inputs, inputs, strict=True)), check_range=False), expected), (
        data.graph.name
    )
    got = Peer(path, "tflite-reference").run(*inputs)
    (value,) = (v for i, v in got.items() if f"#{i}" == again.graph.tensors[again.graph.outputs[0]].source)
    if expected.dtype == np.float32:
        near(value, expected, 2e-6)
    else:
        assert np.array_equal(value, expected), data.graph.name


def test_what_a_graph_may_say(tmp_path: Path) -> None:
    """Paddings that aren't SAME, activations that nothing fuses, multipliers, dilations, and values that branch."""
    b = GraphBuilder("odd")
    x = b.input("x", (1, 9, 8, 4))
    w = [b.constant(f"w{i}", s) for i, s in enumerate([(3, 3, 4, 6), (6,), (3, 2, 12), (12,), (1, 1, 1, 12)])]
    one = b.node("conv2d", [x, *w[:2]], "one", stride=(2, 2), padding=((1, 1), (1, 1)), activation="hard_swish")
    two = b.node("depthwise_conv2d", [one, *w[2:4]], "two", stride=(1, 1), padding=((0, 2), (1, 0)), multiplier=2,
                 dilation=(2, 1), activation="hard_sigmoid_slim")  # fmt: skip
    three = b.node("mul", [two, w[4]], "three", activation="relu_0_to_1")
    four = b.node("activation", [three], "four", function="hard_sigmoid")
    pooled = b.node("average_pool", [four], "pooled", kernel=(2, 2), stride=(2, 2), padding=((0, 0), (0, 0)),
                    activation="sigmoid")  # fmt: skip
    flat = b.node("reshape", [pooled], "flat", shape=(1, b.tensors["pooled"].size))
    middle = b.node("slice", [flat], "middle", axis=1, first=3, length=5)
    b.node("concat", [middle, flat], "joined", axis=1, activation="relu6")
    b.node("transpose", [four], "turned", order=(0, 2, 3, 1))
    near_by = [(5, 7, False, False), (6, 7, False, True), (7, 7, True, False)]
    sized = [b.node("resize_nearest", [four], f"near{h}", size=(h, w), align_corners=corners, half_pixel_centers=half)
             for h, w, corners, half in near_by]  # fmt: skip
    ends = ["joined", "turned", *sized]
    graph = b.finish(ends)
    data = ModelData(graph, random_weights(graph), ModelInfo("odd"))
    x_value = np.random.default_rng(0).standard_normal((1, 9, 8, 4)).astype(np.float32)
    _, expected = Model(data, "reference").run(x_value, taps=ends, check_range=False)
    write_model(path := tmp_path / "m.tflite", data)
    theirs = list(Peer(path, "xnnpack").run(x_value).values())
    for side in (theirs, onnx_outputs(data, tmp_path, x_value)):
        for value in expected.values():
            same = [found for found in side if found.shape == value.shape]
            near(same[0], value, 2e-6)


def test_what_can_not_be_said(tmp_path: Path) -> None:
    """Op and node are named, and what to do; nothing is left behind."""
    with pytest.raises(ConversionError, match=r"export an 8-bit one to \.tflite"):
        write_model(tmp_path / "m.onnx", load_data("flowers_uint8"))
    with pytest.raises(ConversionError, match=r"ends in \.tflite or \.onnx"):
        write_model(tmp_path / "m.pb", load_data("flowers_uint8"))
    data = model_of("v3_small uint8")
    nodes = [replace(n, attrs={**n.attrs, "function": "hard_sigmoid"}) if n.op == "activation" else n
             for n in data.graph.nodes]  # fmt: skip
    g = data.graph
    other = Graph(g.name, g.inputs, g.outputs, g.tensors, tuple(nodes), g.endpoints)
    with pytest.raises(ConversionError, match=r"node '\S+' \(activation\).*quantize the float model"):
        write_model(tmp_path / "m.tflite", ModelData(other, data.tensors, data.info))
    with pytest.raises(ConversionError, match="can't be written"):
        write_model(tmp_path / "none" / "m.tflite", data)
    assert list(tmp_path.iterdir()) == []


def test_labels_and_recipe_come_back(tmp_path: Path) -> None:
    """Also in the form that other programs read."""
    result = CliRunner().invoke(app, ["export", "flowers", str(tmp_path / "f.tflite"), "--json"])
    assert result.exit_code == 0, result.stderr
    again, was = load_data(tmp_path / "f.tflite"), load_data("flowers")
    assert (again.info.labels, again.info.label_offset) == (was.info.labels, was.info.label_offset)
    assert (again.info.preprocessing, again.info.assumed) == (was.info.preprocessing, was.info.assumed)
    content = (tmp_path / "f.tflite").read_bytes()
    assert labels(content, 5) == was.info.labels
    assert zipfile.ZipFile(tmp_path / "f.tflite").namelist() == ["labels.txt"]
    own = replace(was, info=replace(was.info, preprocessing="unit_range", labels=()))
    write_model(tmp_path / "g.tflite", own)
    metadata = parse((tmp_path / "g.tflite").read_bytes()).metadata
    assert input_normalization(metadata[METADATA]) == ((0.0,), (255.0,))
    assert load_data(tmp_path / "g.tflite").info.preprocessing == "unit_range"
    # 1001 classes, the first of them background; metadata that is damaged counts as absent.
    b = GraphBuilder("wide")
    b.node("softmax", [b.input("x", (1, 1001))], "y", beta=1.0)
    wide = ModelData(b.finish(["y"]), {}, ModelInfo("wide", "imagenet", 1, "torchvision"))
    CliRunner().invoke(app, ["export", "flowers", str(tmp_path / "f.tflite"), "--force"])
    write_model(tmp_path / "w.tflite", wide)
    again = load_data(tmp_path / "w.tflite")
    assert (again.info.labels, again.info.label_offset, again.info.preprocessing) == ("imagenet", 1, "torchvision")
    spoilt = (tmp_path / "w.tflite").read_bytes().replace(b'"label_offset": 1', b'"label_offset": 9')
    (tmp_path / "w.tflite").write_bytes(spoilt)
    assert load_data(tmp_path / "w.tflite").info.preprocessing == "slim_inception_eval"
    assert OWN in parse(spoilt).metadata


def test_the_verb(tmp_path: Path) -> None:
    def fails(*arguments: str) -> str:
        result = CliRunner().invoke(app, ["export", *arguments])
        assert result.exit_code == 2
        return result.stderr

    assert "ends in .tflite or .onnx" in fails("flowers", str(tmp_path / "x.h5"))
    (tmp_path / "x.tflite").write_bytes(b"")
    assert "--force" in fails("flowers", str(tmp_path / "x.tflite"))
    assert "float32 models" in fails("flowers_uint8", str(tmp_path / "x.onnx"))
    assert "there is no folder" in fails("flowers", str(tmp_path / "a" / "x.onnx"))


def test_the_onnx_file_says_what_it_is(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="the extra [onnx] is not installed")
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed (extra [test])")
    assert CliRunner().invoke(app, ["export", "flowers", str(tmp_path / "f.onnx")]).exit_code == 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = onnx.load(tmp_path / "f.onnx")
    props = {p.key: p.value for p in model.metadata_props}
    assert props["preprocessing"] == load_data("flowers").info.preprocessing
    assert "sunflowers" in props["labels"]
    (port,) = model.graph.input
    assert [d.dim_param or d.dim_value for d in port.type.tensor_type.shape.dim] == ["batch", 128, 128, 3]
    assert sum(node.op_type == "Transpose" for node in model.graph.node) == 1
    # A batch of two runs as well.
    data = load_data("flowers")
    x = np.random.default_rng(3).uniform(-1, 1, (2, 128, 128, 3)).astype(np.float32)
    near(onnx_outputs(data, tmp_path, x)[0], nm.Model(data).run(x), CLOSE)


@pytest.mark.parametrize("name", [
    "weights/mlperf_tiny_vww_96_int8.tflite", "weights/coral_tf2_mobilenet_v2_1.0_224_ptq.tflite",
    "weights/v3-small_224_1.0_uint8.tflite", "weights/mobilenet_v1_0.25_128.tflite",
    "field/mobilenet_v2_nchw_int8.tflite", "field/edge_impulse_head_rgb_int8.tflite",
    "field/density_dynamic_range.tflite", "field/teachable_machine_2_uint8.tflite",
])  # fmt: skip
def test_a_file_comes_back(name: str, data: Path, tmp_path: Path) -> None:
    """Read, written and read again: the same nodes, scales and weights."""
    was = load_data(data / name)
    write_model(tmp_path / "again.tflite", was)
    again = load_data(tmp_path / "again.tflite")
    assert again.info.preprocessing == was.info.preprocessing
    assert again.info.labels == was.info.labels
    for one, other in zip(was.graph.nodes, again.graph.nodes, strict=True):
        ignored: set[str] = set()
        attrs = [{k: v for k, v in n.attrs.items() if k not in ignored} for n in (one, other)]
        assert (one.op, attrs[0]) == (other.op, attrs[1]), one.name
        for a, b in zip((*one.inputs, one.output), (*other.inputs, other.output), strict=True):
            x, y = was.graph.tensors[a], again.graph.tensors[b]
            assert (x.shape, x.dtype) == (y.shape, y.dtype)
            if x.quantization is not None:
                assert y.quantization is not None
                assert (x.quantization.scale, x.quantization.zero_point) == (
                    y.quantization.scale, y.quantization.zero_point)  # fmt: skip
            if x.constant:
                assert np.array_equal(was.tensors[a], again.tensors[b]), a
