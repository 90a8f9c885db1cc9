"""Golden tools: recording, reading anyone's dumps, comparing, reports; what is hostile is refused in a sentence."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import os
import re
import struct
import zipfile
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from platforms import make_pipe

import npmobilenet as nm
from npmobilenet import golden
from npmobilenet.errors import InputError, NpMobilenetError, PlanError
from npmobilenet.formats import weightfile
from npmobilenet.golden import comparing, foreign_dumps, inputs, recording
from npmobilenet.golden.causes import patterns
from npmobilenet.golden.dump import catalogue, from_json, sanitized, stems
from npmobilenet.graph import GraphBuilder, Quantization
from npmobilenet.images import heat_map
from npmobilenet.modeldata import ModelData, ModelInfo

F = np.float32
SETTINGS = settings(derandomize=True, deadline=None, max_examples=40)


def small(scale: float = 1.0) -> ModelData:
    """input (8, 8, 3) -> conv relu6 -> depthwise -> add -> mean -> softmax, with fixed weights."""
    b = GraphBuilder("small")
    x = b.input("input", (1, 8, 8, 3))
    same = ((1, 1), (1, 1))
    w, bias = b.constant("w", (3, 3, 3, 8)), b.constant("b", (8,))
    y = b.node("conv2d", [x, w, bias], "conv", stride=(1, 1), padding=same, activation="relu6", source="#1")
    dw, db = b.constant("dw", (3, 3, 8)), b.constant("db", (8,))
    z = b.node("depthwise_conv2d", [y, dw, db], "odd;name/é", stride=(1, 1), padding=same, source="#2")
    s = b.node("add", [y, z], "sum", source="#3")
    m = b.node("mean", [s], "mean", keepdims=False, source="#4")
    b.endpoints.update({"block_1": "conv", "#1": "conv", "#2": z, "#3": s, "#4": m})
    graph = b.finish([b.node("softmax", [m], "probabilities", beta=1.0)])
    random = np.random.RandomState(5)
    tensors = {n: (scale * random.uniform(-1, 1, t.shape)).astype(F) for n, t in graph.constants.items()}
    return ModelData(graph, tensors, ModelInfo("small"))


@pytest.fixture(scope="module")
def model() -> nm.Model:
    return nm.Model(small())


@pytest.fixture(scope="module")
def dump(model: nm.Model, tmp_path_factory: pytest.TempPathFactory) -> golden.Dump:
    return golden.record(model, "random:1", tmp_path_factory.mktemp("golden") / "ours")


def foreign(folder: Path, arrays: dict[str, Any]) -> Path:
    """Someone else's dump."""
    folder.mkdir()
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return folder


# -- record ------------------------------------------------------------------------------------------------------------


def test_a_dump_holds_what_the_model_computes(model: nm.Model, dump: golden.Dump) -> None:
    x = inputs.random_input(model, 1)
    every = ["*", "acc:*"]
    _, taps = model.run(x, taps=every)
    assert dump.manifest is not None
    listed = [entry.name for entry in dump.entries]
    assert listed == ["input", "acc:conv", "conv", "acc:odd;name/é", "odd;name/é", "sum", "mean", "probabilities"]
    for entry in dump.entries:
        array = np.load(dump.path / entry.file)  # anyone's reader
        assert array.tobytes() == taps[entry.name].tobytes(), entry.name
        assert (array.shape, str(array.dtype)) == (entry.shape, entry.dtype)
        assert entry.sha256 == hashlib.sha256(array.tobytes()).hexdigest()
        assert array.tobytes() == dump[entry.name].tobytes()
    assert dump["#2"].tobytes() == dump["odd;name/é"].tobytes()
    assert dump["block_1"].tobytes() == dump["conv"].tobytes()
    assert dump["acc:#1"].tobytes() == dump["acc:conv"].tobytes()
    assert sorted(p.name for p in dump.path.iterdir())[:3] == ["0000-input.npy", "0001-conv.acc.npy", "0002-conv.npy"]


def test_the_manifest_says_what_was_run(model: nm.Model, dump: golden.Dump, tmp_path: Path) -> None:
    weightfile.write(tmp_path / "small.h5", model.data)
    other = golden.record(tmp_path / "small.h5", "random:1", tmp_path / "other", dialect="xnnpack", kernels="reference")
    ours, theirs = dump.manifest, other.manifest
    assert ours is not None
    assert theirs is not None
    assert ours.model["sha256"] == theirs.model["sha256"]  # whatever file it came from
    digest = hashlib.sha256((tmp_path / "small.h5").read_bytes()).hexdigest()
    assert theirs.model["file"] == "small.h5"
    assert theirs.model["file_sha256"] == digest
    assert (theirs.dialect, theirs.kernels, theirs.batch) == ("xnnpack", "reference", 1)
    assert ours.input == theirs.input == {"source": "random:1", "sha256": dump.entries[0].sha256}
    assert set(ours.versions) == {"npmobilenet", "numpy", "numba", "python"}
    changed = nm.Model(small(1.25))
    assert inputs.model_facts(changed.data, None)["sha256"] != ours.model["sha256"]
    document = json.loads((dump.path / "manifest.json").read_text())
    assert (document["format"], document["schema"]) == ("npmobilenet-golden", 1)
    assert document["tensors"][2]["op"] == "conv2d"
    assert document["tensors"][2]["inputs"] == ["input"]


def test_equal_runs_give_equal_bytes(model: nm.Model, tmp_path: Path) -> None:
    for name in ("a.npz", "b.npz"):
        golden.record(model, "random:7", tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with np.load(tmp_path / "a.npz") as archive:
        assert archive["0002-conv"].shape == (1, 8, 8, 8)


def test_random_inputs_are_frozen(model: nm.Model) -> None:
    x = inputs.random_input(model, 1)["input"]
    assert hashlib.sha256(x.tobytes()).hexdigest()[:16] == "c2e9c29dc76b22f5"
    assert (x.dtype, x.shape) == (F, (1, 8, 8, 3))
    assert -1 <= x.min() < -0.9 < 0.9 < x.max() <= 1


def test_streaming_changes_nothing(model: nm.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One tap in each run, and a batch of more than one piece."""
    x = inputs.random_input(model, 3, batch=11)["input"]
    whole = golden.record(model, x, tmp_path / "whole")
    monkeypatch.setattr(recording, "GROUP_BYTES", 1)
    runs = []
    real = nm.Model.run
    monkeypatch.setattr(nm.Model, "run", lambda self, *a, **k: (runs.append(k["taps"]), real(self, *a, **k))[1])
    steps: list[tuple[int, int]] = []
    one = golden.record(model, x, tmp_path / "one", progress=lambda *done: steps.append(done))
    assert steps == [(i + 1, 8) for i in range(8)]
    assert [len(taps) for taps in runs] == [1] * 16  # 8 taps, 8 + 3 images
    for path in whole.path.iterdir():
        assert path.read_bytes() == (one.path / path.name).read_bytes()
    assert whole["conv"].shape == (11, 8, 8, 8)


def test_taps_choose(model: nm.Model, tmp_path: Path) -> None:
    dump = golden.record(model, "random:1", tmp_path / "d", taps=["acc:block_1", "s*"])
    assert [entry.name for entry in dump.entries] == ["input", "acc:conv", "sum"]
    with pytest.raises(PlanError, match="matches nothing"):
        golden.record(model, "random:1", tmp_path / "e", taps="nope")
    assert not (tmp_path / "e").exists()


def test_inputs_of_all_kinds(model: nm.Model, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    x = inputs.random_input(model, 2)["input"]
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "bare.npy", x[0])
    np.savez(tmp_path / "x.npz", input=x)
    image.fromarray(np.full((9, 9, 3), 200, np.uint8)).save(tmp_path / "p.png")
    wanted, facts = inputs.load_input(model, x)
    for source in ("x.npy", "bare.npy", "x.npz"):
        arrays, said = inputs.load_input(model, tmp_path / source)
        assert arrays["input"].tobytes() == wanted["input"].tobytes()
        assert said["sha256"] == facts["sha256"]
        assert said["file_sha256"] == hashlib.sha256((tmp_path / source).read_bytes()).hexdigest()
    arrays, _ = inputs.load_input(model, tmp_path / "p.png")
    assert arrays["input"].tobytes() == model.preprocess(tmp_path / "p.png").tobytes()


@pytest.mark.parametrize("source", ["random:", "random:-1", "random:4294967296", "random:x", "nope.npy", "nope.png", 3])
def test_bad_sources(model: nm.Model, tmp_path: Path, source: Any) -> None:
    with pytest.raises(InputError):
        golden.record(model, source, tmp_path / "d")
    assert list(tmp_path.iterdir()) == []


def test_folders_appear_whole(model: nm.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "d"
    golden.record(model, "random:1", target)
    before = (target / "manifest.json").read_bytes()
    with pytest.raises(InputError, match="exists already"):
        golden.record(model, "random:2", target)
    golden.record(model, "random:2", target, force=True)
    assert (target / "manifest.json").read_bytes() != before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(InputError, match="not a golden dump"):
        golden.record(model, "random:1", tmp_path / "mine", force=True)
    with pytest.raises(InputError, match="make it first"):
        golden.record(model, "random:1", tmp_path / "no" / "d")

    def fails(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(nm.Model, "run", fails)
    with pytest.raises(KeyboardInterrupt):
        golden.record(model, "random:1", tmp_path / "new")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d", "mine"]


def test_file_names_are_plain_and_unique() -> None:
    listed = catalogue(small().graph)
    files = stems(listed)
    assert len(set(files.values())) == len(listed)
    assert files["acc:odd;name/é"] == "0004-odd_name.acc"
    assert all(re.fullmatch(r"[A-Za-z0-9._-]{1,120}", name) for name in files.values())
    assert sanitized("../a b:c") == ".._a_b_c"


# -- diff: ours --------------------------------------------------------------------------------------------------------


def test_equal_dumps(model: nm.Model, dump: golden.Dump, tmp_path: Path) -> None:
    golden.record(nm.Model(small(), "reference"), "random:1", tmp_path / "b.npz")
    result = golden.diff(dump, tmp_path / "b.npz")
    assert result.equal
    assert result.first is None
    assert result.verdict == "all 8 tensors are equal"
    assert (result.missing, result.left_over, result.notes) == ([], {"A": [], "B": []}, [])


def test_a_wrong_weight_is_found(dump: golden.Dump, tmp_path: Path) -> None:
    data = small()
    tensors = {name: array.copy() for name, array in data.tensors.items()}
    tensors["dw"][1, 2, 5] += F(0.25)
    golden.record(nm.Model(ModelData(data.graph, tensors, data.info)), "random:1", tmp_path / "b")
    result = golden.diff(dump, tmp_path / "b")
    assert not result.equal
    first = result.first
    assert first is not None
    assert first.name == "acc:odd;name/é"
    assert "its inputs agree, so the fault lies in this node" in result.verdict
    assert first.comparison is not None
    c = first.comparison
    assert np.flatnonzero(c.where["C"]).tolist() == [5]
    assert c.first is not None
    assert c.first[3] == 5
    assert any("only channel 5 of 8" in hint for hint in first.hints)
    assert any("another model" in note for note in result.notes)
    a, b = dump["acc:odd;name/é"], golden.Dump(tmp_path / "b")["acc:odd;name/é"]
    at = tuple(np.argwhere(a != b)[0].tolist())
    assert (c.first, c.first_values) == (at, (a[at].item(), b[at].item()))
    assert c.count == np.count_nonzero(a != b)
    document = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert document["first"] == first.name
    assert document["tensors"][3]["histogram"] == c.histogram


def test_edited_files_are_noticed(model: nm.Model, dump: golden.Dump, tmp_path: Path) -> None:
    other = golden.record(model, "random:1", tmp_path / "b")
    array = other["sum"]
    array[0, 3, 2, 1] += 1
    np.save(other.path / other.entries[5].file, array)
    result = golden.diff(dump, other)
    assert [row.name for row in result.rows if not row.equal] == ["sum"]
    assert result.first is not None
    assert result.first.notes == ["B: edited since it was recorded"]
    assert result.first.comparison is not None
    assert result.first.comparison.first == (0, 3, 2, 1)


def test_swapped_scales_are_a_difference(model: nm.Model, dump: golden.Dump, tmp_path: Path) -> None:
    """Equal numbers with another scale mean something else."""
    for name, scale in (("a", 0.5), ("b", 0.25)):
        golden.record(model, "random:1", tmp_path / name)
        path = tmp_path / name / "manifest.json"
        document = json.loads(path.read_text())
        document["tensors"][2]["quantization"] = {"scale": [scale], "zero_point": [3], "axis": None}
        path.write_text(json.dumps(document))
    result = golden.diff(tmp_path / "a", tmp_path / "b")
    assert result.first is not None
    assert (result.first.name, result.first.status) == ("conv", "quantization")
    assert "A has scale 0.5, zero point 3, B scale 0.25" in result.first.problem
    assert not result.equal


def test_tolerances() -> None:
    a = np.array([[1.0, 2.0, 3.0]], F)
    b = np.nextafter(np.nextafter(a, F(9)), F(9))
    assert comparing.compare(a, b).count == 3
    assert comparing.compare(a, b, golden.Tolerance(ulp=2)).count == 0
    assert comparing.compare(a, b, golden.Tolerance(ulp=1)).count == 3
    assert comparing.compare(a, b, golden.Tolerance(atol=1e-6)).count == 0
    x, y = np.array([[5, 200]], np.uint8), np.array([[7, 199]], np.uint8)
    found = comparing.compare(x, y, golden.Tolerance(lsb=1))
    assert (found.count, found.first, found.first_values) == (1, (0, 0), (5, 7))
    assert found.histogram == {"-1": 1, "+2": 1}


@SETTINGS
@given(st.lists(st.tuples(*[st.integers(0, 2**32 - 1)] * 2), min_size=1, max_size=20))
def test_ulps_count_the_floats_between(pairs: list[tuple[int, int]]) -> None:
    a, b = (np.array(side, np.uint32).view(F) for side in zip(*pairs, strict=True))
    steps = comparing.ulps(a, b)
    for x, y, step in zip(a, b, steps.tolist(), strict=True):
        if np.isnan(x) or np.isnan(y):
            assert step == (0 if np.isnan(x) and np.isnan(y) else comparing.NAN_ULP)
            continue
        assert (step == 0) == (x == y)
        assert (step > 0) == (y > x)
        if abs(step) <= 3:
            reached = x
            for _ in range(abs(step)):
                reached = np.nextafter(reached, y)
            assert reached == y


@SETTINGS
@given(st.lists(st.integers(-300, 300), min_size=1, max_size=50))
def test_histograms_count_every_element_once(steps: list[int]) -> None:
    a = np.zeros((1, len(steps)), np.int32)
    found = comparing.compare(a, np.array([steps], np.int32))
    assert sum(found.histogram.values()) == len(steps)
    for label, count in found.histogram.items():
        low, _, high = label.partition("..")
        bounds = sorted((int(low), int(high or low)))
        assert count == sum(bounds[0] <= s <= bounds[1] for s in steps), label
    assert found.largest == max(map(abs, steps))


def test_nan_and_zeros() -> None:
    a = np.array([[np.nan, 0.0, np.nan, np.inf]], F)
    b = np.array([[np.nan, -0.0, 1.0, np.inf]], F)
    found = comparing.compare(a, b)
    assert (found.count, found.first) == (1, (0, 2))
    assert found.histogram == {"0": 3, "NaN": 1}


# -- hints -------------------------------------------------------------------------------------------------------------


def hinted(a: Any, b: Any, q: Quantization | None = None) -> str:
    return " / ".join(patterns.find_patterns(a, b, comparing.compare(a, b), q))


def test_hints_name_the_pattern() -> None:
    random = np.random.RandomState(0)
    a = random.randint(-100, 100, (1, 12, 12, 16)).astype(np.int8)
    off = a.copy()
    off.reshape(-1)[::37] += 1
    assert "another rounding rule" in hinted(a, off)
    one = a.copy()
    one[..., 3] += 20
    assert "only channel 3 of 16" in hinted(a, one)
    edge = a.copy()
    edge[:, 0] += 20
    edge[:, :, -1] += 20
    assert "at the border only (first row, last column)" in hinted(a, edge)
    assert "another zero point" in hinted(a, a + np.int8(7))
    scaled = np.rint((a.astype(int) - 10) * 0.5 + 10).astype(np.int8)
    assert "B is 0.4999 times A" in hinted(a, scaled, Quantization((0.1,), (10,)))
    assert "the same values in other places" in hinted(a, np.ascontiguousarray(a.transpose(0, 2, 1, 3)))
    cut = np.minimum(a, 50).astype(np.int8)
    assert "B stops at 50" in hinted(a, cut)
    x = random.normal(size=(1, 8, 8, 4)).astype(F)
    assert "another order" in hinted(x, (x * F(1.000001)).astype(F))
    assert hinted(a, a) == ""


# -- diff: theirs ------------------------------------------------------------------------------------------------------


def test_names_of_foreign_files(dump: golden.Dump, tmp_path: Path) -> None:
    arrays = {name: dump[name] for name in ("conv", "odd;name/é", "sum", "mean", "acc:conv")}
    spellings = [
        {"conv": "1", "odd;name/é": "#2", "sum": "t3", "mean": "tensor_004", "acc:conv": "acc_1"},
        {"conv": "conv", "odd;name/é": "odd_name_", "sum": "sum", "mean": "mean", "acc:conv": "conv.acc"},
        {"conv": "block_1", "odd;name/é": "0004-odd_name", "sum": "3", "mean": "mean", "acc:conv": "acc_block_1"},
    ]
    for i, spelling in enumerate(spellings):
        path = foreign(tmp_path / str(i), {spelling[name]: array for name, array in arrays.items()})
        result = golden.diff(dump, path)
        assert result.equal
        assert {row.name for row in result.rows} == set(arrays)
        assert set(result.missing) == {"input", "acc:odd;name/é", "probabilities"}


def test_name_maps(dump: golden.Dump, tmp_path: Path) -> None:
    path = foreign(tmp_path / "d", {"layer0": dump["conv"], "layer1": dump["#2"], "extra": dump["mean"]})
    mapping = {"layer0": "block_1", "layer1.npy": "#2"}
    (tmp_path / "m.json").write_text(json.dumps(mapping))
    (tmp_path / "m.csv").write_text("theirs,ours\nlayer0,conv\nlayer1,odd;name/é\n", encoding="utf-8")
    for given_map in (mapping, tmp_path / "m.json", str(tmp_path / "m.csv")):
        result = golden.diff(dump, path, names=given_map)
        assert [row.name for row in result.rows] == ["conv", "odd;name/é"]
        assert result.equal
        assert result.left_over["B"] == ["extra"]
    turned = golden.diff(path, dump, names=mapping)  # the foreign one first
    assert turned.equal
    assert turned.left_over["A"] == ["extra"]
    result = golden.diff(dump, path, names={"layer0": "sum", "layer1": "#2"})
    assert result.first is not None
    assert result.first.name == "sum"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"layer0": "nope"}', "no tensor here"),
        ('{"nothing": "conv"}', "no array of"),
        ('{"layer0": 3}', "two names"),
        ('{"layer0": "conv", "layer0": "sum"}', "twice"),
        ('{"layer0": "conv", "layer1": "conv"}', "both stand for"),
        ("[1, 2]", "can't be read as a name map"),
        ("{", "can't be read as a name map"),
        ("\xff", "can't be read as a name map"),
    ],
)
def test_bad_name_maps(dump: golden.Dump, tmp_path: Path, content: str, said: str) -> None:
    path = foreign(tmp_path / "d", {"layer0": dump["conv"], "layer1": dump["conv"]})
    (tmp_path / "m.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match=said):
        golden.diff(dump, path, names=tmp_path / "m.json")


def test_nothing_in_common(dump: golden.Dump, tmp_path: Path) -> None:
    path = foreign(tmp_path / "d", {"x": np.zeros(3, F)})
    with pytest.raises(InputError, match="write a name map"):
        golden.diff(dump, path)


def test_other_layouts(dump: golden.Dump, tmp_path: Path) -> None:
    first = {n: np.ascontiguousarray(dump[n].transpose(0, 3, 1, 2)) for n in ("input", "sum")}
    result = golden.diff(dump, foreign(tmp_path / "nchw", first))
    assert result.equal
    assert any("NCHW" in note for note in result.notes)
    bare = {"input": first["input"][0], "mean": dump["mean"][0], "probabilities": dump["probabilities"][:, None, None]}
    result = golden.diff(dump, foreign(tmp_path / "bare", bare))
    assert result.equal
    assert any("batch" in note for row in result.rows for note in row.notes)
    result = golden.diff(dump, foreign(tmp_path / "flat", {"sum": dump["sum"].reshape(-1)}))
    assert result.equal
    assert "flat" in result.rows[0].notes[0]
    # 8 channels of 8 x 8 pixels: only the layout option tells, and a transposed picture is recognized as such.
    square = foreign(tmp_path / "square", {"sum": first["sum"]})
    wrong = golden.diff(dump, square)
    assert wrong.first is not None
    assert any("other places" in hint for hint in wrong.first.hints)
    assert golden.diff(dump, square, layout="nchw").equal
    mixed = foreign(tmp_path / "mixed", {"input": first["input"], "mean": dump["mean"], "sum": dump["sum"]})
    with pytest.raises(InputError, match="layout='x'"):
        golden.diff(dump, mixed, layout="x")
    with pytest.raises(InputError, match="in one layout"):
        foreign_dumps.detect([((1, 3, 4, 5), (1, 4, 5, 3)), ((1, 4, 5, 3), (1, 4, 5, 3))])


def test_shapes_that_do_not_fit_are_explained(dump: golden.Dump, tmp_path: Path) -> None:
    odd = {"input": np.zeros((1, 3, 8, 8), F), "sum": np.zeros((1, 4, 8, 16), F), "mean": np.zeros((2, 8), F)}
    result = golden.diff(dump, foreign(tmp_path / "d", odd), layout="nhwc")
    problems = {row.name: (row.status, row.problem) for row in result.rows}
    assert all(status == "shape" for status, _ in problems.values())
    assert "NCHW" in problems["input"][1]
    assert "reshape" in problems["sum"][1]
    assert "batch" in problems["mean"][1]
    assert not result.equal


def fitted(array: Any, dtype: str, q: Quantization | None = None) -> foreign_dumps.ShapeMatch:
    return foreign_dumps.fit(np.asarray(array), np.asarray(array).shape, dtype, q, "nhwc")


def test_dtypes_are_converted_exactly_or_explained() -> None:
    q = Quantization((0.05,), (-3,))
    whole = np.array([-128, 5, 127], np.int8)
    for other in (whole.astype(np.int32), whole.astype(F), whole.astype(np.int64)):
        found = fitted(other, "int8")
        assert found.array is not None
        assert found.array.tolist() == whole.tolist()
        assert "all values fit" in found.notes[0]
    real = (F(0.05) * (whole.astype(F) + 3)).astype(F)
    found = fitted(real, "int8", q)
    assert found.array is not None
    assert found.array.tolist() == whole.tolist()
    assert "dequantized" in found.notes[0]
    assert "another scale" in fitted(real * F(1.37), "int8", q).problem
    assert "dump the integers" in fitted(real, "int8").problem
    assert "128" in fitted(np.array([200], np.uint8), "int8").problem
    assert "accumulators" in fitted(np.array([70000], np.int32), "int8").problem
    assert "quantized values of a float" in fitted(whole, "float32").problem
    assert fitted(np.array([0.5], np.float64), "float32").notes == [
        "float64 where float32 is expected; all values fit, compared as float32"
    ]
    assert "rounded" in fitted(np.array([0.1], np.float64), "float32").notes[0]
    assert fitted(np.array([np.nan], F), "int8", q).problem


def test_two_foreign_dumps(model: nm.Model, dump: golden.Dump, tmp_path: Path) -> None:
    arrays = {"9": dump["sum"], "10": dump["mean"]}
    a = foreign(tmp_path / "a", arrays)
    b = foreign(tmp_path / "b", {**arrays, "10": dump["mean"] + F(1)})
    result = golden.diff(a, b)
    assert [row.name for row in result.rows] == ["9", "10"]  # not as texts
    assert result.first is not None
    assert result.first.name == "10"
    c = foreign(tmp_path / "c", {"3": dump["sum"]})
    d = foreign(tmp_path / "e", {"sum": dump["sum"]})
    with pytest.raises(InputError):
        golden.diff(c, d)
    assert [row.name for row in golden.diff(c, d, model=model).rows] == ["sum"]


def test_a_dump_of_litert_by_index(data: Path, tmp_path: Path) -> None:
    """LiteRT's tensors, saved under their indices, are read; a float model agrees within its tolerance."""
    litert = pytest.importorskip("ai_edge_litert.interpreter", reason="ai-edge-litert is not installed")
    path = data / "weights" / "mobilenet_v1_0.25_128.tflite"
    ours = golden.record(path, "random:5", tmp_path / "ours")
    made = litert.Interpreter(
        str(path),
        experimental_op_resolver_type=litert.OpResolverType.BUILTIN_REF,
        experimental_preserve_all_tensors=True,
    )
    made.allocate_tensors()
    made.set_tensor(made.get_input_details()[0]["index"], ours["input"])
    made.invoke()
    theirs = {str(t["index"]): made.get_tensor(t["index"]) for t in made.get_tensor_details() if t["shape"].size}
    result = golden.diff(ours, foreign(tmp_path / "theirs", theirs), tolerance=golden.Tolerance(atol=1e-3))
    assert result.equal
    assert len(result.rows) == 32
    assert all(name.startswith("acc:") for name in result.missing)


# -- reports -----------------------------------------------------------------------------------------------------------


def unpack_png(data: bytes) -> Any:
    """The pixels of an RGB picture without filters, its checksums verified."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, content, size = 8, b"", (0, 0)
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert struct.unpack(">I", data[at + 8 + length : at + 12 + length])[0] == zlib.crc32(kind + body)
        if kind == b"IHDR":
            size = struct.unpack(">II", body[:8])
        content += body if kind == b"IDAT" else b""
        at += 12 + length
    rows = np.frombuffer(zlib.decompress(content), np.uint8).reshape(size[1], 1 + 3 * size[0])
    assert not rows[:, 0].any()
    return rows[:, 1:].reshape(size[1], size[0], 3)


def test_pictures() -> None:
    counts = np.zeros((5, 7), np.int64)
    counts[2, 3] = 9
    counts[4, 0] = 1
    pixels = unpack_png(heat_map.png(heat_map.heat(counts)))
    grey = (pixels == heat_map.NOTHING).all(axis=-1)
    assert np.argwhere(~grey).tolist() == [[2, 3], [4, 0]]
    assert pixels[2, 3].astype(int).sum() < pixels[4, 0].astype(int).sum()  # more is darker
    assert heat_map.heat(np.zeros((3, 3), np.int64)).reshape(-1, 3).tolist() == [list(heat_map.NOTHING)] * 9
    large = heat_map.pooled(np.ones((1030, 3), np.int64))
    assert large.shape == (344, 1)
    assert large.sum() == 3090


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_the_report_shows_where(model: nm.Model, dump: golden.Dump, tmp_path: Path) -> None:
    other = golden.record(model, "random:1", tmp_path / "<b>&")
    array = other["sum"]
    array[0, 3, 2, 1] += 1
    np.save(other.path / other.entries[5].file, array)
    path = tmp_path / "r.html"
    golden.write_report(golden.diff(dump, other), path)
    text = path.read_text(encoding="utf-8")
    assert "first diverging: sum (add); its inputs agree" in text
    assert "&lt;b&gt;&amp;" in text
    assert "<b>&" not in text
    tags = Tags()
    tags.feed(text)
    images = [attrs["src"] for tag, attrs in tags.found if tag == "img"]
    assert len(images) == 1
    assert images[0] is not None
    pixels = unpack_png(base64.b64decode(images[0].removeprefix("data:image/png;base64,")))
    assert np.argwhere((pixels != heat_map.NOTHING).any(axis=-1)).tolist() == [[3, 2]]
    loads = [a for tag, attrs in tags.found for k, a in attrs.items() if k in ("src", "href") and a]
    assert all(a.startswith(("#", "data:")) for a in loads)  # needs no other file
    assert not [tag for tag, _ in tags.found if tag in ("script", "link", "iframe")]
    golden.write_report(golden.diff(dump, dump), path)
    assert "all 8 tensors are equal" in path.read_text(encoding="utf-8")


# -- hostile dumps -----------------------------------------------------------------------------------------------------


def header(text: str, version: bytes = b"\1\0", data: bytes = b"") -> bytes:
    body = text.encode("latin-1") + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H" if version == b"\1\0" else "<I", len(body)) + body + data


PLAIN = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 8), }"
HOSTILE = {
    "empty": b"",
    "text": b"hello, this is no array",
    "pickled": header("{'descr': '|O', 'fortran_order': False, 'shape': (1, 8), }", data=b"cos\nsystem\n(S'id'\ntR."),
    "huge": header("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000), }"),
    "overflow": header(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({2**62}, 4), }}"),
    "negative": header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 8), }", data=b"\0" * 32),
    "truncated": header(PLAIN, data=b"\0" * 31),
    "too long": header(PLAIN, data=b"\0" * 33),
    "structured": header("{'descr': [('a', '<f4'), ('b', '|O')], 'fortran_order': False, 'shape': (8,), }"),
    "code": header("__import__('os').system('touch /tmp/owned')"),
    "nested": header("(" * 3000),
    "keys": header("{'descr': '<f4'}"),
    "complex": header("{'descr': '<c8', 'fortran_order': False, 'shape': (4,), }", data=b"\0" * 32),
    "dates": header("{'descr': '<M8[s]', 'fortran_order': False, 'shape': (4,), }", data=b"\0" * 32),
    "version 3": header(PLAIN, b"\3\0", b"\0" * 32),
    "long header": header(PLAIN + " " * 20000, b"\2\0", b"\0" * 32),
    "ranks": header(f"{{'descr': '<f4', 'fortran_order': False, 'shape': {(1,) * 40}, }}", data=b"\0" * 4),
    "whole floats": header("{'descr': '<f4', 'fortran_order': False, 'shape': (1.0, 8), }", data=b"\0" * 32),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_arrays(dump: golden.Dump, tmp_path: Path, kind: str) -> None:
    folder = foreign(tmp_path / "d", {"conv": dump["conv"]})
    (folder / "mean.npy").write_bytes(HOSTILE[kind])
    with pytest.raises(InputError, match=r"mean\.npy"):
        golden.diff(dump, folder)
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("mean.npy", HOSTILE[kind])
    with pytest.raises(InputError, match=r"mean\.npy"):
        golden.diff(dump, tmp_path / "d.npz")


def test_harmless_forms(dump: golden.Dump, tmp_path: Path) -> None:
    """Column-major, big-endian, version 2: another writer's habits."""
    array = dump["sum"]
    big = array.astype(">f4")
    folder = foreign(tmp_path / "d", {"sum": np.asfortranarray(big)})
    with open(folder / "mean.npy", "wb") as file:
        np.lib.format.write_array(file, dump["mean"], version=(2, 0))
    assert golden.diff(dump, folder).equal


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this platform has no named pipes")
def test_a_pipe_is_not_read(dump: golden.Dump, tmp_path: Path) -> None:
    folder = foreign(tmp_path / "d", {"conv": dump["conv"]})
    make_pipe(folder / "mean.npy")
    with pytest.raises(InputError, match="regular file"):
        golden.diff(dump, folder)


def manifest_of(dump: golden.Dump) -> dict[str, Any]:
    return json.loads((dump.path / "manifest.json").read_text())


def edits() -> dict[str, Any]:
    """Ways to damage a manifest: functions of its document."""

    def at(*path: Any, value: Any) -> Any:
        def change(document: Any) -> Any:
            place = document
            for step in path[:-1]:
                place = place[step]
            place[path[-1]] = value
            return document

        return change

    return {
        "outside": at("tensors", 1, "file", value="../../etc/passwd.npy"),
        "absolute": at("tensors", 1, "file", value="/tmp/x.npy"),
        "backslash": at("tensors", 1, "file", value="..\\x.npy"),
        "absent": at("tensors", 1, "file", value="nope.npy"),
        "same file": at("tensors", 1, "file", value="0000-input.npy"),
        "same name": at("tensors", 1, "name", value="input"),
        "format": at("format", value="x"),
        "schema": at("schema", value=2),
        "tensors": at("tensors", value=7),
        "shape": at("tensors", 1, "shape", value=[1, "8"]),
        "large shape": at("tensors", 1, "shape", value=[2**40]),
        "zero shape": at("tensors", 1, "shape", value=[0]),
        "scale": at("tensors", 1, "quantization", value={"scale": [float("nan")], "zero_point": [0], "axis": None}),
        "negative scale": at("tensors", 1, "quantization", value={"scale": [-1.0], "zero_point": [0], "axis": None}),
        "no scales": at("tensors", 1, "quantization", value={"scale": [], "zero_point": [], "axis": None}),
        "dtype": at("tensors", 1, "dtype", value=["float32"]),
        "dialect": at("dialect", value=None),
        "list": lambda _: [],
        "deep": lambda _: None,
    }


@pytest.mark.parametrize("kind", edits())
def test_damaged_manifests(model: nm.Model, dump: golden.Dump, tmp_path: Path, kind: str) -> None:
    other = golden.record(model, "random:1", tmp_path / "d")
    document = edits()[kind](manifest_of(other))
    text = "[" * 100_000 if kind == "deep" else json.dumps(document)
    (other.path / "manifest.json").write_text(text)
    with pytest.raises(InputError):
        golden.diff(dump, other.path)


@SETTINGS
@given(st.integers(0, 10**6), st.integers(0, 255))
def test_any_byte_of_a_dump_may_be_wrong(dump: golden.Dump, place: int, byte: int) -> None:
    """Whatever one wrong byte of a file is, the answer is a result or one of our errors."""
    content = (dump.path / "manifest.json").read_bytes()
    place %= len(content)
    damaged = content[:place] + bytes([byte]) + content[place + 1 :]
    with contextlib.suppress(NpMobilenetError):
        from_json(damaged, "manifest.json")
    array = (dump.path / dump.entries[-1].file).read_bytes()
    place %= len(array)
    with io.BytesIO() as file, zipfile.ZipFile(file, "w") as archive:
        archive.writestr("probabilities.npy", array[:place] + bytes([byte]) + array[place + 1 :])
        archive.close()
        content = file.getvalue()
    path = dump.path.parent / "damaged.npz"
    path.write_bytes(content)
    with contextlib.suppress(NpMobilenetError):
        golden.diff(dump, path)


def test_archives_that_are_none(dump: golden.Dump, tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 not really")
    (tmp_path / "a.npy").write_bytes(b"x")
    (tmp_path / "a.txt").write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    for name in ("a.npz", "a.npy", "a.txt", "empty", "absent", "absent.npz", "nul\0"):
        with pytest.raises(InputError):
            golden.Dump(tmp_path / name)
    bomb = tmp_path / "bomb.npz"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            "conv.npy", header("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 8), }", data=bytes(10**7))
        )
    with pytest.raises(InputError, match="declares"):
        golden.diff(dump, bomb)
    with zipfile.ZipFile(tmp_path / "twice.npz", "w") as archive:
        archive.writestr("conv.npy", b"")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("conv.npy", b"")
    with pytest.raises(InputError, match="same name"):
        golden.Dump(tmp_path / "twice.npz")


def test_names_stay_small(dump: golden.Dump) -> None:
    assert foreign_dumps.read_map(None) == {}
    with pytest.raises(InputError, match="no array"):
        dump["nope"]


@pytest.mark.parametrize("shape", [(), (5,), (2, 3)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int8"])
def test_arrays_of_any_rank_are_compared(tmp_path: Path, shape: tuple[int, ...], dtype: str) -> None:
    """A scalar and a list of values, too; NaN beside a number, and two NaNs."""
    a, b = np.zeros(shape, dtype), np.ones(shape, dtype)
    if dtype != "int8":
        a.reshape(-1)[[0, -1]] = b.reshape(-1)[-1] = np.nan
    for name, array in (("a", a), ("b", b)):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "t.npy", array)
    assert golden.diff(tmp_path / "a", tmp_path / "a").equal
    result = golden.diff(tmp_path / "a", tmp_path / "b")
    found = result.rows[0].comparison
    assert found is not None
    same = np.isnan(a) & np.isnan(b)
    assert found.count == a.size - int(same.sum())
    assert result.equal == bool(same.all())
    assert found.first == (None if same.all() else (0,) * a.ndim)
    json.dumps(result.to_dict(), allow_nan=False)
    golden.write_report(result, tmp_path / "r.html")
