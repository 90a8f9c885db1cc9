"""Activation functions in Keras' spellings, and the layers that are one.

Source: Keras 3.15.1, keras/src/activations/activations.py and keras/src/layers/activations; where Keras 2 differs,
tf_keras 2.21, tf_keras/src/activations.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from npmobilenet.formats.keras.sheet import Rule, Sheet, refuse
from npmobilenet.formats.keras.sums import log_softmax
from npmobilenet.formats.keras.topology import Call
from npmobilenet.modeldata import Array
from npmobilenet.ops import UNARY

_FUNCTIONS = {
    "relu": "relu", "relu6": "relu6", "sigmoid": "sigmoid", "softmax": "softmax", "linear": "linear", "tanh": "tanh",
    "softmax_v2": "softmax",
    "swish": "swish", "silu": "swish", "hard_sigmoid": "hard_sigmoid", "hard_swish": "hard_swish",
    "hard_silu": "hard_swish", "leaky_relu": "leaky_relu", "LeakyReLU": "leaky_relu", "mish": "mish",
    "softsign": "softsign", "elu": "elu", "ELU": "elu", "selu": "selu", "gelu": "gelu", "softplus": "softplus",
    "exponential": "exp", "log": "log", "sqrt": "sqrt", "rsqrt": "rsqrt", "abs": "abs", "hard_tanh": "relu_n1_to_1",
    "log_softmax": "log_softmax", "log_softmax_v2": "log_softmax", "square": "square", "negative": "negative",
}  # fmt: skip


def function_name(value: Any) -> str:
    """The name of an activation function: a string, None (linear), or `{"class_name": "function", "config": name}`."""
    if isinstance(value, Mapping):
        inner = value.get("config")
        value = inner if isinstance(inner, str) else value.get("class_name")
    return "linear" if value is None else str(value)


def activated(sheet: Sheet, call: Call, x: str, function: Any) -> str:
    """A layer's own activation, behind it."""
    name = function_name(function)
    if name == "linear":
        return x
    settings = function.get("config") if isinstance(function, Mapping) else None
    settings = settings if isinstance(settings, Mapping) else {}
    if name == "Activation":
        return activated(sheet, call, x, settings.get("activation"))
    if name == "Softmax":
        return _softmax(sheet, call, x, settings.get("axis", -1))
    return capped(sheet, call, x, settings) if name == "ReLU" else apply(sheet, call, x, name, settings)


def apply(sheet: Sheet, call: Call, x: str, function: str, settings: Mapping[str, Any]) -> str:
    """A function by its name in Keras, of Keras 2 or 3."""
    known = _FUNCTIONS.get(function)
    result = sheet.free(call.name)
    if known in ("relu", "relu6", "sigmoid", "hard_swish", "relu_n1_to_1"):
        return sheet.node("activation", [x], result, function=known)
    if known == "softmax":
        return sheet.node("softmax", [x], result, beta=1.0)
    if known == "linear":
        return x
    if known == "hard_sigmoid":  # relu6(x + 3) / 6 in Keras 3, clip(0.2 x + 0.5) in Keras 2
        scaled = x if sheet.keras3 else sheet.constant_op("mul", x, 1.2, f"{call.name}_scaled")
        return sheet.node("activation", [scaled], result, function="hard_sigmoid")
    if known == "swish":
        gate = sheet.node("activation", [x], f"{call.name}_gate", function="sigmoid")
        return sheet.node("mul", [x, gate], result)
    if known == "gelu" and settings.get("approximate"):
        known = "gelu_tanh"
    if known == "elu" and settings.get("alpha", 1.0) != 1.0:
        return _scaled_elu(sheet, call, x, settings["alpha"])
    if known == "mish":  # x tanh(softplus(x))
        inner = sheet.node("unary", [x], f"{call.name}_softplus", formula="softplus")
        return sheet.node("mul", [x, sheet.node("unary", [inner], f"{call.name}_tanh", formula="tanh")], result)
    if known == "softsign":  # x / (1 + |x|)
        size = sheet.node("unary", [x], f"{call.name}_size", formula="abs")
        return sheet.node("div", [x, sheet.constant_op("add", size, 1, f"{call.name}_more")], result)
    if known in UNARY:
        return sheet.node("unary", [x], result, formula=known)
    if known == "square":
        return sheet.node("mul", [x, x], result)
    if known == "negative":
        return sheet.constant_op("mul", x, -1, call.name)
    if known == "log_softmax":
        return log_softmax(sheet, x, call.name)
    if known != "leaky_relu":
        refuse(call, f"the function {function!r:.60} has no node here")
    return leaky(sheet, call, x, settings.get("negative_slope", settings.get("alpha", 0.2)))


def _scaled_elu(sheet: Sheet, call: Call, x: str, alpha: Any) -> str:
    """x where it is positive, else alpha (e^x - 1): alpha elu(x) + (1 - alpha) relu(x)."""
    if not isinstance(alpha, (int, float)) or not np.isfinite(alpha):
        refuse(call, f"alpha is {alpha!r:.40}, expected a number")
    curve = sheet.constant_op("mul", sheet.node("unary", [x], f"{call.name}_elu", formula="elu"), alpha,
                              f"{call.name}_alpha")  # fmt: skip
    up = sheet.node("activation", [x], f"{call.name}_positive", function="relu")
    return sheet.binary("add", curve, sheet.constant_op("mul", up, 1 - alpha, f"{call.name}_rest"), call.name)


def elu(sheet: Sheet, call: Call) -> str:
    """ELU, whose factor of negative values is `alpha`."""
    return apply(sheet, call, sheet.operand(call), "elu", {**call.config, **call.kwargs})


def leaky(sheet: Sheet, call: Call, x: str, slope: Array | float) -> str:
    """`x` where it is positive, else `slope * x`."""
    if not np.all(np.isfinite(slope)):
        refuse(call, "the slope isn't a number")
    if not np.any(slope):
        return sheet.node("activation", [x], call.name, function="relu")
    return sheet.constant_op("prelu", x, slope, call.name)


def relu(sheet: Sheet, call: Call) -> str:
    """ReLU with its arguments."""
    return capped(sheet, call, sheet.operand(call), call.config)


def capped(sheet: Sheet, call: Call, x: str, settings: Mapping[str, Any]) -> str:
    """A ReLU layer's settings, be it one of its own or another's activation: cap, slope below zero (no threshold)."""
    cap = settings.get("max_value")
    slope = settings.get("negative_slope", settings.get("alpha", 0.0)) or 0.0
    if settings.get("threshold"):
        refuse(call, f"a threshold of {settings['threshold']!r:.20} has no node here")
    if cap is None:
        return leaky(sheet, call, x, slope) if slope else sheet.node(
            "activation", [x], sheet.free(call.name), function="relu"
        )  # fmt: skip
    if not isinstance(cap, (int, float)) or not 0 < cap < 1e6:
        refuse(call, f"max_value is {cap!r:.20}, expected a number above 0")
    if slope:
        return sheet.constant_op("minimum", leaky(sheet, call, x, slope), cap, call.name)
    if cap == 6:
        return sheet.node("activation", [x], call.name, function="relu6")
    scaled = sheet.constant_op("mul", x, 6 / cap, f"{call.name}_scaled")
    bounded = sheet.node("activation", [scaled], f"{call.name}_capped", function="relu6")
    return sheet.constant_op("mul", bounded, cap / 6, call.name)


def leaky_relu(sheet: Sheet, call: Call) -> str:
    """LeakyReLU: the slope is called `negative_slope` in Keras 3, `alpha` in Keras 2."""
    slope = call.config.get("negative_slope", call.config.get("alpha", 0.3))
    return leaky(sheet, call, sheet.operand(call), slope)


def prelu(sheet: Sheet, call: Call) -> str:
    """PReLU with a slope for each channel or value, or one."""
    x = sheet.operand(call)
    shape = list(sheet.shape(x)[1:])
    for axis in call.config.get("shared_axes") or ():
        shape[axis - 1] = 1
    return leaky(sheet, call, x, sheet.variable(call, "alpha", tuple(shape)))


def activation(sheet: Sheet, call: Call) -> str:
    """Activation, by the function's name."""
    return activated(sheet, call, sheet.operand(call), call.config.get("activation"))


def softmax(sheet: Sheet, call: Call) -> str:
    """Over the last axis."""
    return _softmax(sheet, call, sheet.operand(call), call.config.get("axis", call.kwargs.get("axis", -1)))


def _softmax(sheet: Sheet, call: Call, x: str, axis: Any) -> str:
    if axis not in (-1, None, len(sheet.shape(x)) - 1, [-1]):
        refuse(call, f"axis is {axis!r:.40}, expected the last one")
    return sheet.node("softmax", [x], call.name, beta=1.0)


def named(function: str) -> Rule:
    """An operation that is one function."""
    return lambda sheet, call: apply(sheet, call, sheet.operand(call), function, {**call.config, **call.kwargs})


def clip(sheet: Sheet, call: Call) -> str:
    """Between two numbers; from 0 to 6 it is relu6."""
    said = {**call.config, **call.kwargs}
    low, high = said.get("x_min", said.get("clip_value_min")), said.get("x_max", said.get("clip_value_max"))
    if not isinstance(low, (int, float)) or not isinstance(high, (int, float)):
        refuse(call, f"its bounds are {low!r:.40} and {high!r:.40}, expected two numbers")
    x = sheet.operand(call)
    if (low, high) == (0, 6):
        return sheet.node("activation", [x], call.name, function="relu6")
    return sheet.constant_op("minimum", sheet.constant_op("maximum", x, low, f"{call.name}_low"), high, call.name)
