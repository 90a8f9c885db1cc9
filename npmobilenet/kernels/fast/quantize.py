"""Fast twin of reference/quantize.py."""

from __future__ import annotations

import numpy as np
from numba.extending import register_jitable

from npmobilenet.arithmetic.fixedpoint import clamped32
from npmobilenet.kernels.compiler.task import task
from npmobilenet.kernels.compiler.work_sharing import Work
from npmobilenet.kernels.reference.quantize import quantized

CHUNK = 4096  # elements that a thread takes at a time


@register_jitable
def quantize_some(x, scale, rule, limits, out):
    """A run of elements by one rule; one loop for each, so that each can be vectorized."""
    if rule == 0:
        for i in range(x.shape[0]):
            out[i] = np.int32(clamped32(quantized(x[i], scale, 0), limits[0], limits[1], limits[2]))
    elif rule == 1:
        for i in range(x.shape[0]):
            out[i] = np.int32(clamped32(quantized(x[i], scale, 1), limits[0], limits[1], limits[2]))
    else:
        for i in range(x.shape[0]):
            out[i] = np.int32(clamped32(quantized(x[i], scale, 2), limits[0], limits[1], limits[2]))


def chunks(x, scale, rules, split, limits, out):
    """Units are chunks of images."""
    return Work(x.shape[0] * -(-x.shape[1] // CHUNK), 16 * CHUNK)


@task(chunks)
def quantize_q(start, stop, x, scale, rules, split, limits, out):
    """As the reference. Moves: threads take chunks of an image; one loop for each rule."""
    size = x.shape[1]
    parts = -(-size // CHUNK)
    for part in range(start, stop):
        n, first = part // parts, part % parts * CHUNK
        end = min(first + CHUNK, size)
        middle = min(max(split, first), end)
        quantize_some(x[n, first:middle], scale, rules[0], limits, out[n, first:middle])
        quantize_some(x[n, middle:end], scale, rules[1], limits, out[n, middle:end])
