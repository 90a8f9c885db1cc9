"""Generators of integer vector code: the step from accumulators to outputs, as LLVM vector IR, and what others share.

The step is taken lane by lane with the operations of fixedpoint.py, for any int32 accumulator: its intermediate values
wrap as the book's do.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from npmobilenet.kernels.fast.vector import outlined, pointers_of

INT8, INT16, INT32, INT = (ir.IntType(bits) for bits in (8, 16, 32, 64))
FLOAT, DOUBLE = ir.FloatType(), ir.DoubleType()
NONE, DOUBLE_ROUNDING, UPWARD, SINGLE, FLOAT32, FLOAT64 = range(6)  # codes of fixedpoint.REQUANTIZATIONS


def vector(kind: Any, lanes: int) -> Any:
    """The type of a vector."""
    return ir.VectorType(kind, lanes)


def load(builder: Any, pointer: Any, kind: Any, lanes: int) -> Any:
    """Load `lanes` consecutive values from a pointer that needs no alignment."""
    return builder.load(builder.bitcast(pointer, vector(kind, lanes).as_pointer()), align=1)


def splat(builder: Any, value: Any, lanes: int) -> Any:
    """One value in every lane."""
    undefined = ir.Constant(vector(value.type, lanes), ir.Undefined)
    one = builder.insert_element(undefined, value, ir.Constant(INT32, 0))
    return builder.shuffle_vector(one, undefined, ir.Constant(vector(INT32, lanes), [0] * lanes))


def constant(kind: Any, value: int | float, lanes: int) -> Any:
    """One constant in every lane."""
    return ir.Constant(vector(kind, lanes), [ir.Constant(kind, value)] * lanes)


def _max(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.icmp_signed(">", a, b), a, b)


def _min(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.icmp_signed("<", a, b), a, b)


def intrinsic_call(builder: Any, name: str, result: Any, args: list[Any]) -> Any:
    """A call of an LLVM intrinsic, declared by name (llvmlite can't declare those on vectors itself)."""
    kind = ir.FunctionType(result, [a.type for a in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)


def _pairs(builder: Any, values: Any, lanes: int) -> tuple[Any, Any]:
    """The even and the odd lanes of int32 values, sign-extended to int64: what one 32 x 32 -> 64 multiply reads."""
    wide = vector(INT, lanes // 2)
    both = builder.bitcast(values, wide)
    word = constant(INT, 32, lanes // 2)
    return builder.ashr(builder.shl(both, word), word), builder.ashr(both, word)


class Step:
    """The requantization's parameters for `lanes` channels, loaded once for all rows of a tile."""

    def __init__(self, builder: Any, multiplier: Any, shift: Any, scale: Any, lanes: int) -> None:
        self.lanes = lanes
        zero, one = constant(INT32, 0, lanes), constant(INT32, 1, lanes)
        self.shift = load(builder, shift, INT32, lanes)
        self.multiplier = load(builder, multiplier, INT32, lanes)
        self.pairs = _pairs(builder, self.multiplier, lanes)
        self.scale = load(builder, scale, DOUBLE, lanes)
        self.left = _max(builder, self.shift, zero)
        self.right = _max(builder, builder.sub(zero, self.shift), zero)
        self.last = _min(
            builder, self.right, one
        )  # the shift's last bit, and the rest of it: (v >> rest + last) >> last
        self.rest = builder.sub(self.right, self.last)

    def high_mul(self, builder: Any, acc: Any) -> Any:
        """fixedpoint.high_mul of acc << left, even and odd lanes apart.

        Of the 64-bit sum, bits 31 to 62 are wanted: shifted right by 31 they are the low word, left by 1 the high one.
        """
        words, wide = vector(INT32, self.lanes), vector(INT, self.lanes // 2)
        half = constant(INT, 1 << 30, self.lanes // 2)
        even, odd = (
            builder.add(builder.mul(v, m), half)
            for v, m in zip(_pairs(builder, builder.shl(acc, self.left), self.lanes), self.pairs, strict=True)
        )
        even = builder.bitcast(builder.lshr(even, ir.Constant(wide, [31] * (self.lanes // 2))), words)
        odd = builder.bitcast(builder.shl(odd, ir.Constant(wide, [1] * (self.lanes // 2))), words)
        chosen = ir.Constant(words, [lane + self.lanes * (lane % 2) for lane in range(self.lanes)])
        return builder.shuffle_vector(even, odd, chosen)

    def double_rounding(self, builder: Any, acc: Any) -> Any:
        """shift_away as shift_upward of v - [v < 0]: one less below zero moves its ties down, away from zero."""
        v = self.high_mul(builder, acc)
        below = builder.and_(builder.lshr(v, constant(INT32, 31, self.lanes)), self.last)
        return self.shift_upward(builder, builder.sub(v, below))

    def upward(self, builder: Any, acc: Any) -> Any:
        """fixedpoint.upward_rounding."""
        return self.shift_upward(builder, self.high_mul(builder, acc))

    def shift_upward(self, builder: Any, v: Any) -> Any:
        """All but the last bit of the shift, add one, the last bit. In 32 bits, as v + 1 is: |v| < 2^31 - 1.

        (high_mul gives no more: its multiplier is at most 2^31 - 1.)
        """
        return builder.ashr(builder.add(builder.ashr(v, self.rest), self.last), self.last)

    def single(self, builder: Any, acc: Any) -> Any:
        """fixedpoint.single_rounding."""
        wide = vector(INT, self.lanes)
        total = builder.sub(constant(INT, 31, self.lanes), builder.sext(self.shift, wide))
        half = builder.lshr(builder.shl(constant(INT, 1, self.lanes), total), constant(INT, 1, self.lanes))
        product = builder.mul(builder.sext(acc, wide), builder.sext(self.multiplier, wide))
        return builder.trunc(builder.ashr(builder.add(product, half), total), vector(INT32, self.lanes))

    def float32(self, builder: Any, acc: Any) -> Any:
        """fixedpoint.float32_rounding."""
        kind = vector(FLOAT, self.lanes)
        v = builder.fmul(builder.sitofp(acc, kind), builder.fptrunc(self.scale, kind))
        low, high = constant(FLOAT, -(2.0**30), self.lanes), constant(FLOAT, 2.0**30, self.lanes)
        v = builder.select(builder.fcmp_ordered("<", v, low), low, v)
        v = builder.select(builder.fcmp_ordered(">", v, high), high, v)
        v = intrinsic_call(builder, f"llvm.rint.v{self.lanes}f32", kind, [v])
        return builder.fptosi(v, vector(INT32, self.lanes))

    def float64(self, builder: Any, acc: Any) -> Any:
        """fixedpoint.float64_rounding."""
        kind = vector(DOUBLE, self.lanes)
        v = builder.fmul(builder.sitofp(acc, kind), self.scale)
        v = intrinsic_call(builder, f"llvm.round.v{self.lanes}f64", kind, [v])
        return builder.fptosi(v, vector(INT32, self.lanes))

    def by_rule(self) -> dict[int, Any]:
        """Rule code -> function of (builder, accumulators)."""
        return {
            NONE: lambda builder, acc: acc,
            DOUBLE_ROUNDING: self.double_rounding,
            UPWARD: self.upward,
            SINGLE: self.single,
            FLOAT32: self.float32,
            FLOAT64: self.float64,
        }


def _finish(builder: Any, value: Any, zero_point: Any, low: Any, high: Any, pointer: Any, lanes: int) -> None:
    """Add the zero point, clamp, narrow to the output's type and store."""
    value = builder.add(value, zero_point)
    value = _min(builder, _max(builder, value, low), high)
    kind = pointer.type.pointee
    if kind != INT32:
        value = builder.trunc(value, vector(kind, lanes))
    builder.store(value, builder.bitcast(pointer, value.type.as_pointer()), align=1)


def requantize_tile(lanes: int) -> Any:
    """An intrinsic that takes the step from accumulators to outputs for a block of rows and channels.

    tile(acc, acc_at, acc_step, rows, columns, channel, multiplier, shift, scale, rule, zero_point, low, high, out,
    out_at, out_step): out[out_at + r * out_step + j] = fixedpoint.requantized(acc[acc_at + r * acc_step + j],
    channel + j, ...) for r < rows and j < columns, a multiple of `lanes`. Each group of lanes loads its parameters once
    for all rows, and looks at the rule once. Nothing is checked.
    """

    @intrinsic
    def tile(typingctx, acc, acc_at, acc_step, rows, columns, channel, multiplier, shift, scale, rule, zero_point, low,
             high, out, out_at, out_step):  # fmt: skip
        def codegen(context, builder, signature, args):
            outlined(builder, f"requantize_{lanes}", pointers_of(context, builder, signature, args), body)
            return context.get_dummy_value()

        def body(builder, args):
            (_, acc_at, acc_step, rows, columns, channel, _, _, _, rule, zero_point, low, high, _, out_at,
             out_step) = arrays = args  # fmt: skip
            limits = [splat(builder, builder.trunc(value, INT32), lanes) for value in (zero_point, low, high)]
            with cgutils.for_range(builder, builder.udiv(columns, INT(lanes))) as vectors:
                j = builder.mul(vectors.index, INT(lanes))
                at = builder.add(channel, j)
                step = Step(builder, *(builder.gep(arrays[i], [at]) for i in (6, 7, 8)), lanes)
                source = builder.gep(arrays[0], [builder.add(acc_at, j)])
                target = builder.gep(arrays[13], [builder.add(out_at, j)])
                for code, function in step.by_rule().items():
                    with (
                        builder.if_then(builder.icmp_signed("==", rule, INT(code))),
                        cgutils.for_range(builder, rows) as loop,
                    ):
                        sums = load(builder, builder.gep(source, [builder.mul(loop.index, acc_step)]), INT32, lanes)
                        pointer = builder.gep(target, [builder.mul(loop.index, out_step)])
                        _finish(builder, function(builder, sums), *limits, pointer, lanes)

        integer = types.int64
        return types.void(
            acc, integer, integer, integer, integer, integer, multiplier, shift, scale, integer, integer, integer,
            integer, out, integer, integer,
        ), codegen  # fmt: skip

    return tile
