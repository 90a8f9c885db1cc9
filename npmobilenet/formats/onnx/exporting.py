"""A float graph as an .onnx file: channels in front inside, NHWC at inputs and outputs.

ONNX's images are NCHW. A value of four dimensions is held so from the first node that reads it on; the file's inputs
and outputs keep this project's shapes and names, so a Transpose stands at either end. What counts the elements of an
image in their order (reshape, dense layers) takes it in NHWC again, but for one pixel, where both are the same.

Source: ONNX 1.17, docs/Operators.md, opset 18.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from npmobilenet.formats.onnx.file_builder import IMAGE, KINDS, TO_NCHW, Exporter, refuse
from npmobilenet.graph import Node
from npmobilenet.modeldata import Array, ModelData


def write_onnx(data: ModelData, names: Sequence[str] = ()) -> bytes:
    """The file's bytes, which ONNX's checker has passed; `names` are the classes', one for each output.

    Raises `ConversionError`, naming op and node, for what isn't float32 or can't be said, and `MissingExtra`.
    """
    work = Exporter(data)
    for node in data.graph.nodes:
        for name in (*node.inputs, node.output):
            dtype = data.graph.tensors[name].dtype
            if dtype != "float32" and not (node.op == "arg_max" and name == node.output):
                refuse(node, f"'{name}' is {dtype}: .onnx is written of float32 models; export to .tflite")
        if node.op not in RULES:
            refuse(node, "no ONNX operator is known for it; export to .tflite")
        function, target = str(node.attrs.get("activation", "none")), work.result(node.output)
        value = target if function == "none" else work.fresh(f"{node.output}/linear")
        RULES[node.op](work, node, value)
        if function != "none":
            work.function(function, value, target)
    return work.finish(data, names)


# ---------------------------------------------------------------------------------------------------------------------
# One rule for each op of the graph: it writes the value `y`

Rule = Callable[[Exporter, Node, str], None]
_AXES = (0, 2, 3, 1)  # where an axis of an image stands when its channels are in front


def _pads(node: Node) -> dict[str, Any]:
    (top, bottom), (left, right) = node.attrs["padding"]
    return {"pads": [top, left, bottom, right], "strides": list(node.attrs["stride"])}


def _axis(io: Exporter, node: Node) -> int:
    axis = int(node.attrs["axis"])
    return _AXES[axis] if io.rank(node.inputs[0]) == IMAGE else axis


def conv2d(io: Exporter, node: Node, y: str) -> None:
    """Weights (kernel_h, kernel_w, in, out) become (out, in, kernel_h, kernel_w)."""
    _convolution(io, node, y, io.arrays[node.inputs[1]].transpose(3, 2, 0, 1), 1)


def depthwise_conv2d(io: Exporter, node: Node, y: str) -> None:
    """Weights (kernel_h, kernel_w, channels * multiplier) become (channels * multiplier, 1, kernel_h, kernel_w)."""
    weights = io.arrays[node.inputs[1]].transpose(2, 0, 1)[:, None]
    _convolution(io, node, y, weights, io.graph.tensors[node.inputs[0]].shape[3])


def _convolution(io: Exporter, node: Node, y: str, weights: Array, groups: int) -> None:
    inputs = [io.held(node.inputs[0]), io.constant(node.inputs[1], weights), io.operand(node.inputs[2])]
    shape = list(weights.shape[2:])
    dilation = list(node.attrs.get("dilation", (1, 1)))
    io.op("Conv", inputs, y, kernel_shape=shape, group=groups, dilations=dilation, **_pads(node))


def fully_connected(io: Exporter, node: Node, y: str) -> None:
    """Of all values of an image, or with keepdims along the last dimension."""
    weights, bias = io.constant(node.inputs[1], io.arrays[node.inputs[1]]), io.operand(node.inputs[2])
    if not node.attrs.get("keepdims", False):
        features = io.graph.tensors[node.inputs[1]].shape[0]
        flat = _reshaped(io, node.inputs[0], (1, features), io.fresh(f"{y}/flat"))
        io.op("Gemm", [flat, weights, bias], y)
        return
    product = io.op("MatMul", [io.plain(node.inputs[0]), weights], io.fresh(f"{y}/product"))
    image = io.rank(node.output) == IMAGE
    total = io.op("Add", [product, bias], io.fresh(f"{y}/sum") if image else y)
    if image:
        io.op("Transpose", [total], y, perm=TO_NCHW)


def pool(op: str) -> Rule:
    """Pixels outside don't count."""

    def rule(io: Exporter, node: Node, y: str) -> None:
        kernel = list(node.attrs["kernel"])
        if any(max(pair) >= size for pair, size in zip(node.attrs["padding"], kernel, strict=True)):
            refuse(
                node, f"padding {node.attrs['padding']} beside a window of {kernel}: ONNX Runtime wants less than it"
            )
        more = {"count_include_pad": 0} if op == "AveragePool" else {}
        io.op(op, [io.held(node.inputs[0])], y, kernel_shape=kernel, **_pads(node), **more)

    return rule


def mean(io: Exporter, node: Node, y: str) -> None:
    """Over height and width."""
    axes = io.integers(f"{y}/axes", (2, 3))
    io.op("ReduceMean", [io.held(node.inputs[0]), axes], y, keepdims=int(node.attrs["keepdims"]))


def binary(op: str) -> Rule:
    """Of two values, one of which may be constant."""
    return lambda io, node, y: _done(io.op(op, [io.operand(name) for name in node.inputs], y))


def unary(op: str, attribute: str = "") -> Rule:
    """Of each value."""
    return lambda io, node, y: _done(
        io.op(op, [io.held(node.inputs[0])], y, **{attribute: float(node.attrs[attribute])} if attribute else {})
    )


def _done(_: str) -> None:
    return None


def activation(io: Exporter, node: Node, y: str) -> None:
    """A function of each value."""
    io.function(str(node.attrs["function"]), io.held(node.inputs[0]), y)


def softmax(io: Exporter, node: Node, y: str) -> None:
    """Over the channels."""
    x, beta = io.held(node.inputs[0]), float(node.attrs["beta"])
    if beta != 1:
        x = io.op("Mul", [x, io.scalar(f"{y}/beta", beta)], io.fresh(f"{y}/scaled"))
    io.op("Softmax", [x], y, axis=1 if io.rank(node.inputs[0]) == IMAGE else -1)


def pad(io: Exporter, node: Node, y: str) -> None:
    """With zeros, or another value."""
    (top, bottom), (left, right) = node.attrs["padding"]
    pads = io.integers(f"{y}/pads", (0, 0, top, left, 0, 0, bottom, right))
    value = [io.scalar(f"{y}/value", float(node.attrs["value"]))] if node.attrs.get("value") else []
    io.op("Pad", [io.held(node.inputs[0]), pads, *value], y, mode="constant")


def reshape(io: Exporter, node: Node, y: str) -> None:
    """In the graph's order."""
    shape = tuple(node.attrs["shape"])
    if len(shape) != IMAGE:
        _reshaped(io, node.inputs[0], shape, y)
    elif shape[1:3] == (1, 1):
        _reshaped(io, node.inputs[0], (1, shape[3], 1, 1), y)
    else:
        io.op("Transpose", [_reshaped(io, node.inputs[0], shape, io.fresh(f"{y}/nhwc"))], y, perm=TO_NCHW)


def _reshaped(io: Exporter, name: str, shape: tuple[int, ...], y: str) -> str:
    """Of an image of one pixel, the order of whose values is that of its channels, without a Transpose."""
    pixel = io.graph.tensors[name].shape[1:3] == (1, 1) and io.rank(name) == IMAGE
    source = io.held(name) if pixel else io.plain(name)
    return io.op("Reshape", [source, io.integers(f"{y}/shape", (0, *shape[1:]))], y)


def concat(io: Exporter, node: Node, y: str) -> None:
    """Along an axis."""
    io.op("Concat", [io.operand(name) for name in node.inputs], y, axis=_axis(io, node))


def resize(io: Exporter, node: Node, y: str) -> None:
    """To a constant size; the corner rules are those of docs/Operators.md, Resize."""
    corners, centers = node.attrs["align_corners"], node.attrs["half_pixel_centers"]
    if corners and centers:
        refuse(node, "align_corners and half_pixel_centers together, which ONNX doesn't know; export to .tflite")
    mode = "align_corners" if corners else "half_pixel" if centers else "asymmetric"
    more = {"mode": "linear"}
    if node.op == "resize_nearest":
        more = {"mode": "nearest", "nearest_mode": "floor" if mode == "asymmetric" else "round_prefer_ceil"}
    x, size = io.held(node.inputs[0]), io.integers(f"{y}/size", node.attrs["size"])
    front = io.op("Shape", [x], io.fresh(f"{y}/front"), start=0, end=2)
    sizes = io.op("Concat", [front, size], io.fresh(f"{y}/sizes"), axis=0)
    io.op("Resize", [x, "", "", sizes], y, coordinate_transformation_mode=mode, **more)


def transpose(io: Exporter, node: Node, y: str) -> None:
    """Axes in another order, from NHWC to NHWC: of values that are held with their channels in front, all in one."""
    order = list(node.attrs["order"])
    if len(order) == IMAGE:
        order = [_AXES[order[axis]] for axis in TO_NCHW]
    io.op("Transpose", [io.held(node.inputs[0])], y, perm=order)


def part(io: Exporter, node: Node, y: str) -> None:
    """A slice along an axis."""
    first, step = node.attrs["first"], node.attrs.get("step", 1)
    last = first + (node.attrs["length"] - 1) * step + 1
    ends = [io.integers(f"{y}/{what}", [v]) for what, v in
            (("first", first), ("last", last), ("axis", _axis(io, node)), ("step", step))]  # fmt: skip
    io.op("Slice", [io.held(node.inputs[0]), *ends], y)


def formula(io: Exporter, node: Node, y: str) -> None:
    """A function that ONNX has an operator of, or one over it."""
    name, x = str(node.attrs["formula"]), io.held(node.inputs[0])
    if name == "gelu_tanh":
        refuse(node, "it has no operator in opset 18; export to .tflite")
    if name == "gelu":  # x / 2 * (1 + erf(x / sqrt 2))
        inner = io.op("Mul", [x, io.scalar(f"{y}/root", 0.5**0.5)], io.fresh(f"{y}/inner"))
        more = io.op(
            "Add", [io.op("Erf", [inner], io.fresh(f"{y}/erf")), io.scalar(f"{y}/one", 1)], io.fresh(f"{y}/sum")
        )
        io.op("Mul", [io.op("Mul", [x, more], io.fresh(f"{y}/double")), io.scalar(f"{y}/half", 0.5)], y)
        return
    if name == "rsqrt":
        io.op("Reciprocal", [io.op("Sqrt", [x], io.fresh(f"{y}/root"))], y)
        return
    io.op(name.capitalize(), [x], y)


def l2_normalize(io: Exporter, node: Node, y: str) -> None:
    """Each row by its length, which is at least 1e-6."""
    x = io.plain(node.inputs[0])
    length = io.op("ReduceL2", [x, io.integers(f"{y}/axis", [-1])], io.fresh(f"{y}/length"), keepdims=1)
    longer = io.op("Max", [length, io.scalar(f"{y}/least", 1e-6)], io.fresh(f"{y}/longer"))
    if io.rank(node.output) == IMAGE:
        refuse(node, "of an image's channels; export to .tflite")
    io.op("Div", [x, longer], y)


def arg_max(io: Exporter, node: Node, y: str) -> None:
    """The index of the largest value along an axis, which goes; the first of equal ones."""
    dtype = io.graph.tensors[node.output].dtype
    if dtype not in KINDS:
        refuse(node, f"its places are {dtype}; .onnx is written with int32, int64 and float32")
    found = y if dtype == "int64" else io.fresh(f"{y}/index")
    io.op("ArgMax", [io.plain(node.inputs[0])], found, axis=int(node.attrs["axis"]), keepdims=0)
    if dtype != "int64":
        io.op("Cast", [found], y, to=KINDS[dtype])


RULES: Mapping[str, Rule] = MappingProxyType({
    "activation": activation, "add": binary("Add"), "arg_max": arg_max, "average_pool": pool("AveragePool"),
    "concat": concat, "conv2d": conv2d, "depthwise_conv2d": depthwise_conv2d, "div": binary("Div"),
    "fully_connected": fully_connected, "l2_normalize": l2_normalize, "maximum": binary("Max"),
    "minimum": binary("Min"), "unary": formula,
    "leaky_relu": unary("LeakyRelu", "alpha"), "max_pool": pool("MaxPool"), "mean": mean, "mul": binary("Mul"),
    "pad": pad, "prelu": binary("PRelu"), "reshape": reshape, "resize_bilinear": resize, "resize_nearest": resize,
    "slice": part, "softmax": softmax, "sub": binary("Sub"), "transpose": transpose,
})  # fmt: skip
