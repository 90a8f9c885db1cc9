"""The generated tiles of integer dot products, against sums of Python's integers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from npmobilenet.kernels.compiler.cpu import LANES, isa, isas_here
from npmobilenet.kernels.compiler.jit import compile_kernel
from npmobilenet.kernels.vectorcode.gemm_s8 import BYTES, ON_ARM, gemm_s8_kernel, kr_of
from npmobilenet.kernels.vectorcode.generated import Lhs, Panel, RowSums
from npmobilenet.kernels.vectorcode.lhs_row_sums import row_sums_kernel

Array = np.ndarray[Any, Any]
LANE = LANES[isa()]
VNNI = [LANES[name] for name in isas_here() if "vnni" in name]  # lanes of the vectors that it takes here
WIDTHS = sorted({lanes for lanes in LANES.values() if lanes <= LANE})
SHAPES = [(1, 1), (3, 2), (4, 1)]  # rows, vectors; (6, 2) and (12, 2) are the kernels'
FORMS = [(kind, lanes) for kind in ("generic", "pairs") for lanes in WIDTHS]
TILES = [(rows, vectors, lanes, kind) for kind, lanes in FORMS for rows, vectors in SHAPES]
TILES += [(6, 2, min(LANE, 8), "pairs"), (12, 2, LANE, "pairs")]
TILES += [(*shape, 4, kind) for kind in ON_ARM for shape in (*SHAPES, (12, 2))]  # plain sums but on Arm
TILES += [(rows, vectors, lanes, "vnni") for lanes in VNNI for rows, vectors in (*SHAPES, (6, 2), (12, 2))]
END_OR_ALL = ("ends", "all")
NOTHING = 12345  # what lies around the accumulators
SUMS = [("dotprod", 4), *(("vnni", lanes) for lanes in VNNI)]


@functools.cache
def dot(rows: int, vectors: int, lanes: int, kind: str) -> Callable[..., None]:
    """The tile, callable from Python. The cache of compiled code tells tiles apart by name alone."""
    inner = gemm_s8_kernel(rows, vectors, lanes, kind)

    def run(lhs, panel, sums, acc):  # type: ignore[no-untyped-def]
        inner(lhs, panel, sums, acc)

    run.__qualname__ = f"dot_{rows}_{vectors}_{lanes}_{kind}"
    return compile_kernel(run)


@functools.cache
def row_sums(kind: str, lanes: int) -> Callable[..., None]:
    inner = row_sums_kernel(kind, lanes)

    def run_row_sums(x, count, factor, sums):  # type: ignore[no-untyped-def]
        inner(x, count, factor, sums)

    run_row_sums.__qualname__ = f"row_sums_{kind}_{lanes}"
    return compile_kernel(run_row_sums)


def wrapped(value: int) -> int:
    """As int32."""
    return (value + 2**31) % 2**32 - 2**31


def some(rng: np.random.Generator, size: int, dtype: str, ends: str) -> Array:
    """Values of a dtype: "all", its two ends ("ends"), its least or its greatest alone."""
    info = np.iinfo(dtype)
    if ends in {"least", "most"}:
        return np.full(size, info.min if ends == "least" else info.max, dtype)
    if ends == "ends":
        return rng.choice(np.array([info.min, info.max], dtype), size)
    return rng.integers(info.min, info.max, size, dtype, endpoint=True)


def check(rows: int, vectors: int, lanes: int, kind: str, dtype: str, segments: int, groups: int,
          ends: tuple[str, str] = ("all", "all"), row_step: int | None = None) -> None:  # fmt: skip
    """One tile, with gaps between its rows and segments."""
    rng = np.random.default_rng([rows, vectors, lanes, segments, groups])
    width, group = vectors * lanes, kr_of(kind)
    x_at, w_at, sums_at, channel = (int(v) for v in rng.integers(0, 7, 4))
    row_step = groups * group + 3 if row_step is None else row_step
    x_segment = rows * row_step + 1
    x = some(rng, x_at + segments * x_segment + rows * row_step + groups * group + group, dtype, ends[0])
    w = some(rng, w_at + segments * groups * width * group, "int8" if kind == "vnni" else dtype, ends[1])
    # The accumulator wraps, so that a bias beyond int32 on the way may come back.
    sums = np.where(rng.random(sums_at + rows) < 0.3, 0, some(rng, sums_at + rows, "int32", "all")).astype(np.int32)
    if rng.random() < 0.3:
        sums, sums_at = sums[:0], -1
    bias = np.where(rng.random(channel + width) < 0.5, *(some(rng, channel + width, "int32", e) for e in END_OR_ALL))
    acc = np.full(rows * width + 3, NOTHING, np.int32)
    packed = w.view(np.int8) if kind in BYTES else w  # the arrays that hold them are int8 either way
    lhs = Lhs(x, x_at, row_step, x_segment, segments, groups)
    dot(rows, vectors, lanes, kind)(
        lhs, Panel(packed, w_at, groups * width * group, bias, channel), RowSums(sums, sums_at), acc
    )
    for r in range(rows):
        for j in range(width):
            total = int(bias[channel + j]) - (int(sums[sums_at + r]) if sums_at >= 0 else 0)
            for s in range(segments):
                for g in range(groups):
                    for k in range(group):
                        at = x_at + r * row_step + s * x_segment + g * group + k
                        weight = w[w_at + ((s * groups + g) * width + j) * group + k]
                        total += int(x[at]) * int(weight)
            assert acc[r * width + j] == wrapped(total), (r, j, dtype, segments, groups, ends)
    assert (acc[rows * width :] == NOTHING).all()


def dtypes(kind: str) -> tuple[str, ...]:
    """What rows of x are: bytes, or int16. Weights are alike, but with "vnni", which wants them signed."""
    return ("uint8", "int8") if kind in ON_ARM else ("uint8",) if kind == "vnni" else ("int16",)


@pytest.mark.equal("accumulators of the integer micro-kernel", "generated vector code", "Python's integers", "bits")
@pytest.mark.parametrize(("rows", "vectors", "lanes", "kind"), TILES)
def test_gemm_s8_kernel(rows: int, vectors: int, lanes: int, kind: str) -> None:
    for dtype in dtypes(kind):
        for segments, groups in ((1, 0), (0, 2), (1, 1), (1, 5), (2, 1), (3, 2)):
            check(rows, vectors, lanes, kind, dtype, segments, groups)
        check(rows, vectors, lanes, kind, dtype, 1, 3, row_step=1)  # windows that overlap, at any byte


@pytest.mark.parametrize(("rows", "vectors", "lanes", "kind"), [t for t in TILES if t[0] == 3])
def test_gemm_s8_kernel_at_the_ends(rows: int, vectors: int, lanes: int, kind: str) -> None:
    """No step in between saturates: four or eight times 255 * 255, 255 * -128 or -128 * 127, twice -32768 * -32768."""
    for dtype in dtypes(kind):
        for x in ("least", "most", "ends"):
            for w in ("least", "most", "ends"):
                check(rows, vectors, lanes, kind, dtype, 2, 3, (x, w))


@pytest.mark.parametrize(("dtype", "kind", "lanes"), [(t, *form) for form in SUMS for t in dtypes(form[0])])
def test_row_sums(dtype: str, kind: str, lanes: int) -> None:
    """Rows of every length from none to beyond two vectors, in segments, one to 35 of them, up to the array's end."""
    for length in range(140):
        rng = np.random.default_rng(length)
        at, count, segments = (int(v) for v in rng.integers([0, 1, 1], [70, 36, 4]))
        row_step, x_segment, factor = (int(v) for v in rng.integers([0, 0, -255], [200, 5000, 256]))
        x = some(
            rng, at + (count - 1) * row_step + (segments - 1) * x_segment + length, dtype, ("all", "ends")[length % 2]
        )
        sums = np.full(count + 2, NOTHING, np.int32)
        row_sums(kind, lanes)(Lhs(x, at, row_step, x_segment, segments, length), count, factor, sums)
        for r in range(count):
            starts = [at + r * row_step + s * x_segment for s in range(segments)]
            assert sums[r] == factor * sum(int(v) for start in starts for v in x[start : start + length]), (length, r)
        assert (sums[count:] == NOTHING).all()


def test_signed_and_unsigned_tiles_side_by_side() -> None:
    """One module may hold both forms of a tile; neither is taken for the other."""
    tile, total = gemm_s8_kernel(1, 1, 4, "dotprod"), row_sums_kernel("dotprod", 4)

    @compile_kernel
    def run(x, y, w, none, acc, other, sums):  # type: ignore[no-untyped-def]
        panel = Panel(w, 0, 0, none, 0)
        tile(Lhs(x, 0, 0, 0, 1, 1), panel, RowSums(none, 0), acc)
        tile(Lhs(y, 0, 0, 0, 1, 1), panel, RowSums(none, 0), other)
        total(Lhs(x, 0, 0, 0, 1, 4), 1, 1, sums)
        total(Lhs(y, 0, 0, 0, 1, 4), 1, 1, sums[1:])

    x = np.array([0, 255, 128, 127], np.uint8)
    w = some(np.random.default_rng(0), 16, "int8", "all")
    acc, other = np.zeros(4, np.int32), np.zeros(4, np.int32)
    signed = x.view(np.int8)
    sums = np.zeros(2, np.int32)
    run(x, signed, w, np.zeros(4, np.int32), acc, other, sums)
    assert sums.tolist() == [510, 0 - 1 - 128 + 127]
    for values, factors, got in ((x, w.view(np.uint8), acc), (signed, w, other)):
        group = [factors[4 * j : 4 * j + 4] for j in range(4)]
        assert got.tolist() == [sum(int(v) * int(c) for v, c in zip(values, g, strict=True)) for g in group]
