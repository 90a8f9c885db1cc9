"""Requantization by lines: the steps' places, the lines themselves, and the generated code, against fixedpoint.py."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cases import q, run_q, single_q

from npmobilenet.arithmetic.fixedpoint import (
    INT32_MAX,
    INT32_MIN,
    Requantization,
    Rounding,
    VectorRule,
    everywhere,
    requantized,
    rounding,
)
from npmobilenet.graph import Graph, Quantization
from npmobilenet.kernels.compiler.cpu import LANES
from npmobilenet.kernels.compiler.jit import compile_kernel
from npmobilenet.kernels.fast.gemm_s8 import LANE
from npmobilenet.kernels.vectorcode.generated import Cells
from npmobilenet.kernels.vectorcode.linear_requant import NO_EXCEPTION, RULES, LinearRequant, linear_requant, thresholds
from npmobilenet.kernels.vectorcode.requant_epilogue import requantize_kernel
from npmobilenet.kernels.vectorcode.requant_rules import ONE_OFFSET, PATCHED, TWO_OFFSETS

Array = np.ndarray[Any, Any]
WIDTHS = sorted({lanes for lanes in LANES.values() if lanes <= LANE})
NAMES = ("double", "upward", "single")
LIMITS = {"uint8": (0, 255), "int8": (-128, 127)}
pytestmark = pytest.mark.skipif(not RULES, reason="without an fma there are no lines")


def step_of(rng: np.random.Generator, count: int, rule: str, dtype: str, shifts: tuple[int, int] = (1, 12),
            tail: int = INT32_MAX) -> Requantization:  # fmt: skip
    """Random factors; the zero point and the range of a layer with or without relu."""
    least, most = LIMITS[dtype]
    zero_point = int(rng.choice([least, int(rng.integers(least, most + 1))]))
    low, high = (zero_point, int(rng.integers(zero_point, most + 1))) if rng.random() < 0.3 else (least, most)
    m, s = rng.integers(2**30, 2**31, count), -rng.integers(*shifts, count)
    m[rng.random(count) < 0.05] = 0
    m, s = m.astype(np.int32), s.astype(np.int32)
    where = VectorRule(rounding(rule), Rounding.DOUBLE, INT32_MAX, tail)
    return Requantization(m, s, m * 2.0 ** (s - 31.0), where, zero_point, low, high)


def acc_range_of(rng: np.random.Generator, step: Requantization) -> tuple[Array, Array]:
    """Some that show all results, some that don't, on both sides of 0 or on one."""
    size = np.ceil(rng.uniform(1, 600, len(step.multiplier)) / np.maximum(step.scale, 1e-6)).astype(np.int64)
    centre = (size * rng.choice([0, 0, -0.4, 2.0], len(size))).astype(np.int64)
    return np.maximum(centre - size, -INT32_MAX), np.minimum(centre + size, INT32_MAX)


def near_steps(step: Requantization, c: int, acc_range: tuple[int, int], rng: np.random.Generator) -> list[int]:
    """The accumulators of a channel beside every step of the output, the range's ends, and some others."""
    factor = max(float(step.scale[c]), 1e-9)
    places = (np.arange(step.low - 1, step.high + 2) - step.zero_point + 0.5) / factor
    places = places[np.abs(places) < 2**31].astype(np.int64)
    some = [
        *(places[:, None] + np.arange(-2, 4)).reshape(-1),
        0,
        -1,
        1,
        *acc_range,
        *rng.integers(*acc_range, 40, endpoint=True),
    ]
    return [int(x) for x in some if acc_range[0] <= x <= acc_range[1]]


def line(step: LinearRequant, c: int, x: int) -> int:
    """The line's value in exact arithmetic, rounded as the instructions round."""
    acc, slope = np.longdouble(np.float32(np.int32(x))), np.longdouble(step.slope[c])
    value = np.float32(
        acc * slope + np.longdouble((step.below if x < 0 else step.offset)[c])
    )  # 64 bits hold the product
    return int(np.rint(value)) + (x in step.exceptions[c])


def test_thresholds() -> None:
    """T_k is the least accumulator whose scaled value is k or more."""
    rng = np.random.default_rng(0)
    for rule, dtype in itertools.product(NAMES, LIMITS):
        step = step_of(rng, 40, rule, dtype, (1, 23))._replace(zero_point=0, low=INT32_MIN, high=INT32_MAX)
        m = np.maximum(step.multiplier, 2**30)
        step, k = step._replace(multiplier=m), np.array([-300, -127, -2, -1, 0, 1, 2, 3, 128, 255])
        found = thresholds(m, step.shift, np.full(40, step.rule.inside), k)
        for c, j in itertools.product(range(40), range(len(k))):
            t = int(found[c, j])
            if abs(t) < INT32_MAX:
                assert requantized(t, c, step) >= k[j] > requantized(t - 1, c, step), (rule, c, k[j])


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("rule", NAMES)
def test_lines_take_every_step(rule: str, dtype: str) -> None:
    """A channel that has a line has the rule's outputs; and most channels have one, some of them with exceptions."""
    rng, centre = np.random.default_rng(NAMES.index(rule)), 128 if dtype == "uint8" else 0
    with_line, parted, patched = 0, 0, np.zeros(3, int)
    for turn in range(12):
        step = step_of(rng, 50, rule, dtype, tail=25 if turn % 3 == 0 else INT32_MAX)
        acc_range = acc_range_of(rng, step)
        got = linear_requant(step, acc_range, dtype)
        there = np.diff(got.patched) > 0
        one_offset, regular = np.diff(got.one_offset) > 0, np.diff(got.two_offsets) > 0
        for c in np.flatnonzero(there):
            exceptions = int((got.exceptions[c] != NO_EXCEPTION).sum())
            patched[exceptions], parted = patched[exceptions] + 1, parted + int(got.offset[c] != got.below[c])
            assert regular[c] == (exceptions == 0)
            assert one_offset[c] == (exceptions == 0 and got.offset[c] == got.below[c])
            for x in near_steps(step, c, (int(acc_range[0][c]), int(acc_range[1][c])), rng):
                value = min(max(line(got, c, x) + centre, step.low), step.high)
                assert value == requantized(x, c, step), (turn, c, x)
        with_line += int(there.sum())
    assert with_line > 500
    assert (patched > [400, 5, 0]).all()
    assert parted > 20 or rule != "double"


def test_one_line_for_a_layer_of_one_factor() -> None:
    """It has to serve the ranges of all channels; and there is none for int32 outputs, or other rules."""
    rng = np.random.default_rng(3)
    step = step_of(rng, 64, "double", "uint8")
    step = step._replace(multiplier=np.full(64, 1_500_000_000, np.int32), shift=np.full(64, -6, np.int32))
    acc_range = np.arange(-64, 0) * 100, np.arange(64) * 100
    got = linear_requant(step, acc_range, "uint8")
    assert (np.diff(got.patched) == 1).all()
    assert len(set(got.slope.tolist())) == 1
    for c, x in itertools.product((0, 63), range(-6400, 6301)):
        assert min(max(line(got, c, x) + 128, step.low), step.high) == requantized(x, c, step)
    assert not linear_requant(step, acc_range, "int32").patched.any()
    for rule in ("none", "float32", "float64"):
        assert not linear_requant(step._replace(rule=everywhere(rounding(rule))), acc_range, "uint8").patched.any()


def test_channels_without_a_line() -> None:
    """Left shifts, and factors so small that float32 doesn't hold the accumulators, or so that steps lie too close."""
    m = np.full(64, 2**31 - 1, np.int32)
    for shift in (0, 3, -23, -31):
        step = Requantization(
            m, np.full(64, shift, np.int32), m * 2.0 ** (shift - 31), everywhere(Rounding.DOUBLE), 0, -128, 127
        )
        assert not linear_requant(step, (np.full(64, -(2**30)), np.full(64, 2**30)), "int8").patched.any(), shift


@functools.cache
def tile(lanes: int) -> Callable[..., None]:
    """The tile of so many lanes, callable from Python."""
    inner = requantize_kernel(lanes)

    def run(acc, acc_step, rows, columns, channel, step, line, out, out_step):  # type: ignore[no-untyped-def]
        a, o = Cells(acc, 0, acc_step), Cells(out, 0, out_step)
        inner(a, rows, columns, channel, step, step.rule.inside, line, o)

    run.__qualname__ = f"line_tile_{lanes}"
    return compile_kernel(run)


@pytest.mark.equal("uint8, int8 outputs of accumulators by lines", "generated vector code", "reference", "bits")
@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("lanes", WIDTHS)
def test_generated_lines(lanes: int, dtype: str) -> None:
    """Blocks of every width; accumulators beside the steps and at random; lines of each form."""
    for turn, rule in enumerate(NAMES * 3):
        rng = np.random.default_rng([turn, lanes])
        step = step_of(rng, 64, rule, dtype)
        acc_range = acc_range_of(rng, step)
        got = linear_requant(step, acc_range, dtype)
        lines, counts = ((ONE_OFFSET, got.one_offset), (TWO_OFFSETS, got.two_offsets), (PATCHED, got.patched))[
            turn // 3
        ]
        chosen = np.flatnonzero(np.diff(counts))
        picked = chosen[rng.integers(0, len(chosen), 64)]
        fields = ("multiplier", "shift", "scale", "slope", "offset", "below", "exceptions")
        got = got._replace(**{name: np.ascontiguousarray(getattr(got, name)[picked]) for name in fields})
        acc = np.zeros((200, 64), np.int32)
        for c in range(64):
            values = near_steps(step, picked[c], (int(acc_range[0][picked[c]]), int(acc_range[1][picked[c]])), rng)
            acc[:, c] = rng.choice(values, 200)
            acc[:2, c] = np.where(got.exceptions[c] == NO_EXCEPTION, acc[:2, c], got.exceptions[c])
        for columns in (64, 63, 48, 33, 17, 16, 9, 1):
            out = np.full((200, 70), 77, dtype)
            tile(lanes)(acc.reshape(-1), 64, 200, columns, 0, got, lines, out.reshape(-1), 70)
            wanted = [[requantized(int(x), c, got) for c, x in enumerate(row[:columns])] for row in acc[:, :columns]]
            assert np.array_equal(out[:, :columns], np.array(wanted)), (turn, columns)
            assert (out[:, columns:] == 77).all()


def pointwise(dtype: str, depth: int, channels: int, activation: str, rng: np.random.Generator, pixels: int) -> Graph:
    """A pointwise convolution with scales so that outputs fill their range."""
    per_channel = dtype == "int8"
    scales = 2.0 ** rng.uniform(-9, -6, channels if per_channel else 1)
    w = Quantization(tuple(float(np.float32(s)) for s in scales), (0 if per_channel else 131,) * len(scales),
                     3 if per_channel and channels > 1 else None)  # fmt: skip
    b = Quantization(
        tuple(float(np.float32(s * 0.02)) for s in scales), (0,) * len(scales), 0 if len(scales) > 1 else None
    )
    least = LIMITS[dtype][0]
    zero_point = least if activation != "none" else least + 120
    return single_q("conv2d", [((1, 1, pixels, depth), dtype, q(0.02, least + 7))],
                    [((1, 1, depth, channels), dtype, w), ((channels,), "int32", b)], (dtype, q(0.05, zero_point)),
                    activation=activation, stride=(1, 1), padding=((0, 0), (0, 0)))  # fmt: skip


@pytest.mark.parametrize("dialect", ["tflite-reference", "tflite-single-rounding", "tflite-optimized"])
@pytest.mark.parametrize("dtype", LIMITS)
def test_tiles_that_end_by_lines(dtype: str, dialect: str) -> None:
    """Pointwise layers of every kind of last panel and of rows that fill tiles or don't: the reference outputs."""
    for turn, channels in enumerate((1, 8, 15, 16, 24, 32, 40, 49, 64, 72)):
        rng = np.random.default_rng([turn, 5])
        pixels, depth = int(rng.choice([5, 11, 12, 13, 16, 23, 49, 385])), int(rng.choice([1, 3, 8, 17, 64]))
        graph = pointwise(dtype, depth, channels, ("none", "relu6")[turn % 2], rng, pixels)
        shapes = {n: graph.tensors[n].shape for n in graph.nodes[0].inputs}
        x, w = (rng.integers(*LIMITS[dtype], shape, dtype, endpoint=True) for shape in list(shapes.values())[:2])
        bias = rng.integers(-3000, 3000, channels).astype(np.int32)
        assert np.array_equal(*(run_q(graph, [x, w, bias], kernels, dialect) for kernels in ("fast", "reference"))), (
            turn
        )
