"""Fast twin of reference/pointwise_conv2d.py: the same sums, four or two products at a time."""

from __future__ import annotations

from npmobilenet.kernels.compiler.task import task
from npmobilenet.kernels.compiler.work_sharing import PER_THREAD
from npmobilenet.kernels.fast.gemm_s8 import KR, Layer, gemm_block, new_accumulators, pack_rhs
from npmobilenet.kernels.fast.lhs_packing import gather_rows, new_sums
from npmobilenet.kernels.fast.pointwise_conv2d import MANY, share, units_of
from npmobilenet.kernels.vectorcode.generated import Cells, Lhs, flat_view

ROOM = 16384  # bytes of rows that pass over all panels together: half of a first-level cache


def pack_pointwise_conv2d_q(weights, bias, zero_points):
    """(Cin, Cout) -> panels of output channels in groups of products, see gemm_s8.pack_rhs."""
    return pack_rhs(weights, bias, zero_points)


def blocks(x, weights, bias, zero_points, requant, out):
    """As the float kernel's; where units are single panels, each piece has to gather all rows."""
    return share(x, weights, out, PER_THREAD if x.shape[0] >= MANY else 1)


@task(blocks)
def pointwise_conv2d_q(start, stop, x, weights, bias, zero_points, requant, out):
    """As the reference. Moves: weights in panels of grouped products; rows read where they are, or copied into the form
    that the tiles need; register tiles of MR pixels, requantized in the registers where lines do (linear_requant.py),
    else while in the first-level cache; units as the float kernel's, as many at once as follow each other.
    """
    pixels, depth = x.shape
    channels = out.shape[1]
    panels, padded = weights.shape[0], weights.shape[1] * KR
    flat_x, flat_out, layer = flat_view(x), flat_view(out), Layer(flat_view(weights), bias, requant)
    rows, _ = units_of(pixels, channels, False)
    groups = (pixels + rows - 1) // rows
    many, acc = pixels >= MANY, new_accumulators()
    together = max(ROOM // (rows * padded), 1) * rows if many else pixels
    sums = new_sums(x, zero_points, together)
    everything = gather_rows(flat_x, depth, 0, 0 if many else pixels, padded, zero_points, sums)
    unit = start
    while unit < stop:
        first = unit % groups * rows
        count = min(together, (stop - unit) * rows, pixels - first)
        to = Cells(flat_out, first * channels, channels)
        if many:
            buffer = gather_rows(flat_x, depth, first, count, padded, zero_points, sums)
            gemm_block(Lhs(buffer, 0, padded, 0, 1, weights.shape[1]), sums, layer, to, count, (0, panels), acc)
        else:
            rows_of = Lhs(everything, first * padded, padded, 0, 1, weights.shape[1])
            gemm_block(rows_of, sums[first:], layer, to, count, (unit // groups, unit // groups + 1), acc)
        unit += (count + rows - 1) // rows
