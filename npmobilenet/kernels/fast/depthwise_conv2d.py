"""Fast twin of reference/depthwise_conv2d.py: same fma chain for each output, other loops."""

from __future__ import annotations

from typing import Any

from numba.extending import register_jitable

from npmobilenet.kernels.compiler.program import Work
from npmobilenet.kernels.compiler.task import Task, TaskFamily
from npmobilenet.kernels.fast.activation import activate_all
from npmobilenet.kernels.fast.conv2d import valid_taps, whole_windows
from npmobilenet.kernels.fast.gemm_f32 import LANE, LEFT_OUT
from npmobilenet.kernels.reference.activation import activate
from npmobilenet.kernels.reference.arithmetic import fma32
from npmobilenet.kernels.vectorcode.depthwise import depthwise_image_tile, depthwise_tile

PIXELS = 4  # neighbouring outputs in a tile: they share each weight load
HIGH, ACROSS = 2, 7  # rows and columns of outputs in a tile: they share most of what they read

wide_tile = depthwise_tile(PIXELS, LANE)
wide_single = depthwise_tile(1, LANE)
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
def filter_row(x, line, steps, in_w, in_c, weights, bias, stride, pad, dilation, ky, activation, out, at, out_w):
    """One row of the output, from out[at] on; ky: its first filter row inside the image and the one after the last.

    line: the index in x, in pixels, of the input row that filter row ky[0] reads. steps: see filter_run.
    """
    kernel_w, channels = weights.shape[1], weights.shape[2]
    flat_w = weights.reshape(-1)
    inner, inner_end = whole_windows(kernel_w, stride[1], pad[1], dilation[1], in_w, out_w)
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
                pixels = inner_end - ox
            filter_run(x, x_at, steps, flat_w, w_at, taps, bias, channels, activation,
                       out, at + ox * channels, pixels)  # fmt: skip
        ox += pixels


@register_jitable
def filter_any(x, origin, in_size, in_c, weights, bias, stride, pad, dilation, activation, out, at, out_w, row, stop):
    """Output rows row ... stop - 1 of an image, from out[at] on, for windows of any form.

    origin: the index in x, in pixels, of the image's first row, also where only those rows are there that are read.
    """
    in_h, in_w = in_size
    kernel_h, kernel_w, channels = weights.shape
    steps = (stride[1] * in_c, dilation[0] * in_w * in_c, dilation[1] * in_c, kernel_w * channels, channels)
    for oy in range(row, stop):
        iy = oy * stride[0] - pad[0]
        ky = valid_taps(iy, kernel_h, dilation[0], in_h)
        filter_row(x, origin + (iy + ky[0] * dilation[0]) * in_w, steps, in_w, in_c, weights, bias, stride, pad,
                   dilation, ky, activation, out, at + (oy - row) * out_w * channels, out_w)  # fmt: skip
    if activation in LEFT_OUT:
        activate_all(out, at, (stop - row) * out_w * channels, activation)


def filter_of(taps: int) -> Any:
    """As filter_any, for windows of taps x taps of neighbours, with stride 1 or 2, and LANE channels or more."""
    step_1, step_2 = (depthwise_image_tile(HIGH, ACROSS, LANE, taps, stride) for stride in (1, 2))

    @register_jitable
    def filter_image(
        x, origin, in_size, in_c, weights, bias, stride, pad, dilation, activation, out, at, out_w, row, stop
    ):
        in_h, in_w = in_size
        channels, w = weights.shape[2], weights.reshape(-1)
        line = out_w * channels
        last = min(in_h, (stop - 1) * stride[0] - pad[0] + taps)  # rows after it may not be there
        for oy in range(row, stop, HIGH):
            iy = oy * stride[0] - pad[0]
            x_at, out_at, count = (origin + iy * in_w) * in_c, at + (oy - row) * line, min(HIGH, stop - oy)
            if stride[0] == 1:
                step_1(x, x_at, -iy, last - iy, in_w, w, bias, activation, out, out_at, line, channels, pad[1], count,
                       out_w)  # fmt: skip
            else:
                step_2(x, x_at, -iy, last - iy, in_w, w, bias, activation, out, out_at, line, channels, pad[1], count,
                       out_w)  # fmt: skip
        if activation in LEFT_OUT:
            activate_all(out, at, (stop - row) * line, activation)

    return filter_image


# By the window's width, as the models have them; ANY: all others.
ANY = 0
FILTERS = {3: filter_of(3), 5: filter_of(5), ANY: filter_any}


def form_of(in_c: int, filters: tuple[int, ...], stride: tuple[int, int], dilation: tuple[int, int]) -> int:
    """Which of FILTERS there is for (kh, kw, channels) filters: one kernel each, as compiling a tile takes seconds."""
    taps, across, channels = filters
    square = taps == across and stride in ((1, 1), (2, 2)) and dilation == (1, 1)
    return taps if square and taps in FILTERS and in_c == channels >= LANE else ANY


def row_pairs(x, weights, bias, stride, pad, dilation, activation, out):
    """Units are HIGH output rows, or what is left of them at an image's end."""
    pairs = -(-out.shape[1] // HIGH)
    return Work(out.shape[0] * pairs, 2 * HIGH * out.shape[2] * weights.size)


def _depthwise(form: int) -> Task:
    filter_image = FILTERS[form]

    def kernel(start, stop, x, weights, bias, stride, pad, dilation, activation, out):
        _, in_h, in_w, in_c = x.shape
        out_h, out_w, channels = out.shape[1], out.shape[2], out.shape[3]
        flat_x, flat_out = x.reshape(-1), out.reshape(-1)
        pairs = (out_h + HIGH - 1) // HIGH
        unit = start
        while unit < stop:
            n, pair = unit // pairs, unit % pairs
            count = min(pairs - pair, stop - unit)
            row, end = pair * HIGH, min((pair + count) * HIGH, out_h)
            filter_image(flat_x, n * in_h * in_w, (in_h, in_w), in_c, weights, bias, stride, pad, dilation, activation,
                         flat_out, (n * out_h + row) * out_w * channels, out_w, row, end)  # fmt: skip
            unit += count

    kernel.__name__ = f"depthwise_conv2d_f32_{form}"
    return Task(kernel, row_pairs)


_FORMS = {form: _depthwise(form) for form in FILTERS}


def choose(x, weights, bias, stride, pad, dilation, activation, out):
    """As the reference. Moves: vectorized over channels; two rows of outputs at a time, 7 columns of them, across the
    borders, or for less common windows PIXELS outputs where no tap is cut off; the common activations in the registers.
    Threads take pairs of output rows.
    """
    return _FORMS[form_of(x.shape[3], weights.shape, stride, dilation)]


depthwise_conv2d_f32 = TaskFamily("depthwise_conv2d_f32", choose)
