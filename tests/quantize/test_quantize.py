"""The quantizer: its arithmetic, calibration, structure; TensorFlow's converter and LiteRT beside it."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from litert import Peer

from npmobilenet.errors import InputError
from npmobilenet.formats import weightfile
from npmobilenet.formats.tensorflow.model import convert_checkpoint
from npmobilenet.formats.tflite.model import convert_tflite
from npmobilenet.graph import GraphBuilder, Node, Quantization
from npmobilenet.images import recipes as preprocess
from npmobilenet.model import Model, load
from npmobilenet.modeldata import Array, ModelData, ModelInfo
from npmobilenet.quantize import (
    Range,
    Scales,
    as_tensorflow_sees,
    calibrate,
    lower,
    open_images,
    parameters,
    quantize,
)

pytest.importorskip("tflite", reason="reads and writes .tflite files: pip install 'npmobilenet[convert]'")
from tflite_export import to_tflite

F = np.float32
ROOT = Path(__file__).parents[2]
SETTINGS = settings(max_examples=200, deadline=None, derandomize=True)


# ---------------------------------------------------------------------------------------------------------------------
# Models


def everything() -> ModelData:
    """A small graph with every op that can be quantized, a dead channel and an empty one."""
    rng = np.random.default_rng(0)
    b, arrays = GraphBuilder("everything"), {}

    def c(name: str, *shape: int, spread: float = 1.0) -> str:
        arrays[name] = (rng.standard_normal(shape) * spread).astype(F)
        return b.constant(name, shape)

    plain, one = ((0, 0), (0, 0)), (1, 1)
    x = b.node("pad", [b.input("input", (1, 9, 9, 4))], "pad", padding=((1, 1), (0, 2)))
    x = b.node("conv2d", [x, c("w1", 3, 3, 4, 6, spread=0.2), c("b1", 6)], "c1", stride=(2, 2), padding=plain,
               activation="hard_swish")  # fmt: skip
    arrays["w1"][..., 2] *= 1e-9  # so that its bias would need more than 2^30 steps
    arrays["b1"][2] = 5
    arrays["w1"][..., 4] = 0
    y = b.node("depthwise_conv2d", [x, c("w2", 3, 3, 6, spread=0.3), c("b2", 6)], "d1", stride=one,
               padding=((1, 1), (1, 1)), activation="relu")  # fmt: skip
    x = b.node("concat", [x, y], "cat", axis=3)
    x = b.node("mul", [x, c("factors", 1, 1, 1, 12)], "scaled")
    x = b.node("sub", [x, c("offsets", 1, 1, 1, 12)], "shifted", activation="relu6")
    x = b.node("mul", [x, b.node("activation", [x], "gate", function="sigmoid")], "gated")
    x = b.node("add", [b.node("activation", [x], "hard", function="hard_sigmoid"), x], "sum")
    x = b.node("resize_bilinear", [x], "resized", size=(10, 10), align_corners=False, half_pixel_centers=True)
    x = b.node("average_pool", [x], "pool", kernel=(3, 3), stride=(2, 2), padding=((0, 1), (0, 1)), activation="relu")
    x = b.node("mean", [x], "mean", keepdims=False)
    x = b.node("fully_connected", [x, c("w3", 12, 7), c("b3", 7)], "dense", activation="relu6")
    x = b.node("fully_connected", [x, c("w4", 7, 5), c("b4", 5)], "logits")
    x = b.node("softmax", [x], "scores", beta=1.0)
    return ModelData(b.finish([x]), arrays, ModelInfo("everything_float", provenance={"accuracy": "all of it"}))


def everything_input(count: int = 20) -> Array:
    return np.random.default_rng(1).standard_normal((count, 9, 9, 4)).astype(F)


def gated(activation: str = "hard_sigmoid_slim") -> ModelData:
    """A convolution with TF-slim's gate, which has its 3 in the bias once it is lowered."""
    b = GraphBuilder("gated")
    rng = np.random.default_rng(2)
    arrays = {"w": rng.standard_normal((1, 1, 3, 4)).astype(F), "b": rng.standard_normal(4).astype(F)}
    x = b.input("input", (1, 5, 5, 3))
    inputs = [x, b.constant("w", (1, 1, 3, 4)), b.constant("b", (4,))]
    y = b.node("conv2d", inputs, "y", stride=(1, 1), padding=((0, 0), (0, 0)), activation=activation)
    return ModelData(b.finish([y]), arrays, ModelInfo("gated"))


# ---------------------------------------------------------------------------------------------------------------------
# Arithmetic


@pytest.mark.parametrize(
    ("low", "high", "dtype", "scale", "zero_point"),
    [
        (-1.0, 1.0, "int8", F(2) / F(255), -1),  # -128 + 127.49999: the rounded scale decides the tie
        (-1.0, 1.0, "uint8", F(2) / F(255), 127),
        (0.0, 6.0, "int8", F(6) / F(255), -128),
        (2.0, 6.0, "int8", F(6) / F(255), -128),  # widened to 0
        (-6.0, -2.0, "uint8", F(6) / F(255), 255),
        (0.0, 0.0, "int8", 1.0, -128),
        (0.0, 1e-44, "uint8", 1.0, 0),
        (-0.375, 254.625, "int8", 1.0, -128),
        (-0.5, 254.5, "uint8", 1.0, 1),  # a half, away from zero
    ],
)
def test_activation_by_hand(low: float, high: float, dtype: str, scale: float, zero_point: int) -> None:
    assert parameters.activation(Range(low, high), dtype) == Quantization((float(scale),), (zero_point,))


finite = st.floats(-1e6, 1e6, width=32)


@SETTINGS
@given(a=finite, b=finite, dtype=st.sampled_from(["int8", "uint8"]))
def test_activation_covers_the_range(a: float, b: float, dtype: str) -> None:
    """Every value of the range is at most one half step (and the nudge of the zero point, another) from a multiple."""
    low, high = min(a, b), max(a, b)
    q = parameters.activation(Range(low, high), dtype)
    limits = np.iinfo(dtype)
    [scale], [zero_point] = q.scale, q.zero_point
    assert limits.min <= zero_point <= limits.max
    assert scale == F(scale)
    assert (limits.min - zero_point) * scale <= min(low, 0) + scale * (0.5 + 1e-4)
    assert (limits.max - zero_point) * scale >= max(high, 0) - scale * (0.5 + 1e-4)


def test_weights_by_hand() -> None:
    w = np.array([[2.54, -1.27, 0.01], [0.0, 0.0, 0.0]], F).T  # two output channels
    values, q = parameters.weights(w, 1, "int8")
    assert values.T.tolist() == [[127, -64, 1], [0, 0, 0]]  # a half, away from zero
    assert q.axis == 1
    assert q.scale[0] == F(2 * F(2.54)) / F(254)
    assert q.scale[1] == F(1e-6) / F(254)  # nothing but zeros: the narrowest range
    values, q = parameters.weights(w, 1, "uint8")
    assert (values.min(), values.max(), q.axis) == (1, 255, None)
    assert q.zero_point == (86,)  # 1 + 1.27 / (3.81 / 254) = 85.67


@SETTINGS
@given(
    st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=40),
    st.sampled_from(["int8", "uint8"]),
)
def test_weights_are_within_half_a_step(values: list[float], dtype: str) -> None:
    w = np.array(values, F)[:, None]
    found, q = parameters.weights(w, 1, dtype)
    back = (found.astype(np.float64) - q.zero_point[0]) * q.scale[0]
    nudge = 0.5 if dtype == "uint8" else 0.0  # of the zero point
    assert np.abs(back - w).max() <= q.scale[0] * (0.5 + nudge + 1e-3)
    assert found.min() >= (-127 if dtype == "int8" else 1)


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_a_bias_that_is_too_large_raises_the_scale_of_the_weights(dtype: str) -> None:
    kernel, added = np.full((1, 1, 1, 2), 1e-9, F), np.array([4.0, 0.0], F)
    values, integers, (q, bias_q) = parameters.layer(kernel, added, 3, 0.01, dtype)
    assert abs(int(integers[0]) - (2**30 - 1)) <= 64  # float32's error of the scale
    assert bias_q.scale[0] == pytest.approx(4.0 / (2**30 - 1), rel=1e-6)
    assert q.scale[0] == pytest.approx(bias_q.scale[0] / 0.01, rel=1e-6)
    assert (values.reshape(-1)[0], integers[1]) == (0 if dtype == "int8" else 128, 0)
    if dtype == "int8":
        assert q.scale[1] == F(1e-6) / F(254)


def test_round_away_is_cs_round() -> None:
    x = np.array([0.49999997, 0.5, -0.5, 1.5, 2.5, -2.5, 8388609.0, 0.0], F)
    assert parameters.round_away(x).tolist() == [0, 1, -1, 2, 3, -3, 8388609, 0]


# ---------------------------------------------------------------------------------------------------------------------
# Lowering, ties between scales, structure


@pytest.mark.parametrize("make", [everything, gated])
def test_lowering_keeps_the_values(make: Any) -> None:
    """1e-6: the 3 of a gate is added to the bias, before the products rather than after them."""
    data = make()
    low = lower(data)
    rng = np.random.default_rng(3)
    x = rng.standard_normal((4, *data.graph.tensors["input"].shape[1:])).astype(F)
    values, lowered = (Model(d).run(x, taps="*", check_range=False)[1] for d in (data, low))
    assert set(values) < set(lowered)
    for name, expected in values.items():
        assert np.abs(lowered[name] - expected).max() <= 1e-6 * max(1, np.abs(expected).max()), name
    assert lower(low).graph == low.graph


def test_lowering_names_what_it_adds() -> None:
    low = lower(gated())
    assert [(n.op, n.inputs, n.output) for n in low.graph.nodes] == [
        ("conv2d", ("input", "w", "b_plus_3"), "y/relu6"),
        ("mul", ("y/relu6", "y/factor"), "y"),
    ]
    assert set(low.tensors) == {"w", "b_plus_3", "y/factor"}
    assert low.tensors["y/factor"] == F(0.16667)


def test_scales_are_shared_where_kernels_do_not_rescale() -> None:
    low = lower(everything())
    scales = Scales(low.graph)
    assert [scales.source(name) for name in ("pad", "c1", "d1", "cat", "resized", "pool")] == [
        "input", "cat", "cat", "cat", "sum", "sum",
    ]  # fmt: skip
    assert scales.fixed == {"gate", "scores"}
    assert not {"pad", "c1", "pool", "gate", "scores"} & set(scales.needed())


def test_a_fixed_scale_is_rescaled_for_a_concat() -> None:
    b = GraphBuilder("g")
    x = b.input("input", (1, 2, 2, 3))
    y = b.node("concat", [x, b.node("activation", [x], "s", function="sigmoid")], "y", axis=3)
    data = ModelData(b.finish([y]), {}, ModelInfo("g"))
    made = quantize(data, {"y": (-2.0, 2.0)})
    assert [n.op for n in made.graph.nodes] == ["activation", "quantize", "concat"]
    assert made.graph.nodes[1].inputs == ("s",)
    rescaled = made.graph.tensors[made.graph.nodes[1].output]
    assert rescaled.quantization == made.graph.tensors["y"].quantization == made.graph.tensors["input"].quantization
    assert made.graph.tensors["s"].quantization == Quantization((1 / 256,), (-128,))


@pytest.mark.parametrize("scheme", ["int8", "uint8"])
def test_the_form_of_the_result(scheme: str, tmp_path: Path) -> None:
    data = everything()
    found = calibrate(data, [everything_input()])
    made = quantize(data, found.ranges, scheme)
    for node in made.graph.nodes:
        if node.op in ("conv2d", "depthwise_conv2d", "fully_connected"):
            x, w, bias = (made.graph.tensors[name] for name in node.inputs)
            assert (w.dtype, bias.dtype) == (scheme, "int32")
            assert x.quantization
            assert w.quantization
            assert bias.quantization
            if scheme == "int8":
                assert len(w.quantization.scale) == w.shape[w.quantization.axis or 0] == len(bias.quantization.scale)
                assert (w.quantization.axis, set(w.quantization.zero_point)) == (len(w.shape) - 1, {0})
            else:
                assert w.quantization.axis is bias.quantization.axis is None
            product = np.array(w.quantization.scale) * x.quantization.scale[0]
            assert np.allclose(product, bias.quantization.scale, rtol=1e-7, atol=0)
    computed = [t for t in made.graph.tensors.values() if not t.constant]
    assert all(t.dtype == scheme and t.quantization for t in computed)
    assert all(node.attrs.get("activation", "relu") in ("relu", "relu6") for node in made.graph.nodes)
    assert made.info.name == f"everything_{scheme}"
    assert made.info.provenance["float_accuracy"] == "all of it"
    assert "accuracy" not in made.info.provenance
    for name in ("a.h5", "b.h5"):
        weightfile.write(tmp_path / name, quantize(data, found.ranges, scheme))
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    assert weightfile.read(tmp_path / "a.h5").graph == made.graph


@pytest.mark.parametrize(
    ("scheme", "ports", "ops"),
    [
        ("int8", "float32", ("quantize", "dequantize")),
        ("int8", "uint8", ("quantize", "quantize")),
        ("uint8", "int8", ("quantize", "quantize")),
        ("uint8", "float32", ("quantize", "dequantize")),
    ],
)
def test_ports_of_another_dtype(scheme: str, ports: str, ops: tuple[str, str]) -> None:
    data = everything()
    ranges = calibrate(data, [everything_input()]).ranges
    plain, made = quantize(data, ranges, scheme), quantize(data, ranges, scheme, ports)
    assert (made.graph.inputs, made.graph.outputs) == (("input",), ("scores",))
    assert (made.graph.nodes[0].op, made.graph.nodes[-1].op) == ops
    for name in ("input", "scores"):
        inner, outer = (d.graph.tensors[name] for d in (plain, made))
        assert outer.dtype == ports
        if ports == "float32":
            assert outer.quantization is None
        else:
            shift = -128 if ports == "int8" else 128
            assert outer.quantization
            assert inner.quantization
            assert outer.quantization.zero_point[0] == inner.quantization.zero_point[0] + shift
            assert outer.quantization.scale == inner.quantization.scale
        assert made.graph.tensors[f"{name}/{scheme}"].quantization == inner.quantization
    assert len(made.graph.nodes) == len(plain.graph.nodes) + 2


def test_shared_weights_are_quantized_for_each_use() -> None:
    """One kernel and one bias behind inputs of different scales: the kernel stays one, the bias becomes two."""
    b = GraphBuilder("g")
    w, bias = b.constant("w", (1, 1, 2, 2)), b.constant("b", (2,))
    x = b.input("input", (1, 2, 2, 2))
    for name in ("y", "z"):
        x = b.node("conv2d", [x, w, bias], name, stride=(1, 1), padding=((0, 0), (0, 0)))
    data = ModelData(b.finish([x]), {"w": np.ones((1, 1, 2, 2), F), "b": np.ones(2, F)}, ModelInfo("g"))
    made = quantize(data, {"input": (0, 1), "y": (0, 3), "z": (0, 7)})
    assert [n.inputs for n in made.graph.nodes] == [("input", "w", "b"), ("y", "w", "b_2")]
    assert made.tensors["b"][0] == 3 * made.tensors["b_2"][0]


def test_what_quantize_refuses() -> None:
    data = gated()
    good = {"input": (0.0, 1.0), "y/relu6": (0.0, 6.0), "y": (0.0, 1.0)}
    made = quantize(data, good)
    with pytest.raises(InputError, match="scheme 'int4': expected one of int8, uint8"):
        quantize(data, good, "int4")
    with pytest.raises(InputError, match="'int16': expected one of int8, uint8, float32"):
        quantize(data, good, ports="int16")
    with pytest.raises(InputError, match="no range for 2 tensors of 'gated': input, y; calibrate"):
        quantize(data, {"y/relu6": (0.0, 6.0)})
    for bad in [(1.0, 0.0), (0.0, float("nan")), (0.0, float("inf")), (-3e38, 3e38)]:
        with pytest.raises(InputError, match=r"the range of 'y' is .*: expected two finite numbers"):
            quantize(data, {**good, "y": bad})
    with pytest.raises(InputError, match=r"'gated_int8' is not a float32 model: [0-9] tensors"):
        lower(made)


# ---------------------------------------------------------------------------------------------------------------------
# Calibration


def test_ranges_are_those_of_all_values() -> None:
    data = everything()
    x = everything_input(11)
    seen: list[tuple[int, int]] = []
    found = calibrate(data, [x[:3], x[3], x[4:]], exact=True, on_progress=lambda *p: seen.append(p))
    _, values = Model(lower(data)).run(x, taps="*", check_range=False)
    assert found.ranges == {n: Range(float(v.min()), float(v.max())) for n, v in values.items()}
    assert (found.images, seen[-1], found.unreadable) == (11, (11, 0), {})
    assert calibrate(Model(data), [x], exact=True).ranges == found.ranges


def test_small_batches_give_the_same_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    data, x = everything(), everything_input(5)
    whole = calibrate(data, [x])
    monkeypatch.setattr("npmobilenet.quantize.calibration.MOST_BYTES", 1)
    assert calibrate(data, [x]) == whole


def test_in_place_sums_are_seen_in_their_operands() -> None:
    """Two residual additions, as in V2: the projections are overwritten, what is read again is not."""
    b = GraphBuilder("g")
    arrays = {}

    def conv(x: str, name: str) -> str:
        arrays.update({f"{name}/w": np.ones((1, 1, 2, 2), F), f"{name}/b": np.zeros(2, F)})
        weights, bias = b.constant(f"{name}/w", (1, 1, 2, 2)), b.constant(f"{name}/b", (2,))
        return b.node("conv2d", [x, weights, bias], name, stride=(1, 1), padding=((0, 0), (0, 0)))

    x = conv(b.input("input", (1, 3, 3, 2)), "first")
    x = b.node("add", [conv(x, "p1"), x], "sum1")
    x = b.node("add", [x, conv(x, "p2")], "sum2")  # sum1 has two readers, so p2 is overwritten
    y = conv(x, "last")
    graph = b.finish([b.node("add", [y, x], "out")])  # overwrites nothing: it is an output
    names = ["input", "first", "p1", "sum1", "p2", "sum2", "last", "out"]
    own = {name: Range(-float(i), i * i) for i, name in enumerate(names)}
    seen = as_tensorflow_sees(graph, own)
    assert {n for n in names if seen[n] != own[n]} == {"p1", "p2"}
    assert (seen["p1"], seen["p2"]) == (Range(-3, 9), Range(-5, 25))


def test_what_calibration_refuses(tmp_path: Path) -> None:
    data = gated()
    with pytest.raises(InputError, match="no image to calibrate with"):
        calibrate(data, [])
    with pytest.raises(InputError, match="finite"):
        calibrate(data, [np.full((5, 5, 3), np.nan, F)])
    with pytest.raises(InputError, match="float32"):
        calibrate(data, [np.zeros((5, 5, 3))])
    with pytest.raises(InputError, match="shapes"):
        calibrate(data, [np.zeros((5, 5, 3), F), np.zeros((4, 5, 3), F)])
    broken = dataclasses.replace(gated("none"), tensors={**data.tensors, "w": np.full((1, 1, 3, 4), 3e38, F)})
    with pytest.raises(InputError, match="'y' has values that aren't finite on a calibration image"):
        calibrate(broken, [np.full((5, 5, 3), 1e38, F)])
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"no image to calibrate with; bad.png: "):
        calibrate(data, open_images(tmp_path))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Nested folders: four pictures, a broken one, and a text."""
    image = pytest.importorskip("PIL.Image", reason="needs the extra [cli]")
    rng = np.random.default_rng(4)
    folder = tmp_path / "pictures"
    for name in ("b/2.png", "a/1.png", "a/deep/3.jpg", "0.png"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image.fromarray(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8)).save(path)
    (folder / "c.png").write_bytes(b"broken")
    (folder / "notes.txt").write_text("none")
    return folder


def test_any_folder_of_images(pictures: Path) -> None:
    images = open_images(pictures)
    assert images.names == ("0.png", "a/1.png", "a/deep/3.jpg", "b/2.png", "c.png")
    assert open_images(pictures, 2).names == ("0.png", "a/deep/3.jpg")
    seen: list[tuple[int, int]] = []
    found = calibrate(gated(), images, on_progress=lambda *p: seen.append(p))
    assert (found.images, list(found.unreadable), seen[-1]) == (4, ["c.png"], (5, 5))
    assert -1 <= found.ranges["input"].low < found.ranges["input"].high <= 1
    unit = calibrate(gated(), open_images(pictures, recipe="unit_range"))
    assert unit.ranges["input"].low >= 0


def test_archives_and_arrays(pictures: Path, tmp_path: Path) -> None:
    files = [(pictures / name).read_bytes() for name in ("0.png", "a/1.png", "b/2.png")]
    facts = {
        "train_jpeg": np.frombuffer(b"".join(files), np.uint8),
        "train_offsets": np.cumsum([0, *map(len, files)]),
        "train_names": np.array(["x", "y", "z"]),
    }
    np.savez(tmp_path / "a.npz", **facts)
    images = open_images(tmp_path / "a.npz", 2)
    assert [(name, source) for name, source in images] == [("x", files[0]), ("y", files[1])]
    x = np.random.default_rng(5).uniform(-1, 1, (3, 5, 5, 3)).astype(F)
    np.save(tmp_path / "x.npy", x)
    from_file, from_array = (calibrate(gated(), source) for source in (open_images(tmp_path / "x.npy"), [x]))
    assert from_file.ranges == from_array.ranges
    with pytest.raises(InputError, match=r"no array 'val_jpeg' in it.*--split"):
        open_images(tmp_path / "a.npz", split="val")
    for key, value, message in [
        ("train_offsets", [0, 9, 5, 20], "ascending"),
        ("train_offsets", [0, 5, 9, 10**6], "go beyond"),
        ("train_offsets", [0, 5], "one offset more"),
        ("train_jpeg", np.zeros(90, np.uint16), "expected uint8"),
    ]:
        np.savez(tmp_path / "bad.npz", **{**facts, key: np.array(value)})
        with pytest.raises(InputError, match=message):
            open_images(tmp_path / "bad.npz")
    for array in (np.zeros((2, 5, 5, 3)), np.zeros((5, 5, 3), F), np.zeros((0, 5, 5, 3), F)):
        np.save(tmp_path / "bad.npy", array)
        with pytest.raises(InputError, match="expected float32"):
            open_images(tmp_path / "bad.npy")
    (tmp_path / "bad.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:100])
    with pytest.raises(InputError, match="can't be read"):
        open_images(tmp_path / "bad.npy")


def test_what_open_images_refuses(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("words")
    (tmp_path / "empty").mkdir()
    for path, message in [
        (tmp_path / "nothing", "does not exist"),
        (tmp_path / "text", "neither an .npz archive nor a .npy array"),
        (tmp_path / "empty", "holds no images"),
        ("nul\0", "can't be read|does not exist"),
    ]:
        with pytest.raises(InputError, match=message):
            open_images(path)
    with pytest.raises(InputError, match="samples 0"):
        open_images(tmp_path, 0)
    with pytest.raises(InputError, match=r"only .npz archives have splits"):
        open_images(tmp_path, split="val")
    with pytest.raises(InputError, match="unknown preprocessing recipe"):
        open_images(tmp_path, recipe="none")


# ---------------------------------------------------------------------------------------------------------------------
# The command


@pytest.fixture
def cli() -> Any:
    pytest.importorskip("rich", reason="the command line needs the extra [cli]")
    testing = pytest.importorskip("click.testing", reason="the command line needs the extra [cli]")
    from npmobilenet.cli.app import app

    return lambda *arguments: testing.CliRunner().invoke(app, ["quantize", *map(str, arguments)])


def test_the_command(cli: Any, pictures: Path, tmp_path: Path) -> None:
    model, out = tmp_path / "gated.h5", tmp_path / "q.h5"
    weightfile.write(model, gated())
    result = cli(model, "--data", pictures, "-o", out, "--samples", 3, "--io", "uint8")
    assert result.exit_code == 0, result.stderr
    lines = dict(line.split(maxsplit=1) for line in result.stdout.splitlines() if not line.startswith("input"))
    assert lines["model"] == "gated_uint8"
    assert lines["calibration"].startswith("3 images of")
    assert "calibrated with 3 of 3 images" in result.stderr
    made = weightfile.read(out)
    assert made.info.provenance["calibration"] == "3 images of pictures; ranges as TensorFlow's calibrator sees them"
    assert made.graph.tensors["y"].dtype == "uint8"
    document = json.loads(cli(model, "--data", pictures, "-o", out, "--force", "--json", "--name", "g").stdout)
    assert (document["name"], document["images"], list(document["unreadable"])) == ("g", 4, ["c.png"])
    assert document["sha256"] == weightfile.sha256(out)
    assert set(document["ranges"]) == {"input", "y/relu6", "y"}
    again = json.loads(cli(model, "--data", pictures, "-o", out, "--force", "--json", "--name", "g").stdout)
    assert again["sha256"] == document["sha256"]
    unread = cli(model, "--data", pictures, "-o", out, "--force").stdout
    assert "unreadable" in unread
    assert "c.png: " in unread


def test_what_the_command_refuses(cli: Any, pictures: Path, tmp_path: Path) -> None:
    model, out = tmp_path / "gated.h5", tmp_path / "q.h5"
    weightfile.write(model, gated())
    weightfile.write(out, gated())
    for arguments, message in [
        ((model, "--data", pictures, "-o", out), "exists; --force overwrites it"),
        ((model, "--data", pictures, "-o", model, "--force"), "is read by this command"),
        ((model, "--data", pictures, "-o", tmp_path / "q.tflite"), "ends in .h5"),
        ((model, "--data", pictures, "-o", tmp_path / "no" / "q.h5"), "there is no folder"),
        ((tmp_path / "no.h5", "--data", pictures, "-o", tmp_path / "r.h5"), "there is no file"),
        ((model, "--data", tmp_path / "no", "-o", tmp_path / "r.h5"), "does not exist"),
        ((model, "--data", pictures, "-o", tmp_path / "r.h5", "--split", "val"), "only .npz archives have splits"),
        ((model, "--data", pictures), "-o"),
        ((model, "--data", pictures, "-o", out, "--scheme", "int4"), "int4"),
    ]:
        result = cli(*arguments)
        assert (result.exit_code, result.stdout) == (2, ""), arguments
        assert message in result.stderr
    assert not (tmp_path / "r.h5").exists()


# ---------------------------------------------------------------------------------------------------------------------
# Beside TensorFlow's converter

GOLDENS = {"v2": "mobilenet_v2_0.35_96", "v3": "v3-small_224_0.75", "edgetpu": "mobilenet_edgetpu_224_0.75"}
CASES = ("everything", *GOLDENS)


@dataclasses.dataclass(frozen=True)
class Pair:
    """A float model, calibration values for it, and what TensorFlow's converter makes of both."""

    data: ModelData
    x: Array
    file: Path
    theirs: ModelData

    def tensors(self) -> dict[str, str]:
        """Our tensor (of the lowered graph) -> TensorFlow's: the nodes stand in the same order."""
        ours, theirs = lower(self.data).graph, self.theirs.graph
        pairs = zip(ours.nodes, theirs.nodes, strict=True)
        return dict(zip(ours.inputs, theirs.inputs, strict=True)) | {a.output: b.output for a, b in pairs}

    def given(self) -> dict[str, Quantization]:
        """TensorFlow's parameters under our names."""
        found = {a: self.theirs.graph.tensors[b].quantization for a, b in self.tensors().items()}
        return {name: q for name, q in found.items() if q is not None}


@pytest.fixture(scope="module")
def pairs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pair]:
    if not importlib.util.find_spec("tensorflow"):
        pytest.skip("compares with TensorFlow's converter: pip install 'npmobilenet[tf]'")
    folder = tmp_path_factory.mktemp("tensorflow")
    floats = {"everything": everything()}
    floats |= {key: convert_checkpoint(data / "golden" / "slim" / name / "model.ckpt") for key, name in GOLDENS.items()}
    values: dict[str, Array] = {"everything": everything_input()}
    photos = open_images(data / "images" / "imagenet100", 6)
    files: list[str] = []
    for key, model in floats.items():
        if key not in values:
            values[key] = np.concatenate([Model(model).preprocess(source) for _, source in photos])
        weightfile.write(folder / f"{key}.h5", model)
        np.save(folder / f"{key}.npy", values[key])
        files += [str(folder / f"{key}{suffix}") for suffix in (".h5", ".npy", ".tflite")]
    tool = [sys.executable, str(ROOT / "tools" / "make_tf_quantized.py"), *files]
    done = subprocess.run(tool, capture_output=True, text=True, check=False, timeout=300, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    return {
        key: Pair(model, values[key], folder / f"{key}.tflite", convert_tflite(folder / f"{key}.tflite"))
        for key, model in floats.items()
    }


def compare(made: ModelData, theirs: ModelData, tolerance: float) -> None:
    """The same nodes; every scale within `tolerance`, every zero point and every weight equal, biases with 0."""
    for a, b in zip(made.graph.nodes, theirs.graph.nodes, strict=True):
        assert (a.op, _attrs(a)) == (b.op, _attrs(b)), a.name
        for name, other in zip((*a.inputs, a.output), (*b.inputs, b.output), strict=True):
            ours, its = made.graph.tensors[name], theirs.graph.tensors[other]
            assert (ours.shape, ours.dtype, ours.constant) == (its.shape, its.dtype, its.constant), name
            q, r = ours.quantization, its.quantization
            assert q is not None, name
            assert r is not None, name
            assert (q.axis, q.zero_point) == (r.axis, r.zero_point), name
            relative = np.abs(np.array(q.scale) / np.array(r.scale) - 1).max()
            assert relative <= (0 if ours.constant and ours.dtype == "int8" else tolerance), f"{name}: {relative}"
            if ours.constant and (ours.dtype == "int8" or tolerance == 0):
                assert np.array_equal(made.tensors[name], theirs.tensors[other]), name


def _attrs(node: Node) -> dict[str, Any]:
    return {key: value for key, value in node.attrs.items() if (key, value) != ("dilation", (1, 1))}


@pytest.mark.parametrize("case", CASES)
def test_equal_to_tensorflows_converter(pairs: dict[str, Pair], case: str) -> None:
    """From the same images: weights and their scales equal, activations' scales within 1e-5, zero points equal.

    1e-5: TensorFlow calibrates with its own float kernels, whose sums are added in another order. On EdgeTPU's last
    layers that shows as up to 1.1e-5 in the largest value of some images (none of these six), of which TensorFlow's
    own distance from a float64 computation is the larger part: 6.8e-6, against 4.2e-6 for this engine.
    """
    pair = pairs[case]
    compare(quantize(pair.data, calibrate(pair.data, [pair.x]).ranges), pair.theirs, 1e-5)


@pytest.mark.parametrize("case", CASES)
def test_identical_given_the_converters_ranges(pairs: dict[str, Pair], case: str) -> None:
    """Every scale, zero point, weight and bias."""
    pair = pairs[case]
    compare(quantize(pair.data, pair.given()), pair.theirs, 0)


# ---------------------------------------------------------------------------------------------------------------------
# Run, beside LiteRT's reference kernels


def integer_inputs(model: ModelData, x: Array) -> Array:
    tensor = model.graph.tensors[model.graph.inputs[0]]
    q = tensor.quantization
    assert q is not None
    return preprocess.quantize_input(x, q.scale[0], q.zero_point[0], tensor.dtype)


@pytest.mark.parametrize("case", CASES)
def test_outputs_equal_the_converters_file_in_litert(pairs: dict[str, Pair], case: str) -> None:
    """With the converter's ranges: every tensor of every image, bit for bit."""
    pair = pairs[case]
    made = quantize(pair.data, pair.given())
    peer = Peer(pair.file, "tflite-reference")
    names = {a: int(pair.theirs.graph.tensors[b].source.removeprefix("#")) for a, b in pair.tensors().items()}
    for x in integer_inputs(made, pair.x[:3]):
        _, ours = Model(made).run(x[None], taps=[n for n in names if n not in made.graph.inputs])
        theirs = peer.run(x[None])
        for name, values in ours.items():
            assert np.array_equal(values, theirs[names[name]]), name


@pytest.mark.parametrize("ports", ["int8", "uint8", "float32"])
@pytest.mark.parametrize("scheme", ["int8", "uint8"])
@pytest.mark.parametrize("dialect", ["tflite-reference", "tflite-optimized"])
def test_every_op_equals_litert(scheme: str, ports: str, dialect: str) -> None:
    """The graph with every op, written as a .tflite file: bit for bit in LiteRT, tensor by tensor."""
    data, x = everything(), everything_input()
    made = quantize(data, calibrate(data, [x]).ranges, scheme, ports)
    content, index = to_tflite(made)
    peer = Peer(content, dialect)
    entering = x if ports == "float32" else integer_inputs(made, x)
    names = [node.output for node in made.graph.nodes]
    _, ours = Model(made, dialect=dialect).run(entering, taps=names, check_range=False)
    for i, image in enumerate(entering):
        theirs = peer.run(image[None])
        for name in names:
            assert np.array_equal(ours[name][i], theirs[index[name]][0]), name


def test_the_quantized_model_is_near_the_float_one(data: Path) -> None:
    """On photographs that weren't calibrated with: the same class for 9 of 10, scores 0.02 off on average."""
    source = weightfile.read(ROOT / "weights" / "flowers.h5")
    archive = data / "datasets" / "flowers144.npz"
    ranges = calibrate(source, open_images(archive, 32), exact=True, threads=1).ranges
    images = [image for _, image in open_images(archive, 24, "val")]
    exact = Model(source, threads=1)
    expected = exact.run(exact.preprocess(images))
    for scheme in ("int8", "uint8"):
        model = Model(quantize(source, ranges, scheme), threads=1)
        got = (model.run(model.preprocess(images)).astype(np.float32) - model.output.zero_point) / 256
        assert (got.argmax(1) == expected.argmax(1)).mean() >= 0.9
        assert np.abs(got - expected).mean() < 0.02


# ---------------------------------------------------------------------------------------------------------------------
# The shipped twin


def test_the_shipped_twin_is_within_a_point_of_the_float_model(data: Path) -> None:
    """And what its file says of its accuracy is so."""
    with np.load(data / "datasets" / "flowers144.npz", allow_pickle=False) as flowers:
        blob, offsets, labels = flowers["val_jpeg"].tobytes(), flowers["val_offsets"], flowers["val_labels"]
    model = load("flowers_uint8", threads=1)  # as fast as two where the machine is shared
    right = 0
    for first in range(0, len(labels), 8):
        images = [blob[offsets[i] : offsets[i + 1]] for i in range(first, min(first + 8, len(labels)))]
        right += int((model.run(model.preprocess(images)).argmax(1) == labels[first : first + 8]).sum())
    facts = model.info.provenance
    assert f"({right} of {len(labels)})" in facts["accuracy"]
    matched = re.search(r"\((\d+) of 736\)", facts["float_accuracy"])
    assert matched
    assert int(matched[1]) - right <= 0.01 * len(labels)


def test_the_shipped_twin_is_what_the_float_model_gives() -> None:
    """Weights, names and facts are the float file's; inputs and outputs are uint8; below a million bytes."""
    path = ROOT / "weights" / "flowers_uint8.h5"
    made, source = (weightfile.read(p) for p in (path, ROOT / "weights" / "flowers.h5"))
    assert path.stat().st_size < 1_000_000
    assert made.info.provenance["float_sha256"] == weightfile.sha256(ROOT / "weights" / "flowers.h5")
    again = quantize(source, {n: q for n, t in made.graph.tensors.items() if (q := t.quantization)}, "uint8")
    assert set(again.tensors) == set(made.tensors) == set(source.tensors)
    assert all(np.array_equal(array, made.tensors[name]) for name, array in again.tensors.items())
    assert again.graph == dataclasses.replace(made.graph, name=again.graph.name)
    assert made.info.labels == source.info.labels
    assert "training split" in made.info.provenance["calibration"]


def test_the_command_line_classifies_with_the_twin() -> None:
    testing = pytest.importorskip("click.testing", reason="the command line needs the extra [cli]")
    from npmobilenet.cli.app import app

    result = testing.CliRunner().invoke(app, ["classify", "--model", "flowers_uint8", "--json"])
    [image] = json.loads(result.stdout)["images"]
    assert image["predictions"][0]["label"] == "sunflowers"
    assert 0.5 < image["predictions"][0]["score"] <= 1
