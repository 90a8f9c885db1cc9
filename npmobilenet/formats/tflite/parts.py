"""TFLite operators that pick values out, put them together or repeat them: slices, transposes and concatenations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from npmobilenet.formats.tflite import shapes
from npmobilenet.formats.tflite.builder import Importer, refuse
from npmobilenet.formats.tflite.constants import Constant
from npmobilenet.formats.tflite.flatbuffer import FileOperator
from npmobilenet.formats.tflite.layers import NHWC_RANK, Rule
from npmobilenet.graph import Tensor

MOST_PARTS = 64  # slices that one operator may become
LOWEST = -3.4028234663852886e38  # of finite float32

Part = tuple[int, int, int, int]  # axis, first, length, step
Run = tuple[int, int, int]  # first index, length, step


def _attrs(axis: int, run: Run) -> dict[str, Any]:
    first, length, step = run
    return {"axis": axis, "first": first, "length": length} | ({"step": step} if step > 1 else {})


def _slices(io: Importer, op: FileOperator, x: Tensor, parts: Sequence[Part], shape: tuple[int, ...] = ()) -> None:
    """A slice for each axis of which not all is taken; then another shape, with the batch as 1 in front."""
    cut = [part for part in parts if part[1:] != (0, x.shape[part[0]], 1)]
    name = x.name
    for i, (axis, first, length, step) in enumerate(cut):
        attrs = _attrs(axis, (first, length, step))
        if i == len(cut) - 1 and not shape:
            io.emit(op, "slice", [name], **attrs)
            return
        name = io.emit_hidden(op, "slice", [name], **attrs)
    io.emit(op, "reshape", [name], shape=shape or x.shape)


def strided_slice(io: Importer, op: FileOperator) -> None:
    """Constant bounds and steps, as Python's; axes of one index may go. Of constant vectors, folded."""
    if isinstance(io.value(op, 0), Constant):
        shapes.strided_slice(io, op)
        return
    x, option = io.activation(op), op.options.get
    bounds = [io.integers(op, i, what) for i, what in ((1, "begin"), (2, "end"), (3, "strides"))]
    shape = io.file_shape(x.name)
    if any(option(mask, 0) for mask in ("EllipsisMask", "NewAxisMask", "Offset")):
        refuse(op, "ellipsis, new axis and offset are not supported")
    if len({len(b) for b in bounds}) != 1 or len(bounds[0]) > len(shape) or 0 in bounds[2]:
        refuse(op, f"slices {bounds} of {shape}; supported: a begin, an end and a stride for each axis")
    parts: list[Part] = []
    runs: dict[int, list[Run]] = {}
    kept = list(shape)
    for axis, (begin, end, step) in enumerate(zip(*bounds, strict=True)):
        gone = option("ShrinkAxisMask", 0) >> axis & 1
        first = None if option("BeginMask", 0) >> axis & 1 else begin
        last = None if option("EndMask", 0) >> axis & 1 else end
        taken = range(*slice(first, last, step).indices(shape[axis]))
        if gone and -shape[axis] <= begin < shape[axis]:
            taken = range(begin % shape[axis], begin % shape[axis] + 1)
        if not taken or (axis == 0 and (gone or len(taken) < shape[0])):
            refuse(op, f"slices {bounds} of {shape}: no part may be empty, and the batch must stay whole")
        runs[axis] = [(taken.start, len(taken), step)] if step > 0 else [(index, 1, 1) for index in taken]
        parts.append((axis, taken.start, len(taken), step if len(taken) > 1 else 1))
        kept[axis] = 0 if gone else len(taken)
    if any(part[3] < 0 for part in parts):
        if 0 in kept:
            refuse(op, f"slices {bounds} of {shape}: backwards and of one index in one operator")
        along_axes(io, op, x, {axis: taken for axis, taken in runs.items() if axis})
        return
    _slices(io, op, x, parts[1:], (1, *(d for d in kept[1:] if d)) if 0 in kept else ())


def slice_(io: Importer, op: FileOperator) -> None:
    """Constant begin and size, -1 for all that is left."""
    x, begin, size = io.activation(op), io.integers(op, 1, "begin"), io.integers(op, 2, "size")
    shape = io.file_shape(x.name)
    if len(begin) != len(shape) or len(size) != len(shape):
        refuse(op, f"begin {begin} and size {size} of {shape}")
    size = tuple(d - b if s == -1 else s for d, b, s in zip(shape, begin, size, strict=True))
    fits = all(b >= 0 and s >= 1 and b + s <= d for d, b, s in zip(shape, begin, size, strict=True))
    if not fits or size[0] != shape[0]:
        refuse(op, f"begin {begin} and size {size} of {shape}: no part may be empty, and the batch must stay whole")
    _slices(io, op, x, [(axis, begin[axis], size[axis], 1) for axis in range(1, len(shape))])


def _runs(indices: Sequence[int]) -> list[Run]:
    """Indices as runs of equal steps of at least 1."""
    runs: list[Run] = []
    for index in indices:
        first, length, step = runs[-1] if runs else (0, 0, 0)
        if runs and length == 1 and index > first:
            runs[-1] = first, 2, index - first
        elif runs and length > 1 and index == first + length * step:
            runs[-1] = first, length + 1, step
        else:
            runs.append((index, 1, 1))
    return runs


def _joined(io: Importer, op: FileOperator, name: str, axis: int, runs: Sequence[Run], last: bool = True) -> str:
    """Parts of an axis, which are slices, side by side. `last`: as the operator's output, else as a value before it."""
    if len(runs) > MOST_PARTS:
        refuse(op, f"along axis {axis} it makes {len(runs)} separate parts, expected at most {MOST_PARTS}")
    attrs = [_attrs(axis, run) for run in runs]
    if len(runs) == 1 and last:
        io.emit(op, "slice", [name], **attrs[0])
        return ""
    parts = [io.emit_hidden(op, "slice", [name], **more) for more in attrs]
    if last:
        io.emit(op, "concat", parts, axis=axis)
        return ""
    return parts[0] if len(parts) == 1 else io.emit_hidden(op, "concat", parts, axis=axis)


def gather(io: Importer, op: FileOperator) -> None:
    """Constant indices along one axis, or one index, whose axis goes. Of constant vectors, folded."""
    if isinstance(io.value(op, 0), Constant):
        shapes.gather(io, op)
        return
    x, indices = io.activation(op), io.constant(op, 1, "indices").array
    axis = shapes.axis_of(op, int(op.options.get("Axis", 0)), len(x.shape))
    inside = indices.ndim < 2 and indices.size > 0 and indices.min() >= 0 and indices.max() < x.shape[axis]
    if axis == 0 or op.options.get("BatchDims", 0) or not inside:
        refuse(op, f"indices of shape {indices.shape} along axis {axis} of {io.file_shape(x.name)}")
    if indices.ndim == 0:
        shape = (*x.shape[:axis], *x.shape[axis + 1 :])
        _slices(io, op, x, [(axis, int(indices), 1, 1)], shape)
        return
    _joined(io, op, x.name, axis, _runs(indices.tolist()))


def pack(io: Importer, op: FileOperator) -> None:
    """Values of one shape side by side along a new axis; of constants, folded."""
    values = [io.value(op, i) for i in range(len(op.inputs))]
    if all(isinstance(value, Constant) for value in values):
        shapes.pack(io, op)
        return
    xs = [io.activation(op, i) for i in range(len(values))]
    axis = shapes.axis_of(op, int(op.options.get("Axis", 0)), len(xs[0].shape) + 1)
    if axis == 0 or len({x.shape for x in xs}) > 1:
        refuse(op, f"values of {[x.shape for x in xs]} along a new axis {axis}")
    shape = (*xs[0].shape[:axis], 1, *xs[0].shape[axis:])
    if len(xs) == 1:
        io.emit(op, "reshape", [xs[0].name], shape=shape)
        return
    io.emit(op, "concat", [io.emit_hidden(op, "reshape", [x.name], shape=shape) for x in xs], axis=axis)


def unpack(io: Importer, op: FileOperator) -> None:
    """Each index of an axis, which goes, is an output."""
    x = io.activation(op)
    axis = shapes.axis_of(op, int(op.options.get("Axis", 0)), len(x.shape))
    if axis == 0 or len(op.outputs) != x.shape[axis] or len(x.shape) < 3:
        refuse(op, f"{io.file_shape(x.name)} along axis {axis} into {len(op.outputs)} values")
    shape = (*x.shape[:axis], *x.shape[axis + 1 :])
    for index, output in enumerate(op.outputs):
        _slices(io, replace(op, outputs=(output,)), x, [(axis, index, 1, 1)], shape)


def blocks(into_space: bool) -> Rule:
    """DEPTH_TO_SPACE, SPACE_TO_DEPTH: blocks of pixels become channels or come from them, in rows."""

    def rule(io: Importer, op: FileOperator) -> None:
        x, b = io.activation(op), int(op.options.get("BlockSize", 0))
        if len(x.shape) != NHWC_RANK or b < 1:
            refuse(op, f"blocks of {b} of {x.shape}")
        _, h, w, c = x.shape
        if (c % (b * b)) if into_space else (h % b or w % b):
            refuse(op, f"blocks of {b} of {x.shape}: they don't divide")
        split = (1, h, w, b, c // b) if into_space else (1, h // b, b, w // b, b * c)
        shape = (1, h * b, w * b, c // (b * b)) if into_space else (1, h // b, w // b, b * b * c)
        y = io.emit_hidden(op, "reshape", [x.name], shape=split)
        y = io.emit_hidden(op, "transpose", [y], order=(0, 1, 3, 2, 4))
        io.emit(op, "reshape", [y], shape=shape)

    return rule


def along_axes(io: Importer, op: FileOperator, x: Tensor, runs: dict[int, list[Run]]) -> None:
    """Runs of each of these axes side by side; what takes all of an axis once changes nothing."""
    axes = [axis for axis, taken in runs.items() if taken != [(0, x.shape[axis], 1)]]
    name = x.name
    for axis in axes:
        name = _joined(io, op, name, axis, runs[axis], axis == axes[-1])
    if not axes:
        io.emit(op, "reshape", [name], shape=x.shape)


def mirror_pad(io: Importer, op: FileOperator) -> None:
    """Rows and columns inside the edge repeated outwards, the edge itself with them (mode 1) or not (mode 0)."""
    x, amounts, edge = io.activation(op), io.integers(op, 1, "paddings"), int(op.options.get("Mode", 0))
    pairs = list(zip(amounts[::2], amounts[1::2], strict=False))
    if len(amounts) != 2 * len(x.shape) or pairs[0] != (0, 0) or min(amounts) < 0 or edge not in (0, 1):
        refuse(op, f"paddings {pairs} of {io.file_shape(x.name)}, expected none of the batch")
    if any(max(pair) > min(size - 1 + edge, MOST_PARTS) for pair, size in zip(pairs, x.shape, strict=True)):
        refuse(op, f"paddings {pairs} of {io.file_shape(x.name)}: expected less than there is to repeat, and at most "
                   f"{MOST_PARTS}")  # fmt: skip
    runs = {}
    for axis, (size, (before, after)) in enumerate(zip(x.shape[1:], pairs[1:], strict=True), 1):
        first = [(index, 1, 1) for index in range(before - edge, -edge, -1)]
        rest = [(index, 1, 1) for index in range(size - 2 + edge, size - 2 + edge - after, -1)]
        runs[axis] = [*first, (0, size, 1), *rest]
    along_axes(io, op, x, runs)


def tile(io: Importer, op: FileOperator) -> None:
    """Each axis but the batch repeated a constant number of times."""
    x, times = io.activation(op), io.integers(op, 1, "multiples")
    if len(times) != len(x.shape) or times[0] != 1 or min(times) < 1 or max(times) > MOST_PARTS:
        refuse(op, f"{times} times {io.file_shape(x.name)}, expected 1 for the batch, at most {MOST_PARTS} elsewhere")
    along_axes(io, op, x, {axis: [(0, x.shape[axis], 1)] * times[axis] for axis in range(1, len(times))})


def reverse(io: Importer, op: FileOperator) -> None:
    """Constant axes from behind."""
    x = io.activation(op)
    axes = sorted({shapes.axis_of(op, axis, len(x.shape)) for axis in io.integers(op, 1, "axes")})
    if 0 in axes or any(x.shape[axis] > MOST_PARTS for axis in axes):
        refuse(op, f"axes {axes} of {io.file_shape(x.name)}; supported: not the batch, at most {MOST_PARTS} values")
    along_axes(io, op, x, {axis: [(index, 1, 1) for index in reversed(range(x.shape[axis]))] for axis in axes})


def fill_of(io: Importer, op: FileOperator, x: Tensor) -> dict[str, Any]:
    """The real number that PADV2 fills with, as an attribute; -inf as the lowest finite one, which max pools ignore."""
    value = io.constant(op, 2, "a value")
    if value.array.size != 1 or str(value.array.dtype) != x.dtype or value.quantization != x.quantization:
        refuse(op, "expected one constant of its input's type and quantization to fill with")
    number = float(value.array.reshape(-1)[0])
    if x.quantization is not None:
        number = float(np.float32(x.quantization.scale[0])) * (number - x.quantization.zero_point[0])
    return {"value": max(number, LOWEST)} if number else {}
