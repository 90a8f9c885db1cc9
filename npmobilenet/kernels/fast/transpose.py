"""Fast twins of reference/transpose.py: the same copy, whose rows threads share."""

from __future__ import annotations

from npmobilenet.kernels.compiler.deferred import register_jitable
from npmobilenet.kernels.compiler.task import task
from npmobilenet.kernels.compiler.work_sharing import Work
from npmobilenet.kernels.vectorcode.generated import flat_view


@register_jitable
def copy_rows(start, stop, x, offset, strides, out):
    """Rows of the two first dimensions."""
    inner, width = out.shape[2], out.shape[3]
    flat = flat_view(out)
    for row in range(start, stop):
        a, b = row // out.shape[1], row % out.shape[1]
        for c in range(inner):
            source = x[offset + a * strides[0] + b * strides[1] + c * strides[2] :]
            target = flat[(row * inner + c) * width : (row * inner + c + 1) * width]
            for d in range(width):
                target[d] = source[d * strides[3]]


def output_rows(x, offset, strides, out):
    """Units are rows of the two first dimensions."""
    return Work(out.shape[0] * out.shape[1], 8 * out.shape[2] * out.shape[3])


@task(output_rows)
def transpose_f32(start, stop, x, offset, strides, out):
    """As the reference."""
    copy_rows(start, stop, x, offset, strides, out)


@task(output_rows)
def transpose_q(start, stop, x, offset, strides, out):
    """As the reference."""
    copy_rows(start, stop, x, offset, strides, out)
