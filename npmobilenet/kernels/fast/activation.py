"""Fast twins of reference/activation.py."""

from __future__ import annotations

import numpy as np

from npmobilenet.kernels.compiler.cpu import LANES, isa, target_features
from npmobilenet.kernels.compiler.deferred import overload, register_jitable, types
from npmobilenet.kernels.compiler.spans import Rows
from npmobilenet.kernels.compiler.task import task
from npmobilenet.kernels.compiler.work_sharing import Work
from npmobilenet.kernels.reference.activation import activate, hard_swish, relu, relu6
from npmobilenet.kernels.vectorcode.generated import flat_view
from npmobilenet.kernels.vectorcode.lookup_vectors import lookup_kernel
from npmobilenet.kernels.vectorcode.requant_rules import packs

CHUNK = 4096  # elements that a thread takes at a time: 16 KiB, well within its first-level cache
LANE = LANES[isa()]
PERMUTES = LANE == 16 and "avx512vbmi" in target_features()
VECTORS = packs(LANE)  # else byte by byte
COST = 2 if VECTORS else 8  # of an element


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


if VECTORS:
    lookup_vectors = lookup_kernel(LANE, PERMUTES)


def look_up_one_by_one(x, at, count, tables, row, out):
    """A run of `count` elements from `at`, by one table. A slice, so that indices are seen to count from 0."""
    source, target = x[at : at + count], out[at : at + count]
    for i in range(count):
        target[i] = tables[row, np.int64(source[i]) & 255]


def look_up(x, at, count, tables, row, out):
    """As look_up_one_by_one, with vectors where there are instructions for them."""


@overload(look_up)
def _look_up(x, at, count, tables, row, out):
    if not (VECTORS and out.dtype in (types.int8, types.uint8)):
        return look_up_one_by_one
    return lambda x, at, count, tables, row, out: lookup_vectors(x, at, flat_view(tables), 256 * row, out, at, count)


def chunks_of_images(x, tables, which, out):
    """Units are chunks of images."""
    size, parts = x.shape[1], -(-x.shape[1] // CHUNK)

    def touch(first, stop):
        begin, end = (n * size + min(part * CHUNK, size) for n, part in (divmod(first, parts), divmod(stop - 1, parts)))
        end = min(end + CHUNK, (end // size + 1) * size)
        return [Rows(array, begin, end, x.size) for array in (x, out)]

    return Work(x.shape[0] * parts, COST * CHUNK, touch=touch)


@task(chunks_of_images)
def lookup_q(start, stop, x, tables, which, out):
    """As the reference. Moves: threads take chunks of an image, in which one table serves up to `which.full`; where
    there are instructions that look up a vector of bytes, they do.
    """
    size = x.shape[1]
    flat_x, flat_out = flat_view(x), flat_view(out)
    parts = -(-size // CHUNK)
    for part in range(start, stop):
        n, first = part // parts, part % parts * CHUNK
        end = min(first + CHUNK, size)
        middle = min(max(which.full, first), end)  # a run is an image
        look_up(flat_x, n * size + first, middle - first, tables, which.inside, flat_out)
        look_up(flat_x, n * size + middle, end - middle, tables, which.outside, flat_out)
