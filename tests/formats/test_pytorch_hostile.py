"""State dicts that are hostile or damaged: nothing runs, nothing hangs, each is refused with what it is."""

from __future__ import annotations

import argparse
import io
import json
import os
import pickle
import struct
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_maker as maker

from npmobilenet.errors import ConversionError
from npmobilenet.formats import read_model
from npmobilenet.formats.pytorch import opcodes, safetensors
from npmobilenet.formats.pytorch.constructors import call, resolve
from npmobilenet.formats.pytorch.opcodes import OpcodeError

MARK = "a_file_that_must_not_be"
NAME = maker.text(MARK)
ONE = b"(" + NAME + b"t"
MKDIR = f"c{os.name if os.name == 'nt' else 'posix'}\nmkdir\n".encode()
STACK_GLOBAL = maker.text("os") + maker.text("mkdir") + b"\x93"

# Each makes a folder when Python's own pickle reads it.
ATTACKS = {
    "GLOBAL, REDUCE": b"cos\nmkdir\n" + ONE + b"R",
    "GLOBAL by its other name": MKDIR + ONE + b"R",
    "STACK_GLOBAL, REDUCE": STACK_GLOBAL + ONE + b"R",
    "INST": b"(" + NAME + b"ios\nmkdir\n",
    "OBJ": b"(cos\nmkdir\n" + NAME + b"o",
    "eval": b"c__builtin__\neval\n(" + maker.text(f"__import__('os').mkdir('{MARK}')") + b"tR",
    "a name from the memo": b"cos\nmkdir\nq\x010h\x01" + ONE + b"R",
    "apply": b"cfunctools\npartial\n(cos\nmkdir\n" + NAME + b"tR)R",
    "nested in a tensor's hooks": b"ctorch._utils\n_rebuild_tensor_v2\n0cos\nmkdir\n" + ONE + b"R",
}
# What Python's pickle refuses itself, or what would only change objects of the process.
OTHERS = {
    "NEWOBJ": (b"cos\n_Environ\n" + ONE + b"\x81", r"names os\._Environ"),
    "NEWOBJ_EX": (b"cos\n_Environ\n" + ONE + b"}\x92", r"names os\._Environ"),
    "REDUCE of a value": (NAME + ONE + b"R", "isn't a name"),
    "REDUCE of a storage": (b"ctorch\nFloatStorage\n" + ONE + b"R", "lies in the pickle itself"),
    "EXT1": (b"\x82\x01", "registry"),
    "EXT2": (b"\x83\x01\x00", "registry"),
    "EXT4": (b"\x84\x01\x00\x00\x00", "registry"),
    "a quantized tensor": (b"ctorch._utils\n_rebuild_qtensor\n)R", "quantized.*state_dict"),
    "a quantized dtype": (b"ctorch\nqint8\n", "quantized.*state_dict"),
    "a whole model": (b"ctorchvision.models.mobilenetv2\nMobileNetV2\n)\x81}b", r"model\.state_dict\(\)"),
    "persistent id that is no storage": (maker.text("x") + b"Q", "isn't that of PyTorch's zip form"),
    "persistent id in text": (b"Px\n", "isn't that of PyTorch's zip form"),
    "next buffer": (b"\x97", "opcode 0x97"),
}


def write(path: Path, pickled: bytes, blocks: dict[str, bytes] | None = None) -> Path:
    path.write_bytes(maker.archive(pickled, blocks or {}))
    return path


@pytest.mark.parametrize("name", ATTACKS)
def test_code_in_a_pickle_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "m.pth", ATTACKS[name])
    with pytest.raises(
        ConversionError, match=r"its pickle names (os|posix|nt|__builtin__|functools)\..*nothing was run"
    ):
        read_model(path, "timm/mobilenetv2_100")
    assert not Path(MARK).exists()
    if not name.startswith("nested"):  # whose name of PyTorch stops Python's pickle, where it isn't installed
        pickle.loads(b"\x80\x02" + ATTACKS[name] + b".")
        assert Path(MARK).exists(), "this attack isn't one"


@pytest.mark.parametrize("name", OTHERS)
def test_what_else_is_refused(tmp_path: Path, name: str) -> None:
    pickled, reason = OTHERS[name]
    with pytest.raises(ConversionError, match=reason):
        read_model(write(tmp_path / "m.pth", pickled), "timm/mobilenetv2_100")


def test_state_is_never_set_on_anything(tmp_path: Path) -> None:
    """BUILD with the class itself as the object, which Python's pickle would change for the whole process."""
    for target in (b"cargparse\nNamespace\n", b"ccollections\nOrderedDict\n", b"ctorch\nSize\n"):
        with pytest.raises(ConversionError, match="holds no dict of tensors"):
            read_model(write(tmp_path / "m.pth", target + maker.mapping({"marked": b"K\x01"}) + b"b"))
    assert not hasattr(argparse.Namespace, "marked")


def run(data: bytes) -> Any:
    return opcodes.run(data, resolve, call, lambda key: key)


def test_opcodes_give_what_pickle_gives() -> None:
    """Plain values under every protocol; sets are lists here."""
    value = [
        None, True, False, 0, 1, -1, 255, 256, 65536, -70000, 2**40, -(2**70), 1.5, "text", "µ\n", b"bytes",
        (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [], [1], [1, [2, "x"]], {}, {"a": 1}, {"a": {"b": [1]}, "c": "a"},
    ]  # fmt: skip
    value.append(value[-1])  # read from the memo
    for protocol in range(6):
        found = value if protocol > 2 else [v for v in value if not isinstance(v, bytes)]
        if protocol == 0:
            found = [v for v in found if v != "µ\n"]
        assert run(pickle.dumps(found, protocol)) == found, protocol
    assert sorted(run(pickle.dumps({3, 1, 2}, 4))) == [1, 2, 3]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x8b\xff\xff\xff\x7f" + bytes(100), "a whole number of"),
        (b"I" + b"9" * 5000 + b"\n.", "digits"),
        (b"X\xff\xff\xff\xff.", "ends at byte"),
        (b"\x8d" + b"\xff" * 8 + b".", "ends at byte"),
        (b"r\xff\xff\xff\xff.", "memo"),
        (b"Nr\xff\xff\xff\xff.", "memo"),
        (b"}(" + b"".join(b"G" + struct.pack(">d", i) + b"N" for i in range(9)) + b"u.", "a key of a dict is a float"),
        (b"}(\x8a\x09" + b"\xff" * 8 + b"\x01Nu.", "a key of a dict is a int"),
        (b"e.", "no mark"),
        (b".", "nothing is on the stack"),
        (b"N" * (opcodes.MAX_OPCODES + 1), "more than 2,000,000 opcodes"),
        (bytes(opcodes.MAX_BYTES + 1), "at most"),
        (b"c\xff\xfe\nx\n.", "can't be read"),
    ],
)
def test_limits_of_opcodes(data: bytes, reason: str) -> None:
    with pytest.raises(OpcodeError, match=reason):
        run(data)


def test_no_value_of_a_pickle_is_printed(tmp_path: Path) -> None:
    """A list of itself twice, 60 times over, would have 2**60 characters; as a shape, a name, a size, a dict."""
    lists = b"N\x85" + b"".join(b"2\x86" for _ in range(60))
    rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n"
    storage = b"ctorch\nFloatStorage\n"
    key = maker.tup(maker.text("storage"), storage, maker.text("0"), maker.text("cpu"), b"K\x04")
    started = time.process_time()
    for pickled in (
        lists, maker.mapping({"conv_stem.weight": lists}),
        rebuild + maker.tup(key + b"Q", b"K\x00", lists, lists, b"\x89", b"}") + b"R",
        rebuild + maker.tup(key + b"Q", lists, b"(K\x04t", b"(K\x01t", b"\x89", b"}") + b"R",
        maker.tup(maker.text("storage"), storage, lists, lists, lists) + b"Q", lists + b")R", lists + lists + b"\x93",
    ):  # fmt: skip
        with pytest.raises(ConversionError):
            read_model(write(tmp_path / "m.pth", pickled, {"0": bytes(16)}))
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    ("shape", "strides", "offset", "reason"),
    [
        ((4,), (1,), 1, "don't lie in the 4"),
        ((2, 2), (2, 3), 0, "don't lie in the 4"),
        ((1000, 1000, 1000), (0, 0, 0), 0, "don't lie in the 4"),
        ((2, 2), (2,), 0, "as many strides"),
        ((-1,), (1,), 0, "at least 0"),
        ((1,) * 9, (1,) * 9, 0, "at most 8"),
        ((4,), (-1,), 3, "at least 0"),
    ],
)
def test_views_lie_in_their_block(
    tmp_path: Path, shape: tuple[int, ...], strides: tuple[int, ...], offset: int, reason: str
) -> None:
    array = np.zeros(4, np.float32)
    key = (
        maker.tup(maker.text("storage"), b"ctorch\nFloatStorage\n", maker.text("0"), maker.text("cpu"), b"K\x04") + b"Q"
    )
    parts = key, maker.number(offset), maker.numbers(shape), maker.numbers(strides), b"\x89", b"}"
    pickled = maker.mapping({"conv_stem.weight": b"ctorch._utils\n_rebuild_tensor_v2\n" + maker.tup(*parts) + b"R"})
    with pytest.raises(ConversionError, match=reason):
        read_model(write(tmp_path / "m.pth", pickled, {"0": array.tobytes()}))


def test_blocks_are_there_and_of_their_size(tmp_path: Path) -> None:
    pickled, blocks = maker.state_pickle({"conv_stem.weight": np.zeros((2, 3), np.float32)})
    for changed, reason in (({}, "isn't there"), ({"0": blocks["0"][:-1]}, "has 23 bytes, expected 24")):
        with pytest.raises(ConversionError, match=rf"block 'data/0' {reason}"):
            read_model(write(tmp_path / "m.pth", pickled, changed))
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as file:  # a bomb: 1,000 times packed
        file.writestr("m/data.pkl", b"\x80\x02" + maker.text("x" * 50_000_000) + b".")
    (tmp_path / "bomb.pth").write_bytes(target.getvalue())
    with pytest.raises(ConversionError, match=r"declares .* bytes packed"):
        read_model(tmp_path / "bomb.pth")


def head(tensors: Any, body: bytes = b"", length: int | None = None) -> bytes:
    text = tensors if isinstance(tensors, bytes) else json.dumps(tensors).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "cut short"),
        (head({"a": entry()}, bytes(8), 2**62), "cut short"),
        (head(b'{"a": ', bytes(8)), "isn't that of safetensors"),
        (head(b"[1]", bytes(8)), "isn't that of safetensors"),
        (head(b"[" * 100_000, bytes(8)), "isn't that of safetensors"),
        (head(b'{"a": %s}' % (b"9" * 5000)), "isn't that of safetensors"),
        (head(b'{"a": 1, "a": 2}', bytes(8)), "twice"),
        (head({"a": entry()}, bytes(4)), "end at byte 8 of 4"),
        (head({"a": entry(), "b": entry()}, bytes(16)), "begins at byte 0 of the data, expected 8"),
        (head({"a": entry(offsets=(4, 12))}, bytes(12)), "begins at byte 4"),
        (head({"a": entry(shape=(3,))}, bytes(8)), "take 12 bytes, it has 8"),
        (head({"a": entry(shape=(2**40, 2**40))}, bytes(8)), "it has 8"),
        (head({"a": entry(shape=(-1, -2))}, bytes(8)), "at least 0"),
        (head({"a": entry(shape=[True, 2])}, bytes(8)), "at least 0"),
        (head({"a": entry(shape="ab")}, bytes(8)), "at least 0"),
        (head({"a": entry(offsets=(8, 0))}, bytes(8)), "it has -8"),
        (head({"a": entry(offsets=(0, 8, 9))}, bytes(8)), "expected dtype, shape and data_offsets"),
        (head({"a": entry("F8_E4M3", (8,))}, bytes(8)), "dtype 'F8_E4M3', expected one of"),
        (head({"a": entry(["F32"])}, bytes(8)), "dtype"),
        (head({"a": entry(shape=(1,) * 9, offsets=(0, 4))}, bytes(4)), "at most 8"),
        (head({"a": 5}, bytes(8)), "expected dtype, shape and data_offsets"),
        (head({"a": entry()}, bytes(8)), "none of its 1 variables"),
    ],
)
def test_damaged_safetensors(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    with pytest.raises(ConversionError, match=reason):
        read_model(path)


def test_a_header_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safetensors, "MAX_HEADER", 100)
    path = tmp_path / "m.safetensors"
    path.write_bytes(head({f"tensor{i}": entry() for i in range(9)}, bytes(8)))
    with pytest.raises(ConversionError, match="at most 100 are read"):
        read_model(path)
