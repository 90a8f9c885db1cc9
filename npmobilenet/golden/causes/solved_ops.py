"""Numbers off by any amount (solved.py) in ops without weights: sums, products, pools, means, functions, softmax."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from npmobilenet.golden.causes.case import Case, Change
from npmobilenet.golden.causes.geometry import Axis
from npmobilenet.golden.causes.realvalues import parameters, real_values, set_fields
from npmobilenet.golden.causes.rounding import FLOAT_RULES
from npmobilenet.golden.causes.solved import first_that_fits, integers, interval, little, numbers
from npmobilenet.golden.causes.tables import FUNCTIONS
from npmobilenet.golden.derivation import zero_point_of

COUNTS = 8  # divisors that are tried
CUT = 0.55  # what may be cut off of a value


def elementwise(c: Case) -> Iterator[Change]:
    """An operand's zero point or a tensor's scale, off by any amount."""
    p = parameters(c)
    if little(c) or not {"zero_x", "zero_y"} <= set(getattr(p, "_fields", ())):
        return
    (x, y), node, result = c.what.operands, c.what.node, c.what.result
    a, b = (real_values(t, v) for t, v in zip(c.what.operands, c.what.arrays, strict=True))
    sa, sb, so = (_scale(t) for t in (x, y, result))
    product, sign = node.op == "mul", -1 if node.op == "sub" else 1
    real = (a * b if product else a + sign * b) / so
    bounds = (p.zero_point, p.low, p.high)
    zeros = ((x, "zero_x", p.zero_x, -sa * (b if product else 1) / so),
             (y, "zero_y", p.zero_y, -sb * (a if product else sign) / so))  # fmt: skip
    for tensor, name, z, move in zeros:
        for d in integers(*interval(c, real, move, bounds)):
            yield Change(f"the zero point of '{tensor.name}' is off by {d:+d}", edit=set_fields(**{name: z + d}))
    for position, (tensor, own, move, rest) in enumerate((
        (x, a, sa * (b if product else 1) / so, 0 if product else sign * b / so),
        (y, b, sb * (a if product else sign) / so, 0 if product else a / so))):  # fmt: skip
        z, limits = zero_point_of(tensor), np.iinfo(c.what.arrays[position].dtype)
        real_ = np.broadcast_to(rest - move * z, c.ours.shape).astype(np.float64)
        for v in integers(*interval(c, real_, move, bounds), zero=True) if not tensor.constant and own.size > 1 else ():
            if limits.min <= v <= limits.max:
                held = np.full_like(c.what.arrays[position], v)
                yield c.arrays(f"'{tensor.name}' is {v} everywhere ({(v - z) * _scale(tensor):.4g})", {position: held})
    moves = [] if product else [(0, x, a / so), (1, y, sign * b / so)]
    for position, tensor, move in (*moves, (2, result, real)):
        near = numbers(*interval(c, real, move, bounds), inverse=position == 2)  # a larger one gives smaller values
        yield from first_that_fits(c, (
            c.quantized(_of_scale(tensor, k), position, (_scale(tensor) * k,), None) for k in near))  # fmt: skip


def _of_scale(tensor: Any, k: float) -> str:
    return f"the scale of '{tensor.name}' is {k:.6g} times what it should be"


def _scale(tensor: Any) -> float:
    assert tensor.quantization is not None
    return float(np.float32(tensor.quantization.scale[0]))


def averages(c: Case) -> Iterator[Change]:
    """A sum divided by any other count; a mean with a scale that is off."""
    p, x = parameters(c), c.what.arrays[0].astype(np.int64)
    if little(c) or p is None or c.ours.dtype.itemsize != 1:
        return
    z, zo = zero_point_of(c.what.operands[0]), zero_point_of(c.what.result)
    if c.what.node.op == "mean":
        total, count = (x - z).sum(axis=(1, 2)).reshape(c.ours.shape), x.shape[1] * x.shape[2]
        real = total * _scale(c.what.operands[0]) / _scale(c.what.result) / count
        kinds = {"": (real, zo)}
    else:
        axes = [Axis(c.what, i) for i in (0, 1)]
        if any((a.at() < 0).any() or (a.at() >= a.size).any() for a in axes):
            return
        rows, columns = (a.at() for a in axes)
        total, count = x[:, rows][:, :, :, columns].sum(axis=(2, 4)), axes[0].taps * axes[1].taps
        kinds = {"": (total / count, 0), " of the values less the zero point": (total / count - z, z)}
    for about, (real, zero) in kinds.items():
        least, most = interval(c, real, real, (zero, p.low, p.high), CUT)
        low, high = 1 + float(least.max()), 1 + float(most.min())
        if not 0 < low <= high < np.inf:
            continue
        for n in range(int(np.ceil(count / high)), int(count / low) + 1)[:COUNTS]:
            for how, whole in FLOAT_RULES.items() if n != count else ():
                yield Change(f"its sum{about} is divided by {n} instead of {count} ({how})",
                             values=np.clip(whole(real * count / n) + zero, p.low, p.high))  # fmt: skip
    if c.what.node.op == "mean":
        move = np.full_like(real, -_scale(c.what.operands[0]) / _scale(c.what.result))
        for d in integers(*interval(c, real, move, (zo, p.low, p.high))):
            text = f"its input's zero point is off by {d:+d}"
            yield Change(text, edit=set_fields(start=p.start - d * count))
            for how, whole in FLOAT_RULES.items():
                yield Change(f"{text} (computed in floats, {how})",
                             values=np.clip(whole(real + d * move) + zo, p.low, p.high))  # fmt: skip
        result = c.what.result
        yield from first_that_fits(c, (
            c.quantized(_of_scale(result, k), len(c.what.operands), (_scale(result) * k,), None)
            for k in numbers(*interval(c, real, real, (zo, p.low, p.high)), inverse=True)))  # fmt: skip


def functions(c: Case) -> Iterator[Change]:
    """A function's scale or its input's zero point, off by any amount."""
    x, result = c.what.operands[0], c.what.result
    if little(c) or c.ours.dtype.itemsize != 1 or c.what.arrays[0].dtype.itemsize != 1:
        yield from _from_floats(c)
        return
    own, limits = np.iinfo(c.ours.dtype), np.iinfo(c.what.arrays[0].dtype)
    z, zero = zero_point_of(x), zero_point_of(result)
    entries = np.arange(limits.min, limits.max + 1)
    index = c.what.arrays[0].astype(np.int64) - limits.min
    f = FUNCTIONS.get(c.what.node.attrs.get("function", "the identity"))
    scale = _scale(result)
    real = c.ours.astype(np.float64) - zero if f is None else f(real_values(x, entries))[index] / scale
    slack = 1.0 if f is None else CUT
    for k in numbers(*interval(c, real, real, (zero, own.min, own.max), slack), inverse=True)[:9]:
        text = _of_scale(result, k)
        yield c.quantized(text, 1, (scale * k,), None)
        for how, whole in FLOAT_RULES.items() if f is not None else ():
            yield Change(f"{text} (computed in floats, {how})",
                         values=np.clip(whole(real / k) + zero, own.min, own.max))  # fmt: skip
    for point in (v for v in entries if v != z):
        text = f"its input's zero point is off by {point - z:+d}"
        yield c.quantized(text, 0, None, int(point))
        for how, whole in FLOAT_RULES.items() if f is not None else ():
            assert f is not None
            moved = whole(f(real_values(x, entries + (z - point))) / scale)
            yield Change(f"{text} (computed in floats, {how})",
                         values=np.clip(moved + zero, own.min, own.max)[index])  # fmt: skip


def _from_floats(c: Case) -> Iterator[Change]:
    """A quantize of floats by another scale or zero point."""
    q = c.what.result.quantization
    if little(c) or q is None or c.ours.dtype.kind == "f" or c.what.arrays[0].dtype.kind != "f":
        return
    own = np.iinfo(c.ours.dtype)
    z, scale, real = q.zero_point[0], np.float64(np.float32(q.scale[0])), c.what.arrays[0].astype(np.float64)
    v = real / scale
    for d in integers(*interval(c, v, np.ones_like(v), (z, own.min, own.max), CUT)):
        for how, whole in FLOAT_RULES.items():
            yield Change(f"its zero point is off by {d:+d} ({how})",
                         values=np.clip(whole(v) + z + d, own.min, own.max))  # fmt: skip
    for k in numbers(*interval(c, v, v, (z, own.min, own.max), CUT), inverse=True)[:9]:
        for how, whole in FLOAT_RULES.items():
            text = f"{_of_scale(c.what.result, k)} ({how})"
            yield Change(text, values=np.clip(whole(v / k) + z, own.min, own.max))


def dequantized(c: Case) -> Iterator[Change]:
    """Floats made of 8-bit numbers by another scale and zero point: a straight line through what the dump holds."""
    q, x, found = c.what.operands[0].quantization, c.what.arrays[0].astype(np.float64), c.found.astype(np.float64)
    if q is None or len(q.scale) != 1 or c.ours.dtype.kind != "f" or little(c) or np.ptp(x) == 0:
        return
    z, scale = q.zero_point[0], float(np.float32(q.scale[0]))
    least, most = x.argmin(), x.argmax()
    slope = float(found.flat[most] - found.flat[least]) / float(x.flat[most] - x.flat[least])
    if not np.isfinite(slope) or slope == 0:
        return
    point = float(x.flat[least] - found.flat[least] / slope)
    near = round(point)
    parts = [f"the scale of '{c.what.operands[0].name}' is {slope / scale:.6g} times what it should be"] * (
        abs(slope / scale - 1) > 1e-4)  # fmt: skip
    if abs(point - z) > 0.01:
        off = f"{near - z:+d}" if abs(point - near) < 0.01 else f"{point - z:+.4g}"
        parts.append(f"its zero point is off by {off}" + (" (missing: 0)" if near == 0 else ""))
    yield Change(
        " and ".join(parts) or "it is computed in other floats", values=(slope * (x - point)).astype(c.ours.dtype)
    )


def softmax(c: Case) -> Iterator[Change]:
    """Another factor in the exponent: what the greatest value and the others are to each other tells it."""
    if little(c) or c.ours.dtype.itemsize != 1:
        return
    beta, own = float(c.what.node.attrs["beta"]), np.iinfo(c.ours.dtype)
    v = beta * real_values(c.what.operands[0], c.what.arrays[0])
    share = c.found.astype(np.float64) - own.min
    top = v.argmax(axis=-1, keepdims=True)
    best, far = (np.take_along_axis(a, top, -1) for a in (share, v))
    seen = (share > 0) & (v < far) & (best < 255)
    if not seen.any():
        return
    with np.errstate(all="ignore"):
        low = np.log((best - 1) / (share + 1)) / (far - v)
        high = np.where(share > 1, np.log((best + 1) / (share - 1)) / (far - v), np.inf)
    least, most = np.where(seen, low, -np.inf).max(), np.where(seen, high, np.inf).min()
    yield from first_that_fits(c, (
        c.arrays(f"its beta (or its input's scale) is {k:.4g} times what it should be", {}, beta=beta * k)
        for k in numbers(np.array([least - 1]), np.array([most - 1]))))  # fmt: skip
