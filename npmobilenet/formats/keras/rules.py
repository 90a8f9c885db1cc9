"""A rule for each class of Keras' layers: the nodes that it stands for in inference.

A rule gets the `Sheet` and a `Call`, and returns the name of the tensor that holds the call's result. What does nothing
in inference (dropout, augmentation) is in `IDENTITIES`. Source of every formula: Keras 3.15.1, keras/src/layers and
keras/src/ops/nn.py; where Keras 2 differs, tf_keras 2.21, tf_keras/src/backend.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from npmobilenet.formats.keras.affine import arithmetic, average, batch_normalization, normalization, rescaling
from npmobilenet.formats.keras.convolutions import (
    conv2d,
    conv2d_transpose,
    dense,
    depthwise_conv2d,
    global_pool,
    pool,
    separable_conv2d,
)
from npmobilenet.formats.keras.functions import activation, clip, elu, leaky_relu, named, prelu, relu, softmax
from npmobilenet.formats.keras.moves import (
    center_crop,
    concatenate,
    cropping,
    permute,
    random_crop,
    reshape,
    resizing,
    up_sampling,
    zero_padding,
)
from npmobilenet.formats.keras.picking import expand_dims, get_item, squeeze
from npmobilenet.formats.keras.references import numbers
from npmobilenet.formats.keras.sheet import Rule, Sheet, refuse
from npmobilenet.formats.keras.sums import dot, group_normalization, layer_normalization, reduction, unit_normalization
from npmobilenet.formats.keras.topology import Call, Value

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
    "MixUp", "RandAugment", "RandomHeight", "RandomWidth",
})  # fmt: skip


def emit(sheet: Sheet, call: Call) -> str:
    """The tensor of a call's result."""
    kind = call.kind
    if kind in ("TFOpLambda", "SlicingOpLambda"):
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
        if not (isinstance(number, (int, float)) or numbers(number) is not None) or not 0 <= place <= len(operands):
            refuse(call, f"the constant {number!r:.40} of operation {op!r:.40}: expected numbers")
        operands.insert(place, float(number) if isinstance(number, (int, float)) else numbers(number))
    return _OPERATIONS.get(op, f"operation {op}"), replace(call, args=tuple(operands), kwargs={})


def cast(sheet: Sheet, call: Call) -> str:
    """To a float, as the graph's values are already."""
    wanted = call.config.get("dtype", call.kwargs.get("dtype", "float32"))
    if not str(wanted).startswith(("float", "bfloat")):
        refuse(call, f"a cast to {wanted!r:.40} has no node here")
    return sheet.operand(call)


RULES: Mapping[str, Rule] = {
    "Conv2D": conv2d, "DepthwiseConv2D": depthwise_conv2d, "SeparableConv2D": separable_conv2d, "Dense": dense,
    "Conv2DTranspose": conv2d_transpose,
    "BatchNormalization": batch_normalization, "LayerNormalization": layer_normalization,
    "GroupNormalization": group_normalization, "UnitNormalization": unit_normalization, "Normalize": unit_normalization,
    "Rescaling": rescaling, "Normalization": normalization,
    "Add": arithmetic("add"), "Subtract": arithmetic("sub"), "Multiply": arithmetic("mul"),
    "TrueDivide": arithmetic("div"), "Divide": arithmetic("div"), "Maximum": arithmetic("maximum"),
    "Minimum": arithmetic("minimum"), "Average": average, "Dot": dot,
    "Concatenate": concatenate, "ZeroPadding2D": zero_padding, "Flatten": reshape, "Reshape": reshape,
    "AveragePooling2D": pool("average_pool"), "MaxPooling2D": pool("max_pool"),
    "GlobalAveragePooling2D": global_pool("mean"), "GlobalMaxPooling2D": global_pool("max_pool"),
    "Mean": reduction("mean"), "Sum": reduction("sum"), "Max": reduction("max"), "Min": reduction("min"),
    "Cast": cast, "Resizing": resizing, "Resize": resizing, "UpSampling2D": up_sampling, "CenterCrop": center_crop,
    "RandomCrop": random_crop, "Cropping2D": cropping, "Permute": permute, "Transpose": permute, "GetItem": get_item,
    "Squeeze": squeeze, "ExpandDims": expand_dims,
    "ReLU": relu, "LeakyReLU": leaky_relu, "PReLU": prelu, "Activation": activation, "Softmax": softmax, "Clip": clip,
    "Relu": named("relu"), "Relu6": named("relu6"), "Sigmoid": named("sigmoid"), "Silu": named("silu"),
    "HardSigmoid": named("hard_sigmoid"), "HardSilu": named("hard_silu"), "HardSwish": named("hard_swish"),
    "Tanh": named("tanh"), "LeakyRelu": named("leaky_relu"), "ELU": elu, "Elu": named("elu"), "Selu": named("selu"),
    "Gelu": named("gelu"), "Softplus": named("softplus"), "Softsign": named("softsign"), "Mish": named("mish"),
    "Exp": named("exponential"), "Log": named("log"), "Sqrt": named("sqrt"), "Rsqrt": named("rsqrt"),
    "Absolute": named("abs"), "Square": named("square"), "Negative": named("negative"),
    "LogSoftmax": named("log_softmax"), "HardTanh": named("hard_tanh"),
}  # fmt: skip
_OPERATIONS = {
    "AddV2": "Add", "Add": "Add", "Sub": "Subtract", "Mul": "Multiply", "RealDiv": "TrueDivide", "Relu": "Relu",
    "Relu6": "Relu6", "Sigmoid": "Sigmoid", "Tanh": "Tanh", "Softmax": "Softmax", "Identity": "Identity",
    "Elu": "Elu", "Selu": "Selu", "Softplus": "Softplus", "Softsign": "Softsign", "Exp": "Exp", "Maximum": "Maximum",
    "Minimum": "Minimum", "Abs": "Absolute", "Sqrt": "Sqrt", "Rsqrt": "Rsqrt", "Square": "Square", "Neg": "Negative",
}  # fmt: skip
_LAMBDAS = {
    "__operators__.add": "Add", "math.add": "Add", "math.subtract": "Subtract", "__operators__.sub": "Subtract",
    "math.multiply": "Multiply", "__operators__.mul": "Multiply", "math.truediv": "TrueDivide",
    "math.divide": "TrueDivide", "__operators__.truediv": "TrueDivide", "nn.relu": "Relu", "nn.relu6": "Relu6",
    "math.sigmoid": "Sigmoid", "nn.sigmoid": "Sigmoid", "nn.silu": "Silu", "nn.swish": "Silu", "nn.softmax": "Softmax",
    "math.tanh": "Tanh", "nn.tanh": "Tanh", "math.reduce_mean": "Mean", "reshape": "Reshape", "cast": "Cast",
    "concat": "Concatenate", "identity": "Identity", "nn.elu": "Elu", "nn.selu": "Selu", "nn.gelu": "Gelu",
    "math.softplus": "Softplus", "math.exp": "Exp", "math.log": "Log", "math.sqrt": "Sqrt", "math.rsqrt": "Rsqrt",
    "math.abs": "Absolute", "math.square": "Square", "math.negative": "Negative", "__operators__.neg": "Negative",
    "math.maximum": "Maximum", "math.minimum": "Minimum", "clip_by_value": "Clip", "math.reduce_sum": "Sum",
    "math.reduce_max": "Max", "math.reduce_min": "Min", "nn.log_softmax": "LogSoftmax", "nn.leaky_relu": "LeakyRelu",
    "math.l2_normalize": "Normalize", "nn.l2_normalize": "Normalize", "linalg.l2_normalize": "Normalize",
    "transpose": "Transpose", "compat.v1.transpose": "Transpose", "image.resize": "Resize", "squeeze": "Squeeze",
    "compat.v1.squeeze": "Squeeze", "expand_dims": "ExpandDims", "__operators__.getitem": "GetItem",
}  # fmt: skip
