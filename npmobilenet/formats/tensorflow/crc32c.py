"""CRC-32C of byte strings with NumPy alone, fast enough for whole checkpoints (about 20 MB in a fraction of a second).

A CRC register without its initial value and final inversion is linear over GF(2): with S_n the operator "advance by n
zero bytes", the register after the 32-bit words w0, w1 is `S_4(S_4(w0) ^ w1)`. So neighbours can be merged pairwise,
`u = S_4(a) ^ b`, then pairs of pairs with S_8, and so on: log2(words) passes, each over half as many words as the last.
S_n is a 32 x 32 bit matrix, applied with one 256-entry table for each byte of its argument.

Sources: polynomial and conventions, RFC 3720 appendix B.4; masking, LevelDB util/crc32c.h (TensorFlow's
tsl/lib/hash/crc32c.h has the same).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_POLYNOMIAL = np.uint32(0x82F63B78)  # Castagnoli, bit-reversed
_ALL_ONES = 0xFFFFFFFF
_CHUNK = 1 << 20  # bytes merged at a time: the passes then stay in cache

_Words = NDArray[np.uint32]


def crc32c(data: bytes | memoryview) -> int:
    """CRC-32C of `data`: initial value and final xor of all ones, reflected; `crc32c(b"123456789") == 0xE3069283`."""
    view = memoryview(data).cast("B")
    register = _ALL_ONES
    for start in range(0, len(view), _CHUNK):
        register = _continue(register, view[start : start + _CHUNK])
    return register ^ _ALL_ONES


def unmask(masked: int) -> int:
    """The CRC that LevelDB and TensorFlow store as `rotate_right(crc, 15) + 0xA282EAD8`."""
    rotated = (masked - 0xA282EAD8) & _ALL_ONES
    return ((rotated >> 17) | (rotated << 15)) & _ALL_ONES


def mask(crc: int) -> int:
    """Inverse of `unmask`."""
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & _ALL_ONES


def _continue(register: int, data: memoryview) -> int:
    """The register after `data`, at least one byte of it."""
    # The register acts like four bytes before the data that are already absorbed: xor it onto the first four bytes.
    # Zero bytes in front of everything leave a zero register alone, so they may fill the data up to whole words.
    head = len(data) % 4
    if head:
        for byte in data[:head]:
            register = (register >> 8) ^ int(_byte_table()[(register ^ byte) & 0xFF])
        data = data[head:]
    if not len(data):
        return register
    words = np.frombuffer(data, dtype="<u4").astype(np.uint32)
    words[0] ^= np.uint32(register)
    level = 0
    while words.size > 1:
        if words.size % 2:
            words = np.concatenate((np.zeros(1, np.uint32), words))
        words = _apply(_tables(level), words[0::2]) ^ words[1::2]
        level += 1
    return int(_apply(_tables(0), words)[0])


def _apply(tables: tuple[_Words, ...], words: _Words) -> _Words:
    """A GF(2) operator, given by its tables for bytes 0 to 3 of the argument, applied to each word."""
    octets = np.ascontiguousarray(words).astype("<u4", copy=False).view(np.uint8)
    result = tables[0][octets[0::4]]
    for i in (1, 2, 3):
        result ^= tables[i][octets[i::4]]
    return result


@lru_cache(maxsize=64)
def _tables(level: int) -> tuple[_Words, ...]:
    """Tables of S_n for n = 4 * 2**level zero bytes."""
    if level:
        half = _tables(level - 1)
        columns = _apply(half, _apply(half, _unit_words()))
    else:
        columns = _unit_words()
        for _ in range(32):
            columns = (columns >> np.uint32(1)) ^ ((columns & np.uint32(1)) * _POLYNOMIAL)
    return tuple(_span(columns[8 * i : 8 * i + 8]) for i in range(4))


@lru_cache(maxsize=1)
def _byte_table() -> _Words:
    """The classical table: the register that a byte leaves behind. S_4 of a word whose top byte is it."""
    return _tables(0)[3]


def _unit_words() -> _Words:
    return np.uint32(1) << np.arange(32, dtype=np.uint32)


def _span(columns: _Words) -> _Words:
    """All 256 xor sums of eight columns, indexed by which of them take part."""
    table = np.zeros(1, np.uint32)
    for column in columns:
        table = np.concatenate((table, table ^ column))
    return table
