"""Fast twins of reference/average_pool.py: the same sums, in floats in the same order; channels innermost."""

from __future__ import annotations

import numpy as np

from npmobilenet.kernels.compiler.task import task
from npmobilenet.kernels.compiler.work_sharing import Work
from npmobilenet.kernels.fast.activation import activate_all
from npmobilenet.kernels.fast.conv2d import valid_taps
from npmobilenet.kernels.vectorcode.generated import flat_view


def output_rows(x, kernel, stride, pad, activation, out):
    """Units are output rows."""
    return Work(out.shape[0] * out.shape[1], 4 * kernel[0] * kernel[1] * out.shape[2] * out.shape[3])


@task(output_rows)
def average_pool_f32(first, stop, x, kernel, stride, pad, activation, out):
    """As the reference. Moves: all channels of an output at once, so that the loop over them is vectorized."""
    _, in_h, in_w, channels = x.shape
    out_h, out_w = out.shape[1], out.shape[2]
    flat_x, flat_out = flat_view(x), flat_view(out)
    for row in range(first, stop):
        n, oy = row // out_h, row % out_h
        iy = oy * stride[0] - pad[0]
        ky_first, ky_last = valid_taps(iy, kernel[0], 1, in_h)
        for ox in range(out_w):
            ix = ox * stride[1] - pad[1]
            kx_first, kx_last = valid_taps(ix, kernel[1], 1, in_w)
            at = (row * out_w + ox) * channels
            sums = flat_out[at : at + channels]  # slices, as in activation.activate_all
            for c in range(channels):
                sums[c] = np.float32(0)
            for ky in range(ky_first, ky_last):
                for kx in range(kx_first, kx_last):
                    pixel = ((n * in_h + iy + ky) * in_w + ix + kx) * channels
                    values = flat_x[pixel : pixel + channels]
                    for c in range(channels):
                        sums[c] = sums[c] + values[c]
            count = np.float32(max(max(ky_last - ky_first, 0) * max(kx_last - kx_first, 0), 1))
            for c in range(channels):
                sums[c] = sums[c] / count
            activate_all(flat_out, at, channels, activation)


@task(output_rows)
def average_pool_q(start, stop, x, kernel, stride, pad, p, out):
    """As the reference. Moves: all channels of an output at once, summed in int32; the division in float64, vectorized.

    The quotient of integers a <= 2^31 and count <= 2^23 is at most 256 here and, where it isn't an integer, at least
    2^-23 away from one, while float64 resolves 2^-45: rounding it can't reach the next integer, so that dropping its
    fraction is the integer division.
    """
    in_h, in_w, channels = x.shape[1], x.shape[2], x.shape[3]
    out_h, out_w = out.shape[1], out.shape[2]
    flat_x, flat_out = flat_view(x), flat_view(out)
    for row in range(start, stop):
        n, oy = row // out_h, row % out_h
        iy = oy * stride[0] - pad[0]
        ky_first, ky_last = valid_taps(iy, kernel[0], 1, in_h)
        acc = np.empty(channels, np.int32)
        for ox in range(out_w):
            ix = ox * stride[1] - pad[1]
            kx_first, kx_last = valid_taps(ix, kernel[1], 1, in_w)
            count = max(ky_last - ky_first, 0) * max(kx_last - kx_first, 0)
            at = (row * out_w + ox) * channels
            result = flat_out[at : at + channels]
            start = 0 if count > 0 else p.zero_point
            for c in range(channels):
                acc[c] = start
            for ky in range(ky_first, ky_last):
                for kx in range(kx_first, kx_last):
                    first = ((n * in_h + iy + ky) * in_w + ix + kx) * channels
                    pixel = flat_x[first : first + channels]
                    for c in range(channels):
                        acc[c] += np.int32(pixel[c])
            divisor, half = np.float64(max(count, 1)), np.int32(count // 2)
            for c in range(channels):
                total = acc[c]
                nearest = np.int32(total + half if total >= 0 else total - half)
                v = np.int32(np.float64(nearest) / divisor)
                result[c] = min(max(v, np.int32(p.low)), np.int32(p.high))
