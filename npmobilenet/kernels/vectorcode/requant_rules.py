"""Generators of integer vector code: the short ways from accumulators to bytes, for rules that only ever scale down.

`Line` is the shortest, for layers whose steps a line takes (linear_requant.py); `DownscaleRequant` is for the others.
"""

from __future__ import annotations

import functools
from typing import Any

from llvmlite import ir

from npmobilenet.kernels.vectorcode.general_requant import multiply_pairs, pairs
from npmobilenet.kernels.vectorcode.vector import (
    DOUBLE,
    FLOAT,
    INT,
    INT8,
    INT16,
    INT32,
    constant,
    fma,
    intrinsic_call,
    lanes_of,
    load,
    max_of,
    on_arm,
    splat,
    vector,
)


def packs(lanes: int) -> bool:
    """Whether the machine has x86's instructions that pack vectors of so many lanes with saturation."""
    return lanes in (8, 16)


def joined(builder: Any, a: Any, b: Any) -> Any:
    """Two vectors as one."""
    return builder.shuffle_vector(a, b, ir.Constant(vector(INT32, 2 * a.type.count), [*range(2 * a.type.count)]))


def to_integers(builder: Any, values: Any, lanes: int) -> Any:
    """float32 to int32, to nearest, ties to even; for |values| < 2^31 (x86 gives INT32_MIN beyond, Arm the end)."""
    words = vector(INT32, lanes)
    if lanes == 16:
        args = [values, constant(INT32, 0, 16), ir.Constant(INT16, -1), ir.Constant(INT32, 4)]  # 4: the current mode
        return intrinsic_call(builder, "llvm.x86.avx512.mask.cvtps2dq.512", words, args)
    if lanes == 8:
        return intrinsic_call(builder, "llvm.x86.avx.cvt.ps2dq.256", words, [values])
    if on_arm(builder):
        return intrinsic_call(builder, "llvm.aarch64.neon.fcvtns.v4i32.v4f32", words, [values])
    return builder.fptosi(intrinsic_call(builder, f"llvm.rint.v{lanes}f32", values.type, [values]), words)


HALVED, SCALED, CENTRED = range(3)  # see NarrowToBytes
ONE_OFFSET, TWO_OFFSETS, PATCHED = 1, 2, 3  # see Line
MOST_EXCEPTIONS = 2  # of a line: with one, 2.6 % of V2 int8's channels had no line, with two 1.2 %


class Line:
    """rint(fma(float32(x), slope, offset)) of `lanes` channels, see linear_requant.py: the output less its centre.

    |result| < 2^30, as the slope is less than 1/2 and |x| at most 2^31.
    """

    def __init__(self, builder: Any, requant: Any, channel: Any, lanes: int) -> None:
        """requant: a LinearRequant; the lanes are the channels from `channel` on."""
        self.lanes, count = lanes, MOST_EXCEPTIONS
        floats = (requant.slope, requant.offset, requant.below)
        self.slope, self.offset, self.below = (load(builder, builder.gep(a, [channel]), FLOAT, lanes) for a in floats)
        all_of = load(
            builder, builder.gep(requant.exceptions, [builder.mul(channel, INT(count))]), INT32, count * lanes
        )
        self.exceptions = [lanes_of(builder, all_of, [*range(k, count * lanes, count)]) for k in range(count)]

    def one_offset(self, builder: Any, acc: Any) -> Any:
        """One offset for all accumulators."""
        return self._at(builder, acc, self.offset)

    def two_offsets(self, builder: Any, acc: Any) -> Any:
        """Another offset for negative ones."""
        negative = builder.icmp_signed("<", acc, constant(INT32, 0, self.lanes))
        return self._at(builder, acc, builder.select(negative, self.below, self.offset))

    def patched(self, builder: Any, acc: Any) -> Any:
        """That, and one more at the exceptions."""
        value = self.two_offsets(builder, acc)
        more = builder.add(value, constant(INT32, 1, self.lanes))
        there = [builder.icmp_signed("==", acc, x) for x in self.exceptions]
        return builder.select(functools.reduce(builder.or_, there), more, value)

    def _at(self, builder: Any, acc: Any, offset: Any) -> Any:
        kind = vector(FLOAT, self.lanes)
        return to_integers(builder, fma(builder, builder.sitofp(acc, kind), self.slope, offset, self.lanes), self.lanes)


LINE_FORMS = {ONE_OFFSET: Line.one_offset, TWO_OFFSETS: Line.two_offsets, PATCHED: Line.patched}


class DownscaleRequant:
    """The parameters of `lanes` channels for the short way, loaded once for all rows.

    With s = -shift, "double" and "upward" give shift_upward(V, s), where v = high_mul(x, m) and V = v - [v < 0] under
    "double" (one less below zero moves its ties down, away from zero), V = v under "upward". "single" gives
    floor((x m + 2^(30 + s)) / 2^(31 + s)). Nested floors collapse: floor(floor(a / b) / c) = floor(a / bc) for whole
    b, c > 0. So for s >= 1, with h = 2^30 for "upward" and h = 0 for "single",

        result = floor((t + 1) / 2), t = floor(V / 2^(s - 1)) or t = floor((x m + h) / 2^(30 + s)),

    as shift_upward(V, s) = floor((V + 2^(s - 1)) / 2^s) and v = floor((x m + 2^30) / 2^31). NarrowToBytes takes the
    step from t to the result.

    Nothing overflows, whatever int32 x is: |x m| < 2^62, and v >= 1 - 2^31, as m < 2^31. Nor does the reference's
    result wrap: no left shift comes first, and s >= 1 leaves |result| <= 2^30, to which a zero point is added. A
    multiplier of 0 gives 0 for any s, so 1 or 2 stands for it: channels that fill up a panel don't count.

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

    def words(self, builder: Any, acc: Any, half: Any) -> Any:
        """The low words of (x m + half) >> 31, even and odd lanes computed apart."""
        words, wide = vector(INT32, self.lanes), self.lanes // 2
        even, odd = multiply_pairs(builder, acc, self.pairs, half, self.lanes)
        even = builder.bitcast(builder.lshr(even, constant(INT, 31, wide)), words)
        odd = builder.bitcast(builder.shl(odd, constant(INT, 1, wide)), words)
        chosen = ir.Constant(words, [lane + self.lanes * (lane % 2) for lane in range(self.lanes)])
        return builder.shuffle_vector(even, odd, chosen)

    def double(self, builder: Any, acc: Any, half: Any, by: Any) -> Any:
        """t of "double"."""
        v = self.words(builder, acc, half)
        return builder.ashr(builder.add(v, builder.ashr(v, constant(INT32, 31, self.lanes))), by)

    def once(self, builder: Any, acc: Any, half: Any, by: Any) -> Any:
        """t of "upward" and "single"."""
        return builder.ashr(self.words(builder, acc, half), by)

    def float32(self, builder: Any, acc: Any, half: Any, by: Any) -> Any:
        """fixedpoint.float32_rounding, see above."""
        kind, lanes = vector(FLOAT, self.lanes), self.lanes
        v = builder.fmul(builder.sitofp(acc, kind), self.scale)
        bound = constant(FLOAT, 2.0**30, lanes)
        v = builder.select(builder.fcmp_ordered("<", v, bound), v, bound)
        if not packs(lanes):
            low = constant(FLOAT, -(2.0**30), lanes)
            v = builder.select(builder.fcmp_ordered(">", v, low), v, low)
        return to_integers(builder, v, lanes)


class NarrowToBytes:
    """From two rows of two vectors of int32 to bytes, clamped. The int32 are of one of three forms.

    HALVED: t, which saturates to int16, where t + (2z + 1), saturating, is halved: floor((t + 1 + 2z) / 2) =
    floor((t + 1) / 2) + z. Where either saturates, |t + 1 + 2z| >= 2^15 - 512, and the result is beyond every byte on
    the same side. SCALED: the result before the zero point. CENTRED: the result less 128 of uint8, or as it is of int8;
    the clamp is that of int8 then, and 128 comes back by the uppermost bit.
    """

    def __init__(self, builder: Any, zero_point: Any, low: Any, high: Any, lanes: int, signed: bool) -> None:
        self.lanes, self.signed = lanes, signed
        kind, width, last, count = (INT16, 2 * lanes, INT8, 4 * lanes) if packs(lanes) else (INT32, lanes) * 2
        zero = builder.trunc(zero_point, kind)
        twice = builder.add(builder.shl(zero, kind(1)), kind(1))
        self.moves = {HALVED: splat(builder, twice, width), SCALED: splat(builder, zero, width)}
        self.range = [splat(builder, builder.trunc(v, last), count) for v in (low, high)]
        self.centre = constant(last, 0 if signed else 128, count)

    def _moved(self, builder: Any, value: Any, form: int) -> Any:
        """int16 values after the zero point."""
        if form == CENTRED:
            return value
        count = value.type.count
        value = intrinsic_call(builder, f"llvm.sadd.sat.v{count}i16", value.type, [value, self.moves[form]])
        return builder.ashr(value, constant(INT16, 1, count)) if form == HALVED else value

    def __call__(self, builder: Any, rows: list[list[Any]], form: int) -> list[Any]:
        """The bytes of each row."""
        return (self._packed if packs(self.lanes) else self._plain)(builder, rows, form)

    def pieces(self, builder: Any, rows: list[list[Any]], form: int) -> Any:
        """The bytes of both rows by the instructions that pack two vectors into one, 128 bits by 128 bits.

        Of each row's vectors a and b, every 128 bits then hold four channels of a and four of b, of either row in turn.
        """
        lanes, isa, bits = self.lanes, *(("avx512", ".512") if self.lanes == 16 else ("avx2", ""))
        halves = [
            intrinsic_call(builder, f"llvm.x86.{isa}.packssdw{bits}", vector(INT16, 2 * lanes), row) for row in rows
        ]
        halves = [self._moved(builder, value, form) for value in halves]
        signed = self.signed or form == CENTRED
        pack = "packsswb" if signed else "packuswb"
        packed = intrinsic_call(builder, f"llvm.x86.{isa}.{pack}{bits}", vector(INT8, 4 * lanes), halves)
        moves = form == CENTRED and not self.signed
        low, high = (builder.xor(v, self.centre) if moves else v for v in self.range)
        packed = _clamp(builder.icmp_signed if signed else builder.icmp_unsigned, builder, packed, low, high)
        return builder.xor(packed, self.centre) if moves else packed

    def _packed(self, builder: Any, rows: list[list[Any]], form: int) -> list[Any]:
        """The pieces in order, by a permutation of groups of four bytes."""
        lanes = self.lanes
        packed = builder.bitcast(self.pieces(builder, rows, form), vector(INT32, lanes))
        order = [4 * i + part for part in range(4) for i in range(lanes // 4)]
        packed = builder.shuffle_vector(packed, packed, ir.Constant(vector(INT32, lanes), order))
        packed = builder.bitcast(packed, vector(INT8, 4 * lanes))
        return [lanes_of(builder, packed, range(first, first + 2 * lanes)) for first in (0, 2 * lanes)]

    def _plain(self, builder: Any, rows: list[list[Any]], form: int) -> list[Any]:
        """By operations that every machine has, on int32: |t| <= 2^30, as s >= 2 (requant_epilogue.py asks for it)."""
        lanes = self.lanes
        move, one = self.moves.get(form, self.centre), constant(INT32, 1, lanes)
        done = []
        for row in rows:
            moved = [builder.add(value, move) for value in row]
            moved = [builder.ashr(value, one) for value in moved] if form == HALVED else moved
            clamped = [_clamp(builder.icmp_signed, builder, value, *self.range) for value in moved]
            done.append(joined(builder, *(builder.trunc(value, vector(INT8, lanes)) for value in clamped)))
        return done


def _clamp(compare: Any, builder: Any, value: Any, low: Any, high: Any) -> Any:
    """Within low ... high."""
    value = builder.select(compare(">", value, low), value, low)
    return builder.select(compare("<", value, high), value, high)
