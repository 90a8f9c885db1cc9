"""The example picture: a sunflower, drawn with NumPy, the same on every machine.

No photograph comes with the package; this drawing is what `npmobilenet classify` shows its model when it is given
no image.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

SAMPLES = 3  # samples for each pixel along each axis; their mean softens the edges
GOLDEN_TURN = 0.3819660112501051  # the angle between one seed and the next, in turns: (3 - sqrt(5)) / 2

Values = NDArray[np.float64]
Shades = NDArray[np.uint16]
Mask = NDArray[np.bool_]
Colour = tuple[int, int, int]
Box = tuple[slice, slice]
WHOLE: Box = (slice(None), slice(None))


def draw_sunflower(size: int = 224) -> NDArray[np.uint8]:
    """A sunflower before sky and grass, (size, size, 3) uint8.

    Coordinates run from 0 to 1. Angles enter only through sines and cosines rounded to 1/4096 and colours are whole
    numbers, so the last bit of a machine's sine, in which libraries differ, doesn't show.
    """
    canvas = _Canvas(size * SAMPLES)
    _background(canvas)
    centre = (0.5, 0.42)
    _stem(canvas, *centre)
    # Two layers of petals: long darker ones behind, shorter brighter ones in front.
    _petals(canvas, centre, 0.5, (0.375, 0.042), ((214, 134, 8), (246, 186, 24)))
    _petals(canvas, centre, 0.0, (0.335, 0.038), ((240, 160, 10), (255, 214, 44)))
    _disc(canvas, *centre)
    samples = canvas.pixels.reshape(size, SAMPLES, size, SAMPLES, 3)
    total = np.full((size, size, 3), SAMPLES * SAMPLES // 2, np.uint16)
    for i in range(SAMPLES):
        for j in range(SAMPLES):
            total += samples[:, i, :, j]
    return (total // (SAMPLES * SAMPLES)).astype(np.uint8)


class _Canvas:
    """Samples, and their coordinates: `x` to the right, (1, side), and `y` down, (side, 1)."""

    def __init__(self, side: int) -> None:
        at = (2 * np.arange(side) + 1) / (2 * side)
        self.side = side
        self.x: Values = at[None, :]
        self.y: Values = at[:, None]
        self.pixels = np.zeros((side, side, 3), np.uint8)

    def paint(self, where: Mask, colour: Colour | Shades, box: Box = WHOLE) -> None:
        """Fill an area (of the part `box`) with one colour, or with one for each of its samples, (samples, 3)."""
        self.pixels[box][where] = colour

    def box(self, left: float, top: float, right: float, bottom: float) -> Box:
        """The part of the canvas that holds this rectangle; drawing only there saves most of the time."""
        y0, x0, y1, x1 = (min(max(math.floor(v * self.side), 0), self.side) for v in (top, left, bottom, right))
        return slice(y0, y1 + 1), slice(x0, x1 + 1)

    def leaf(
        self, foot: tuple[float, float], turns: float, length: float, width: float
    ) -> tuple[Box, Mask, Values, Values]:
        """A pointed oval from `foot`: where, its area, the way along it (0 to 1) and across (-1 to 1 at the edges)."""
        cosine, sine = _direction(turns)
        xs, ys = (foot[0], foot[0] + length * cosine), (foot[1], foot[1] + length * sine)
        box = self.box(min(xs) - width, min(ys) - width, max(xs) + width, max(ys) + width)
        dx, dy = self.x[:, box[1]] - foot[0], self.y[box[0]] - foot[1]
        along = (dx * cosine + dy * sine) / length
        across = (dy * cosine - dx * sine) / width
        inside = (along > 0) & (along < 1)
        way = np.where(inside, along, 0.5)
        edge = 3.08 * way * (1 - way) * (0.55 + 0.45 * way)  # widest beyond the middle
        return box, inside & (np.abs(across) < edge), along, across / edge


def _direction(turns: float) -> tuple[float, float]:
    angle = 2 * np.pi * turns
    return round(math.cos(angle) * 4096) / 4096, round(math.sin(angle) * 4096) / 4096


def _blend(low: Colour, high: Colour, t: Values) -> Shades:
    """From `low` at t = 0 to `high` at t = 1, in 256 steps: (..., 3). No product is above 255 * 256 < 2**16."""
    step = np.floor(np.clip(t, 0, 1) * 256).astype(np.uint16)[..., None]
    return (np.array(low, np.uint16) * (256 - step) + np.array(high, np.uint16) * step) // 256


def _background(canvas: _Canvas) -> None:
    x, y = canvas.x, canvas.y
    canvas.pixels[:] = _blend((86, 150, 216), (196, 222, 240), y / 0.72)
    horizon = 0.72 + 0.02 * (x - 0.5) * (x - 0.2)
    grass = _blend((96, 140, 56), (44, 88, 30), (y - 0.72) / 0.28)
    np.copyto(canvas.pixels, grass.astype(np.uint8), where=(y > horizon)[..., None])


def _stem(canvas: _Canvas, cx: float, cy: float) -> None:
    off = canvas.x - (cx + 0.10 * (canvas.y - cy) * (canvas.y - cy))
    area = (np.abs(off) < 0.017) & (canvas.y > cy)
    canvas.paint(area, _blend((112, 158, 60), (52, 100, 34), off[area] / 0.034 + 0.5))
    for turns, height, length in ((-0.06, 0.86, 0.30), (0.545, 0.92, 0.28)):
        box, area, _, across = canvas.leaf((0.515, height), turns, length, 0.085)
        canvas.paint(area, _blend((104, 164, 62), (48, 104, 36), np.abs(across[area])), box)
        canvas.paint(area & (np.abs(across) < 0.05), (150, 190, 96), box)


def _petals(
    canvas: _Canvas,
    centre: tuple[float, float],
    shift: float,
    size: tuple[float, float],
    colours: tuple[Colour, Colour],
) -> None:
    count, (length, width), (deep, bright) = 21, size, colours
    for i in range(count):
        wobble = (i * 7 % 5 - 2) / 100  # no petal is quite like the next
        turns = (i + shift) / count + wobble / 8
        box, area, along, across = canvas.leaf(centre, turns, length * (1 + wobble), width)
        shade = _blend(deep, bright, (along[area] - 0.35) * 1.6)
        darker = np.floor(56 * np.clip(across[area] * across[area], 0, 1)).astype(np.uint16)
        canvas.paint(area, shade * (256 - darker)[..., None] // 256, box)
        canvas.paint(area & (np.abs(across) < 0.06) & (along < 0.8), deep, box)


def _disc(canvas: _Canvas, cx: float, cy: float) -> None:
    """The disc, and its seeds in the spiral that sunflowers have: each turned by the golden angle from the last."""
    radius = 0.150
    box = canvas.box(cx - radius, cy - radius, cx + radius, cy + radius)
    x, y = canvas.x[:, box[1]], canvas.y[box[0]]
    from_middle = ((x - cx) * (x - cx) + (y - cy) * (y - cy)) / (radius * radius)
    disc = from_middle < 1
    canvas.paint(disc, _blend((84, 52, 20), (62, 34, 12), from_middle[disc]), box)
    canvas.paint(from_middle < 0.16, (70, 62, 22), box)
    seeds = 330
    for k in range(1, seeds):
        cosine, sine = _direction(k * GOLDEN_TURN % 1.0)
        reach = 0.146 * math.sqrt(k / seeds)
        px, py = cx + reach * cosine, cy + reach * sine
        radius = 0.0026 + 0.0018 * k / seeds
        box = canvas.box(px - radius, py - radius, px + radius, py + radius)
        near = (canvas.x[:, box[1]] - px) ** 2 + (canvas.y[box[0]] - py) ** 2 < radius * radius
        canvas.pixels[box][near] = (196, 128, 30) if k > 215 else (132, 88, 34)
