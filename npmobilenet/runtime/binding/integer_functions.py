"""Binders of the integer ops that are functions of single values, and of softmax and bilinear resize."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from npmobilenet.arithmetic import edges, resize, softmax, tables
from npmobilenet.arithmetic.ranges import LIMITS, scale_of, zero_point_of
from npmobilenet.errors import PlanError
from npmobilenet.kernels.reference.activation_q import hard_swish_16, rescaled
from npmobilenet.kernels.reference.softmax_q import exp_negative
from npmobilenet.modeldata import Array
from npmobilenet.runtime.binding.context import Site, Step

Function = Callable[[int], Any]


def lookup_tables(site: Site) -> tuple[Array, int]:
    """What `lookup_q` gets for a site: two tables (2, 256), and the number of an image's elements under the first.

    Entry b is the function of the 8-bit value whose bits are b (for int8, entries from 128 on are negative values).
    """
    makers = {"activation": _activation, "quantize": _requantize, "dequantize": _dequantize}
    first, rest, split = makers[site.node.op](site)
    high = LIMITS[site.operands[0].dtype][1]
    values = [b - 256 if b > high else b for b in range(256)]
    entries = [first(v) for v in values]
    others = entries if rest is first else [rest(v) for v in values]
    return np.array([entries, others], site.result.dtype), split


def _activation(site: Site) -> tuple[Function, Function, int]:
    node, x, result = site.node, site.operands[0], site.result
    function = node.attrs["function"]
    if x.dtype not in LIMITS or result.dtype != x.dtype:
        raise PlanError(
            f"node '{node.name}' ({function}): expected uint8 to uint8 or int8 to int8, got {x.dtype} to {result.dtype}"
        )
    if function == "hard_swish":
        one: Function = partial(hard_swish_16, p=tables.hard_swish(node, x, result))
    elif function == "sigmoid":
        tables.check_logistic(node, result)
        logistic = {"float32": tables.logistic_float32, "float64": tables.logistic_float64}
        one = partial(logistic[site.dialect.rule("activation", "sigmoid")], x=x, result=result)
    elif function.startswith("relu"):
        one = partial(rescaled, zero_point=zero_point_of(x), step=tables.clipping(node, x, result, site.dialect))
    else:
        raise PlanError(
            f"node '{node.name}': {function} has no integer rule: TFLite has no such op and writes it as ADD with a "
            "fused RELU6, then MUL. Export the model through TensorFlow's converter, which does so"
        )
    return one, one, x.size


def _requantize(site: Site) -> tuple[Function, Function, int]:
    first, rest, split = edges.requantizing(site.operands[0], site.result, site.dialect)
    z_in = zero_point_of(site.operands[0])
    return partial(rescaled, zero_point=z_in, step=first), partial(rescaled, zero_point=z_in, step=rest), split


def _dequantize(site: Site) -> tuple[Function, Function, int]:
    x = site.operands[0]
    first, rest, split = edges.dequantizing(x, site.dialect)
    return partial(edges.dequantized, x=x, rule=first), partial(edges.dequantized, x=x, rule=rest), split


def _images(array: Array) -> Array:
    return array.reshape(array.shape[0], -1)


def _lookup(site: Site) -> list[Step]:
    args = (_images(site.inputs[0]), *lookup_tables(site), _images(site.out))
    return [Step(site.kernels.lookup_q, args, site.node.name)]


def activation(site: Site) -> list[Step]:
    """Any function of one 8-bit value is a table."""
    return _lookup(site)


def dequantize(site: Site) -> list[Step]:
    """To float32: a table of 256 real values."""
    edges.check_types(site.node, site.operands[0], site.result)
    return _lookup(site)


def quantize(site: Site) -> list[Step]:
    """From float32; or from integers, which is a table."""
    x, result = site.operands[0], site.result
    edges.check_types(site.node, x, result)
    if x.dtype != "float32":
        return _lookup(site)
    first, rest, split = edges.quantizing(x, site.dialect)
    rules = edges.QUANTIZATIONS.index(first), edges.QUANTIZATIONS.index(rest)
    step = (zero_point_of(result), *LIMITS[result.dtype])
    args = (_images(site.inputs[0]), scale_of(result), rules, split, step, _images(site.out))
    return [Step(site.kernels.quantize_q, args, site.node.name)]


def softmax_(site: Site) -> list[Step]:
    """All but the last dimension are rows."""
    node, x, result = site.node, site.operands[0], site.result
    softmax.check(node, x, result)
    rows, limits = (-1, site.out.shape[-1]), LIMITS[result.dtype]
    flat, out = site.inputs[0].reshape(rows), site.out.reshape(rows)
    rule = site.dialect.rule("softmax")
    if rule == "float32":
        step = (zero_point_of(result), *limits)
        args = (flat, softmax.float_exponentials(node, x), scale_of(result), step, out)
        return [Step(site.kernels.softmax_float_q, args, node.name)]
    exponentials = softmax.fixed_exponentials(node, x, rule, exp_negative)
    return [Step(site.kernels.softmax_fixed_q, (flat, exponentials, *limits, out), node.name)]


def resize_bilinear(site: Site) -> list[Step]:
    """The size shows in the output's shape."""
    node, x, result = site.node, site.operands[0], site.result
    resize.check(node, x, result)
    rows, columns, bits, flag = resize.axes(node, x, result, site.dialect)
    if bits:
        args = (site.inputs[0], tuple(rows), tuple(columns), bits, flag, site.out)
        return [Step(site.kernels.resize_bilinear_fixed_q, args, node.name)]
    return [
        Step(
            site.kernels.resize_bilinear_float_q,
            (site.inputs[0], tuple(rows), tuple(columns), flag, site.out),
            node.name,
        )
    ]


BINDERS: Mapping[str, Callable[[Site], list[Step]]] = {
    "activation": activation,
    "softmax": softmax_,
    "quantize": quantize,
    "dequantize": dequantize,
    "resize_bilinear": resize_bilinear,
}
