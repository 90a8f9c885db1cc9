"""Mean over height and width: squeeze-excite's squeeze."""

from __future__ import annotations

import numpy as np


def mean_f32(x, out):
    """out[n,c] = (sum over y, x of x[n,y,x,c]) / (H * W), added in the order (row, column) from 0, one division.

    x: (N, H, W, C) float32. out: (N, C).
    """
    batch, height, width, channels = x.shape
    for n in range(batch):
        for c in range(channels):
            acc = np.float32(0)
            for y in range(height):
                for i in range(width):
                    acc = acc + x[n, y, i, c]
            out[n, c] = acc / np.float32(height * width)
