"""Causes that are solved for: exchanged channels, taps and weights, fitted clamps, tiles, steps of an accumulator."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from test_golden_tools_integer import REFERENCE, isolated

import npmobilenet as nm
from npmobilenet import golden
from npmobilenet.golden import single_node
from npmobilenet.golden.causes.case import Case
from npmobilenet.golden.causes.cuts import cut_values
from npmobilenet.golden.causes.search import Finding, find_cause


def with_weights(model: nm.Model, dump: golden.Dump, name: str, **order: Any) -> Finding:
    """What is found of a layer whose weights stand in another order of one axis."""
    what = isolated(model.data, dump, name)
    weights = np.take(what.arrays[1], order["order"], order["axis"])
    wrong = single_node.run(replace(what, arrays=(what.arrays[0], weights, what.arrays[2])), REFERENCE)
    return find_cause(Case(what, wrong, REFERENCE))


def test_two_input_channels(model: nm.Model, dump: golden.Dump) -> None:
    found = with_weights(model, dump, "conv", axis=2, order=[0, 2, 1])
    assert found.proved
    assert "input channels 1 and 2 are swapped" in " ".join(c.text for c in found.causes)


def test_input_channels_of_one_standing_twice(model: nm.Model, dump: golden.Dump) -> None:
    found = with_weights(model, dump, "conv", axis=2, order=[0, 0, 2])
    assert "the weights of input channel 0 stand in place of those of 1 as well" in found.text


def test_two_taps(model: nm.Model, dump: golden.Dump) -> None:
    what = isolated(model.data, dump, "dw")
    weights = what.arrays[1].copy()
    weights[0, 1], weights[2, 2] = what.arrays[1][2, 2], what.arrays[1][0, 1]
    wrong = single_node.run(replace(what, arrays=(what.arrays[0], weights, what.arrays[2])), REFERENCE)
    assert "taps (0, 1) and (2, 2) are swapped" in find_cause(Case(what, wrong, REFERENCE)).text


def test_output_channels_in_any_order(model: nm.Model, dump: golden.Dump) -> None:
    """Three in a circle, and two."""
    order = np.arange(20)
    order[[2, 7, 11]] = 7, 11, 2
    found = with_weights(model, dump, "dw", axis=2, order=order)
    assert (
        "weights of its output channels are in other places: 2 those of 7, 7 those of 11, 11 those of 2" in found.text
    )
    order = np.arange(20)
    order[[3, 12]] = 12, 3
    assert "the weights of channels 3 and 12 are swapped" in with_weights(model, dump, "conv", axis=3, order=order).text


def test_a_clamp_at_another_bound(model: nm.Model, dump: golden.Dump) -> None:
    what = isolated(model.data, dump, "dw")
    right = dump["dw"]
    bound = int(np.percentile(right, 50))
    assert (
        f"the upper bound of its clamp is {bound}" in find_cause(Case(what, np.minimum(right, bound), REFERENCE)).text
    )


def test_rows_that_stand_twice_and_channels_not_written(model: nm.Model, dump: golden.Dump) -> None:
    what = isolated(model.data, dump, "conv")
    twice, unwritten = dump["conv"].copy(), dump["conv"].copy()
    twice[:, 3:5] = twice[:, 1:3]
    assert "rows stand more than once: 3 holds 1, 4 holds 2" in find_cause(Case(what, twice, REFERENCE)).text
    unwritten[..., 1::2] = 5
    assert "every 2nd of the channels from 1 to 19 hold 5" in find_cause(Case(what, unwritten, REFERENCE)).text


def test_a_sum_that_saturates_at_every_addition(model: nm.Model, dump: golden.Dump) -> None:
    what = isolated(model.data, dump, "fc")
    x = what.arrays[0].astype(np.int64) - what.operands[0].quantization.zero_point[0]  # type: ignore[union-attr]
    w = what.arrays[1].astype(np.int64) - what.operands[1].quantization.zero_point[0]  # type: ignore[union-attr]
    acc = what.arrays[2].astype(np.int64)[None]
    for k in range(w.shape[0]):
        acc = np.clip(acc + x[:, k, None] * w[k], -4096, 4095)
    found = find_cause(Case(what, acc.astype(np.int32), REFERENCE, "accumulator"))
    texts = " ".join(c.text for c in found.causes)
    assert found.proved
    assert "saturate at 13 bits" in texts


def test_what_eight_bits_may_lose() -> None:
    """Each text once, each another array; what changes nothing is left out."""
    array = np.array([-128, -100, -5, 0, 5, 100, 127], np.int8)
    texts = dict(cut_values(array, 0))
    assert texts["saturate at 4 bits"].tolist() == [-8, -8, -5, 0, 5, 7, 7]
    assert texts["lose their sign"].tolist() == [127, 100, 5, 0, 5, 100, 127]
    assert texts["lack the lowest value"].tolist() == [-127, -100, -5, 0, 5, 100, 127]
    stored = dict(cut_values(np.array([3, 200], np.uint8), 128))
    assert stored["saturate at 7 bits as stored"].tolist() == [3, 127]
    assert stored["saturate at 7 bits"].tolist() == [64, 191]


def test_little_evidence_names_no_pair(model: nm.Model, dump: golden.Dump, tmp_path: Path) -> None:
    """Two values that random ones took the place of: of a million pairs of weights some would fit."""
    what = isolated(model.data, dump, "conv")
    wrong = dump["conv"].copy()
    wrong[0, 1, 1, 4] ^= 3
    wrong[0, 2, 3, 4] ^= 5
    found = find_cause(Case(what, wrong, REFERENCE))
    assert not any("swapped" in c.text for c in found.causes)
