"""Depthwise convolution: each channel is filtered by itself."""

from __future__ import annotations

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
