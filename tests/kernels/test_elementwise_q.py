"""Integer ops without weights: by hand, python == reference == fast, and bit for bit as LiteRT in its dialects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from cases_q import arrays_q, q, run_q, single_q
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from litert import Peer, random_inputs
from tflite_export import to_tflite

from npmobilenet.arithmetic import elementwise, pooling
from npmobilenet.arithmetic.dialects import DIALECTS, dialect
from npmobilenet.errors import GraphError, PlanError
from npmobilenet.formats.model_path import load_data
from npmobilenet.graph import Graph, Quantization, same_padding
from npmobilenet.kernels import kernel_set
from npmobilenet.modeldata import ModelData, ModelInfo
from npmobilenet.runtime.binding import NodeContext, bind

Array = np.ndarray[Any, Any]
SETTINGS = settings(derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
LIMITS = {"uint8": (0, 255), "int8": (-128, 127)}
LITERT = ("tflite-reference", "tflite-optimized", "xnnpack")
OPS = ("add", "sub", "mul", "average_pool", "mean", "pad", "reshape", "concat")
INF = float("inf")


# -- by hand -----------------------------------------------------------------------------------------------------------


def by_hand(graph: Graph, *inputs: Any, dialect: str = "tflite-reference") -> list[int]:
    operands = [graph.tensors[n] for n in graph.nodes[0].inputs]
    arrays = [np.array(x, t.dtype).reshape(1, *t.shape[1:]) for x, t in zip(inputs, operands, strict=True)]
    results = [run_q(graph, arrays, kernels, dialect) for kernels in ("python", "reference", "fast")]
    assert all(np.array_equal(results[0], r) for r in results[1:])
    found: list[int] = results[0].ravel().tolist()
    return found


def binary(op: str, x: Quantization, y: Quantization, out: Quantization, count: int = 1, dtype: str = "int8",
           **attrs: Any) -> Graph:  # fmt: skip
    shape = (1, 1, 1, count)
    return single_q(op, [(shape, dtype, x), (shape, dtype, y)], [], (dtype, out), **attrs)


def test_add_by_hand() -> None:
    # 0.5 * (x - 10) + 0.25 * (y + 4), in steps of 0.5 from -3: 2.5 + 1.25 = 3.75 is 7.5 steps, and ties go away from 0
    # in double rounding and in XNNPACK upward: 8 - 3; -3.75 is -7.5 steps: -8 - 3 or -7 - 3.
    graph = binary("add", q(0.5, 10), q(0.25, -4), q(0.5, -3), 2)
    assert by_hand(graph, [15, 5], [1, -9]) == [5, -11]
    assert by_hand(graph, [15, 5], [1, -9], dialect="tflite-single-rounding") == [5, -10]
    assert by_hand(graph, [15, 5], [1, -9], dialect="xnnpack") == [5, -10]
    clamped = binary("add", q(0.5, 10), q(0.25, -4), q(0.5, -3), 3, activation="relu6")
    assert by_hand(clamped, [15, 5, 100], [1, -9, 100]) == [5, -3, 9]


def test_sub_by_hand() -> None:
    graph = binary("sub", q(1, 0), q(0.5, 128), q(1, 128), 3, "uint8")
    assert by_hand(graph, [0, 10, 255], [131, 126, 0]) == [126, 139, 255]  # -1.5: away from 0
    assert by_hand(graph, [0, 10, 255], [131, 126, 0], dialect="xnnpack") == [127, 139, 255]


def test_mul_by_hand() -> None:
    graph = binary("mul", q(0.5, 0), q(0.5, 1), q(1, -10), 3)  # x * (y - 1) / 4: 1.5, -1.5, 2475 steps from -10
    assert by_hand(graph, [6, -6, 100], [2, 2, 100]) == [-8, -12, 127]
    assert by_hand(graph, [6, -6, 100], [2, 2, 100], dialect="tflite-single-rounding") == [-8, -11, 127]
    assert by_hand(graph, [6, -6, 100], [2, 2, 100], dialect="xnnpack") == [-8, -12, 127]
    assert by_hand(graph, [10, -10, 0], [2, 2, 0], dialect="xnnpack") == [-8, -12, -10]  # 2.5 goes to even: 2
    # Where the factor is 1/2 or more, high_mul is the only step that rounds: its ties go upward.
    half = binary("mul", q(0.5, 0), q(0.5, 1), q(0.5, -10), 3)
    assert by_hand(half, [3, -3, 0], [2, 2, 0]) == [-8, -11, -10]


def test_average_pool_and_mean_by_hand() -> None:
    pixels = [[1, -1, -3, 5], [2, -2, -3, 4], [1, -1, -3, 5], [2, -2, -3, 4]]  # (H * W, C): 1.5, -1.5, -3, 4.5
    same = q(1, 0)
    pool = single_q("average_pool", [((1, 2, 2, 4), "int8", same)], [], ("int8", same), kernel=(2, 2), stride=(1, 1),
                    padding=((0, 0), (0, 0)))  # fmt: skip
    assert by_hand(pool, pixels) == [2, -2, -3, 5]
    mean = single_q("mean", [((1, 2, 2, 4), "int8", same)], [], ("int8", same), keepdims=True)
    assert by_hand(mean, pixels) == [2, -2, -3, 5]
    assert by_hand(mean, pixels, dialect="tflite-single-rounding") == [2, -1, -3, 5]
    assert by_hand(mean, pixels, dialect="xnnpack") == [2, -2, -3, 4]  # to even
    wide = single_q("mean", [((1, 2, 2, 17), "int8", same)], [], ("int8", same), keepdims=True)
    both = [[-1] * 17, [-2] * 17] * 2
    assert by_hand(wide, both) == [-2] * 17
    assert by_hand(wide, both, dialect="tflite-optimized") == [-1] * 16 + [-2]  # 16 lanes round upward


def test_moves_by_hand() -> None:
    z = q(1, 7)
    pad = single_q("pad", [((1, 1, 2, 1), "uint8", z)], [], ("uint8", z), padding=((1, 0), (0, 1)))
    assert by_hand(pad, [1, 2]) == [7, 7, 7, 1, 2, 7]
    # 0.5 * (x - 0) and 1 * (x - 10) in steps of 1 from 3: 2.5 + 3 = 5.5 and 4 - 10 + 3 = -3, below uint8
    concat = single_q(
        "concat", [((1, 2), "uint8", q(0.5, 0)), ((1, 2), "uint8", q(1, 10))], [], ("uint8", q(1, 3)), axis=1
    )
    assert by_hand(concat, [5, 255], [4, 255]) == [6, 131, 0, 248]


def test_a_window_without_pixels_is_real_zero() -> None:
    z = q(1, 7)
    graph = single_q("average_pool", [((1, 1, 1, 2), "uint8", z)], [], ("uint8", z), kernel=(1, 1), stride=(1, 1),
                     padding=((0, 1), (0, 0)))  # fmt: skip
    assert by_hand(graph, [3, 255]) == [3, 255, 7, 7]


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


# -- generated nodes ---------------------------------------------------------------------------------------------------


def zero_points(dtype: str) -> st.SearchStrategy[int]:
    low, high = LIMITS[dtype]
    return st.one_of(st.sampled_from([low, high, 0, (low + high + 1) // 2]), st.integers(low, high))


def scales(least: float = 2**-10, most: float = 1.0) -> st.SearchStrategy[float]:
    """Spread over their logarithms, and powers of two, which make ties."""
    exponents = st.floats(float(np.log2(least)), float(np.log2(most)))
    return exponents.map(lambda e: 2.0**e) | exponents.map(lambda e: 2.0 ** round(e))


@st.composite
def binaries(draw: st.DrawFn, op: str, dtype: str) -> Graph:
    h, w, c = draw(st.integers(1, 4)), draw(st.integers(1, 4)), draw(st.sampled_from([1, 3, 8, 15, 16, 17, 24, 33, 40]))
    full = (1, h, w, c)
    spread = [(1, 1, 1, c), (1, 1, 1, 1), (1, h, 1, c), (1, 1, w, c), (1, h, w, 1), (1, 1, w, 1)]
    other = draw(st.sampled_from([full, full, *spread]))
    flat = draw(st.integers(0, 9)) == 0  # rank 2
    shapes = [(1, c), (1, draw(st.sampled_from([1, c])))] if flat else [full, other]
    if draw(st.booleans()):
        shapes = shapes[::-1]
    s_x, s_y = draw(scales()), draw(scales())
    # Around what training gives, and at times far off, where XNNPACK's delegate refuses and NEON's 16 bits wrap.
    usual = draw(st.integers(0, 3)) > 0
    if op == "mul":
        s_out = s_x * s_y / draw(scales(2**-9, 1) if usual else scales(2**-20, 2**12))
    else:
        s_out = max(s_x, s_y) * draw(scales(0.25, 4) if usual else scales(2**-12, 2**11))
    zs = [draw(zero_points(dtype)) for _ in range(3)]
    activation = draw(st.sampled_from(["none", "none", "relu", "relu6", "relu_n1_to_1"]))
    operands = [(shapes[0], dtype, q(s_x, zs[0])), (shapes[1], dtype, q(s_y, zs[1]))]
    constants = [operands.pop()] if draw(st.integers(0, 3)) == 0 else []
    return single_q(op, operands, constants, (dtype, q(s_out, zs[2])), activation=activation)


@st.composite
def others(draw: st.DrawFn, op: str, dtype: str) -> Graph:
    h, w, c = draw(st.integers(1, 9)), draw(st.integers(1, 9)), draw(st.sampled_from([1, 2, 7, 16, 23, 40, 272]))
    z = q(draw(scales()), draw(zero_points(dtype)))
    out = z
    shapes: list[tuple[int, ...]] = [(1, h, w, c)]
    attrs: dict[str, Any] = {}
    quantizations = [z]
    if op == "average_pool":
        kernel = draw(st.integers(1, h)), draw(st.integers(1, w))
        stride = draw(st.integers(1, 3)), draw(st.integers(1, 3))
        same = same_padding(h, kernel[0], stride[0]), same_padding(w, kernel[1], stride[1])
        padding = draw(st.sampled_from([same, ((0, 0), (0, 0))]))
        activation = draw(st.sampled_from(["none", "none", "relu", "relu6"]))
        attrs = {"kernel": kernel, "stride": stride, "padding": padding, "activation": activation}
    elif op == "mean":
        attrs = {"keepdims": draw(st.booleans())}
        out = draw(st.sampled_from([z, q(z.scale[0] * draw(scales(2**-4, 4)), draw(zero_points(dtype)))]))
    elif op == "pad":
        pairs = st.tuples(st.integers(0, 2), st.integers(0, 3))
        attrs = {"padding": (draw(pairs), draw(pairs))}
    elif op == "reshape":
        attrs = {"shape": draw(st.sampled_from([(1, h * w * c), (1, h, w * c), (1, 1, 1, h * w * c)]))}
    else:
        axis = draw(st.integers(1, 3))
        sizes = draw(st.lists(st.integers(1, 9), min_size=2, max_size=4))
        shapes = [(1, *(s if i == axis else d for i, d in enumerate((h, w, c), 1))) for s in sizes]
        attrs = {"axis": axis}
        own = st.builds(q, scales(2**-9, 2), zero_points(dtype))
        quantizations = [z if dtype == "int8" else draw(st.one_of(st.just(z), own)) for _ in sizes]
    return single_q(op, [(s, dtype, y) for s, y in zip(shapes, quantizations, strict=True)], [], (dtype, out), **attrs)


def nodes(op: str, dtype: str) -> st.SearchStrategy[Graph]:
    return binaries(op, dtype) if op in ("add", "sub", "mul") else others(op, dtype)


def defined(graph: Graph) -> bool:
    """Whether TFLite gives the node a result at all."""
    scale = [graph.tensors[n].quantization for n in (*graph.nodes[0].inputs, graph.nodes[0].output)]
    s_x, s_y, s_out = (s.scale[0] for s in (*scale, *scale)[:3] if s is not None)
    return graph.nodes[0].op not in ("add", "sub") or max(s_x, s_y) * 2 < 2**20 * s_out


@pytest.mark.equal(
    "sums, pools and moves",
    "fast, 1 and 2 threads",
    "reference, compiled and plain, each dialect",
    "bits",
)
@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("op", OPS)
def test_python_reference_and_fast_give_the_same_bits(op: str, dtype: str) -> None:
    @given(
        nodes(op, dtype), st.integers(0, 2**32 - 1), st.integers(1, 3), st.sampled_from(list(DIALECTS)), st.booleans()
    )
    @settings(SETTINGS, max_examples=150)
    def check(graph: Graph, seed: int, batch: int, name: str, slow: bool) -> None:
        if not defined(graph):
            return
        arrays = arrays_q(graph, np.random.default_rng(seed), batch)
        expected = run_q(graph, arrays, "reference", name)
        for threads in (1, min(2, numba.config.NUMBA_NUM_THREADS)):
            numba.set_num_threads(threads)
            assert np.array_equal(run_q(graph, arrays, "fast", name), expected)
        if slow and expected.size * batch < 500:
            assert np.array_equal(run_q(graph, arrays, "python", name), expected)
        one = [a[:1] for a in arrays]
        assert np.array_equal(run_q(graph, one, "fast", name), expected[:1])

    before = numba.get_num_threads()
    try:
        check()
    finally:
        numba.set_num_threads(before)


# -- LiteRT ------------------------------------------------------------------------------------------------------------


def litert_output(graph: Graph, arrays: list[Array], name: str) -> Array:
    names = graph.nodes[0].inputs
    constants = {n: a for n, a in zip(names, arrays, strict=True) if graph.tensors[n].constant}
    file, index = to_tflite(ModelData(graph, constants, ModelInfo("case")))
    computed = [a for n, a in zip(names, arrays, strict=True) if not graph.tensors[n].constant]
    return Peer(file, name).run(*computed)[index[graph.nodes[0].output]]


def agrees(graph: Graph, arrays: list[Array], name: str) -> Array:
    expected = litert_output(graph, arrays, name)
    ours = run_q(graph, arrays, "reference", name)
    assert np.array_equal(ours, expected.reshape(ours.shape)), (name, graph.nodes[0], graph.tensors)
    return ours


@pytest.mark.equal("sums, pools and moves", "reference", "LiteRT 2.3.0, one-op models, each resolver", "bits")
@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("op", OPS)
def test_equals_litert(op: str, dtype: str) -> None:
    @given(nodes(op, dtype), st.integers(0, 2**32 - 1))
    @settings(SETTINGS, max_examples=60)
    def check(graph: Graph, seed: int) -> None:
        if defined(graph):
            arrays = arrays_q(graph, np.random.default_rng(seed))
            for name in LITERT:
                agrees(graph, arrays, name)

    check()


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


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", ["add", "sub"])
def test_sums_that_tflite_does_not_define_are_refused(op: str) -> None:
    graph = binary(op, q(1, 0), q(1, 0), q(2.0**-19, 0))
    with pytest.raises(PlanError, match=r"node 'y' .*2\^-19.*quantize the tensor 'y' anew"):
        run_q(graph, arrays_q(graph, np.random.default_rng(0)), "reference")


def test_what_else_is_refused() -> None:
    rng = np.random.default_rng(0)

    def refused(graph: Graph, error: type[Exception], match: str) -> None:
        with pytest.raises(error, match=match):
            run_q(graph, arrays_q(graph, rng), "reference")

    z = q(1, 0)
    two = [((1, 2), "int8", z), ((1, 2), "int8", q(0.5, 0))]
    refused(single_q("concat", two, [], ("int8", z), axis=1), PlanError, "int8 operand 'x1' has scale 0.5")
    same = [((1, 2), "int8", z), ((1, 2), "int8", z)]
    refused(single_q("concat", same, [], ("int8", z), axis=1, activation="relu"), GraphError, "no fused activation")
    mixed = [((1, 2), "int8", z), ((1, 2), "uint8", z)]
    refused(single_q("add", mixed, [], ("int8", z)), GraphError, "one dtype, uint8 or int8, got int8, uint8, int8")
    refused(single_q("reshape", [((1, 2), "int32", z)], [], ("int32", z), shape=(1, 2)), GraphError, "one dtype")
    refused(single_q("add", [((1, 2), "int8", z), ((1, 2), "int8", None)], [], ("int8", z)), PlanError, "one scale")
    refused(binary("mul", z, z, z, activation="hard_swish"), GraphError, "a fused activation among")
    refused(binary("mul", q(1e30, 0), q(1e30, 0), z), PlanError, "factor .*inf")
    refused(binary("mul", q(1e5, 0), q(1e5, 0), z), PlanError, "below 2\\^30")
    refused(binary("mul", q(1e-50, 0), z, z, 1), PlanError, "scale")
    refused(
        single_q("mean", [((1, 2, 2, 1), "int8", q(1e30, 0))], [], ("int8", q(1e-30, 0)), keepdims=True),
        PlanError,
        "inf",
    )
    far = [((1, 2), "uint8", z), ((1, 2), "uint8", q(1e9, 0))]
    refused(single_q("concat", far, [], ("uint8", z), axis=1), PlanError, "below 2\\^22")


def test_mean_keeps_its_multiplier_precise() -> None:
    """30 bits and more of 1 / (H * W) in every dialect that multiplies integers."""
    for size in (1, 2, 7, 14, 28, 56, 112):
        graph = single_q("mean", [((1, size, size, 3), "int8", q(0.02, 0))], [], ("int8", q(0.013, 0)), keepdims=True)
        x, y = graph.tensors["x0"], graph.tensors["y"]
        for name in ("tflite-reference", "tflite-optimized", "tflite-single-rounding"):
            p = pooling.mean(graph.nodes[0], x, y, dialect(name))
            real = p.multiplier * 2.0 ** (p.shift - 31) * size * size
            assert abs(real / (0.02 / 0.013) - 1) < 2**-21  # scales are float32
