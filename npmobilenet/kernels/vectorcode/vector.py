"""What all generators of vector code share: types, memory, lanes, and the addresses of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from llvmlite import ir

from npmobilenet.kernels.compiler.deferred import alloca_once, get_or_insert_function

INT8, INT16, INT32, INT = (ir.IntType(bits) for bits in (8, 16, 32, 64))
FLOAT, DOUBLE = ir.FloatType(), ir.DoubleType()


def vector(kind: Any, lanes: int) -> Any:
    """The type of a vector."""
    return ir.VectorType(kind, lanes)


def variable(builder: Any, kind: Any, lanes: int) -> Any:
    """A stack slot for a vector; LLVM's mem2reg keeps it in a register where it can."""
    return alloca_once(builder, vector(kind, lanes))


def load(builder: Any, pointer: Any, kind: Any, lanes: int) -> Any:
    """Load `lanes` consecutive values from a pointer that needs no alignment."""
    return builder.load(builder.bitcast(pointer, vector(kind, lanes).as_pointer()), align=1)


def store(builder: Any, value: Any, pointer: Any) -> None:
    """Store a value at a pointer, of any type, that needs no alignment."""
    builder.store(value, builder.bitcast(pointer, value.type.as_pointer()), align=1)


def masked_load(builder: Any, pointer: Any, mask: Any) -> Any:
    """The values behind a pointer whose lanes of the mask are set, else 0; nothing else is read."""
    values, kind = vector(pointer.type.pointee, mask.type.count), pointer.type.pointee
    pointer = builder.bitcast(pointer, values.as_pointer())
    name = f"llvm.masked.load.v{values.count}{kind}.p0"
    return intrinsic_call(builder, name, values, [pointer, INT32(1), mask, constant(kind, 0, values.count)])


def masked_store(builder: Any, value: Any, pointer: Any, mask: Any) -> None:
    """Store those lanes that are set in the mask."""
    pointer = builder.bitcast(pointer, value.type.as_pointer())
    name = f"llvm.masked.store.v{value.type.count}{value.type.element}.p0"
    intrinsic_call(builder, name, ir.VoidType(), [value, pointer, INT32(1), mask])


def two_pieces(builder: Any, count: Any, lanes: int) -> Iterator[tuple[Any, int]]:
    """What a block of `count` values, 0 < count < lanes = 2^n, is copied by: two pieces of 2^k of them, which overlap
    where they have to. (first value, size) of each, in the code that such a count reaches.
    """
    for k in range(lanes.bit_length() - 1):
        size = 1 << k
        mine = builder.icmp_unsigned("<", builder.sub(count, INT(size)), INT(size))  # size <= count < 2 size
        with builder.if_then(mine):
            for at in (INT(0), builder.sub(count, INT(size))):
                yield at, size


def prefetch(builder: Any, pointer: Any) -> None:
    """Have what is behind a pointer fetched into the second-level cache. It may point anywhere, also outside memory."""
    pointer = builder.bitcast(pointer, INT8.as_pointer())
    intrinsic_call(builder, "llvm.prefetch.p0", ir.VoidType(), [pointer, INT32(0), INT32(2), INT32(1)])


def splat(builder: Any, value: Any, lanes: int) -> Any:
    """One value in every lane."""
    undefined = ir.Constant(vector(value.type, lanes), ir.Undefined)
    one = builder.insert_element(undefined, value, ir.Constant(INT32, 0))
    return builder.shuffle_vector(one, undefined, ir.Constant(vector(INT32, lanes), [0] * lanes))


def constant(kind: Any, value: int | float, lanes: int) -> Any:
    """One constant in every lane; a float is rounded to float32 where that is the type."""
    exact = float(np.float32(value)) if kind == FLOAT else value
    return ir.Constant(vector(kind, lanes), [ir.Constant(kind, exact)] * lanes)


def max_of(builder: Any, a: Any, b: Any) -> Any:
    """The greater of signed integers, scalars or lanes."""
    return builder.select(builder.icmp_signed(">", a, b), a, b)


def min_of(builder: Any, a: Any, b: Any) -> Any:
    """The lesser of signed integers, scalars or lanes."""
    return builder.select(builder.icmp_signed("<", a, b), a, b)


def intrinsic_call(builder: Any, name: str, result: Any, args: list[Any]) -> Any:
    """A call of an LLVM intrinsic, declared by name (llvmlite can't declare those on vectors itself)."""
    kind = ir.FunctionType(result, [a.type for a in args])
    return builder.call(get_or_insert_function(builder.module, kind, name), args)


def fma(builder: Any, a: Any, b: Any, c: Any, lanes: int) -> Any:
    """a * b + c of floats, rounded once."""
    return intrinsic_call(builder, f"llvm.fma.v{lanes}f32", vector(FLOAT, lanes), [a, b, c])


def on_arm(builder: Any) -> bool:
    """Whether the code is for a 64-bit Arm CPU."""
    return builder.module.triple.startswith(("aarch64", "arm64"))


def lanes_of(builder: Any, value: Any, chosen: Sequence[int]) -> Any:
    """Some lanes of a vector, in the order given."""
    order = ir.Constant(vector(INT32, len(chosen)), [*chosen])
    return builder.shuffle_vector(value, ir.Constant(value.type, ir.Undefined), order)


def interleaved(builder: Any, a: Any, b: Any) -> list[Any]:
    """Elements of a and b in turn: two vectors, from the lower and the upper halves of 128 bits. (PUNPCKL, PUNPCKH)."""
    count, group = a.type.count, 128 // a.type.element.width
    found = []
    for first in (0, group // 2):
        order = [i + first + j + v * count for i in range(0, count, group) for j in range(group // 2) for v in (0, 1)]
        found.append(builder.shuffle_vector(a, b, ir.Constant(vector(INT32, count), order)))
    return found


THIRDS = 3  # rows that share a pointer


def row_pointers(builder: Any, data: Any, row_step: Any, rows: int) -> list[tuple[Any, list[Any]]]:
    """Pointers to every third row, each with the distances to the rows that it serves.

    x86 has 16 general registers, too few for 12 row pointers; four and two distances fit, as a load can add one.
    """
    distances = [None, row_step, builder.mul(row_step, INT(2))]
    return [
        (builder.gep(data, [builder.mul(row_step, INT(first))]), distances[: min(THIRDS, rows - first)])
        for first in range(0, rows, THIRDS)
    ]


def row_addresses(builder: Any, starts: list[tuple[Any, list[Any]]], at: Any) -> list[Any]:
    """The address of element `at` of each row of row_pointers."""
    addresses = []
    for base, distances in starts:
        pointer = builder.gep(base, [at])
        addresses += [pointer if distance is None else builder.gep(pointer, [distance]) for distance in distances]
    return addresses


def _clamp(builder: Any, value: Any, low: float, high: float | None, lanes: int) -> Any:
    """The reference kernel's relu (high None) and relu6, as selects: a NaN stays, and so does -0."""
    floor = constant(FLOAT, low, lanes)
    result = builder.select(builder.fcmp_ordered("<", value, floor), floor, value)
    if high is None:
        return result
    ceiling = constant(FLOAT, high, lanes)
    return builder.select(builder.fcmp_ordered(">", result, ceiling), ceiling, result)


def _hard_swish(builder: Any, value: Any, lanes: int) -> Any:
    gate = _clamp(builder, builder.fadd(value, constant(FLOAT, 3, lanes)), 0, 6, lanes)
    return builder.fmul(builder.fmul(value, gate), constant(FLOAT, 1 / 6, lanes))


# Activation code -> its vector form; the same operations, each rounded, as in reference/activation.py. The rest
# (functions of single values, rare) are applied by the callers.
VECTOR_ACTIVATIONS: dict[int, Callable[[Any, Any, int], Any]] = {
    1: lambda builder, value, lanes: _clamp(builder, value, 0, None, lanes),
    2: lambda builder, value, lanes: _clamp(builder, value, 0, 6, lanes),
    4: _hard_swish,
}


def apply_activation(builder: Any, activation: Any, slots: list[tuple[Any, int]]) -> None:
    """Apply activation number `activation` to all slots, given with their lanes, if it has a vector form."""
    for code, function in VECTOR_ACTIVATIONS.items():
        with builder.if_then(builder.icmp_signed("==", activation, INT(code))):
            for slot, lanes in slots:
                builder.store(function(builder, builder.load(slot), lanes), slot)
