"""Generators of float32 depthwise convolution: tiles of outputs by vectors of channels, as LLVM vector IR."""

from __future__ import annotations

import contextlib
import functools
from typing import Any

from numba import types
from numba.extending import intrinsic

from npmobilenet.kernels.compiler.numba_private import for_range, for_range_slice
from npmobilenet.kernels.vectorcode.vector import (
    INT,
    _fma,
    _load,
    _store,
    _variable,
    apply_activation,
    outlined,
    pointers_of,
)


def depthwise_tile(pixels: int, lanes: int) -> Any:
    """An intrinsic that filters a run of outputs, `lanes` channels of `pixels` neighbours at a time.

    tile(x, x_at, pixel_step, row_step, column_step, w, w_at, w_row_step, w_column_step, taps_y, taps_x, bias, channel,
    activation, out, out_at, out_step, groups, blocks): for each pixel p < pixels * groups and channel j < lanes *
    blocks, out[out_at + p * out_step + j] is the activation (of VECTOR_ACTIVATIONS; others are left to the caller) of
    the fma chain over ky < taps_y, kx < taps_x of x[x_at + p * pixel_step + ky * row_step + kx * column_step + j] *
    w[w_at + ky * w_row_step + kx * w_column_step + j], from bias[channel + j]. Arrays are flat; nothing is checked.
    """

    @intrinsic
    def tile(
        typingctx, x, x_at, pixel_step, row_step, column_step, w, w_at, w_row_step, w_column_step,
        taps_y, taps_x, bias, channel, activation, out, out_at, out_step, groups, blocks,
    ):  # fmt: skip
        def codegen(context, builder, signature, args):
            outlined(builder, f"depthwise_{pixels}_{lanes}", pointers_of(context, builder, signature, args), body)
            return context.get_dummy_value()

        def body(builder, args):
            (x, x_at, pixel_step, row_step, column_step, w, w_at, w_row_step, w_column_step,
             taps_y, taps_x, bias, channel, activation, out, out_at, out_step, groups, blocks) = args  # fmt: skip
            slots = [_variable(builder, lanes) for _ in range(pixels)]
            with for_range(builder, blocks) as block, for_range(builder, groups) as loop:
                c, first = builder.mul(block.index, INT(lanes)), builder.mul(loop.index, INT(pixels))
                group = builder.gep(x, [builder.add(builder.add(x_at, c), builder.mul(first, pixel_step))])
                w_data = builder.gep(w, [builder.add(w_at, c)])
                start = _load(builder, builder.gep(bias, [builder.add(channel, c)]), lanes)
                for slot in slots:
                    builder.store(start, slot)
                with for_range(builder, taps_y) as rows, for_range(builder, taps_x) as columns:
                    w_row = builder.gep(w_data, [builder.mul(rows.index, w_row_step)])
                    weight = _load(builder, builder.gep(w_row, [builder.mul(columns.index, w_column_step)]), lanes)
                    row = builder.gep(group, [builder.mul(rows.index, row_step)])
                    tap = builder.gep(row, [builder.mul(columns.index, column_step)])
                    for p, slot in enumerate(slots):
                        value = _load(builder, builder.gep(tap, [builder.mul(pixel_step, INT(p))]), lanes)
                        builder.store(_fma(builder, value, weight, builder.load(slot), lanes), slot)
                apply_activation(builder, activation, [(slot, lanes) for slot in slots])
                target = builder.gep(out, [builder.add(builder.add(out_at, c), builder.mul(first, out_step))])
                for slot in slots:
                    _store(builder, builder.load(slot), target, lanes)
                    target = builder.gep(target, [out_step])

        integer = types.int64
        return types.void(
            x, integer, integer, integer, integer, w, integer, integer, integer,
            integer, integer, bias, integer, integer, out, integer, integer, integer, integer,
        ), codegen  # fmt: skip

    return tile


def depthwise_image_tile(rows: int, pixels: int, lanes: int, taps: int, stride: int) -> Any:
    """An intrinsic that filters `rows` rows of outputs by windows of taps x taps, some of which cross the border.

    tile(x, x_at, top, bottom, in_w, w, bias, activation, out, out_at, out_step, channels, pad, count, stop): for
    each output of row r < count (at most `rows`), column p < stop and channel j < channels,
    out[out_at + r * out_step + p * channels + j] is the activation (of VECTOR_ACTIVATIONS; others are left to the
    caller) of the fma chain over ky < taps, kx < taps of x[x_at + ((r * stride + ky) * in_w + i) * channels + j] *
    w[(ky * taps + kx) * channels + j], from bias[j], where i = p * stride - pad + kx, and for those terms only whose
    row r * stride + ky is in top ... bottom - 1 and whose i is in 0 ... in_w - 1. At least `lanes` channels: the last
    vector of them begins earlier than it would, and computes some once more. Arrays are flat; nothing is checked.

    rows x pixels outputs go together, and a value that several of them read is loaded once. At a border, rows and
    columns outside are left out one by one: a test each, where an output by itself would cost a call.
    """
    high, wide = (rows - 1) * stride + taps, (pixels - 1) * stride + taps  # what the windows of a group read
    places = [(r, p) for r in range(rows) for p in range(pixels)]

    @intrinsic
    def tile(typingctx, x, x_at, top, bottom, in_w, w, bias, activation, out, out_at, out_step, channels, pad, count,
             stop):  # fmt: skip
        def codegen(context, builder, signature, args):
            name = f"depthwise_image_{rows}_{pixels}_{lanes}_{taps}_{stride}"
            outlined(builder, name, pointers_of(context, builder, signature, args), body)
            return context.get_dummy_value()

        def body(builder, args):
            (x, x_at, top, bottom, in_w, w, bias, activation, out, out_at, out_step, channels, pad, count,
             stop) = args  # fmt: skip
            slots = {place: _variable(builder, lanes) for place in places}
            last, row_step = builder.sub(channels, INT(lanes)), builder.mul(in_w, channels)

            def less(a, b):
                return builder.icmp_signed("<", a, b)

            def between(low, value, end):
                return builder.and_(builder.icmp_signed("<=", low, value), less(value, end))

            def unless(whole, condition):
                """What follows happens if the condition is true; it is where all is whole."""
                return contextlib.nullcontext() if whole else builder.if_then(condition())

            def add_row(row, w_data, r, left, whole):
                used = {
                    y: r - y * stride for y in range(rows) if 0 <= r - y * stride < taps
                }  # output row -> filter row
                weights = {
                    (y, k): _load(builder, builder.gep(w_data, [builder.mul(channels, INT(ky * taps + k))]), lanes)
                    for y, ky in used.items()
                    for k in range(taps)
                }
                for i in range(wide):
                    with unless(whole, lambda i=i: between(INT(0), builder.add(left, INT(i)), in_w)):
                        value = _load(builder, row, lanes)
                        for y, p in places:
                            if y in used and 0 <= i - p * stride < taps:
                                slot, weight = slots[y, p], weights[y, i - p * stride]
                                builder.store(_fma(builder, value, weight, builder.load(slot), lanes), slot)
                    row = builder.gep(row, [channels])

            def add_rows(data, w_data, left, whole):
                for r in range(high):
                    with unless(whole, lambda r=r: between(top, INT(r), bottom)):
                        add_row(data, w_data, r, left, whole)
                    data = builder.gep(data, [row_step])

            with (
                for_range_slice(builder, INT(0), stop, INT(pixels)) as (p, _),
                for_range_slice(builder, INT(0), channels, INT(lanes)) as (block, _),
            ):
                c = builder.select(less(block, last), block, last)
                left = builder.sub(builder.mul(p, INT(stride)), pad)
                data = builder.gep(x, [builder.add(builder.add(x_at, c), builder.mul(left, channels))])
                w_data = builder.gep(w, [c])
                start = _load(builder, builder.gep(bias, [c]), lanes)
                for slot in slots.values():
                    builder.store(start, slot)
                conditions = [
                    builder.icmp_signed("<=", INT(0), left), less(builder.add(left, INT(wide - 1)), in_w),
                    builder.icmp_signed("<=", top, INT(0)), less(INT(high - 1), bottom),
                    less(builder.add(p, INT(pixels - 1)), stop), less(INT(rows - 1), count),
                ]  # fmt: skip
                inside = functools.reduce(builder.and_, conditions)
                with builder.if_else(inside) as ways:
                    for way, whole in zip(ways, (True, False), strict=True):
                        with way:
                            add_rows(data, w_data, left, whole)
                apply_activation(builder, activation, [(slot, lanes) for slot in slots.values()])
                target = builder.gep(out, [builder.add(builder.add(out_at, c), builder.mul(p, channels))])

                def there(r, k):
                    return builder.and_(less(INT(r), count), less(builder.add(p, INT(k)), stop))

                with builder.if_else(inside) as ways:
                    for way, whole in zip(ways, (True, False), strict=True):
                        with way:
                            for (r, k), slot in slots.items():
                                with unless(whole, lambda r=r, k=k: there(r, k)):
                                    at = builder.add(builder.mul(out_step, INT(r)), builder.mul(channels, INT(k)))
                                    _store(builder, builder.load(slot), builder.gep(target, [at]), lanes)

        integer = types.int64
        return types.void(
            x, integer, integer, integer, integer, w, bias, integer, out, integer, integer, integer, integer, integer,
            integer,
        ), codegen  # fmt: skip

    return tile
