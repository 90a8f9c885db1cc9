"""Quantized models from other hands: every tensor equals LiteRT's, dialect by dialect, on random inputs and photos.

25 inputs for each file and dialect, so that this takes about a minute on one core; LiteRT's reference kernels need
most of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from litert import Array, Peer, random_inputs

import npmobilenet as nm
from npmobilenet.model import Model

TOOLS = Path(__file__).parents[2] / "tools"
RANDOM, PHOTOS = 20, 5
FILES = (
    "coral_mobilenet_v2_1.0_224_quant", "coral_tf2_mobilenet_v2_1.0_224_ptq", "mlperf_tiny_vww_96_int8",
    "mobilenet_edgetpu_224_1.0_uint8", "mobilenet_v1_0_25_128_quant", "mobilenet_v1_0_5_160_quant",
    "mobilenet_v2_0_5_96_quant", "mobilenet_v2_0_75_160_quant", "mobilenet_v2_1_0_224_quant", "v3-small_224_1.0_uint8",
)  # fmt: skip
FLOAT = ("mediapipe_mobilenet_v3_small_075_224_embedder", "mobilenet_v1_0.25_128", "mobilenet_v2_1.0_224_float")
REFUSED = "person_detect"  # its biases' quantized_dimension is 3, as in its weights; LiteRT 2.3.0 checks that


def test_no_file_is_left_out(data: Path) -> None:
    found = {path.stem for path in (data / "weights").glob("*.tflite")}
    assert found == {*FILES, *FLOAT, REFUSED}


@pytest.mark.parametrize("dialect", ["tflite-reference", "tflite-optimized", "xnnpack"])
def test_litert_refuses_one(data: Path, dialect: str) -> None:
    """So there is nothing to compare with; this engine runs it."""
    path = data / "weights" / f"{REFUSED}.tflite"
    with pytest.raises(ValueError, match="quantized_dimension must be in range"):
        Peer(path, dialect)
    model = nm.load(path, dialect=dialect)
    x = np.random.default_rng(0).integers(-128, 128, model.input.shape, np.int8)
    assert model.run(x).shape == model.output.shape


def photos(data: Path) -> list[Path]:
    return sorted((data / "images" / "photos").iterdir())[:PHOTOS]


def inputs_of(model: Model, peer: Peer, data: Path) -> Iterator[Array]:
    """Batches of PHOTOS: whole-range noise, then photos by the model's own recipe, quantized by its input's scale."""
    for first in range(0, RANDOM, PHOTOS):
        yield np.concatenate([random_inputs(peer.inputs, seed)[0] for seed in range(first, first + PHOTOS)])
    yield model.preprocess([str(p) for p in photos(data)])


def names_by_index(model: Model) -> dict[int, str]:
    """Tensor index in the file -> name in the graph, for what the graph computes."""
    tensors = model.graph.tensors.items()
    return {int(t.source.removeprefix("#")): name for name, t in tensors if t.source and not t.constant}


def compare(model: Model, peer: Peer, batch: Array) -> set[int]:
    """Assert that all tensors that both have are equal, for each input of a batch; which these are."""
    names = names_by_index(model)
    _, ours = model.run(batch, taps="*", check_range=False)
    compared = set()
    for i in range(len(batch)):
        for index, expected in peer.run(batch[i : i + 1]).items():
            if index in names:
                got = ours[names[index]][i]
                assert got.dtype == expected.dtype
                wrong = got.ravel() != expected.ravel()
                assert not wrong.any(), f"#{index} '{names[index]}': {wrong.sum()} of {wrong.size} values differ"
                compared.add(index)
    return compared


@pytest.mark.equal("quantized files", "fast", "LiteRT 2.3.0, each resolver; every readable tensor of ten files", "bits")
@pytest.mark.parametrize("dialect", ["tflite-reference", "tflite-optimized", "xnnpack"])
@pytest.mark.parametrize("stem", FILES)
def test_every_tensor(data: Path, stem: str, dialect: str) -> None:
    """Every one that LiteRT lets see: all, but for XNNPACK's, of which the outputs."""
    path = data / "weights" / f"{stem}.tflite"
    model, peer = nm.load(path, dialect=dialect), Peer(path, dialect)
    details = peer.interpreter._get_ops_details()
    if dialect == "xnnpack":
        wanted = {int(d["index"]) for d in peer.interpreter.get_output_details()}
        assert any(op["op_name"] == "DELEGATE" for op in details)
    else:
        wanted = {int(i) for op in details for i in op["outputs"]}
    for batch in inputs_of(model, peer, data):
        assert compare(model, peer, batch) == wanted


# For one uint8 file and two int8 ones (one has additions and a mean, the other an average pool and a fully connected
# layer): every value inside the delegate, through copies that end there. EdgeTPU's: what the delegate leaves alone.
CUT = {
    "mobilenet_v2_0_5_96_quant": 3, "coral_tf2_mobilenet_v2_1.0_224_ptq": 1, "mlperf_tiny_vww_96_int8": 3,
    "mobilenet_edgetpu_224_1.0_uint8": 1, "v3-small_224_1.0_uint8": 1,
}  # fmt: skip
OPS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "ADD", "MUL", "AVERAGE_POOL_2D", "MEAN", "HARD_SWISH")


@pytest.mark.equal("quantized files", "fast, xnnpack", "LiteRT's XNNPACK delegate; files cut off after each op", "bits")
@pytest.mark.skipif(not TOOLS.is_dir(), reason="this platform has no checkout: tools/ is not installed")
@pytest.mark.parametrize("stem", CUT)
def test_inside_the_delegate(data: Path, stem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(TOOLS))
    tool = __import__("cut_tflite")
    path = data / "weights" / f"{stem}.tflite"
    content = path.read_bytes()
    model = nm.load(path, dialect="xnnpack")
    names = names_by_index(model)
    peer = Peer(path, "xnnpack")
    inputs = [random_inputs(peer.inputs, 100 + seed)[0] for seed in range(CUT[stem])]
    inputs.append(model.preprocess(str(photos(data)[0])))
    ours = model.run(np.concatenate(inputs), taps="*", check_range=False)[1]
    compared = 0
    for index in tool.computed_by(tool.parse(content), *OPS):
        copy = Peer(tool.cut(content, index), "xnnpack")
        for i, x in enumerate(inputs):
            expected = copy.run(x)[index]
            wrong = ours[names[index]][i].ravel() != expected.ravel()
            assert not wrong.any(), f"#{index} '{names[index]}': {wrong.sum()} of {wrong.size} values differ"
            compared += 1
    assert compared >= 30 * len(inputs) or stem.startswith("mlperf")
