"""More Keras models, of layers and operations that heads and small networks add to a MobileNet's own.

Each function makes one, of the module keras or tf_keras.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from operator import attrgetter
from types import SimpleNamespace
from typing import Any

import numpy as np


def segmentation(k: Any) -> Any:
    """As the guide to segmentation has it: a base of several outputs, and transposed convolutions up from them."""
    b = k.applications.MobileNetV2((64, 64, 3), alpha=0.35, include_top=False, weights=None)
    names = ("block_1_expand_relu", "block_3_expand_relu", "block_6_expand_relu", "block_13_expand_relu")
    down = k.Model(b.input, [b.get_layer(name).output for name in names])
    inputs = k.Input((64, 64, 3))
    *skips, x = down(inputs)
    for width, skip in zip((24, 16, 8), skips[::-1], strict=True):
        up = k.Sequential([
            k.layers.Conv2DTranspose(width, 3, strides=2, padding="same", use_bias=False),
            k.layers.BatchNormalization(), k.layers.ReLU(),
        ])  # fmt: skip
        x = k.layers.Concatenate()([up(x), skip])
    x = k.layers.Conv2DTranspose(4, (5, 4), strides=(3, 2), activation="relu")(x)
    return k.Model(inputs, k.layers.Conv2DTranspose(3, 2, strides=2, padding="same")(x))


def norms(k: Any) -> Any:
    """Norms over channels, groups and vectors, and the cosine of two."""
    x = inputs = k.Input((32, 32, 3))
    x = k.layers.LayerNormalization(epsilon=1e-6)(k.layers.Conv2D(16, 4, strides=4)(x))
    x = k.layers.GroupNormalization(4)(k.layers.DepthwiseConv2D(3, padding="same")(x))
    x = k.layers.GlobalAveragePooling2D()(x)
    a = k.layers.UnitNormalization()(k.layers.LayerNormalization(scale=False)(k.layers.Dense(8)(x)))
    b = k.layers.Dense(8, activation="tanh")(x)
    return k.Model(inputs, [a, k.layers.Dot(axes=1, normalize=True)([a, b])])


def attention_by_hand(k: Any) -> Any:
    """Attention to channels and places, as CBAM has it: pools, a shared head, means and maxima over channels."""
    x = inputs = k.Input((32, 32, 3))
    x = k.layers.Conv2D(16, 3, strides=2, activation="relu")(x)
    first, second = k.layers.Dense(4, activation="relu"), k.layers.Dense(16)
    pools = (k.layers.GlobalAveragePooling2D(keepdims=True)(x), k.layers.GlobalMaxPooling2D(keepdims=True)(x))
    s = k.layers.Add()([second(first(pool)) for pool in pools])
    x = k.layers.Multiply()([x, k.layers.Activation("sigmoid")(s)])
    o = _operations(k)
    both = k.layers.Concatenate()([o.mean(x, axis=-1, keepdims=True), o.max(x, axis=-1, keepdims=True)])
    x = k.layers.Multiply()([x, k.layers.Conv2D(1, 7, padding="same", activation="sigmoid")(both)])
    return k.Model(inputs, k.layers.Dense(3)(k.layers.GlobalAveragePooling2D()(x)))


def merges(k: Any) -> Any:
    """Merging layers, and rectifiers with all their arguments."""
    x = inputs = k.Input((16, 16, 3))
    x = k.layers.PReLU()(k.layers.Conv2D(8, 3, strides=2)(x))
    parts = [k.layers.Conv2D(8, 1)(x) for _ in range(3)]
    x = k.layers.maximum([x, k.layers.minimum(parts), k.layers.average(parts[:2])])
    x = k.layers.ReLU(max_value=2.0, negative_slope=0.1)(k.layers.Conv2D(8, 1)(x))
    x = k.layers.PReLU(shared_axes=[1, 2])(k.layers.Conv2D(8, 1)(x))
    x = k.layers.Concatenate()([k.layers.GlobalMaxPooling2D()(x), k.layers.GlobalAveragePooling2D()(x)])
    return k.Model(inputs, k.layers.Dense(3)(k.layers.PReLU()(k.layers.Dense(6)(x))))


def operations(k: Any) -> Any:
    """Operations instead of layers, some on arrays: pixels less their means, slices, sums, a logarithm of softmax."""
    o = _operations(k)
    x = inputs = k.Input((40, 40, 3))
    x = (o.resize(x, (32, 32)) - _array(103.9, 116.8, 123.7)) / _array(58.0, 57.0, 57.5)
    x = k.layers.Conv2D(8, 3, strides=2, padding="same")(x * _array(1.0, 0.9, 1.1))
    x = o.clip(x[:, 1:-1, ::2, :6], -1.5, 2.0)
    x = o.transpose(o.maximum(x, o.square(x) * 0.1 - o.abs(x)), (0, 2, 1, 3))
    x = x / (o.sqrt(o.abs(x) + 0.5) + 1.0)
    y = o.max(x, axis=[1, 2]) + o.sum(x, axis=[1, 2]) * 0.01 - o.min(x, axis=(1, 2))
    y = o.minimum(y, 2.0 / (o.mean(x, axis=[1, 2]) + 3.0))
    y = o.squeeze(o.expand_dims(y, 1), 1)
    return k.Model(inputs, o.log_softmax(k.layers.Dense(3)(y)))


def backwards(k: Any) -> Any:
    """Channels in the other order, and one of them."""
    x = inputs = k.Input((16, 16, 3))
    x = k.layers.Conv2D(4, 3)(x[:, :, :, ::-1])
    return k.Model(inputs, k.layers.Dense(2)(k.layers.Concatenate()([x[:, 0, 1], k.layers.Flatten()(x)[:, 3:6]])))


def aspects(k: Any) -> Any:
    """Pictures cut to an aspect and resized."""
    x = inputs = k.Input((48, 32, 3))
    x = k.layers.Resizing(24, 24, crop_to_aspect_ratio=True)(k.layers.RandomCrop(48, 32)(x))
    x = k.layers.RandomCrop(20, 24)(k.layers.Rescaling(1 / 255)(x))
    return k.Model(inputs, k.layers.Dense(3)(k.layers.GlobalAveragePooling2D()(k.layers.Conv2D(8, 3, strides=2)(x))))


def dictionaries(k: Any) -> Any:
    """Inputs and outputs by name."""
    picture = k.Input((32, 32, 3), name="picture")
    x = k.layers.GlobalAveragePooling2D()(k.layers.Conv2D(8, 3, strides=2)(picture))
    kind, box = k.layers.Dense(3, activation="softmax", name="kind"), k.layers.Dense(4, name="box")
    return k.Model({"picture": picture}, {"kind": kind(x), "box": box(x)})


def _array(*values: float) -> Any:
    return np.array(values, np.float32)


_OTHERS = {"mean": "reduce_mean", "max": "reduce_max", "sum": "reduce_sum", "min": "reduce_min",
           "clip": "clip_by_value", "log_softmax": "nn.log_softmax", "resize": "image.resize"}  # fmt: skip


def _operations(k: Any) -> Any:
    """keras.ops, or TensorFlow's functions by the names that those have in keras.ops."""
    names = (*_OTHERS, "abs", "expand_dims", "maximum", "minimum", "sqrt", "square", "squeeze", "transpose")
    if k.__name__ == "keras":
        return SimpleNamespace(**{name: k.ops.image.resize if name == "resize" else getattr(k.ops, name)
                                  for name in names})  # fmt: skip
    tf: Any = importlib.import_module("tensorflow")
    return SimpleNamespace(**{name: attrgetter(_OTHERS.get(name, name))(tf) for name in names})


LAYERS: dict[str, Callable[[Any], Any]] = {
    f.__name__: f
    for f in (segmentation, norms, attention_by_hand, merges, operations, backwards, aspects, dictionaries)
}
