"""The smaller and the greater of two values, with broadcast. 8-bit operands and result share scale and zero point."""

from __future__ import annotations


def minimum_of(x, y, out):
    """out = x where x < y, else y: of two values one of which is a NaN, the second.

    x, y: rank 4, each dimension equal to out's or 1 (then repeated). out: (N, H, W, C) of the same dtype.
    """
    for n in range(out.shape[0]):
        for oy in range(out.shape[1]):
            for ox in range(out.shape[2]):
                for c in range(out.shape[3]):
                    a = x[n % x.shape[0], oy % x.shape[1], ox % x.shape[2], c % x.shape[3]]
                    b = y[n % y.shape[0], oy % y.shape[1], ox % y.shape[2], c % y.shape[3]]
                    out[n, oy, ox, c] = a if a < b else b


def maximum_of(x, y, out):
    """out = x where x > y, else y; as minimum_of."""
    for n in range(out.shape[0]):
        for oy in range(out.shape[1]):
            for ox in range(out.shape[2]):
                for c in range(out.shape[3]):
                    a = x[n % x.shape[0], oy % x.shape[1], ox % x.shape[2], c % x.shape[3]]
                    b = y[n % y.shape[0], oy % y.shape[1], ox % y.shape[2], c % y.shape[3]]
                    out[n, oy, ox, c] = a if a > b else b


def minimum_f32(x, y, out):
    """As minimum_of, of float32."""
    minimum_of(x, y, out)


def minimum_q(x, y, out):
    """As minimum_of, of uint8 or int8."""
    minimum_of(x, y, out)


def maximum_f32(x, y, out):
    """As maximum_of, of float32."""
    maximum_of(x, y, out)


def maximum_q(x, y, out):
    """As maximum_of, of uint8 or int8."""
    maximum_of(x, y, out)
