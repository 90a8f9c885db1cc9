"""Layers with int8 weights on a float32 input: how each runtime quantizes the input while running, and scales the sums.

Both were read from the kernels' names below and settled by their bits (tests/kernels/test_dynamic_range.py).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from npmobilenet.arithmetic.dialects import Dialect
from npmobilenet.arithmetic.fixedpoint import INT32_MAX, Rounding, VectorRule, everywhere, in_vectors, rounding
from npmobilenet.errors import PlanError
from npmobilenet.modeldata import Array
from npmobilenet.ops import Node, Tensor

LANES = 4  # channels that TFLite's optimized depthwise kernel scales together; the rest go by "row_first"
MOST_STEP = 255 * 127  # of a product: an input less its zero point, a weight


class DynamicRange(NamedTuple):
    """How rows are quantized, and how the sums of each channel are scaled."""

    quantization: int
    order: VectorRule
    by_rows: bool = False  # whether each row along the last dimension has a scale, and not each image


def applies(x: Tensor, weights: Tensor) -> bool:
    """Whether a layer is of this kind."""
    return x.dtype == "float32" and weights.dtype == "int8"


def rules(node: Node, weights: Tensor, dialect: Dialect) -> DynamicRange:
    """The node's rules under a dialect. Raises `PlanError` for sums that int32 may not hold.

    A convolution with one scale for all channels takes its input symmetrically, a fully connected layer as the file
    says; XNNPACK takes all asymmetrically, and a pointwise convolution, a product of matrices there, pixel by pixel.
    """
    q, channels = weights.quantization, weights.shape[-1]
    if q is None or set(q.zero_point) != {0}:
        raise PlanError(
            f"node '{node.name}' ({node.op}): int8 weights of a float32 input need scales and zero points 0"
        )
    if weights.size // channels * MOST_STEP > INT32_MAX:
        raise PlanError(f"node '{node.name}' ({node.op}): sums of {weights.size // channels} products may leave int32")
    rule = dialect.rule(f"{node.op}:dynamic")
    if rule == "fused" and node.open_shapes:
        rule = dialect.rule(f"{node.op}:undelegated:dynamic")
    if rule == "fused":
        window = weights.shape[:-2], node.attrs.get("stride"), node.attrs.get("padding")
        pointwise = window == ((1, 1), (1, 1), ((0, 0), (0, 0)))
        flat = pointwise or node.op == "fully_connected"
        return DynamicRange(Rounding.ASYMMETRIC_RECIPROCAL, everywhere(Rounding.FUSED), flat)
    single = len(q.scale) == 1 and node.op == "conv2d"
    asymmetric = node.attrs.get("asymmetric", False) if node.op == "fully_connected" else not single
    if rule == "vectors":
        order = in_vectors(Rounding.CHANNEL_FIRST, Rounding.ROW_FIRST, channels, LANES)
    else:
        order = everywhere(Rounding.PRODUCT if single else rounding(rule))
    kind = Rounding.ASYMMETRIC if asymmetric else Rounding.SYMMETRIC
    return DynamicRange(kind, order, node.op == "fully_connected")


def borders(
    weights: Array, node: Node, size_in: tuple[int, int], size_out: tuple[int, int]
) -> tuple[Array, Array, Array]:
    """The sums of the weights that fall inside the image, which differ at its borders only.

    A table (rows, columns, channels), and which entry each output row and column takes.
    """
    taps, channels = weights.shape[:2], weights.shape[-1]
    kinds, places = [], []
    for side in (0, 1):
        stride, dilation = node.attrs["stride"][side], node.attrs.get("dilation", (1, 1))[side]
        at = np.arange(size_out[side])[:, None] * stride - node.attrs["padding"][side][0]
        at = at + np.arange(taps[side]) * dilation
        inside = (at >= 0) & (at < size_in[side])
        found, place = np.unique(inside, axis=0, return_inverse=True)
        kinds.append(found.astype(np.int64))
        places.append(place.reshape(-1).astype(np.int32))
    flat = weights.astype(np.int64).reshape(*taps, -1, channels).sum(2)
    table = np.einsum("yk,xl,klc->yxc", *kinds, flat).astype(np.int32)
    return np.ascontiguousarray(table), places[0], places[1]
