"""Functions of one value that no other kernel fuses. Of 8 bits they are tables (arithmetic/unary.py).

No function of libm is used (see `exp32`), and what subtracts nearly equal numbers has a form that doesn't.
"""

from __future__ import annotations

import math

import numpy as np

from npmobilenet.kernels.reference.arithmetic import exp32

ZERO, ONE, TWO, HALF = np.float32(0), np.float32(1), np.float32(2), np.float32(0.5)
NAN, INFINITY, SMALL = np.float32(np.nan), np.float32(np.inf), np.float32(0.35)
# 1 / 2, 1 / 3, ... 1 / 9: Taylor's polynomial of expm1 in Horner's form.
INVERSE = np.array([1 / k for k in range(2, 10)], np.float32)
SELU_SCALE, SELU_ALPHA = np.float32(1.0507009873554805), np.float32(1.0507009873554805 * 1.6732632423543772)
GELU_INNER, GELU_CUBE = np.float32(math.sqrt(2 / math.pi)), np.float32(0.044715)
LN2, SQRT_HALF, TWO_OVER_SQRT_PI = math.log(2), math.sqrt(0.5), 2 / math.sqrt(math.pi)
MANTISSA, EXPONENT_OF_ONE = np.int64(2**52 - 1), np.int64(1023 * 2**52)


def expm1_32(v: np.float32) -> np.float32:
    """e^v - 1: the polynomial v (1 + v/2 (1 + v/3 (...))) for |v| < 0.35, whose rest is below 2.2e-11 v."""
    if not -SMALL < v < SMALL:
        return exp32(v) - ONE
    p = ONE
    for k in range(INVERSE.shape[0]):
        p = ONE + v * INVERSE[INVERSE.shape[0] - 1 - k] * p
    return v * p


def tanh_32(v: np.float32) -> np.float32:
    """-m / (2 + m) with m = e^(-2|v|) - 1, and v's sign."""
    m = expm1_32(-TWO * abs(v))
    t = -m / (TWO + m)
    return -t if v < ZERO else t


def log_64(v):
    """ln v for v > 0 in float64: v = 2^k m with m from sqrt(1/2) to sqrt(2), ln m = 2 (s + s^3/3 + ... + s^15/15).

    s = (m - 1) / (m + 1) is at most 0.1716, the rest below 2 s^17 / 17 = 1.2e-14.
    """
    bits = np.float64(v).view(np.int64)
    k = (bits >> np.int64(52)) - np.int64(1023)
    m = np.int64((bits & MANTISSA) | EXPONENT_OF_ONE).view(np.float64)
    if m > 2 * SQRT_HALF:
        k, m = k + 1, m * 0.5
    s = (m - 1.0) / (m + 1.0)
    total = 0.0
    for n in range(15, 0, -2):
        total = total * (s * s) + 1.0 / n
    return k * LN2 + 2.0 * s * total


def log_32(v: np.float32) -> np.float32:
    """ln v; -inf of 0, NaN below."""
    if v > ZERO:
        return v if v == INFINITY else np.float32(log_64(v))
    return -INFINITY if v == ZERO else NAN


def erf_64(z):
    """erf z in float64 by its power series z - z^3/3 + z^5/(2! 5) - ..., for |z| < 4; beyond, 1.6e-8 from +-1, that."""
    if not -4.0 < z < 4.0:
        return 1.0 if z > 0.0 else -1.0 if z < 0.0 else z
    power, total = z, z
    for n in range(1, 70):
        power = -power * (z * z) / n
        total = total + power / (2 * n + 1)
    return TWO_OVER_SQRT_PI * total


def gelu_32(v: np.float32) -> np.float32:
    """v / 2 * (1 + erf(v / sqrt 2)), in float64."""
    return np.float32(0.5 * np.float64(v) * (1.0 + erf_64(np.float64(v) * SQRT_HALF)))


def gelu_tanh_32(v: np.float32) -> np.float32:
    """v / 2 * (1 + tanh(sqrt(2 / pi) * (v + 0.044715 v^3)))."""
    return HALF * v * (ONE + tanh_32(GELU_INNER * (v + GELU_CUBE * v * v * v)))


def unary(v: np.float32, code: int) -> np.float32:
    """Function number `code` of `npmobilenet.ops.UNARY`; a NaN stays."""
    if np.isnan(v):
        return v
    if code == 0:
        return tanh_32(v)
    if code == 1:
        return expm1_32(v) if v < ZERO else v
    if code == 2:
        return SELU_ALPHA * expm1_32(v) if v < ZERO else SELU_SCALE * v
    if code == 3:
        return gelu_32(v)
    if code == 4:
        return gelu_tanh_32(v)
    if code == 5:
        return exp32(v)
    if code == 6:
        return log_32(v)
    if code == 7:
        return NAN if v < ZERO else np.sqrt(v)
    if code == 8:
        return (NAN if v < ZERO else INFINITY) if v <= ZERO else ONE / np.sqrt(v)
    if code == 9:
        return abs(v)
    return (v if v > ZERO else ZERO) + np.float32(log_64(ONE + exp32(-abs(v))))


def unary_f32(x, code, out):
    """out[i] = unary(x[i]).

    x, out: (elements,) float32. code: position in `npmobilenet.ops.UNARY`.
    """
    for i in range(x.shape[0]):
        out[i] = unary(x[i], code)
