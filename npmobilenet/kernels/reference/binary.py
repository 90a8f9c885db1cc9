"""Addition, subtraction and multiplication of two tensors, with broadcast."""

from __future__ import annotations

from npmobilenet.kernels.reference.activation import activate


def add_f32(x, y, activation, out):
    """out = act(x + y): the residual connection.

    x, y: rank 4 float32, each dimension equal to out's or 1 (then repeated). activation: code. out: (N, H, W, C).
    """
    for n in range(out.shape[0]):
        for oy in range(out.shape[1]):
            for ox in range(out.shape[2]):
                for c in range(out.shape[3]):
                    a = x[n % x.shape[0], oy % x.shape[1], ox % x.shape[2], c % x.shape[3]]
                    b = y[n % y.shape[0], oy % y.shape[1], ox % y.shape[2], c % y.shape[3]]
                    out[n, oy, ox, c] = activate(a + b, activation)


def sub_f32(x, y, activation, out):
    """out = act(x - y); shapes as in add_f32."""
    for n in range(out.shape[0]):
        for oy in range(out.shape[1]):
            for ox in range(out.shape[2]):
                for c in range(out.shape[3]):
                    a = x[n % x.shape[0], oy % x.shape[1], ox % x.shape[2], c % x.shape[3]]
                    b = y[n % y.shape[0], oy % y.shape[1], ox % y.shape[2], c % y.shape[3]]
                    out[n, oy, ox, c] = activate(a - b, activation)


def mul_f32(x, y, activation, out):
    """out = act(x * y); shapes as in add_f32. Squeeze-excite's gate is (N, 1, 1, C)."""
    for n in range(out.shape[0]):
        for oy in range(out.shape[1]):
            for ox in range(out.shape[2]):
                for c in range(out.shape[3]):
                    a = x[n % x.shape[0], oy % x.shape[1], ox % x.shape[2], c % x.shape[3]]
                    b = y[n % y.shape[0], oy % y.shape[1], ox % y.shape[2], c % y.shape[3]]
                    out[n, oy, ox, c] = activate(a * b, activation)
