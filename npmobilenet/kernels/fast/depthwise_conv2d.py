"""Fast twin of reference/depthwise_conv2d.py: same fma chain for each output, other loops."""

from __future__ import annotations

from typing import Any, NamedTuple

from npmobilenet.kernels.compiler.deferred import register_jitable
from npmobilenet.kernels.compiler.spans import by_groups, under_windows
from npmobilenet.kernels.compiler.task import Task, TaskFamily
from npmobilenet.kernels.compiler.work_sharing import Work
from npmobilenet.kernels.fast.activation import activate_all
from npmobilenet.kernels.fast.conv2d import valid_taps, whole_windows
from npmobilenet.kernels.fast.gemm_f32 import HALF, LANE, LEFT_OUT
from npmobilenet.kernels.reference.activation import activate
from npmobilenet.kernels.reference.arithmetic import fma32
from npmobilenet.kernels.vectorcode.depthwise_f32 import (
    Framed,
    Pixels,
    Taps,
    depthwise_f32_image_kernel,
    depthwise_f32_kernel,
)
from npmobilenet.kernels.vectorcode.generated import Cells, flat_view, one_of

PIXELS = 4  # neighbouring outputs in a tile: they share each weight load
HIGH, ACROSS = 2, 7  # rows and columns of outputs in a tile: they share most of what they read

wide_run = depthwise_f32_kernel(PIXELS, LANE)
wide_single = depthwise_f32_kernel(1, LANE)
narrow_single = depthwise_f32_kernel(1, 4)


class Image(NamedTuple):
    """An image of (height, width, channels) in a flat array.

    origin: the index, in pixels, of its first row, also where only those rows are there that are read.
    """

    data: Any
    origin: Any
    height: Any
    width: Any
    channels: Any


class Filters(NamedTuple):
    """(kh, kw, channels) weights, biases, and the activation's number."""

    weights: Any
    bias: Any
    activation: Any


class Window(NamedTuple):
    """Pairs for rows and columns."""

    stride: Any
    pad: Any
    dilation: Any


@register_jitable
def finished(value, activation):
    """The activation of one value, unless it is one that whole rows get at the end."""
    return value if activation in LEFT_OUT else activate(value, activation)


@register_jitable
def filter_run(x, w, activation, out, pixels):
    """All channels of `pixels` neighbouring outputs with the same taps: PIXELS by LANE at a time, then what is left.

    x: Pixels; w: Taps; out: Cells, whose step is the number of channels.
    """
    channels = out.step
    wide, groups = channels // LANE, pixels // PIXELS
    done = groups * PIXELS
    if wide > 0:
        if groups > 0:
            wide_run(x, w, activation, out, groups, wide)
        if done < pixels:
            rest = Pixels(x.data, x.at + done * x.pixel_step, x.pixel_step, x.row_step, x.column_step)
            to = Cells(out.data, out.at + done * channels, channels)
            wide_single(rest, w, activation, to, pixels - done, wide)
    c = wide * LANE
    narrow = (channels - c) // 4
    if narrow > 0:
        rest = Pixels(x.data, x.at + c, x.pixel_step, x.row_step, x.column_step)
        rest_w = Taps(w.weights, w.at + c, w.row_step, w.column_step, w.rows, w.columns, w.bias, c)
        narrow_single(rest, rest_w, activation, Cells(out.data, out.at + c, channels), pixels, narrow)
    c += 4 * narrow
    for c in range(c, channels):  # noqa: B020
        for p in range(pixels):
            acc = w.bias[c]
            for ky in range(w.rows):
                for kx in range(w.columns):
                    at = x.at + p * x.pixel_step + ky * x.row_step + kx * x.column_step + c
                    acc = fma32(x.data[at], w.weights[w.at + ky * w.row_step + kx * w.column_step + c], acc)
            out.data[out.at + p * channels + c] = finished(acc, activation)


@register_jitable
def filter_multiplied(x, w, in_c, activation, out):
    """One output pixel where each input channel has out.step / in_c filters (some models' first layer)."""
    channels = out.step
    multiplier = channels // in_c
    for c in range(channels):
        acc = w.bias[c]
        for ky in range(w.rows):
            for kx in range(w.columns):
                at = x.at + ky * x.row_step + kx * x.column_step + c // multiplier
                acc = fma32(x.data[at], w.weights[w.at + ky * w.row_step + kx * w.column_step + c], acc)
        out.data[out.at + c] = finished(acc, activation)


@register_jitable
def filter_row(x, line, flat_w, filters, window, ky, out, at):
    """One row of outputs, from out.data[at] on; ky: its first filter row inside the image, the one after the last.

    line: the index in x, in pixels, of the input row that filter row ky[0] reads. flat_w: the weights. out: Cells,
    whose step is the number of outputs.
    """
    kernel_w, channels = filters.weights.shape[1], filters.weights.shape[2]
    stride, pad, dilation = window.stride[1], window.pad[1], window.dilation[1]
    inner, inner_end = whole_windows(kernel_w, stride, pad, dilation, x.width, out.step)
    row_step = window.dilation[0] * x.width * x.channels
    ox = 0
    while ox < out.step:
        ix = ox * stride - pad
        first, last = valid_taps(ix, kernel_w, dilation, x.width)
        x_at, w_at = (line + ix + first * dilation) * x.channels, (ky[0] * kernel_w + first) * channels
        pixels = Pixels(x.data, x_at, stride * x.channels, row_step, dilation * x.channels)
        taps = Taps(flat_w, w_at, kernel_w * channels, channels, max(ky[1] - ky[0], 0), max(last - first, 0),
                    filters.bias, 0)  # fmt: skip
        to, count = Cells(out.data, at + ox * channels, channels), 1
        if channels != x.channels:
            filter_multiplied(pixels, taps, x.channels, filters.activation, to)
        else:
            if ox >= inner and ox < inner_end:
                count = inner_end - ox
            filter_run(pixels, taps, filters.activation, to, count)
        ox += count


@register_jitable
def filter_any(x, filters, window, out, row, stop):
    """Output rows row ... stop - 1 of an Image, for windows of any form. out: Cells, of which `step` make a row."""
    kernel_h, _, channels = filters.weights.shape
    flat_w, line = flat_view(filters.weights), out.step * channels
    for oy in range(row, stop):
        iy = oy * window.stride[0] - window.pad[0]
        ky = valid_taps(iy, kernel_h, window.dilation[0], x.height)
        first = x.origin + (iy + ky[0] * window.dilation[0]) * x.width
        filter_row(x, first, flat_w, filters, window, ky, out, out.at + (oy - row) * line)
    if filters.activation in LEFT_OUT:
        activate_all(out.data, out.at, (stop - row) * line, filters.activation)


def filter_of(taps: int, lanes: int = LANE) -> Any:
    """As filter_any, for windows of taps x taps of neighbours, with stride 1 or 2, and `lanes` channels or more."""
    by_stride = one_of({stride: depthwise_f32_image_kernel(HIGH, ACROSS, lanes, taps, stride) for stride in (1, 2)})

    @register_jitable
    def filter_image(x, filters, window, out, row, stop):
        channels, flat_w, stride, pad = x.channels, flat_view(filters.weights), window.stride[0], window.pad
        line = out.step * channels
        last = min(x.height, (stop - 1) * stride - pad[0] + taps)  # rows after it may not be there
        for oy in range(row, stop, HIGH):
            iy = oy * stride - pad[0]
            image = Framed(x.data, (x.origin + iy * x.width) * channels, -iy, last - iy, x.width, channels, pad[1])
            to, count = Cells(out.data, out.at + (oy - row) * line, line), min(HIGH, stop - oy)
            by_stride(stride, image, flat_w, filters.bias, filters.activation, to, count, out.step)
        if filters.activation in LEFT_OUT:
            activate_all(out.data, out.at, (stop - row) * line, filters.activation)

    return filter_image


# By the window's width, as the models have them; FEW: 3 columns, half a vector of channels or more, as V1 0.25 begins;
# ANY: all others.
ANY, FEW = 0, 1
FILTERS = {3: filter_of(3), 5: filter_of(5), FEW: filter_of(3, HALF), ANY: filter_any}


def form_of(in_c: int, filters: tuple[int, ...], stride: tuple[int, int], dilation: tuple[int, int]) -> int:
    """Which of FILTERS there is for (kh, kw, channels) filters: one kernel each, as compiling a tile takes seconds."""
    taps, across, channels = filters
    usual = taps == across and taps in (3, 5) and stride in ((1, 1), (2, 2)) and dilation == (1, 1)
    if not usual or in_c != channels or channels < HALF:
        return ANY
    return taps if channels >= LANE else FEW if taps == 3 else ANY


def row_pairs(x, weights, bias, stride, pad, dilation, activation, out):
    """Units are HIGH output rows, or what is left of them at an image's end."""
    units = out.shape[0] * -(-out.shape[1] // HIGH)
    rows = under_windows(x, out, weights.shape[0], stride[0], pad[0], dilation[0])
    return Work(units, 2 * HIGH * out.shape[2] * weights.size, touch=by_groups(rows, out.shape[1], HIGH))


def _depthwise(form: int) -> Task:
    filter_image = FILTERS[form]

    def kernel(start, stop, x, weights, bias, stride, pad, dilation, activation, out):
        _, in_h, in_w, in_c = x.shape
        out_h, out_w, channels = out.shape[1], out.shape[2], out.shape[3]
        flat_x, flat_out = flat_view(x), flat_view(out)
        filters, window = Filters(weights, bias, activation), Window(stride, pad, dilation)
        pairs = (out_h + HIGH - 1) // HIGH
        unit = start
        while unit < stop:
            n, pair = unit // pairs, unit % pairs
            count = min(pairs - pair, stop - unit)
            row, end = pair * HIGH, min((pair + count) * HIGH, out_h)
            to = Cells(flat_out, (n * out_h + row) * out_w * channels, out_w)
            filter_image(Image(flat_x, n * in_h * in_w, in_h, in_w, in_c), filters, window, to, row, end)
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
