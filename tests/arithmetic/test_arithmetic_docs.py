"""docs/arithmetic.md: every worked example is computed here with the project's own functions and compared.

`PYTHONPATH=tests python tests/arithmetic/test_arithmetic_docs.py` writes the examples into the page anew.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import defining, q, run_q, single_q

from npmobilenet.arithmetic import convolution, elementwise, pooling, resize, softmax, tables
from npmobilenet.arithmetic import fixedpoint as fp
from npmobilenet.arithmetic.dialects import DIALECTS, dialect
from npmobilenet.golden.single_node import IsolatedNode, steps, vector_rules
from npmobilenet.graph import Graph
from npmobilenet.kernels.reference import activation as activation_kernels
from npmobilenet.kernels.reference import binary as binary_kernels
from npmobilenet.kernels.reference import softmax as softmax_kernels
from npmobilenet.ops import Quantization

PAGE = Path(__file__).resolve().parents[2] / "docs" / "arithmetic.md"
NAMES = tuple(DIALECTS)
WINDOW = {"stride": (1, 1), "padding": ((0, 0), (0, 0))}
Lines = list[str]


def rows(head: tuple[str, ...], body: list[tuple[Any, ...]]) -> Lines:
    """A Markdown table; columns of numbers to the right."""
    cells = [[str(cell) for cell in row] for row in body]
    numbers = [all(re.fullmatch(r"-?[\d.e-]*", row[i]) for row in cells) for i in range(len(head))]
    marks = ["---:" if number else "---" for number in numbers]
    return [f"| {' | '.join(head)} |", f"|{'|'.join(marks)}|", *(f"| {' | '.join(row)} |" for row in cells)]


def run(graph: Graph, *inputs: Any, name: str = "tflite-reference") -> list[Any]:
    """The node's output, flat, the same from the reference kernels in plain Python and from the fast kernels."""
    tensors = [graph.tensors[n] for n in graph.nodes[0].inputs]
    arrays = [np.array(x, t.dtype).reshape(t.shape) for x, t in zip(inputs, tensors, strict=True)]
    plain, fast = (run_q(graph, arrays, kernels, name) for kernels in ("python", "fast"))
    assert plain.tobytes() == fast.tobytes()
    found: list[Any] = plain.ravel().tolist()
    return found


def by_dialect(graph: Graph, *inputs: Any, head: str = "output") -> Lines:
    """Which dialects give which output."""
    found: dict[str, list[str]] = {}
    for name in defining(graph):
        found.setdefault(", ".join(map(str, run(graph, *inputs, name=name))), []).append(name)
    return rows(("dialect", head), [(", ".join(names), output) for output, names in found.items()])


def tensors_of(graph: Graph) -> list[Any]:
    node = graph.nodes[0]
    return [graph.tensors[n] for n in (*node.inputs, node.output)]


def unary(op: str, start: tuple[str, Any], end: tuple[str, Any], size: int, **attrs: Any) -> Graph:
    return single_q(op, [((1, size), *start)], [], end, **attrs)


# -- the basics --------------------------------------------------------------------------------------------------------


def scales() -> Lines:
    body = []
    for dtype, z, values in (("uint8", q(6 / 255, 0), (0, 128, 255)), ("int8", q(2 / 255, -1), (-128, -1, 0, 127))):
        graph = unary("dequantize", (dtype, z), ("float32", None), len(values))
        for value, real in zip(values, run(graph, values), strict=True):
            body.append((dtype, z.scale[0], z.zero_point[0], value, f"{real:.6g}"))
    return rows(("dtype", "scale", "zero point", "q", "real"), body)


FACTORS = (1 / 16, 1 / 8, 0.3, 1.5, 2.0**-33)


def multipliers() -> Lines:
    body = []
    for real in FACTORS:
        multiplier, shift = fp.quantize_multiplier(real)
        held = Fraction(multiplier) * Fraction(2) ** (shift - 31)
        assert abs(held - Fraction(real)) <= max(Fraction(real) / 2**30, Fraction(2) ** -33)
        body.append((f"{real:.6g}", multiplier, shift, f"{float(held):.12g}"))
    return rows(("factor", "multiplier", "shift", "multiplier * 2^(shift - 31)"), body)


RULES = ("double", "upward", "single", "float32", "float64")


def requantize(acc: int, factor: float, rule: str) -> int:
    return int(fp.requantize(acc, *fp.quantize_multiplier(factor), factor, fp.rounding(rule)))


def roundings() -> Lines:
    """Pairs of accumulator and factor; every two rules part in one of them."""
    cases = [(200, 1 / 8), (3, 1 / 8), (12, 1 / 8), (20, 1 / 8), (-12, 1 / 8), (-20, 1 / 8), (2**24 + 1, 2.0**-25)]
    body, results = [], []
    for acc, factor in cases:
        results.append([requantize(acc, factor, rule) for rule in RULES])
        exact = float(Fraction(acc) * Fraction(factor))
        body.append((acc, f"{factor:.8g}", f"{exact:.9g}", *results[-1]))
    for i in range(len(RULES)):
        for j in range(i):
            assert any(row[i] != row[j] for row in results), (RULES[i], RULES[j])
    return rows(("accumulator", "factor", "product", *RULES), body)


def followed() -> Lines:
    """Two accumulators through each step, factor 1/8: multiplier 2^30, shift -2."""
    multiplier, shift = fp.quantize_multiplier(1 / 8)
    assert (multiplier, shift) == (2**30, -2)
    body = []
    for acc in (3, -12):
        high = int(fp.high_mul(acc, multiplier))
        assert high == np.floor(acc / 2 + 0.5)
        quarter = f"{high} / 4 = {high / 4:g}"
        exact = f"{acc} / 8 = {acc / 8:g}"
        half = f"high_mul: {acc} / 2 = {acc / 2:g} to {high}"
        body += [
            (acc, "double", half, f"shift_away: {quarter}", int(fp.double_rounding(acc, multiplier, shift))),
            (acc, "upward", half, f"shift_upward: {quarter}", int(fp.upward_rounding(acc, multiplier, shift))),
            (acc, "single", "none", f"add half, floor: {exact}", int(fp.single_rounding(acc, multiplier, shift))),
            (acc, "float32", f"float32({acc}) exact", f"to even: {exact}", int(fp.float32_rounding(acc, 1 / 8))),
            (acc, "float64", f"float64({acc}) exact", f"away from 0: {exact}", int(fp.float64_rounding(acc, 1 / 8))),
        ]
    return rows(("accumulator", "rule", "first step", "last step", "result"), body)


# -- convolutions ------------------------------------------------------------------------------------------------------

X, Z_IN, W, BIAS = (-100, 25, 60), -10, (12, -45, 33), 333
OUT = q(0.25, 5)


def convolution_graph(op: str = "conv2d", factor: float = 1 / 8, **attrs: Any) -> Graph:
    """One output value of three terms; the scales are s_in = 0.5, s_w = factor / 2, s_out = 0.25."""
    x, w = ((1, 1, 1, 3), (1, 1, 3, 1)) if op == "conv2d" else ((1, 3), (3, 1))
    weights = Quantization((factor / 2,), (0,))
    bias = Quantization((factor / 4,), (0,))
    more = WINDOW if op == "conv2d" else {}
    return single_q(op, [(x, "int8", q(0.5, Z_IN))], [(w, "int8", weights), ((1,), "int32", bias)], ("int8", OUT),
                    **more, **attrs)  # fmt: skip


def conv_sum() -> Lines:
    body: list[tuple[Any, ...]] = [("bias", "", "", "", BIAS)]
    acc = BIAS
    for x, w in zip(X, W, strict=True):
        acc += (x - Z_IN) * w
        body.append((f"{x}", x - Z_IN, w, (x - Z_IN) * w, acc))
    graph = convolution_graph()
    arrays = [np.array(v, d).reshape(t.shape) for v, d, t in
              zip((X, W, BIAS), ("int8", "int8", "int32"), tensors_of(graph), strict=False)]  # fmt: skip
    assert run_q(graph, arrays, "python", stage="accumulator").ravel().tolist() == [acc]
    return rows(("x", "x - z_in", "w - z_w", "product", "accumulator"), body)


def conv_out() -> Lines:
    graph = convolution_graph()
    x, w, b, out = tensors_of(graph)
    step = convolution.requantization(graph.nodes[0], x, w, out, dialect("tflite-reference"), b)
    assert (step.scale.tolist(), step.multiplier.tolist(), step.shift.tolist()) == ([0.125], [2**30], [-2])
    return by_dialect(graph, X, W, BIAS)


def conv_factors() -> Lines:
    """One layer's scales, and the factor that each runtime makes of them."""
    body = []
    s_in, s_w, s_out = 0.0235284772, 0.034030553, 0.0200000033
    for dtype in ("uint8", "int8"):
        graph = single_q("conv2d", [((1, 1, 1, 1), dtype, q(s_in, 0))], [((1, 1, 1, 1), dtype, q(s_w, 0)),
                         ((1,), "int32", None)], (dtype, q(s_out, 0)), **WINDOW)  # fmt: skip
        x, w, _, out = tensors_of(graph)
        for rule, names in (("double", "TFLite"), ("float32", "XNNPACK")):
            (factor,) = convolution.real_factors(graph.nodes[0], x, w, out, rule)
            body.append((f"{names}, {dtype}", f"{factor:.17g}", *fp.quantize_multiplier(float(factor))))
    assert len({row[1] for row in body}) == 3
    return rows(("runtime, dtype", "factor", "multiplier", "shift"), body)


def depthwise() -> Lines:
    """Nine channels with the same accumulator, -12, and the factor 1/8."""
    graph = single_q("depthwise_conv2d", [((1, 1, 1, 9), "int8", q(0.5, Z_IN))], [((1, 1, 9), "int8", q(1 / 16, 0)),
                     ((9,), "int32", q(1 / 32, 0))], ("int8", OUT), **WINDOW)  # fmt: skip
    found = by_dialect(graph, [Z_IN + 4] * 9, [-5] * 9, [8] * 9)
    assert any("4, 4, 4, 4, 4, 4, 4, 4, 3" in line for line in found)
    return found


def fully_connected() -> Lines:
    """The example of conv2d, and one whose accumulator is 3."""
    graph = convolution_graph("fully_connected")
    first, second = (by_dialect(graph, X, W, bias) for bias in (BIAS, BIAS + 15))
    body = []
    for name in NAMES:
        body.append((name, *(run(graph, X, W, bias, name=name)[0] for bias in (BIAS, BIAS + 15))))
    assert first != second
    return rows(("dialect", "accumulator -12", "accumulator 3"), body)


# -- two operands ------------------------------------------------------------------------------------------------------


def binary(op: str, x: Any, y: Any, out: Any, count: int = 1, **attrs: Any) -> Graph:
    shape = (1, 1, 1, count)
    return single_q(op, [(shape, "int8", x), (shape, "int8", y)], [], ("int8", out), **attrs)


ADD = (q(0.5, 10), q(0.25, -4), q(0.5, -3))


def add_steps() -> Lines:
    graph = binary("add", *ADD)
    p = elementwise.addition(graph.nodes[0], *tensors_of(graph), dialect("tflite-reference"))
    body: list[tuple[Any, ...]] = []
    total = 0
    for label, v, multiplier, shift in (
        ("x = 5: 5 - 10", 5 - p.zero_x, p.multiplier_x, p.shift_x),
        ("y = -9: -9 + 4", -9 - p.zero_y, p.multiplier_y, p.shift_y),
    ):
        scaled = int(binary_kernels.common_unit(v, multiplier, shift, fp.Rounding.DOUBLE))
        total += scaled
        body.append((label, v, v * 2**20, f"{multiplier} * 2^({shift} - 31)", scaled))
    result = int(fp.double_rounding(total, p.multiplier, p.shift))
    body.append(("sum", "", total, f"{p.multiplier} * 2^({p.shift} - 31)", result))
    assert run(graph, 5, -9) == [result - 3]
    return rows(("", "integer", "* 2^20", "factor", "result"), body)


def add_out() -> Lines:
    graph = binary("add", *ADD, 2)
    return by_dialect(graph, [15, 5], [1, -9])


def sub_out() -> Lines:
    graph = binary("sub", q(1, 0), q(0.5, 0), q(1, 0), 2)
    return by_dialect(graph, [-10, 10], [3, 3])


def mul_out() -> Lines:
    graph = binary("mul", q(0.5, 0), q(0.5, 1), q(1, -10), 3)
    return by_dialect(graph, [6, -6, 10], [2, 2, 2])


# -- pools -------------------------------------------------------------------------------------------------------------

PIXELS = ([1, -1], [2, -2], [1, -1], [2, -2])


def pool_out() -> Lines:
    graph = single_q("average_pool", [((1, 2, 2, 2), "int8", q(1, 0))], [], ("int8", q(1, 0)), kernel=(2, 2), **WINDOW)
    assert pooling.pool(graph.nodes[0], graph.tensors["x0"], graph.tensors["y"]).zero_point == 0
    return by_dialect(graph, PIXELS)


def mean_out() -> Lines:
    graph = single_q("mean", [((1, 2, 2, 2), "int8", q(1, 0))], [], ("int8", q(1, 0)), keepdims=True)
    return by_dialect(graph, PIXELS)


def mean_lanes() -> Lines:
    graph = single_q("mean", [((1, 2, 2, 17), "int8", q(1, 0))], [], ("int8", q(1, 0)), keepdims=True)
    first, last = [], []
    for name in NAMES:
        found = run(graph, [[-1] * 17, [-2] * 17] * 2, name=name)
        assert len(set(found[:16])) == 1
        first.append(found[0])
        last.append(found[16])
    return rows(("dialect", "channels 0 to 15", "channel 16"), list(zip(NAMES, first, last, strict=True)))


LOGISTIC = (0.005782967433333397, 23)
SOFTMAX = (255, *[205] * 15)  # of uint8, scale 0.1

# -- tables ------------------------------------------------------------------------------------------------------------


def hard_swish() -> Lines:
    graph = unary("activation", ("int8", q(1 / 16, 0)), ("int8", q(1 / 16, 0)), 1, function="hard_swish")
    x, out = tensors_of(graph)
    p = tables.hard_swish(graph.nodes[0], x, out)
    v = 16 * 128
    scaled = activation_kernels.high_mul16(v, p.output_multiplier)
    left = v << (p.gate_exponent - 1)
    third = activation_kernels.high_mul16(left, p.gate_multiplier)
    gate = (activation_kernels.saturate16(third << 1) + 32768) >> 1
    product = activation_kernels.high_mul16_truncated(gate, scaled)
    result = activation_kernels.shift_away16(product, -p.output_exponent)
    assert [int(result)] == run(graph, 16) == [11]
    body: list[tuple[Any, ...]] = [
        ("v", "(16 - 0) * 128", v),
        ("scaled", f"v * {p.output_multiplier} / 2^15", int(scaled)),
        ("x / 3, in 2^-15", f"(v << {p.gate_exponent - 1}) * {p.gate_multiplier} / 2^15, << 1", int(third) * 2),
        ("gate", "(that + 2^15) >> 1", int(gate)),
        ("product", "gate * scaled / 2^15, truncated", int(product)),
        ("output", f"product / 2^{-p.output_exponent}, ties away from zero", int(result)),
    ]
    return rows(("", "how", "value"), body)


def relu_out() -> Lines:
    graph = unary("activation", ("uint8", q(0.75, 0)), ("uint8", q(6, 0)), 3, function="relu")
    return by_dialect(graph, [3, 4, 12])


def logistic_out() -> Lines:
    graph = unary("activation", ("uint8", q(0.5, 128)), ("uint8", q(1 / 256, 0)), 4, function="sigmoid")
    return by_dialect(graph, [0, 126, 129, 255])


def logistic_parts() -> Lines:
    """A value on which the two rules part."""
    graph = unary("activation", ("int8", q(LOGISTIC[0], 0)), ("int8", q(1 / 256, -128)), 1, function="sigmoid")
    found = by_dialect(graph, [LOGISTIC[1]])
    assert len(found) == 4
    return found


def softmax_steps() -> Lines:
    """A row of three int8 values, scale 0.1, zero point 0."""
    graph = unary("softmax", ("int8", q(0.1, 0)), ("int8", q(1 / 256, -128)), 3, beta=1.0)
    x, _ = tensors_of(graph)
    fixed = softmax.fixed_exponentials(graph.nodes[0], x, "fixed", softmax_kernels.exp_negative)
    floats = softmax.float_exponentials(graph.nodes[0], x)
    values = (20, 13, -9)
    outputs = run(graph, values), run(graph, values, name="tflite-optimized")
    body = [
        (v, 20 - v, int(fixed[20 - v]), f"{fixed[20 - v] / 2**31:.9f}", f"{floats[20 - v]:.9f}", a, b)
        for v, a, b in zip(values, *outputs, strict=True)
    ]
    head = ("x", "largest - x", "e, 31 bits", "as a real", "e, float32", "output, fixed", "output, float32")
    return rows(head, body)


def softmax_parts() -> Lines:
    """A row on which the two rules part: its largest value's output."""
    graph = unary("softmax", ("uint8", q(0.1, 0)), ("uint8", q(1 / 256, 0)), len(SOFTMAX), beta=1.0)
    found: dict[str, list[str]] = {}
    for name in NAMES:
        found.setdefault(", ".join(map(str, run(graph, SOFTMAX, name=name)[:2])), []).append(name)
    assert len(found) == 2
    body = [(", ".join(names), output) for output, names in found.items()]
    return rows(("dialect", "output for 255, and for each 205"), body)


# -- edges -------------------------------------------------------------------------------------------------------------


def quantize_out() -> Lines:
    graph = unary("quantize", ("float32", None), ("int8", q(0.5, -3)), 9)
    x = [0.0, 0.25, -0.25, 0.75, 1.25, 100, -100, 0.1, 0.25]
    return by_dialect(graph, x)


def requantize_out() -> Lines:
    graph = unary("quantize", ("int8", q(0.125, 0)), ("int8", q(1, 0)), 17)
    x = [3, 4, 12, -4, -12, -20, *[0] * 10, -12]
    body = []
    for name in NAMES:
        found = run(graph, x, name=name)
        body.append((name, *found[:6], found[16]))
    return rows(("dialect", *map(str, x[:6]), "-12 as 17th element"), body)


def dequantize_out() -> Lines:
    graph = unary("dequantize", ("int8", q(0.1, -3)), ("float32", None), 9)
    x = [-128, -3, 4, 127, 0, 0, 0, 0, 127]
    body = []
    for name in NAMES:
        found = [str(np.float32(v)) for v in run(graph, x, name=name)]
        body.append((name, *found[:4], found[8]))
    return rows(("dialect", *map(str, x[:4]), "127 as 9th element"), body)


# -- moves and resize --------------------------------------------------------------------------------------------------


def concat_out() -> Lines:
    operands = [((1, 2), "uint8", q(0.5, 0)), ((1, 2), "uint8", q(1, 10))]
    return by_dialect(single_q("concat", operands, [], ("uint8", q(1, 3)), axis=1), [5, 255], [4, 255])


def resize_out() -> Lines:
    found: dict[tuple[str, ...], list[str]] = {}
    for dtype, values in (("uint8", (0, 7)), ("int8", (0, -7))):
        graph = single_q("resize_bilinear", [((1, 1, 2, 1), dtype, q(1, 0))], [], (dtype, q(1, 0)), size=(1, 4),
                         align_corners=False, half_pixel_centers=False)  # fmt: skip
        x, out = tensors_of(graph)
        for name in NAMES:
            _, columns, _, _ = resize.axes(graph.nodes[0], x, out, dialect(name))
            distances = ", ".join(str(v) for v in columns.distance.tolist())
            outputs = ", ".join(map(str, run(graph, values, name=name)))
            found.setdefault((", ".join(map(str, values)), distances, outputs), []).append(name)
    body = [(values, ", ".join(names), distances, out) for (values, distances, out), names in found.items()]
    return rows(("pixels", "dialect", "distances", "output"), body)


# -- vectors -----------------------------------------------------------------------------------------------------------

IMAGE, GATE = (1, 3, 5, 19), (1, 1, 1, 19)


def vectors() -> Lines:
    """Where vectors take another rule than what they leave over: as the kernels are told it, of 8 bits."""
    one = q(1, 0)
    found: dict[tuple[Any, ...], list[str]] = {}
    for name, dtype in itertools.product(NAMES, ("int8", "uint8")):
        image, gate = (IMAGE, dtype, one), (GATE, dtype, one)
        graphs = {
            "`add`": single_q("add", [image, image], [], (dtype, one)),
            "`add` of a gate": single_q("add", [image, gate], [], (dtype, one)),
            "`mul`": single_q("mul", [image, image], [], (dtype, one)),
            "`mul` by one value": single_q("mul", [image, ((1, 1, 1, 1), dtype, one)], [], (dtype, one)),
            "`mean`": single_q("mean", [image], [], (dtype, one), keepdims=True),
            "`depthwise_conv2d`": single_q("depthwise_conv2d", [image],
                                           [((1, 1, 19), dtype, one), ((19,), "int32", one)], (dtype, one), **WINDOW),
            "`quantize` of floats": single_q("quantize", [(IMAGE, "float32", None)], [], (dtype, one)),
        }  # fmt: skip
        for label, graph in graphs.items():
            tensors = tensors_of(graph)
            arrays = tuple(np.zeros(t.shape, t.dtype) for t in tensors[:-1])
            calls, _ = steps(IsolatedNode(graph.nodes[0], tuple(tensors[:-1]), arrays, tensors[-1]), name, "python")
            for rule in (rule for step in calls for rule in vector_rules(step.args) if rule.inside != rule.outside):
                place = f"of each {rule.run}, the first {rule.full}"
                found.setdefault((label, dtype, place, rule.inside, rule.outside), []).append(name)
    return rows(("op", "dtype", "elements", "rule", "the others", "dialect"),
                [(*row, ", ".join(names)) for row, names in found.items()])  # fmt: skip


# -- the table of rules ------------------------------------------------------------------------------------------------


KEYS = tuple(dict.fromkeys(k for d in DIALECTS.values() for k in d.rules if "undelegated" not in k))


def dialects() -> Lines:
    body = [(f"`{d.name}`", ", ".join(f"`{a}`" for a in d.aliases), d.runtime, d.evidence) for d in DIALECTS.values()]
    return rows(("dialect", "also called", "must equal", "evidence"), body)


def rules() -> Lines:
    body = []
    for key in KEYS:
        op, _, kind = key.partition(":")
        body.append((f"`{key}`", *(DIALECTS[name].rule(op, kind) for name in NAMES)))
    return rows(("op", *NAMES), body)


def sources(*ops: str) -> Callable[[], Lines]:
    """Which rule the ops follow in each dialect, and where it was read."""

    def lines() -> Lines:
        found: dict[tuple[str, str, str], list[str]] = {}
        for key in (k for k in KEYS if k.partition(":")[0] in ops):
            for name in NAMES:
                if rule := DIALECTS[name].rules.get(key):
                    found.setdefault((key, rule.name, rule.source), []).append(name)
        body = [(f"`{key}`", rule, ", ".join(names), source) for (key, rule, source), names in found.items()]
        return rows(("op", "rule", "dialect", "source"), body)

    return lines


SECTIONS = {
    "conv2d": ("conv2d",), "depthwise": ("depthwise_conv2d",), "fully-connected": ("fully_connected",),
    "sums": ("add", "sub"), "mul": ("mul",), "average-pool": ("average_pool",), "mean": ("mean",),
    "activations": ("activation",), "softmax": ("softmax",), "quantize": ("quantize",), "dequantize": ("dequantize",),
    "moves": ("pad", "reshape", "concat"), "resize": ("resize_bilinear",),
    "selection": ("max_pool", "arg_max", "transpose", "slice", "resize_nearest"), "factors": ("prelu", "leaky_relu"),
    "functions": ("unary", "minimum", "maximum", "l2_normalize"),
}  # fmt: skip
EXAMPLES: dict[str, Callable[[], Lines]] = {
    f.__name__.replace("_", "-"): f
    for f in (
        scales, multipliers, roundings, followed, conv_sum, conv_out, conv_factors, depthwise, fully_connected,
        add_steps, add_out, sub_out, mul_out, pool_out, mean_out, mean_lanes, hard_swish, relu_out, logistic_out,
        logistic_parts, softmax_steps, softmax_parts, quantize_out, requantize_out, dequantize_out, concat_out,
        resize_out, dialects, rules, vectors,
    )
} | {f"sources-{name}": sources(*ops) for name, ops in SECTIONS.items()}  # fmt: skip


def test_every_op_has_its_sources() -> None:
    assert {op for ops in SECTIONS.values() for op in ops} == {key.partition(":")[0] for key in KEYS}


@pytest.mark.parametrize("name", EXAMPLES)
def test_example(name: str) -> None:
    page = PAGE.read_text(encoding="utf-8")
    found = re.search(rf"<!-- {name} -->\n(.*?)<!-- /{name} -->", page, re.DOTALL)
    assert found, f"docs/arithmetic.md has no place marked <!-- {name} -->"
    assert found[1].splitlines() == EXAMPLES[name](), "write it anew, as this file's docstring says"


def test_every_mark_has_an_example() -> None:
    assert set(re.findall(r"<!-- ([\w-]+) -->", PAGE.read_text(encoding="utf-8"))) == set(EXAMPLES)


def write() -> None:
    """Put the examples into the page."""
    text = PAGE.read_text(encoding="utf-8")
    for name, example in EXAMPLES.items():
        block = "\n".join([f"<!-- {name} -->", *example(), f"<!-- /{name} -->"])
        text, count = re.subn(rf"<!-- {name} -->\n.*?<!-- /{name} -->", lambda _, b=block: b, text, flags=re.DOTALL)
        assert count == 1, name
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write()
