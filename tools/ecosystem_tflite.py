"""TFLite files as people have them: Keras models through TensorFlow's converter, in each form that it writes.

The golden is LiteRT's, of its reference kernels: `output_N`, and `#INDEX` for every integer tensor.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ecosystem_keras import KERAS, Array, base, fit, picture


def edge_impulse(k: Any) -> Any:
    """As Edge Impulse's transfer learning builds it: a base cut short, Dense on every pixel, Flatten, Dense."""
    b = base(k)
    x = k.layers.Dense(16, activation="relu")(b.get_layer("block_6_expand_relu").output)
    x = k.layers.Flatten()(k.layers.Dropout(0.1)(x))
    return k.Model(b.input, k.layers.Dense(3, activation="softmax")(x))


def fomo(k: Any) -> Any:
    """As Edge Impulse's FOMO: a base cut short, and 1 x 1 convolutions, a softmax for each cell."""
    b = base(k)
    x = k.layers.Conv2D(32, 1, activation="relu")(b.get_layer("block_6_expand_relu").output)
    return k.Model(b.input, k.layers.Softmax()(k.layers.Conv2D(2, 1)(x)))


def dilated(k: Any) -> Any:
    """Dilated convolutions, resizing and a concatenation, as of a network that segments."""
    inputs = k.Input((64, 64, 3))
    x = k.layers.Conv2D(16, 3, strides=2, padding="same", activation="relu")(inputs)
    a = k.layers.Conv2D(8, 3, padding="same", dilation_rate=2, activation="relu")(x)
    b = k.layers.UpSampling2D(4, interpolation="bilinear")(k.layers.AveragePooling2D(4)(x))
    x = k.layers.Conv2D(4, 1)(k.layers.Concatenate()([a, b]))
    return k.Model(inputs, k.layers.UpSampling2D(2, interpolation="bilinear")(x))


MODELS: dict[str, Callable[[Any], Any]] = {**KERAS, **{f.__name__: f for f in (edge_impulse, fomo, dilated)}}
MODES = (
    "float", "float16", "dynamic_range", "int8_float_ends", "int8_int8_ends", "int8_uint8_ends", "int16_activations"
)  # fmt: skip
# The kinds of models, and in which forms.
KINDS: dict[str, tuple[str, ...]] = {
    "flat_head": MODES,
    "teachable_machine": ("float", "float16", "dynamic_range", "int8_uint8_ends"),
    "edge_impulse": ("float", "dynamic_range", "int8_float_ends", "int8_int8_ends"),
    "fomo": ("float", "int8_int8_ends"),
    "v1_conv_head": ("float", "dynamic_range", "int8_uint8_ends"),
    "v3_head": ("float", "dynamic_range", "int8_int8_ends"),
    "v3_minimalistic_head": ("int8_int8_ends",),
    "transfer_guide": ("float", "int8_uint8_ends"),
    "by_hand": ("int8_int8_ends",),
    "sequential_by_hand": ("float", "int8_int8_ends"),
    "two_outputs": ("int8_int8_ends",),
    "squeeze_by_hand": ("float", "dynamic_range", "int8_int8_ends"),
    "batch_norm_anywhere": ("int8_int8_ends",),
    "functions": ("float", "int8_int8_ends"),
    "dilated": ("float", "int8_int8_ends"),
}


def converted(model: Any, mode: str, x: Array) -> bytes:
    """The bytes of a .tflite of a model, in one of `MODES`; `x` calibrates it."""
    tf: Any = importlib.import_module("tensorflow")
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if mode != "float":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if mode == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if mode.startswith("int"):
        converter.representative_dataset = lambda: ([x[i : i + 1]] for i in range(len(x)))
        ops = tf.lite.OpsSet
        wide = ops.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
        converter.target_spec.supported_ops = [wide if mode.startswith("int16") else ops.TFLITE_BUILTINS_INT8]
    for ends, dtype in (("int8_ends", tf.int8), ("uint8_ends", tf.uint8)):
        if mode.endswith(ends):
            converter.inference_input_type = converter.inference_output_type = dtype
    data: bytes = converter.convert()
    return data


def golden(data: bytes, x: Array, resolver: str = "BUILTIN_REF") -> dict[str, Array]:
    """What LiteRT's reference kernels compute for each of these inputs, one after the other."""
    litert: Any = importlib.import_module("ai_edge_litert.interpreter")
    interpreter = litert.Interpreter(
        model_content=data, num_threads=1, experimental_op_resolver_type=litert.OpResolverType[resolver],
        experimental_preserve_all_tensors=True,
    )  # fmt: skip
    interpreter.allocate_tensors()
    detail = interpreter.get_input_details()[0]
    if detail["dtype"] != np.float32:
        limits = np.iinfo(detail["dtype"])
        scale, zero = detail["quantization"]
        x = np.clip(np.rint(x / scale + zero), limits.min, limits.max).astype(detail["dtype"])
    if tuple(detail["shape"][1:]) != x.shape[1:]:
        x = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    found: dict[str, list[Array]] = {}
    for image in x:
        interpreter.set_tensor(detail["index"], image[np.newaxis])
        interpreter.invoke()
        for name, value in _values(interpreter):
            found.setdefault(name, []).append(value)
    return {"input": x, **{name: np.stack(values) for name, values in found.items()}}


def _values(interpreter: Any) -> Iterator[tuple[str, Array]]:
    outputs = [detail["index"] for detail in interpreter.get_output_details()]
    for place, index in enumerate(outputs):
        yield f"output_{place}", interpreter.get_tensor(index).copy()
    for index in sorted({int(i) for op in interpreter._get_ops_details() for i in op["outputs"]} - set(outputs)):
        value = interpreter.get_tensor(index)
        if value.dtype in (np.int8, np.uint8, np.int16):
            yield f"#{index}", value.copy()


def save(path: Path, arrays: dict[str, Any]) -> None:
    """A golden's file."""
    np.savez_compressed(path, **arrays)


def make_tflite(folder: Path, kinds: list[str]) -> None:
    """Write the files of these kinds ("flat_head" or "flat_head-int8_int8_ends"), and their goldens."""
    k: Any = importlib.import_module("keras")
    for kind, modes in KINDS.items():
        wanted = [mode for mode in modes if not kinds or kind in kinds or f"{kind}-{mode}" in kinds]
        if not wanted:
            continue
        k.utils.set_random_seed(7)
        k.backend.clear_session()
        model = MODELS[kind](k)
        x = picture(kind, list(model.inputs[0].shape[1:]))
        fit(model, x)
        for mode in wanted:
            data = converted(model, mode, x)
            stem = folder / f"tflite-{kind}-{mode}"
            stem.with_suffix(".tflite").write_bytes(data)
            save(stem.with_suffix(".npz"), golden(data, x))
            print(stem.name, flush=True)
