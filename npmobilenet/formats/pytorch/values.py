"""Tensors as files of PyTorch describe them, and their values read out of the file."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from npmobilenet.errors import ConversionError
from npmobilenet.modeldata import Array
from npmobilenet.ops import MAX_RANK

MAX_BYTES = 512 * 2**20  # of one tensor: all weights of the largest MobileNet have a tenth of that
MAX_TENSORS = 20_000

# PyTorch's dtypes by safetensors' names; BF16 is the upper half of a float32.
# Sources: pytorch/pytorch torch/storage.py (_new_dtypes, _storage_type_to_dtype_map); huggingface/safetensors
# safetensors/src/tensor.rs (Dtype).
DTYPES = {
    "F64": "f8", "F32": "f4", "F16": "f2", "BF16": "u2", "I64": "i8", "I32": "i4", "I16": "i2", "I8": "i1",
    "U64": "u8", "U32": "u4", "U16": "u2", "U8": "u1", "BOOL": "u1",
}  # fmt: skip


@dataclass(frozen=True)
class TensorEntry:
    """A tensor in a file: values of `dtype`, `offset` and `strides` counted in elements of a block of `count`.

    `block` reads the block's bytes from the file.
    """

    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    count: int
    block: Callable[[], bytes]
    big_endian: bool = False

    def read(self) -> Array:
        """Its values: floating point numbers as float32 (float64 rounded), others in their own dtype."""
        stored = np.dtype((">" if self.big_endian else "<") + DTYPES[self.dtype])
        flat: Array = np.frombuffer(self.block(), stored, self.count)
        steps = tuple(stride * flat.itemsize for stride in self.strides)
        values: Array = np.lib.stride_tricks.as_strided(flat[self.offset :], self.shape, steps, writeable=False)
        if self.dtype == "BF16":
            return (values.astype(np.uint32) << np.uint32(16)).view(np.float32)
        with np.errstate(over="ignore"):  # what overflows is infinite, which its reader refuses
            return values.astype(np.float32 if values.dtype.kind == "f" else values.dtype.newbyteorder("="))


def check_view(
    what: str, dtype: str, shape: tuple[int, ...], strides: tuple[int, ...], offset: int, count: int
) -> None:
    """Refuse a tensor that isn't inside its block of `count` elements, or has more elements than the block.

    Raises `ConversionError`.
    """
    whole = all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in (*shape, *strides, offset, count))
    if not whole or len(shape) != len(strides) or len(shape) > MAX_RANK or max((*shape, *strides, offset)) > 2**62:
        raise ConversionError(
            f"{what}: its shape ({len(shape)} dimensions), strides ({len(strides)}) and offset: expected whole numbers "
            f"of at least 0, as many strides as dimensions, at most {MAX_RANK}"
        )
    size = math.prod(shape)
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True)) if size else offset - 1
    if last >= count or size > count:
        raise ConversionError(
            f"{what}: its {size} values of shape {shape} (strides {strides}, offset {offset}) don't lie in the "
            f"{count} that its block has; the file is damaged"
        )
    if size * np.dtype(DTYPES[dtype]).itemsize > MAX_BYTES:
        raise ConversionError(f"{what}: more than {MAX_BYTES:,} bytes; no MobileNet has such a tensor")


def contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides, in elements, of a tensor in C order."""
    return tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
