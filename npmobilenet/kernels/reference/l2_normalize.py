"""Rows divided by their Euclidean length, as embeddings are."""

from __future__ import annotations

import numpy as np

from npmobilenet.arithmetic.fixedpoint import high_mul, requantize, saturate32, shift_away

LEAST = np.float32(1e-6)
HALF_SQRT_2, THREE_HALVES = 1518500250, (1 << 28) + (1 << 27)  # sqrt(2) / 2 with 31 fractional bits, 3 / 2 with 28


def l2_normalize_f32(x, out):
    """out[r,c] = x[r,c] / max(sqrt(x[r,0]^2 + x[r,1]^2 + ...), 1e-6), summed in index order from 0.

    x, out: (rows, C) float32. Source: LiteRT, tflite/kernels/internal/reference/l2normalization.h, commit f67457790.
    """
    for r in range(x.shape[0]):
        total = np.float32(0)
        for c in range(x.shape[1]):
            total = total + x[r, c] * x[r, c]
        length = max(np.sqrt(total), LEAST)
        for c in range(x.shape[1]):
            out[r, c] = x[r, c] / length


def inverse_sqrt(v):
    """1 / sqrt(v) of an integer v >= 0 as (multiplier with 31 fractional bits, shift to the left): Newton's method.

    v is brought to 2^27 ... 2^29 by fours; x becomes x (3 - v x^2) / 2 five times, from x = 1, with 28 fractional bits.

    Source: LiteRT, tflite/kernels/internal/common.h, GetInvSqrtQuantizedMultiplierExp, commit f67457790; gemmlowp,
    fixedpoint/fixedpoint.h, Rescale, SaturatingRoundingMultiplyByPOT.
    """
    if v <= 1:
        return np.int64(2147483647), np.int64(0)
    shift = np.int64(11)
    while v >= (1 << 29):
        v, shift = v // 4, shift + 1
    zeros = np.int64(0)
    while (v << (zeros + 1)) < (1 << 31):
        zeros = zeros + 1
    pairs = zeros // 2 - 1
    shift, v = shift - pairs, v << (2 * pairs)
    whole = v >> 1
    half = shift_away(whole, 1)
    x = np.int64(1) << 28
    for _ in range(5):
        cube = saturate32(high_mul(high_mul(x, x), x) << 6)
        x = saturate32((high_mul(THREE_HALVES, x) - high_mul(half, cube)) << 3)
    x = high_mul(x, HALF_SQRT_2)
    if shift < 0:
        x, shift = x << -shift, np.int64(0)
    return x, -shift


def inverse_root(q, p):
    """clamp(z_out + factor / sqrt(q - z_in)) of one 8-bit value: through 1 / sqrt with 20 fractional bits.

    Values of 0 give the largest, and so do those below, at which LiteRT stops. p: arithmetic.unary.InverseRoot.

    Source: LiteRT, tflite/kernels/elementwise.cc, RsqrtEvalQuantizedInt8, commit f67457790.
    """
    v = q - p.zero_in
    if v <= 0:
        return p.high
    multiplier, shift = inverse_sqrt(v)
    root = requantize(np.int64(1), multiplier, shift + 20, 0.0, p.rule)
    return min(max(requantize(root, p.multiplier, p.shift - 20, 0.0, p.rule) + p.zero_out, p.low), p.high)


def l2_normalize_q(x, p, out):
    """out[r,c] = clamp(z_out + 128 (x[r,c] - z_in) / sqrt((x[r,0] - z_in)^2 + ...)), by inverse_sqrt of the exact sum.

    Input scales don't matter, outputs count in 1/128. p: arithmetic.unary.Normalization.

    x, out: (rows, C) uint8 or int8. Source: LiteRT, tflite/kernels/internal/reference/l2normalization.h and
    integer_ops/l2normalization.h, commit f67457790.
    """
    for r in range(x.shape[0]):
        total = np.int64(0)
        for c in range(x.shape[1]):
            v = np.int64(x[r, c]) - p.zero_in
            total = total + v * v
        multiplier, shift = inverse_sqrt(total)
        for c in range(x.shape[1]):
            v = (np.int64(x[r, c]) - p.zero_in) * p.factor
            v = requantize(v, multiplier, shift + p.shift, 0.0, p.rule) + p.zero_out
            out[r, c] = min(max(v, p.low), p.high)
