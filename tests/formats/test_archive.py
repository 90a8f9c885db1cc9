"""Archives that lie: every reader of them refuses before it unpacks, and never with an error of zipfile's."""

from __future__ import annotations

import io
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

import npmobilenet as nm
from npmobilenet.errors import InputError
from npmobilenet.formats import archive
from npmobilenet.formats.tflite import metadata
from npmobilenet.golden.dump import Dump
from npmobilenet.measure.datasets import npz


def packed(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def damaged(path: Path) -> Path:
    """Bytes of the first member's data changed, headers and directory left alone."""
    content = bytearray(path.read_bytes())
    start = 30 + int.from_bytes(content[26:28], "little") + int.from_bytes(content[28:30], "little")
    for i in range(start, start + 12):
        content[i] ^= 0xFF
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("text", ["{'descr': '<f4', 'shape': (2L,", "{'descr': '''", "{'descr': [\n\\"])
def test_headers_that_python_cannot_tokenize(tmp_path: Path, text: str) -> None:
    """NumPy's parser of headers lets tokenize.TokenError out, which is nobody's child."""
    header = text.encode() + b"\n"
    raw = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    path = packed(tmp_path / "a.npz", {"x.npy": raw, "header.npy": raw})
    with pytest.raises(InputError):
        Dump(path).read("x")
    for what in ("DATA", "state"):
        with pytest.raises(InputError):
            npz.read_arrays(path, {"x": ("f", 1)}, what)
    (tmp_path / "x.npy").write_bytes(raw)
    with pytest.raises(InputError):
        Dump(tmp_path).read("x")


@pytest.mark.parametrize("harm", [False, True])
@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_kinds_of_compression(tmp_path: Path, method: int, harm: bool) -> None:
    """A .keras file, a dump, a data set and a model's labels, compressed in each way, sound and damaged."""
    keras = packed(tmp_path / "a.keras", {"config.json": b"{}" * 50, "model.weights.h5": b"x"}, method)
    dump = packed(tmp_path / "a.npz", {"x.npy": npy(np.zeros(64, np.uint8))}, method)
    labels = packed(tmp_path / "labels.zip", {"labels.txt": b"one\ntwo\n" * 2}, method)
    if harm:
        for path in (keras, dump, labels):
            damaged(path)
    readable = method == zipfile.ZIP_DEFLATED
    with pytest.raises(nm.ConversionError) as refused:
        nm.load(keras)
    assert readable or "expected stored (0) or deflated (8)" in str(refused.value)
    if readable and not harm:
        assert Dump(dump).read("x").shape == (64,)
        assert npz.read_arrays(dump, {"x": ("u", 1)}, "DATA")["x"].shape == (64,)
    else:
        with pytest.raises(InputError):
            Dump(dump).read("x")
        with pytest.raises(InputError):
            npz.read_arrays(dump, {"x": ("u", 1)}, "DATA")
    found = metadata.labels(b"model" + labels.read_bytes(), 4)
    assert found == (("one", "two") * 2 if readable and not harm else ())


def directory_of(count: int) -> bytes:
    """An archive that declares `count` empty members, all of them at the same place."""
    local = b"PK\x03\x04" + bytes(26)
    entry = b"PK\x01\x02" + bytes(42)
    directory = entry * count
    sizes = len(directory).to_bytes(4, "little") + len(local).to_bytes(4, "little")
    counts = min(count, 65535).to_bytes(2, "little") * 2
    return local + directory + b"PK\x05\x06" + bytes(4) + counts + sizes + bytes(2)


@pytest.mark.parametrize("count", [archive.MAX_MEMBERS + 1, 1_000_000])
def test_directories_are_counted_before_they_are_parsed(tmp_path: Path, count: int) -> None:
    path = tmp_path / "many.npz"
    path.write_bytes(directory_of(count))
    started = time.process_time()
    for read in (Dump, lambda p: npz.read_arrays(p, {"x": ("u", 1)}, "DATA")):
        with pytest.raises(InputError, match="at most"):
            read(path)
    path = path.rename(tmp_path / "many.keras")
    with pytest.raises(nm.ConversionError, match="at most"):
        nm.load(path)
    assert metadata.labels(path.read_bytes()[-metadata.MAX_ZIP_BYTES :], 2) == ()
    assert time.process_time() - started < 3, "zipfile needs 20 us for each member"


def test_directory_of_zip64(tmp_path: Path) -> None:
    """The end record of Zip64 counts, as for zipfile, where there is one."""
    content = directory_of(30_000)
    end = len(content) - 22
    size = int.from_bytes(content[end + 12 : end + 16], "little")
    record = b"PK\x06\x06" + (44).to_bytes(8, "little") + bytes(12) + (30_000).to_bytes(8, "little") * 2
    record += size.to_bytes(8, "little") + (30).to_bytes(8, "little")
    locator = b"PK\x06\x07" + bytes(4) + end.to_bytes(8, "little") + (1).to_bytes(4, "little")
    hidden = content[:end] + record + locator + content[end : end + 12] + bytes(4) + content[end + 16 :]
    with pytest.raises(archive.ArchiveError, match="30,000 members"), archive.opened(io.BytesIO(hidden)):
        pass


def test_bombs_and_secrets(tmp_path: Path) -> None:
    bomb = packed(tmp_path / "a.npz", {"x.npy": npy(np.zeros(2**27, np.uint8))}, zipfile.ZIP_DEFLATED)
    for read in (lambda p: Dump(p).read("x"), lambda p: npz.read_arrays(p, {"x": ("u", 1)}, "DATA")):
        with pytest.raises(InputError, match="refused"):
            read(bomb)
    content = bytearray(packed(tmp_path / "b.npz", {"x.npy": npy(np.zeros(4))}).read_bytes())
    for mark, place in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        content[content.index(mark) + place] |= 1
    (tmp_path / "b.npz").write_bytes(content)
    with pytest.raises(InputError, match="encrypted"):
        Dump(tmp_path / "b.npz").read("x")


@pytest.mark.parametrize("dtype", ["<U0", "|S0", "|V0"])
def test_items_of_no_bytes(tmp_path: Path, dtype: str) -> None:
    """A dtype of item size 0 declares any number of items in a file of a hundred bytes."""
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': ({10**11},), }}"
    content = b"\x93NUMPY\x01\x00" + (len(header) + 1).to_bytes(2, "little") + header.encode() + b"\n"
    path = packed(tmp_path / "a.npz", {"x.npy": content})
    with pytest.raises(InputError, match="at least one byte"):
        npz.read_arrays(path, {"x": ("USV", 1)}, "DATA")
    with pytest.raises(InputError):
        Dump(path).read("x")
    single = tmp_path / "x.npy"
    single.write_bytes(content)
    with pytest.raises(InputError):
        Dump(tmp_path).read("x")


@pytest.mark.parametrize("name", ["lzma.keras", "lzma_labels.tflite", "lzma_dump.npz", "npz_u0_hang.npz"])
def test_samples(data: Path, name: str) -> None:
    path = data / "hostile" / name
    started = time.process_time()
    if name.endswith(".tflite"):
        assert nm.load(path).data.info.labels == ()
    elif name.endswith(".keras"):
        with pytest.raises(nm.ConversionError, match="expected stored"):
            nm.load(path)
    elif name.startswith("lzma"):
        with pytest.raises(InputError, match="expected stored"):
            Dump(path)
    else:
        with pytest.raises(InputError, match="at least one byte"):
            npz.read_arrays(path, {"classes": ("U", 1)}, "DATA")
    assert time.process_time() - started < 10
