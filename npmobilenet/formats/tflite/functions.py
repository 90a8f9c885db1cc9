"""What operators on single values become: activations, other functions of one value, divisions, minima and maxima."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from npmobilenet.formats.tflite.builder import Importer, refuse
from npmobilenet.formats.tflite.constants import INTEGER_DTYPES, Constant
from npmobilenet.formats.tflite.flatbuffer import FileOperator
from npmobilenet.formats.tflite.layers import Rule, fused_activation


def activation(function: str) -> Rule:
    """A function of one tensor, element by element."""

    def rule(io: Importer, op: FileOperator) -> None:
        io.emit(op, "activation", [io.activation(op, rows=True).name], function=function)

    return rule


def unary(formula: str) -> Rule:
    """A function of one tensor that nothing fuses."""

    def rule(io: Importer, op: FileOperator) -> None:
        io.emit(op, "unary", [io.activation(op, rows=True).name], formula=formula)

    return rule


def gelu(io: Importer, op: FileOperator) -> None:
    """By the normal distribution's function, or with the option `approximate` by tanh."""
    unary("gelu_tanh" if op.options.get("Approximate", False) else "gelu")(io, op)


def negative(io: Importer, op: FileOperator) -> None:
    """Times -1, in float32."""
    x = io.activation(op, rows=True)
    in_floats(io, op, [x.name])
    minus = io.declare(op, Constant(-1, np.full((1,) * len(x.shape), -1, np.float32)), "minus")
    io.emit(op, "mul", [x.name, minus])


def square(io: Importer, op: FileOperator) -> None:
    """SQUARE: times itself; SQUARED_DIFFERENCE: of two values; in float32."""
    x = io.activation(op, 0 if isinstance(io.value(op, 0), str) else 1, rows=True)
    name = x.name
    if op.op == "SQUARED_DIFFERENCE":
        name = io.emit_hidden(op, "sub", operands(io, op))
    in_floats(io, op, [name])
    io.emit(op, "mul", [name, name])


def operands(io: Importer, op: FileOperator) -> list[str]:
    """Two operands of one type, of which one may be constant."""
    values = [io.value(op, 0), io.value(op, 1)]
    if None in values or not any(isinstance(v, str) for v in values):
        refuse(op, "expected two operands, one of them computed")
    rank = max(len(io.builder.tensors[v].shape) for v in values if isinstance(v, str))
    names = [
        v if isinstance(v, str) else broadcast(io, op, io.constant(op, i, "an operand"), rank)
        for i, v in enumerate(values)
    ]
    same_dtype(io, op, names)
    return names


def in_floats(io: Importer, op: FileOperator, names: Sequence[str]) -> None:
    """Refuse operands of 8 bits."""
    kinds = {io.builder.tensors[name].dtype for name in names} - {"float32"}
    if kinds:
        refuse(op, f"of {', '.join(sorted(kinds))}; supported: float32; convert the model without quantizing")


def broadcast(io: Importer, op: FileOperator, value: Constant, rank: int, layout: str = "") -> str:
    """Declare a constant operand with ones in front up to `rank`, as broadcasting reads it."""
    shape = value.array.shape
    if len(shape) > rank:
        refuse(op, f"a constant of shape {shape} and a tensor of {rank} dimensions")
    shape = (1,) * (rank - len(shape)) + shape
    if shape[0] != 1:
        refuse(op, f"a constant of shape {shape}: its first dimension would vary with the batch")
    return io.declare(op, value.reshaped(shape), layout)


def same_dtype(io: Importer, op: FileOperator, names: Sequence[str]) -> None:
    """Refuse operands of different types, and integers without a scale."""
    dtypes = {io.builder.tensors[name].dtype for name in names}
    if len(dtypes) != 1:
        refuse(op, f"operands of different types: {', '.join(sorted(dtypes))}")
    if dtypes & set(INTEGER_DTYPES) and any(io.builder.tensors[n].quantization is None for n in names):
        refuse(op, "an integer operand has no quantization parameters")


def divide(io: Importer, op: FileOperator) -> None:
    """In float32; by a constant whose reciprocals are exact (powers of two) as a multiplication, bit for bit."""
    x, divisor = io.value(op, 0), io.value(op, 1)
    if isinstance(x, str) and isinstance(divisor, Constant) and divisor.array.dtype == np.float32:
        mantissa, exponent = np.frexp(np.abs(divisor.array))
        if ((mantissa == 0.5) & (np.abs(exponent) < 120)).all():
            rank = len(io.builder.tensors[x].shape)
            reciprocal = Constant(divisor.index, np.float32(1) / divisor.array)
            in_floats(io, op, [x])
            io.emit(op, "mul", [x, broadcast(io, op, reciprocal, rank, "reciprocal")], **fused_activation(op))
            return
    names = operands(io, op)
    in_floats(io, op, names)
    io.emit(op, "div", names, **fused_activation(op))


def extremum(kind: str) -> Rule:
    """MINIMUM, MAXIMUM of two tensors, one of which may be constant."""
    return lambda io, op: io.emit(op, kind, operands(io, op))


def l2_normalization(io: Importer, op: FileOperator) -> None:
    """Over the last dimension."""
    if fused_activation(op):
        refuse(op, "a fused activation, which LiteRT refuses, too")
    io.emit(op, "l2_normalize", [io.activation(op, rows=True).name])
