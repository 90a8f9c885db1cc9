"""Pointwise (1x1) convolution: a matrix product over pixels; where MobileNets spend most of their time.

Floats and integers as in conv2d.py.
"""

from __future__ import annotations

import numpy as np

from npmobilenet.arithmetic.fixedpoint import requantized
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


def pointwise_conv2d_q(x, weights, bias, zero_points, requant, out):
    """out[p,co] = requantized(bias[co] + sum over ci of (x[p,ci] - z_in) * (weights[ci,co] - z_w)).

    Equal to conv2d_q with a 1x1 kernel, stride 1 and no padding; pixels of all images are numbered p.

    x: (P, Cin) uint8 or int8. weights: (Cin, Cout) of the same dtype. bias: (Cout,) int32. zero_points: (z_in, z_w).
    requant: Requantization. out: (P, Cout) of x's dtype, or int32 for accumulators.
    """
    pixels, in_c = x.shape
    for p in range(pixels):
        for co in range(out.shape[1]):
            acc = np.int64(bias[co])
            for ci in range(in_c):
                acc += (np.int64(x[p, ci]) - zero_points[0]) * (np.int64(weights[ci, co]) - zero_points[1])
            out[p, co] = requantized(acc, co, requant)
