"""Fast twins of reference/pad_reshape_concat.py. Those of floats are the reference loops, compiled."""

from __future__ import annotations

import numpy as np

from npmobilenet.kernels.compiler.task import in_one, task
from npmobilenet.kernels.compiler.work_sharing import Work
from npmobilenet.kernels.reference import pad_reshape_concat as reference
from npmobilenet.kernels.vectorcode.generated import flat_view

pad_f32 = in_one(reference.pad_f32)
reshape_f32 = in_one(reference.reshape_f32)
concat_f32 = in_one(reference.concat_f32)


def output_rows(x, value, pad, out):
    """Units are output rows."""
    return Work(out.shape[0] * out.shape[1], 4 * out.shape[2] * out.shape[3])


@task(output_rows)
def pad_q(start, stop, x, value, pad, out):
    """As the reference. Moves: a row is three plain runs: value, pixels, value."""
    height, width, channels = x.shape[1], x.shape[2], x.shape[3]
    out_h, out_w = out.shape[1], out.shape[2]
    flat_x, flat_out = flat_view(x), flat_view(out)
    for row in range(start, stop):
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


def outer_parts(x, offset, p, out):
    """Units are what lies before the axis."""
    return Work(x.shape[0], 4 * x.shape[1] * x.shape[2])


@task(outer_parts)
def concat_q(start, stop, x, offset, p, out):
    """As the reference. Moves: an operand's part of each outer index is one run; rescaling is a table of 256 values."""
    count = x.shape[1] * x.shape[2]
    step, first = out.shape[1] * out.shape[2], offset * out.shape[2]
    flat_x, flat_out = flat_view(x), flat_view(out)
    table = np.empty(256, np.int16)
    if not p.copy:
        for v in range(256):
            table[v] = reference.rescaled(v + p.low, p)  # p.low: the dtype's least value
    for o in range(start, stop):
        source, target = flat_x[o * count : (o + 1) * count], flat_out[o * step + first : o * step + first + count]
        if p.copy:
            target[:] = source
        else:
            for i in range(count):
                target[i] = table[np.int64(source[i]) - p.low]


reshape_q = in_one(reference.reshape_q)
