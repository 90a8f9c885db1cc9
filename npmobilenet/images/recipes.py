"""From a uint8 image to a model's input tensor: named recipes, the same bits on every machine.

A recipe is a pure function `recipe(image, height, width)`: a uint8 image (H, W, 3), RGB, of any size, to float32
(height, width, 3). `recipes()` lists them; a model names its own (`ModelInfo.preprocessing`).
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from npmobilenet.arithmetic.fixedpoint import clamped32, round_away32
from npmobilenet.errors import InputError
from npmobilenet.images.decoding import CHANNELS, GREY, MAX_PIXELS, Source, load_images
from npmobilenet.images.edge_impulse import edge_impulse, edge_impulse_longest, edge_impulse_squash
from npmobilenet.images.resize import opencv_linear, pillow_fit, pillow_nearest, pillow_resize, tf_bilinear

Image = NDArray[np.uint8]
Floats = NDArray[np.float32]
Recipe = Callable[[Image, int, int], Floats]

DEFAULT = "slim_inception_eval"

HALF = np.float32(0.5)
TWO = np.float32(2.0)
# torchvision, torchvision/transforms/_presets.py (ImageClassification); timm, timm/data/constants.py.
IMAGENET_MEAN: Floats = np.array([0.485, 0.456, 0.406], np.float32)
IMAGENET_STD: Floats = np.array([0.229, 0.224, 0.225], np.float32)
INCEPTION_MEAN: Floats = np.array([0.5, 0.5, 0.5], np.float32)
INCEPTION_STD: Floats = np.array([0.5, 0.5, 0.5], np.float32)
NO_MEAN: Floats = np.zeros(3, np.float32)
NO_STD: Floats = np.ones(3, np.float32)


# ---------------------------------------------------------------------------------------------------------------------
# TensorFlow


def slim_inception_eval(image: Image, height: int, width: int) -> Floats:
    """TF-slim's evaluation: central 87.5 % of height and width, TF1 bilinear, [-1, 1].

    `x = (tf1_bilinear(crop(image * float32(1/255))) - 0.5) * 2`. The crop keeps the aspect ratio of the image, and the
    resize does not, so a picture that isn't square is squeezed. This is how TF-slim's published accuracies were
    measured, V1, V2, V3 and EdgeTPU.

    Source: tensorflow/models, research/slim/preprocessing/inception_preprocessing.py (preprocess_for_eval), which
    preprocessing_factory.py names for every mobilenet.
    """
    return whole_image(central_crop(image, 0.875), height, width)


def whole_image(image: Image, height: int, width: int) -> Floats:
    """The whole image, TF1 bilinear, [-1, 1]: `slim_inception_eval` without its crop.

    `x = (tf1_bilinear(image * float32(1/255)) - 0.5) * 2`. What most demo programs do; better where the object fills
    the picture, a few points worse on ImageNet. Source: as above, with `central_fraction=None`.
    """
    resized = tf_bilinear(image, height, width, scale=1 / 255)
    return (resized - HALF) * TWO


def tf2_bilinear(image: Image, height: int, width: int) -> Floats:
    """The whole image, TF2 bilinear (half-pixel centres, no antialiasing), [-1, 1].

    `x = tf.image.resize(image, (height, width)) / 127.5 - 1`: what a Keras training script does that reads its pictures
    with `keras.utils.image_dataset_from_directory` and calls `preprocess_input` of MobileNet V1 or V2.

    Source: TensorFlow, tensorflow/python/ops/image_ops_impl.py (resize_images_v2); Keras 3.15,
    keras/src/applications/imagenet_utils.py (mode "tf").
    """
    return keras_scale(tf_bilinear(image, height, width, half_pixel_centers=True))


def unit_range(image: Image, height: int, width: int) -> Floats:
    """The whole image, TF1 bilinear, [0, 1]: `tf1_bilinear(image * float32(1/255))`.

    What .tflite files with the metadata mean 0, std 255 want (MediaPipe's embedders).
    Source: TensorFlow Lite metadata schema, NormalizationOptions.
    """
    return tf_bilinear(image, height, width, scale=1 / 255)


def raw_pixels(image: Image, height: int, width: int) -> Floats:
    """The whole image, TF1 bilinear, [0, 255]: for models that scale their input themselves.

    Keras' V3 built with `include_preprocessing` does, once converted to .tflite.
    """
    return tf_bilinear(image, height, width)


# The range of values of the recipes for which it isn't [-1, 1] or near it.
RANGES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "unit_range": (0.0, 1.0),
        "timm_unit": (0.0, 1.0),
        **dict.fromkeys(("edge_impulse", "edge_impulse_squash", "edge_impulse_longest"), (0.0, 1.0)),
        "raw_pixels": (0.0, 255.0),
    }
)


def value_range(recipe: str) -> tuple[float, float]:
    """The range that a recipe's values lie in, or near which they lie."""
    return RANGES.get(recipe, (-1.0, 1.0))


def central_crop(image: Image, fraction: float) -> Image:
    """The central `fraction` (0 to 1) of each side: `int((size - size * fraction) / 2)` pixels go at each end.

    Source: TensorFlow, tensorflow/python/ops/image_ops_impl.py (central_crop), float64 arithmetic.
    """
    top, left = (int((size - size * fraction) / 2) for size in image.shape[:2])
    return image[top : image.shape[0] - top, left : image.shape[1] - left]


# ---------------------------------------------------------------------------------------------------------------------
# Keras


def keras_nearest(image: Image, height: int, width: int) -> Floats:
    """Keras as documented: `load_img(path, target_size=...)`, whose default is nearest neighbour, then [-1, 1].

    `x = pillow_nearest(image) / 127.5 - 1`. For `keras.applications` MobileNet and MobileNetV2 weights as the Keras
    documentation uses them. Source: Keras 3.15, keras/src/utils/image_utils.py (load_img) and
    keras/src/applications/imagenet_utils.py (preprocess_input, mode "tf").
    """
    return keras_scale(pillow_nearest(image, height, width).astype(np.float32))


def keras_bilinear(image: Image, height: int, width: int) -> Floats:
    """Keras with `load_img(path, target_size=..., interpolation="bilinear")`: Pillow's bilinear, then [-1, 1].

    `x = pillow_bilinear(image) / 127.5 - 1`; the resized image is uint8. Source: as for `keras_nearest`.
    """
    return keras_scale(pillow_resize(image, height, width, "bilinear").astype(np.float32))


def teachable_machine(image: Image, height: int, width: int) -> Floats:
    """Teachable Machine: centre crop to the input's form, Pillow's Lanczos, [-1, 1].

    `x = ImageOps.fit(image, (width, height), LANCZOS) / 127.5 - 1`; the resized image is uint8. Source:
    googlecreativelab/teachablemachine-community, snippets/markdown/image/tensorflow/keras.md.
    """
    return keras_scale(pillow_fit(image, height, width, "lanczos").astype(np.float32))


def opencv(image: Image, height: int, width: int) -> Floats:
    """The whole image, OpenCV's INTER_LINEAR, [-1, 1]: for models trained on pictures from cv2.resize.

    `x = cv2.resize(image, (width, height)) / 127.5 - 1`; the resized image is uint8. Colours are red, green, blue:
    what cv2.imread gives has them the other way round. Source: as for `resize.opencv_linear`.
    """
    return keras_scale(opencv_linear(image, height, width).astype(np.float32))


def keras_scale(x: Floats) -> Floats:
    """`x / 127.5 - 1` in float32, a division and a subtraction (Keras, imagenet_utils.py, mode "tf")."""
    return x / np.float32(127.5) - np.float32(1.0)


# ---------------------------------------------------------------------------------------------------------------------
# PyTorch


def torchvision(image: Image, height: int, width: int) -> Floats:
    """torchvision V1 weights, timm bilinear: shorter side to 256, Pillow bilinear, centre crop, ImageNet mean and std.

    256 stands for `size * 8 / 7` (224 / 0.875). For torchvision's IMAGENET1K_V1 weights of MobileNet V2 and V3, and for
    timm's weights whose `interpolation` is bilinear. Source: torchvision,
    torchvision/transforms/_presets.py (ImageClassification); timm, timm/data/transforms_factory.py
    (transforms_imagenet_eval) and the `_cfg` defaults of timm/models/mobilenetv3.py.
    """
    return _resize_and_crop(image, height, width, "bilinear", height * 256 // 224, IMAGENET_MEAN, IMAGENET_STD)


def torchvision_232(image: Image, height: int, width: int) -> Floats:
    """torchvision V2 weights: shorter side to 232, Pillow bilinear, centre crop, ImageNet mean and std.

    For IMAGENET1K_V2 of mobilenet_v2 and mobilenet_v3_large. Source: torchvision,
    torchvision/models/mobilenetv2.py (MobileNet_V2_Weights, resize_size=232).
    """
    return _resize_and_crop(image, height, width, "bilinear", height * 232 // 224, IMAGENET_MEAN, IMAGENET_STD)


def timm_bicubic(image: Image, height: int, width: int) -> Floats:
    """timm's own weights: shorter side to 256 (size / 0.875), Pillow bicubic, centre crop, ImageNet mean and std.

    For mobilenetv2_*, mobilenetv3_large_100.ra_in1k, mobilenetv3_small_*.lamb_in1k, mobilenetv4_conv_small. Source:
    timm, timm/models/efficientnet.py (_cfg), timm/models/mobilenetv3.py (default_cfgs, interpolation="bicubic") and
    timm/data/transforms_factory.py (transforms_imagenet_eval).
    """
    return _resize_and_crop(image, height, width, "bicubic", height * 256 // 224, IMAGENET_MEAN, IMAGENET_STD)


def timm_tf(image: Image, height: int, width: int) -> Floats:
    """timm's `tf_mobilenetv3_*`: shorter side to 256 (size / 0.875), Pillow bilinear, centre crop, [-1, 1].

    Mean and standard deviation are 0.5. TensorFlow's weights ported to PyTorch are evaluated in this way; Hugging
    Face's MobileNet V1 and V2 image processors do the same. Source: timm, timm/models/mobilenetv3.py (default_cfgs,
    IMAGENET_INCEPTION_MEAN and _STD).
    """
    return _resize_and_crop(image, height, width, "bilinear", height * 256 // 224, INCEPTION_MEAN, INCEPTION_STD)


def _of_timm(name: str, method: str, crop: float, mean: Floats, std: Floats, whose: str) -> Recipe:
    """A recipe of timm's: shorter side to `floor(size / crop)`, centre crop, `(pixel / 255 - mean) / std`."""

    def recipe(image: Image, height: int, width: int) -> Floats:
        return _resize_and_crop(image, height, width, method, math.floor(height / crop), mean, std)

    numbers = {id(IMAGENET_MEAN): "ImageNet mean and std", id(INCEPTION_MEAN): "[-1, 1]", id(NO_MEAN): "[0, 1]"}
    recipe.__name__ = recipe.__qualname__ = name
    recipe.__doc__ = (
        f"timm's {whose}: shorter side to size / {crop:g}, Pillow {method}, centre crop, {numbers[id(mean)]}."
    )
    return recipe


# timm, timm/data/transforms_factory.py (transforms_imagenet_eval); crop_pct, interpolation, mean and std as in the
# default_cfgs of timm/models/efficientnet.py and mobilenetv3.py.
TIMM_RECIPES = tuple(
    _of_timm(name, method, crop, *numbers, whose)
    for name, method, crop, numbers, whose in (
        ("timm_bicubic_90", "bicubic", 0.9, (IMAGENET_MEAN, IMAGENET_STD), "mobilenet_edgetpu_100"),
        ("timm_bicubic_95", "bicubic", 0.95, (IMAGENET_MEAN, IMAGENET_STD), "larger mobilenetv4_conv"),
        ("timm_bicubic_100", "bicubic", 1.0, (IMAGENET_MEAN, IMAGENET_STD), "mobilenetv4 of ImageNet-12k"),
        ("timm_half_bicubic", "bicubic", 0.875, (INCEPTION_MEAN, INCEPTION_STD), "mobilenetv1, mobilenetv4 below 1"),
        ("timm_half_bicubic_90", "bicubic", 0.9, (INCEPTION_MEAN, INCEPTION_STD), "mobilenetv1_125"),
        ("timm_half_bicubic_95", "bicubic", 0.95, (INCEPTION_MEAN, INCEPTION_STD), "mobilenetv3_large_100.ra4"),
        ("timm_half_95", "bilinear", 0.95, (INCEPTION_MEAN, INCEPTION_STD), "mobilenetv3_large_150d"),
        ("timm_unit", "bilinear", 0.875, (NO_MEAN, NO_STD), "mobilenetv3_large_100.miil"),
    )
)


def _resize_and_crop(
    image: Image,
    height: int,
    width: int,
    method: str,
    side: int,
    mean: Floats,
    std: Floats,
) -> Floats:
    """Shorter side to `side`, centre crop, `(pixel / 255 - mean) / std` in float32.

    The longer side becomes `int(side * longer / shorter)`, the crop begins at `round((side - size) / 2)`, half to even.
    Source: torchvision, torchvision/transforms/functional.py (_compute_resized_output_size, center_crop, normalize).
    """
    if height != width:
        raise InputError(
            f"this recipe is defined for square inputs, and the model's is {height} x {width}; "
            f"use '{DEFAULT}' or 'whole_image'"
        )
    shorter = min(image.shape[:2])
    new_height, new_width = (int(side * size / shorter) for size in image.shape[:2])
    if new_height * new_width > MAX_PIXELS:
        raise InputError(
            f"an image of {image.shape[0]} x {image.shape[1]} pixels, its shorter side brought to {side}, would have "
            f"{new_height} x {new_width}: too long and thin for this recipe; use '{DEFAULT}' or 'whole_image'"
        )
    resized = pillow_resize(image, new_height, new_width, method)
    top, left = round((new_height - height) / 2), round((new_width - width) / 2)
    crop = resized[top : top + height, left : left + width].astype(np.float32) / np.float32(255)
    return (crop - mean) / std


# ---------------------------------------------------------------------------------------------------------------------
# The registry

RECIPES: Mapping[str, Recipe] = MappingProxyType({
    function.__name__: function
    for function in (
        slim_inception_eval, whole_image, tf2_bilinear, keras_nearest, keras_bilinear, teachable_machine, opencv,
        edge_impulse, edge_impulse_squash, edge_impulse_longest, torchvision, torchvision_232, timm_bicubic, timm_tf,
        *TIMM_RECIPES, unit_range, raw_pixels,
    )
})  # fmt: skip


def recipes() -> dict[str, str]:
    """Name and one-line description of every recipe, the default first."""
    return {name: (function.__doc__ or "").partition("\n")[0] for name, function in RECIPES.items()}


def get_recipe(name: str) -> Recipe:
    """The recipe of that name. Raises `InputError`, with the nearest names, if there is none."""
    if isinstance(name, str) and name in RECIPES:
        return RECIPES[name]
    near = difflib.get_close_matches(str(name), RECIPES, n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    raise InputError(f"unknown preprocessing recipe {name!r}: {hint}The recipes are {', '.join(RECIPES)}")


def preprocess(images: Source, size: int | tuple[int, int], recipe: str = DEFAULT, channels: int = CHANNELS) -> Floats:
    """Image or images to the input tensor (N, height, width, channels), float32, C order.

    `images`: one image (a path, the bytes of a file, a Pillow image, a uint8 array (H, W, 3)), a batch (N, H, W, 3), or
    a list or tuple of images, whose sizes may differ. `size`: (height, width), or one number for both. With `channels`
    1, images turn grey first (`decoding.to_grey`), and the recipe's first channel is what counts.

    Raises `InputError` for anything else (see images/decoding.py) and for an unknown recipe.
    """
    function = get_recipe(recipe)
    height, width = _size(size)
    loaded = load_images(images, channels=channels)
    if channels == CHANNELS:
        return np.stack([function(image, height, width) for image in loaded])
    return np.stack([function(np.repeat(image, CHANNELS, axis=2), height, width)[:, :, :GREY] for image in loaded])


def _size(size: int | tuple[int, int]) -> tuple[int, int]:
    pair = (size, size) if isinstance(size, (int, np.integer)) else tuple(size)
    good = len(pair) == 2 and all(isinstance(s, (int, np.integer)) and 1 <= s <= 8192 for s in pair)
    if not good:
        raise InputError(f"size {size!r}: expected (height, width), each from 1 to 8192")
    return int(pair[0]), int(pair[1])


def quantize_input(x: Floats, scale: float, zero_point: int, dtype: str) -> NDArray[np.uint8] | NDArray[np.int8]:
    """float32 to a model's integer input: `clamp(round(x / float32(scale)) + zero_point)`, dtype uint8 or int8.

    The division is float32, `round` is half away from zero, the clamp is to the dtype's range. `x` is what a recipe
    gives, (N, H, W, 3) or any shape; `scale` and `zero_point` are the input tensor's own (1/128 and 128 in many uint8
    files, which is not the same as going back to the pixels).

    Raises `InputError` for another dtype, values that aren't float32 or not finite, a scale that isn't positive.
    Source: TensorFlow Lite, tensorflow/lite/kernels/internal/reference/quantize.h (AffineQuantize), TfLiteRound.
    """
    if dtype not in ("uint8", "int8"):
        raise InputError(f"input dtype '{dtype}': expected 'uint8' or 'int8'")
    if not (np.float32(scale) > 0 and np.isfinite(np.float32(scale))):
        raise InputError(f"input scale {scale}: expected a positive number")
    x = np.asarray(x)
    if x.dtype != np.float32 or not np.isfinite(x).all():
        raise InputError(f"values to quantize ({x.dtype}): expected finite float32 values, as a recipe makes them")
    limits = np.iinfo(dtype)
    with np.errstate(over="ignore", invalid="ignore"):  # an infinite quotient is clamped
        whole = clamped32(round_away32(x / np.float32(scale)), zero_point, limits.min, limits.max)
    quantized: NDArray[np.uint8] | NDArray[np.int8] = whole.astype(dtype)
    return quantized
