"""`.pth` and `.pt` in PyTorch's zip form: a pickle (`data.pkl`) that names the blocks beside it (`data/0`, `data/1`).

Source: pytorch/pytorch torch/serialization.py (_save, _load: persistent ids), caffe2/serialize/inline_container.cc.
"""

from __future__ import annotations

import zipfile
from functools import lru_cache, partial
from typing import Any

import numpy as np

from npmobilenet.errors import ConversionError
from npmobilenet.formats import archive
from npmobilenet.formats.pytorch import opcodes
from npmobilenet.formats.pytorch.constructors import Name, Storage, call, resolve
from npmobilenet.formats.pytorch.values import DTYPES, MAX_BYTES


def read_zip(file: zipfile.ZipFile) -> Any:
    """The value of the pickle in an open archive: dicts, lists, plain values, and a `TensorEntry` for each tensor.

    Executes nothing. A tensor's bytes are read when they are asked for, while the archive is open. Raises
    `ConversionError` for a pickle that names what isn't in the table of constructors, `ArchiveError` and `OpcodeError`
    for a damaged file.
    """
    members = {info.filename: info for info in file.infolist()}
    inside = [name for name in members if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(inside) != 1:
        raise ConversionError(
            f"it has {len(inside)} members called data.pkl, expected one; fetch it again, or, if it isn't made by "
            "torch.save, save its weights: torch.save(model.state_dict(), 'weights.pth')"
        )
    root = inside[0].removesuffix("data.pkl")
    data = _content(file, members[inside[0]], opcodes.MAX_BYTES)
    order = members.get(f"{root}byteorder")
    big_endian = order is not None and _content(file, order, 16) == b"big"

    @lru_cache(maxsize=1)  # tensors that are parts of one block follow each other
    def block(name: str) -> bytes:
        return _content(file, members[name], MAX_BYTES)

    def storage(key: Any) -> Storage:
        """A persistent id is ("storage", class, name of the block, device, number of elements)."""
        if not (isinstance(key, tuple) and len(key) == 5 and isinstance(key[1], Name) and key[1].kind == "storage"):
            raise ConversionError("it has a storage whose description isn't that of PyTorch's zip form; save it anew")
        kind, name, count = key[1], key[2], key[4]
        if not isinstance(name, str) or not isinstance(count, int) or not 0 <= count < 2**48:
            raise ConversionError("it has a storage without a name or a number of elements; fetch the file again")
        info = members.get(f"{root}data/{name}")
        size = count * np.dtype(DTYPES[kind.dtype]).itemsize
        if info is None or info.file_size != size:
            found = "isn't there" if info is None else f"has {info.file_size:,} bytes"
            raise ConversionError(
                f"the block 'data/{name[:40]}' {found}, expected {size:,} bytes; the file is damaged: fetch it again"
            )
        return Storage(kind.dtype, count, partial(block, info.filename), big_endian)

    return opcodes.run(data, resolve, call, storage)


def _content(file: zipfile.ZipFile, info: zipfile.ZipInfo, most: int) -> bytes:
    with archive.member(file, info, most) as member:
        return member.read()
