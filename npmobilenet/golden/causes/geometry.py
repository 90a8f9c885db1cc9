"""Hypotheses on where a window reads: padding, stride, dilation, and what stands outside the image.

Each is a choice of pixels: for every output position and tap a pixel of the image, or none. The pixels are gathered
into an image of windows side by side, over which the engine's own kernel goes with the window's size as stride.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from npmobilenet.golden.causes.case import Case, Change, with_arrays
from npmobilenet.golden.causes.cuts import cut_values
from npmobilenet.golden.derivation import zero_point_of
from npmobilenet.golden.single_node import IsolatedNode
from npmobilenet.modeldata import Array

MOST_SHIFT = 3
Pick = Callable[["Axis"], Array]  # (outputs, taps) positions along an axis; outside the image where negative or beyond


class Axis:
    """One axis of a window: sizes of image, output and kernel, and its attributes."""

    def __init__(self, what: IsolatedNode, axis: int) -> None:
        attrs = what.node.attrs
        self.size = what.arrays[0].shape[1 + axis]
        self.outputs = what.result.shape[1 + axis]
        self.taps = attrs["kernel"][axis] if "kernel" in attrs else what.arrays[1].shape[axis]
        self.stride, self.dilation = attrs["stride"][axis], attrs.get("dilation", (1, 1))[axis]
        self.before, self.behind = attrs["padding"][axis]

    def at(self, *, shift: int = 0, stride: int | None = None, dilation: int | None = None) -> Array:
        """Positions: output * stride - padding + tap * dilation."""
        starts: Array = np.arange(self.outputs) * (self.stride if stride is None else stride) - self.before + shift
        taps = np.arange(self.taps) * (self.dilation if dilation is None else dilation)
        return np.asarray(starts[:, None] + taps)


def _border_dilation(axis: Axis) -> Array:
    """Dilation 1 where a window leaves the image."""
    own, dense = axis.at(), axis.at(dilation=1)
    outside = ((own < 0) | (own >= axis.size)).any(axis=1)
    return np.where(outside[:, None], dense, own)


def _border_stride(axis: Axis) -> Array:
    """A window that leaves the image is moved until it lies inside."""
    own = axis.at()
    own = own + np.maximum(-own.min(axis=1), 0)[:, None]
    return np.asarray(own - np.maximum(own.max(axis=1) - (axis.size - 1), 0)[:, None])


def _last_stride(axis: Axis) -> Array:
    """The last output takes a step of 1 instead of the stride."""
    own = axis.at().copy()
    own[-1] = own[-2] + 1 if axis.outputs > 1 else own[-1]
    return own


def _stopped(axis: Axis) -> Array:
    """The last row of windows is a copy of the one before."""
    own = axis.at().copy()
    own[-1] = own[-2] if axis.outputs > 1 else own[-1]
    return own


def _reflected(axis: Axis) -> Array:
    own = np.abs(axis.at())
    return np.where(own >= axis.size, 2 * (axis.size - 1) - own, own)


def _mirrored(axis: Axis) -> Array:
    return axis.at(shift=axis.before - axis.behind)


PICKS: dict[str, Pick] = {
    "the padding mirrored (before and behind swapped)": _mirrored,
    "the border pixel repeated in place of padding": lambda a: np.clip(a.at(), 0, a.size - 1),
    "the image reflected in place of padding": _reflected,
    "the image wrapped around in place of padding": lambda a: a.at() % a.size,
    "windows at the border moved inside the image": _border_stride,
    "the dilation ignored (1)": lambda a: a.at(dilation=1),
    "the dilation ignored at the border": _border_dilation,
    "the stride ignored (1)": lambda a: a.at(stride=1),
    "the stride ignored in the last step": _last_stride,
    "the last windows read where those before them do": _stopped,
    "the dilation one larger": lambda a: a.at(dilation=a.dilation + 1),
    "the stride one larger": lambda a: a.at(stride=a.stride + 1),
    "no padding before the image": lambda a: a.at(shift=a.before),
}


def windows(c: Case) -> Iterator[Change]:
    """All choices of pixels."""
    axes = [Axis(c.what, i) for i in (0, 1)]
    own = [a.at() for a in axes]
    for text, pick in PICKS.items():
        changed = [pick(a) for a in axes]
        if np.array_equal(changed[0], own[0]) and np.array_equal(changed[1], own[1]):
            continue
        yield gathered(c, f"{text}, of rows and columns", changed[0], changed[1])
        yield gathered(c, f"{text}, of rows", changed[0], own[1])
        yield gathered(c, f"{text}, of columns", own[0], changed[1])
    for dy, dx in _shifts():
        shifted = [a.at(shift=d) for a, d in zip(axes, (dy, dx), strict=True)]
        moves = ", ".join(_side(a, d, name) for a, d, name in zip(axes, (dy, dx), ("above", "left"), strict=True))
        yield gathered(c, f"the padding lies on the other side: {moves}", shifted[0], shifted[1])
    a, b = axes
    swapped = {
        "the strides of rows and columns": [x.at(stride=y.stride) for x, y in ((a, b), (b, a))],
        "the dilations of rows and columns": [x.at(dilation=y.dilation) for x, y in ((a, b), (b, a))],
        "the paddings of rows and columns": [x.at(shift=x.before - y.before) for x, y in ((a, b), (b, a))],
    }
    for text, (rows, columns) in swapped.items():
        if not (np.array_equal(rows, own[0]) and np.array_equal(columns, own[1])):
            yield gathered(c, f"{text} are swapped", rows, columns)
    yield gathered(c, "the image's rows and columns swapped", own[0], own[1], turn=True)
    yield _run_on(c, own)


def _shifts() -> list[tuple[int, int]]:
    reach = range(-MOST_SHIFT, MOST_SHIFT + 1)
    every = [d for d in itertools.product(reach, reach) if d != (0, 0)]
    return sorted(every, key=lambda d: (max(map(abs, d)), -sum(d), d))


def _side(axis: Axis, shift: int, name: str) -> str:
    return f"{axis.before - shift} {name} instead of {axis.before}"


def fillings(c: Case) -> Iterator[Change]:
    """Another value than the zero point outside the image."""
    axes = [Axis(c.what, i) for i in (0, 1)]
    own = [a.at() for a in axes]
    if not any(((at < 0) | (at >= a.size)).any() for at, a in zip(own, axes, strict=True)):
        return
    x = c.what.arrays[0]
    limits = np.iinfo(x.dtype)
    z = zero_point_of(c.what.operands[0])
    others = {zero_point_of(t) for t in (*c.what.operands[1:2], c.what.result)}
    tries = [0, limits.min, limits.max, 128, -128, z + 1, z - 1, z + 128, z - 128, *sorted(others), 1, 127, -1]
    for value in dict.fromkeys(tries):
        if value != z and limits.min <= value <= limits.max:
            yield gathered(c, f"the padding holds {value} instead of the zero point {z}", own[0], own[1], filling=value)


def gathered(
    c: Case, text: str, rows: Array, columns: Array, filling: int | None = None, turn: bool = False, side: str = ""
) -> Change:  # fmt: skip
    """The node over the windows' pixels side by side. `filling`: outside the image, or outside on one side of it."""
    x = c.what.arrays[0].swapaxes(1, 2) if turn else c.what.arrays[0]
    height, width = x.shape[1:3]
    ys, xs = rows.reshape(-1), columns.reshape(-1)
    inside = ((ys >= 0) & (ys < height))[:, None] & ((xs >= 0) & (xs < width))
    image = x[:, np.clip(ys, 0, height - 1)][:, :, np.clip(xs, 0, width - 1)]
    z = zero_point_of(c.what.operands[0])
    outside = np.full(inside.shape, z if filling is None else filling, x.dtype)
    if side:
        outside[~sides_of(ys, xs, height, width)[side]] = z
    return _side_by_side(c, text, np.where(inside[None, :, :, None], image, outside[None, :, :, None]))


def sides_of(ys: Array, xs: Array, height: int, width: int) -> dict[str, Array]:
    """Which pixels lie outside the image on each side."""
    above, below = (ys < 0)[:, None], (ys >= height)[:, None]
    left, right = xs < 0, xs >= width
    none = np.zeros((len(ys), len(xs)), bool)
    return {
        "above": none | above, "below": none | below, "left": none | left, "right": none | right,
        "above and below": none | above | below, "left and right": none | left | right,
        "above and left": none | above | left, "below and right": none | below | right,
    }  # fmt: skip


def _run_on(c: Case, own: list[Array]) -> Change:
    """Left and right of the image, memory goes on: the end of the row before, the start of the row behind."""
    x = c.what.arrays[0]
    height, width = x.shape[1:3]
    linear = own[0].reshape(-1)[:, None] * width + own[1].reshape(-1)
    inside = (linear >= 0) & (linear < height * width)
    flat = x.reshape(len(x), height * width, -1)
    image = flat[:, np.clip(linear, 0, height * width - 1)]
    empty = x.dtype.type(zero_point_of(c.what.operands[0]))
    return _side_by_side(
        c, "the neighbouring rows' pixels in place of the left and right padding (rows run on in memory)",
        np.where(inside[None, :, :, None], image, empty),
    )  # fmt: skip


def _side_by_side(c: Case, text: str, image: Array) -> Change:
    axes = [Axis(c.what, i) for i in (0, 1)]
    attrs = {"stride": (axes[0].taps, axes[1].taps), "padding": ((0, 0), (0, 0))}
    if "dilation" in c.what.node.attrs:
        attrs["dilation"] = (1, 1)
    changed = with_arrays(c.what, {0: np.ascontiguousarray(image)}, **attrs)
    return Change(text, replace(changed))


def inputs(c: Case) -> Iterator[Change]:
    """An operand's channels, rows or columns in another order, its values cut, its bits stuck."""
    for position, (tensor, x) in enumerate(zip(c.what.operands, c.what.arrays, strict=True)):
        if tensor.constant or x.ndim not in (2, 4):
            continue
        whose = "its input's" if position == 0 and c.what.accumulates else f"of '{tensor.name}' the"
        for text, array in _reordered(x):
            yield c.arrays(f"it reads {whose} {text}", {position: array})
        if not c.what.accumulates and c.what.node.op not in ("average_pool", "max_pool", "mean", "add", "sub", "mul"):
            continue
        for text, array in cut_values(x, zero_point_of(tensor)) if x.dtype.itemsize == 1 else ():
            yield c.arrays(f"{whose} values {text}", {position: array})
        for bit in range(8) if x.dtype.itemsize == 1 else ():
            raw, mask = x.view(np.uint8), np.uint8(1 << bit)
            yield c.arrays(
                f"bit {bit} of every value {_of(whose)} is stuck at 0", {position: (raw & ~mask).view(x.dtype)}
            )
            yield c.arrays(
                f"bit {bit} of every value {_of(whose)} is stuck at 1", {position: (raw | mask).view(x.dtype)}
            )


def _of(whose: str) -> str:
    return "of its input" if whose == "its input's" else whose.removesuffix(" the")


def _reordered(x: Array) -> Iterator[tuple[str, Array]]:
    from npmobilenet.golden.causes.shuffles import distinct, orders

    for text, order in distinct(orders(x.shape[-1])):
        yield text, x[..., order]
    if x.shape[0] > 1:
        yield "images rolled by 1", np.roll(x, 1, 0)
        yield "first image for all", np.repeat(x[:1], len(x), 0)
    if x.ndim != 4:
        return
    for axis, name in ((1, "rows"), (2, "columns")):
        if x.shape[axis] == 1:
            continue
        yield f"{name} in reverse order", np.flip(x, axis)
        for d in (1, -1):
            yield f"{name} rolled by {d}", np.roll(x, d, axis)
            late = np.clip(np.arange(x.shape[axis]) - d, 0, x.shape[axis] - 1)
            yield f"{name} late by {d} (the first stands twice)", np.take(x, late, axis)
    if x.shape[1] == x.shape[2] > 1:
        yield "rows and columns swapped", x.swapaxes(1, 2)
    n, h, w, ch = x.shape
    if h * w > 1 and ch > 1:
        yield "values as NHWC, though they lie in memory as NCHW", x.transpose(0, 3, 1, 2).reshape(x.shape)
        yield "values as NCHW, though they lie in memory as NHWC", x.reshape(n, ch, h, w).transpose(0, 2, 3, 1)


def stale(c: Case) -> Iterator[Change]:
    """Another tensor's values where an operand should be: a buffer that was swapped, or not yet."""
    for position, (tensor, own) in enumerate(zip(c.what.operands, c.what.arrays, strict=True)):
        if tensor.constant:
            continue
        for name, array in c.others.items():
            if name != tensor.name and array.size == own.size and array.dtype == own.dtype:
                text = f"it reads '{name}' in place of '{tensor.name}' (another buffer)"
                yield c.arrays(text, {position: array.reshape(own.shape)})
