"""Fast twins of reference/mean.py: the same sums, in floats in the same order; many channels side by side."""

from __future__ import annotations

import numpy as np

from npmobilenet.arithmetic.fixedpoint import rule_at
from npmobilenet.kernels.compiler.deferred import register_jitable
from npmobilenet.kernels.compiler.task import task
from npmobilenet.kernels.compiler.work_sharing import Work
from npmobilenet.kernels.fast.depthwise_conv2d import PIXELS, wide_run, wide_single
from npmobilenet.kernels.fast.gemm_f32 import LANE
from npmobilenet.kernels.reference import mean as reference
from npmobilenet.kernels.vectorcode.depthwise_f32 import Pixels, Taps
from npmobilenet.kernels.vectorcode.generated import Cells, flat_view

WIDE = PIXELS * LANE  # channels that one tile sums side by side
BLOCK = 128  # channels that a thread sums at a time: two cache lines of the image, eight of sums


@register_jitable
def mean_of_image(x, at, pixels, channels, out, out_at):
    """The mean of `pixels` pixels that begin at x[at], for each channel; x and out flat.

    As a depthwise filter of all pixels whose weights are 1: x * 1 is exact, so fma(x, 1, acc) is acc + x. Its tile for
    PIXELS neighbouring pixels takes as many vectors of channels here, whose sums wait for none of each other. What is
    left of the channels is a block that begins earlier, and computes some of them twice.
    """
    ones = Taps(np.ones(LANE, np.float32), 0, 0, 0, 1, pixels, np.zeros(LANE, np.float32), 0)
    sums = out[out_at : out_at + channels]
    if channels >= WIDE:
        blocks = channels // WIDE
        wide_run(Pixels(x, at, LANE, 0, channels), ones, 0, Cells(sums, 0, LANE), blocks, 1)
        if blocks * WIDE < channels:
            last = channels - WIDE
            wide_run(Pixels(x, at + last, LANE, 0, channels), ones, 0, Cells(sums, last, LANE), 1, 1)
    elif channels >= LANE:
        for block in range(0, channels, LANE):
            first = min(block, channels - LANE)
            wide_single(Pixels(x, at + first, 0, 0, channels), ones, 0, Cells(sums, first, 0), 1, 1)
    else:
        for c in range(channels):
            sums[c] = np.float32(0)
            for i in range(pixels):
                sums[c] = sums[c] + x[at + i * channels + c]
    for c in range(channels):
        sums[c] = sums[c] / np.float32(pixels)


def images(x, out):
    """Units are images."""
    return Work(x.shape[0], 4 * x.size // max(x.shape[0], 1))


@task(images)
def mean_f32(start, stop, x, out):
    """As the reference. Moves: vectors of channels, their sums in registers; threads take images."""
    _, height, width, channels = x.shape
    flat_x, flat_out = flat_view(x), flat_view(out)
    for n in range(start, stop):
        mean_of_image(flat_x, n * height * width * channels, height * width, channels, flat_out, n * channels)


def blocks(x, p, out):
    """Units are blocks of channels of an image."""
    return Work(x.shape[0] * -(-x.shape[3] // BLOCK), 8 * x.shape[1] * x.shape[2] * BLOCK)


@task(blocks)
def mean_q(start, stop, x, p, out):
    """As the reference. Moves: the loop over channels is innermost and vectorized, in int32; threads take blocks."""
    channels = x.shape[3]
    pixels = x.shape[1] * x.shape[2]
    parts = (channels + BLOCK - 1) // BLOCK
    flat_x = flat_view(x)
    for part in range(start, stop):
        n, first = part // parts, part % parts * BLOCK
        count = min(BLOCK, channels - first)
        acc = np.zeros(BLOCK, np.int32)
        for i in range(pixels):
            at = (n * pixels + i) * channels + first
            pixel = flat_x[at : at + count]
            for c in range(count):
                acc[c] += np.int32(pixel[c])
        for c in range(count):
            v = reference.mean_of(np.int64(acc[c]), p, rule_at(first + c, p.rule))
            out[n, first + c] = min(max(v, p.low), p.high)
