"""Constants that a .tflite stores without their zeros, as pruned models and some of MediaPipe's have them.

Dimensions, and those of blocks behind them, are stored in an order of their own ("traversal"). A dense dimension has
all its indices; one in CSR form has, for each position in the dimension before, a segment of a list of indices.

Source: TensorFlow 2.18, tensorflow/compiler/mlir/lite/schema/schema.fbs, SparsityParameters; tensorflow/lite/kernels/
internal/utils/sparsity_format_converter.cc, SparseToDense.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from npmobilenet.errors import ConversionError
from npmobilenet.modeldata import Array

MOST_DENSE = 1 << 23  # elements of a constant: MobileNets' largest have a million


@dataclass(frozen=True)
class Level:
    """A dimension in traversal: `size` of a dense one, or of one in CSR form segments and indices."""

    size: int = 0
    segments: Array | None = None
    indices: Array | None = None


@dataclass(frozen=True)
class Sparsity:
    """`order`: which dimension each level is of, first those of the shape, then those of blocks (`blocks`: whose)."""

    order: tuple[int, ...]
    blocks: tuple[int, ...]
    levels: tuple[Level, ...]


def dense(values: Array, shape: tuple[int, ...], how: Sparsity, at: str) -> Array:
    """The whole array. Raises `ConversionError` where the tables don't fit shape and values."""
    rank, total = len(shape), len(how.levels)
    whole = sorted(how.order) == [*range(total)] and sorted(how.order[:rank]) == [*range(rank)]
    if not whole or total != rank + len(how.blocks) or not all(0 <= dim < rank for dim in how.blocks):
        raise ConversionError(f"{at}: its sparsity has the levels {how.order} and blocks of {how.blocks}, of {shape}")
    most = math.prod(shape)
    if most > MOST_DENSE:
        raise ConversionError(f"{at}: a sparse constant of shape {shape}, expected at most {MOST_DENSE:,} elements")
    place = np.zeros(1, np.int64)
    found = [np.zeros(1, np.int64)] * rank
    for level, dim in zip(how.levels, how.order, strict=True):
        if level.segments is None or level.indices is None:
            _check(level.size > 0 and place.size * level.size <= most, at)
            counts, index = np.full(place.size, level.size), np.tile(np.arange(level.size), place.size)
            place = np.repeat(place * level.size, counts) + index
        else:
            ends = level.segments.astype(np.int64)
            _check(dim < rank and place.max(initial=0) + 1 < ends.size, at)
            counts = ends[place + 1] - ends[place]
            _check(bool((counts >= 0).all()) and int(counts.sum()) <= most, at)
            starts = np.repeat(ends[place] - (np.cumsum(counts) - counts), counts)
            place = starts + np.arange(starts.size)
            _check(place.min(initial=0) >= 0 and place.max(initial=-1) < level.indices.size, at)
            index = level.indices[place].astype(np.int64)
        found = [np.repeat(part, counts) for part in found]
        axis = dim if dim < rank else how.blocks[dim - rank]
        block = 1 if dim < rank else level.size
        found[axis] = (found[axis] * block if dim >= rank else 0) + index
    inside = all(
        part.size == 0 or (part.min() >= 0 and part.max() < side) for part, side in zip(found, shape, strict=True)
    )
    _check(inside and place.size == values.size, at)
    result = np.zeros(shape, values.dtype)
    result[tuple(found)] = values
    return result


def _check(good: bool, at: str) -> None:
    if not good:
        raise ConversionError(
            f"{at}: the tables of its sparsity don't fit its shape and its values; fetch the file again"
        )
