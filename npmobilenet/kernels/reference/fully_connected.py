"""Fully connected layer."""

from __future__ import annotations

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
