"""Transposed convolutions as plain ones, of the image with zeros between its pixels, by the kernel turned around."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from npmobilenet.ops import Padding, same_padding


def spread(shape: Sequence[int], step: tuple[int, int]) -> list[tuple[str, dict[str, Any]]]:
    """The nodes, as (op, attributes), that put `step - 1` zeros behind each row and column of (1, h, w, c)."""
    _, h, w, c = shape
    nodes: list[tuple[str, dict[str, Any]]] = []
    for pixels, inner, gap in ((h * w, c, step[1]), (h, w * step[1] * c, step[0])):
        if gap > 1:
            nodes.append(("reshape", {"shape": (1, pixels, 1, inner)}))
            nodes.append(("pad", {"padding": ((0, 0), (0, gap - 1))}))
    return [*nodes, ("reshape", {"shape": (1, h * step[0], w * step[1], c)})] if nodes else []


def transposed_padding(
    shape: Sequence[int], size: Sequence[int], kernel: tuple[int, int], step: tuple[int, int], same: bool
) -> Padding:
    """The padding with which the plain convolution gives an image of `size` from one of `shape`, (1, h, w, c).

    Negative where the output leaves pixels out. Source: LiteRT, tflite/kernels/internal/reference/transpose_conv.h,
    commit f67457790: "SAME" is that of the convolution which it turns around.
    """
    before = [same_padding(size[i], kernel[i], step[i])[0] if same else 0 for i in (0, 1)]
    top, left = ((kernel[i] - 1 - before[i], size[i] - shape[1 + i] * step[i] + before[i]) for i in (0, 1))
    return top, left
