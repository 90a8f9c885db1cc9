"""Activations: functions of one float32, and the op that applies one to a whole tensor.

Convolutions, additions and pools apply the same functions to each result before storing it. The codes are the
positions in `npmobilenet.graph.ACTIVATIONS`.
"""

from __future__ import annotations

import numpy as np

from npmobilenet.kernels.reference.arithmetic import exp32

ZERO, ONE, THREE, SIX = np.float32(0), np.float32(1), np.float32(3), np.float32(6)
SIXTH = np.float32(1 / 6)  # Keras' gate, and both libraries' hard-swish
SLIM_GATE = np.float32(0.16667)  # TF-slim's squeeze-excite gate (research/slim/nets/mobilenet/mobilenet_v3.py)


def relu(v: np.float32) -> np.float32:
    """max(v, 0); a NaN stays."""
    return ZERO if v < ZERO else v


def relu6(v: np.float32) -> np.float32:
    """min(max(v, 0), 6); a NaN stays."""
    if v < ZERO:
        return ZERO
    return SIX if v > SIX else v


def relu_n1_to_1(v: np.float32) -> np.float32:
    """min(max(v, -1), 1); a NaN stays. TFLite's RELU_N1_TO_1."""
    if v < -ONE:
        return -ONE
    return ONE if v > ONE else v


def hard_swish(v: np.float32) -> np.float32:
    """(v * relu6(v + 3)) * float32(1/6), rounded after each operation, as TF-slim writes it."""
    return (v * relu6(v + THREE)) * SIXTH


def hard_sigmoid(v: np.float32) -> np.float32:
    """relu6(v + 3) * float32(1/6), as Keras writes it."""
    return relu6(v + THREE) * SIXTH


def hard_sigmoid_slim(v: np.float32) -> np.float32:
    """relu6(v + 3) * float32(0.16667): TF-slim's gate, which reaches 1.00002."""
    return relu6(v + THREE) * SLIM_GATE


def sigmoid(v: np.float32) -> np.float32:
    """1 / (1 + exp(-v)), with this project's exp: exactly 0 below -88.7."""
    return ONE / (ONE + exp32(-v))


def activate(v: np.float32, code: int) -> np.float32:
    """Apply activation number `code` of `npmobilenet.graph.ACTIVATIONS`."""
    if code == 0:
        return v
    if code == 1:
        return relu(v)
    if code == 2:
        return relu6(v)
    if code == 3:
        return relu_n1_to_1(v)
    if code == 4:
        return hard_swish(v)
    if code == 5:
        return hard_sigmoid(v)
    if code == 6:
        return hard_sigmoid_slim(v)
    return sigmoid(v)


def activation_f32(x, activation, out):
    """out[i] = activate(x[i]).

    x, out: (elements,) float32. activation: code.
    """
    for i in range(x.shape[0]):
        out[i] = activate(x[i], activation)
