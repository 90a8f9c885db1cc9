"""State dicts as PyTorch stores them, made by hand: the opcodes of a pickle in a zip archive, and safetensors.

`values_of` fills the variables of a network from their names and shapes alone, so that a test and the program that ran
PyTorch on them (tools/make_torch_goldens.py) have the same weights without a file of them.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
STORAGES = {"f4": "Float", "f2": "Half", "f8": "Double", "i8": "Long", "u1": "Byte", "bf16": "BFloat16"}
SAFE = {"f4": "F32", "f2": "F16", "f8": "F64", "i8": "I64", "u1": "U8", "bf16": "BF16"}


def values_of(name: str, shape: tuple[int, ...]) -> Array:
    """A variable's values, from its name and shape: PCG64 seeded by the name's CRC-32, in float32.

    Weights (rank 2 and more) are normal with variance 1 / (terms of a sum); a batch norm's weight is uniform in [0.7,
    1.3], its running variance in [0.4, 0.7], its running mean and every bias normal with deviation 0.2 around 0.1.
    """
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if len(shape) > 1:
        values = rng.standard_normal(shape) * np.sqrt(1 / np.prod(shape[1:]))
    elif name.endswith("running_var"):
        values = rng.uniform(0.4, 0.7, shape)
    elif name.endswith("weight"):
        values = rng.uniform(0.7, 1.3, shape)
    else:
        values = 0.1 + 0.2 * rng.standard_normal(shape)
    return values.astype(np.float32)


def state_of(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
    """A state dict of these names and shapes, with batch norm's counters as PyTorch has them."""
    return {
        name: np.array(1, np.int64) if name.endswith("num_batches_tracked") else values_of(name, tuple(shape))
        for name, shape in shapes.items()
    }


def picture(size: int) -> Array:
    """Two inputs (2, size, size, 3)."""
    return np.random.default_rng(7).uniform(-2, 2, (2, size, size, 3)).astype(np.float32)


# -- pickles -----------------------------------------------------------------------------------------------------------


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def tup(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def name(module: str, what: str) -> bytes:
    return f"c{module}\n{what}\n".encode()


def numbers(values: tuple[int, ...]) -> bytes:
    return tup(*map(number, values))


def mapping(items: Mapping[str, bytes]) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


def kind_of(array: Array, bf16: bool = False) -> str:
    return "bf16" if bf16 else array.dtype.str[1:]


def stored(array: Array, bf16: bool = False) -> Array:
    """What lies in the file: bfloat16 is the upper half of a float32."""
    return (array.view(np.uint32) >> 16).astype(np.uint16) if bf16 else array


def tensor(
    key: str, array: Array, bf16: bool = False, offset: int = 0, strides: tuple[int, ...] | None = None
) -> bytes:
    steps = tuple(int(np.prod(array.shape[i + 1 :])) for i in range(array.ndim)) if strides is None else strides
    storage = name("torch", f"{STORAGES[kind_of(array, bf16)]}Storage")
    reference = tup(text("storage"), storage, text(key), text("cpu"), number(array.size)) + b"Q"
    parts = (
        reference,
        number(offset),
        numbers(array.shape),
        numbers(steps),
        b"\x89",
        name("collections", "OrderedDict") + b")R",
    )
    return name("torch._utils", "_rebuild_tensor_v2") + tup(*parts) + b"R"


def archive(pickled: bytes, blocks: Mapping[str, bytes], byteorder: bytes = b"little", root: str = "archive") -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as file:
        file.writestr(f"{root}/data.pkl", b"\x80\x02" + pickled + b".")
        file.writestr(f"{root}/byteorder", byteorder)
        for key, block in blocks.items():
            file.writestr(f"{root}/data/{key}", block)
        file.writestr(f"{root}/version", b"3\n")
    return target.getvalue()


def state_pickle(state: Mapping[str, Array], first: int = 0, bf16: bool = False) -> tuple[bytes, dict[str, bytes]]:
    """The pickle of an OrderedDict of tensors, and the blocks that it names, from number `first`."""
    items, blocks = {}, {}
    for index, (key, array) in enumerate(state.items(), first):
        half = bf16 and array.dtype == np.float32
        items[key] = tensor(str(index), array, half)
        blocks[str(index)] = stored(array, half).tobytes()
    return name("collections", "OrderedDict") + b")R" + mapping(items)[1:], blocks


def pth(state: Mapping[str, Array], bf16: bool = False) -> bytes:
    pickled, blocks = state_pickle(state, bf16=bf16)
    return archive(pickled, blocks)


def safetensors(state: Mapping[str, Array], bf16: bool = False) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    body = b""
    for key, array in state.items():
        half = bf16 and array.dtype == np.float32
        data = stored(array, half).tobytes()
        facts = {"dtype": SAFE[kind_of(array, half)], "shape": array.shape}
        header[key] = {**facts, "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    head = json.dumps(header).encode()
    return struct.pack("<Q", len(head)) + head + body
