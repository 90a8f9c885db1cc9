"""Fast twin of reference/unary.py: the reference loop, compiled, whose elements threads share."""

from __future__ import annotations

from npmobilenet.kernels.compiler.deferred import register_jitable
from npmobilenet.kernels.compiler.task import task
from npmobilenet.kernels.compiler.work_sharing import Work
from npmobilenet.kernels.reference import unary as reference

CHUNK = 1024  # elements that a thread takes at a time
_all = register_jitable(reference.unary_f32)


def chunks(x, code, out):
    """Units are chunks."""
    return Work(-(-x.size // CHUNK), 64 * CHUNK)


@task(chunks)
def unary_f32(start, stop, x, code, out):
    """As the reference."""
    _all(x[start * CHUNK : stop * CHUNK], code, out[start * CHUNK : stop * CHUNK])
