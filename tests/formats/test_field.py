"""Files as people have them: each runs, and its integers are LiteRT's, or it is refused with a way that works."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import npmobilenet as nm
from npmobilenet import golden
from npmobilenet.cli.info import _dead
from npmobilenet.errors import ConversionError, InputError, PlanError
from npmobilenet.formats import read_model
from npmobilenet.model import convert

pytest.importorskip("tflite", reason="the extra [convert] is not installed")
from litert import Peer, differing, random_inputs
from tflite_maker import File, Op, T

QUANTIZED = (
    "deeplabv3_mnv2_dm05_uint8", "dscnn_kws_int8", "edge_impulse_head_grey_int8", "edge_impulse_head_rgb_int8",
    "mobilenet_v2_nchw_int8", "teachable_machine_2_uint8",
)  # fmt: skip


# Files that end in an op that nobody has, and where they can be cut.
CUT = {"ssd_mobilenet_v1_uint8": ["#165", "#174"]}


@pytest.mark.equal("files from the field", "fast", "LiteRT 2.3.0 BUILTIN_REF; every tensor", "bits")
@pytest.mark.parametrize("stem", [*QUANTIZED, *CUT])
def test_every_integer_equals_litert(data: Path, stem: str) -> None:
    path = data / "field" / f"{stem}.tflite"
    model, peer = nm.load(path, outputs=CUT.get(stem, [])), Peer(path, "tflite-reference")
    x = random_inputs(peer.inputs, 0)[0]
    _, taps = model.run(x, taps="*", check_range=False)
    compared = 0
    for index, expected in peer.run(x).items():
        name = model.graph.endpoints.get(f"#{index}")
        if name is not None:
            wrong = taps[name].ravel() != expected.ravel()
            assert not wrong.any(), f"#{index} '{name}': {wrong.sum()} of {wrong.size} values differ"
            compared += 1
    assert compared >= len(model.graph.nodes) - 2


def test_info_tells_of_dead_channels(data: Path) -> None:
    dead = _dead(read_model(data / "field" / "teachable_machine_2_uint8.tflite"))
    assert sorted(dead.values()) == [1, 5]


# -- Dense on every pixel: FULLY_CONNECTED reads its input as rows -----------------------------------------------------


def int8(shape: tuple[int, ...], scale: float = 0.05, zero_point: int = -7) -> T:
    return T(shape, type="int8", scale=(scale,), zero_point=(zero_point,))


def dense_constants(rng: Any, units: int, features: int) -> list[T]:
    """Weights and bias for an input of scale 0.05."""
    weights = rng.integers(-127, 128, (units, features)).astype(np.int8)
    bias = rng.integers(-2000, 2000, units).astype(np.int32)
    return [T(data=weights, scale=(0.01,), zero_point=(0,)), T(data=bias, scale=(0.0005,), zero_point=(0,))]


def dense_file(shape: tuple[int, ...], features: int, keep: bool, rng: Any) -> File:
    rows = int(np.prod(shape)) // features
    out = (*shape[:-1], 5) if keep else (rows, 5)
    options = ("FullyConnectedOptions", {"KeepNumDims": keep, "FusedActivationFunction": 1})
    tensors = [int8(shape), *dense_constants(rng, 5, features), int8(out, 0.1)]
    return File(tensors, [Op("FULLY_CONNECTED", [0, 1, 2], [3], options)])


def edge_impulse_head(rng: Any) -> File:
    """RESHAPE to (pixels, channels), Dense, RESHAPE to (1, all), Dense."""
    weights = [*dense_constants(rng, 8, 16), *dense_constants(rng, 3, 72)]
    shapes = [T(data=np.array(s, np.int32)) for s in ((-1, 16), (-1, 72))]
    tensors = [int8((1, 3, 3, 16)), int8((9, 16)), int8((9, 8)), int8((1, 72)), int8((1, 3)), *shapes, *weights]
    dense = ("FullyConnectedOptions", {"FusedActivationFunction": 0})
    return File(
        tensors,
        [
            Op("RESHAPE", [0, 5], [1]),
            Op("FULLY_CONNECTED", [1, 7, 8], [2], dense),
            Op("RESHAPE", [2, 6], [3]),
            Op("FULLY_CONNECTED", [3, 9, 10], [4], dense),
        ],
    )


@pytest.mark.equal("fully connected layers by rows", "fast", "LiteRT 2.3.0, made files, each resolver", "bits")
@pytest.mark.parametrize("peer", ["tflite-reference", "tflite-optimized", "xnnpack"])
@pytest.mark.parametrize("kernels", ["fast", "reference"])
def test_dense_layers_by_rows(tmp_path: Path, peer: str, kernels: str) -> None:
    rng = np.random.default_rng(3)
    files = [
        dense_file((1, 3, 2, 12), 12, True, rng), dense_file((1, 7, 12), 12, True, rng),
        dense_file((1, 7, 12), 12, False, rng), dense_file((1, 3, 2, 12), 24, False, rng),
        dense_file((1, 3, 2, 4), 24, False, rng), edge_impulse_head(rng),
    ]  # fmt: skip
    for file in files:
        path = tmp_path / "made.tflite"
        path.write_bytes(file.bytes())
        model, lite = nm.load(path, kernels, peer), Peer(path, peer)
        x = random_inputs(lite.inputs, 5)[0]
        expected = lite.run(x)
        assert not differing(model.run(x, taps=[f"#{index}" for index in expected])[1], expected)


def test_rows_that_mix_images_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "made.tflite"
    path.write_bytes(dense_file((2, 6), 12, False, np.random.default_rng(0)).bytes())
    with pytest.raises(ConversionError, match=r"an input of shape \(2, 6\) for weights of 12 inputs"):
        nm.load(path)


def test_a_value_of_a_dense_layer_by_rows_is_explained(tmp_path: Path) -> None:
    path = tmp_path / "made.tflite"
    path.write_bytes(edge_impulse_head(np.random.default_rng(4)).bytes())
    model = nm.load(path)
    x = np.random.default_rng(5).integers(-128, 128, (2, *model.input.shape[1:]), np.int8)
    values = model.run(x, taps=["#2", "acc:#2"])[1]
    found = golden.explain(path, x, "#2", (1, 7, 3))
    assert found.value == values["#2"][1, 7, 3]
    assert found.accumulator == values["acc:#2"][1, 7, 3]


# -- Up to the op that nobody has --------------------------------------------------------------------------------------


@pytest.mark.parametrize("stem", CUT)
def test_a_refusal_names_the_call_that_works(data: Path, stem: str) -> None:
    path = data / "field" / f"{stem}.tflite"
    with pytest.raises(ConversionError, match="What you can do: run it up to there") as caught:
        nm.load(path)
    call = f"npmobilenet.load({str(path)!r}, outputs={CUT[stem]})"
    assert call in str(caught.value)
    assert eval(call, {"npmobilenet": nm}).graph.outputs


def detector() -> File:
    """Two heads; a custom op reads both, an unknown one what it gives, and a third output doesn't depend on them."""
    tensors = [T((1, 4, 4, 3)), *(T(None, name=name) for name in ("boxes", "scores", "same", "found", "last", "other"))]
    tensors[3].name = "boxes"  # a name that occurs twice
    return File(
        tensors,
        [
            Op("RELU", [0], [1]),
            Op("LOGISTIC", [0], [2]),
            Op("CUSTOM", [1, 2], [4], custom="Detect"),
            Op("RELU6", [1], [3]),
            Op("FLOOR", [4], [5]),
            Op("HARD_SWISH", [3], [6]),
        ],
        outputs=(5, 6),
    )


def test_a_file_is_cut_at_tensors(tmp_path: Path) -> None:
    path = tmp_path / "it's a file.tflite"
    path.write_bytes(detector().bytes())
    with pytest.raises(ConversionError) as caught:
        nm.load(path)
    assert "unsupported: op 2 (custom op 'Detect'), op 4 (FLOOR)" in str(caught.value)
    assert "--until '#6' --until '#1' --until '#2'" in str(caught.value)
    model = nm.load(path, outputs=["scores", "boxes_3"])
    assert model.graph.outputs == ("scores", "boxes_3")
    assert model.info.provenance["outputs"] == "scores, boxes_3"
    x = np.random.default_rng(0).uniform(-1, 1, (2, 4, 4, 3)).astype(np.float32)
    first, taps = model.run(x, taps=model.graph.outputs)
    assert np.array_equal(first, taps["scores"])
    assert np.array_equal(taps["boxes_3"], np.clip(x, 0, 6))
    assert nm.load(path, outputs="#1").graph.outputs == ("boxes",)
    assert not nm.load(path, outputs=["t0"]).graph.nodes
    with pytest.raises(PlanError, match="no tensor 'scoers' is computed in the file; did you mean one of 'scores'"):
        nm.load(path, outputs=["scoers"])
    with pytest.raises(ConversionError, match=r"unsupported: op 2 \(custom op 'Detect'\)$"):
        nm.load(path, outputs=["#4"])


def test_any_model_is_cut_at_tensors(tmp_path: Path) -> None:
    path = tmp_path / "made.tflite"
    path.write_bytes(detector().bytes())
    convert(path, tmp_path / "made.h5", outputs=["other", "scores"])
    assert nm.load(tmp_path / "made.h5").graph.outputs == ("other", "scores")
    model = nm.load(tmp_path / "made.h5", outputs=["#3"])
    assert (model.graph.outputs, [node.op for node in model.graph.nodes]) == (("boxes_3",), ["activation"] * 2)
    with pytest.raises(PlanError, match="'made' has no tensor 'scores'"):
        nm.Model(model.data.until(["scores"]))


def test_a_dump_ends_where_it_is_told(tmp_path: Path) -> None:
    path = tmp_path / "made.tflite"
    path.write_bytes(detector().bytes())
    dump = golden.record(path, "random:0", tmp_path / "dump", until=["#2"])
    assert {entry.name for entry in dump.manifest.entries} == {"t0", "scores"}
    model = nm.load(path, outputs=["#1", "#2"])
    again = golden.record(model, "random:0", tmp_path / "again", until=["#2"])
    assert again.manifest.entries == dump.manifest.entries


# -- Channels in front, pixels without a scale -------------------------------------------------------------------------


def channels_in_front() -> File:
    """A float32 input (1, 3, 8, 6), TRANSPOSE, MEAN over height and width, SOFTMAX."""
    tensors = [T((1, 3, 8, 6)), T(data=np.array([0, 2, 3, 1], np.int32)), T((1, 8, 6, 3)),
               T(data=np.array([1, 2], np.int32)), T((1, 3)), T((1, 3))]  # fmt: skip
    return File(
        tensors,
        [
            Op("TRANSPOSE", [0, 1], [2]),
            Op("MEAN", [2, 3], [4], ("ReducerOptions", {"KeepDims": False})),
            Op("SOFTMAX", [4], [5], ("SoftmaxOptions", {"Beta": 1.0})),
        ],
    )


def test_pictures_with_channels_in_front(tmp_path: Path) -> None:
    path = tmp_path / "made.tflite"
    path.write_bytes(channels_in_front().bytes())
    model = nm.load(path)
    picture = np.zeros((20, 30, 3), np.uint8)
    picture[..., 1] = 255
    x = model.preprocess(picture)
    assert (x.shape, x.flags.c_contiguous) == ((1, 3, 8, 6), True)
    assert (x[0, 1] == 1).all()
    assert model.predict([picture, picture])[1][0][0] == 1
    with pytest.raises(InputError, match=r"channels come first \(NCHW\): x.transpose\(0, 3, 1, 2\)"):
        model.run(np.zeros((1, 8, 6, 3), np.float32))


def test_a_real_file_with_channels_in_front(data: Path) -> None:
    model = nm.load(data / "field" / "mobilenet_v2_nchw_int8.tflite")
    photo = str(sorted((data / "images" / "photos").iterdir())[0])
    assert model.preprocess(photo).shape == (1, 3, 224, 224)
    assert model.info.preprocessing == "torchvision"


def test_cast_of_bare_pixels(tmp_path: Path) -> None:
    tensors = [T((1, 4, 4, 3), type="uint8"), T((1, 4, 4, 3)), T(data=np.float32(0.5)), T((1, 4, 4, 3))]
    file = File(tensors, [Op("CAST", [0], [1]), Op("MUL", [1, 2], [3], ("MulOptions", {}))])
    path = tmp_path / "made.tflite"
    path.write_bytes(file.bytes())
    model, peer = nm.load(path), Peer(path, "tflite-reference")
    x = random_inputs(peer.inputs, 0)[0]
    assert not differing(model.run(x, taps=["#1", "#3"])[1], peer.run(x))
    assert model.info.preprocessing == "raw_pixels"
