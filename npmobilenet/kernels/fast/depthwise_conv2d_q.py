"""Fast twin of reference/depthwise_conv2d_q.py: the same sums, two taps and many channels at a time."""

from __future__ import annotations

import numpy as np
from numba.extending import register_jitable

from npmobilenet.kernels.fast.conv2d import valid_taps
from npmobilenet.kernels.fast.dot_q import address_of, depthwise_q_tile
from npmobilenet.kernels.fast.task import Work, task
from npmobilenet.kernels.fast.tiles_q import KIND, LANE, requantize_block

RUN = 4096  # accumulators that are requantized together, 16 KiB: they stay in the first-level cache
PIXELS = 4  # neighbouring outputs in a tile: they share each weight load
WIDE, NARROW = 2 * LANE, 8  # channels that a tile takes; those that neither fills go one by one

wide_tile = depthwise_q_tile(PIXELS, LANE, KIND)
wide_single = depthwise_q_tile(1, LANE, KIND)
narrow_tile = depthwise_q_tile(PIXELS, NARROW // 2, KIND)
narrow_single = depthwise_q_tile(1, NARROW // 2, KIND)


def pack_depthwise_conv2d_q(weights, bias, zeros):
    """(kh, kw, Cout) -> one int16 array, and a bias with the input's zero point taken off.

    The weights lose their zero point, which leaves -255 ... 255. Blocks of WIDE channels come first, then of NARROW,
    then (taps, channels) of the rest. As sum (x - z_in) w = sum x w - z_in sum w, the last term goes into the bias; a
    tap outside the image then has to read z_in.
    """
    channels = weights.shape[2]
    taps = weights.reshape(-1, channels).astype(np.int64) - zeros[1]
    start = bias - zeros[0] * taps.sum(0)
    parts, first = [], 0
    for width in (WIDE, NARROW):
        while first + width <= channels:
            parts.append(pack_pairs(taps[:, first : first + width]))
            first += width
    parts.append(taps[:, first:].reshape(-1))
    return np.concatenate(parts).astype(np.int16), start.astype(np.int32)


def pack_pairs(block):
    """(taps, width) -> pairs of taps side by side in the order in which the tile interleaves their channels."""
    taps, width = block.shape
    even = np.concatenate([block, np.zeros((taps % 2, width), block.dtype)])
    pairs = even.reshape(-1, 2, width).transpose(0, 2, 1)  # (pair, channel, tap)
    low = [c for c in range(width) if c % 8 < 4]
    high = [c for c in range(width) if c % 8 >= 4]
    return np.concatenate([pairs[:, low].reshape(len(pairs), -1), pairs[:, high].reshape(len(pairs), -1)], 1).reshape(
        -1
    )


@register_jitable
def repeat_channels(x, multiplier):
    """Each channel `multiplier` times, side by side: some models' first layer has several filters for each channel."""
    batch, height, width, channels = x.shape
    repeated = np.empty((batch, height, width, channels * multiplier), x.dtype)
    for n in range(batch):
        for y in range(height):
            for i in range(width):
                for c in range(channels * multiplier):
                    repeated[n, y, i, c] = x[n, y, i, c // multiplier]
    return repeated


@register_jitable
def filter_one(x, x_at, steps, w, w_at, w_step, taps, valid, z_in, start, source):
    """The accumulator of one channel of one pixel, from input channel `source`; valid: (ky, ky end, kx, kx end)."""
    acc = start
    for ky in range(taps[0]):
        for kx in range(taps[1]):
            value = np.int32(z_in)
            if ky >= valid[0] and ky < valid[1] and kx >= valid[2] and kx < valid[3]:
                value = np.int32(x[x_at + ky * steps[1] + kx * steps[2] + source])
            acc += np.int32(value * np.int32(w[w_at + (ky * taps[1] + kx) * w_step]))
    return acc


@register_jitable
def point_at_taps(addresses, base, x_at, steps, taps, valid, blank):
    """The address of each tap's channels, that of `blank` for taps outside the image and to fill up the last pair."""
    count = taps[0] * taps[1]
    addresses[count] = blank
    for ky in range(taps[0]):
        for kx in range(taps[1]):
            inside = ky >= valid[0] and ky < valid[1] and kx >= valid[2] and kx < valid[3]
            at = base + x_at + ky * steps[1] + kx * steps[2]
            addresses[ky * taps[1] + kx] = at if inside else blank


@register_jitable
def filter_pixels(x, addresses, offset, pixel_step, pairs, w, bias, channels, acc, acc_at, acc_step, pixels):
    """All channels of `pixels` (PIXELS or 1) neighbouring outputs, WIDE and then NARROW at a time.

    The taps lie `offset` after their addresses, the accumulators at acc_at.
    """
    c, w_at = 0, 0
    while c + WIDE <= channels:
        if pixels == PIXELS:
            wide_tile(x, addresses, offset + c, pixel_step, pairs, w, w_at, bias, c, acc, acc_at + c, acc_step)
        else:
            wide_single(x, addresses, offset + c, pixel_step, pairs, w, w_at, bias, c, acc, acc_at + c, acc_step)
        c, w_at = c + WIDE, w_at + pairs * 2 * WIDE
    while c + NARROW <= channels:
        if pixels == PIXELS:
            narrow_tile(x, addresses, offset + c, pixel_step, pairs, w, w_at, bias, c, acc, acc_at + c, acc_step)
        else:
            narrow_single(x, addresses, offset + c, pixel_step, pairs, w, w_at, bias, c, acc, acc_at + c, acc_step)
        c, w_at = c + NARROW, w_at + pairs * 2 * NARROW


def output_rows(x, weights, bias, zeros, taps, stride, pad, dilation, step, out):
    """Units are output rows."""
    return Work(out.shape[0] * out.shape[1], 2 * out.shape[2] * weights.size)


@task(output_rows)
def depthwise_conv2d_q(start, stop, x, weights, bias, zeros, taps, stride, pad, dilation, step, out):
    """As the book's. Moves: vectorized over channels; two taps in each multiply-add; PIXELS outputs at a time where no
    tap is cut off; taps outside the image read a row of zero points; accumulators requantized, RUN at a
    time, while they are in the first-level cache. Threads take output rows.
    """
    out_h, out_w, channels = out.shape[1], out.shape[2], out.shape[3]
    if channels != x.shape[3]:
        x = repeat_channels(x, channels // x.shape[3])
    _, in_h, in_w, in_c = x.shape
    flat_x, flat_out = x.reshape(-1), out.reshape(-1)
    base = address_of(flat_x)
    steps = (stride[1] * in_c, dilation[0] * in_w * in_c, dilation[1] * in_c)
    acc_step, pairs = -(-channels // LANE) * LANE, (taps[0] * taps[1] + 1) // 2
    blank = np.empty(out_w * steps[0] + channels, x.dtype)  # whole rows, as the taps move on with the outputs
    for c in range(blank.size):
        blank[c] = zeros[0]
    rest = channels // WIDE * WIDE
    rest += (channels - rest) // NARROW * NARROW
    run = min(max(RUN // acc_step, PIXELS), out_w)  # outputs that are requantized together
    for row in range(start, stop):
        acc, tail = np.zeros(run * acc_step, np.int32), np.empty(run * LANE, out.dtype)
        addresses = np.empty(taps[0] * taps[1] + 1, np.int64)
        n, oy = row // out_h, row % out_h
        iy = oy * stride[0] - pad[0]
        ky_first, ky_last = valid_taps(iy, taps[0], dilation[0], in_h)
        origin, first, ox = -1, 0, 0  # the output whose taps the addresses are; the first of the run; the next
        while ox < out_w:
            ix = ox * stride[1] - pad[1]
            kx_first, kx_last = valid_taps(ix, taps[1], dilation[1], in_w)
            valid = (ky_first, ky_last, kx_first, kx_last)
            x_at = ((n * in_h + iy) * in_w + ix) * in_c
            inner = ix >= 0 and ix + (taps[1] - 1) * dilation[1] < in_w
            end = ix + (PIXELS - 1) * stride[1] + (taps[1] - 1) * dilation[1]
            pixels = PIXELS if inner and end < in_w and ox + PIXELS <= min(out_w, first + run) else 1
            if not inner or origin < 0:
                point_at_taps(addresses, base, x_at, steps, taps, valid, address_of(blank))
                origin = ox
            at = (ox - first) * acc_step
            filter_pixels(
                flat_x,
                addresses,
                (ox - origin) * steps[0],
                steps[0],
                pairs,
                weights,
                bias,
                rest,
                acc,
                at,
                acc_step,
                pixels,
            )
            for c in range(rest, channels):
                w_at = pairs * 2 * rest + c - rest
                for p in range(pixels):
                    acc[at + p * acc_step + c] = filter_one(
                        flat_x, x_at + p * steps[0], steps, weights, w_at, channels - rest, taps, valid, zeros[0],
                        bias[c], c
                    )  # fmt: skip
            if not inner:
                origin = -1
            ox += pixels
            if ox == out_w or ox == first + run:
                out_at = (row * out_w + first) * channels
                requantize_block(acc, acc_step, ox - first, channels, 0, step, flat_out, out_at, channels, tail)
                first = ox
