"""What convolutions, fully connected layers and pools become: operators with weights or windows.

Source of each op's meaning: TensorFlow 2.18, tensorflow/lite/kernels/conv.cc, depthwise_conv.cc, fully_connected.cc,
pooling.cc.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from npmobilenet.formats.between_zeros import spread, transposed_padding
from npmobilenet.formats.tflite.builder import Importer, refuse
from npmobilenet.formats.tflite.constants import Constant
from npmobilenet.formats.tflite.flatbuffer import FileOperator
from npmobilenet.graph import Padding, Quantization, Tensor, same_padding

# schema.fbs, enum ActivationFunctionType and enum Padding
_FUSED = {0: "none", 1: "relu", 2: "relu_n1_to_1", 3: "relu6"}
_SAME, _VALID = 0, 1
_DEFAULT_WEIGHTS_FORMAT = 0
NHWC_RANK = 4

Rule = Callable[[Importer, FileOperator], None]

# Weights' dtypes for each dtype of the input: legacy uint8, int8 per channel, int16 activations.
_INTEGER_WEIGHTS = {"uint8": "uint8", "int8": "int8", "int16": "int8"}
_BIAS = {"float32": ("float32",), "uint8": ("int32",), "int8": ("int32",), "int16": ("int64", "int32")}


def fused_activation(op: FileOperator) -> dict[str, Any]:
    """The fused activation as a node attribute; none is left out."""
    code = op.options.get("FusedActivationFunction", 0)
    if code not in _FUSED:
        refuse(op, f"fused activation number {code}, expected one of {sorted(_FUSED.values())}")
    return {} if code == 0 else {"activation": _FUSED[code]}


def _is_dynamic(x: Tensor, weights: Constant) -> bool:
    """Whether TFLite quantizes the layer's input while running."""
    return x.dtype == "float32" and weights.array.dtype == np.int8


def _window(op: FileOperator, x: Tensor, kernel: tuple[int, int], weights: Constant | None = None) -> dict[str, Any]:
    """Stride, dilation and explicit padding of a sliding window over the image `x`."""
    option = op.options.get
    if len(x.shape) != NHWC_RANK:
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
    if isinstance(kind, tuple) and weights is not None and _is_dynamic(x, weights):
        attrs["by_blocks"] = True  # TFLite sees a batch of blocks, and gives each a scale of its own
    return attrs if dilation == (1, 1) else {**attrs, "dilation": dilation}


def _weights(io: Importer, op: FileOperator, x: Tensor, rank: int, channels: int) -> Constant:
    """The weights (input 1) in a dtype that fits the input's; `channels` is the axis of the output's.

    int8 weights of a float op stay: TFLite quantizes such an op's input while running ("dynamic range").
    """
    weights = io.constant(op, 1, "weights")
    dtype = str(weights.array.dtype)
    if weights.array.ndim != rank:
        refuse(op, f"expected weights of {rank} dimensions, got {weights.array.shape}")
    q, dynamic = weights.quantization, _is_dynamic(x, weights)
    if dynamic and (q is None or any(q.zero_point) or q.axis not in (None, channels)):
        refuse(op, "int8 weights of a float32 input need scales for all or for each output channel, zero points 0")
    if dynamic:
        return weights
    if x.dtype == "float32" and dtype == "uint8":  # as converters wrote it in 2018
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


def _bias_values(io: Importer, op: FileOperator, x: Tensor, channels: int) -> Constant:
    """The bias (input 2) with one value for each output channel; zeros where there is none."""
    if io.value(op, 2) is None:
        return Constant(-op.outputs[0] - 1, np.zeros(channels, _BIAS[x.dtype][0]))
    bias = io.constant(op, 2, "bias")
    if str(bias.array.dtype) not in _BIAS[x.dtype] or bias.array.size != channels:
        refuse(op, f"bias of {bias.array.dtype} {bias.array.shape}, expected {channels} values of "
                   f"{' or '.join(_BIAS[x.dtype])}")  # fmt: skip
    return bias if bias.array.ndim == 1 else bias.reshaped((channels,))


def _bias(io: Importer, op: FileOperator, x: Tensor, channels: int) -> str:
    return io.declare(op, _bias_values(io, op, x, channels))


def conv_2d(io: Importer, op: FileOperator) -> None:
    """Weights (out, kernel_h, kernel_w, in) become (kernel_h, kernel_w, in, out).

    Weights of fewer channels than the input has are those of groups of channels, each with its part of the outputs.
    """
    x = io.activation(op)
    weights = _weights(io, op, x, 4, 0).transposed((1, 2, 3, 0))
    height, width, depth, channels = weights.array.shape
    window = {**_window(op, x, (height, width), weights), **fused_activation(op)}
    groups, rest = divmod(x.shape[-1], depth)
    if groups > 1 and not rest and channels % groups == 0:
        if _is_dynamic(x, weights):
            refuse(op, "groups of channels with int8 weights on a float32 input are not supported; convert the model "
                       "without optimizations, or with 8-bit activations")  # fmt: skip
        _grouped(io, op, x, weights, groups, window)
        return
    inputs = [x.name, io.declare(op, weights, "conv"), _bias(io, op, x, channels)]
    io.emit(op, "conv2d", inputs, **window)


def _grouped(io: Importer, op: FileOperator, x: Tensor, weights: Constant, groups: int, attrs: dict[str, Any]) -> None:
    """One convolution for each group, of a slice of the input; or, of groups of one channel, a depthwise convolution.

    `grouped` says so: LiteRT's optimized kernels leave such a convolution to the reference kernel.
    """
    height, width, depth, channels = weights.array.shape
    each = channels // groups
    if depth == 1:
        q = weights.quantization
        q = replace(q, axis=2) if q is not None and q.axis is not None else q
        flat = Constant(weights.index, weights.array.reshape(height, width, channels), q)
        inputs = [x.name, io.declare(op, flat, "grouped"), _bias(io, op, x, channels)]
        more = {"multiplier": each} if each > 1 else {}
        io.emit(op, "depthwise_conv2d", inputs, grouped=True, **attrs, **more)
        return
    bias = _bias_values(io, op, x, channels)
    parts = []
    for group in range(groups):
        part = io.emit_hidden(op, "slice", [x.name], axis=3, first=group * depth, length=depth)
        name = io.declare(op, weights.part(3, group * each, each), f"group {group}")
        add = io.declare(op, bias.part(0, group * each, each), f"group {group}")
        parts.append(io.emit_hidden(op, "conv2d", [part, name, add], like_output=True, grouped=True, **attrs))
    io.emit(op, "concat", parts, axis=3)


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
    attrs = {**_window(op, x, (height, width), weights), **fused_activation(op)}
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
    attrs = fused_activation(op)
    if _is_dynamic(x, weights):
        attrs["asymmetric"] = bool(op.options.get("AsymmetricQuantizeInputs", False))
    if keep and len(x.shape) > 2:
        io.emit(op, "fully_connected", inputs, keepdims=True, **attrs)
        return
    if rows > 1:
        attrs["keepdims"] = True
        if x.shape != (1, rows, features):
            inputs[0] = io.emit_hidden(op, "reshape", inputs[:1], shape=(1, rows, features))
    io.emit(op, "fully_connected", inputs, rows=rows > 1, **attrs)


def pool(kind: str) -> Rule:
    """AVERAGE_POOL_2D, MAX_POOL_2D: pixels outside the image don't count, in the graph as in TFLite."""

    def rule(io: Importer, op: FileOperator) -> None:
        x = io.activation(op)
        kernel = int(op.options.get("FilterHeight", 0)), int(op.options.get("FilterWidth", 0))
        io.emit(op, kind, [x.name], kernel=kernel, **_window(op, x, kernel), **fused_activation(op))

    return rule


def transpose_conv(io: Importer, op: FileOperator) -> None:
    """A convolution of the image with zeros between its pixels, by the weights turned around.

    Zeros add nothing to an accumulator, so that integers are the same. `grouped`: LiteRT rounds as its reference
    kernel does. Inputs: the output's shape, weights (out, kernel_h, kernel_w, in), the image, a bias or none.

    Source: LiteRT, tflite/kernels/transpose_conv.cc, internal/reference/transpose_conv.h, commit f67457790.
    """
    if len(op.inputs) < 3:
        refuse(op, f"{len(op.inputs)} inputs, expected a shape, weights, an image, and a bias or none")
    turned = replace(op, inputs=(op.inputs[2], op.inputs[1], *op.inputs[3:]))
    x, size = io.activation(turned), io.integers(op, 0, "a shape")
    weights = _weights(io, turned, x, 4, 0)
    if _is_dynamic(x, weights):  # which TFLite has no integer kernel for
        weights = weights.dequantized()
    weights = weights.transposed((1, 2, 3, 0))
    height, width, _, channels = weights.array.shape
    step = int(op.options.get("StrideH", 0)), int(op.options.get("StrideW", 0))
    if len(size) != NHWC_RANK or len(x.shape) != NHWC_RANK or min(*step, *size) < 1:
        refuse(op, f"an output of {size} from {x.shape} by steps of {step}")
    same = op.options.get("Padding") == 0
    pads = transposed_padding(x.shape, size[1:3], (height, width), step, same)
    if min(map(min, pads)) < 0:
        refuse(op, f"an output of {size} from {x.shape}: it leaves pixels out")
    name = x.name
    for kind, change in spread(x.shape, step):
        name = io.emit_hidden(op, kind, [name], **change)
    flipped = Constant(weights.index, np.ascontiguousarray(weights.array[::-1, ::-1]), weights.quantization)
    bias = _bias_values(io, turned, x, channels)
    if bias.index < 0 and x.quantization is not None and weights.quantization is not None:  # XNNPACK takes it without
        scale = tuple(s * x.quantization.scale[0] for s in weights.quantization.scale)
        bias = replace(bias, quantization=Quantization(scale, (0,) * len(scale), 0 if len(scale) > 1 else None))
    inputs = [name, io.declare(op, flipped, "transposed"), io.declare(op, bias)]
    grouped = {} if x.dtype == "float32" else {"grouped": True}
    attrs = {"stride": (1, 1), "padding": pads, **fused_activation(op), **grouped}
    io.emit(op, "conv2d", inputs, **attrs)
