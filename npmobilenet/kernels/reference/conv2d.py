"""Convolution.

In float32 every output is one chain of fused multiply-adds over its receptive field. In 8 bits products and sums are
integers, exact in any order, and there is one rounding step at the end.

Where the integer sums come from: with real x = s_in (q_x - z_in) and real w = s_w (q_w - z_w), the real convolution is
s_in * s_w * sum (q_x - z_in)(q_w - z_w) plus the bias, which is stored in units of s_in * s_w already. The factor
s_in * s_w / s_out turns the sum into units of the output: that is the Requantization (arithmetic/fixedpoint.py).
"""

from __future__ import annotations

import numpy as np

from npmobilenet.arithmetic.fixedpoint import requantized
from npmobilenet.kernels.reference.activation import activate
from npmobilenet.kernels.reference.arithmetic import fma32


def conv2d_f32(x, weights, bias, stride, pad, dilation, activation, out):
    """out[n,oy,ox,co] = act(bias[co] + sum over ky, kx, ci of x[n, iy, ix, ci] * weights[ky,kx,ci,co]).

    With iy = oy * stride - pad + ky * dilation (ix alike). The sum is an fma chain in the order (ky, kx, ci) that
    starts from the bias; taps outside the image are skipped.

    x: (N, H, W, Cin) float32. weights: (kh, kw, Cin, Cout). bias: (Cout,). stride, dilation: (h, w).
    pad: (top, left). activation: code. out: (N, OH, OW, Cout).
    """
    batch, in_h, in_w, in_c = x.shape
    kernel_h, kernel_w = weights.shape[0], weights.shape[1]
    out_h, out_w, out_c = out.shape[1], out.shape[2], out.shape[3]
    for n in range(batch):
        for oy in range(out_h):
            for ox in range(out_w):
                for co in range(out_c):
                    acc = bias[co]
                    for ky in range(kernel_h):
                        iy = oy * stride[0] - pad[0] + ky * dilation[0]
                        if iy < 0 or iy >= in_h:
                            continue
                        for kx in range(kernel_w):
                            ix = ox * stride[1] - pad[1] + kx * dilation[1]
                            if ix < 0 or ix >= in_w:
                                continue
                            for ci in range(in_c):
                                acc = fma32(x[n, iy, ix, ci], weights[ky, kx, ci, co], acc)
                    out[n, oy, ox, co] = activate(acc, activation)


def conv2d_q(x, weights, bias, zero_points, taps, stride, pad, dilation, requant, out):
    """out[n,oy,ox,co] = requantized(bias[co] + sum over ky, kx, ci of (x[n,iy,ix,ci] - z_in) * (weights[...] - z_w)).

    With iy = oy * stride - pad + ky * dilation (ix alike); taps outside the image are skipped, their real value being
    0. |x - z_in| <= 255 and |w - z_w| <= 255, so that 33,000 terms fit into int32; the plan checks each layer's bound.

    x: (N, H, W, Cin) uint8 or int8. weights: (kh, kw, Cin, Cout) of the same dtype. bias: (Cout,) int32.
    zero_points: (z_in, z_w). taps, stride, dilation: (h, w); taps = (kh, kw). pad: (top, left).
    requant: Requantization. out: (N, OH, OW, Cout) of x's dtype, or int32 for accumulators.
    """
    batch, in_h, in_w, in_c = x.shape
    for n in range(batch):
        for oy in range(out.shape[1]):
            for ox in range(out.shape[2]):
                for co in range(out.shape[3]):
                    acc = np.int64(bias[co])
                    for ky in range(taps[0]):
                        iy = oy * stride[0] - pad[0] + ky * dilation[0]
                        if iy < 0 or iy >= in_h:
                            continue
                        for kx in range(taps[1]):
                            ix = ox * stride[1] - pad[1] + kx * dilation[1]
                            if ix < 0 or ix >= in_w:
                                continue
                            for ci in range(in_c):
                                a = np.int64(x[n, iy, ix, ci]) - zero_points[0]
                                b = np.int64(weights[ky, kx, ci, co]) - zero_points[1]
                                acc += a * b
                    out[n, oy, ox, co] = requantized(acc, co, requant)
