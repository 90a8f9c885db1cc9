"""Every rule of requantization as LLVM vector IR, for any int32 accumulator: lane by lane, as fixedpoint.py has it.

Intermediate values wrap as the reference kernels' do.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from npmobilenet.arithmetic.fixedpoint import Rounding
from npmobilenet.kernels.vectorcode.vector import (
    DOUBLE,
    FLOAT,
    INT,
    INT32,
    constant,
    intrinsic_call,
    lanes_of,
    load,
    max_of,
    min_of,
    on_arm,
    vector,
)


def pairs(builder: Any, values: Any, lanes: int) -> tuple[Any, Any]:
    """The even and the odd lanes of int32 values, sign-extended to int64: what one 32 x 32 -> 64 multiply reads.

    LLVM has to see the extension, or it multiplies 64 bits by 64. With AVX2, which has no arithmetic shift of 64 bits,
    it doesn't see it in a shift of the upper word by 32; in a shift to and fro it does, so the odd lanes move first.
    """
    wide = vector(INT, lanes // 2)
    if on_arm(builder):  # SMULL takes half a vector: the even lanes, or the odd ones, put together
        even, odd = (builder.sext(lanes_of(builder, values, [*range(first, lanes, 2)]), wide) for first in (0, 1))
        return even, odd
    word = constant(INT, 32, lanes // 2)
    both = builder.bitcast(values, wide)
    even = builder.ashr(builder.shl(both, word), word)
    if lanes == 16:  # AVX-512
        return even, builder.ashr(both, word)
    moved = builder.shuffle_vector(values, values, ir.Constant(values.type, [lane | 1 for lane in range(lanes)]))
    return even, builder.ashr(builder.shl(builder.bitcast(moved, wide), word), word)


def multiply_pairs(builder: Any, values: Any, factors: tuple[Any, Any], addend: Any, lanes: int) -> tuple[Any, Any]:
    """values * factors + addend in 64 bits, even and odd lanes apart; `factors` are `pairs`."""
    even, odd = (
        builder.add(builder.mul(v, m), addend) for v, m in zip(pairs(builder, values, lanes), factors, strict=True)
    )
    return even, odd


class GeneralRequant:
    """The requantization's parameters for `lanes` channels, loaded once for all rows of a tile."""

    def __init__(self, builder: Any, multiplier: Any, shift: Any, scale: Any, lanes: int) -> None:
        self.lanes = lanes
        zero, one = constant(INT32, 0, lanes), constant(INT32, 1, lanes)
        self.shift = load(builder, shift, INT32, lanes)
        self.multiplier = load(builder, multiplier, INT32, lanes)
        self.pairs = pairs(builder, self.multiplier, lanes)
        self.scale = load(builder, scale, DOUBLE, lanes)
        self.left = max_of(builder, self.shift, zero)
        self.right = max_of(builder, builder.sub(zero, self.shift), zero)
        # The shift to the right in two parts, so that the rounding's addition can't overflow: shift_upward.
        self.last = min_of(builder, self.right, one)
        self.rest = builder.sub(self.right, self.last)

    def high_mul(self, builder: Any, acc: Any, left: Any = None) -> Any:
        """fixedpoint.high_mul of acc << left, even and odd lanes apart; `left` is the positive part of the shift.

        Of the 64-bit sum, bits 31 to 62 are wanted: shifted right by 31 they are the low word, left by 1 the high one.
        """
        words, wide = vector(INT32, self.lanes), vector(INT, self.lanes // 2)
        half = constant(INT, 1 << 30, self.lanes // 2)
        even, odd = multiply_pairs(
            builder, builder.shl(acc, self.left if left is None else left), self.pairs, half, self.lanes
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

    def upward_late(self, builder: Any, acc: Any) -> Any:
        """fixedpoint.upward_late_rounding."""
        v = self.shift_upward(builder, self.high_mul(builder, acc, constant(INT32, 0, self.lanes)))
        kind = vector(INT32, self.lanes)
        return intrinsic_call(builder, f"llvm.sshl.sat.v{self.lanes}i32", kind, [v, self.left])

    def rndnu16(self, builder: Any, acc: Any) -> Any:
        """fixedpoint.rndnu16_rounding, in 32 bits: 15 + 15 of them before the second clamp and behind it.

        2^31 - 1, to which shift_upward adds one, is as good as one less: both saturate where the shift is 1 or 0.
        """
        most = constant(INT32, 2**31 - 2, self.lanes)
        v = self._to_16_bits(builder, self.shift_upward(builder, min_of(builder, acc, most)))
        v = self._to_16_bits(builder, builder.shl(v, min_of(builder, self.left, constant(INT32, 15, self.lanes))))
        product = builder.mul(v, builder.ashr(self.multiplier, constant(INT32, 16, self.lanes)))
        half = constant(INT32, 1 << 14, self.lanes)
        return builder.ashr(builder.add(product, half), constant(INT32, 15, self.lanes))

    def _to_16_bits(self, builder: Any, v: Any) -> Any:
        low, high = (constant(INT32, end, self.lanes) for end in (-(2**15), 2**15 - 1))
        return min_of(builder, max_of(builder, v, low), high)

    def by_rule(self) -> dict[int, Any]:
        """Rule code -> function of (builder, accumulators)."""
        return {
            Rounding.NONE: lambda builder, acc: acc,
            Rounding.DOUBLE: self.double_rounding,
            Rounding.UPWARD: self.upward,
            Rounding.SINGLE: self.single,
            Rounding.FLOAT32: self.float32,
            Rounding.FLOAT64: self.float64,
            Rounding.UPWARD_LATE: self.upward_late,
            Rounding.RNDNU16: self.rndnu16,
        }
