"""Expansion, depthwise filter and projection as one kernel, a band of rows at a time.

The expanded image is the largest of a model, six times its input: 4.8 MB in MobileNetV2 at 112 x 112, which leave the
second-level cache and come back twice. A band of a few rows of it stays there. Every output is the same fma chain as
that of the three kernels one after the other, which are called here for the rows of a band.
"""

from __future__ import annotations

import numpy as np

from npmobilenet.kernels.compiler.deferred import register_jitable
from npmobilenet.kernels.compiler.spans import under_windows
from npmobilenet.kernels.compiler.task import Task, TaskFamily
from npmobilenet.kernels.compiler.work_sharing import PER_THREAD, Work
from npmobilenet.kernels.fast.depthwise_conv2d import FILTERS, Filters, Image, Window, form_of
from npmobilenet.kernels.fast.gemm_f32 import Layer, matrix_rows, new_scratch
from npmobilenet.kernels.vectorcode.gemm_s8 import address_of
from npmobilenet.kernels.vectorcode.generated import Cells, flat_view


@register_jitable
def aligned(size):
    """`size` float32 that begin with a cache line, so that no vector lies in two."""
    block = np.empty(size + 16, np.float32)
    skip = -address_of(block) // 4 % 16
    return block[skip : skip + size]


def output_rows(x, expand, depthwise, window, project, band, more, out):
    """Units are output rows. A thread that begins inside an image expands the rows that its first band shares anew."""
    rows = out.shape[0] * out.shape[1]
    pixels = rows * out.shape[2]
    cost = x.size * expand[0].shape[1] + pixels * (project[0].size + 2 * depthwise[0].size)
    touch = under_windows(x, out, depthwise[0].shape[0], *(pair[0] for pair in window), more)
    return Work(rows, cost // max(rows, 1), 1 if expand[0].size > 0 else PER_THREAD, touch)


def _row_tiled_block(form: int) -> Task:
    filter_image = FILTERS[form]

    def kernel(start, stop, x, expand, depthwise, window, project, band, more, out):
        stride, pad, dilation = window
        taps, filters = Window(stride, pad, dilation), Filters(depthwise[0], depthwise[1], depthwise[2])
        _, in_h, in_w, depth = x.shape
        out_h, out_w, out_c = out.shape[1], out.shape[2], out.shape[3]
        kernel_h, _, channels = depthwise[0].shape
        flat_x, flat_out, scratch = flat_view(x), flat_view(out), new_scratch()
        expansion = Layer(flat_view(expand[0]), expand[1], expand[2], flat_x[:0])
        projection = Layer(flat_view(project[0]), project[1], project[2], flat_view(more))
        expands, projects = expand[0].size > 0, project[0].size > 0
        lines = (band - 1) * stride[0] + (kernel_h - 1) * dilation[0] + 1
        line = in_w * channels
        expanded = aligned(lines * line if expands else 0)
        filtered = aligned(band * out_w * channels if projects else 0)
        held_top, held_bottom, image = 0, 0, -1  # the input rows that `expanded` holds, of which image
        row = start
        while row < stop:
            n, first = row // out_h, row % out_h
            count = min(band, out_h - first, stop - row)
            origin = n * in_h  # of the lines in `source`
            if expands:
                top = max(first * stride[0] - pad[0], 0)
                bottom = min((first + count - 1) * stride[0] - pad[0] + (kernel_h - 1) * dilation[0] + 1, in_h)
                kept = min(max(held_bottom - top, 0), bottom - top) if image == n else 0
                moved = (top - held_top) * line
                for i in range(kept * line if moved > 0 else 0):
                    expanded[i] = expanded[moved + i]
                pixels = (bottom - top - kept) * in_w
                source = Cells(flat_x, (origin + top + kept) * in_w * depth, depth)
                matrix_rows(source, depth, expansion, Cells(expanded, kept * line, channels), 0, pixels, scratch)
                held_top, held_bottom, image = top, bottom, n
                origin = -top
            pixels_of = Image(expanded if expands else flat_x, origin * in_w, in_h, in_w, channels)
            to = Cells(filtered, 0, out_w) if projects else Cells(flat_out, row * out_w * channels, out_w)
            filter_image(pixels_of, filters, taps, to, first, first + count)
            if projects:
                to = Cells(flat_out, row * out_w * out_c, out_c)
                matrix_rows(Cells(filtered, 0, channels), channels, projection, to, 0, count * out_w, scratch)
            row += count

    kernel.__name__ = f"row_tiled_block_f32_{form}"
    return Task(kernel, output_rows)


_FORMS = {form: _row_tiled_block(form) for form in FILTERS}


def choose(x, expand, depthwise, window, project, band, more, out):
    """out = project(depthwise(expand(x))) + more, each (weights, bias, activation) as its own kernel reads them.

    An expansion or projection whose weights are empty is left out, and so is `more` if it is empty; it comes with a
    projection. window: (stride, pad, dilation) of the depthwise convolution; band: output rows computed together.
    """
    stride, _, dilation = window
    in_c = expand[1].size if expand[0].size > 0 else x.shape[3]
    return _FORMS[form_of(in_c, depthwise[0].shape, stride, dilation)]


row_tiled_block_f32 = TaskFamily("row_tiled_block_f32", choose)
