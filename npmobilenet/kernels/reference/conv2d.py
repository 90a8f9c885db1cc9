"""Convolution: every output is one chain of fused multiply-adds over its receptive field."""

from __future__ import annotations

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
