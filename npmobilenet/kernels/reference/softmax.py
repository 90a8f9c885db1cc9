"""Softmax."""

from __future__ import annotations

import numpy as np

from npmobilenet.kernels.reference.arithmetic import exp32


def softmax_f32(x, beta, out):
    """out[r,i] = e[i] / (e[0] + e[1] + ...), e[i] = exp((x[r,i] - max of row r) * beta), summed in index order from 0.

    x, out: (rows, classes) float32. beta: float32. exp is exp32, so the largest term is exactly 1.
    """
    rows, classes = x.shape
    for r in range(rows):
        largest = x[r, 0]
        for i in range(1, classes):
            largest = x[r, i] if x[r, i] > largest else largest
        total = np.float32(0)
        for i in range(classes):
            out[r, i] = exp32((x[r, i] - largest) * beta)
            total = total + out[r, i]
        for i in range(classes):
            out[r, i] = out[r, i] / total
