"""What each TFLite operator becomes: one small function per op, and the table `OPS` of them.

A rule looks its operands up, checks what the graph's op can't express, and emits one node (or
folds into a constant). The graph checks shapes; anything that has no exact equivalent is refused.

Source of each op's meaning: TensorFlow 2.18, tensorflow/lite/kernels/<op>.cc.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from npmobilenet.formats.tflite import shapes
from npmobilenet.formats.tflite.builder import Importer, refuse
from npmobilenet.formats.tflite.constants import INTEGER_DTYPES, Constant
from npmobilenet.formats.tflite.flatbuffer import FileOperator
from npmobilenet.formats.tflite.patterns import alone
from npmobilenet.graph import Padding, Tensor, same_padding

# schema.fbs, enum ActivationFunctionType and enum Padding
_FUSED = {0: "none", 1: "relu", 2: "relu_n1_to_1", 3: "relu6"}
_SAME, _VALID = 0, 1
_DEFAULT_WEIGHTS_FORMAT = 0
_NHWC_RANK = 4

# Weights' dtypes for each dtype of the input: legacy uint8, int8 per channel, int16 activations.
_INTEGER_WEIGHTS = {"uint8": "uint8", "int8": "int8", "int16": "int8"}
_BIAS = {"float32": ("float32",), "uint8": ("int32",), "int8": ("int32",), "int16": ("int64", "int32")}

Rule = Callable[[Importer, FileOperator], None]


def _activation(op: FileOperator) -> dict[str, Any]:
    """The fused activation as a node attribute; none is left out."""
    code = op.options.get("FusedActivationFunction", 0)
    if code not in _FUSED:
        refuse(op, f"fused activation number {code}, expected one of {sorted(_FUSED.values())}")
    return {} if code == 0 else {"activation": _FUSED[code]}


def _window(op: FileOperator, x: Tensor, kernel: tuple[int, int]) -> dict[str, Any]:
    """Stride, dilation and explicit padding of a sliding window over the image `x`."""
    option = op.options.get
    if len(x.shape) != _NHWC_RANK:
        refuse(op, f"expected an input of 4 dimensions (NHWC), got {x.shape}")
    stride = int(option("StrideH", 0)), int(option("StrideW", 0))
    dilation = int(option("DilationHFactor", 1)), int(option("DilationWFactor", 1))
    if min(*stride, *dilation, *kernel) < 1:
        refuse(op, f"stride {stride}, dilation {dilation}, kernel {kernel}: expected 1 or more")
    kind = option("Padding", _SAME)
    padding: Padding = ((0, 0), (0, 0))
    if isinstance(kind, tuple):
        padding = kind  # explicit, from tflite_patterns
    elif kind == _SAME:
        sides = [same_padding(x.shape[1 + i], kernel[i], stride[i], dilation[i]) for i in (0, 1)]
        padding = (sides[0], sides[1])
    elif kind != _VALID:
        refuse(op, f"padding number {kind}, expected SAME (0) or VALID (1)")
    attrs: dict[str, Any] = {"stride": stride, "padding": padding}
    return attrs if dilation == (1, 1) else {**attrs, "dilation": dilation}


def _weights(io: Importer, op: FileOperator, x: Tensor, rank: int, channels: int) -> Constant:
    """The weights (input 1) in a dtype that fits the input's; `channels` is the axis of the output's.

    8-bit weights of a float op ("dynamic range" quantization) become float32: TFLite quantizes
    such an op's input while running, which is an approximation of what is computed here.
    """
    weights = io.constant(op, 1, "weights")
    dtype = str(weights.array.dtype)
    if weights.array.ndim != rank:
        refuse(op, f"expected weights of {rank} dimensions, got {weights.array.shape}")
    if x.dtype == "float32" and dtype in ("int8", "uint8"):
        io.dequantized.append(io.tensor(weights.index).name)
        return weights.dequantized()
    wanted = "float32" if x.dtype == "float32" else _INTEGER_WEIGHTS[x.dtype]
    if dtype != wanted:
        refuse(op, f"weights of {dtype} for an input of {x.dtype}, expected {wanted}")
    if weights.quantization is None and dtype != "float32":
        refuse(op, f"weights '{io.tensor(weights.index).name}' have no quantization parameters")
    if weights.quantization is not None and weights.quantization.axis not in (None, channels):
        refuse(op, f"weights with a scale for each index of axis {weights.quantization.axis}, expected {channels}")
    return weights


def _bias(io: Importer, op: FileOperator, x: Tensor, channels: int) -> str:
    """The bias (input 2) with one value for each output channel; zeros where there is none."""
    if io.value(op, 2) is None:
        return io.zeros(op, channels, _BIAS[x.dtype][0])
    bias = io.constant(op, 2, "bias")
    if str(bias.array.dtype) not in _BIAS[x.dtype] or bias.array.size != channels:
        refuse(op, f"bias of {bias.array.dtype} {bias.array.shape}, expected {channels} values of "
                   f"{' or '.join(_BIAS[x.dtype])}")  # fmt: skip
    return io.declare(op, bias if bias.array.ndim == 1 else bias.reshaped((channels,)))


def conv_2d(io: Importer, op: FileOperator) -> None:
    """Weights (out, kernel_h, kernel_w, in) become (kernel_h, kernel_w, in, out)."""
    x = io.activation(op)
    weights = _weights(io, op, x, 4, 0).transposed((1, 2, 3, 0))
    window = _window(op, x, (weights.array.shape[0], weights.array.shape[1]))
    inputs = [x.name, io.declare(op, weights, "conv"), _bias(io, op, x, weights.array.shape[3])]
    io.emit(op, "conv2d", inputs, **window, **_activation(op))


def depthwise_conv_2d(io: Importer, op: FileOperator) -> None:
    """Weights (1, kernel_h, kernel_w, channels * multiplier) lose their first dimension."""
    x = io.activation(op)
    weights = _weights(io, op, x, 4, 3)
    one, height, width, channels = weights.array.shape
    multiplier, rest = divmod(channels, x.shape[-1])
    given = int(op.options.get("DepthMultiplier", 0)) or multiplier
    if one != 1 or rest or given != multiplier:
        refuse(op, f"weights {weights.array.shape} and depth multiplier {given} for "
                   f"{x.shape[-1]} channels: expected (1, height, width, channels * multiplier)")  # fmt: skip
    kernel = weights.transposed((1, 2, 3, 0))  # the axis of the scales becomes 2
    flat = Constant(kernel.index, kernel.array.reshape(height, width, channels), kernel.quantization)
    attrs = {**_window(op, x, (height, width)), **_activation(op)}
    if multiplier != 1:
        attrs["multiplier"] = multiplier
    inputs = [x.name, io.declare(op, flat, "depthwise"), _bias(io, op, x, channels)]
    io.emit(op, "depthwise_conv2d", inputs, **attrs)


def fully_connected(io: Importer, op: FileOperator) -> None:
    """Weights (out, in) become (in, out). The input is read as rows of `in` values: size / in of them.

    One row for each image gives (batch, out). Several give (batch * rows, out), or with keep_num_dims, for which `in`
    must be the last dimension, that of the input with `out` instead.
    """
    x = io.activation(op, rows=True)
    if op.options.get("WeightsFormat", 0) != _DEFAULT_WEIGHTS_FORMAT:
        refuse(op, "shuffled weights are not supported; convert the model for CPUs in general")
    weights = _weights(io, op, x, 2, 0).transposed((1, 0))
    features, units = weights.array.shape
    rows, rest = divmod(x.size, features)
    keep = bool(op.options.get("KeepNumDims", False))
    if rest or (keep and x.shape[-1] != features):
        refuse(op, f"an input of shape {io.file_shape(x.name)} for weights of {features} inputs")
    inputs = [x.name, io.declare(op, weights, "fully_connected"), _bias(io, op, x, units)]
    attrs = _activation(op)
    if keep and len(x.shape) > 2:
        io.emit(op, "fully_connected", inputs, keepdims=True, **attrs)
        return
    if rows > 1:
        attrs["keepdims"] = True
        if x.shape != (1, rows, features):
            inputs[0] = io.emit_hidden(op, "reshape", inputs[:1], shape=(1, rows, features))
    io.emit(op, "fully_connected", inputs, rows=rows > 1, **attrs)


def average_pool_2d(io: Importer, op: FileOperator) -> None:
    """Pixels outside the image don't count, in the graph as in TFLite."""
    x = io.activation(op)
    kernel = int(op.options.get("FilterHeight", 0)), int(op.options.get("FilterWidth", 0))
    io.emit(op, "average_pool", [x.name], kernel=kernel, **_window(op, x, kernel), **_activation(op))


def mean(io: Importer, op: FileOperator) -> None:
    """Over height and width, in any order and with negative axes; other axes are refused."""
    x = io.activation(op)
    axes = {shapes.axis_of(op, a, len(x.shape)) for a in io.integers(op, 1, "axes")}
    if axes != {1, 2} or len(x.shape) != _NHWC_RANK:
        refuse(op, f"the mean of {x.shape} over axes {sorted(axes)}; supported: (1, 2) of NHWC")
    io.emit(op, "mean", [x.name], keepdims=bool(op.options.get("KeepDims", False)))


def binary(kind: str) -> Rule:
    """ADD, SUB, MUL of two tensors, one of which may be constant; of two integer constants, folded."""

    def rule(io: Importer, op: FileOperator) -> None:
        values = [io.value(op, 0), io.value(op, 1)]
        if None in values:
            refuse(op, "expected two operands")
        if all(isinstance(v, Constant) for v in values):
            if _activation(op):
                refuse(op, "a fused activation on constants is not supported")
            shapes.fold_binary(io, op, kind)
            return
        rank = max(len(io.builder.tensors[v].shape) for v in values if isinstance(v, str))
        inputs = [
            v if isinstance(v, str) else _broadcast(io, op, io.constant(op, i, "an operand"), rank)
            for i, v in enumerate(values)
        ]
        _same_dtype(io, op, inputs)
        io.emit(op, kind, inputs, **_activation(op))

    return rule


def _broadcast(io: Importer, op: FileOperator, value: Constant, rank: int, layout: str = "") -> str:
    """Declare a constant operand with ones in front up to `rank`, as broadcasting reads it."""
    shape = value.array.shape
    if len(shape) > rank:
        refuse(op, f"a constant of shape {shape} and a tensor of {rank} dimensions")
    shape = (1,) * (rank - len(shape)) + shape
    if shape[0] != 1:
        refuse(op, f"a constant of shape {shape}: its first dimension would vary with the batch")
    return io.declare(op, value.reshaped(shape), layout)


def _same_dtype(io: Importer, op: FileOperator, names: Sequence[str]) -> None:
    dtypes = {io.builder.tensors[name].dtype for name in names}
    if len(dtypes) != 1:
        refuse(op, f"operands of different types: {', '.join(sorted(dtypes))}")
    if dtypes & set(INTEGER_DTYPES) and any(io.builder.tensors[n].quantization is None for n in names):
        refuse(op, "an integer operand has no quantization parameters")


def divide(io: Importer, op: FileOperator) -> None:
    """By a constant whose reciprocals are exact (powers of two): a multiplication, bit for bit."""
    x, divisor = io.activation(op, 0), io.constant(op, 1, "a divisor")
    mantissa, exponent = np.frexp(np.abs(divisor.array))
    if x.dtype != "float32" or divisor.array.dtype != np.float32:
        refuse(op, f"a division of {x.dtype} by {divisor.array.dtype}; supported: float32")
    if not ((mantissa == 0.5) & (np.abs(exponent) < 120)).all():
        refuse(op, "a division by a constant that isn't a power of two would not be exact as a "
                   "multiplication; export the model with the multiplication written out")  # fmt: skip
    reciprocal = Constant(divisor.index, np.float32(1) / divisor.array)
    io.emit(op, "mul", [x.name, _broadcast(io, op, reciprocal, len(x.shape), "reciprocal")], **_activation(op))


def activation(function: str) -> Rule:
    """A function of one tensor, element by element."""

    def rule(io: Importer, op: FileOperator) -> None:
        io.emit(op, "activation", [io.activation(op, rows=True).name], function=function)

    return rule


def softmax(io: Importer, op: FileOperator) -> None:
    """Over the last dimension."""
    beta = float(op.options.get("Beta", 0.0))
    if not (math.isfinite(beta) and beta > 0):
        refuse(op, f"beta {beta}, expected a positive number")
    io.emit(op, "softmax", [io.activation(op, rows=True).name], beta=beta)


def pad(io: Importer, op: FileOperator) -> None:
    """With zeros, constant amounts, height and width only."""
    x, amounts = io.activation(op), io.integers(op, 1, "paddings")
    pairs = list(zip(amounts[::2], amounts[1::2], strict=False))
    if len(x.shape) != _NHWC_RANK or len(amounts) != 2 * _NHWC_RANK or min(amounts) < 0:
        refuse(op, f"paddings {pairs} of {x.shape}, expected 4 pairs of 0 or more for NHWC")
    if pairs[0] != (0, 0) or pairs[3] != (0, 0):
        refuse(op, f"paddings {pairs}: batch and channels can't be padded, only height and width")
    io.emit(op, "pad", [x.name], padding=(pairs[1], pairs[2]))


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
    _same_dtype(io, op, names)
    attrs = _activation(op)
    io.emit(op, "concat", names, axis=shapes.axis_of(op, axis, len(tensors[0].shape)), **attrs)


def resize_bilinear(io: Importer, op: FileOperator) -> None:
    """To a constant size (height, width)."""
    x, size = io.activation(op), io.integers(op, 1, "a size")
    corners = bool(op.options.get("AlignCorners", False))
    centers = bool(op.options.get("HalfPixelCenters", False))
    if len(size) != 2 or (corners and centers):
        refuse(op, f"size {size}, align_corners {corners}, half_pixel_centers {centers}")
    io.emit(op, "resize_bilinear", [x.name], size=size, align_corners=corners,
            half_pixel_centers=centers)  # fmt: skip


def quantize(io: Importer, op: FileOperator) -> None:
    """From float32, or from one integer type or scale to another."""
    x = io.activation(op, rows=True)
    io.emit(op, "quantize", [x.name], dtype="any")
    if io.builder.tensors[io.builder.nodes[-1].output].dtype not in INTEGER_DTYPES:
        refuse(op, "its output is not an integer type")


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


OPS: Mapping[str, Rule] = MappingProxyType({
    "ADD": binary("add"),
    "AVERAGE_POOL_2D": average_pool_2d,
    "BATCH_TO_SPACE_ND": alone,
    "CAST": shapes.cast,
    "CONCATENATION": concatenation,
    "CONV_2D": conv_2d,
    "DEPTHWISE_CONV_2D": depthwise_conv_2d,
    "DEQUANTIZE": dequantize,
    "DIV": divide,
    "EXPAND_DIMS": shapes.expand_dims,
    "FULLY_CONNECTED": fully_connected,
    "GATHER": shapes.gather,
    "HARD_SWISH": activation("hard_swish"),
    "LOGISTIC": activation("sigmoid"),
    "MEAN": mean,
    "MUL": binary("mul"),
    "PACK": shapes.pack,
    "PAD": pad,
    "QUANTIZE": quantize,
    "REDUCE_PROD": shapes.reduce_prod,
    "RELU": activation("relu"),
    "RELU6": activation("relu6"),
    "RELU_N1_TO_1": activation("relu_n1_to_1"),
    "RESHAPE": shapes.reshape,
    "RESIZE_BILINEAR": resize_bilinear,
    "SHAPE": shapes.shape_of,
    "SOFTMAX": softmax,
    "SPACE_TO_BATCH_ND": alone,
    "SQUEEZE": shapes.squeeze,
    "STRIDED_SLICE": shapes.strided_slice,
    "SUB": binary("sub"),
})  # fmt: skip
