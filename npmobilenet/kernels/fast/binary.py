"""Fast twins of reference/binary.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from npmobilenet.kernels.compiler.deferred import register_jitable
from npmobilenet.kernels.compiler.spans import alike
from npmobilenet.kernels.compiler.task import Task
from npmobilenet.kernels.compiler.work_sharing import Work
from npmobilenet.kernels.fast.activation import activate_all
from npmobilenet.kernels.reference import binary as reference
from npmobilenet.kernels.vectorcode.generated import flat_view


@register_jitable
def _add(a, b):
    return a + b


@register_jitable
def _sub(a, b):
    return a - b


@register_jitable
def _mul(a, b):
    return a * b


_div = register_jitable(reference.quotient32)
FULL, VECTOR, SCALAR, OTHER = range(4)  # how an operand spreads over the result


@register_jitable
def _spread(operand, out):
    """FULL: of out's shape. SCALAR: one value. VECTOR: one pixel of channels (for each image, or for all)."""
    if operand.shape == out.shape:
        return FULL
    if operand.size == 1:
        return SCALAR
    if operand.shape[1] == 1 and operand.shape[2] == 1 and operand.shape[3] == out.shape[3]:
        return VECTOR
    return OTHER


def spreads_simply(x, y, out):
    """Whether rows of the result can be computed on their own: one operand has its shape, the other is spread."""
    spread_x, spread_y = _spread(x, out), _spread(y, out)
    return min(spread_x, spread_y) == FULL and max(spread_x, spread_y) != OTHER


def output_rows(x, y, how, out):
    """Units are output rows, or, for another broadcast, everything."""
    rows = out.shape[0] * out.shape[1]
    if not spreads_simply(x, y, out):
        return Work(1, 4 * out.size)
    full = [array for array in (x, y, out) if array.shape == out.shape]
    return Work(rows, 4 * out.shape[2] * out.shape[3], touch=alike(rows, *full))


def _fast(function: Callable[..., Any], general: Callable[..., Any], name: str) -> Task:
    """The kernel for one binary function. Moves: where one operand has the result's shape and the other has too, or is
    one value (a scale, a shift) or one pixel (squeeze-excite's gate), a vectorized loop for that case; threads take
    rows, each activated while it is in the first-level cache. Any other broadcast goes through the reference loops.
    """
    register_jitable(general)

    def kernel(start, stop, x, y, activation, out):
        _, height, width, channels = out.shape
        spread_x, spread_y = _spread(x, out), _spread(y, out)
        if min(spread_x, spread_y) != FULL or max(spread_x, spread_y) == OTHER:
            general(x, y, activation, out)
            return
        flat_x, flat_y, flat_out = flat_view(x), flat_view(y), flat_view(out)
        for row in range(start, stop):
            first, count = row * width * channels, width * channels
            n = row // height
            target = flat_out[first : first + count]
            if spread_x == FULL:
                full, other, gate = flat_x[first : first + count], flat_y, n % y.shape[0] * channels
            else:
                full, other, gate = flat_y[first : first + count], flat_x, n % x.shape[0] * channels
            if spread_x == FULL and spread_y == FULL:
                second = flat_y[first : first + count]
                for i in range(count):
                    target[i] = function(full[i], second[i])
            elif spread_y == SCALAR:
                for i in range(count):
                    target[i] = function(full[i], other[0])
            elif spread_x == SCALAR:
                for i in range(count):
                    target[i] = function(other[0], full[i])
            else:
                factors = other[gate : gate + channels]
                for pixel in range(width):
                    values = full[pixel * channels : (pixel + 1) * channels]
                    results = target[pixel * channels : (pixel + 1) * channels]
                    if spread_y == VECTOR:
                        for c in range(channels):
                            results[c] = function(values[c], factors[c])
                    else:
                        for c in range(channels):
                            results[c] = function(factors[c], values[c])
            activate_all(flat_out, first, count, activation)

    kernel.__name__ = name
    return Task(kernel, output_rows)


add_f32 = _fast(_add, reference.add_f32, "add_f32")
sub_f32 = _fast(_sub, reference.sub_f32, "sub_f32")
mul_f32 = _fast(_mul, reference.mul_f32, "mul_f32")
div_f32 = _fast(_div, reference.div_f32, "div_f32")
