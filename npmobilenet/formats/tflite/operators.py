"""What each TFLite operator becomes: one small function per op, and the table `OPS` of them.

A rule looks its operands up, checks what the graph's op can't express, and emits one node (or
folds into a constant). The graph checks shapes; anything that has no exact equivalent is refused.

Source of each op's meaning: TensorFlow 2.18, tensorflow/lite/kernels/<op>.cc.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np

from npmobilenet.formats.tflite import functions, layers, parts, products, reductions, shapes
from npmobilenet.formats.tflite.builder import Importer, refuse
from npmobilenet.formats.tflite.constants import (
    CONSTANT_DTYPES,
    INDEX_DTYPES,
    INTEGER_DTYPES,
    ITSELF,
    Constant,
    read_quantization,
)
from npmobilenet.formats.tflite.flatbuffer import FileOperator
from npmobilenet.formats.tflite.layers import NHWC_RANK, Rule, fused_activation
from npmobilenet.formats.tflite.patterns import alone
from npmobilenet.graph import Tensor
from npmobilenet.modeldata import Array


def transpose(io: Importer, op: FileOperator) -> None:
    """Axes in another constant order, the batch staying in front; a reshape where only axes of length 1 move."""
    x, order = io.activation(op, rows=True), io.integers(op, 1, "an order of axes")
    hidden = x.name in io.in_rows  # the file's axis 0 is the graph's axis 1, of one image
    if hidden and io.batch == 1:
        order = (0, *(axis + 1 for axis in order))
    if sorted(order) != list(range(len(x.shape))) or order[0] != 0:
        refuse(op, f"axes of {io.file_shape(x.name)} in the order {order}: expected all of them, the batch in front")
    shape = tuple(x.shape[axis] for axis in order)
    moved = [axis for axis in order if x.shape[axis] > 1]
    if moved == sorted(moved):
        io.emit(op, "reshape", [x.name], shape=shape)
    else:
        io.emit(op, "transpose", [x.name], order=order)


def split(io: Importer, op: FileOperator) -> None:
    """Equal parts along a constant axis, or with SPLIT_V parts of constant lengths: a slice for each output."""
    equal = op.op == "SPLIT"
    x, axes = io.activation(op, 1 if equal else 0), io.integers(op, 0 if equal else 2, "an axis")
    axis = shapes.axis_of(op, axes[0], len(x.shape)) if len(axes) == 1 else 0
    count = len(op.outputs)
    lengths = (x.shape[axis] // count,) * count if equal else io.integers(op, 1, "lengths")
    if axis == 0 or sum(lengths) != x.shape[axis] or len(lengths) != count or min(lengths) < 1:
        refuse(op, f"{io.file_shape(x.name)} along the axes {axes} into parts of {lengths}")
    for i, output in enumerate(op.outputs):
        part = replace(op, inputs=(op.inputs[1 if equal else 0],), outputs=(output,))
        io.emit(part, "slice", [x.name], axis=axis, first=sum(lengths[:i]), length=lengths[i])


def arg_max(io: Importer, op: FileOperator) -> None:
    """Along a constant axis; the output's type is what the file declares, int32 or int64."""
    x, axes = io.activation(op), io.integers(op, 1, "an axis")
    if len(axes) != 1 or (axis := shapes.axis_of(op, axes[0], len(x.shape))) == 0:
        refuse(op, f"over the axes {axes} of {io.file_shape(x.name)}; supported: one, not the batch")
    io.emit(op, "arg_max", [x.name], dtype="any", axis=axis)


def prelu(io: Importer, op: FileOperator) -> None:
    """The factors of negative values are constant, one for each channel, or pixel, or for all."""
    x, alpha = io.activation(op), io.constant(op, 1, "factors")
    shape = alpha.array.shape
    name = io.declare(op, alpha.reshaped((1,) * (len(x.shape) - len(shape)) + shape), "prelu")
    functions.same_dtype(io, op, [x.name, name])
    io.emit(op, "prelu", [x.name, name])


def leaky_relu(io: Importer, op: FileOperator) -> None:
    """The factor of negative values is an option."""
    io.emit(op, "leaky_relu", [io.activation(op, rows=True).name], alpha=float(op.options.get("Alpha", 0.0)))


def cast(io: Importer, op: FileOperator) -> None:
    """To float32, of 8-bit values that stand for themselves (scale 1, zero point 0); of constants, folded.

    Of ARG_MAX's places: to any type, as another search, whose result is written in it.
    """
    if isinstance(io.value(op, 0), Constant):
        shapes.cast(io, op)
        return
    x = io.activation(op, rows=True)
    if x.dtype in INDEX_DTYPES.values():
        _cast_places(io, op, x)
        return
    if x.dtype not in ("uint8", "int8") or x.quantization != ITSELF or io.tensor(op.outputs[0]).type != "FLOAT32":
        q = "" if x.quantization is None else f" of scale {x.quantization.scale[0]:g}"
        refuse(op, f"from {x.dtype}{q} to {io.tensor(op.outputs[0]).type}; supported: a uint8 or int8 input without a "
                   "scale to FLOAT32")  # fmt: skip
    io.emit(op, "dequantize", [x.name], dtype="any")


def _cast_places(io: Importer, op: FileOperator, x: Tensor) -> None:
    dtype = {**INDEX_DTYPES, "FLOAT32": "float32", "UINT8": "uint8"}.get(io.tensor(op.outputs[0]).type, "")
    name = x.name
    for found in reversed(io.builder.nodes):
        if found.output == name and found.op == "arg_max":
            break
        name = found.inputs[0] if found.output == name else name
    axis = int(found.attrs["axis"])
    if not dtype or (dtype == "uint8" and io.builder.tensors[found.inputs[0]].shape[axis] > 256):
        refuse(op, f"from {x.dtype} to {io.tensor(op.outputs[0]).type}; supported: to INT32, INT64, FLOAT32, and of up "
                   "to 256 places to UINT8")  # fmt: skip
    if found.output == x.name:
        io.emit(op, "arg_max", found.inputs, dtype="any", axis=axis)
    else:
        place = io.emit_hidden(op, "arg_max", found.inputs, dtype=dtype, axis=axis)
        io.emit(op, "reshape", [place], dtype="any", shape=x.shape)


def binary(kind: str) -> Rule:
    """ADD, SUB, MUL of two tensors, one of which may be constant; of two integer constants, folded."""

    def rule(io: Importer, op: FileOperator) -> None:
        values = [io.value(op, 0), io.value(op, 1)]
        if None in values:
            refuse(op, "expected two operands")
        if all(isinstance(v, Constant) for v in values):
            if fused_activation(op):
                refuse(op, "a fused activation on constants is not supported")
            shapes.fold_binary(io, op, kind)
            return
        io.emit(op, kind, functions.operands(io, op), **fused_activation(op))

    return rule


def softmax(io: Importer, op: FileOperator) -> None:
    """Over the last dimension."""
    beta = float(op.options.get("Beta", 0.0))
    if not (math.isfinite(beta) and beta > 0):
        refuse(op, f"beta {beta}, expected a positive number")
    io.emit(op, "softmax", [io.activation(op, rows=True).name], beta=beta)


def pad(io: Importer, op: FileOperator) -> None:
    """A constant amount of height and width, which are axes 1 and 2 or, with channels first, 2 and 3."""
    x, amounts = io.activation(op), io.integers(op, 1, "paddings")
    fill: dict[str, Any] = parts.fill_of(io, op, x) if op.op == "PADV2" else {}
    pairs = list(zip(amounts[::2], amounts[1::2], strict=False))
    if len(x.shape) != NHWC_RANK or len(amounts) != 2 * NHWC_RANK or min(amounts) < 0:
        refuse(op, f"paddings {pairs} of {x.shape}, expected 4 pairs of 0 or more for NHWC")
    if pairs[:2] == [(0, 0), (0, 0)] and pairs[3] != (0, 0):  # channels first: the transposes vanish beside others
        y = io.emit_hidden(op, "transpose", [x.name], order=(0, 2, 3, 1))
        y = io.emit_hidden(op, "pad", [y], padding=(pairs[2], pairs[3]), **fill)
        io.emit(op, "transpose", [y], order=(0, 3, 1, 2))
        return
    if pairs[0] != (0, 0) or pairs[3] != (0, 0):
        refuse(op, f"paddings {pairs}: batch and channels can't be padded, only height and width")
    io.emit(op, "pad", [x.name], padding=(pairs[1], pairs[2]), **fill)


def concatenation(io: Importer, op: FileOperator) -> None:
    """Along any axis but the batch; of integer constants, folded."""
    values = [io.value(op, i) for i in range(len(op.inputs))]
    axis = int(op.options.get("Axis", 0))
    if values and all(isinstance(v, Constant) for v in values):
        shapes.fold_concatenation(io, op, axis)
        return
    tensors = [io.activation(op, i) for i in range(len(values))]
    if not tensors:
        refuse(op, "expected at least one input")
    names = [tensor.name for tensor in tensors]
    functions.same_dtype(io, op, names)
    attrs = fused_activation(op)
    io.emit(op, "concat", names, axis=shapes.axis_of(op, axis, len(tensors[0].shape)), **attrs)


def resize(kind: str) -> Rule:
    """RESIZE_BILINEAR, RESIZE_NEAREST_NEIGHBOR: to a constant size (height, width)."""

    def rule(io: Importer, op: FileOperator) -> None:
        x, size = io.activation(op), io.integers(op, 1, "a size")
        corners = bool(op.options.get("AlignCorners", False))
        centers = bool(op.options.get("HalfPixelCenters", False))
        if len(size) != 2 or (corners and centers and kind == "resize_bilinear"):
            refuse(op, f"size {size}, align_corners {corners}, half_pixel_centers {centers}")
        io.emit(op, kind, [x.name], size=size, align_corners=corners, half_pixel_centers=centers)

    return rule


def quantize(io: Importer, op: FileOperator) -> None:
    """From float32, or from one integer type or scale to another; of float32 constants, folded."""
    value = io.value(op, 0)
    if isinstance(value, Constant) and value.array.dtype == np.float32:
        io.fold(op, _quantized(io, op, value.array))
        return
    x = io.activation(op, rows=True)
    io.emit(op, "quantize", [x.name], dtype="any")
    if io.builder.tensors[io.builder.nodes[-1].output].dtype not in INTEGER_DTYPES:
        refuse(op, "its output is not an integer type")


def _quantized(io: Importer, op: FileOperator, values: Array) -> Constant:
    """Weights as converters without optimizations leave those of a model trained to be quantized: round(v / scale) + z.

    Source: TensorFlow 2.18, tensorflow/lite/kernels/internal/reference/quantize.h, AffineQuantize, PerChannelQuantize.
    """
    tensor = io.tensor(op.outputs[0])
    dtype = CONSTANT_DTYPES.get(tensor.type, "")
    if dtype not in ("int8", "uint8") or tensor.shape != values.shape:
        refuse(op, f"of a constant {values.shape} to {tensor.type} {tensor.shape}; supported: int8 and uint8")
    q = read_quantization(tensor, dtype, constant=True)
    if q is None:
        refuse(op, "its output has no scale")
    along = [1] * values.ndim
    if q.axis is not None:
        along[q.axis] = -1
    scale, zero = np.array(q.scale, np.float32).reshape(along), np.array(q.zero_point).reshape(along)
    with np.errstate(all="ignore"):
        steps = (values / scale).astype(np.float64)
        whole = np.copysign(np.floor(np.abs(steps) + 0.5), steps) + zero  # ties away from zero
    limits = np.iinfo(dtype)
    return Constant(-1, np.clip(whole, limits.min, limits.max).astype(dtype), q)


def dequantize(io: Importer, op: FileOperator) -> None:
    """To float32; of a constant (float16 or 8-bit weights), folded."""
    value = io.value(op, 0)
    if isinstance(value, Constant):
        if str(value.array.dtype) not in (*INTEGER_DTYPES, "float16"):
            refuse(op, f"a constant of {value.array.dtype}; supported: float16, int8, uint8, int16")
        io.fold(op, value.dequantized())
        return
    x = io.activation(op, rows=True)
    io.emit(op, "dequantize", [x.name], dtype="any")
    if x.dtype not in INTEGER_DTYPES or io.builder.tensors[io.builder.nodes[-1].output].dtype != "float32":
        refuse(op, f"from {x.dtype}, expected an integer input and a float32 output")


def densify(io: Importer, op: FileOperator) -> None:
    """A constant without its zeros, which are in it already where it was read."""
    io.fold(op, io.constant(op, 0, "values"))


OPS: Mapping[str, Rule] = MappingProxyType({
    "ABS": functions.unary("abs"),
    "ADD": binary("add"),
    "ARG_MAX": arg_max,
    "AVERAGE_POOL_2D": layers.pool("average_pool"),
    "BATCH_MATMUL": products.batch_matmul,
    "BATCH_TO_SPACE_ND": alone,
    "BROADCAST_TO": products.broadcast_to,
    "CAST": cast,
    "CONCATENATION": concatenation,
    "CONV_2D": layers.conv_2d,
    "DENSIFY": densify,
    "DEPTHWISE_CONV_2D": layers.depthwise_conv_2d,
    "DEPTH_TO_SPACE": parts.blocks(into_space=True),
    "DEQUANTIZE": dequantize,
    "DIV": functions.divide,
    "ELU": functions.unary("elu"),
    "EXP": functions.unary("exp"),
    "EXPAND_DIMS": shapes.expand_dims,
    "FULLY_CONNECTED": products.fully_connected,
    "GATHER": parts.gather,
    "GELU": functions.gelu,
    "HARD_SWISH": functions.activation("hard_swish"),
    "L2_NORMALIZATION": functions.l2_normalization,
    "LEAKY_RELU": leaky_relu,
    "LOG": functions.unary("log"),
    "LOG_SOFTMAX": reductions.log_softmax,
    "LOGISTIC": functions.activation("sigmoid"),
    "MAXIMUM": functions.extremum("maximum"),
    "MAX_POOL_2D": layers.pool("max_pool"),
    "MEAN": reductions.mean,
    "MINIMUM": functions.extremum("minimum"),
    "MIRROR_PAD": parts.mirror_pad,
    "MUL": binary("mul"),
    "NEG": functions.negative,
    "PACK": parts.pack,
    "PAD": pad,
    "PADV2": pad,
    "PRELU": prelu,
    "QUANTIZE": quantize,
    "REDUCE_MAX": reductions.greatest,
    "REDUCE_MIN": reductions.least,
    "REDUCE_PROD": shapes.reduce_prod,
    "RELU": functions.activation("relu"),
    "RELU6": functions.activation("relu6"),
    "RELU_0_TO_1": functions.activation("relu_0_to_1"),
    "RELU_N1_TO_1": functions.activation("relu_n1_to_1"),
    "RESHAPE": shapes.reshape,
    "RESIZE_BILINEAR": resize("resize_bilinear"),
    "RESIZE_NEAREST_NEIGHBOR": resize("resize_nearest"),
    "REVERSE_V2": parts.reverse,
    "RSQRT": functions.unary("rsqrt"),
    "SHAPE": shapes.shape_of,
    "SLICE": parts.slice_,
    "SOFTMAX": softmax,
    "SPACE_TO_BATCH_ND": alone,
    "SPACE_TO_DEPTH": parts.blocks(into_space=False),
    "SPLIT": split,
    "SPLIT_V": split,
    "SQRT": functions.unary("sqrt"),
    "SQUARE": functions.square,
    "SQUARED_DIFFERENCE": functions.square,
    "SQUEEZE": shapes.squeeze,
    "STRIDED_SLICE": parts.strided_slice,
    "SUB": binary("sub"),
    "SUM": reductions.total,
    "TANH": functions.unary("tanh"),
    "TILE": parts.tile,
    "TRANSPOSE": transpose,
    "TRANSPOSE_CONV": layers.transpose_conv,
    "UNPACK": parts.unpack,
})  # fmt: skip
