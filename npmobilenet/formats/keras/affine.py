"""Layers that scale and shift, and arithmetic: batch norm, Rescaling, Normalization, Add, Multiply and their like."""

from __future__ import annotations

import numpy as np

from npmobilenet.errors import ConversionError
from npmobilenet.formats.batch_norm import fold_batch_norm
from npmobilenet.formats.keras.sheet import Rule, Sheet, refuse
from npmobilenet.formats.keras.topology import Call, Value
from npmobilenet.modeldata import Array

F = np.float32


def axis_is_last(call: Call, rank: int) -> bool:
    """Whether a batch norm of an input of that rank is over the channels."""
    axis = call.config.get("axis", -1)
    axis = axis[0] if isinstance(axis, list) and len(axis) == 1 else axis
    return axis in (-1, rank - 1) and not isinstance(axis, bool)


def statistics(sheet: Sheet, call: Call, channels: int) -> tuple[Array, Array, Array, Array, float]:
    """Gamma, beta, mean, variance and epsilon of a batch norm."""
    shape = (channels,)
    given = {name: sheet.variable(call, name, shape) if call.config.get(flag, True) else np.full(shape, value, F)
             for name, flag, value in (("gamma", "scale", 1), ("beta", "center", 0))}  # fmt: skip
    epsilon = float(call.config.get("epsilon", 1e-3))
    if not 0 < epsilon < 1:
        refuse(call, f"epsilon is {epsilon}, expected between 0 and 1")
    mean, variance = (sheet.variable(call, name, shape) for name in ("moving_mean", "moving_variance"))
    return given["gamma"], given["beta"], mean, variance, epsilon


def batch_normalization(sheet: Sheet, call: Call) -> str:
    """`x * scale + shift`, for each channel, where no convolution before it took it in."""
    x = sheet.operand(call)
    shape = sheet.shape(x)
    if not axis_is_last(call, len(shape)) or call.config.get("renorm"):
        refuse(call, "expected one over the last axis, without renorm")
    channels = shape[-1]
    one = np.ones((1, 1, channels), F)
    try:
        scale, shift = fold_batch_norm(one, *statistics(sheet, call, channels))
    except ConversionError as error:
        refuse(call, str(error))
    return affine(sheet, x, scale.reshape(-1), shift, call.name)


def affine(sheet: Sheet, x: str, scale: Array | float, shift: Array | float, name: str) -> str:
    """`x * scale + shift`, each one number or one for each channel; what changes nothing is left out."""
    moves = np.any(shift)
    if np.any(np.not_equal(scale, 1)):
        x = sheet.constant_op("mul", x, scale, f"{name}_scale" if moves else name)
    return sheet.constant_op("add", x, shift, name) if moves else x


def rescaling(sheet: Sheet, call: Call) -> str:
    """`x * scale + offset`."""
    scale, offset = (np.asarray(call.config[key], np.float64).reshape(-1) for key in ("scale", "offset"))
    return affine(sheet, sheet.operand(call), scale, offset, call.name)


def normalization(sheet: Sheet, call: Call) -> str:
    """`(x - mean) / max(sqrt(variance), 1e-7)`, or its inverse; the statistics are settings or variables."""
    x = sheet.operand(call)
    channels = sheet.shape(x)[-1]
    axis = call.config.get("axis", -1)
    rank = len(sheet.shape(x))
    if axis not in (None, -1, rank - 1, [-1], [rank - 1], (), []):
        refuse(call, f"axis is {axis!r:.40}, expected the last one")
    mean, variance = call.config.get("mean"), call.config.get("variance")
    if mean is None:
        size = (channels,) if axis not in (None, (), []) else ()
        mean, variance = (sheet.variable(call, name, size) for name in ("mean", "variance"))
    mean, variance = (np.asarray(v, np.float64).reshape(-1) for v in (mean, variance))
    if mean.size not in (1, channels) or variance.size not in (1, channels) or not (variance >= 0).all():
        refuse(call, f"mean and variance have {mean.size} and {variance.size} values, expected {channels} each")
    spread = np.maximum(np.sqrt(variance), 1e-7)
    scale, shift = (spread, mean) if call.config.get("invert") else (1 / spread, -mean / spread)
    return affine(sheet, x, scale, np.broadcast_to(shift, np.broadcast(scale, shift).shape), call.name)


# -- arithmetic --------------------------------------------------------------------------------------------------------


def arithmetic(op: str) -> Rule:
    """add, sub, mul, div, minimum, maximum of tensors, numbers and arrays, from the left."""

    def rule(sheet: Sheet, call: Call) -> str:
        operands = [sheet.tensor(item) if isinstance(item, Value) else item for item in call.operands]
        if not operands or (op in ("sub", "div") and len(operands) != 2):
            refuse(call, f"{len(operands)} operands")
        found = operands[0]
        for place, operand in enumerate(operands[1:], 2):
            name = call.name if place == len(operands) else f"{call.name}_{place}"
            found = _combined(sheet, call, op, (found, operand), name)
        if not isinstance(found, str):
            refuse(call, "numbers only")
        return found

    return rule


_Side = str | float | Array


def _combined(sheet: Sheet, call: Call, op: str, pair: tuple[_Side, _Side], name: str) -> str:
    """Two operands, tensors by name: a division by y is a product with 1 / y, a difference with a number a sum."""
    left, right = pair
    if op == "div" and not isinstance(right, str):
        if not np.all(right):
            refuse(call, "a division by 0")
        op, right = "mul", 1 / right
    if isinstance(left, str) and isinstance(right, str):
        return sheet.binary(op, left, right, name)
    if isinstance(left, str):
        assert not isinstance(right, str)
        return sheet.constant_op("add", left, -right, name) if op == "sub" else sheet.constant_op(op, left, right, name)
    if not isinstance(right, str):
        refuse(call, "numbers only")
    if op == "div":
        return sheet.node("div", [sheet.numbers(left, right, name), right], name)
    if op == "sub":
        op, right = "add", sheet.constant_op("mul", right, -1, f"{name}_negative")
    return sheet.constant_op(op, right, left, name)


def average(sheet: Sheet, call: Call) -> str:
    """The mean of several tensors."""
    total = arithmetic("add")(sheet, call)
    return sheet.constant_op("mul", total, 1 / len(call.operands), f"{call.name}_mean")
