"""A rule for each class of Keras' layers: the nodes that it stands for in inference.

A rule gets the `Sheet` and a `Call`, and returns the name of the tensor that holds the call's result. What does nothing
in inference (dropout, augmentation) is in `IDENTITIES`. Source of every formula: Keras 3.15.1, keras/src/layers and
keras/src/ops/nn.py; where Keras 2 differs, tf_keras 2.21, tf_keras/src/backend.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from npmobilenet.errors import ConversionError
from npmobilenet.formats.batch_norm import fold_batch_norm
from npmobilenet.formats.keras.affine import (
    arithmetic,
    average,
    axis_is_last,
    batch_normalization,
    normalization,
    rescaling,
    statistics,
)
from npmobilenet.formats.keras.functions import (
    activated,
    activation,
    elu,
    function_name,
    leaky_relu,
    named,
    prelu,
    relu,
    softmax,
)
from npmobilenet.formats.keras.moves import (
    center_crop,
    channels_last,
    concatenate,
    cropping,
    permute,
    reshape,
    resizing,
    up_sampling,
    zero_padding,
)
from npmobilenet.formats.keras.sheet import Rule, Sheet, refuse
from npmobilenet.formats.keras.topology import Call, Value
from npmobilenet.modeldata import Array
from npmobilenet.ops import Padding, same_padding

F = np.float32
IDENTITIES = frozenset({
    "Dropout", "SpatialDropout2D", "AlphaDropout", "GaussianNoise", "GaussianDropout", "ActivityRegularization",
    "Identity", "InputLayer",
})  # fmt: skip
# Of images, while training: left out with a note.
AUGMENTATIONS = frozenset({
    "RandomFlip", "RandomRotation", "RandomZoom", "RandomTranslation", "RandomContrast", "RandomBrightness",
    "RandomShear", "RandomHue", "RandomSaturation", "RandomSharpness", "RandomColorJitter", "RandomColorDegeneration",
    "RandomGrayscale", "RandomInvert", "RandomPosterization", "RandomPerspective", "RandomGaussianBlur",
    "RandomErasing", "RandomElasticTransform", "AutoContrast", "Solarization", "Equalization", "AugMix", "CutMix",
    "MixUp", "RandAugment",
})  # fmt: skip


def emit(sheet: Sheet, call: Call) -> str:
    """The tensor of a call's result."""
    kind = call.kind
    if kind == "TFOpLambda":
        kind = _LAMBDAS.get(str(call.config.get("function")), f"tf.{call.config.get('function')}")
    if kind == "TensorFlowOpLayer":
        kind, call = _operation(call)
    if kind in IDENTITIES or kind in AUGMENTATIONS:
        if kind in AUGMENTATIONS:
            sheet.notes.append(f"{kind} left out: it works in training only")
        return sheet.operand(call)
    rule = RULES.get(kind)
    own = (
        kind == "Lambda" or ">" in kind or call.module.partition(".")[0] not in ("", "keras", "tf_keras", "tensorflow")
    )
    if rule is None or own:
        refuse(call, "its maker's own code is never run here" if own else "a layer of a class that isn't known here")
    front = call.config.get("data_format") == "channels_first" or kind == "BatchNormalization"
    return _in_front(sheet, call, rule) if sheet.channels_first and front else rule(sheet, call)


def _in_front(sheet: Sheet, call: Call, rule: Rule) -> str:
    """A layer whose images have their channels first, as all of the model's: between two transposes.

    Those between two such layers undo each other and vanish (runtime/fusion.py). Flatten counts its values with the
    channels last in either case, as Keras does.
    """
    values = [operand for operand in call.operands if isinstance(operand, Value)]
    if len(values) != 1 or len(sheet.shape(sheet.operand(call))) != 4:
        return rule(sheet, call)
    config = {**call.config, "data_format": "channels_last"}
    if call.config.get("axis") in (1, [1]):
        config["axis"] = -1
    last = sheet.node("transpose", [sheet.operand(call)], f"{call.name}_channels_last", order=(0, 2, 3, 1))
    before = sheet.swapped(values[0], last)
    result = rule(sheet, replace(call, config=config))
    sheet.swapped(values[0], before)
    if len(sheet.shape(result)) != 4:
        return result
    return sheet.node("transpose", [result], f"{call.name}_channels_first", order=(0, 3, 1, 2))


def _operation(call: Call) -> tuple[str, Call]:
    """A raw operation, as TF 2.0 to 2.3 wrote them: its class, and the call with its constants among the operands."""
    op = str(call.config["node_def"]["op"])
    operands: list[Any] = [value for value in call.operands if isinstance(value, Value)]
    constants = call.config.get("constants") or {}
    for place, number in sorted((int(place), number) for place, number in constants.items()):
        if not isinstance(number, (int, float)) or not 0 <= place <= len(operands):
            refuse(call, f"the constant {number!r:.40} of operation {op!r:.40}: expected a number")
        operands.insert(place, float(number))
    return _OPERATIONS.get(op, f"operation {op}"), replace(call, args=tuple(operands), kwargs={})


# -- convolutions and dense layers -------------------------------------------------------------------------------------


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


# -- pools --------------------------------------------------------------------------------------------------


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


def mean_op(sheet: Sheet, call: Call) -> str:
    """`mean(x, axis=(1, 2))`, as an operation."""
    axis = call.config.get("axis", call.kwargs.get("axis"))
    x = sheet.operand(call)
    if sorted(a % 4 for a in axis or ()) != [1, 2] or len(sheet.shape(x)) != 4:
        refuse(call, f"axis is {axis!r:.40}, expected height and width (1, 2)")
    keep = call.config.get("keepdims", call.kwargs.get("keepdims", False))
    return sheet.node("mean", [x], call.name, keepdims=bool(keep))


def cast(sheet: Sheet, call: Call) -> str:
    """To a float, as the graph's values are already."""
    wanted = call.config.get("dtype", call.kwargs.get("dtype", "float32"))
    if not str(wanted).startswith(("float", "bfloat")):
        refuse(call, f"a cast to {wanted!r:.40} has no node here")
    return sheet.operand(call)


RULES: Mapping[str, Rule] = {
    "Conv2D": conv2d, "DepthwiseConv2D": depthwise_conv2d, "SeparableConv2D": separable_conv2d, "Dense": dense,
    "BatchNormalization": batch_normalization, "Rescaling": rescaling, "Normalization": normalization,
    "Add": arithmetic("add"), "Subtract": arithmetic("sub"), "Multiply": arithmetic("mul"),
    "TrueDivide": arithmetic("div"), "Divide": arithmetic("div"), "Average": average,
    "Concatenate": concatenate, "ZeroPadding2D": zero_padding, "Flatten": reshape, "Reshape": reshape,
    "AveragePooling2D": pool("average_pool"), "MaxPooling2D": pool("max_pool"),
    "GlobalAveragePooling2D": global_pool("mean"), "GlobalMaxPooling2D": global_pool("max_pool"), "Mean": mean_op,
    "Cast": cast, "Resizing": resizing, "UpSampling2D": up_sampling, "CenterCrop": center_crop, "Cropping2D": cropping,
    "Permute": permute,
    "ReLU": relu, "LeakyReLU": leaky_relu, "PReLU": prelu, "Activation": activation, "Softmax": softmax,
    "Relu": named("relu"), "Relu6": named("relu6"), "Sigmoid": named("sigmoid"), "Silu": named("silu"),
    "HardSigmoid": named("hard_sigmoid"), "HardSilu": named("hard_silu"), "HardSwish": named("hard_swish"),
    "Tanh": named("tanh"), "LeakyRelu": named("leaky_relu"), "ELU": elu, "Elu": named("elu"), "Selu": named("selu"),
    "Gelu": named("gelu"), "Softplus": named("softplus"), "Softsign": named("softsign"), "Mish": named("mish"),
    "Exp": named("exponential"),
}  # fmt: skip
_OPERATIONS = {
    "AddV2": "Add", "Add": "Add", "Sub": "Subtract", "Mul": "Multiply", "RealDiv": "TrueDivide", "Relu": "Relu",
    "Relu6": "Relu6", "Sigmoid": "Sigmoid", "Tanh": "Tanh", "Softmax": "Softmax", "Identity": "Identity",
    "Elu": "Elu", "Selu": "Selu", "Softplus": "Softplus", "Softsign": "Softsign", "Exp": "Exp",
}  # fmt: skip
_LAMBDAS = {
    "__operators__.add": "Add", "math.add": "Add", "math.subtract": "Subtract", "__operators__.sub": "Subtract",
    "math.multiply": "Multiply", "__operators__.mul": "Multiply", "math.truediv": "TrueDivide",
    "math.divide": "TrueDivide", "__operators__.truediv": "TrueDivide", "nn.relu": "Relu", "nn.relu6": "Relu6",
    "math.sigmoid": "Sigmoid", "nn.sigmoid": "Sigmoid", "nn.silu": "Silu", "nn.swish": "Silu", "nn.softmax": "Softmax",
    "math.tanh": "Tanh", "nn.tanh": "Tanh", "math.reduce_mean": "Mean", "reshape": "Reshape", "cast": "Cast",
    "concat": "Concatenate", "identity": "Identity", "nn.elu": "Elu", "nn.selu": "Selu", "nn.gelu": "Gelu",
    "math.softplus": "Softplus", "math.exp": "Exp",
}  # fmt: skip
