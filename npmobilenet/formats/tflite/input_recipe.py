"""Which recipe prepares images for a .tflite file: told by its metadata, by the input's scale, or by its first layers.

What a file tells is the range of the values that it wants, not how a picture is resized: of the recipes with that range
the first is taken. Where nothing tells, the commonest is, and it is called assumed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from npmobilenet.arithmetic.ranges import LIMITS, scale_of, zero_point_of
from npmobilenet.formats.tflite.flatbuffer import TFLiteFile
from npmobilenet.formats.tflite.metadata import METADATA, input_normalization
from npmobilenet.graph import Graph, Node, Tensor
from npmobilenet.modeldata import Array

SIGNED, UNIT, PIXELS, IMAGENET = "slim_inception_eval", "unit_range", "raw_pixels", "torchvision"
# The recipe for a float input's own (mean, std): it wants (pixel - mean) / std.
RECIPES = {(127.5, 127.5): SIGNED, (0.0, 255.0): UNIT, (0.0, 1.0): PIXELS}
# Values of a picture before the layers that scale it, tried in this order.
_BEFORE = {PIXELS: (0.0, 255.0), UNIT: (0.0, 1.0), SIGNED: (-1.0, 1.0)}
# What scaled pictures span: 1 or 2 in most models, 4.4 with ImageNet's deviations, more with those of dull pictures.
_LEAST_SPAN, _MOST_SPAN = 0.5, 40.0
_LEAST_MEAN = 16.0  # a mean above it is one of pixels
_MOST_LAYERS = 16


class InputRecipe(NamedTuple):
    """A recipe's name, whether the file tells it, and a normalization that the file asks for and no recipe has."""

    name: str
    told: bool
    unmet: str = ""


def input_recipe(file: TFLiteFile, graph: Graph, arrays: Mapping[str, Array]) -> InputRecipe:
    """The recipe for the first input.

    An integer input's recipe gives real values, which the input's own scale and zero point quantize: the range that
    these can express tells the recipe, and the metadata's mean and std, which say the same once more, are left alone.
    """
    tensor = graph.tensors[graph.inputs[0]]
    if tensor.dtype in LIMITS and tensor.quantization is not None:
        return _of_range(*_limits(tensor), _is_square(tensor))
    wanted = input_normalization(file.metadata.get(METADATA, b""))
    if wanted is not None:
        mean, std = set(wanted[0]), set(wanted[1])
        if len(mean) == len(std) == 1 and (min(mean), min(std)) in RECIPES:
            return InputRecipe(RECIPES[min(mean), min(std)], True)
    found = _of_layers(graph, arrays)
    unmet = f"(pixel - mean) / std with mean {wanted[0]} and std {wanted[1]}" if wanted else ""
    return found._replace(unmet=unmet, told=found.told and not unmet)


def _limits(tensor: Tensor) -> tuple[float, float]:
    low, high = (float(scale_of(tensor)) * (limit - zero_point_of(tensor)) for limit in LIMITS[tensor.dtype])
    return low, high


def _is_square(tensor: Tensor) -> bool:
    return len(tensor.shape) == 4 and tensor.shape[2] in (tensor.shape[1], tensor.shape[3])  # channels last, or first


def _of_range(low: float, high: float, square: bool) -> InputRecipe:
    """The recipe whose real values lie in a range: 0 ... 255 (pixels), 0 ... 1 or, with negatives, -1 ... 1.

    ImageNet's mean and deviation give -2.1 ... 2.6; how such a picture is resized isn't told, so that is assumed.
    """
    if -low > high / 4:
        if square and 1.5 < -low < 3 and 1.5 < high < 3:
            return InputRecipe(IMAGENET, False)
        return InputRecipe(SIGNED, 0.5 < max(-low, high) < 4)
    if high < 16:  # between 1 and 255, geometrically
        return InputRecipe(UNIT, 0.5 < high < 4)
    return InputRecipe(PIXELS, high < 1024)


@np.errstate(all="ignore")  # a file's constants may have any size
def _of_layers(graph: Graph, arrays: Mapping[str, Array]) -> InputRecipe:
    """From the layers that scale a float input, as far as the first `quantize`, whose range tells more.

    Keras' Rescaling is `mul`, `add`; its Normalization `sub`, `mul`.
    """
    name, scale, shift = graph.inputs[0], np.float64(1), np.float64(0)
    square = _is_square(graph.tensors[name])
    for _ in range(_MOST_LAYERS):
        readers = [node for node in graph.nodes if name in node.inputs]
        if len(readers) != 1:
            break
        node, result = readers[0], graph.tensors[readers[0].output]
        if node.op == "quantize" and result.dtype in LIMITS and result.quantization is not None:
            low, high = sorted(float((limit - shift.mean()) / scale.mean()) for limit in _limits(result))
            return _of_range(low, high, square) if 0 < high - low < math.inf else InputRecipe(SIGNED, False)
        scaled = _scaled(node, name, arrays, scale, shift)
        if scaled is None:
            break
        name, (scale, shift) = node.output, scaled
    size = float(np.abs(scale).mean())
    return _of_scaling(size, size * float((shift / scale).mean()))


def _scaled(node: Node, name: str, arrays: Mapping[str, Array], scale: Any, shift: Any) -> tuple[Any, Any] | None:
    """The input's scale and shift behind a node; None unless it scales or shifts channels by constants."""
    if node.op in ("reshape", "transpose"):
        return scale, shift
    constants = [arrays[other].astype(np.float64).reshape(-1) for other in node.inputs if other in arrays]
    if (
        node.op not in ("add", "sub", "mul", "div")
        or len(constants) != 1
        or node.attrs.get("activation", "none") != "none"
    ):
        return None
    (factor,) = constants
    if factor.size not in (1, scale.size) and scale.size != 1:
        return None
    if node.op in ("mul", "div"):
        if not factor.all() or (node.op == "div" and node.inputs[1] == name):
            return None
        factor = factor if node.op == "mul" else 1 / factor
        return scale * factor, shift * factor
    if node.op == "sub" and node.inputs[1] == name:
        return -scale, factor - shift
    return scale, shift + factor * (1 if node.op == "add" else -1)


def _of_scaling(scale: float, shift: float) -> InputRecipe:
    """The recipe whose pictures `scale * x + shift` brings nearest to a range of usual width around 0."""
    if scale == 1 or not (scale > 0 and math.isfinite(scale) and math.isfinite(shift)):
        return InputRecipe(PIXELS, True) if scale == 1 and -shift > _LEAST_MEAN else InputRecipe(SIGNED, False)
    spans = {name: scale * (high - low) for name, (low, high) in _BEFORE.items()}
    centres = {name: abs(scale * sum(_BEFORE[name]) / 2 + shift) / spans[name] for name in _BEFORE}
    usual = [name for name in _BEFORE if _LEAST_SPAN < spans[name] < _MOST_SPAN]
    if usual:
        return InputRecipe(min(usual, key=centres.__getitem__), True)
    return InputRecipe(SIGNED, False)
