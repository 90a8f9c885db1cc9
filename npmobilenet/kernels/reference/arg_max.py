"""Where the greatest value along an axis is."""

from __future__ import annotations


def first_greatest(x, out):
    """out[o,k] = the least i with x[o,i,k] greater than all before it and no less than any behind it.

    A NaN is never greater; one at i = 0 stays. x: (outer, length, inner) of any dtype. out: (outer, inner) int32 or
    int64.
    """
    for o in range(x.shape[0]):
        for k in range(x.shape[2]):
            best = 0
            for i in range(1, x.shape[1]):
                if x[o, i, k] > x[o, best, k]:
                    best = i
            out[o, k] = best


def arg_max_f32(x, out):
    """As first_greatest, of float32."""
    first_greatest(x, out)


def arg_max_q(x, out):
    """As first_greatest, of uint8 or int8."""
    first_greatest(x, out)
