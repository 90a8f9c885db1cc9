"""EfficientNet-Lite, MnasNet and MobileNetV4 as .tflite files: float and int8, beside LiteRT, tensor by tensor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from litert import Peer, differing
from models import random_weights
from tflite_export import to_tflite

import npmobilenet as nm
from npmobilenet.modeldata import ModelData, ModelInfo
from npmobilenet.quantize import calibrate, quantize
from npmobilenet.quantize.lower import lower
from npmobilenet.zoo import SPECS
from npmobilenet.zoo.build import build
from npmobilenet.zoo.rows import Conv, Invert, Row, Spec


def blocks(*stages: tuple[int, int, int, float, int, bool]) -> tuple[Row, ...]:
    """Rows of (repeats, kernel, stride, expansion, channels, squeeze-excite); the first of a stage has the stride."""
    return tuple(
        Invert(k=kernel, s=stride if i == 0 else 1, expand=expand, out=out, se=se)
        for repeats, kernel, stride, expand, out, se in stages
        for i in range(repeats)
    )


# tensorflow/tpu models/official/efficientnet/lite/efficientnet_lite_builder.py (efficientnet-lite0): EfficientNet-B0
# without squeeze-excite, with relu6.
LITE = Spec(
    family="efficientnet_lite0", scope="EfficientNetLite", act="relu6",
    rows=(
        Conv(k=3, s=2, out=32),
        *blocks((1, 3, 1, 1, 16, False), (2, 3, 2, 6, 24, False), (2, 5, 2, 6, 40, False), (3, 3, 2, 6, 80, False),
                (3, 5, 1, 6, 112, False), (4, 5, 2, 6, 192, False), (1, 3, 1, 6, 320, False)),
        Conv(k=1, out=1280),
    ),
)  # fmt: skip
# tensorflow/tpu models/official/mnasnet/mnasnet_models.py (mnasnet_a1): squeeze-excite with a logistic gate.
MNASNET = Spec(
    family="mnasnet_a1", scope="MnasNet", act="relu", se_gate="sigmoid",
    rows=(
        Conv(k=3, s=2, out=32),
        *blocks((1, 3, 1, 1, 16, False), (2, 3, 2, 6, 24, False), (3, 5, 2, 3, 40, True), (4, 3, 2, 6, 80, False),
                (2, 3, 1, 6, 112, True), (3, 5, 2, 6, 160, True), (1, 3, 1, 6, 320, False)),
        Conv(k=1, out=1280),
    ),
)  # fmt: skip
RELATIVES = {"efficientnet_lite0": LITE, "mnasnet_a1": MNASNET, "v4_conv_small": SPECS["v4_conv_small"]}


def made(name: str) -> ModelData:
    """The architecture at a width of 0.35, for images of 64 x 64 and 10 classes, with random weights."""
    graph = build(RELATIVES[name], depth_multiplier=0.35, resolution=64, num_classes=10, global_pool=True)
    return ModelData(graph, random_weights(graph, 3), ModelInfo(name))


def picture(count: int, seed: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (count, 64, 64, 3)).astype(np.float32)


@pytest.mark.equal(
    "zoo", "fast", "LiteRT 2.3.0; EfficientNet-Lite0, MnasNet-A1, MobileNetV4", "1e-4 * max(1, max|expected|)"
)
@pytest.mark.parametrize("name", RELATIVES)
def test_float_relatives_run(tmp_path: Path, name: str) -> None:
    pytest.importorskip("ai_edge_litert", reason="the LiteRT package is in the [test] extra")
    content, _ = to_tflite(lower(made(name)))  # a gate is an op of its own in TFLite
    (tmp_path / "m.tflite").write_bytes(content)
    model, peer, x = nm.load(tmp_path / "m.tflite", threads=1), Peer(content, "tflite-reference"), picture(1)
    _, ours = model.run(x, taps="#*")
    theirs = peer.run(x)
    assert len(set(ours) & {f"#{i}" for i in theirs}) > 50
    for index, expected in theirs.items():
        if f"#{index}" in ours:
            far = float(np.abs(ours[f"#{index}"].reshape(expected.shape) - expected).max())
            assert far <= 1e-4 * max(1.0, float(np.abs(expected).max())), index


@pytest.mark.equal("zoo", "fast", "LiteRT 2.3.0; EfficientNet-Lite0, MnasNet-A1, MobileNetV4 in int8", "bits")
@pytest.mark.parametrize("name", RELATIVES)
def test_int8_relatives_run(tmp_path: Path, name: str) -> None:
    pytest.importorskip("ai_edge_litert", reason="the LiteRT package is in the [test] extra")
    data = made(name)
    content, _ = to_tflite(quantize(data, calibrate(data, [picture(4)]).ranges, "int8", "int8"))
    (tmp_path / "m.tflite").write_bytes(content)
    model, peer = nm.load(tmp_path / "m.tflite", threads=1), Peer(content, "tflite-reference")
    x = np.random.default_rng(1).integers(-128, 127, (1, 64, 64, 3), np.int8, endpoint=True)
    _, ours = model.run(x, taps="#*")
    theirs = peer.run(x)
    assert len(set(ours) & {f"#{i}" for i in theirs}) > 50
    assert not differing(ours, theirs)
