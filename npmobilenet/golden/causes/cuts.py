"""What a device may do to every 8-bit value of a tensor: fewer bits, the sign lost, halved or doubled."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from npmobilenet.modeldata import Array


def cut_values(array: Array, z: int) -> Iterator[tuple[str, Array]]:
    """Texts ("saturate at 7 bits") and the changed values, about the zero point z and (where it is not 0) as stored;
    those that change nothing are left out.
    """
    own = np.iinfo(array.dtype)
    for about, point in {"": z, " as stored": 0}.items():
        if about and not z:
            continue
        v = array.astype(np.int64) - point
        for text, changed in _changes(v, signed=own.min < 0 or not about):
            stored = np.clip(changed + point, own.min, own.max).astype(array.dtype)
            if not np.array_equal(stored, array):
                yield f"{text}{about}", stored
    lowest = np.maximum(array, own.min + 1)
    if not np.array_equal(lowest, array):
        yield "lack the lowest value", lowest
    raw = np.ascontiguousarray(array).view(np.uint8)
    turned = np.packbits(np.unpackbits(raw.reshape(-1), bitorder="little")).reshape(raw.shape)
    yield "are turned bit by bit: their bits are in the other order", turned.view(array.dtype)
    yield "are turned by halves: their halves of 4 bits are swapped", (raw >> 4 | raw << 4).view(array.dtype)
    if own.min < 0:
        magnitude = array.view(np.uint8).astype(np.int64) & 127
        yield "are read as sign and magnitude", np.where(array < 0, -magnitude, magnitude).astype(array.dtype)


def _changes(v: Array, signed: bool) -> Iterator[tuple[str, Array]]:
    for bits in range(7, 1, -1):
        half = 1 << bits - 1
        if signed:
            yield f"saturate at {bits} bits", np.clip(v, -half, half - 1)
            yield f"saturate at {bits} bits, symmetrically", np.clip(v, 1 - half, half - 1)
            yield f"wrap at {bits} bits", ((v + half) & (2 * half - 1)) - half
        else:
            yield f"saturate at {bits} bits", np.clip(v, 0, 2 * half - 1)
        low = 8 - bits
        yield f"lose their low {low} bits", v >> low << low
        yield f"lose their low {low} bits toward zero", np.sign(v) * (np.abs(v) >> low << low)
        yield f"are rounded to {bits} bits (half up)", (v + (1 << low >> 1)) >> low << low
        yield f"are rounded to {bits} bits (half to even)", (np.rint(v / (1 << low)) * (1 << low)).astype(np.int64)
    yield "are doubled", 2 * v
    yield "are halved, cut off", v >> 1
    yield "are halved, rounded half up", (v + 1) >> 1
    yield "are negated", -v
    yield "lose their sign", np.abs(v)
    yield "that are negative are 0", np.maximum(v, 0)
