"""Tensors, nodes and ops: what a node may say, the shape that each op gives, and the kernels that compute it.

Adding an op starts here: a shape rule and a row in `OPS`, from which all else is derived.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from npmobilenet.errors import GraphError

BYTES = {"float32": 4, "uint8": 1, "int8": 1, "int16": 2, "int32": 4, "int64": 8}  # dtype -> bytes of an element
DTYPES = tuple(BYTES)
MAX_SIDE = 1 << 16  # rows or columns of an image that is resized: planning makes a table of them
MAX_RANK = 8  # dimensions of a tensor: MobileNets need 4, NumPy has 64 at most

# Functions that may follow an op, fused into it as its `activation` attribute or standing alone as an "activation"
# node. The position in this tuple is the code that the kernels switch on; formulas: kernels/reference/activation.py.
ACTIVATIONS = (
    "none", "relu", "relu6", "relu_n1_to_1", "hard_swish", "hard_sigmoid", "hard_sigmoid_slim", "sigmoid",
    "relu_0_to_1",
)  # fmt: skip
# Functions of "unary" nodes, which stand alone; the position is the code. Formulas: kernels/reference/unary.py.
UNARY = ("tanh", "elu", "selu", "gelu", "gelu_tanh", "exp", "log", "sqrt", "rsqrt", "abs", "softplus")

Padding = tuple[tuple[int, int], tuple[int, int]]


@dataclass(frozen=True)
class Quantization:
    """`real = scale * (quantized - zero_point)`: one pair for the whole tensor (`axis is None`), or for each index."""

    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    axis: int | None = None


@dataclass(frozen=True)
class Tensor:
    """A named array of the graph: a weight (`constant`), or an input or intermediate value; `source`: `#<index>`."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    constant: bool = False
    quantization: Quantization | None = None
    source: str = ""

    @property
    def size(self) -> int:
        """Number of elements (for an activation: for one image)."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of its elements (for an activation: for one image)."""
        return self.size * BYTES[self.dtype]


@dataclass(frozen=True)
class Node:
    """One operation: `op` applied to the tensors `inputs` (activations, then constants), writing `output`.

    `attrs`: its parameters (as its shape rule lists them). `scope` is the variable scope that holds its weights in a
    TF-slim checkpoint, `batch_norm` says that BatchNorm variables are there instead of a bias. `open_shapes`: the
    .tflite that it is from says nothing of the shape of what it reads or writes.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    output: str
    attrs: Mapping[str, Any] = field(default_factory=dict)
    scope: str = ""
    batch_norm: bool = False
    open_shapes: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "attrs", MappingProxyType(dict(self.attrs)))

    def __reduce__(self) -> tuple[Any, ...]:
        """For copy and pickle, which can't take a MappingProxyType."""
        return Node, tuple(dict(v) if k == "attrs" else v for k, v in vars(self).items())


def same_padding(size: int, kernel: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """TensorFlow's "SAME": `(before, after)` for `ceil(size / stride)` outputs; `same_padding(224, 3, 2) == (0, 1)`.

    Source: TensorFlow, tensorflow/core/framework/common_shape_fns.cc, GetWindowedOutputSizeVerbose.
    """
    extent = (kernel - 1) * dilation + 1
    total = max((math.ceil(size / stride) - 1) * stride + extent - size, 0)
    return total // 2, total - total // 2


def window_output(size: int, kernel: int, stride: int, dilation: int, pad: tuple[int, int]) -> int:
    """Number of positions of a sliding window: `(size + pads - extent) // stride + 1`; 0 or less if it doesn't fit."""
    return (size + pad[0] + pad[1] - ((kernel - 1) * dilation + 1)) // stride + 1


def _window(node: Node, x: Tensor, kernel: tuple[int, int]) -> tuple[int, int]:
    stride, dilation, padding = node.attrs["stride"], node.attrs.get("dilation", (1, 1)), node.attrs["padding"]
    out = tuple(window_output(x.shape[1 + i], kernel[i], stride[i], dilation[i], padding[i]) for i in (0, 1))
    _check(node, min(out) >= 1, f"a window of {kernel} that fits into {x.shape[1:3]} with padding {padding}", out)
    return out[0], out[1]


def misfit(node: Node, expected: object, got: object) -> GraphError:
    """The error for a node whose inputs or attributes don't suit its op."""
    return GraphError(f"node '{node.name}' ({node.op}): expected {expected}, got {got}")


def _check(node: Node, good: bool, expected: object, got: object) -> None:
    if not good:
        raise misfit(node, expected, got)


def convolution(node: Node, x: Tensor, weights: Tensor, bias: Tensor) -> tuple[int, ...]:
    """conv2d, depthwise_conv2d: stride (h, w), padding, dilation, activation; multiplier (outputs of a channel)."""
    channels, flat = x.shape[3] * node.attrs.get("multiplier", 1), node.op == "depthwise_conv2d"
    _check(node, len(weights.shape) == 4 - flat and weights.shape[2] == channels,
           f"weights (kernel_h, kernel_w, {channels}{'' if flat else ', out_channels'})", weights.shape)  # fmt: skip
    _check(node, bias.shape == weights.shape[-1:], f"bias {weights.shape[-1:]}", bias.shape)
    return (1, *_window(node, x, (weights.shape[0], weights.shape[1])), weights.shape[-1])


def fully_connected(node: Node, x: Tensor, weights: Tensor, bias: Tensor) -> tuple[int, ...]:
    """activation; keepdims (rows along the last dimension, else an image is one); asymmetric (of float32 rows)."""
    keepdims = node.attrs.get("keepdims", False)
    features = x.shape[-1] if keepdims else math.prod(x.shape[1:])
    _check(node, weights.shape[:-1] == (features,), f"weights ({features}, out_features)", weights.shape)
    _check(node, bias.shape == weights.shape[1:], f"bias {weights.shape[1:]}", bias.shape)
    return (*x.shape[:-1], weights.shape[1]) if keepdims else (1, weights.shape[1])


def selection(node: Node, x: Tensor) -> tuple[int, ...]:
    """transpose (order: x's axes, the batch in front); slice (axis, first, length, step); arg_max (axis)."""
    if node.op == "transpose":
        order = node.attrs["order"]
        _check(node, sorted(order) == [*range(len(x.shape))] and order[0] == 0, "all axes, the batch in front", order)
        return tuple(x.shape[axis] for axis in order)
    axis, length, step = node.attrs["axis"], node.attrs.get("length", 0), node.attrs.get("step", 1)
    fits = axis < len(x.shape) and node.attrs.get("first", 0) + (length - 1) * step < x.shape[axis]
    _check(node, fits, f"an axis of {x.shape} and a part of it", dict(node.attrs))
    return (*x.shape[:axis], *((length,) if length else ()), *x.shape[axis + 1 :])


def average_pool(node: Node, x: Tensor) -> tuple[int, ...]:
    """Attributes: kernel (h, w), stride, padding, activation. Pixels outside the image don't count."""
    return (1, *_window(node, x, node.attrs["kernel"]), x.shape[3])


def mean(node: Node, x: Tensor) -> tuple[int, ...]:
    """Attributes: keepdims. The mean over height and width."""
    return (1, 1, 1, x.shape[3]) if node.attrs["keepdims"] else (1, x.shape[3])


def binary(node: Node, x: Tensor, y: Tensor) -> tuple[int, ...]:
    """add, sub, mul, div, minimum, maximum (activation), prelu (y: factors of negative x). Sizes are equal or 1."""
    _check(node, not (x.constant and y.constant), "at least one computed operand", "two constants")
    _check(node, len(x.shape) <= 4, "operands of rank 4 at most", x.shape)
    fits = len(x.shape) == len(y.shape) and all(a == b or 1 in (a, b) for a, b in zip(x.shape, y.shape, strict=False))
    _check(node, fits, "inputs of equal rank whose dimensions are equal or 1", f"{x.shape} and {y.shape}")
    return tuple(max(a, b) for a, b in zip(x.shape, y.shape, strict=True))


def elementwise(node: Node, x: Tensor) -> tuple[int, ...]:
    """activation (function), unary (formula), leaky_relu (alpha); of rows: softmax (beta), l2_normalize."""
    _check(node, node.op != "softmax" or len(x.shape) > 1, "an input of rank 2 or more (batch, ..., classes)", x.shape)
    return x.shape


def pad(node: Node, x: Tensor) -> tuple[int, ...]:
    """Attributes: padding ((top, bottom), (left, right)); value, the real number that it fills with (0)."""
    (top, bottom), (left, right) = node.attrs["padding"]
    return (1, top + x.shape[1] + bottom, left + x.shape[2] + right, x.shape[3])


def reshape(node: Node, x: Tensor) -> tuple[int, ...]:
    """Attributes: shape (with the leading batch dimension 1). Also what squeeze becomes."""
    shape = tuple(node.attrs["shape"])
    _check(node, shape[:1] == (1,) and math.prod(shape) == x.size, f"a shape (1, ...) of {x.size} elements", shape)
    return shape


def concat(node: Node, *xs: Tensor) -> tuple[int, ...]:
    """Attributes: axis (1 or more; the batch can't be concatenated), activation."""
    axis, first = node.attrs["axis"], xs[0].shape
    _check(node, 1 <= axis < len(first), f"an axis from 1 to {len(first) - 1}", axis)
    fits = all(x.shape[:axis] + x.shape[axis + 1 :] == first[:axis] + first[axis + 1 :] for x in xs)
    _check(node, fits, f"inputs that differ along axis {axis} only", [x.shape for x in xs])
    return (*first[:axis], sum(x.shape[axis] for x in xs), *first[axis + 1 :])


def resize_bilinear(node: Node, x: Tensor) -> tuple[int, ...]:
    """Attributes: size (h, w), align_corners, half_pixel_centers."""
    _check(node, max(x.shape[1:3]) <= MAX_SIDE, f"an image of at most {MAX_SIDE} rows and columns", x.shape)
    return (1, *node.attrs["size"], x.shape[3])


def _whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < 2**31


def _several(value: Any, least: int, count: int = 0) -> bool:
    fits = isinstance(value, tuple) and 0 < len(value) <= MAX_RANK and count in (0, len(value))
    return bool(fits) and all(_whole(v, least) for v in value)


# What an attribute may be, which is checked before any rule reads it.
ATTRIBUTES: Mapping[str, tuple[str, Callable[[Any], bool]]] = MappingProxyType({
    **dict.fromkeys(("stride", "dilation", "kernel"), ("two whole numbers of at least 1", lambda v: _several(v, 1, 2))),
    "size": (f"two whole numbers from 1 to {MAX_SIDE}", lambda v: _several(v, 1, 2) and max(v) <= MAX_SIDE),
    "padding": ("((top, bottom), (left, right)), whole numbers of at least 0",
                lambda v: isinstance(v, tuple) and len(v) == 2 and all(_several(p, 0, 2) for p in v)),
    "shape": (f"1 to {MAX_RANK} whole numbers of at least 1", lambda v: _several(v, 1)),
    "order": (f"1 to {MAX_RANK} axes", lambda v: _several(v, 0)),
    "first": ("a whole number of at least 0", lambda v: _whole(v, 0)),
    **dict.fromkeys(("multiplier", "axis", "length", "step"), ("a whole number of at least 1", lambda v: _whole(v, 1))),
    "formula": (f"one of {', '.join(UNARY)}", lambda v: v in UNARY),
    **dict.fromkeys(("alpha", "beta", "value"), ("a number that float32 holds",
                    lambda v: isinstance(v, (int, float)) and abs(v) < 2**128 - 2**103)),
    **dict.fromkeys(("activation", "function"), (f"one of {', '.join(ACTIVATIONS)}", lambda v: v in ACTIVATIONS)),
    # grouped: what LiteRT's reference kernel alone does. by_blocks: float32 pixels a dilation apart share a scale.
    **dict.fromkeys(("keepdims", "align_corners", "half_pixel_centers", "grouped", "by_blocks", "asymmetric"),
                    ("True or False", lambda v: isinstance(v, bool))),
})  # fmt: skip


@dataclass(frozen=True)
class Example:
    """A small legal node of an op, for runtime/examples.py: shapes of operands and weights, attributes, dtypes."""

    operands: tuple[tuple[int, ...], ...]
    weights: tuple[tuple[int, ...], ...] = ()
    attrs: Mapping[str, Any] = field(default_factory=dict)
    given: str = ""  # the operands' dtype, if not the one asked for: a name, or "other", of uint8 and int8
    result: str = ""  # the output's, likewise


@dataclass(frozen=True)
class OpSpec:
    """All that is known of an op: shape rule (whose docstring lists the attributes), inputs, kernels and examples."""

    shape: Callable[..., tuple[int, ...]]
    operands: int  # number of inputs that come first, computed or constant; -1: one or more
    weights: int = 0  # number of inputs that follow them and must be constants
    attrs: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    kernels: tuple[str, ...] = ()  # file.kernel, below kernels/reference/ and kernels/fast/; _f32 or _q for 8 bits
    examples: tuple[Example, ...] = ()  # in which each of its kernels occurs, in every form of arguments that it takes
    rank: int = 0  # of the first input, where it must have a certain one

    def computes(self, dtype: str) -> bool:
        """Whether there are kernels for nodes of float32, or else for those with an 8-bit tensor."""
        return any(kernel.endswith("_f32") == (dtype == "float32") for kernel in self.kernels)


def _example(*operands: tuple[int, ...], weights: tuple[tuple[int, ...], ...] = (), **attrs: Any) -> Example:
    return Example(operands, weights, attrs)


def _both(*names: str, file: str = "") -> tuple[str, ...]:
    """A kernel for float32 and one for 8 bits of each name, in a file of that name."""
    return tuple(f"{file or name}.{name}{ending}" for ending in ("_f32", "_q") for name in names)


_WINDOWED, _CONVOLVED = ("stride", "padding"), ("dilation", "activation", "grouped", "by_blocks")
_DYNAMIC = ("dynamic_range.quantize_rows_q", "dynamic_range.scale_sums_f32")  # int8 weights of a float32 input
_IMAGE, _ROW, _MOVES = (1, 4, 4, 8), (1, 8), "pad_reshape_concat"
_BARE: Mapping[str, Any] = {"stride": (1, 1), "padding": ((0, 0), (0, 0))}
_PADDED: Mapping[str, Any] = {"stride": (2, 1), "padding": ((1, 1), (0, 2))}
OPS: Mapping[str, OpSpec] = MappingProxyType({
    "conv2d": OpSpec(convolution, 1, 2, _WINDOWED, _CONVOLVED, (*_both("conv2d", "pointwise_conv2d"), *_DYNAMIC),
        (_example(_IMAGE, weights=((3, 3, 8, 8), (8,)), activation="relu6", **_PADDED),
         _example((1, 1, 37, 24), weights=((1, 1, 24, 40), (40,)), **_BARE),
         Example((_IMAGE,), ((3, 3, 8, 8), (8,)), _PADDED, "float32", "float32")), rank=4),
    "depthwise_conv2d": OpSpec(convolution, 1, 2, _WINDOWED, (*_CONVOLVED, "multiplier"),
        _both("depthwise_conv2d"), (_example(_IMAGE, weights=((3, 3, 8), (8,)), **_PADDED),), rank=4),
    "fully_connected": OpSpec(fully_connected, 1, 2, (), ("activation", "keepdims", "asymmetric"),
        _both("fully_connected"), (_example(_ROW, weights=((8, 5), (5,)), activation="relu"),)),
    **{op: OpSpec(average_pool, 1, 0, ("kernel", *_WINDOWED), ("activation",), _both(op),
        (_example(_IMAGE, kernel=(3, 3), **_PADDED),), rank=4) for op in ("average_pool", "max_pool")},
    "mean": OpSpec(mean, 1, 0, ("keepdims",), (), _both("mean"), (_example(_IMAGE, keepdims=True),), rank=4),
    **{op: OpSpec(binary, 2, 0, (), ("activation",), (f"binary.{op}_f32", *(f"binary.{name}_q" for name in integer)),
        (_example(_IMAGE, _IMAGE), _example(_IMAGE, (1, 1, 1, 8), activation="relu")))
       for op, integer in (("add", ("add",)), ("sub", ("add",)), ("mul", ("mul",)), ("div", ()))},
    **{op: OpSpec(binary, 2, 0, kernels=_both(op, file="extremum"),
        examples=(_example(_IMAGE, _IMAGE), _example(_IMAGE, (1, 1, 1, 8)))) for op in ("minimum", "maximum")},
    "activation": OpSpec(elementwise, 1, 0, ("function",), (), ("activation.activation_f32", "activation.lookup_q"),
        (_example(_IMAGE, function="hard_swish"), _example(_ROW, function="relu6"))),
    "unary": OpSpec(elementwise, 1, 0, ("formula",), (), ("unary.unary_f32", "activation.lookup_q"),
        (_example(_ROW, formula="gelu"),)),
    "l2_normalize": OpSpec(elementwise, 1, kernels=_both("l2_normalize"), examples=(_example(_ROW),)),
    "softmax": OpSpec(elementwise, 1, 0, ("beta",), (),
        tuple(f"softmax.softmax_{how}" for how in ("f32", "fixed_q", "float_q", "lut_q")), (_example(_ROW, beta=1.0),)),
    "pad": OpSpec(pad, 1, 0, ("padding",), ("value",), _both("pad", file=_MOVES),
        (_example(_IMAGE, padding=((1, 2), (0, 1))),), rank=4),
    "reshape": OpSpec(reshape, 1, 0, ("shape",), (), _both("reshape", file=_MOVES), (_example(_ROW, shape=(1, 2, 4)),)),
    "concat": OpSpec(concat, -1, 0, ("axis",), ("activation",), _both("concat", file=_MOVES),
        (_example(_IMAGE, (1, 4, 4, 3), axis=3),)),
    "resize_bilinear": OpSpec(resize_bilinear, 1, 0, ("size", "align_corners", "half_pixel_centers"), (),
        tuple(f"resize_bilinear.resize_bilinear_{kernel}" for kernel in ("f32", "fixed_q", "float_q")),
        (_example(_IMAGE, size=(5, 7), align_corners=False, half_pixel_centers=True),), rank=4),
    "resize_nearest": OpSpec(resize_bilinear, 1, 0, ("size", "align_corners", "half_pixel_centers"), (),
        _both("resize_nearest"), (_example(_IMAGE, size=(5, 7), align_corners=True, half_pixel_centers=True),), rank=4),
    "transpose": OpSpec(selection, 1, 0, ("order",), (), _both("transpose"), (_example(_IMAGE, order=(0, 3, 1, 2)),)),
    "slice": OpSpec(selection, 1, 0, ("axis", "first", "length"), ("step",), _both("transpose"),
        (_example(_IMAGE, axis=3, first=2, length=3, step=2),)),
    "arg_max": OpSpec(selection, 1, 0, ("axis",), (), _both("arg_max"),
        (Example((_IMAGE,), (), {"axis": 3}, "", "int64"),)),
    "prelu": OpSpec(binary, 2, 0, (), (), _both("prelu"), (_example(_IMAGE, weights=((1, 1, 1, 8),)),)),
    "leaky_relu": OpSpec(elementwise, 1, 0, ("alpha",), (), ("prelu.prelu_f32", "activation.lookup_q"),
        (_example(_IMAGE, alpha=0.1),)),
    "quantize": OpSpec(elementwise, 1, kernels=("quantize.quantize_q", "activation.lookup_q"),
        examples=(Example((_IMAGE,), given="float32"), Example((_IMAGE,)), Example((_IMAGE,), given="other"))),
    "dequantize": OpSpec(elementwise, 1, kernels=("activation.lookup_q",),
        examples=(Example((_IMAGE,), result="float32"),)),
})  # fmt: skip


def infer_shape(node: Node, inputs: list[Tensor]) -> tuple[int, ...]:
    """The shape of a node's output for these inputs; checks their number, kinds and the node's attributes."""
    spec = OPS[node.op]
    count = len(node.inputs) if spec.operands < 0 else spec.operands + spec.weights
    _check(node, len(inputs) == count and count > 0, f"{max(count, 1)} inputs", len(inputs))
    for tensor in inputs[len(inputs) - spec.weights :]:
        _check(node, tensor.constant, "constant weights and bias", f"'{tensor.name}', which is computed")
    if spec.shape is not binary:  # an operand that is the same for all images would lack the batch dimension
        fixed = [t.name for t in inputs[: len(inputs) - spec.weights] if t.constant]
        _check(node, not fixed, "computed operands", f"the constant {', '.join(map(repr, fixed))}")
    odd = [f"missing {a}" for a in spec.attrs if a not in node.attrs]
    odd += [f"unknown {a}" for a in node.attrs if a not in spec.attrs + spec.optional]
    _check(node, not odd, f"attributes {spec.attrs + spec.optional}", ", ".join(odd))
    for attr, value in node.attrs.items():
        expected, good = ATTRIBUTES[attr]
        _check(node, good(value), f"{attr}: {expected}", value)
    rank = len(inputs[0].shape)
    _check(node, spec.rank in (0, rank), f"an input of rank {spec.rank}{' (NHWC)' * (spec.rank == 4)}", inputs[0].shape)
    return spec.shape(node, *inputs)
