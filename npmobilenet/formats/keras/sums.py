"""Layers and operations that make one value of many: means, sums, extremes, norms, products of vectors.

Source: Keras 3.15.1, keras/src/ops/numpy.py, keras/src/ops/nn.py (layer_normalization, normalize, log_softmax),
keras/src/layers/normalization, keras/src/layers/merging/dot.py.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from npmobilenet.formats.keras.affine import affine
from npmobilenet.formats.keras.sheet import Rule, Sheet, refuse
from npmobilenet.formats.keras.topology import Call, Value
from npmobilenet.modeldata import Array


def reduction(how: str) -> Rule:
    """mean, sum, max, min over any axes but the batch."""

    def rule(sheet: Sheet, call: Call) -> str:
        said, x = {**call.config, **call.kwargs}, sheet.operand(call)
        axes = _axes(call, said.get("axis"), len(sheet.shape(x)))
        return reduced(sheet, x, how, axes, bool(said.get("keepdims")), call.name)

    return rule


def _axes(call: Call, given: Any, rank: int) -> tuple[int, ...]:
    listed = [given] if isinstance(given, int) else list(given or ())
    axes = sorted({axis % rank for axis in listed if isinstance(axis, int) and -rank <= axis < rank})
    if not axes or axes[0] == 0 or len(axes) != len(listed):
        refuse(call, f"axis is {given!r:.40}: expected some of 1 to {rank - 1}, as the batch is never reduced")
    return tuple(axes)


def reduced(sheet: Sheet, x: str, how: str, axes: tuple[int, ...], keep: bool, name: str) -> str:
    """As nodes over the second axis of (1, count, 1, rest); a sum is a mean times the count."""
    shape = sheet.shape(x)
    kept = [axis for axis in range(1, len(shape)) if axis not in axes]
    if how == "mean" and axes == (1, 2) and len(shape) == 4:
        return sheet.node("mean", [x], name, keepdims=keep)
    result = tuple(1 if axis in axes else size for axis, size in enumerate(shape) if keep or axis not in axes)
    order, parts = (0, *axes, *kept), f"{name}_parts"
    if order != tuple(range(len(shape))):
        x = sheet.node("transpose", [x], parts, order=order)
    count = math.prod(shape[axis] for axis in axes)
    rows = (1, count, 1, math.prod(shape) // count)
    x = x if sheet.shape(x) == rows else sheet.node("reshape", [x], parts, shape=rows)
    if how in ("mean", "sum"):
        x = sheet.node("mean", [x], parts, keepdims=True)
        x = sheet.constant_op("mul", x, count, parts) if how == "sum" else x
    else:
        x = sheet.constant_op("mul", x, -1, parts) if how == "min" else x
        x = sheet.node("max_pool", [x], parts, kernel=(count, 1), stride=(1, 1), padding=((0, 0), (0, 0)))
        x = sheet.constant_op("mul", x, -1, parts) if how == "min" else x
    return sheet.node("reshape", [x], name, shape=result)


def log_softmax(sheet: Sheet, x: str, name: str) -> str:
    """Over the last axis: d - log(sum(exp(d))), d = x - max(x)."""
    last = (len(sheet.shape(x)) - 1,)
    d = sheet.binary("sub", x, reduced(sheet, x, "max", last, True, f"{name}_max"), f"{name}_below")
    total = reduced(sheet, sheet.node("unary", [d], f"{name}_exp", formula="exp"), "sum", last, True, f"{name}_sum")
    return sheet.binary("sub", d, sheet.node("unary", [total], f"{name}_log", formula="log"), name)


def _standardised(sheet: Sheet, x: str, axes: tuple[int, ...], epsilon: float, name: str) -> str:
    """`(x - mean) / sqrt(variance + epsilon)` over these axes."""
    d = sheet.binary("sub", x, reduced(sheet, x, "mean", axes, True, f"{name}_mean"), f"{name}_centred")
    square = sheet.node("mul", [d, d], f"{name}_square")
    spread = sheet.constant_op("add", reduced(sheet, square, "mean", axes, True, f"{name}_var"), epsilon, f"{name}_var")
    return sheet.binary("mul", d, sheet.node("unary", [spread], f"{name}_rsqrt", formula="rsqrt"), f"{name}_standard")


def _scaled(sheet: Sheet, call: Call, x: str) -> str:
    """Times gamma plus beta, for each channel."""
    shape, use = sheet.shape(x)[-1:], call.config.get
    gamma: Array | float = sheet.variable(call, "gamma", shape) if use("scale", True) else 1.0
    beta: Array | float = sheet.variable(call, "beta", shape) if use("center", True) else 0.0
    return affine(sheet, x, gamma, beta, call.name)


def _epsilon(call: Call) -> float:
    epsilon = call.config.get("epsilon", 1e-3)
    if not isinstance(epsilon, (int, float)) or not 0 < epsilon < 1:
        refuse(call, f"epsilon is {epsilon!r:.40}, expected between 0 and 1")
    return float(epsilon)


def layer_normalization(sheet: Sheet, call: Call) -> str:
    """Over the last axis; gamma and beta for each channel."""
    x = sheet.operand(call)
    axes = _axes(call, call.config.get("axis", -1), len(sheet.shape(x)))
    if axes != (len(sheet.shape(x)) - 1,) or call.config.get("rms_scaling"):
        refuse(call, "expected one over the last axis, without rms_scaling")
    return _scaled(sheet, call, _standardised(sheet, x, axes, _epsilon(call), call.name))


def group_normalization(sheet: Sheet, call: Call) -> str:
    """Over each group of channels of an image; gamma and beta for each channel."""
    x, groups = sheet.operand(call), call.config.get("groups", 32)
    shape = sheet.shape(x)
    groups = shape[-1] if groups == -1 else groups
    if call.config.get("axis", -1) not in (-1, len(shape) - 1) or len(shape) < 3 or shape[-1] % groups:
        refuse(call, f"{groups!r:.20} groups of {shape}: expected groups of the last axis that divide it")
    parts = (1, math.prod(shape[1:-1]), groups, shape[-1] // groups)
    y = sheet.node("reshape", [x], f"{call.name}_groups", shape=parts)
    y = _standardised(sheet, y, (1, 3), _epsilon(call), call.name)
    return _scaled(sheet, call, sheet.node("reshape", [y], f"{call.name}_whole", shape=shape))


def unit_normalization(sheet: Sheet, call: Call) -> str:
    """Rows divided by their Euclidean length."""
    x, said = sheet.operand(call), {**call.config, **call.kwargs}
    axes = _axes(call, said.get("axis", -1), len(sheet.shape(x)))
    if axes != (len(sheet.shape(x)) - 1,) or said.get("order", 2) != 2:
        refuse(call, "expected the Euclidean length over the last axis")
    return sheet.node("l2_normalize", [x], call.name)


def dot(sheet: Sheet, call: Call) -> str:
    """The products of two vectors, summed; with `normalize` the cosine of their angle."""
    x = [sheet.tensor(value) for value in call.operands if isinstance(value, Value)]
    axes = np.atleast_1d(call.config.get("axes", 1)).tolist()
    if len(x) != 2 or any(len(sheet.shape(v)) != 2 for v in x) or not all(axis in (1, -1) for axis in axes):
        refuse(call, "expected two vectors, over their only axis")
    if call.config.get("normalize"):
        x = [sheet.node("l2_normalize", [v], f"{call.name}_unit") for v in x]
    return reduced(sheet, sheet.binary("mul", x[0], x[1], f"{call.name}_products"), "sum", (1,), True, call.name)
