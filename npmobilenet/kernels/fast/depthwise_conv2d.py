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

wide_tile = depthwise_tile(PIXELS, LANE)
wide_single = depthwise_tile(1, LANE)
wide_3x3 = depthwise_tile(PIXELS, LANE, (3, 3))  # without loops over the taps
narrow_tile = depthwise_tile(PIXELS, 4)
narrow_single = depthwise_tile(1, 4)


@register_jitable
def finished(value, activation):
    """The activation of one value, unless it is one that whole rows get at the end."""
    return value if activation in LEFT_OUT else activate(value, activation)


@register_jitable
def filter_pixels(x, x_at, steps, w, w_at, taps, bias, channels, activation, out, out_at, pixels):
    """All channels of `pixels` (PIXELS or 1) neighbouring outputs: LANE at a time, then 4, then one by one.

    steps: (pixel, row, column) in x, then (row, column) in w. taps: (rows, columns).
    """
    c = 0
    while c + LANE <= channels:
        if pixels == PIXELS and taps[0] == 3 and taps[1] == 3:
            wide_3x3(x, x_at + c, steps[0], steps[1], steps[2], w, w_at + c, steps[3], steps[4],
                     taps[0], taps[1], bias, c, activation, out, out_at + c, channels)  # fmt: skip
        elif pixels == PIXELS:
            wide_tile(x, x_at + c, steps[0], steps[1], steps[2], w, w_at + c, steps[3], steps[4],
                      taps[0], taps[1], bias, c, activation, out, out_at + c, channels)  # fmt: skip
        else:
            wide_single(x, x_at + c, steps[0], steps[1], steps[2], w, w_at + c, steps[3], steps[4],
                        taps[0], taps[1], bias, c, activation, out, out_at + c, channels)  # fmt: skip
        c += LANE
    while c + 4 <= channels:
        if pixels == PIXELS:
            narrow_tile(x, x_at + c, steps[0], steps[1], steps[2], w, w_at + c, steps[3], steps[4],
                        taps[0], taps[1], bias, c, activation, out, out_at + c, channels)  # fmt: skip
        else:
            narrow_single(x, x_at + c, steps[0], steps[1], steps[2], w, w_at + c, steps[3], steps[4],
                          taps[0], taps[1], bias, c, activation, out, out_at + c, channels)  # fmt: skip
        c += 4
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
    flat_x, flat_w, flat_out = x.reshape(-1), weights.reshape(-1), out.reshape(-1)
    steps = (stride[1] * in_c, dilation[0] * in_w * in_c, dilation[1] * in_c, kernel_w * channels, channels)
    for row in range(start, stop):
        n, oy = row // out_h, row % out_h
        iy = oy * stride[0] - pad[0]
        ky_first, ky_last = valid_taps(iy, kernel_h, dilation[0], in_h)
        line = (n * in_h + iy + ky_first * dilation[0]) * in_w
        ox = 0
        while ox < out_w:
            ix = ox * stride[1] - pad[1]
            kx_first, kx_last = valid_taps(ix, kernel_w, dilation[1], in_w)
            x_at = (line + ix + kx_first * dilation[1]) * in_c
            w_at = (ky_first * kernel_w + kx_first) * channels
            taps = (max(ky_last - ky_first, 0), max(kx_last - kx_first, 0))
            pixels = 1
            if channels != in_c:
                filter_multiplied(flat_x, x_at, steps, flat_w, w_at, taps, bias, in_c, channels, activation,
                                  flat_out, (row * out_w + ox) * channels)  # fmt: skip
            else:
                end = ix + (PIXELS - 1) * stride[1] + (kernel_w - 1) * dilation[1]
                if ix >= 0 and end < in_w and ox + PIXELS <= out_w:
                    pixels = PIXELS
                filter_pixels(flat_x, x_at, steps, flat_w, w_at, taps, bias, channels, activation,
                              flat_out, (row * out_w + ox) * channels, pixels)  # fmt: skip
            ox += pixels
        if activation in LEFT_OUT:
            activate_all(flat_out, row * out_w * channels, out_w * channels, activation)
