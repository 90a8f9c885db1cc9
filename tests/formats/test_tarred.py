"""Tar archives: the model in them, and everything that a hostile one may try."""

from __future__ import annotations

import gzip
import io
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cases import same_bits
from models import tiny
from tflite_export import to_tflite

import npmobilenet as nm
from npmobilenet.errors import ConversionError
from npmobilenet.formats import read_model, tarred
from npmobilenet.model import Model


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny(family="v1")


def packed(path: Path, *members: tuple[str, bytes] | tarfile.TarInfo, mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member, io.BytesIO(bytes(member.size)))
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
    return path


@pytest.mark.parametrize("mode", ["w:gz", "w"])
def test_the_model_in_an_archive(model: Model, tmp_path: Path, mode: str) -> None:
    """Beside what else is published with it; `load` and `convert` take the archive as it is."""
    content, _ = to_tflite(model.data)
    folder = tarfile.TarInfo("./m")
    folder.type = tarfile.DIRTYPE
    path = packed(
        tmp_path / "m.tgz", folder, ("./m/m_frozen.pb", bytes(50)), ("./m/m.tflite", content), ("m/m.ckpt.meta", b""),
        ("m/m.ckpt.index", b"not looked at"), mode=mode,
    )  # fmt: skip
    x = np.random.default_rng(0).uniform(-1, 1, (1, *model.input.shape[1:])).astype(np.float32)
    assert same_bits(nm.load(path).run(x), model.run(x))
    data = nm.convert(path, tmp_path / "m.h5")
    assert data.info.provenance["source"].startswith("m.tgz: m.tflite")
    assert data.info.name == "m"


def link(name: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/etc/passwd"
    return info


def header_of(size: int) -> bytes:
    """A gzipped archive whose first header, of names that are long, declares this size, and brings as much."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, size
    return gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(size), 9)


HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "symlink": (lambda p: packed(p, link("m.tflite")), "a link, a device or the like"),
    "hard link": (lambda p: packed(p, link("m.tflite", tarfile.LNKTYPE)), "a link, a device or the like"),
    "device": (lambda p: packed(p, link("m.tflite", tarfile.CHRTYPE)), "a link, a device or the like"),
    "pipe": (lambda p: packed(p, link("m.tflite", tarfile.FIFOTYPE)), "a link, a device or the like"),
    "absolute": (lambda p: packed(p, ("/m.tflite", b"x")), "leads out"),
    "above": (lambda p: packed(p, ("a/../../m.tflite", b"x")), "leads out"),
    "drive": (lambda p: packed(p, ("C:m.tflite", b"x")), "leads out"),
    "backslash": (lambda p: packed(p, ("..\\m.tflite", b"x")), "leads out"),
    "deep": (lambda p: packed(p, ("a/" * 9 + "m.tflite", b"x")), "leads out"),
    "long": (lambda p: packed(p, ("a" * 250 + ".tflite", b"x")), "leads out"),
    "twice": (lambda p: packed(p, ("m.tflite", b"x"), ("m.tflite", b"y")), "two members are called"),
    "two": (lambda p: packed(p, ("m.tflite", b"x"), ("n.tflite", b"y")), "holds 2 models, m.tflite, n.tflite"),
    "none": (lambda p: packed(p, ("readme.txt", b"x")), "no model file that is read here"),
    "many": (lambda p: packed(p, *((f"{i}.txt", b"") for i in range(1100))), "more than 1000 members"),
    "bomb": (lambda p: packed(p, ("m.tflite", bytes(100 << 20))), "unpacks to more than"),
    "trailing bomb": (
        lambda p: p.write_bytes(packed(p, ("m.tflite", b"x")).read_bytes() + gzip.compress(bytes(100 << 20))),
        "unpacks to more than|no model|can't be read|TFL3|unknown",
    ),
    "large header": (lambda p: p.write_bytes(header_of(30 << 20)), "a header of"),
    "no tar": (lambda p: p.write_bytes(gzip.compress(b"TFL3" * 300)), "damaged archive"),
    "nothing": (lambda p: p.write_bytes(gzip.compress(b"")), "damaged archive|no model"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_archives(case: str, tmp_path: Path) -> None:
    """Refused in a sentence, within little memory, nothing left outside a folder that is gone."""
    make, message = HOSTILE[case]
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "m.tgz"
    make(path)
    tracemalloc.start()
    try:
        with pytest.raises(ConversionError, match=message):
            read_model(path)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
    assert [p.name for p in tmp_path.rglob("*")] == ["in", "m.tgz"]


def test_cut_anywhere(tmp_path: Path) -> None:
    whole = packed(tmp_path / "m.tgz", ("m.tflite", np.random.default_rng(0).bytes(5000))).read_bytes()
    for size in (1, 2, 12, 300, len(whole) // 2, len(whole) - 9, len(whole) - 1):
        (tmp_path / "m.tgz").write_bytes(whole[:size])
        with pytest.raises(ConversionError):
            read_model(tmp_path / "m.tgz")
    damaged = bytearray(whole)
    damaged[-6] ^= 1  # gzip's sum
    (tmp_path / "m.tgz").write_bytes(damaged)
    (tmp_path / "out").mkdir()
    with pytest.raises(ConversionError, match="damaged archive"):
        tarred.unpack(tmp_path / "m.tgz", tmp_path / "out")
