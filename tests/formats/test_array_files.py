"""Arrays as people write them down: raw bytes, CSV, JSON, TFLite Micro's layer-by-layer debugger; and damaged ones."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from npmobilenet.errors import InputError
from npmobilenet.formats.array_files import (
    one_array,
    read_array,
    read_arrays,
    read_shapes,
)
from npmobilenet.golden import Dump

A = np.arange(-6, 6, dtype=np.int8).reshape(1, 2, 2, 3)


def test_raw_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(A.tobytes())
    (tmp_path / "b.raw").write_bytes(np.array([1, -2], "<i4").tobytes())
    (tmp_path / "shapes.csv").write_text("name,dtype,shape\na,int8,1x2x2x3\nb.raw,int32,2\n")
    shapes = read_shapes(tmp_path / "shapes.csv")
    assert shapes == {"a": ("int8", (1, 2, 2, 3)), "b.raw": ("int32", (2,))}
    dump = Dump(tmp_path)
    assert np.array_equal(dump.read("a"), A)
    assert dump.read("b").tolist() == [1, -2]
    flat = read_array(tmp_path / "a.bin")
    assert (flat.dtype, flat.shape) == (np.uint8, (12,))
    (tmp_path / "shapes.csv").unlink()
    (tmp_path / "shapes.json").write_text(json.dumps({"a": [1, 2, 2, 4], "b": {"shape": [2], "dtype": "int32"}}))
    with pytest.raises(InputError, match="its shape says"):
        Dump(tmp_path).read("a")
    assert Dump(tmp_path).read("b").tolist() == [1, -2]


ODD = [  # values of a key that is a shape or a dtype in files that are made with care
    '{"a": {"dtype": "object", "shape": [1]}}', '{"a": {"shape": [-1], "data": [1]}}', "[1]", "{", "3",
    '{"a": [1e999]}',
    '{"a": {"shape": [1.5], "data": [1]}}', '{"a": {"shape": [Infinity], "data": [1]}}', '{"a": {"shape": [NaN]}}',
    *(f'{{"a": {{"shape": [1], "dtype": {dtype}, "data": [1]}}}}' for dtype in ("0", "[]", "{}", "false", '"None"')),
]  # fmt: skip


@pytest.mark.parametrize("text", [*ODD, '{"a": 3}', '{"a": [-1]}'])
def test_bad_shapes(tmp_path: Path, text: str) -> None:
    (tmp_path / "shapes.json").write_text(text)
    with pytest.raises(InputError, match="list of shapes"):
        read_shapes(tmp_path / "shapes.json")


@pytest.mark.parametrize("text", [text for text in ODD if "1e999" not in text])
def test_bad_json(tmp_path: Path, text: str) -> None:
    (tmp_path / "d.json").write_text(text)
    with pytest.raises(InputError, match="can't be read"):
        Dump(tmp_path / "d.json")
    for odd in (text, text.replace('{"a": ', "", 1).removesuffix("}")):
        (tmp_path / "one.json").write_text(odd)
        if odd not in ("[1]", "3"):
            with pytest.raises(InputError, match="can't be read"):
                one_array(tmp_path / "one.json")


def test_a_dtype_may_be_left_open(tmp_path: Path) -> None:
    (tmp_path / "shapes.json").write_text('{"a": {"shape": [2], "dtype": null}, "b": {"shape": [2], "dtype": ""}}')
    assert read_shapes(tmp_path / "shapes.json") == {"a": ("", (2,)), "b": ("", (2,))}


def test_text(tmp_path: Path) -> None:
    np.savetxt(tmp_path / "a.csv", A.reshape(-1, 3), "%d", ",")
    assert read_array(tmp_path / "a.csv").tolist() == list(range(-6, 6))
    (tmp_path / "b.csv").write_text("value;other\n0.5; 1e-3\n")
    assert read_array(tmp_path / "b.csv").tolist() == [0.5, 1e-3]
    (tmp_path / "c.csv").write_text("1,2\nx,3\n")
    with pytest.raises(InputError, match="numbers"):
        read_array(tmp_path / "c.csv")


def test_json(tmp_path: Path) -> None:
    named = {"a": A.tolist(), "b": {"shape": [2, 1], "dtype": "float32", "data": [0.1, 2]}, "comment": "none"}
    (tmp_path / "d.json").write_text(json.dumps(named))
    dump = Dump(tmp_path / "d.json")
    assert np.array_equal(dump.read("a"), A)
    assert dump.read("b").dtype == np.float32
    assert sorted(dump.files) == ["a", "b"]
    for bad in ("[1]", '{"a": [[1], [2, 3]]}', '{"a": {"shape": [3], "data": [1]}}', '{"a": ["x"]}', "{"):
        (tmp_path / "d.json").write_text(bad)
        with pytest.raises(InputError):
            Dump(tmp_path / "d.json")


def layer_by_layer(tensors: list[tuple[int, Any]]) -> bytes:
    """A flatbuffer as TFLite Micro's tool writes it: the first tensor is the input (layer_by_layer_schema.fbs)."""
    flatbuffers = pytest.importorskip("flatbuffers")
    b = flatbuffers.Builder(0)
    codes = {"float32": 0, "int32": 2, "uint8": 3, "int8": 9}

    written: dict[int, int] = {}  # an array that is given twice is there once

    def table(index: int, array: Any) -> int:
        if id(array) not in written:
            written[id(array)] = b.CreateByteVector(array.tobytes())
        data = written[id(array)]
        b.StartVector(4, array.ndim, 4)
        for size in reversed(array.shape):
            b.PrependInt32(size)
        shape = b.EndVector()
        b.StartObject(7)
        b.PrependUint32Slot(1, index, 0)
        b.PrependUOffsetTRelativeSlot(2, shape, 0)
        b.PrependInt8Slot(3, codes[str(array.dtype)], 0)
        b.PrependUOffsetTRelativeSlot(4, data, 0)
        b.PrependUint32Slot(5, array.nbytes, 0)
        return int(b.EndObject())

    def tables(some: list[int]) -> int:
        b.StartVector(4, len(some), 4)
        for one in reversed(some):
            b.PrependUOffsetTRelative(one)
        return int(b.EndVector())

    made = [table(*pair) for pair in tensors]
    outputs = tables(made[1:])
    b.StartObject(2)
    b.PrependUOffsetTRelativeSlot(0, outputs, 0)
    subgraphs = tables([b.EndObject()])
    inputs = tables(made[:1])
    b.StartObject(2)
    b.PrependUOffsetTRelativeSlot(0, inputs, 0)
    b.PrependUOffsetTRelativeSlot(1, subgraphs, 0)
    b.Finish(b.EndObject())
    return bytes(b.Output())


def test_the_layer_by_layer_debuggers_file(tmp_path: Path) -> None:
    other = np.array([[1.5, -2.0]], np.float32)
    path = tmp_path / "debug.bin"
    path.write_bytes(layer_by_layer([(0, A), (7, other), (12, A + 1)]))
    arrays = read_arrays(path)
    assert sorted(arrays) == ["0", "12", "7"]
    assert np.array_equal(arrays["0"], A)
    assert arrays["7"].tolist() == other.tolist()
    assert Dump(path).read("12").dtype == np.int8
    whole = path.read_bytes()
    random = np.random.RandomState(0)
    for i in range(300):
        damaged = bytearray(whole[: random.randint(len(whole))] if i % 3 == 0 else whole)
        for _ in range(3):
            if damaged:
                damaged[random.randint(len(damaged))] = random.randint(256)
        path.write_bytes(bytes(damaged))
        with contextlib.suppress(InputError):
            read_arrays(path)


def test_tensors_that_share_their_bytes(tmp_path: Path) -> None:
    """Each has a copy, so ten thousand tensors of a megabyte would take 10 GB."""
    array = np.zeros((1, 1000), np.int8)
    (tmp_path / "debug.bin").write_bytes(layer_by_layer([(i, array) for i in range(100)]))
    with pytest.raises(InputError, match="share their bytes"):
        read_arrays(tmp_path / "debug.bin")


def test_a_line_of_values_that_are_no_numbers_is_no_heading(tmp_path: Path) -> None:
    """Nor is a comma at the end a value, as loops in C print it."""
    path = tmp_path / "a.csv"
    for text, expected in (
        ("nan,inf,-Infinity,1\n2,3,", [np.nan, np.inf, -np.inf, 1, 2, 3]),
        ("1.5, 2,\n3,\n", [1.5, 2, 3]),
        ("value\nnan\n2", [np.nan, 2]),
    ):
        path.write_text(text)
        assert np.array_equal(read_array(path), expected, equal_nan=True), text
