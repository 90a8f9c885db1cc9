"""Generators of integer vector code: sums and products of two streams of bytes under the rule "double"."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from npmobilenet.kernels.vectorcode.general_requant import multiply_pairs, pairs
from npmobilenet.kernels.vectorcode.generated import is_signed, micro_kernel
from npmobilenet.kernels.vectorcode.lookup_vectors import for_blocks
from npmobilenet.kernels.vectorcode.requant_rules import HALVED, NarrowToBytes
from npmobilenet.kernels.vectorcode.vector import (
    INT,
    INT8,
    INT16,
    INT32,
    constant,
    interleaved,
    intrinsic_call,
    splat,
    vector,
)

# Bytes are widened, and narrowed again, 128 bits by 128 bits: the lower eight of 16 bytes become a vector of int16 and
# the upper eight another one; of those in turn come two vectors of int32. The instructions that pack undo just this.


def _widened(builder: Any, value: Any, zero_point: Any, signed: bool) -> list[Any]:
    """Bytes less the zero point, a splat of `_zero`, as two vectors of int16."""
    count = value.type.count
    if signed:
        value = builder.xor(value, constant(INT8, -128, count))  # x + 128, unsigned
    both = interleaved(builder, value, constant(INT8, 0, count))
    return [builder.sub(builder.bitcast(half, zero_point.type), zero_point) for half in both]


def _zero(builder: Any, zero_point: Any, lanes: int, signed: bool) -> Any:
    """What _widened subtracts."""
    value = builder.add(zero_point, INT(128 if signed else 0))
    return splat(builder, builder.trunc(value, INT16), 2 * lanes)


class Unit:
    """double_rounding(v * 2^20, m, -s) of |v| <= 255, mostly in int16. 0 <= m < 2^31, 0 <= s <= 31.

    high_mul(v * 2^20, m) = f = floor((v m + 2^10) / 2^11). For s > 0, shift_away(f, s) = floor((f - [f < 0] +
    2^(s - 1)) / 2^s), and [v < 0] may stand for [f < 0]: where they differ, -2^10 <= v m < 0, so that f = 0, and both
    -1 and 0 lead to 0. With m = 2^11 (2^7 c1 + c0) + low, c0 < 2^7, c1 < 2^13, low < 2^11,

        f - [v < 0] = (2^7 v) c1 + b,  b = v c0 + floor((v low + 2^10) / 2^11) - [v < 0].

    |2^7 v| and |b| <= 255 * 127 + 255 + 1 fit into int16, so one multiply-add of pairs of int16 gives the sum of both.
    PMULHRSW(2^4 v, low) = floor((2^4 v low + 2^14) / 2^15) is the second term of b, and PMULHW(v, 1) the third; for
    s = 0 it is PMULHW(v, 0) = 0. |result| <= 2^28 / 2^s.
    """

    def __init__(self, builder: Any, multiplier: Any, shift: Any, lanes: int) -> None:
        self.lanes = lanes
        right = builder.sub(INT(0), shift)
        high = builder.lshr(multiplier, INT(11))
        some = builder.zext(builder.icmp_signed(">", right, INT(0)), INT)
        halves = (builder.and_(high, INT(127)), builder.and_(multiplier, INT(2047)), some)
        self.c0, self.low, self.some = (splat(builder, builder.trunc(v, INT16), 2 * lanes) for v in halves)
        factors = builder.or_(builder.lshr(high, INT(7)), INT(1 << 16))  # c1 and 1
        self.factors = builder.bitcast(splat(builder, builder.trunc(factors, INT32), lanes), vector(INT16, 2 * lanes))
        half = builder.lshr(builder.shl(INT(1), right), INT(1))
        self.half, self.right = (splat(builder, builder.trunc(v, INT32), lanes) for v in (half, right))

    def __call__(self, builder: Any, v: Any) -> list[Any]:
        """Of a vector of int16, two of int32."""
        words, kind = vector(INT32, self.lanes), v.type
        isa, bits = ("avx512", ".512") if self.lanes == 16 else ("avx2", "")
        multiply_add = "llvm.x86.avx512.pmaddw.d.512" if self.lanes == 16 else "llvm.x86.avx2.pmadd.wd"

        def shifted(by: int) -> Any:
            return builder.shl(v, constant(INT16, by, 2 * self.lanes))

        b = builder.mul(v, self.c0)
        b = builder.add(b, intrinsic_call(builder, f"llvm.x86.{isa}.pmul.hr.sw{bits}", kind, [shifted(4), self.low]))
        b = builder.add(b, intrinsic_call(builder, f"llvm.x86.{isa}.pmulh.w{bits}", kind, [v, self.some]))
        sums = [
            intrinsic_call(builder, multiply_add, words, [pair, self.factors])
            for pair in interleaved(builder, shifted(7), b)
        ]
        return [builder.ashr(builder.add(value, self.half), self.right) for value in sums]


class End(NarrowToBytes):
    """double_rounding(v, m, -s), 1 <= s <= 31, plus the zero point, clamped: from 2 v, |v| < 2^30, to bytes in order.

    The upper words of 2 v m + 2^31 are high_mul(v, m). The rest is as in
    requant_rules.DownscaleRequant.double: t, which NarrowToBytes halves.
    """

    def __init__(self, builder: Any, step: tuple[Any, ...], lanes: int, signed: bool) -> None:
        multiplier, shift, zero_point, low, high = step
        super().__init__(builder, zero_point, low, high, lanes, signed)
        self.pairs = pairs(builder, splat(builder, builder.trunc(multiplier, INT32), lanes), lanes)
        self.by = splat(builder, builder.trunc(builder.sub(INT(-1), shift), INT32), lanes)

    def scaled(self, builder: Any, twice: Any) -> Any:
        """t of a vector."""
        lanes, words = self.lanes, vector(INT32, self.lanes)
        even, odd = multiply_pairs(builder, twice, self.pairs, constant(INT, 1 << 31, lanes // 2), lanes)
        uppers = ir.Constant(words, [(lane | 1) + lanes * (lane % 2) for lane in range(lanes)])
        v = builder.shuffle_vector(builder.bitcast(even, words), builder.bitcast(odd, words), uppers)
        return builder.ashr(builder.add(v, builder.ashr(v, constant(INT32, 31, lanes))), self.by)

    def bytes_of(self, builder: Any, values: list[Any]) -> Any:
        """Four vectors of 2 v as one of bytes."""
        done = [self.scaled(builder, value) for value in values]
        return self.pieces(builder, [done[:2], done[2:]], HALVED)


def _sum(builder: Any, scalars: tuple[Any, ...], lanes: int, signed: bool) -> Callable[[list[Any]], Any]:
    zeros = [_zero(builder, scalar, lanes, signed) for scalar in scalars[:2]]
    unit = Unit(builder, scalars[2], scalars[3], lanes)
    end = End(builder, scalars[4:], lanes, signed)

    def function(values: list[Any]) -> Any:
        operands = [_widened(builder, v, zero, signed) for v, zero in zip(values, zeros, strict=True)]
        twice = []
        for v, w in zip(*operands, strict=True):
            # high_mul(v * 2^20, 2^30) = 2^19 v, and twice that is 2^4 v in the upper half of a word.
            halved = interleaved(builder, constant(INT16, 0, 2 * lanes), builder.shl(v, constant(INT16, 4, 2 * lanes)))
            for a, b in zip(halved, unit(builder, w), strict=True):
                twice.append(builder.add(builder.bitcast(a, b.type), builder.shl(b, constant(INT32, 1, lanes))))
        return end.bytes_of(builder, twice)

    return function


def _product(builder: Any, scalars: tuple[Any, ...], lanes: int, signed: bool) -> Callable[[list[Any]], Any]:
    zeros = [_zero(builder, scalar, lanes, signed) for scalar in scalars[:2]]
    end = End(builder, scalars[2:], lanes, signed)
    isa, bits = ("avx512", ".512") if lanes == 16 else ("avx2", "")

    def function(values: list[Any]) -> Any:
        operands = [_widened(builder, v, zero, signed) for v, zero in zip(values, zeros, strict=True)]
        twice = []
        for v, w in zip(*operands, strict=True):
            v2 = builder.add(v, v)  # at most 510
            upper = intrinsic_call(builder, f"llvm.x86.{isa}.pmulh.w{bits}", v.type, [v2, w])
            both = interleaved(builder, builder.mul(v2, w), upper)
            twice += [builder.bitcast(half, vector(INT32, lanes)) for half in both]
        return end.bytes_of(builder, twice)

    return function


def _kernel(name: str, make: Callable[..., Any], lanes: int) -> Any:
    @micro_kernel(f"{name}_{lanes}")
    def kernel(builder, kinds, x, x_at, y, y_at, scalars, out, out_at, count):
        function = make(builder, scalars, lanes, is_signed(kinds.out))
        sources = [builder.gep(x, [x_at]), builder.gep(y, [y_at])]
        for_blocks(builder, 4 * lanes, sources, builder.gep(out, [out_at]), count, function)

    return kernel


def sum_kernel(lanes: int) -> Any:
    """An intrinsic for add_q's rule "double": binary.sum_of, clamped, of `count` neighbours.

    kernel(x, x_at, y, y_at, (zero_x, zero_y, multiplier_y, shift_y, multiplier, shift, zero_point, low, high), out,
    out_at, count). x is the operand of the greater scale, whose factor is 1/2: multiplier_x = 2^30 and shift_x = 0.
    Arrays are flat, of bytes of one type. Nothing is checked: zero points and limits are of that type, multipliers in
    [0, 2^31), shift_y in -31 ... 0, shift in -31 ... -1. lanes: 8 or 16, int32 in a vector.
    """
    return _kernel("sum", _sum, lanes)


def product_kernel(lanes: int) -> Any:
    """An intrinsic for mul_q's rule "double": binary.product_of, clamped, of `count` neighbours.

    kernel(x, x_at, y, y_at, (zero_x, zero_y, multiplier, shift, zero_point, low, high), out, out_at, count), as
    sum_kernel. |(x - zero_x)(y - zero_y)| <= 65025.
    """
    return _kernel("product", _product, lanes)
