"""The generated float32 tiles, output by output, against one chain of exact fused multiply-adds in plain Python."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from npmobilenet.graph import ACTIVATIONS
from npmobilenet.kernels.compiler.jit import compile_kernel
from npmobilenet.kernels.reference.activation import activate
from npmobilenet.kernels.reference.arithmetic import fma32
from npmobilenet.kernels.vectorcode.depthwise_f32 import (
    Framed,
    Pixels,
    Taps,
    depthwise_f32_image_kernel,
    depthwise_f32_kernel,
)
from npmobilenet.kernels.vectorcode.gemm_f32 import gemm_f32_kernel
from npmobilenet.kernels.vectorcode.generated import Cells, Lhs, Panel
from npmobilenet.kernels.vectorcode.vector import VECTOR_ACTIVATIONS

Array = np.ndarray[Any, Any]
F = np.float32
MATRICES = [
    (1, (2,)), (1, (4,)), (3, (4, 2)), (6, (4, 4)), (2, (8,)), (4, (8, 4)), (6, (8, 8)), (1, (16,)), (1, (16, 8)),
    (12, (16, 8)), (5, (16, 16)), (12, (16, 16)),
]  # fmt: skip
FILTERS = [(1, 4), (4, 4), (3, 8), (1, 16), (4, 16)]
IMAGES = [
    (2, 7, 4, 3, 1), (2, 7, 4, 3, 2), (2, 7, 8, 5, 1), (2, 7, 8, 5, 2), (2, 7, 16, 3, 1), (2, 7, 16, 5, 2),
    (1, 1, 4, 3, 1), (3, 2, 4, 2, 3), (2, 4, 16, 1, 1),
]  # fmt: skip
EDGES = [F(v) for v in (
    0.0, -0.0, 1e-45, -1e-45, 1.1754942e-38, 1, -1, -3, 3, 6, 3.4e38, -3.4e38, np.inf, -np.inf, np.nan,
)]  # fmt: skip
EDGES += [np.nextafter(v, to) for v in (F(6), F(3), F(-3)) for to in (F(-np.inf), F(np.inf))]
NOTHING = F(77)  # what lies around the outputs


@functools.cache
def matrix(rows: int, vectors: tuple[int, ...]) -> Callable[..., None]:
    """A micro-kernel, callable from Python. The cache of compiled code tells tiles apart by name alone."""
    inner = gemm_f32_kernel(rows, vectors)

    def run(lhs, panel, activation, more, adds, out, count):  # type: ignore[no-untyped-def]
        inner(lhs, panel, activation, more, adds, out, count)

    run.__qualname__ = f"matrix_{rows}_{'_'.join(map(str, vectors))}"
    return compile_kernel(run)


@functools.cache
def depthwise(pixels: int, lanes: int) -> Callable[..., None]:
    """A depthwise tile, callable from Python."""
    inner = depthwise_f32_kernel(pixels, lanes)

    def run(x, w, activation, out, groups, blocks):  # type: ignore[no-untyped-def]
        inner(x, w, activation, out, groups, blocks)

    run.__qualname__ = f"depthwise_{pixels}_{lanes}"
    return compile_kernel(run)


@functools.cache
def depthwise_image(*shape: int) -> Callable[..., None]:
    """A depthwise tile that knows the image's borders, callable from Python."""
    inner = depthwise_f32_image_kernel(*shape)

    def run(x, w, bias, activation, out, count, stop):  # type: ignore[no-untyped-def]
        inner(x, w, bias, activation, out, count, stop)

    run.__qualname__ = f"depthwise_image_{'_'.join(map(str, shape))}"
    return compile_kernel(run)


def chain(bias: F, terms: list[tuple[F, F]], activation: int) -> F:
    """One output: its terms in turn, then the activation if it has a vector form."""
    acc = bias
    with np.errstate(all="ignore"):
        for x, w in terms:
            acc = fma32(x, w, acc)
        return activate(acc, activation) if activation in VECTOR_ACTIVATIONS else acc


def values(rng: np.random.Generator, size: int, edges: float = 0) -> Array:
    """Numbers of some magnitudes, so that sums cancel and round; a share of `edges` of them from EDGES."""
    plain = (rng.standard_normal(size) * 2.0 ** rng.integers(-12, 3, size)).astype(F)
    return np.where(rng.random(size) < edges, rng.choice(np.array(EDGES, F), size), plain)


def check(got: Array, expected: Array) -> None:
    """The same bits; a NaN is a NaN."""
    wrong = np.flatnonzero((got.view(np.uint32) != expected.view(np.uint32)) & ~(np.isnan(got) & np.isnan(expected)))
    assert not len(wrong), (len(wrong), wrong[:5], got[wrong[:5]], expected[wrong[:5]])


def check_matrix(rows: int, vectors: tuple[int, ...], segments: int, depth: int, activation: int,
                 edges: float = 0, row_step: int | None = None, count: int = 1) -> None:  # fmt: skip
    """`count` tiles one below the other, with gaps between rows, segments and outputs."""
    tall, rows = rows, rows * count
    rng, width = np.random.default_rng([rows, sum(vectors), segments, depth, activation]), sum(vectors)
    x_at, w_at, channel, out_at, out_step = (int(v) for v in rng.integers(0, 9, 5))
    row_step = depth + 2 if row_step is None else row_step
    x_segment, w_segment, out_step = rows * row_step + 1, depth * width + 3, width + out_step
    x = values(rng, x_at + segments * x_segment + rows * row_step + depth, edges)
    w = values(rng, w_at + segments * w_segment + 1, edges)
    bias = values(rng, channel + width, edges)
    out = np.full(out_at + rows * out_step + 5, NOTHING)
    expected = out.copy()
    for r, j in itertools.product(range(rows), range(width)):
        terms = [
            (x[x_at + r * row_step + s * x_segment + k], w[w_at + s * w_segment + k * width + j])
            for s in range(segments)
            for k in range(depth)
        ]
        expected[out_at + r * out_step + j] = chain(bias[channel + j], terms, activation)
    more = values(rng, len(out), edges)
    for adds in (0, 1):
        given = out.copy()
        lhs, panel = Lhs(x, x_at, row_step, x_segment, segments, depth), Panel(w, w_at, w_segment, bias, channel)
        matrix(tall, vectors)(lhs, panel, activation, more, adds, Cells(given, out_at, out_step), count)
        with np.errstate(all="ignore"):
            check(given, np.where((expected == NOTHING) | (adds == 0), expected, expected + more))


@pytest.mark.equal("outputs of the float32 micro-kernel", "generated vector code", "fma chains in Python", "bits")
@pytest.mark.parametrize(("rows", "vectors"), MATRICES)
def test_gemm_f32_kernel(rows: int, vectors: tuple[int, ...]) -> None:
    """No term, one, odd and even numbers of them, in one segment and several."""
    for segments, depth in ((1, 0), (0, 3), (1, 1), (1, 2), (1, 7), (3, 1), (2, 4), (3, 3)):
        check_matrix(rows, vectors, segments, depth, 0)
    check_matrix(rows, vectors, 1, 5, 0, row_step=0)
    check_matrix(rows, vectors, 1, 3, 0, row_step=1)  # windows of a row that overlap
    for count in (0, 2, 5):
        check_matrix(rows, vectors, 2, 3, 0, count=count)


@pytest.mark.parametrize("activation", range(len(ACTIVATIONS)), ids=ACTIVATIONS)
@pytest.mark.parametrize(("rows", "vectors"), [(1, (4,)), (3, (4, 2)), (4, (8, 4)), (12, (16, 8))])
def test_gemm_f32_kernel_activates(rows: int, vectors: tuple[int, ...], activation: int) -> None:
    """Those without a vector form are left to the caller. NaN, infinities, zeros of both signs, subnormal numbers."""
    check_matrix(rows, vectors, 1, 2, activation)
    check_matrix(rows, vectors, 2, 1, activation, edges=0.3)


@pytest.mark.parametrize("activation", sorted(VECTOR_ACTIVATIONS))
@pytest.mark.parametrize("vectors", [(2,), (4,), (8,), (16,)])
def test_activation_of_every_edge(vectors: tuple[int, ...], activation: int) -> None:
    """Nothing is added, so the outputs are activate(bias), also of arbitrary bits."""
    width = vectors[0]
    some = np.random.default_rng(1).integers(0, 2**32, 20 * width, dtype=np.uint32).view(F)
    for first in range(0, len(EDGES), width):
        some[first : first + width] = (EDGES + EDGES)[first : first + width]
    tile, empty = matrix(1, vectors), np.zeros(64, F)
    for first in range(0, len(some), width):
        out = np.full(width + 1, NOTHING)
        lhs, panel = Lhs(empty, 0, 0, 0, 1, 0), Panel(empty, 0, 0, some, first)
        tile(lhs, panel, activation, empty, 0, Cells(out, 0, width), 1)
        wanted = [*(chain(v, [], activation) for v in some[first : first + width]), NOTHING]
        check(out, np.array(wanted, F))
        zeros = [np.signbit(v) for v in wanted if v == 0]
        assert [np.signbit(v) for v in out if v == 0] == zeros


def check_filter(pixels: int, lanes: int, taps: tuple[int, int], groups: int, blocks: int, activation: int = 0,
                 edges: float = 0) -> None:  # fmt: skip
    """A run of pixels * groups outputs by lanes * blocks channels."""
    rng = np.random.default_rng([pixels, lanes, *taps, groups, blocks, activation])
    channels, count = lanes * blocks, pixels * groups
    x_at, w_at, channel, out_at, more = (int(v) for v in rng.integers(0, 9, 5))
    column_step = channels + more
    pixel_step = (1 + int(rng.integers(0, 3))) * column_step + more
    row_step = count * pixel_step + taps[1] * column_step + 1
    w_column, w_row, out_step = channels + 1, taps[1] * (channels + 1) + 2, channels + more
    x = values(rng, x_at + taps[0] * row_step + count * pixel_step + taps[1] * column_step + channels, edges)
    w = values(rng, w_at + taps[0] * w_row + channels, edges)
    bias = values(rng, channel + channels, edges)
    out = np.full(out_at + count * out_step + channels + 5, NOTHING)
    expected = out.copy()
    for p, j in itertools.product(range(count), range(channels)):
        terms = [
            (x[x_at + p * pixel_step + ky * row_step + kx * column_step + j], w[w_at + ky * w_row + kx * w_column + j])
            for ky in range(taps[0])
            for kx in range(taps[1])
        ]
        expected[out_at + p * out_step + j] = chain(bias[channel + j], terms, activation)
    image = Pixels(x, x_at, pixel_step, row_step, column_step)
    filters = Taps(w, w_at, w_row, w_column, taps[0], taps[1], bias, channel)
    depthwise(pixels, lanes)(image, filters, activation, Cells(out, out_at, out_step), groups, blocks)
    check(out, expected)


@pytest.mark.equal("outputs of the float32 depthwise tile", "generated vector code", "fma chains in Python", "bits")
@pytest.mark.parametrize(("pixels", "lanes"), FILTERS)
def test_depthwise_tile(pixels: int, lanes: int) -> None:
    """Every number of groups and blocks; rows of taps cut off, to none at all."""
    for groups, blocks in itertools.product(range(4), range(4)):
        check_filter(pixels, lanes, (2, 3), groups, blocks)
    for taps_y in (0, 1, 3):
        check_filter(pixels, lanes, (taps_y, 3), 1, 1)
    for taps_x in (0, 1, 2, 5):
        check_filter(pixels, lanes, (2, taps_x), 2, 1)


@pytest.mark.parametrize("activation", range(len(ACTIVATIONS)), ids=ACTIVATIONS)
@pytest.mark.parametrize(("pixels", "lanes"), [(1, 4), (3, 8), (4, 16)])
def test_depthwise_tile_activates(pixels: int, lanes: int, activation: int) -> None:
    check_filter(pixels, lanes, (1, 3), 1, 2, activation)
    check_filter(pixels, lanes, (1, 3), 2, 1, activation, edges=0.2)


def check_image(shape: tuple[int, ...], rows: tuple[int, int], in_w: int, pad: int, count: int, stop: int, more: int,
                activation: int = 0, edges: float = 0) -> None:  # fmt: skip
    """Outputs of `count` rows and `stop` columns, of lanes + more channels; the image has rows rows[0] ... rows[1] - 1.

    What lies before and after the image is NaN, which would show if it were read.
    """
    _, _, lanes, taps, stride = shape
    rng = np.random.default_rng([*shape, rows[1] - rows[0], in_w, pad, count, stop, more, activation])
    channels, line = lanes + more, in_w * (lanes + more)
    out_at, out_step = 3, stop * channels + 2
    top, bottom = rows
    before = top * line  # x_at is that of row 0, which may lie before the image's first
    around = 2 * line + 7
    x = np.full(2 * around + max(bottom - top, 0) * line, F(np.nan))
    x[around : around + max(bottom - top, 0) * line] = values(rng, max(bottom - top, 0) * line, edges)
    w, bias = values(rng, taps * taps * channels, edges), values(rng, channels, edges)
    out = np.full(out_at + count * out_step + 5, NOTHING)
    expected = out.copy()
    for r, p, j in itertools.product(range(count), range(stop), range(channels)):
        terms = [
            (x[around + (y - top) * line + i * channels + j], w[(ky * taps + kx) * channels + j])
            for ky in range(taps)
            for kx in range(taps)
            if top <= (y := r * stride + ky) < bottom and 0 <= (i := p * stride - pad + kx) < in_w
        ]
        expected[out_at + r * out_step + p * channels + j] = chain(bias[j], terms, activation)
    image = Framed(x, around - before, top, bottom, in_w, channels, pad)
    depthwise_image(*shape)(image, w, bias, activation, Cells(out, out_at, out_step), count, stop)
    check(out, expected)


@pytest.mark.equal(
    "outputs of the float32 depthwise tile at the borders", "generated vector code", "fma chains in Python", "bits"
)
@pytest.mark.parametrize("shape", IMAGES)
def test_depthwise_image_tile(shape: tuple[int, ...]) -> None:
    """Images inside and across each border, narrower than the window, and without a row; channels left over."""
    rows, pixels, _, taps, stride = shape
    high = (rows - 1) * stride + taps
    for top, bottom in ((-2, high + 1), (0, high), (1, high), (0, high - 1), (1, 2), (taps, taps), (-1, 1)):
        check_image(shape, (top, bottom), 9, 1, rows, 9 // stride, 1)
    for in_w, pad, stop in ((1, 1, 1), (2, 2, 3), (20, 0, pixels), (20, 0, 1), (16, 2, 2 * pixels + 1), (5, 3, 4)):
        check_image(shape, (0, high), in_w, pad, rows, stop, 0)
    for count, more in ((1, 0), (rows, 2), (1, shape[2] - 1), (0, 0)):
        check_image(shape, (0, max(count - 1, 0) * stride + taps), 9, 1, count, 3, more)


@pytest.mark.parametrize("activation", range(len(ACTIVATIONS)), ids=ACTIVATIONS)
@pytest.mark.parametrize("shape", [(2, 7, 4, 3, 1), (2, 7, 8, 3, 2), (2, 7, 16, 3, 1)])
def test_depthwise_image_tile_activates(shape: tuple[int, ...], activation: int) -> None:
    check_image(shape, (0, 4), 9, 1, 2, 9 if shape[4] == 1 else 5, 0, activation)
    check_image(shape, (0, 4), 3, 1, 2, 2, 0, activation, edges=0.1)


def test_tiles_side_by_side() -> None:
    """Tiles of one module don't take each other's code: as many rows, or pixels and lanes."""
    one, two, three = gemm_f32_kernel(2, (8, 4)), gemm_f32_kernel(2, (4, 8)), gemm_f32_kernel(2, (4,))
    wide, far = depthwise_f32_kernel(2, 4), depthwise_f32_kernel(1, 4)

    @compile_kernel
    def run(x, w, bias, out):  # type: ignore[no-untyped-def]
        lhs, panel, filters = Lhs(x, 0, 5, 0, 1, 5), Panel(w, 0, 0, bias, 0), Taps(w, 0, 0, 4, 1, 3, bias, 0)
        one(lhs, panel, 0, x, 0, Cells(out, 0, 12), 1)
        two(lhs, panel, 0, x, 0, Cells(out, 24, 12), 1)
        three(lhs, panel, 0, x, 0, Cells(out, 48, 4), 1)
        wide(Pixels(x, 0, 4, 0, 4), filters, 0, Cells(out, 56, 4), 1, 1)
        far(Pixels(x, 0, 8, 0, 4), filters, 0, Cells(out, 64, 4), 2, 1)

    rng = np.random.default_rng(2)
    x, w, bias, out = values(rng, 40), values(rng, 60), values(rng, 12), np.zeros(72, F)
    run(x, w, bias, out)
    products = [
        [chain(bias[j], [(x[5 * r + k], w[width * k + j]) for k in range(5)], 0) for r in (0, 1) for j in range(width)]
        for width in (12, 12, 4)
    ]
    filtered = [
        chain(bias[j], [(x[p * step + 4 * k + j], w[4 * k + j]) for k in range(3)], 0)
        for step in (4, 8)
        for p in (0, 1)
        for j in range(4)
    ]
    check(out, np.array([*itertools.chain(*products), *filtered], F))
