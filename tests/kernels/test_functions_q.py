"""Integer functions: activations, softmax, (de)quantize, bilinear resize. By hand, reference == fast, LiteRT."""

from __future__ import annotations

import ctypes
import dataclasses
import platform
import time
from collections.abc import Iterator
from decimal import Context, Decimal
from typing import Any

import numba
import numpy as np
import pytest
from cases_q import Array, Q, q, run_q, single_q
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from litert import Peer
from tflite_maker import File, Op, T

from npmobilenet.arithmetic import edges, resize, tables
from npmobilenet.arithmetic.dialects import DIALECTS, dialect
from npmobilenet.arithmetic.exponential import exp_float32
from npmobilenet.errors import NpMobilenetError, PlanError
from npmobilenet.graph import Graph
from npmobilenet.images.recipes import quantize_input
from npmobilenet.kernels import kernel_set
from npmobilenet.kernels.reference.activation import hard_swish_16, high_mul16, high_mul16_truncated, shift_away16
from npmobilenet.kernels.reference.softmax import exp_negative, one_over_one_plus
from npmobilenet.ops import MAX_SIDE
from npmobilenet.runtime.binding import NodeContext
from npmobilenet.runtime.binding.functions import lookup_tables

SETTINGS = settings(derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
LITERT = ("tflite-reference", "tflite-optimized", "xnnpack")
LIMITS = {"uint8": (0, 255), "int8": (-128, 127)}
FUNCTIONS = ("hard_swish", "sigmoid", "relu", "relu6", "relu_n1_to_1")
KINDS = (*FUNCTIONS, "softmax", "requantize", "quantize", "dequantize", "resize_bilinear")


# -- a case: one node and its input ------------------------------------------------------------------------------------


@dataclasses.dataclass
class Case:
    """A node as our graph, as TFLite's operator, and an input."""

    graph: Graph
    x: Array
    name: str
    options: tuple[str, dict[str, Any]] | None = None
    version: int = 2
    constants: tuple[T, ...] = ()

    def file(self) -> bytes:
        """The node as a .tflite file."""
        ends = [self.graph.tensors[n] for n in (self.graph.inputs[0], self.graph.outputs[0])]
        tensors = [_tensor(end.shape, end.dtype, end.quantization) for end in ends]
        operator = Op(self.name, [0, *range(2, 2 + len(self.constants))], [1], self.options, self.version)
        return File([*tensors, *self.constants], [operator], outputs=(1,)).bytes()


def _tensor(shape: tuple[int, ...], dtype: str, z: Q | None) -> T:
    return T(shape, type=dtype) if z is None else T(shape, type=dtype, scale=z.scale, zero_point=z.zero_point)


def _scale(rng: np.random.Generator, least: float, most: float) -> float:
    return float(np.exp(rng.uniform(np.log(least), np.log(most))))


def _zero_point(rng: np.random.Generator, dtype: str) -> int:
    return int(rng.integers(*LIMITS[dtype], endpoint=True))


def _integers(rng: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> Array:
    """All 256 values first, where there is room, then random ones."""
    x: Array = rng.integers(*LIMITS[dtype], shape, dtype, endpoint=True)
    if x.size >= 256:
        x.reshape(-1)[:256] = np.arange(256).astype(np.uint8).view(dtype)
    return x


def make(kind: str, dtype: str, seed: int, small: bool = False) -> Case:
    """A random case: scales and zero points over wide ranges, lengths around the vectors' 8 and 16 elements."""
    rng = np.random.default_rng(seed)
    sizes = [1, 5, 8, 17] if small else [1, 7, 8, 15, 16, 17, 33, 256, 257, 263, 300, 1001]
    shape = (1, int(rng.choice(sizes)))
    zx = q(_scale(rng, 1e-4, 2), _zero_point(rng, dtype))
    s, other = zx.scale[0], ("uint8", "int8")[int(rng.integers(2))]
    if kind == "resize_bilinear":
        return _resize(rng, dtype, zx, small)
    if kind == "softmax":
        return _softmax(rng, dtype, small)
    if kind == "quantize":
        return _quantize(rng, dtype, shape)
    x = _integers(rng, dtype, shape)
    if kind == "dequantize":
        return Case(single_q("dequantize", [(shape, dtype, zx)], [], ("float32", None)), x, "DEQUANTIZE")
    if kind == "requantize":
        ratio = 1.0 if rng.integers(4) == 0 else _scale(rng, 1 / 400, 400)
        end = (other, q(s * ratio, _zero_point(rng, other)))
        return Case(single_q("quantize", [(shape, dtype, zx)], [], end), x, "QUANTIZE")
    if kind == "sigmoid":
        zx = q(_scale(rng, 1e-5, 100), zx.zero_point[0])
        end = (dtype, q(1 / 256, LIMITS[dtype][0]))
    else:
        end = (dtype, q(s * _scale(rng, 1 / 100, 100), _zero_point(rng, dtype)))
    graph = single_q("activation", [(shape, dtype, zx)], [], end, function=kind)
    version = 1 if kind in ("hard_swish", "relu_n1_to_1") else 2
    return Case(graph, x, {"sigmoid": "LOGISTIC"}.get(kind, kind.upper()), None, version)


def _quantize(rng: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> Case:
    """Half of the cases sit on ties; a third have a power of two as scale, for which ties are exact."""
    scale = 2.0 ** int(rng.integers(-8, 2)) if rng.integers(3) == 0 else _scale(rng, 1e-4, 2)
    z = q(scale, _zero_point(rng, dtype))
    x = rng.uniform(-300, 300, shape)
    x = np.round(x) + 0.5 if rng.integers(2) else x
    values = (x * np.float32(z.scale[0])).astype(np.float32)
    return Case(single_q("quantize", [(shape, "float32", None)], [], (dtype, z)), values, "QUANTIZE", None, 1)


def _softmax(rng: np.random.Generator, dtype: str, small: bool) -> Case:
    """Sums of exponentials below 512: there LiteRT's reference kernel would end the process."""
    classes = int(rng.choice([1, 3, 17] if small else [1, 2, 5, 17, 101, 1001]))
    beta = 1.0 if rng.integers(3) else float(np.float32(rng.uniform(0.1, 3)))
    shape, low = (int(rng.integers(1, 5)), classes), LIMITS[dtype][0]
    z = q(_scale(rng, 0.02 if classes > 500 else 1e-5, 300), _zero_point(rng, dtype))
    graph = single_q("softmax", [((1, *shape), dtype, z)], [], (dtype, q(1 / 256, low)), beta=beta)
    x = _integers(rng, dtype, (1, *shape))
    if classes > 500:
        highest = max(LIMITS[dtype][1] - int(3 / z.scale[0] / beta), LIMITS[dtype][0])
        x[..., 0], x[..., 1:] = LIMITS[dtype][1], np.minimum(x[..., 1:], np.array(highest, dtype))
    elif rng.integers(2):
        x = np.clip(rng.standard_normal(x.shape) * 20, *LIMITS[dtype]).astype(dtype)
    return Case(graph, x, "SOFTMAX", ("SoftmaxOptions", {"Beta": beta}))


def _resize(rng: np.random.Generator, dtype: str, z: Q, small: bool) -> Case:
    h, w, oh, ow = (int(v) for v in rng.integers(1, 5 if small else 12, 4))
    c = int(rng.choice([1, 3] if small else [1, 3, 8, 16, 17, 21]))
    factor = int(rng.integers(0, 3))  # 0: any size
    if factor and not small:
        oh, ow = (2, 8)[factor - 1] * h, (2, 8)[factor - 1] * w
    align, half = ((False, False), (True, False), (False, True))[int(rng.integers(3))]
    attrs = {"size": (oh, ow), "align_corners": align, "half_pixel_centers": half}
    graph = single_q("resize_bilinear", [((1, h, w, c), dtype, z)], [], (dtype, z), **attrs)
    options = ("ResizeBilinearOptions", {"AlignCorners": align, "HalfPixelCenters": half})
    size = (T(data=np.array([oh, ow], np.int32)),)
    return Case(graph, _integers(rng, dtype, (1, h, w, c)), "RESIZE_BILINEAR", options, 3, size)


# Seeds of uint8 cases in which the reference and the optimized kernels differ, where that is rare.
RARE = {"softmax": 1382, "resize_bilinear": 30}


def cases(kind: str, count: int) -> Iterator[Case]:
    """`count` of each dtype, and the rare one."""
    for seed in range(count):
        for dtype in LIMITS:
            yield make(kind, dtype, seed)
    if kind in RARE:
        yield make(kind, "uint8", RARE[kind])


# -- by hand -----------------------------------------------------------------------------------------------------------


def by_hand(graph: Graph, x: list[Any], name: str = "tflite-reference") -> list[Any]:
    node = graph.nodes[0]
    array = np.array(x, graph.tensors[node.inputs[0]].dtype).reshape(graph.tensors[node.inputs[0]].shape)
    results = [run_q(graph, [array], kernels, name) for kernels in ("python", "reference", "fast")]
    assert results[0].tobytes() == results[1].tobytes() == results[2].tobytes()
    flat: list[Any] = results[0].reshape(-1).tolist()
    return flat


def _one(op: str, start: Any, end: Any, size: int, **attrs: Any) -> Graph:
    return single_q(op, [((1, size), *start)], [], end, **attrs)


def test_relu_by_hand() -> None:
    # real values -2 ... 8 in steps of 2, to steps of 0.5 and a zero point of -100: 6 is 12 steps
    graph = _one("activation", ("int8", q(2, 1)), ("int8", q(0.5, -100)), 6, function="relu6")
    assert by_hand(graph, [0, 1, 2, 3, 4, 5]) == [-100, -100, -96, -92, -88, -88]
    graph = _one("activation", ("uint8", q(0.5, 10)), ("uint8", q(0.5, 20)), 5, function="relu_n1_to_1")
    assert by_hand(graph, [0, 8, 9, 12, 255]) == [18, 18, 19, 22, 22]


def test_relu_rounds_twice_or_once() -> None:
    # by 1/8, which is 1/2 * 2^-2: 3 -> 1.5 -> 2 -> 0.5 -> 1, in one step 0.375 -> 0; 4 -> 2 -> 0.5 -> 1; 12 -> 1.5 -> 2
    graph = _one("activation", ("uint8", q(0.75, 0)), ("uint8", q(6, 0)), 3, function="relu")
    for name in LITERT:
        assert by_hand(graph, [3, 4, 12], name) == [1, 1, 2]
    assert by_hand(graph, [3, 4, 12], "tflite-single-rounding") == [0, 1, 2]


def test_hard_swish_by_hand() -> None:
    # scale 1/16: -4, -3, -1, 0, 1, 3, 5 -> 0, 0, -1/3, 0, 2/3, 3, 5, in steps of 1/16: 0 0 -5.3 0 10.7 48 80
    graph = _one("activation", ("int8", q(1 / 16, 0)), ("int8", q(1 / 16, 0)), 7, function="hard_swish")
    assert by_hand(graph, [-64, -48, -16, 0, 16, 48, 80]) == [0, 0, -5, 0, 11, 48, 80]


def test_hard_swish_steps_by_hand() -> None:
    """q = 16 of the case above, step by step."""
    end = single_q("activation", [((1, 1), "int8", q(1 / 16, 0))], [], ("int8", q(1 / 16, 0)), function="hard_swish")
    node, x, result = end.nodes[0], end.tensors["x0"], end.tensors[end.outputs[0]]
    p = tables.hard_swish(node, x, result)
    assert (p.output_multiplier, p.output_exponent) == (16384, -6)  # 1/128 = 1/2 * 2^-6
    assert (p.gate_multiplier, p.gate_exponent) == (21845, 3)  # 1/16/128*32768/3 = 5.333 = 2/3 * 2^3, 2/3 * 2^15
    # v = 2,048; scaled = 1,024; gate: 2,048 << 2 = 8,192, * 2/3 = 5,461, << 1 = 10,922 (1/3 of 2^15), halved: 21,845
    # product: 21,845 * 1,024 / 2^15 = 682.66 -> 682; / 2^6 = 10.66 -> 11
    assert hard_swish_16(16, p) == 11
    assert high_mul16(8192, 21845) == 5461
    assert (high_mul16_truncated(21845, 1024), high_mul16_truncated(21845, -1024)) == (682, -682)
    assert high_mul16(-32768, -32768) == high_mul16_truncated(-32768, -32768) == 32767
    assert [shift_away16(v, 1) for v in (3, -3, 2, -1)] == [2, -2, 1, -1]
    assert [shift_away16(v, 16) for v in (0, 5, -5)] == [1, 1, -1]  # gemmlowp's mask, cut to 16 bits


def test_logistic_by_hand() -> None:
    graph = _one("activation", ("uint8", q(0.5, 128)), ("uint8", q(1 / 256, 0)), 6, function="sigmoid")
    # 1 / (1 + e^-x) * 256 for x = -64, -1, 0, 0.5, 1, 63.5
    for name in LITERT:
        assert by_hand(graph, [0, 126, 128, 129, 130, 255], name) == [0, 69, 128, 159, 187, 255]


def test_softmax_by_hand() -> None:
    # e^0, e^-ln2, e^-ln2 over their sum 2: 128, 64, 64; and two equal ones: 128 each
    graph = _one("softmax", ("int8", q(np.log(2), 5)), ("int8", q(1 / 256, -128)), 3, beta=1.0)
    for name in DIALECTS:
        assert by_hand(graph, [10, 9, 9], name) == [0, -64, -64]
    graph = _one("softmax", ("uint8", q(1, 0)), ("uint8", q(1 / 256, 0)), 3, beta=1.0)
    for name in DIALECTS:
        assert by_hand(graph, [255, 0, 255], name) == [128, 0, 128]
        assert by_hand(graph, [7, 0, 0], name) == [256 - 1, 0, 0]


def test_softmax_where_litert_ends_the_process() -> None:
    """512 equal classes and more: each gets 256/classes, rounded."""
    for classes, expected in ((511, 1), (512, 0), (513, 0), (20000, 0)):  # 512: just below a half
        graph = _one("softmax", ("uint8", q(1, 0)), ("uint8", q(1 / 256, 0)), classes, beta=1.0)
        out = run_q(graph, [np.zeros((1, classes), np.uint8)], "fast")
        assert set(out.reshape(-1).tolist()) == {expected}


def test_fixed_point_exponential_and_reciprocal() -> None:
    """Against float64. The polynomial leaves out x^5/120 for |x| <= 1/8, which is 2.6e-7."""
    for a in np.linspace(-(2**31) + 1, -1, 4001).astype(np.int64).tolist():
        assert abs(exp_negative(a) / 2**31 - np.exp(a / 2**26)) < 2.6e-7
    for a in np.linspace(0, 2**31 - 1, 2001).astype(np.int64).tolist():
        assert abs(one_over_one_plus(a) / 2**31 - 1 / (1 + a / 2**31)) < 2**-28


def test_quantize_by_hand() -> None:
    graph = _one("quantize", ("float32", None), ("int8", q(0.5, -3)), 13)
    x = [0, 0.25, -0.25, 0.75, -0.75, 1.25, 100, -100, 0.24999999, float("nan"), 0.25, -0.25, 0.75]
    away = [-3, -2, -4, -1, -5, 0, 127, -128, -3, -128, -2, -4, -1]
    even = [-3, -3, -3, -1, -5, -1, 127, -128, -3, -128, -3, -3, -1]
    assert by_hand(graph, x, "tflite-reference") == away
    assert by_hand(graph, x, "xnnpack") == even
    assert by_hand(graph, x, "tflite-optimized") == even[:8] + away[8:]  # a vector of 8, then one by one


def test_requantize_by_hand() -> None:
    # by 1/8, which is 1/2 * 2^-2: halves go up, and then ties of quarters away from zero or upward; or once by 1/8
    graph = _one("quantize", ("int8", q(0.125, 0)), ("int8", q(1, 0)), 17)
    x = [4, 12, -4, -12, -20, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, -4]
    twice, once = [0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1]
    assert by_hand(graph, x, "tflite-reference") == [1, 2, -1, -2, -3, *twice, -1]
    assert by_hand(graph, x, "tflite-optimized") == [1, 2, 0, -1, -2, *twice, -1]  # 16, and one on its own
    for name in ("tflite-single-rounding", "xnnpack"):
        assert by_hand(graph, x, name) == [1, 2, 0, -1, -2, *once, 0]
    graph = _one("quantize", ("uint8", q(0.3, 128)), ("int8", q(0.3, 0)), 4)
    for name in DIALECTS:
        assert by_hand(graph, [0, 127, 128, 255], name) == [-128, -1, 0, 127]


def test_dequantize_by_hand() -> None:
    graph = _one("dequantize", ("int8", q(0.5, -3)), ("float32", None), 3)
    for name in DIALECTS:
        assert by_hand(graph, [-128, -3, 127], name) == [-62.5, 0, 65]


def test_resize_by_hand() -> None:
    def resized(dtype: str, name: str, **attrs: bool) -> list[int]:
        graph = single_q("resize_bilinear", [((1, 1, 2, 1), dtype, q(1, 0))], [], (dtype, q(1, 0)), size=(1, 4),
                         **{"align_corners": False, "half_pixel_centers": False, **attrs})  # fmt: skip
        return by_hand(graph, [0, 6] if dtype == "uint8" else [0, -7], name)

    for name in DIALECTS:
        assert resized("uint8", name) == [0, 3, 6, 6]
        assert resized("uint8", name, align_corners=True) == [0, 2, 4, 6]
        assert resized("uint8", name, half_pixel_centers=True) == [0, 2, 5, 6]  # 0, 1.5, 4.5, 6: ties upward
    # -3.5: away from zero, or upward
    assert resized("int8", "tflite-reference") == [0, -4, -7, -7]
    assert resized("int8", "tflite-single-rounding") == resized("int8", "xnnpack") == [0, -3, -7, -7]


# -- tables ------------------------------------------------------------------------------------------------------------


def test_exponential_is_that_of_libm() -> None:
    """Within 0.502 units in the last place of e^x; on glibc, its expf to the bit."""
    rng = np.random.default_rng(0)
    xs = np.concatenate([-rng.uniform(0, 105, 3000), rng.uniform(0, 88, 1000), [0, -103.97, -87.4]]).astype(np.float32)
    for x in xs[::20]:
        exact, got = Decimal(float(x)).exp(Context(prec=40)), exp_float32(x)
        assert abs(Decimal(float(got)) - exact) <= Decimal("0.502") * Decimal(float(np.spacing(got)))
    if platform.libc_ver()[0] == "glibc":
        expf = ctypes.CDLL("libm.so.6").expf
        expf.restype, expf.argtypes = ctypes.c_float, [ctypes.c_float]
        assert [float(exp_float32(x)) for x in xs] == [expf(float(x)) for x in xs]


def test_tables_are_in_the_order_of_bits() -> None:
    case = make("relu", "int8", 0)
    node = case.graph.nodes[0]
    ends = case.graph.tensors["x0"], case.graph.tensors[node.output]
    ctx = NodeContext(node, [ends[0]], [case.x], ends[1], case.x, kernel_set("python"), dialect("tflite-reference"))
    table, split = lookup_tables(ctx)
    x = np.arange(256).astype(np.uint8).view(np.int8).reshape(1, -1)
    assert (table.dtype, split) == (np.int8, case.x.size)
    whole = single_q("activation", [((1, 256), "int8", ends[0].quantization)], [], ("int8", ends[1].quantization),
                     function="relu")  # fmt: skip
    assert run_q(whole, [x], "python").tolist() == [table[0].tolist()]


def test_quantizing_inputs_is_the_same_rule() -> None:
    """preprocess.quantize_input and the reference dialect's quantize."""
    for case in cases("quantize", 20):
        end = case.graph.tensors[case.graph.outputs[0]]
        assert end.quantization is not None
        expected = quantize_input(case.x, end.quantization.scale[0], end.quantization.zero_point[0], end.dtype)
        assert np.array_equal(run_q(case.graph, [case.x], "fast"), expected)


# -- reference == fast -------------------------------------------------------------------------------------------------


def _batched(case: Case, batch: int, seed: int) -> Array:
    """The case's input and others like it, as further images."""
    rng = np.random.default_rng(seed)
    return np.concatenate([case.x] + [rng.permuted(case.x, axis=-1) for _ in range(batch - 1)])


@pytest.mark.equal("integer functions", "fast, 1 and 2 threads", "reference, compiled; generated cases", "bits")
@pytest.mark.parametrize("kind", KINDS)
def test_fast_equals_reference(kind: str) -> None:
    @given(st.integers(0, 2**32 - 1), st.sampled_from(list(LIMITS)), st.integers(1, 3), st.integers(1, 2))
    @settings(SETTINGS, max_examples=16)
    def check(seed: int, dtype: str, batch: int, threads: int) -> None:
        case = make(kind, dtype, seed)
        x = _batched(case, batch, seed)
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
        try:
            for name in DIALECTS:
                reference, fast = (run_q(case.graph, [x], kernels, name) for kernels in ("reference", "fast"))
                assert reference.tobytes() == fast.tobytes(), name
                one = [run_q(case.graph, [image[None]], "fast", name) for image in x]
                assert np.concatenate(one).tobytes() == fast.tobytes(), "an image's result depends on its batch"
        finally:
            numba.set_num_threads(numba.config.NUMBA_NUM_THREADS)

    check()


@pytest.mark.equal("integer functions", "fast", "reference, compiled; more elements than a thread's share", "bits")
@pytest.mark.parametrize("kind", ["relu6", "requantize", "dequantize", "quantize"])
def test_fast_equals_reference_over_many_chunks(kind: str) -> None:
    case = make(kind, "int8", 3)
    start, end = (case.graph.tensors[n] for n in (case.graph.inputs[0], case.graph.outputs[0]))
    shape, node = (1, 3, 4099), case.graph.nodes[0]
    graph = single_q(node.op, [(shape, start.dtype, start.quantization)], [], (end.dtype, end.quantization),
                     **node.attrs)  # fmt: skip
    x = np.resize(case.x, (2, *shape[1:]))
    for name in DIALECTS:
        assert run_q(graph, [x], "reference", name).tobytes() == run_q(graph, [x], "fast", name).tobytes()


@pytest.mark.equal("integer functions", "reference, compiled", "reference, plain Python; generated cases", "bits")
@pytest.mark.parametrize("kind", KINDS)
def test_compiled_reference_equals_plain_python(kind: str) -> None:
    for seed in range(6):
        for dtype in LIMITS:
            case = make(kind, dtype, seed, small=True)
            for name in DIALECTS:
                plain, compiled = (run_q(case.graph, [case.x], k, name) for k in ("python", "reference"))
                assert plain.tobytes() == compiled.tobytes(), name


# -- LiteRT ------------------------------------------------------------------------------------------------------------


@pytest.mark.equal("integer functions", "fast", "LiteRT 2.3.0, one-op models, all 256 inputs, each resolver", "bits")
@pytest.mark.parametrize("name", LITERT)
@pytest.mark.parametrize("kind", KINDS)
def test_equals_litert(kind: str, name: str) -> None:
    for case in cases(kind, 24):
        peer = Peer(case.file(), name)
        (index,) = (d["index"] for d in peer.interpreter.get_output_details())
        expected, got = peer.run(case.x)[index], run_q(case.graph, [case.x], "fast", name)
        wrong = got.reshape(expected.shape) != expected
        assert not wrong.any(), f"{case.graph.tensors}: {int(wrong.sum())} of {wrong.size}"


def _differ(kind: str, a: str, b: str) -> bool:
    return any(not np.array_equal(*(run_q(c.graph, [c.x], "fast", name) for name in (a, b))) for c in cases(kind, 24))


def test_the_cases_tell_the_dialects_apart() -> None:
    """Else equality with LiteRT would show nothing of the rules."""
    reference, optimized, xnnpack = LITERT
    for kind in ("softmax", "requantize", "quantize", "dequantize", "resize_bilinear"):
        assert _differ(kind, reference, optimized), kind
    for kind in ("requantize", "quantize", "dequantize", "resize_bilinear"):
        assert _differ(kind, optimized, xnnpack), kind
    assert _differ("relu6", reference, "tflite-single-rounding")


def test_two_logistic_rules() -> None:
    """float32 with ties away from zero, float64 (XNNPACK): equal but right beside ties. Cases that tell them apart."""
    for scale in (0.005782967433333397, 0.003869475796818733, 0.007360190153121948):
        ends = ("int8", q(scale, 0)), ("int8", q(1 / 256, -128))
        graph = _one("activation", *ends, 256, function="sigmoid")
        x = np.arange(-128, 128).astype(np.int8).reshape(1, -1)
        rules = [run_q(graph, [x], "fast", name) for name in LITERT]
        assert np.array_equal(rules[0], rules[1])
        assert not np.array_equal(rules[1], rules[2])
        for name, ours in zip(LITERT, rules, strict=True):
            expected = Peer(Case(graph, x, "LOGISTIC").file(), name).run(x)[1]
            assert np.array_equal(expected.reshape(ours.shape), ours), (scale, name)


# -- refusals ----------------------------------------------------------------------------------------------------------


UINT8, INT8 = ("uint8", q(0.1, 3)), ("int8", q(0.1, 3))
REFUSED: list[tuple[str, Any, Any, dict[str, Any], str]] = [
    ("activation", UINT8, UINT8, {"function": "hard_sigmoid"}, "no integer rule.*Export the model"),
    ("activation", UINT8, UINT8, {"function": "hard_sigmoid_slim"}, "no integer rule"),
    ("activation", UINT8, INT8, {"function": "relu"}, "expected uint8 to uint8"),
    ("activation", UINT8, ("uint8", None), {"function": "relu"}, "expected one scale"),
    ("activation", UINT8, UINT8, {"function": "sigmoid"}, "an output scale of 1/256"),
    ("activation", ("int8", q(1, 0)), ("int8", q(1 / 300, 0)), {"function": "hard_swish"}, "less than 1/128"),
    ("softmax", UINT8, UINT8, {"beta": 1.0}, "scale 1/256"),
    ("softmax", UINT8, ("uint8", q(1 / 256, 1)), {"beta": 1.0}, "zero point 0"),
    ("softmax", UINT8, ("int8", q(1 / 256, -128)), {"beta": 1.0}, "expected an output of uint8"),
    ("softmax", ("int8", q(1e-9, 0)), ("int8", q(1 / 256, -128)), {"beta": 1.0}, "too small"),
    ("quantize", UINT8, ("int16", q(1, 0)), {}, "to uint8 or int8, got uint8 to int16"),
    ("quantize", ("float32", None), ("int32", q(1, 0)), {}, "got float32 to int32"),
    ("dequantize", ("int16", q(1, 0)), ("float32", None), {}, "expected uint8 or int8 to float32"),
    ("dequantize", ("uint8", Q((1.0, 2.0), (0, 0), 1)), ("float32", None), {}, "expected one scale.*2 scales"),
]  # fmt: skip


@pytest.mark.parametrize(("op", "start", "end", "attrs", "message"), REFUSED)
def test_refused(op: str, start: Any, end: Any, attrs: dict[str, Any], message: str) -> None:
    graph = _one(op, start, end, 2, **attrs)
    x = np.zeros((1, 2), start[0])
    with pytest.raises(NpMobilenetError, match=message):
        run_q(graph, [x], "python")


def test_resize_between_scales_is_refused() -> None:
    attrs = {"size": (2, 2), "align_corners": False, "half_pixel_centers": False}
    graph = single_q("resize_bilinear", [((1, 1, 1, 1), "int8", q(1, 0))], [], ("int8", q(2, 0)), **attrs)
    with pytest.raises(PlanError, match="same dtype, scale and zero point"):
        run_q(graph, [np.zeros((1, 1, 1, 1), np.int8)], "python")


def test_which_rescalings_are_delegated() -> None:
    def delegated(start: Any, end: Any) -> bool:
        graph = _one("quantize", start, end, 1)
        return edges.delegated(graph.tensors["x0"], graph.tensors[graph.outputs[0]])

    assert delegated(("int8", q(128, 0)), ("int8", q(1, 0)))
    assert delegated(("int8", q(1, 0)), ("int8", q(256, 0)))
    assert not delegated(("int8", q(128.001, 0)), ("int8", q(1, 0)))
    assert not delegated(("int8", q(1, 0)), ("int8", q(256.001, 0)))
    assert not delegated(("uint8", q(1, 0)), ("int8", q(1, 0)))


def one_by_one(rule: str, size_in: int, size_out: int, align: bool, half: bool) -> list[tuple[int, int, float]]:
    """Where each output index falls, as the runtimes' loops compute it: in float32, or in integers (fixed10)."""
    f, less = np.float32, 1 if align and size_out > 1 else 0
    found: list[tuple[int, int, float]] = []
    for o in range(size_out):
        ratio = f(size_in - less) / f(size_out - less)
        if rule.startswith("fixed10"):
            whole = (1024 * (size_in - less) + (size_out - less) // 2) // (size_out - less)
            at = o * whole + (whole // 2 - 512 if half else 0)
            first = min(max(at // 1024, 0), size_in - 1)
            found.append((first, min(max(-(-at // 1024), 0), size_in - 1), min(at - 1024 * first, 1024)))
            continue
        if rule == "fixed11":
            x = f(o) * ratio + (f(0.5) * ratio - f(0.5) if half else f(0))
            x = min(max(x, f(0)), f(size_in - 1))
            found.append((int(x), min(int(x) + 1, size_in - 1), int(np.rint((x - f(int(x))) * f(2048)))))
            continue
        x = (f(o) + f(0.5)) * ratio - f(0.5) if half else f(o) * ratio
        first = min(max(int(np.floor(x)), 0), size_in - 1)
        found.append((first, min(int(np.ceil(x)), size_in - 1), float(x - f(first))))
    return found


@pytest.mark.parametrize("rule", resize.RULES)
def test_resize_tables_are_those_of_loops(rule: str) -> None:
    """Vectors of NumPy give, for all rows or columns at once, what the runtimes compute for one after the other."""
    sizes = [(1, 1), (1, 7), (7, 1), (5, 3), (3, 5), (64, 65), (65, 64), (7, 224), (224, 7), (1000, 999), (1, MAX_SIDE),
             (MAX_SIDE, 3), (MAX_SIDE - 1, 1000)]  # fmt: skip
    for size_in, size_out in sizes:
        for align, half in ((False, False), (True, False), (False, True), (True, True)):
            axis = resize.axis(rule, size_in, size_out, align, half)
            expected = list(zip(*one_by_one(rule, size_in, size_out, align, half), strict=True))
            for part, values in zip(axis, expected, strict=True):
                assert part.tolist() == list(values), (size_in, size_out, align, half)


def test_resize_tables_of_the_largest_sides_take_no_time() -> None:
    start = time.process_time()
    for rule in resize.RULES:
        resize.axis(rule, MAX_SIDE, MAX_SIDE, False, True)
    assert time.process_time() - start < 2  # some milliseconds; a loop in Python takes half a second each
