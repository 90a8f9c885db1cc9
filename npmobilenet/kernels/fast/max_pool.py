"""Fast twins of reference/max_pool.py: all channels of an output at once, so that the loop over them is vectorized."""

from __future__ import annotations

import numpy as np

from npmobilenet.kernels.compiler.task import task
from npmobilenet.kernels.compiler.work_sharing import Work
from npmobilenet.kernels.fast.activation import activate_all
from npmobilenet.kernels.fast.conv2d import valid_taps
from npmobilenet.kernels.reference.max_pool import LOWEST
from npmobilenet.kernels.vectorcode.generated import flat_view


def output_rows(x, *more):
    """Units are output rows."""
    kernel, out = more[0] if isinstance(more[0], tuple) else more[1], more[-1]
    return Work(out.shape[0] * out.shape[1], 4 * kernel[0] * kernel[1] * out.shape[2] * out.shape[3])


@task(output_rows)
def max_pool_f32(start, stop, x, kernel, stride, pad, activation, out):
    """As the reference."""
    in_h, in_w, channels = x.shape[1], x.shape[2], x.shape[3]
    out_h, out_w = out.shape[1], out.shape[2]
    flat_x, flat_out = flat_view(x), flat_view(out)
    for row in range(start, stop):
        n, oy = row // out_h, row % out_h
        iy = oy * stride[0] - pad[0]
        ky_first, ky_last = valid_taps(iy, kernel[0], 1, in_h)
        for ox in range(out_w):
            ix = ox * stride[1] - pad[1]
            kx_first, kx_last = valid_taps(ix, kernel[1], 1, in_w)
            at = (row * out_w + ox) * channels
            best = flat_out[at : at + channels]
            for c in range(channels):
                best[c] = LOWEST
            for ky in range(ky_first, ky_last):
                for kx in range(kx_first, kx_last):
                    first = ((n * in_h + iy + ky) * in_w + ix + kx) * channels
                    pixel = flat_x[first : first + channels]
                    for c in range(channels):
                        best[c] = pixel[c] if pixel[c] > best[c] else best[c]
            activate_all(flat_out, at, channels, activation)


@task(output_rows)
def max_pool_q(start, stop, x, least, kernel, stride, pad, p, out):
    """As the reference."""
    in_h, in_w, channels = x.shape[1], x.shape[2], x.shape[3]
    out_h, out_w = out.shape[1], out.shape[2]
    flat_x, flat_out = flat_view(x), flat_view(out)
    for row in range(start, stop):
        n, oy = row // out_h, row % out_h
        iy = oy * stride[0] - pad[0]
        ky_first, ky_last = valid_taps(iy, kernel[0], 1, in_h)
        for ox in range(out_w):
            ix = ox * stride[1] - pad[1]
            kx_first, kx_last = valid_taps(ix, kernel[1], 1, in_w)
            at = (row * out_w + ox) * channels
            best = flat_out[at : at + channels]
            for c in range(channels):
                best[c] = least
            for ky in range(ky_first, ky_last):
                for kx in range(kx_first, kx_last):
                    first = ((n * in_h + iy + ky) * in_w + ix + kx) * channels
                    pixel = flat_x[first : first + channels]
                    for c in range(channels):
                        best[c] = max(best[c], pixel[c])
            for c in range(channels):
                best[c] = min(max(np.int32(best[c]), np.int32(p.low)), np.int32(p.high))
