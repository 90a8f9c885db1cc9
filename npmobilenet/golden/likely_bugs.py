"""Usual slips of an implementation, tried out on one value.

Each is computed by the engine itself on a changed node (without its bias, with another zero point, ...); the two that
change the rounding shift the engine's own product.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from npmobilenet.arithmetic.fixedpoint import Requantization
from npmobilenet.errors import NpMobilenetError
from npmobilenet.golden.nodes import IsolatedNode, crop, run, steps
from npmobilenet.golden.products import products
from npmobilenet.graph import Quantization
from npmobilenet.modeldata import Array
from npmobilenet.runtime.taps import ACCUMULATING


@dataclass(frozen=True)
class LikelyBug:
    """A slip that gives the value in question; `kind` is a short name of it."""

    kind: str
    text: str


def likely_bugs(
    what: IsolatedNode, cut: IsolatedNode, dialect: str, got: int, stage: str, accumulator: int | float | None
) -> list[LikelyBug]:
    """The slips that give `got`, the likeliest first; for other ops than accumulating ones, those of their clamp."""
    found = []
    for kind, text, value in _tries(what, cut, dialect, stage):
        if value == got:
            found.append(LikelyBug(kind, f"{got} is what comes out {text}"))
    if stage == "output" and isinstance(accumulator, int):
        bounds = _factor(cut, dialect, got, accumulator)
        if bounds and bounds[0].kind == "range":  # where much is cut off, other channels agree by chance
            found = [*bounds, *(s for s in found if not s.kind.startswith("channel"))]
        found = found or bounds
    return found


def _tries(what: IsolatedNode, cut: IsolatedNode, dialect: str, stage: str) -> Iterator[tuple[str, str, int | None]]:
    node = cut.node
    if node.op not in ACCUMULATING:
        return
    if stage == "output":
        for kind, text, mode in (
            ("truncation", "if the fraction is cut off toward zero instead of rounded", "zero"),
            ("floor", "if the fraction is cut off toward minus infinity (a plain right shift)", "floor"),
        ):
            yield kind, text, _truncated(cut, dialect, mode)
        yield "no clamp", "without the clamp, modulo 2^8", _wrapped(cut, dialect)
    if node.attrs.get("activation", "none") != "none":
        bare = replace(node, attrs={**node.attrs, "activation": "none"})
        yield "activation", "without the activation", _value(replace(cut, node=bare), dialect, stage)
    zeros = np.zeros_like(cut.arrays[2])
    yield "bias", "without the bias", _value(_with_array(cut, 2, zeros), dialect, stage)
    for position, whose in ((0, "input"), (1, "weights")):
        q = cut.operands[position].quantization
        if q is not None and any(q.zero_point):
            changed = _without_zero_point(cut, position)
            yield "zero point", f"with 0 as the zero point of its {whose}", _value(changed, dialect, stage)
    if node.op != "fully_connected":
        yield "padding", "if the padding holds 0 instead of the input's zero point", _zero_padding(cut, dialect, stage)
    yield from _other_channels(what, dialect, stage)


def _value(cut: IsolatedNode, dialect: str, stage: str) -> int | None:
    """What the engine gives for a changed node; None where it refuses."""
    try:
        return int(run(cut, dialect, "python", stage)[cut.at])
    except NpMobilenetError:
        return None


def _with_array(cut: IsolatedNode, position: int, array: Array) -> IsolatedNode:
    arrays = list(cut.arrays)
    arrays[position] = array
    return replace(cut, arrays=tuple(arrays))


def _without_zero_point(cut: IsolatedNode, position: int) -> IsolatedNode:
    operands = list(cut.operands)
    q = operands[position].quantization
    assert q is not None
    operands[position] = replace(operands[position], quantization=Quantization(q.scale, (0,) * len(q.scale), q.axis))
    return replace(cut, operands=tuple(operands))


def _zero_padding(cut: IsolatedNode, dialect: str, stage: str) -> int | None:
    """The window with zeros, as stored, where it leaves the image."""
    (top, bottom), (left, right) = cut.node.attrs["padding"]
    if top + bottom + left + right == 0:
        return None
    x = np.pad(cut.arrays[0], ((0, 0), (top, bottom), (left, right), (0, 0)))
    node = replace(cut.node, attrs={**cut.node.attrs, "padding": ((0, 0), (0, 0))})
    operands = (replace(cut.operands[0], shape=(1, *x.shape[1:])), *cut.operands[1:])
    return _value(replace(cut, node=node, operands=operands, arrays=(x, *cut.arrays[1:])), dialect, stage)


def _requantization(cut: IsolatedNode, dialect: str) -> Requantization | None:
    calls, _ = steps(cut, dialect, "python")
    return next((arg for step in calls for arg in step.args if isinstance(arg, Requantization)), None)


def _exact(cut: IsolatedNode, dialect: str) -> tuple[Fraction, Requantization] | None:
    """The accumulator times its factor, not rounded at all."""
    r = _requantization(cut, dialect)
    if r is None:
        return None
    acc = int(run(cut, dialect, "python", "accumulator")[cut.at])
    return Fraction(acc) * int(r.multiplier[0]) * Fraction(2) ** (int(r.shift[0]) - 31), r


def _truncated(cut: IsolatedNode, dialect: str, mode: str) -> int | None:
    found = _exact(cut, dialect)
    if found is None:
        return None
    real, r = found
    whole = int(real) if mode == "zero" else real.numerator // real.denominator
    return min(max(whole + r.zero_point, r.low), r.high)


def _wrapped(cut: IsolatedNode, dialect: str) -> int | None:
    """The value before the clamp, its low 8 bits."""
    try:
        before = int(run(cut, dialect, "python", "preactivation")[cut.at])
    except NpMobilenetError:
        return None
    return int(np.array(before & 255, np.uint8).view(cut.result.dtype))


def _other_channels(what: IsolatedNode, dialect: str, stage: str) -> Iterator[tuple[str, str, int | None]]:
    """The same sum with another channel's scale, where each has its own; and the neighbours' values."""
    weights = what.operands[1]
    q = weights.quantization
    c = what.at[-1]
    if q is not None and len(q.scale) > 1:
        for other, which in ((0, "channel 0"), (c - 1, "the channel before"), (c + 1, "the channel behind")):
            if 0 <= other < len(q.scale) and other != c:
                scales = (*q.scale[:c], q.scale[other], *q.scale[c + 1 :])
                changed = replace(weights, quantization=Quantization(scales, q.zero_point, q.axis))
                operands = (what.operands[0], changed, *what.operands[2:])
                cut = crop(replace(what, operands=operands), what.at)
                yield "channel scale", f"with the scale of {which} ({other})", _value(cut, dialect, stage)
    for other in (c - 1, c + 1):
        if 0 <= other < what.result.shape[-1]:
            at = (*what.at[:-1], other)
            yield "channel", f"for channel {other}: channels are shifted", _value(crop(what, at), dialect, stage)


def _factor(cut: IsolatedNode, dialect: str, got: int, accumulator: int) -> list[LikelyBug]:
    """How far off the factor, or the accumulator, would have to be."""
    r = _requantization(cut, dialect)
    if r is None or accumulator == 0 or not int(r.multiplier[0]):
        return []
    factor = int(r.multiplier[0]) * Fraction(2) ** (int(r.shift[0]) - 31)
    steps_away = Fraction(got - r.zero_point)
    if got in (r.low, r.high):
        bound = int((steps_away + (Fraction(1, 2) if got == r.low else Fraction(-1, 2))) / factor)
        side = "at most" if got == r.low else "at least"
        text = f"it needs an accumulator of {side} about {bound} instead of {accumulator}: {got} ends the range"
        return [LikelyBug("range", text)]
    ratio = steps_away / (accumulator * factor)
    low, high = (int((steps_away + half) / factor) for half in (Fraction(-1, 2), Fraction(1, 2)))
    text = f"it needs an accumulator from about {low} to {high} instead of {accumulator}"
    if ratio > 0:
        text += f", or a factor {float(ratio):.4g} times as large"
    return [LikelyBug("accumulator", text), *_bits(cut, accumulator, low, high)]


def _bits(cut: IsolatedNode, accumulator: int, low: int, high: int) -> list[LikelyBug]:
    """How many single flipped bits of weights would do it."""
    found = 0
    q = cut.operands[0].quantization
    zero_point = q.zero_point[0] if q is not None else 0
    for product in products(cut, cut.at):
        if product.value is None:
            continue
        x = int(product.x) - zero_point
        for bit in range(8):
            flipped = int(np.array(int(product.weight) & 255 ^ 1 << bit, np.uint8).view(cut.operands[1].dtype))
            found += low <= accumulator + x * (flipped - int(product.weight)) <= high
    text = (
        f"{found} of {8 * len(products(cut, cut.at))} single flipped bits of its weights would give such an accumulator"
    )
    return [LikelyBug("bit", text)] if found else []
