"""Integer functions, where runtimes part: activations, softmax, (de)quantize, bilinear resize; and their tables."""

from __future__ import annotations

import ctypes
import platform
import time
from collections.abc import Iterator
from decimal import Context, Decimal
from typing import Any

import numpy as np
import pytest
from cases import q, run_q, same_bits, single_q
from node_cases import LIMITS, Case, function
from tflite_export import litert_output

from npmobilenet.arithmetic import edges, resize
from npmobilenet.arithmetic.dialects import DIALECTS, dialect
from npmobilenet.arithmetic.exponential import exp_float32
from npmobilenet.arithmetic.fixedpoint import everywhere
from npmobilenet.graph import Graph
from npmobilenet.images.recipes import quantize_input
from npmobilenet.kernels import kernel_set
from npmobilenet.kernels.reference.softmax import exp_negative, one_over_one_plus
from npmobilenet.ops import MAX_SIDE
from npmobilenet.runtime.binding import NodeContext, bind

LITERT = ("tflite-reference", "tflite-optimized", "xnnpack")


# Seeds of uint8 cases in which the reference and the optimized kernels differ, where that is rare.
RARE = {"softmax": 1382, "resize_bilinear": 30}


def cases(kind: str, count: int) -> Iterator[Case]:
    """`count` of each dtype, and the rare one."""
    for seed in range(count):
        for dtype in LIMITS:
            yield function(kind, dtype, seed)
    if kind in RARE:
        yield function(kind, "uint8", RARE[kind])


def _one(op: str, start: Any, end: Any, size: int, **attrs: Any) -> Graph:
    return single_q(op, [((1, size), *start)], [], end, **attrs)


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
    graph, (given,) = function("relu", "int8", 0)
    node = graph.nodes[0]
    ends = graph.tensors["x0"], graph.tensors[node.output]
    ctx = NodeContext(node, [ends[0]], [given], ends[1], given, kernel_set("python"), dialect("tflite-reference"))
    _, table, which, _ = bind(ctx)[0].args
    x = np.arange(256).astype(np.uint8).view(np.int8).reshape(1, -1)
    assert (table.dtype, which) == (np.int8, everywhere(0))
    whole = single_q("activation", [((1, 256), "int8", ends[0].quantization)], [], ("int8", ends[1].quantization),
                     function="relu")  # fmt: skip
    assert run_q(whole, [x], "python").tolist() == [table[0].tolist()]


def test_quantizing_inputs_is_the_same_rule() -> None:
    """preprocess.quantize_input and the reference dialect's quantize."""
    for case in cases("quantize", 20):
        end = case.graph.tensors[case.graph.outputs[0]]
        assert end.quantization is not None
        expected = quantize_input(case.arrays[0], end.quantization.scale[0], end.quantization.zero_point[0], end.dtype)
        assert np.array_equal(run_q(case.graph, case.arrays, "fast"), expected)


@pytest.mark.equal("integer functions", "fast", "reference, compiled; more elements than a thread's share", "bits")
@pytest.mark.parametrize("kind", ["relu6", "requantize", "dequantize", "quantize"])
def test_fast_equals_reference_over_many_chunks(kind: str) -> None:
    case = function(kind, "int8", 3)
    start, end = (case.graph.tensors[n] for n in (case.graph.inputs[0], case.graph.outputs[0]))
    shape, node = (1, 3, 4099), case.graph.nodes[0]
    graph = single_q(node.op, [(shape, start.dtype, start.quantization)], [], (end.dtype, end.quantization),
                     **node.attrs)  # fmt: skip
    x = np.resize(case.arrays[0], (2, *shape[1:]))
    for name in DIALECTS:
        assert run_q(graph, [x], "reference", name).tobytes() == run_q(graph, [x], "fast", name).tobytes()


# -- LiteRT ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", RARE)
def test_rare_cases_equal_litert(kind: str) -> None:
    case = function(kind, "uint8", RARE[kind])
    for name in LITERT:
        assert same_bits(run_q(case.graph, case.arrays, "fast", name), litert_output(case.graph, case.arrays, name)), (
            name
        )


def _differ(kind: str, a: str, b: str) -> bool:
    return any(
        not np.array_equal(*(run_q(c.graph, c.arrays, "fast", name) for name in (a, b))) for c in cases(kind, 24)
    )


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
            assert same_bits(ours, litert_output(graph, [x], name)), (scale, name)


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
        if half and rule.endswith("fused"):  # one rounding, of the exact value
            x = f((o + 0.5) * float(ratio) - 0.5)
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
