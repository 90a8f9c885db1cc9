"""The binder of a group of nodes: expansion, depthwise convolution and projection by bands of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from npmobilenet.graph import Node
from npmobilenet.kernels import KernelSet
from npmobilenet.modeldata import Array
from npmobilenet.runtime.binding.context import Step, code_of, top_left

# Bytes of the expanded and the filtered rows of a band: with 128 KiB V2 1.0_224's 112 x 112 and 56 x 56 layers took
# 8 % longer, with 900 KiB 3 %, on a core with 1 MiB of second-level cache.
BAND_BYTES = 384 << 10


def bind_row_tiled_block(nodes: Sequence[Node], arrays: Mapping[str, Array], kernels: KernelSet) -> Step:
    """One kernel call for two or three nodes, the depthwise one among them, and perhaps for an addition at the end.

    Raises nothing: runtime/fusion.py has chosen.
    """
    more = residual(nodes, arrays)
    at = next(i for i, node in enumerate(nodes) if node.op == "depthwise_conv2d")
    node = nodes[at]
    x, out = arrays[nodes[0].inputs[0]], arrays[nodes[-1].output]
    filters, bias = arrays[node.inputs[1]], arrays[node.inputs[2]]
    stride, dilation = node.attrs["stride"], node.attrs.get("dilation", (1, 1))
    rows = _rows(x.shape[2], out.shape[1:3], filters.shape, stride[0], dilation[0])
    args = (
        x,
        _pointwise(nodes[:at], arrays, kernels),
        (filters, bias, code_of(node)),
        (stride, top_left(node), dilation),
        _pointwise(nodes[at + 1 : at + 2], arrays, kernels),
        rows,
        more,
        out,
    )
    return Step(kernels.row_tiled_block_f32, args, joined(nodes))


def joined(nodes: Sequence[Node]) -> str:
    """The name of a step that computes these nodes."""
    return " + ".join(node.name for node in nodes)


def residual(nodes: Sequence[Node], arrays: Mapping[str, Array]) -> Array:
    """What the addition at the end adds to the output of the node before; empty where there is none."""
    *_, before, last = nodes
    if last.op != "add":
        return np.zeros((0, 0, 0, 0), np.float32)
    first, second = last.inputs
    return arrays[second if first == before.output else first]


def _pointwise(nodes: Sequence[Node], arrays: Mapping[str, Array], kernels: KernelSet) -> tuple[Array, Array, int]:
    """Packed weights, bias and activation; empty ones where there is no such node."""
    if not nodes:
        return np.zeros((0, 0), np.float32), np.zeros(0, np.float32), 0
    weights, bias = (arrays[name] for name in nodes[0].inputs[1:])
    return kernels.pack("pointwise_conv2d_f32", weights[0, 0]), bias, code_of(nodes[0])


def _rows(in_w: int, out_size: tuple[int, ...], filters: tuple[int, ...], stride: int, dilation: int) -> int:
    """The most output rows whose expanded and filtered lines fit into BAND_BYTES: one, or an even number.

    Rows are filtered two at a time.
    """
    out_h, out_w = out_size
    kernel_h, _, channels = filters
    overlap = (kernel_h - 1) * dilation + 1 - stride
    each = 4 * channels * (stride * in_w + out_w)
    rows = min(out_h, (BAND_BYTES - 4 * channels * overlap * in_w) // each)
    return max(1, rows - rows % 2)
