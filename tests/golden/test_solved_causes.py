"""Causes whose number is solved for: zero points, scales, paddings, biases, divisors, off by any amount."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_golden_tools_integer import REFERENCE, isolated
from test_loop_causes import planted

import npmobilenet as nm
from npmobilenet import golden
from npmobilenet.golden import single_node
from npmobilenet.golden.causes.building import cause_of
from npmobilenet.golden.causes.case import Case
from npmobilenet.golden.causes.search import Finding, find_cause
from npmobilenet.modeldata import Array

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from faulty_device import Layer, addition, double


def _scaled(f: Layer, factors: Any) -> dict[str, Any]:
    f.rescale(f.m * 2.0 ** (f.s - 31) * factors)
    return {}


def _one_for_all(f: Layer) -> dict[str, Any]:
    f.rescale(np.full(f.m.shape, np.mean(f.m * 2.0 ** (f.s - 31))))
    return {}


def _channels(f: Layer, *channels: int) -> Any:
    return np.isin(np.arange(f.w.shape[-1]), channels)


def _first_row(f: Layer) -> Array:
    acc = Layer.accumulators(f)
    acc[:, 0] = f.b
    return acc


LAYERS: dict[str, tuple[str, str, Callable[[Layer], dict[str, Any]]]] = {
    "input's zero point": ("conv", r"input's zero point is off by \+9", lambda f: {"zx": f.zx + 9, "fill": f.zx + 9}),
    "weights' zero point": ("dw", r"weights' zero point is off by -11", lambda f: {"zw": f.zw - 11}),
    "weights' zero point of two channels": (
        "conv", r"off in channels 3 by -5, 7 by -5", lambda f: {"w": f.w + 5 * _channels(f, 3, 7)},
    ),
    "output's zero point": ("dw", r"output's zero point is off by \+23", lambda f: {"zo": f.zo + 23}),
    "padding": ("conv", "padding holds 77 instead", lambda f: {"fill": 77}),
    "scale": ("dw", "multipliers are 1.3 times", lambda f: _scaled(f, 1.3)),
    "scale of two channels": (
        "dw", r"multiplier is off in channels 2 \(0.7.*\), 4 \(0.7",
        lambda f: _scaled(f, np.where(_channels(f, 2, 4), 0.7, 1)),
    ),
    "one multiplier": ("conv", "one multiplier|shift is off|times what", _one_for_all),
    "bias larger": ("dw", r"bias is 1.7 times", lambda f: {"b": np.rint(1.7 * f.b).astype(np.int64)}),
    "bias rolled": ("dw", "bias has its channels rolled by 7", lambda f: {"b": np.roll(f.b, 7)}),
    "multipliers rolled": ("conv", "rolled by -3|times what", lambda f: {"m": np.roll(f.m, -3), "s": np.roll(f.s, -3)}),
    "weights rolled": ("dw", "output channels rolled by 3", lambda f: {"w": np.roll(f.w, 3, -1)}),
    "input rolled": ("dw", "input's channels rolled by 7", lambda f: {"x": np.roll(f.x, 7, -1)}),
    "middle row left out": (
        "dw", "row 1 of its window is left out",
        lambda f: {"w": np.where(np.arange(3)[:, None, None] == 1, f.zw, f.w)},
    ),
    "window rolled": ("conv", "rolled by 1 along the rows", lambda f: {"w": np.roll(f.w, 1, 0)}),
    "last input channels": (
        "fc", "only the first 1[67] of 20", lambda f: {"w": np.where(np.arange(20)[:, None] >= 17, f.zw, f.w)},
    ),
    "short accumulators": ("dw", "saturate at 13 bits", lambda f: {"sums": lambda a: np.clip(a, -4096, 4095)}),
    "shifted before": (
        "dw", "shifted right by 5 bits before they are multiplied .rounded half up",
        lambda f: {"scaled": lambda a, m, s: double((a + 16) >> 5, m, s + 5)},
    ),
    "short scales": (
        "dw", "rounded to bfloat16|8 bits",
        lambda f: _scaled(f, 1) or {"m": np.asarray(f.m + (1 << 22)) >> 23 << 23},
    ),
    "first row": ("dw", "products of rows 0 to 0.* are missing", lambda f: {"accumulators": _first_row(f)}),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_numbers_of_layers(model: nm.Model, dump: golden.Dump, name: str) -> None:
    op, says, change = LAYERS[name]
    found = planted(model, dump, op, change)
    if not found.differing:  # uint8 has one multiplier for all channels
        assert name in ("one multiplier", "multipliers rolled")
        assert model.data.graph.tensors[op].dtype == "uint8"
        return
    _named(found, says)


def _named(found: Finding, says: str) -> None:
    assert found.proved, found.text
    assert any(re.search(says, c.text) for c in found.causes), found.text


def _given(model: nm.Model, dump: golden.Dump, name: str, values: Array) -> Finding:
    own = np.iinfo(dump[name].dtype)
    wrong = np.clip(values, own.min, own.max).astype(dump[name].dtype).reshape(dump[name].shape)
    return find_cause(Case(isolated(model.data, dump, name), wrong, REFERENCE))


def _terms(model: nm.Model, *names: str) -> list[tuple[float, int]]:
    found = [model.graph.tensors[n].quantization for n in names]
    return [(float(np.float32(q.scale[0])), q.zero_point[0]) for q in found if q is not None]


SUMS: dict[str, tuple[str, Callable[[dict[str, Any]], dict[str, Any]]]] = {
    "zero point": (r"zero point of 'dw' is off by \+6", lambda p: {"zb": p["zb"] + 6}),
    "scale": ("scale of 'conv' is 1.2 times", lambda p: {"sa": 1.2 * p["sa"]}),
    "output's scale": ("scale of 'sum' is 1.4 times", lambda p: {"so": 1.4 * p["so"]}),
}


@pytest.mark.parametrize("name", SUMS)
def test_numbers_of_sums(model: nm.Model, dump: golden.Dump, name: str) -> None:
    (sa, za), (sb, zb), (so, zo) = _terms(model, "conv", "dw", "sum")
    p = {"sa": sa, "za": za, "sb": sb, "zb": zb, "so": so, "zo": zo}
    says, change = SUMS[name]
    _named(_given(model, dump, "sum", addition(dump["conv"], dump["dw"], {**p, **change(p)}) + zo), says)


def test_operands_of_sums(model: nm.Model, dump: golden.Dump) -> None:
    """Read from other places, or one value everywhere."""
    for operand, says in (
        (np.roll(dump["dw"], 1, 1), "it reads of 'dw' the rows rolled by 1"),
        (np.roll(dump["dw"], 10, -1), "it reads of 'dw' the halves of the channels swapped"),
        (np.full_like(dump["dw"], 90), "'dw' is 90 everywhere"),
    ):  # fmt: skip
        what = isolated(model.data, {"conv": dump["conv"], "dw": operand, "sum": dump["sum"]}, "sum")  # type: ignore[arg-type]
        _named(_given(model, dump, "sum", single_node.run(what, REFERENCE)), says)


def test_amounts_are_tried_where_the_output_is_missing(model: nm.Model, dump: golden.Dump) -> None:
    """The dump has the sum behind the layer alone."""
    node = next(n for n in model.graph.nodes if n.output == "dw")
    device = Layer(model.data, node, {"conv": dump["conv"]})
    for change, says in (({"zo": device.zo + 9}, "output's zero point is off by .9"),
                         ({"b": np.roll(device.b, 5)}, "channels rolled by 5"),
                         ({"zx": device.zx + 8, "fill": None}, "input's zero point is off by .8")):  # fmt: skip
        f = Layer(model.data, node, {"conv": dump["conv"]})
        vars(f).update(change)
        what = isolated(model.data, {"conv": dump["conv"], "dw": f.output(), "sum": dump["sum"]}, "sum")  # type: ignore[arg-type]
        values = {"input": dump["input"], "conv": dump["conv"]}
        entry = next(e for e in dump.entries if e.name == "sum")
        found = cause_of(model.data, entry, single_node.run(what, REFERENCE), values, REFERENCE)
        _named(found, says)


def test_numbers_of_pools_functions_and_softmax(model: nm.Model, dump: golden.Dump) -> None:
    total = dump["swish"].astype(np.int64).sum(axis=(1, 2))
    _named(_given(model, dump, "pool", total // 22), "divided by 22 instead of 25 .cut off")
    (s, z), (t, y) = _terms(model, "sum", "swish")

    def swish(moved: int, sixth: float) -> Array:
        v = (dump["sum"].astype(np.float64) - z - moved) * s
        return np.asarray(np.rint(v * np.clip(v + 3, 0, 6) * sixth / t) + y)

    _named(_given(model, dump, "swish", swish(0, 11 / 64)), r"1/6 in 6 bits \(0.171875\)")
    _named(_given(model, dump, "swish", swish(7, 1 / 6)), r"input's zero point is off by \+7")
    _named(_given(model, dump, "swish", dump["swish"].astype(np.int64) - 6), "all its values are off by -6")
    v = dump["fc"].astype(np.float64) * _terms(model, "fc")[0][0]
    e = np.exp(np.array([v - v.max()]))[0]
    short = np.floor(e * 15 + 0.5)
    low = np.iinfo(dump["softmax"].dtype).min
    found = _given(model, dump, "softmax", np.floor(short / short.sum(axis=-1, keepdims=True) * 256) + low)
    assert not found.differing or any("exponentials in 4 bits" in c.text for c in found.causes), found.text


def test_one_cause_comes_before_one_for_each_channel(model: nm.Model, dump: golden.Dump) -> None:
    """Two channels' weights exchanged are also two channels with another number each."""
    order = np.arange(10)
    pair = [int(dump["fc"].argmin()), int(dump["fc"].argmax())]
    order[pair] = order[pair[::-1]]
    found = planted(model, dump, "fc", lambda f: {"w": f.w[:, order]})
    assert found.proved
    assert not found.text.startswith("any of"), found.text


def test_few_values_prove_no_number(model: nm.Model, dump: golden.Dump) -> None:
    """Two values that differ: any number that was solved for explains them."""
    (s, _), _ = _terms(model, "fc", "softmax")
    wrong = dump["softmax"].astype(np.int64)
    top = int(wrong.argmax())
    wrong.flat[top] -= 1
    wrong.flat[(top + 1) % wrong.size] += 1
    found = _given(model, dump, "softmax", wrong)
    assert not any("times what it should be" in c.text for c in found.causes), (s, found.text)
