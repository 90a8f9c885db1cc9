"""Fast twins of reference/resize_bilinear.py; that of floats is the reference loops, compiled."""

from __future__ import annotations

import numpy as np

from npmobilenet.kernels.compiler.deferred import register_jitable
from npmobilenet.kernels.compiler.task import in_one, task
from npmobilenet.kernels.compiler.work_sharing import Work
from npmobilenet.kernels.reference import resize_bilinear as reference
from npmobilenet.kernels.reference.arithmetic import fma32

resize_bilinear_f32 = in_one(reference.resize_bilinear_f32)


@register_jitable
def row_fixed(x, y, dy, columns, bits, upward, out):
    """One row of output; y: the two input rows. The sum is below 255 * 2^22, within int32."""
    one = np.int32(1) << np.int32(bits)
    half = np.int32(1) << np.int32(2 * bits - 1)
    for ox in range(out.shape[0]):
        x0, x1, dx = columns[0][ox], columns[1][ox], np.int32(columns[2][ox])
        a, b = np.int32((one - dy) * (one - dx)), np.int32((one - dy) * dx)
        c, d = np.int32(dy * (one - dx)), np.int32(dy * dx)
        for i in range(out.shape[1]):
            top = np.int32(x[y[0], x0, i]) * a + np.int32(x[y[0], x1, i]) * b
            total = np.int32(top + np.int32(x[y[1], x0, i]) * c + np.int32(x[y[1], x1, i]) * d)
            if not upward and total < 0:  # ties away from zero: half minus 1 for negative sums
                total = np.int32(total - np.int32(1))
            out[ox, i] = np.int32(total + half) >> np.int32(2 * bits)


def output_rows(x, rows, columns, *rest):
    """Units are output rows."""
    out = rest[-1]
    return Work(out.shape[0] * out.shape[1], 8 * out.shape[2] * out.shape[3])


@task(output_rows)
def resize_bilinear_fixed_q(start, stop, x, rows, columns, bits, upward, out):
    """As the reference. Moves: threads take output rows; four weights for each pixel, so channels are a plain loop."""
    out_h = out.shape[1]
    for part in range(start, stop):
        n, oy = part // out_h, part % out_h
        y = (rows[0][oy], rows[1][oy])
        row_fixed(x[n], y, np.int32(rows[2][oy]), columns, bits, upward, out[n, oy])


@register_jitable
def row_float(x, y, dy, columns, weighted, out):
    """One row of output, in the reference order of operations."""
    one = np.float32(1)
    ey = one - dy
    for ox in range(out.shape[0]):
        x0, x1, dx = columns[0][ox], columns[1][ox], columns[2][ox]
        ex = one - dx
        for i in range(out.shape[1]):
            a, b = np.float32(x[y[0], x0, i]), np.float32(x[y[0], x1, i])
            c, d = np.float32(x[y[1], x0, i]), np.float32(x[y[1], x1, i])
            if weighted == 2:
                total = fma32(a, ey * ex, b * (ey * dx))
                total = fma32(d, dy * dx, fma32(c, dy * ex, total))
            elif weighted == 1:
                total = a * (ey * ex) + b * (ey * dx) + c * (dy * ex) + d * (dy * dx)
            else:
                total = a * ey * ex + c * dy * ex + b * ey * dx + d * dy * dx
            out[ox, i] = np.int32(total + np.float32(0.5))


@task(output_rows)
def resize_bilinear_float_q(start, stop, x, rows, columns, weighted, out):
    """As the reference. Moves: threads take output rows; channels are one plain loop."""
    out_h = out.shape[1]
    for part in range(start, stop):
        n, oy = part // out_h, part % out_h
        row_float(x[n], (rows[0][oy], rows[1][oy]), rows[2][oy], columns, weighted, out[n, oy])
