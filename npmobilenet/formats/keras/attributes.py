"""The bytes of an HDF5 attribute and the strings that they point at, read without HDF5.

HDF5 asks for as much memory as an attribute declares before it looks, and takes minutes on a damaged heap of strings.

Only object headers are read, the kind that h5py writes for groups: versions 1 and 2, with continuation blocks.
Attributes kept elsewhere (dense storage, shared messages: nothing that Keras writes) aren't found, and so are refused.
Source of the layout: The HDF Group, HDF5 File Format Specification 3.0, sections III.E, IV.A.1 and IV.A.2.m.
"""

from __future__ import annotations

from typing import IO

MAX_BLOCKS = 1_000
MAX_BYTES = 64 << 20  # of one object header
MAX_OBJECTS = 20_000  # of one heap of strings
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


def heap_strings(file: IO[bytes], data: bytes) -> list[bytes]:
    """The strings that descriptors of 16 bytes (length, address of a global heap, number in it) stand for.

    Raises `HeaderError`.
    """
    heaps: dict[int, dict[int, tuple[int, int]]] = {}
    found: list[bytes] = []
    for at in range(0, len(data), 16):
        length, address, number = _number(data, at, 4), _number(data, at + 4, 8), _number(data, at + 12, 4)
        if length == 0:
            found.append(b"")
            continue
        if address not in heaps:
            heaps[address] = _heap(file, address)
        place, size = heaps[address].get(number, (0, 0))
        if size < length:
            raise HeaderError(f"declares a string of {length} bytes, of which {size} are there")
        found.append(_read(file, place, length))
    return found


def _heap(file: IO[bytes], address: int) -> dict[int, tuple[int, int]]:
    """Place and size of each object of a global heap."""
    if address >= file.seek(0, 2):
        raise HeaderError("points behind the end of the file")
    head = _read(file, address, 16)
    if head[:5] != b"GCOL\x01":
        raise HeaderError("points at no heap of strings")
    objects: dict[int, tuple[int, int]] = {}
    at, end = address + 16, address + _number(head, 8, 8)
    while at + 16 <= end and len(objects) < MAX_OBJECTS:
        entry = _read(file, at, 16)
        number, size = _number(entry, 0, 2), _number(entry, 8, 8)
        if number == 0:  # what is free
            break
        objects[number] = at + 16, size
        at += 16 + (size + 7) // 8 * 8
    return objects


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
