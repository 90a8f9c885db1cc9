"""The rows that the tiles of dot products read (gemm_s8.pack_rhs): where they are, or copied, and their sums."""

from __future__ import annotations

import numpy as np

from npmobilenet.kernels.compiler.deferred import as_dtype, from_dtype, overload, register_jitable
from npmobilenet.kernels.fast.gemm_s8 import KIND, KR, LANE, LANE_KIND, SIGN_OFFSET
from npmobilenet.kernels.vectorcode.gemm_s8 import BYTES
from npmobilenet.kernels.vectorcode.generated import Lhs
from npmobilenet.kernels.vectorcode.lhs_row_sums import row_sums_kernel


def is_signed(x):
    """Whether x is int8."""
    return x.dtype == np.int8


@overload(is_signed)
def _is_signed(x):
    signed = str(x.dtype) == "int8"
    return lambda x: signed


def new_rows(x, size):
    """A buffer for copied rows."""
    return np.empty(size, rows_dtype(x.dtype))


def rows_dtype(dtype):
    """What the tiles read for x of a dtype, see gemm_s8.pack_rhs."""
    if KIND not in BYTES:
        return np.dtype(np.int16)
    return np.dtype(np.uint8) if SIGN_OFFSET else np.dtype(dtype)


@overload(new_rows)
def _new_rows(x, size):
    dtype = from_dtype(rows_dtype(as_dtype(x.dtype)))
    return lambda x, size: np.empty(size, dtype)


if KIND in BYTES:
    sum_rows = row_sums_kernel(LANE_KIND, LANE)

    @register_jitable
    def as_row_value(x, value, z_in):
        """A value of x, or its zero point, as the tiles read it."""
        return value + (SIGN_OFFSET if is_signed(x) else 0)

    @register_jitable
    def zero_of_weights(x, zero_points):
        """v', see gemm_s8.pack_rhs."""
        return zero_points[1] - (0 if is_signed(x) else SIGN_OFFSET)

    @register_jitable
    def row_sums(rows, count, x, zero_points, sums):
        """What the tile subtracts for each of `count` rows: v' times the sum of its values (Lhs.depth of a segment).

        Nothing where there are no sums.
        """
        if sums.size > 0:
            sum_rows(rows, count, zero_of_weights(x, zero_points), sums)

else:

    @register_jitable
    def as_row_value(x, value, z_in):
        """A value of x, or its zero point, as the tiles read it."""
        return np.int16(value) - np.int16(z_in)

    @register_jitable
    def zero_of_weights(x, zero_points):
        """v', see gemm_s8.pack_rhs."""
        return 0

    @register_jitable
    def row_sums(rows, count, x, zero_points, sums):
        """Nothing: there are no sums."""


def rows_in_place(x, depth, first, count):
    """Rows that the tiles can read where they are: (whether that is so, they)."""
    there = depth % KR == 0 and rows_dtype(x.dtype) == x.dtype
    return there, x[first * depth : (first + count) * depth]


@overload(rows_in_place)
def _rows_in_place(x, depth, first, count):
    if rows_dtype(as_dtype(x.dtype)) == as_dtype(x.dtype):
        return lambda x, depth, first, count: (depth % KR == 0, x[first * depth : (first + count) * depth])
    return lambda x, depth, first, count: (False, new_rows(x, 0))


@register_jitable
def new_sums(x, zero_points, count):
    """Room for the sums of rows; none where the tiles need none."""
    return np.empty(count if zero_of_weights(x, zero_points) != 0 else 0, np.int32)


@register_jitable
def copy_rows(x, buffer, z_in):
    """Values of x as the tiles read them: a loop by itself, which LLVM makes vectors of."""
    for k in range(buffer.size):
        buffer[k] = as_row_value(x, x[k], z_in)


@register_jitable
def gather_rows(x, depth, first, count, padded, zero_points, sums):
    """Rows first ... first + count - 1 of a flat x as the tiles read them, and what to subtract for each."""
    there, buffer = rows_in_place(x, depth, first, count)
    if not there:
        buffer = new_rows(x, count * padded)
        source = x[first * depth : (first + count) * depth]
        if depth == padded:
            copy_rows(source, buffer, zero_points[0])
        else:
            for r in range(count):
                row = buffer[r * padded : (r + 1) * padded]
                copy_rows(source[r * depth : (r + 1) * depth], row[:depth], zero_points[0])
                row[depth:] = 0
    row_sums(Lhs(buffer, 0, padded, 0, 1, padded), count, x, zero_points, sums)
    return buffer
