"""Why a tensor differs: what its pattern of differences usually means, and causes that can be proved.

A proved cause is a change of one number of a layer that gives a dump's values exactly: one flipped bit of a weight or
a bias, or one scale that another tensor of the layer has. Each candidate is computed by the engine: a layer of one
channel for each candidate, or the layer with the other scale.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from npmobilenet.errors import NpMobilenetError, short_name
from npmobilenet.golden.diff_verdict import Comparison
from npmobilenet.golden.single_node import VECTOR, IsolatedNode, in_vector, run, steps, with_quantization
from npmobilenet.graph import Quantization
from npmobilenet.modeldata import Array

FEW_CHANNELS = 3
CLOSE = 1e-4  # of max(1, the largest value): what two float32 engines may differ by (docs/exactness.md)
_FIT = 0.02  # of the values' spread: how far the others may lie from a straight line


def find_patterns(a: Array, b: Array, found: Comparison, q: Quantization | None) -> list[str]:
    """Sentences about the differences b - a; `q` is the tensor's quantization."""
    if not found.count:
        return []
    sentences = [_channels(found), _border(found), _offset(a, b, found), _scale(a, b, found, q), _layout(a, b, found),
                 _clamp(a, b, found), _rounding(found), _close(a, found)]  # fmt: skip
    return [sentence for sentence in sentences if sentence]


def _rounding(found: Comparison) -> str:
    if found.largest != 1 or found.share > 0.6:
        return ""
    if found.unit == "LSB":
        return f"all differ by 1 LSB, {100 * found.share:.3g} % of the values: another rounding rule (golden identify)"
    return "all differ by 1 ulp: another order of summation, or no fused multiply-add"


def _close(a: Array, found: Comparison) -> str:
    """Floats: differences that sums in another order make."""
    if found.unit != "ulp" or found.largest <= 1 or "NaN" in found.histogram:
        return ""
    size = float(np.abs(a[np.isfinite(a)]).max(initial=1.0))
    if found.largest_abs > CLOSE * size:
        return ""
    return (
        f"within {found.largest_abs:.2g} of each other: sums in another order, not a fault (--atol {CLOSE * size:.1g})"
    )


def _channels(found: Comparison) -> str:
    profile = found.where.get("C")
    if profile is None or profile.size < 4:
        return ""
    touched = np.flatnonzero(profile)
    if touched.size > min(FEW_CHANNELS, profile.size // 4):
        return ""
    names = ", ".join(map(str, touched))
    which = f"channel {names}" if touched.size == 1 else f"channels {names}"
    return f"only {which} of {profile.size}: weights, bias or multiplier of that output channel"


def _border(found: Comparison) -> str:
    """Differences in the outermost rows or columns alone."""
    rows, columns = found.where.get("H"), found.where.get("W")
    plane = found.plane
    if rows is None or columns is None or plane is None or min(plane.shape) < 4:
        return ""
    if plane[1:-1, 1:-1].any():
        return ""
    sides = {"first row": plane[0], "last row": plane[-1], "first column": plane[:, 0], "last column": plane[:, -1]}
    long = [name for name, line in sides.items() if np.count_nonzero(line) > 2]
    where = ", ".join(long or [name for name, line in sides.items() if line.any()])
    return f"at the border only ({where}): padding, its amount on each side or its value (the zero point, not 0)"


def _offset(a: Array, b: Array, found: Comparison) -> str:
    """The same difference everywhere (but where both are clamped)."""
    bars = [label for label in found.histogram if label != "0"]
    if found.unit != "LSB" or len(bars) != 1 or found.share < 0.6 or ".." in bars[0]:
        return ""
    share = f"{100 * found.share:.3g} % of the values"
    return f"a difference of {bars[0]} in {share}: another zero point, or signed and unsigned"


def _scale(a: Array, b: Array, found: Comparison, q: Quantization | None) -> str:
    """b is proportional to a, away from the clamps, by a factor other than 1."""
    zero = float(q.zero_point[0]) if q is not None and len(q.zero_point) == 1 else 0.0
    x, y = (v.reshape(-1).astype(np.float64) - zero for v in (a, b))
    usable = np.isfinite(x) & np.isfinite(y) & _inside(a) & _inside(b)
    x, y = x[usable], y[usable]
    if found.share < 0.25 or x.size < 16:
        return ""
    power = float((x * x).sum())
    if power == 0:
        return ""
    slope = float((x * y).sum()) / power
    rest = float(np.sqrt(((y - slope * x) ** 2).mean()))
    size = float(np.sqrt((y * y).mean()))
    noise = 1.5 if found.unit == "LSB" else 0.0  # a half from each rounding, and some
    if abs(slope - 1) < 0.01 or slope < 0.01 or rest > max(_FIT * size, noise) or size < 4 * noise:
        return ""
    return f"B is {slope:.4g} times A about the zero point: a scale is wrong, of this tensor, its weights or its input"


def _inside(array: Array) -> NDArray[np.bool_]:
    """Values that aren't the tensor's least or largest, where an activation may have cut."""
    flat = array.reshape(-1)
    inside: NDArray[np.bool_] = (flat > flat.min()) & (flat < flat.max())
    return inside


def _layout(a: Array, b: Array, found: Comparison) -> str:
    if found.share < 0.05 or a.ndim < 2 or not np.array_equal(np.sort(a, axis=None), np.sort(b, axis=None)):
        return ""
    return "the same values in other places: another layout or order of channels (NCHW as NHWC?)"


def _clamp(a: Array, b: Array, found: Comparison) -> str:
    """One side stops where the other goes on."""
    for near, far, name in ((a, b, "A"), (b, a, "B")):
        for limit, beyond, what in ((near.max(), far > near.max(), "above"), (near.min(), far < near.min(), "below")):
            stopped = int(np.count_nonzero(beyond))
            if stopped == found.count and not (beyond & (near != limit)).any():
                return f"all where {name} stops at {limit} and the other goes on {what} it: an activation's clamp"
    return ""


# ---------------------------------------------------------------------------------------------------------------------
# Causes that can be proved

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
                changed = with_quantization(what, position, q)
                for dialect in dialects:
                    if _gives(changed, dialect, stage, found):
                        return (
                            f"{dialect} with the {part} of '{short_name(name)}' ({q.scale[0]:.6g}, {q.zero_point[0]}) "
                            f"in place of that of '{short_name(tensor.name)}' ({own.scale[0]:.6g}, {own.zero_point[0]})"
                        )
    return ""


def _gives(what: IsolatedNode, dialect: str, stage: str, found: Array) -> bool:
    try:
        return bool(np.array_equal(run(what, dialect, stage=stage), found))
    except NpMobilenetError:
        return False
