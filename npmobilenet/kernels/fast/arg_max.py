"""Fast twins of reference/arg_max.py: the reference loops, compiled, whose outer indices threads share."""

from __future__ import annotations

from npmobilenet.kernels.compiler.deferred import register_jitable
from npmobilenet.kernels.compiler.task import task
from npmobilenet.kernels.compiler.work_sharing import Work
from npmobilenet.kernels.reference.arg_max import first_greatest

_search = register_jitable(first_greatest)


def outer_parts(x, out):
    """Units are what lies before the axis."""
    return Work(x.shape[0], 8 * x.shape[1] * x.shape[2])


@task(outer_parts)
def arg_max_f32(start, stop, x, out):
    """As the reference."""
    _search(x[start:stop], out[start:stop])


@task(outer_parts)
def arg_max_q(start, stop, x, out):
    """As the reference."""
    _search(x[start:stop], out[start:stop])
