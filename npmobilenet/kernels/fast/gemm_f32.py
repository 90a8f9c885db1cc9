"""Float matrix products: the micro-kernels that this machine's instruction set calls for, and the loops around them.

A micro-kernel computes a tile of MR rows by NR columns in registers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from npmobilenet.graph import ACTIVATIONS
from npmobilenet.kernels.compiler.cpu import LANES, REGISTERS, isa
from npmobilenet.kernels.compiler.deferred import register_jitable
from npmobilenet.kernels.fast.activation import activate_all
from npmobilenet.kernels.vectorcode.gemm_f32 import gemm_f32_rows
from npmobilenet.kernels.vectorcode.generated import Cells, Lhs, Panel, stack_array
from npmobilenet.kernels.vectorcode.vector import VECTOR_ACTIVATIONS

LANE = LANES[isa()]
# MR rows x VECTORS: accumulators + weight vectors + one broadcast fill the registers:
# 32 of AVX-512 (and NEON) hold 12 x 2 + 2 + 1, the 16 of AVX2 (and SSE) 6 x 2 + 2 + 1.
MR = 12 if REGISTERS[isa()] == 32 else 6
VECTORS = 2
NR = VECTORS * LANE  # output channels in a panel
BLOCK = 4 * MR  # rows, at least, that pass over all panels before the next ones
NEAR = 4096  # values of the rows that do so: half of a first-level cache
MR_LOW = 4  # rows of the middle micro-kernel, for what the tall one leaves

HALF = LANE // 2

# A panel is whole, or three quarters, a half or a quarter of NR.
compute = gemm_f32_rows((MR, MR_LOW, 1), ((LANE, LANE), (LANE, HALF), (LANE,), (HALF,)))
# Activations that the micro-kernels leave to activate_all.
LEFT_OUT = tuple(code for code in range(1, len(ACTIVATIONS)) if code not in VECTOR_ACTIVATIONS)


def pack_panels(weights: np.ndarray) -> np.ndarray:
    """(..., depth, Cout) -> (..., depth, padded): one panel of NR output channels after the other.

    The last panel is as wide as its channels need, in steps of HALF, filled up with zeros. The shape only tells the
    numbers of taps and channels; in memory panel p, (..., depth, its width), begins at p * NR * (taps * depth).
    """
    *taps, channels = weights.shape
    padded = -(-channels // HALF) * HALF
    matrix = weights.reshape(-1, channels)
    flat = np.zeros((len(matrix), padded), np.float32)
    flat[:, :channels] = matrix
    panels = [flat[:, first : first + NR].reshape(-1) for first in range(0, padded, NR)]
    return np.concatenate(panels).reshape(*taps, padded)


class Layer(NamedTuple):
    """What all outputs of a layer share: panels of weights, biases, the activation's number, and what is added."""

    weights: Any
    bias: Any
    activation: Any
    more: Any


@register_jitable
def block(lhs, panel, columns, activation, more, out, rows, scratch):
    """`rows` rows of `lhs` by the first `columns` of a panel.

    A panel that doesn't fill its vectors is computed whole, with zero weights and biases, into `scratch`, and its
    columns are copied out. `scratch` holds NR biases and then MR * NR values. `more`, laid out as `out`, is added to
    the results unless it is empty.
    """
    width = (columns + HALF - 1) // HALF * HALF
    adds = more.size > 0
    at_once = adds and columns == width and activation not in LEFT_OUT
    if columns == width:
        compute(lhs, panel, width, activation, more, at_once, out, rows)
    else:
        for j in range(width):
            scratch[j] = panel.bias[panel.channel + j] if j < columns else np.float32(0)
        filled = Panel(panel.weights, panel.at, panel.segment, scratch, 0)
        for first in range(0, rows, MR):
            count = min(MR, rows - first)
            some = Lhs(lhs.data, lhs.at + first * lhs.step, lhs.step, lhs.segment, lhs.segments, lhs.depth)
            compute(some, filled, width, activation, more, False, Cells(scratch, NR, NR), count)
            for r in range(count):
                for j in range(columns):
                    out.data[out.at + (first + r) * out.step + j] = scratch[NR + r * NR + j]
    if activation in LEFT_OUT:
        for r in range(rows):
            activate_all(out.data, out.at + r * out.step, columns, activation)
    if adds and not at_once:
        for r in range(rows):
            first = out.at + r * out.step
            for i in range(first, first + columns):
                out.data[i] = out.data[i] + more[i]


new_scratch = stack_array((1 + MR) * NR, "float32")  # what block needs


@register_jitable
def matrix_block(x, depth, layer, out, rows, panels, scratch):
    """Rows rows[0] ... rows[1] - 1 by panels panels[0] ... panels[1] - 1 of a matrix product.

    x, out: Cells, from row 0 on, out's step being the number of channels. layer: its arrays flat.
    """
    row, stop = rows
    for p in range(panels[0], panels[1]):
        first = p * NR
        lhs = Lhs(x.data, x.at + row * x.step, x.step, 0, 1, depth)
        panel = Panel(layer.weights, p * depth * NR, 0, layer.bias, first)
        to = Cells(out.data, out.at + row * out.step + first, out.step)
        block(lhs, panel, min(NR, out.step - first), layer.activation, layer.more, to, stop - row, scratch)


@register_jitable
def matrix_rows(x, depth, layer, out, first, stop, scratch):
    """Rows first ... stop - 1 of a matrix product, some at a time: they stay near while the panels stream by.

    See matrix_block.
    """
    panels = (out.step + NR - 1) // NR
    rows = max(NEAR // max(depth, 1) // MR * MR, BLOCK)
    for row in range(first, stop, rows):
        matrix_block(x, depth, layer, out, (row, min(row + rows, stop)), (0, panels), scratch)
