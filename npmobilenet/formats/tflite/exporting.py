"""A graph as a .tflite file: for each node the operators that compute the same, in 8 bits to the last bit.

The inverse of `operators` and `layers`: weights get TFLite's layout back, a padding that is neither SAME nor VALID
becomes a PAD, an activation that no operator fuses an operator of its own. Tensors keep their names. Recipe and labels
lie in an entry of the model's metadata, which `convert_tflite` reads, and as far as it goes in TFLite's own.

Source of each op's meaning: TensorFlow 2.18, tensorflow/lite/kernels/<op>.cc.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from npmobilenet.formats.tflite.file_builder import FUSED, Exporter, refuse
from npmobilenet.formats.tflite.input_recipe import RECIPES
from npmobilenet.formats.tflite.metadata import METADATA, OWN
from npmobilenet.formats.tflite.writing import FlatbufferWriter, packed_labels, standard_metadata
from npmobilenet.formats.weightfile.schema import info_to_json
from npmobilenet.graph import Node, Quantization, same_padding
from npmobilenet.modeldata import ModelData

Rule = Callable[[Exporter, Node], None]
SAME, VALID = 0, 1  # schema.fbs, enum Padding


def write_tflite(data: ModelData, names: Sequence[str] = ()) -> bytes:
    """The file's bytes; `names` are the classes', one for each output.

    Raises `ConversionError`, naming op and node, for what TFLite can't say, and `MissingExtra`.
    """
    work = Exporter(data)
    for node in data.graph.nodes:
        rule = RULES.get(node.op)
        if rule is None:
            refuse(node, f"no TFLite operator is known for '{node.op}'")
        rule(work, node)
    info = data.info
    picture = data.graph.tensors[data.graph.inputs[0]].shape
    mean_std = next((pair for pair, recipe in RECIPES.items() if recipe == info.preprocessing), None)
    metadata = {OWN: info_to_json(info)}
    if len(picture) == 4:
        metadata[METADATA] = standard_metadata(info.name, mean_std, picture[3] != 1, bool(names))
    index = [work.index[name] for name in data.graph.inputs], [work.index[name] for name in data.graph.outputs]
    description = f"{info.name}, written by npmobilenet"
    return FlatbufferWriter().file(work.tensors, work.operators, *index, description, metadata) + packed_labels(names)


# ---------------------------------------------------------------------------------------------------------------------
# One rule for each op of the graph


def _window(io: Exporter, node: Node, kernel: Sequence[int], pads: bool) -> tuple[int, dict[str, int]]:
    """The input, behind a PAD if need be (`pads`: zeros may stand for what lies outside), and the options."""
    name = node.inputs[0]
    x, (height, width) = io.graph.tensors[name], node.attrs["stride"]
    dilation, padding = node.attrs.get("dilation", (1, 1)), node.attrs["padding"]
    options = {"StrideH": height, "StrideW": width}
    if padding == ((0, 0), (0, 0)):
        return io.computed(name), {"Padding": VALID, **options}
    same = tuple(same_padding(x.shape[1 + i], kernel[i], node.attrs["stride"][i], dilation[i]) for i in (0, 1))
    if padding == same:
        return io.computed(name), {"Padding": SAME, **options}
    if not pads:
        refuse(node, f"its padding {padding} is neither TFLite's SAME, {same}, nor none, and pixels outside don't "
                     "count; export a float model to .onnx instead")  # fmt: skip
    (top, bottom), (left, right) = padding
    shape = (1, top + x.shape[1] + bottom, left + x.shape[2] + right, x.shape[3])
    amounts = io.constant("paddings", np.array([(0, 0), *padding, (0, 0)], np.int32))
    padded = io.between(f"{node.output}/pad", name, shape)
    io.emit(node, "PAD", [io.computed(name), amounts], padded)
    return padded, {"Padding": VALID, **options}


def _layer_inputs(io: Exporter, node: Node, x: int, weights: int) -> list[int]:
    """Input, weights and bias; a bias that came without a scale gets that of the sums, which TFLite compares."""
    bias = io.graph.tensors[node.inputs[2]]
    q_x, q_w = io.tensors[x].quantization, io.tensors[weights].quantization
    if bias.dtype != "int32" or bias.quantization is not None or q_x is None or q_w is None:
        return [x, weights, io.weight(node.inputs[2])]
    scale = tuple(float(np.float32(q_x.scale[0] * s)) for s in q_w.scale)
    q = Quantization(scale, (0,) * len(scale), 0 if len(scale) > 1 else None)
    return [x, weights, io.constant(node.inputs[2], io.arrays[node.inputs[2]], q)]


def _image(io: Exporter, node: Node) -> tuple[int, dict[str, int]]:
    """The input and the options of a convolution; by blocks, the layer sees an image without padding."""
    if node.attrs.get("by_blocks"):
        return io.computed(node.inputs[0]), {"Padding": VALID, "StrideH": 1, "StrideW": 1}
    height, width = node.attrs.get("dilation", (1, 1))
    x, options = _window(io, node, io.graph.tensors[node.inputs[1]].shape, True)
    return x, {**options, "DilationHFactor": height, "DilationWFactor": width}


def _convolution(io: Exporter, node: Node, op: str, x: int, weights: int, options: Mapping[str, int]) -> None:
    """As it is, or where a float input is quantized block by block, between SPACE_TO_BATCH_ND and its inverse."""
    inputs = _layer_inputs(io, node, x, weights)
    if not node.attrs.get("by_blocks"):
        io.activated(node, op, inputs, **options)
        return
    shape, kernel, block = io.tensors[x].shape, io.graph.tensors[node.inputs[1]].shape, node.attrs["dilation"]
    spare = [
        -(size + sum(pair)) % step for size, pair, step in zip(shape[1:3], node.attrs["padding"], block, strict=True)
    ]
    pads = [(before, after + more) for (before, after), more in zip(node.attrs["padding"], spare, strict=True)]
    sides = [(size + sum(pair)) // step for size, pair, step in zip(shape[1:3], pads, block, strict=True)]
    batch, channels = block[0] * block[1], io.graph.tensors[node.output].shape[3]
    spread = io.between(f"{node.output}/blocks", node.inputs[0], (batch, *sides, shape[3]))
    inside = [side - size + 1 for side, size in zip(sides, kernel, strict=False)]
    summed = io.between(f"{node.output}/sums", node.output, (batch, *inside, channels))
    steps = io.integers("block", block)
    io.emit(node, "SPACE_TO_BATCH_ND", [x, steps, io.constant("paddings", np.array(pads, np.int32))], spread)
    fused = FUSED[str(node.attrs.get("activation", "none"))]
    io.emit(node, op, [spread, *inputs[1:]], summed, FusedActivationFunction=fused, **options)
    crops = io.constant("crops", np.array([(0, more) for more in spare], np.int32))
    io.emit(node, "BATCH_TO_SPACE_ND", [summed, steps, crops])


def conv2d(io: Exporter, node: Node) -> None:
    """Weights (kernel_h, kernel_w, in, out) become (out, kernel_h, kernel_w, in)."""
    x, options = _image(io, node)
    weights = io.weight(node.inputs[1], "conv", lambda a: a.transpose(3, 0, 1, 2), 0)
    _convolution(io, node, "CONV_2D", x, weights, options)


def depthwise_conv2d(io: Exporter, node: Node) -> None:
    """Weights (kernel_h, kernel_w, channels * multiplier) get a first dimension of 1."""
    x, options = _image(io, node)
    weights = io.weight(node.inputs[1], "depthwise", lambda a: a[None], 3)
    options["DepthMultiplier"] = node.attrs.get("multiplier", 1)
    _convolution(io, node, "DEPTHWISE_CONV_2D", x, weights, options)


def fully_connected(io: Exporter, node: Node) -> None:
    """Weights (in, out) become (out, in)."""
    weights = io.weight(node.inputs[1], "dense", lambda a: a.transpose(1, 0), 0)
    options = {"KeepNumDims": bool(node.attrs.get("keepdims", False))}
    if "asymmetric" in node.attrs:
        options["AsymmetricQuantizeInputs"] = bool(node.attrs["asymmetric"])
    inputs = _layer_inputs(io, node, io.computed(node.inputs[0]), weights)
    io.activated(node, "FULLY_CONNECTED", inputs, **options)


def pool(op: str) -> Rule:
    """Pixels outside don't count, so only TFLite's own paddings can be said."""

    def rule(io: Exporter, node: Node) -> None:
        height, width = node.attrs["kernel"]
        x, options = _window(io, node, node.attrs["kernel"], False)
        io.activated(node, op, [x], FilterHeight=height, FilterWidth=width, **options)

    return rule


def mean(io: Exporter, node: Node) -> None:
    """Over height and width."""
    inputs = [io.computed(node.inputs[0]), io.integers("axes", (1, 2))]
    io.emit(node, "MEAN", inputs, KeepDims=bool(node.attrs["keepdims"]))


def binary(op: str) -> Rule:
    """Of two values, one of which may be constant."""
    return lambda io, node: io.activated(node, op, [io.operand(name) for name in node.inputs])


def extremum(op: str) -> Rule:
    """Of two values, without an activation."""
    return lambda io, node: io.emit(node, op, [io.operand(name) for name in node.inputs])


def activation(io: Exporter, node: Node) -> None:
    """A function of each value."""
    io.function(node, str(node.attrs["function"]), io.computed(node.inputs[0]))


def plain(op: str, *options: tuple[str, str]) -> Rule:
    """One operator; `options` are pairs of TFLite's field and the node's attribute."""

    def rule(io: Exporter, node: Node) -> None:
        io.emit(node, op, [io.computed(node.inputs[0])], **{field: node.attrs[attr] for field, attr in options})

    return rule


def pad(io: Exporter, node: Node) -> None:
    """With zeros, or PADV2 with another value, in 8 bits one that the tensor's scale can say."""
    amounts = io.constant("paddings", np.array([(0, 0), *node.attrs["padding"], (0, 0)], np.int32))
    inputs, x = [io.computed(node.inputs[0]), amounts], io.graph.tensors[node.output]
    value = np.array(node.attrs.get("value", 0), np.float32)
    if not value:
        io.emit(node, "PAD", inputs)
        return
    if x.quantization is not None:
        limits = np.iinfo(x.dtype)
        steps = np.rint(value / x.quantization.scale[0]) + x.quantization.zero_point[0]
        value = np.clip(steps, limits.min, limits.max).astype(x.dtype)
    io.emit(node, "PADV2", [*inputs, io.constant("value", value, x.quantization)])


def reshape(io: Exporter, node: Node) -> None:
    """To a constant shape."""
    io.emit(node, "RESHAPE", [io.computed(node.inputs[0]), io.shape(node.attrs["shape"])])


def concat(io: Exporter, node: Node) -> None:
    """Along an axis."""
    io.activated(node, "CONCATENATION", [io.operand(name) for name in node.inputs], Axis=node.attrs["axis"])


def resize(op: str) -> Rule:
    """To a constant size."""

    def rule(io: Exporter, node: Node) -> None:
        inputs = [io.computed(node.inputs[0]), io.integers("size", node.attrs["size"])]
        corners, centers = node.attrs["align_corners"], node.attrs["half_pixel_centers"]
        io.emit(node, op, inputs, AlignCorners=corners, HalfPixelCenters=centers)

    return rule


def transpose(io: Exporter, node: Node) -> None:
    """Axes in another order."""
    io.emit(node, "TRANSPOSE", [io.computed(node.inputs[0]), io.integers("order", node.attrs["order"])])


def part(io: Exporter, node: Node) -> None:
    """A slice along an axis: one of the parts that SPLIT_V gives, or with a step a STRIDED_SLICE."""
    name, axis = node.inputs[0], node.attrs["axis"]
    shape = io.graph.tensors[name].shape
    first, length, step = node.attrs["first"], node.attrs["length"], node.attrs.get("step", 1)
    if step > 1:
        others = ~(1 << axis) & ((1 << len(shape)) - 1)
        bounds = (first, first + (length - 1) * step + 1, step)
        inputs = [io.integers(what, [bound if i == axis else one for i in range(len(shape))])
                  for what, bound, one in zip(("begin", "end", "strides"), bounds, (0, 0, 1), strict=True)]  # fmt: skip
        io.emit(node, "STRIDED_SLICE", [io.computed(name), *inputs], BeginMask=others, EndMask=others)
        return
    lengths = {"before": first, "": length, "behind": shape[axis] - first - length}
    used = {what: size for what, size in lengths.items() if size}
    inputs = [io.computed(name), io.integers("lengths", list(used.values())), io.integers("axis", [axis])]
    outputs = [
        io.between(f"{node.output}/{what}", node.output, (*shape[:axis], size, *shape[axis + 1 :])) if what
        else io.computed(node.output) for what, size in used.items()
    ]  # fmt: skip
    io.emit(node, "SPLIT_V", inputs, *outputs, NumSplits=len(used))


def unary(io: Exporter, node: Node) -> None:
    """A function that TFLite has an operator of."""
    formula = str(node.attrs["formula"])
    if formula in ("selu", "softplus"):
        refuse(node, f"TFLite has no operator for {formula}; export to .onnx")
    options = {"Approximate": formula == "gelu_tanh"} if formula.startswith("gelu") else {}
    io.emit(node, "GELU" if options else formula.upper(), [io.computed(node.inputs[0])], **options)


def arg_max(io: Exporter, node: Node) -> None:
    """The index of the largest value along an axis."""
    dtype = io.graph.tensors[node.output].dtype
    kind = {"int32": 2, "int64": 4}.get(dtype)  # schema.fbs, enum TensorType
    if kind is None:
        refuse(node, f"its places are {dtype}; ARG_MAX gives int32 or int64")
    axis = io.integers("axis", [node.attrs["axis"]])
    io.emit(node, "ARG_MAX", [io.computed(node.inputs[0]), axis], OutputType=kind)


def prelu(io: Exporter, node: Node) -> None:
    """The factors of negative values."""
    factors = io.weight(node.inputs[1], "prelu", lambda a: a[0])
    io.emit(node, "PRELU", [io.computed(node.inputs[0]), factors])


RULES: Mapping[str, Rule] = MappingProxyType({
    "activation": activation,
    "add": binary("ADD"),
    "arg_max": arg_max,
    "average_pool": pool("AVERAGE_POOL_2D"),
    "concat": concat,
    "conv2d": conv2d,
    "depthwise_conv2d": depthwise_conv2d,
    "dequantize": plain("DEQUANTIZE"),
    "div": binary("DIV"),
    "fully_connected": fully_connected,
    "l2_normalize": plain("L2_NORMALIZATION"),
    "leaky_relu": plain("LEAKY_RELU", ("Alpha", "alpha")),
    "max_pool": pool("MAX_POOL_2D"),
    "maximum": extremum("MAXIMUM"),
    "mean": mean,
    "minimum": extremum("MINIMUM"),
    "mul": binary("MUL"),
    "pad": pad,
    "prelu": prelu,
    "quantize": plain("QUANTIZE"),
    "reshape": reshape,
    "resize_bilinear": resize("RESIZE_BILINEAR"),
    "resize_nearest": resize("RESIZE_NEAREST_NEIGHBOR"),
    "slice": part,
    "softmax": plain("SOFTMAX", ("Beta", "beta")),
    "sub": binary("SUB"),
    "transpose": transpose,
    "unary": unary,
})  # fmt: skip
