"""Causes that can be proved: changes of one number of a layer that make it give a dump's values exactly.

One flipped bit of a weight or a bias, or one scale that another tensor of the layer has. Each candidate is computed by
the engine: a layer of one channel for each candidate, or the layer with the other scale.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from npmobilenet.errors import NpMobilenetError
from npmobilenet.golden.nodes import VECTOR, IsolatedNode, in_vector, run, steps
from npmobilenet.graph import Quantization
from npmobilenet.modeldata import Array

MOST_CHANNELS = 3
AT_ONCE = 512  # candidates computed together
LEFT_OVER = 7  # channels that fill no vector of 8
MOST_PRODUCTS = 4 * 10**9  # of all candidates of a channel: some seconds


def find_cause(outputs: Mapping[str, Array], what: IsolatedNode, found: Array, stage: str) -> str:
    """A sentence, or nothing. `outputs` are the node's values by dialect, `found` the dump's."""
    if not what.accumulates:
        return _scales(what, found, stage, list(outputs))
    for dialect, output in outputs.items():
        differs = (output != found).reshape(-1, output.shape[-1]).any(axis=0)
        channels = np.flatnonzero(differs)
        if channels.size > MOST_CHANNELS:
            continue
        texts = [_channel(what, int(c), found, stage, dialect) for c in channels]
        if all(texts):
            return f"{dialect} with {' and '.join(texts)}"
    return _scales(what, found, stage, list(outputs))


# ---------------------------------------------------------------------------------------------------------------------
# Bits


@dataclass(frozen=True)
class _Flip:
    """A bit of a weight (`at`: its index without the channel) or, where `at` is empty, of the bias."""

    at: tuple[int, ...]
    bit: int


def _channel(what: IsolatedNode, c: int, found: Array, stage: str, dialect: str) -> str:
    """The flipped bit that explains output channel c wholly."""
    wanted = found.reshape(-1, found.shape[-1])[:, c]
    bound, _ = steps(what, dialect, "python", stage)
    vector = in_vector(bound, what, (*(0,) * (found.ndim - 1), c))
    for flips in _groups(_flips(what), LEFT_OVER if vector is False else AT_ONCE):
        # Whole vectors only, so that none is computed by the rule for what is left over; and two channels at least: the
        # rules ask whether there is one scale or several.
        group = flips + [flips[-1]] * (-len(flips) % VECTOR if vector else max(2 - len(flips), 0))
        try:
            values = run(_candidates(what, c, group), dialect, stage=stage)
        except NpMobilenetError:  # a flipped bit of the bias may leave int32 behind
            continue
        good = (values.reshape(-1, values.shape[-1]) == wanted[:, None]).all(axis=0)
        for i in np.flatnonzero(good):
            return _flip_text(what, c, group[int(i)])
    return ""


def _flips(what: IsolatedNode) -> list[_Flip]:
    weights, bias = what.arrays[1:3]
    places = list(np.ndindex(*weights.shape[:-1]))
    out = what.result.size // what.result.shape[-1] * what.batch
    products = out * len(places) * len(places) * weights.itemsize * 8
    flips = [_Flip((), bit) for bit in range(bias.itemsize * 8)]
    if products <= MOST_PRODUCTS:
        flips += [_Flip(place, bit) for place in places for bit in range(weights.itemsize * 8)]
    return flips


def _groups(flips: list[_Flip], size: int) -> Iterator[list[_Flip]]:
    """Biases apart from weights: one that can't be would spoil its group."""
    biases = [f for f in flips if not f.at]
    weights = [f for f in flips if f.at]
    yield from ([flip] for flip in biases)
    for start in range(0, len(weights), size):
        yield weights[start : start + size]


def _candidates(what: IsolatedNode, c: int, flips: list[_Flip]) -> IsolatedNode:
    """The node with a channel for each candidate, all of them channel c but for one bit."""
    x, weights, bias = what.arrays
    count = len(flips)
    many = np.repeat(weights[..., c : c + 1], count, axis=-1)
    biases = np.repeat(bias[c : c + 1], count)
    for i, flip in enumerate(flips):
        if flip.at:
            many[(*flip.at, i)] = flipped(many[(*flip.at, i)], flip.bit)
        else:
            biases[i] = flipped(biases[i], flip.bit)
    operands = list(what.operands)
    for position, array in ((1, many), (2, biases)):
        q = operands[position].quantization
        if q is not None and len(q.scale) > 1:
            q = Quantization((q.scale[c],) * count, (q.zero_point[c],) * count, q.axis)
        operands[position] = replace(operands[position], shape=array.shape, quantization=q)
    node = what.node
    if node.op == "depthwise_conv2d":
        source = c // node.attrs.get("multiplier", 1)
        x = np.ascontiguousarray(x[..., source : source + 1])
        operands[0] = replace(operands[0], shape=(1, *x.shape[1:]))
        node = replace(node, attrs={**node.attrs, "multiplier": count})
    result = replace(what.result, shape=(*what.result.shape[:-1], count))
    return IsolatedNode(node, tuple(operands), (x, many, biases), result)


def flipped(value: np.generic, bit: int) -> np.generic:
    """A number with one bit of its two's complement changed."""
    unsigned = np.array([value]).view(f"u{value.itemsize}")
    changed: np.generic = (unsigned ^ unsigned.dtype.type(1 << bit)).view(value.dtype)[0]
    return changed


def _flip_text(what: IsolatedNode, c: int, flip: _Flip) -> str:
    array = what.arrays[1] if flip.at else what.arrays[2]
    index = (*flip.at, c)
    value = array[index]
    names = ("ky", "kx", "ci")[: len(flip.at)] if len(flip.at) > 1 else ("i",)[: len(flip.at)]
    place = ", ".join(f"{name} {i}" for name, i in zip(names, flip.at, strict=True))
    whose = f"its weight ({place}, co {c})" if flip.at else f"its bias of channel {c}"
    return f"bit {flip.bit} of {whose} flipped: {flipped(value, flip.bit)} instead of {value}"


# ---------------------------------------------------------------------------------------------------------------------
# Scales


def _scales(what: IsolatedNode, found: Array, stage: str, dialects: list[str]) -> str:
    """One quantized tensor of the layer taken with another's scale, or scale and zero point."""
    tensors = [*what.operands, what.result]
    known = [(t.name, t.quantization) for t in tensors if t.quantization is not None and len(t.quantization.scale) == 1]
    for position, tensor in enumerate(tensors):
        own = tensor.quantization
        if own is None or len(own.scale) != 1 or tensor.dtype == "int32":
            continue
        for name, other in known:
            if other.scale == own.scale:
                continue
            for q, part in ((Quantization(other.scale, own.zero_point), "scale"), (other, "scale and zero point")):
                changed = _with_quantization(what, position, q)
                for dialect in dialects:
                    if _gives(changed, dialect, stage, found):
                        return (
                            f"{dialect} with the {part} of '{name}' ({q.scale[0]:.6g}, {q.zero_point[0]}) in place of "
                            f"that of '{tensor.name}' ({own.scale[0]:.6g}, {own.zero_point[0]})"
                        )
    return ""


def _with_quantization(what: IsolatedNode, position: int, q: Quantization) -> IsolatedNode:
    if position == len(what.operands):
        return replace(what, result=replace(what.result, quantization=q))
    operands = list(what.operands)
    operands[position] = replace(operands[position], quantization=q)
    return replace(what, operands=tuple(operands))


def _gives(what: IsolatedNode, dialect: str, stage: str, found: Array) -> bool:
    try:
        return bool(np.array_equal(run(what, dialect, stage=stage), found))
    except NpMobilenetError:
        return False
