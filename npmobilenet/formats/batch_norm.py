"""Folding batch norm into the convolution before it, in float64, rounded once to float32."""

from __future__ import annotations

import numpy as np

from npmobilenet.errors import ConversionError
from npmobilenet.modeldata import Array

EPSILON = 0.001  # TF-slim's batch_norm default, and that of V1's arg scope: tf_slim 1.1.0 layers/layers.py


def fold_batch_norm(
    weights: Array,
    gamma: Array,
    beta: Array,
    mean: Array,
    variance: Array,
    epsilon: float = EPSILON,
) -> tuple[Array, Array]:
    """Weights and bias of the one convolution that equals a convolution without bias and the batch norm after it.

    With `scale = gamma / sqrt(variance + epsilon)` for each output channel:

        weights' = weights * scale,    bias = beta - mean * scale

    `weights` is (kernel_h, kernel_w, in, out) or depthwise (kernel_h, kernel_w, channels): output channels last. The
    others are (channels,). Everything is computed in float64 and rounded once, so each result is within half a unit in
    the last place of its exact value (give or take the error of float64). Returns float32 arrays.

    Raises `ConversionError` where the statistics don't fit the weights, the variance plus epsilon isn't positive, or a
    result isn't finite in float32.
    """
    channels = weights.shape[-1:]
    given = {"gamma": gamma, "beta": beta, "mean": mean, "variance": variance}
    for name, values in given.items():
        if values.shape != channels:
            raise ConversionError(
                f"batch norm: {name} has shape {values.shape}, expected {channels}, "
                f"the output channels of weights {weights.shape}"
            )
    spread = variance.astype(np.float64) + epsilon
    if not (spread > 0).all():
        worst = int(np.argmin(spread))
        raise ConversionError(
            f"batch norm: variance[{worst}] is {variance[worst]}, expected more than -{epsilon} "
            "(a moving variance is never negative: the file is damaged)"
        )
    scale = gamma.astype(np.float64) / np.sqrt(spread)
    bias = beta.astype(np.float64) - mean.astype(np.float64) * scale
    with np.errstate(over="ignore"):  # what overflows is refused below
        folded = (weights.astype(np.float64) * scale).astype(np.float32), bias.astype(np.float32)
    if not all(np.isfinite(values).all() for values in folded):
        raise ConversionError(
            "batch norm: the folded weights or bias are not finite in float32; "
            "look for NaN, infinite or huge values in the checkpoint"
        )
    return folded
