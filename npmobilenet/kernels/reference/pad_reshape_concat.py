"""Ops that only move values: pad, reshape, concat. In 8 bits a concatenation of unlike scales computes, too."""

from __future__ import annotations

import numpy as np

from npmobilenet.arithmetic.fixedpoint import round_away
from npmobilenet.kernels.reference.activation import activate


def pad_f32(x, value, pad, out):
    """out = x with `value` (float32) around it; x's pixel (0, 0) is at (pad[0], pad[1]) = (top, left).

    x: (N, H, W, C) float32. out: (N, top + H + bottom, left + W + right, C).
    """
    batch, height, width, channels = x.shape
    for n in range(batch):
        for oy in range(out.shape[1]):
            for ox in range(out.shape[2]):
                iy, ix = oy - pad[0], ox - pad[1]
                inside = iy >= 0 and iy < height and ix >= 0 and ix < width
                for c in range(channels):
                    out[n, oy, ox, c] = x[n, iy, ix, c] if inside else value


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


def pad_q(x, value, pad, out):
    """out = x with `value` (the zero point: real 0) around it; x's pixel (0, 0) is at (pad[0], pad[1]) = (top, left).

    x: (N, H, W, C) uint8 or int8. out: (N, top + H + bottom, left + W + right, C).
    """
    batch, height, width, channels = x.shape
    for n in range(batch):
        for oy in range(out.shape[1]):
            for ox in range(out.shape[2]):
                iy, ix = oy - pad[0], ox - pad[1]
                inside = iy >= 0 and iy < height and ix >= 0 and ix < width
                for c in range(channels):
                    out[n, oy, ox, c] = x[n, iy, ix, c] if inside else value


def reshape_q(x, out):
    """out[i] = x[i]: the same values in the same (row-major) order. x, out: (elements,) uint8 or int8."""
    for i in range(x.shape[0]):
        out[i] = x[i]


def rescaled(v, p):
    """v in the output's units: round(v * scale + bias) + zero point, in float32, ties away from zero, clamped.

    scale * v and the sum are two float32 roundings; |v * scale + bias| stays below 2^31 for scales within 2^22.
    """
    real = np.float32(v) * p.scale + p.bias
    return min(max(round_away(np.float64(real)) + p.zero_point, p.low), p.high)


def concat_q(x, offset, p, out):
    """out[o, offset + i, k] = x[o, i, k], rescaled where the operand's units aren't the output's (p.copy = 0).

    One operand of a concatenation; the plan calls it for each. p: arithmetic.elementwise.Rescaling.

    x: (outer, length, inner) uint8 or int8, `length` along the concatenated axis. out: (outer, total length, inner).
    """
    for o in range(x.shape[0]):
        for i in range(x.shape[1]):
            for k in range(x.shape[2]):
                out[o, offset + i, k] = x[o, i, k] if p.copy else rescaled(x[o, i, k], p)
