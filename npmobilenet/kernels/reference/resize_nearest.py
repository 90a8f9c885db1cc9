"""Resizing an image to the nearest pixel; which one that is, tables say (arithmetic/resize.py: nearest)."""

from __future__ import annotations


def nearest_pixels(x, rows, columns, out):
    """out[n,oy,ox,c] = x[n, rows[oy], columns[ox], c].

    x: (N, H, W, C) of any dtype. rows: (OH,), columns: (OW,) int32. out: (N, OH, OW, C).
    """
    for n in range(out.shape[0]):
        for oy in range(out.shape[1]):
            for ox in range(out.shape[2]):
                for c in range(out.shape[3]):
                    out[n, oy, ox, c] = x[n, rows[oy], columns[ox], c]


def resize_nearest_f32(x, rows, columns, out):
    """As nearest_pixels, of float32."""
    nearest_pixels(x, rows, columns, out)


def resize_nearest_q(x, rows, columns, out):
    """As nearest_pixels, of uint8 or int8."""
    nearest_pixels(x, rows, columns, out)
