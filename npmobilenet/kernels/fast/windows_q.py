"""Windows of an image as rows of a matrix product, read where they are."""

from __future__ import annotations

import numpy as np
from numba.extending import register_jitable

from npmobilenet.kernels.fast.tiles_q import IN_PLACE, dot_block, is_signed, row_sum_vectors

LONG = 64  # values from which on a vectorized sum pays

if IN_PLACE:

    @register_jitable
    def window_sum(x, at, segment, lines, count, zeros):
        """What the tile subtracts for a window: v' times the sum over `lines` runs of `count` values (pack_dot)."""
        v, total = zeros[1] + (128 if is_signed(x) else -128), np.int32(0)
        for line in range(lines if v != 0 else 0):
            first = at + line * segment
            whole = count // 4 * 4 if count >= LONG else 0
            if whole > 0:
                total += row_sum_vectors(x, first, whole)
            for k in range(first + whole, first + count):
                total += np.int32(x[k])
        return np.int32(v * total)

    @register_jitable
    def short_window_sums(x, at, row_step, segment, lines, window, count, factor, sums):
        """window_sum of `count` windows that overlap: sums over the lines, then over all up to each value."""
        length = (count - 1) * row_step + window
        totals = np.zeros(length + 1, np.int32)
        columns = totals[1:]
        for line in range(lines):
            values = x[at + line * segment : at + line * segment + length]
            for i in range(length):
                columns[i] += np.int32(values[i])
        for i in range(length):
            totals[i + 1] += totals[i]
        for r in range(count):
            sums[r] = np.int32(factor * (totals[r * row_step + window] - totals[r * row_step]))

    @register_jitable
    def windows_in_place(x, at, row_step, segment, lines, window, groups, w, sums, bias, zeros, step, out, channels,
                         first, count, panels, acc):  # fmt: skip
        """`count` windows, `row_step` apart in x: `lines` runs of `window` values, `segment` apart."""
        factor = zeros[1] + (128 if is_signed(x) else -128)
        if factor != 0 and window < LONG and row_step <= window:
            short_window_sums(x, at, row_step, segment, lines, window, count, factor, sums)
        else:
            for r in range(count):
                sums[r] = window_sum(x, at + r * row_step, segment, lines, window, zeros)
        dot_block(x, at, row_step, segment, lines, groups, w, sums, bias, step, out, channels, first, count, 0, panels,
                  acc)  # fmt: skip

else:

    @register_jitable
    def windows_in_place(x, at, row_step, segment, lines, window, groups, w, sums, bias, zeros, step, out, channels,
                         first, count, panels, acc):  # fmt: skip
        """Never called: tiles that multiply int16 can't read bytes."""
