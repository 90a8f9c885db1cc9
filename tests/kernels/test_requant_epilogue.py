"""The generated step from accumulators to outputs, against fixedpoint.requantized in plain Python, lane by lane."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from npmobilenet.arithmetic.fixedpoint import (
    INT32_MAX,
    INT32_MIN,
    REQUANTIZATIONS,
    Requantization,
    everywhere,
    requantized,
    rounding,
)
from npmobilenet.kernels.compiler.cpu import LANES
from npmobilenet.kernels.compiler.jit import compile_kernel
from npmobilenet.kernels.fast.gemm_s8 import LANE, requantize_block
from npmobilenet.kernels.vectorcode.generated import Cells
from npmobilenet.kernels.vectorcode.linear_requant import LinearRequant, linear_requant
from npmobilenet.kernels.vectorcode.requant_epilogue import requantize_kernel

Array = np.ndarray[Any, Any]
WIDTHS = sorted({lanes for lanes in LANES.values() if lanes <= LANE})  # those that this machine can run
LIMITS = {"uint8": (0, 255), "int8": (-128, 127), "int32": (INT32_MIN, INT32_MAX)}
RULES = [rule for rule in REQUANTIZATIONS if rule != "none"]
MULTIPLIERS = (2**30, 2**30 + 1, 3 * 2**29, 2**31 - 1)
EDGES = [INT32_MIN, INT32_MIN + 1, -(2**30), -(2**24) - 1, -3, -2, -1, 0, 1, 2, 3, 2**24 + 1, 2**30, INT32_MAX]


@functools.cache
def tile(lanes: int) -> Callable[..., None]:
    """The tile of so many lanes, callable from Python."""
    inner = requantize_kernel(lanes)

    def run(acc, acc_at, acc_step, rows, columns, channel, step, line, out, out_at, out_step):  # type: ignore[no-untyped-def]
        a, o = Cells(acc, acc_at, acc_step), Cells(out, out_at, out_step)
        inner(a, rows, columns, channel, step, step.rule.inside, line, o)

    run.__qualname__ = f"tile_{lanes}"  # its cache files' name
    return compile_kernel(run)


@compile_kernel
def block(acc, acc_step, rows, columns, channel, step, out, out_at, out_step):  # type: ignore[no-untyped-def]
    a, o = Cells(acc, 0, acc_step), Cells(out, out_at, out_step)
    requantize_block(a, rows, columns, channel, step, step.rule.inside, o)


def step_of(multiplier: Array, shift: Array, rule: str, dtype: str, zero_point: int = 0,
            limits: tuple[int, int] | None = None) -> LinearRequant:  # fmt: skip
    """A step filled up with zeros to a whole number of panels, as the binder fills it, and without lines."""
    more = -len(multiplier) % 64
    m, s = (np.pad(np.asarray(v, np.int32), (0, more)) for v in (multiplier, shift))
    low, high = limits or LIMITS[dtype]
    scale = m * 2.0 ** (s - 31.0)
    step = Requantization(m, s, scale, everywhere(rounding(rule)), zero_point, low, high)
    return linear_requant(step, (np.zeros(0), np.zeros(0)), "int32")


def accumulators(step: LinearRequant, rows: int, rng: np.random.Generator) -> Array:
    """Rows of accumulators: the ends of int32, those at and beside ties of small results, and some at random."""
    count = len(step.multiplier)
    factor = np.where(step.scale == 0, 1.0, step.scale)
    result = rng.integers(-300, 300, (rows, count)) + 0.5
    near = np.clip(np.rint(result / factor) + rng.integers(-1, 2, (rows, count)), INT32_MIN, INT32_MAX)
    kind = rng.integers(0, 4, (rows, count))
    some = rng.integers(INT32_MIN, INT32_MAX, (rows, count), endpoint=True) >> rng.integers(0, 30, (rows, count))
    return np.where(kind == 0, rng.choice(EDGES, (rows, count)), np.where(kind == 1, some, near)).astype(np.int32)


def check(lanes: int, step: LinearRequant, dtype: str, columns: int, channel: int = 0, rows: int = 5,
          seed: int = 0) -> None:  # fmt: skip
    """Compare a block; what lies around the outputs has to stay."""
    rng = np.random.default_rng(seed)
    acc_step = -(-columns // lanes) * lanes
    values = accumulators(step, rows, rng)[:, channel : channel + acc_step]
    assert values.shape[1] == acc_step
    out_step = columns + 3
    out = np.full(7 + rows * out_step, 77, dtype)
    expected = out.copy()
    for r in range(rows):
        for j in range(columns):
            expected[7 + r * out_step + j] = requantized(int(values[r, j]), channel + j, step)
    acc = np.concatenate([np.zeros(2, np.int32), values.ravel()])
    tile(lanes)(acc, 2, acc_step, rows, columns, channel, step, 0, out, 7, out_step)
    wrong = np.flatnonzero(out != expected)
    assert not len(wrong), (wrong[:5], out[wrong[:5]], expected[wrong[:5]])


@pytest.mark.equal("uint8, int8, int32 outputs of accumulators", "generated vector code", "reference", "bits")
@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("lanes", WIDTHS)
def test_every_shift_and_multiplier(lanes: int, rule: str, dtype: str) -> None:
    """A layer for each least shift s = 0 ... 31: 64 channels, half of them with that s, the others with more."""
    rng = np.random.default_rng(3)
    for s in range(32):
        shift = -rng.integers(s, 32, 64)
        shift[::2] = -s
        multiplier = rng.integers(2**30, 2**31, 64)
        multiplier[:8] = np.repeat(MULTIPLIERS, 2)
        multiplier[20:23] = 0
        shift[20:22] = 0  # as the binder's: neither is to force the long way, nor to give anything but 0
        zero_point = int(rng.integers(*LIMITS[dtype])) if dtype != "int32" else 0
        check(lanes, step_of(multiplier, shift, rule, dtype, zero_point), dtype, 64, rows=3, seed=s)


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("lanes", WIDTHS)
def test_ties(lanes: int, dtype: str) -> None:
    """Factors 2^-(s + 1), so that x = +-(2 k + 1) 2^s lies at a half: of the second rounding, and of the first."""
    for rule in RULES:
        for s in (0, 1, 2, 3, 9, 20):
            step = step_of(np.full(64, 2**30), np.full(64, -s), rule, dtype, 10)
            k = np.arange(-32, 32)
            values = np.array([(2 * k + 1) << s, ((2 * k + 1) << s) - 1, ((2 * k + 1) << s) + 1], np.int32)
            out = np.zeros((3, 64), dtype)
            tile(lanes)(values.ravel(), 0, 64, 3, 64, 0, step, 0, out.reshape(-1), 0, 64)
            assert out.tolist() == [[requantized(int(v), 0, step) for v in row] for row in values], (rule, s)


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("lanes", WIDTHS)
def test_every_number_of_columns_and_rows(lanes: int, dtype: str) -> None:
    rng = np.random.default_rng(4)
    for n, columns in enumerate(range(1, 6 * lanes + 2)):
        step = step_of(rng.integers(2**30, 2**31, 192), -rng.integers(1 + n % 2, 12, 192), RULES[n % 4], dtype, 5)
        check(lanes, step, dtype, columns, channel=64 * (n % 2), rows=1 + n % 9, seed=n)


@pytest.mark.parametrize("lanes", WIDTHS)
def test_ranges_and_zero_points(lanes: int) -> None:
    """Narrow, empty and one-sided ranges; zero points at the ends, and, of unsound files, beyond them."""
    rng = np.random.default_rng(5)
    for dtype in ("uint8", "int8"):
        least, most = LIMITS[dtype]
        for zero_point in (least, -3, 0, 5, most, 1000, -70_000):
            inside = min(max(zero_point, least), most)
            for low, high in ((least, most), (inside, most), (inside, inside), (least + 9, least + 11), (most, least)):
                for rule in RULES[:4]:
                    step = step_of(rng.integers(2**30, 2**31, 64), -rng.integers(1, 9, 64), rule, dtype, zero_point,
                                   (low, high))  # fmt: skip
                    check(lanes, step, dtype, 37, rows=3)


@pytest.mark.parametrize("position", [0, 40, 69, 100])
@pytest.mark.parametrize("lanes", WIDTHS)
def test_one_channel_that_goes_the_long_way(lanes: int, position: int) -> None:
    """A single factor of 1/2 or more among channels that only scale down, also one to the left."""
    rng = np.random.default_rng(6)
    for shift in (0, 1, 7):
        for rule in RULES[:4]:
            shifts = -rng.integers(2, 9, 101)
            shifts[position] = shift
            check(lanes, step_of(rng.integers(2**30, 2**31, 101), shifts, rule, "uint8", 9), "uint8", 101)


def test_block_takes_upward_where_a_clamp_hides_the_difference() -> None:
    """requantize_block follows "double" by "upward" code if low >= zero point: outputs stay those of "double"."""
    rng = np.random.default_rng(7)
    for low in (4, 5, 6):
        step = step_of(np.full(64, 2**30), np.full(64, -3), "double", "uint8", 5, (low, 255))
        values = rng.integers(-200, 200, (6, 64)).astype(np.int32)
        out = np.zeros((6, 40), np.uint8)
        block(values.ravel(), 64, 6, 40, 0, step, out.reshape(-1), 0, 40)
        assert out.tolist() == [[requantized(int(v), j, step) for j, v in enumerate(row[:40])] for row in values]
