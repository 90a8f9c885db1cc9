"""Hypotheses on resizes and on ops that move values: concat, pad, reshape, transpose, slice."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from npmobilenet.golden.causes.case import Case, Change
from npmobilenet.golden.causes.realvalues import real_values, stored_values
from npmobilenet.golden.causes.rounding import FLOAT_RULES
from npmobilenet.golden.derivation import zero_point_of
from npmobilenet.modeldata import Array


def resize(c: Case) -> Iterator[Change]:
    """Another rule for corners, another rounding, nearest for bilinear."""
    attrs, x = c.what.node.attrs, c.what.arrays[0].astype(np.float64)
    own = attrs["align_corners"], attrs["half_pixel_centers"]
    sizes = (c.what.result.shape[1], c.what.result.shape[2])
    for align, half in ((False, False), (True, False), (False, True), (True, True)):
        said = f"align_corners {align}, half_pixel_centers {half}"
        if (align, half) != own and not (align and half):
            yield c.arrays(f"it has another corner rule: {said} instead of {own[0]}, {own[1]}", {}, align_corners=align,
                           half_pixel_centers=half)  # fmt: skip
        rule = "" if (align, half) == own else f" and by another corner rule ({said})"
        at = [_positions(i, o, align, half) for i, o in zip(x.shape[1:3], sizes, strict=True)]
        for how, whole in FLOAT_RULES.items():
            yield Change(f"it is computed in floats and {how}{rule}", values=whole(_bilinear(x, *at)))
            picks = [np.clip(whole(p), 0, s - 1).astype(int) for p, s in zip(at, x.shape[1:3], strict=True)]
            yield Change(f"it takes the nearest pixel, positions {how}{rule}",
                         values=x[:, picks[0]][:, :, picks[1]])  # fmt: skip


def _positions(size: int, out: int, align: bool, half: bool) -> Array:
    o = np.arange(out)
    if align and out > 1:
        return o * ((size - 1) / (out - 1))
    return np.maximum((o + 0.5) * (size / out) - 0.5, 0) if half else o * (size / out)


def _bilinear(x: Array, rows: Array, columns: Array) -> Array:
    y0, x0 = np.floor(rows).astype(int), np.floor(columns).astype(int)
    dy, dx = (rows - y0)[None, :, None, None], (columns - x0)[None, None, :, None]
    y = [np.clip(v, 0, x.shape[1] - 1) for v in (y0, y0 + 1)]
    u = [np.clip(v, 0, x.shape[2] - 1) for v in (x0, x0 + 1)]
    top = x[:, y[0]][:, :, u[0]] * (1 - dx) + x[:, y[0]][:, :, u[1]] * dx
    bottom = x[:, y[1]][:, :, u[0]] * (1 - dx) + x[:, y[1]][:, :, u[1]] * dx
    return np.asarray(top * (1 - dy) + bottom * dy)


def concat(c: Case) -> Iterator[Change]:
    """Operands in another order, one of them missing, or not rescaled."""
    axis, arrays = c.what.node.attrs["axis"], c.what.arrays
    for order in itertools.islice(itertools.permutations(range(len(arrays))), 1, 24):
        yield Change(f"its operands are in the order {', '.join(map(str, order))}",
                     values=np.concatenate([arrays[i] for i in order], axis))  # fmt: skip
    yield Change("its operands are joined as stored, without rescaling", values=np.concatenate(arrays, axis))
    ends = np.cumsum([a.shape[axis] for a in arrays])[:-1]
    parts = np.split(c.ours, ends, axis)
    for order in itertools.islice(itertools.permutations(range(len(arrays))), 1, 24):
        yield Change(f"its operands are in the order {', '.join(map(str, order))}, each rescaled",
                     values=np.concatenate([parts[i] for i in order], axis))  # fmt: skip
    for i, stored in enumerate(arrays):
        mixed = [stored if k == i else part for k, part in enumerate(parts)]
        yield Change(f"operand {i} is joined as stored, without rescaling", values=np.concatenate(mixed, axis))
        bytes_ = (stored.view(np.uint8) ^ 128).view(stored.dtype) if stored.dtype.itemsize == 1 else stored
        mixed[i] = bytes_
        yield Change(f"operand {i} is joined as the other 8-bit type (x ^ 128)", values=np.concatenate(mixed, axis))
    for i, j in itertools.permutations(range(len(arrays)), 2):
        if arrays[i].shape == arrays[j].shape:
            parts = [arrays[i] if k == j else a for k, a in enumerate(arrays)]
            yield Change(f"operand {i} stands in place of operand {j} as well", values=np.concatenate(parts, axis))
    if c.ours.dtype.kind == "f":
        return
    real = [real_values(t, a) for t, a in zip(c.what.operands, arrays, strict=True)]
    for how, whole in FLOAT_RULES.items():
        yield Change(
            f"its operands are rescaled in floats and {how}",
            values=stored_values(c, np.concatenate(real, axis), whole),
        )


def moves(c: Case) -> Iterator[Change]:
    """Pad, reshape, transpose, slice: values in other places, another filling."""
    op, x, shape = c.what.node.op, c.what.arrays[0], c.ours.shape
    if op == "pad":
        (top, bottom), (left, right) = c.what.node.attrs["padding"]
        z = zero_point_of(c.what.result)
        corner = (
            c.found[:, :1] if top else c.found[:, -1:] if bottom else c.found[:, :, :1] if left else c.found[:, :, -1:]
        )
        held = int(corner.flat[0]) if c.found.dtype.kind in "iu" else 0
        if c.finish is None and held not in (z, 0, z + 1, 128, -128):
            yield Change(f"its padding holds {held} instead of the zero point",
                         values=_padded(x, ((top, bottom), (left, right)), held))  # fmt: skip
        for text, value in (
            ("0", 0),
            ("the border pixel", None),
            ("1 more than the zero point", z + 1),
            ("128", 128),
            ("-128", -128),
        ):
            if value is None or (
                value != z and x.dtype.kind in "iu" and np.iinfo(x.dtype).min <= value <= np.iinfo(x.dtype).max
            ):
                yield Change(
                    f"its padding holds {text} instead of the zero point",
                    values=_padded(x, ((top, bottom), (left, right)), value),
                )
        for ty, tx in itertools.product(range(top + bottom + 1), range(left + right + 1)):
            if (ty, tx) != (top, left):
                text = f"its padding lies on the other side: {ty} above instead of {top}, {tx} left instead of {left}"
                yield Change(text, values=_padded(x, ((ty, top + bottom - ty), (tx, left + right - tx)), z))
    if op in ("reshape", "transpose") and x.ndim == 4:
        for order in itertools.permutations(range(1, x.ndim)):
            yield Change(f"its input's axes are read in the order {(0, *order)}",
                         values=x.transpose(0, *order).reshape(c.ours.shape))  # fmt: skip
    if op == "slice":
        axis, first, length = (c.what.node.attrs[k] for k in ("axis", "first", "length"))
        for start in range(x.shape[axis] - length + 1):
            if start != first:
                yield Change(
                    f"its slice starts at {start} instead of {first}",
                    values=np.take(x, np.arange(start, start + length), axis).reshape(c.ours.shape),
                )
    if x.size == c.ours.size and x.dtype == c.ours.dtype:
        yield Change("it is left out: its input lies there as stored", values=x.reshape(shape))


def _padded(x: Array, padding: tuple[tuple[int, int], tuple[int, int]], value: int | None) -> Array:
    widths = ((0, 0), *padding, (0, 0))
    return np.pad(x, widths, mode="edge") if value is None else np.pad(x, widths, constant_values=value)
