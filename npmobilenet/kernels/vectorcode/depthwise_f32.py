"""Generators of float32 depthwise convolution: tiles of outputs by vectors of channels, as LLVM vector IR."""

from __future__ import annotations

import contextlib
import functools
from typing import Any, NamedTuple

from npmobilenet.kernels.compiler.deferred import for_range, for_range_slice
from npmobilenet.kernels.vectorcode.generated import micro_kernel
from npmobilenet.kernels.vectorcode.vector import FLOAT, INT, apply_activation, fma, load, store, variable


class Pixels(NamedTuple):
    """Pixels: channel j of the one that pixel p's window has in row ky, column kx is at at + p * pixel_step +
    ky * row_step + kx * column_step + j.
    """

    data: Any
    at: Any
    pixel_step: Any
    row_step: Any
    column_step: Any


class Taps(NamedTuple):
    """Filters: row ky < rows, column kx < columns is weights[at + ky * row_step + kx * column_step + j]; and
    bias[channel + j].
    """

    weights: Any
    at: Any
    row_step: Any
    column_step: Any
    rows: Any
    columns: Any
    bias: Any
    channel: Any


class Framed(NamedTuple):
    """An image that windows reach beyond: it has rows top ... bottom - 1, of `width` pixels of `channels` values, and
    row 0 begins at `at`; windows begin `pad` pixels to the left of it.
    """

    data: Any
    at: Any
    top: Any
    bottom: Any
    width: Any
    channels: Any
    pad: Any


def depthwise_f32_kernel(pixels: int, lanes: int) -> Any:
    """An intrinsic that filters a run of outputs, `lanes` channels of `pixels` neighbours at a time.

    kernel(x: Pixels, w: Taps, activation, out, groups, blocks): for each pixel p < pixels * groups and channel j <
    lanes * blocks, out's row p, column j is the activation (of VECTOR_ACTIVATIONS; others are left to the caller) of
    the fma chain over the window's rows and columns, from the bias. Arrays are flat; nothing is checked.
    """

    @micro_kernel(f"depthwise_f32_{pixels}_{lanes}")
    def kernel(builder, kinds, x, w, activation, out, groups, blocks):
        slots = [variable(builder, FLOAT, lanes) for _ in range(pixels)]
        with for_range(builder, blocks) as block, for_range(builder, groups) as loop:
            c, first = builder.mul(block.index, INT(lanes)), builder.mul(loop.index, INT(pixels))
            group = builder.gep(x.data, [builder.add(builder.add(x.at, c), builder.mul(first, x.pixel_step))])
            w_data = builder.gep(w.weights, [builder.add(w.at, c)])
            start = load(builder, builder.gep(w.bias, [builder.add(w.channel, c)]), FLOAT, lanes)
            for slot in slots:
                builder.store(start, slot)
            with for_range(builder, w.rows) as rows, for_range(builder, w.columns) as columns:
                w_row = builder.gep(w_data, [builder.mul(rows.index, w.row_step)])
                weight = load(builder, builder.gep(w_row, [builder.mul(columns.index, w.column_step)]), FLOAT, lanes)
                row = builder.gep(group, [builder.mul(rows.index, x.row_step)])
                tap = builder.gep(row, [builder.mul(columns.index, x.column_step)])
                for p, slot in enumerate(slots):
                    value = load(builder, builder.gep(tap, [builder.mul(x.pixel_step, INT(p))]), FLOAT, lanes)
                    builder.store(fma(builder, value, weight, builder.load(slot), lanes), slot)
            apply_activation(builder, activation, [(slot, lanes) for slot in slots])
            target = builder.gep(out.data, [builder.add(builder.add(out.at, c), builder.mul(first, out.step))])
            for slot in slots:
                store(builder, builder.load(slot), target)
                target = builder.gep(target, [out.step])

    return kernel


def depthwise_f32_image_kernel(rows: int, pixels: int, lanes: int, taps: int, stride: int) -> Any:
    """An intrinsic that filters `rows` rows of outputs by windows of taps x taps, some of which cross the border.

    kernel(x: Framed, w, bias, activation, out, count, stop): for each output of row r < count (at most `rows`), column
    p < stop and channel j < channels, out[out.at + r * out.step + p * channels + j] is the activation (of
    VECTOR_ACTIVATIONS; others are left to the caller) of the fma chain over ky < taps, kx < taps of x's row
    r * stride + ky, pixel i = p * stride - pad + kx, channel j by w[(ky * taps + kx) * channels + j], from bias[j], and
    for those terms only whose row and pixel are there. At least `lanes` channels: the last vector of them begins
    earlier than it would, and computes some once more. Arrays are flat; nothing is checked.

    rows x pixels outputs go together, and a value that several of them read is loaded once. At a border, rows and
    columns outside are left out one by one: a test each, where an output by itself would cost a call.
    """
    high, wide = (rows - 1) * stride + taps, (pixels - 1) * stride + taps  # what the windows of a group read
    places = [(r, p) for r in range(rows) for p in range(pixels)]

    @micro_kernel(f"depthwise_f32_image_{rows}_{pixels}_{lanes}_{taps}_{stride}")
    def kernel(builder, kinds, x, w, bias, activation, out, count, stop):
        slots = {place: variable(builder, FLOAT, lanes) for place in places}
        last, row_step = builder.sub(x.channels, INT(lanes)), builder.mul(x.width, x.channels)

        def less(a, b):
            return builder.icmp_signed("<", a, b)

        def between(low, value, end):
            return builder.and_(builder.icmp_signed("<=", low, value), less(value, end))

        def unless(whole, condition):
            """What follows happens if the condition is true; it is where all is whole."""
            return contextlib.nullcontext() if whole else builder.if_then(condition())

        def add_row(row, w_data, r, left, whole):
            used = {y: r - y * stride for y in range(rows) if 0 <= r - y * stride < taps}  # output row -> filter row
            weights = {
                (y, k): load(builder, builder.gep(w_data, [builder.mul(x.channels, INT(ky * taps + k))]), FLOAT, lanes)
                for y, ky in used.items()
                for k in range(taps)
            }
            for i in range(wide):
                with unless(whole, lambda i=i: between(INT(0), builder.add(left, INT(i)), x.width)):
                    value = load(builder, row, FLOAT, lanes)
                    for y, p in places:
                        if y in used and 0 <= i - p * stride < taps:
                            slot, weight = slots[y, p], weights[y, i - p * stride]
                            builder.store(fma(builder, value, weight, builder.load(slot), lanes), slot)
                row = builder.gep(row, [x.channels])

        def add_rows(data, w_data, left, whole):
            for r in range(high):
                with unless(whole, lambda r=r: between(x.top, INT(r), x.bottom)):
                    add_row(data, w_data, r, left, whole)
                data = builder.gep(data, [row_step])

        with (
            for_range_slice(builder, INT(0), stop, INT(pixels)) as (p, _),
            for_range_slice(builder, INT(0), x.channels, INT(lanes)) as (block, _),
        ):
            c = builder.select(less(block, last), block, last)
            left = builder.sub(builder.mul(p, INT(stride)), x.pad)
            data = builder.gep(x.data, [builder.add(builder.add(x.at, c), builder.mul(left, x.channels))])
            w_data = builder.gep(w, [c])
            start = load(builder, builder.gep(bias, [c]), FLOAT, lanes)
            for slot in slots.values():
                builder.store(start, slot)
            conditions = [
                builder.icmp_signed("<=", INT(0), left),
                less(builder.add(left, INT(wide - 1)), x.width),
                builder.icmp_signed("<=", x.top, INT(0)),
                less(INT(high - 1), x.bottom),
                less(builder.add(p, INT(pixels - 1)), stop),
                less(INT(rows - 1), count),
            ]
            inside = functools.reduce(builder.and_, conditions)
            with builder.if_else(inside) as ways:
                for way, whole in zip(ways, (True, False), strict=True):
                    with way:
                        add_rows(data, w_data, left, whole)
            apply_activation(builder, activation, [(slot, lanes) for slot in slots.values()])
            target = builder.gep(out.data, [builder.add(builder.add(out.at, c), builder.mul(p, x.channels))])

            def there(r, k):
                return builder.and_(less(INT(r), count), less(builder.add(p, INT(k)), stop))

            with builder.if_else(inside) as ways:
                for way, whole in zip(ways, (True, False), strict=True):
                    with way:
                        for (r, k), slot in slots.items():
                            with unless(whole, lambda r=r, k=k: there(r, k)):
                                at = builder.add(builder.mul(out.step, INT(r)), builder.mul(x.channels, INT(k)))
                                store(builder, builder.load(slot), builder.gep(target, [at]))

    return kernel
