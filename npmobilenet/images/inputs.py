"""A model's inputs and outputs, the checks of input tensors before it runs on them, and the real values of outputs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npmobilenet.errors import InputError
from npmobilenet.graph import Graph

Array = NDArray[Any]

NHWC = 4  # rank of a tensor of images
# A recipe's values stay below 2.7 in magnitude (ImageNet mean and std), random tests below 6, and an unscaled 0..255
# picture that stays below 8 everywhere is black.
RANGE_FACTOR = 8.0

Inputs = Array | Mapping[str, Array]


@dataclass(frozen=True)
class Port:
    """An input or output of a model. `scale` and `zero_point` are None where it isn't quantized."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float | None = None
    zero_point: int | None = None


def port_of(graph: Graph, name: str) -> Port:
    """What a tensor's name stands for: an input, an output, or a value between them."""
    tensor = graph.tensors[name]
    q = tensor.quantization
    if q is None:
        return Port(name, tensor.shape, tensor.dtype)
    return Port(name, tensor.shape, tensor.dtype, q.scale[0], q.zero_point[0])


def real_values(values: Array, port: Port) -> Array:
    """Values of a port as real numbers: float32 ones as they are, `scale * (value - zero_point)` of integers."""
    if port.scale is None or port.zero_point is None:
        return values
    steps = (values.astype(np.int32) - np.int32(port.zero_point)).astype(np.float32)
    with np.errstate(over="ignore"):  # the greatest scales give infinity, as dequantizing does
        return np.asarray(steps * np.float32(port.scale))


def check_inputs(x: Inputs, ports: Sequence[Port], value_range: tuple[float, float] | None, model: str) -> list[Array]:
    """One array for each of a model's inputs, equal in batch size, as `check_input` has them. Raises `InputError`."""
    if len(ports) == 1 and isinstance(x, np.ndarray):
        return [check_input(x, ports[0].shape, ports[0].dtype, value_range)]
    wanted = [port.name for port in ports]
    given = x if isinstance(x, Mapping) else {wanted[0]: x}
    if set(given) != set(wanted):
        raise InputError(
            f"{model} has the inputs {', '.join(map(repr, wanted))}: expected a dict of an array for each, got "
            + (f"the keys {', '.join(map(repr, given))}" if isinstance(x, Mapping) else "one array")
        )
    arrays = [check_input(given[port.name], port.shape, port.dtype, value_range) for port in ports]
    if len({len(array) for array in arrays}) > 1:
        raise InputError(f"the inputs' batch sizes differ: {[len(array) for array in arrays]}")
    return arrays


def output_array(port: Port, inputs: Sequence[Array], out: object = None) -> Array:
    """Where the output for these inputs goes: a new array, or `out` if it fits. Raises `InputError`."""
    shape = (len(inputs[0]), *port.shape[1:])
    if out is None:
        return np.empty(shape, port.dtype)
    fault = None
    if not isinstance(out, np.ndarray):
        fault = type(out).__name__
    elif out.shape != shape or out.dtype != port.dtype:
        fault = f"{out.dtype} {out.shape}"
    elif not out.flags.writeable:
        fault = "a read-only one"
    elif any(np.may_share_memory(out, array) for array in inputs):
        fault = "one that shares memory with the input"
    if fault is not None:
        raise InputError(f"out: expected an array {port.dtype} {shape} to write into, got {fault}; np.empty makes one")
    assert isinstance(out, np.ndarray)
    return out


def channels_first(shape: Sequence[int]) -> bool:
    """Whether pictures are (1, channels, height, width), as PyTorch's exports take them, and not the other way round.

    Nothing in a file says so: 1 or 3 in the second place, and neither in the last, can't be a height.
    """
    return len(shape) == NHWC and shape[1] in (1, 3) and shape[3] not in (1, 3)


def picture_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    """Height, width and channels of an input of pictures (1, ...) of rank 4."""
    return (shape[2], shape[3], shape[1]) if channels_first(shape) else (shape[1], shape[2], shape[3])


def check_input(
    x: object, shape: Sequence[int], dtype: str, value_range: tuple[float, float] | None = (-1.0, 1.0)
) -> Array:
    """The input tensor, C-contiguous, if it suits a model whose graph declares `shape` (1, ...) and `dtype`.

    `x` is (N, *shape[1:]) with N of at least 1. Nothing is converted silently. `value_range` is the range that the
    model was made for; floats beyond 8 times that magnitude are taken for unscaled pixels. None allows any finite
    value.

    Raises `InputError`: not an array, another rank, size, layout or dtype, an empty batch, NaN or infinity, 0..255.
    """
    shape = tuple(shape)
    problem = _misfit(x, shape, dtype)
    if problem is not None:
        expected = f"{dtype} (N, {', '.join(map(str, shape[1:]))})"
        if not isinstance(x, np.ndarray):
            raise InputError(f"the input: expected a NumPy array, {expected}, got {type(x).__name__}; {problem}")
        raise InputError(f"the input: expected {expected}, got {x.dtype} {x.shape}{problem}")
    assert isinstance(x, np.ndarray)
    if x.dtype.kind == "f":
        _check_values(x, value_range)
    return np.ascontiguousarray(x)


def _misfit(x: object, shape: tuple[int, ...], dtype: str) -> str | None:
    """What to do about an input of another kind, None about one that fits."""
    if not isinstance(x, np.ndarray):
        return "use np.asarray"
    if x.dtype != np.dtype(dtype):
        return "; " + _tensor_dtype_remedy(x, dtype)
    if x.ndim != len(shape) or x.shape[1:] != shape[1:]:
        return "; " + _shape_remedy(x, shape)
    return None if x.shape[0] else ": an empty batch; pass at least one image"


def _tensor_dtype_remedy(x: Array, dtype: str) -> str:
    if dtype == "float32":
        if x.dtype.kind == "f":
            return "use x.astype(np.float32)"
        if x.dtype == np.uint8:
            return "uint8 images go to predict(), or through preprocess() first"
    elif x.dtype.kind == "f":
        return "this model takes integers: preprocess() gives them, or preprocess.quantize_input"
    return f"use x.astype(np.{dtype}) if its values are meant so"


def _shape_remedy(x: Array, shape: tuple[int, ...]) -> str:
    if x.shape == shape[1:]:
        return "add the batch dimension: x[None]"
    if channels_first(shape) and x.ndim == NHWC and (x.shape[3], *x.shape[1:3]) == shape[1:]:
        return "channels come first (NCHW): x.transpose(0, 3, 1, 2)"
    if len(shape) == NHWC and x.ndim == NHWC and (x.shape[0], *x.shape[2:], x.shape[1]) == (x.shape[0], *shape[1:]):
        return "channels come last (NHWC): x.transpose(0, 2, 3, 1)"
    if len(shape) == NHWC and x.shape == (shape[3], *shape[1:3]):
        return "channels come last (NHWC), after a batch dimension: x.transpose(1, 2, 0)[None]"
    return "preprocess() makes a tensor of the right size from images"


def _check_values(x: Array, value_range: tuple[float, float] | None) -> None:
    low, high = float(x.min()), float(x.max())  # NaN passes through min and max
    if not (math.isfinite(low) and math.isfinite(high)):
        at = tuple(int(i) for i in np.argwhere(~np.isfinite(x))[0])
        raise InputError(f"the input holds {x[at]} at index {at}: expected finite values")
    if value_range is None:
        return
    limit = RANGE_FACTOR * max(abs(value_range[0]), abs(value_range[1]))
    if max(-low, high) > limit:
        raise InputError(
            f"the input's values run from {low:g} to {high:g}, and the model was made for about {value_range[0]:g} to "
            f"{value_range[1]:g}: unscaled pixels? preprocess() scales them"
        )
