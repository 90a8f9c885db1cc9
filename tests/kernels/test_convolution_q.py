"""Integer convolutions, depthwise convolutions and fully connected layers: whole outputs equal LiteRT's, by dialect."""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest
from cases import Array, Q, arrays_q, run_q, single_q
from litert import Peer
from tflite_export import to_tflite

import npmobilenet as nm
from npmobilenet.arithmetic import convolution
from npmobilenet.arithmetic.dialects import dialect
from npmobilenet.arithmetic.fixedpoint import quantize_multiplier, requantized
from npmobilenet.errors import GraphError, PlanError
from npmobilenet.formats import read_model
from npmobilenet.graph import Graph, Quantization, same_padding
from npmobilenet.modeldata import ModelData, ModelInfo

OPS = ("conv2d", "depthwise_conv2d", "fully_connected")
KINDS = (("int8", True), ("int8", False), ("uint8", False))  # dtype, a scale for each channel
PEERS = ("tflite-reference", "tflite-optimized", "xnnpack")
ACTIVATIONS = ("none", "relu", "relu6", "relu_n1_to_1")


def lows(dtype: str) -> int:
    return int(np.iinfo(dtype).min)


def layer(op: str, dtype: str, w: tuple[int, ...], scales: tuple[float, float, Any], rng: Any, **attrs: Any) -> Graph:
    """A graph of one layer with weights of shape w, random zero points, and scales of input, output, channels."""
    s_in, s_out, s_w = (np.atleast_1d(np.float32(s)) for s in scales)
    z_in, z_out = (int(z) for z in rng.integers(lows(dtype), lows(dtype) + 256, 2))
    z_w = 0 if dtype == "int8" else int(rng.integers(0, 256))
    per_channel = len(s_w) > 1
    zeros = (z_w,) * len(s_w)
    weights = Quantization(tuple(s_w.tolist()), zeros, len(w) - 1 if per_channel else None)
    bias = Quantization(tuple((s_in * s_w).tolist()), (0,) * len(s_w), 0 if per_channel else None)
    inputs = [(attrs.pop("x"), dtype, Q((float(s_in[0]),), (z_in,)))]
    constants = [(w, dtype, weights), ((w[-1],), "int32", bias)]
    return single_q(op, inputs, constants, (dtype, Q((float(s_out[0]),), (z_out,))), **attrs)


def file_of(graph: Graph, arrays: list[Array]) -> bytes:
    _, weights, bias = graph.nodes[0].inputs
    content, _ = to_tflite(ModelData(graph, {weights: arrays[1], bias: arrays[2]}, ModelInfo("case")))
    return content


def litert(content: bytes, peer: str, x: Array) -> tuple[Array, bool]:
    """LiteRT's output, and whether the XNNPACK delegate took the node."""
    lite = Peer(content, peer)
    detail = lite.inputs[0]
    if x.shape != tuple(detail["shape"]):
        lite.interpreter.resize_tensor_input(detail["index"], x.shape)
        lite.interpreter.allocate_tensors()
    values = lite.run(x)
    names = [op["op_name"] for op in lite.interpreter._get_ops_details()]
    return values[int(lite.interpreter.get_output_details()[0]["index"])], "DELEGATE" in names


def equal(graph: Graph, arrays: list[Array], peer: str, delegated: bool = True) -> None:
    expected, taken = litert(file_of(graph, arrays), peer, arrays[0])
    assert taken == (delegated and peer == "xnnpack")
    got = run_q(graph, arrays, "reference", peer)
    wrong = got != expected
    node = graph.nodes[0]
    assert not wrong.any(), f"{node.op} {dict(node.attrs)}: {wrong.sum()} of {wrong.size} at {np.argwhere(wrong)[:5]}"


# -- layers as they occur, and odder ones ------------------------------------------------------------------------------


def random_layer(op: str, dtype: str, per_channel: bool, rng: Any) -> tuple[Graph, list[Array]]:
    """Any shape, stride, dilation, padding, multiplier, activation, K up to 2,048; an output that spans its range."""
    out_c, in_c = (int(c) for c in rng.integers(1, 40, 2))
    attrs: dict[str, Any] = {"activation": str(rng.choice(ACTIVATIONS))}
    if op == "fully_connected" or (op == "conv2d" and rng.random() < 0.2):
        in_c = int(rng.integers(40, 2049))
    if op == "fully_connected":
        attrs["x"], w = (1, in_c), (in_c, out_c)
    else:
        kernel = [(1, 1), (3, 3), (5, 5), (1, 3)][rng.integers(4)]
        stride, dilation = [((1, 1), (1, 1)), ((2, 2), (1, 1)), ((2, 1), (1, 1)), ((1, 1), (2, 3))][rng.integers(4)]
        size = [int(rng.integers(1 + d * (k - 1), 15)) for k, d in zip(kernel, dilation, strict=True)]
        same = tuple(same_padding(size[i], kernel[i], stride[i], dilation[i]) for i in (0, 1))
        padding = same if rng.random() < 0.5 else ((0, 0), (0, 0))
        attrs |= {"x": (1, *size, in_c), "stride": stride, "dilation": dilation, "padding": padding}
        w = (*kernel, in_c, out_c)
        if op == "depthwise_conv2d":
            multiplier = int(rng.integers(1, 5))
            attrs |= {"multiplier": multiplier} if multiplier > 1 else {}
            w = (*kernel, in_c * multiplier)
    powers = rng.random() < 0.3 and not per_channel  # scales that are powers of two: many ties
    s_in, s_w = (2.0**-5, 2.0**-6) if powers else rng.uniform(0.001, 0.1, 2)
    scales = s_w * rng.uniform(0.3, 1, w[-1]) if per_channel else s_w
    return centred(layer(op, dtype, w, (s_in, 1.0, scales), rng, **attrs), rng, powers)


def centred(graph: Graph, rng: Any, powers: bool) -> tuple[Graph, list[Array]]:
    """With a bias that brings each channel's sums to about 0, and an output scale that spreads them over the range."""
    node = graph.nodes[0]
    arrays = arrays_q(graph, rng, batch=int(rng.integers(1, 4)))
    arrays[2][:] = 0
    sums = run_q(graph, arrays, "reference", stage="accumulator").reshape(-1, len(arrays[2]))
    middle = np.median(sums, 0 if len(sums) > 2 else None, keepdims=True).astype(np.int32)[0]
    spread = float(np.abs(sums - middle).mean()) + 1
    arrays[2][:] = rng.normal(0, spread, len(arrays[2])).astype(np.int32) - middle
    factor = 60 / spread * 2.0 ** rng.choice([0, 0, 0, -3, 3, 6])
    factor = 2.0 ** round(np.log2(factor)) if powers else factor
    x, weights, result = (graph.tensors[n] for n in (node.inputs[0], node.inputs[1], node.output))
    assert x.quantization is not None
    assert weights.quantization is not None
    assert result.quantization is not None
    scale = x.quantization.scale[0] * float(np.mean(weights.quantization.scale)) / factor
    result = dataclasses.replace(result, quantization=Q((float(np.float32(scale)),), result.quantization.zero_point))
    return dataclasses.replace(graph, tensors={**graph.tensors, result.name: result}), arrays


@pytest.mark.equal("uint8, int8 convolutions", "reference", "LiteRT 2.3.0, one-op models, each resolver", "bits")
@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize(("dtype", "per_channel"), KINDS)
@pytest.mark.parametrize("op", OPS)
def test_random_layers(op: str, dtype: str, per_channel: bool, peer: str) -> None:
    rng = np.random.default_rng([OPS.index(op), KINDS.index((dtype, per_channel))])
    for _ in range(14):
        equal(*random_layer(op, dtype, per_channel, rng), peer)


# -- accumulators of our choice: zero weights, and a bias that is the accumulator --------------------------------------


def chosen(op: str, dtype: str, factors: Any, accumulators: Any, rng: Any, **attrs: Any) -> tuple[Graph, list[Array]]:
    """A layer whose channels have these factors and accumulators."""
    channels = len(accumulators)
    s_in, s_out = rng.uniform(0.001, 0.1, 2)
    scales = np.asarray(factors) * s_out / s_in
    if op == "fully_connected":
        x, w = (1, 3), (3, channels)
    else:
        x, w = ((1, 1, 1, 3), (1, 1, 3, channels)) if op == "conv2d" else ((1, 1, 1, channels), (1, 1, channels))
        attrs = {"stride": (1, 1), "padding": ((0, 0), (0, 0)), **attrs}
    graph = layer(op, dtype, w, (s_in, s_out, scales), rng, x=x, **attrs)
    zeros = [graph.tensors[n].quantization.zero_point[0] for n in graph.nodes[0].inputs[:2]]  # type: ignore[union-attr]
    arrays = [np.full(x, zeros[0], dtype), np.full(w, zeros[1], dtype), np.asarray(accumulators, np.int32)]
    return graph, arrays


def values_for(factors: Array, rng: Any, extremes: bool) -> Array:
    """Accumulators at ties and beside them, others whose results fill the range, and any int32 up to its ends."""
    count = len(factors)
    wanted = rng.uniform(-300, 300, count)
    beside = np.rint((np.rint(wanted) + 0.5) / factors) + rng.integers(-2, 3, count)
    choices = [beside, np.rint(wanted / factors)]
    if extremes:
        ends = rng.choice([-(2**31), 2**31 - 1, -(2**30), 2**30, 2**24 + 1, -(2**24) - 1], count)
        choices += [ends + rng.integers(-300, 300, count), rng.integers(-(2**31), 2**31, count)]
    return np.clip(np.choose(rng.integers(0, len(choices), count), choices), -(2**31), 2**31 - 1)


@pytest.mark.equal(
    "uint8, int8 convolutions", "reference", "LiteRT 2.3.0, accumulators at and beside ties, each resolver", "bits"
)
@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize(("dtype", "per_channel"), KINDS)
@pytest.mark.parametrize("op", OPS)
def test_chosen_accumulators(
    op: str, dtype: str, per_channel: bool, peer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Factors from 2^-28 to 2^8, random and powers of two. The plan would refuse some of the biases: not its turn here.

    Under XNNPACK only as far as results stay in int32: beyond, its kernels for AVX2 and AVX-512 part.
    """
    monkeypatch.setattr(convolution, "check_accumulators", lambda *_: None)
    rng = np.random.default_rng([7, OPS.index(op), KINDS.index((dtype, per_channel))])
    for turn in range(6):
        channels = int(rng.integers(1500, 2500))
        exponents = rng.uniform(-28, 7.9, channels) if turn % 2 else rng.integers(-20, 7, channels).astype(np.float64)
        factors = 2.0 ** (exponents if per_channel else exponents[:1])
        accumulators = values_for(np.broadcast_to(factors, (channels,)), rng, extremes=peer != "xnnpack")
        graph, arrays = chosen(op, dtype, factors, accumulators, rng, activation=ACTIVATIONS[turn % 4])
        equal(graph, arrays, peer)


@pytest.mark.parametrize("peer", PEERS)
def test_clamping_ranges(peer: str) -> None:
    """Output scales at which an activation's bound is a tie, or the range a single value: TFLite and XNNPACK part."""
    rng = np.random.default_rng(8)
    scales = [4.0, 12.0, 2.0, 1.5, 0.8, 6 / 2.5, 6 / 1.5, 13.0, 1e6, 6 / 254.5, 1 / 1.5, 1 / 126.5]
    parted = 0
    for scale, activation, dtype, odd in itertools.product(scales, ACTIVATIONS[1:], ("int8", "uint8"), (0, 1)):
        accumulators = rng.integers(-(2**20), 2**20, 64)
        graph, arrays = chosen("fully_connected", dtype, [0.001], accumulators, rng, activation=activation)
        zero_point = lows(dtype) + 2 * int(rng.integers(0, 128)) + odd
        output = graph.tensors[graph.nodes[0].output]
        output = dataclasses.replace(output, quantization=Q((float(np.float32(scale)),), (zero_point,)))
        graph = dataclasses.replace(graph, tensors={**graph.tensors, output.name: output})
        equal(graph, arrays, peer)
        ranges = [cut(graph.nodes[0], output) for cut in (convolution.activation_range, convolution.xnnpack_range)]
        parted += ranges[0] != ranges[1]
    assert parted >= 5


# -- where one rule isn't all ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "per_channel"), KINDS)
def test_fewer_pixels_than_a_tile(dtype: str, per_channel: bool) -> None:
    """Rows of 1 to 13 pixels, as at a model's end, by panels of half a vector and more; TFLite's dialects."""
    rng = np.random.default_rng(13)
    for pixels, channels in itertools.product(range(1, 14), (8, 16, 24, 33, 56)):
        depth = int(rng.integers(1, 200))
        scales = rng.uniform(0.001, 0.1, channels if per_channel else 1)
        attrs: dict[str, Any] = {"x": (1, 1, pixels, depth), "activation": str(rng.choice(ACTIVATIONS))}
        attrs |= {"stride": (1, 1), "padding": ((0, 0), (0, 0))}
        graph = layer("conv2d", dtype, (1, 1, depth, channels), (0.02, 1.0, scales), rng, **attrs)
        graph, arrays = centred(graph, rng, False)
        for name in PEERS:
            wrong = run_q(graph, arrays, "fast", name) != run_q(graph, arrays, "reference", name)
            assert not wrong.any(), (pixels, depth, channels, name, np.argwhere(wrong)[:5])


@pytest.mark.parametrize("channels", [1, 7, 8, 9, 15, 16, 21])
def test_depthwise_channels_left_over_from_eights(channels: int) -> None:
    """The optimized int8 kernel rounds them as the reference kernels do; the test sees the difference."""
    rng = np.random.default_rng(9)
    accumulators = -8 - 16 * np.arange(channels)  # ties of the factor 1/16, below zero
    graph, arrays = chosen("depthwise_conv2d", "int8", [1 / 16], accumulators, rng)
    equal(graph, arrays, "tflite-optimized")
    optimized, reference = (run_q(graph, arrays, "reference", d) for d in ("tflite-optimized", "tflite-reference"))
    differ = (optimized != reference).ravel()
    inside = (reference > -128).ravel() & (optimized < 127).ravel()
    assert differ.tolist() == (inside & (np.arange(channels) < channels // 8 * 8)).tolist()
    assert (run_q(graph, arrays, "fast", "tflite-optimized") == optimized).all()


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("op", OPS)
def test_dead_channels(op: str, peer: str) -> None:
    """Teachable Machine's: scale 1e-20 and a bias at the end of int32. The sum overflows, and nothing shows of it."""
    rng = np.random.default_rng(14)
    ends = np.array([2**31 - 1, -(2**31 - 1), 300, -(2**31 - 1), -400, 2**31 - 1, 2**31 - 1, 5, 200])
    factors = np.where(np.abs(ends) > 1000, 10.0 ** rng.uniform(-23, -19, len(ends)), 0.01)
    graph, arrays = chosen(op, "int8", factors[:1] if op == "fully_connected" else factors, ends, rng)
    if op == "fully_connected":  # one scale for all channels: dead as a whole
        assert dead_count(graph) == len(ends)
    arrays[0][...], arrays[1][...] = 100, rng.choice([-127, 127], arrays[1].shape)
    equal(graph, arrays, peer)
    reference, fast = (run_q(graph, arrays, kernels, peer) for kernels in ("reference", "fast"))
    assert (reference == fast).all()
    assert (run_q(graph, arrays, "fast", peer, stage="accumulator")
            == run_q(graph, arrays, "reference", peer, stage="accumulator")).all()  # fmt: skip


def dead_count(graph: Graph) -> int:
    """Channels whose multiplier is 0."""
    node, tensors = graph.nodes[0], graph.tensors
    x, weights, _ = (tensors[name] for name in node.inputs)
    step = convolution.requantization(node, x, weights, tensors[node.output], dialect("tflite-reference"))
    return int((step.multiplier == 0).sum())


@pytest.mark.parametrize("peer", PEERS)
def test_a_channel_that_overflows_and_shows_it_is_refused(peer: str) -> None:
    """Under a factor of 2^-32, a sum of 2^31 gives a half, which rounds up."""
    graph, arrays = chosen("conv2d", "int8", [0.01, 2.0**-31.5], np.array([0, 2**31 - 1]), np.random.default_rng(15))
    arrays[1][...] = 1
    with pytest.raises(PlanError, match="channel 1 may accumulate up to 2,14"):
        run_q(graph, arrays, "fast", peer)


def without_scale(graph: Graph, index: int) -> Graph:
    name = graph.nodes[0].inputs[index]
    return dataclasses.replace(
        graph, tensors={**graph.tensors, name: dataclasses.replace(graph.tensors[name], quantization=None)}
    )


@pytest.mark.parametrize(("dtype", "per_channel"), KINDS)
@pytest.mark.parametrize("op", ["conv2d", "depthwise_conv2d"])
def test_what_the_delegate_leaves(op: str, dtype: str, per_channel: bool) -> None:
    """A convolution whose bias has no scale runs in the optimized kernels, under the default resolver too."""
    rng = np.random.default_rng(10)
    graph, arrays = random_layer(op, dtype, per_channel, rng)
    graph = without_scale(graph, 2)
    equal(graph, arrays, "xnnpack", delegated=False)
    equal(graph, arrays, "tflite-optimized")


def test_int8_fully_connected_with_a_zero_point() -> None:
    """One scale: all kernels take the weights' zero point into account; the delegate leaves the node."""
    rng = np.random.default_rng(11)
    graph, arrays = random_layer("fully_connected", "int8", False, rng)
    name = graph.nodes[0].inputs[1]
    weights = graph.tensors[name]
    assert weights.quantization is not None
    moved = dataclasses.replace(weights, quantization=Q(weights.quantization.scale, (-3,)))
    graph = dataclasses.replace(graph, tensors={**graph.tensors, name: moved})
    for peer in PEERS:
        equal(graph, arrays, peer, delegated=False)


@pytest.mark.parametrize("op", OPS)
def test_weights_that_must_be_symmetric(op: str) -> None:
    rng = np.random.default_rng(12)
    graph, arrays = random_layer(op, "int8", True, rng)
    name = graph.nodes[0].inputs[1]
    weights = graph.tensors[name]
    assert weights.quantization is not None
    moved = Quantization(weights.quantization.scale, (1,) * len(weights.quantization.scale), weights.quantization.axis)
    tensors = {**graph.tensors, name: dataclasses.replace(weights, quantization=moved)}
    with pytest.raises(PlanError, match=r"symmetric weights"):
        run_q(dataclasses.replace(graph, tensors=tensors), arrays, "reference")


@pytest.mark.parametrize("kernels", ["fast", "reference"])
@pytest.mark.parametrize("op", OPS)
def test_dtypes_that_must_be_alike(op: str, kernels: str) -> None:
    """Kernels read weights and write outputs as what the input is."""
    graph, arrays = random_layer(op, "int8", True, np.random.default_rng(13))
    node = graph.nodes[0]
    for name, found in ((node.inputs[0], "uint8, int8, int8"), (node.inputs[1], "int8, uint8, int8"),
                        (node.output, "int8, int8, uint8")):  # fmt: skip
        tensors = {**graph.tensors, name: dataclasses.replace(graph.tensors[name], dtype="uint8")}
        given = [a.view("uint8") if n == name else a for n, a in zip(node.inputs, arrays, strict=True)]
        with pytest.raises(GraphError, match=f"operands and result of one dtype, uint8 or int8, got {found}"):
            run_q(dataclasses.replace(graph, tensors=tensors), given, kernels)


@pytest.mark.parametrize("op", OPS)
def test_xnnpack_refuses_factors_of_256(op: str) -> None:
    rng = np.random.default_rng(13)
    for factor, refused in ((255.9, False), (256.1, True)):
        graph, arrays = chosen(op, "uint8", [factor], rng.integers(-2, 3, 50), rng)
        for peer in PEERS[:2]:
            equal(graph, arrays, peer)
        if refused:
            with pytest.raises(RuntimeError, match="XNNPACK"):
                litert(file_of(graph, arrays), "xnnpack", arrays[0])
            with pytest.raises(PlanError, match="XNNPACK refuses 256"):
                run_q(graph, arrays, "reference", "xnnpack")
        else:
            equal(graph, arrays, "xnnpack")


def without_shapes(content: bytes) -> bytes:
    """The file, saying nothing of the shapes of what its operators compute."""
    schema = importlib.import_module("ai_edge_litert.schema_py_generated")
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    graph = model.subgraphs[0]
    for operator in graph.operators:
        graph.tensors[operator.outputs[0]].shape = []
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def test_open_shapes_keep_the_delegate_away(tmp_path: Path) -> None:
    """A file that leaves out the shapes of computed tensors (as EdgeTPU's): the import notes it, the rule follows."""
    rng = np.random.default_rng(14)
    for op in ("conv2d", "depthwise_conv2d"):
        graph, arrays = random_layer(op, "uint8", False, rng)
        arrays[0] = arrays[0][:1]
        content = without_shapes(file_of(graph, arrays))
        path = tmp_path / "open.tflite"
        path.write_bytes(content)
        data = read_model(path)
        assert data.graph.nodes[0].open_shapes
        inputs = [arrays[0], *(data.tensors[n] for n in data.graph.nodes[0].inputs[1:])]
        expected, taken = litert(content, "xnnpack", arrays[0])
        assert not taken
        assert (run_q(data.graph, inputs, "reference", "xnnpack") == expected).all()
        assert (run_q(data.graph, inputs, "reference", "tflite-optimized") == expected).all()


# -- dialects without a peer at hand: exact integers instead -----------------------------------------------------------


def rounded_once(acc: int, multiplier: int, shift: int) -> int:
    """TFLITE_SINGLE_ROUNDING: nearest to acc * multiplier * 2^(shift - 31), ties upward."""
    return math.floor(Fraction(acc * multiplier) * Fraction(2) ** (shift - 31) + Fraction(1, 2))


def arm_nn(acc: int, multiplier: int, shift: int) -> int:
    """CMSIS-NN: the high half of twice the product with 2^30 added; then a division whose remainder decides."""
    high = ((acc << max(shift, 0)) * multiplier + 2**30) >> 31
    divisor = 2 ** max(-shift, 0)
    quotient, remainder = divmod(abs(high), divisor)
    quotient += 2 * remainder >= divisor > 1
    return quotient if high >= 0 else -quotient


@pytest.mark.equal(
    "uint8, int8 convolutions",
    "tflite-single-rounding (convolutions), cmsis-nn, cmsis-nn-single-rounding",
    "their definition, in rational numbers",
    "bits",
)
@pytest.mark.parametrize(
    ("op", "name", "oracle"),
    [
        *((op, "tflite-single-rounding", rounded_once) for op in OPS[:2]),
        *((op, "cmsis-nn-single-rounding", rounded_once) for op in OPS),
        *((op, "cmsis-nn", arm_nn) for op in OPS),
    ],
)
def test_dialects_by_their_definition(op: str, name: str, oracle: Callable[[int, int, int], int]) -> None:
    """(TFLite's reference fully connected kernel computes in float64, with that flag and without.)"""
    rng = np.random.default_rng(15)
    for graph, arrays in oracle_cases(op, rng):
        node = graph.nodes[0]
        x, weights, result = (graph.tensors[n] for n in (node.inputs[0], node.inputs[1], node.output))
        factors = convolution.real_factors(node, x, weights, result, "double")
        fixed = [quantize_multiplier(float(f)) for f in factors]
        sums = run_q(graph, arrays, "reference", name, stage="accumulator")
        step = convolution.requantization(node, x, weights, result, dialect(name))
        expected = np.empty(sums.shape, np.int64)
        for at, acc in np.ndenumerate(sums):
            twice = name == "tflite-single-rounding" and (op, x.dtype) == ("depthwise_conv2d", "uint8")
            expected[at] = (arm_nn if twice else oracle)(int(acc), *fixed[at[-1]]) + step.zero_point
        got = run_q(graph, arrays, "reference", name)
        assert (got == np.clip(expected, step.low, step.high)).all()


def oracle_cases(op: str, rng: Any) -> Iterator[tuple[Graph, list[Array]]]:
    for dtype, per_channel in KINDS:
        yield random_layer(op, dtype, per_channel, rng)
        factors = 2.0 ** rng.integers(-12, 3, 400 if per_channel else 1).astype(np.float64)
        accumulators = values_for(np.broadcast_to(factors, (400,)), rng, extremes=False)
        yield chosen(op, dtype, factors, accumulators, rng)


def test_the_dialects_differ() -> None:
    """A sample on which every two part, but CMSIS-NN and the reference kernels on convolutions, both ways."""
    rng = np.random.default_rng(16)
    factors = 2.0 ** rng.uniform(-12, -2, 2400)
    factors[::2] = 2.0 ** rng.integers(-12, -2, 1200)
    graph, arrays = chosen("conv2d", "int8", factors, values_for(factors, rng, extremes=False), rng)
    names = ("tflite-reference", "tflite-optimized", "xnnpack", "tflite-single-rounding")
    outputs = [run_q(graph, arrays, "reference", name) for name in names]
    for i, one in enumerate(outputs):
        for other in outputs[:i]:
            assert (one != other).any()
    assert (run_q(graph, arrays, "reference", "cmsis-nn") == outputs[0]).all()
    assert (run_q(graph, arrays, "reference", "cmsis-nn-single-rounding") == outputs[3]).all()


# -- layers of real files ----------------------------------------------------------------------------------------------

FILES = ("mobilenet_v2_0_5_96_quant", "mlperf_tiny_vww_96_int8", "person_detect", "v3-small_224_1.0_uint8",
         "coral_tf2_mobilenet_v2_1.0_224_ptq")  # fmt: skip


@pytest.mark.equal("5 files", "acc: taps under the rule, in plain Python", "the output, every layer", "integers")
@pytest.mark.parametrize("stem", FILES)
def test_accumulators_and_rule_give_the_output(data: Path, stem: str) -> None:
    path = data / "weights" / f"{stem}.tflite"
    for name in ("tflite-reference", "tflite-optimized", "xnnpack"):
        model = nm.load(path, dialect=name)
        rng = np.random.default_rng(5)
        low, high = lows(model.input.dtype), lows(model.input.dtype) + 255
        x = rng.integers(low, high, model.input.shape, model.input.dtype, endpoint=True)
        _, taps = model.run(x, taps=["*", "acc:*", "pre:*"])
        layers = 0
        for node in model.graph.nodes:
            if f"acc:{node.output}" not in taps:
                continue
            tensors = model.graph.tensors
            a, w, b = (tensors[n] for n in node.inputs)
            step = convolution.requantization(node, a, w, tensors[node.output], dialect(name), b)
            acc, pre, out = (taps[p + node.output].reshape(-1, w.shape[-1]) for p in ("acc:", "pre:", ""))
            for row in rng.integers(0, len(acc), 4):  # of each layer, all channels of four pixels
                expected = [int(requantized(int(v), c, step)) for c, v in enumerate(acc[row])]
                assert out[row].tolist() == expected, node.name
            assert np.array_equal(np.clip(pre, step.low, step.high), out), node.name
            layers += 1
        assert layers == sum(f"acc:{n.output}" in taps for n in model.graph.nodes) > 10
