"""Recipes against worked values, plain loops, TensorFlow, Keras and Pillow; guards of images and input tensors."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npmobilenet.errors import InputError
from npmobilenet.images.decoding import MAX_SIDE
from npmobilenet.images.recipes import (
    RECIPES,
    central_crop,
    get_recipe,
    preprocess,
    quantize_input,
    recipes,
    value_range,
)
from npmobilenet.images.resize import pillow_nearest, pillow_resize, tf_bilinear

F32 = np.float32
SIZES = st.tuples(*[st.integers(1, 40)] * 4)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def column(values: list[int]) -> np.ndarray:
    """An image one pixel wide, the same in all channels."""
    return np.repeat(np.array(values, np.uint8)[:, None, None], 3, axis=2)


@pytest.fixture(scope="module")
def tf() -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("tensorflow", reason="compares with TensorFlow: pip install tensorflow-cpu")


@pytest.fixture(scope="module")
def pillow() -> Any:
    return pytest.importorskip("PIL.Image", reason="compares with Pillow: pip install 'npmobilenet[cli]'")


# ---------------------------------------------------------------------------------------------------------------------
# Worked values


def test_tf1_bilinear_worked() -> None:
    image = np.array([[0, 100], [200, 255]], np.uint8)[:, :, None]
    expected = [  # positions 0, 0.5, 1, 1.5; the last lies beyond the image and repeats its edge
        [0, 50, 100, 100],
        [100, 138.75, 177.5, 177.5],
        [200, 227.5, 255, 255],
        [200, 227.5, 255, 255],
    ]
    np.testing.assert_array_equal(tf_bilinear(image, 4, 4)[:, :, 0], np.array(expected, F32))


def test_tf1_bilinear_does_not_smooth() -> None:
    np.testing.assert_array_equal(tf_bilinear(column([7, 255, 9, 255]), 2, 1)[:, 0, 0], F32([7, 9]))


def test_tf2_bilinear_worked() -> None:
    grown = tf_bilinear(column([0, 100]), 4, 1, half_pixel_centers=True)  # positions -0.25, 0.25, 0.75, 1.25
    np.testing.assert_array_equal(grown[:, 0, 0], F32([0, 25, 75, 100]))


def test_pillow_bilinear_worked() -> None:
    # Weights 0.75, 0.75, 0.25 of 1.75 and their mirror image: 255 * 0.25 / 1.75 = 36.4, 255 * 1.5 / 1.75 = 218.6.
    assert pillow_resize(column([0, 0, 255, 255]), 2, 1, "bilinear")[:, 0, 0].tolist() == [36, 219]


def test_pillow_bicubic_worked() -> None:
    # Doubling: the weights at distance 0.25, 0.75, 1.25, 1.75 are 222, 58, -18 and -6 / 256. Output 3 of 8 lies at
    # input 1.25, so it is (222 * 0 + 58 * 255 - 18 * 0 - 6 * 0) / 256 = 57.8 for the pixels 0, 0, 255, 0, 0.
    grown = pillow_resize(column([0, 0, 255, 0, 0]), 10, 1, "bicubic")[:, 0, 0]
    weight = {0.25: 222 / 256, 0.75: 58 / 256, 1.25: -18 / 256, 1.75: -6 / 256}
    expected = [max(round(255 * weight.get(abs((i + 0.5) / 2 - 2.5), 0)), 0) for i in range(10)]
    assert expected[4:6] == [221, 221]
    assert grown[3:7].tolist() == expected[3:7]


def test_pillow_nearest_worked() -> None:
    assert pillow_nearest(column([0, 1, 2, 3, 4]), 2, 1)[:, 0, 0].tolist() == [1, 3]


@pytest.mark.parametrize(("size", "left"), [(7, 7), (15, 15), (16, 14), (31, 29), (32, 28), (600, 526)])
def test_central_crop_worked(size: int, left: int) -> None:
    assert central_crop(np.zeros((size, 100, 3), np.uint8), 0.875).shape == (left, 88, 3)


def test_slim_crop_is_of_the_original_aspect_ratio() -> None:
    image = np.full((32, 64, 3), 255, np.uint8)
    image[2:30, 4:60] = 51  # what the crop leaves
    x = RECIPES["slim_inception_eval"](image, 8, 8)
    np.testing.assert_array_equal(x, np.full((8, 8, 3), (F32(51) * F32(1 / 255) - F32(0.5)) * F32(2)))
    assert RECIPES["whole_image"](image, 8, 8).max() == 1


@pytest.mark.parametrize("name", RECIPES)
def test_black_and_white(name: str) -> None:
    """Each recipe's smallest and largest value; float32 results of the formulas in the docstrings."""
    width = 9 if name == "edge_impulse_longest" else 13  # that one puts black bars beside others
    low, high = (RECIPES[name](np.full((9, width, 3), v, np.uint8), 7, 7) for v in (0, 255))
    if name.startswith(("torchvision", "timm_bicubic")):
        np.testing.assert_allclose(low[0, 0], [-2.117904, -2.035714, -1.804444], rtol=1e-6)
        np.testing.assert_allclose(high[0, 0], [2.248908, 2.428571, 2.64], rtol=1e-6)
    else:
        np.testing.assert_array_equal(low, np.full((7, 7, 3), value_range(name)[0], F32))
        np.testing.assert_array_equal(high, np.full((7, 7, 3), value_range(name)[1], F32))
    for x in (low, high):
        assert (x.dtype, x.shape) == (F32, (7, 7, 3))
        assert (x == x[0, 0]).all()


def test_shorter_side_and_centre_crop() -> None:
    """The aspect ratio is kept: 8 x 7 becomes 9 x 8 (8 = 7 * 256 // 224), then its middle 7 x 7."""
    image = np.zeros((8, 7, 3), np.uint8)
    image[:, :3] = 255  # left of the centre
    x = RECIPES["timm_tf"](image, 7, 7)
    resized = pillow_resize(image, int(8 * 8 / 7), 8, "bilinear")[1:8, 0:7]  # round(0.5) is 0, half to even
    np.testing.assert_array_equal(x, (resized.astype(F32) / F32(255) - F32(0.5)) / F32(0.5))


# ---------------------------------------------------------------------------------------------------------------------
# Plain loops and the originals


def loop_bilinear(image: np.ndarray, height: int, width: int, half_pixel: bool) -> np.ndarray:
    """The docstring of tf_bilinear, pixel by pixel."""

    def place(i: int, size_in: int, size_out: int) -> tuple[int, int, np.float32]:
        step = F32(size_in) / F32(size_out)
        p = (F32(i) + F32(0.5)) * step - F32(0.5) if half_pixel else F32(i) * step
        low, high = int(np.floor(p)), int(np.ceil(p))
        return max(low, 0), min(high, size_in - 1), p - F32(np.floor(p))

    out = np.empty((height, width, 3), F32)
    for y in range(height):
        y0, y1, dy = place(y, image.shape[0], height)
        for x in range(width):
            x0, x1, dx = place(x, image.shape[1], width)
            for c in range(3):
                a, b, d, e = (F32(image[i, j, c]) for i, j in ((y0, x0), (y0, x1), (y1, x0), (y1, x1)))
                top, bottom = a + (b - a) * dx, d + (e - d) * dx
                out[y, x, c] = top + (bottom - top) * dy
    return out


@settings(derandomize=True, max_examples=30, deadline=None)
@given(st.tuples(*[st.integers(1, 9)] * 4), st.booleans())
def test_tf_bilinear_equals_loops(sizes: tuple[int, int, int, int], half_pixel: bool) -> None:
    image = noise(*sizes[:2], seed=sum(sizes))
    expected = loop_bilinear(image, *sizes[2:], half_pixel)
    np.testing.assert_array_equal(tf_bilinear(image, *sizes[2:], half_pixel_centers=half_pixel), expected)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(SIZES, st.sampled_from(sorted(RECIPES)))
def test_any_size(sizes: tuple[int, int, int, int], name: str) -> None:
    image = noise(*sizes[:2])
    height, width = (sizes[2], sizes[2]) if name.startswith(("timm", "torchvision")) else sizes[2:]
    x = RECIPES[name](image, height, width)
    assert (x.dtype, x.shape) == (F32, (height, width, 3))
    assert np.abs(x).max() <= 2.65 * max(np.abs(value_range(name)))
    np.testing.assert_array_equal(x, RECIPES[name](np.asfortranarray(image), height, width))


CASES = [
    (600, 512, 224, 224),
    (17, 333, 96, 96),
    (224, 224, 224, 224),
    (1, 1, 5, 7),
    (31, 15, 192, 160),
    (301, 97, 3, 9),
]


@pytest.mark.equal("preprocessing", "slim_inception_eval, whole_image", "TensorFlow's own ops, step by step", "bits")
@pytest.mark.parametrize("sizes", CASES)
def test_slim_equals_tensorflow(tf: Any, sizes: tuple[int, int, int, int]) -> None:
    """Equal bits, step by step as preprocess_for_eval of TF-slim."""
    image = noise(*sizes[:2])
    for name, fraction in (("slim_inception_eval", 0.875), ("whole_image", 1.0)):
        x = tf.image.convert_image_dtype(image, tf.float32)
        x = tf.image.central_crop(x, fraction)
        x = tf.compat.v1.image.resize_bilinear(x[None], sizes[2:], align_corners=False)[0]
        expected = tf.multiply(tf.subtract(x, 0.5), 2.0).numpy()
        np.testing.assert_array_equal(RECIPES[name](image, *sizes[2:]), expected)


@pytest.mark.parametrize("sizes", CASES)
def test_tf2_and_keras_equal_the_originals(
    tf: Any, pillow: Any, tmp_path: Path, sizes: tuple[int, int, int, int]
) -> None:
    image, size = noise(*sizes[:2]), sizes[2:]
    mode_tf = tf.keras.applications.mobilenet_v2.preprocess_input
    expected = mode_tf(tf.image.resize(image, size).numpy())
    np.testing.assert_array_equal(RECIPES["tf2_bilinear"](image, *size), expected)
    pillow.fromarray(image).save(tmp_path / "image.png")
    for interpolation in ("nearest", "bilinear"):
        if interpolation == "bilinear" and not _pillow_takes_width_first(pillow):
            continue
        loaded = tf.keras.utils.load_img(tmp_path / "image.png", target_size=size, interpolation=interpolation)
        expected = mode_tf(tf.keras.utils.img_to_array(loaded))
        np.testing.assert_array_equal(RECIPES[f"keras_{interpolation}"](image, *size), expected)


def _pillow_takes_width_first(pillow: Any) -> bool:
    """Pillow 13 changed the order of the two passes for some shapes."""
    return int(pillow.__version__.split(".")[0]) < 13


@pytest.mark.equal("resize", "pillow_resize", "Pillow below 13; 1 level where 13 swaps its two passes", "bits")
@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.tuples(*[st.integers(1, 200)] * 4), st.sampled_from(["bilinear", "bicubic"]), st.booleans())
def test_pillow_resize_equals_pillow(sizes: tuple[int, int, int, int], method: str, contrast: bool) -> None:
    pillow = pytest.importorskip("PIL.Image")
    image = noise(*sizes[:2], seed=sum(sizes))
    if contrast:
        image = np.where(image > 127, 255, 0).astype(np.uint8)
    height, width = sizes[2:]
    found = pillow_resize(image, height, width, method)
    size, resample = (width, height), getattr(pillow.Resampling, method.upper())
    expected = np.asarray(pillow.fromarray(image).resize(size, resample))
    if not _pillow_takes_width_first(pillow) and not np.array_equal(found, expected):
        by_height = pillow_resize(image, height, image.shape[1], method)
        np.testing.assert_array_equal(pillow_resize(by_height, height, width, method), expected)
        # Rounding in another order; a cubic filter also overshoots, and is clamped, in another order.
        assert method == "bicubic" or np.abs(found.astype(int) - expected).max() <= 1
    else:
        np.testing.assert_array_equal(found, expected)
    # One pass alone leaves no choice of order.
    one_pass = np.asarray(pillow.fromarray(image).resize((width, image.shape[0]), resample))
    np.testing.assert_array_equal(pillow_resize(image, image.shape[0], width, method), one_pass)
    nearest = np.asarray(pillow.fromarray(image).resize(size, pillow.Resampling.NEAREST))
    np.testing.assert_array_equal(pillow_nearest(image, height, width), nearest)


# ---------------------------------------------------------------------------------------------------------------------
# Real images through LiteRT


@pytest.fixture(scope="module")
def litert(data: Path) -> Any:
    module = pytest.importorskip("ai_edge_litert.interpreter", reason="pip install 'npmobilenet[test]'")
    model = module.Interpreter(str(data / "weights" / "mobilenet_v2_1.0_224_float.tflite"), num_threads=1)
    model.allocate_tensors()
    source, target = model.get_input_details()[0]["index"], model.get_output_details()[0]["index"]

    def scores(x: np.ndarray) -> np.ndarray:
        model.set_tensor(source, x)
        model.invoke()
        return np.array(model.get_tensor(target)[0])

    return scores


@pytest.mark.parametrize(("recipe", "probability"), [("slim_inception_eval", 0.445), ("whole_image", 0.889)])
def test_grace_hopper(litert: Any, data: Path, recipe: str, probability: float) -> None:
    pytest.importorskip("PIL")
    scores = litert(preprocess(data / "images" / "photos" / "grace_hopper.bmp", 224, recipe))
    assert scores.argmax() == 653
    # Half a unit of the third decimal as measured, and as much again for another CPU's XNNPACK kernels.
    assert abs(scores[653] - probability) < 1e-3


@pytest.mark.parametrize(("recipe", "top1"), [("slim_inception_eval", 93), ("whole_image", 87)])
def test_imagenet100(litert: Any, data: Path, recipe: str, top1: int) -> None:
    pytest.importorskip("PIL")
    from npmobilenet.images.labels import synonyms

    ids = {name: i + 1 for i, line in enumerate(synonyms()) for name in line.split(", ")}
    hits = 0
    for path in sorted((data / "images" / "imagenet100").glob("*.JPEG")):
        name = path.stem.partition("_")[2].replace("_", " ")
        hits += litert(preprocess(path, 224, recipe)).argmax() == ids[name]
    assert abs(hits - top1) <= 1  # JPEG decoders differ in the last bit


# ---------------------------------------------------------------------------------------------------------------------
# preprocess, recipes, quantize_input


def test_preprocess_takes_one_many_and_batches() -> None:
    images = [noise(20, 30), noise(9, 5)]
    x = preprocess(images, (6, 8))
    assert (x.shape, x.dtype, x.flags.c_contiguous) == ((2, 6, 8, 3), F32, True)
    np.testing.assert_array_equal(preprocess(images[1], (6, 8)), x[1:])
    batch = np.stack([images[0]] * 3)
    np.testing.assert_array_equal(preprocess(batch, (6, 8)), np.repeat(x[:1], 3, axis=0))
    assert preprocess(tuple(images), 5, "timm_tf").shape == (2, 5, 5, 3)


def test_recipe_list() -> None:
    listed = recipes()
    assert next(iter(listed)) == "slim_inception_eval"
    assert all(20 < len(text) < 120 for text in listed.values())
    assert set(listed) == set(RECIPES)


@pytest.mark.parametrize("size", [0, -1, (224,), (224, 224, 3), (1.5, 2), (0, 5), 10**9])
def test_bad_size(size: Any) -> None:
    with pytest.raises(InputError, match=r"expected \(height, width\)"):
        preprocess(noise(4, 4), size)


def test_unknown_recipe() -> None:
    with pytest.raises(InputError, match="did you mean 'whole_image'"):
        get_recipe("whole-image")
    with pytest.raises(InputError, match="The recipes are slim_inception_eval, "):
        preprocess(noise(4, 4), 8, "xyz")


def test_square_and_long_thin() -> None:
    with pytest.raises(InputError, match="square inputs"):
        preprocess(noise(4, 4), (8, 9), "torchvision")
    with pytest.raises(InputError, match="too long and thin"):
        preprocess(np.zeros((1, MAX_SIDE, 3), np.uint8), 224, "timm_tf")
    assert preprocess(np.zeros((1, MAX_SIDE, 3), np.uint8), 224, "keras_bilinear").shape == (1, 224, 224, 3)


def test_quantize_rounds_half_away_from_zero_and_clamps() -> None:
    x = F32([0.25, -0.25, 0.75, -0.75, 0.2499999, 0, 1e9, -1e9, 3e38])
    assert quantize_input(x, 0.5, 10, "uint8").tolist() == [11, 9, 12, 8, 10, 10, 255, 0, 255]
    assert quantize_input(x, 0.5, -3, "int8").tolist() == [-2, -4, -1, -5, -3, -3, 127, -128, 127]
    assert quantize_input(F32([0.49999997, -0.49999997]), 1.0, 0, "int8").tolist() == [0, 0]
    assert quantize_input(F32([1e30]), 1e-30, 0, "int8").tolist() == [127]


def test_quantize_returns_the_pixels_when_the_scale_is_theirs() -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    x = RECIPES["whole_image"](pixels, 16, 16)
    np.testing.assert_array_equal(quantize_input(x + F32(1), 2 / 255, 0, "uint8"), pixels)
    assert quantize_input(x, 1 / 128, 128, "uint8").ravel()[[0, -1]].tolist() == [0, 255]


@pytest.mark.parametrize(
    ("x", "scale", "dtype", "message"),
    [
        (F32([1]), 1.0, "int16", "expected 'uint8' or 'int8'"),
        (F32([1]), 0.0, "int8", "positive"),
        (F32([1]), float("nan"), "int8", "positive"),
        (F32([np.nan]), 1.0, "int8", "finite float32"),
        (np.array([1.0]), 1.0, "int8", "finite float32"),
    ],
)
def test_quantize_refuses(x: np.ndarray, scale: float, dtype: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        quantize_input(x, scale, 0, dtype)


def test_recipes_for_other_ranges_differ_in_scale_only() -> None:
    image = np.random.default_rng(3).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    pixels, unit = RECIPES["raw_pixels"](image, 9, 11), RECIPES["unit_range"](image, 9, 11)
    assert unit.min() >= 0
    assert unit.max() <= 1
    np.testing.assert_allclose(unit * 255, pixels, rtol=1e-6)
    np.testing.assert_allclose(RECIPES["whole_image"](image, 9, 11), pixels / 127.5 - 1, atol=1e-6)
