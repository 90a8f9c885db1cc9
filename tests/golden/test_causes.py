"""Causes of divergences: proved on whole layers, ties said as ties, one value never; dumps as people have them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_golden_tools_integer import REFERENCE, isolated, litert_dump

import npmobilenet as nm
from npmobilenet import golden
from npmobilenet.arithmetic.dialects import DIALECTS
from npmobilenet.errors import InputError
from npmobilenet.golden import single_node
from npmobilenet.golden.causes.case import Case, requant_of
from npmobilenet.golden.causes.rounding import requantize_all
from npmobilenet.golden.causes.search import find_cause
from npmobilenet.modeldata import ModelData


def plain(dump: golden.Dump) -> dict[str, Any]:
    return {e.name: dump[e.name] for e in dump.entries if not e.prefix}


def faulty(model: nm.Model, dump: golden.Dump, change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """The tensors of the same model with other constants."""
    tensors = {n: a.copy() for n, a in model.data.tensors.items()}
    change(tensors)
    engine = nm.Model(ModelData(model.graph, tensors, model.info))
    names = [n for n, t in model.graph.tensors.items() if not t.constant]
    return engine.run(dump["input"], taps=names)[1]


def written(arrays: dict[str, Any], folder: Path) -> Path:
    folder.mkdir()
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return folder


def rolled_bias(tensors: dict[str, Any]) -> None:
    tensors["dw/b"][:] = np.roll(tensors["dw/b"], 1)


def test_whole_layers_are_requantized_as_by_the_engine(model: nm.Model, dump: golden.Dump) -> None:
    for name in ("conv", "dw", "fc"):
        what = isolated(model.data, dump, name)
        sums = single_node.run(what, REFERENCE, stage="accumulator").astype(np.int64)
        for dialect in DIALECTS:
            right = single_node.run(what, dialect)
            assert np.array_equal(requantize_all(sums, requant_of(what, dialect, "output")), right), (name, dialect)


def test_a_cause_is_named_and_placed(model: nm.Model, dump: golden.Dump, tmp_path: Path) -> None:
    path = written(faulty(model, dump, rolled_bias), tmp_path / "d")
    found = golden.diff(dump, path, model=model)
    assert "its inputs agree, so the fault lies in this node" in found.verdict
    assert found.cause is not None
    assert found.cause.proved
    (why,) = found.why
    assert "its bias has its channels rolled by 1: explains all 500 values" in why
    assert found.to_dict()["cause"]["causes"][0]["kind"] == "bias"
    without = golden.diff(dump, path)
    assert without.cause is None
    assert all(text.startswith("looks like: ") for text in without.why)


def test_dumps_that_lack_tensors(model: nm.Model, dump: golden.Dump, tmp_path: Path) -> None:
    arrays = faulty(model, dump, rolled_bias)
    del arrays["dw"]
    found = golden.diff(dump, written(arrays, tmp_path / "d"), model=model)
    assert "lies in one of 2 nodes (dw (depthwise_conv2d), sum (add))" in found.verdict
    assert found.cause is not None
    assert found.cause.text.startswith("in 'dw', its bias has its channels rolled by 1")


def test_one_value_proves_nothing(model: nm.Model, dump: golden.Dump) -> None:
    """A weight of the last layer: any of many bits would do."""
    what = isolated(model.data, dump, "fc")
    wrong = dump["fc"].copy()
    wrong[0, 3] ^= 1
    found = find_cause(Case(what, wrong, REFERENCE))
    assert found.differing == 1
    assert not found.proved
    assert not found.text or "proves no cause" in found.text or found.text.startswith("no cause found")


def test_what_nothing_explains_is_said_so(model: nm.Model, dump: golden.Dump) -> None:
    what = isolated(model.data, dump, "conv")
    random = np.random.RandomState(2)
    wrong = dump["conv"].copy()
    wrong.reshape(-1)[::3] = random.randint(0, 100, wrong.reshape(-1)[::3].shape)
    found = find_cause(Case(what, wrong, REFERENCE))
    assert not found.causes
    assert found.text.startswith("no cause found")
    short = find_cause(Case(what, wrong, REFERENCE), seconds=0.0)
    assert "not tried: dialect" in short.text


def test_accumulators_tell_the_side(model: nm.Model, tmp_path: Path) -> None:
    ours = golden.record(model, "random:1", tmp_path / "ours")
    folder = tmp_path / "d"
    folder.mkdir()
    for entry in ours.entries:
        np.save(folder / f"{entry.name.replace(':', '_')}.npy", ours[entry.name])
    right = ours["dw"]
    np.save(folder / "dw.npy", np.clip(ours["pre:dw"].astype(np.int64) + 1, *_limits(right)).astype(right.dtype))
    (folder / "pre_dw.npy").unlink()
    found = golden.diff(ours, folder, model=model)
    assert "its accumulators agree, so the fault lies behind them" in found.verdict
    assert found.cause is not None
    assert "off by +1" in found.cause.text


def _limits(array: Any) -> tuple[int, int]:
    return int(np.iinfo(array.dtype).min), int(np.iinfo(array.dtype).max)


def test_a_fusion_is_no_fault(model: nm.Model, dump: golden.Dump, tmp_path: Path) -> None:
    """The device adds the residual in the layer before: its dump holds the sum under that layer's name."""
    arrays = plain(dump)
    arrays["dw"] = arrays["sum"]
    found = golden.diff(dump, written(arrays, tmp_path / "d"), model=model)
    assert "what is computed from it (sum) agrees" in found.verdict
    assert found.cause is not None
    assert "it holds what 'sum' should hold" in found.cause.text


@pytest.mark.parametrize("way", ["view", "offset"])
def test_the_other_8_bit_type(model: nm.Model, dump: golden.Dump, tmp_path: Path, way: str) -> None:
    other = {"int8": "uint8", "uint8": "int8"}[dump["conv"].dtype.name]
    turned = {n: a.view(other) if way == "view" else (a.view(np.uint8) ^ 128).view(other)
              for n, a in faulty(model, dump, rolled_bias).items()}  # fmt: skip
    path = written(turned, tmp_path / "d")
    found = golden.diff(dump, path, model=model)
    assert found.first is not None
    assert found.first.name == "dw"
    assert "bias has its channels rolled" in " ".join(found.why)
    said = ".view(np." if way == "view" else "(x ^ 128).view"
    assert any(said in note and "told by the input" in note for row in found.rows for note in row.notes)
    row = next(r for r in golden.identify(model, path).rows if r.name == "dw")
    assert "bias has its channels rolled" in row.cause


def test_a_file_without_values(model: nm.Model, dump: golden.Dump, tmp_path: Path) -> None:
    """One tensor of a dump is empty, as a file that was cut off: said by its name, in diff and identify."""
    for name in (entry.name for entry in dump.entries):
        if ":" not in name:
            (tmp_path / f"{name}.csv").write_text(",".join(map(str, dump[name].reshape(-1))))
    (tmp_path / "dw.csv").write_text("")
    found = golden.diff(dump, tmp_path)
    assert any("no values" in row.problem for row in found.rows if row.name == "dw")
    with pytest.raises(InputError, match="'dw': no values, expected"):
        golden.identify(model, tmp_path)


def test_forms_of_dumps(model: nm.Model, dump: golden.Dump, tmp_path: Path) -> None:
    arrays = faulty(model, dump, rolled_bias)
    (tmp_path / "d.json").write_text(json.dumps({n: a.tolist() for n, a in arrays.items()}))
    np.savez(tmp_path / "d.npz", **{f"their_{n}": a for n, a in arrays.items()})
    raw = tmp_path / "raw"
    raw.mkdir()
    for name, array in arrays.items():
        (raw / f"{name}.bin").write_bytes(array.tobytes())
    for path in (tmp_path / "d.json", raw):
        found = golden.diff(dump, path)
        assert found.first is not None
        assert found.first.name == "dw", path
    names = {f"their_{n}": n for n in arrays}
    at = tuple(int(i) for i in np.argwhere(arrays["dw"] != dump["dw"])[0])
    told = golden.explain(model, tmp_path / "d.npz", "d?", at, names=names)
    assert told.got == arrays["dw"][at]
    assert told.tensor == "dw"
    assert golden.explain(model, tmp_path / "d.npz", "#2", at, names=names).tensor == "dw"
    with pytest.raises(InputError, match="matches 2 tensors"):
        golden.explain(model, tmp_path / "d.npz", "s[uw]*", at, names=names)


def test_a_wrong_input_is_explained(model: nm.Model, dump: golden.Dump, tmp_path: Path) -> None:
    arrays = plain(dump)
    arrays["input"] = arrays["input"][..., ::-1]
    found = golden.diff(dump, written(arrays, tmp_path / "d"), model=model)
    assert found.cause is not None
    assert "channels in reverse order" in found.cause.text


def test_several_wrong_numbers(model: nm.Model, dump: golden.Dump) -> None:
    """Two channels, each with a flipped bit."""
    what = isolated(model.data, dump, "dw")
    weights = what.arrays[1].copy()
    weights[0, 1, 3] ^= 32
    weights[2, 2, 11] ^= 64
    wrong = single_node.run(replace(what, arrays=(what.arrays[0], weights, what.arrays[2])), REFERENCE)
    found = find_cause(Case(what, wrong, REFERENCE))
    assert found.proved
    assert "co 3)" in found.text
    assert "co 11)" in found.text


def test_litert_without_preserved_tensors(data: Path, tmp_path: Path) -> None:
    for name in ("mobilenet_v1_0_25_128_quant", "mlperf_tiny_vww_96_int8"):
        path = data / "weights" / f"{name}.tflite"
        ours = golden.record(path, "random:5", tmp_path / f"{name}-ours", taps=["*"])
        folder = litert_dump(path, tmp_path / name, "BUILTIN_REF", ours[ours.entries[0].name], preserve=False)
        found = golden.diff(ours, folder)
        assert "experimental_preserve_all_tensors=True" in found.verdict
        assert found.why == []
