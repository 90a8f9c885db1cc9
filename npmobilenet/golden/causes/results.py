"""Hypotheses on what lies behind the accumulators: multipliers, rounding, zero point, clamp; and on results' places."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from npmobilenet.arithmetic.fixedpoint import Requantization
from npmobilenet.golden.causes.case import Case, Change
from npmobilenet.golden.causes.places import usual_move
from npmobilenet.golden.causes.rounding import FLOAT_RULES, RAISED_RULES, RULES, by_float, by_rule, cast_rules, scaled
from npmobilenet.golden.causes.shuffles import distinct, orders
from npmobilenet.golden.derivation import zero_point_of
from npmobilenet.modeldata import Array

Edit = Callable[[Any], Any]


def limits(c: Case) -> Iterator[Change]:
    """Accumulators with too few bits, or low bits dropped."""
    for bits in range(8, 33):
        half = 2 ** (bits - 1)
        if int(np.abs(c.sums).max(initial=0)) < half - 1:
            continue
        yield Change(f"its accumulators saturate at {bits} bits", sums=_clipped(-half, half - 1))
        yield Change(f"its accumulators wrap at {bits} bits", sums=_wrapped(half))
        yield Change(f"its accumulators saturate at {bits} bits, symmetrically", sums=_clipped(1 - half, half - 1))
    for bits in range(1, 17):
        yield Change(f"its accumulators lose their low {bits} bits", sums=_dropped(bits))
        yield Change(f"its accumulators lose their low {bits} bits, rounded half up", sums=_rounded(bits))
        if c.stage != "accumulator":
            multiplier, shift = (np.asarray(v, np.int64) for v in (c.requant.multiplier, c.requant.shift))
            for how, moved in (("cut off", _shifted(0, bits)), ("rounded half up", _shifted(1 << bits >> 1, bits))):
                yield Change(f"its accumulators are shifted right by {bits} bits before they are multiplied ({how})",
                             sums=moved, edit=factor_edit(multiplier, shift + bits))  # fmt: skip
    bias = c.what.arrays[2].astype(np.int64)
    for bits in range(15, 25):
        half = 2 ** (bits - 1)
        if int(np.abs(c.sums - bias).max(initial=0)) >= half:
            yield Change(f"its sums of products saturate at {bits} bits before the bias is added",
                         sums=_before_bias(bias, _clipped(-half, half - 1)))  # fmt: skip
            yield Change(f"its sums of products wrap at {bits} bits before the bias is added",
                         sums=_before_bias(bias, _wrapped(half)))  # fmt: skip
    yield Change("its sums of products are cut off at 0 before the bias is added",
                 sums=lambda s: np.maximum(s - bias, 0) + bias)  # fmt: skip


def bias_behind(c: Case) -> Iterator[Change]:
    """The bias isn't in the accumulators: it is rescaled by itself, added as stored, or behind the clamp."""
    if c.stage == "accumulator":
        return
    r, bias = c.requant, c.what.arrays[2].astype(np.int64)
    own = np.iinfo(c.what.result.dtype)
    low, high = (r.low, r.high) if c.stage != "output" else (own.min, own.max)
    alone, products = scaled(np.broadcast_to(bias, c.sums.shape[-1:])[None], r)[0], scaled(c.sums - bias, r)

    def cut(v: Array) -> Array:
        return np.asarray(np.clip(v + r.zero_point, r.low, r.high))

    yield Change("its products and its bias are rescaled one by one, then added", values=cut(products + alone))
    yield Change("its bias is added as stored, behind the rescaling", values=cut(products + bias))
    for text, added in (("rescaled", alone), ("as stored", bias)):
        yield Change(f"its clamp is taken before the bias is added ({text})",
                     values=np.clip(cut(products) + added, low, high))  # fmt: skip


def _clipped(low: int, high: int) -> Callable[[Array], Array]:
    return lambda sums: np.clip(sums, low, high)


def _wrapped(half: int) -> Callable[[Array], Array]:
    return lambda sums: ((sums + half) & (2 * half - 1)) - half


def _before_bias(bias: Array, change: Callable[[Array], Array]) -> Callable[[Array], Array]:
    return lambda sums: change(sums - bias) + bias


def _dropped(bits: int) -> Callable[[Array], Array]:
    return lambda sums: sums >> bits << bits


def _shifted(half: int, bits: int) -> Callable[[Array], Array]:
    return lambda sums: (sums + half) >> bits


def _rounded(bits: int) -> Callable[[Array], Array]:
    return lambda sums: (sums + (1 << bits >> 1)) >> bits << bits


def roundings(c: Case) -> Iterator[Change]:
    """Other roundings than the dialect's."""
    for name, rule in RULES.items():
        yield Change(f"its accumulators are {name}", scaling=by_rule(rule))
    for name, whole in FLOAT_RULES.items():
        yield Change(f"its accumulators are scaled in float32 and {name}", scaling=by_float(np.float32, whole))
        yield Change(f"its accumulators are scaled in float64 and {name}", scaling=by_float(np.float64, whole))


def casts(c: Case) -> Iterator[Change]:
    """One half added, then a cast or C's division, before or after the zero point is added."""
    for name, rule in RAISED_RULES.items():
        yield Change(f"its accumulators are {name}", scaling=by_rule(rule))
    for name, whole in cast_rules(c.requant.zero_point).items():
        for kind, dtype in (("float32", np.float32), ("float64", np.float64)):
            yield Change(f"its accumulators are scaled in {kind} and {name}", scaling=by_float(dtype, whole))


def short_multipliers(c: Case) -> Iterator[Change]:
    """Multipliers of fewer bits."""
    for text, edit in _short(c.requant):
        yield Change(text, edit=edit)


def short_and_rounded(c: Case) -> Iterator[Change]:
    """Multipliers of fewer bits and another rounding together."""
    for text, edit in _short(c.requant):
        for name, rule in RULES.items():
            yield Change(f"{text}, and its accumulators are {name}", edit=edit, scaling=by_rule(rule))


def _short(r: Requantization) -> Iterator[tuple[str, Edit]]:
    """Multipliers with fewer bits: cut off, or rounded to nearest."""
    multiplier, shift = (np.asarray(v, np.int64) for v in (r.multiplier, r.shift))
    for bits in range(1, 28):
        cut = multiplier >> bits << bits
        near = np.minimum((multiplier + (1 << bits >> 1)) >> bits << bits, 2**31 - (1 << bits))
        over = (multiplier + (1 << bits >> 1)) >> bits << bits  # 2^31 where it carries
        kept = f"its multiplier has {31 - bits} bits: the low {bits} are"
        yield f"{kept} dropped", factor_edit(cut, shift)
        if not np.array_equal(over, cut):
            yield f"{kept} rounded to nearest", factor_edit(over, shift)
        if not np.array_equal(near, over):
            yield f"{kept} rounded to nearest, saturating", factor_edit(near, shift)


def factor_edit(multiplier: Array, shift: Array) -> Edit:
    """Other multipliers and shifts; the real factors follow them."""

    def edit(r: Any) -> Any:
        if not isinstance(r, Requantization):
            return r
        m, s = np.asarray(multiplier, np.int64), np.asarray(shift, np.int64)
        return r._replace(multiplier=m, shift=s, scale=m * 2.0 ** (s - 31))

    return edit


def factors(c: Case) -> Iterator[Change]:
    """Multipliers and shifts of other channels, missing, or off."""
    r = c.requant
    m, s = (np.asarray(v, np.int64) for v in (r.multiplier, r.shift))
    own = m * 2.0 ** (s - 31)
    tries = [("all channels have the multiplier and shift of channel 0", m * 0 + m[0], s * 0 + s[0]),
             ("all channels have the multiplier of channel 0", m * 0 + m[0], s),
             ("all channels have the shift of channel 0", m, s * 0 + s[0]),
             ("its multiplier is missing: a shift alone scales", m * 0 + 2**30, s),
             ("its multiplier is missing (1): a shift alone scales", m * 0 + 2**30, s + 1)]  # fmt: skip
    for name, pick in (("largest", np.argmax(own)), ("smallest", np.argmin(own)), ("last", len(own) - 1)):
        tries.append((f"all channels have the {name} channel's multiplier and shift", m * 0 + m[pick], s * 0 + s[pick]))
    tries += [(f"its shift is off by {d:+d} (a factor of {2.0**d:g})", m, s + d) for d in (1, -1, 2, -2, 3, -3, 8, -8)]
    tries += [
        ("its shift has the wrong sign", m, -s),
        ("its shift is missing", m, s * 0),
        ("its left shifts are left out", m, np.minimum(s, 0)),
        ("its right shifts are left out", m, np.maximum(s, 0)),
    ]
    tries += [(f"its right shifts are {k} at most", m, np.maximum(s, -k)) for k in range(1, 16)]
    places = np.arange(len(m))
    for count in (2, 4, 8, 16, 32, 64):
        if count < len(m):
            first = places // count * count
            tries += [(f"each channel has the multiplier and shift of the first of its {count}", m[first], s[first]),
                      (f"channels repeat the multipliers and shifts of the first {count}", m[places % count],
                       s[places % count])]  # fmt: skip
    half = len(m) // 2
    for d in (1, -1):
        tries += [(f"the shift is off by {d:+d} in {text}", m, s + d * picked) for text, picked in (
            ("the upper half of channels", places >= half), ("the lower half of channels", places < half),
            ("odd channels", places % 2 == 1), ("even channels", places % 2 == 0))]  # fmt: skip
    for text, order in distinct(orders(len(m))):
        tries += [(f"its multipliers and shifts have their {text}", m[order], s[order]),
                  (f"its multipliers (without the shifts) have their {text}", m[order], s),
                  (f"its shifts (without the multipliers) have their {text}", m, s[order])]  # fmt: skip
    for text, multiplier, shift in tries:
        if not (np.array_equal(multiplier, m) and np.array_equal(shift, s)) and (31 - shift <= 62).all():
            yield Change(text, edit=factor_edit(multiplier, np.minimum(shift, 30)))


def clamps(c: Case) -> Iterator[Change]:
    """The output's zero point and clamp: off, missing, in another order."""
    r = c.requant
    own = np.iinfo(c.what.result.dtype)
    z, low, high = r.zero_point, r.low, r.high
    for text, edit in clamp_edits(c, z, low, high):
        yield Change(text, edit=edit)
    if c.stage != "output":
        return
    yield Change("its activation's clamp is taken before the zero point is added",
                 scaling=lambda s, r: np.clip(np.clip(scaled(s, r), r.low, r.high) + z, own.min, own.max))  # fmt: skip
    yield Change("its activation's clamp is taken before the zero point is added, and the sum wraps",
                 scaling=lambda s, r: _as_8_bits(np.clip(scaled(s, r), r.low, r.high) + z, own))  # fmt: skip
    yield Change("values are clamped to 8 bits before the zero point is added",
                 scaling=lambda s, r: np.clip(np.clip(scaled(s, r), own.min, own.max) + z, low, high))  # fmt: skip
    yield Change("values beyond 8 bits wrap instead of being clamped",
                 scaling=lambda s, r: _as_8_bits(scaled(s, r) + r.zero_point, own))  # fmt: skip
    yield Change("values beyond 8 bits wrap before the activation's clamp",
                 scaling=lambda s, r: np.clip(_as_8_bits(scaled(s, r) + r.zero_point, own), low, high))  # fmt: skip


def clamp_edits(c: Case, z: int, low: int, high: int) -> Iterator[tuple[str, Edit]]:
    """Changes of zero point and clamp that any op's parameters know as `zero_point`, `low` and `high`."""
    own = np.iinfo(c.what.result.dtype)
    usual = usual_move(c, low, high) if c.stage == "output" else []
    others = {t.name: zero_point_of(t) for t in c.what.operands if t.dtype in ("int8", "uint8")}
    points = [("missing (0)", 0), *((f"off by {d:+d}", z + d) for d in (1, -1, 2, -2, 3, -3)),
              *((f"off by {d:+d}", z + d) for d in usual if abs(d) > 3), ("added twice", 2 * z),
              *((f"that of '{name}' ({p})", p) for name, p in others.items()), ("negated", -z), ("128", 128),
              ("-128", -128), ("off by +128", z + 128), ("off by -128", z - 128)]  # fmt: skip
    for text, point in points:
        if point != z:
            yield f"its output's zero point is {text}", _fields(zero_point=point)
            yield f"its output's zero point and clamp are moved: it is {text}", _fields(
                zero_point=point, low=min(max(low + point - z, own.min), own.max),
                high=min(max(high + point - z, own.min), own.max),
            )  # fmt: skip
    clamps = [
        ("its activation is missing: the clamp is that of 8 bits", own.min, own.max),
        ("the upper bound of its activation is missing", low, own.max),
        ("the lower bound of its activation is missing", own.min, high),
        ("its activation cuts at the stored 0, not at the zero point", 0, high),
        ("a relu that isn't there cuts at the zero point", z, high),
        ("a relu that isn't there cuts at the stored 0", 0, own.max),
        ("its clamp is symmetric: the lowest value is missing", max(low, own.min + 1), high),
        ("its clamp is that of int8 values", max(low, -128), min(high, 127)),
    ]
    if c.what.result.quantization is not None:
        scale = c.what.result.quantization.scale[0]
        for name, bound in (("relu6", 6.0), ("relu1", 1.0)):
            clamps.append((f"a {name} cuts it", max(low, z), min(z + round(bound / scale), own.max)))
            for how, whole in (("down", math.floor), ("up", math.ceil)):
                if whole(bound / scale) != round(bound / scale):
                    text = f"a {name} cuts it, its bound rounded {how}"
                    clamps.append((text, max(low, z), min(z + whole(bound / scale), own.max)))
        one = round(1 / scale)
        clamps.append(("a relu_n1_to_1 cuts it", max(z - one, own.min), min(z + one, own.max)))
    for d in (1, -1, 2, -2):
        clamps += [(f"the upper bound of its clamp is off by {d:+d}", low, high + d),
                   (f"the lower bound of its clamp is off by {d:+d}", low + d, high),
                   (f"both bounds of its clamp are off by {d:+d}", low + d, high + d)]  # fmt: skip
    clamps += _fitted(c, z, low, high)
    for text, least, most in dict.fromkeys(clamps):
        if (least, most) != (low, high) and own.min <= least <= most <= own.max:
            yield text, _fields(low=least, high=most)


def _fitted(c: Case, z: int, low: int, high: int) -> list[tuple[str, int, int]]:
    """The clamp that the dump's own least and greatest values tell, where differing values lie there."""
    q = c.what.result.quantization
    if c.finish is not None or c.stage != "output" or q is None or not c.wrong.any():
        return []
    odd = c.found[c.wrong]
    least, most = int(c.found.min()), int(c.found.max())
    ends = [(low, least, "lower"), (high, most, "upper")]
    new = [b if np.count_nonzero(odd == b) > 0 else a for a, b, _ in ends]
    said = [f"the {name} bound of its clamp is {b} (in real numbers {(b - z) * q.scale[0]:.4g}) instead of {a}"
            for (a, _, name), b in zip(ends, new, strict=True) if a != b]  # fmt: skip
    return [(" and ".join(said), new[0], new[1])] if said and new[0] < new[1] else []


def _fields(**changes: int) -> Edit:
    def edit(p: Any) -> Any:
        names = set(getattr(p, "_fields", ()))
        return p._replace(**{k: v for k, v in changes.items() if k in names}) if names >= {"low", "high"} else p

    return edit


def _as_8_bits(values: Array, own: Any) -> Array:
    return np.asarray(((values - own.min) & 255) + own.min)


def scales(c: Case) -> Iterator[Change]:
    """One quantized tensor of the layer taken with another's scale, or with its scale and zero point."""
    tensors = [*c.what.operands, c.what.result]
    known = [(t.name, t.quantization) for t in tensors if t.quantization is not None and len(t.quantization.scale) == 1]
    places = [i for i, t in enumerate(tensors) if t.quantization is not None and len(t.quantization.scale) == 1
              and t.dtype in ("int8", "uint8")]  # fmt: skip
    for position in places:
        tensor = tensors[position]
        assert tensor.quantization is not None
        own = (tensor.quantization.scale[0], tensor.quantization.zero_point[0])
        for name, other in known:
            theirs = (other.scale[0], other.zero_point[0])
            where = (
                f"of '{name}' ({theirs[0]:.6g}, {theirs[1]}) in place of that of '{tensor.name}' "
                f"({own[0]:.6g}, {own[1]})"
            )
            if theirs[0] != own[0]:
                yield c.quantized(f"it is computed with the scale {where}", position, other.scale, None)
            if theirs[1] != own[1] and (position >= 2 or not c.layered):
                yield c.quantized(f"it is computed with the zero point {where}", position, None, theirs[1])
            if theirs[0] != own[0] and theirs[1] != own[1]:
                yield c.quantized(
                    f"it is computed with the scale and zero point {where}", position, other.scale, theirs[1]
                )
        for factor in (2.0, 0.5):
            yield c.quantized(f"the scale of '{tensor.name}' is {factor:g} times what it should be", position,
                              (own[0] * factor,), None)  # fmt: skip
    for i in places:
        for j in places:
            if i < j and tensors[i].quantization != tensors[j].quantization:
                a, b = tensors[i].quantization, tensors[j].quantization
                assert a is not None
                assert b is not None
                names = f"of '{tensors[i].name}' and '{tensors[j].name}' are swapped"
                for text, (sa, za), (sb, zb) in (
                    ("scales", (b.scale, None), (a.scale, None)),
                    ("zero points", (None, b.zero_point[0]), (None, a.zero_point[0])),
                    ("scales and zero points", (b.scale, b.zero_point[0]), (a.scale, a.zero_point[0])),
                ):
                    first = c.quantized("", i, sa, za).what
                    assert first is not None
                    both = Case(first, c.found, c.dialect).quantized("", j, sb, zb)
                    yield Change(f"the {text} {names}", both.what)


def fused(c: Case) -> Iterator[Change]:
    """The layer without its activation, or with one behind it: an activation fused later or earlier."""
    if c.stage == "output" and c.what.node.attrs.get("activation", "none") != "none" and c.layered:
        own = np.iinfo(c.what.result.dtype)
        yield Change("its activation comes one node later (the values are those before it)",
                     scaling=lambda s, r: np.clip(scaled(s, r) + r.zero_point, own.min, own.max))  # fmt: skip
