"""Causes in a device's loops and memory, planted in NumPy of the tools' own device (tools/faulty_device.py)."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_golden_tools_integer import REFERENCE, isolated

import npmobilenet as nm
from npmobilenet import golden
from npmobilenet.golden.causes.case import Case
from npmobilenet.golden.causes.search import Finding, find_cause
from npmobilenet.modeldata import Array

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from faulty_device import Layer, double


def _halo(f: Layer) -> Array:
    """Tiles of two rows, each computed of its own input rows alone."""
    tiles, x, oh = [], f.x, f.shape[1]
    for first in range(0, oh, 2):
        rows = min(2, oh - first)
        start, stop = first * f.stride[0], min((first + 2) * f.stride[0], x.shape[1])
        f.x, f.shape = x[:, start:stop], (f.shape[0], rows, *f.shape[2:])
        tiles.append(plain(f))
    f.x, f.shape = x, (f.shape[0], oh, *f.shape[2:])
    return np.concatenate(tiles, axis=1)


def plain(f: Layer) -> Array:
    return Layer.accumulators(f)


def _without(f: Layer, k: int, times: int) -> Array:
    w = f.w
    f.w = w.copy()
    f.w[..., k, :] = f.zw + times * (w[..., k, :] - f.zw)
    acc = plain(f)
    f.w = w
    return acc


def _beside(w: Array) -> Array:
    """OHWI in memory, read one byte late; the last byte is the first."""
    flat = w.transpose(3, 0, 1, 2)
    return np.append(flat.reshape(-1)[1:], flat.reshape(-1)[0]).reshape(flat.shape).transpose(1, 2, 3, 0)


def _before(f: Layer) -> Array:
    acc = plain(f)
    acc[:, :, 1:] = acc[:, :, 1:] + acc[:, :, :-1].copy()
    return acc


def _late(cut: Callable[[Array], Array]) -> dict[str, Any]:
    """As C code does it: (int8_t)(acc * scale + zero point)."""
    return {
        "scaled": lambda a, m, s: a * (m * 2.0 ** (s - 31)),
        "clamped": lambda f, v: np.clip(cut(v + f.zo), f.low, f.high),
    }


FAULTS: dict[str, tuple[str, str, Callable[[Layer], dict[str, Any]]]] = {
    "halo of rows": ("dw", "a tile of 2 rows reads padding in place", lambda f: {"accumulators": _halo(f)}),
    "halo, stride 2": ("conv", "a tile of 2 rows reads padding in place", lambda f: {"accumulators": _halo(f)}),
    "sums of channels add up": (
        "dw", "aren't cleared from channel to channel: products add up",
        lambda f: {"accumulators": np.cumsum(plain(f) - f.b, -1) + f.b},
    ),
    "the column before": ("conv", "still hold those of the column before", lambda f: {"accumulators": _before(f)}),
    "bias for each tap": ("dw", "bias is added 9 times", lambda f: {"b": 9 * f.b}),
    "bias of big-endian bytes": (
        "conv", "bias has its bytes in the other order",
        lambda f: {"b": f.b.astype("<i4").view(">i4").astype(np.int64)},
    ),
    "an input channel left out": ("conv", "channel 1 is left out", lambda f: {"accumulators": _without(f, 1, 0)}),
    "an input channel twice": ("conv", "channel 2 is summed twice", lambda f: {"accumulators": _without(f, 2, 2)}),
    "every fourth input channel": (
        "fc", "channels 3, 7, ... .every 4th. are left out",
        lambda f: {"w": np.where(np.arange(20)[:, None] % 4 == 3, f.zw, f.w)},
    ),
    "products of one channel missing": (
        "conv", "products of channel 4 are missing", lambda f: {"w": np.where(np.arange(20) == 4, f.zw, f.w)},
    ),
    "weights one byte late": ("conv", "read .1 bytes beside their place.*OHWI", lambda f: {"w": _beside(f.w)}),
    "weights' bits turned": (
        "dw", "bits are in the other order",
        lambda f: {"w": np.array([int(f"{int(v) % 256:08b}"[::-1], 2) for v in f.w.reshape(-1)]).astype(np.uint8)
                   .astype(f.dtype).astype(np.int64).reshape(f.w.shape)},
    ),
    "cut off after the zero point": ("dw", "off.*after the zero|toward minus infinity", lambda f: _late(np.trunc)),
    "one half, then a cast": (
        "conv", "raised by one half and cut off toward zero, after", lambda f: _late(lambda v: np.trunc(v + 0.5)),
    ),
    "one half, then C's division": (
        "dw", "raised by one half and cut off toward zero",
        lambda f: {"scaled": lambda a, m, s: np.trunc(a * (m * 2.0 ** (s - 31)) + 0.5)},
    ),
    "output's zero point twice": ("dw", "output's zero point is added twice", lambda f: {"zo": 2 * f.zo}),
    "input's zero point twice": ("fc", "input's zero point is subtracted twice", lambda f: {"zx": 2 * f.zx}),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_faults_of_loops_and_memory(model: nm.Model, dump: golden.Dump, name: str) -> None:
    op, says, change = FAULTS[name]
    found = planted(model, dump, op, change)
    if not found.differing:  # uint8: no value before the cast is negative
        assert (name, model.data.graph.tensors[op].dtype) == ("one half, then a cast", "uint8")
        return
    assert found.proved, found.text
    assert any(re.search(says, c.text) for c in found.causes), found.text


def planted(model: nm.Model, dump: golden.Dump, name: str, change: Callable[[Layer], dict[str, Any]]) -> Finding:
    """What is found where a layer of a device has other numbers or steps."""
    what = isolated(model.data, dump, name)
    node = next(n for n in model.data.graph.nodes if n.output == name)
    values = {n: dump[n] for n in node.inputs if not model.data.graph.tensors[n].constant}
    f = Layer(model.data, node, values)
    assert np.array_equal(f.output(), dump[name])
    assert f.scaled is double
    changes = change(f)
    for key, value in changes.items():
        if key == "accumulators":
            f.accumulators = lambda value=value: value  # type: ignore[method-assign, misc]
        elif key == "clamped":
            f.clamped = lambda v, value=value: value(f, v)  # type: ignore[misc]
        else:
            setattr(f, key, value)
    return find_cause(Case(what, f.output(), REFERENCE))
