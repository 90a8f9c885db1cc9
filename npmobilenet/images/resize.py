"""Resizing as TensorFlow and Pillow do it, in NumPy, equal to them bit for bit.

"Bilinear" names several different functions; a model keeps its published accuracy only with the one that it was
evaluated with. Here are three: TensorFlow's (with and without half-pixel centres, neither smooths when it shrinks an
image), Pillow's (a filter that widens when it shrinks an image), and Pillow's nearest neighbour.

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
    factor = np.float32(scale)

    def pixels(ys: NDArray[np.int64], xs: NDArray[np.int64]) -> Floats:
        return image[ys[:, None], xs].astype(np.float32) * factor  # (height, width, C)

    top_left, bottom_left = pixels(y0, x0), pixels(y1, x0)
    dx, dy = dx[None, :, None], dy[:, None, None]
    top = top_left + (pixels(y0, x1) - top_left) * dx
    bottom = bottom_left + (pixels(y1, x1) - bottom_left) * dx
    return top + (bottom - top) * dy


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


# name -> (filter, support): the filter is zero beyond that distance.
FILTERS: dict[str, tuple[Callable[[NDArray[np.float64]], NDArray[np.float64]], float]] = {
    "bilinear": (triangle, 1.0),
    "bicubic": (cubic, 2.0),
}


def pillow_resize(image: Image, height: int, width: int, method: str) -> Image:
    """Pillow's `Image.resize((width, height), BILINEAR or BICUBIC)` of a uint8 image, `method` from `FILTERS`.

    Each output pixel is a weighted mean of the input pixels below a filter that is stretched by the scale when it
    shrinks an image. Weights are computed in float64, normalized to sum 1, rounded to 22 fractional bits; the sums are
    integers, rounded half up and clamped to uint8, first along the width, then along the height.

    Source: Pillow, src/libImaging/Resample.c (precompute_coeffs, normalize_coeffs_8bpc). Equal to Pillow 12.0 on
    x86-64. Pillow 13.0 takes the height first for some shapes, which changes values by one level of 255 here and there
    (by more where a cubic filter's overshoot is clamped). Here the width comes first for every shape, as in the
    versions with which models were published.
    """
    if width != image.shape[1]:
        image = _resample(image, 1, *_pillow_weights(image.shape[1], width, method))
    if height != image.shape[0]:
        image = _resample(image, 0, *_pillow_weights(image.shape[0], height, method))
    return image


def _pillow_weights(size_in: int, size_out: int, method: str) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """First input pixel (size_out,) and integer weights (taps, size_out) of every output pixel."""
    function, support = FILTERS[method]
    scale = size_in / size_out
    stretch = max(scale, 1.0)
    reach = support * stretch
    taps = math.ceil(reach) * 2 + 1
    center = (np.arange(size_out) + 0.5) * scale
    # Truncation towards zero is what C's cast does; negative values become 0 in any case.
    first = np.maximum(np.trunc(center - reach + 0.5), 0).astype(np.int64)
    end = np.minimum(np.trunc(center + reach + 0.5), size_in).astype(np.int64)
    weights = np.zeros((taps, size_out))
    total = np.zeros(size_out)
    for tap in range(taps):
        pixel = first + tap
        weight = function((pixel - center + 0.5) * (1.0 / stretch))
        weights[tap] = np.where(pixel < end, weight, 0.0)
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
    # The int32 sum can't overflow: |weights| add up to less than 1.3 (cubic), and 255 * 1.3 * 2**22 < 2**31.
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
