"""Pointwise (1x1) convolution: a matrix product over pixels; where MobileNets spend most of their time."""

from __future__ import annotations

from npmobilenet.kernels.reference.activation import activate
from npmobilenet.kernels.reference.arithmetic import fma32


def pointwise_conv2d_f32(x, weights, bias, activation, out):
    """out[p,co] = act(bias[co] + sum over ci of x[p,ci] * weights[ci,co]), an fma chain with ci ascending.

    Equal to conv2d_f32 with a 1x1 kernel, stride 1 and no padding; pixels of all images are numbered p.

    x: (P, Cin) float32. weights: (Cin, Cout). bias: (Cout,). activation: code. out: (P, Cout).
    """
    pixels, in_c = x.shape
    out_c = out.shape[1]
    for p in range(pixels):
        for co in range(out_c):
            acc = bias[co]
            for ci in range(in_c):
                acc = fma32(x[p, ci], weights[ci, co], acc)
            out[p, co] = activate(acc, activation)
