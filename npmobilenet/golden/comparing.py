"""Comparing two dumps, tensor by tensor in graph order.

Integers are compared in LSB (b - a), floats in ulp: the number of float32 values from one to the other. +0 and -0 are
equal, and so are two NaNs; a NaN beside a number differs by more than any number.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npmobilenet.arithmetic.dialects import DIALECTS
from npmobilenet.errors import InputError, NpMobilenetError
from npmobilenet.golden.causes import locating
from npmobilenet.golden.causes.building import Fed, cause_of, cause_of_input
from npmobilenet.golden.causes.patterns import find_patterns
from npmobilenet.golden.causes.search import SECONDS, Finding
from npmobilenet.golden.diff_verdict import Comparison, Diff, TensorDiff, Tolerance
from npmobilenet.golden.digest import diff_digests, is_digest
from npmobilenet.golden.dump import INPUT, Dump, Entry, catalogue
from npmobilenet.golden.foreign_dumps import NameMap, ShapeMatch, read_map
from npmobilenet.golden.inputs import DumpPath, DumpView, ModelSource, data_of
from npmobilenet.modeldata import Array, ModelData


def diff(
    a: DumpPath,
    b: DumpPath,
    *,
    names: NameMap | str | os.PathLike[str] | None = None,
    model: ModelSource | None = None,
    layout: str = "auto",
    tolerance: Tolerance | None = None,
    seconds: float = SECONDS,
    progress: Callable[[int, int], object] | None = None,
) -> Diff:
    """Compare two dumps; `a` is the one to go by. Either may be foreign, as `Dump` reads it.

    `names` maps the foreign dump's names to ours (a dict, or the path of a .json or .csv file). The order and the
    quantization come from the manifest of `a` or else `b`, or from `model` if given; then the cause of the first
    divergence is looked for as well, for at most so many `seconds`. `layout` is the foreign arrays' of rank 4: "nhwc",
    "nchw", or "auto", which looks at the shapes.

    Either may be the file of a digest (`digest.py`), too: then a tensor is equal or not, and no more is known.

    Raises `InputError` for dumps that can't be read or have nothing in common.
    """
    data = None if model is None else data_of(model)
    if is_digest(a) or is_digest(b):
        return diff_digests(a, b, names=names, model=data, layout=layout, tolerance=tolerance)
    one, other = (d if isinstance(d, Dump) else Dump(d) for d in (a, b))
    tolerance = tolerance or Tolerance()
    known = _known(one, other, data)
    mapping = read_map(names)
    sides = [DumpView(dump, known, mapping, layout) for dump in (one, other)]
    _settle_types(sides)
    notes = [note for side, letter in zip(sides, "AB", strict=True) for note in side.notes(letter)]
    if one.manifest and other.manifest:
        notes += _manifest_notes(one, other)
    rows = []
    shared = [entry for entry in known if all(entry.name in side.files for side in sides)]
    if not shared:
        raise InputError(f"'{one.path}' and '{other.path}' have no tensor in common")
    for entry in shared:
        rows.append(_compare(entry, sides, tolerance))
        if progress is not None:
            progress(len(rows), len(shared))
    missing = [entry.name for entry in known if not all(entry.name in side.files for side in sides)]
    left_over = {letter: list(side.left_over) for side, letter in zip(sides, "AB", strict=True)}
    result = Diff(str(one.path), str(other.path), rows, missing, left_over, notes, tolerance)
    if result.first is not None:
        _locate(result, known, sides)
        if data is not None and not result.taken:
            dialect = one.manifest.dialect if one.manifest is not None else next(iter(DIALECTS))
            result.cause = _cause(result.first, data, sides, dialect, seconds)
    return result


def _settle_types(sides: Sequence[DumpView]) -> None:
    """How one dump's 8-bit type stands for the other's: by the first tensor that both have and that tells."""
    for side, other in (sides, sides[::-1]):

        def mistakes(side: DumpView = side, other: DumpView = other) -> float:
            for name in side.entries:
                if name in side and name in other:
                    try:
                        a, b = side[name], other[name]
                    except InputError:
                        continue
                    if a.shape == b.shape and a.dtype == b.dtype and a.dtype.itemsize == 1:
                        return float(np.mean(a != b))
            return 0.0

        side.settle_type(mistakes)


def _locate(result: Diff, known: Sequence[Entry], sides: Sequence[DumpView]) -> None:
    """The nodes that the first fault may lie in, and whether the dump was taken rightly at all."""
    locating.locate(result, known)
    first = result.first
    assert first is not None
    foreign = sides[1].dump.manifest is None
    if foreign and first.comparison is not None and locating.taken_too_late(result, sides[0], sides[1]):
        result.taken = locating.PRESERVE


def _cause(
    first: TensorDiff, data: ModelData, sides: Sequence[DumpView], dialect: str, seconds: float
) -> Finding | None:  # fmt: skip
    """Why the first tensor diverges, from what B has before it; inputs of the model that B lacks are taken from A."""
    if first.comparison is None:
        return None
    try:
        if first.entry.op == INPUT:
            tensor = data.graph.tensors[first.name]
            return cause_of_input(tensor, sides[0][first.name], sides[1][first.name], seconds)
        values = Fed(sides[1], sides[0], data.graph.inputs)
        return cause_of(data, first.entry, sides[1][first.name], values, dialect, seconds)
    except NpMobilenetError:
        return None


def _known(one: Dump, other: Dump, model: ModelData | None) -> list[Entry]:
    """The catalogue to match against; without manifest and model, the names that both have, in natural order."""
    if model is not None:
        return catalogue(model.graph)
    for dump in (one, other):
        if dump.manifest is not None:
            return dump.entries
    shared = sorted(set(one.files) & set(other.files), key=_natural)
    found = []
    for name in shared:
        array = one.read(name)
        found.append(Entry(name, array.shape, str(array.dtype)))
    return found


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Sorts "t9" before "t10"."""
    digits, parts = "", []
    for character in [*name, "\0"]:
        if character.isdecimal() and character.isascii():
            digits += character
            continue
        if digits:
            parts.append((0, int(digits), ""))
            digits = ""
        parts.append((1, 0, character))
    return parts


def _compare(entry: Entry, sides: Sequence[DumpView], tolerance: Tolerance) -> TensorDiff:
    reference, notes_a = sides[0].read(entry)
    other, notes_b = sides[1].read(entry)
    notes = [f"A: {n}" for n in notes_a] + [f"B: {n}" for n in notes_b]
    shape = (_batch(reference, other, entry), *entry.shape[1:]) if entry.shape else ()
    pair: list[ShapeMatch] = []
    for side, letter, array in zip(sides, "AB", (reference, other), strict=True):
        fitted = side.fit(array, entry, shape)
        notes += [f"{letter}: {note}" for note in fitted.notes]
        if fitted.problem:
            return TensorDiff(entry, fitted.status, problem=f"{letter}: {fitted.problem}", notes=notes)
        pair.append(fitted)
    x, y = (fitted.array for fitted in pair)
    assert x is not None
    assert y is not None
    found = compare(x, y, tolerance)
    entry = replace(entry, shape=shape)
    if found.count:
        return TensorDiff(entry, "differs", found, "", notes, find_patterns(x, y, found, entry.quantization))
    problem = _quantization_problem(entry, sides)
    return TensorDiff(entry, "quantization" if problem else "equal", found, problem, notes)


def _batch(one: Array, other: Array, entry: Entry) -> int:
    """The batch size of what has a batch dimension."""
    rank = len(entry.shape)
    return next((array.shape[0] for array in (one, other) if array.ndim == rank), entry.shape[0])


def _quantization_problem(entry: Entry, sides: Sequence[DumpView]) -> str:
    both = [side.own[entry.name].quantization for side in sides if entry.name in side.own]
    if len(both) < 2 or both[0] == both[1]:
        return ""
    texts = ["none" if q is None else f"scale {q.scale[0]:.9g}, zero point {q.zero_point[0]}" for q in both]
    if texts[0] == texts[1]:
        texts = [f"{len(q.scale)} scales along axis {q.axis}" if q else "none" for q in both]
    return f"the same numbers mean something else: A has {texts[0]}, B {texts[1]}"


def _manifest_notes(one: Dump, other: Dump) -> list[str]:
    """Facts in which two recorded dumps differ."""
    assert one.manifest is not None
    assert other.manifest is not None
    notes = []
    for what, key in (("model", "model"), ("input", "input")):
        pair = [getattr(d.manifest, key).get("sha256", "") for d in (one, other)]
        if pair[0] != pair[1]:
            labels = [
                getattr(d.manifest, key).get("name") or getattr(d.manifest, key).get("source", "") for d in (one, other)
            ]
            notes.append(f"another {what}: A {labels[0]} ({pair[0][:12]}), B {labels[1]} ({pair[1][:12]})")
    if one.manifest.dialect != other.manifest.dialect:
        notes.append(f"another dialect: A {one.manifest.dialect}, B {other.manifest.dialect}")
    return notes


# ---------------------------------------------------------------------------------------------------------------------
# One pair of arrays

NAN_ULP = 2**33  # above the distance of any two float32 values (2^32 at most) or clipped float64 ones
EXACT = 8  # differences of up to so many LSB have a bar of their own
_PIECE = 2**20  # elements looked at together


def ulps(a: Array, b: Array) -> NDArray[np.int64]:
    """The signed number of float32 steps from a to b. Bits as sign and magnitude become one line of integers."""
    keys = []
    for array in (a, b):
        bits = array.astype(np.float32).view(np.int32).astype(np.int64)
        keys.append(np.where(bits < 0, -(bits & 0x7FFFFFFF), bits))
    steps = np.asarray(keys[1] - keys[0])  # of rank 0, too
    nan_a, nan_b = np.isnan(a), np.isnan(b)
    steps[nan_a & nan_b] = 0
    steps[nan_a ^ nan_b] = NAN_ULP
    return steps


def differences(a: Array, b: Array) -> NDArray[np.int64]:
    """b - a in LSB for integers, in ulp for floats."""
    if a.dtype.kind == "f":
        return ulps(a, b)
    steps: NDArray[np.int64] = b.astype(np.int64) - a.astype(np.int64)
    return steps


def compare(a: Array, b: Array, tolerance: Tolerance | None = None) -> Comparison:
    """Compare two arrays of equal shape and dtype."""
    tolerance = tolerance or Tolerance()
    floats = a.dtype.kind == "f"
    found = Comparison(a.size, "ulp" if floats else "LSB")
    names = axes(a.ndim)
    found.where = {name: np.zeros(size, np.int64) for name, size in zip(names, a.shape, strict=True)}
    if a.ndim == 4:
        found.plane = np.zeros(a.shape[1:3], np.int64)
    bars: dict[int, int] = {}
    batched = a.ndim > 1
    for n in range(a.shape[0] if batched else 1):  # image by image, so that memory stays a few times one image
        pair = (a[n], b[n]) if batched else (a, b)
        steps = differences(*pair)
        _count(bars, steps)
        with np.errstate(invalid="ignore", over="ignore"):
            gaps = np.asarray(np.abs(pair[1].astype(np.float64) - pair[0].astype(np.float64)))
        beyond = np.abs(steps) > (tolerance.ulp if floats else tolerance.lsb)
        if floats and tolerance.atol > 0:
            beyond &= ~(gaps <= tolerance.atol)
        _add(found, beyond, steps, gaps, pair, (n,) if batched else ())
    found.histogram = _histogram(bars)
    return found


def _add(
    found: Comparison, beyond: NDArray[np.bool_], steps: NDArray[np.int64], gaps: NDArray[np.float64],
    pair: tuple[Array, Array], image: tuple[int, ...],
) -> None:  # fmt: skip
    """One image's differences into the result."""
    count = int(np.count_nonzero(beyond))
    if not count:
        return
    found.count += count
    if found.first is None:
        at = np.unravel_index(int(np.argmax(beyond)), beyond.shape)
        found.first, found.first_values = _place(image, at), _values(pair, at)
    sizes = np.where(beyond, np.abs(steps), 0)
    at = np.unravel_index(int(np.argmax(sizes)), sizes.shape)
    if int(sizes[at]) > found.largest:
        found.largest = int(sizes[at])
        found.worst, found.worst_values = _place(image, at), _values(pair, at)
    finite = gaps[beyond & np.isfinite(gaps)]
    found.largest_abs = max(found.largest_abs, float(finite.max(initial=0.0)))
    names = list(found.where)
    if image:
        found.where[names[0]][image[0]] += count
    for axis, name in enumerate(names[len(image) :]):
        others = tuple(i for i in range(beyond.ndim) if i != axis)
        found.where[name] += np.count_nonzero(beyond, axis=others)
    if found.plane is not None:
        found.plane += np.count_nonzero(beyond, axis=2)


def _place(image: tuple[int, ...], at: tuple[Any, ...]) -> tuple[int, ...]:
    return (*image, *(int(i) for i in at))


def _values(pair: tuple[Array, Array], at: tuple[Any, ...]) -> tuple[float, float]:
    a, b = (array[at].item() for array in pair)
    return a, b


def axes(rank: int) -> tuple[str, ...]:
    """What the axes of an array are called: N, then H and W where there are as many, C last."""
    names = {0: (), 1: ("N",), 2: ("N", "C"), 3: ("N", "W", "C"), 4: ("N", "H", "W", "C")}
    return names.get(rank, ("N", *(f"d{i}" for i in range(1, rank - 1)), "C"))


# ---------------------------------------------------------------------------------------------------------------------
# Histograms


def _bar(step: int) -> int:
    """The bar that a difference belongs to, by its least magnitude and sign: 9 for 9..16, 17 for 17..32."""
    size = abs(step)
    if size > EXACT:
        size = (1 << ((size - 1).bit_length() - 1)) + 1
    return -size if step < 0 else size


def _count(bars: dict[int, int], steps: NDArray[np.int64]) -> None:
    flat = steps.reshape(-1)
    for start in range(0, flat.size, _PIECE):
        piece = flat[start : start + _PIECE]
        if not piece.any():
            bars[0] = bars.get(0, 0) + piece.size
            continue
        for step, count in zip(*np.unique(piece, return_counts=True), strict=True):
            bar = _bar(int(step))
            bars[bar] = bars.get(bar, 0) + int(count)


def _histogram(bars: Mapping[int, int]) -> dict[str, int]:
    """Counts by label, from the most negative difference to the most positive."""
    return {bar_label(bar): bars[bar] for bar in sorted(bars)}


def bar_label(bar: int) -> str:
    """What stands below a bar: "-1", "0", "+3", "+9..+16", "-16..-9"; "NaN" for a NaN beside a number."""
    size = abs(bar)
    if size > 2**32:
        return "NaN"
    sign = "-" if bar < 0 else "+" if bar > 0 else ""
    if size <= EXACT:
        return f"{sign}{size}"
    near, far = f"{sign}{size}", f"{sign}{(size - 1) * 2}"
    return f"{far}..{near}" if bar < 0 else f"{near}..{far}"
