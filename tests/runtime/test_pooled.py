"""`Model.features`: the pooled layer under one name for every family and source, as vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cases import same_bits
from models import tiny

import npmobilenet as nm
from npmobilenet.errors import InputError
from npmobilenet.graph import Graph, GraphBuilder, Quantization
from npmobilenet.images.inputs import Port
from npmobilenet.runtime.pooled import as_vectors, layer_of, pooled_layer, unit_length
from npmobilenet.zoo import SPECS
from npmobilenet.zoo.build import build


@pytest.mark.parametrize("family", SPECS)
def test_every_family_of_the_zoo(family: str) -> None:
    graph = build(SPECS[family], resolution=64)
    name = "AvgPool_1a" if family == "v1" else "global_pool"
    assert pooled_layer(graph) == graph.endpoints[name]


def head(*layers: str, pool: str = "average_pool") -> Graph:
    """A map, a pool, and these layers behind it: "conv/hard_swish", "dense/relu", "hard_swish" alone, "softmax"."""
    b = GraphBuilder("made")
    x = b.input("x", (1, 2, 2, 8))
    gate = b.node("mean", [x], "gate", keepdims=True)
    x = b.node("mul", [x, gate], "map")
    attrs = {"keepdims": True} if pool == "mean" else {"kernel": (2, 2), "stride": (1, 1), "padding": ((0, 0), (0, 0))}
    x = b.node(pool, [x], "the pool", **attrs)
    for i, layer in enumerate(layers):
        op, _, function = layer.partition("/")
        if op == "conv":
            inputs = [x, b.constant(f"w{i}", (1, 1, 8, 8)), b.constant(f"b{i}", (8,))]
            x = b.node("conv2d", inputs, layer, stride=(1, 1), padding=((0, 0), (0, 0)), activation=function or "none")
        elif op == "dense":
            flat = b.node("reshape", [x], f"flat{i}", shape=(1, 8))
            inputs = [flat, b.constant(f"w{i}", (8, 8)), b.constant(f"b{i}", (8,))]
            x = b.node("fully_connected", inputs, layer, activation=function or "none")
        elif op == "softmax":
            x = b.node("softmax", [x], layer, beta=1.0)
        else:
            x = b.node("activation", [x], layer, function=op)
    return b.finish([x])


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (("dense", "softmax"), "the pool"),
        (("dense/relu", "dense", "softmax"), "the pool"),  # Teachable Machine's head
        (("conv", "hard_swish", "conv/none"), "hard_swish"),  # V3 of Keras
        (("conv/hard_swish", "dense"), "conv/hard_swish"),  # and as torchvision has it in a .tflite
        (("dense/hard_swish", "dense"), "dense/hard_swish"),
        (("conv/relu", "dense", "softmax"), "conv/relu"),  # V4 of timm
        (("conv/hard_swish",), "conv/hard_swish"),  # without its classifier
        (("conv/relu",), "the pool"),
        ((), "the pool"),
    ],
)
def test_what_stands_behind_the_pool(layers: tuple[str, ...], expected: str) -> None:
    for pool in ("average_pool", "max_pool", "mean"):
        assert pooled_layer(head(*layers, pool=pool)) == expected


def test_a_flat_head_has_the_last_map_and_a_map_no_pool() -> None:
    b = GraphBuilder("flat")
    x = b.node("activation", [b.input("x", (1, 2, 2, 8))], "map", function="relu")
    flat = b.finish([b.node("reshape", [x], "flat", shape=(1, 32))])
    assert pooled_layer(flat) == "map"
    b = GraphBuilder("maps")
    maps = b.finish([b.node("activation", [b.input("x", (1, 2, 2, 8))], "map", function="relu")])
    with pytest.raises(InputError, match="no pooled layer"):
        pooled_layer(maps)


def test_layers_by_name() -> None:
    graph = head("dense")
    assert layer_of(graph, "dense").name == "dense"
    for wrong in ("dens", "w0", "x"):
        with pytest.raises(InputError, match=r"did you mean|is an input"):
            layer_of(graph, wrong)


def test_vectors() -> None:
    """Maps are averaged, integers are real values, and the length is 1 where that is asked for."""
    values = np.arange(24, dtype=np.float32).reshape(2, 2, 2, 3)
    assert same_bits(as_vectors(values, Port("a", (1, 2, 2, 3), "float32")), values.mean((1, 2)))
    q = Quantization((0.5,), (3,))
    port = Port("q", (1, 3), "uint8", q.scale[0], q.zero_point[0])
    assert same_bits(as_vectors(np.uint8([[3, 5, 1]]), port), np.float32([[0, 1, -1]]))
    unit = unit_length(np.float32([[3, 4], [0, 0]]))
    assert same_bits(unit, np.float32([[0.6, 0.8], [0, 0]]))


def test_features_are_the_layers_values() -> None:
    """Of one image and many, equal to the tap by bits; the recipe and the layer can be chosen."""
    model = tiny()
    pictures = np.random.default_rng(0).integers(0, 256, (3, 20, 30, 3), np.uint8)
    found = model.features(pictures)
    tapped = model.run(model.preprocess(pictures), ["global_pool"])[1]["global_pool"]
    assert found.dtype == np.float32
    assert same_bits(found, tapped.reshape(3, -1))
    assert same_bits(model.features(iter(list(pictures))), found)
    assert same_bits(model.features(pictures[1], l2=True), unit_length(found[1:2]))
    assert model.features(pictures[0], layer="Logits").shape == (1, 10)
    assert not np.array_equal(model.features(pictures, recipe="torchvision"), found)
    with pytest.raises(InputError, match="empty list"):
        model.features([])


def test_features_of_real_files(data: Path) -> None:
    """One name for files that call the layer differently; an embedder's features are its output."""
    photo = data / "images" / "photos" / "grace_hopper.bmp"
    for name, size in [("mobilenet_v1_0.25_128", 256), ("mobilenet_v1_0_25_128_quant", 256)]:
        assert nm.load(data / "weights" / f"{name}.tflite").features(photo).shape == (1, size)
    embedder = nm.load(data / "weights" / "mediapipe_mobilenet_v3_small_075_224_embedder.tflite")
    assert same_bits(embedder.features(photo), embedder.run(embedder.preprocess(photo)))
