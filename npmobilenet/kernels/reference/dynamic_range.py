"""Layers with 8-bit weights on a float32 input ("dynamic range" models): quantize the input, sum integers, scale.

The sums are those of the integer kernels, on values with zero point 0; what a row's zero point adds is taken off behind
them. A row is what gets a scale of its own: an image, or a row of a fully connected layer.
"""

from __future__ import annotations

import numpy as np

from npmobilenet.arithmetic.fixedpoint import Rounding, round_away, round_away32, rule_at
from npmobilenet.kernels.reference.activation import activate
from npmobilenet.kernels.reference.arithmetic import fma32

ZERO, ONE, STEPS = np.float32(0), np.float32(1), np.float32(255)
LEAST, GREATEST = np.float32(-128), np.float32(127)  # of int8


def row_parameters(low, high, rule):
    """Scale and zero point for a row of values from `low` to `high`, 0 among them, and what values are multiplied by.

    symmetric: m = max(-low, high), scale m / 127, values by 127 / m. asymmetric: scale (high - low) / 255, values by
    its reciprocal. asymmetric_reciprocal: values by r = 255 / (high - low), scale 1 / r. All in float32. The zero point
    is -128 less the steps to `low` or 127 less those to `high`, whichever adds smaller numbers, rounded half away from
    zero in float64 (asymmetric), or half to even.
    """
    if low == high:
        return ONE, ZERO, ONE
    if rule == Rounding.SYMMETRIC:
        most = max(-low, high)
        return most / GREATEST, ZERO, GREATEST / most
    if rule == Rounding.ASYMMETRIC:
        fine = (np.float64(high) - np.float64(low)) / np.float64(255)
        down, up = np.float64(low) / fine, np.float64(high) / fine
        point = -128.0 - down if 128.0 - down < 127.0 + up else 127.0 - up
        scale = (high - low) / STEPS
        return scale, np.float32(min(max(round_away(point), -128), 127)), ONE / scale
    steps = STEPS / (high - low)
    down, up = low * steps, high * steps
    nearest = LEAST - down if (LEAST + down) + (GREATEST + up) > ZERO else GREATEST - up
    return ONE / steps, np.float32(np.rint(min(max(nearest, LEAST), GREATEST))), steps


def quantize_rows_q(x, rule, phases, q, params):
    """q = clamp(round(x * factor) + zero point), by the parameters of the row that a value belongs to: params[row].

    A row is an image, or with phases (h, w) beyond 1 what lies at each h-th line and w-th column of it, beginning `top`
    lines above and `left` columns before the image; its number is (n * h + line's phase) * w + column's. Symmetric rows
    are clamped to -127 ... 127. Rounded half away from zero, by asymmetric_reciprocal half to even.

    Source: LiteRT, tflite/kernels/internal/reference/portable_tensor_utils.cc, PortableSymmetricQuantizeFloats,
    PortableAsymmetricQuantizeFloats, commit f67457790; XNNPACK, src/xnnpack/quantization.h, src/f32-qs8-vcvt.

    x: (N, H, W, C) float32. phases: (h, w, top, left). q: as x, int8. params: (N * h * w, 2) float32.
    """
    high_phases, wide_phases, top, left = phases
    least = -GREATEST if rule == Rounding.SYMMETRIC else LEAST
    for row in range(params.shape[0]):
        n, phase = row // (high_phases * wide_phases), row % (high_phases * wide_phases)
        first_y, first_x = (phase // wide_phases - top) % high_phases, (phase % wide_phases - left) % wide_phases
        low, high = ZERO, ZERO
        for y in range(first_y, x.shape[1], high_phases):
            for ix in range(first_x, x.shape[2], wide_phases):
                for c in range(x.shape[3]):
                    low, high = min(low, x[n, y, ix, c]), max(high, x[n, y, ix, c])
        scale, point, factor = row_parameters(low, high, rule)
        params[row, 0], params[row, 1] = scale, point
        for y in range(first_y, x.shape[1], high_phases):
            for ix in range(first_x, x.shape[2], wide_phases):
                for c in range(x.shape[3]):
                    v = x[n, y, ix, c] * factor
                    whole = np.rint(v) if rule == Rounding.ASYMMETRIC_RECIPROCAL else round_away32(v)
                    q[n, y, ix, c] = np.int8(min(max(whole + point, least), GREATEST))


def scale_sums_f32(acc, borders, rows, channels, order, activation, out):
    """out[n,oy,ox,c] = act(bias[c] + real sum), real sum = (acc - point * border) * scale[c] * row's scale, in float32.

    order: rules of the channels. channel_first: (sum * scale[c]) * row; product: sum * (scale[c] * row); row_first:
    (sum * row) * scale[c]; fused: as that, the last product and the bias in one.

    acc: (N, OH, OW, C) int32, which may lie where `out` does. borders: (table (., ., C) int32: the sums of the weights
    that fall inside the image, lines (OH,), columns (OW,): which entry each output takes). rows: (params, phases) as
    quantize_rows_q has them. channels: (scale (C,), bias (C,)). out: (N, OH, OW, C) float32.
    """
    (table, lines, columns), (params, phases), (scale, bias) = borders, rows, channels
    for n in range(out.shape[0]):
        for oy in range(out.shape[1]):
            for ox in range(out.shape[2]):
                number = (n * phases[0] + oy % phases[0]) * phases[1] + ox % phases[1]
                row, point = params[number, 0], np.int32(params[number, 1])
                for c in range(out.shape[3]):
                    total = np.float32(acc[n, oy, ox, c] - point * table[lines[oy], columns[ox], c])
                    rule = rule_at(c, order)
                    if rule == Rounding.CHANNEL_FIRST:
                        v = (total * scale[c]) * row + bias[c]
                    elif rule == Rounding.PRODUCT:
                        v = total * (scale[c] * row) + bias[c]
                    elif rule == Rounding.ROW_FIRST:
                        v = (total * row) * scale[c] + bias[c]
                    else:
                        v = fma32(total * row, scale[c], bias[c])
                    out[n, oy, ox, c] = activate(v, activation)
