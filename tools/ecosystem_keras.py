"""Keras models of every make that people have: a function for each kind, which gets the module keras or tf_keras.

Weights are random; batch norms get statistics that keep the values near 1 (`fit`).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ecosystem_layers import LAYERS
from numpy.typing import NDArray

Array = NDArray[Any]


def base(k: Any, size: int = 96, alpha: float = 0.35, **more: Any) -> Any:
    """A base without its head."""
    return k.applications.MobileNetV2((size, size, 3), alpha=alpha, include_top=False, weights=None, **more)


def teachable_machine(k: Any) -> Any:
    """As Teachable Machine builds it: two Sequentials in a Sequential."""
    body = k.Sequential([base(k), k.layers.GlobalAveragePooling2D()])
    head = k.Sequential([
        k.layers.Dense(100, activation="relu"), k.layers.Dense(2, use_bias=False, activation="softmax")
    ])  # fmt: skip
    model = k.Sequential([body, head])
    model.build((None, 96, 96, 3))
    return model


def flat_head(k: Any) -> Any:
    """A head behind the base, all layers in one model."""
    b = base(k)
    x = k.layers.GlobalAveragePooling2D()(b.output)
    x = k.layers.Dropout(0.2)(x)
    return k.Model(b.input, k.layers.Dense(7, activation="softmax")(x))


def transfer_guide(k: Any) -> Any:
    """As the guide to transfer learning has it: augmentation, Rescaling, the base as a layer, one sigmoid."""
    augmentation = k.Sequential([k.layers.RandomFlip("horizontal"), k.layers.RandomRotation(0.2)])
    inputs = k.Input((96, 96, 3))
    x = k.layers.Rescaling(1 / 127.5, offset=-1)(augmentation(inputs))
    b = base(k)
    b.trainable = False
    x = k.layers.GlobalAveragePooling2D()(b(x, training=False))
    return k.Model(inputs, k.layers.Dense(1, activation="sigmoid")(k.layers.Dropout(0.2)(x)))


def preprocess_ops(k: Any) -> Any:
    """preprocess_input as operations, and a head of two layers with a batch norm behind."""
    inputs = k.Input((96, 96, 3))
    x = k.applications.mobilenet_v2.preprocess_input(inputs)
    x = k.layers.Flatten()(base(k)(x))
    x = k.layers.BatchNormalization()(k.layers.Dense(32, activation="relu")(x))
    return k.Model(inputs, k.layers.Dense(5)(x))


def v1_conv_head(k: Any) -> Any:
    """A head that is a convolution."""
    b = k.applications.MobileNet((96, 96, 3), alpha=0.25, include_top=False, weights=None)
    x = k.layers.GlobalAveragePooling2D(keepdims=True)(b.output)
    x = k.layers.Conv2D(6, 1)(k.layers.Dropout(0.001)(x))
    return k.Model(b.input, k.layers.Softmax()(k.layers.Flatten()(x)))


def v3_head(k: Any, size: str = "Small", minimalistic: bool = False) -> Any:
    """A base that scales its pixels itself, as a layer of a Sequential."""
    b = getattr(k.applications, f"MobileNetV3{size}")(
        (96, 96, 3), alpha=0.75, minimalistic=minimalistic, include_top=False, weights=None, pooling="avg"
    )
    return k.Sequential([b, k.layers.Dense(4, activation="softmax")])


def v3_minimalistic_head(k: Any) -> Any:
    """The same without squeeze-and-excite and hard-swish."""
    return v3_head(k, minimalistic=True)


def v3_large_head(k: Any) -> Any:
    """The same of the large one."""
    return v3_head(k, "Large")


def by_hand(k: Any) -> Any:
    """A MobileNet written layer by layer, with names that Keras chose."""
    x = inputs = k.Input((64, 64, 3))
    x = k.layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(x)
    x = k.layers.ReLU(6.0)(k.layers.BatchNormalization(epsilon=1e-5)(x))
    for width, stride in ((16, 1), (24, 2), (24, 1), (32, 2)):
        x = k.layers.DepthwiseConv2D(3, strides=stride, padding="same", use_bias=False)(x)
        x = k.layers.Activation("relu")(k.layers.BatchNormalization()(x))
        x = k.layers.Conv2D(width, 1, padding="same", use_bias=False)(x)
        x = k.layers.Activation("relu")(k.layers.BatchNormalization(scale=False)(x))
    x = k.layers.AveragePooling2D(pool_size=8)(x)
    return k.Model(inputs, k.layers.Dense(2, activation="softmax")(k.layers.Flatten()(x)))


def sequential_by_hand(k: Any) -> Any:
    """A grey one, with separable convolutions, pools and noise."""
    return k.Sequential([
        k.layers.Input((48, 48, 1)), k.layers.Rescaling(1 / 255),
        k.layers.Conv2D(8, 3, activation="relu", padding="same"), k.layers.MaxPooling2D(),
        k.layers.SeparableConv2D(16, 3, activation="relu", depth_multiplier=2), k.layers.MaxPooling2D(3, 2, "same"),
        k.layers.SpatialDropout2D(0.1), k.layers.GaussianNoise(0.1), k.layers.GlobalMaxPooling2D(),
        k.layers.Dense(10), k.layers.Activation("softmax"),
    ])  # fmt: skip


def two_outputs(k: Any) -> Any:
    """Two heads."""
    b = base(k, pooling="avg")
    return k.Model(b.input, [k.layers.Dense(3, activation="softmax", name="kind")(b.output),
                             k.layers.Dense(1, activation="sigmoid", name="good")(b.output)])  # fmt: skip


def grey(k: Any) -> Any:
    """With its classifier, of one channel."""
    return k.applications.MobileNetV2((96, 96, 1), alpha=0.35, include_top=True, weights=None, classes=3)


def any_size(k: Any) -> Any:
    """For pictures of any size."""
    b = k.applications.MobileNetV2((None, None, 3), alpha=0.35, include_top=False, weights=None)
    return k.Model(b.input, k.layers.Dense(3, activation="softmax")(k.layers.GlobalAveragePooling2D()(b.output)))


def shared(k: Any) -> Any:
    """One layer used twice, with a concatenation and a product behind."""
    inputs = k.Input((32, 32, 3))
    conv = k.layers.Conv2D(8, 3, padding="same", activation="relu")
    a = conv(inputs)
    b = conv(k.layers.ReLU()(inputs))
    x = k.layers.Concatenate()([a, b, k.layers.Multiply()([a, b])])
    x = k.layers.Subtract()([k.layers.Conv2D(4, 1)(x), k.layers.Conv2D(4, 1)(x)])
    return k.Model(inputs, k.layers.Dense(2)(k.layers.GlobalAveragePooling2D()(x)))


def batch_norm_anywhere(k: Any) -> Any:
    """Batch norms in front, behind an activation, a sum, a pool and a dense layer."""
    x = inputs = k.Input((32, 32, 3))
    x = k.layers.BatchNormalization()(x)
    x = k.layers.BatchNormalization()(k.layers.Conv2D(8, 3, strides=2, activation="relu")(x))
    y = k.layers.DepthwiseConv2D(3, padding="same", depth_multiplier=1)(x)
    x = k.layers.BatchNormalization(center=False)(k.layers.Add()([x, y]))
    x = k.layers.BatchNormalization()(k.layers.GlobalAveragePooling2D()(x))
    x = k.layers.BatchNormalization()(k.layers.Dense(8, use_bias=False)(x))
    return k.Model(inputs, k.layers.Dense(3, activation="softmax")(k.layers.ReLU()(x)))


def normalization_in_front(k: Any) -> Any:
    """Normalization with its statistics as settings."""
    norm = k.layers.Normalization(axis=-1, mean=[110.0, 115.0, 120.0], variance=[3000.0, 3100.0, 3300.0])
    b = base(k, pooling="avg")
    inputs = k.Input((96, 96, 3))
    return k.Model(inputs, k.layers.Dense(3, activation="softmax")(b(norm(inputs))))


def functions(k: Any) -> Any:
    """Every activation that a MobileNet may have, in Keras' spellings."""
    x = inputs = k.Input((16, 16, 3))
    for name in ("swish", "hard_sigmoid", "sigmoid", "relu6", "tanh", "linear"):
        x = k.layers.Activation(name)(k.layers.Conv2D(8, 3, padding="same")(x))
    x = k.layers.ReLU(max_value=1.0)(k.layers.Conv2D(8, 1)(x))
    x = k.layers.ReLU(negative_slope=0.1)(k.layers.Conv2D(8, 1)(x))
    x = k.layers.LeakyReLU()(k.layers.Conv2D(8, 1)(x))
    x = k.layers.Conv2D(8, 1, activation="relu6")(x)
    return k.Model(inputs, k.layers.Dense(3, activation="softmax")(k.layers.Flatten()(x)))


def hard_swish_by_hand(k: Any) -> Any:
    """Arithmetic by operators."""
    x = inputs = k.Input((16, 16, 3))
    x = k.layers.Conv2D(8, 3, strides=2)(x)
    x = x * k.layers.ReLU(6.0)(x + 3.0) / 6.0
    x = k.layers.Conv2D(8, 1)(x)
    x = 1.0 - x * 0.5
    x = k.layers.Multiply()([x, k.layers.ReLU(6.0)(x + 3.0) * (1.0 / 6.0)])
    return k.Model(inputs, k.layers.Dense(3)(k.layers.Flatten()(x)))


def squeeze_by_hand(k: Any) -> Any:
    """Squeeze-and-excite, and a dense layer on every pixel."""
    x = inputs = k.Input((32, 32, 3))
    x = k.layers.Conv2D(16, 3, strides=2, activation="relu")(x)
    s = k.layers.Reshape((1, 1, 16))(k.layers.GlobalAveragePooling2D()(x))
    s = k.layers.Dense(16, activation="sigmoid")(k.layers.Dense(4, activation="relu")(s))
    x = k.layers.Multiply()([x, s])
    x = k.layers.Flatten()(k.layers.Dense(4)(x))  # Dense on every pixel
    return k.Model(inputs, k.layers.Dense(3, activation="softmax")(x))


def three_deep(k: Any) -> Any:
    """A model in a model in a model."""
    inner = k.Sequential([k.layers.Input((32, 32, 3)), k.layers.Conv2D(8, 3), k.layers.BatchNormalization()])
    a = k.Input((32, 32, 3))
    middle = k.Model(a, k.layers.ReLU()(inner(a)))
    outer = k.Sequential([k.layers.Input((32, 32, 3)), middle, k.layers.Conv2D(8, 3), k.layers.BatchNormalization()])
    b = k.Input((32, 32, 3))
    return k.Model(b, k.layers.Dense(2)(k.layers.GlobalAveragePooling2D()(outer(b))))


def mixed_precision(k: Any) -> Any:
    """Layers under the policy mixed_float16."""
    k.mixed_precision.set_global_policy("mixed_float16")
    try:
        b = base(k, pooling="avg")
        return k.Model(b.input, k.layers.Dense(3, activation="softmax", dtype="float32")(b.output))
    finally:
        k.mixed_precision.set_global_policy("float32")


def lambda_layer(k: Any) -> Any:
    """Refused: its code is never run."""
    inputs = k.Input((32, 32, 3))
    x = k.layers.Lambda(lambda v: v * 2)(inputs)
    return k.Model(inputs, k.layers.Dense(2)(k.layers.GlobalAveragePooling2D()(k.layers.Conv2D(4, 3)(x))))


def two_inputs(k: Any) -> Any:
    """A picture and a mask, joined."""
    a, b = k.Input((32, 32, 3), name="picture"), k.Input((32, 32, 1), name="mask")
    x = k.layers.Concatenate()([k.layers.Conv2D(4, 3, padding="same")(a), b])
    x = k.layers.BatchNormalization()(k.layers.Conv2D(8, 3, strides=2, use_bias=False)(x))
    return k.Model([a, b], k.layers.Dense(3, activation="softmax")(k.layers.GlobalAveragePooling2D()(x)))


def siamese(k: Any) -> Any:
    """One model with two outputs, called twice."""
    a = k.Input((16, 16, 3))
    x = k.layers.Conv2D(8, 3, strides=2, padding="same")(a)
    inner = k.Model(a, [k.layers.ReLU()(x), k.layers.BatchNormalization(scale=False, center=False)(x)], name="twin")
    b = k.Input((16, 16, 3))
    first, second = inner(b)
    third, fourth = inner(k.layers.ReLU()(b))
    x = k.layers.Add()([first, second, third, fourth])
    return k.Model(b, k.layers.Dense(2)(k.layers.Flatten()(x)))


def groups(k: Any) -> Any:
    """Convolutions in groups, a batch norm and an activation behind."""
    x = inputs = k.Input((32, 32, 4))
    for count in (2, 4, 8):
        x = k.layers.Conv2D(16, 3, groups=count if count < 8 else 16, padding="same", use_bias=count == 4)(x)
        x = k.layers.ReLU(6.0)(k.layers.BatchNormalization()(x))
    return k.Model(inputs, k.layers.Dense(3)(k.layers.GlobalAveragePooling2D()(x)))


def resizing(k: Any) -> Any:
    """Pictures are resized and scaled inside; maps are enlarged, cropped and permuted."""
    x = inputs = k.Input((64, 64, 3))
    x = k.layers.Rescaling(1 / 255)(k.layers.Resizing(32, 24)(x))
    x = k.layers.Conv2D(8, 3, strides=2, activation="relu")(x)
    a = k.layers.UpSampling2D(2, interpolation="bilinear")(x)
    b = k.layers.UpSampling2D((2, 2))(x)
    x = k.layers.Cropping2D(((1, 2), (0, 3)))(k.layers.Add()([a, b]))
    x = k.layers.Permute((2, 1, 3))(x)
    return k.Model(inputs, k.layers.Dense(3)(k.layers.Flatten()(k.layers.AveragePooling2D(5)(x))))


def activation_objects(k: Any) -> Any:
    """Layers as other layers' activations."""
    x = inputs = k.Input((16, 16, 3))
    x = k.layers.Conv2D(8, 3, activation=k.layers.ReLU(6.0))(x)
    x = k.layers.DepthwiseConv2D(3, activation=k.layers.LeakyReLU())(x)
    x = k.layers.SeparableConv2D(8, 3, activation=k.activations.swish)(x)
    x = k.layers.Activation(k.layers.ReLU(6.0))(x)
    return k.Model(inputs, k.layers.Dense(3, activation=k.layers.Softmax())(k.layers.Flatten()(x)))


def names(k: Any) -> Any:
    """Layers renamed, with strokes and dots, two models deep."""

    def part(size: tuple[int, int, int], name: str) -> Any:
        a = k.Input(size)
        x = k.layers.Conv2D(4, 3, name=f"{name}.conv", padding="same")(a)
        x = k.layers.BatchNormalization(name=f"{name}.bn", center=False)(x)
        return k.Model(a, k.layers.ReLU(name=f"{name}.act")(x), name=name)

    a = k.Input((16, 16, 3))
    outer = k.Model(a, part((16, 16, 4), "second.part")(part((16, 16, 3), "first_part")(a)), name="body")
    b = k.Input((16, 16, 3))
    return k.Model(b, k.layers.Dense(2, name="my-head")(k.layers.GlobalMaxPooling2D()(outer(b))))


def channels_first(k: Any) -> Any:
    """Channels in front (TensorFlow convolves such images on GPUs only)."""
    inputs = k.Input((3, 16, 16))
    x = k.layers.ZeroPadding2D(1, data_format="channels_first")(inputs)
    x = k.layers.Activation("relu")(k.layers.BatchNormalization(axis=1)(x))
    return k.Model(inputs, k.layers.Dense(2)(k.layers.Flatten(data_format="channels_first")(x)))


def elu(k: Any) -> Any:
    """Functions beyond those of MobileNets, as strings and as a layer."""
    x = inputs = k.Input((16, 16, 3))
    for name in ("elu", "selu", "gelu", "softplus", "softsign", "tanh", "exponential"):
        x = k.layers.Conv2D(4, 3, activation=name, padding="same")(x)
        x = k.layers.Rescaling(0.5)(x)
    x = k.layers.ELU(alpha=0.5)(k.layers.Conv2D(4, 1)(x))
    return k.Model(inputs, k.layers.Dense(2)(k.layers.Flatten()(x)))


KERAS: dict[str, Callable[[Any], Any]] = {
    f.__name__: f
    for f in (
        teachable_machine, flat_head, transfer_guide, preprocess_ops, v1_conv_head, v3_head, v3_minimalistic_head,
        v3_large_head, by_hand, sequential_by_hand, two_outputs, grey, any_size, shared, batch_norm_anywhere,
        normalization_in_front, functions, hard_swish_by_hand, squeeze_by_hand, three_deep, mixed_precision,
        lambda_layer, two_inputs, siamese, groups, resizing, activation_objects, names, channels_first, elu,
    )
} | LAYERS  # fmt: skip


FRONT = (
    "transfer_guide",
    "preprocess_ops",
    "normalization_in_front",
    "sequential_by_hand",
    "v3",
    "resizing",
    "operations",
    "aspects",
)  # they take pixels


def picture(kind: str, shape: list[int | None]) -> Array:
    """Two inputs of a model, in the range that it takes."""
    if shape[0] is not None and shape[0] < 8:  # channels first
        return picture(kind, [*shape[1:], shape[0]]).transpose(0, 3, 1, 2)
    side = [96 if side is None else side for side in shape]
    low, high = (0, 255) if kind.startswith(FRONT) else (-1, 1)
    smooth = np.random.default_rng(11).uniform(low, high, (2, side[0] // 8, side[1] // 8, side[2]))
    return smooth.repeat(8, axis=1).repeat(8, axis=2).astype(np.float32)


def fit(model: Any, x: Any) -> None:
    """Give the batch norms the statistics of these inputs, so that no layer's values die out, and change them a bit."""
    norms = [layer for layer in model._flatten_layers() if type(layer).__name__ == "BatchNormalization"]
    frozen = [layer for layer in model._flatten_layers() if not layer.trainable]
    kept = [layer.momentum for layer in norms]
    for layer in frozen:
        layer.trainable = True
    for layer in norms:
        layer.momentum = 0.0
    for _ in range(2):
        for layer in model.layers:  # a base that is called with training=False learns nothing from the whole
            if hasattr(layer, "_flatten_layers") and layer in frozen:
                layer(x / 127.5 - 1, training=True)
        model(x, training=True)
    rng = np.random.default_rng(5)
    for layer, momentum in zip(norms, kept, strict=True):
        layer.momentum = momentum
        layer.moving_variance.assign(np.asarray(layer.moving_variance) + 0.01)
        for weight, low, high in ((layer.gamma, 0.7, 1.4), (layer.beta, -0.3, 0.3)):
            if weight is not None:
                weight.assign(rng.uniform(low, high, weight.shape))
    for layer in frozen:
        layer.trainable = False


def make_keras(folder: Path, framework: str, kinds: list[str]) -> None:
    """Write the files of these kinds, and their goldens."""
    k = importlib.import_module(framework)
    for kind in kinds or KERAS:
        k.utils.set_random_seed(7)
        k.backend.clear_session()
        model = KERAS[kind](k)
        inputs = [picture(kind, list(tensor.shape[1:])) for tensor in model.inputs]
        x: Any = inputs[0] if len(inputs) == 1 else inputs
        if kind == "dictionaries":
            x = {"picture": x}
        fit(model, x)
        outputs = model(x, training=False)
        outputs = list(outputs.values()) if isinstance(outputs, dict) else outputs
        outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
        golden: dict[str, Any] = {f"output_{i}": np.asarray(y, np.float32) for i, y in enumerate(outputs)}
        golden["input"] = inputs[0]
        golden.update({f"input_{i}": array for i, array in enumerate(inputs) if i})
        np.savez_compressed(folder / f"{framework}-{kind}.npz", **golden)
        for suffix in (".keras", ".h5"):
            model.save(folder / f"{framework}-{kind}{suffix}")
        print(f"{framework}-{kind}", flush=True)
