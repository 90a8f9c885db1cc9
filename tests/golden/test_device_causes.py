"""Causes of kinds that engineers of devices know: multipliers, zero points' terms, paddings of one side, memory."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_golden_tools_integer import REFERENCE, isolated
from test_loop_causes import plain, planted

import npmobilenet as nm
from npmobilenet import golden
from npmobilenet.golden import single_node
from npmobilenet.golden.causes import memory, search
from npmobilenet.golden.causes.building import cause_of
from npmobilenet.golden.causes.case import Case
from npmobilenet.golden.causes.multiplying import _rules
from npmobilenet.modeldata import Array

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from faulty_device import Layer, double, fixed


def high(a: Array, m: Array, s: Array, nudge: Any = 1 << 30) -> Array:
    product = (a << np.maximum(s, 0)) * m
    return np.asarray((product + (nudge(product) if callable(nudge) else nudge)) >> 31)


def away(v: Array, s: Array) -> Array:
    unit = 2 ** np.maximum(-s, 0)
    return np.asarray(np.sign(v) * ((2 * np.abs(v) + unit) // (2 * unit)))


def signed_nudge(a: Array, m: Array, s: Array) -> Array:
    return away(high(a, m, s, lambda p: np.where(p >= 0, 1 << 30, 1 - (1 << 30))), s)


def generous(a: Array, m: Array, s: Array) -> Array:
    v, e = high(a, m, s), np.maximum(-s, 0)
    mask = (1 << e) - 1
    return np.asarray((v >> e) + ((e > 0) & ((v & mask) >= (mask >> 1) + (v < 0))))


def in_40_bits(a: Array, m: Array, s: Array) -> Array:
    p = (a << np.maximum(s, 0)) * m
    p = (p + (1 << 39)) % (1 << 40) - (1 << 39)
    return away((p + (1 << 30)) >> 31, s)


def padded(f: Layer, side: int, value: int) -> dict[str, Any]:
    """The rows above (0) or the columns to the left (1) of the image hold a value."""
    wide = np.pad(f.x, ((0, 0), (f.top, f.bottom), (f.left, f.right), (0, 0)), constant_values=f.zx)
    if side == 0:
        wide[:, : f.top] = value
    else:
        wide[:, :, : f.left] = value
    return {"x": wide, "top": 0, "left": 0, "bottom": 0, "right": 0}


def anew(f: Layer, bits: int) -> dict[str, Any]:
    """Weights of fewer bits, each channel with a scale of its own."""
    w = f.w - f.zw
    step = np.abs(w).max(axis=tuple(range(w.ndim - 1))) / (2 ** (bits - 1) - 1)
    f.rescale(f.m * 2.0 ** (f.s - 31) * step)
    return {"w": np.rint(w / step).astype(np.int64) + f.zw, "b": np.rint(f.b / step).astype(np.int64)}


def folded_twice(f: Layer) -> dict[str, Any]:
    g = np.random.RandomState(2).uniform(0.6, 1.7, len(f.m))
    f.rescale(f.m * 2.0 ** (f.s - 31) * g)
    return {"b": f.b + np.random.RandomState(3).randint(-900, 900, len(f.b))}


def borrowed(f: Layer, acc: Array) -> Array:
    found = acc.copy()
    found[..., 1::2] -= (acc - f.b)[..., ::2] < 0
    return found


def in_pairs(f: Layer) -> Array:
    """Pixels as uint8, pairs of products in 16 bits."""
    by = 128 if f.least < 0 else 0
    w = f.w - f.zw
    acc = f.b - (f.zx + by) * w.sum(axis=0) + np.zeros((len(f.x), 1), np.int64)
    x = f.x.reshape(len(f.x), -1) + by
    for k in range(0, len(w), 2):
        acc = acc + np.clip(x[:, k : k + 2] @ w[k : k + 2], -(2**15), 2**15 - 1)
    return np.asarray(acc)


def turned(x: Array) -> Array:
    """Words of four bytes, the least significant last."""
    flat = x.reshape(len(x), -1)
    whole = flat.shape[1] // 4 * 4
    return np.concatenate([flat[:, :whole].reshape(len(x), -1, 4)[..., ::-1].reshape(len(x), -1), flat[:, whole:]],
                          axis=1).reshape(x.shape)  # fmt: skip


def pitched(x: Array, pitch: int) -> Array:
    """Written with rows of so many bytes, read without gaps."""
    n, h, w, ch = x.shape
    wide = np.zeros((n, h, pitch), x.dtype)
    wide[:, :, : w * ch] = x.reshape(n, h, -1)
    return wide.reshape(n, -1)[:, : h * w * ch].reshape(x.shape)


LAYERS: dict[str, tuple[str, str, Callable[[Layer], dict[str, Any]]]] = {
    "shifted first": (
        "dw", "shifted right .*before they are multiplied",
        lambda f: {"scaled": lambda a, m, s: high(away(a, s), m, np.maximum(s, 0))},
    ),
    "40 bits": ("conv", "with the multiplier wrap at 40 bits", lambda f: {"scaled": in_40_bits}),
    "sign of the multiplier": (
        "dw", "highest bit is taken for a sign", lambda f: {"m": f.m - 2**31},
    ),
    "rows above": ("dw", "padding above holds 90 instead", lambda f: padded(f, 0, 90)),
    "columns to the left": ("conv", "padding left holds 0 instead", lambda f: padded(f, 1, 0)),
    "four bits": ("dw", "quantized anew to 4 bits, (each channel's|the) largest weight", lambda f: anew(f, 4)),
    "five bits": ("conv", "quantized anew to 5 bits", lambda f: anew(f, 5)),
    "folded twice": ("dw", "batch norm folded twice", folded_twice),
    "tile of input channels": (
        "fc", "input channels 8 to 15 of 20 are left out",
        lambda f: {"w": np.where((np.arange(20)[:, None] >= 8) & (np.arange(20)[:, None] < 16), f.zw, f.w)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_faults_of_devices(model: nm.Model, dump: golden.Dump, name: str) -> None:
    op, says, change = LAYERS[name]
    found = planted(model, dump, op, change)
    assert found.proved, found.text
    assert any(re.search(says, c.text) for c in found.causes), found.text


def test_roundings_of_high_multiplications() -> None:
    """They differ in single values only: each rule beside its definition, on random accumulators."""
    rng = np.random.default_rng(1)
    acc = rng.integers(-(2**20), 2**20, (5000, 4))
    m, s = rng.integers(2**30, 2**31, 4), np.array([-2, -5, 0, -7])
    rules = dict(_rules(2**20, 0))
    for says, right in (("nudge of the sign", signed_nudge), (">= instead of >", generous)):
        (rule,) = (rule for text, rule in rules.items() if says in text)
        assert np.array_equal(rule(acc, m, s), right(acc, m, s))
        assert not np.array_equal(right(acc, m, s), away(high(acc, m, s), s))


def test_two_products_in_one_multiplier(model: nm.Model, dump: golden.Dump) -> None:
    """In accumulators; few values show it."""
    node = next(n for n in model.graph.nodes if n.output == "dw")
    f = Layer(model.data, node, {"conv": dump["conv"]})
    acc = borrowed(f, plain(f)).astype(np.int32)
    found = search.find_cause(Case(isolated(model.data, dump, "dw"), acc, REFERENCE, "accumulator"))
    assert found.proved
    assert any("sums of odd channels lack 1 where those of the channel before" in c.text for c in found.causes)


def test_few_values_leave_other_causes(model: nm.Model, dump: golden.Dump) -> None:
    """Two values or three that single bits explain as well: the step of the whole layer is said beside them."""
    found = planted(model, dump, "dw", lambda f: {"accumulators": borrowed(f, plain(f))})
    if not found.proved:  # one value alone
        assert model.data.graph.tensors["dw"].dtype == "int8"
        return
    assert found.differing < 8
    assert any("lack 1 where those" in c.text for c in found.causes), found.text


def test_terms_of_zero_points(model: nm.Model, dump: golden.Dump) -> None:
    """Sums of x w - z_x sum(w) - z_w sum(x) + n z_x z_w; int8 weights have no zero point."""
    if model.data.graph.tensors["conv"].dtype == "int8":
        return
    for says, move in (
        ("that of the n . zero point of input . zero point of weights is missing", lambda f: -27 * f.zx * f.zw),
        ("zero point of input . sum of weights is missing", lambda f: f.zx * f.w.sum(axis=(0, 1, 2))),
    ):
        found = planted(model, dump, "conv", lambda f, move=move: {"sums": lambda a: a + move(f)})  # type: ignore[misc]
        assert any(re.search(says, c.text) for c in found.causes), found.text


def test_products_in_pairs(model: nm.Model, dump: golden.Dump) -> None:
    """As x86 without VNNI adds them; only weights without a zero point."""
    found = planted(model, dump, "fc", lambda f: {"accumulators": in_pairs(f)})
    if model.data.graph.tensors["fc"].dtype == "int8" and found.differing:
        assert any("vpmaddubsw" in c.text for c in found.causes), found.text


def test_memory(model: nm.Model, dump: golden.Dump) -> None:
    x = dump["input"][:, :8]  # an even number of values, in pixels of three
    orders = [text for text, array in memory._elsewhere(x, 0) if np.array_equal(array, turned(x))]
    assert any("bytes of each 4 in the other order (big- and little-endian" in text for text in orders), orders
    values = pitched(dump["conv"], 112)
    found = search.find_cause(Case(isolated(model.data, dump, "conv"), values, REFERENCE))
    says = "rows of 112 bytes, and read with rows of 100 bytes|rows of 112"
    assert any(re.search(says, c.text) for c in found.causes), found.text
    case = Case(isolated(model.data, dump, "dw"), dump["dw"].copy(), REFERENCE, others={"conv": dump["conv"]})
    case.found.reshape(-1)[100:160] = dump["conv"].reshape(-1)[33:93]
    assert "hold those of 'conv' from 3" in search.find_cause(case).text


def test_another_layers_numbers(model: nm.Model, dump: golden.Dump) -> None:
    """Weights read where another layer's begin; half of the rows of the input from another buffer."""
    what = isolated(model.data, dump, "dw")
    conv = model.data.tensors["conv/w"]
    flat = np.moveaxis(conv, -1, 0).reshape(-1)[:180].reshape(3, 3, 20)
    node = next(n for n in model.graph.nodes if n.output == "dw")
    f = Layer(model.data, node, {"conv": dump["conv"]})
    f.w = flat.astype(np.int64)
    constants = {"conv": [conv, model.data.tensors["conv/b"]]}
    found = search.find_cause(Case(what, f.output(), REFERENCE, constants=constants))
    assert any("weights are read where those begin of 'conv'" in c.text for c in found.causes), found.text
    old = np.roll(dump["conv"], 3, axis=2)[:, ::-1].copy()
    f = Layer(model.data, node, {"conv": np.concatenate([dump["conv"][:, :2], old[:, 2:]], axis=1)})
    found = search.find_cause(Case(what, f.output(), REFERENCE, others={"old": old}))
    assert any("rows 2 to 4 of its input still hold 'old'" in c.text for c in found.causes), found.text


def _terms(model: nm.Model, *names: str) -> list[tuple[float, int]]:
    found = [model.graph.tensors[n].quantization for n in names]
    return [(float(np.float32(q.scale[0])), q.zero_point[0]) for q in found if q is not None]


def test_sums(model: nm.Model, dump: golden.Dump) -> None:
    """The two shifts exchanged; each operand brought to the output's scale, rounded, before the sum."""
    (sa, za), (sb, zb), (so, zo) = _terms(model, "conv", "dw", "sum")
    a, b = (dump[n].astype(np.int64) - z for n, z in (("conv", za), ("dw", zb)))
    most = 2 * max(sa, sb)
    (ma, ea), (mb, eb) = fixed(sa / most), fixed(sb / most)
    total = double(a << 20, ma, eb) + double(b << 20, mb, ea)
    shifts = double(total, *fixed(most / (2.0**20 * so)))
    rounded = np.floor(a * sa / so + 0.5) + np.floor(b * sb / so + 0.5)
    own = np.iinfo(dump["sum"].dtype)
    for says, values in (("shifts of its operands are swapped", shifts), ("rounded half up.* before the sum", rounded)):
        wrong = np.clip(values + zo, own.min, own.max).astype(own.dtype)
        found = search.find_cause(Case(isolated(model.data, dump, "sum"), wrong, REFERENCE))
        assert any(re.search(says, c.text) for c in found.causes), found.text


def test_a_hard_swish_in_steps(model: nm.Model, dump: golden.Dump) -> None:
    """relu6(x + 3) in 8 bits."""
    (s, z), (t, y) = _terms(model, "sum", "swish")
    v = (dump["sum"].astype(np.float64) - z) * s
    gate = np.rint(np.clip(v + 3, 0, 6) * 255 / 6) / 255
    own = np.iinfo(dump["swish"].dtype)
    wrong = np.clip(np.rint(v * gate / t) + y, own.min, own.max).astype(own.dtype)
    found = search.find_cause(Case(isolated(model.data, dump, "swish"), wrong, REFERENCE))
    assert any("relu6(x + 3) rounded to 8 bits of 6 / 255" in c.text for c in found.causes), found.text


@pytest.mark.parametrize(("layer", "reader"), [("conv", "dw"), ("dw", "sum")])
def test_numbers_of_a_layer_that_is_not_dumped(
    model: nm.Model, dump: golden.Dump, layer: str, reader: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A weight's bit, and two channels' weights exchanged, seen in the node that reads the layer."""
    monkeypatch.setattr(search, "ROWS", [row for row in search.ROWS if "isn't dumped" in row.kind])  # the others: slow
    node = next(n for n in model.graph.nodes if n.output == layer)
    order = np.arange(20)
    order[[4, 9]] = 9, 4
    flipped = Layer(model.data, node, {n: dump[n] for n in ("input", "conv")}).w.copy()
    at = (1, 1, 2, 6) if layer == "conv" else (1, 1, 6)
    flipped[at] ^= 32
    for says, w in (("bit 5 of its weight .*co 6|any of", flipped), ("channels 4 and 9 are swapped", None)):
        f = Layer(model.data, node, {n: dump[n] for n in ("input", "conv")})
        f.w = f.w[..., order] if w is None else w
        given = {n: dump[n] for n in ("input", "conv", "dw")} | {layer: f.output()}
        what = isolated(model.data, given, reader)  # type: ignore[arg-type]
        entry = next(e for e in dump.entries if e.name == reader)
        values = {n: dump[n] for n in ("input", *(["conv"] if layer == "dw" else []))}
        found = cause_of(model.data, entry, single_node.run(what, REFERENCE), values, REFERENCE)
        assert found.proved, found.text
        assert any(re.search(says, c.text) for c in found.causes), found.text
