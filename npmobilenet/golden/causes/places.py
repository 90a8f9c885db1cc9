"""Hypotheses on results, whatever the op: in other places, moved, not written, another tensor's values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from npmobilenet.golden.causes.case import Case, Change
from npmobilenet.golden.causes.cuts import cut_values
from npmobilenet.golden.causes.shuffles import distinct, orders
from npmobilenet.golden.derivation import zero_point_of
from npmobilenet.modeldata import Array

AXES = {4: ("images", "rows", "columns", "channels"), 2: ("images", "channels")}
LEAST = 8  # values of a row that is looked for among the others


def places(c: Case) -> Iterator[Change]:
    """The right values in other places, or another tensor's values."""
    shape = c.ours.shape
    for name, array in c.later.items():
        if array.shape == shape and array.dtype == c.ours.dtype:
            yield Change(f"it holds what '{name}' should hold", values=array)
    for name, array in c.others.items():
        if array.size == c.ours.size and array.dtype == c.ours.dtype:
            yield Change(f"it holds the values of '{name}' (another buffer)",
                         values=array.reshape(c.ours.shape))  # fmt: skip
    for text, order in distinct(orders(shape[-1])):
        yield Change(f"its output: {text}", values=c.ours[..., order])
    if len(shape) == 4:
        for axis, what in ((1, "rows"), (2, "columns")):
            yield Change(f"its output has its {what} in reverse order", values=np.flip(c.ours, axis))
            for d in (1, -1, 2, -2):
                yield Change(f"its output has its {what} rolled by {d}", values=np.roll(c.ours, d, axis))
                yield Change(
                    f"its output's {what} are late by {d}: the first stands twice",
                    values=np.take(c.ours, np.clip(np.arange(c.ours.shape[axis]) - d, 0, c.ours.shape[axis] - 1), axis),
                )
        if shape[1] == shape[2] > 1:
            yield Change("its output has rows and columns swapped", values=c.ours.swapaxes(1, 2))
        yield Change("its output is written to memory as NCHW and read as NHWC",
                     values=c.ours.transpose(0, 3, 1, 2).reshape(c.ours.shape))  # fmt: skip
        yield Change(
            "its output is written to memory as NHWC and read as NCHW",
            values=c.ours.reshape(c.ours.shape[0], c.ours.shape[3], *c.ours.shape[1:3]).transpose(0, 2, 3, 1),
        )
    if shape[0] > 1:
        yield Change("its images are in another order (rolled by 1)", values=np.roll(c.ours, 1, 0))
        yield Change("all images are the first", values=np.repeat(c.ours[:1], len(c.ours), 0))


def values(c: Case) -> Iterator[Change]:
    """The right values moved or with bits stuck, whatever the op."""
    if c.ours.dtype not in (np.int8, np.uint8):
        return
    own = np.iinfo(c.ours.dtype)
    for d in dict.fromkeys((1, -1, 2, -2, 3, -3, *usual_move(c, own.min, own.max))):
        yield Change(f"all its values are off by {d:+d}",
                     values=np.clip(c.ours.astype(np.int64) + d, own.min, own.max))  # fmt: skip
    yield Change(
        "its values are off by 128 (x ^ 128): int8 and uint8", values=(c.ours.view(np.uint8) ^ 128).view(c.ours.dtype)
    )
    z = zero_point_of(c.what.result)
    for text, array in cut_values(c.ours, z):
        yield Change(f"its values {text}", values=array)
    for point in dict.fromkeys((z, 0)):
        about = "about the zero point" if point == z else "as stored"
        doubled = 2 * (c.ours.astype(np.int64) - point) + point
        yield Change(f"its values are doubled {about}, modulo 256", values=((doubled - own.min) & 255) + own.min)
    for bit in range(8):
        mask = np.uint8(1 << bit)
        yield Change(
            f"bit {bit} of every value is stuck at 0", values=(c.ours.view(np.uint8) & ~mask).view(c.ours.dtype)
        )
        yield Change(
            f"bit {bit} of every value is stuck at 1", values=(c.ours.view(np.uint8) | mask).view(c.ours.dtype)
        )


def usual_move(c: Case, low: int, high: int) -> list[int]:
    """The amount by which most values between the bounds are off."""
    if c.finish is not None or c.ours.dtype.kind == "f" or c.ours.shape != c.found.shape:
        return []
    between = (np.minimum(c.ours, c.found) > low) & (np.maximum(c.ours, c.found) < high)
    amounts, counts = np.unique(c.found[between].astype(np.int64) - c.ours[between], return_counts=True)
    d = int(amounts[counts.argmax()]) if amounts.size else 0
    return [d] if d else []


def unwritten(c: Case) -> Iterator[Change]:
    """A part of the output that wasn't written: it holds one value, or another tensor's, from some place on."""
    if c.finish is not None or not c.wrong.any() or c.wrong.all():
        return
    wrong = c.wrong
    for text, region in regions(wrong):
        inside = c.found[region]
        if inside.size == wrong.sum() and inside.size < 4:
            continue
        if (inside == inside.flat[0]).all() and inside.size > 1:
            value = inside.flat[0]
            yield Change(f"{text} hold {value} (never written?)",
                         values=np.where(region, value, c.ours))  # fmt: skip
        others = dict(c.others) if len(c.ours) == 1 else {**c.others, "the image before": np.roll(c.ours, 1, 0)}
        for name, array in others.items():
            if array.size == wrong.size and array.dtype == c.found.dtype:
                other = array.reshape(wrong.shape)
                yield Change(f"{text} hold the values of '{name}' (another buffer)",
                             values=np.where(region, other, c.ours))  # fmt: skip


def moved_lines(c: Case) -> Iterator[Change]:
    """Each image, row, column or channel that differs holds the right values of another one."""
    if c.finish is not None:
        return
    for axis, name in enumerate(AXES.get(c.ours.ndim, ())):
        size = c.ours.shape[axis]
        ours, found = (np.ascontiguousarray(np.moveaxis(v, axis, 0)).reshape(size, -1) for v in (c.ours, c.found))
        if size < 2 or ours.shape[1] < LEAST:
            continue
        where: dict[bytes, list[int]] = {}
        for i, line in enumerate(ours):
            where.setdefault(line.tobytes(), []).append(i)
        odd = np.flatnonzero((ours != found).any(axis=1))
        matches = [where.get(line.tobytes(), []) for line in found[odd]]
        telling = [i for i in odd if (found[i] != found[i, 0]).any()]  # a line of one value stands anywhere
        if telling and all(matches) and 2 * len(telling) >= len(odd):
            near = {int(i): min(m, key=lambda j: abs(j - i)) for i, m in zip(odd, matches, strict=True)}
            steps = [near[int(i)] - int(i) for i in telling]
            usual = max(set(steps), key=steps.count)
            order = np.arange(size)
            order[odd] = [i + usual if i + usual in m else near[int(i)] for i, m in zip(odd, matches, strict=True)]
            moved = np.flatnonzero(order != np.arange(size))
            texts = ", ".join(f"{i} holds {order[i]}" for i in moved[:4]) + (", ..." if len(moved) > 4 else "")
            how = "are in another order" if len(set(order.tolist())) == size else "stand more than once"
            yield Change(f"its {name} {how}: {texts} ({len(moved)} of {size})", values=np.take(c.ours, order, axis))


def _some(touched: Array) -> str:
    return ", ".join(map(str, touched[:4])) + (f", ... {touched[-1]} ({len(touched)})" if len(touched) > 4 else "")


def regions(wrong: Array) -> Iterator[tuple[str, Array]]:
    """Parts of the tensor that hold all differences: the last rows, columns, channels, bytes."""
    flat = np.flatnonzero(wrong.reshape(-1))
    names = AXES.get(wrong.ndim, ())
    box, said = list[Array](), []
    for axis, name in enumerate(names):
        touched = np.flatnonzero(wrong.any(axis=tuple(i for i in range(wrong.ndim) if i != axis)))
        size = wrong.shape[axis]
        if size > 1 and len(touched) < size:
            region = np.zeros(wrong.shape, bool)
            index: list[Any] = [slice(None)] * wrong.ndim
            index[axis] = slice(int(touched[0]), int(touched[-1]) + 1)
            region[tuple(index)] = True
            yield f"{name} {touched[0]} to {touched[-1]} of {size}", region
            said.append(f"{name} {touched[0]} to {touched[-1]} of {size}")
            steps = np.unique(np.diff(touched))
            if steps.size and steps[-1] > 1:  # not side by side
                index[axis] = touched
                region = np.zeros(wrong.shape, bool)
                region[tuple(index)] = True
                nth = {2: "2nd", 3: "3rd"}.get(int(steps[0]), f"{steps[0]}th")
                every = f"every {nth} of the {name} from {touched[0]} to {touched[-1]}"
                yield every if steps.size == 1 else f"{name} {_some(touched)} of {size}", region
        box.append(np.arange(touched[0], touched[-1] + 1))
    if len(said) > 1:
        region = np.zeros(wrong.shape, bool)
        region[np.ix_(*box)] = True
        yield " in ".join(said[::-1]), region
    span = np.zeros(wrong.size, bool)
    span[flat[0] : flat[-1] + 1] = True
    yield f"values {flat[0]:,} to {flat[-1]:,} in memory order", span.reshape(wrong.shape)
