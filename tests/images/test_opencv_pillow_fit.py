"""The recipes `opencv`, `edge_impulse` and `teachable_machine` against worked values, goldens and the originals."""

from __future__ import annotations

import hashlib
import importlib.util
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npmobilenet.errors import InputError
from npmobilenet.images.example import draw_sunflower
from npmobilenet.images.recipes import RECIPES
from npmobilenet.images.resize import lanczos, opencv_area, opencv_linear, pillow_fit

F32 = np.float32
HAS_CV2 = importlib.util.find_spec("cv2") is not None  # not in the extras: the goldens below stand for it
# Side of the sunflower, (height, width), and the sha256's beginning of the bytes that OpenCV 5.0.0 gives on x86-64 for
# cv2.resize(draw_sunflower(side), (width, height), interpolation=cv2.INTER_LINEAR); 4.10 and 4.12 give the same.
GOLDENS = [
    (96, (48, 48), "ddd010c79d351d97"),
    (96, (96, 96), "82f32258eb74448e"),
    (96, (48, 40), "b66ee4456307f1d4"),
    (96, (31, 77), "3c5b3b58bf5b9a4d"),
    (96, (224, 160), "89edc16b31ceee7b"),
    (61, (96, 96), "48b695ce3ac668ac"),
    (224, (96, 97), "501d751f427c73ba"),
    (224, (1, 1), "e225821c45c8b667"),
    (7, (200, 3), "fd8c8d35466fda17"),
]
SIZES = st.tuples(*[st.integers(1, 60)] * 4)


def noise(height: int, width: int, seed: int, contrast: bool = False) -> np.ndarray:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return np.where(image > 127, 255, 0).astype(np.uint8) if contrast else image


def grey(rows: list[list[int]]) -> np.ndarray:
    return np.repeat(np.array(rows, np.uint8)[:, :, None], 3, axis=2)


def test_opencv_worked() -> None:
    """What cv2.resize (OpenCV 5.0.0) gives for pictures of six and four pixels."""
    image = grey([[0, 10, 255], [90, 200, 30]])
    wide = [[0, 4, 10, 157, 255], [45, 69, 105, 127, 143], [90, 134, 200, 98, 30]]
    assert opencv_linear(image, 3, 5)[:, :, 0].tolist() == wide
    tall = [[2, 194], [14, 182], [60, 133], [106, 84], [117, 72]]
    assert opencv_linear(image, 5, 2)[:, :, 2].tolist() == tall
    assert opencv_linear(grey([[0, 10], [255, 4]]), 1, 1)[:, :, 1].tolist() == [[67]]  # (269 + 2) >> 2


@pytest.mark.equal("resize", "opencv_linear", "OpenCV 4.10, 4.12 and 5.0, x86-64, by their goldens", "bits")
@pytest.mark.parametrize(("side", "size", "digest"), GOLDENS)
def test_opencv_goldens(side: int, size: tuple[int, int], digest: str) -> None:
    found = opencv_linear(draw_sunflower(side), *size)
    assert hashlib.sha256(found.tobytes()).hexdigest()[:16] == digest


def loop_opencv(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """The docstring of opencv_linear, pixel by pixel, in Python's whole numbers."""

    def place(i: int, size_in: int, size_out: int) -> tuple[int, np.float32]:
        p = F32((i + 0.5) * (1.0 / (size_out / size_in)) - 0.5)
        return int(np.floor(p)), p - np.floor(p)

    def weights(part: np.float32) -> tuple[int, int]:
        return round(float((F32(1) - part) * F32(2048))), round(float(part * F32(2048)))

    rows, columns = image.shape[:2]
    out = np.empty((height, width, 3), np.uint8)
    for y in range(height):
        top, dy = place(y, rows, height)
        b0, b1 = weights(dy)
        two = [min(max(row, 0), rows - 1) for row in (top, top + 1)]
        for x in range(width):
            left, dx = place(x, columns, width)
            a0, a1 = weights(F32(0) if left < 0 or left >= columns - 1 else dx)
            left = min(max(left, 0), columns - 1)
            right = min(left + 1, columns - 1)
            for c in range(3):
                above, below = (a0 * int(image[row, left, c]) + a1 * int(image[row, right, c]) for row in two)
                out[y, x, c] = ((b0 * (above >> 4) >> 16) + (b1 * (below >> 4) >> 16) + 2) >> 2
    return out


@settings(derandomize=True, max_examples=40, deadline=None)
@given(st.tuples(*[st.integers(1, 12)] * 4), st.booleans())
def test_opencv_equals_loops(sizes: tuple[int, int, int, int], contrast: bool) -> None:
    image = noise(*sizes[:2], sum(sizes), contrast)
    if sizes[:2] not in (sizes[2:], (2 * sizes[2], 2 * sizes[3])):
        np.testing.assert_array_equal(opencv_linear(image, *sizes[2:]), loop_opencv(image, *sizes[2:]))
    if HAS_CV2:
        import cv2

        for height, width in (sizes[2:], (sizes[0] * 2, sizes[1]), sizes[:2]):
            np.testing.assert_array_equal(opencv_linear(image, height, width), cv2.resize(image, (width, height)))
        halved = cv2.resize(np.tile(image, (2, 2, 1)), sizes[1::-1])
        np.testing.assert_array_equal(opencv_linear(np.tile(image, (2, 2, 1)), *sizes[:2]), halved)


# The same by interpolation=cv2.INTER_AREA: by whole numbers, by others, growing, growing in one direction only.
AREA_GOLDENS = [
    (96, (48, 48), "ddd010c79d351d97"),
    (96, (32, 48), "31e9e6e80aaa25bb"),
    (96, (24, 32), "908668bac81366c5"),
    (224, (96, 96), "18a76212b0061fff"),
    (224, (96, 97), "09b157927d387831"),
    (61, (7, 60), "284efeac54b165fd"),
    (61, (96, 96), "ff0ecb62cdd575f6"),
    (61, (30, 96), "4bf8412a7867e2dc"),
    (7, (200, 3), "9e96fdcf82dd97f2"),
    (224, (1, 1), "b98b1ff8bd2245f3"),
]


@pytest.mark.equal("resize", "opencv_area", "OpenCV 4.10, 4.12 and 5.0, x86-64, by their goldens", "bits")
@pytest.mark.parametrize(("side", "size", "digest"), AREA_GOLDENS)
def test_opencv_area_goldens(side: int, size: tuple[int, int], digest: str) -> None:
    found = opencv_area(draw_sunflower(side), *size)
    assert hashlib.sha256(found.tobytes()).hexdigest()[:16] == digest


@settings(derandomize=True, max_examples=60, deadline=None)
@given(SIZES, st.booleans())
def test_opencv_area_is_the_mean_of_what_is_covered(sizes: tuple[int, int, int, int], contrast: bool) -> None:
    """Shrinking: within rounding of the mean in float64, by each pixel's part of the area. All bits where cv2 is."""
    (rows, height), (columns, width) = (sorted(pair, reverse=True) for pair in (sizes[:2], sizes[2:]))
    image = noise(rows, columns, sum(sizes), contrast)
    parts = []
    for n, m in ((rows, height), (columns, width)):
        pixel, start = np.arange(n), np.arange(m)[:, None] * n / m
        parts.append(np.clip(np.minimum(pixel + 1, start + n / m) - np.maximum(pixel, start), 0, 1))
    mean = np.einsum("ir,jc,rck->ijk", *parts, image.astype(float)) * (height * width / (rows * columns))
    assert np.abs(opencv_area(image, height, width) - mean).max() < 0.51 + 255 * 2e-3
    if HAS_CV2:
        import cv2

        for h, w in ((height, width), (columns, rows), sizes[2:]):
            expected = cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA)
            np.testing.assert_array_equal(opencv_area(image, h, w), expected)


def test_edge_impulse_recipes() -> None:
    """Squash, crop or bars around a picture of 40 x 61 pixels, as the SDK cuts it."""
    image = noise(40, 61, 5)
    assert RECIPES["edge_impulse_squash"](image, 16, 24).tolist() == (opencv_area(image, 16, 24) / F32(255)).tolist()
    cut = opencv_area(image[:, (61 - 40) // 2 :][:, :40], 16, 16) / F32(255)
    np.testing.assert_array_equal(RECIPES["edge_impulse"](image, 16, 16), cut)
    cut = opencv_area(image[(40 - 30) // 2 :][:30], 16, 32) / F32(255)
    np.testing.assert_array_equal(RECIPES["edge_impulse"](image, 16, 32), cut)
    barred = RECIPES["edge_impulse_longest"](image, 16, 16)
    assert not barred[:3].any()
    assert not barred[13:].any()
    np.testing.assert_array_equal(barred[3:13], opencv_area(image, 10, 16) / F32(255))
    assert all(RECIPES[name](image, 16, 16).dtype == F32 for name in RECIPES)
    for name, thin in (("edge_impulse", noise(1, 9, 0)), ("edge_impulse_longest", noise(400, 1, 0))):
        with pytest.raises(InputError, match=r"too long and thin.*edge_impulse_squash"):
            RECIPES[name](thin, 32, 16)


def test_opencv_recipe() -> None:
    image = draw_sunflower(61)
    expected = opencv_linear(image, 32, 48).astype(F32) / F32(127.5) - F32(1)
    np.testing.assert_array_equal(RECIPES["opencv"](image, 32, 48), expected)


def test_lanczos_is_the_product_of_sincs() -> None:
    """To 1e-15 of NumPy's sinc, whose sine may differ from machine to machine."""
    x = np.linspace(-3.5, 3.5, 7001)
    expected = np.where((x >= -3) & (x < 3), np.sinc(x) * np.sinc(x / 3), 0)
    np.testing.assert_allclose(lanczos(x), expected, rtol=0, atol=1e-15)
    assert lanczos(np.array([0.0, 1.0, -2.0, -3.0, 3.0])).tolist() == [1, 0, 0, 0, 0]


def test_fit_takes_the_centre() -> None:
    """Of 40 x 61 pixels 40 x 40 remain, from column 10.5 on: what lies farther out than a filter reaches is gone."""
    image = np.zeros((40, 61, 3), np.uint8)
    image[:, :8], image[:, 53:] = 255, 255  # the outermost output pixels are centred on 11 and 50
    assert pillow_fit(image, 40, 40, "lanczos").max() == 0
    image[:, 8] = 255
    assert pillow_fit(image, 40, 40, "lanczos").max() > 0


@pytest.mark.equal("preprocessing", "teachable_machine", "Pillow's ImageOps.fit, order of passes as above", "bits")
@settings(derandomize=True, max_examples=60, deadline=None)
@given(SIZES, st.sampled_from(["lanczos", "lanczos", "bicubic", "bilinear"]), st.booleans())
def test_fit_equals_pillow(sizes: tuple[int, int, int, int], method: str, contrast: bool) -> None:
    pillow = pytest.importorskip("PIL.Image", reason="compares with Pillow: pip install 'npmobilenet[cli]'")
    from PIL import ImageOps

    def fit(image: np.ndarray) -> Any:
        resample = getattr(pillow.Resampling, method.upper())
        return np.asarray(ImageOps.fit(pillow.fromarray(image), (width, height), resample))

    image, (height, width) = noise(*sizes[:2], sum(sizes), contrast), sizes[2:]
    found, expected = pillow_fit(image, height, width, method), fit(image)
    if not np.array_equal(found, expected):  # Pillow 13 takes the height before the width for some shapes
        assert int(pillow.__version__.split(".")[0]) >= 13
        turned = pillow_fit(image.transpose(1, 0, 2), width, height, method).transpose(1, 0, 2)
        np.testing.assert_array_equal(turned, expected)
    if method == "lanczos" and np.array_equal(found, expected):
        values = RECIPES["teachable_machine"](image, height, width)
        np.testing.assert_array_equal(values, expected.astype(F32) / F32(127.5) - F32(1))
