"""Cross-layer equalization and bias correction: the float function stays, one scale for each tensor is enough."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from models import random_weights

from npmobilenet.errors import InputError
from npmobilenet.formats.model_path import load_data
from npmobilenet.graph import GraphBuilder
from npmobilenet.model import Model
from npmobilenet.modeldata import ModelData, ModelInfo
from npmobilenet.quantize import calibrate, equalize, open_images, parameters, quantize
from npmobilenet.quantize.equalize import bias_error, pairs


def uneven(act: str = "relu") -> ModelData:
    """Two bottlenecks whose channels differ a thousandfold, with a residual, a pool and a dense layer."""
    b = GraphBuilder("uneven")
    plain, pad, one = ((0, 0), (0, 0)), ((1, 1), (1, 1)), (1, 1)
    x = b.input("x", (1, 8, 8, 4))

    def c(name: str, *shape: int) -> list[str]:
        return [b.constant(f"{name}/w", shape), b.constant(f"{name}/b", shape[-1:])]

    expand = b.node("conv2d", [x, *c("expand", 1, 1, 4, 12)], "expand", stride=one, padding=plain, activation=act)
    dw = b.node("depthwise_conv2d", [expand, *c("depthwise", 3, 3, 12)], "dw", stride=one, padding=pad, activation=act)
    down = b.node("conv2d", [dw, *c("down", 1, 1, 12, 4)], "down", stride=one, padding=plain)
    total = b.node("add", [x, down], "sum")
    last = b.node("conv2d", [total, *c("last", 1, 1, 4, 12)], "last", stride=one, padding=plain, activation=act)
    pool = b.node("average_pool", [last], "pool", kernel=(8, 8), stride=one, padding=plain)
    flat = b.node("reshape", [pool], "flat", shape=(1, 12))
    b.node("fully_connected", [flat, *c("fc", 12, 5)], "fc")
    graph = b.finish(["fc"])
    arrays = random_weights(graph)
    spread = np.float32(10) ** np.linspace(-1.5, 1.5, 12, dtype=np.float32)
    for wide, narrow in (("expand", "depthwise"), ("last", "fc")):
        arrays[f"{wide}/w"] *= spread
        arrays[f"{wide}/b"] = np.full(12, 0.1, np.float32) * spread
        arrays[f"{narrow}/w"] /= spread if narrow == "depthwise" else spread[:, None]
    return ModelData(graph, arrays, ModelInfo("uneven"))


def values(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 8, 8, 4)).astype(np.float32)


def test_the_layers_that_are_paired() -> None:
    """A residual sum ends a chain; a pool and a reshape don't, and what an output shows isn't scaled."""
    found = [(pair.first.name, pair.second.name) for pair in pairs(uneven().graph)]
    assert found == [("expand", "dw"), ("dw", "down"), ("last", "fc")]
    assert not pairs(uneven("hard_swish").graph)


def test_the_float_function_stays() -> None:
    data = uneven()
    x = values(3)
    even = equalize(data, calibrate(data, [x]).peaks)
    expected, got = Model(data).run(x), Model(even).run(x)
    assert np.abs(got - expected).max() <= 1e-5 * np.abs(expected).max()
    sizes = {name: np.abs(even.tensors[name]).max(axis=(0, 1, 2)[: even.tensors[name].ndim - 1]) for name in
             ("expand/w", "depthwise/w", "last/w")}  # fmt: skip
    for name, size in sizes.items():
        before = np.abs(data.tensors[name]).max(axis=tuple(range(data.tensors[name].ndim - 1)))
        assert size.max() / size.min() < 20 < before.max() / before.min(), name
    assert even.info.provenance["equalization"] == "3 pairs of layers"
    twice = equalize(even, {})
    assert all(np.allclose(twice.tensors[n], even.tensors[n], rtol=1e-2) for n in even.tensors)


def test_relu6_stays() -> None:
    """Channels that reach 6 keep their weights, others stay below it: on what was calibrated with nothing changes."""
    data = uneven("relu6")
    x = 4 * values(16)
    peaks = calibrate(data, [x]).peaks
    even = equalize(data, peaks)
    assert [n.attrs.get("activation", "none") for n in even.graph.nodes[:2]] == ["relu6", "relu6"]
    expected, got = (Model(model).run(x, check_range=False) for model in (data, even))
    assert np.abs(got - expected).max() <= 1e-5 * np.abs(expected).max()
    full = peaks["expand"] >= 6
    assert 0 < full.sum() < full.size
    same = even.tensors["expand/w"] == data.tensors["expand/w"]
    assert same[..., full].all()
    assert not same[..., ~full].any()
    with pytest.raises(InputError, match="calibrate"):
        equalize(data, {})


@pytest.mark.parametrize("scheme", ["uint8", "int8"])
def test_it_brings_the_quantized_model_nearer(scheme: str) -> None:
    """Far nearer with one scale for each tensor."""
    data, x = uneven(), values(32)
    expected = Model(data).run(values(64, 1))

    def off(model: ModelData, corrected: bool) -> float:
        found = calibrate(model, [x])
        made = quantize(model, found.ranges, scheme, "float32", means=found.means if corrected else None)
        return float(np.sqrt(np.mean((Model(made).run(values(64, 1)) - expected) ** 2)))

    uniform = equalize(data, calibrate(data, [x]).peaks)
    plain, even, both = off(data, False), off(uniform, False), off(uniform, True)
    assert both < 1.1 * even
    if scheme == "uint8":
        assert even < plain / 3


@pytest.mark.parametrize("op", ["conv2d", "depthwise_conv2d", "fully_connected"])
def test_bias_error_is_the_mean_of_what_rounded_weights_add(op: str) -> None:
    """By hand: every product with the mean of its channel."""
    rng = np.random.default_rng(2)
    shape = {"conv2d": (3, 2, 4, 5), "depthwise_conv2d": (3, 2, 8), "fully_connected": (8, 5)}[op]
    kernel = rng.standard_normal(shape).astype(np.float32)
    rounded = kernel + rng.standard_normal(shape) / 8
    means = rng.standard_normal(4)
    got = bias_error(kernel, rounded, means, op)
    error = rounded - kernel.astype(np.float64)
    expected = np.zeros(shape[-1])
    for index in np.ndindex(shape):
        channel = {"conv2d": index[-2], "depthwise_conv2d": index[-1] // 2, "fully_connected": index[0] % 4}[op]
        expected[index[-1]] += error[index] * means[channel]
    assert np.allclose(got, expected)


def test_real_values_of_integers() -> None:
    kernel = np.random.default_rng(3).standard_normal((3, 3, 2, 6)).astype(np.float32)
    for scheme in ("int8", "uint8"):
        integers, q = parameters.weights(kernel, 3, scheme)
        step = max(q.scale)
        assert np.abs(parameters.real(integers, q) - kernel).max() <= step * 0.5001


def test_means_are_those_of_the_values() -> None:
    data, x = uneven(), values(5)
    found = calibrate(data, [x])
    assert found.means.keys() == {"x", "expand", "dw", "sum", "flat"}
    assert np.allclose(found.means["x"], x.mean(axis=(0, 1, 2), dtype=np.float64))


def test_one_scale_for_each_tensor_is_enough_for_v2(data: Path) -> None:
    """On 100 photographs, one for each class: at least 85 right with --equalize, where 3 were without."""
    model = load_data(data / "weights" / "mobilenet_v2_1.0_224_float.tflite")
    folder = data / "images" / "imagenet100"
    photos = sorted(p for p in folder.iterdir() if p.suffix.lower() in (".jpeg", ".jpg", ".png"))
    images = open_images(folder, 32)
    even = equalize(model, calibrate(model, images).peaks)
    found = calibrate(even, images)
    made = Model(quantize(even, found.ranges, "uint8", means=found.means))
    x = made.preprocess(photos)
    scores = made.run(x).reshape(len(photos), -1)
    names = made.predict(photos[0], top=1001)[0]
    labels = {index: name for index, name, _ in names}
    right = sum(_same(labels[int(best)], photo.stem) for best, photo in zip(scores.argmax(1), photos, strict=True))
    assert right >= 85


def _same(label: str, stem: str) -> bool:
    """Whether a photograph's file, n01558993_robin, is named after the class."""
    plain = "".join(c for c in label.lower() if c.isalnum())
    return "".join(c for c in stem.partition("_")[2].lower() if c.isalnum()) in plain
