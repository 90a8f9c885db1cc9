"""Quantizes one of this project's float models with TensorFlow's own converter, to compare `npmobilenet quantize` with.

    pip install 'npmobilenet[tf]'
    python tools/make_tf_quantized.py FLOAT.h5 IMAGES.npy OUT.tflite

The graph is written once more with tf.nn, with the same folded weights, so that both quantizers start from one float
graph; IMAGES.npy (N, H, W, 3) float32 is the representative data set, image by image. The result is int8 throughout,
input and output included. With `--float` it is the float conversion, which TensorFlow's calibrator runs.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from npmobilenet.formats.model_path import load_data
from npmobilenet.graph import Node, Padding, same_padding
from npmobilenet.modeldata import Array, ModelData


def tf_function(data: ModelData) -> Any:
    """The float graph as a `tf.function` of one image."""
    import tensorflow as tf

    graph = data.graph
    shape = graph.tensors[graph.inputs[0]].shape
    constants = {name: tf.constant(array) for name, array in data.tensors.items()}

    @tf.function(input_signature=[tf.TensorSpec(shape, tf.float32)])  # type: ignore[untyped-decorator]
    def function(x: Any) -> Any:
        values: dict[str, Any] = {**constants, graph.inputs[0]: x}
        for node in graph.nodes:
            with tf.name_scope(re.sub(r"[^A-Za-z0-9_./]", "_", f"at/{node.output}")):
                values[node.output] = apply(tf, node, [values[name] for name in node.inputs])
        return values[graph.outputs[0]]

    return function


def apply(tf: Any, node: Node, inputs: list[Any]) -> Any:
    """The value of a node in TensorFlow's ops."""
    x = inputs[0]
    if node.op == "conv2d":
        x, padding = _padded(tf, node, x, (int(inputs[1].shape[0]), int(inputs[1].shape[1])))
        y = tf.nn.conv2d(x, inputs[1], node.attrs["stride"], padding, dilations=node.attrs.get("dilation", (1, 1)))
        y = tf.nn.bias_add(y, inputs[2])
    elif node.op == "depthwise_conv2d":
        multiplier = node.attrs.get("multiplier", 1)
        kernel = tf.reshape(inputs[1], (*inputs[1].shape[:2], inputs[1].shape[2] // multiplier, multiplier))
        x, padding = _padded(tf, node, x, (int(kernel.shape[0]), int(kernel.shape[1])))
        y = tf.nn.depthwise_conv2d(x, kernel, (1, *node.attrs["stride"], 1), padding,
                                   dilations=node.attrs.get("dilation", (1, 1)))  # fmt: skip
        y = tf.nn.bias_add(y, inputs[2])
    elif node.op == "fully_connected":
        y = tf.nn.bias_add(tf.matmul(tf.reshape(x, (1, -1)), inputs[1]), inputs[2])
    else:
        y = _OTHERS[node.op](tf, node, inputs)
    return activate(tf, y, node.attrs.get("activation", "none"))


def activate(tf: Any, y: Any, name: str) -> Any:
    """An activation, written as TF-slim and Keras write it."""
    functions: dict[str, Callable[[Any], Any]] = {
        "none": lambda v: v,
        "relu": tf.nn.relu,
        "relu6": tf.nn.relu6,
        "hard_swish": lambda v: v * tf.nn.relu6(v + np.float32(3)) * np.float32(1 / 6),
        "hard_sigmoid": lambda v: tf.nn.relu6(v + np.float32(3)) * np.float32(1 / 6),
        "hard_sigmoid_slim": lambda v: tf.nn.relu6(v + np.float32(3)) * np.float32(0.16667),
        "sigmoid": tf.nn.sigmoid,
    }
    return functions[name](y)


def _average_pool(tf: Any, node: Node, inputs: list[Any]) -> Any:
    x, padding = _padded(tf, node, inputs[0], node.attrs["kernel"])
    return tf.nn.avg_pool2d(x, node.attrs["kernel"], node.attrs["stride"], padding)


_OTHERS: dict[str, Callable[[Any, Node, list[Any]], Any]] = {
    "average_pool": _average_pool,
    "mean": lambda tf, node, inputs: tf.reduce_mean(inputs[0], [1, 2], keepdims=node.attrs["keepdims"]),
    "add": lambda tf, _, inputs: tf.add(*inputs),
    "sub": lambda tf, _, inputs: tf.subtract(*inputs),
    "mul": lambda tf, _, inputs: tf.multiply(*inputs),
    "activation": lambda tf, node, inputs: activate(tf, inputs[0], node.attrs["function"]),
    "softmax": lambda tf, node, inputs: tf.nn.softmax(inputs[0] * node.attrs["beta"]
                                                      if node.attrs["beta"] != 1 else inputs[0]),
    "reshape": lambda tf, node, inputs: tf.reshape(inputs[0], node.attrs["shape"]),
    "pad": lambda tf, node, inputs: tf.pad(inputs[0], ((0, 0), *node.attrs["padding"], (0, 0))),
    "resize_bilinear": lambda tf, node, inputs: tf.compat.v1.image.resize_bilinear(
        inputs[0], node.attrs["size"], align_corners=node.attrs["align_corners"],
        half_pixel_centers=node.attrs["half_pixel_centers"],
    ),
    "concat": lambda tf, node, inputs: tf.concat(inputs, node.attrs["axis"]),
}  # fmt: skip


def _padded(tf: Any, node: Node, x: Any, kernel: tuple[int, int]) -> tuple[Any, str]:
    """TensorFlow's name of the node's padding; where it has none, the padded input and VALID."""
    stride, dilation = node.attrs["stride"], node.attrs.get("dilation", (1, 1))
    padding: Padding = node.attrs["padding"]
    if padding == ((0, 0), (0, 0)):
        return x, "VALID"
    if padding == tuple(same_padding(int(x.shape[1 + i]), kernel[i], stride[i], dilation[i]) for i in (0, 1)):
        return x, "SAME"
    return tf.pad(x, ((0, 0), *padding, (0, 0))), "VALID"


def convert(data: ModelData, images: Array, quantized: bool = True) -> bytes:
    """The .tflite file, int8 throughout or float."""
    import tensorflow as tf

    function = tf_function(data)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()], function)
    if quantized:

        def representative() -> Iterator[list[Array]]:
            for image in images:
                yield [image[None]]

        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = representative
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    found: bytes = converter.convert()
    return found


def main(arguments: list[str] | None = None) -> int:
    """Convert models one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+", metavar="MODEL IMAGES OUT",
                        help="a float model of this project; (N, H, W, 3) float32 as .npy; the .tflite to write; and "
                             "so on for further models")  # fmt: skip
    parser.add_argument("--float", dest="plain", action="store_true", help="convert without quantizing")
    options = parser.parse_args(arguments)
    if len(options.files) % 3:
        parser.error(f"{len(options.files)} files: expected MODEL IMAGES OUT, three for each conversion")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    for i in range(0, len(options.files), 3):
        model, images, out = options.files[i : i + 3]
        out.write_bytes(convert(load_data(model), np.load(images, allow_pickle=False), not options.plain))
        print(out, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
