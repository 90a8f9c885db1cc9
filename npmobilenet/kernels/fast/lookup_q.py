"""Fast twin of reference/lookup_q.py."""

from __future__ import annotations

import numpy as np

from npmobilenet.kernels.fast.task import Work, task

CHUNK = 4096  # elements that a thread takes at a time


def chunks(x, tables, split, out):
    """Units are chunks of images."""
    return Work(x.shape[0] * -(-x.shape[1] // CHUNK), 8 * CHUNK)


@task(chunks)
def lookup_q(start, stop, x, tables, split, out):
    """As the book's. Moves: threads take chunks of an image, in which one table serves up to `split`."""
    size = x.shape[1]
    parts = -(-size // CHUNK)
    for part in range(start, stop):
        n, first = part // parts, part % parts * CHUNK
        end = min(first + CHUNK, size)
        middle = min(max(split, first), end)
        for i in range(first, middle):
            out[n, i] = tables[0, np.int64(x[n, i]) & 255]
        for i in range(middle, end):
            out[n, i] = tables[1, np.int64(x[n, i]) & 255]
