"""The generator of the micro-kernels of float32 matrix products, as LLVM vector IR.

Every lane of every accumulator is one output element, and a micro-kernel adds its terms in the order it meets them, so
it obeys the project's rule (one fma chain for each output, in the reference order) whatever its width and height.
LLVM turns the IR into the machine's instructions; on a machine with narrower registers it splits the vectors.
"""

from __future__ import annotations

from typing import Any

from npmobilenet.kernels.compiler.deferred import for_range
from npmobilenet.kernels.vectorcode.generated import dispatch, generated, micro_kernel
from npmobilenet.kernels.vectorcode.vector import (
    FLOAT,
    INT,
    apply_activation,
    fma,
    load,
    prefetch,
    row_addresses,
    row_pointers,
    splat,
    store,
    variable,
)

LINE = 16  # float32 in a line of the caches, 64 bytes


def gemm_f32_kernel(rows: int, vectors: tuple[int, ...]) -> Any:
    """An intrinsic that computes `count` times `rows` rows by sum(vectors) columns of a matrix product, in segments.

    kernel(lhs, panel, activation, more, adds, out, count): row r, column j of out is act(the fma chain over s <
    segments, k < depth of lhs's term by panel.weights[at + s * segment + k * width + j], from its bias), plus `more` at
    the same index if `adds` isn't 0. `vectors` are the lanes of the vectors that make up a row, and width is their sum.
    Arrays are flat float32, the rest integers; nothing is checked. Activations outside VECTOR_ACTIVATIONS are left to
    the caller.

    The loop over the rows is in here because a call, its registers saved and its pointers made anew, costs some 100
    cycles, where a tile of 12 x 32 with 16 terms each is 400 of them.

    With each term a line of the weights behind the panel's is fetched into the second-level cache: two tiles of 12 x 32
    fetch the next panel, while they compute, from the third level, whence large layers' weights come. CPUs fetch ahead
    by themselves, but not beyond a page of 4 KiB.
    """
    width = sum(vectors)
    parts = [(sum(vectors[:v]), lanes) for v, lanes in enumerate(vectors)]  # (first column, lanes)

    @micro_kernel(f"gemm_f32_{rows}_{vectors}")
    def kernel(builder, kinds, lhs, panel, activation, more, adds, out, count):
        bias_data, w_data = builder.gep(panel.bias, [panel.channel]), builder.gep(panel.weights, [panel.at])
        sums = [[variable(builder, FLOAT, lanes) for _, lanes in parts] for _ in range(rows)]

        def add_products(row_data, ahead):
            with for_range(builder, lhs.segments) as outer:
                skip = builder.mul(outer.index, lhs.segment)
                weights = builder.gep(w_data, [builder.mul(outer.index, panel.segment)])
                starts = [(builder.gep(base, [skip]), steps) for base, steps in row_data]
                lines = builder.gep(ahead, [builder.mul(outer.index, builder.mul(lhs.depth, INT(LINE)))])
                with for_range(builder, lhs.depth) as inner:
                    prefetch(builder, builder.gep(lines, [builder.mul(inner.index, INT(LINE))]))
                    row_of = builder.gep(weights, [builder.mul(inner.index, INT(width))])
                    columns = [load(builder, builder.gep(row_of, [INT(at)]), FLOAT, lanes) for at, lanes in parts]
                    for row, pointer in zip(sums, row_addresses(builder, starts, inner.index), strict=True):
                        value = builder.load(pointer)
                        for slot, column, (_, lanes) in zip(row, columns, parts, strict=True):
                            term = splat(builder, value, lanes)
                            builder.store(fma(builder, term, column, builder.load(slot), lanes), slot)

        def cells(data):
            """Each slot with its lanes and its place in `out`, or in what is laid out alike."""
            for r, row in enumerate(sums):
                row_data = builder.gep(data, [builder.mul(out.step, INT(r))])
                for slot, (first, lanes) in zip(row, parts, strict=True):
                    yield slot, lanes, builder.gep(row_data, [INT(first)])

        with for_range(builder, count) as loop:
            first_row = builder.mul(loop.index, INT(rows))
            for v, (first, lanes) in enumerate(parts):
                start = load(builder, builder.gep(bias_data, [INT(first)]), FLOAT, lanes)
                for row in sums:
                    builder.store(start, row[v])
            at = builder.add(lhs.at, builder.mul(first_row, lhs.step))
            terms = builder.mul(lhs.segments, lhs.depth)
            ahead = builder.mul(terms, builder.add(INT(width), builder.mul(loop.index, INT(LINE))))
            row_data = row_pointers(builder, builder.gep(lhs.data, [at]), lhs.step, rows)
            add_products(row_data, builder.gep(w_data, [ahead]))
            lanes_of = [lanes for _, lanes in parts] * rows
            slots = zip([slot for row in sums for slot in row], lanes_of, strict=True)
            apply_activation(builder, activation, list(slots))
            at = builder.add(out.at, builder.mul(first_row, out.step))
            with builder.if_then(builder.icmp_signed("!=", adds, INT(0))):
                for slot, lanes, pointer in cells(builder.gep(more, [at])):
                    builder.store(builder.fadd(builder.load(slot), load(builder, pointer, FLOAT, lanes)), slot)
            for slot, _, pointer in cells(builder.gep(out.data, [at])):
                store(builder, builder.load(slot), pointer)

    return kernel


def gemm_f32_rows(heights: tuple[int, ...], widths: tuple[tuple[int, ...], ...]) -> Any:
    """An intrinsic for any number of rows by the columns of one of `widths`: as many rows as fit into the first of
    `heights`, then of what is left into the next; the last height is 1.

    kernel(lhs, panel, width, activation, more, adds, out, rows): as gemm_f32_kernel. Two rows or more that are left in
    the end go together as the last of a tile of the lowest height but 1, which computes the rows before them again: a
    tile of one row waits for each fma. Not where something is added: it may lie where `out` does.
    """
    kernels = {height: {sum(v): gemm_f32_kernel(height, v).emit for v in widths} for height in heights}

    @generated
    def kernel(builder, kinds, lhs, panel, width, activation, more, adds, out, rows):
        def compute(height, first, count):
            part = lhs._replace(at=builder.add(lhs.at, builder.mul(first, lhs.step)))
            to = out._replace(at=builder.add(out.at, builder.mul(first, out.step)))

            def call(emit):
                emit(builder, kinds, part, panel, activation, more, adds, to, count)

            with builder.if_then(builder.icmp_signed(">", count, INT(0))):
                dispatch(builder, width, {n: lambda emit=emit: call(emit) for n, emit in kernels[height].items()})

        first, low = INT(0), heights[-2]
        for height in heights:
            left = builder.sub(rows, first)
            if height == 1:
                again = builder.icmp_signed(">", left, INT(1))
                again = builder.and_(again, builder.icmp_signed(">=", rows, INT(low)))
                again = builder.and_(again, builder.icmp_signed("==", adds, INT(0)))
                once = builder.select(again, INT(1), INT(0))
                compute(low, builder.sub(rows, INT(low)), once)
                left = builder.select(again, INT(0), left)
            count = builder.sdiv(left, INT(height))
            compute(height, first, count)
            first = builder.add(first, builder.mul(count, INT(height)))

    return kernel
