"""Kernel sets: the reference kernels and their fast twins, same ops, same names, equal bits.

`kernel_set(name)` gives an object whose attributes are the kernels, compiled on first use. Importing this module does
not import Numba.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import itertools
import os
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

import numpy as np

from npmobilenet.errors import PlanError
from npmobilenet.kernels.compiler.packed_arena import into_arena
from npmobilenet.ops import OPS


def _kernels(ending: str) -> dict[str, str]:
    found = (kernel.split(".") for spec in OPS.values() for kernel in spec.kernels)
    return {kernel: module for module, kernel in found if kernel.endswith(ending)}


# Kernel -> the module, below reference/ and below fast/, that holds it, as the table of ops says. The fast twin of an
# 8-bit kernel may have a file of its own beside that one, whose name then ends in _q: those of convolutions and of sums
# are long, and float models needn't wait 0.1 s for them.
KERNELS = _kernels("_f32") | _kernels("_q")

# Kernels that compute several nodes at once. The reference set has none of them.
FUSED = {
    "row_tiled_block_f32": "row_tiled_block",
    "pointwise_add_f32": "pointwise_conv2d",
    "squeeze_excite_f32": "squeeze_excite",
}

SETS = ("reference", "fast", "python")


def module_of(folder: str, kernel: str) -> ModuleType:
    """The module below `folder`, "reference" or "fast", that holds a kernel."""
    name = f"npmobilenet.kernels.{folder}.{(KERNELS | FUSED)[kernel]}"
    apart = folder == "fast" and kernel.endswith("_q") and importlib.util.find_spec(f"{name}_q")
    return importlib.import_module(f"{name}_q" if apart else name)


class KernelSet:
    """One of: "reference" (compiled as it stands), "fast", "python" (the reference, not compiled: very slow).

    A kernel is an attribute: `kernel_set("fast").conv2d_f32(x, weights, ...)`. Kernels that want their weights in
    another layout have a function `pack_<kernel>` beside them; `pack` applies it and is the identity elsewhere.
    """

    def __init__(self, name: str, packed: dict[Any, Any] | None = None) -> None:
        self.name = name
        self._compiled: dict[str, Callable[..., None]] = {}
        self._packed = packed

    def keeping(self, packed: dict[Any, Any]) -> KernelSet:
        """The same kernels, which pack each weight once and keep the result in `packed`: plans of a model share it."""
        same = KernelSet(self.name, packed)
        same._compiled = self._compiled
        return same

    def __getattr__(self, kernel: str) -> Callable[..., None]:
        if kernel.startswith("_") or kernel not in (KERNELS | FUSED if self.name == "fast" else KERNELS):
            raise AttributeError(f"no kernel is called '{kernel}'")
        found = self._compiled.get(kernel)
        if found is None:
            found = self._compiled[kernel] = self._load(kernel)
        return found

    def _load(self, kernel: str) -> Callable[..., None]:
        if self.name != "python" and os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
            raise PlanError("NUMBA_DISABLE_JIT is set, so no kernel can be compiled: unset it, or use kernels='python'")
        folder = "fast" if self.name == "fast" else "reference"
        function: Callable[..., None] = getattr(module_of(folder, kernel), kernel)
        if self.name == "reference":
            from npmobilenet.kernels.compiler.jit import compile_kernel

            return compile_kernel(function)
        return function

    def pack(self, kernel: str, weights: Any) -> Any:
        """The weights in the layout that `kernel` of this set reads."""
        return self._pack(kernel, (weights,))[0]

    def pack_q(
        self, kernel: str, weights: Any, bias: Any, zero_points: tuple[int, int], *where: Any
    ) -> tuple[Any, Any]:
        """Weights and bias as the integer `kernel` of this set reads them.

        zero_points: of input and weights. where: what its packing function asks for beside them.
        """
        packed: tuple[Any, Any] = self._pack(kernel, (weights, bias), zero_points, *where)
        return packed

    def requant_q(self, requant: Any, acc_range: tuple[Any, Any], dtype: str) -> Any:
        """A layer's Requantization as the integer kernels of this set read it; acc_range: the least and the greatest
        accumulator of each channel, dtype: the output's.
        """
        if self.name != "fast":
            return requant
        from npmobilenet.kernels.fast.gemm_s8 import filled_up
        from npmobilenet.kernels.vectorcode.linear_requant import linear_requant

        kept = {} if self._packed is None else self._packed
        key = tuple(part.tobytes() if hasattr(part, "tobytes") else part for part in (*requant, *acc_range, dtype))
        if key not in kept:
            kept[key] = linear_requant(filled_up(requant), acc_range, dtype)
        return kept[key]

    def _pack(self, kernel: str, arrays: tuple[Any, ...], *more: Any) -> tuple[Any, ...]:
        """The arrays, or what the kernel's packing function makes of them, once for each array where that is kept."""
        if self.name != "fast":
            return arrays
        pack = getattr(module_of("fast", kernel), f"pack_{kernel}", None)
        if pack is None:
            return arrays
        kept = {} if self._packed is None else self._packed
        key = (kernel, *((array.ctypes.data, array.shape) for array in arrays), *more)
        if key not in kept:
            found = pack(*arrays, *more)
            made = found if isinstance(found, tuple) else (found,)
            kept[key] = (
                arrays,
                tuple(into_arena(p) if hasattr(p, "nbytes") else p for p in made),
            )  # with what the addresses belong to
        packed: tuple[Any, ...] = kept[key][1]
        return packed


def as_functions(steps: Iterable[Any]) -> tuple[Callable[[int], None], ...]:
    """Steps, each with a `kernel` and its `args`, as functions of the number of threads, to be called in turn.

    Fast kernels that follow each other make one function, which doesn't come back to Python between them.
    """
    functions: list[Callable[[int], None]] = []
    for fast, group in itertools.groupby(steps, lambda step: hasattr(step.kernel, "bind")):
        if fast:
            from npmobilenet.kernels.compiler.work_sharing import Program

            functions.append(Program([step.kernel.bind(*step.args) for step in group]).run)
        else:
            functions += [_call(step.kernel, step.args) for step in group]
    return tuple(functions)


def _call(kernel: Callable[..., None], args: tuple[Any, ...]) -> Callable[[int], None]:
    def called(threads: int) -> None:
        with np.errstate(all="ignore"):  # uncompiled kernels overflow without a word, as it does compiled
            kernel(*args)

    return called


@functools.cache
def kernel_set(name: str) -> KernelSet:
    """The kernel set of that name. Raises `PlanError` for an unknown one."""
    if name not in SETS:
        raise PlanError(f"kernels='{name}' is not one of {', '.join(map(repr, SETS))}")
    return KernelSet(name)
