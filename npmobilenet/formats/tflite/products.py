"""Matrix products of computed values, as attention has them: BATCH_MATMUL, and BROADCAST_TO beside it."""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from npmobilenet.formats.tflite import layers
from npmobilenet.formats.tflite.builder import Importer, refuse
from npmobilenet.formats.tflite.constants import Constant
from npmobilenet.formats.tflite.flatbuffer import FileOperator
from npmobilenet.formats.tflite.functions import in_floats
from npmobilenet.formats.tflite.layers import fused_activation
from npmobilenet.formats.tflite.parts import MOST_PARTS, along_axes

MOST_PRODUCTS = 1 << 26  # of one operator: it writes them all down before it adds them


def batch_matmul(io: Importer, op: FileOperator) -> None:
    """Rows times columns in float32, for each index of the axes before: all products, added up along their first axis.

    No kernel adds products of two computed values, and maps of attention are small: a mean, times the number of terms.
    """
    turns = [bool(op.options.get(name, False)) for name in ("AdjX", "AdjY")]
    x, other = io.activation(op, rows=True), io.value(op, 1)
    in_floats(io, op, [x.name])
    if isinstance(other, Constant):
        _by_constant(io, op, other.dequantized(), turns)
        return
    y = io.activation(op, 1, rows=True)
    in_floats(io, op, [y.name])
    (*outer, rows, inner), (*others, again, columns) = (
        [*t.shape[:-2], *(t.shape[:-3:-1] if turned else t.shape[-2:])] for t, turned in zip((x, y), turns, strict=True)
    )
    hidden = x.name in io.in_rows  # heads in the place of the batch
    if len(x.shape) < 3 or outer != others or inner != again or hidden != (y.name in io.in_rows):
        refuse(op, f"{io.file_shape(x.name)} and {io.file_shape(y.name)}: expected matrices that fit, as many of each")
    name = _products(io, op, (x.name, y.name), turns, (math.prod(outer), rows, inner, columns))
    io.emit(op, "reshape", [name], shape=(*outer, rows, columns), rows=hidden)


def _products(io: Importer, op: FileOperator, pair: tuple[str, str], turns: list[bool], size: tuple[int, ...]) -> str:
    """`count` products of (rows, inner) by (inner, columns), one after the other; `turns`: whose axes are turned."""
    count, rows, inner, columns = size
    if count > MOST_PARTS or math.prod(size) > MOST_PRODUCTS:
        refuse(op, f"{count} products of {rows} x {inner} by {inner} x {columns}: expected at most {MOST_PARTS} and "
                   f"{MOST_PRODUCTS:,} multiplications")  # fmt: skip
    emit = partial(io.emit_hidden, op)
    number = io.declare(op, Constant(-1, np.full((1, 1), inner, np.float32)), "count")
    flat = []
    for name, turned, wide in ((pair[0], not turns[0], rows), (pair[1], turns[1], columns)):  # with `inner` in front
        flat.append(emit("reshape", [name], shape=(1, count, wide, inner) if turned else (1, count, inner, wide)))
        if turned:
            flat[-1] = emit("transpose", flat[-1:], order=(0, 1, 3, 2))
    found = []
    for index in range(count):
        parts = [emit("slice", [name], axis=1, first=index, length=1) if count > 1 else name for name in flat]
        left = emit("reshape", parts[:1], shape=(1, inner, rows, 1))
        right = emit("reshape", parts[1:], shape=(1, inner, 1, columns))
        each = emit("reshape", [emit("mul", [left, right])], shape=(1, inner, 1, rows * columns))
        found.append(emit("mul", [emit("mean", [each], keepdims=False), number]))
    return emit("concat", found, axis=1) if count > 1 else found[0]


def fully_connected(io: Importer, op: FileOperator) -> None:
    """FULLY_CONNECTED, whose weights may be computed, too: rows times one matrix (units, inputs), in float32."""
    if not isinstance(io.value(op, 1), str):
        layers.fully_connected(io, op)
        return
    x, y = io.activation(op), io.activation(op, 1, rows=True)
    in_floats(io, op, [x.name, y.name])
    units, inner = y.shape[-2:]
    plain = bool(op.options.get("KeepNumDims", False)) and io.value(op, 2) is None and not fused_activation(op)
    if y.name not in io.in_rows or len(y.shape) != 3 or x.shape[-1] != inner or io.batch > 1 or not plain:
        refuse(op, f"{io.file_shape(x.name)} and computed weights {io.file_shape(y.name)}: expected rows of inputs, "
                   "whose dimensions are kept, without bias and activation")  # fmt: skip
    name = _products(io, op, (x.name, y.name), [False, True], (1, math.prod(x.shape[1:-1]), inner, units))
    io.emit(op, "reshape", [name], shape=(*x.shape[:-1], units))


def _by_constant(io: Importer, op: FileOperator, weights: Constant, turns: list[bool]) -> None:
    """One constant matrix: a dense layer of each row."""
    x = io.activation(op)
    matrix = weights.transposed((1, 0)) if turns[1] and weights.array.ndim == 2 else weights
    if turns[0] or matrix.array.ndim != 2 or x.shape[-1] != matrix.array.shape[0] or len(x.shape) < 3:
        refuse(op, f"{io.file_shape(x.name)} and a constant {weights.array.shape}: expected rows of its inputs")
    zeros = Constant(-1, np.zeros(matrix.array.shape[1], np.float32))
    inputs = [x.name, io.declare(op, matrix, "matmul"), io.declare(op, zeros)]
    io.emit(op, "fully_connected", inputs, keepdims=True)


def broadcast_to(io: Importer, op: FileOperator) -> None:
    """Axes of 1 repeated up to a constant shape, which may have more axes, but the batch in front."""
    x, shape = io.activation(op), io.integers(op, 1, "a shape")
    own = (1,) * (len(shape) - len(x.shape)) + x.shape
    pairs = list(zip(own, shape, strict=False))[1:]
    fits = len(own) == len(shape) and all(a in (1, b) and b <= max(a, MOST_PARTS) for a, b in pairs)
    if not fits or shape[0] != io.batch or (len(shape) > len(x.shape) and io.batch > 1):
        refuse(op, f"{io.file_shape(x.name)} to {shape}: expected axes of 1 repeated up to {MOST_PARTS} times, the "
                   "batch staying in front")  # fmt: skip
    name = x.name if own == x.shape else io.emit_hidden(op, "reshape", [x.name], shape=own)
    runs = {axis: [(0, a, 1)] * (b // a) for axis, (a, b) in enumerate(pairs, 1)}
    along_axes(io, op, io.builder.tensors[name], runs)
