"""Fully connected layer: a product of a row for each image and a matrix. Floats and integers as in conv2d.py."""

from __future__ import annotations

import numpy as np

from npmobilenet.arithmetic.fixedpoint import requantized
from npmobilenet.kernels.reference.activation import activate
from npmobilenet.kernels.reference.arithmetic import fma32


def fully_connected_f32(x, weights, bias, activation, out):
    """out[n,o] = act(bias[o] + sum over i of x[n,i] * weights[i,o]), an fma chain with i ascending.

    x: (N, in_features) float32. weights: (in_features, out_features). bias: (out_features,). activation: code.
    out: (N, out_features).
    """
    batch, in_features = x.shape
    for n in range(batch):
        for o in range(out.shape[1]):
            acc = bias[o]
            for i in range(in_features):
                acc = fma32(x[n, i], weights[i, o], acc)
            out[n, o] = activate(acc, activation)


def fully_connected_q(x, weights, bias, zero_points, requant, out):
    """out[n,o] = requantized(bias[o] + sum over i of (x[n,i] - z_in) * (weights[i,o] - z_w)).

    x: (N, in_features) uint8 or int8. weights: (in_features, out_features) of the same dtype. bias: int32.
    zero_points: (z_in, z_w). requant: Requantization. out: (N, out_features) of x's dtype, or int32 for accumulators.
    """
    batch, in_features = x.shape
    for n in range(batch):
        for o in range(out.shape[1]):
            acc = np.int64(bias[o])
            for i in range(in_features):
                acc += (np.int64(x[n, i]) - zero_points[0]) * (np.int64(weights[i, o]) - zero_points[1])
            out[n, o] = requantized(acc, o, requant)
