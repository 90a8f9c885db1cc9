"""Fast twin of reference/depthwise_conv2d.py: same fma chain for each output, other loops."""

from __future__ import annotations

from numba.extending import register_jitable

from npmobilenet.kernels.fast.activation import activate_all
from npmobilenet.kernels.fast.conv2d import valid_taps
from npmobilenet.kernels.fast.task import Work, task
from npmobilenet.kernels.fast.tiles import LANE, LEFT_OUT
from npmobilenet.kernels.fast.vector import depthwise_tile
from npmobilenet.kernels.reference.activation import activate
from npmobilenet.kernels.reference.arithmetic import fma32

PIXELS = 4  # neighbouring outputs in a tile: they share each weight load
RUN = 16384  # input values that a run of outputs reads, roughly: at 4096 and 65536 V2 1.0_224 takes 5 to 20 % longer

wide_tile = depthwise_tile(PIXELS, LANE)
wide_single = depthwise_tile(1, LANE)
# Of the windows that models have: taps in a row, stride.
wide_3_1 = depthwise_tile(PIXELS, LANE, (3, 1))
wide_3_2 = depthwise_tile(PIXELS, LANE, (3, 2))
wide_5_1 = depthwise_tile(PIXELS, LANE, (5, 1))
wide_5_2 = depthwise_tile(PIXELS, LANE, (5, 2))
narrow_single = depthwise_tile(1, 4)


@register_jitable
def finished(value, activation):
    """The activation of one value, unless it is one that whole rows get at the end."""
    return value if activation in LEFT_OUT else activate(value, activation)


@register_jitable
def filter_run(x, x_at, steps, w, w_at, taps, bias, channels, activation, out, out_at, pixels):
    """All channels of `pixels` neighbouring outputs with the same taps: PIXELS by LANE at a time, then what is left.

    steps: (pixel, row, column) in x, then (row, column) in w. taps: (rows, columns).
    """
    wide, groups = channels // LANE, pixels // PIXELS
    done = groups * PIXELS
    rest_at, rest_out = x_at + done * steps[0], out_at + done * channels
    if wide > 0:
        if groups > 0:
            if taps[1] == 3 and steps[0] == steps[2]:
                wide_3_1(x, x_at, steps[0], steps[1], steps[2], w, w_at, steps[3], steps[4], taps[0], taps[1],
                         bias, 0, activation, out, out_at, channels, groups, wide)  # fmt: skip
            elif taps[1] == 3 and steps[0] == 2 * steps[2]:
                wide_3_2(x, x_at, steps[0], steps[1], steps[2], w, w_at, steps[3], steps[4], taps[0], taps[1],
                         bias, 0, activation, out, out_at, channels, groups, wide)  # fmt: skip
            elif taps[1] == 5 and steps[0] == steps[2]:
                wide_5_1(x, x_at, steps[0], steps[1], steps[2], w, w_at, steps[3], steps[4], taps[0], taps[1],
                         bias, 0, activation, out, out_at, channels, groups, wide)  # fmt: skip
            elif taps[1] == 5 and steps[0] == 2 * steps[2]:
                wide_5_2(x, x_at, steps[0], steps[1], steps[2], w, w_at, steps[3], steps[4], taps[0], taps[1],
                         bias, 0, activation, out, out_at, channels, groups, wide)  # fmt: skip
            else:
                wide_tile(x, x_at, steps[0], steps[1], steps[2], w, w_at, steps[3], steps[4], taps[0], taps[1],
                          bias, 0, activation, out, out_at, channels, groups, wide)  # fmt: skip
        if done < pixels:
            wide_single(x, rest_at, steps[0], steps[1], steps[2], w, w_at, steps[3], steps[4], taps[0], taps[1],
                        bias, 0, activation, out, rest_out, channels, pixels - done, wide)  # fmt: skip
    c = wide * LANE
    narrow = (channels - c) // 4
    if narrow > 0:
        narrow_single(x, x_at + c, steps[0], steps[1], steps[2], w, w_at + c, steps[3], steps[4], taps[0], taps[1],
                      bias, c, activation, out, out_at + c, channels, pixels, narrow)  # fmt: skip
    c += 4 * narrow
    for c in range(c, channels):  # noqa: B020
        for p in range(pixels):
            acc = bias[c]
            for ky in range(taps[0]):
                for kx in range(taps[1]):
                    at = x_at + p * steps[0] + ky * steps[1] + kx * steps[2] + c
                    acc = fma32(x[at], w[w_at + ky * steps[3] + kx * steps[4] + c], acc)
            out[out_at + p * channels + c] = finished(acc, activation)


@register_jitable
def filter_multiplied(x, x_at, steps, w, w_at, taps, bias, in_c, channels, activation, out, out_at):
    """One output pixel where each input channel has channels / in_c filters (some models' first layer)."""
    multiplier = channels // in_c
    for c in range(channels):
        acc = bias[c]
        for ky in range(taps[0]):
            for kx in range(taps[1]):
                at = x_at + ky * steps[1] + kx * steps[2] + c // multiplier
                acc = fma32(x[at], w[w_at + ky * steps[3] + kx * steps[4] + c], acc)
        out[out_at + c] = finished(acc, activation)


@register_jitable
def whole_windows(taps, stride, pad, dilation, size, out_size):
    """The range of outputs none of whose taps lies outside the row; empty ranges are (first, first)."""
    first = (pad + stride - 1) // stride
    end = min((size - 1 - (taps - 1) * dilation + pad) // stride + 1, out_size)
    return first, max(end, first)


@register_jitable
def filter_row(x, line, steps, in_w, in_c, weights, bias, stride, pad, dilation, ky, activation, out, at, out_w):
    """One row of the output, from out[at] on; ky: its first filter row inside the image and the one after the last.

    line: the index in x, in pixels, of the input row that filter row ky[0] reads. steps: see filter_run.
    """
    kernel_w, channels = weights.shape[1], weights.shape[2]
    flat_w = weights.reshape(-1)
    inner, inner_end = whole_windows(kernel_w, stride[1], pad[1], dilation[1], in_w, out_w)
    run = max(RUN // (channels * (ky[1] - ky[0] + 1)) // PIXELS, 1) * PIXELS
    ox = 0
    while ox < out_w:
        ix = ox * stride[1] - pad[1]
        kx_first, kx_last = valid_taps(ix, kernel_w, dilation[1], in_w)
        x_at = (line + ix + kx_first * dilation[1]) * in_c
        w_at = (ky[0] * kernel_w + kx_first) * channels
        taps = (max(ky[1] - ky[0], 0), max(kx_last - kx_first, 0))
        pixels = 1
        if channels != in_c:
            filter_multiplied(x, x_at, steps, flat_w, w_at, taps, bias, in_c, channels, activation,
                              out, at + ox * channels)  # fmt: skip
        else:
            if ox >= inner and ox < inner_end:
                pixels = min(inner_end - ox, run)
            filter_run(x, x_at, steps, flat_w, w_at, taps, bias, channels, activation,
                       out, at + ox * channels, pixels)  # fmt: skip
        ox += pixels
    if activation in LEFT_OUT:
        activate_all(out, at, out_w * channels, activation)


def output_rows(x, weights, bias, stride, pad, dilation, activation, out):
    """Units are output rows."""
    return Work(out.shape[0] * out.shape[1], 2 * out.shape[2] * weights.size)


@task(output_rows)
def depthwise_conv2d_f32(start, stop, x, weights, bias, stride, pad, dilation, activation, out):
    """As the book's. Moves: vectorized over channels; PIXELS outputs at a time where no tap is cut off; the
    common activations in the registers. Threads take output rows.
    """
    _, in_h, in_w, in_c = x.shape
    kernel_h, kernel_w, channels = weights.shape
    out_h, out_w = out.shape[1], out.shape[2]
    flat_x, flat_out = x.reshape(-1), out.reshape(-1)
    steps = (stride[1] * in_c, dilation[0] * in_w * in_c, dilation[1] * in_c, kernel_w * channels, channels)
    for row in range(start, stop):
        n, oy = row // out_h, row % out_h
        iy = oy * stride[0] - pad[0]
        ky = valid_taps(iy, kernel_h, dilation[0], in_h)
        line = (n * in_h + iy + ky[0] * dilation[0]) * in_w
        filter_row(flat_x, line, steps, in_w, in_c, weights, bias, stride, pad, dilation, ky, activation,
                   flat_out, row * out_w * channels, out_w)  # fmt: skip
