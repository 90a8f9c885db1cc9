"""Fast twins of reference/move_q.py."""

from __future__ import annotations

import numpy as np

from npmobilenet.kernels.jit import compile_kernel
from npmobilenet.kernels.reference import move_q as book


def pad_q(x, value, pad, out):
    """As the book's. Moves: a row is three plain runs: value, pixels, value."""
    height, width, channels = x.shape[1], x.shape[2], x.shape[3]
    out_h, out_w = out.shape[1], out.shape[2]
    flat_x, flat_out = x.reshape(-1), out.reshape(-1)
    for row in range(out.shape[0] * out_h):
        n, iy = row // out_h, row % out_h - pad[0]
        first, left = row * out_w * channels, pad[1] * channels
        right = left + width * channels
        target = flat_out[first : first + out_w * channels]
        source = flat_x[(n * height + iy) * width * channels :] if 0 <= iy < height else flat_x[:0]
        if iy < 0 or iy >= height:
            left = right = out_w * channels
        for i in range(left):
            target[i] = value
        pixels = target[left:right]
        for i in range(right - left):
            pixels[i] = source[i]
        edge = target[right:]
        for i in range(out_w * channels - right):
            edge[i] = value


def concat_q(x, offset, p, out):
    """As the book's. Moves: an operand's part of each outer index is one run; a rescaling is a table of 256 values."""
    outer, count = x.shape[0], x.shape[1] * x.shape[2]
    step, first = out.shape[1] * out.shape[2], offset * out.shape[2]
    flat_x, flat_out = x.reshape(-1), out.reshape(-1)
    table = np.empty(256, np.int16)
    if not p.copy:
        for v in range(256):
            table[v] = book.rescaled(v + p.low, p)  # p.low: the dtype's least value
    for o in range(outer):
        source, target = flat_x[o * count : (o + 1) * count], flat_out[o * step + first : o * step + first + count]
        if p.copy:
            target[:] = source
        else:
            for i in range(count):
                target[i] = table[np.int64(source[i]) - p.low]


pad_q = compile_kernel(pad_q)
reshape_q = compile_kernel(book.reshape_q)
concat_q = compile_kernel(concat_q)
