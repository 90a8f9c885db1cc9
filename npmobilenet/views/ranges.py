"""Which values a model's weights and layers have, and which an 8-bit tensor can hold: what quantizing goes by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from npmobilenet.formats.layer_names import short_names
from npmobilenet.graph import Tensor
from npmobilenet.model import Model
from npmobilenet.modeldata import Array
from npmobilenet.quantize.build import CHANNELS
from npmobilenet.quantize.parameters import real

Ends = tuple[float, float]


class LayerRange(NamedTuple):
    """A layer that holds weights, and its output.

    weights: the largest absolute weight of each output channel, as real numbers. found: the least and the greatest
    output over the images, `holds`: what its 8 bits can hold, None for floats. Values that aren't finite don't count.
    """

    name: str
    op: str
    weights: tuple[float, ...]
    found: Ends
    holds: Ends | None


def ranges(model: Model, inputs: Sequence[Mapping[str, Array]]) -> list[LayerRange]:
    """The layers in the order in which they run, on all the inputs."""
    graph = model.graph
    nodes = [node for node in graph.nodes if node.op in CHANNELS]
    short = short_names([node.output for node in nodes])
    ends: dict[str, list[float]] = {node.output: [] for node in nodes}
    for given in inputs:
        _, values = model.run(given, taps=list(ends))
        for name in ends:
            ends[name] += _finite(_as_real(values[name], graph.tensors[name]))
    rows = []
    for node in nodes:
        tensor, name = graph.tensors[node.output], node.inputs[1]
        weights = np.abs(_as_real(model.data.tensors[name], graph.tensors[name]))
        by_channel = np.moveaxis(weights, CHANNELS[node.op], 0).reshape(weights.shape[CHANNELS[node.op]], -1)
        most = tuple(float(v) for v in by_channel.max(1) if np.isfinite(v))
        both = ends[node.output] or [0.0]
        rows.append(LayerRange(short[node.output], node.op, most, (min(both), max(both)), _holds(tensor)))
    return rows


def _as_real(values: Array, tensor: Tensor) -> Array:
    return values if tensor.quantization is None else real(values, tensor.quantization)


def _finite(values: Array) -> list[float]:
    kept = values[np.isfinite(values)]
    return [float(kept.min()), float(kept.max())] if kept.size else []


def _holds(tensor: Tensor) -> Ends | None:
    """The least and the greatest real number that an 8-bit tensor has; its scale is one for all channels."""
    if tensor.quantization is None or tensor.dtype not in ("int8", "uint8"):
        return None
    limits = np.iinfo(tensor.dtype)
    low, high = real(np.array([limits.min, limits.max]), tensor.quantization)
    return float(low), float(high)
