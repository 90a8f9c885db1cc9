"""Every rounding step against exact integers and fractions, compiled and in plain Python."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from npmobilenet.arithmetic import fixedpoint as fp
from npmobilenet.kernels.compiler.jit import compile_kernel

Oracle = Callable[..., int]
LOW, HIGH = fp.INT32_MIN, fp.INT32_MAX
EDGES = [LOW, LOW + 1, -(2**30) - 1, -(2**30), -(2**24) - 1, -3, -2, -1, 0, 1, 2, 3, 2**24 + 1, 2**30, HIGH - 1, HIGH]

# -- the oracles: exact, and written differently from what they judge --------------------------------------------------


def away(v: Fraction) -> int:
    """To nearest, ties away from zero."""
    return math.floor(abs(v) + Fraction(1, 2)) * (1 if v >= 0 else -1)


def upward(v: Fraction) -> int:
    """To nearest, ties upward."""
    return math.floor(v + Fraction(1, 2))


def even(v: Fraction) -> int:
    """To nearest, ties to even: Python's own rule for fractions."""
    return round(v)


def wrap(v: int) -> int:
    """What int32 keeps of v, through its four bytes."""
    return int.from_bytes((v % 2**32).to_bytes(4, "little"), "little", signed=True)


def high(a: int, b: int) -> int:
    return min(upward(Fraction(a * b, 2**31)), HIGH)


def double(acc: int, multiplier: int, shift: int) -> int:
    return away(Fraction(high(wrap(acc << max(shift, 0)), multiplier), 2 ** max(-shift, 0)))


def upward_twice(acc: int, multiplier: int, shift: int) -> int:
    return upward(Fraction(high(wrap(acc << max(shift, 0)), multiplier), 2 ** max(-shift, 0)))


def once(acc: int, multiplier: int, shift: int) -> int:
    return wrap(upward(Fraction(acc * multiplier) * Fraction(2) ** (shift - 31)))


def float32(v: Fraction) -> Fraction:
    """The nearest float32 (ties to even) of a fraction in the normal range, exactly."""
    if v == 0:
        return v
    exponent = math.floor(math.log2(abs(v)))
    exponent += (abs(v) >= Fraction(2) ** (exponent + 1)) - (abs(v) < Fraction(2) ** exponent)
    ulp = Fraction(2) ** (exponent - 23)
    return even(v / ulp) * ulp


def in_float32(acc: int, scale: float) -> int:
    product = float32(float32(Fraction(acc)) * Fraction(float(np.float32(scale))))
    return min(max(even(product), -(2**30)), 2**30)


def in_float64(acc: int, scale: float) -> int:
    v = away(Fraction(float(Fraction(acc) * Fraction(scale))))  # float() of a fraction rounds once, to nearest even
    return v if LOW <= v <= HIGH else LOW


def clamped(v: int, bits: int) -> int:
    return min(max(v, -(2 ** (bits - 1))), 2 ** (bits - 1) - 1)


def late(acc: int, multiplier: int, shift: int) -> int:
    """The product rounded to an integer; then the power of two, rounded upward or saturated."""
    high = once(acc, multiplier, 0)
    return clamped(math.floor(high * Fraction(2) ** shift + Fraction(1, 2)), 32)


def in_16_bits(acc: int, multiplier: int, shift: int) -> int:
    """The power of two first, to 16 bits; then 15 bits of the multiplier."""
    wide = clamped(math.floor(acc * Fraction(2) ** shift + Fraction(1, 2)), 16)
    return math.floor(Fraction(wide * (multiplier >> 16), 2**15) + Fraction(1, 2))


# -- running a function over many arguments, compiled or not -----------------------------------------------------------


@compile_kernel
def _unary(function: Any, a: Any, out: Any) -> None:
    for i in range(len(a)):
        out[i] = function(a[i])


@compile_kernel
def _binary(function: Any, a: Any, b: Any, out: Any) -> None:
    for i in range(len(a)):
        out[i] = function(a[i], b[i])


@compile_kernel
def _ternary(function: Any, a: Any, b: Any, c: Any, out: Any) -> None:
    for i in range(len(a)):
        out[i] = function(a[i], b[i], c[i])


dispatcher = functools.cache(compile_kernel)


def compiled(function: Callable[..., Any], columns: list[Any]) -> list[int]:
    out = np.empty(len(columns[0]), np.int64)
    loop = (_unary, _binary, _ternary)[len(columns) - 1]
    loop(dispatcher(function), *columns, out)
    return [int(v) for v in out]


def check(function: Callable[..., Any], oracle: Oracle, cases: Iterable[tuple[Any, ...]], *dtypes: str) -> None:
    """The function compiled (on arrays of `dtypes`), and in plain Python (on NumPy's scalars and on Python's)."""
    rows = list(cases)
    columns = [np.array(column, dtype) for column, dtype in zip(zip(*rows, strict=True), dtypes, strict=True)]
    expected = [oracle(*row) for row in rows]
    assert compiled(function, columns) == expected
    step = max(1, len(rows) // 4000)  # plain Python takes some microseconds for each
    for i in range(0, len(rows), step):
        assert int(function(*rows[i])) == expected[i], rows[i]
        assert int(function(*(column[i] for column in columns))) == expected[i], rows[i]


# -- multipliers -------------------------------------------------------------------------------------------------------


def factors() -> Iterator[float]:
    rng = np.random.default_rng(0)
    yield from (2.0 ** rng.uniform(-40, 30, 3000)).tolist()
    for exponent in range(-40, 31):
        for nudge in (-(2.0**-52), -(2.0**-33), -(2.0**-32), -(2.0**-31), 0.0, 2.0**-52, 2.0**-32, 2.0**-31):
            yield 2.0**exponent * (1 + nudge)
    for significand in rng.integers(2**30, 2**31, 300).tolist():  # halves of the last bit: round goes away from zero
        yield (significand + 0.5) * 2.0**-40


def test_multipliers_are_the_nearest() -> None:
    for real in factors():
        multiplier, shift = fp.quantize_multiplier(real)
        if real < 2.0**-32 * (1 - 2.0**-32):
            assert (multiplier, shift) == (0, 0), real
            continue
        assert 2**30 <= multiplier < 2**31
        assert shift >= -31
        unit = Fraction(2) ** (shift - 31)
        error = multiplier * unit - Fraction(real)
        assert -unit / 2 < error <= unit / 2, real


def test_the_least_and_no_multiplier() -> None:
    assert fp.quantize_multiplier(0.0) == (0, 0)
    assert fp.quantize_multiplier(2.0**-32) == (2**30, -31)
    assert fp.quantize_multiplier(np.nextafter(2.0**-32, 0)) == (2**30, -31), "rounds up to it"
    assert fp.quantize_multiplier(2.0**-33) == (0, 0)
    assert fp.quantize_multiplier(1.0) == (2**30, 1)
    assert fp.quantize_multiplier(1 - 2.0**-53) == (2**30, 1), "2^31 doesn't fit"


# -- single steps ------------------------------------------------------------------------------------------------------


def test_wrapping_and_saturating() -> None:
    rng = np.random.default_rng(1)
    values = [v + d for v in (LOW, 0, HIGH, 2**32, -(2**32), 3 * 2**31, 2**40, -(2**62)) for d in (-2, -1, 0, 1, 2)]
    values += rng.integers(-(2**62), 2**62, 5000).tolist()
    check(fp.wrap32, wrap, ((v,) for v in values), "int64")
    check(fp.saturate32, lambda v: max(LOW, min(HIGH, v)), ((v,) for v in values), "int64")


def test_high_mul() -> None:
    """Extremes; factors of 2^16, 2^30 and 2^31 - 1, whose products hit ties; and 20,000 at random."""
    rng = np.random.default_rng(2)
    pairs = [(a, b) for a in EDGES for b in EDGES]
    pairs += [(a, 2**b) for a in range(-65600, 65600, 41) for b in (14, 15, 16, 30)]
    pairs += [(k * 2**15 + d, 2**15) for k in range(-40, 40) for d in (-1, 0, 1)]
    pairs += zip(rng.integers(LOW, HIGH, 20000).tolist(), rng.integers(LOW, HIGH, 20000).tolist(), strict=True)
    check(fp.high_mul, high, pairs, "int32", "int32")


def shifted_values() -> Iterator[tuple[int, int]]:
    """For each shift: every int16, and around every kind of tie up to the ends of int32."""
    for s in range(32):
        half = 2**s // 2
        ties = {k * 2**s + half + d for k in (-3, -2, -1, 0, 1, 2, 3) for d in (-1, 0, 1)}
        ends = {LOW + k * 2**s + half + d for k in (0, 1) for d in (-1, 0, 1)}
        ends |= {HIGH - k * 2**s - half + d for k in (0, 1) for d in (-1, 0, 1)}
        yield from ((v, s) for v in {*ties, *ends, *EDGES} if LOW <= v <= HIGH)


@pytest.mark.parametrize(("step", "nearest"), [(fp.shift_away, away), (fp.shift_upward, upward)])
def test_shifts(step: Callable[..., Any], nearest: Callable[[Fraction], int]) -> None:
    check(step, lambda v, s: nearest(Fraction(v, 2**s)), shifted_values(), "int32", "int32")


@pytest.mark.parametrize("step", [fp.shift_away, fp.shift_upward])
def test_shifts_of_every_int16(step: Callable[..., Any]) -> None:
    """All 2^16 values by all shifts up to 16; the expected by integer division of doubled values."""
    v = np.arange(-(2**15), 2**15, dtype=np.int32)
    for s in range(17):
        doubled = 2 * v.astype(np.int64) + 2**s  # v / 2^s + 1/2 in units of 2^(s + 1)
        expected = doubled // 2 ** (s + 1)
        if step is fp.shift_away:
            expected -= (doubled % 2 ** (s + 1) == 0) & (v < 0)  # a tie went up; away from zero is down, s = 0 has none
        assert compiled(step, [v, np.full(len(v), s, np.int32)]) == expected.tolist()


def test_round_away() -> None:
    rng = np.random.default_rng(3)
    values = [k + h for k in range(-300, 300) for h in (0.0, 0.5, 0.25)]
    values += [np.nextafter(k + 0.5, d) for k in (-300.0, -2.0, -1.0, 0.0, 1.0, 300.0) for d in (-1e9, 1e9)]
    values += [2.0**51 - 0.5, -(2.0**51) + 0.5, 2.0**52 + 1, -0.0, *rng.uniform(-(2.0**31), 2.0**31, 5000)]
    check(fp.round_away, lambda v: away(Fraction(v)), ((float(v),) for v in values), "float64")


# -- whole rules -------------------------------------------------------------------------------------------------------


def products() -> Iterator[tuple[int, int, int]]:
    """Accumulators, multipliers and shifts: extremes, ties (multiplier 2^30), and layers as they occur."""
    rng = np.random.default_rng(4)
    yield from ((a, m, s) for a in EDGES for m in (0, 2**30, 2**30 + 1, HIGH) for s in (-31, -8, -1, 0, 1, 8, 30))
    for s in range(-16, 3):
        yield from ((k * 2 ** max(-s, 0) + d, 2**30, s) for k in range(-9, 10) for d in (-1, 0, 1))
    for _ in range(8000):
        shift = int(rng.integers(-31, 31))
        acc = int(rng.integers(LOW, HIGH)) >> int(rng.integers(0, 24))
        yield acc, int(rng.integers(2**30, 2**31)), shift


@pytest.mark.parametrize(
    ("rule", "oracle"),
    [
        (fp.double_rounding, double),
        (fp.upward_rounding, upward_twice),
        (fp.single_rounding, once),
        (fp.upward_late_rounding, late),
        (fp.rndnu16_rounding, in_16_bits),
    ],
)
def test_fixed_point_rules(rule: Callable[..., Any], oracle: Oracle) -> None:
    check(rule, oracle, products(), "int32", "int32", "int32")


def scaled() -> Iterator[tuple[int, float]]:
    rng = np.random.default_rng(5)
    for exponent in range(-16, 9):
        yield from ((a, 2.0**exponent) for a in EDGES)
        yield from ((int((k + 0.5) / 2.0**exponent), 2.0**exponent) for k in range(-9, 9))
    for _ in range(8000):
        scale = float(np.float32(2.0 ** rng.uniform(-30, 8)))
        target = int(rng.integers(-600, 600)) / 2  # at ties as often as not
        yield max(LOW, min(HIGH, round(target / scale) + int(rng.integers(-1, 2)))), scale


@pytest.mark.parametrize(("rule", "oracle"), [(fp.float32_rounding, in_float32), (fp.float64_rounding, in_float64)])
def test_floating_point_rules(rule: Callable[..., Any], oracle: Oracle) -> None:
    check(rule, oracle, scaled(), "int32", "float64")


def test_float64_beyond_int32() -> None:
    """x86's conversion gives INT32_MIN for what is no int32: as LiteRT's reference fully connected kernel does."""
    cases = [(HIGH, 1.0), (HIGH, 1.0 + 2.0**-31), (HIGH, 2.0), (LOW, 1.0), (LOW, 1.5), (-5, 1e30), (2**30, 2.0)]
    check(fp.float64_rounding, in_float64, cases, "int32", "float64")


ORACLES: dict[str, Callable[[int, int, int, float], int]] = {
    "none": lambda acc, m, s, f: acc,
    "double": lambda acc, m, s, f: double(acc, m, s),
    "upward": lambda acc, m, s, f: upward_twice(acc, m, s),
    "single": lambda acc, m, s, f: once(acc, m, s),
    "float32": lambda acc, m, s, f: in_float32(acc, f),
    "float64": lambda acc, m, s, f: in_float64(acc, f),
    "upward_late": lambda acc, m, s, f: late(acc, m, s),
    "rndnu16": lambda acc, m, s, f: in_16_bits(acc, m, s),
}


@compile_kernel
def _requantized(acc: Any, step: Any, out: Any) -> None:
    for c in range(len(acc)):
        out[c] = fp.requantized(acc[c], c, step)


@pytest.mark.parametrize("name", fp.REQUANTIZATIONS)
@pytest.mark.parametrize("tail", [fp.INT32_MAX, 300, 0])
def test_requantized(name: str, tail: int) -> None:
    """The rule, `double` from `tail` on, the zero point, the clamp; a sum beyond int32 wraps."""
    assert set(ORACLES) == set(fp.REQUANTIZATIONS)
    rng = np.random.default_rng(6)
    scale = 2.0 ** rng.uniform(-20, 4, 600)
    fixed = [fp.quantize_multiplier(f) for f in scale]
    acc = np.where(rng.random(600) < 0.9, rng.uniform(-400, 400, 600) / scale, rng.integers(LOW, HIGH, 600))
    acc = np.clip(acc, LOW, HIGH).astype(np.int32)
    multiplier, shift = (np.array(v, np.int32) for v in zip(*fixed, strict=True))
    for zero_point, low, top in ((3, -128, 127), (-128, -128, 127), (200, 200, 255), (0, LOW, HIGH), (255, LOW, HIGH)):
        where = fp.VectorRule(fp.rounding(name), fp.Rounding.DOUBLE, fp.INT32_MAX, tail)
        step = fp.Requantization(multiplier, shift, scale, where, zero_point, low, top)
        expected = []
        for c in range(600):
            rule = ORACLES[name if c < tail else "double"]
            v = wrap(rule(int(acc[c]), fixed[c][0], fixed[c][1], float(scale[c])) + zero_point)
            expected.append(max(low, min(top, v)))
        out = np.empty(600, np.int64)
        _requantized(acc, step, out)
        assert out.tolist() == expected
        assert [int(fp.requantized(acc[c], c, step)) for c in range(0, 600, 7)] == expected[::7]


def test_the_rules_differ() -> None:
    """What the tests above could not tell apart would prove nothing: each pair of rules parts somewhere."""
    cases = [(acc, 2**30, -3, 2.0**-4) for acc in range(-200, 200)]  # factor 1/16: ties
    cases += [(acc, 1518500250, -7, 1518500250 / 2**38) for acc in range(-200000, 200000, 97)]
    cases += [(acc, 1518500250, 2, 1518500250 / 2**29) for acc in range(-20, 20)]  # one bit before and three behind
    cases += [(2**24 + acc, 2**30, 1, 1.0) for acc in range(20)]  # more than float32's 24 bits
    names = [n for n in fp.REQUANTIZATIONS if n != "none"]
    results = {n: [ORACLES[n](*case) for case in cases] for n in names}
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            assert results[one] != results[other], (one, other)
