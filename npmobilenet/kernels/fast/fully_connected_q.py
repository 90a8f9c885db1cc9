"""Fast twin of reference/fully_connected.py: a pointwise convolution whose pixels are the images."""

from __future__ import annotations

from npmobilenet.kernels.fast.pointwise_conv2d_q import pack_pointwise_conv2d_q as pack_fully_connected_q
from npmobilenet.kernels.fast.pointwise_conv2d_q import pointwise_conv2d_q as fully_connected_q

__all__ = ["fully_connected_q", "pack_fully_connected_q"]
