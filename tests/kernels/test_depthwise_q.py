"""The integer depthwise convolution's generated code against plain sums in int64, for every instruction set here."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest

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
from npmobilenet.kernels.compiler.cpu import LANES, isa, isas_here
from npmobilenet.kernels.fast.depthwise_conv2d_q import (
    depthwise_conv2d_q,
    form_of,
    pack_depthwise_conv2d_q,
    pixels_side_by_side,
)
from npmobilenet.kernels.fast.gemm_s8 import filled_up
from npmobilenet.kernels.vectorcode.depthwise_s8 import (
    Block,
    Filters,
    OutputRows,
    RowGroup,
    Words,
    depthwise_s8_kernel,
    interleave_kernel,
    interleave_one_kernel,
    raised,
)
from npmobilenet.kernels.vectorcode.gemm_s8 import BYTES, kr_of
from npmobilenet.kernels.vectorcode.generated import Cells
from npmobilenet.kernels.vectorcode.linear_requant import linear_requant

Array = np.ndarray[Any, Any]
HERE = isas_here()
KINDS = {"generic": "generic", "avx2": "pairs", "avx512": "pairs", "avx512vnni": "vnni", "neon": "generic"}
KINDS |= {"dotprod": "dotprod", "avxvnni": "vnni"}
FORMS_HERE = sorted({*HERE, "dotprod"})  # plain sums take the place of Arm's instructions elsewhere
LIMITS = {"uint8": (0, 255), "int8": (-128, 127)}


def extremes(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Array:
    """Values at random, half of them the ends of the type's range."""
    low, high = LIMITS[dtype]
    some = rng.integers(low, high, shape, endpoint=True)
    return np.where(rng.random(shape) < 0.5, rng.choice([low, high], shape), some).astype(dtype)


# -- the generators ----------------------------------------------------------------------------------------------------


def interleaver(tile: Any) -> Callable[..., None]:
    def run(x, group, column, channel, count, words):  # type: ignore[no-untyped-def]
        tile(x, group, column, channel, count, words)

    return numba.njit(run)


def interleaver_of_single_channels(tile: Any) -> Callable[..., None]:
    def run(x, group, column, channel, count, words, channels, multiplier):  # type: ignore[no-untyped-def]
        tile(x, group, column, channel, count, words, channels, multiplier)

    return numba.njit(run)


def filterer(tile: Any) -> Callable[..., None]:
    def run(words, filters, block, shift, shift_step, out):  # type: ignore[no-untyped-def]
        tile(words, filters, block, shift, shift_step, out)

    return numba.njit(run)


@pytest.mark.parametrize("name", FORMS_HERE)
def test_interleaving(name: str) -> None:
    """Words hold the rows' values in order, of int8 plus 128 where they are bytes; nothing else is written."""
    lanes, kind = LANES[name], KINDS[name]
    group, rng, pixels, channels = kr_of(kind), np.random.default_rng(1), 3, 70
    for dtype, vectors in itertools.product(LIMITS, (1, 2, 4)):
        x = extremes(rng, (group, 1, pixels, channels), dtype)
        x[-1] = x[-1, 0, 0]  # a row of one pixel
        rows = np.array([(row.ctypes.data, 0 if row is x[-1] else channels) for row in x], np.int64)
        rows[-1, 1] = 0
        step, width = (pixels + 1) * lanes, vectors * lanes
        value = x[:, 0].astype(np.int64) + raised(kind, dtype == "int8")
        for multiplier in (None, 1, 3):
            words = np.full(vectors * step + 7, 77, np.int32)
            if multiplier is None:
                inner = interleave_kernel(width, lanes, kind)
                run = interleaver(inner)
                chosen = np.arange(5, 5 + width)
                run(x, RowGroup(rows.reshape(-1), 0), 1, 5, pixels - 1, Cells(words, 7, step))
            else:
                inner = interleave_one_kernel(lanes, kind)
                run = interleaver_of_single_channels(inner)
                chosen = np.arange(5, 4 + width) // multiplier
                run(x, RowGroup(rows.reshape(-1), 0), 1, 5, pixels - 1, Cells(words, 7, step), width - 1, multiplier)
            parts = words[7:].view(np.int8 if kind in BYTES else np.int16).reshape(vectors, pixels + 1, lanes, group)
            found = parts[:, : pixels - 1].transpose(1, 0, 2, 3).reshape(pixels - 1, width, group)[:, : len(chosen)]
            expected = value[:, 1:][:, :, chosen].transpose(1, 2, 0)
            assert (found == expected.astype(found.dtype)).all(), (dtype, vectors, multiplier)
            assert (words[:7] == 77).all()
            assert (words[7:].reshape(vectors, -1, lanes)[:, pixels - 1 :] == 77).all()


# Outputs, rows, (columns, stride), and pixels side by side in a vector.
FORMS = [(4, 2, (3, 1), 1), (8, 1, (3, 2), 1), (4, 4, (5, 1), 1), (4, 2, (5, 2), 1), (8, 1, None, 1), (4, 2, (3, 2), 2)]


@pytest.mark.parametrize("name", FORMS_HERE)
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_columns(name: str, form: tuple[int, int, tuple[int, int] | None, int]) -> None:
    """Sums of several parts for several rows; counts that aren't whole tiles; wrapped at 32 bits."""
    lanes, kind, (pixels, rows, window, side) = LANES[name], KINDS[name], form
    group, rng = kr_of(kind), np.random.default_rng(2)
    unit = lanes // side  # words of a pixel
    run = filterer(depthwise_s8_kernel(pixels, rows, lanes, kind, window, unit=unit))
    taps, stride = window or (4, 3)
    dilation, shifts, shift_step, number = 1 if window else 2, rows + 1, 1, 2
    for count in (1, pixels, 2 * pixels + 1):
        filled = max(count, pixels)
        columns = (filled - 1) * stride + (taps - 1) * dilation + side
        shape = (2, number, columns, unit, group)
        x = rng.integers(-128, 256, shape).astype(np.int16)
        if kind in BYTES:
            x = extremes(rng, shape, "uint8" if kind == "vnni" else "int8")
        parts = np.array([9, 1, 0, 1], np.int64)
        table = np.array([9, 9, 9, 1, 2, 0, 2, 2, 3 * taps * shifts * lanes * group], np.int64)
        w = extremes(rng, (5, taps, shifts, lanes, group), "int8")
        w = w if kind in BYTES else w.astype(np.int16) * 2 + 1
        bias = rng.integers(INT32_MIN, INT32_MAX, 3 + number * lanes, dtype=np.int32)
        acc = np.full((rows, filled, number * lanes), 77, np.int32)
        data = np.ascontiguousarray(x).reshape(-1).view(np.int32)
        words = Words(data, number * columns * unit, columns * unit, dilation, stride)
        filters = Filters(w.reshape(-1), parts, table, bias, taps, shifts)
        out = OutputRows(acc.reshape(-1), 0, number * lanes, filled * number * lanes, count, rows)
        run(words, filters, Block(1, number, 3), 1, shift_step, out)
        for r, p, v in itertools.product(range(rows), range(count), range(number)):
            total = bias[3 + v * lanes : 3 + (v + 1) * lanes].astype(np.int64)
            for i, k in itertools.product(range(2), range(taps)):
                g = parts[1 + v : 3 + v][i]
                weight = w[3 * v + i, k, 1 + r * shift_step].astype(np.int64)
                first = p * stride + k * dilation
                total += (x[g, v, first : first + side].reshape(lanes, group) * weight).sum(1)
            assert (acc[r, p, v * lanes : (v + 1) * lanes] == total.astype(np.int32)).all(), (count, r, p, v)


# -- the kernel --------------------------------------------------------------------------------------------------------


def step_of(channels: int, rule: str = "none", zero_point: int = 0, limits: tuple[int, int] = (INT32_MIN, INT32_MAX),
            tail: int = INT32_MAX) -> Requantization:  # fmt: skip
    """Parameters filled up to whole panels, as the binder fills them; the factors are 1/16."""
    count = -(-channels // 64) * 64
    m, s = np.full(count, 2**30, np.int32), np.full(count, -3, np.int32)
    where = VectorRule(rounding(rule), Rounding.DOUBLE, INT32_MAX, tail)
    return Requantization(m, s, m * 2.0 ** (s - 31), where, zero_point, *limits)


def sums(x: Array, w: Array, bias: Array, zeros: tuple[int, int], stride: tuple[int, int], pad: tuple[int, int],
         dilation: tuple[int, int], size: tuple[int, int]) -> Array:  # fmt: skip
    """The accumulators, tap by tap, in int64."""
    batch, height, width, depth = x.shape
    kh, kw, channels = w.shape
    total = np.zeros((batch, *size, channels), np.int64) + bias
    value = np.repeat(x.astype(np.int64) - zeros[0], channels // depth, 3)
    for ky, kx in itertools.product(range(kh), range(kw)):
        weight = w[ky, kx].astype(np.int64) - zeros[1]
        for oy, ox in itertools.product(range(size[0]), range(size[1])):
            iy, ix = oy * stride[0] - pad[0] + ky * dilation[0], ox * stride[1] - pad[1] + kx * dilation[1]
            if 0 <= iy < height and 0 <= ix < width:
                total[:, oy, ox] += value[:, iy, ix] * weight
    return total


KERNELS = [(3, 3), (5, 5), (1, 1), (2, 2), (3, 5), (5, 3), (7, 2), (4, 3)]
CHANNELS = [*range(1, 34), 40, 47, 48, 49, 56, 63, 64, 65, 70, 144]


def case(number: int) -> dict[str, Any]:
    """One of many mixtures of everything that the kernel takes."""
    rng = np.random.default_rng(number)
    dtype = ("uint8", "int8")[number // 4 % 2]
    kernel = KERNELS[number // 2 % len(KERNELS)] if number % 3 else ((3, 3), (5, 5))[number % 2]
    channels = CHANNELS[number % len(CHANNELS)]
    size = tuple(int(n) for n in rng.integers(1, (24, 90) if channels > 60 and number % 5 == 0 else 12, 2))
    stride = ((1, 1), (2, 2), (1, 1), (1, 2), (2, 1), (3, 3))[int(rng.integers(6))]
    dilation = (1, 1) if number % 4 else tuple(int(n) for n in rng.integers(1, 3, 2))
    acc_range = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    pad = tuple(int(rng.integers(0, n + 1)) for n in acc_range)
    out = tuple((n + int(rng.integers(0, r + 1)) + p - r) // s + 1 if n + p >= r else 1
                for n, p, r, s in zip(size, pad, acc_range, stride, strict=True))  # fmt: skip
    multiplier = 2 if number % 7 == 0 else 1
    low, high = LIMITS[dtype]
    zeros = (int(rng.choice([low, high, 3])), int(rng.choice([0, 255, 131])) if dtype == "uint8" else 0)
    return {
        "x": extremes(rng, (1 + number % 2, *size, channels), dtype), "stride": stride, "pad": pad, "zeros": zeros,
        "w": extremes(rng, (*kernel, channels * multiplier), dtype), "dilation": dilation, "size": out,
        "bias": rng.integers(-(2**20), 2**20, channels * multiplier).astype(np.int32),
    }  # fmt: skip


def computed(what: dict[str, Any], step: Requantization, dtype: str, linear: bool = True) -> Array:
    """The kernel's output, by lines where there are some and they are wanted."""
    x, w = what["x"], what["w"]
    packed = pack_depthwise_conv2d_q(w, what["bias"], what["zeros"])
    shape, room = (x.shape[0], *what["size"], w.shape[2]), 256  # untouched before and behind the output
    around = np.full(math.prod(shape) + 2 * room, 99, dtype)
    out = around[room:-room].reshape(shape)
    ends = [np.full(w.shape[2], end) for end in (-(2**26), 2**26)]
    end = linear_requant(step, (ends[0], ends[1]), dtype if linear else "int32")
    depthwise_conv2d_q(x, *packed, what["zeros"], w.shape[:2], what["stride"], what["pad"], what["dilation"], end, out)
    assert (around[:room] == 99).all()
    assert (around[-room:] == 99).all()
    return out


@pytest.mark.parametrize("part", range(4))
def test_accumulators(part: int) -> None:
    """Borders, strides, dilations, zero points and the ends of the types, in 45 numbers of channels."""
    for number in range(part, 240, 4):
        what = case(number)
        found = computed(what, step_of(what["w"].shape[2]), "int32")
        assert np.array_equal(found, sums(**what)), number


def test_outputs_under_two_rules() -> None:
    """The channels from `tail` on are rounded twice, the others upward; bytes are written, none outside the output."""
    differ = 0
    for number, tail in itertools.product((1, 8, 22, 44), (0, 5, 16, INT32_MAX)):
        what = case(number)
        rng = np.random.default_rng(number)
        what["w"] = (rng.choice([-8, 0, 0, 0, 8], what["w"].shape) + what["zeros"][1]).astype(what["w"].dtype)
        what["bias"] = what["bias"] // 2**14 * 8
        dtype, channels = str(what["x"].dtype), what["w"].shape[2]
        step = step_of(channels, "upward", 3, LIMITS[dtype], tail)
        acc = sums(**what)
        expected = [requantized(int(a), i % channels, step) for i, a in enumerate(acc.reshape(-1))]
        for linear in (False, True):
            assert computed(what, step, dtype, linear).reshape(-1).tolist() == expected, (number, tail, linear)
        plain = [
            requantized(int(a), i % channels, step._replace(rule=everywhere(Rounding.UPWARD)))
            for i, a in enumerate(acc.flat)
        ]
        differ += plain != expected
    assert differ


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("kernel", [(3, 3), (5, 5)])
def test_fewer_pixels_and_rows_than_are_computed_together(kernel: tuple[int, int], dtype: str) -> None:
    """What is beyond the last pixel or row is computed, and not stored: bytes by lines as bytes of stored sums."""
    low, high = LIMITS[dtype]
    for number, (rows, columns, stride, channels) in enumerate(
        itertools.product((1, 2, 3, 5), (1, 2, 3, 5, 9), (1, 2), (16, 48))
    ):
        rng = np.random.default_rng(number)
        size = tuple((n - 1) * stride + 1 for n in (rows, columns))
        zeros = (int(rng.choice([low, high, 3])), 7 if dtype == "uint8" else 0)
        what = {"x": extremes(rng, (2, *size, channels), dtype), "stride": (stride, stride), "zeros": zeros,
                "pad": (kernel[0] // 2, kernel[1] // 2), "w": extremes(rng, (*kernel, channels), dtype),
                "dilation": (1, 1), "size": (rows, columns),
                "bias": rng.integers(-(2**10), 2**10, channels).astype(np.int32)}  # fmt: skip
        m = rng.integers(2**30, 2**31 - 1, channels).astype(np.int32)
        s = rng.integers(-12, -4, channels).astype(np.int32)
        step = Requantization(m, s, m * 2.0 ** (s - 31), everywhere(Rounding.DOUBLE), 5, low, high)
        found, stored = (computed(what, filled_up(step), dtype, linear) for linear in (True, False))
        assert np.array_equal(found, stored), (rows, columns, stride, channels)
        acc = sums(**what)[-1, -1, -1]
        assert found[-1, -1, -1].tolist() == [requantized(int(a), c, step) for c, a in enumerate(acc)]


@pytest.mark.parametrize("dtype", LIMITS)
def test_two_pixels_side_by_side(dtype: str) -> None:
    """Half a vector of channels, each with a factor of its own: 3 x 3 windows without stride, and their like."""
    channels, taken = LANES[isa()] // 2, 0
    if not channels:
        pytest.skip("one lane has no half")
    low, high = LIMITS[dtype]
    for number, (width, pad, stride) in enumerate(itertools.product((2, 3, 7, 8, 40), (0, 1, 2), ((1, 1), (2, 1)))):
        size = (5, width + 2 * pad - 2)
        if size[1] < 1:
            continue
        rng = np.random.default_rng(number)
        zeros = (int(rng.choice([low, high, 3])), 7 if dtype == "uint8" else 0)
        what = {"x": extremes(rng, (2, 7, width, channels), dtype), "stride": stride, "pad": (1, pad), "zeros": zeros,
                "w": extremes(rng, (3, 3, channels), dtype), "dilation": (1, 1), "size": size,
                "bias": rng.integers(-(2**10), 2**10, channels).astype(np.int32)}  # fmt: skip
        m = rng.integers(2**30, 2**31 - 1, channels).astype(np.int32)
        s = rng.integers(-12, -4, channels).astype(np.int32)
        step = Requantization(m, s, m * 2.0 ** (s - 31), everywhere(Rounding.DOUBLE), 5, low, high)
        acc = sums(**what)
        expected = np.array([requantized(int(a), i % channels, step) for i, a in enumerate(acc.flat)])
        expected = expected.reshape(acc.shape)
        for linear in (False, True):
            assert (computed(what, filled_up(step), dtype, linear) == expected).all(), (number, linear)
        form = form_of((3, 3), stride, (1, 1), 3 - stride[0])
        taken += pixels_side_by_side(what["x"], form, step, expected) == 2
    assert taken == 8


@pytest.mark.parametrize("name", [name for name in HERE if name != isa()])
def test_lesser_instruction_sets(name: str) -> None:
    """The same accumulators where the kernel is generated for less than this machine has."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        f"{Path(__file__)}::test_accumulators[0]",
        f"{Path(__file__)}::test_two_pixels_side_by_side",
    ]
    done = subprocess.run(
        command, check=False, env={**os.environ, "NPMOBILENET_ISA": name}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:]
