"""Fast twin of reference/quantize_q.py."""

from __future__ import annotations

import numba
import numpy as np
from numba.extending import register_jitable

from npmobilenet.fixedpoint import clamped32
from npmobilenet.kernels.jit import compile_kernel
from npmobilenet.kernels.reference.quantize_q import quantized

CHUNK = 4096  # elements that a thread takes at a time


@register_jitable
def quantize_some(x, scale, rule, step, out):
    """A run of elements by one rule; one loop for each, so that each can be vectorized."""
    if rule == 0:
        for i in range(x.shape[0]):
            out[i] = np.int32(clamped32(quantized(x[i], scale, 0), step[0], step[1], step[2]))
    elif rule == 1:
        for i in range(x.shape[0]):
            out[i] = np.int32(clamped32(quantized(x[i], scale, 1), step[0], step[1], step[2]))
    else:
        for i in range(x.shape[0]):
            out[i] = np.int32(clamped32(quantized(x[i], scale, 2), step[0], step[1], step[2]))


def quantize_q(x, scale, rules, split, step, out):
    """As the book's. Moves: threads take chunks of an image; one loop for each rule."""
    rows, size = x.shape
    chunks = -(-size // CHUNK)
    for part in numba.prange(rows * chunks):
        n, first = part // chunks, part % chunks * CHUNK
        end = min(first + CHUNK, size)
        middle = min(max(split, first), end)
        quantize_some(x[n, first:middle], scale, rules[0], step, out[n, first:middle])
        quantize_some(x[n, middle:end], scale, rules[1], step, out[n, middle:end])


quantize_q = compile_kernel(quantize_q, parallel=True)
