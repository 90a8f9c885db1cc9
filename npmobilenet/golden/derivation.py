"""How each dialect derives one value: the steps that a kernel takes, as it takes them.

The steps are calls of the project's own arithmetic, with arguments and results. Only the uncompiled reference kernels
(the kernel set "python") can be watched: Python tells of each call and return. So what is shown is what was computed,
never a second copy of it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

import npmobilenet
from npmobilenet.arithmetic.dialects import DIALECTS, Dialect
from npmobilenet.arithmetic.fixedpoint import Requantization, VectorRule
from npmobilenet.errors import PlanError
from npmobilenet.golden.single_node import (
    VECTOR,
    IsolatedNode,
    Number,
    argument_names,
    crop,
    in_vector,
    rule_of,
    run,
    scalar,
    steps,
)
from npmobilenet.graph import Tensor
from npmobilenet.runtime.binding import Step

_PACKAGE = Path(npmobilenet.__file__).parent
WATCHED = tuple(str(_PACKAGE / place) for place in ("arithmetic", "kernels/reference"))
MOST_CALLS = 5000
# Parameters that the node's description has.
PLACES = ("stride", "pad", "padding", "dilation", "kernel", "taps", "zero_points", "which")


@dataclass
class TracedCall:
    """One call: `arguments` are numbers by parameter name (arrays and records are left out), `depth` its nesting."""

    name: str
    arguments: dict[str, Any]
    depth: int
    result: Any = None
    meaning: str = ""


@dataclass
class Trace:
    """The calls in the order in which they were made; `left_out` counts those beyond MOST_CALLS."""

    calls: list[TracedCall] = field(default_factory=list)
    left_out: int = 0


@contextmanager
def watch(argument: float | None = None) -> Iterator[Trace]:
    """A block whose calls of the watched files' functions are written down.

    With an `argument`, only calls whose first argument it is, and what these call.
    """
    trace = Trace()
    stack: list[TracedCall | None] = []

    def listener(frame: FrameType, event: str, result: Any) -> None:
        code = frame.f_code
        if event not in ("call", "return") or not code.co_filename.startswith(WATCHED) or code.co_name == "rule_at":
            return
        if event == "call":
            names = code.co_varnames[: code.co_argcount]
            arguments = {name: scalar(frame.f_locals[name]) for name in names}
            wanted = argument is None or bool(stack) or next(iter(arguments.values()), None) == argument
            inside_another = bool(stack) and stack[-1] is None
            if inside_another or not wanted or len(trace.calls) >= MOST_CALLS:
                trace.left_out += wanted and not inside_another
                stack.append(None)
                return
            document = getattr(frame.f_globals.get(code.co_name), "__doc__", None) or ""
            given = {k: v for k, v in arguments.items() if v is not None}
            call = TracedCall(code.co_name, given, len(stack), meaning=document.partition("\n")[0])
            trace.calls.append(call)
            stack.append(call)
        elif stack:
            ended = stack.pop()
            if ended is not None:
                ended.result = scalar(result)

    before = sys.getprofile()
    sys.setprofile(listener)
    try:
        yield trace
    finally:
        sys.setprofile(before)


def traced(steps: list[Step], copies: int = 1) -> Trace:
    """Run the kernel calls (of the set "python") and return what they called; the kernels themselves are left out.

    Where all elements are `copies` of one, the calls for the first.
    """
    with np.errstate(all="ignore"), watch() as trace:  # as compiled kernels do
        for step in steps:
            step.kernel(*step.args)
    kernels = {step.kernel.__name__ for step in steps}
    trace.calls = [call for call in trace.calls if not (call.depth == 0 and call.name in kernels)]
    for call in trace.calls:
        call.depth -= 1
    groups = subtrees(trace.calls)
    if len(groups) % copies == 0:
        trace.calls = [call for group in groups[: len(groups) // copies] for call in group]
    return trace


def subtrees(calls: list[TracedCall]) -> list[list[TracedCall]]:
    """The calls of depth 0, each with those inside it."""
    groups: list[list[TracedCall]] = []
    for call in calls:
        if call.depth == 0 or not groups:
            groups.append([])
        groups[-1].append(call)
    return groups


def parameters(step: Step) -> dict[str, Any]:
    """The numbers that a kernel call is given beside its arrays: scalars, tuples of them, fields of records.

    An array of one number for each channel is given by its first; what says where the kernel reads is left out. A rule
    that doesn't hold everywhere is given as a dict.
    """
    found: dict[str, Any] = {}
    for name, value in zip(argument_names(step), step.args, strict=True):
        if name not in PLACES:
            _collect(found, name, value)
    return found


def _collect(found: dict[str, Any], name: str, value: Any) -> None:
    if isinstance(value, VectorRule):
        rule = {key: scalar(part) for key, part in value._asdict().items()}
        found[name] = rule if value.inside != value.outside else rule["inside"]
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        for key, part in zip(value._fields, value, strict=True):
            row = isinstance(part, np.ndarray) and part.ndim == 1 and part.size > 0
            by_channel = row and (part.size <= 2 or isinstance(value, Requantization))  # and not a table
            _collect(found, key, part[0] if by_channel else part)
    elif isinstance(value, tuple):
        parts = [scalar(v) for v in value]
        if all(p is not None for p in parts):
            found[name] = parts
    elif scalar(value) is not None:
        found[name] = scalar(value)


# ---------------------------------------------------------------------------------------------------------------------
# Products


@dataclass(frozen=True)
class Product:
    """`value` = (x - x's zero point) * (weight - its zero point), or x * weight in float32 (None: it is fused).

    `filter_at` is (ky, kx, ci) or, fully connected, (i,); `input_at` the index in the node's input.
    """

    filter_at: tuple[int, ...]
    input_at: tuple[int, ...]
    x: float
    weight: float
    value: int | None


def products(what: IsolatedNode, at: tuple[int, ...]) -> list[Product]:
    """The products of output element `at` of a convolution, depthwise convolution or fully connected node, in order."""
    x, weights = what.arrays[:2]
    z_x, z_w = zero_point_of(what.operands[0]), zero_point_of(what.operands[1])
    found = []
    for filter_at, input_at, weight_at in _places(what, at):
        a, b = x[input_at], weights[weight_at]
        value = (int(a) - z_x) * (int(b) - z_w) if what.is_integer else None
        found.append(Product(filter_at, input_at, scalar(a), scalar(b), value))
    return found


def zero_point_of(tensor: Tensor) -> int:
    """The zero point of a whole tensor; 0 where it has none."""
    return tensor.quantization.zero_point[0] if tensor.quantization is not None else 0


def _places(
    what: IsolatedNode, at: tuple[int, ...]
) -> Iterator[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]:
    """Where each product's filter position, input and weight are, in the order of the reference loops."""
    x, weights = what.arrays[:2]
    attrs = what.node.attrs
    if what.node.op == "fully_connected":
        shape = x.shape[len(at) - 1 :]  # of a row
        for i in range(weights.shape[0]):
            rest, where = i, []
            for size in reversed(shape):
                rest, inner = divmod(rest, size)
                where.append(inner)
            yield (i,), (*at[:-1], *reversed(where)), (i, at[-1])
        return
    stride, dilation, padding = attrs["stride"], attrs.get("dilation", (1, 1)), attrs["padding"]
    depthwise = what.node.op == "depthwise_conv2d"
    multiplier = attrs.get("multiplier", 1)
    n, oy, ox, c = at
    for ky in range(weights.shape[0]):
        iy = oy * stride[0] - padding[0][0] + ky * dilation[0]
        for kx in range(weights.shape[1]):
            ix = ox * stride[1] - padding[1][0] + kx * dilation[1]
            if not (0 <= iy < x.shape[1] and 0 <= ix < x.shape[2]):
                continue
            if depthwise:
                yield (ky, kx, c // multiplier), (n, iy, ix, c // multiplier), (ky, kx, c)
                continue
            for ci in range(weights.shape[2]):
                yield (ky, kx, ci), (n, iy, ix, ci), (ky, kx, ci, c)


def outside(what: IsolatedNode, at: tuple[int, ...]) -> int:
    """Filter positions that fall outside the image, and so contribute nothing."""
    if what.node.op == "fully_connected":
        return 0
    weights = what.arrays[1]
    seen = {product.filter_at[:2] for product in products(what, at)}
    return int(weights.shape[0] * weights.shape[1]) - len(seen)


# ---------------------------------------------------------------------------------------------------------------------
# Dialects


TABLES = ("activation", "quantize", "dequantize")  # computed for all 256 values when they read integers


@dataclass
class Derivation:
    """How some dialects (`dialects`, which agree in every step) get their value.

    `rule` and `source` come from the table of dialects. `parameters` are what the kernel is given; `trace` its calls.
    `note` says what to know of the element's place: whether it is one of a full vector.
    """

    dialects: list[str]
    rule: str
    source: str
    parameters: dict[str, Any]
    trace: Trace
    value: Number
    note: str = ""


def same_value(a: Number, b: Number) -> bool:
    """Whether two numbers are equal, or both NaN."""
    return a == b or bool(np.isnan(a) and np.isnan(b))


def derive(what: IsolatedNode, stage: str) -> tuple[list[Derivation], dict[str, str]]:
    """The derivations of element `what.at`, dialects that take the same steps together; and why some refuse the node.

    Float32 has one arithmetic.
    """
    found: list[Derivation] = []
    refusals: dict[str, str] = {}
    for dialect in DIALECTS.values() if what.is_integer else [next(iter(DIALECTS.values()))]:
        try:
            part = _derivation(what, dialect, stage)
        except PlanError as error:
            refusals[dialect.name] = str(error)
            continue
        same = next((p for p in found if _steps_of(p) == _steps_of(part)), None)
        if same is None:
            found.append(part)
        else:
            same.dialects.append(dialect.name)
    if not found:
        raise PlanError(next(iter(refusals.values())))
    if not what.is_integer:
        found[0].dialects = list(DIALECTS)
    return found, refusals


def _steps_of(part: Derivation) -> tuple[Any, ...]:
    return part.parameters, part.trace.calls, part.value


def _derivation(what: IsolatedNode, dialect: Dialect, stage: str) -> Derivation:
    """One dialect's: the reference kernels' value of the element alone and that of the whole layer must agree."""
    bound, _ = steps(what, dialect.name, "python", stage)
    vector = in_vector(bound, what, what.at)
    cut = crop(what, what.at, VECTOR if vector else 1)
    asked = scalar(cut.arrays[0].reshape(-1)[0]) if what.node.op in TABLES and cut.cropped else None
    with watch(asked) as made:
        calls, out = steps(cut, dialect.name, "python", stage)
    place = "outside" if vector is False else "inside"
    given = {k: v[place] if isinstance(v, dict) else v for step in calls for k, v in parameters(step).items()}
    trace = traced(calls, cut.copies)
    if asked is not None:  # a function of one value: what made the table's entry
        groups = subtrees(made.calls)
        trace.calls = [*(groups[-1 if vector is False else 0] if groups else []), *trace.calls]
    elif what.node.op == "softmax":
        trace.calls = _of_class(trace.calls, cut)
    rule, source = rule_of(dialect, what, bound)
    note = {True: "inside one of the runtime's full vectors", False: "among the elements that its vectors leave over"}
    part = Derivation(
        [dialect.name], rule, source, given, trace, scalar(out[cut.at]), note[vector] if vector is not None else ""
    )
    whole = scalar(run(what, dialect.name, stage=stage)[what.at])
    if not same_value(part.value, whole):  # its place in the layer has a say that the element alone doesn't show
        part.value, part.trace, part.note = whole, Trace(), "taken from the whole layer"
    return part


def _of_class(calls: list[TracedCall], cut: IsolatedNode) -> list[TracedCall]:
    """Of all calls of a row's softmax those that concern one class: its term, the reciprocal of the sum, its product.

    reference/softmax.py: softmax_fixed_q makes, in this order, one call for each class (its term of the sum), some
    calls for the reciprocal, and two for each class (the product and its shift). The class is found by counting. Where
    there are fewer calls than these, as in the float rule, all are returned.
    """
    groups, classes, i = subtrees(calls), cut.result.shape[-1], cut.at[-1]
    if len(groups) < 3 * classes:
        return calls
    own = [groups[i], *groups[classes : -2 * classes], *groups[len(groups) - 2 * (classes - i) :][:2]]
    return [call for group in own for call in group]
