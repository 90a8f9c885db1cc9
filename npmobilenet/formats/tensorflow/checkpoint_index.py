"""The `.index` file of a TensorFlow checkpoint (format V2, "tensor bundle"): a sorted table of variables.

The file is a LevelDB table: data blocks of prefix-compressed keys and values, an index block that lists them, and a
footer of 48 bytes that says where the index block is. The value of the empty key is a BundleHeaderProto; every other
key is a variable's name and its value a BundleEntryProto: dtype, shape, and where the bytes lie in which shard.

Nothing in the file is believed before it is checked: lengths and offsets against the bytes there are, block contents
against their CRC. Whatever is wrong raises `ConversionError` with the file, the place and what to do.

Sources: LevelDB doc/table_format.md and table/format.h (footer, block, trailer); tensorflow/tensorflow v2.15
tensorflow/core/protobuf/tensor_bundle.proto and tensor_shape.proto, types.proto, versions.proto in core/framework,
core/util/tensor_bundle/tensor_bundle.cc (empty header key, version check); google/snappy format_description.txt.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from npmobilenet.errors import ConversionError
from npmobilenet.formats.tensorflow.crc32c import crc32c, unmask

MAGIC = 0xDB4775248B80FB57
_FOOTER = 48  # bytes: two block handles, padded to 40, and the magic number
_TRAILER = 5  # bytes after each block: compression type, masked CRC-32C of contents and type
_MAX_INDEX = 1 << 26  # bytes; MobileNet's are about 20 kB
_MAX_KEY = 4096  # bytes; bounds what a few shared-prefix entries can unfold to
_NEWEST = 1  # version of the bundle format known here
_REMEDY = "the file is damaged or cut short: copy or download the checkpoint again"


@dataclass(frozen=True)
class Header:
    """The table's first entry: how many data files there are, and how they were written."""

    num_shards: int = 0
    big_endian: bool = False
    min_consumer: int = 0


@dataclass(frozen=True)
class Entry:
    """One variable: `dtype` is TensorFlow's DataType number; `crc32c` is still masked."""

    name: str
    dtype: int = 0
    shape: tuple[int, ...] = ()
    shard: int = 0
    offset: int = 0
    size: int = 0
    crc32c: int = 0
    sliced: bool = False


def read_index(path: Path) -> tuple[Header, dict[str, Entry]]:
    """The header and the entries by name, in the file's (sorted) order.

    Raises `ConversionError` when the file can't be read, isn't a tensor bundle's index, is damaged, or is of a kind
    that isn't supported (big endian, a newer version).
    """
    where = f"checkpoint index '{path}'"
    try:
        size = path.stat().st_size
        if size > _MAX_INDEX:
            raise ConversionError(f"{where}: {size} bytes, expected at most {_MAX_INDEX}; is it really an .index file?")
        data = path.read_bytes()
    except OSError as error:
        raise ConversionError(f"{where}: can't be read: {error.strerror or error}") from error
    header: Header | None = None
    entries: dict[str, Entry] = {}
    for key, value in read_table(data, where):
        if not key:
            header = _header(value, where)
        elif header is None:
            break
        elif not key.startswith(b"\0"):  # keys that start with NUL are the parts of sliced variables
            entry = _entry(key, value, where)
            entries[entry.name] = entry
    if header is None:
        raise ConversionError(
            f"{where}: the first key isn't the bundle header, so this is not the index of a "
            "TensorFlow checkpoint of format V2; save it anew with TensorFlow's Saver"
        )
    return header, entries


def _header(value: bytes, where: str) -> Header:
    """BundleHeaderProto: num_shards = 1, endianness = 2, version = 3 { producer = 1, min_consumer = 2 }."""
    at = f"{where}, header"
    fields = _Fields(value, at)
    version = _Fields(fields.message(3), at)
    header = Header(fields.integer(1), fields.integer(2) != 0, version.integer(2))
    if header.big_endian:
        raise ConversionError(
            f"{where}: written on a big-endian machine, which isn't supported; "
            "load and save it once with TensorFlow on a little-endian machine"
        )
    if header.min_consumer > _NEWEST:
        raise ConversionError(
            f"{where}: needs a reader of bundle version {header.min_consumer}, this one knows "
            f"version {_NEWEST}; save it with an older TensorFlow"
        )
    if not 1 <= header.num_shards <= 99_999:
        raise ConversionError(f"{where}: {header.num_shards} data files, expected 1 to 99999; {_REMEDY}")
    return header


def _entry(key: bytes, value: bytes, where: str) -> Entry:
    """BundleEntryProto: dtype = 1, shape = 2, shard_id = 3, offset = 4, size = 5, crc32c = 6, slices = 7."""
    try:
        name = key.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConversionError(f"{where}: the variable name {key!r} is not UTF-8; {_REMEDY}") from error
    at = f"{where}, variable '{name}'"
    fields = _Fields(value, at)
    shape = _Fields(fields.message(2), at)
    if shape.integer(3):
        raise ConversionError(f"{at}: a shape of unknown rank; {_REMEDY}")
    entry = Entry(
        name,
        dtype=fields.integer(1),
        shape=tuple(_Fields(dim, at).integer(1) for dim in shape.messages(2)),
        shard=fields.integer(3),
        offset=fields.integer(4),
        size=fields.integer(5),
        crc32c=fields.integer(6),
        sliced=bool(fields.messages(7)),
    )
    if min(entry.shard, entry.offset, entry.size, *entry.shape) < 0:
        raise ConversionError(
            f"{at}: a negative number among shape {entry.shape}, shard {entry.shard}, "
            f"offset {entry.offset}, size {entry.size}; {_REMEDY}"
        )
    return entry


# ---------------------------------------------------------------------------------------------------------------------
# The table


def read_table(data: bytes, where: str) -> Iterator[tuple[bytes, bytes]]:
    """All (key, value) pairs of a LevelDB table, in ascending key order."""
    if len(data) < _FOOTER:
        raise ConversionError(f"{where}: {len(data)} bytes, expected at least the {_FOOTER} of a footer; {_REMEDY}")
    (magic,) = struct.unpack_from("<Q", data, len(data) - 8)
    if magic != MAGIC:
        raise ConversionError(
            f"{where}: the last 8 bytes (offset {len(data) - 8}) are 0x{magic:016x}, expected the "
            f"table's magic number 0x{MAGIC:016x}; {_REMEDY}"
        )
    footer = _Cursor(data[-_FOOTER:-8], f"{where}, footer at offset {len(data) - _FOOTER}")
    footer.varint(), footer.varint()  # the meta-index block, for filters: empty in a bundle
    last: bytes | None = None
    for _, handle in _read_block(data, footer.varint(), footer.varint(), where):
        cursor = _Cursor(handle, f"{where}, index block")
        for key, value in _read_block(data, cursor.varint(), cursor.varint(), where):
            if last is not None and key <= last:
                raise ConversionError(f"{where}: the key {key!r} follows {last!r}, expected ascending order; {_REMEDY}")
            last = key
            yield key, value


def _read_block(data: bytes, offset: int, size: int, where: str) -> Iterator[tuple[bytes, bytes]]:
    """A block's entries: shared, fresh and value length as varints, the key's fresh end, the value."""
    contents = _block_contents(data, offset, size, f"{where}, block at offset {offset}")
    at = f"{where}, block at offset {offset}"
    (restarts,) = struct.unpack_from("<I", contents, len(contents) - 4) if len(contents) >= 4 else (-1,)
    end = len(contents) - 4 * (restarts + 1)
    if restarts < 0 or end < 0:
        raise ConversionError(f"{at}: {restarts} restart points in {len(contents)} bytes; {_REMEDY}")
    cursor = _Cursor(contents[:end], at)
    key = b""
    while not cursor.done:
        shared, fresh, length = cursor.varint(), cursor.varint(), cursor.varint()
        if shared > len(key):
            raise ConversionError(f"{at}: a key shares {shared} bytes with its predecessor of {len(key)}; {_REMEDY}")
        if shared + fresh > _MAX_KEY:
            raise ConversionError(f"{at}: a key of {shared + fresh} bytes, expected at most {_MAX_KEY}; {_REMEDY}")
        key = key[:shared] + cursor.take(fresh)
        yield key, cursor.take(length)


def _block_contents(data: bytes, offset: int, size: int, at: str) -> bytes:
    room = len(data) - _FOOTER - _TRAILER
    if offset + size > room:
        raise ConversionError(f"{at}: it ends at byte {offset + size}, expected at most {room}; {_REMEDY}")
    kind = data[offset + size]
    (stored,) = struct.unpack_from("<I", data, offset + size + 1)
    found = crc32c(memoryview(data)[offset : offset + size + 1])
    if found != unmask(stored):
        raise ConversionError(f"{at}: CRC-32C 0x{found:08x}, expected 0x{unmask(stored):08x}; {_REMEDY}")
    contents = data[offset : offset + size]
    if kind == 1:
        return unsnappy(contents, at)
    if kind:
        raise ConversionError(
            f"{at}: compression type {kind}, known are 0 (none) and 1 (snappy); save the checkpoint "
            "anew with an unmodified TensorFlow"
        )
    return contents


def unsnappy(data: bytes, at: str) -> bytes:
    """Decompress a raw snappy stream: the length as a varint, then literals and copies from what is already out."""
    cursor = _Cursor(data, at)
    length = cursor.varint()
    if length > _MAX_INDEX:
        raise ConversionError(f"{at}: it would decompress to {length} bytes, expected at most {_MAX_INDEX}; {_REMEDY}")
    out = bytearray()
    while not cursor.done:
        tag = cursor.take(1)[0]
        kind, count = tag & 3, (tag >> 2) + 1
        if kind == 0:  # literal; lengths above 60 stand in the 1 to 4 bytes that follow
            if count > 60:
                count = int.from_bytes(cursor.take(count - 60), "little") + 1
            piece = cursor.take(count)
        else:  # copy, with an offset of 11 bits (three of them in the tag), 16 or 32 bits
            if kind == 1:
                count, offset = (tag >> 2 & 7) + 4, tag >> 5 << 8 | cursor.take(1)[0]
            else:
                offset = int.from_bytes(cursor.take(2 if kind == 2 else 4), "little")
            if not 1 <= offset <= len(out):
                raise ConversionError(f"{at}: a copy from {offset} bytes back where {len(out)} are out; {_REMEDY}")
            start = len(out) - offset
            piece = bytes(out[start : start + count])
            piece = (piece * (count // len(piece) + 1))[:count]  # a copy longer than its offset repeats itself
        if len(out) + count > length:
            break
        out += piece
    if len(out) != length or not cursor.done:
        raise ConversionError(f"{at}: it decompresses to other than the {length} bytes that it announces; {_REMEDY}")
    return bytes(out)


# ---------------------------------------------------------------------------------------------------------------------
# Varints and protocol buffers


class _Cursor:
    """Reads bytes and varints from `data`, never past its end."""

    def __init__(self, data: bytes, where: str) -> None:
        self.data = data
        self.where = where
        self.position = 0

    @property
    def done(self) -> bool:
        return self.position >= len(self.data)

    def take(self, count: int) -> bytes:
        if count > len(self.data) - self.position:
            raise ConversionError(
                f"{self.where}: {count} bytes expected at byte {self.position}, "
                f"{len(self.data) - self.position} are left; {_REMEDY}"
            )
        self.position += count
        return self.data[self.position - count : self.position]

    def varint(self) -> int:
        """Seven bits a byte, lowest first, until a byte below 128; at most 64 bits."""
        value = 0
        for shift in range(0, 70, 7):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & 0xFFFF_FFFF_FFFF_FFFF
        raise ConversionError(f"{self.where}: a varint of more than 10 bytes at byte {self.position - 10}; {_REMEDY}")


class _Fields:
    """A protocol buffer message taken apart: field number -> its values, integers or byte strings."""

    def __init__(self, data: bytes, where: str) -> None:
        self.where = where
        self.values: dict[int, list[int | bytes]] = {}
        cursor = _Cursor(data, where)
        while not cursor.done:
            tag = cursor.varint()
            self.values.setdefault(tag >> 3, []).append(self._value(cursor, tag & 7))

    @staticmethod
    def _value(cursor: _Cursor, wire: int) -> int | bytes:
        if wire == 0:
            return cursor.varint()
        if wire == 2:
            return cursor.take(cursor.varint())
        if wire in (1, 5):
            return int.from_bytes(cursor.take(8 if wire == 1 else 4), "little")
        raise ConversionError(
            f"{cursor.where}: wire type {wire} at byte {cursor.position}, expected 0, 1, 2 or 5; {_REMEDY}"
        )

    def integer(self, number: int) -> int:
        """The last value of an integer field, 0 if absent, signed as int32 and int64 fields are."""
        value = self.values.get(number, [0])[-1]
        if isinstance(value, bytes):
            raise ConversionError(f"{self.where}: field {number} holds bytes, expected an integer; {_REMEDY}")
        return value - (1 << 64) if value >= 1 << 63 else value

    def messages(self, number: int) -> list[bytes]:
        """All values of a repeated message field."""
        found = self.values.get(number, [])
        parts = [value for value in found if isinstance(value, bytes)]
        if len(parts) != len(found):
            raise ConversionError(f"{self.where}: field {number} holds an integer, expected a message; {_REMEDY}")
        return parts

    def message(self, number: int) -> bytes:
        """A message field that occurs at most once; its parts are joined if it occurs more often (protobuf's rule)."""
        return b"".join(self.messages(number))
