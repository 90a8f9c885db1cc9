"""Hypotheses on memory: words of several bytes turned, pitches of rows and pixels, pointers into another buffer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from npmobilenet.golden.causes.case import Case, Change
from npmobilenet.golden.derivation import zero_point_of
from npmobilenet.modeldata import Array

WORDS = (2, 4, 8, 16)
PIXELS = (4, 8, 16, 32, 64)  # bytes that pixels are aligned to
ROWS = (16, 32, 64, 128)  # bytes that rows are aligned to
LEAST = 16  # bytes that are looked for in another buffer


def memory(c: Case) -> Iterator[Change]:
    """The output, or an operand, in words whose bytes are turned, or with rows or pixels further apart."""
    if c.finish is not None:
        return
    if c.ours.dtype.itemsize == 1 and c.ours.ndim == 4:
        for text, array in _elsewhere(c.ours, zero_point_of(c.what.result)):
            yield Change(f"its output {text}", values=array)
    for position, (tensor, x) in enumerate(zip(c.what.operands, c.what.arrays, strict=True)):
        if not tensor.constant and x.ndim == 4 and x.dtype.itemsize == 1:
            for text, array in _elsewhere(x, zero_point_of(tensor)):
                yield c.arrays(f"it reads '{tensor.name}' as if that {text}", {position: array})


def _elsewhere(x: Array, z: int) -> Iterator[tuple[str, Array]]:
    n, h, w, ch = x.shape
    for size in WORDS:
        if ch % size and (h * w * ch) % size == 0:  # else it is an order of channels
            turned = x.reshape(n, -1, size)[:, :, ::-1].reshape(x.shape)
            yield f"had the bytes of each {size} in the other order (big- and little-endian words)", turned
    seen = set()
    for name, block, steps in (("pixels", ch, PIXELS), ("rows", w * ch, ROWS)):
        for step in steps:
            pitch = -(-block // step) * step
            if pitch == block or (name, pitch) in seen:
                continue
            seen.add((name, pitch))
            for filling in dict.fromkeys((z, 0)):
                said = f"(pitch; {filling} between and behind)"
                yield (f"were written with {name} of {pitch} bytes, and read with {name} of {block} {said}",
                       _written(x, block, pitch, filling))  # fmt: skip
                yield (f"were written with {name} of {block} bytes, and read with {name} of {pitch} {said}",
                       _read(x, block, pitch, filling))  # fmt: skip


def _written(x: Array, block: int, pitch: int, filling: int) -> Array:
    """What lies in memory with gaps, read without."""
    rows = x.reshape(len(x), -1, block)
    wide = np.full((len(x), rows.shape[1], pitch), filling, x.dtype)
    wide[:, :, :block] = rows
    return wide.reshape(len(x), -1)[:, : x[0].size].reshape(x.shape)


def _read(x: Array, block: int, pitch: int, filling: int) -> Array:
    """What lies in memory without gaps, read with."""
    count = x[0].size // block
    flat = np.full((len(x), count * pitch), filling, x.dtype)
    flat[:, : x[0].size] = x.reshape(len(x), -1)
    return np.ascontiguousarray(flat.reshape(len(x), count, pitch)[:, :, :block]).reshape(x.shape)


def overlaps(c: Case) -> Iterator[Change]:
    """A piece of the output holds a piece of another tensor: their buffers overlap."""
    if c.finish is not None or not c.wrong.any():
        return
    flat = np.flatnonzero(c.wrong.reshape(-1))
    first, last = int(flat[0]), int(flat[-1]) + 1
    size = c.ours.dtype.itemsize
    found, ours = np.ascontiguousarray(c.found), c.ours.reshape(-1)
    piece = found.reshape(-1)[first:last].tobytes()
    if last - first < LEAST or len(set(piece)) < 4:
        return
    for name, array in {**c.others, **c.later}.items():
        held = np.ascontiguousarray(array).tobytes()
        at = held.find(piece)
        if at < 0:
            continue
        values = ours.copy()
        values[first:last] = found.reshape(-1)[first:last]
        yield Change(f"values {first:,} to {last - 1:,} in memory order hold those of '{name}' from {at // size:,} on "
                     "(another buffer overlaps)", values=values.reshape(c.ours.shape))  # fmt: skip


def partly_stale(c: Case) -> Iterator[Change]:
    """The input's first or last rows, or channels, still (or already) hold another tensor's values."""
    if c.finish is not None or c.what.arrays[0].ndim != 4 or not c.wrong.any():
        return
    x = c.what.arrays[0]
    height = x.shape[1]
    touched = np.flatnonzero(c.wrong.any(axis=(0, 2, 3))) if c.wrong.ndim == 4 else np.arange(1)
    step = max(height // max(c.ours.shape[1], 1), 1) if c.ours.ndim == 4 else 1
    near = [int(touched[0]) * step + d for d in range(-3, 4)], [(int(touched[-1]) + 1) * step + d for d in range(-3, 4)]
    others = {n: a for n, a in c.others.items() if a.size == x.size and a.dtype == x.dtype}
    if len(x) > 1:
        others["the image before"] = np.roll(x, 1, 0)
    for name, array in others.items():
        old = array.reshape(x.shape)
        if np.array_equal(old, x):
            continue
        for place in dict.fromkeys((*near[0], height // 2)):
            if 0 < place < height:
                mixed = np.concatenate([x[:, :place], old[:, place:]], axis=1)
                yield c.arrays(f"rows {place} to {height - 1} of its input still hold '{name}' (another buffer)",
                               {0: mixed})  # fmt: skip
        for place in dict.fromkeys((*near[1], height // 2)):
            if 0 < place < height:
                mixed = np.concatenate([old[:, :place], x[:, place:]], axis=1)
                yield c.arrays(f"rows 0 to {place - 1} of its input still hold '{name}' (another buffer)", {0: mixed})


def pointers(c: Case) -> Iterator[Change]:
    """Weights, biases or multipliers read where another layer's lie, in all channels or in those that differ."""
    from npmobilenet.golden.causes.results import factor_edit

    own, bias = c.what.arrays[1:3]
    odd = np.asarray(c.wrong.reshape(-1, c.wrong.shape[-1]).any(axis=0))  # of a partial dump all
    if not odd.all() and c.wrong.sum() < LEAST:  # some other layer's numbers would fit by chance
        return
    some = "" if odd.all() else f" of channels {np.flatnonzero(odd)[0]} to {np.flatnonzero(odd)[-1]}"
    for name, arrays in c.constants.items():
        theirs = _in_place(own, arrays[0])
        if theirs is not None:
            mixed = np.where(odd, theirs, own)
            how = "those of" if arrays[0].shape == own.shape else "read where those begin of"
            yield c.arrays(f"its weights{some} are {how} '{name}'", {1: mixed})
            if len(arrays) > 1 and arrays[1].size >= bias.size:
                both = np.where(odd, arrays[1][: bias.size], bias).astype(bias.dtype)
                yield c.arrays(f"its weights and bias{some} are {how} '{name}'", {1: mixed, 2: both})
        if len(arrays) > 1 and arrays[1].size >= bias.size:
            both = np.where(odd, arrays[1][: bias.size], bias).astype(bias.dtype)
            yield c.arrays(f"its bias{some} is read where that of '{name}' begins", {2: both})
    if c.stage == "accumulator":
        return
    m, s = (np.asarray(v, np.int64) for v in (c.requant.multiplier, c.requant.shift))
    for name, (other_m, other_s) in c.rescalings.items():
        if len(other_m) >= len(m):
            a, b = np.where(odd, other_m[: len(m)], m), np.where(odd, other_s[: len(m)], s)
            yield Change(f"its multipliers and shifts{some} are those of '{name}'", edit=factor_edit(a, b))
            yield Change(f"its shifts{some} are those of '{name}'", edit=factor_edit(m, b))
            yield Change(f"its multipliers{some} (without the shifts) are those of '{name}'", edit=factor_edit(a, s))


def _in_place(own: Array, other: Array) -> Array | None:
    """Another layer's weights as memory, in OHWI as .tflite files have them, read in the shape of `own`."""
    if other.size < own.size or other.dtype != own.dtype:
        return None
    stored = [np.moveaxis(a, -1, 0) if a.ndim in (2, 4) else a for a in (own, other)]
    flat = np.ascontiguousarray(stored[1]).reshape(-1)[: own.size].reshape(stored[0].shape)
    return np.moveaxis(flat, 0, -1) if own.ndim in (2, 4) else flat


def apart(c: Case) -> Iterator[Change]:
    """Weights in words whose bytes are turned, or stored with more input channels than there are."""
    own = c.what.arrays[1]
    if own.ndim != 4:
        return
    ohwi = np.ascontiguousarray(np.moveaxis(own, -1, 0))
    count = own.shape[2]
    for size in WORDS:
        if count % size and own.size % size == 0:
            turned = ohwi.reshape(-1, size)[:, ::-1].reshape(ohwi.shape)
            yield c.arrays(f"its weights have the bytes of each {size} in the other order (endian words)",
                           {1: np.moveaxis(turned, 0, -1)})  # fmt: skip
    for pitch in (p for p in PIXELS if count < p <= 2 * count + 1):
        for held in dict.fromkeys((zero_point_of(c.what.operands[1]), 0)):
            for how, move in (("stored", _written), ("read", _read)):
                moved = move(ohwi.reshape(1, *ohwi.shape), count, pitch, held)[0]
                text = f"its weights are {how} as if there were {pitch} input channels instead of {count}"
                yield c.arrays(text, {1: np.moveaxis(moved, 0, -1)})


def channels_modulo(c: Case) -> Iterator[Change]:
    """A depth multiplier's output channel c reads input channel c % count instead of c // multiplier."""
    x, m = c.what.arrays[0], c.what.node.attrs.get("multiplier", 1)
    if c.what.node.op != "depthwise_conv2d" or m < 2 or x.shape[-1] < 2:
        return
    count = c.what.arrays[1].shape[-1]
    read = np.ascontiguousarray(x[..., np.arange(count) % x.shape[-1]])
    what = c.arrays("", {0: read}, multiplier=1).what
    assert what is not None
    yield Change(f"output channel c reads input channel c % {x.shape[-1]} instead of c // {m}", replace(what))
