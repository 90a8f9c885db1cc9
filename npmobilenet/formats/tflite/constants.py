"""Constants of a .tflite file, and the checks that every element type and scale has to pass."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from npmobilenet.errors import ConversionError
from npmobilenet.formats.tflite.flatbuffer import FileTensor
from npmobilenet.formats.tflite.sparse import dense
from npmobilenet.graph import Quantization
from npmobilenet.modeldata import Array

# Element types: all that a constant may have, and those that a computed tensor may have.
CONSTANT_DTYPES: Mapping[str, str] = {
    "FLOAT32": "float32", "FLOAT16": "float16", "INT8": "int8", "UINT8": "uint8",
    "INT16": "int16", "INT32": "int32", "INT64": "int64",
}  # fmt: skip
ACTIVATION_DTYPES: Mapping[str, str] = {
    "FLOAT32": "float32", "INT8": "int8", "UINT8": "uint8", "INT16": "int16",
}  # fmt: skip
INDEX_DTYPES: Mapping[str, str] = {"INT32": "int32", "INT64": "int64"}  # what ARG_MAX gives
INTEGER_DTYPES = ("int8", "uint8", "int16")
_LARGEST = float(np.finfo(np.float32).max)
ITSELF = Quantization((1.0,), (0,))  # an integer that stands for itself


@dataclass(frozen=True)
class Constant:
    """A constant in the file's layout. `index` is its tensor; `quantization` is None for float."""

    index: int
    array: Array
    quantization: Quantization | None = None

    def transposed(self, order: Sequence[int]) -> Constant:
        """The same values with axes in another order, `quantization.axis` following."""
        array = np.ascontiguousarray(self.array.transpose(order))
        q = self.quantization
        if q is not None and q.axis is not None:
            q = replace(q, axis=tuple(order).index(q.axis))
        return Constant(self.index, array, q)

    def reshaped(self, shape: Sequence[int]) -> Constant:
        """The same values in another shape, which one scale for each channel doesn't survive."""
        if self.quantization is not None and self.quantization.axis is not None:
            raise ConversionError(f"tensor #{self.index}: a constant quantized per channel can't be reshaped")
        return Constant(self.index, self.array.reshape(shape), self.quantization)

    def part(self, axis: int, first: int, length: int) -> Constant:
        """`length` indices of an axis from `first` on, with their scales."""
        q, stop = self.quantization, first + length
        if q is not None and q.axis == axis:
            q = Quantization(q.scale[first:stop], q.zero_point[first:stop], axis)
        return Constant(self.index, np.ascontiguousarray(self.array.take(range(first, stop), axis)), q)

    def dequantized(self) -> Constant:
        """`scale * (q - zero_point)` in float32, exactly as TFLite computes it.

        The difference has at most 17 bits (9 for 8-bit types) and the scale 24, so the product is
        exact in float64 and rounded once. A float16 constant is converted, which is exact.

        Source: TensorFlow 2.18, tensorflow/lite/kernels/internal/reference/dequantize.h.
        """
        q = self.quantization
        if self.array.dtype in (np.float16, np.float32):
            return Constant(self.index, self.array.astype(np.float32))
        if q is None:
            raise ConversionError(f"tensor #{self.index}: no scale to dequantize it with")
        scale, zero = np.array(q.scale), np.array(q.zero_point, np.float64)
        if q.axis is not None:
            channels = [1] * self.array.ndim
            channels[q.axis] = -1
            scale, zero = scale.reshape(channels), zero.reshape(channels)
        real = (self.array - zero) * scale
        if np.abs(real).max(initial=0) > _LARGEST:
            raise ConversionError(f"tensor #{self.index}: its scale {max(q.scale):.3g} gives values beyond float32; "
                                  "quantize the model anew")  # fmt: skip
        return Constant(self.index, real.astype(np.float32))


def read_quantization(tensor: FileTensor, dtype: str, constant: bool) -> Quantization | None:
    """A tensor's quantization in the file's layout; None for float, and int32 without scales.

    One scale and zero point for the tensor, or one for each index along one axis. A tensor of
    one dimension has no other axis than 0, whatever its `quantized_dimension` says: files made
    by early converters give a bias the axis of the weights (3 for a depthwise convolution).
    """
    at = f"tensor #{tensor.index} '{tensor.name}'"
    if dtype.startswith("float"):
        return None  # some converters leave scales of training-time quantization: no meaning
    if tensor.scale.size == 0:
        if dtype in INTEGER_DTYPES and not constant:
            raise ConversionError(f"{at}: {dtype} without quantization parameters")
        return None
    scale = tuple(float(s) for s in tensor.scale)
    zero_point = tuple(int(z) for z in tensor.zero_point) or (0,)
    if len(zero_point) == 1:
        zero_point *= len(scale)
    limits = np.iinfo(dtype)
    if not all(math.isfinite(s) and s > 0 for s in scale):
        raise ConversionError(f"{at}: scales must be finite and above 0, got {min(scale)}")
    if not all(limits.min <= z <= limits.max for z in zero_point):
        raise ConversionError(f"{at}: a zero point outside the range of {dtype}")
    if len(zero_point) != len(scale):
        raise ConversionError(f"{at}: {len(scale)} scales and {len(zero_point)} zero points")
    if len(scale) == 1:
        return Quantization(scale, zero_point)
    axis = 0 if len(tensor.shape) == 1 else tensor.quantized_dimension
    if not constant or not 0 <= axis < len(tensor.shape) or tensor.shape[axis] != len(scale):
        raise ConversionError(
            f"{at}: {len(scale)} scales along quantized_dimension {axis} of shape "
            f"{tensor.shape}; expected one scale, or for a constant one for each index "
            "along an axis that it has"
        )
    return Quantization(scale, zero_point, axis)


def read_constant(tensor: FileTensor) -> Constant:
    """A constant's array as a view into the file; its size must be what its shape says."""
    at = f"tensor #{tensor.index} '{tensor.name}'"
    dtype = CONSTANT_DTYPES.get(tensor.type)
    if dtype is None or tensor.special:
        kind = tensor.special or tensor.type
        raise ConversionError(f"{at}: constants that are {kind} are not supported; "
                              f"supported types: {', '.join(CONSTANT_DTYPES)}")  # fmt: skip
    stored = np.dtype(dtype).newbyteorder("<")
    expected = math.prod(tensor.shape) * stored.itemsize
    data = tensor.data if tensor.data is not None else np.zeros(0, np.uint8)
    if tensor.sparsity is not None and min(tensor.shape, default=1) > 0 and data.size % stored.itemsize == 0:
        data = dense(np.frombuffer(data, stored), tensor.shape, tensor.sparsity, at).reshape(-1).view(np.uint8)
    if min(tensor.shape, default=1) < 1 or data.size != expected:
        raise ConversionError(f"{at}: shape {tensor.shape} of {tensor.type} needs {expected} "
                              f"bytes, its buffer has {data.size}")  # fmt: skip
    array = np.frombuffer(data, stored).reshape(tensor.shape)
    if dtype.startswith("float") and not np.isfinite(array).all():
        raise ConversionError(f"{at}: it holds values that are not finite")
    return Constant(tensor.index, array.astype(dtype), read_quantization(tensor, dtype, constant=True))
