"""Generators of integer vector code: the short way from accumulators to bytes, for rules that only ever scale down."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from npmobilenet.kernels.fast.vector_q import (
    DOUBLE,
    FLOAT,
    INT,
    INT8,
    INT16,
    INT32,
    constant,
    intrinsic_call,
    load,
    max_of,
    multiply_pairs,
    pairs,
    splat,
    vector,
)


def packs(lanes: int) -> bool:
    """Whether the machine has x86's instructions that pack vectors of so many lanes with saturation."""
    return lanes in (8, 16)


def joined(builder: Any, a: Any, b: Any) -> Any:
    """Two vectors as one."""
    return builder.shuffle_vector(a, b, ir.Constant(vector(INT32, 2 * a.type.count), [*range(2 * a.type.count)]))


def part_of(builder: Any, value: Any, first: int, count: int) -> Any:
    """`count` lanes of a vector."""
    chosen = ir.Constant(vector(INT32, count), [*range(first, first + count)])
    return builder.shuffle_vector(value, ir.Constant(value.type, ir.Undefined), chosen)


class Down:
    """The parameters of `lanes` channels for the short way, loaded once for all rows.

    With s = -shift, "double" and "upward" give shift_upward(V, s), where v = high_mul(x, m) and V = v - [v < 0] under
    "double" (one less below zero moves its ties down, away from zero), V = v under "upward". "single" gives
    floor((x m + 2^(30 + s)) / 2^(31 + s)). Nested floors collapse: floor(floor(a / b) / c) = floor(a / bc) for whole
    b, c > 0. So for s >= 1, with h = 2^30 for "upward" and h = 0 for "single",

        result = floor((t + 1) / 2), t = floor(V / 2^(s - 1)) or t = floor((x m + h) / 2^(30 + s)),

    as shift_upward(V, s) = floor((V + 2^(s - 1)) / 2^s) and v = floor((x m + 2^30) / 2^31). Narrow takes the step from
    t to the result. For s >= 2 the upper 32 bits of x m + h, which are floor((x m + h) / 2^32), are enough: t is those
    divided by 2^(s - 2). ("double" needs one bit more, as V is one less in units of 2^31.)

    Nothing overflows, whatever int32 x is: |x m| < 2^62, and v >= 1 - 2^31, as m < 2^31. Nor does the book's result
    wrap: no left shift comes first, and s >= 1 leaves |result| <= 2^30, to which a zero point is added. A multiplier of
    0 gives 0 for any s, so 1 or 2 stands for it: channels that fill up a panel don't count.

    "float32": the product needs only its upper bound of 2^30, as x86's conversion gives INT32_MIN below -2^31. Both
    lie beyond every byte, on the side of what they stand for.
    """

    def __init__(self, builder: Any, multiplier: Any, shift: Any, scale: Any, lanes: int) -> None:
        self.lanes = lanes
        zero = constant(INT32, 0, lanes)
        self.multiplier = load(builder, multiplier, INT32, lanes)
        self.pairs = pairs(builder, self.multiplier, lanes)
        self.right = builder.sub(zero, load(builder, shift, INT32, lanes))
        # float32(scale) is what fixedpoint.float32_rounding multiplies by.
        self.scale = builder.fptrunc(load(builder, scale, DOUBLE, lanes), vector(FLOAT, lanes))
        self.zero = builder.icmp_signed("==", self.multiplier, zero)

    def by(self, builder: Any, least: int) -> Any:
        """s - least, and 0 where the multiplier is 0 and s less."""
        bound = constant(INT32, least, self.lanes)
        return builder.sub(max_of(builder, self.right, bound), bound)

    def short(self, builder: Any, least: int) -> Any:
        """Lanes with s < least that count."""
        below = builder.icmp_signed("<", self.right, constant(INT32, least, self.lanes))
        return builder.select(self.zero, constant(ir.IntType(1), 0, self.lanes), below)

    def words(self, builder: Any, acc: Any, half: Any, bits: int) -> Any:
        """The low words of (x m + half) >> bits (31 or 32), even and odd lanes computed apart."""
        words, wide = vector(INT32, self.lanes), self.lanes // 2
        even, odd = multiply_pairs(builder, acc, self.pairs, half, self.lanes)
        even = builder.bitcast(builder.lshr(even, constant(INT, bits, wide)), words)
        if bits == 31:
            odd = builder.shl(odd, constant(INT, 1, wide))
        chosen = ir.Constant(words, [lane + self.lanes * (lane % 2) for lane in range(self.lanes)])
        return builder.shuffle_vector(even, builder.bitcast(odd, words), chosen)

    def double(self, builder: Any, acc: Any, half: Any, by: Any) -> Any:
        """t of "double"."""
        v = self.words(builder, acc, half, 31)
        return builder.ashr(builder.add(v, builder.ashr(v, constant(INT32, 31, self.lanes))), by)

    def once(self, builder: Any, acc: Any, half: Any, by: Any) -> Any:
        """t of "upward" and "single" for s >= 1."""
        return builder.ashr(self.words(builder, acc, half, 31), by)

    def deep(self, builder: Any, acc: Any, half: Any, by: Any) -> Any:
        """t of "upward" and "single" for s >= 2."""
        return builder.ashr(self.words(builder, acc, half, 32), by)

    def float32(self, builder: Any, acc: Any, half: Any, by: Any) -> Any:
        """fixedpoint.float32_rounding, see above."""
        kind, lanes = vector(FLOAT, self.lanes), self.lanes
        v = builder.fmul(builder.sitofp(acc, kind), self.scale)
        bound = constant(FLOAT, 2.0**30, lanes)
        v = builder.select(builder.fcmp_ordered("<", v, bound), v, bound)
        if lanes == 16:
            args = [v, constant(INT32, 0, 16), ir.Constant(INT16, -1), ir.Constant(INT32, 4)]  # 4: the current mode
            return intrinsic_call(builder, "llvm.x86.avx512.mask.cvtps2dq.512", vector(INT32, 16), args)
        if lanes == 8:
            return intrinsic_call(builder, "llvm.x86.avx.cvt.ps2dq.256", vector(INT32, 8), [v])
        low = constant(FLOAT, -(2.0**30), lanes)
        v = builder.select(builder.fcmp_ordered(">", v, low), v, low)
        v = intrinsic_call(builder, f"llvm.rint.v{lanes}f32", kind, [v])
        return builder.fptosi(v, vector(INT32, lanes))


class Narrow:
    """From two rows of two vectors of int32 to bytes: saturated to int16, moved by the zero point, clamped.

    t saturates to int16, where t + (2z + 1), saturating, is halved: floor((t + 1 + 2z) / 2) = floor((t + 1) / 2) + z.
    Where either saturates, |t + 1 + 2z| >= 2^15 - 512, and the result is beyond every byte on the same side.
    """

    def __init__(self, builder: Any, zero_point: Any, low: Any, high: Any, lanes: int, signed: bool) -> None:
        self.lanes, self.signed = lanes, signed
        kind, width, last, count = (INT16, 2 * lanes, INT8, 4 * lanes) if packs(lanes) else (INT32, lanes) * 2
        zero = builder.trunc(zero_point, kind)
        twice = builder.add(builder.shl(zero, kind(1)), kind(1))
        self.moves = {True: splat(builder, twice, width), False: splat(builder, zero, width)}
        self.low, self.high = (splat(builder, builder.trunc(v, last), count) for v in (low, high))

    def _moved(self, builder: Any, value: Any, halve: bool) -> Any:
        """int16 values after the zero point."""
        count = value.type.count
        value = intrinsic_call(builder, f"llvm.sadd.sat.v{count}i16", value.type, [value, self.moves[halve]])
        return builder.ashr(value, constant(INT16, 1, count)) if halve else value

    def _clamp(self, builder: Any, value: Any) -> Any:
        """Within low ... high."""
        compare = builder.icmp_unsigned if packs(self.lanes) and not self.signed else builder.icmp_signed
        value = builder.select(compare(">", value, self.low), value, self.low)
        return builder.select(compare("<", value, self.high), value, self.high)

    def __call__(self, builder: Any, rows: list[list[Any]], halve: bool) -> list[Any]:
        """The bytes of each row."""
        return (self._packed if packs(self.lanes) else self._plain)(builder, rows, halve)

    def _packed(self, builder: Any, rows: list[list[Any]], halve: bool) -> list[Any]:
        """By the instructions that pack two vectors into one, 128 bits by 128 bits.

        Of each row's vectors a and b, every 128 bits then hold four channels of a and four of b, of either row in turn:
        a permutation of groups of four bytes puts them into order.
        """
        lanes, isa, bits = self.lanes, *(("avx512", ".512") if self.lanes == 16 else ("avx2", ""))
        halves = [
            intrinsic_call(builder, f"llvm.x86.{isa}.packssdw{bits}", vector(INT16, 2 * lanes), row) for row in rows
        ]
        halves = [self._moved(builder, value, halve) for value in halves]
        pack = "packsswb" if self.signed else "packuswb"
        packed = intrinsic_call(builder, f"llvm.x86.{isa}.{pack}{bits}", vector(INT8, 4 * lanes), halves)
        packed = builder.bitcast(self._clamp(builder, packed), vector(INT32, lanes))
        order = [4 * i + part for part in range(4) for i in range(lanes // 4)]
        packed = builder.shuffle_vector(packed, packed, ir.Constant(vector(INT32, lanes), order))
        packed = builder.bitcast(packed, vector(INT8, 4 * lanes))
        return [part_of(builder, packed, first, 2 * lanes) for first in (0, 2 * lanes)]

    def _plain(self, builder: Any, rows: list[list[Any]], halve: bool) -> list[Any]:
        """By operations that every machine has, on int32: |t| <= 2^30, as s >= 2 (requantize_q.py asks for it)."""
        lanes = self.lanes
        one = constant(INT32, 1, lanes)
        done = []
        for row in rows:
            moved = [builder.add(value, self.moves[halve]) for value in row]
            halved = [builder.ashr(value, one) for value in moved] if halve else moved
            narrow = [builder.trunc(self._clamp(builder, value), vector(INT8, lanes)) for value in halved]
            done.append(joined(builder, *narrow))
        return done
