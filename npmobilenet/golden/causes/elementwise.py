"""Hypotheses on additions, subtractions and multiplications."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from npmobilenet.arithmetic.fixedpoint import Rounding
from npmobilenet.golden.causes.case import Case, Change
from npmobilenet.golden.causes.realvalues import clamped, parameters, real_values, set_fields, stored_values
from npmobilenet.golden.causes.results import clamp_edits
from npmobilenet.golden.causes.rounding import FLOAT_RULES, RULES
from npmobilenet.modeldata import Array


def binary(c: Case) -> Iterator[Change]:
    """Additions, subtractions, multiplications: operands, their zero points and factors, rounding, clamp."""
    p, (x, y), (a, b) = parameters(c), c.what.operands, c.what.arrays
    names = dict(zip("xy", (x.name, y.name), strict=True))
    for text, edit in clamp_edits(c, p.zero_point, p.low, p.high):
        yield Change(text, edit=edit)
    for side, own in (("x", p.zero_x), ("y", p.zero_y)):
        points = [("missing (0)", 0), *((f"off by {d:+d}", own + d) for d in (1, -1, 2, -2)), ("128", 128),
                  ("that of the other operand", p.zero_y if side == "x" else p.zero_x),
                  ("that of the output", p.zero_point)]  # fmt: skip
        for text, point in points:
            if point != own:
                yield Change(f"the zero point of '{names[side]}' is {text}", edit=set_fields(**{f"zero_{side}": point}))
    if p.zero_x != p.zero_y:
        yield Change("the zero points of its operands are swapped", edit=set_fields(zero_x=p.zero_y, zero_y=p.zero_x))
    yield Change("the zero points of both operands are missing (0)", edit=set_fields(zero_x=0, zero_y=0))
    yield Change("the zero points of both operands are 128", edit=set_fields(zero_x=128, zero_y=128))
    yield from _operands(c, p, names)
    yield from _factors(p, names)
    for i, name in enumerate((x.name, y.name)):
        yield from _read_bytes(c, p, i, name)
        for text, change in _bytes(c, i):
            yield Change(f"the bytes of '{name}' are read as {text}", values=change(c.ours))
    if a.shape == b.shape or p.zero_x is not None:
        yield from _sum_roundings(c, p) if c.what.node.op != "mul" else _product_roundings(c, p)


def _operands(c: Case, p: Any, names: Mapping[str, str]) -> Iterator[Change]:
    """An operand missing, taken twice, swapped with the other."""
    (a, b), (x, y) = c.what.arrays, c.what.operands
    if not x.constant:
        yield c.arrays(f"'{names['x']}' is missing (0)", {0: np.full_like(a, np.clip(p.zero_x, *_ends(a)))})
    if not y.constant:
        yield c.arrays(f"'{names['y']}' is missing (0)", {1: np.full_like(b, np.clip(p.zero_y, *_ends(b)))})
    if a.shape == b.shape and a.dtype == b.dtype:
        yield c.arrays("its operands are swapped, their scales and zero points not", {0: b, 1: a})
        yield c.arrays(f"'{names['x']}' is taken in place of '{names['y']}' as well", {1: a})
        yield c.arrays(f"'{names['y']}' is taken in place of '{names['x']}' as well", {0: b})
        yield Change(f"it passes '{names['x']}' on as stored", values=a)
        yield Change(f"it passes '{names['y']}' on as stored", values=b)
    if hasattr(p, "sign"):
        yield Change("it adds in place of subtracting, or the other way round", edit=set_fields(sign=-p.sign))
    own = np.iinfo(c.what.result.dtype)
    u, v = a.astype(np.int64), b.astype(np.int64)
    plain = {"stored values are added without rescaling": u + v - p.zero_x - p.zero_y + p.zero_point,
             "stored values are added without zero points and rescaling": u + v}  # fmt: skip
    for text, total in plain.items() if c.what.node.op != "mul" else ():
        yield Change(text, values=np.clip(total, own.min, own.max))
        yield Change(f"{text}, modulo 256", values=(total - own.min & 255) + own.min)


def _ends(array: Array) -> tuple[int, int]:
    return int(np.iinfo(array.dtype).min), int(np.iinfo(array.dtype).max)


def _factors(p: Any, names: Mapping[str, str]) -> Iterator[Change]:
    """Multipliers and shifts: of the other operand, off, with fewer bits."""
    if hasattr(p, "multiplier_x"):
        yield Change("the scales of its operands are swapped",
                     edit=set_fields(multiplier_x=p.multiplier_y, shift_x=p.shift_y, multiplier_y=p.multiplier_x,
                               shift_y=p.shift_x))  # fmt: skip
        if p.shift_x != p.shift_y:
            yield Change("the shifts of its operands are swapped, their multipliers not",
                         edit=set_fields(shift_x=p.shift_y, shift_y=p.shift_x))  # fmt: skip
            yield Change("the multipliers of its operands are swapped, their shifts not",
                         edit=set_fields(multiplier_x=p.multiplier_y, multiplier_y=p.multiplier_x))  # fmt: skip
            for side in ("x", "y"):
                yield Change(f"the shift of '{names[side]}' has the wrong sign",
                             edit=set_fields(**{f"shift_{side}": -getattr(p, f"shift_{side}")}))  # fmt: skip
        yield Change("scales and zero points of its operands are swapped",
                     edit=set_fields(multiplier_x=p.multiplier_y, shift_x=p.shift_y, multiplier_y=p.multiplier_x,
                               shift_y=p.shift_x, zero_x=p.zero_y, zero_y=p.zero_x))  # fmt: skip
        yield Change(f"both operands have the scale of '{names['x']}'",
                     edit=set_fields(multiplier_y=p.multiplier_x, shift_y=p.shift_x))  # fmt: skip
        yield Change(f"both operands have the scale of '{names['y']}'",
                     edit=set_fields(multiplier_x=p.multiplier_y, shift_x=p.shift_y))  # fmt: skip
    fields = [f for f in ("multiplier", "multiplier_x", "multiplier_y") if hasattr(p, f)]
    for bits in range(1, 28):
        cut = {f: getattr(p, f) >> bits << bits for f in fields}
        near = {f: (getattr(p, f) + (1 << bits >> 1)) >> bits << bits for f in fields}
        yield Change(f"its multipliers have {31 - bits} bits: the low {bits} are dropped", edit=set_fields(**cut))
        yield Change(f"its output's multiplier has {31 - bits} bits: the low {bits} are dropped",
                     edit=set_fields(multiplier=cut["multiplier"]))  # fmt: skip
        yield Change(f"its multipliers have {31 - bits} bits: the low {bits} are rounded", edit=set_fields(**near))
    for d in (1, -1, 2, -2):
        yield Change(f"its output's shift is off by {d:+d}", edit=set_fields(shift=p.shift + d))
        for side in ("x", "y") if hasattr(p, "shift_x") else ():
            name = f"shift_{side}"
            yield Change(
                f"the shift of '{names[side]}' is off by {d:+d}", edit=set_fields(**{name: getattr(p, name) + d})
            )


def _bytes(c: Case, position: int) -> Iterator[tuple[str, Callable[[Array], Array]]]:
    """An operand's bytes as the other 8-bit type, in real numbers."""
    array, tensor = c.what.arrays[position], c.what.operands[position]
    other = "uint8" if array.dtype == np.int8 else "int8"
    arrays = [*c.what.arrays]
    arrays[position] = array.view(other)
    op = c.what.node.op
    for name, whole in FLOAT_RULES.items():

        def made(_: Array, whole: Callable[[Array], Array] = whole) -> Array:
            a, b = (real_values(t, v) for t, v in zip(c.what.operands, arrays, strict=True))
            return stored_values(c, a * b if op == "mul" else a - b if op == "sub" else a + b, whole)

        if tensor.dtype in ("int8", "uint8"):
            yield f"{other} ({name})", made


def _read_bytes(c: Case, p: Any, position: int, name: str) -> Iterator[Change]:
    """An operand's bytes as the other 8-bit type, by the node's own arithmetic: values 256 away, as two halves.

    Values that the type has keep their zero point; the others are computed with one that lies 256 lower (or higher).
    """
    array = c.what.arrays[position]
    field = ("zero_x", "zero_y")[position]
    if not hasattr(p, field) or array.dtype not in (np.int8, np.uint8):
        return
    by = 256 if array.dtype == np.int8 else -256
    moved = c._edited(Change("", edit=set_fields(**{field: getattr(p, field) - by})), c.what)
    high = np.broadcast_to(array.view(np.uint8) >= 128, c.ours.shape)
    yield Change(
        f"the bytes of '{name}' are read as {'uint8' if by > 0 else 'int8'}", values=np.where(high, moved, c.ours)
    )


def _sum_roundings(c: Case, p: Any) -> Iterator[Change]:
    """Sums in floats, and in integers with other roundings or another left shift."""
    (a, b), (x, y) = c.what.arrays, c.what.operands
    real = real_values(x, a) + p.sign * real_values(y, b)
    yield from _floats(c, p, lambda: real)
    yield from _one_by_one(c, p)
    if p.rule.inside == Rounding.LINEAR:  # XNNPACK's: no multiplier of the output
        return
    u, v = a.astype(np.int64) - p.zero_x, b.astype(np.int64) - p.zero_y
    for left in range(20, -1, -1):
        parts = {}
        for first in ("two", "one", "off"):
            rule = {"two": "scaled in two steps, the second rounded half away from zero",
                    "one": "scaled in one step, rounded half up",
                    "off": "scaled in one step, cut off toward minus infinity (a plain right shift) instead of rounded",
                    }[first]  # fmt: skip
            scaled = [RULES[rule](w << left, np.int64(m), np.int64(s)) for w, m, s in
                      ((u, p.multiplier_x, p.shift_x), (v, p.multiplier_y, p.shift_y))]  # fmt: skip
            parts[first] = scaled[0] + p.sign * scaled[1]
        shift = np.int64(p.shift + 20 - left)
        if shift > 30:
            continue
        said = {"two": "", "one": ", operands rounded once", "off": ", operands cut off"}
        for (first, total), (name, rule2) in itertools.product(parts.items(), RULES.items()):
            if left != 20 and name != "scaled in two steps, the second rounded half away from zero":
                continue
            bits = "" if left == 20 else f" (operands shifted left by {left} instead of 20 bits)"
            yield Change(f"its sum is {name}{said[first]}{bits}",
                         values=clamped(c, rule2(total, np.int64(p.multiplier), shift) + p.zero_point, p))  # fmt: skip


def _one_by_one(c: Case, p: Any) -> Iterator[Change]:
    """Each operand is brought to the output's scale, in whole numbers, and then added."""
    q, own = c.what.result.quantization, np.iinfo(c.what.result.dtype)
    assert q is not None
    for i, said in ((None, "its operands are"), (0, "its first operand is"), (1, "its second operand is")):
        for name, whole in FLOAT_RULES.items():
            a, b = (real_values(t, v) / np.float64(np.float32(q.scale[0]))
                    for t, v in zip(c.what.operands, c.what.arrays, strict=True))  # fmt: skip
            for cut in (False, True):
                low, high = (own.min - p.zero_point, own.max - p.zero_point) if cut else (-(2**31), 2**31)
                parts = [np.clip(whole(v), low, high) if i in (None, k) else v for k, v in enumerate((a, b))]
                total = whole(parts[0] + p.sign * parts[1])
                yield Change(
                    f"{said} rescaled to the output's scale and {name}{' and clamped' if cut else ''} before the sum",
                    values=clamped(c, total + p.zero_point, p),
                )


def _floats(c: Case, p: Any, real: Callable[[], Array]) -> Iterator[Change]:
    for name, whole in FLOAT_RULES.items():
        yield Change(f"it is computed in floats and {name}",
                     values=np.clip(stored_values(c, real(), whole), p.low, p.high))  # fmt: skip


def _product_roundings(c: Case, p: Any) -> Iterator[Change]:
    (a, b), (x, y) = c.what.arrays, c.what.operands
    yield from _floats(c, p, lambda: real_values(x, a) * real_values(y, b))
    product = (a.astype(np.int64) - p.zero_x) * (b.astype(np.int64) - p.zero_y)
    for name, rule in RULES.items():
        yield Change(
            f"its product is {name}",
            values=clamped(c, rule(product, np.int64(p.multiplier), np.int64(p.shift)) + p.zero_point, p),
        )
