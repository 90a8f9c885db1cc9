"""The range of every tensor of a float model over some images, one small batch at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from npmobilenet.errors import InputError
from npmobilenet.model import CHUNK, Model
from npmobilenet.modeldata import Array, ModelData
from npmobilenet.quantize.images import Images
from npmobilenet.quantize.lower import LAYERS, lower
from npmobilenet.quantize.parameters import Range
from npmobilenet.quantize.scales import as_tensorflow_sees

MOST_BYTES = 64 * 2**20  # of all values of a batch; V2 1.0_224 has 27 MB of them for one image


@dataclass(frozen=True)
class Calibration:
    """Ranges by tensor of the lowered graph, how many images made them, and why the others couldn't be read.

    `means` holds the mean of each channel of what layers read, for `quantize` to correct biases with; `peaks` the
    largest value of each channel of what layers give, for `equalize`.
    """

    ranges: dict[str, Range]
    images: int
    unreadable: dict[str, str]
    means: dict[str, Array] = field(default_factory=dict, compare=False)
    peaks: dict[str, Array] = field(default_factory=dict, compare=False)


Listener = Callable[[int, int], None]


def calibrate(
    model: ModelData | Model,
    images: Images | Iterable[Array],
    *,
    exact: bool = False,
    threads: int | None = None,
    on_progress: Listener | None = None,
) -> Calibration:
    """Run a float model over `images` and note the smallest and largest value of each tensor of `lower(data)`.

    `images`: what `open_images` gives, or arrays (N, H, W, C) or (H, W, C) of prepared float32 values. The ranges are
    as TensorFlow's calibrator would see them (`as_tensorflow_sees`), or with `exact` those that the values have.
    `on_progress(done, total)`; total is 0 where it isn't known.

    Raises `InputError`: a model that isn't float32, an unfit array, values that aren't finite, no readable image.
    """
    data = lower(ModelData(model.graph, model._tensors, model.info) if isinstance(model, Model) else model)
    engine = Model(data, threads=threads)
    names = [name for name, tensor in data.graph.tensors.items() if not tensor.constant]
    size = 4 * sum(math.prod(data.graph.tensors[name].shape) for name in names)
    batch = max(1, min(CHUNK, MOST_BYTES // size))
    found: dict[str, Range] = {}
    read = [node.inputs[0] for node in data.graph.nodes if node.op in LAYERS]
    sums: dict[str, Any] = dict.fromkeys(read, 0.0)  # of the means of images, by channel
    peaks: dict[str, Any] = dict.fromkeys((n.output for n in data.graph.nodes if n.op in LAYERS), -np.inf)
    unreadable: dict[str, str] = {}
    done = 0
    expected = len(images) if isinstance(images, Images) else 0
    source = _prepared(engine, images, unreadable)
    for batch_values in _batches(source, batch):
        _, values = engine.run(batch_values, taps=names, check_range=False)
        for name in names:
            found[name] = _extended(found.get(name), name, values[name])
        for name, total in sums.items():
            inside = tuple(range(1, values[name].ndim - 1))
            sums[name] = total + values[name].mean(axis=inside, dtype=np.float64).sum(axis=0)
        for name, peak in peaks.items():
            peaks[name] = np.maximum(peak, values[name].max(axis=tuple(range(values[name].ndim - 1))))
        done += len(batch_values)
        if on_progress is not None:
            on_progress(done + len(unreadable), expected)
    if not done:
        first = next(iter(unreadable.items()), None)
        raise InputError("no image to calibrate with" + (f"; {first[0]}: {first[1]}" if first else ""))
    means = {name: total / done for name, total in sums.items()}
    return Calibration(found if exact else as_tensorflow_sees(data.graph, found), done, unreadable, means, peaks)


def _extended(before: Range | None, name: str, values: Array) -> Range:
    low, high = float(values.min()), float(values.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InputError(f"'{name}' has values that aren't finite on a calibration image: the model can't be quantized")
    return Range(low, high) if before is None else before.union(Range(low, high))


def _prepared(engine: Model, images: Images | Iterable[Array], unreadable: dict[str, str]) -> Iterator[Array]:
    """Input tensors (1, H, W, C), one by one; what can't be read is noted and left out."""
    if isinstance(images, Images):
        for name, source in images:
            if isinstance(source, np.ndarray):
                yield source[None]
                continue
            try:
                yield engine.preprocess(source, images.recipe)
            except InputError as error:
                unreadable[name] = str(error)
        return
    for array in images:
        values: Any = np.asarray(array)
        yield from ([values[None]] if values.ndim == len(engine.input.shape) - 1 else (v[None] for v in values))


def _batches(source: Iterator[Array], size: int) -> Iterator[Array]:
    waiting: list[Array] = []
    for values in source:
        if waiting and waiting[0].shape != values.shape:
            raise InputError(f"calibration arrays of shapes {waiting[0].shape[1:]} and {values.shape[1:]}")
        waiting.append(values)
        if len(waiting) == size:
            yield np.concatenate(waiting)
            waiting = []
    if waiting:
        yield np.concatenate(waiting)
