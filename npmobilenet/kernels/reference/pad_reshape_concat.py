"""Ops that only move values: pad, reshape, concat."""

from __future__ import annotations

import numpy as np

from npmobilenet.kernels.reference.activation import activate


def pad_f32(x, pad, out):
    """out = x with zeros around it; x's pixel (0, 0) is at (pad[0], pad[1]) = (top, left).

    x: (N, H, W, C) float32. out: (N, top + H + bottom, left + W + right, C).
    """
    batch, height, width, channels = x.shape
    for n in range(batch):
        for oy in range(out.shape[1]):
            for ox in range(out.shape[2]):
                iy, ix = oy - pad[0], ox - pad[1]
                inside = iy >= 0 and iy < height and ix >= 0 and ix < width
                for c in range(channels):
                    out[n, oy, ox, c] = x[n, iy, ix, c] if inside else np.float32(0)


def reshape_f32(x, out):
    """out[i] = x[i]: the same values in the same (row-major) order. x, out: (elements,)."""
    for i in range(x.shape[0]):
        out[i] = x[i]


def concat_f32(x, offset, activation, out):
    """out[o, offset + i, k] = act(x[o, i, k]): one operand of a concatenation; the plan calls it for each.

    x: (outer, length, inner) float32, `length` along the concatenated axis. out: (outer, total length, inner).
    """
    for o in range(x.shape[0]):
        for i in range(x.shape[1]):
            for k in range(x.shape[2]):
                out[o, offset + i, k] = activate(x[o, i, k], activation)
