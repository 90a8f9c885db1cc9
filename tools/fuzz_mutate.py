"""Damage for tools/fuzz.py: a sound file in, one that is broken somewhere out, by a random generator alone.

What has a structure is changed in it (objects of a flatbuffer, groups of HDF5, members of archives, values of JSON,
headers of .npy files), so that readers get past their first check; the rest, and sometimes these too, by bytes.
"""

from __future__ import annotations

import contextlib
import copy
import gzip
import hashlib
import io
import json
import random
import re
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

NUMBERS = (0, 1, -1, 2, 3, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**24, 10**9, 2**31 - 1, -(2**31), 2**32 - 1,
           2**63 - 1, -(2**63))  # fmt: skip
REALS = (0.0, -0.0, 1.0, -1.0, 1e-45, 1e-38, 1e-30, 1e-7, 0.5, 255.0, 1e7, 1e20, 3e38, float("inf"), float("nan"))
TEXTS = ("", "x", "../../etc/passwd", "/etc/hostname", "a\nb", "\x1b[31mred", "\u202e", "\ud800", "x" * 70_000, "0")
VALUES: tuple[Any, ...] = (*NUMBERS, *REALS, *TEXTS, None, True, [], {}, [1], {"a": 1}, [[]] * 9, 10**400)


def flips(rng: random.Random, content: bytes) -> bytes:
    """Some bits flipped, a number written over, a piece cut off, left out, doubled or zeroed."""
    data = bytearray(content or b"\0")
    at = rng.randrange(len(data))
    # Headers stand at a file's beginning or end.
    at = rng.choice([at, at % 512 % len(data), len(data) - 1 - at % 512 % len(data)])
    size = min(rng.choice([1, 2, 4, 8, 64, 1000]), len(data) - at)
    kind = rng.randrange(7)
    if kind == 0:
        data[at] ^= 1 << rng.randrange(8)
    elif kind == 1:
        for _ in range(rng.randrange(1, 20)):
            data[rng.randrange(len(data))] = rng.randrange(256)
    elif kind == 2:
        code = rng.choice("BHIQ")
        number = struct.pack(rng.choice("<>") + code, rng.choice(NUMBERS) % 256 ** struct.calcsize(code))
        data[at : at + len(number)] = number
    elif kind == 3:
        del data[at:]
    elif kind == 4:
        del data[at : at + size]
    elif kind == 5:
        data[at:at] = data[at : at + size]
    else:
        data[at : at + size] = bytes(size)
    return bytes(data)


# -- .tflite -----------------------------------------------------------------------------------------------------------


def tflite(rng: random.Random, content: bytes) -> bytes:
    """One to three objects of the model changed: any field of any table, by its kind."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    end = content.rfind(b"PK\x03\x04")
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        tables: dict[str, list[Any]] = {}
        _collect(model, tables)
        table = rng.choice(tables[rng.choice(sorted(tables))])
        field = rng.choice(sorted(vars(table)))
        setattr(table, field, _changed(rng, getattr(table, field)))
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    tail = content[end:] if end > 0 and rng.random() < 0.8 else b""
    return bytes(builder.Output()) + tail


def _collect(table: Any, found: dict[str, list[Any]]) -> None:
    found.setdefault(type(table).__name__, []).append(table)
    for value in vars(table).values():
        for item in value if isinstance(value, list) else [value]:
            if hasattr(item, "Pack"):
                _collect(item, found)


def _changed(rng: random.Random, value: Any) -> Any:
    """Another value of a flatbuffer's field."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, np.integer)):
        return rng.choice([int(value) + 1, int(value) - 1, int(value) * 2, rng.randrange(10), rng.choice(NUMBERS)])
    if isinstance(value, float):
        return rng.choice([value * 2.0 ** rng.randrange(-40, 41), -value, rng.choice(REALS)])
    if isinstance(value, (bytes, str)):
        return rng.choice(["", b"\xff\xfe", "a\nb\x1b[2J", "x" * 100_000])
    if isinstance(value, np.ndarray):
        if value.dtype == np.uint8 and value.size:  # a buffer
            return np.frombuffer(flips(rng, value.tobytes()), np.uint8)
        items = value.tolist()
        if value.dtype.kind == "f" and rng.random() < 0.3:
            return value * value.dtype.type(2.0 ** rng.randrange(-60, 61))
        items = _shuffled(rng, items)
        low, high = (np.iinfo(value.dtype).min, np.iinfo(value.dtype).max) if value.dtype.kind in "iu" else (0, 0)
        return np.array([min(max(i, low), high) if high else i for i in items], value.dtype)
    if isinstance(value, list):
        return _shuffled(rng, value)
    return None if rng.random() < 0.5 else value


def _shuffled(rng: random.Random, items: list[Any]) -> list[Any]:
    """A list with one item changed, dropped, doubled, exchanged or added."""
    items = list(items)
    kind = rng.randrange(6)
    if not items or kind == 0:
        return [*items, rng.choice(NUMBERS)] if not items or isinstance(items[0], int) else []
    i, j = rng.randrange(len(items)), rng.randrange(len(items))
    if kind == 1:
        del items[i]
    elif kind == 2:
        items.insert(j, copy.deepcopy(items[i]))
    elif kind == 3:
        items[i], items[j] = items[j], items[i]
    elif isinstance(items[i], (int, float)):
        items[i] = _changed(rng, items[i])
    else:
        items[i] = copy.deepcopy(items[j])
    return items


# -- JSON, .npy, archives ----------------------------------------------------------------------------------------------


def json_text(rng: random.Random, content: bytes) -> bytes:
    """One value anywhere in a JSON text changed, dropped or doubled; or the text's bytes."""
    try:
        root = json.loads(content)
    except ValueError:
        return flips(rng, content)
    if rng.random() < 0.1:
        return rng.choice([flips(rng, content), b"[" * 100_000, b'{"a":' * 5000, content + content, b"\xff\xfe", b""])
    places: list[tuple[Any, Any]] = []
    open_ = [root]
    while open_:
        holder = open_.pop()
        for key in holder if isinstance(holder, dict) else range(len(holder)):
            places.append((holder, key))
            if isinstance(holder[key], (dict, list)):
                open_.append(holder[key])
    if not places:
        return flips(rng, content)
    holder, key = rng.choice(places)
    kind = rng.randrange(5)
    if kind == 0:
        del holder[key]
    elif kind == 1:
        other, at = rng.choice(places)
        holder[key] = copy.deepcopy(other[at])
    elif isinstance(holder[key], int) and kind == 2:
        holder[key] += rng.choice([1, -1])
    else:
        holder[key] = copy.deepcopy(rng.choice(VALUES))
    return json.dumps(root).encode()


def npy(rng: random.Random, content: bytes) -> bytes:
    """The header of a .npy file rewritten (its length put right), or bytes changed."""
    found = re.match(rb"(?s)\x93NUMPY\x01\x00(..)(\{.*?\}) *\n", content)
    if not found or rng.random() < 0.3:
        return flips(rng, content)
    descr = rng.choice(["|O", "<U0", "<U70000", "|V0", "|V8", "<f8", ">f4", "|b1", "<c8", "<M8[ns]", "<f16", "|S0", "x",
                        [("a", "<f4")], [("a", "|V0", (9, 9))]])  # fmt: skip
    shape: Any = rng.choice([(), (0,), (1,) * 40, (2**31, 2**33), (-1,), (True,), (10**30,), (0, 2**62), [3], (2**40,)])
    old = found[2].decode("latin-1")
    if rng.random() < 0.5:
        new = re.sub(r"'descr': [^,]+", lambda _: f"'descr': {descr!r}", old)
    else:
        new = re.sub(r"'shape': \([^)]*\)", lambda _: f"'shape': {shape!r}", old)
    new = rng.choice([new, new, new, "(" * 2000, old[:-3], "{}", "[]", new.replace("False", "True")])
    text = (new + "\n").encode("latin-1")
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + content[found.end() :]


def safetensors(rng: random.Random, content: bytes) -> bytes:
    """A value of the header changed, its length put right; or bytes."""
    length = int.from_bytes(content[:8], "little")
    if rng.random() < 0.2:
        return flips(rng, content)
    header = json_text(rng, content[8 : 8 + length])
    return struct.pack("<Q", len(header)) + header + content[8 + length :]


OPCODES = (
    b"cos\nmkdir\n(X\x01\0\0\0xtR", b"2", b"0", b"(", b"t", b"e", b"u", b"}", b"]", b"N", b"R", b"b", b"\x81", b"o",
    b"Q", b"2\x86" * 60, b"J\xff\xff\xff\x7f", b"\x8b\xff\xff\xff\x7f", b"h\x00", b"q\x00", b"\x82\x01", b".", b"\x93",
    b"ix\ny\n",
)  # fmt: skip


def opcodes(rng: random.Random, content: bytes) -> bytes:
    """Opcodes put in, or a piece of a pickle left out, doubled or moved; or bytes."""
    if rng.random() < 0.3:
        return flips(rng, content)
    at, length = rng.randrange(len(content)), rng.randrange(1, 60)
    piece = rng.choice([rng.choice(OPCODES), content[at : at + length], b""])
    to = rng.randrange(len(content))
    return content[:to] + piece + content[to + rng.choice([0, length]) :]


def archive(rng: random.Random, content: bytes) -> bytes:
    """A member changed by its kind, dropped, doubled, renamed or packed otherwise; or bytes of the archive."""
    if rng.random() < 0.3:
        return flips(rng, content)
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        members = [(i.filename, file.read(i)) for i in file.infolist()]
    i, kind = rng.randrange(len(members)), rng.randrange(10)
    name, data = members[i]
    if kind < 6:
        members[i] = (name, by_name(rng, name, data))
    elif kind == 6:
        del members[i]
    elif kind == 7:
        members.append((name, data))
    elif kind == 8:
        members[i] = (rng.choice(["../" + name, name + "\n", "", "\x1b[2J.npy", "/etc/" + name, "x.npy"]), data)
    method = rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA,
                         zipfile.ZIP_BZIP2])  # fmt: skip
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, data in members:
            file.writestr(zipfile.ZipInfo(name), data, method)
    done = buffer.getvalue()
    return flips(rng, done) if rng.random() < 0.2 else done


# -- HDF5 --------------------------------------------------------------------------------------------------------------


def hdf5(rng: random.Random, content: bytes) -> bytes:
    """An attribute, dataset or link changed through h5py, sums put right again; or bytes."""
    import h5py

    if rng.random() < 0.4:
        return flips(rng, content)
    buffer = io.BytesIO(content)
    with h5py.File(buffer, "r+") as file:
        names: list[str] = []
        file.visit(names.append)
        holders = [file, *(file[n] for n in names)]
        marked = [h for h in holders if len(h.attrs)]
        if marked and rng.random() < 0.4:
            holder = rng.choice(marked)
            _attribute(rng, holder.attrs, rng.choice(sorted(holder.attrs)))
        elif names:
            _member(rng, file, rng.choice(names))
        for name in ("graph", "info"):  # this project's own sums
            if f"{name}_sha256" in file.attrs and rng.random() < 0.95 and isinstance(file.get(name), h5py.Dataset):
                text = file[name][()]
                digest = hashlib.sha256(text if isinstance(text, bytes) else repr(text).encode()).hexdigest()
                file.attrs[f"{name}_sha256"] = np.bytes_(digest)
    return buffer.getvalue()


def _attribute(rng: random.Random, attrs: Any, name: str) -> None:
    value = attrs[name]
    text = value if isinstance(value, bytes) else value.encode() if isinstance(value, str) else None
    if text is not None and text[:1] in b"{[" and rng.random() < 0.8:
        attrs[name] = json_text(rng, text).decode("utf-8", "replace")
    elif isinstance(value, np.ndarray) and value.size and rng.random() < 0.7:
        items = _shuffled(rng, value.tolist())
        attrs[name] = items if items else np.zeros(0)
    elif rng.random() < 0.3:
        del attrs[name]
    else:
        attrs[name] = rng.choice(
            [1, -1.5, "x", "a\nb\x1b[2J", np.zeros((2, 0)), np.full(3, np.nan), "y" * 60_000, True]
        )


def _member(rng: random.Random, file: Any, name: str) -> None:
    import h5py

    kind, old = rng.randrange(10), file[name]
    array = old[()] if isinstance(old, h5py.Dataset) else None
    if isinstance(array, bytes) and kind < 8:
        del file[name]
        file[name] = np.bytes_(json_text(rng, array))
    elif isinstance(array, np.ndarray) and kind < 6 and array.size:
        changed = (array.reshape(-1), array[..., :-1], array.astype("f8"), array.astype(">f4"), array * np.nan,
                   np.zeros((1,) * 30, array.dtype))[kind]  # fmt: skip
        del file[name]
        file[name] = changed
    elif array is not None and kind == 6:
        del file[name]
        file.create_dataset(name, (2**33, 7), "f4", chunks=(64, 7), compression=rng.choice([None, "gzip"]))
    elif kind == 7:
        del file[name]
        file[name] = rng.choice(
            [h5py.SoftLink("/"), h5py.SoftLink("/" + name), h5py.ExternalLink("/etc/hostname", "/")]
        )
    elif kind == 8:
        file[name + rng.choice(["\n", "x", "/deeper", "\x1b[2J"]) if array is None else name + "_2"] = file[name]
    else:
        del file[name]


# -- what a file is ----------------------------------------------------------------------------------------------------


def unzipped(rng: random.Random, content: bytes) -> bytes:
    """Bytes of what a gzip file holds; else its sum alone would tell."""
    return gzip.compress(flips(rng, gzip.decompress(content)))


def by_name(rng: random.Random, name: str, content: bytes) -> bytes:
    """Damage of the kind that suits a file's name."""
    table = {".tflite": tflite, ".h5": hdf5, ".keras": archive, ".npz": archive, ".npy": npy, ".json": json_text,
             ".pth": archive, ".pkl": opcodes, ".safetensors": safetensors, ".zip": archive,
             ".tgz": unzipped}  # fmt: skip
    change = table.get(Path(name).suffix, flips)
    if rng.random() < 0.1:
        change = flips
    for _ in range(20):
        # What can't be written as asked (a number too large for its field, a name taken) is asked otherwise.
        with contextlib.suppress(Exception):
            return change(rng, content)
    return flips(rng, content)


def text_lines(rng: random.Random, content: bytes) -> bytes:
    """A line of a text changed, doubled, left out, or bytes."""
    lines = content.split(b"\n")
    i = rng.randrange(len(lines))
    lines[i : i + 1] = rng.choice([
        [], [lines[i]] * 2, [b"\x1b[2J" + lines[i]], [b"\xff" + lines[i]], [b"x" * 100_000], [lines[i].split()[0]]
        if lines[i] else [b" "], [b"../" + lines[i]], [lines[i] + b" more"], [b"\0"], [b"\r"],
    ])  # fmt: skip
    return b"\n".join(lines) if rng.random() < 0.8 else flips(rng, content)
