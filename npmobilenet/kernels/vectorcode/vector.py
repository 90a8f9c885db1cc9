"""Generators of vector code: register tiles emitted as LLVM vector IR, wrapped as Numba intrinsics.

Every lane of every accumulator is one output element, and a tile adds its terms in the order it meets them, so a tile
obeys the project's rule (one fma chain for each output, in the reference order) whatever its width and height.
LLVM turns the IR into the machine's instructions; on a machine with narrower registers it splits the vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from npmobilenet.kernels.compiler import object_code
from npmobilenet.kernels.compiler.numba_private import alloca_once, array_data, for_range, get_or_insert_function

FLOAT = ir.FloatType()
INT = ir.IntType(64)


def _load(builder: Any, pointer: Any, lanes: int) -> Any:
    """Load `lanes` consecutive floats (or one) from a float pointer, which needs no more than a float's alignment."""
    if lanes == 1:
        return builder.load(pointer, align=4)
    return builder.load(builder.bitcast(pointer, ir.VectorType(FLOAT, lanes).as_pointer()), align=4)


def _store(builder: Any, value: Any, pointer: Any, lanes: int) -> None:
    if lanes > 1:
        pointer = builder.bitcast(pointer, ir.VectorType(FLOAT, lanes).as_pointer())
    builder.store(value, pointer, align=4)


def _splat(builder: Any, value: Any, lanes: int) -> Any:
    if lanes == 1:
        return value
    vector = ir.VectorType(FLOAT, lanes)
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
    return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), zeros)


def _fma(builder: Any, a: Any, b: Any, c: Any, lanes: int) -> Any:
    """llvm.fma on `lanes` floats. llvmlite can't declare intrinsics on vectors itself, so it is declared by name."""
    kind = FLOAT if lanes == 1 else ir.VectorType(FLOAT, lanes)
    name = "llvm.fma.f32" if lanes == 1 else f"llvm.fma.v{lanes}f32"
    function = get_or_insert_function(builder.module, ir.FunctionType(kind, [kind] * 3), name)
    return builder.call(function, [a, b, c])


def _variable(builder: Any, lanes: int) -> Any:
    """A stack slot for an accumulator; LLVM's mem2reg keeps it in a register."""
    return alloca_once(builder, FLOAT if lanes == 1 else ir.VectorType(FLOAT, lanes))


def _constant(value: float, lanes: int) -> Any:
    """A float32 constant in every lane."""
    exact = ir.Constant(FLOAT, float(np.float32(value)))
    return exact if lanes == 1 else ir.Constant(ir.VectorType(FLOAT, lanes), [exact] * lanes)


def _clamp(builder: Any, value: Any, low: float, high: float | None, lanes: int) -> Any:
    """The reference kernel's relu (high None) and relu6, as selects: a NaN stays, and so does -0."""
    floor = _constant(low, lanes)
    result = builder.select(builder.fcmp_ordered("<", value, floor), floor, value)
    if high is None:
        return result
    ceiling = _constant(high, lanes)
    return builder.select(builder.fcmp_ordered(">", result, ceiling), ceiling, result)


def _hard_swish(builder: Any, value: Any, lanes: int) -> Any:
    gate = _clamp(builder, builder.fadd(value, _constant(3, lanes)), 0, 6, lanes)
    return builder.fmul(builder.fmul(value, gate), _constant(1 / 6, lanes))


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


def pointers_of(context: Any, builder: Any, signature: Any, args: Any) -> list[Any]:
    """The arguments with each array as the pointer to its first element."""
    kinds = signature.args
    return [
        array_data(context, builder, kind, arg) if isinstance(kind, types.Array) else arg
        for kind, arg in zip(kinds, args, strict=True)
    ]


def outlined(builder: Any, name: str, args: list[Any], body: object_code.Body) -> None:
    """Call the tile whose code is `body(builder, args)`, a function of its own that is compiled once (object_code.py).

    Inlined at each of its calls, it would multiply the time to compile a kernel, and share the registers with what is
    around it; a call costs a few ns. `name` is for who reads the machine code.
    """
    kind = ir.FunctionType(ir.VoidType(), [a.type for a in args])
    builder.call(object_code.declare(builder.module, name, kind, body), args)


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


def gemm_f32_kernel(rows: int, vectors: tuple[int, ...]) -> Any:
    """An intrinsic that computes `count` times `rows` rows by sum(vectors) columns of a matrix product, in segments.

    tile(x, x_at, row_step, x_segment, w, w_at, w_segment, segments, depth, bias, channel, activation, more, adds, out,
    out_at, out_step, count): out[out_at + r * out_step + j] = act(the fma chain over s < segments, k < depth of
    x[x_at + r * row_step + s * x_segment + k] * w[w_at + s * w_segment + k * width + j], from bias[channel + j]), plus
    `more` at the same index if `adds` isn't 0. `vectors` are the lanes of the vectors that make up a row, and width is
    their sum. Arrays are flat float32, the rest integers; nothing is checked. Activations outside VECTOR_ACTIVATIONS
    are left to the caller.

    The loop over the rows is in here because a call, its registers saved and its pointers made anew, costs some 100
    cycles, where a tile of 12 x 32 with 16 terms each is 400 of them.
    """
    width = sum(vectors)
    parts = [(sum(vectors[:v]), lanes) for v, lanes in enumerate(vectors)]  # (first column, lanes)

    @intrinsic
    def tile(
        typingctx, x, x_at, row_step, x_segment, w, w_at, w_segment, segments, depth, bias, channel, activation,
        more, adds, out, out_at, out_step, count,
    ):  # fmt: skip
        def codegen(context, builder, signature, args):
            outlined(builder, f"matrix_{rows}_{vectors}", pointers_of(context, builder, signature, args), body)
            return context.get_dummy_value()

        def body(builder, args):
            (x, x_at, row_step, x_segment, w, w_at, w_segment, segments, depth, bias, channel, activation,
             more, adds, out, out_at, out_step, count) = args  # fmt: skip
            bias_data, w_data = builder.gep(bias, [channel]), builder.gep(w, [w_at])
            sums = [[_variable(builder, lanes) for _, lanes in parts] for _ in range(rows)]

            def add_products(row_data):
                with for_range(builder, segments) as outer:
                    skip = builder.mul(outer.index, x_segment)
                    panels = builder.gep(w_data, [builder.mul(outer.index, w_segment)])
                    starts = [(builder.gep(base, [skip]), steps) for base, steps in row_data]
                    with for_range(builder, depth) as inner:
                        panel = builder.gep(panels, [builder.mul(inner.index, INT(width))])
                        columns = [_load(builder, builder.gep(panel, [INT(first)]), lanes) for first, lanes in parts]
                        for row, pointer in zip(sums, row_addresses(builder, starts, inner.index), strict=True):
                            value = builder.load(pointer)
                            for slot, column, (_, lanes) in zip(row, columns, parts, strict=True):
                                term = _splat(builder, value, lanes)
                                builder.store(_fma(builder, term, column, builder.load(slot), lanes), slot)

            def cells(data):
                """Each slot with its lanes and its place in `out`, or in what is laid out alike."""
                for r, row in enumerate(sums):
                    row_data = builder.gep(data, [builder.mul(out_step, INT(r))])
                    for slot, (first, lanes) in zip(row, parts, strict=True):
                        yield slot, lanes, builder.gep(row_data, [INT(first)])

            with for_range(builder, count) as loop:
                first_row = builder.mul(loop.index, INT(rows))
                for v, (first, lanes) in enumerate(parts):
                    start = _load(builder, builder.gep(bias_data, [INT(first)]), lanes)
                    for row in sums:
                        builder.store(start, row[v])
                at = builder.add(x_at, builder.mul(first_row, row_step))
                add_products(row_pointers(builder, builder.gep(x, [at]), row_step, rows))
                lanes_of = [lanes for _, lanes in parts] * rows
                slots = zip([slot for row in sums for slot in row], lanes_of, strict=True)
                apply_activation(builder, activation, list(slots))
                at = builder.add(out_at, builder.mul(first_row, out_step))
                with builder.if_then(builder.icmp_signed("!=", adds, INT(0))):
                    for slot, lanes, pointer in cells(builder.gep(more, [at])):
                        builder.store(builder.fadd(builder.load(slot), _load(builder, pointer, lanes)), slot)
                for slot, lanes, pointer in cells(builder.gep(out, [at])):
                    _store(builder, builder.load(slot), pointer, lanes)

        integer = types.int64
        return types.void(
            x, integer, integer, integer, w, integer, integer, integer, integer, bias, integer, integer,
            more, integer, out, integer, integer, integer,
        ), codegen  # fmt: skip

    return tile
