"""Hypotheses on a layer's weights and bias: in another order, cut down, another layer's, or missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from npmobilenet.golden.causes.case import Case, Change, with_arrays
from npmobilenet.golden.causes.cuts import cut_values
from npmobilenet.golden.causes.shuffles import distinct, misread, orders
from npmobilenet.golden.derivation import zero_point_of
from npmobilenet.golden.single_node import run
from npmobilenet.modeldata import Array

_LAYOUTS = {"conv2d": ("hwio", ("ohwi", "hwio", "oihw")), "depthwise_conv2d": ("hwc", ("hwc", "chw")),
            "fully_connected": ("io", ("oi", "io"))}  # fmt: skip
_CUTS = (4, 8, 16, 32, 64)


def bias(c: Case) -> Iterator[Change]:
    """The bias missing, moved, cut down."""
    own = c.what.arrays[2].astype(np.int64)
    tries = [
        ("its bias is missing", own * 0), ("its bias is added twice", own * 2), ("its bias is subtracted", -own),
        *((f"its bias saturates at {bits} bits", np.clip(own, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1))
          for bits in range(8, 25)),
        *((f"its bias wraps at {bits} bits", ((own + 2 ** (bits - 1)) & (2**bits - 1)) - 2 ** (bits - 1))
          for bits in range(8, 25)),
        *((f"its bias loses its low {bits} bits", own >> bits << bits) for bits in range(1, 17)),
        *((f"its bias is {2**k} times too large", own * 2**k) for k in range(1, 9)),
        *((f"its bias is {2**k} times too small", own >> k) for k in range(1, 9)),
        ("all channels have the bias of channel 0", own * 0 + own[0]),
    ]  # fmt: skip
    tries += [(f"its bias has its {text}", own[order]) for text, order in distinct(orders(len(own)))]
    places = np.arange(len(own))
    for count in (n for n in (1, 2, *_CUTS) if n < len(own)):
        tries += [(f"its bias is missing in the last {count} channels", np.where(places < len(own) - count, own, 0)),
                  (f"its bias is missing from channel {count} on", np.where(places < count, own, 0)),
                  (f"its bias is missing in the first {count} channels", np.where(places < count, 0, own)),
                  (f"each channel has the bias of the first of its {count}", own[places // count * count])]  # fmt: skip
    tries += [
        (f"its bias is missing in every second channel, from {i}", np.where(places % 2 == i, 0, own)) for i in (0, 1)
    ]
    tries += [(f"its bias is that of '{name}'", arrays[1].astype(np.int64)) for name, arrays in c.constants.items()
              if len(arrays) > 1 and arrays[1].shape == own.shape]  # fmt: skip
    tries += [(f"its bias is in the scale of the weights of {name}", np.rint(own * factors).astype(np.int64))
              for name, factors in _weight_scales(c)]  # fmt: skip
    for text, array in tries:
        if not np.array_equal(array, own):
            yield Change(text, sums=partial(np.add, array - own))


def _weight_scales(c: Case) -> Iterator[tuple[str, Array]]:
    """What a bias is multiplied by if one channel's scale of the weights is taken for all, or the other way round."""
    q = c.what.operands[1].quantization
    if q is None or len(q.scale) == 1:
        return
    scales = np.asarray(q.scale, np.float64)
    for name, one in (("channel 0", scales[0]), ("the channel with the largest", scales.max())):
        yield f"{name} for all channels", scales / one
        yield f"each channel, though it was made with that of {name}", one / scales


def weights(c: Case) -> Iterator[Change]:
    """Weights in another order, or memory in one layout read as another."""
    own = c.what.arrays[1]
    axes, common = _LAYOUTS[c.what.node.op]
    for text, array in _turned(own, axes):
        yield c.arrays(f"its weights are {text}", {1: array})
    if own.ndim > 2 or own.shape[0] > 1:
        for text, array in misread(own, axes, common):
            yield c.arrays(f"its weights are transposed: {text}", {1: array})
    for axis, name in ((own.ndim - 1, "output channels"), (own.ndim - 2, "input channels")):
        if axes[axis] in "oic":
            for text, order in distinct(orders(own.shape[axis], name)):
                yield c.arrays(f"its weights have their {text}", {1: np.take(own, order, axis)})
    yield from _multiplied(c, own)
    yield from _flattened(c, own)
    for name, arrays in c.constants.items():
        if arrays[0].shape == own.shape and arrays[0].dtype == own.dtype:
            yield c.arrays(f"its weights are those of '{name}'", {1: arrays[0]})
            if len(arrays) > 1 and arrays[1].shape == c.what.arrays[2].shape:
                yield c.arrays(f"its weights and bias are those of '{name}'", {1: arrays[0], 2: arrays[1]})


def _turned(own: Array, axes: str) -> Iterator[tuple[str, Array]]:
    """The window flipped or transposed."""
    if axes[0] != "h":
        return
    if own.shape[0] > 1 and own.shape[1] > 1:
        yield "turned by 180 degrees (kh and kw flipped)", own[::-1, ::-1]
    if own.shape[0] > 1:
        yield "flipped along kh", own[::-1]
    if own.shape[1] > 1:
        yield "flipped along kw", own[:, ::-1]
    for axis, name in ((0, "rows"), (1, "columns")):
        for d in (1, -1) if own.shape[axis] > 2 else ():
            yield f"rolled by {d} along the {name} of the window", np.roll(own, d, axis)
    if own.shape[0] == own.shape[1] > 1:
        yield "transposed (kh and kw swapped)", own.swapaxes(0, 1)
        yield "turned by 90 degrees", np.rot90(own)
        yield "turned by 270 degrees", np.rot90(own, 3)


def _multiplied(c: Case, own: Array) -> Iterator[Change]:
    """The channels of a depth multiplier in the other order."""
    m = c.what.node.attrs.get("multiplier", 1)
    if c.what.node.op == "depthwise_conv2d" and 1 < m < own.shape[-1]:
        order = np.arange(own.shape[-1]).reshape(-1, m).T.reshape(-1)
        yield c.arrays("its weights have the depth multiplier as the outer index of channels", {1: own[..., order]})


def _flattened(c: Case, own: Array) -> Iterator[Change]:
    """A fully connected layer behind an image, whose pixels are flattened as NCHW."""
    shape = c.what.operands[0].shape[1:]
    if c.what.node.op == "fully_connected" and len(shape) == 3 and int(np.prod(shape)) == own.shape[0]:
        order = np.arange(own.shape[0]).reshape(shape).transpose(2, 0, 1).reshape(-1)
        yield c.arrays("its input is flattened as CHW instead of HWC", {1: own[np.argsort(order)]})


def taps(c: Case) -> Iterator[Change]:
    """Products left out: single taps, rows, columns, channels; weights cut to fewer bits."""
    own, z = c.what.arrays[1], np.asarray(zero_point_of(c.what.operands[1]), c.what.arrays[1].dtype)

    def without(text: str, *where: Any) -> Change:
        array = own.copy()
        for index in where:
            array[index] = z
        return c.arrays(text, {1: array})

    everything = slice(None)
    if c.what.node.op != "fully_connected":
        kh, kw = own.shape[:2]
        for ky in range(kh) if kh > 1 else ():
            yield without(f"row {ky} of its window is left out", (ky,))
        for kx in range(kw) if kw > 1 else ():
            yield without(f"column {kx} of its window is left out", (everything, kx))
        if 1 < kh * kw <= 49:
            for ky, kx in np.ndindex(kh, kw):
                yield without(f"tap (ky {ky}, kx {kx}) of its window is left out", (ky, kx))
    if c.what.node.op != "depthwise_conv2d":
        count = own.shape[-2]
        ends = dict.fromkeys([count - 1, *(count - count % n for n in _CUTS), count // 2, *_CUTS])
        for end in ends:
            if 0 < end < count:
                text = f"only the first {end} of {count} input channels are summed"
                yield without(text, (..., slice(end, None), everything))
        for start in (1, count // 2):
            if 0 < start < count:
                yield without(f"the first {start} of {count} input channels are left out",
                              (..., slice(0, start), everything))  # fmt: skip
    for text, array in cut_values(own, int(z)):
        yield c.arrays(f"its weights {text}", {1: array})
    for bit in range(8):
        raw, mask = own.view(np.uint8), np.uint8(1 << bit)
        yield c.arrays(f"bit {bit} of every weight is stuck at 0", {1: (raw & ~mask).view(own.dtype)})
        yield c.arrays(f"bit {bit} of every weight is stuck at 1", {1: (raw | mask).view(own.dtype)})


# ---------------------------------------------------------------------------------------------------------------------
# Zero points, and 8 bits read as the other type: they move accumulators by sums that the engine computes


def zero_points(c: Case) -> Iterator[Change]:
    """The input's or weights' zero point off, missing, another tensor's; 8 bits read as the other type."""
    x, w, bias_ = c.what.arrays
    z_x, z_w = (zero_point_of(t) for t in c.what.operands[:2])
    names = {t.name: zero_point_of(t) for t in (*c.what.operands[:2], c.what.result)}
    w_sums, every, x_sums = zero_point_sums(c)
    for text, d in _points(z_x, names, c.what.operands[0].name):
        yield Change(f"its input's zero point is {text}", sums=_added(-d, w_sums))
        if c.what.node.op != "fully_connected":
            yield Change(
                f"its input's zero point is {text}, though not in the padding",
                sums=_added(-d, np.broadcast_to(every, w_sums.shape)),
            )
    for text, d in _points(z_w, names, c.what.operands[1].name):
        yield Change(f"its weights' zero point is {text}", sums=_added(-d, x_sums))
    for text, moved in _terms(c, w_sums, every, x_sums) if z_x and z_w else ():
        yield Change(text, sums=partial(np.add, moved))
    for position, array, what, z in ((0, x, "input", z_x), (1, w, "weights", z_w)):
        one = _one_more(z, array)
        sign = 1 if one > z else -1
        high = array.view(np.uint8) >= 128
        picked = np.where(high, one, z).astype(array.dtype)
        read = sign * _sums(c, with_arrays(c.what, {position: picked, 2: bias_ * 0}))
        other, by = ("uint8", 256) if array.dtype == np.int8 else ("int8", -256)
        yield Change(f"the bytes of its {what} are read as {other}", sums=_added(by, read))


def _terms(c: Case, w_sums: Array, every: Array, x_sums: Array) -> Iterator[tuple[str, Array]]:
    """Sums of x w - z_x sum(w) - z_w sum(x) + n z_x z_w: one of the terms missing, or with the wrong sign."""
    z_x, z_w = (zero_point_of(t) for t in c.what.operands[:2])
    count = int(np.prod(c.what.arrays[1].shape[:-1]))
    both = count * z_x * z_w
    terms = {
        "n * zero point of input * zero point of weights": np.asarray(-both),
        "zero point of input * sum of weights": z_x * np.broadcast_to(every, x_sums.shape) + both,
        "zero point of input * sum of weights inside the image": z_x * w_sums + both,
        "zero point of weights * sum of input": z_w * x_sums + both,
    }
    for name, d in terms.items():
        yield f"of its accumulators' terms that of the {name} is missing", d
        yield f"of its accumulators' terms that of the {name} has the wrong sign", 2 * d


def zero_point_sums(c: Case) -> tuple[Array, Array, Array]:
    """What accumulators lose where the input's zero point is 1 larger, the same without the padding's share (for each
    channel), and where the weights' zero point is.
    """
    x, w, bias_ = c.what.arrays
    z_x, z_w = (zero_point_of(t) for t in c.what.operands[:2])
    ones_x = with_arrays(c.what, {0: np.full_like(x, _one_more(z_x, x)), 2: bias_ * 0})
    ones_w = with_arrays(c.what, {1: np.full_like(w, _one_more(z_w, w)), 2: bias_ * 0})
    sign_x, sign_w = (1 if _one_more(z, a) > z else -1 for z, a in ((z_x, x), (z_w, w)))
    every = (w.astype(np.int64) - z_w).sum(axis=tuple(range(w.ndim - 1)))
    return sign_x * _sums(c, ones_x), every, sign_w * _sums(c, ones_w)


def _one_more(z: int, array: Array) -> int:
    """A value that lies 1 from the zero point, above it where the dtype allows."""
    return z + 1 if z < np.iinfo(array.dtype).max else z - 1


def _sums(c: Case, what: object) -> Array:
    assert what is not None
    return run(what, c.dialect, stage="accumulator").astype(np.int64)  # type: ignore[arg-type]


def _points(z: int, names: dict[str, int], own: str) -> Iterator[tuple[str, int]]:
    """Other zero points than z: a text, and how far off."""
    seen = {0}
    tries = [
        ("missing (0)", -z),
        *((f"off by {d:+d}", d) for d in (1, -1, 2, -2, 3, -3)),
        *((f"that of '{name}' ({other})", other - z) for name, other in names.items() if name != own),
        ("added instead of subtracted", -2 * z),
        ("subtracted twice", z),
        ("off by +128 (int8 and uint8)", 128),
        ("off by -128 (int8 and uint8)", -128),
        ("128", 128 - z),
        ("-128", -128 - z),
        ("127", 127 - z),
    ]
    for text, d in tries:
        if d not in seen:
            seen.add(d)
            yield text, d


def _added(times: int, other: Array) -> Callable[[Array], Array]:
    """Accumulators plus so many times other sums of the same shape."""
    return lambda sums: sums + times * other
