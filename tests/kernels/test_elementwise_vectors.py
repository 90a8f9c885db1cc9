"""Generated vector code for lookups, sums and products of bytes, against the plain-Python reference, pair by pair."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from npmobilenet.arithmetic.elementwise import Product, Sum
from npmobilenet.arithmetic.fixedpoint import INT32_MAX, Rounding, VectorRule, everywhere
from npmobilenet.kernels.compiler.cpu import LANES, isa
from npmobilenet.kernels.compiler.jit import compile_kernel
from npmobilenet.kernels.fast import activation as fast_activation
from npmobilenet.kernels.fast.activation import lookup_q
from npmobilenet.kernels.fast.binary_q import add_q, mul_q
from npmobilenet.kernels.reference import binary as reference
from npmobilenet.kernels.vectorcode.elementwise_s8 import Unit, product_kernel, sum_kernel
from npmobilenet.kernels.vectorcode.generated import generated
from npmobilenet.kernels.vectorcode.lookup_vectors import lookup_kernel
from npmobilenet.kernels.vectorcode.requant_rules import packs
from npmobilenet.kernels.vectorcode.vector import INT16, load, store

Array = np.ndarray[Any, Any]
LANE = LANES[isa()]
WIDTHS = sorted(
    {lanes for lanes in LANES.values() if lanes <= LANE and packs(lanes)}
)  # those that this machine can run
WAYS = [(lanes, False) for lanes in WIDTHS] + ([(16, True)] if fast_activation.PERMUTES else [])
LIMITS = {"uint8": (0, 255), "int8": (-128, 127)}
HALF = 2**30  # the multiplier of 1/2
MULTIPLIERS = (HALF, HALF + 1, 3 * 2**29, 1234567891, 2**31 - 1)
common_unit: Callable[..., Any] = reference.common_unit
TILES = {"sum": sum_kernel, "product": product_kernel}


def compiled(run: Callable[..., None], *form: object) -> Callable[..., None]:
    """Under a name that tells it apart from its likes: the cache of compiled code knows functions by their names."""
    run.__qualname__ += "".join(f"_{part}" for part in form)
    return compile_kernel(run)


@functools.cache
def looker(lanes: int, permutes: bool) -> Callable[..., None]:
    """The lookup tile, callable from Python."""
    inner = lookup_kernel(lanes, permutes)

    def run(x, x_at, table, table_at, out, out_at, count):  # type: ignore[no-untyped-def]
        inner(x, x_at, table, table_at, out, out_at, count)

    return compiled(run, lanes, permutes)


@functools.cache
def tile(kind: str, lanes: int) -> Callable[..., None]:
    """A tile of pairs, callable from Python."""
    inner = TILES[kind](lanes)

    def run(x, x_at, y, y_at, scalars, out, out_at, count):  # type: ignore[no-untyped-def]
        inner(x, x_at, y, y_at, scalars, out, out_at, count)

    return compiled(run, lanes, kind)


def random_bytes(rng: np.random.Generator, shape: Any, dtype: str) -> Array:
    values: Array = rng.integers(0, 256, shape).astype(np.uint8).view(dtype)
    return values


def all_pairs(dtype: str) -> tuple[Array, Array]:
    values = np.arange(*np.add(LIMITS[dtype], (0, 1)))
    x, y = np.meshgrid(values, values)
    return x.ravel().astype(dtype), y.ravel().astype(dtype)


IN_RUNS = VectorRule(Rounding.DOUBLE, Rounding.DOUBLE, 7, 4)


def a_sum(y: tuple[int, int], end: tuple[int, int], zeros: tuple[int, int, int], limits: tuple[int, int],
          x: tuple[int, int] = (HALF, 0), sign: int = 1) -> Sum:  # fmt: skip
    return Sum(zeros[0], *x, zeros[1], *y, sign, *end, everywhere(Rounding.DOUBLE), zeros[2], *limits)


def a_product(end: tuple[int, int], zeros: tuple[int, int, int], limits: tuple[int, int]) -> Product:
    return Product(*zeros[:2], *end, end[0] * 2.0 ** (end[1] - 31), everywhere(Rounding.DOUBLE), zeros[2], *limits)


def of_reference(x: Array, y: Array, p: Any) -> Array:
    """One by one, in plain Python."""
    function: Callable[..., Any] = reference.sum_of if isinstance(p, Sum) else reference.product_of
    found = [function(a, b, p, p.rule.inside) for a, b in zip(x.ravel().tolist(), y.ravel().tolist(), strict=True)]
    clamped: Array = np.array([min(max(int(v), p.low), p.high) for v in found]).reshape(x.shape).astype(x.dtype)
    return clamped


def of_tile(x: Array, y: Array, p: Any, lanes: int) -> Array:
    out = np.full(len(x) + 9, 77, x.dtype)
    if isinstance(p, Sum):
        head: tuple[int, ...] = (p.zero_x, p.zero_y, p.multiplier_y, p.shift_y)
    else:
        head = (p.zero_x, p.zero_y)
    scalars = (*head, p.multiplier, p.shift, p.zero_point, p.low, p.high)
    kind = "sum" if isinstance(p, Sum) else "product"
    shifted_x, shifted_y = (np.pad(v, (n, 0)) for v, n in ((x, 3), (y, 1)))
    tile(kind, lanes)(shifted_x, 3, shifted_y, 1, scalars, out, 5, len(x))
    assert (out[:5] == 77).all()
    assert (out[5 + len(x) :] == 77).all()
    return out[5 : 5 + len(x)]


def some_parameters(rng: np.random.Generator, kind: str, dtype: str) -> Any:
    """Around what training gives, or of any size that the tile takes."""
    low, high = LIMITS[dtype]
    zeros: Any = tuple(int(v) for v in rng.choice([low, high, *rng.integers(low, high + 1, 4)], 3))
    limits: Any = (low, high) if rng.integers(2) else tuple(sorted(rng.integers(low, high + 1, 2).tolist()))
    m_y, m = (int(v) for v in rng.choice([*MULTIPLIERS, *rng.integers(HALF, 2**31, 5)], 2))
    usual = rng.integers(3) > 0
    if kind == "product":
        return a_product((m, -int(rng.integers(3, 12) if usual else rng.integers(1, 32))), zeros, limits)
    shift_y = -int(rng.integers(0, 6) if usual else rng.integers(0, 32))
    shift = -int(rng.integers(17, 21) if usual else rng.integers(1, 32))
    return a_sum((m_y, shift_y), (m, shift), zeros, limits)


# -- the tiles ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("lanes", "permutes"), WAYS)
def test_lookup_of_every_value_and_count(lanes: int, permutes: bool) -> None:
    rng = np.random.default_rng(0)
    tables = rng.permuted(np.tile(np.arange(256, dtype=np.uint8), (2, 1)), axis=1)
    every = np.concatenate([np.arange(256), rng.permutation(256)]).astype(np.uint8)
    for count in (*range(71), 127, 128, 129, 512):
        x = every[512 - count :]
        out = np.full(count + 9, 77, np.uint8)
        looker(lanes, permutes)(every, 512 - count, tables.reshape(-1), 256, out, 4, count)
        expected = np.concatenate([[77] * 4, tables[1][x], [77] * 5])
        assert np.array_equal(out, expected), count


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("kind", TILES)
def test_all_pairs_of_values(kind: str, dtype: str) -> None:
    if not WIDTHS:
        pytest.skip("no vector instructions that the tiles need")
    low, high = LIMITS[dtype]
    middle = (low + high + 1) // 2
    x, y = all_pairs(dtype)
    if kind == "sum":
        steps: list[Any] = [
            a_sum((HALF, 0), (HALF, -18), (middle, middle, middle), (low, high)),  # ties at each odd sum
            a_sum((1234567891, -3), (1987654321, -19), (low, high, middle + 3), (low, high)),
        ]
    else:
        steps = [
            a_product((HALF, -5), (middle, middle, middle), (low, high)),  # ties of a shift by 6 bits
            a_product((1987654321, -7), (middle + 3, low, middle - 8), (middle - 8, high - 20)),
        ]
    for p in steps:
        expected = of_reference(x, y, p)
        assert len(np.unique(expected)) > 50
        for lanes in WIDTHS:
            found = of_tile(x, y, p, lanes)
            wrong = np.flatnonzero(found != expected)
            assert not len(wrong), (p, lanes, x[wrong[:3]], y[wrong[:3]], found[wrong[:3]], expected[wrong[:3]])


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("kind", TILES)
@pytest.mark.parametrize("lanes", WIDTHS)
def test_many_parameters(lanes: int, kind: str, dtype: str) -> None:
    """Every value of x and of y, with every shift: 100 sets of parameters."""
    rng = np.random.default_rng(1)
    for _ in range(100):
        p = some_parameters(rng, kind, dtype)
        x, y = (rng.permutation(256).astype(np.uint8).view(dtype) for _ in range(2))
        found, expected = of_tile(x, y, p, lanes), of_reference(x, y, p)
        assert np.array_equal(found, expected), (p, np.flatnonzero(found != expected)[:5])


@functools.cache
def unit(lanes: int) -> Callable[..., None]:
    """elementwise_s8.Unit of `lanes` pairs of int16 at a time, callable from Python; its results as it orders them."""

    @generated
    def inner(builder, kinds, v, at, multiplier, shift, out):  # type: ignore[no-untyped-def]
        values = load(builder, builder.gep(v, [at]), INT16, 2 * lanes)
        for i, result in enumerate(Unit(builder, multiplier, shift, lanes)(builder, values)):
            store(builder, result, builder.gep(out, [builder.add(at, at.type(i * lanes))]))

    def run(v, multiplier, shift, out):  # type: ignore[no-untyped-def]
        for at in range(0, v.shape[0], 2 * lanes):
            inner(v, at, multiplier, shift, out)

    return compiled(run, lanes, "unit")


@pytest.mark.parametrize("lanes", WIDTHS)
def test_every_value_of_a_unit(lanes: int) -> None:
    """All bits of the scaled operand, of every difference of two bytes, for every shift."""
    rng = np.random.default_rng(6)
    v = np.arange(-256, 256).astype(np.int16)
    v[0] = 0  # |v| <= 255
    # The lower four of each eight values come first, then the upper four.
    order = np.arange(512).reshape(-1, lanes // 4, 2, 4).transpose(0, 2, 1, 3).ravel()
    out = np.zeros(512, np.int32)
    for shift in range(-31, 1):
        for multiplier in (0, *MULTIPLIERS, *rng.integers(HALF, 2**31, 2).tolist()):
            unit(lanes)(v, multiplier, shift, out)
            expected = [common_unit(int(value), multiplier, shift, Rounding.DOUBLE) for value in v[order]]
            assert out.tolist() == expected, (multiplier, shift)


@pytest.mark.parametrize("kind", TILES)
@pytest.mark.parametrize("lanes", WIDTHS)
def test_every_count_and_in_place(lanes: int, kind: str) -> None:
    rng = np.random.default_rng(2)
    p = some_parameters(rng, kind, "int8")._replace(shift=-18 if kind == "sum" else -6, low=-128, high=127)
    x, y = (random_bytes(rng, 150, "int8") for _ in range(2))
    expected = of_reference(x, y, p)
    for count in (*range(71), 127, 128, 129, 150):
        assert np.array_equal(of_tile(x[:count], y[:count], p, lanes), expected[:count]), count
        for over_x in (True, False):
            a, b = x[:count].copy(), y[:count].copy()
            out = a if over_x else b
            head = (p.zero_x, p.zero_y, p.multiplier_y, p.shift_y) if isinstance(p, Sum) else (p.zero_x, p.zero_y)
            scalars = (*head, p.multiplier, p.shift, p.zero_point, p.low, p.high)
            tile(kind, lanes)(a, 0, b, 0, scalars, out, 0, count)
            assert np.array_equal(out, expected[:count]), count


# -- the kernels around them, on any machine ---------------------------------------------------------------------------


@pytest.mark.parametrize("result", ["same", "float32"])
@pytest.mark.parametrize("dtype", LIMITS)
def test_lookup_with_two_tables(dtype: str, result: str) -> None:
    rng = np.random.default_rng(3)
    kind: Any = dtype if result == "same" else np.float32
    tables = rng.integers(*LIMITS[dtype], (2, 256)).astype(kind)
    for size in (*range(1, 70, 4), 4095, 4096, 4097, 9000):
        x = random_bytes(rng, (2, size), dtype)
        entry = x.view(np.uint8)
        for split in {0, 1, size // 3, size - 1, size, size + 5}:
            out = np.zeros(x.shape, kind)
            lookup_q(x, tables, VectorRule(0, 1, INT32_MAX, split), out)
            expected = np.where(np.arange(size) < split, tables[0][entry], tables[1][entry])
            assert np.array_equal(out, expected), (size, split)


def broadcasts(rng: np.random.Generator, dtype: str) -> list[tuple[Array, Array]]:
    """Full operands, gates and single values, first or second, of one image or of each."""
    pairs = []
    for shape in ((1, 2, 3, 5), (3, 4, 1, 72), (2, 3, 5, 17)):
        n, _, _, c = shape
        for other in (shape, (1, 1, 1, c), (n, 1, 1, c), (1, 1, 1, 1), (1, 1, shape[2], c)):
            operands = random_bytes(rng, shape, dtype), random_bytes(rng, other, dtype)
            pairs += [operands, operands[::-1]]
    return pairs


@pytest.mark.parametrize("dtype", LIMITS)
def test_sums_by_every_way(dtype: str) -> None:
    """Either operand of the greater scale; what the tile doesn't take: sign, factors, zero points of unsound files."""
    rng, limits = np.random.default_rng(4), LIMITS[dtype]
    usual = a_sum((1234567891, -1), (1987654321, -18), (limits[0] + 3, limits[1] - 9, 40), limits)
    swapped = a_sum((HALF, 0), (1987654321, -18), (limits[0] + 3, limits[1] - 9, 40), limits, (1234567891, -1))
    ways = [usual, swapped, usual._replace(multiplier_x=HALF + 1), usual._replace(sign=-1), usual._replace(zero_x=300),
            usual._replace(shift=0), usual._replace(rule=IN_RUNS), usual._replace(multiplier=0, shift=0)]  # fmt: skip
    for x, y in broadcasts(rng, dtype):
        shape = tuple(max(a, b) for a, b in zip(x.shape, y.shape, strict=True))
        for p in ways:
            out = np.zeros(shape, dtype)
            add_q(x, y, p, out)
            whole_x, whole_y = np.broadcast_to(x, shape), np.broadcast_to(y, shape)
            assert np.array_equal(out, of_reference(whole_x, whole_y, p)), (x.shape, y.shape, p)


@pytest.mark.parametrize("dtype", LIMITS)
def test_products_by_every_way(dtype: str) -> None:
    rng, limits = np.random.default_rng(5), LIMITS[dtype]
    usual = a_product((1987654321, -6), (limits[0] + 3, limits[1] - 9, 40), limits)
    ways = [usual, usual._replace(shift=-1), usual._replace(shift=0), usual._replace(shift=3),
            usual._replace(zero_y=-200), usual._replace(rule=IN_RUNS)]  # fmt: skip
    for x, y in broadcasts(rng, dtype):
        shape = tuple(max(a, b) for a, b in zip(x.shape, y.shape, strict=True))
        for p in ways:
            out = np.zeros(shape, dtype)
            mul_q(x, y, p, out)
            whole_x, whole_y = np.broadcast_to(x, shape), np.broadcast_to(y, shape)
            assert np.array_equal(out, of_reference(whole_x, whole_y, p)), (x.shape, y.shape, p)
