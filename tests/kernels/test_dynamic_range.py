"""Layers with int8 weights on a float32 input: equal by bits to LiteRT's, by dialect, for equal inputs."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import npmobilenet as nm
from npmobilenet import Model
from npmobilenet.errors import NpMobilenetError
from npmobilenet.golden import single_node

pytest.importorskip("tflite", reason="the extra [convert] is not installed")
from litert import Array, Peer
from tflite_maker import File, Op, T

PEERS = ("tflite-reference", "tflite-optimized", "xnnpack")
F = np.float32
TOOLS = Path(__file__).parents[2] / "tools"


def parameters(rng: Any, shape: tuple[int, ...], axis: int, each: bool) -> list[T]:
    """int8 weights with a scale for each channel or one for all, and a float32 bias."""
    channels = shape[axis]
    scale = rng.uniform(0.005, 0.02, channels if each else 1).astype(F)
    weights = rng.integers(-127, 128, shape).astype(np.int8)
    return [T(data=weights, scale=scale, zero_point=(0,) * len(scale), axis=axis),
            T(data=rng.normal(size=channels).astype(F))]  # fmt: skip


def convolutions() -> Iterator[tuple[str, File]]:
    rng = np.random.default_rng(0)
    kinds = itertools.product(("CONV_2D", "DEPTHWISE_CONV_2D"), (True, False), (1, 2), (0, 1), (1, 3), (7, 16))
    for op, each, step, padding, taps, channels in kinds:
        if op == "DEPTHWISE_CONV_2D" and not each:
            continue  # LiteRT refuses that
        shape = (1, taps, taps, channels) if op == "DEPTHWISE_CONV_2D" else (5, taps, taps, channels)
        table = "DepthwiseConv2DOptions" if op == "DEPTHWISE_CONV_2D" else "Conv2DOptions"
        fields = {"StrideH": step, "StrideW": step, "Padding": padding, "FusedActivationFunction": step % 2,
                  "DilationHFactor": 1, "DilationWFactor": 1}  # fmt: skip
        if table.startswith("Depth"):
            fields["DepthMultiplier"] = 1
        size = [-(-(d - (taps - 1) * padding) // step) for d in (9, 8)]
        out = T((1, *size, shape[0] if op == "CONV_2D" else channels))
        tensors = [T((1, 9, 8, channels)), *parameters(rng, shape, 3 if op[0] == "D" else 0, each), out]
        yield (
            f"{op} {each} {step} {padding} {taps} {channels}",
            File(tensors, [Op(op, [0, 1, 2], [3], (table, fields), 6 if op[0] == "D" else 5)]),
        )


def dense_layers() -> Iterator[tuple[str, File]]:
    rng = np.random.default_rng(1)
    for each, asymmetric, rows in itertools.product((True, False), (True, False), (1, 3)):
        options = ("FullyConnectedOptions", {"AsymmetricQuantizeInputs": asymmetric, "KeepNumDims": rows > 1})
        shape = (1, rows, 24) if rows > 1 else (1, 24)
        tensors = [T(shape), *parameters(rng, (9, 24), 0, each), T((*shape[:-1], 9))]
        yield f"dense {each} {asymmetric} {rows}", File(tensors, [Op("FULLY_CONNECTED", [0, 1, 2], [3], options, 9)])


def values(shape: Any, seed: int) -> Array:
    """Ordinary ones, ones with ties, all positive, nothing."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape) * 10 ** rng.uniform(-2, 2)
    return np.asarray([x, np.rint(x) / 4, np.abs(x), 0 * x][seed % 4], F)


@pytest.mark.equal("int8 weights on a float32 input", "fast and reference", "LiteRT 2.3.0, made files, each resolver",
                   "bits")  # fmt: skip
@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("kind", ["convolutions", "dense layers"])
def test_equals_litert(tmp_path: Path, kind: str, peer: str) -> None:
    for name, file in convolutions() if kind == "convolutions" else dense_layers():
        path = tmp_path / "made.tflite"
        path.write_bytes(file.bytes())
        lite = Peer(path, peer)
        models = [nm.load(path, kernels, peer) for kernels in ("fast", "reference")]
        for seed in range(4):
            x = values(models[0].input.shape, seed)
            expected = lite.run(x)[3]
            for model in models:
                assert model.run(x, check_range=False).tobytes() == expected.tobytes(), (name, seed, model.kernels)


def test_images_of_a_batch_have_scales_of_their_own(tmp_path: Path) -> None:
    for _, file in itertools.islice(convolutions(), 0, None, 7):
        path = tmp_path / "made.tflite"
        path.write_bytes(file.bytes())
        model = nm.load(path, threads=2)
        x = np.concatenate([values(model.input.shape, seed) for seed in range(4)])
        one_by_one = np.concatenate([model.run(x[i : i + 1], check_range=False) for i in range(4)])
        assert model.run(x, check_range=False).tobytes() == one_by_one.tobytes()


def test_groups_of_channels_are_refused(tmp_path: Path) -> None:
    fields = {"StrideH": 1, "StrideW": 1, "DilationHFactor": 1, "DilationWFactor": 1}
    tensors = [T((1, 5, 5, 4)), *parameters(np.random.default_rng(0), (6, 3, 3, 2), 0, True), T(None)]
    path = tmp_path / "made.tflite"
    path.write_bytes(File(tensors, [Op("CONV_2D", [0, 1, 2], [3], ("Conv2DOptions", fields), 5)]).bytes())
    with pytest.raises(NpMobilenetError, match="convert the model without optimizations"):
        nm.load(path)


def nodes_alone(model: Model, content: bytes, peer: str, x: Array) -> dict[str, list[bool]]:
    """For each node whose values LiteRT shows: whether it is equal by bits, given LiteRT's own inputs.

    Those with int8 weights are "dynamic", the others "float". `content`: the file, all its values being outputs where
    a delegate computes them.
    """
    graph = model.graph
    index = {name: int(end[1:]) for end, name in graph.endpoints.items() if end.startswith("#")}
    theirs = {index[graph.inputs[0]]: x, **Peer(content, peer).run(x)}
    found: dict[str, list[bool]] = {"dynamic": [], "float": []}
    for node in graph.nodes:
        read = [name for name in node.inputs if not graph.tensors[name].constant]
        if not all(index.get(name) in theirs for name in (*read, node.output)):
            continue
        given = {name: theirs[index[name]].reshape(1, *graph.tensors[name].shape[1:]) for name in read}
        got = single_node.run(single_node.isolate(model.data, node, given), peer)
        dynamic = len(node.inputs) == 3 and graph.tensors[node.inputs[1]].dtype == "int8"
        found["dynamic" if dynamic else "float"].append(got.tobytes() == theirs[index[node.output]].tobytes())
    return found


def everything_shown(content: bytes, model: Model) -> bytes:
    """The file with all that it computes as outputs, which is all that a delegate shows."""
    if not (TOOLS / "cut_tflite.py").is_file():
        pytest.skip("not a checkout: tools/ is not installed")
    sys.path.insert(0, str(TOOLS))
    import cut_tflite

    ends = (end for end, name in model.graph.endpoints.items() if name not in model.graph.inputs)
    return cut_tflite.cut(content, *(end for end in ends if end.startswith("#")))


def mixed_model() -> bytes:
    """As the converter writes it: layers of few weights stay in float, between those with int8 weights."""
    rng = np.random.default_rng(3)
    bias = [T(data=rng.normal(size=count).astype(F)) for count in (8, 24)]
    first, deep = (T(data=rng.normal(size=shape).astype(F)) for shape in ((8, 3, 3, 3), (1, 3, 3, 24)))
    window = {"StrideH": 1, "StrideW": 1, "DilationHFactor": 1, "DilationWFactor": 1, "Padding": 0,
              "FusedActivationFunction": 3}  # fmt: skip
    conv, depthwise = ("Conv2DOptions", window), ("DepthwiseConv2DOptions", {**window, "DepthMultiplier": 1})
    tensors = [
        T((1, 12, 12, 3)), first, bias[0], T((1, 12, 12, 8)), *parameters(rng, (24, 1, 1, 8), 0, True),
        T((1, 12, 12, 24)), deep, bias[1], T((1, 12, 12, 24)), *parameters(rng, (16, 3, 3, 24), 0, True),
        T((1, 12, 12, 16)), T(data=np.array([1, 2], np.int32)), T((1, 16)), *parameters(rng, (5, 16), 0, True),
        T((1, 5)),
    ]  # fmt: skip
    ops = [Op("CONV_2D", [0, 1, 2], [3], conv), Op("CONV_2D", [3, 4, 5], [6], conv, 5),
           Op("DEPTHWISE_CONV_2D", [6, 7, 8], [9], depthwise), Op("CONV_2D", [9, 10, 11], [12], conv, 5),
           Op("MEAN", [12, 13], [14], ("ReducerOptions", {"KeepDims": False})),
           Op("FULLY_CONNECTED", [14, 15, 16], [17], ("FullyConnectedOptions", {}), 9)]  # fmt: skip
    return File(tensors, ops, outputs=[op.outputs[0] for op in ops]).bytes()


@pytest.mark.equal("int8 weights on a float32 input, between float layers", "fast", "LiteRT 2.3.0, a made model, each "
                   "resolver; each such node from LiteRT's own input", "bits")  # fmt: skip
@pytest.mark.parametrize("peer", PEERS)
def test_nodes_between_float_layers(tmp_path: Path, peer: str) -> None:
    """Float layers differ in their last bits, so that later inputs may be quantized otherwise: not so node by node."""
    (tmp_path / "mixed.tflite").write_bytes(mixed_model())
    model = nm.load(tmp_path / "mixed.tflite", dialect=peer)
    found = nodes_alone(model, mixed_model(), peer, values(model.input.shape, 8))
    assert (found["dynamic"], len(found["float"])) == ([True] * 3, 3)


@pytest.mark.equal("int8 weights on a float32 input", "fast", "LiteRT 2.3.0, each resolver; each such node of a real "
                   "file, from LiteRT's own input", "bits")  # fmt: skip
@pytest.mark.parametrize("peer", PEERS)
def test_every_node_of_a_real_file(data: Path, peer: str) -> None:
    """Dilated layers between SPACE_TO_BATCH_ND and BATCH_TO_SPACE_ND among them: each block has a scale of its own."""
    content = (data / "field" / "density_dynamic_range.tflite").read_bytes()
    model = nm.load(data / "field" / "density_dynamic_range.tflite", dialect=peer)
    if peer == "xnnpack":  # a delegate shows outputs only
        content = everything_shown(content, model)
    x = np.random.default_rng(0).uniform(-1, 1, model.input.shape).astype(F)
    assert nodes_alone(model, content, peer, x)["dynamic"] == [True] * 44
