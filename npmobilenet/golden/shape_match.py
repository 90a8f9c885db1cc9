"""Other people's shapes and dtypes, made comparable, each change said in a note; what can't be is explained.

Nothing is converted that could hide a difference: every conversion of values is exact, or undone by the quantization
and then compared.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from npmobilenet.errors import InputError
from npmobilenet.graph import Quantization
from npmobilenet.modeldata import Array

LAYOUTS = ("auto", "nhwc", "nchw")


@dataclass
class ShapeMatch:
    """An array in the shape and dtype that were wanted, and what was done to it; `problem` if it can't be."""

    array: Array | None = None
    problem: str = ""
    status: str = ""  # with a problem: "shape" or "dtype"
    notes: list[str] = field(default_factory=list)


def detect(shapes: Iterable[tuple[tuple[int, ...], tuple[int, ...]]]) -> str:
    """The layout, "nhwc" or "nchw", that pairs of (found, wanted) shapes speak for.

    Raises `InputError` if some fit only the one and some only the other.
    """
    only: dict[str, list[tuple[int, ...]]] = {"nhwc": [], "nchw": []}
    for found, wanted in shapes:
        if len(wanted) != 4 or len(found) not in (3, 4):
            continue
        whole = found if len(found) == 4 else (1, *found)
        if whole == wanted and whole != channels_first(wanted):
            only["nhwc"].append(found)
        elif whole == channels_first(wanted) and whole != wanted:
            only["nchw"].append(found)
    if only["nhwc"] and only["nchw"]:
        raise InputError(
            f"some arrays are NHWC {only['nhwc'][0]} and some NCHW {only['nchw'][0]}: export them in one layout, or "
            "say which is meant (--layout nhwc)"
        )
    return "nchw" if only["nchw"] else "nhwc"


def channels_first(shape: tuple[int, ...]) -> tuple[int, ...]:
    """(N, H, W, C) as (N, C, H, W)."""
    return (shape[0], shape[3], shape[1], shape[2])


def fit(found: Array, shape: tuple[int, ...], dtype: str, q: Quantization | None, layout: str) -> ShapeMatch:
    """A found array as `dtype` of `shape` (N, H, W, C); `q` is the quantization of the wanted tensor."""
    fitted = _shaped(found, shape, layout)
    if fitted.array is not None and str(fitted.array.dtype) != dtype:
        fitted = _typed(fitted, np.dtype(dtype), q)
    return fitted


def _shaped(found: Array, shape: tuple[int, ...], layout: str) -> ShapeMatch:
    if layout == "nchw" and len(shape) == 4:
        first = channels_first(shape)
        if found.shape in (first, first[1:]) and (found.shape == first or shape[0] == 1):
            return ShapeMatch(np.ascontiguousarray(found.reshape(first).transpose(0, 2, 3, 1)))
    if found.shape == shape:
        return ShapeMatch(found)
    if found.shape == shape[1:] and shape[0] == 1:
        return ShapeMatch(found[None], notes=["without its batch dimension"])
    squeezed = tuple(d for d in found.shape if d != 1)
    if squeezed == tuple(d for d in shape if d != 1):
        return ShapeMatch(found.reshape(shape), notes=[f"shape {found.shape}, read as {shape}"])
    if found.ndim == 1 and found.size == math.prod(shape) and layout != "nchw":
        return ShapeMatch(
            found.reshape(shape), notes=[f"flat, {found.size:,} values, read as {shape} in row-major order"]
        )
    return ShapeMatch(
        problem=f"its shape is {found.shape}, expected {shape}{_hint(found.shape, shape)}", status="shape"
    )


def _hint(found: tuple[int, ...], shape: tuple[int, ...]) -> str:
    if len(shape) == 4 and found in (channels_first(shape), channels_first(shape)[1:]):
        return "; it is NCHW: --layout nchw, or transpose(0, 2, 3, 1)"
    if found[1:] == shape[1:]:
        return f"; the batch differs, {found[0]} images and {shape[0]}"
    if math.prod(found) == math.prod(shape):
        return "; the number of values is right, so a reshape or transpose is missing"
    return ""


def _typed(fitted: ShapeMatch, wanted: np.dtype[Any], q: Quantization | None) -> ShapeMatch:
    array = fitted.array
    assert array is not None
    what = f"{array.dtype} where {wanted} is expected"
    if wanted.kind in "iu":
        limits = np.iinfo(wanted)
        whole = array if array.dtype.kind in "iub" else _whole(array)
        if whole is not None and whole.size and int(whole.min()) >= limits.min and int(whole.max()) <= limits.max:
            return ShapeMatch(
                whole.astype(wanted), notes=[*fitted.notes, f"{what}; all values fit, compared as {wanted}"]
            )
        if array.dtype.kind == "f":
            return _quantized(array, wanted, q, fitted, what)
        return ShapeMatch(
            problem=f"{what}, values {array.min()} to {array.max()}{_offset(array, wanted)}", status="dtype"
        )
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):
            cast = array.astype(wanted)
        exact = np.array_equal(cast.astype(array.dtype), array, equal_nan=True)
        how = "all values fit" if exact else "values were rounded"
        return ShapeMatch(cast, notes=[*fitted.notes, f"{what}; {how}, compared as {wanted}"])
    return ShapeMatch(problem=f"{what}: quantized values of a float tensor; dump the real values", status="dtype")


def _whole(array: Array) -> Array | None:
    """Floats that are all whole numbers, as int64; None otherwise."""
    if not np.isfinite(array).all() or np.abs(array).max(initial=0) >= 2**53 or (np.trunc(array) != array).any():
        return None
    return array.astype(np.int64)


def _offset(array: Array, wanted: np.dtype[Any]) -> str:
    if {str(array.dtype), str(wanted)} == {"int8", "uint8"}:
        return "; int8 and uint8 forms of one model differ by 128: (x.astype(int) ^ 128) turns one into the other"
    return "; accumulators instead of outputs? Theirs may be named acc:NAME in the map" if wanted.itemsize < 4 else ""


def _quantized(
    array: Array, wanted: np.dtype[Any], q: Quantization | None, fitted: ShapeMatch, what: str
) -> ShapeMatch:  # fmt: skip
    """Dequantized values, back to integers by the wanted tensor's scale, if they lie on its grid."""
    if q is None or len(q.scale) != 1 or not np.isfinite(array).all():
        return ShapeMatch(problem=f"{what}, and the values aren't whole numbers: dump the integers", status="dtype")
    scale, zero = np.float64(np.float32(q.scale[0])), q.zero_point[0]
    steps = array.astype(np.float64) / scale
    nearest = np.rint(steps)
    # float32(scale * n) is within 2^-24 of it, and a dump may have been printed with 6 digits.
    if (np.abs(steps - nearest) > 1e-5 * np.maximum(np.abs(nearest), 1) + 1e-3).any():
        return ShapeMatch(
            problem=f"{what}, and the values aren't multiples of its scale {q.scale[0]:g}: another scale, or floats "
            "that were never quantized",
            status="dtype",
        )
    limits = np.iinfo(str(wanted))
    whole = nearest + zero
    if whole.min() < limits.min or whole.max() > limits.max:
        return ShapeMatch(problem=f"{what}; as multiples of its scale they leave {wanted}'s range", status="dtype")
    note = f"{what}; dequantized values, compared as integers by scale {q.scale[0]:g} and zero point {zero}"
    return ShapeMatch(whole.astype(wanted), notes=[*fitted.notes, note])
