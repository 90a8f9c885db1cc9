"""PNG pictures and colours without a plotting package: counts to pixels, made by hand with zlib."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
NOTHING = (238, 240, 243)  # the colour of 0
_STOPS = ((0.0, (255, 222, 89)), (0.35, (244, 140, 54)), (0.7, (205, 40, 57)), (1.0, (74, 8, 70)))
MAX_SIDE = 512  # pixels; a larger plane is pooled


def png(pixels: Pixels) -> bytes:
    """An RGB picture (H, W, 3) as a PNG file: 8 bits, no filter."""
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in np.ascontiguousarray(pixels))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def data_url(pixels: Pixels) -> str:
    """A picture as text that stands in a page itself."""
    return "data:image/png;base64," + base64.b64encode(png(pixels)).decode()


def heat(counts: NDArray[np.int64]) -> Pixels:
    """A plane of counts (H, W) as colours: 0 is grey, then yellow to dark red by the logarithm."""
    counts = pooled(counts)
    most = int(counts.max(initial=0))
    level = np.log1p(counts) / np.log1p(max(most, 1))
    stops = np.array([at for at, _ in _STOPS])
    channels = [np.interp(level, stops, [colour[i] for _, colour in _STOPS]) for i in range(3)]
    pixels = np.stack(channels, axis=-1).round().astype(np.uint8)
    pixels[counts == 0] = NOTHING
    return pixels


def pooled(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sums over squares, so that no side has more than MAX_SIDE pixels."""
    step = -(-max(counts.shape) // MAX_SIDE)
    if step <= 1:
        return counts
    padded = np.pad(counts, [(0, -size % step) for size in counts.shape])
    height, width = (size // step for size in padded.shape)
    total: NDArray[np.int64] = padded.reshape(height, step, width, step).sum(axis=(1, 3))
    return total
