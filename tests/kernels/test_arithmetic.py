"""fma32 against exact rationals, exp32 against float64; the compiled forms against the plain ones."""

from __future__ import annotations

import math
from fractions import Fraction

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npmobilenet.kernels.compiler import jit
from npmobilenet.kernels.reference.arithmetic import EXP_MAX, EXP_MIN, exp32, fma32

F = np.float32
finite = st.integers(0, 2**32 - 1).map(lambda bits: np.uint32(bits).view(F)).filter(np.isfinite)
assert jit  # its import gives Numba the reference kernels' fma32 and exp32


@numba.njit(error_model="numpy")
def compiled_fma(a, b, c, out):  # type: ignore[no-untyped-def]
    for i in range(len(a)):
        out[i] = fma32(a[i], b[i], c[i])


@numba.njit(error_model="numpy")
def compiled_exp(x, out):  # type: ignore[no-untyped-def]
    for i in range(len(x)):
        out[i] = exp32(x[i])


def nearest(value: Fraction) -> F:
    """The float32 nearest to an exact value, ties to even, found without any floating-point rounding of ours."""
    if value == 0:
        return F(0)
    exponent = max(math.floor(math.log2(abs(value))) if abs(value) > Fraction(1, 2**200) else -149, -126)
    while Fraction(2) ** (exponent + 1) <= abs(value):
        exponent += 1
    while exponent > -126 and Fraction(2) ** exponent > abs(value):
        exponent -= 1
    unit = Fraction(2) ** (exponent - 23)
    whole = round(value / unit)  # Fraction.__round__ is half to even
    if abs(whole) * unit >= Fraction(2) ** 128:
        return F(math.copysign(math.inf, value))
    return F(float(whole * unit))


@given(finite, finite, finite, st.integers(-3, 3), st.sampled_from(["free", "cancel", "near"]))
@settings(derandomize=True, deadline=None, max_examples=3000)
@pytest.mark.equal("fma32", "plain Python", "the exact sum, rounded once", "bits")
def test_fma32_is_the_exact_sum_rounded_once(a: F, b: F, c: F, ulps: int, kind: str) -> None:
    product = float(a) * float(b)
    with np.errstate(over="ignore"):
        if kind == "cancel":  # the sum nearly vanishes
            c = F(-product * (1 + ulps * 2.0**-23))
        elif kind == "near":  # the product is about half an ulp of c: the double-rounding trap
            c = F(product * 2.0**24 * (1 + ulps * 2.0**-22))
    if not np.isfinite(c):
        return
    expected = nearest(Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c)))
    assert fma32(a, b, c) == expected


def test_double_rounding_is_real() -> None:
    """A case where rounding to float64 and then to float32 is wrong: the trap that fma32 avoids."""
    # a * b = 1 + 2^-22 + 2^-46 lies 2^-46 above the midpoint... of the float32 neighbours of c + it; 2^-30 c absorbs.
    a, b, c = F(1 + 2**-23), F(2**-24 * (1 + 2**-23)), F(1)
    exact = nearest(Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c)))
    assert fma32(a, b, c) == exact == F(1 + 2**-23)


@pytest.mark.equal("fma32", "compiled", "plain Python", "bits")
def test_compiled_fma_equals_plain() -> None:
    rng = np.random.default_rng(5)
    a, b, c = (rng.integers(0, 2**32, 20_000, dtype=np.uint64).astype(np.uint32).view(F) for _ in range(3))
    with np.errstate(all="ignore"):
        c[::2] = (a[::2].astype(float) * b[::2].astype(float) * -1).astype(F)
        keep = np.isfinite(a) & np.isfinite(b) & np.isfinite(c)
    a, b, c = a[keep], b[keep], c[keep]
    out = np.empty_like(a)
    compiled_fma(a, b, c, out)
    plain = np.array([fma32(*abc) for abc in zip(a, b, c, strict=True)], F)
    assert out.tobytes() == plain.tobytes()


@pytest.mark.equal("exp32", "compiled", "float64 exp", "1 ulp")
def test_exp32_is_within_one_ulp() -> None:
    """Every 1013th float32 of all 2^32: 4.2 million values."""
    x = np.arange(0, 2**32, 1013, dtype=np.uint64).astype(np.uint32).view(F)
    x = x[np.isfinite(x)]
    out = np.empty_like(x)
    compiled_exp(x, out)
    normal = (x <= EXP_MAX) & (x >= EXP_MIN)
    exact = np.exp(x[normal].astype(np.float64))
    assert float((np.abs(out[normal] - exact) / np.spacing(exact.astype(F))).max()) < 1.0
    assert np.isinf(out[x > EXP_MAX]).all()
    assert (out[x < EXP_MIN] == 0).all()
    assert out[x == 0].tolist() == [1.0] * int((x == 0).sum())


@pytest.mark.equal("exp32", "compiled", "plain Python", "bits")
def test_compiled_exp_equals_plain() -> None:
    x = np.linspace(-95, 95, 5_001, dtype=F)
    out = np.empty_like(x)
    compiled_exp(x, out)
    assert out.tobytes() == np.array([exp32(v) for v in x], F).tobytes()


def test_exp32_of_nan() -> None:
    """NaN, compiled and plain; as a whole number of powers it would be an index anywhere."""
    out = np.zeros(1, F)
    compiled_exp(np.full(1, np.nan, F), out)
    assert np.isnan([out[0], exp32(F(np.nan))]).all()
