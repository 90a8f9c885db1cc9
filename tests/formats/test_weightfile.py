"""The weight file: round trips, equal bytes, and a corpus of damaged and hostile files that must all be refused."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from platforms import make_pipe

from npmobilenet.errors import WeightFileError
from npmobilenet.formats import weightfile
from npmobilenet.graph import Graph, GraphBuilder, Quantization
from npmobilenet.modeldata import ModelData, ModelInfo
from npmobilenet.zoo.build import build_model

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = "MobilenetV2/Conv/weights"  # of `example`, stored as:
STORED = "tensors/MobilenetV2%2FConv%2Fweights"
LABELS = ("cat", "dog", "crane", "crane", "Küken")


def example(**info: Any) -> ModelData:
    """A graph with every dtype, whole-tensor and per-channel quantization, and labels; the values are fixed."""
    g = GraphBuilder("tiny")
    scales = (0.5, float(np.float32(0.1)), 3e-9, 1.0, 2.0, 0.25)
    g.input("in", (1, 4, 4, 3), "uint8", quantization=Quantization((0.0078125,), (128,)), source="#0")
    g.constant(WEIGHTS, (3, 3, 3, 6), "int8", quantization=Quantization(scales, (0,) * 6, axis=3), source="#7")
    g.constant("MobilenetV2/Conv/biases", (6,), "int32", quantization=Quantization(scales, (0,) * 6, axis=0))
    g.node("conv2d", ["in", WEIGHTS, "MobilenetV2/Conv/biases"], "a", dtype="float32", stride=(1, 1),
           padding=((1, 1), (1, 1)), activation="relu6")  # fmt: skip
    last = "a"
    for dtype in ("float32", "uint8", "int16", "int64"):
        g.constant(f"odd.{dtype}; /../.", (1, 1, 1, 6), dtype)
        last = g.node("add", [last, f"odd.{dtype}; /../."], f"sum/{dtype}")
    g.endpoints["layer_1"] = "a"
    graph = g.finish([last])
    rng = np.random.default_rng(1)
    tensors = {
        name: rng.integers(0, 100, t.shape).astype(t.dtype) + np.dtype(t.dtype).type(0.5 if t.dtype == "float32" else 0)
        for name, t in graph.constants.items()
    }
    facts = {"name": "tiny", "labels": LABELS, "label_offset": 1, "preprocessing": "slim_inception_eval",
             "provenance": {"source": "tests", "note": "é / \n"}}  # fmt: skip
    return ModelData(graph, tensors, ModelInfo(**facts | info))


def assert_equal(got: ModelData, want: ModelData) -> None:
    assert got.graph == want.graph
    assert got.graph.to_json() == want.graph.to_json()
    assert got.info == want.info
    assert list(got.tensors) == list(want.graph.constants)
    for name, array in want.tensors.items():
        assert got.tensors[name].dtype == array.dtype
        assert got.tensors[name].shape == array.shape
        assert got.tensors[name].tobytes() == array.tobytes()


def refused(path: Path | str, *fragments: str) -> str:
    """The message of the error that `read` must raise; it names the path and holds each fragment."""
    with pytest.raises(WeightFileError) as caught:
        weightfile.read(path)
    message = str(caught.value)
    assert str(path) in message
    assert message.isprintable()
    for fragment in fragments:
        assert fragment in message
    return message


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.h5"
    weightfile.write(path, example())
    return path


# ---------------------------------------------------------------------------------------------------------------------
# Round trips and equal bytes


def test_round_trip(good: Path) -> None:
    assert_equal(weightfile.read(good), example())


@pytest.mark.parametrize("labels", [(), "flowers", LABELS])
def test_round_trip_of_labels(tmp_path: Path, labels: str | tuple[str, ...]) -> None:
    data = example(labels=labels, provenance={})
    weightfile.write(str(tmp_path / "x.h5"), data)
    assert weightfile.read(str(tmp_path / "x.h5")).info == data.info


def test_arrays_that_are_not_contiguous_are_stored_by_value(tmp_path: Path, good: Path) -> None:
    data = example()
    turned = {name: np.asfortranarray(array) for name, array in data.tensors.items()}
    weightfile.write(tmp_path / "x.h5", replace(data, tensors=dict(reversed(turned.items()))))
    assert (tmp_path / "x.h5").read_bytes() == good.read_bytes()


@settings(derandomize=True, max_examples=40, deadline=None)
@given(st.lists(st.text(st.characters(codec=None, exclude_categories=()), max_size=12), max_size=9, unique=True))
def test_any_tensor_name(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    g = GraphBuilder("names")
    last = g.input("in\0put", (1, 2))
    taken = {"in\0put"}
    for i, name in enumerate(n for n in [*names, "", ".", "..", "/", "a//b", "a", "a/b", "%", "%2E"]):
        if name in taken or f"out {i}" in names:
            continue
        taken.add(name)
        g.constant(name, (1, 2))
        last = g.node("add", [last, name], f"out {i}")
    graph = g.finish([last])
    arrays = {name: np.array([[i, -i]], np.float32) for i, name in enumerate(graph.constants)}
    data = ModelData(graph, arrays, ModelInfo("names"))
    path = tmp_path_factory.mktemp("names") / "x.h5"
    weightfile.write(path, data)
    assert_equal(weightfile.read(path), data)


def test_a_very_long_name(tmp_path: Path) -> None:
    g = GraphBuilder("long")
    g.constant("x;" * 10_000, (1, 1))
    data = ModelData(g.finish([g.node("add", [g.input("in", (1, 1)), "x;" * 10_000], "out")]),
                     {"x;" * 10_000: np.ones((1, 1), np.float32)}, ModelInfo("long"))  # fmt: skip
    weightfile.write(tmp_path / "x.h5", data)
    assert_equal(weightfile.read(tmp_path / "x.h5"), data)


def test_encoded_names() -> None:
    assert weightfile.encode_name("MobilenetV2/Conv/weights") == "MobilenetV2%2FConv%2Fweights"
    assert [weightfile.encode_name(n) for n in ("", ".", "%", "ü")] == ["%", "%2E", "%25", "%C3%BC"]


MODULES = (ROOT, ROOT / "tests", ROOT / "tests" / "formats")  # where a program of its own finds these tests
WRITE = """
import sys; sys.path[:0] = sys.argv[2:]
import h5py; h5py.get_config().track_order = True
import test_weightfile as t; t.weightfile.write(sys.argv[1], t.example())
"""


def test_equal_bytes_in_another_process_and_at_another_time(good: Path, tmp_path: Path) -> None:
    again, other = tmp_path / "again.h5", tmp_path / "a folder" / "other"
    other.parent.mkdir()
    weightfile.write(again, example())
    environment = {**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"}
    subprocess.run([sys.executable, "-c", WRITE, other, *MODULES], check=True, env=environment, timeout=60)
    assert good.read_bytes() == again.read_bytes() == other.read_bytes()
    assert weightfile.sha256(good) == hashlib.sha256(good.read_bytes()).hexdigest()


def test_bytes_stay_the_same_across_versions(tmp_path: Path) -> None:
    """Measured equal with HDF5 1.14.4, 1.14.6 and 2.0.0 (h5py 3.12.1, 3.14.0 and 3.16.0).

    If the second sum alone differs, the graph's JSON, this format or HDF5's layout has changed: files made before still
    have to be read, weights/README.md ("Equal bytes") has to say what changed, and then the sum may be renewed.
    """
    g = GraphBuilder("pinned")
    g.constant("w/x", (1, 2, 3))
    graph = g.finish([g.node("mul", [g.input("in", (1, 1, 1)), "w/x"], "out")])
    tensors = {"w/x": np.arange(6, dtype=np.float32).reshape(1, 2, 3)}
    weightfile.write(tmp_path / "x.h5", ModelData(graph, tensors, ModelInfo("pinned")))
    with h5py.File(tmp_path / "x.h5") as file:
        tensors_sha256 = file.attrs["tensors_sha256"].decode()
    assert tensors_sha256 == "81fe92ab9a2f4cf238f4b19e185d23aedf7553171dd630f61eb1b40cd4227c0e"
    assert weightfile.sha256(tmp_path / "x.h5") == "70fffbf2f9bb3cfd4996b8d460bee7d6045a0bcca993687f80ca525f8fa5c843"


def test_no_time_in_the_file(good: Path) -> None:
    """HDF5 1.8's object headers begin with "OHDR", version and flags; flag 0x20 says that four times follow."""
    content = good.read_bytes()
    headers = [found.start() for found in re.finditer(b"OHDR", content)]
    assert len(headers) == 4 + len(example().tensors)
    assert [content[at + 4] for at in headers] == [2] * len(headers)
    assert [content[at + 5] & 0x20 for at in headers] == [0] * len(headers)


def test_the_sums_are_those_that_the_format_describes(good: Path, tmp_path: Path) -> None:
    """`forge` builds the container with plain h5py calls from weights/README.md alone, and is read like ours."""
    forge(tmp_path / "forged.h5")
    assert_equal(weightfile.read(tmp_path / "forged.h5"), example())
    with h5py.File(good) as ours, h5py.File(tmp_path / "forged.h5") as forged:
        assert dict(ours.attrs) == dict(forged.attrs)


def test_readme_snippet(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "weights" / "README.md").read_text(encoding="utf-8")
    snippet = re.search(r"```python\n(.*?)```", text, re.S)
    assert snippet is not None
    good.rename(good.with_name("model.h5"))
    monkeypatch.chdir(good.parent)
    found: dict[str, Any] = {}
    exec(snippet[1], found)
    data = example()
    assert Graph.from_json(json.dumps(found["graph"])) == data.graph
    assert found["info"]["labels"] == list(LABELS)
    assert {k: v.tolist() for k, v in found["tensors"].items()} == {k: v.tolist() for k, v in data.tensors.items()}


# ---------------------------------------------------------------------------------------------------------------------
# Writing what may not be written, and where it can't be


def broken_tensors() -> dict[str, tuple[Callable[[dict[str, Any]], object], str]]:
    bias = "MobilenetV2/Conv/biases"
    single = "odd.float32; /../."
    return {
        "missing": (lambda t: t.pop(bias), "missing 'MobilenetV2/Conv/biases'"),
        "unknown": (lambda t: t.update({"b": t[bias], "c": t[bias]}), "unknown 'b', 'c'"),
        "dtype": (lambda t: t.update({bias: t[bias].astype(np.int64)}), "expected int32 (6,), found int64 (6,)"),
        "byte order": (lambda t: t.update({bias: t[bias].astype(">i4")}), "expected int32 (6,), found >i4 (6,)"),
        "shape": (lambda t: t.update({bias: t[bias][None]}), "found int32 (1, 6)"),
        "list": (lambda t: t.update({bias: [0] * 6}), "expected a NumPy array, found list"),
        "nan": (lambda t: t.update({single: np.full((1, 1, 1, 6), np.nan, np.float32)}), "nan at (0, 0, 0, 0)"),
        "inf": (lambda t: t[single].__setitem__((0, 0, 0, 4), -np.inf), "-inf at (0, 0, 0, 4)"),
    }


@pytest.mark.parametrize("case", broken_tensors())
def test_write_refuses_tensors_that_do_not_fit_the_graph(good: Path, case: str) -> None:
    spoil, fragment = broken_tensors()[case]
    data = example()
    spoil(data.tensors)  # type: ignore[arg-type]
    before = good.read_bytes()
    with pytest.raises(WeightFileError, match=re.escape(fragment)) as caught:
        weightfile.write(good, data)
    assert str(good) in str(caught.value)
    assert "Nothing was written" in str(caught.value)
    assert good.read_bytes() == before
    assert os.listdir(good.parent) == ["good.h5"]


@pytest.mark.parametrize(
    ("field", "value", "fragment"),
    [
        ("name", "", "field 'name'"),
        ("labels", ("a",), "1 labels from output 1 on"),
        ("labels", "imagenet", "1000 labels from output 1 on"),
        ("labels", (1, 2, 3, 4, 5), "field 'labels'"),
        ("label_offset", -1, "field 'label_offset'"),
        ("label_offset", True, "field 'label_offset'"),
        ("label_offset", 1.0, "field 'label_offset'"),
        ("preprocessing", None, "field 'preprocessing'"),
        ("provenance", {"a": 1}, "field 'provenance'"),
        ("provenance", {"a": b"bytes"}, "as JSON"),
        ("provenance", {"a": "x" * 9 * 2**20}, "at most 8388608 bytes"),
        ("provenance", None, "as JSON"),
    ],
)
def test_write_refuses_ill_formed_facts(tmp_path: Path, field: str, value: Any, fragment: str) -> None:
    with pytest.raises(WeightFileError, match=re.escape(fragment)):
        weightfile.write(tmp_path / "x.h5", example(**{field: value}))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("quantization", "fragment"),
    [
        (Quantization((0.5,), (0, 0)), "expected 1 scales and zero points, found 1 and 2"),
        (Quantization((0.5,), (0,), axis=3), "expected 6 scales and zero points, found 1 and 1"),
        (Quantization((0.5,), (0,), axis=4), "axis 4"),
        (Quantization((0.5,), (0,), axis=-1), "axis -1"),
        (Quantization((float("nan"),), (0,)), "nan"),
        (Quantization((float("inf"),), (0,)), "inf"),
        (Quantization((0.0,), (0,)), "above 0"),
        (Quantization((0.5,), (128,)), "zero points in int8, found 128"),
    ],
)
def test_write_refuses_unsound_quantization(tmp_path: Path, quantization: Quantization, fragment: str) -> None:
    data = example()
    tensors = {**data.graph.tensors, WEIGHTS: replace(data.graph.tensors[WEIGHTS], quantization=quantization)}
    with pytest.raises(WeightFileError, match=re.escape(fragment)):
        weightfile.write(tmp_path / "x.h5", replace(data, graph=replace(data.graph, tensors=tensors)))


def test_write_refuses_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("npmobilenet.formats.weightfile.writer.MAX_FILE_BYTES", 2**20 + 500)
    with pytest.raises(WeightFileError, match="at most 500 bytes"):
        weightfile.write(tmp_path / "x.h5", example())


def test_write_into_a_folder_that_is_missing_or_closed(tmp_path: Path) -> None:
    with pytest.raises(WeightFileError, match=r"Create the folder '.*missing' first"):
        weightfile.write(tmp_path / "missing" / "x.h5", example())
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(0o555)
    if os.access(closed, os.W_OK):  # the superuser may write there; even it can't make files in /proc
        closed = Path("/proc")
        if not closed.is_dir():
            pytest.skip("run by a user who may write into read-only folders, and there is no /proc")
    with pytest.raises(WeightFileError, match="Check that the folder may be written to"):
        weightfile.write(closed / "x.h5", example())


def test_write_over_a_folder_or_device(tmp_path: Path) -> None:
    names = ["folder", "pipe"] if make_pipe(tmp_path / "pipe") else ["folder"]
    (tmp_path / "folder").mkdir()
    for name in names:
        with pytest.raises(WeightFileError, match="Choose another name"):
            weightfile.write(tmp_path / name, example())
    with pytest.raises(WeightFileError):
        weightfile.write("nul\0byte", example())
    assert sorted(os.listdir(tmp_path)) == names


@pytest.mark.parametrize(
    ("step", "error"), [("os.replace", OSError), ("os.fsync", OSError), ("os.fsync", KeyboardInterrupt)]
)
def test_an_interrupted_write_leaves_the_old_file(
    good: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: type[BaseException]
) -> None:
    before = good.read_bytes()

    def stop(*_: object) -> None:
        raise error("stopped")

    monkeypatch.setattr(step, stop)
    with pytest.raises(WeightFileError if error is OSError else error, match="stopped"):
        weightfile.write(good, example(name="other"))
    assert good.read_bytes() == before
    assert os.listdir(good.parent) == ["good.h5"]


def test_a_written_file_has_ordinary_permissions(good: Path, tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    assert good.stat().st_mode == (tmp_path / "plain").stat().st_mode


# ---------------------------------------------------------------------------------------------------------------------
# Files that are something else


def test_what_is_not_a_file(tmp_path: Path) -> None:
    refused(tmp_path / "missing.h5", "there is no such file")
    refused(tmp_path, "a folder")
    if make_pipe(tmp_path / "pipe"):
        refused(tmp_path / "pipe", "a device, pipe or socket")
    refused("x" * 5000, "can't be read")
    with pytest.raises(WeightFileError, match=r"nul\\x00byte"):
        weightfile.read("nul\0byte")
    with pytest.raises(WeightFileError, match="can't be read"):
        weightfile.sha256(tmp_path / "missing.h5")


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        (b"", "an empty file"),
        (b"\x1c\0\0\0TFL3" + bytes(100), "a TFLite model"),
        (b"PK\x03\x04" + bytes(100), "a zip archive"),
        (b"name,\x1b[31mvalue\n", "begins with"),
        (b"\x89HDF", "begins with"),
        (b"\x89HDF\r\n\x1a\n", "HDF5 can't read it"),
        (b"\x89HDF\r\n\x1a\n" + bytes(5000), "HDF5 can't read it"),
    ],
)
def test_foreign_content(tmp_path: Path, content: bytes, fragment: str) -> None:
    (tmp_path / "x.h5").write_bytes(content)
    refused(tmp_path / "x.h5", fragment, "npmobilenet convert SRC DST.h5")


def test_keras_and_other_hdf5(tmp_path: Path) -> None:
    for member in ("model_weights", "layers", "_layer_checkpoint_dependencies", "\x1b[31mred"):
        with h5py.File(tmp_path / "x.h5", "w") as file:
            file.create_group(member)
        refused(tmp_path / "x.h5", "HDF5 with" if "red" in member else "a Keras model", "npmobilenet convert")
    for attribute in ("keras_version", "layer_names"):
        with h5py.File(tmp_path / "x.h5", "w") as file:
            file.attrs[attribute] = "3.0"
        refused(tmp_path / "x.h5", "a Keras model", "npmobilenet convert")


def test_too_large(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(good.with_name("sparse.h5"), "wb") as file:
        file.truncate(weightfile.MAX_FILE_BYTES + 1)
    refused(good.with_name("sparse.h5"), "expected at most 536870912 bytes, found 536870913")


# ---------------------------------------------------------------------------------------------------------------------
# Hostile files: a sound one, rebuilt with plain h5py calls and one thing changed


def forge(path: Path, change: Callable[[h5py.File], object] | None = None, **content: Any) -> Path:
    """The example as the README describes it; `content` replaces graph, info or tensors, with sums that fit them."""
    data = example()
    graph = content.get("graph", data.graph.to_json().encode())
    default = {"name": data.info.name, "labels": list(LABELS), "label_offset": 1,
               "preprocessing": data.info.preprocessing, "provenance": dict(data.info.provenance)}  # fmt: skip
    info = content.get("info", default)
    info = info if isinstance(info, bytes) else json.dumps(info, sort_keys=True, indent=1).encode()
    tensors = content.get("tensors", data.tensors)
    total = hashlib.sha256()
    for name, tensor in data.graph.constants.items():
        total.update((json.dumps([name, tensor.dtype, tensor.shape], separators=(",", ":")) + "\n").encode())
        total.update(tensors[name].tobytes())
    with h5py.File(path, "w") as file:
        file.attrs["format"], file.attrs["schema"] = np.bytes_(b"npmobilenet"), 1
        file.attrs["graph_sha256"] = np.bytes_(hashlib.sha256(graph).hexdigest())
        file.attrs["info_sha256"] = np.bytes_(hashlib.sha256(info).hexdigest())
        file.attrs["tensors_sha256"] = np.bytes_(total.hexdigest())
        file["graph"], file["info"] = np.bytes_(graph), np.bytes_(info)
        for name, array in tensors.items():
            file[f"tensors/{weightfile.encode_name(name)}"] = array
        if change is not None:
            change(file)
    return path


def put(name: str, **how: Any) -> Callable[[h5py.File], None]:
    """Replace a member by a dataset made with these arguments."""

    def change(file: h5py.File) -> None:
        del file[name]
        file.create_dataset(name, **how)

    return change


def link(name: str, target: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[name]
        file[name] = target

    return change


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((3, 3, 3, 6), "i1")
    layout[...] = h5py.VirtualSource("secret.h5", "x", (3, 3, 3, 6))
    del file[STORED]
    file.create_virtual_dataset(STORED, layout)


def set_attribute(name: str, value: Any, **how: Any) -> Callable[[h5py.File], None]:
    return lambda file: file.attrs.create(name, value, **how)


SHAPE = (3, 3, 3, 6)
VALUES = np.zeros(SHAPE, np.int8)
HOSTILE: dict[str, tuple[Callable[[h5py.File], object], str]] = {
    "external link, tensor": (link(STORED, h5py.ExternalLink("secret.h5", "x")), "a link of type external"),
    "external link, graph": (link("graph", h5py.ExternalLink("secret.h5", "x")), "a link of type external"),
    "soft link, tensor": (link(STORED, h5py.SoftLink("/tensors/MobilenetV2%2FConv%2Fbiases")), "a link of type soft"),
    "soft link to itself": (link(STORED, h5py.SoftLink("/" + STORED)), "a link of type soft"),
    "external storage": (put(STORED, shape=SHAPE, dtype="i1", external=[("secret.h5", 0, 162)]), "external storage"),
    "virtual dataset": (virtual, "virtual storage"),
    "16 GiB, chunked": (put(STORED, shape=(2**34,), dtype="i1", chunks=(2**20,)), "chunked storage"),
    "16 GiB, contiguous": (put(STORED, shape=(2**34,), dtype="i1"), "shape (17179869184,)"),
    "never stored": (put(STORED, shape=SHAPE, dtype="i1"), "expected 162 stored bytes, found 0"),
    "compressed": (put(STORED, data=VALUES, compression="gzip"), "chunked storage"),
    "objects": (put(STORED, shape=SHAPE, dtype=h5py.string_dtype()), "expected little-endian int8, found object"),
    "references": (put(STORED, shape=SHAPE, dtype=h5py.ref_dtype), "expected little-endian int8, found object"),
    "ragged": (put(STORED, shape=SHAPE, dtype=h5py.vlen_dtype(np.int8)), "expected little-endian int8, found object"),
    "compound": (put(STORED, shape=SHAPE, dtype=[("a", "i1")]), "expected little-endian int8, found [('a', 'i1')]"),
    "enum": (put(STORED, data=VALUES.astype(bool)), "expected little-endian int8, found bool"),
    "unsigned": (put(STORED, data=VALUES.astype("u1")), "expected little-endian int8, found uint8"),
    "float64": (put("tensors/odd%2Efloat32%3B%20%2F%2E%2E%2F%2E", data=np.ones(6)), "float32, found float64"),
    "big-endian": (
        put("tensors/MobilenetV2%2FConv%2Fbiases", data=np.ones(6, ">i4")),
        "little-endian int32, found >i4",
    ),
    "shape": (put(STORED, data=VALUES.reshape(9, 18)), "expected shape (3, 3, 3, 6), found shape (9, 18)"),
    "scalar": (put(STORED, data=np.int8(1)), "found shape ()"),
    "empty": (put(STORED, data=h5py.Empty("i1")), "found shape None"),
    "group for a tensor": (lambda f: (f.pop(STORED), f.create_group(STORED)), "expected a dataset, found GroupID"),
    "type for a tensor": (link(STORED, np.dtype("i1")), "expected a dataset, found TypeIntegerID"),
    "missing tensor": (lambda f: f.pop(STORED), "missing 'MobilenetV2%2FConv%2Fweights'"),
    "extra tensors": (lambda f: f["tensors"].update(b=1, a=2), "unknown 'a', 'b'"),
    "nested names": (lambda f: f.move(STORED, "tensors/MobilenetV2/Conv/weights"), "unknown 'MobilenetV2'"),
    "many extra": (lambda f: [f.create_group(f"tensors/g{i}") for i in range(150)], "and 50 more"),
    "extra member": (lambda f: f.create_group("more"), "unknown 'more'"),
    "no info": (lambda f: f.pop("info"), "missing 'info'"),
    "dataset for tensors": (put("tensors", data=1), "expected a group, found DatasetID"),
    "tensors is the root": (lambda f: (f.pop("tensors"), f.__setitem__("tensors", f["/"])), "unknown 'graph'"),
    "graph as text": (put("graph", data="{}"), "expected one fixed-length string, found object"),
    "graph as bytes": (put("graph", data=np.zeros(9, np.uint8)), "expected one fixed-length string, found uint8 (9,)"),
    "two graphs": (put("graph", data=np.array([b"{}", b"{}"])), "found |S2 (2,)"),
    "a huge graph": (put("graph", shape=(), dtype="S10000000"), "at most 8388608 bytes"),
    "a graph never stored": (put("graph", shape=(), dtype="S100"), "expected 100 stored bytes, found 0"),
    "other graph": (put("graph", data=np.bytes_(b"{}")), "content of 'graph': expected sha256"),
    "other info": (put("info", data=np.bytes_(b"{}")), "content of 'info': expected sha256"),
    "one weight changed": (lambda f: f[STORED].write_direct(VALUES), "content of 'tensors': expected sha256"),
    "no sum": (lambda f: f.attrs.pop("tensors_sha256"), "expected sha256 None"),
    "sum as object": (set_attribute("tensors_sha256", "x", dtype=h5py.string_dtype()), "expected sha256 None"),
    "a long sum": (set_attribute("tensors_sha256", np.bytes_(b"x" * 999)), "expected sha256 None"),
    "schema 2": (set_attribute("schema", 2), "expected 1 (the only one that is supported), found 2. If a later"),
    "schema 0": (set_attribute("schema", 0), "found 0"),
    "schema '1'": (set_attribute("schema", np.bytes_(b"1")), "found '1'"),
    "schema 1.0": (set_attribute("schema", 1.0), "found None"),
    "schemas": (set_attribute("schema", [1, 1]), "found None"),
    "no schema": (lambda f: f.attrs.pop("schema"), "found None"),
    "other format": (set_attribute("format", np.bytes_(b"other")), "expected the root attribute format='npmobilenet'"),
    "no format": (lambda f: f.attrs.pop("format"), "expected the root attribute format='npmobilenet'"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files(tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with h5py.File("secret.h5", "w") as file:  # what links and storage point to exists and would fit
        file["x"] = VALUES
    change, fragment = HOSTILE[case]
    refused(forge(tmp_path / "x.h5", change), fragment)


def test_links_are_refused_at_the_root_too(tmp_path: Path) -> None:
    for name in ("graph", "info", "tensors"):

        def change(file: h5py.File, name: str = name) -> None:
            with h5py.File(tmp_path / "there.h5", "w") as other:
                file.copy(name, other)
            del file[name]
            file[name] = h5py.ExternalLink(str(tmp_path / "there.h5"), name)

        refused(forge(tmp_path / "x.h5", change), f"{name}: expected a hard link, found a link of type external")


def test_unknown_attributes_are_ignored(tmp_path: Path) -> None:
    """Tools leave notes on objects (h5py's own scale labels, for one); they are never read."""
    path = forge(tmp_path / "x.h5", lambda f: (f.attrs.update(note="x"), f[STORED].attrs.update(note="x")))
    assert_equal(weightfile.read(path), example())


def test_nan_in_a_file(tmp_path: Path) -> None:
    tensors = dict(example().tensors)
    tensors["odd.float32; /../."][0, 0, 0, 5] = np.nan
    refused(forge(tmp_path / "x.h5", tensors=tensors), "expected finite values, found nan at (0, 0, 0, 5)")


GRAPH = json.loads(example().graph.to_json())


def changed_graph(**change: Any) -> bytes:
    return json.dumps(GRAPH | change).encode()


def changed_tensor(**change: Any) -> bytes:
    return changed_graph(tensors=[t | change if t["name"] == WEIGHTS else t for t in GRAPH["tensors"]])


@pytest.mark.parametrize(
    ("graph", "fragment"),
    [
        (b"", "graph"),
        (b"\xff\xfe", "graph"),
        (b"[" * 100_000, "graph: expected a sound graph"),
        (b"[]", "graph: expected a sound graph"),
        (b"9" * 5000, "graph: expected a sound graph"),
        (changed_graph(outputs=["nothing\x1b"]), "nothing\\x1b"),
        (changed_graph(nodes=GRAPH["nodes"][1:]), "graph: expected a sound graph"),
        (changed_tensor(dtype="object"), "dtype 'object' is not one of"),
        (changed_tensor(shape=[3, 3, 3, -6]), "graph: expected a sound graph"),
        (changed_tensor(shape=[2**40, 2**40, 3, 6]), "graph"),
        (changed_tensor(quantization={"scale": [float("nan")], "zero_point": [0], "axis": None}), "graph"),
        (changed_tensor(quantization={"scale": [0.5], "zero_point": [10**30], "axis": None}), "zero points in int8"),
    ],
)  # fmt: skip
def test_unsound_graphs(tmp_path: Path, graph: bytes, fragment: str) -> None:
    refused(forge(tmp_path / "x.h5", graph=graph), fragment)


def test_a_graph_of_too_many_dimensions(data: Path) -> None:
    refused(data / "hostile" / "rank70.h5", "'x': 70 dimensions, expected at most 8")


def test_a_graph_that_declares_more_than_the_file_has(tmp_path: Path) -> None:
    """16 GiB that graph and dataset agree on: refused by the file's size, before memory is asked for."""
    g = GraphBuilder("bomb")
    g.constant("w", (1, 2**32))
    graph = g.finish([g.node("add", [g.input("in", (1, 1)), "w"], "out")])
    change = put("tensors", shape=(1, 2**32), dtype="f4")
    refused(forge(tmp_path / "x.h5", change, graph=graph.to_json().encode(), info={}), "fields of info")
    info = {"name": "b", "labels": [], "label_offset": 0, "preprocessing": "none", "provenance": {}}

    def bomb(file: h5py.File) -> None:
        del file["tensors"]
        file.create_dataset("tensors/w", (1, 2**32), "f4")

    refused(forge(tmp_path / "x.h5", bomb, graph=graph.to_json().encode(), info=info), "17179869184 bytes")


INFO = {"name": "n", "labels": [], "label_offset": 0, "preprocessing": "p", "provenance": {}}


@pytest.mark.parametrize(
    ("info", "fragment"),
    [
        (b"", "info"),
        (b"[" * 100_000, "info: expected JSON"),
        (b"[]", "info: expected a JSON object, found list"),
        (
            INFO | {"extra": 1, "other": 2},
            "fields of info: expected the 5 declared names, found unknown 'extra', 'other'",
        ),
        ({"labels": []}, "missing 'label_offset', 'name', 'preprocessing', 'provenance'"),
        (INFO | {"name": 3}, "field 'name' of info"),
        (INFO | {"labels": 3}, "field 'labels' of info"),
        (INFO | {"labels": ["a", None]}, "field 'labels' of info"),
        (INFO | {"label_offset": 1.5}, "field 'label_offset' of info"),
        (INFO | {"preprocessing": []}, "field 'preprocessing' of info"),
        (INFO | {"provenance": {"a": []}}, "field 'provenance' of info"),
        (INFO | {"labels": ["a"] * 7}, "labels: expected as many as an output is wide, [6], found 7 labels"),
        (INFO | {"labels": "imagenet"}, "1000 labels from output 0 on"),
    ],
)
def test_ill_formed_facts(tmp_path: Path, info: Any, fragment: str) -> None:
    refused(forge(tmp_path / "x.h5", info=info), fragment)


def test_every_flipped_weight_bit_is_noticed(good: Path) -> None:
    content = bytearray(good.read_bytes())
    start = content.index(example().tensors[WEIGHTS].tobytes())
    for at in range(start, start + 162, 7):
        content[at] ^= 0x10
        good.write_bytes(content)
        refused(good, "content of 'tensors'")
        content[at] ^= 0x10
    good.write_bytes(content)
    assert_equal(weightfile.read(good), example())


# ---------------------------------------------------------------------------------------------------------------------
# Real sizes, and the import rule


def test_a_real_model(tmp_path: Path) -> None:
    graph = build_model("mobilenet_v2_0.35_96")
    rng = np.random.default_rng(3)
    tensors = {n: rng.standard_normal(t.shape).astype(t.dtype) for n, t in graph.constants.items()}
    data = ModelData(graph, tensors, ModelInfo("mobilenet_v2_0.35_96", "imagenet", 1))
    weightfile.write(tmp_path / "x.h5", data)
    assert_equal(weightfile.read(tmp_path / "x.h5"), data)
    with pytest.raises(WeightFileError, match="1000 labels from output 0 on"):
        weightfile.write(tmp_path / "x.h5", replace(data, info=replace(data.info, label_offset=0)))


def test_import_is_light() -> None:
    code = "import sys, npmobilenet.formats.weightfile; sys.exit('h5py' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=60)


@pytest.mark.parametrize("place", [1, 17])
def test_damaged_links_do_not_end_the_process(tmp_path: Path, place: int) -> None:
    """HDF5 crashes when it sorts the links of a group of more than eight, one of which is damaged."""
    builder = GraphBuilder("many")
    x = builder.input("x", (1, 4))
    arrays = {}
    for i in range(12):
        y = builder.constant(f"y{i}", (1, 4))
        arrays[y] = np.full((1, 4), i, np.float32)
        x = builder.node("add", [x, y], f"z{i}")
    path = tmp_path / "m.h5"
    weightfile.write(path, ModelData(builder.finish([x]), arrays, ModelInfo("many")))
    content = bytearray(path.read_bytes())
    for start in [i for i in range(len(content) - 4) if content[i : i + 4] == b"FHDB"]:
        for at in range(start + 24 + place, min(start + 300, len(content)), 40):
            content[at] ^= 0xFF
    path.write_bytes(content)
    code = "import sys, npmobilenet as nm\ntry: nm.load(sys.argv[1])\nexcept nm.NpMobilenetError: print('refused')"
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False,
        env={**os.environ, "MALLOC_PERTURB_": "85"},  # glibc: memory that is asked for isn't zeros by chance
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "refused\n"), done.stderr[-500:]
