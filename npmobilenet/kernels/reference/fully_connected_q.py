"""Quantized fully connected layer."""

from __future__ import annotations

import numpy as np

from npmobilenet.arithmetic.fixedpoint import requantized


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
