"""Fast twins of reference/prelu.py: the reference loops, compiled, whose rows threads share."""

from __future__ import annotations

from npmobilenet.kernels.compiler.deferred import register_jitable
from npmobilenet.kernels.compiler.task import task
from npmobilenet.kernels.compiler.work_sharing import Work
from npmobilenet.kernels.reference import prelu as reference

_float, _integer = register_jitable(reference.prelu_f32), register_jitable(reference.prelu_q)


def rows(x, alpha, *rest):
    """Units are rows."""
    return Work(x.shape[0], 4 * x.shape[1])


@task(rows)
def prelu_f32(start, stop, x, alpha, out):
    """As the reference."""
    _float(x[start:stop], alpha, out[start:stop])


@task(rows)
def prelu_q(start, stop, x, alpha, p, out):
    """As the reference."""
    _integer(x[start:stop], alpha, p, out[start:stop])
