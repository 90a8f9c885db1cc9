"""Fast twins of reference/binary.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
from numba.extending import register_jitable

from npmobilenet.kernels.fast.activation import CHUNK, activate_all
from npmobilenet.kernels.jit import compile_kernel
from npmobilenet.kernels.reference import binary as book


@register_jitable
def _add(a, b):
    return a + b


@register_jitable
def _sub(a, b):
    return a - b


@register_jitable
def _mul(a, b):
    return a * b


def _fast(function: Callable[..., Any], general: Callable[..., Any], name: str) -> Callable[..., None]:
    """The kernel for one binary function. Moves: flat vectorized chunks where both shapes are out's; a row of channels
    at a time where y has one pixel (squeeze-excite's gate, a bias); the book's loops for any other broadcast.
    """
    register_jitable(general)

    def kernel(x, y, activation, out):
        batch, height, width, channels = out.shape
        if x.shape == out.shape and y.shape == out.shape:
            flat_x, flat_y, flat_out = x.reshape(-1), y.reshape(-1), out.reshape(-1)
            size = flat_out.shape[0]
            for chunk in numba.prange(-(-size // CHUNK)):
                first = chunk * CHUNK
                count = min(CHUNK, size - first)
                for i in range(first, first + count):
                    flat_out[i] = function(flat_x[i], flat_y[i])
                activate_all(flat_out, first, count, activation)
        elif x.shape == out.shape and y.shape[1] == 1 and y.shape[2] == 1 and y.shape[3] == channels:
            flat_out = out.reshape(-1)
            for row in numba.prange(batch * height):
                n, oy = row // height, row % height
                for ox in range(width):
                    for c in range(channels):
                        out[n, oy, ox, c] = function(x[n, oy, ox, c], y[n % y.shape[0], 0, 0, c])
                activate_all(flat_out, row * width * channels, width * channels, activation)
        else:
            general(x, y, activation, out)

    # Numba names cache files after the function: one name each.
    kernel.__name__ = kernel.__qualname__ = name
    return compile_kernel(kernel, parallel=True)


add_f32 = _fast(_add, book.add_f32, "add_f32")
sub_f32 = _fast(_sub, book.sub_f32, "sub_f32")
mul_f32 = _fast(_mul, book.mul_f32, "mul_f32")
