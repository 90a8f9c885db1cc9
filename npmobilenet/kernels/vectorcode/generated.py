"""Functions of LLVM code as Numba intrinsics: what a generator's body gets, and how compiled kernels call it.

A body is a function `body(builder, kinds, ...)` that emits code. What follows `kinds` are its parameters: an array is
the pointer to its first element, a number an int64, a named tuple holds its parts. `kinds` has Numba's types under the
same names, for what pointers don't tell: whether bytes are signed.
"""

from __future__ import annotations

import functools
import inspect
import types as python_types
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from llvmlite import ir

from npmobilenet.kernels.compiler import object_code
from npmobilenet.kernels.compiler.deferred import (
    alloca_once,
    array_data,
    array_value,
    flat_array,
    intrinsic,
    types,
    without_owner,
)
from npmobilenet.kernels.compiler.packed_arena import LINE
from npmobilenet.kernels.vectorcode.vector import INT

Body = Callable[..., None]


class Lhs(NamedTuple):
    """Rows of a matrix product's left operand, or windows of an image.

    The terms of row r are data[at + r * step + s * segment + k] for s < segments and k < depth, or k < depth groups.
    """

    data: Any
    at: Any
    step: Any
    segment: Any
    segments: Any
    depth: Any


class Panel(NamedTuple):
    """A panel of the right operand: weights of segment s from weights[at + s * segment] on, and bias[channel + j]."""

    weights: Any
    at: Any
    segment: Any
    bias: Any
    channel: Any


class RowSums(NamedTuple):
    """What is subtracted from row r: data[at + r], or nothing where `at` is negative."""

    data: Any
    at: Any


class Cells(NamedTuple):
    """A block of a matrix: column j of row r is data[at + r * step + j]."""

    data: Any
    at: Any
    step: Any


def leaves(value: Any) -> list[Any]:
    """What nested tuples hold, in order."""
    return [leaf for part in value for leaf in leaves(part)] if isinstance(value, tuple) else [value]


def _tuple_like(like: Any, parts: Iterable[Any]) -> Any:
    return type(like)(*parts) if hasattr(like, "_fields") else tuple(parts)


def _regrouped(like: Any, values: Iterator[Any]) -> Any:
    """`values` in tuples nested as those of `like`."""
    return _tuple_like(like, [_regrouped(part, values) for part in like]) if isinstance(like, tuple) else next(values)


def _kinds_in(kind: Any) -> Any:
    """A Numba type, in tuples where it is one of tuples."""
    if not isinstance(kind, types.BaseTuple):
        return kind
    parts = [_kinds_in(part) for part in kind.types]
    return kind.instance_class(*parts) if isinstance(kind, types.BaseNamedTuple) else tuple(parts)


def _values_in(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    """A value of a Numba type as bodies get it."""
    if isinstance(kind, types.BaseTuple):
        parts = [_values_in(context, builder, k, builder.extract_value(value, i)) for i, k in enumerate(kind.types)]
        return kind.instance_class(*parts) if isinstance(kind, types.BaseNamedTuple) else tuple(parts)
    if isinstance(kind, types.Array):
        return array_data(context, builder, kind, value)
    return context.cast(builder, value, kind, types.int64)


def generated(body: Body) -> Any:
    """The intrinsic whose code is `body`, emitted where it is called. Its parameters are those after `kinds`."""
    parameters = list(inspect.signature(body).parameters.values())[2:]

    def typed(typingctx, *given):
        kinds = [types.int64 if isinstance(k, (types.Integer, types.Boolean)) else k for k in given]

        def codegen(context, builder, signature, args):
            named = {p.name: _kinds_in(k) for p, k in zip(parameters, kinds, strict=True)}
            values = [_values_in(context, builder, k, a) for k, a in zip(kinds, args, strict=True)]
            body(builder, python_types.SimpleNamespace(**named), *values)
            return context.get_dummy_value()

        return types.void(*kinds), codegen

    typed.__name__ = body.__name__
    first = inspect.Parameter("typingctx", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    vars(typed)["__signature__"] = inspect.Signature([first, *parameters])
    made = intrinsic(typed)
    made.emit = body
    return made


def micro_kernel(name: str) -> Callable[[Body], Any]:
    """As `generated`, for code that is a function of its own, compiled once (object_code.py), and called.

    Inlined at each of its calls, it would multiply the time to compile a kernel, and share the registers with what is
    around it; a call costs a few ns. `name` is for who reads the machine code, and gets the types of bytes. `emit` of
    the result emits a call in another generator's code.
    """

    def decorate(body: Body) -> Any:
        @functools.wraps(body)
        def call(builder, kinds, *args):
            of_bytes = [k.dtype for k in leaves(tuple(vars(kinds).values())) if isinstance(k, types.Array)]
            suffix = "".join(f"_{k}" for k in of_bytes if k in (types.int8, types.uint8))
            outlined(builder, name + suffix, args, lambda builder, args: body(builder, kinds, *args))

        return generated(call)

    return decorate


def outlined(builder: Any, name: str, args: tuple[Any, ...], body: object_code.Body) -> None:
    """Call the function whose code is `body(builder, args)`; the arguments may be tuples."""
    values = leaves(args)
    kind = ir.FunctionType(ir.VoidType(), [v.type for v in values])
    function = object_code.declare(
        builder.module, name, kind, lambda builder, flat: body(builder, _regrouped(args, iter(flat)))
    )
    builder.call(function, values)


def _without_owner(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    if isinstance(kind, types.Array):
        return without_owner(context, builder, kind, value)
    if isinstance(kind, types.BaseTuple):
        parts = [_without_owner(context, builder, k, builder.extract_value(value, i)) for i, k in enumerate(kind.types)]
        return context.make_tuple(builder, kind, parts)
    return value


@intrinsic
def borrowed(typingctx, value):
    """An array, or a tuple that holds some, without a count of references: counts take longer than a loop may.

    The memory is the array's, which has to live as long: an argument does, and what `keep` is called with at the end.
    """

    def codegen(context, builder, signature, args):
        return _without_owner(context, builder, signature.args[0], args[0])

    return value(value), codegen


@intrinsic
def flat_view(typingctx, array):
    """As array.reshape(-1), borrowed. That calls a function which looks at the strides: 1 % of a small model's time."""
    kind = array.copy(ndim=1)

    def codegen(context, builder, signature, args):
        return flat_array(context, builder, array, kind, args[0])

    return (kind(array), codegen) if array.layout == "C" else None


def stack_array(size: int, dtype: str) -> Any:
    """An intrinsic that gives an array of so many elements, on the stack of the function that calls it.

    It begins with a cache line. Memory that is asked for, and given back, took 3 % of V2 0.35_96 int8's time.
    """

    @intrinsic
    def new_array(typingctx):
        element = getattr(types, dtype)
        kind = types.Array(element, 1, "C")

        def codegen(context, builder, signature, args):
            room = alloca_once(builder, ir.ArrayType(context.get_data_type(element), size))
            room.align = LINE
            count, width = (ir.Constant(INT, n) for n in (size, element.bitwidth // 8))
            parts = {"shape": (count,), "strides": (width,), "itemsize": width}
            return array_value(context, builder, kind, data=builder.ptrtoint(room, INT), **parts)

        return kind(), codegen

    return new_array


@intrinsic
def keep(typingctx, array):
    """Nothing, but the array is alive until here."""

    def codegen(context, builder, signature, args):
        return context.get_dummy_value()

    return types.void(array), codegen


def dispatch(builder: Any, number: Any, cases: dict[int, Callable[[], None]]) -> None:
    """Emit a branch for each case, which is taken where `number` is its key; the last one is for all other numbers."""
    *first, last = cases.items()
    if not first:
        last[1]()
        return
    with builder.if_else(builder.icmp_signed("==", number, INT(first[0][0]))) as (yes, no):
        with yes:
            first[0][1]()
        with no:
            dispatch(builder, number, dict([*first[1:], last]))


def is_signed(kind: Any) -> bool:
    """Whether a Numba array is of int8."""
    return bool(kind.dtype == types.int8)


def one_of(kernels: dict[int, Any]) -> Any:
    """An intrinsic kernel(number, ...) that calls the micro-kernel of that number, or the last; all take the same."""
    first = next(iter(kernels.values()))
    parameters = list(inspect.signature(first.emit).parameters.values())

    def kernel(builder, kinds, number, *args):
        dispatch(builder, number, {n: functools.partial(k.emit, builder, kinds, *args) for n, k in kernels.items()})

    number = inspect.Parameter("number", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    vars(kernel)["__signature__"] = inspect.Signature([*parameters[:2], number, *parameters[2:]])
    return generated(kernel)
