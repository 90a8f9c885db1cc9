"""Fast twin of reference/quantize.py."""

from __future__ import annotations

import numpy as np

from npmobilenet.arithmetic.fixedpoint import Rounding, clamped32
from npmobilenet.kernels.compiler.deferred import register_jitable
from npmobilenet.kernels.compiler.task import task
from npmobilenet.kernels.compiler.work_sharing import Work
from npmobilenet.kernels.reference.quantize import quantized

CHUNK = 4096  # elements that a thread takes at a time


@register_jitable
def quantize_some(x, scale, rule, limits, out):
    """A run of elements by one rule; one loop for each, so that each can be vectorized."""
    if rule == Rounding.QUOTIENT32:
        for i in range(x.shape[0]):
            out[i] = np.int32(clamped32(quantized(x[i], scale, Rounding.QUOTIENT32), limits[0], limits[1], limits[2]))
    elif rule == Rounding.RECIPROCAL:
        for i in range(x.shape[0]):
            out[i] = np.int32(clamped32(quantized(x[i], scale, Rounding.RECIPROCAL), limits[0], limits[1], limits[2]))
    else:
        for i in range(x.shape[0]):
            out[i] = np.int32(clamped32(quantized(x[i], scale, Rounding.QUOTIENT64), limits[0], limits[1], limits[2]))


def chunks(x, scale, rule, limits, out):
    """Units are chunks of images."""
    return Work(x.shape[0] * -(-x.shape[1] // CHUNK), 16 * CHUNK)


@task(chunks)
def quantize_q(start, stop, x, scale, rule, limits, out):
    """As the reference. Moves: threads take chunks of an image; one loop for each rule."""
    size = x.shape[1]
    parts = -(-size // CHUNK)
    for part in range(start, stop):
        n, first = part // parts, part % parts * CHUNK
        end = min(first + CHUNK, size)
        middle = min(max(rule.full, first), end)  # a run is an image
        quantize_some(x[n, first:middle], scale, rule.inside, limits, out[n, first:middle])
        quantize_some(x[n, middle:end], scale, rule.outside, limits, out[n, middle:end])
