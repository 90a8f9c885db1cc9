"""Fast twin of reference/activation.py."""

from __future__ import annotations

from numba.extending import register_jitable

from npmobilenet.kernels.compiler.program import Work
from npmobilenet.kernels.compiler.task import task
from npmobilenet.kernels.reference.activation import activate, hard_swish, relu, relu6

CHUNK = 4096  # elements that a thread takes at a time: 16 KiB, well within its first-level cache


@register_jitable
def activate_all(values, first, count, activation):
    """values[i] = activate(values[i]) for `count` elements from `first`; one loop for each common function.

    The loops run over a slice from 0: an index that might be negative, and so count from the end, keeps LLVM from
    vectorizing.
    """
    piece = values[first : first + count]
    if activation == 1:
        for i in range(count):
            piece[i] = relu(piece[i])
    elif activation == 2:
        for i in range(count):
            piece[i] = relu6(piece[i])
    elif activation == 4:
        for i in range(count):
            piece[i] = hard_swish(piece[i])
    elif activation != 0:
        for i in range(count):
            piece[i] = activate(piece[i], activation)


def chunks(x, activation, out):
    """Units are chunks."""
    return Work(-(-x.size // CHUNK), 8 * CHUNK)


@task(chunks)
def activation_f32(start, stop, x, activation, out):
    """As the reference. Moves: one vectorized loop for each function; threads take chunks."""
    size = x.shape[0]
    for chunk in range(start, stop):
        first = chunk * CHUNK
        count = min(CHUNK, size - first)
        source, target = x[first : first + count], out[first : first + count]
        for i in range(count):
            target[i] = source[i]
        activate_all(out, first, count, activation)
