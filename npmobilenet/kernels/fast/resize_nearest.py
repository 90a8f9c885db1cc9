"""Fast twins of reference/resize_nearest.py: a pixel's channels are a plain run; threads take output rows."""

from __future__ import annotations

from npmobilenet.kernels.compiler.deferred import register_jitable
from npmobilenet.kernels.compiler.task import task
from npmobilenet.kernels.compiler.work_sharing import Work
from npmobilenet.kernels.vectorcode.generated import flat_view


@register_jitable
def nearest_rows(start, stop, x, rows, columns, out):
    """Rows of the output."""
    in_h, in_w, channels = x.shape[1], x.shape[2], x.shape[3]
    out_h, out_w = out.shape[1], out.shape[2]
    flat_x, flat_out = flat_view(x), flat_view(out)
    for row in range(start, stop):
        line = (row // out_h * in_h + rows[row % out_h]) * in_w
        for ox in range(out_w):
            first = (line + columns[ox]) * channels
            pixel = flat_x[first : first + channels]
            target = flat_out[(row * out_w + ox) * channels : (row * out_w + ox + 1) * channels]
            for c in range(channels):
                target[c] = pixel[c]


def output_rows(x, rows, columns, out):
    """Units are output rows."""
    return Work(out.shape[0] * out.shape[1], 2 * out.shape[2] * out.shape[3])


@task(output_rows)
def resize_nearest_f32(start, stop, x, rows, columns, out):
    """As the reference."""
    nearest_rows(start, stop, x, rows, columns, out)


@task(output_rows)
def resize_nearest_q(start, stop, x, rows, columns, out):
    """As the reference."""
    nearest_rows(start, stop, x, rows, columns, out)
