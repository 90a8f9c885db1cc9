"""Convolutions, dense layers and pools.

Source: Keras 3.15.1, keras/src/layers/convolutional, layers/core/dense.py, layers/pooling; keras/src/backend/common/
backend_utils.py (compute_conv_transpose_output_shape).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from npmobilenet.errors import ConversionError
from npmobilenet.formats.batch_norm import fold_batch_norm
from npmobilenet.formats.between_zeros import spread, transposed_padding
from npmobilenet.formats.keras.affine import axis_is_last, statistics
from npmobilenet.formats.keras.functions import activated, function_name
from npmobilenet.formats.keras.moves import channels_last
from npmobilenet.formats.keras.sheet import Rule, Sheet, refuse
from npmobilenet.formats.keras.topology import Call
from npmobilenet.modeldata import Array
from npmobilenet.ops import Padding, same_padding

F = np.float32


def _pair(call: Call, key: str, default: int = 1) -> tuple[int, int]:
    value = call.config.get(key, default)
    pair = (value, value) if isinstance(value, int) else tuple(value or (default, default))
    if len(pair) != 2 or not all(isinstance(v, int) and not isinstance(v, bool) and v > 0 for v in pair):
        refuse(call, f"{key} is {value!r:.80}, expected one or two whole numbers of at least 1")
    return pair[0], pair[1]


def _padding(
    sheet: Sheet, call: Call, x: str, kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int]
) -> tuple[str, Padding]:
    """The tensor to read and its padding: of a ZeroPadding2D before, which nobody else reads, that one's input."""
    said = str(call.config.get("padding", "valid"))
    if said == "same":
        shape = sheet.shape(x)
        return x, (same_padding(shape[1], kernel[0], stride[0], dilation[0]),
                   same_padding(shape[2], kernel[1], stride[1], dilation[1]))  # fmt: skip
    if said != "valid":
        refuse(call, f"its padding is {said!r:.40}, expected 'same' or 'valid'")
    return sheet.unpadded(x)


def _window(sheet: Sheet, call: Call, x: str, kernel: tuple[int, int]) -> tuple[str, dict[str, Any]]:
    channels_last(call)
    if len(sheet.shape(x)) != 4:
        refuse(call, f"its input has the shape {sheet.shape(x)}, expected (1, height, width, channels)")
    stride, dilation = _pair(call, "strides"), _pair(call, "dilation_rate")
    x, padding = _padding(sheet, call, x, kernel, stride, dilation)
    return x, {"stride": stride, "padding": padding, "dilation": dilation}


def _positive(call: Call, key: str, default: int | None = None, most: int = 2**24 - 1) -> int:
    value = call.config.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        refuse(call, f"{key} is {value!r:.40}, expected a whole number of at least 1")
    return value


def conv2d(sheet: Sheet, call: Call) -> str:
    """kernel (height, width, in / groups, out), bias (out,); with a group for each channel it is a depthwise one.

    Groups are convolutions of slices of the input, their results side by side.
    """
    kernel = _pair(call, "kernel_size")
    x, attrs = _window(sheet, call, sheet.operand(call), kernel)
    channels, filters = sheet.shape(x)[3], _positive(call, "filters")
    groups = call.config.get("groups", 1)
    if groups == 1:
        weights = sheet.variable(call, "kernel", (*kernel, channels, filters))
        return _biased(sheet, call, "conv2d", x, weights, attrs)
    groups = _positive(call, "groups")
    if channels % groups or filters % groups:
        refuse(call, f"{groups} groups of {channels} channels and {filters} filters: they don't divide")
    if groups != channels:
        weights = sheet.variable(call, "kernel", (*kernel, channels // groups, filters))
        return _biased(sheet, call, "conv2d", x, weights, attrs, groups)
    weights = sheet.variable(call, "kernel", (*kernel, 1, filters))
    attrs["multiplier"] = filters // channels
    return _biased(sheet, call, "depthwise_conv2d", x, weights.reshape(*kernel, filters), attrs)


def depthwise_conv2d(sheet: Sheet, call: Call) -> str:
    """kernel (height, width, channels, multiplier); output channel c * multiplier + m reads channel c."""
    kernel = _pair(call, "kernel_size")
    x, attrs = _window(sheet, call, sheet.operand(call), kernel)
    channels, multiplier = sheet.shape(x)[3], _positive(call, "depth_multiplier", 1, 2**16 - 1)
    weights = sheet.variable(call, "depthwise_kernel", (*kernel, channels, multiplier))
    attrs["multiplier"] = multiplier
    return _biased(sheet, call, "depthwise_conv2d", x, weights.reshape(*kernel, -1), attrs)


def separable_conv2d(sheet: Sheet, call: Call) -> str:
    """A depthwise convolution, and a 1 x 1 convolution of its result; one bias, behind both."""
    kernel = _pair(call, "kernel_size")
    x, attrs = _window(sheet, call, sheet.operand(call), kernel)
    channels, multiplier = sheet.shape(x)[3], _positive(call, "depth_multiplier", 1, 2**16 - 1)
    deep = sheet.variable(call, "depthwise_kernel", (*kernel, channels, multiplier)).reshape(*kernel, -1)
    wide = channels * multiplier
    pointwise = sheet.variable(call, "pointwise_kernel", (1, 1, wide, _positive(call, "filters")))
    middle = sheet.weighted("depthwise_conv2d", x, deep, np.zeros(wide, F), f"{call.name}_depthwise",
                            **attrs, multiplier=multiplier)  # fmt: skip
    plain: dict[str, Any] = {"stride": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1)}
    return _biased(sheet, call, "conv2d", middle, pointwise, plain)


def conv2d_transpose(sheet: Sheet, call: Call) -> str:
    """kernel (height, width, out, in): a convolution of the image with zeros between its pixels."""
    channels_last(call)
    x, kernel, step = sheet.operand(call), _pair(call, "kernel_size"), _pair(call, "strides")
    if _pair(call, "dilation_rate") != (1, 1) or call.config.get("output_padding") is not None:
        refuse(call, "a dilation or an output padding has no node here")
    same = call.config.get("padding", "valid") == "same"
    filters, shape = _positive(call, "filters"), sheet.shape(x)
    size = [shape[1 + i] * step[i] + (0 if same else max(kernel[i] - step[i], 0)) for i in (0, 1)]
    weights = sheet.variable(call, "kernel", (*kernel, filters, shape[3]))
    for op, attrs in spread(shape, step):
        x = sheet.node(op, [x], f"{call.name}_spread", **attrs)
    attrs = {"stride": (1, 1), "padding": transposed_padding(shape, size, kernel, step, same)}
    return _biased(sheet, call, "conv2d", x, weights[::-1, ::-1].transpose(0, 1, 3, 2), attrs)


def dense(sheet: Sheet, call: Call) -> str:
    """kernel (in, out); on more than two dimensions it works on the last one, as a 1 x 1 convolution does."""
    x = sheet.operand(call)
    shape, units = sheet.shape(x), _positive(call, "units")
    weights = sheet.variable(call, "kernel", (shape[-1], units))
    if len(shape) == 2:
        return _biased(sheet, call, "fully_connected", x, weights, {})
    rows = math.prod(shape[1:-1])
    if len(shape) != 4:
        x = sheet.node("reshape", [x], f"{call.name}_rows", shape=(1, 1, rows, shape[-1]))
    attrs: dict[str, Any] = {"stride": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1)}
    y = _biased(sheet, call, "conv2d", x, weights.reshape(1, 1, *weights.shape), attrs)
    return y if len(shape) == 4 else sheet.node("reshape", [y], call.name, shape=(*shape[:-1], units))


def _biased(
    sheet: Sheet, call: Call, op: str, x: str, weights: Array, attrs: Mapping[str, Any], groups: int = 1
) -> str:
    """The node, its batch norm folded in where one follows alone, and the layer's own activation."""
    channels = weights.shape[-1]
    bias = sheet.variable(call, "bias", (channels,)) if call.config.get("use_bias", True) else np.zeros(channels, F)
    linear = function_name(call.config.get("activation")) == "linear"
    name, norm = call.name if linear else f"{call.name}/linear", None
    if linear:
        norm = sheet.only_reader(call, "BatchNormalization")
    if norm is not None and axis_is_last(norm, sheet.rank_after(op)):
        gamma, beta, mean, variance, epsilon = statistics(sheet, norm, channels)
        try:
            weights, shift = fold_batch_norm(weights, gamma, beta, mean, variance, epsilon)
            bias = shift if not bias.any() else fold_batch_norm(weights, gamma, beta, mean - bias, variance, epsilon)[1]
        except ConversionError as error:
            refuse(norm, str(error))
        sheet.absorbed(norm)
        name = norm.name
    if groups > 1:
        y = _in_groups(sheet, x, weights, bias, name, groups, attrs)
    else:
        y = sheet.weighted(op, x, weights, bias, name, **attrs)
    return y if norm is not None else activated(sheet, call, y, call.config.get("activation"))


def _in_groups(
    sheet: Sheet, x: str, weights: Array, bias: Array, name: str, groups: int, attrs: Mapping[str, Any]
) -> str:
    depth, each = weights.shape[2], weights.shape[3] // groups
    parts = []
    for group in range(groups):
        part = sheet.node("slice", [x], f"{name}/input_{group}", axis=3, first=group * depth, length=depth)
        mine = slice(group * each, (group + 1) * each)
        parts.append(sheet.weighted("conv2d", part, weights[..., mine], bias[mine], f"{name}/group_{group}", **attrs))
    return sheet.node("concat", parts, name, axis=3)


def pool(op: str) -> Rule:
    """Average (of the pixels inside the image) or maximum over windows."""

    def rule(sheet: Sheet, call: Call) -> str:
        kernel = _pair(call, "pool_size", 2)
        stride = kernel if call.config.get("strides") is None else _pair(call, "strides")
        x = sheet.operand(call)
        channels_last(call)
        if str(call.config.get("padding", "valid")) == "valid":
            padding: Padding = ((0, 0), (0, 0))
        else:
            x, padding = _padding(sheet, call, x, kernel, stride, (1, 1))
        return sheet.node(op, [x], call.name, kernel=kernel, stride=stride, padding=padding)

    return rule


def global_pool(op: str) -> Rule:
    """Over height and width."""

    def rule(sheet: Sheet, call: Call) -> str:
        x, keep = sheet.operand(call), bool(call.config.get("keepdims", False))
        channels_last(call)
        if op == "mean":
            return sheet.node("mean", [x], call.name, keepdims=keep)
        shape = sheet.shape(x)
        name = call.name if keep else f"{call.name}_map"
        y = sheet.node(op, [x], name, kernel=shape[1:3], stride=(1, 1), padding=((0, 0), (0, 0)))
        return y if keep else sheet.node("reshape", [y], call.name, shape=(1, shape[3]))

    return rule
