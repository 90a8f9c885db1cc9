"""A device with one fault, in plain NumPy: its own arithmetic, nothing of npmobilenet's kernels or hypotheses.

`Layer` holds a node's numbers and computes it as TFLite's reference kernels do; a fault changes its numbers, its arrays
or a step before it is computed. That it is right without a fault is checked each time (`Layer.check`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from npmobilenet.graph import Node
from npmobilenet.modeldata import Array, ModelData

LAYERS = ("conv2d", "depthwise_conv2d", "fully_connected")


def fixed(factor: float) -> tuple[int, int]:
    """A factor as a 31-bit multiplier and a power of two."""
    if factor == 0:
        return 0, 0
    fraction, exponent = math.frexp(factor)
    whole = math.floor(fraction * (1 << 31) + 0.5)
    return (whole // 2, exponent + 1) if whole == 1 << 31 else (whole, exponent)


def double(acc: Array, m: Any, s: Any) -> Array:
    """gemmlowp's two roundings, by floor division."""
    m, s = np.asarray(m, np.int64), np.asarray(s, np.int64)
    high = (acc * 2 ** np.maximum(s, 0) * m + 2**30) // 2**31
    unit = 2 ** np.clip(-s, 0, 40)  # more gives 0 as well
    return np.asarray(np.sign(high) * ((2 * np.abs(high) + unit) // (2 * unit)))


def real(acc: Array, m: Any, s: Any) -> Array:
    """The exact product, as float64 (53 bits are enough for what is asked of it)."""
    return np.asarray(acc * (np.asarray(m, np.float64) * 2.0 ** (np.asarray(s, np.float64) - 31)))


class Layer:
    """A node of one of LAYERS."""

    def __init__(self, data: ModelData, node: Node, values: Mapping[str, Array]) -> None:
        tensors = data.graph.tensors
        x, w, b = node.inputs
        self.op, self.attrs, self.name = node.op, node.attrs, node.output
        self.x = values[x].astype(np.int64)
        self.w, self.b = data.tensors[w].astype(np.int64), data.tensors[b].astype(np.int64)
        q_x, q_w, q_o = (tensors[n].quantization for n in (x, w, node.output))
        assert q_x is not None
        assert q_w is not None
        assert q_o is not None
        self.zx, self.zw, self.zo = q_x.zero_point[0], q_w.zero_point[0], q_o.zero_point[0]
        self.dtype = tensors[node.output].dtype
        self.shape = (len(self.x), *tensors[node.output].shape[1:])
        self.sx, self.so = np.float32(q_x.scale[0]), np.float32(q_o.scale[0])
        self.sw = np.array(q_w.scale, np.float32)
        single = len(self.sw) == 1 and (self.dtype == "uint8" or self.op == "fully_connected")
        product = (self.sx * self.sw).astype(np.float64) if single else np.float64(self.sx) * self.sw.astype(np.float64)
        self.float = np.float64(self.sx) * self.sw.astype(np.float64) / np.float64(self.so)
        self.rescale(np.broadcast_to(product / np.float64(self.so), self.b.shape))
        own = np.iinfo(self.dtype)
        self.least, self.most = int(own.min), int(own.max)
        self.low, self.high = self.least, self.most
        bounds = {"relu": (0.0, None), "relu6": (0.0, 6.0)}.get(self.attrs.get("activation", "none"), (None, None))
        if bounds[0] is not None:
            self.low = max(self.least, self.zo)
        if bounds[1] is not None:
            self.high = min(self.most, self.zo + int(np.floor(np.float32(bounds[1]) / self.so + np.float32(0.5))))
        pads = self.attrs.get("padding", ((0, 0), (0, 0)))
        self.top, self.left = pads[0][0], pads[1][0]
        self.bottom, self.right = pads[0][1], pads[1][1]
        self.stride = self.attrs.get("stride", (1, 1))
        self.dilation = self.attrs.get("dilation", (1, 1))
        self.fill: int | None = None
        self.border = "constant"
        self.dx = 0  # added to every input, behind the zero point
        self.sums: Callable[[Array], Array] = lambda acc: acc
        self.scaled: Callable[[Array, Any, Any], Array] = double
        self.clamped: Callable[[Array], Array] = lambda v: np.clip(v + self.zo, self.low, self.high)

    def rescale(self, factors: Array) -> None:
        """Multipliers and shifts for these factors."""
        pairs = [fixed(float(f)) for f in factors]
        self.m, self.s = (np.array(part, np.int64) for part in zip(*pairs, strict=True))

    def accumulators(self) -> Array:
        """Bias and products."""
        w = self.w - self.zw
        if self.op == "fully_connected":
            return np.asarray(self.x.reshape(-1, w.shape[0]) - self.zx) @ w + self.b
        kh, kw = w.shape[:2]
        _, oh, ow, _ = self.shape
        far = 2 * max(kh * self.dilation[0], kw * self.dilation[1]) + 8
        wide = ((0, 0), (far, far), (far, far), (0, 0))
        if self.border == "constant":
            image = np.pad(self.x, wide, constant_values=self.zx if self.fill is None else self.fill)
        else:
            image = np.pad(self.x, wide, mode=self.border)  # type: ignore[call-overload]
        image = image - self.zx
        acc = np.zeros(self.shape, np.int64) + self.b
        for ky in range(kh):
            for kx in range(kw):
                y, x = far - self.top + ky * self.dilation[0], far - self.left + kx * self.dilation[1]
                part = image[
                    :, y : y + oh * self.stride[0] : self.stride[0], x : x + ow * self.stride[1] : self.stride[1]
                ]
                part = part[:, :oh, :ow]
                if self.op == "depthwise_conv2d":
                    acc += np.repeat(part, w.shape[2] // part.shape[3], axis=3) * w[ky, kx]
                else:
                    acc += (part.astype(np.float64) @ w[ky, kx].astype(np.float64)).astype(np.int64)
        return acc

    def output(self) -> Array:
        """What the device writes."""
        acc = self.sums(self.accumulators())
        if self.op == "fully_connected" and self.scaled is double:
            v = acc * np.broadcast_to(self.float, self.b.shape)
            out = np.trunc(v + np.copysign(0.5, v)).astype(np.int64)
        else:
            out = self.scaled(acc, self.m, self.s)
        wrapped = (self.clamped(np.asarray(out)).astype(np.int64) - self.least) % 256 + self.least
        return wrapped.astype(self.dtype).reshape(self.shape)


def addition(a: Array, b: Array, p: Mapping[str, Any], scaled: Callable[..., Array] = double) -> Array:
    """TFLite's sum of two 8-bit tensors, before zero point and clamp; p: za, zb, sa, sb, so."""
    most = 2 * max(p["sa"], p["sb"])
    parts = [double((v.astype(np.int64) - z) << 20, *fixed(float(s / most)))
             for v, z, s in ((a, p["za"], p["sa"]), (b, p["zb"], p["sb"]))]  # fmt: skip
    return scaled(parts[0] + parts[1], *fixed(float(most / (2.0**20 * p["so"]))))
