"""Fast twin of reference/pointwise_conv2d.py: the same sums, four or two products at a time."""

from __future__ import annotations

from npmobilenet.kernels.compiler.program import PER_THREAD
from npmobilenet.kernels.compiler.task import task
from npmobilenet.kernels.fast.gemm_s8 import KR, gemm_block, new_accumulators, pack_rhs
from npmobilenet.kernels.fast.lhs_packing import gather_rows, new_sums
from npmobilenet.kernels.fast.pointwise_conv2d import MANY, share, units_of

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
    flat_x, flat_w, flat_out = x.reshape(-1), weights.reshape(-1), out.reshape(-1)
    rows, _ = units_of(pixels, channels)
    groups = (pixels + rows - 1) // rows
    many, acc = pixels >= MANY, new_accumulators()
    together = max(ROOM // (rows * padded), 1) * rows if many else pixels
    sums = new_sums(x, zero_points, together)
    everything = gather_rows(flat_x, depth, 0, 0 if many else pixels, padded, zero_points, sums)
    unit = start
    while unit < stop:
        first = unit % groups * rows
        count = min(together, (stop - unit) * rows, pixels - first)
        if many:
            buffer = gather_rows(flat_x, depth, first, count, padded, zero_points, sums)
            gemm_block(buffer, 0, padded, 0, 1, weights.shape[1], flat_w, sums, bias, requant, flat_out, channels,
                       first, count, 0, panels, acc)  # fmt: skip
        else:
            panel = unit // groups
            gemm_block(everything, first * padded, padded, 0, 1, weights.shape[1], flat_w, sums[first:], bias, requant,
                      flat_out, channels, first, count, panel, panel + 1, acc)  # fmt: skip
        unit += (count + rows - 1) // rows
