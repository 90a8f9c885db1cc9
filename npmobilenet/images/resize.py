"""Resizing as TensorFlow, Pillow and OpenCV do it, in NumPy, equal to them bit for bit.

"Bilinear" names several different functions; a model keeps its published accuracy only with the one that it was
evaluated with. Here are three of them: TensorFlow's (with and without half-pixel centres), Pillow's (a filter that
widens when it shrinks an image; the others never smooth), and OpenCV's; and Pillow's bicubic, Lanczos and nearest.

All arithmetic is elementwise and in the written order, so the results don't depend on the machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Floats = NDArray[np.float32]

# Pillow, src/libImaging/Resample.c: coefficients are integers with this many fractional bits (32 - 8 - 2).
PRECISION_BITS = 22

ROWS = 32  # of a resized image at a time, so that they stay in caches: 1.2 ms instead of 3.1 for 500 x 375 to 224 x 224


def tf_bilinear(image: Image, height: int, width: int, scale: float = 1.0, half_pixel_centers: bool = False) -> Floats:
    """TensorFlow's bilinear resize of `image * float32(scale)`, align_corners=False; (H, W, C) to (height, width, C).

    Output pixel i looks at position `p = i * s` (TF1) or `(i + 0.5) * s - 0.5` (half-pixel centres, TF2), where
    `s = size_in / size_out`, all in float32; it mixes pixels floor(p) and ceil(p), kept inside the image, as
    `a + (b - a) * (p - floor(p))`, first along the width, then along the height, without fused multiply-adds.

    Source: TensorFlow, tensorflow/core/kernels/image/resize_bilinear_op.cc (compute_interpolation_weights,
    compute_lerp) and tensorflow/core/util/image_resizer_state.h; equal to TensorFlow 2.21 on x86-64.
    """
    y0, y1, dy = _tf_positions(image.shape[0], height, half_pixel_centers)
    x0, x1, dx = _tf_positions(image.shape[1], width, half_pixel_centers)
    channels = image.shape[2]
    left, right = ((xs[:, None] * channels + np.arange(channels)).reshape(-1) for xs in (x0, x1))
    dx = np.repeat(dx, channels)
    # Whole rows, each once, and then values by one index each: pixel by pixel NumPy takes four times as long.
    rows, place = np.unique(np.concatenate([y0, y1]), return_inverse=True)
    upper, lower = place[:height], place[height:]
    result = np.empty((height, width * channels), np.float32)
    for first in range(0, height, ROWS):
        part = slice(first, first + ROWS)
        start = upper[first]
        some = image[rows[start : lower[part][-1] + 1]]
        lines = some.reshape(len(some), -1)
        mixed, other = (np.take(lines, columns, axis=1).astype(np.float32) for columns in (right, left))
        mixed *= np.float32(scale)
        other *= np.float32(scale)
        mixed -= other
        mixed *= dx
        mixed += other
        top, bottom = mixed[upper[part] - start], mixed[lower[part] - start]
        bottom -= top
        bottom *= dy[part, None]
        np.add(bottom, top, out=result[part])
    return result.reshape(height, width, channels)


def _tf_positions(
    size_in: int, size_out: int, half_pixel_centers: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    step = np.float32(size_in) / np.float32(size_out)
    index = np.arange(size_out, dtype=np.float32)
    half = np.float32(0.5)
    position = (index + half) * step - half if half_pixel_centers else index * step
    floor = np.floor(position)
    lower = np.clip(floor.astype(np.int64), 0, size_in - 1)
    upper = np.clip(np.ceil(position).astype(np.int64), 0, size_in - 1)
    return lower, upper, position - floor


def triangle(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pillow's BILINEAR filter: `max(1 - |x|, 0)`."""
    return np.maximum(1.0 - np.abs(x), 0.0)


def cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pillow's BICUBIC filter: Keys' cubic convolution with a = -0.5, zero from |x| = 2 on."""
    x = np.abs(x)
    near = ((-0.5 + 2.0) * x - (-0.5 + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * -0.5
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


def lanczos(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pillow's LANCZOS filter: `sinc(x) * sinc(x / 3)` for -3 <= x < 3, else 0."""
    return np.where((x >= -3.0) & (x < 3.0), _sinc(x) * _sinc(x / 3), 0.0)


def _sinc(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """`sin(pi x) / (pi x)` by the sine's series to t**23, which leaves 2e-19 of it for |t| <= pi / 2.

    Libraries differ in the last bit of their sines; these operations are the same on every machine.
    """
    whole = np.rint(x)
    t = (x - whole) * math.pi
    series = np.ones_like(t)
    for k in range(22, 0, -2):
        series = 1.0 - t * t / (k * (k + 1)) * series
    sine = np.where(whole % 2 == 0, t, -t) * series
    return np.where(x == 0.0, 1.0, sine / np.where(x == 0.0, 1.0, x * math.pi))


# name -> (filter, support): the filter is zero beyond that distance.
FILTERS: dict[str, tuple[Callable[[NDArray[np.float64]], NDArray[np.float64]], float]] = {
    "bilinear": (triangle, 1.0),
    "bicubic": (cubic, 2.0),
    "lanczos": (lanczos, 3.0),
}
Box = tuple[float, float, float, float]  # top, left, bottom, right, in pixels and parts of them


def pillow_resize(image: Image, height: int, width: int, method: str, box: Box | None = None) -> Image:
    """Pillow's `Image.resize((width, height), METHOD, box)` of a uint8 image, `method` from `FILTERS`.

    `box` is the part of the image that is taken, all of it by default; its edges are float32 in Pillow. A filter at
    an edge of the box still reads the pixels beyond it.

    Each output pixel is a weighted mean of the input pixels below a filter that is stretched by the scale when it
    shrinks an image. Weights are computed in float64, normalized to sum 1, rounded to 22 fractional bits; the sums are
    integers, rounded half up and clamped to uint8, first along the width, then along the height.

    Source: Pillow, src/libImaging/Resample.c (precompute_coeffs, normalize_coeffs_8bpc). Equal to Pillow 12.0 on
    x86-64. Pillow 13.0 takes the height first for some shapes, which changes values by one level of 255 here and there
    (by more where a cubic filter's overshoot is clamped). Here the width comes first for every shape, as in the
    versions with which models were published.
    """
    rows, columns = image.shape[:2]
    top, left, bottom, right = box or (0, 0, rows, columns)
    if (width, left, right) != (columns, 0, columns):
        image = _resample(image, 1, *_pillow_weights(columns, width, method, left, right))
    if (height, top, bottom) != (rows, 0, rows):
        image = _resample(image, 0, *_pillow_weights(rows, height, method, top, bottom))
    return image


def pillow_fit(image: Image, height: int, width: int, method: str) -> Image:
    """Pillow's `ImageOps.fit(image, (width, height), METHOD)`: the largest centred part of that form, resized.

    Source: Pillow, src/PIL/ImageOps.py (fit, with its defaults bleed 0 and centering (0.5, 0.5)), float64 arithmetic.
    """
    rows, columns = image.shape[:2]
    ratio = width / height
    across, down = float(columns), float(rows)
    if columns / rows > ratio:
        across = ratio * rows
    elif columns / rows < ratio:
        down = columns / ratio
    left, top = (columns - across) * 0.5, (rows - down) * 0.5
    return pillow_resize(image, height, width, method, (top, left, top + down, left + across))


def _pillow_weights(
    size_in: int, size_out: int, method: str, begin: float, end: float
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """First input pixel (size_out,) and integer weights (taps, size_out) of every output pixel."""
    function, support = FILTERS[method]
    low = np.float32(begin)
    scale = float(np.float32(end) - low) / size_out
    stretch = max(scale, 1.0)
    reach = support * stretch
    taps = math.ceil(reach) * 2 + 1
    center = float(low) + (np.arange(size_out) + 0.5) * scale
    # Truncation towards zero is what C's cast does; negative values become 0 in any case.
    first = np.maximum(np.trunc(center - reach + 0.5), 0).astype(np.int64)
    stop = np.minimum(np.trunc(center + reach + 0.5), size_in).astype(np.int64)
    weights = np.zeros((taps, size_out))
    total = np.zeros(size_out)
    for tap in range(taps):
        pixel = first + tap
        weight = function((pixel - center + 0.5) * (1.0 / stretch))
        weights[tap] = np.where(pixel < stop, weight, 0.0)
        total = total + weights[tap]
    weights = weights / np.where(total == 0.0, 1.0, total)
    scaled = weights * (1 << PRECISION_BITS)
    return first, np.trunc(np.where(scaled < 0, scaled - 0.5, scaled + 0.5)).astype(np.int32)


def _resample(image: Image, axis: int, first: NDArray[np.int64], weights: NDArray[np.int32]) -> Image:
    last = image.shape[axis] - 1
    column = (-1, 1, 1) if axis == 0 else (1, -1, 1)
    shape = list(image.shape)
    shape[axis] = first.size
    total = np.full(shape, 1 << (PRECISION_BITS - 1), np.int32)
    # The int32 sum can't overflow: |weights| add up to less than 1.9, and 255 * 1.9 * 2**22 < 2**31.
    for tap, weight in enumerate(weights):
        pixels = np.take(image, np.minimum(first + tap, last), axis=axis).astype(np.int32)
        total += pixels * weight.reshape(column)
    resized: Image = np.clip(total >> PRECISION_BITS, 0, 255).astype(np.uint8)
    return resized


def pillow_nearest(image: Image, height: int, width: int) -> Image:
    """Pillow's `Image.resize((width, height), NEAREST)`: the input pixel below the centre of each output pixel.

    The position starts at `step / 2` and `step` is added in float64 from pixel to pixel, as Pillow does, so the
    rounding is the same. Source: Pillow, src/libImaging/Geometry.c (ImagingScaleAffine); equal to Pillow 12.0
    and 13.0.
    """
    return image[_nearest(image.shape[0], height)[:, None], _nearest(image.shape[1], width)]


def _nearest(size_in: int, size_out: int) -> NDArray[np.int64]:
    step = size_in / size_out
    position = np.full(size_out, step)
    position[0] = step * 0.5
    return np.minimum(np.cumsum(position).astype(np.int64), size_in - 1)


# OpenCV, modules/imgproc/src/resize.cpp: coefficients are integers with this many fractional bits.
INTER_RESIZE_COEF_BITS = 11


def opencv_linear(image: Image, height: int, width: int) -> Image:
    """OpenCV's `cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)` of a uint8 image.

    Output pixel i looks at `p = float32((i + 0.5) * scale - 0.5)`, `scale = 1 / (size_out / size_in)` in float64, and
    mixes pixels floor(p) and floor(p) + 1 with weights of 11 fractional bits: along the width exactly, then along the
    height as `(((b0 * (row0 >> 4)) >> 16) + ((b1 * (row1 >> 4)) >> 16) + 2) >> 2`. Halving both sides is
    `(a + b + c + d + 2) >> 2` instead. It never smooths otherwise: shrinking by more than two skips pixels.

    Source: OpenCV, modules/imgproc/src/resize.cpp (resize, HResizeLinear, VResizeLinear of uchar, ResizeAreaFast).
    Equal to OpenCV 4.10, 4.12 and 5.0 on x86-64.
    """
    rows, columns = image.shape[:2]
    if (rows, columns) == (height, width):
        return image
    if (rows, columns) == (2 * height, 2 * width):
        return opencv_area(image, height, width)
    return _opencv_mixed(image, _opencv_positions(rows, height), _opencv_positions(columns, width))


def opencv_area(image: Image, height: int, width: int) -> Image:
    """OpenCV's `cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)` of a uint8 image.

    Shrinking, an output pixel is the mean of the area that it covers, pixels at its border by their parts: sums of
    float32 products, along the width and then along the height, in the order of the pixels, rounded to nearest, ties to
    even. Where both sides shrink by whole numbers it is `round(sum * float32(1 / pixels))`, and of 2 x 2 pixels
    `(a + b + c + d + 2) >> 2`. If a side grows, `opencv_linear`'s weights mix pixels floor(i * scale) and the next
    at the places `(i + 1) - (floor(i * scale) + 1) / scale` of float32, or at 0 where that is negative.

    Source: OpenCV, modules/imgproc/src/resize.cpp (resize, computeResizeAreaTab, ResizeArea_Invoker,
    ResizeAreaFast_Invoker). Equal to OpenCV 4.10, 4.12 and 5.0 on x86-64.
    """
    rows, columns = image.shape[:2]
    if (rows, columns) == (height, width):
        return image
    if min(rows / height, columns / width) < 1:
        return _opencv_mixed(image, *(_opencv_positions(*sides, True) for sides in ((rows, height), (columns, width))))
    if not (rows % height or columns % width):
        down, across = rows // height, columns // width
        total = image.reshape(height, down, width, across, -1).sum((1, 3), dtype=np.int64)
        x = np.asarray(total, np.float32) * np.float32(1 / (down * across))
        return np.asarray(total + 2 >> 2 if (down, across) == (2, 2) else np.rint(x), np.uint8)
    x = image.astype(np.float32)
    for axis, size in ((1, width), (0, height)):
        first, weights = _opencv_parts(x.shape[axis], size)
        last, column = x.shape[axis] - 1, (1, -1, 1) if axis else (-1, 1, 1)
        total = np.zeros((x.shape[0], size, x.shape[2]) if axis else (size, *x.shape[1:]), np.float32)
        for tap, weight in enumerate(weights):
            total += x.take(np.minimum(first + tap, last), axis) * weight.reshape(column)
        x = total
    return np.asarray(np.clip(np.rint(x), 0, 255), np.uint8)


def _opencv_parts(size_in: int, size_out: int) -> tuple[NDArray[np.int64], Floats]:
    """The first pixel that each output pixel covers, and the parts of it and its followers, (most, size_out)."""
    scale = 1.0 / (size_out / size_in)
    start = np.arange(size_out) * scale
    cell = np.minimum(scale, size_in - start)
    stop = np.minimum(np.floor(start + scale), size_in - 1)
    whole = np.minimum(np.ceil(start), stop)
    before, after = whole - start, start + scale - stop
    begun = before > 1e-3  # of a pixel; less of one doesn't count
    first = whole - begun
    tap = first + np.arange(int((stop - first).max()) + 1)[:, None]
    part = np.where(tap < whole, before, np.where(tap < stop, 1.0, np.minimum(np.minimum(after, 1.0), cell)))
    part = np.where((tap < stop) | ((tap == stop) & (after > 1e-3)), part / cell, 0.0)
    return first.astype(np.int64), part.astype(np.float32)


def _opencv_positions(size_in: int, size_out: int, area: bool = False) -> tuple[NDArray[np.int64], Floats]:
    scale = 1.0 / (size_out / size_in)
    if area:
        i = np.arange(size_out)
        whole = np.floor(i * scale)
        part = ((i + 1) - (whole + 1) * (size_out / size_in)).astype(np.float32)
        return whole.astype(np.int64), np.where(part <= 0, np.float32(0), part - np.floor(part))
    position = ((np.arange(size_out) + 0.5) * scale - 0.5).astype(np.float32)
    whole = np.floor(position)
    return whole.astype(np.int64), position - whole


def _opencv_mixed(
    image: Image, down: tuple[NDArray[np.int64], Floats], across: tuple[NDArray[np.int64], Floats]
) -> Image:
    """Each output pixel of the four around its position, which is given as whole pixels and a part."""
    rows, columns = image.shape[:2]
    place, part = across
    part = np.where((place < 0) | (place >= columns - 1), np.float32(0), part)  # columns end at the edge, rows don't
    left, right = (weight[:, None] for weight in _opencv_weights(part))
    place = np.clip(place, 0, columns - 1)
    pixels = image.astype(np.int32)
    lines = pixels[:, place] * left + pixels[:, np.minimum(place + 1, columns - 1)] * right >> 4
    place, part = down
    above, below = (weight[:, None, None] for weight in _opencv_weights(part))
    upper, lower = (lines[np.clip(row, 0, rows - 1)] for row in (place, place + 1))
    # Two weights add up to 2049 at most, so no clamp: 255 * 2049**2 / 2**22 + 0.5 = 255.75 before its fraction goes.
    return ((above * upper >> 16) + (below * lower >> 16) + 2 >> 2).astype(np.uint8)


def _opencv_weights(part: Floats) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    one = np.float32(1 << INTER_RESIZE_COEF_BITS)
    return np.rint((np.float32(1) - part) * one).astype(np.int32), np.rint(part * one).astype(np.int32)
