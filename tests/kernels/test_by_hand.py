"""Inputs small enough that the answers are written out: plain Python == compiled reference == fast == by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import Array, q, run_q, same_bits, single, single_q

from npmobilenet.arithmetic import tables
from npmobilenet.arithmetic.dialects import DIALECTS
from npmobilenet.graph import Graph, Quantization
from npmobilenet.kernels.reference.activation import hard_swish_16, high_mul16, high_mul16_truncated, shift_away16

REF, OPT, ONCE, XNN, CMSIS = "tflite-reference", "tflite-optimized", "tflite-single-rounding", "xnnpack", "cmsis-nn"
LITERT = (REF, OPT, XNN)
WHOLE = {"stride": (1, 1), "padding": ((0, 0), (0, 0))}


def by_hand(graph: Graph, *inputs: Any, dialect: str = REF) -> list[Any]:
    """The output, flat; inputs are given as lists of their values, in any shape."""
    tensors = [graph.tensors[name] for name in graph.nodes[0].inputs]
    arrays: list[Array] = [np.array(x, t.dtype).reshape(t.shape) for x, t in zip(inputs, tensors, strict=True)]
    results = [run_q(graph, arrays, kernels, dialect) for kernels in ("python", "reference", "fast")]
    assert same_bits(results[0], results[1])
    assert same_bits(results[0], results[2])
    flat: list[Any] = results[0].ravel().tolist()
    return flat


# -- float32 -----------------------------------------------------------------------------------------------------------

TO = [-4.0, -1.5, -0.5, 0.0, 1.5, 3.0, 7.0]  # what the activations are given


def activated(function: str, *expected: float) -> tuple[Graph, list[Any], Any]:
    return single("activation", [(1, 7)], [], function=function), [TO], pytest.approx(list(expected), rel=2e-7, abs=0)


def resized(align: bool, half: bool, *expected: float) -> tuple[Graph, list[Any], Any]:
    graph = single("resize_bilinear", [(1, 1, 2, 1)], [], size=(1, 4), align_corners=align, half_pixel_centers=half)
    return graph, [[0, 6]], pytest.approx(list(expected), rel=1e-6 if align else 0, abs=0)


FLOATS: dict[str, tuple[Graph, list[Any], Any]] = {
    # 3x3 image 1..9, 2x2 kernel [[1, 10], [100, 1000]], one pixel of padding on the right and below.
    "conv2d": (single("conv2d", [(1, 3, 3, 1)], [(2, 2, 1, 1), (1,)], stride=(1, 1), padding=((0, 1), (0, 1))),
               [range(1, 10), [1, 10, 100, 1000], 0.5],
               [5421.5, 6532.5, 603.5, 8754.5, 9865.5, 906.5, 87.5, 98.5, 9.5]),
    # taps at ix = 2 ox - 1 and + 2 more: (-, 2), (2, 4), (4, -) of 1 2 3 4 5
    "conv2d, strided and dilated": (
        single("conv2d", [(1, 1, 5, 1)], [(1, 2, 1, 1), (1,)], stride=(1, 2), dilation=(1, 2),
               padding=((0, 0), (1, 1)), activation="relu"), [[1, 2, 3, 4, 5], [1, -10], 0], [0, 0, 4]),
    "depthwise": (single("depthwise_conv2d", [(1, 1, 2, 2)], [(1, 2, 4), (4,)], multiplier=2, activation="relu6",
                         **WHOLE), [[1, 2, 3, 4], [1, 2, 3, 4, -1, 0, 1, 1], [0, 0, 0, -6]], [0, 2, 6, 6]),
    # windows: all four, the right column, the lower row, the last pixel; outside pixels don't count
    "average pool": (single("average_pool", [(1, 2, 2, 1)], [], kernel=(2, 2), stride=(1, 1),
                            padding=((0, 1), (0, 1))), [[1, 2, 3, 6]], [3.0, 4.0, 4.5, 6.0]),
    "mean": (single("mean", [(1, 2, 2, 1)], [], keepdims=False), [[1, 2, 3, 6]], [3.0]),
    "none": activated("none", *TO),
    "relu": activated("relu", 0, 0, 0, 0, 1.5, 3, 7),
    "relu6": activated("relu6", 0, 0, 0, 0, 1.5, 3, 6),
    "relu -1 to 1": activated("relu_n1_to_1", -1, -1, -0.5, 0, 1, 1, 1),
    "hard swish": activated("hard_swish", 0, -0.375, -0.20833333, 0, 1.125, 3, 7),
    "hard sigmoid": activated("hard_sigmoid", 0, 0.25, 0.41666667, 0.5, 0.75, 1, 1),
    "hard sigmoid of slim": activated("hard_sigmoid_slim", 0, 0.250005, 0.416675, 0.50001, 0.750015, 1.00002, 1.00002),
    "sigmoid": activated("sigmoid", 0.01798621, 0.18242552, 0.37754067, 0.5, 0.81757448, 0.95257413, 0.99908895),
    "softmax": (single("softmax", [(1, 3)], [], beta=1.0), [[0.0, np.log(2.0), np.log(5.0)]],
                pytest.approx([0.125, 0.25, 0.625], rel=2e-7, abs=0)),
    "resize": resized(False, False, 0, 3, 6, 6),
    "resize, corners": resized(True, False, 0, 2, 4, 6),
    "resize, centers": resized(False, True, 0, 1.5, 4.5, 6),
    "mul, broadcast": (single("mul", [(1, 1, 2, 2), (1, 1, 1, 2)], []), [[1, 2, 3, 4], [10, 100]], [10, 200, 30, 400]),
    "concat": (single("concat", [(1, 1, 1, 1), (1, 1, 1, 2)], [], axis=3), [[1], [2, 3]], [1, 2, 3]),
}  # fmt: skip


@pytest.mark.parametrize("name", FLOATS)
def test_floats(name: str) -> None:
    graph, inputs, expected = FLOATS[name]
    assert by_hand(graph, *inputs) == expected


# -- 8 bits ------------------------------------------------------------------------------------------------------------


def binary(op: str, x: Quantization, y: Quantization, out: Quantization, count: int, dtype: str = "int8",
           **attrs: Any) -> Graph:  # fmt: skip
    shape = (1, 1, 1, count)
    return single_q(op, [(shape, dtype, x), (shape, dtype, y)], [], (dtype, out), **attrs)


def image(op: str, shape: tuple[int, ...], dtype: str = "int8", z: Quantization | None = None, **attrs: Any) -> Graph:
    """Input and output of the same scale."""
    z = z or q(1, 0)
    return single_q(op, [((1, *shape), dtype, z)], [], (dtype, z), **attrs)


def one(op: str, start: Any, end: Any, size: int, **attrs: Any) -> Graph:
    return single_q(op, [((1, size), *start)], [], end, **attrs)


def act(function: str, start: Any, end: Any, size: int) -> Graph:
    return one("activation", start, end, size, function=function)


def resize(dtype: str, align: bool = False, half: bool = False) -> Graph:
    return image("resize_bilinear", (1, 2, 1), dtype, size=(1, 4), align_corners=align, half_pixel_centers=half)


Expected = dict[tuple[str, ...], list[int]]
ALL = tuple(DIALECTS)
PIXELS = [1, -1, -3, 5, 2, -2, -3, 4, 1, -1, -3, 5, 2, -2, -3, 4]  # (H * W, C): means 1.5, -1.5, -3, 4.5
REAL = [0, 0.25, -0.25, 0.75, -0.75, 1.25, 100, -100, 0.24999999, float("nan"), 0.25, -0.25, 0.75]
AWAY = [-3, -2, -4, -1, -5, 0, 127, -128, -3, -128, -2, -4, -1]
EVEN = [-3, -3, -3, -1, -5, -1, 127, -128, -3, -128, -3, -3, -1]
EIGHTHS = [4, 12, -4, -12, -20, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, -4]
TWICE = [0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1]
INTEGERS: dict[str, tuple[Graph, list[Any], Expected]] = {
    # (10 - 2)(7 - 3) + (4 - 2)(1 - 3) = 28, + 12 = 40; times 0.5 * 0.25 / 0.75 = 1/6: 6.67 -> 7, + 5 = 12.
    "conv2d": (single_q("conv2d", [((1, 1, 2, 1), "uint8", q(0.5, 2))],
                        [((1, 2, 1, 1), "uint8", q(0.25, 3)), ((1,), "int32", None)], ("uint8", q(0.75, 5)), **WHOLE),
               [[10, 4], [7, 1], 12], {(REF,): [12]}),
    # 0.5 * (x - 10) + 0.25 * (y + 4), in steps of 0.5 from -3: 2.5 + 1.25 = 3.75 is 7.5 steps, and ties go away from 0
    # in double rounding and in XNNPACK upward: 8 - 3; -3.75 is -7.5 steps: -8 - 3 or -7 - 3.
    "add": (binary("add", q(0.5, 10), q(0.25, -4), q(0.5, -3), 2), [[15, 5], [1, -9]],
            {(REF,): [5, -11], (ONCE, XNN): [5, -10]}),
    "add, clamped": (binary("add", q(0.5, 10), q(0.25, -4), q(0.5, -3), 3, activation="relu6"),
                     [[15, 5, 100], [1, -9, 100]], {(REF,): [5, -3, 9]}),
    "sub": (binary("sub", q(1, 0), q(0.5, 128), q(1, 128), 3, "uint8"), [[0, 10, 255], [131, 126, 0]],
            {(REF,): [126, 139, 255], (XNN,): [127, 139, 255]}),  # -1.5: away from 0, or upward
    # x * (y - 1) / 4: 1.5, -1.5, 2475 steps from -10
    "mul": (binary("mul", q(0.5, 0), q(0.5, 1), q(1, -10), 3), [[6, -6, 100], [2, 2, 100]],
            {(REF, XNN): [-8, -12, 127], (ONCE,): [-8, -11, 127]}),
    "mul, to even": (binary("mul", q(0.5, 0), q(0.5, 1), q(1, -10), 3), [[10, -10, 0], [2, 2, 0]],
                     {(XNN,): [-8, -12, -10]}),
    # Where the factor is 1/2 or more, high_mul is the only step that rounds: its ties go upward.
    "mul by a half": (binary("mul", q(0.5, 0), q(0.5, 1), q(0.5, -10), 3), [[3, -3, 0], [2, 2, 0]],
                      {(REF,): [-8, -11, -10]}),
    "average pool": (image("average_pool", (2, 2, 4), kernel=(2, 2), **WHOLE), [PIXELS], {(REF,): [2, -2, -3, 5]}),
    "average pool without a pixel": (  # which gives real 0
        image("average_pool", (1, 1, 2), "uint8", q(1, 7), kernel=(1, 1), stride=(1, 1), padding=((0, 1), (0, 0))),
        [[3, 255]], {(REF,): [3, 255, 7, 7]}),
    "mean": (image("mean", (2, 2, 4), keepdims=True), [PIXELS],
             {(REF,): [2, -2, -3, 5], (ONCE,): [2, -1, -3, 5], (XNN,): [2, -2, -3, 4]}),  # XNNPACK: to even
    "mean, 16 lanes and one": (image("mean", (2, 2, 17), keepdims=True), [([-1] * 17 + [-2] * 17) * 2],
                               {(REF,): [-2] * 17, (OPT,): [-1] * 16 + [-2]}),  # lanes round upward
    "pad": (image("pad", (1, 2, 1), "uint8", q(1, 7), padding=((1, 0), (0, 1))), [[1, 2]],
            {(REF,): [7, 7, 7, 1, 2, 7]}),
    # 0.5 * (x - 0) and 1 * (x - 10) in steps of 1 from 3: 2.5 + 3 = 5.5 and 4 - 10 + 3 = -3, below uint8
    "concat": (single_q("concat", [((1, 2), "uint8", q(0.5, 0)), ((1, 2), "uint8", q(1, 10))], [], ("uint8", q(1, 3)),
                        axis=1), [[5, 255], [4, 255]], {(REF,): [6, 131, 0, 248]}),
    # real values -2 ... 8 in steps of 2, to steps of 0.5 and a zero point of -100: 6 is 12 steps
    "relu6": (act("relu6", ("int8", q(2, 1)), ("int8", q(0.5, -100)), 6), [range(6)],
              {(REF,): [-100, -100, -96, -92, -88, -88]}),
    "relu -1 to 1": (act("relu_n1_to_1", ("uint8", q(0.5, 10)), ("uint8", q(0.5, 20)), 5), [[0, 8, 9, 12, 255]],
                     {(REF,): [18, 18, 19, 22, 22]}),
    # by 1/8, which is 1/2 * 2^-2: 3 -> 1.5 -> 2 -> 0.5 -> 1, in one step 0.375 -> 0; 4 -> 2 -> 0.5 -> 1; 12 -> 1.5 -> 2
    "relu, rounded twice or once": (act("relu", ("uint8", q(0.75, 0)), ("uint8", q(6, 0)), 3), [[3, 4, 12]],
                                    {LITERT: [1, 1, 2], (ONCE,): [0, 1, 2]}),
    # scale 1/16: -4, -3, -1, 0, 1, 3, 5 -> 0, 0, -1/3, 0, 2/3, 3, 5, in steps of 1/16: 0 0 -5.3 0 10.7 48 80
    "hard swish": (act("hard_swish", ("int8", q(1 / 16, 0)), ("int8", q(1 / 16, 0)), 7),
                   [[-64, -48, -16, 0, 16, 48, 80]], {(REF,): [0, 0, -5, 0, 11, 48, 80]}),
    # 1 / (1 + e^-x) * 256 for x = -64, -1, 0, 0.5, 1, 63.5
    "sigmoid": (act("sigmoid", ("uint8", q(0.5, 128)), ("uint8", q(1 / 256, 0)), 6), [[0, 126, 128, 129, 130, 255]],
                {LITERT: [0, 69, 128, 159, 187, 255]}),
    # e^0, e^-ln2, e^-ln2 over their sum 2: 128, 64, 64; and two equal ones: 128 each
    "softmax": (one("softmax", ("int8", q(np.log(2), 5)), ("int8", q(1 / 256, -128)), 3, beta=1.0), [[10, 9, 9]],
                {ALL: [0, -64, -64]}),
    "softmax of two": (one("softmax", ("uint8", q(1, 0)), ("uint8", q(1 / 256, 0)), 3, beta=1.0), [[255, 0, 255]],
                       {ALL: [128, 0, 128]}),
    "softmax of one": (one("softmax", ("uint8", q(1, 0)), ("uint8", q(1 / 256, 0)), 3, beta=1.0), [[7, 0, 0]],
                       {ALL: [255, 0, 0]}),
    # ties away from zero, to even, and a vector of 8, then one by one
    "quantize": (one("quantize", ("float32", None), ("int8", q(0.5, -3)), 13), [REAL],
                 {(REF,): AWAY, (XNN,): EVEN, (OPT,): EVEN[:8] + AWAY[8:]}),
    # by 1/8, which is 1/2 * 2^-2: halves go up, and then ties of quarters away from zero or upward; or once by 1/8
    "requantize": (one("quantize", ("int8", q(0.125, 0)), ("int8", q(1, 0)), 17), [EIGHTHS],
                   {(REF,): [1, 2, -1, -2, -3, *TWICE, -1], (OPT,): [1, 2, 0, -1, -2, *TWICE, -1],  # 16, and one
                    (ONCE, XNN): [1, 2, 0, -1, -2, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 0]}),
    "requantize, the same scale": (one("quantize", ("uint8", q(0.3, 128)), ("int8", q(0.3, 0)), 4),
                                   [[0, 127, 128, 255]], {ALL: [-128, -1, 0, 127]}),
    "dequantize": (one("dequantize", ("int8", q(0.5, -3)), ("float32", None), 3), [[-128, -3, 127]],
                   {ALL: [-62.5, 0, 65]}),  # type: ignore[list-item]
    "resize": (resize("uint8"), [[0, 6]], {ALL: [0, 3, 6, 6]}),
    "resize, corners": (resize("uint8", align=True), [[0, 6]], {ALL: [0, 2, 4, 6]}),
    "resize, centers": (resize("uint8", half=True), [[0, 6]], {ALL: [0, 2, 5, 6]}),  # 0, 1.5, 4.5, 6: ties upward
    "resize, below zero": (resize("int8"), [[0, -7]],  # -3.5: away from zero, or upward
                           {(REF,): [0, -4, -7, -7], (ONCE, XNN): [0, -3, -7, -7]}),
}  # fmt: skip


@pytest.mark.parametrize("name", INTEGERS)
def test_integers(name: str) -> None:
    graph, inputs, expected = INTEGERS[name]
    for dialects, values in expected.items():
        for dialect in dialects:
            assert by_hand(graph, *inputs, dialect=dialect) == values, dialect


def test_an_accumulator() -> None:
    graph, inputs, _ = INTEGERS["conv2d"]
    shapes = [graph.tensors[name].shape for name in graph.nodes[0].inputs]
    arrays = [np.array(x, d).reshape(s) for x, d, s in zip(inputs, ("uint8", "uint8", "int32"), shapes, strict=True)]
    for kernels in ("python", "reference", "fast"):
        assert run_q(graph, arrays, kernels, stage="accumulator").ravel().tolist() == [40]


def test_hard_swish_step_by_step() -> None:
    """q = 16 of the case above."""
    graph = act("hard_swish", ("int8", q(1 / 16, 0)), ("int8", q(1 / 16, 0)), 1)
    p = tables.hard_swish(graph.nodes[0], graph.tensors["x0"], graph.tensors[graph.outputs[0]])
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
