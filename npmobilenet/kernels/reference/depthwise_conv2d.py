"""Depthwise convolution: each channel is filtered by itself. Floats and integers as in conv2d.py."""

from __future__ import annotations

import numpy as np

from npmobilenet.arithmetic.fixedpoint import requantized
from npmobilenet.kernels.reference.activation import activate
from npmobilenet.kernels.reference.arithmetic import fma32


def depthwise_conv2d_f32(x, weights, bias, stride, pad, dilation, activation, out):
    """out[n,oy,ox,c*M+m] = act(bias[c*M+m] + sum over ky, kx of x[n, iy, ix, c] * weights[ky,kx,c*M+m]).

    With iy = oy * stride - pad + ky * dilation (ix alike), an fma chain in the order (ky, kx) that starts from the
    bias; taps outside the image are skipped. M = Cout / Cin is the channel multiplier, 1 in all MobileNets.

    x: (N, H, W, Cin) float32. weights: (kh, kw, Cout). bias: (Cout,). stride, dilation: (h, w). pad: (top, left).
    activation: code. out: (N, OH, OW, Cout).
    """
    batch, in_h, in_w, in_c = x.shape
    kernel_h, kernel_w = weights.shape[0], weights.shape[1]
    out_h, out_w, out_c = out.shape[1], out.shape[2], out.shape[3]
    multiplier = out_c // in_c
    for n in range(batch):
        for oy in range(out_h):
            for ox in range(out_w):
                for c in range(out_c):
                    acc = bias[c]
                    for ky in range(kernel_h):
                        iy = oy * stride[0] - pad[0] + ky * dilation[0]
                        if iy < 0 or iy >= in_h:
                            continue
                        for kx in range(kernel_w):
                            ix = ox * stride[1] - pad[1] + kx * dilation[1]
                            if ix < 0 or ix >= in_w:
                                continue
                            acc = fma32(x[n, iy, ix, c // multiplier], weights[ky, kx, c], acc)
                    out[n, oy, ox, c] = activate(acc, activation)


def depthwise_conv2d_q(x, weights, bias, zero_points, taps, stride, pad, dilation, requant, out):
    """out[n,oy,ox,c] = requantized(bias[c] + sum over ky, kx of (x[n,iy,ix,c//M] - z_in) * (weights[ky,kx,c] - z_w)).

    With iy = oy * stride - pad + ky * dilation (ix alike); taps outside the image are skipped. M = Cout / Cin is the
    channel multiplier. A 5x5 filter sums 25 products of at most 255 * 255: 21 bits.

    x: (N, H, W, Cin) uint8 or int8. weights: (kh, kw, Cout) of the same dtype. bias: (Cout,) int32.
    zero_points: (z_in, z_w). taps, stride, dilation: (h, w); taps = (kh, kw). pad: (top, left).
    requant: Requantization. out: (N, OH, OW, Cout) of x's dtype, or int32 for accumulators.
    """
    batch, in_h, in_w, in_c = x.shape
    multiplier = out.shape[3] // in_c
    for n in range(batch):
        for oy in range(out.shape[1]):
            for ox in range(out.shape[2]):
                for c in range(out.shape[3]):
                    acc = np.int64(bias[c])
                    for ky in range(taps[0]):
                        iy = oy * stride[0] - pad[0] + ky * dilation[0]
                        if iy < 0 or iy >= in_h:
                            continue
                        for kx in range(taps[1]):
                            ix = ox * stride[1] - pad[1] + kx * dilation[1]
                            if ix < 0 or ix >= in_w:
                                continue
                            a = np.int64(x[n, iy, ix, c // multiplier]) - zero_points[0]
                            acc += a * (np.int64(weights[ky, kx, c]) - zero_points[1])
                    out[n, oy, ox, c] = requantized(acc, c, requant)
