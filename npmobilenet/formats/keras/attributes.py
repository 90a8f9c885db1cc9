"""The bytes of an HDF5 attribute, read without HDF5, which asks for as much memory as they declare before it looks.

Only object headers are read, the kind that h5py writes for groups: versions 1 and 2, with continuation blocks.
Attributes kept elsewhere (dense storage, shared messages: nothing that Keras writes) aren't found, and so are refused.
Source of the layout: The HDF Group, HDF5 File Format Specification 3.0, sections IV.A.1 and IV.A.2.m.
"""

from __future__ import annotations

from typing import IO

MAX_BLOCKS = 1_000
MAX_BYTES = 64 << 20  # of one object header
_ATTRIBUTE, _CONTINUATION = 0x0C, 0x10


class HeaderError(ValueError):
    """An object header that can't be followed, or has no such attribute."""


def attribute_data(file: IO[bytes], address: int, name: bytes, size: int) -> bytes:
    """The `size` bytes of data of the attribute `name` of the object whose header is at `address`.

    Raises `HeaderError`.
    """
    attributes = [_attribute(data) for kind, data in _messages(file, address) if kind == _ATTRIBUTE]
    found = [data for title, data in attributes if title == name]
    if len(found) != 1:
        raise HeaderError(f"stands {len(found)} times in its object's header, expected once, as Keras writes it")
    data = found[0]
    if len(data) < size:
        raise HeaderError(f"declares {size} bytes, of which {len(data)} are there")
    return data[:size]


def _number(data: bytes, at: int, size: int) -> int:
    if at + size > len(data):
        raise HeaderError("stands in a header that is cut short")
    return int.from_bytes(data[at : at + size], "little")


def _read(file: IO[bytes], at: int, size: int) -> bytes:
    file.seek(at)
    data = file.read(size)
    if len(data) != size:
        raise HeaderError("stands in a header that is cut short")
    return data


def _messages(file: IO[bytes], address: int) -> list[tuple[int, bytes]]:
    """Type and data of each message of an object header."""
    head = _read(file, address, 16)
    if head[:4] == b"OHDR":
        flags = head[5]
        at = address + 6 + 16 * bool(flags & 0x20) + 4 * bool(flags & 0x10)
        width = 1 << (flags & 3)
        blocks = [(at + width, int.from_bytes(_read(file, at, width), "little"))]
        type_bytes, prefix, mark = 1, 4 + 2 * bool(flags & 4), 4
    elif head[0] == 1:
        blocks = [(address + 16, _number(head, 8, 4))]
        type_bytes, prefix, mark = 2, 8, 0
    else:
        raise HeaderError("stands in a header of an unknown version")
    messages: list[tuple[int, bytes]] = []
    total = 0
    for at, length in blocks:  # grows while it is walked
        total += length
        if len(blocks) > MAX_BLOCKS or total > MAX_BYTES:
            raise HeaderError("stands in a header of too many parts")
        block, place = _read(file, at, length), 0
        while place + prefix <= length:
            kind, size = _number(block, place, type_bytes), _number(block, place + type_bytes, 2)
            data = block[place + prefix : place + prefix + size]
            place += prefix + size
            if kind == _CONTINUATION:
                blocks.append((_number(data, 0, 8) + mark, _number(data, 8, 8) - 2 * mark))
                if blocks[-1][1] < 0:
                    raise HeaderError("stands in a header that is cut short")
            messages.append((kind, data))
    return messages


def _attribute(message: bytes) -> tuple[bytes, bytes]:
    """Name and data of an attribute message."""
    version = _number(message, 0, 1)
    if version not in (1, 2, 3):
        raise HeaderError(f"stands beside an attribute of version {version}")
    at = 9 if version == 3 else 8
    sizes = [_number(message, place, 2) for place in (2, 4, 6)]
    name = message[at : at + sizes[0]].partition(b"\0")[0]
    padded = sum((size + 7) // 8 * 8 if version == 1 else size for size in sizes)
    return name, message[at + padded :]
