"""Integer ops without weights, where runtimes part: bit for bit as LiteRT, at the limits of each rule."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cases import Array, arrays_q, q, run_q, same_bits, single_q
from litert import Peer, random_inputs
from tflite_export import litert_output

from npmobilenet.arithmetic import elementwise, pooling
from npmobilenet.arithmetic.dialects import dialect
from npmobilenet.formats.model_path import load_data
from npmobilenet.graph import Graph
from npmobilenet.kernels import kernel_set
from npmobilenet.runtime.binding import NodeContext, bind

LIMITS = {"uint8": (0, 255), "int8": (-128, 127)}
LITERT = ("tflite-reference", "tflite-optimized", "xnnpack")
OPS = ("add", "sub", "mul", "average_pool", "mean", "pad", "reshape", "concat")


def test_runs_of_broadcasts() -> None:
    """y4 of both operands; or y3 of one and a single value of the other; else one by one."""
    run = elementwise.broadcast_run
    assert run((1, 2, 3, 4), (1, 2, 3, 4)) == (24, False)
    assert run((1, 2, 3, 4), (1, 1, 1, 4)) == (4, False)
    assert run((1, 1, 3, 4), (1, 2, 3, 4)) == (12, False)
    assert run((1, 2, 3, 4), (1, 1, 1, 1)) == (24, True)
    assert run((1, 2, 3, 1), (1, 2, 3, 4)) == (4, True)
    assert run((1, 1, 1, 4), (1, 1, 3, 1)) == (4, True)
    assert run((1, 2, 1, 4), (1, 1, 3, 1)) == (1, False)
    assert run((1, 4), (1, 1)) == (4, True)
    assert run((2, 1, 3, 1), (1, 5, 1, 7)) == (1, False)


# -- LiteRT ------------------------------------------------------------------------------------------------------------


def agrees(graph: Graph, arrays: list[Array], name: str) -> Array:
    ours = run_q(graph, arrays, "reference", name)
    assert same_bits(ours, litert_output(graph, arrays, name)), (name, graph.nodes[0], graph.tensors)
    return ours


@pytest.mark.parametrize("dtype", LIMITS)
def test_all_pairs_of_values(dtype: str) -> None:
    """Each x with each y, at scales where the dialects part: the counts show that each rule is at work."""
    low, high = LIMITS[dtype]
    x, y = (
        v.astype(dtype).reshape(1, 16, 64, 64) for v in np.meshgrid(np.arange(low, high + 1), np.arange(low, high + 1))
    )
    shape, middle = (1, 16, 64, 64), (low + high + 1) // 2
    for op in ("add", "sub", "mul"):
        graph = single_q(op, [(shape, dtype, q(0.5, middle)), (shape, dtype, q(0.25, middle))], [],
                         (dtype, q(8 if op == "mul" else 1, middle)))  # fmt: skip
        results = {name: agrees(graph, [x, y], name) for name in LITERT}
        assert (results["tflite-reference"] != results["xnnpack"]).sum() > 500


@pytest.mark.parametrize(("dtype", "lanes"), [("uint8", 8), ("int8", 16)])
def test_full_vectors_and_the_rest_round_differently(dtype: str, lanes: int) -> None:
    """LiteRT's optimized addition: one value everywhere, yet another result in the last elements of each run.

    s_x is 2^-18 of s_y: a step of x is 8 units, which the vectors round once (int8) or cut (uint8), and the rest rounds
    twice. The output's scale makes those units visible.
    """
    low, high = LIMITS[dtype]
    rng = np.random.default_rng(5)
    for channels in (lanes, lanes + 3, 2 * lanes - 1, 2):
        shape = (1, 3, 1, channels)
        differ = 0
        for y_shape in (shape, (1, 1, 1, channels), (1, 1, 1, 1)):
            for _ in range(8):
                s_x = float(2.0 ** rng.uniform(-21, -15))
                graph = single_q("add", [(shape, dtype, q(s_x, low)), (y_shape, dtype, q(1, 0))], [],
                                 (dtype, q(2.0**-18.9, 0)))  # fmt: skip
                x = rng.integers(low, high + 1, shape).astype(dtype)
                arrays = [x, np.zeros(y_shape, dtype)]
                ours = agrees(graph, arrays, "tflite-optimized")
                assert np.array_equal(ours, agrees(graph, arrays, "xnnpack"))  # not delegated: the same kernel
                differ += int((ours != agrees(graph, arrays, "tflite-reference")).sum())
        assert (differ > 0) == (channels >= lanes)  # 6 elements fill no vector


@pytest.mark.parametrize("dtype", LIMITS)
def test_what_the_delegate_leaves_to_litert(dtype: str) -> None:
    """On both sides of each limit of the scales."""
    rng, shape = np.random.default_rng(3), (1, 4, 4, 37)
    below = [float(np.nextafter(np.float32(v), np.float32(0))) for v in (2**-10, 2**8, 2**-16)]
    for op, ratios in (("add", (2**-10, below[0], 2**8, below[1])), ("mul", (2**-16, below[2], 2**8, below[1]))):
        rules = set()
        for ratio in ratios:
            operands = [(shape, dtype, q(ratio, 3)), (shape, dtype, q(1, 3))]
            graph = single_q(op, operands, [], (dtype, q(1, 3)))
            tensors = [graph.tensors[n] for n in (*graph.nodes[0].inputs, graph.nodes[0].output)]
            compute = elementwise.addition if op == "add" else elementwise.multiplication
            rules.add((ratio, compute(graph.nodes[0], *tensors, dialect("xnnpack")).rule))  # type: ignore[operator]
            for _ in range(3):
                agrees(graph, arrays_q(graph, rng), "xnnpack")
        assert len({rule for _, rule in rules}) == 2


def test_pools_of_large_windows_and_depths() -> None:
    """More channels than LiteRT sums at a time (256); means over images of every published size."""
    rng = np.random.default_rng(8)
    for dtype, size, channels in (("uint8", 7, 1280), ("int8", 7, 1027), ("int8", 14, 240), ("uint8", 28, 72)):
        z = q(0.0235, 0)
        shape = (1, size, size, channels)
        pool = single_q("average_pool", [(shape, dtype, z)], [], (dtype, z), kernel=(size, size), stride=(1, 1),
                        padding=((0, 0), (0, 0)))  # fmt: skip
        means = [single_q("mean", [(shape, dtype, z)], [], (dtype, q(0.019, -5 + 8 * (dtype == "uint8"))), keepdims=k)
                 for k in (True, False)]  # fmt: skip
        for graph in (pool, *means):
            arrays = arrays_q(graph, rng)
            for name in LITERT:
                agrees(graph, arrays, name)


MODELS = {"v3-small_224_1.0_uint8": {"add": 15, "mul": 18, "average_pool": 11, "reshape": 1},
          "coral_tf2_mobilenet_v2_1.0_224_ptq": {"add": 10, "mean": 1, "reshape": 1},
          "mlperf_tiny_vww_96_int8": {"average_pool": 1, "reshape": 1}}  # fmt: skip


@pytest.mark.parametrize("name", ["tflite-reference", "tflite-optimized"])
@pytest.mark.parametrize("file", MODELS)
def test_nodes_of_real_models(data: Path, file: str, name: str) -> None:
    """LiteRT's own values as the input of each such node alone, and its output compared."""
    path = data / "weights" / f"{file}.tflite"
    model, peer = load_data(path), Peer(path, name)
    graph, inputs = model.graph, random_inputs(peer.inputs, 1)
    found = peer.run(*inputs)
    values = dict(zip(graph.inputs, inputs, strict=True)) | dict(model.tensors)
    for tensor in graph.tensors.values():
        index = int(tensor.source[1:]) if tensor.source.startswith("#") else -1
        if index in found and not tensor.constant:
            values[tensor.name] = found[index].reshape(tensor.shape)
    counts: dict[str, int] = {}
    for node in graph.nodes:
        if node.op in OPS:
            result = graph.tensors[node.output]
            out = np.full(result.shape, 90, result.dtype)
            tensors, inputs = [graph.tensors[n] for n in node.inputs], [values[n] for n in node.inputs]
            for step in bind(NodeContext(node, tensors, inputs, result, out, kernel_set("fast"), dialect(name))):
                step.kernel(*step.args)
            assert np.array_equal(out, values[node.output]), node
            counts[node.op] = counts.get(node.op, 0) + 1
    assert counts == MODELS[file]


def test_mean_keeps_its_multiplier_precise() -> None:
    """30 bits and more of 1 / (H * W) in every dialect that multiplies integers."""
    for size in (1, 2, 7, 14, 28, 56, 112):
        graph = single_q("mean", [((1, size, size, 3), "int8", q(0.02, 0))], [], ("int8", q(0.013, 0)), keepdims=True)
        x, y = graph.tensors["x0"], graph.tensors["y"]
        for name in ("tflite-reference", "tflite-optimized", "tflite-single-rounding"):
            p = pooling.mean(graph.nodes[0], x, y, dialect(name))
            real = p.multiplier * 2.0 ** (p.shift - 31) * size * size
            assert abs(real / (0.02 / 0.013) - 1) < 2**-21  # scales are float32
