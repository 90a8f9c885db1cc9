"""Hypotheses on functions of single values (activations, quantize) and on softmax."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from npmobilenet.golden.causes.case import Case, Change
from npmobilenet.golden.causes.realvalues import real_values, stored_values
from npmobilenet.golden.causes.rounding import FLOAT_RULES, cast_rules
from npmobilenet.golden.derivation import zero_point_of
from npmobilenet.modeldata import Array

FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "hard_swish": lambda v: v * np.clip(v + 3, 0, 6) / 6,
    "swish (x * sigmoid(x))": lambda v: v / (1 + np.exp(-v)),
    "sigmoid": lambda v: 1 / (1 + np.exp(-v)),
    "hard_sigmoid (x + 3) / 6": lambda v: np.clip(v + 3, 0, 6) / 6,
    "hard_sigmoid 0.2 x + 0.5": lambda v: np.clip(0.2 * v + 0.5, 0, 1),
    "tanh": np.tanh,
    "relu": lambda v: np.maximum(v, 0),
    "relu6": lambda v: np.clip(v, 0, 6),
    "the identity": lambda v: v,
    "x * (x + 3) / 6 without the clip": lambda v: v * (v + 3) / 6,
    "x * max(x + 3, 0) / 6, without the upper clip": lambda v: v * np.maximum(v + 3, 0) / 6,
    "gelu": lambda v: 0.5 * v * (1 + np.tanh(np.sqrt(2 / np.pi) * (v + 0.044715 * v**3))),
}


def table(c: Case) -> Iterator[Change]:
    """Activations, quantize: functions of one 8-bit value, computed in floats, from tables that are off, or others."""
    x, node = c.what.arrays[0], c.what.node
    if c.ours.dtype not in (np.int8, np.uint8):
        return
    if x.dtype not in (np.int8, np.uint8):
        yield from _from_floats(c, x)
        return
    own = np.iinfo(c.ours.dtype)
    function = node.attrs.get("function", "the identity")
    real = real_values(c.what.operands[0], x)
    ordered = [n for n in FUNCTIONS if n.startswith(function)] + [n for n in FUNCTIONS if not n.startswith(function)]
    for name in ordered:
        where = "it is" if name.startswith(function) else f"it is {name} in place of {function},"
        for how, whole in FLOAT_RULES.items():
            yield Change(
                f"{where} computed in floats and {how}",
                values=_function(c, real, FUNCTIONS[name], whole),
            )
    if function == "hard_swish":
        for bits in range(3, 16):
            sixth = round(2**bits / 6) / 2**bits
            for how, whole in FLOAT_RULES.items():
                yield Change(f"it is computed with 1/6 in {bits} bits ({sixth:.6g}), in floats and {how}",
                             values=_function(c, real, partial(_swish, sixth), whole))  # fmt: skip
        for text, inner in _relu6_steps(real) if c.finish is None else ():
            for how, whole in FLOAT_RULES.items():
                yield Change(f"it is computed as x * relu6(x + 3) / 6 in steps, {text}, and {how}",
                             values=stored_values(c, real * inner, whole))  # fmt: skip
    f = FUNCTIONS.get(ordered[0], np.asarray)
    cuts = (1, 2, 3, 4, 5, 6, 7, 8, 10) if ordered[0].startswith(function) and c.finish is None else ()
    for bound in (b for b in cuts if np.abs(real).max(initial=0) > b):
        for how, whole in FLOAT_RULES.items():
            yield Change(f"its input is cut at -{bound} and {bound} before it is computed (in floats, {how})",
                         values=_function(c, np.clip(real, -bound, bound), f, whole))  # fmt: skip
    yield Change("it is missing: its input is passed on as stored", values=x.view(c.ours.dtype))
    own_in = np.iinfo(x.dtype)
    entries = np.arange(own_in.min, own_in.max + 1)
    low, high = own_in.min, own_in.max
    beside = [(d, entries + d) for d in (1, -1, 2, -2)]
    indices = [
        *((f"its table is read {d:+d} beside the right entry", np.clip(at, low, high)) for d, at in beside),
        *((f"its table is read {d:+d} beside the right entry, modulo 256", (at - low) % 256 + low) for d, at in beside),
        ("its table's halves are swapped (int8 and uint8 index)", (entries + 128 - low) % 256 + low),
        ("its table is read in reverse order", -entries - 1 if low < 0 else 255 - entries),
        ("its table has an entry for every second value only", entries >> 1 << 1),
    ]
    for text, index in indices:
        yield Change(text, edit=_reindexed(index, entries))
    for d in (1, -1, 2, -2):
        yield Change(f"its table's entries are off by {d:+d}", edit=_entries(_plus(d, own.min, own.max)))
    bounds = {
        "the lowest value is missing": (own.min + 1, own.max),
        "values below the zero point are missing": (zero_point_of(c.what.result), own.max),
    }
    for text, (least, most) in bounds.items():
        yield Change(f"its table is clamped: {text}", edit=_entries(_plus(0, least, most)))
    z = zero_point_of(c.what.result)
    for text, d in (
        ("missing (0)", -z),
        *((f"off by {d:+d}", d) for d in (3, -3)),
        ("off by +128", 128),
        ("off by -128", -128),
    ):
        if d:
            yield Change(f"its output's zero point is {text}", edit=_entries(_plus(d, own.min, own.max)))
    z_in = zero_point_of(c.what.operands[0])
    for text, d in (
        ("missing (0)", -z_in),
        *((f"off by {d:+d}", d) for d in (1, -1, 2, -2)),
        ("that of the output", z - z_in),
    ):
        if d:
            yield c.quantized(
                f"its input's zero point is {text}", 0, None, int(np.clip(z_in + d, own_in.min, own_in.max))
            )
    yield from _one_entry(c, x)


def _relu6_steps(real: Array) -> Iterator[tuple[str, Array]]:
    """relu6(x + 3) / 6 where relu6(x + 3), or what it is divided by, is rounded to 8 bits."""
    gate = np.clip(real + 3, 0, 6)
    for name, scale in (("6 / 255", 6 / 255), ("6 / 256", 6 / 256), ("1 / 32", 1 / 32), ("1 / 16", 1 / 16)):
        for how, whole in (("rounded", np.rint), ("cut off", np.floor)):
            yield f"relu6(x + 3) {how} to 8 bits of {name}", np.clip(whole(gate / scale), 0, 255) * scale / 6
    for name, scale in (("1 / 255", 1 / 255), ("1 / 256", 1 / 256), ("1 / 128", 1 / 128)):
        for how, whole in (("rounded", np.rint), ("cut off", np.floor)):
            yield f"relu6(x + 3) / 6 {how} to 8 bits of {name}", np.clip(whole(gate / 6 / scale), 0, 255) * scale


def _from_floats(c: Case, x: Array) -> Iterator[Change]:
    """Floats made 8-bit numbers: the rounding, the zero point, the scale as its reciprocal of few bits, none."""
    q, own = c.what.result.quantization, np.iinfo(c.ours.dtype)
    if q is None:
        return
    z, scale = q.zero_point[0], np.float64(np.float32(q.scale[0]))
    rules = {**FLOAT_RULES, **cast_rules(z)}
    with np.errstate(all="ignore"):
        exact = np.nan_to_num(x.astype(np.float64))
        for text, v in {
            "": exact / scale, ", by the reciprocal of its scale": exact.astype(np.float32) * np.float32(1 / scale),
            ", without its scale": exact, ", as if from 0 to 1": exact * 255, ", as if from -1 to 1": exact * 127.5,
            ", by 127": exact * 127, ", by 128": exact * 128,
        }.items():  # fmt: skip
            for how, whole in rules.items():
                whole_ = np.clip(whole(v), -(2.0**31), 2.0**31)
                for point in dict.fromkeys((z, 0, 128, -128)):
                    said = "" if point == z else f", with {point} as its zero point"
                    yield Change(f"it is {how}{text}{said}", values=np.clip(whole_ + point, own.min, own.max))
                yield Change(f"it is {how}{text}, and values beyond 8 bits wrap",
                             values=(whole_ + z - own.min).astype(np.int64) % 256 + own.min)  # fmt: skip


def _swish(sixth: float, v: Array) -> Array:
    return np.asarray(v * np.clip(v + 3, 0, 6) * sixth)


def casts(c: Case) -> Iterator[Change]:
    """The function in floats, cast to an integer as C does it, before or after the zero point is added."""
    if c.ours.dtype.itemsize != 1 or c.what.arrays[0].dtype.itemsize != 1:
        return
    function = c.what.node.attrs.get("function", "the identity")
    real = real_values(c.what.operands[0], c.what.arrays[0])
    for name in (n for n in FUNCTIONS if n.startswith(function)):
        for how, whole in cast_rules(zero_point_of(c.what.result)).items():
            yield Change(f"it is computed in floats and {how}", values=_function(c, real, FUNCTIONS[name], whole))


def _function(c: Case, real: Array, f: Callable[[Array], Array], whole: Callable[[Array], Array]) -> Array:
    with np.errstate(all="ignore"):
        return stored_values(c, f(real), whole)


def _plus(d: int, low: int, high: int) -> Callable[[Array], Array]:
    return lambda entries: np.clip(entries + d, low, high)


def _entries(change: Callable[[Array], Array]) -> Callable[[Any], Any]:
    """Of the table (2, 256) that `lookup_q` reads."""

    def edit(p: Any) -> Any:
        return change(p.astype(np.int64)).astype(p.dtype) if isinstance(p, np.ndarray) and p.shape == (2, 256) else p

    return edit


def _reindexed(index: Array, entries: Array) -> Callable[[Any], Any]:
    order = np.zeros(256, np.int64)
    order[entries & 255] = index & 255
    return lambda p: np.ascontiguousarray(p[:, order]) if isinstance(p, np.ndarray) and p.shape == (2, 256) else p


def _one_entry(c: Case, x: Array) -> Iterator[Change]:
    """One value of the input always gives the same wrong output."""
    if c.finish is not None or x.shape != c.ours.shape:
        return
    wrong, seen = x[c.wrong], c.found[c.wrong]
    if wrong.size > 1 and (wrong == wrong[0]).all() and (seen == seen[0]).all():
        right = c.ours[c.wrong][0]
        yield Change(f"one entry of its table is wrong: that of {wrong[0]} is {seen[0]} instead of {right}",
                     values=np.where(x == wrong[0], seen[0], c.ours))  # fmt: skip


def learnt(c: Case) -> Iterator[Change]:
    """The output is still a function of each value of the input: some entries of the table are others."""
    x = c.what.arrays[0]
    if c.finish is not None or x.shape != c.ours.shape or x.dtype.itemsize != 1 or not c.wrong.any():
        return
    index = x.view(np.uint8)
    entries = np.zeros(256, c.found.dtype)
    entries[index.reshape(-1)] = c.found.reshape(-1)
    odd = np.unique(x[c.wrong])
    if (entries[index] != c.found).any() or len(odd) * 4 > c.wrong.sum():
        return
    d = c.found[c.wrong].astype(np.int64) - c.ours[c.wrong]
    named = ", ".join(f"{v} gives {entries[v.astype(x.dtype).view(np.uint8)]}" for v in odd[:3])
    yield Change(f"its table's entries are wrong, {len(odd)} of them, by {d.min():+d} to {d.max():+d}: {named}"
                 + (", ..." if len(odd) > 3 else ""), values=entries[index])  # fmt: skip


def softmax(c: Case) -> Iterator[Change]:
    """Softmax in floats, by another scale, by tables that are off, or another function."""
    if c.ours.dtype not in (np.int8, np.uint8):
        return
    real = real_values(c.what.operands[0], c.what.arrays[0]) * float(c.what.node.attrs["beta"])
    beta = float(c.what.node.attrs["beta"])
    q = c.what.operands[0].quantization
    assert q is not None
    plain = {
        "": real,
        ", with beta twice as large": 2 * real,
        ", with beta half as large": real / 2,
        ", without its input's scale": real / float(q.scale[0]),
        ", in powers of 2 instead of e": real * np.log(2),
    }
    for text, v in plain.items():
        with np.errstate(all="ignore"):
            e = np.exp(v - v.max(axis=-1, keepdims=True))
            share = e / e.sum(axis=-1, keepdims=True)
        for how, whole in FLOAT_RULES.items():
            yield Change(f"it is computed in floats{text} and {how}", values=stored_values(c, share, whole))
            yield Change(f"it is computed in floats{text}, its output's scale is 1/255, and {how}",
                         values=stored_values(c, share * 255 / 256, whole))  # fmt: skip
    yield from _exponentials_of_few_bits(c, real)
    with np.errstate(all="ignore"):
        logistic = 1 / (1 + np.exp(-real))
    for how, whole in FLOAT_RULES.items():
        yield Change(f"it is a sigmoid in place of a softmax ({how})", values=stored_values(c, logistic, whole))
    yield Change("it is missing: its input is passed on as stored", values=c.what.arrays[0].view(c.ours.dtype))
    for factor in (2.0, 0.5, 1 / beta if beta != 1 else 4.0):
        node = c.arrays("", {}, beta=beta * factor).what
        yield Change(f"its beta is {beta * factor:g} instead of {beta:g}", node)
    for d in (1, -1):
        yield Change(f"its table of exponentials is read {d:+d} beside the right entry", edit=_exponentials(
            partial(np.take, indices=np.clip(np.arange(256) + d, 0, 255))))  # fmt: skip
    for bits in range(1, 29):
        yield Change(f"its table of exponentials loses its low {bits} bits", edit=_exponentials(
            partial(_cut, bits)))  # fmt: skip


def _exponentials_of_few_bits(c: Case, real: Array) -> Iterator[Change]:
    """Powers of 2 between whole exponents by a straight line; exponentials in 4 to 16 bits."""
    v = np.maximum(real - real.max(axis=-1, keepdims=True), -100.0)
    line = v / np.log(2)
    power = (1 + line - np.floor(line)) * 2.0 ** np.floor(line)
    kinds = {"with powers of 2 by straight lines": power}
    for bits in range(4, 17):
        for name, whole in (("rounded", lambda e: np.floor(e + 0.5)), ("cut off", np.floor)):
            for top in (2**bits - 1, 2**bits):
                kinds[f"with exponentials in {bits} bits ({name}, {top} for 1)"] = whole(np.exp(v) * top)
    for text, e in kinds.items():
        share = e / e.sum(axis=-1, keepdims=True)
        for how, rule in FLOAT_RULES.items():
            yield Change(f"it is computed {text}, its shares {how}", values=stored_values(c, share, rule))


def _cut(bits: int, entries: Array) -> Array:
    return entries >> bits << bits if entries.dtype.kind == "i" else entries


def _exponentials(change: Callable[[Array], Array]) -> Callable[[Any], Any]:
    return lambda p: change(p) if isinstance(p, np.ndarray) and p.shape == (256,) else p
