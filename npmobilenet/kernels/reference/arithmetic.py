"""Float32 arithmetic with one defined result: fused multiply-add and exp.

Plain Python and NumPy; `compiler/jit.py` gives Numba the same functions (there, `fma32` is the machine's instruction).
"""

from __future__ import annotations

import math
import struct

import numpy as np


def fma32(a: np.float32, b: np.float32, c: np.float32) -> np.float32:
    """a * b + c with one rounding to float32, to nearest even: IEEE 754's fusedMultiplyAdd.

    The product of two 24-bit significands has at most 48 bits, so it is exact in float64. The sum may not be: rounding
    it to float64 and then to float32 rounds twice. Where the sum was inexact it is therefore rounded to odd instead
    (toward the exact value's neighbour whose last bit is 1); 53 >= 24 + 2 bits make the second rounding correct
    (Boldo and Melquiond, "Emulation of a FMA and correctly rounded sums", IEEE Transactions on Computers 57, 2008).
    """
    product, addend = float(a) * float(b), float(c)
    total = product + addend
    if math.isfinite(total):
        # Knuth's two-sum: `error` is exactly what the addition dropped.
        shadow = total - product
        error = (product - (total - shadow)) + (addend - shadow)
        if error != 0.0:
            (bits,) = struct.unpack("<q", struct.pack("<d", total))
            if bits & 1 == 0:
                total = math.nextafter(total, math.inf if error > 0 else -math.inf)
    with np.errstate(over="ignore"):
        return np.float32(total)


LOG2_E = np.float32(1.4426950408889634)
# ln 2 in two parts: the first has 9 significant bits, so that k * LN2_HIGH is exact for |k| <= 2^15.
LN2_HIGH = np.float32(0.693359375)
LN2_LOW = np.float32(-2.12194440e-4)
EXP_MAX = np.float32(88.72283)  # the largest float32 whose exp is finite
EXP_MIN = np.float32(-87.33654)  # the least float32 whose exp is a normal number
# 1 / k! for k = 7 ... 0
EXP_C7, EXP_C6, EXP_C5, EXP_C4 = (np.float32(1 / math.factorial(k)) for k in (7, 6, 5, 4))
EXP_C3, EXP_C2, ONE = np.float32(1 / 6), np.float32(0.5), np.float32(1)
HALF = np.float32(0.5)
POWERS_OF_TWO = np.array([2.0**k for k in range(-64, 66)], np.float32)  # index k + 64


def exp32(x: np.float32) -> np.float32:
    """e^x in float32: within 1 ulp of the exact value; +inf above EXP_MAX; 0 below EXP_MIN (no subnormal results).

    x = k ln 2 + r with integer k and |r| <= 0.3466; e^r is its Taylor polynomial of degree 7, whose truncation error
    r^8 / 8! < 5.2e-9 is a twelfth of half an ulp; then a multiplication by 2^k, in two steps because 2^128 is not a
    float32. libm and NumPy are not used: they differ from machine to machine and from each other.
    """
    if np.isnan(x):  # which is no whole number of powers
        return x
    if x > EXP_MAX:
        return np.float32(np.inf)
    if x < EXP_MIN:
        return np.float32(0)
    k = np.floor(fma32(x, LOG2_E, HALF))
    r = fma32(-k, LN2_LOW, fma32(-k, LN2_HIGH, x))
    p = fma32(EXP_C7, r, EXP_C6)
    p = fma32(p, r, EXP_C5)
    p = fma32(p, r, EXP_C4)
    p = fma32(p, r, EXP_C3)
    p = fma32(p, r, EXP_C2)
    p = fma32(p, r, ONE)
    p = fma32(p, r, ONE)
    n = int(k)
    low = n >> 1
    return p * POWERS_OF_TWO[low + 64] * POWERS_OF_TWO[n - low + 64]
