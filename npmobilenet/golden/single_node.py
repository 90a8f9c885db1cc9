"""One node at a time: run alone, whole or cut down to what one output element reads; and the products of its sum.

Whatever is computed here is computed by the engine's own binders and kernels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from npmobilenet.arithmetic import convolution
from npmobilenet.arithmetic.dialects import Dialect
from npmobilenet.arithmetic.dialects import dialect as dialect_named
from npmobilenet.arithmetic.fixedpoint import Requantization, Rounding, VectorRule
from npmobilenet.errors import PlanError
from npmobilenet.graph import Node, Quantization, Tensor
from npmobilenet.kernels import as_functions, kernel_set
from npmobilenet.modeldata import Array, ModelData
from npmobilenet.runtime.binding import NodeContext, Step, bind
from npmobilenet.runtime.exclusive import exclusive
from npmobilenet.runtime.taps import ACC, ACCUMULATING, PRE

Number = int | float
VECTOR = 16  # elements or channels that any runtime's vectors hold at most
STAGES = {"": "output", ACC: "accumulator", PRE: "preactivation"}


@dataclass(frozen=True)
class IsolatedNode:
    """A node with its operands' tensors and arrays (activations with their batch), and its result's tensor.

    `at` is where the element that one is interested in lies in the output. `copies`: how often it stands there, from
    `at` on along the last axis, after `crop`.
    """

    node: Node
    operands: tuple[Tensor, ...]
    arrays: tuple[Array, ...]
    result: Tensor
    at: tuple[int, ...] = ()
    cropped: bool = False
    copies: int = 1

    @property
    def is_integer(self) -> bool:
        """Whether it reads or writes anything but float32."""
        return any(t.dtype != "float32" for t in (*self.operands, self.result))

    def dtype(self, stage: str) -> str:
        """What the output, or a stage before it, is made of."""
        return "int32" if self.is_integer and stage != "output" else self.result.dtype

    @property
    def accumulates(self) -> bool:
        """Whether it has accumulators."""
        return self.node.op in ACCUMULATING

    @property
    def batch(self) -> int:
        """Images in its computed operands."""
        return next(len(a) for t, a in zip(self.operands, self.arrays, strict=True) if not t.constant)


def isolate(data: ModelData, node: Node, values: Mapping[str, Array], at: tuple[int, ...] = ()) -> IsolatedNode:
    """A model's node with its weights, reading `values` (by tensor name)."""
    tensors = data.graph.tensors
    arrays = tuple(data.tensors[n] if tensors[n].constant else values[n] for n in node.inputs)
    return IsolatedNode(node, tuple(tensors[n] for n in node.inputs), arrays, tensors[node.output], at)


def steps(what: IsolatedNode, dialect: str, kernels: str, stage: str = "output") -> tuple[list[Step], Array]:
    """The kernel calls of the node, and the array that they write. Raises `PlanError`."""
    out = np.zeros((what.batch, *what.result.shape[1:]), what.dtype(stage))
    arrays = [np.require(a, requirements=["C", "W"]) for a in what.arrays]
    node = what.node
    if stage != "output" and not what.is_integer:
        node = replace(node, attrs={**node.attrs, "activation": "none"})
    ctx = NodeContext(
        node, list(what.operands), arrays, what.result, out, kernel_set(kernels), dialect_named(dialect),
        stage if what.is_integer else "output",
    )  # fmt: skip
    try:
        return bind(ctx), out
    except KeyError:  # no binder: a plan refuses such a graph beforehand
        dtypes = ", ".join(dict.fromkeys(t.dtype for t in (*what.operands, what.result)))
        raise PlanError(f"node '{node.name}' ({node.op}) works on {dtypes}: there is no kernel for that") from None


def run(what: IsolatedNode, dialect: str, kernels: str = "fast", stage: str = "output") -> Array:
    """The node's output (or the stage before it). Raises `PlanError`."""
    calls, out = steps(what, dialect, kernels, stage)
    with exclusive(None, kernels) as threads:
        for function in as_functions(calls):
            function(threads)
    return out


def requantization(what: IsolatedNode, dialect: str) -> Requantization | None:
    """What the node's kernel is given to rescale accumulators with; None where it has none."""
    calls, _ = steps(what, dialect, "python")
    return next((arg for step in calls for arg in step.args if isinstance(arg, Requantization)), None)


def rule_of(dialect: Dialect, what: IsolatedNode, calls: Sequence[Step]) -> tuple[str, str]:
    """The rule's name and source for the node; nothing where the table has none.

    A dialect may leave a node to another rule than its op's; the layer, or what its kernel is given, tells which.
    """
    if not what.is_integer:
        return "", ""
    op, x = what.node.op, what.operands[0]
    if what.accumulates and x.dtype != "float32":
        weights, bias = (*what.operands[1:], None)[:2]
        assert weights is not None
        row = convolution.rule_of(what.node, x, weights, bias, dialect, what.result)
        return row.name, row.source
    kind = "dynamic" if what.accumulates else what.node.attrs.get("function", "")
    keys = [f"{op}:{k}".rstrip(":") for k in (kind, x.dtype, "", f"undelegated:{x.dtype}", "undelegated")]
    rows = [dialect.rules[key] for key in keys if key in dialect.rules]
    used = [str(arg.rule.inside) for step in calls for arg in step.args if isinstance(arg, Requantization)]
    rule = next((row for row in rows if row.name in used), rows[0] if rows else None)
    return (rule.name, rule.source) if rule is not None else ("", "")


# ---------------------------------------------------------------------------------------------------------------------
# Cutting


def crop(what: IsolatedNode, at: tuple[int, ...], copies: int = 1) -> IsolatedNode:
    """The node cut down to one element of its output, computed by the same kernels from what it reads.

    Some runtimes take whole vectors of elements by one rule and what is left over by another; so the element is there
    `copies` times: VECTOR times for one inside a vector, once for one that is left over (`in_vector` tells).
    Ops whose elements can't be separated simply are cut to one image, and one channel where they keep channels apart.
    """
    cutters = {
        "conv2d": _conv2d, "depthwise_conv2d": _depthwise, "fully_connected": _fully_connected,
        "average_pool": _pool, "max_pool": _pool, "mean": _mean, "add": _elementwise, "sub": _elementwise,
        "mul": _elementwise, "prelu": _elementwise, "leaky_relu": _elementwise,
        "unary": _elementwise, "div": _elementwise, "minimum": _elementwise, "maximum": _elementwise,
        "l2_normalize": _row,
        "activation": _elementwise, "quantize": _elementwise, "dequantize": _elementwise, "softmax": _row,
    }  # fmt: skip
    if what.is_integer and what.accumulates:  # the rule may hang on the whole layer's shape
        kept = convolution.forms(what.node, what.operands[0], what.operands[1], what.result)
        what = replace(what, node=replace(what.node, attrs={**what.node.attrs, "forms": kept}))
    cut = cutters.get(what.node.op, _channelwise)(what, at, copies)
    return cut if cut is not None else _image(what, at)


def _rebuilt(
    what: IsolatedNode, arrays: Sequence[Array], shape: tuple[int, ...], at: tuple[int, ...],
    quantization: Mapping[int, Quantization | None] | None = None, copies: int = 1, **attrs: Any,
) -> IsolatedNode:  # fmt: skip
    """The node on other arrays; shapes of tensors follow them, `quantization` replaces operands' by position."""
    operands = []
    for i, (tensor, array) in enumerate(zip(what.operands, arrays, strict=True)):
        shown = array.shape if tensor.constant else (1, *array.shape[1:])
        q = quantization[i] if quantization and i in quantization else tensor.quantization
        operands.append(replace(tensor, shape=shown, quantization=q))
    node = replace(what.node, attrs={**what.node.attrs, **attrs})
    result = replace(what.result, shape=shape)
    return IsolatedNode(node, tuple(operands), tuple(arrays), result, at, cropped=True, copies=copies)


def channel_copies(weights: Tensor) -> int:
    """2 where each channel has its own scale, else 1: the rules ask whether there is one scale or several."""
    return 2 if weights.quantization is not None and len(weights.quantization.scale) > 1 else 1


def _channel(tensor: Tensor, c: int, copies: int) -> Quantization | None:
    """The quantization of copies of channel c of weights or bias."""
    q = tensor.quantization
    if q is None or len(q.scale) == 1:
        return q
    return Quantization((q.scale[c],) * copies, (q.zero_point[c],) * copies, q.axis)


def in_vector(calls: Sequence[Step], what: IsolatedNode, at: tuple[int, ...]) -> bool | None:
    """Whether element `at` is one that the runtime computes in a full vector; None where that makes no difference.

    The VectorRule among the kernel's arguments says it.
    """
    place = int(np.ravel_multi_index(at[1:], what.result.shape[1:])) if len(at) > 1 else 0
    rules = (rule for step in calls for rule in vector_rules(step.args) if rule.inside != rule.outside)
    return next((place % rule.run < rule.full for rule in rules), None)


def vector_rules(args: tuple[Any, ...]) -> Iterator[VectorRule]:
    """Those among a kernel's arguments."""
    for value in args:
        if isinstance(value, VectorRule):
            yield value
        elif isinstance(value, tuple):
            yield from vector_rules(value)


def argument_names(step: Step) -> tuple[str, ...]:
    """The names of a kernel's parameters; the kernel isn't compiled (set "python")."""
    code = step.kernel.__code__
    return code.co_varnames[: code.co_argcount]


def _span(at: int, stride: int, pad: int, extent: int, size: int) -> tuple[int, int, tuple[int, int]]:
    """First and last + 1 input position of a window inside the image, and what lies outside before and behind."""
    start = at * stride - pad
    end = start + extent
    return max(start, 0), min(end, size), (max(-start, 0), max(end - size, 0))


def _window(what: IsolatedNode, at: tuple[int, ...], kernel: tuple[int, int]) -> tuple[Array, tuple[Any, Any]] | None:
    """The pixels of one image that a window covers, and the padding that remains around them."""
    x, attrs = what.arrays[0], what.node.attrs
    dilation = attrs.get("dilation", (1, 1))
    spans = [
        _span(at[1 + i], attrs["stride"][i], attrs["padding"][i][0], (kernel[i] - 1) * dilation[i] + 1, x.shape[1 + i])
        for i in (0, 1)
    ]
    (y0, y1, pad_y), (x0, x1, pad_x) = spans
    if y0 >= y1 or x0 >= x1:
        return None  # wholly outside
    return x[at[0] : at[0] + 1, y0:y1, x0:x1], (pad_y, pad_x)


def _conv2d(what: IsolatedNode, at: tuple[int, ...], copies: int) -> IsolatedNode | None:
    _, weights, bias = what.arrays
    found = _window(what, at, (weights.shape[0], weights.shape[1]))
    if found is None:
        return None
    x, padding = found
    copies = max(copies, channel_copies(what.operands[1]))
    same = [at[3]] * copies
    q = {i: _channel(what.operands[i], at[3], copies) for i in (1, 2)}
    arrays = (x, weights[..., same], bias[same])
    return _rebuilt(what, arrays, (1, 1, 1, copies), (0, 0, 0, 0), q, copies, padding=padding)


def _depthwise(what: IsolatedNode, at: tuple[int, ...], copies: int) -> IsolatedNode | None:
    _, weights, bias = what.arrays
    found = _window(what, at, (weights.shape[0], weights.shape[1]))
    if found is None:
        return None
    x, padding = found
    copies = max(copies, channel_copies(what.operands[1]))
    same = [at[3]] * copies
    source = [at[3] // what.node.attrs.get("multiplier", 1)] * copies
    q = {i: _channel(what.operands[i], at[3], copies) for i in (1, 2)}
    attrs = {"multiplier": 1} if "multiplier" in what.node.attrs else {}
    arrays = (x[..., source], weights[..., same], bias[same])
    return _rebuilt(what, arrays, (1, 1, 1, copies), (0, 0, 0, 0), q, copies, padding=padding, **attrs)


def _fully_connected(what: IsolatedNode, at: tuple[int, ...], copies: int) -> IsolatedNode:
    x, weights, bias = what.arrays
    copies = max(copies, channel_copies(what.operands[1]))
    same, before = [at[-1]] * copies, (1,) * (len(at) - 1)
    q = {i: _channel(what.operands[i], at[-1], copies) for i in (1, 2)}
    arrays = (x[tuple(slice(i, i + 1) for i in at[:-1])], weights[:, same], bias[same])
    return _rebuilt(what, arrays, (*before, copies), (0,) * len(at), q, copies)


def _pool(what: IsolatedNode, at: tuple[int, ...], _: int) -> IsolatedNode | None:
    found = _window(what, at, what.node.attrs["kernel"])
    if found is None:
        return None
    x, padding = found
    return _rebuilt(what, (x[..., at[3] : at[3] + 1],), (1, 1, 1, 1), (0, 0, 0, 0), padding=padding)


def _mean(what: IsolatedNode, at: tuple[int, ...], copies: int) -> IsolatedNode:
    x = np.repeat(what.arrays[0][at[0] : at[0] + 1, :, :, at[-1] : at[-1] + 1], copies, axis=-1)
    rank = len(what.result.shape)
    return _rebuilt(what, (x,), (*(1,) * (rank - 1), copies), (0,) * rank, None, copies)


def _elementwise(what: IsolatedNode, at: tuple[int, ...], copies: int) -> IsolatedNode:
    """One element of each operand; a dimension of 1 is repeated. What is broadcast along the last axis stays so."""
    arrays = []
    for tensor, array in zip(what.operands, what.arrays, strict=True):
        one = array[tuple(slice(i % d, i % d + 1) for i, d in zip(at, array.shape, strict=True))]
        last = tensor.shape[-1] == what.result.shape[-1] and (tensor.shape[-1] > 1 or tensor.size == what.result.size)
        arrays.append(np.repeat(one, copies, axis=-1) if last else one)
    return _rebuilt(what, arrays, (*(1,) * (len(at) - 1), copies), (0,) * len(at), None, copies)


def _row(what: IsolatedNode, at: tuple[int, ...], _: int) -> IsolatedNode:
    """The last dimension stays."""
    x = what.arrays[0][tuple(slice(i, i + 1) for i in at[:-1])]
    return _rebuilt(what, (x,), (*(1,) * (len(at) - 1), x.shape[-1]), (*(0,) * (len(at) - 1), at[-1]))


def _channelwise(what: IsolatedNode, at: tuple[int, ...], _: int) -> IsolatedNode | None:
    """One channel of one image, for ops with one operand that keep height, width and channels apart."""
    x, shape = what.arrays[0], what.result.shape
    if len(what.arrays) > 1 or x.ndim != 4 or len(shape) != 4 or x.shape[3] != shape[3] or what.node.op == "reshape":
        return None
    plane = x[at[0] : at[0] + 1, :, :, at[3] : at[3] + 1]
    return _rebuilt(what, (plane,), (*shape[:3], 1), (0, *at[1:3], 0))


def _image(what: IsolatedNode, at: tuple[int, ...]) -> IsolatedNode:
    arrays = [
        a if t.constant else a[at[0] : at[0] + 1] for t, a in zip(what.operands, what.arrays, strict=True)
    ]  # fmt: skip
    return replace(what, arrays=tuple(arrays), at=(0, *at[1:]), cropped=False)


def check_index(index: Sequence[int], shape: tuple[int, ...]) -> str:
    """What is wrong with an index into an array of that shape; nothing if it is good."""
    if len(index) != len(shape) or any(not 0 <= i < d for i, d in zip(index, shape, strict=True)):
        names = ",".join(
            ("n", "y", "x", "c") if len(shape) == 4 else ("n", "c") if len(shape) == 2 else ("i",) * len(shape)
        )
        return f"index {','.join(map(str, index))}: expected {names} within {shape} ({math.prod(shape):,} values)"
    return ""


def element_inputs(cut: IsolatedNode) -> dict[str, Number]:
    """The values that an element is made from; of a pool or mean, their number and sum."""
    if cut.node.op in ("average_pool", "mean"):
        x = cut.arrays[0]
        total = x.sum(dtype=np.int64 if x.dtype.kind in "iu" else np.float64)
        return {"pixels": x.size, "their sum": scalar(total), "least": scalar(x.min()), "most": scalar(x.max())}
    if any(a.size > 1 for a in cut.arrays):
        return {}
    return {t.name: scalar(a.reshape(-1)[0]) for t, a in zip(cut.operands, cut.arrays, strict=True)}


def scalar(value: Any) -> Any:
    """A number as a plain Python one (float32 as the shortest decimal that gives it back), a rule as its name.

    None for anything else.
    """
    if isinstance(value, Rounding):
        return str(value)
    if isinstance(value, np.float32):
        return float(str(value))
    if isinstance(value, np.generic):
        value = value.item()
    return value if isinstance(value, (bool, int, float)) else None


def plain(value: Any) -> Any:
    """An attribute's value as JSON has it: lists for tuples."""
    return [plain(v) for v in value] if isinstance(value, tuple) else value
