"""Kernel sets: the book (`reference`) and its fast twin, same ops, same names, equal bits.

`kernel_set(name)` gives an object whose attributes are the kernels, compiled on first use. Importing this module does
not import Numba.
"""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Callable
from typing import Any

from npmobilenet.errors import PlanError

# Kernel -> the module, below reference/ and below fast/, that holds it. Adding an op adds its kernels here.
KERNELS = {
    "conv2d_f32": "conv2d",
    "depthwise_conv2d_f32": "depthwise_conv2d",
    "pointwise_conv2d_f32": "pointwise_conv2d",
    "fully_connected_f32": "fully_connected",
    "average_pool_f32": "average_pool",
    "mean_f32": "mean",
    "add_f32": "binary",
    "sub_f32": "binary",
    "mul_f32": "binary",
    "activation_f32": "activation",
    "softmax_f32": "softmax",
    "pad_f32": "move",
    "reshape_f32": "move",
    "concat_f32": "move",
    "resize_bilinear_f32": "resize_bilinear",
}

SETS = ("reference", "fast", "python")


class KernelSet:
    """One of: "reference" (the book, compiled as it stands), "fast", "python" (the book, not compiled: very slow).

    A kernel is an attribute: `kernel_set("fast").conv2d_f32(x, weights, ...)`. Kernels that want their weights in
    another layout have a function `pack_<kernel>` beside them; `pack` applies it and is the identity elsewhere.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._compiled: dict[str, Callable[..., None]] = {}

    def __getattr__(self, kernel: str) -> Callable[..., None]:
        if kernel.startswith("_") or kernel not in KERNELS:
            raise AttributeError(f"no kernel is called '{kernel}'")
        found = self._compiled.get(kernel)
        if found is None:
            found = self._compiled[kernel] = self._load(kernel)
        return found

    def _load(self, kernel: str) -> Callable[..., None]:
        if self.name != "python" and os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
            raise PlanError("NUMBA_DISABLE_JIT is set, so no kernel can be compiled: unset it, or use kernels='python'")
        folder = "fast" if self.name == "fast" else "reference"
        module = importlib.import_module(f"npmobilenet.kernels.{folder}.{KERNELS[kernel]}")
        function: Callable[..., None] = getattr(module, kernel)
        if self.name == "reference":
            from npmobilenet.kernels.jit import compile_kernel

            return compile_kernel(function)
        return function

    def pack(self, kernel: str, weights: Any) -> Any:
        """The weights in the layout that `kernel` of this set reads."""
        if self.name != "fast":
            return weights
        module = importlib.import_module(f"npmobilenet.kernels.fast.{KERNELS[kernel]}")
        pack = getattr(module, f"pack_{kernel}", None)
        return weights if pack is None else pack(weights)


@functools.cache
def kernel_set(name: str) -> KernelSet:
    """The kernel set of that name. Raises `PlanError` for an unknown one."""
    if name not in SETS:
        raise PlanError(f"kernels='{name}' is not one of {', '.join(map(repr, SETS))}")
    return KernelSet(name)
