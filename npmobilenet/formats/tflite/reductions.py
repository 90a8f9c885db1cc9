"""TFLite operators that make one value of many: means, sums, greatest and least values over constant axes."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from npmobilenet.formats.tflite import shapes
from npmobilenet.formats.tflite.builder import Importer, refuse
from npmobilenet.formats.tflite.constants import Constant
from npmobilenet.formats.tflite.flatbuffer import FileOperator
from npmobilenet.formats.tflite.layers import NHWC_RANK
from npmobilenet.graph import Tensor


def _axes(io: Importer, op: FileOperator, x: Tensor) -> tuple[int, ...]:
    axes = sorted({shapes.axis_of(op, a, len(x.shape)) for a in io.integers(op, 1, "axes")})
    if not axes or axes[0] == 0:
        refuse(op, f"over axes {axes} of {io.file_shape(x.name)}; the batch can't be one of them")
    return tuple(axes)


def _in_the_middle(io: Importer, op: FileOperator, x: Tensor, axes: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    """The tensor as (1, count, 1, rest), what goes in the second axis; and the shape of what is left."""
    kept = [axis for axis in range(1, len(x.shape)) if axis not in axes]
    shape = tuple(1 if axis in axes else size for axis, size in enumerate(x.shape))
    if not op.options.get("KeepDims", False):
        shape = (1, *(x.shape[axis] for axis in kept))
    order, name = (0, *axes, *kept), x.name
    moved = [axis for axis in order if x.shape[axis] > 1]
    if moved != sorted(moved):
        name = io.emit_hidden(op, "transpose", [name], order=order)
    count, rest = (math.prod(x.shape[axis] for axis in some) for some in (axes, kept))
    if io.builder.tensors[name].shape != (1, count, 1, rest):
        name = io.emit_hidden(op, "reshape", [name], shape=(1, count, 1, rest))
    return name, shape


def mean(io: Importer, op: FileOperator) -> None:
    """Over height and width, or any other axes but the batch."""
    x = io.activation(op)
    axes = _axes(io, op, x)
    if axes == (1, 2) and len(x.shape) == NHWC_RANK:
        io.emit(op, "mean", [x.name], keepdims=bool(op.options.get("KeepDims", False)))
        return
    name, shape = _in_the_middle(io, op, x, axes)
    io.emit(op, "reshape", [io.emit_hidden(op, "mean", [name], like_output=True, keepdims=False)], shape=shape)


def total(io: Importer, op: FileOperator) -> None:
    """SUM in float32: the mean, times the number of values.

    Of int8 LiteRT 2.3.0's reference kernel gives -1 where its optimized one gives a sum, so that there is nothing to
    be equal to.
    """
    x = io.activation(op)
    if x.dtype != "float32":
        refuse(op, f"of {x.dtype}; supported: float32. Convert the model without quantizing, then `npmobilenet "
                   "quantize` it")  # fmt: skip
    name, shape = _in_the_middle(io, op, x, _axes(io, op, x))
    count = io.builder.tensors[name].shape[1]
    number = io.declare(op, Constant(-1, np.full((1, 1), count, np.float32)), "count")
    summed = io.emit_hidden(op, "mul", [io.emit_hidden(op, "mean", [name], keepdims=False), number])
    io.emit(op, "reshape", [summed], shape=shape)


def log_softmax(io: Importer, op: FileOperator) -> None:
    """In float32, over the last dimension: d - log(sum(exp(d))), d = x - max(x).

    Source: LiteRT, tflite/kernels/internal/reference/log_softmax.h, commit f67457790.
    """
    x = io.activation(op)
    if x.dtype != "float32":
        refuse(op, f"of {x.dtype}; supported: float32. Leave it out, and take the output before it: its order is the "
                   "same")  # fmt: skip
    rest, channels = math.prod(x.shape[1:-1]), x.shape[-1]
    emit = partial(io.emit_hidden, op)
    rows = emit("reshape", [x.name], shape=(1, 1, rest, channels))
    last_first: dict[str, Any] = {"order": (0, 3, 1, 2)}
    window: dict[str, Any] = {"kernel": (channels, 1), "stride": (1, 1), "padding": ((0, 0), (0, 0))}
    most = emit("max_pool", [emit("transpose", [rows], **last_first)], **window)
    below = emit("sub", [rows, emit("reshape", [most], shape=(1, 1, rest, 1))])
    parts = emit("transpose", [emit("unary", [below], formula="exp")], **last_first)
    count = io.declare(op, Constant(-1, np.full((1, 1, 1, 1), channels, np.float32)), "count")
    mean = emit("mean", [emit("reshape", [parts], shape=(1, channels, 1, rest))], keepdims=True)
    total = emit("reshape", [emit("mul", [mean, count])], shape=(1, 1, rest, 1))
    io.emit(op, "reshape", [emit("sub", [below, emit("unary", [total], formula="log")])], shape=x.shape)


def greatest(io: Importer, op: FileOperator) -> None:
    """REDUCE_MAX: the greatest of one window that is all there is."""
    x = io.activation(op)
    name, shape = _in_the_middle(io, op, x, _axes(io, op, x))
    window: dict[str, Any] = {"kernel": io.builder.tensors[name].shape[1:3], "stride": (1, 1),
                              "padding": ((0, 0), (0, 0))}  # fmt: skip
    io.emit(op, "reshape", [io.emit_hidden(op, "max_pool", [name], **window)], shape=shape)


def least(io: Importer, op: FileOperator) -> None:
    """REDUCE_MIN: the minimum of two halves, until one value is left; of an odd number the halves overlap."""
    x = io.activation(op)
    name, shape = _in_the_middle(io, op, x, _axes(io, op, x))
    while (count := io.builder.tensors[name].shape[1]) > 1:
        half = (count + 1) // 2
        parts = [io.emit_hidden(op, "slice", [name], axis=1, first=first, length=half) for first in (0, count - half)]
        name = io.emit_hidden(op, "minimum", parts)
    io.emit(op, "reshape", [name], shape=shape)
