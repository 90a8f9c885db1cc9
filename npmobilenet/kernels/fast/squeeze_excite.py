"""Squeeze-and-excite as one kernel: the mean of an image, two products, and the image times the gate that they make."""

from __future__ import annotations

import numpy as np

from npmobilenet.kernels.compiler.deferred import register_jitable
from npmobilenet.kernels.compiler.spans import alike
from npmobilenet.kernels.compiler.task import task
from npmobilenet.kernels.compiler.work_sharing import Work
from npmobilenet.kernels.fast.activation import activate_all
from npmobilenet.kernels.fast.gemm_f32 import Layer, matrix_rows, new_scratch
from npmobilenet.kernels.fast.mean import mean_of_image
from npmobilenet.kernels.vectorcode.generated import Cells, flat_view

RUN = 1024  # values that are multiplied in one loop, about


@register_jitable
def scale_all(values, code, constant, activation):
    """values[i] = activation(values[i] + constant), or - or *."""
    if code == 0:
        for i in range(values.size):
            values[i] = values[i] + constant
    elif code == 1:
        for i in range(values.size):
            values[i] = values[i] - constant
    else:
        for i in range(values.size):
            values[i] = values[i] * constant
    activate_all(values, 0, values.size, activation)


@register_jitable
def multiply_pixels(x, first, stop, gates, activation, out):
    """out[i] = activation(x[i] * gate) for indices first ... stop - 1 of whole pixels, all flat.

    `gates` holds the gate several times, so that the loop over it is long also where channels are few.
    """
    for at in range(first, stop, gates.size):
        count = min(gates.size, stop - at)
        values, results = x[at : at + count], out[at : at + count]
        for i in range(count):
            results[i] = values[i] * gates[i]
        activate_all(out, at, count, activation)


@register_jitable
def one_row(x, product, out, scratch):
    """A matrix product of one row; product: (weights, bias, activation)."""
    weights, bias, activation = product
    layer = Layer(flat_view(weights), bias, activation, x[:0])
    matrix_rows(Cells(x, 0, x.size), x.size, layer, Cells(out, 0, out.size), 0, 1, scratch)


def output_rows(x, squeeze, excite, scales, activation, out):
    """Units are output rows, one piece for each thread.

    Threads that share an image each compute its gate, so of a single image only what takes longer than the gate's
    products is worth sharing: 7 x 7 x 576 with 2 x 83 000 products took 1.1 of the separate steps' time where two
    threads did, and 0.94 where one does it all.
    """
    images, rows = x.shape[0], x.shape[0] * x.shape[1]
    own, gate = 8 * x.size, images * (squeeze[0].size + excite[0].size)
    return Work(rows, max(own + gate if images > 1 else own - gate, 0) // max(rows, 1), 1, alike(rows, out))


@task(output_rows)
def squeeze_excite_f32(start, stop, x, squeeze, excite, scales, activation, out):
    """out = activation(x * gate), gate = scaled(excite(squeeze(mean of x))), each chain as its own kernel computes it.

    squeeze, excite: (weights, bias, activation) as pointwise_conv2d_f32 reads them. scales: what follows them, in turn,
    as (places in "add, sub, mul" and codes of activations (steps, 2), constants (steps,)).
    """
    _, height, width, channels = x.shape
    flat_x, flat_out, scratch = flat_view(x), flat_view(out), new_scratch()
    copies = max(RUN // channels, 1)
    means, gates = np.empty(channels, np.float32), np.empty(copies * channels, np.float32)
    squeezed, gate = np.empty(squeeze[1].size, np.float32), gates[:channels]
    row = start
    while row < stop:
        n = row // height
        last = min((n + 1) * height, stop)
        mean_of_image(flat_x, n * height * width * channels, height * width, channels, means, 0)
        one_row(means, squeeze, squeezed, scratch)
        one_row(squeezed, excite, gate, scratch)
        for i in range(scales[1].size):
            scale_all(gate, scales[0][i, 0], scales[1][i], scales[0][i, 1])
        for i in range(channels, gates.size):
            gates[i] = gates[i - channels]
        multiply_pixels(flat_x, row * width * channels, last * width * channels, gates, activation, flat_out)
        row = last
