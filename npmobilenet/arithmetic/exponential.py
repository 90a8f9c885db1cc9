"""The exponential functions that runtimes fill their tables with: one float32 or float64 at a time, while planning."""

from __future__ import annotations

import math
from decimal import Context, Decimal

import numpy as np

_STEPS = 32


def _powers() -> tuple[float, ...]:
    """2^(i/32), correctly rounded: the 32nd root of 2^i with 120 bits, as five square roots, each floored."""
    found = []
    for i in range(_STEPS):
        root = 2**i << (_STEPS * 120)
        for _ in range(5):
            root = math.isqrt(root)
        found.append(root / 2**120)  # a division of Python's integers is correctly rounded
    return tuple(found)


_POWERS = _powers()
# log2(e) * 32, and the coefficients of 2^(r/32) - 1 for |r| <= 1/2, a minimax polynomial of degree 3.
_INVERSE = float.fromhex("0x1.71547652b82fep+5")
_C3 = float.fromhex("0x1.c6af84b912394p-20")
_C2 = float.fromhex("0x1.ebfce50fac4f3p-13")
_C1 = float.fromhex("0x1.62e42ff0c52d6p-6")


def exp_float32(x: np.float32) -> np.float32:
    """C's expf for x <= 88, as glibc 2.28 and later, musl and bionic compute it, which TFLite's kernels call.

    e^x = 2^(k/32) * 2^(r/32) for k the integer nearest to x * log2(e) * 32: in float64, rounded to float32 at the end.
    That is the nearest float32 in all but 0.06 % of cases. The float64 steps are within 2^-48 or so of the exact value,
    so that a libm that fuses multiplications and additions gives another float32 about once in 2^24 values.

    Source: Arm, optimized-routines, math/expf.c and math/exp2f_data.c (glibc: sysdeps/ieee754/flt-32/e_expf.c).
    """
    if x < np.float32(-103.97208):  # below half of the least float32
        return np.float32(0)
    z = _INVERSE * float(x)
    k = round(z)  # half to even
    r = z - k
    scale = math.ldexp(_POWERS[k % _STEPS], k // _STEPS)
    polynomial = (_C3 * r + _C2) * (r * r) + (_C1 * r + 1.0)
    return np.float32(polynomial * scale)


def exp_float64(x: float) -> float:
    """C's exp for |x| <= 700, correctly rounded; a libm is within 0.51 to 1 units in the last place of that."""
    return float(Decimal(x).exp(Context(prec=40)))
