"""Fast twin of reference/mean_q.py."""

from __future__ import annotations

import numpy as np

from npmobilenet.kernels.compiler.program import Work
from npmobilenet.kernels.compiler.task import task
from npmobilenet.kernels.reference import mean_q as reference

BLOCK = 128  # channels that a thread sums at a time: two cache lines of the image, eight of sums


def blocks(x, p, out):
    """Units are blocks of channels of an image."""
    return Work(x.shape[0] * -(-x.shape[3] // BLOCK), 8 * x.shape[1] * x.shape[2] * BLOCK)


@task(blocks)
def mean_q(start, stop, x, p, out):
    """As the reference. Moves: the loop over channels is innermost and vectorized, in int32; threads take blocks."""
    channels = x.shape[3]
    pixels = x.shape[1] * x.shape[2]
    parts = (channels + BLOCK - 1) // BLOCK
    flat_x = x.reshape(-1)
    for part in range(start, stop):
        n, first = part // parts, part % parts * BLOCK
        count = min(BLOCK, channels - first)
        acc = np.zeros(BLOCK, np.int32)
        for i in range(pixels):
            at = (n * pixels + i) * channels + first
            pixel = flat_x[at : at + count]
            for c in range(count):
                acc[c] += np.int32(pixel[c])
        for c in range(count):
            v = reference.mean_of(np.int64(acc[c]), p, p.lanes if first + c < p.full else p.rule)
            out[n, first + c] = min(max(v, p.low), p.high)
