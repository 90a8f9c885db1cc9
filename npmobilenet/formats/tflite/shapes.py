"""TFLite operators that only move dimensions, and those whose results are known at import time.

A model exported with a dynamic batch computes the targets of its reshapes while running: SHAPE,
STRIDED_SLICE, PACK, RESHAPE. Shapes are known here, so these chains fold away into constants.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from npmobilenet.formats.tflite.builder import Importer, refuse
from npmobilenet.formats.tflite.constants import Constant
from npmobilenet.formats.tflite.flatbuffer import FileOperator

MAX_FOLDED = 1_000  # elements of a value computed from shapes


def reshape(io: Importer, op: FileOperator) -> None:
    """To a constant shape, input 1 or else the option."""
    given = io.value(op, 1)
    target = op.options.get("NewShape", ()) if given is None else io.integers(op, 1, "a shape")
    _reshape(io, op, tuple(target))


def squeeze(io: Importer, op: FileOperator) -> None:
    """Drops the listed dimensions, or all that are 1."""
    shape = _file_shape(io, op)
    drop = {axis_of(op, a, len(shape)) for a in op.options.get("SqueezeDims", ())}
    drop = drop or {i for i, d in enumerate(shape) if d == 1}
    if any(shape[i] != 1 for i in drop):
        refuse(op, f"dimensions {sorted(drop)} of {shape} are not all 1")
    _reshape(io, op, tuple(d for i, d in enumerate(shape) if i not in drop))


def expand_dims(io: Importer, op: FileOperator) -> None:
    """Puts a dimension of 1 at a constant axis."""
    shape, axes = _file_shape(io, op), io.integers(op, 1, "an axis")
    if len(axes) != 1:
        refuse(op, f"axes {axes}, expected one")
    axis = axis_of(op, axes[0], len(shape) + 1)
    _reshape(io, op, (*shape[:axis], 1, *shape[axis:]))


def _file_shape(io: Importer, op: FileOperator) -> tuple[int, ...]:
    """The first input's shape as the file sees it, with its batch."""
    value = io.value(op, 0)
    if isinstance(value, Constant):
        return value.array.shape
    return io.file_shape(io.activation(op, rows=True).name)


def _reshape(io: Importer, op: FileOperator, target: tuple[int, ...]) -> None:
    """Reshape to `target` (in the file's batch; one dimension may be -1), keeping images apart."""
    shape = _file_shape(io, op)
    size, rest = math.prod(shape), math.prod(d for d in target if d != -1)
    if target.count(-1) == 1 and rest > 0:
        target = tuple(size // rest if d == -1 else d for d in target)
    if min(target, default=1) < 1 or math.prod(target) != size:
        refuse(op, f"can't reshape {shape} to {target}")
    value = io.value(op, 0)
    if isinstance(value, Constant):
        io.fold(op, value.reshaped(target))
        return
    rows, rest = divmod(target[0] if target else 1, io.batch)
    if rest or not target:
        refuse(op, f"a reshape of {shape} to {target} doesn't keep the batch dimension "
                   f"{io.batch} in front; export the model so that it does")  # fmt: skip
    inside = (1, *target[1:]) if rows == 1 else (1, rows, *target[1:])
    io.emit(op, "reshape", [io.activation(op, rows=True).name], shape=inside, rows=rows > 1)


def shape_of(io: Importer, op: FileOperator) -> None:
    """A constant: shapes are known, and the batch is the file's (1 where dynamic)."""
    kind = np.int64 if io.tensor(op.outputs[0]).type == "INT64" else np.int32
    fold_array(io, op, np.array(_file_shape(io, op), kind))


def strided_slice(io: Importer, op: FileOperator) -> None:
    """Of a constant vector."""
    vector = small_integers(op, io.constant(op, 0, "a vector"))
    bounds = [io.integers(op, i, what) for i, what in ((1, "begin"), (2, "end"), (3, "strides"))]
    option = op.options.get
    if vector.ndim != 1 or any(len(b) != 1 for b in bounds) or bounds[2][0] == 0:
        refuse(op, f"slices {bounds} of shape {vector.shape}; supported: of a constant vector")
    if any(option(mask, 0) for mask in ("EllipsisMask", "NewAxisMask", "Offset")):
        refuse(op, "ellipsis, new axis and offset are not supported")
    begin, end, stride = (b[0] for b in bounds)
    if option("ShrinkAxisMask", 0) & 1:
        if not -vector.size <= begin < vector.size:
            refuse(op, f"element {begin} of a vector of {vector.size}")
        fold_array(io, op, vector[begin].reshape(()))
        return
    first = None if option("BeginMask", 0) & 1 else begin
    last = None if option("EndMask", 0) & 1 else end
    fold_array(io, op, vector[first:last:stride])


def pack(io: Importer, op: FileOperator) -> None:
    """Constants of equal shape stacked along a new axis."""
    parts = _parts(io, op)
    axis = axis_of(op, int(op.options.get("Axis", 0)), parts[0].ndim + 1)
    if len({part.shape for part in parts}) > 1:
        refuse(op, "expected constants of one shape")
    fold_array(io, op, np.stack(parts, axis))


def fold_concatenation(io: Importer, op: FileOperator, axis: int) -> None:
    """Constants joined along an axis."""
    parts = _parts(io, op)
    axis = axis_of(op, axis, parts[0].ndim)
    if len({(*part.shape[:axis], *part.shape[axis + 1 :]) for part in parts}) > 1:
        refuse(op, f"expected constants that differ along axis {axis} only")
    if len({part.ndim for part in parts}) > 1:
        refuse(op, "expected constants of one rank")
    fold_array(io, op, np.concatenate(parts, axis))


def _parts(io: Importer, op: FileOperator) -> list[Any]:
    parts = [small_integers(op, io.constant(op, i, "a part")) for i in range(len(op.inputs))]
    if len({part.dtype for part in parts}) != 1:
        refuse(op, "expected constants of one type")
    return parts


def gather(io: Importer, op: FileOperator) -> None:
    """Elements of a constant vector, by constant indices."""
    vector = small_integers(op, io.constant(op, 0, "a vector"))
    indices = small_integers(op, io.constant(op, 1, "indices"))
    if vector.ndim != 1 or op.options.get("Axis", 0) not in (0, -1) or op.options.get("BatchDims", 0):
        refuse(op, f"of shape {vector.shape}; supported: elements of a constant vector")
    if not ((indices >= 0) & (indices < vector.size)).all():
        refuse(op, f"indices {indices.tolist()} of a vector of {vector.size}")
    fold_array(io, op, np.asarray(vector[indices]))


def reduce_prod(io: Importer, op: FileOperator) -> None:
    """The product of a constant vector."""
    vector = small_integers(op, io.constant(op, 0, "a vector"))
    axes = io.integers(op, 1, "an axis")
    if vector.ndim != 1 or [axis_of(op, a, 1) for a in axes] != [0]:
        refuse(op, f"of shape {vector.shape} over axes {axes}; supported: a constant vector")
    keep = bool(op.options.get("KeepDims", False))
    fold_array(io, op, np.asarray(np.prod(vector, dtype=vector.dtype, keepdims=keep)))


def cast(io: Importer, op: FileOperator) -> None:
    """Of a constant, between int32 and int64."""
    values = small_integers(op, io.constant(op, 0, "a value"))
    kind = {"INT32": np.int32, "INT64": np.int64}.get(io.tensor(op.outputs[0]).type)
    if kind is None:
        refuse(op, f"to {io.tensor(op.outputs[0]).type}; supported: constants to int32 or int64")
    fold_array(io, op, values.astype(kind))


def fold_binary(io: Importer, op: FileOperator, kind: str) -> None:
    """The sum, difference or product of constants, one of which is a single number or both of one shape."""
    a, b = (small_integers(op, io.constant(op, i, "an operand")) for i in (0, 1))
    if a.dtype != b.dtype or (a.shape != b.shape and 1 not in (a.size, b.size)):
        refuse(op, f"constants of {a.dtype} {a.shape} and {b.dtype} {b.shape}")
    function = {"add": np.add, "sub": np.subtract, "mul": np.multiply}[kind]
    with np.errstate(over="ignore"):  # wraps as in C; a shape gone wrong is refused where used
        fold_array(io, op, np.asarray(function(a, b)))


def small_integers(op: FileOperator, value: Constant) -> Any:
    """The array of a constant that can be a shape or a part of one."""
    array = value.array
    if array.dtype not in (np.int32, np.int64) or array.size > MAX_FOLDED:
        refuse(op, f"computing with constants of {array.dtype} {array.shape}; supported: shapes, "
                   f"int32 or int64 of at most {MAX_FOLDED} elements")  # fmt: skip
    return array


def fold_array(io: Importer, op: FileOperator, array: Any) -> None:
    """Let the operator's output stand for `array`."""
    if array.size > MAX_FOLDED:
        refuse(op, f"a computed constant of {array.size} elements, expected at most {MAX_FOLDED}")
    io.fold(op, Constant(-1, array))


def axis_of(op: FileOperator, axis: int, rank: int) -> int:
    """A non-negative axis."""
    if not -rank <= axis < rank:
        refuse(op, f"axis {axis} of a tensor of {rank} dimensions")
    return axis % rank
