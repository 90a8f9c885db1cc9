"""Generators of integer vector code: the micro-kernels of integer matrix products, as LLVM vector IR.

Integer sums are exact in any order, so a micro-kernel only has to form the same sums as the reference kernels.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from npmobilenet.kernels.compiler.deferred import array_data, for_range, intrinsic, types
from npmobilenet.kernels.compiler.object_code import allow
from npmobilenet.kernels.vectorcode.generated import Lhs, Panel, is_signed, micro_kernel
from npmobilenet.kernels.vectorcode.requant_rules import CENTRED, LINE_FORMS, Line, NarrowToBytes
from npmobilenet.kernels.vectorcode.vector import (
    INT,
    INT8,
    INT16,
    INT32,
    intrinsic_call,
    lanes_of,
    load,
    masked_store,
    on_arm,
    row_addresses,
    row_pointers,
    splat,
    store,
    variable,
    vector,
)

BYTES = ("vnni", "dotprod", "i8mm")  # kinds that multiply bytes
# Arm's instructions for them, of unsigned and of signed bytes (LLVM's names).
ON_ARM = {"dotprod": ("udot", "sdot"), "i8mm": ("ummla", "smmla")}


def kr_of(kind: str) -> int:
    """The products that one lane sums at a time."""
    return 8 if kind == "i8mm" else 4 if kind in BYTES else 2


def _multiply_add(
    builder: Any, total: Any, x: Any, w: Any, kind: str, lanes: int, signed: bool, repeated: bool = False
) -> Any:
    """total + the dot products of groups: of four bytes ("vnni", "dotprod") or of two int16 (the other kinds).

    "vnni" multiplies unsigned x by signed w. "dotprod" multiplies bytes that are both unsigned or, where `signed`, both
    signed: Arm's UDOT and SDOT. So does "i8mm", by UMMLA and SMMLA: x and w hold two groups of eight, and the lanes are
    x's first group by w's two, then x's second by w's two. On another machine plain multiplications and additions stand
    for these. They give the same sums, so that the code around the instruction can be tested there. `repeated`: all
    lanes of x are the same.
    """
    words = vector(INT32, lanes)
    if kind in ON_ARM:
        x, w = (builder.bitcast(v, vector(INT8, 4 * lanes)) for v in (x, w))
        if on_arm(builder):
            allow(builder.function, kind)
            name = f"llvm.aarch64.neon.{ON_ARM[kind][signed]}.v4i32.v16i8"
            return intrinsic_call(builder, name, words, [total, x, w])
        if kind == "i8mm":
            x = lanes_of(builder, x, [*range(8), *range(8), *range(8, 16), *range(8, 16)])
            w = lanes_of(builder, w, [*range(16), *range(16)])
        return _plainly(builder, total, x, w, lanes, signed)
    if kind == "vnni":
        # By LLVM in the form for AVX-VNNI where that is what there is.
        return intrinsic_call(builder, f"llvm.x86.avx512.vpdpbusd.{32 * lanes}", words, [total, x, w])
    halves = vector(INT16, 2 * lanes)
    x, w = builder.bitcast(x, halves), builder.bitcast(w, halves)
    if kind == "pairs" and lanes in (8, 16):
        name = {8: "llvm.x86.avx2.pmadd.wd", 16: "llvm.x86.avx512.pmaddw.d.512"}[lanes]
        return builder.add(total, intrinsic_call(builder, name, words, [x, w]))
    if on_arm(builder):  # SMLAL takes half a vector of either, and the halves of w serve all rows
        for odd in (0, 1):
            a = lanes_of(builder, x, [odd] * lanes if repeated else [*range(odd, 2 * lanes, 2)])
            b = lanes_of(builder, w, [*range(odd, 2 * lanes, 2)])
            total = builder.add(total, builder.mul(*(builder.sext(v, words) for v in (a, b))))
        return total
    return _plainly(builder, total, x, w, lanes, True)


def _plainly(builder: Any, total: Any, x: Any, w: Any, lanes: int, signed: bool) -> Any:
    """total + the sums of the neighbouring products that make up a lane."""
    count = x.type.count
    group, wide = count // lanes, vector(INT32, count)
    product = builder.mul(*((builder.sext if signed else builder.zext)(v, wide) for v in (x, w)))
    for k in range(group):
        total = builder.add(total, lanes_of(builder, product, [*range(k, count, group)]))
    return total


class Product:
    """`rows` rows by `vectors * lanes` columns of a product of integer matrices, in registers.

    The groups of row r lie at lhs.at + r * step + s * segment + g * group for s < segments and g < depth, those of
    column j at panel.at + s * panel.segment + (g * width + j) * group; a group is four bytes or two int16, see
    _multiply_add. With "i8mm" it is eight bytes; an accumulator then holds two rows by two columns while products are
    added, and an odd last row is computed twice.
    """

    def __init__(self, shape: tuple[int, int, int], kind: str, width: int, signed: bool) -> None:
        self.rows, self.vectors, self.lanes = shape
        self.kind, self.width, self.signed = kind, width, signed
        self.group = kr_of(kind)
        self.side = 2 if kind == "i8mm" else 1  # rows in an accumulator while products are added

    def slots(self, builder: Any) -> list[Any]:
        """Room for the accumulators, row by row, of whole pairs of rows with "i8mm"; LLVM's mem2reg keeps them in
        registers.
        """
        rows = self.rows + self.rows % self.side
        return [variable(builder, INT32, self.lanes) for _ in range(rows * self.vectors)]

    def start(self, builder: Any, slots: list[Any], summed: Any, sums: Any, bias: Any) -> None:
        """bias[j], less sums[r] if `summed`, from pointers to the first of each."""
        lanes, vectors = self.lanes, self.vectors
        first = [load(builder, builder.gep(bias, [INT(v * lanes)]), INT32, lanes) for v in range(vectors)]
        for i, slot in enumerate(slots):
            builder.store(first[i % vectors], slot)
        with builder.if_then(summed):
            for r in range(self.rows):
                taken = splat(builder, builder.load(builder.gep(sums, [INT(r)])), lanes)
                for v, slot in enumerate(slots[r * vectors : (r + 1) * vectors]):
                    builder.store(builder.sub(first[v], taken), slot)

    def add(self, builder: Any, slots: list[Any], lhs: Lhs, panel: Panel) -> None:
        """Plus the dot products of the rows of `lhs`, whose first is lhs.data."""
        lanes, group, width, side = self.lanes, self.group, self.width, self.side
        sums = self._exchanged(builder, slots)
        row_data = row_pointers(builder, lhs.data, lhs.step, self.rows)
        w = builder.gep(panel.weights, [panel.at])
        with for_range(builder, lhs.segments) as outer:
            skip = builder.mul(outer.index, lhs.segment)
            groups = builder.gep(w, [builder.mul(outer.index, panel.segment)])
            starts = [(builder.gep(base, [skip]), steps) for base, steps in row_data]
            with for_range(builder, lhs.depth) as loop:
                words = builder.gep(groups, [builder.mul(loop.index, INT(width * group))])
                places = [builder.gep(words, [INT(c * lanes * group // side)]) for c in range(self.vectors * side)]
                columns = [load(builder, place, INT32, lanes) for place in places]
                addresses = row_addresses(builder, starts, builder.mul(loop.index, INT(group)))
                for r in range(0, self.rows, side):
                    value = self._value(builder, addresses[r : r + side])
                    for slot, column in zip(sums[r * self.vectors :], columns, strict=False):
                        before = builder.load(slot)
                        total = _multiply_add(builder, before, value, column, self.kind, lanes, self.signed, True)
                        builder.store(total, slot)
        self._exchanged(builder, slots)

    def _exchanged(self, builder: Any, slots: list[Any]) -> list[Any]:
        """Turn rows into what is added to, or back, and return its slots: pair of rows by pair of rows, the columns.

        The same step does both: [a b c d] of a row and [e f g h] of the next <-> [a b e f] and [c d g h].
        """
        if self.side == 1:
            return slots
        found = []
        for first in range(0, len(slots), 2 * self.vectors):
            for upper, lower in zip(slots[first : first + self.vectors], slots[first + self.vectors :], strict=False):
                pair = builder.load(upper), builder.load(lower)
                for slot, at in ((upper, 0), (lower, 2)):
                    order = ir.Constant(vector(INT32, 4), [at, at + 1, at + 4, at + 5])
                    builder.store(builder.shuffle_vector(*pair, order), slot)
                    found.append(slot)
        return found

    def _value(self, builder: Any, addresses: list[Any]) -> Any:
        """The groups of a row in all lanes; with "i8mm" those of two rows, or of the last one twice."""
        kind, count = (INT32, self.lanes) if self.side == 1 else (INT, 2)
        first, *more = (builder.load(builder.bitcast(place, kind.as_pointer()), align=1) for place in addresses)
        value = splat(builder, first, count)
        return builder.insert_element(value, more[0], INT32(1)) if more else value


class LinearEpilogue:
    """The step from accumulators in registers to bytes in memory, by lines (linear_requant.py)."""

    def __init__(self, builder: Any, requant: Any, line: Any, lanes: int, signed: bool) -> None:
        """requant: a LinearRequant; line: one of LINE_FORMS."""
        self.requant, self.line, self.lanes = requant, line, lanes
        self.narrow = NarrowToBytes(builder, INT(0), requant.low, requant.high, lanes, signed)

    def lines(self, builder: Any, channel: Any, vectors: int) -> list[Line]:
        """The lines of some vectors of channels."""
        places = [builder.add(channel, INT(v * self.lanes)) for v in range(vectors)]
        return [Line(builder, self.requant, place, self.lanes) for place in places]

    def store(
        self, builder: Any, lines: list[Line], slots: list[Any], target: Any, offsets: list[Any], mask: Any = None
    ) -> None:
        """The bytes of the slots, row by row, at their offsets from `target`, those of the mask if there is one.

        Four vectors go together. The last row comes first: of rows with the same offset, the first one stays.
        """
        for form, method in LINE_FORMS.items():
            with builder.if_then(builder.icmp_signed("==", self.line, INT(form))):
                for first in reversed(range(0, len(slots), 4)):
                    for row, part in reversed(self._four(builder, lines, method, slots, first)):
                        pointer = builder.gep(target, [offsets[row]])
                        if mask:
                            masked_store(builder, part, pointer, mask)
                        else:
                            store(builder, part, pointer)

    def _four(self, builder: Any, lines: list[Line], method: Any, slots: list[Any], first: int) -> list[Any]:
        """(row, bytes) of vectors first ... first + 3, or as many as there are."""
        vectors = len(lines)
        numbers = [min(first + k, len(slots) - vectors + k % vectors) for k in range(4)]
        values = [method(lines[k % vectors], builder, builder.load(slots[k])) for k in numbers]
        done = self.narrow(builder, [values[:2], values[2:]], CENTRED)
        parts = (
            [lanes_of(builder, d, range(k * self.lanes, (k + 1) * self.lanes)) for d in done for k in (0, 1)]
            if vectors == 1
            else done
        )
        rows = [(first // vectors + i, part) for i, part in enumerate(parts)]
        return [(row, part) for row, part in rows if row * vectors < len(slots)]


def gemm_s8_kernel(rows: int, vectors: int, lanes: int, kind: str, panel_width: int | None = None) -> Any:
    """An intrinsic for `rows` rows by `vectors * lanes` columns of a product of integer matrices.

    kernel(lhs, panel, sums: RowSums, acc): of row r and column j, acc[r * width + j] is the panel's bias less the
    row's sum plus the sum of the dot products of the groups, see Product. width is panel_width, or as many columns as
    are computed. Nothing is checked.
    """
    width = panel_width or vectors * lanes

    @micro_kernel(f"gemm_s8_{rows}_{vectors}_{lanes}_{kind}_{width}")
    def kernel(builder, kinds, lhs, panel, sums, acc):
        product = Product((rows, vectors, lanes), kind, width, is_signed(kinds.lhs.data))
        slots = product.slots(builder)
        summed = builder.icmp_signed(">=", sums.at, INT(0))
        bias = builder.gep(panel.bias, [panel.channel])
        product.start(builder, slots, summed, builder.gep(sums.data, [sums.at]), bias)
        product.add(builder, slots, lhs._replace(data=builder.gep(lhs.data, [lhs.at])), panel)
        for i, slot in enumerate(slots[: rows * vectors]):
            pointer = builder.gep(acc, [INT(i // vectors * width + i % vectors * lanes)])
            store(builder, builder.load(slot), pointer)

    return kernel


def gemm_s8_linear_kernel(rows: int, vectors: int, lanes: int, kind: str, panel_width: int) -> Any:
    """As gemm_s8_kernel, for `count` times `rows` rows, whose outputs are bytes by lines (linear_requant.py).

    kernel(lhs, panel, sums, requant, line, out, count, columns): row r, column j of out is the line of channel
    + j at the accumulator, clamped to low ... high, for j < columns (all, but with AVX-512). line: one of LINE_FORMS.
    Nothing is checked.
    """

    @micro_kernel(f"gemm_s8_linear_{rows}_{vectors}_{lanes}_{kind}_{panel_width}")
    def kernel(builder, kinds, lhs, panel, sums, requant, line, out, count, columns):
        product = Product((rows, vectors, lanes), kind, panel_width, is_signed(kinds.lhs.data))
        slots = product.slots(builder)
        summed = builder.icmp_signed(">=", sums.at, INT(0))
        x, y = (builder.gep(block.data, [block.at]) for block in (lhs, out))
        first_sum, bias = builder.gep(sums.data, [sums.at]), builder.gep(panel.bias, [panel.channel])
        # AVX-512 stores the first bytes of a vector alone; elsewhere the caller passes whole panels only.
        numbers = ir.Constant(vector(INT8, vectors * lanes), list(range(vectors * lanes)))
        left = splat(builder, builder.trunc(columns, INT8), vectors * lanes)
        mask = builder.icmp_unsigned("<", numbers, left) if lanes == 16 else None
        end = LinearEpilogue(builder, requant, line, lanes, is_signed(kinds.out.data))
        lines = end.lines(builder, panel.channel, vectors)
        with for_range(builder, count) as loop:
            row = builder.mul(loop.index, INT(rows))
            product.start(builder, slots, summed, builder.gep(first_sum, [row]), bias)
            product.add(builder, slots, lhs._replace(data=builder.gep(x, [builder.mul(row, lhs.step)])), panel)
            offsets = [builder.mul(out.step, INT(r)) for r in range(rows)]
            end.store(builder, lines, slots, builder.gep(y, [builder.mul(row, out.step)]), offsets, mask)

    return kernel


@intrinsic
def address_of(typingctx, array):
    """The address of an array's first element."""

    def codegen(context, builder, signature, args):
        return builder.ptrtoint(array_data(context, builder, signature.args[0], args[0]), INT)

    return types.int64(array), codegen
