"""Values in another order, or a part of them: a copy by strides. What transpose and slice nodes do."""

from __future__ import annotations


def strided_copy(x, offset, strides, out):
    """out[a,b,c,d] = x[offset + a * strides[0] + b * strides[1] + c * strides[2] + d * strides[3]].

    x: (elements,) of any dtype. offset, strides: numbers of elements. out: rank 4.
    """
    for a in range(out.shape[0]):
        for b in range(out.shape[1]):
            for c in range(out.shape[2]):
                first = offset + a * strides[0] + b * strides[1] + c * strides[2]
                for d in range(out.shape[3]):
                    out[a, b, c, d] = x[first + d * strides[3]]


def transpose_f32(x, offset, strides, out):
    """As strided_copy, of float32."""
    strided_copy(x, offset, strides, out)


def transpose_q(x, offset, strides, out):
    """As strided_copy, of uint8 or int8."""
    strided_copy(x, offset, strides, out)
