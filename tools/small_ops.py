"""A small model of the ops that the zoo's models lack: max pool, concat, pad, mean, resize, quantize."""

from __future__ import annotations

from typing import Any

from npmobilenet.graph import GraphBuilder, Quantization
from npmobilenet.modeldata import ModelData, ModelInfo


def small_ops(dtype: str) -> ModelData:
    """Pools with padding, a concatenation, paddings, a resize, means, a softmax in int8 or uint8."""
    z = 0 if dtype == "int8" else 128
    b = GraphBuilder(f"small_ops_{dtype}")

    def node(op: str, inputs: list[str], name: str, scale: float, zero: int, **attrs: Any) -> str:
        q = Quantization((scale,), (z + zero,), None)
        return b.node(op, inputs, name, dtype=dtype, quantization=q, **attrs)

    x = b.input("input", (1, 13, 13, 8), dtype, quantization=Quantization((0.02,), (z - 30,), None), source="#0")
    window: dict[str, Any] = {"kernel": (3, 3), "stride": (2, 2), "padding": ((1, 1), (1, 1))}
    most = node("max_pool", [x], "most", 0.02, -30, **window)
    some = node("average_pool", [x], "some", 0.02, -30, **window)
    other = node("quantize", [some], "other", 0.02 if dtype == "int8" else 0.013, -30 if dtype == "int8" else 7)
    both = node("concat", [most, other], "both", 0.02, -30, axis=3)
    wide = node("pad", [both], "wide", 0.02, -30, padding=((1, 2), (0, 3)))
    size: dict[str, Any] = {"size": (15, 15), "align_corners": False, "half_pixel_centers": True}
    large = node("resize_bilinear", [wide], "large", 0.02, -30, **size)
    narrow = node("quantize", [large], "narrow", 0.031, 4)
    mean = node("mean", [narrow], "mean", 0.01, 9, keepdims=False)
    last = Quantization((1 / 256,), (z - 128,), None)
    b.node("softmax", [mean], "softmax", dtype=dtype, quantization=last, beta=1.0)
    return ModelData(b.finish(["softmax"]), {}, ModelInfo(b.name))
