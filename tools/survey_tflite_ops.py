"""Which TFLite operators can be read, as TensorFlow's converter writes them between a convolution and a head.

    python tools/survey_tflite_ops.py [--only NAME ...] [--save FOLDER]    # pip install tensorflow-cpu ai-edge-litert

For each expression a float and an 8-bit model are made, and run beside LiteRT's reference kernels. `equal`: every
8-bit tensor has the same bits (float: the outputs too); `close`: floats within 1e-6 of the largest value; else what
parts, or why the file is refused. The operators that the converter wrote are named beside it: it often chooses others.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import numpy as np
from ecosystem_tflite import golden
from make_format_docs import _difference, _plain

Array = np.ndarray[Any, Any]
PLAIN = ("CONV_2D", "RESHAPE", "FULLY_CONNECTED")  # of every model here
CLOSE = 1e-6


def _weights(*shape: int) -> Array:
    return np.random.default_rng(len(shape)).normal(0, 0.5, shape).astype(np.float32)


# An expression of tf and x, float32 (1, 8, 8, 8); `w` makes weights.
EXPRESSIONS: dict[str, Callable[[Any, Any], Any]] = {
    # One value to one value.
    "abs": lambda tf, x: tf.abs(x),
    "ceil": lambda tf, x: tf.math.ceil(x),
    "cos": lambda tf, x: tf.cos(x),
    "elu": lambda tf, x: tf.nn.elu(x),
    "exp": lambda tf, x: tf.exp(x),
    "floor": lambda tf, x: tf.floor(x),
    "gelu": lambda tf, x: tf.nn.gelu(x),
    "gelu_tanh": lambda tf, x: tf.nn.gelu(x, approximate=True),
    "hard_swish": lambda tf, x: x * tf.nn.relu6(x + 3) / 6,
    "leaky_relu": lambda tf, x: tf.nn.leaky_relu(x, 0.1),
    "log": lambda tf, x: tf.math.log(tf.nn.relu(x) + 0.5),
    "mish": lambda tf, x: x * tf.tanh(tf.math.softplus(x)),
    "negative": lambda tf, x: -x,
    "prelu": lambda tf, x: tf.nn.relu(x) - _weights(8) * tf.nn.relu(-x),
    "relu": lambda tf, x: tf.nn.relu(x),
    "relu6": lambda tf, x: tf.nn.relu6(x),
    "relu_0_to_1": lambda tf, x: tf.clip_by_value(x, 0.0, 1.0),
    "relu_n1_to_1": lambda tf, x: tf.clip_by_value(x, -1.0, 1.0),
    "round": lambda tf, x: tf.round(x),
    "rsqrt": lambda tf, x: tf.math.rsqrt(tf.nn.relu(x) + 0.5),
    "selu": lambda tf, x: tf.nn.selu(x),
    "sigmoid": lambda tf, x: tf.sigmoid(x),
    "silu": lambda tf, x: tf.nn.silu(x),
    "softplus": lambda tf, x: tf.math.softplus(x),
    "softsign": lambda tf, x: tf.nn.softsign(x),
    "sqrt": lambda tf, x: tf.sqrt(tf.nn.relu(x)),
    "square": lambda tf, x: tf.square(x),
    "tanh": lambda tf, x: tf.tanh(x),
    # Two to one.
    "add": lambda tf, x: x + tf.nn.relu(x),
    "divide": lambda tf, x: x / (tf.nn.relu(x) + 1),
    "divide_constant": lambda tf, x: x / 3,
    "floor_div": lambda tf, x: tf.math.floordiv(x, 2),
    "maximum": lambda tf, x: tf.maximum(x, 0.5 * x),
    "maximum_constant": lambda tf, x: tf.maximum(x, 0.25),
    "minimum": lambda tf, x: tf.minimum(x, tf.nn.relu(x) * 0.5),
    "minimum_constant": lambda tf, x: tf.minimum(x, 0.25),
    "multiply": lambda tf, x: x * tf.nn.relu(x),
    "pow": lambda tf, x: tf.pow(x, 3.0),
    "squared_difference": lambda tf, x: tf.math.squared_difference(x, tf.nn.relu(x)),
    "subtract": lambda tf, x: x - tf.nn.relu(x),
    # Sums and the like.
    "argmax": lambda tf, x: tf.cast(tf.argmax(x, 3), tf.float32),
    "average_pool": lambda tf, x: tf.nn.avg_pool2d(x, 2, 2, "VALID"),
    "cumsum": lambda tf, x: tf.cumsum(x, 3),
    "l2_normalize": lambda tf, x: tf.nn.l2_normalize(x, -1),
    "l2_normalize_flat": lambda tf, x: tf.nn.l2_normalize(tf.reduce_mean(x, (1, 2)), -1),
    "log_softmax": lambda tf, x: tf.nn.log_softmax(x),
    "max_pool": lambda tf, x: tf.nn.max_pool2d(x, 2, 2, "VALID"),
    "mean": lambda tf, x: tf.reduce_mean(x, (1, 2)),
    "mean_all": lambda tf, x: tf.reduce_mean(x, (1, 2, 3)),
    "mean_channels": lambda tf, x: tf.reduce_mean(x, 3, keepdims=True),
    "mean_rows": lambda tf, x: tf.reduce_mean(x, 1),
    "reduce_max": lambda tf, x: tf.reduce_max(x, (1, 2)),
    "reduce_max_channels": lambda tf, x: tf.reduce_max(x, 3, keepdims=True),
    "reduce_min": lambda tf, x: tf.reduce_min(x, (1, 2)),
    "softmax": lambda tf, x: tf.nn.softmax(x),
    "sum": lambda tf, x: tf.reduce_sum(x, (1, 2)),
    "sum_channels": lambda tf, x: tf.reduce_sum(x, 3, keepdims=True),
    # Moves.
    "channel_shuffle": lambda tf, x: tf.reshape(tf.transpose(tf.reshape(x, (1, 8, 8, 2, 4)), (0, 1, 2, 4, 3)), x.shape),
    "concat": lambda tf, x: tf.concat([x, tf.nn.relu(x)], 3),
    "crop": lambda tf, x: x[:, 1:-1, 2:-2, :],
    "depth_to_space": lambda tf, x: tf.nn.depth_to_space(x, 2),
    "expand_dims": lambda tf, x: tf.expand_dims(x, 1)[:, 0],
    "fill": lambda tf, x: x + tf.fill((1, 8, 8, 8), 0.5),
    "gather": lambda tf, x: tf.gather(x, [2, 3, 4], axis=3),
    "gather_any": lambda tf, x: tf.gather(x, [5, 0, 3], axis=3),
    "mirror_pad": lambda tf, x: tf.pad(x, ((0, 0), (1, 1), (2, 2), (0, 0)), "REFLECT"),
    "mirror_pad_symmetric": lambda tf, x: tf.pad(x, ((0, 0), (1, 1), (2, 2), (0, 0)), "SYMMETRIC"),
    "pack": lambda tf, x: tf.stack([x[..., 0], x[..., 1]], -1),
    "pad": lambda tf, x: tf.pad(x, ((0, 0), (1, 1), (2, 2), (0, 0))),
    "pad_channels": lambda tf, x: tf.pad(x, ((0, 0), (0, 0), (0, 0), (4, 4))),
    "pad_value": lambda tf, x: tf.pad(x, ((0, 0), (1, 1), (2, 2), (0, 0)), constant_values=-0.5),
    "resize_bilinear": lambda tf, x: tf.image.resize(x, (16, 16)),
    "resize_nearest": lambda tf, x: tf.image.resize(x, (16, 16), "nearest"),
    "reverse": lambda tf, x: tf.reverse(x, [2]),
    "slice": lambda tf, x: tf.slice(x, (0, 1, 2, 3), (1, 4, 4, 4)),
    "space_to_depth": lambda tf, x: tf.nn.space_to_depth(x, 2),
    "split": lambda tf, x: tf.concat(tf.split(x, 2, 3)[::-1], 3),
    "strided": lambda tf, x: x[:, ::2, 1::2, :],
    "tile": lambda tf, x: tf.tile(x, (1, 2, 1, 1)),
    "transpose": lambda tf, x: tf.transpose(x, (0, 3, 1, 2)),
    "unpack": lambda tf, x: tf.unstack(x, axis=3)[1],
    # Layers.
    "batch_matmul": lambda tf, x: tf.matmul(tf.reshape(x, (1, 64, 8)), tf.reshape(x, (1, 64, 8)), transpose_b=True),
    "dilated": lambda tf, x: tf.nn.conv2d(x, _weights(3, 3, 8, 8), 1, "SAME", dilations=2),
    "depthwise": lambda tf, x: tf.nn.depthwise_conv2d(x, _weights(3, 3, 8, 1), (1, 1, 1, 1), "SAME"),
    "fully_connected": lambda tf, x: tf.tensordot(x, _weights(8, 4), 1),
    "transpose_conv": lambda tf, x: tf.nn.conv2d_transpose(x, _weights(3, 3, 4, 8), (1, 16, 16, 4), 2, "SAME"),
    "transpose_conv_2x2": lambda tf, x: tf.nn.conv2d_transpose(x, _weights(2, 2, 4, 8), (1, 16, 16, 4), 2, "VALID"),
    "transpose_conv_bias": lambda tf, x: tf.nn.bias_add(
        tf.nn.conv2d_transpose(x, _weights(4, 4, 4, 8), (1, 16, 16, 4), 2, "SAME"), _weights(4)),
}  # fmt: skip


def converted(expression: Callable[[Any, Any], Any], integer: bool, images: Array) -> bytes:
    """The bytes of a .tflite: a convolution, the expression, a fully connected layer."""
    tf: Any = importlib.import_module("tensorflow")

    def network(image: Any) -> Any:
        x = tf.nn.conv2d(image, _weights(3, 3, 3, 8) * 0.5, 2, "SAME") + _weights(8)
        y = tf.reshape(expression(tf, x), (1, -1))
        return tf.matmul(y, _weights(int(y.shape[1]), 4) * 0.1)

    function = tf.function(network, input_signature=[tf.TensorSpec((1, *images.shape[1:]))]).get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function])
    if integer:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([image[np.newaxis]] for image in images)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    data: bytes = converter.convert()
    return data


def judged(path: Path, images: Array) -> str:
    """How the file's values compare with LiteRT's reference kernels."""
    import npmobilenet as nm

    try:
        expected, beside = golden(path.read_bytes(), images), ""
    except RuntimeError:  # no reference kernel for it
        expected, beside = (
            golden(path.read_bytes(), images, "BUILTIN_WITHOUT_DEFAULT_DELEGATES"),
            " (optimized kernels)",
        )
    x = expected.pop("input")
    try:
        model = nm.load(path)
    except nm.NpMobilenetError as error:
        return f"refused: {_plain(str(error), path)}"
    names = [name for name in expected if name.startswith("output") or name in model.graph.endpoints]
    _, taps = model.run(x, taps=[n for n in names if n.startswith("#")] + list(model.graph.outputs), check_range=False)
    taps.update({f"output_{i}": taps[name] for i, name in enumerate(model.graph.outputs)})
    gaps = {name: _difference(taps[name], expected[name]) for name in names}
    if not any(gaps.values()):
        return f"equal{beside}"
    if max(gaps.values()) <= CLOSE:
        return f"close{beside}"
    return "differs: " + ", ".join(f"{name} by {gap:.1g}" for name, gap in gaps.items() if gap > CLOSE)


def main() -> int:
    """Print a line for each expression."""
    from npmobilenet.formats.tflite.flatbuffer import parse

    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--save", type=Path, default=Path("survey"), help="folder for the files (default: survey)")
    options = parser.parse_args()
    options.save.mkdir(parents=True, exist_ok=True)
    images = np.random.default_rng(0).uniform(-1, 1, (4, 16, 16, 3)).astype(np.float32)
    for name, expression in EXPRESSIONS.items():
        if options.only and name not in options.only:
            continue
        for mode in ("float", "int8"):
            path = options.save / f"{name}-{mode}.tflite"
            try:
                if not path.exists():
                    path.write_bytes(converted(expression, mode == "int8", images))
                ops = [op.op for op in parse(path.read_bytes()).operators]
                found = judged(path, images)
            except Exception as error:  # the converter's, of any class: the survey goes on
                found, ops = f"not converted: {str(error).strip()[:100]!r}", []
            print(f"{name:22} {mode:6} {', '.join(dict.fromkeys(o for o in ops if o not in PLAIN)):40} {found}")
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
