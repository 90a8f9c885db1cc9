"""Functions of one 8-bit value: 256 answers, computed while planning, then looked up."""

from __future__ import annotations

import numpy as np


def lookup_q(x, tables, split, out):
    """out[n,i] = tables[0 if i < split else 1, x[n,i] modulo 256].

    A negative int8 thus has its two's complement as index: -1 is entry 255. The second table is for the last elements
    of an image, which some runtimes compute by another rule: their vectors hold 8 or 16 elements.

    x: (N, elements) uint8 or int8. tables: (2, 256) of out's dtype. out: (N, elements).
    """
    rows, size = x.shape
    for n in range(rows):
        for i in range(size):
            entry = np.int64(x[n, i]) & 255
            out[n, i] = tables[0, entry] if i < split else tables[1, entry]
