"""Fast twin of reference/pointwise_conv2d.py: same fma chain for each output, other loops."""

from __future__ import annotations

import numpy as np

from npmobilenet.kernels.compiler.deferred import register_jitable
from npmobilenet.kernels.compiler.spans import Rows
from npmobilenet.kernels.compiler.task import task
from npmobilenet.kernels.compiler.work_sharing import PER_THREAD, Work
from npmobilenet.kernels.fast.gemm_f32 import (
    BLOCK,
    MR,
    MR_LOW,
    NR,
    Layer,
    matrix_block,
    matrix_rows,
    new_scratch,
    pack_panels,
)
from npmobilenet.kernels.vectorcode.generated import Cells, flat_view

MANY = 8 * BLOCK  # pixels from which on threads take blocks of them; below, weights weigh more than pixels
FEW_ROWS = 2 * MR
# Weights up to which threads take rows of few pixels all the same: they then find what they have computed themselves in
# the layer before, not half of it in the other core's cache, which costs more than fetching all weights.
LIGHT = 200_000


def pack_pointwise_conv2d_f32(weights: np.ndarray) -> np.ndarray:
    """(Cin, Cout) -> panels of output channels: gemm_f32.pack_panels."""
    return pack_panels(weights)


@register_jitable
def units_of(pixels, channels, light):
    """The rows of a unit of work, and the number of units: MR rows of all panels, or FEW_ROWS of one panel.

    light: MR_LOW rows of all panels, however few the pixels are.
    """
    if pixels >= MANY:
        return MR, (pixels + MR - 1) // MR
    if light:
        return MR_LOW, (pixels + MR_LOW - 1) // MR_LOW
    return FEW_ROWS, (pixels + FEW_ROWS - 1) // FEW_ROWS * ((channels + NR - 1) // NR)


@register_jitable
def is_light(pixels, depth, channels):
    """Whether threads share out the rows of few pixels; of fewer than four for each of two, panels."""
    return pixels >= 2 * MR_LOW and depth * channels <= LIGHT


@register_jitable
def crowds(pixels, depth):
    """Whether the rows of a tile begin at the same place in the first-level cache, 4 KiB apart on all that we know.

    Its 8 or 12 ways don't hold 12 of them and the weights: 49 x 1024 x 1024 took 1.25 ms, and 1.0 copied apart.
    """
    return depth % 1024 == 0 and pixels >= MR


def share(x, weights, out, per_thread=PER_THREAD, light=False, more=None):
    """Units are blocks of pixels, or of pixels and output channels, see units_of."""
    pixels = x.shape[0]
    rows, units = units_of(pixels, out.shape[1], light)
    groups = -(-pixels // rows)

    def touch(first, stop):
        begin, end = first % groups, (stop - 1) % groups + 1
        if (stop - 1) // groups > first // groups:  # of several panels
            begin, end = 0, groups
        arrays = (x, out) if more is None else (x, more, out)
        return [Rows(array, begin * rows, min(end * rows, pixels), pixels) for array in arrays]

    # A piece passes over the weights of all its panels: for a few rows that takes longer than the products.
    least = BLOCK // MR if pixels >= MANY else FEW_ROWS // MR_LOW if light else 1
    return Work(units, pixels * weights.size // max(units, 1), per_thread, touch, least)


def blocks(x, weights, bias, activation, out, more=None):
    """As `share`; rows that are copied are so once for each thread."""
    return share(x, weights, out, 1 if crowds(*x.shape) else PER_THREAD, is_light(*x.shape, out.shape[1]), more)


@register_jitable
def products(start, stop, x, weights, bias, activation, more, out):
    """Units start ... stop - 1 of a pointwise convolution; `more` is added: gemm_f32.matrix_block."""
    pixels, depth = x.shape
    channels = out.shape[1]
    flat_x, flat_out, scratch = flat_view(x), flat_view(out), new_scratch()
    row_step = depth
    if crowds(pixels, depth):
        row_step = depth + 16
        apart = np.empty(pixels * row_step, np.float32)
        for r in range(pixels):
            for k in range(depth):  # not as slices: their check of lengths took a third of the time to compile
                apart[r * row_step + k] = flat_x[r * depth + k]
        flat_x = apart
    light = is_light(pixels, depth, channels)
    rows, _ = units_of(pixels, channels, light)
    lhs, to = Cells(flat_x, 0, row_step), Cells(flat_out, 0, channels)
    layer = Layer(flat_view(weights), bias, activation, more)
    first, last = start * rows, min(stop * rows, pixels)
    if pixels >= MANY:
        matrix_rows(lhs, depth, layer, to, first, last, scratch)
        return
    if light:
        matrix_block(lhs, depth, layer, to, (first, last), (0, (channels + NR - 1) // NR), scratch)
        return
    groups = (pixels + rows - 1) // rows
    unit = start
    while unit < stop:
        # Neighbouring units of one panel go together.
        panel, first = unit // groups, unit % groups * rows
        count = min(groups - unit % groups, stop - unit)
        pixel_range = (first, min(first + count * rows, pixels))
        matrix_block(lhs, depth, layer, to, pixel_range, (panel, panel + 1), scratch)
        unit += count


@task(blocks)
def pointwise_conv2d_f32(start, stop, x, weights, bias, activation, out):
    """As the reference. Moves: weights in panels; register tiles of MR pixels.

    BLOCK rows at a time pass over all panels, so that they stay in the first-level cache while the panels stream by.
    Where there are too few pixels to share out and too many weights to read them all, threads take panels of output
    channels, FEW_ROWS of pixels each.
    """
    products(start, stop, x, weights, bias, activation, flat_view(x)[:0], out)


def blocks_and_more(x, weights, bias, activation, more, out):
    """As `blocks`."""
    return blocks(x, weights, bias, activation, out, more.reshape(out.shape))


@task(blocks_and_more)
def pointwise_add_f32(start, stop, x, weights, bias, activation, more, out):
    """out = activation(x @ weights + bias) + more: a projection and its residual, which has out's shape."""
    products(start, stop, x, weights, bias, activation, flat_view(more), out)
