"""Cross-layer equalization: a float model whose layers have channels of like size, so that one scale fits them all.

Where a layer's channel reaches the next layer through functions with f(s * x) = s * f(x) for s > 0 alone, the channel's
weights and bias may be divided by s and the next layer's weights for it multiplied: the model computes the same. With
r1 and r2 the largest weights of the channel in both, s = sqrt(r1 / r2) gives both the same size, sqrt(r1 * r2).

relu is such a function, relu6 isn't: its bound becomes 6 / s, another in each channel, which no kernel has. The paper
makes it relu, but values beyond 6 are then no longer cut, which a network that was trained with the cut may need: of
100 photographs V2 1.0_224 names 14 otherwise, as a float model. So relu6 stays here, with the largest value of each
channel, from calibration: a channel that reaches 6 keeps s = 1, and another one's s is large enough for its values to
stay below 6, where relu6 is relu. The float function stays, but for rounding, on images like the calibration's.

Source: Nagel, van Baalen, Blankevoort, Welling: Data-Free Quantization Through Weight Equalization and Bias Correction,
ICCV 2019, sections 4.1 (equation 11), 5.1.1 and 4.2.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from npmobilenet.errors import InputError
from npmobilenet.graph import Graph, Node
from npmobilenet.modeldata import Array, ModelData
from npmobilenet.quantize.lower import LAYERS, lower

SCALABLE = ("none", "relu", "relu6")  # relu6 within its bound
PASSING = ("average_pool", "max_pool", "mean", "pad", "reshape")  # what leaves a channel by itself
SWEEPS, SETTLED = 40, 1e-3  # until no factor moves by more; V2 takes some twenty
CAP = 6.0
LARGEST_FACTOR = 2.0**16  # of all sweeps together: a channel of hardly any weight needn't be as large as another

Factors = NDArray[np.float64]


class Pair(NamedTuple):
    """Two layers, the second of which alone reads the first."""

    first: Node
    second: Node


def pairs(graph: Graph) -> list[Pair]:
    """The layers that can be equalized with their successors, in graph order."""
    readers: dict[str, list[Node]] = {}
    for node in graph.nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node)
    found = []
    for node in graph.nodes:
        if node.op not in LAYERS or node.attrs.get("activation", "none") not in SCALABLE:
            continue
        if any(len(readers[name]) > 1 for name in node.inputs[1:]):
            continue  # weights that several layers share
        last = node
        while last.output not in graph.outputs and len(readers.get(last.output, ())) == 1:
            last = readers[last.output][0]
            if not _passes(graph, last):
                break
        if last is not node and last.op in LAYERS and len(readers[last.inputs[1]]) == 1 and _reads(graph, node, last):
            found.append(Pair(node, last))
    return found


def _passes(graph: Graph, node: Node) -> bool:
    channels = [graph.tensors[name].shape[-1] for name in (node.inputs[0], node.output)]
    return node.op in PASSING and node.attrs.get("activation", "none") in SCALABLE[:2] and channels[0] == channels[1]


def _reads(graph: Graph, first: Node, second: Node) -> bool:
    """Whether the second layer has a row of weights for each of the first's channels, and no more."""
    weights, channels = graph.tensors[second.inputs[1]].shape, graph.tensors[first.output].shape[-1]
    return (weights[0] if second.op == "fully_connected" else weights[2]) == channels


def equalize(data: ModelData, peaks: Mapping[str, Array]) -> ModelData:
    """The same float model with like channels, lowered; `peaks` are those of `calibrate`.

    Raises `InputError` if the model isn't float32 throughout, or a peak is missing.
    """
    data = lower(data)
    graph = data.graph
    chosen = pairs(graph)
    arrays = {name: array.astype(np.float64) for name, array in data.tensors.items()}
    total = {pair.first.name: np.ones(graph.tensors[pair.first.output].shape[-1]) for pair in chosen}
    bounds = {pair.first.name: _bounds(pair.first, peaks) for pair in chosen}
    for _ in range(SWEEPS):
        moved = 0.0
        for pair in chosen:
            factors = _factors(pair, arrays)
            wanted = np.clip(total[pair.first.name] * factors, *bounds[pair.first.name])
            factors = wanted / total[pair.first.name]
            total[pair.first.name] = wanted
            _scale(pair, arrays, factors)
            moved = max(moved, float(np.abs(np.log(factors)).max(initial=0.0)))
        if moved < SETTLED:
            break
    facts = {**data.info.provenance, "equalization": f"{len(chosen)} pairs of layers"}
    tensors = {name: array.astype(np.float32) for name, array in arrays.items()}
    return ModelData(graph, tensors, dataclasses.replace(data.info, provenance=facts))


def _bounds(node: Node, peaks: Mapping[str, Array]) -> tuple[Array | float, Array | float]:
    """The least and the largest s of each channel."""
    low, high = 1 / LARGEST_FACTOR, LARGEST_FACTOR
    if node.attrs.get("activation") != "relu6":
        return low, high
    if node.output not in peaks:
        raise InputError(f"no largest values of the channels of '{node.output}': calibrate() measures them")
    peak = peaks[node.output].astype(np.float64)
    return np.where(peak < CAP, np.maximum(peak / CAP, low), 1.0), np.where(peak < CAP, high, 1.0)


def _factors(pair: Pair, arrays: dict[str, NDArray[np.float64]]) -> Factors:
    """s of each channel; 1 where one of its layers has no weight for it."""
    first, second = np.abs(arrays[pair.first.inputs[1]]), np.abs(arrays[pair.second.inputs[1]])
    r1 = first.max(axis=tuple(range(first.ndim - 1)))
    axis = _axis(pair.second)
    r2 = second.max(axis=tuple(i for i in range(second.ndim) if i != axis))
    live = (r1 > 0) & (r2 > 0)
    factors: Factors = np.sqrt(np.where(live, r1, 1.0) / np.where(live, r2, 1.0))
    return factors


def _scale(pair: Pair, arrays: dict[str, NDArray[np.float64]], factors: Factors) -> None:
    _, kernel, bias = pair.first.inputs
    arrays[kernel] = arrays[kernel] / factors
    arrays[bias] = arrays[bias] / factors
    shape = [1] * arrays[pair.second.inputs[1]].ndim
    shape[_axis(pair.second)] = -1
    arrays[pair.second.inputs[1]] = arrays[pair.second.inputs[1]] * factors.reshape(shape)


def _axis(node: Node) -> int:
    """The weights' axis of input channels; a depthwise layer's one for both."""
    return 0 if node.op == "fully_connected" else 2


def bias_error(kernel: Array, quantized: Array, means: Factors, op: str) -> Factors:
    """What a layer's channels gain on average by the rounding of their weights: sum of (w' - w) * E[x].

    `means` holds the mean of each input channel, beside borders, where less is summed, taken for all places.
    """
    error = quantized.astype(np.float64) - kernel.astype(np.float64)
    if op == "depthwise_conv2d":
        found: Factors = error.sum(axis=(0, 1)) * np.repeat(means, kernel.shape[-1] // means.size)
        return found
    rows = error.reshape(-1, *error.shape[-2:]).sum(axis=0)
    summed: Factors = (rows * np.resize(means, rows.shape[0])[:, None]).sum(axis=0)
    return summed
