"""The facade: `load` a model, `run` tensors through it, `predict` images."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from npmobilenet.arithmetic.dialects import dialect as dialect_named
from npmobilenet.errors import InputError, PlanError
from npmobilenet.formats import Resolution, is_weight_file, read_model, weightfile
from npmobilenet.formats.model_path import load_data
from npmobilenet.graph import Graph
from npmobilenet.images import labels as class_names
from npmobilenet.images import recipes
from npmobilenet.images.decoding import TENSOR, each_image
from npmobilenet.images.inputs import (
    NHWC,
    Inputs,
    Port,
    channels_first,
    check_inputs,
    output_array,
    picture_shape,
    port_of,
    real_values,
)
from npmobilenet.images.own import Labels, with_own
from npmobilenet.images.prefetch import cores
from npmobilenet.modeldata import Array, ModelData, ModelInfo
from npmobilenet.runtime import engine, pooled
from npmobilenet.runtime.exclusive import exclusive
from npmobilenet.runtime.plan import MEMORY_LIMIT, Plan
from npmobilenet.runtime.taps import match_taps
from npmobilenet.runtime.twins import Item, Ready, Result, Twins

CHUNK = 8  # images in one plan, at most: larger batches run in pieces, so memory doesn't grow with the batch
# Bytes of their intermediate values, so that these stay in caches. Images per second by those of batch 1 (Zen 4): 1.35
# with 8 images of V2 0.35_96 (4 MB), 1.16 with 4 of V3 small (5 MB), 1.04 with 2 of V2 1.0_224 (5 MB); 0.94 with 8 of
# it (18 MB), and 0.98 with 2 of V1 1.0_224 (9 MB).
NEAR = 6 << 20
AHEAD = 2 * CHUNK  # images that `predict` takes before their results are asked for
PLANS_KEPT = 4


class Model:
    """A model ready to run. `load` makes one; `Model(data)` takes a `ModelData` from a converter or a builder.

    `threads=None` uses all cores that this process may use; a larger number than these is cut to it. The result doesn't
    depend on it, nor on `kernels` ("fast" or "reference"). `dialect` names the arithmetic of integer models
    (docs/arithmetic.md) and has no effect on float32 ones.

    `memory_limit` is the most bytes that the intermediate values of a plan may take (a small file may ask for any).
    `images_at_once` is the number of images that `run` gives to one plan.

    Raises `PlanError` if the weights don't fit the graph or there are no kernels for it.
    """

    def __init__(
        self,
        data: ModelData,
        kernels: str = "fast",
        dialect: str = "tflite-reference",
        threads: int | None = None,
        memory_limit: int = MEMORY_LIMIT,
    ) -> None:
        if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
            raise PlanError(f"threads={threads!r}: expected a whole number of at least 1, or None for all cores")
        self.data = data
        self.graph: Graph = data.graph
        self.info: ModelInfo = data.info
        self.kernels = kernels
        self.dialect = dialect_named(dialect).name
        self.threads = threads
        self.memory_limit = memory_limit
        self._tensors = {n: np.require(array, requirements=["C", "W"]) for n, array in data.tensors.items()}
        self._packed: dict[Any, Any] = {}  # weights as the kernels read them, for all plans
        self._plans: OrderedDict[tuple[int, tuple[str, ...]], Plan] = OrderedDict()
        self._ports = [port_of(self.graph, name) for name in self.graph.inputs]
        self._result = self.output
        size = max(self.plan().arena_bytes, 1)  # all checks now, not at the first run of one image
        self.images_at_once = min(1 << max(NEAR // size, 1).bit_length() - 1, CHUNK)  # a power of two shares out 8
        self._twins, self._apart = Twins(self._twin, min(threads or cores(), max(memory_limit // size, 1))), False

    def __reduce__(self) -> tuple[Any, ...]:
        """For copy and pickle (a process of multiprocessing's, say): the plans are made anew."""
        data = ModelData(self.graph, self._tensors, self.info)
        return Model, (data, self.kernels, self.dialect, self.threads, self.memory_limit)

    def __repr__(self) -> str:
        return f"<Model {self.info.name}: {self.input.dtype} {self.input.shape} -> {self.output.shape}>"

    @property
    def name(self) -> str:
        """The model's name."""
        return self.info.name

    @property
    def input(self) -> Port:
        """The first input: name, shape (1, height, width, channels), dtype, scale, zero_point."""
        return port_of(self.graph, self.graph.inputs[0])

    @property
    def output(self) -> Port:
        """The first output."""
        return port_of(self.graph, self.graph.outputs[0])

    @property
    def arithmetic(self) -> str | None:
        """The dialect that the integers follow, None for a model that has none: a dialect has no say in float32."""
        quantized = any(tensor.quantization for tensor in self.graph.tensors.values())
        return self.dialect if quantized else None

    @property
    def is_classifier(self) -> bool:
        """Whether the output is one score for each class: (1, classes), with labels or out of a softmax or sigmoid."""
        last = pooled.last_node(self.graph, self.output.name)
        squashed = last is not None and "sigmoid" in last.attrs.values()
        scores = bool(self.info.labels) or self.gives_probabilities or squashed
        return scores and len(self.output.shape) == class_names.SCORES_RANK

    @property
    def gives_probabilities(self) -> bool:
        """Whether the output comes out of a softmax."""
        last = pooled.last_node(self.graph, self.output.name)
        return last is not None and last.op == "softmax"

    # -- running -------------------------------------------------------------------------------------------------------

    @overload
    def run(self, x: Inputs, taps: None = None, *, check_range: bool = True, out: Array | None = None) -> Array: ...
    @overload
    def run(
        self, x: Inputs, taps: str | Iterable[str], *, check_range: bool = True, out: Array | None = None
    ) -> tuple[Array, dict[str, Array]]: ...
    def run(
        self,
        x: Inputs,
        taps: str | Iterable[str] | None = None,
        *,
        check_range: bool = True,
        out: Array | None = None,
    ) -> Array | tuple[Array, dict[str, Array]]:
        """The output for an input tensor (N, height, width, channels) of any N; a new array, or `out`.

        `out`, an array of the output's shape and dtype in any layout, apart from `x`, is where the output goes: a loop
        over frames then asks for no memory.

        A model with several inputs takes them as a dict by their names (`graph.inputs`), equal in N.

        `taps` are names or fnmatch patterns of endpoints and tensors ("layer_5/*", "*" for all, "#12" for a TFLite
        tensor index); prefixed by "acc:", the accumulators of convolutions and fully connected layers, by "pre:", their
        results before the activation (see taps.py). With taps the result is `(output, {name: array})`. A model with
        several outputs returns the first; the others are taps by their names (`graph.outputs`).

        Raises `InputError` for an unfit array (`check_range=False` drops the check that floats lie near the range of
        the model's recipe) and an unfit `out`, `PlanError` for a tap that matches nothing.
        """
        usual = recipes.value_range(self.info.preprocessing) if check_range else None
        inputs = check_inputs(x, self._ports, usual, self.name)
        count, at_once = len(inputs[0]), self.images_at_once
        output = output_array(self._result, inputs, out)
        names = () if taps is None else self.match_taps(taps)
        tapped: dict[str, list[Array]] = {name: [] for name in names}
        apart = self._apart and (count, names) in self._plans  # what a first run prepares, other threads read
        with exclusive(self.threads, self.kernels, apart) as threads:
            for first in range(0, count, at_once):
                chunk = inputs if count <= at_once else [array[first : first + at_once] for array in inputs]
                plan = self._plan(len(chunk[0]), names)
                output[first : first + at_once] = engine.run(plan, *chunk, threads=threads)[0]
                for name, views in tapped.items():
                    views.append(plan.taps[name].copy())
        return output if taps is None else (output, {name: np.concatenate(views) for name, views in tapped.items()})

    def match_taps(self, patterns: str | Iterable[str]) -> tuple[str, ...]:
        """The tap names that a pattern, or several, stand for, in graph order.

        Raises `PlanError` if one matches nothing, with the nearest names.
        """
        return match_taps(self.graph, self.name, patterns)

    def _plan(self, batch: int, taps: tuple[str, ...]) -> Plan:
        key = (batch, taps)
        plan = self._plans.pop(key, None)
        if plan is None:
            how = self.kernels, batch, taps, self.dialect, None, self._packed, self.memory_limit
            plan = Plan(self.graph, self._tensors, *how)
        self._plans[key] = plan
        while len(self._plans) > PLANS_KEPT:
            self._plans.popitem(last=False)
        return plan

    def plan(self, batch: int = 1) -> Plan:
        """The plan for a batch size, for those who want its steps and its memory figures."""
        return self._plan(batch, ())

    # -- images --------------------------------------------------------------------------------------------------------

    def preprocess(self, image: Any, recipe: str | None = None) -> Array:
        """The exact input tensor of an image or several, by the model's recipe or another.

        (N, height, width, channels), or (N, channels, height, width) where the model takes pictures so.

        For an integer input the recipe's real values are quantized by the input's own scale and zero point. For an
        input of one channel the image turns grey first (ITU-R 601, as Pillow's mode "L").
        `image`: a path, encoded bytes, a uint8 array (H, W, 3) or (N, H, W, 3), or a list. Raises `InputError`.
        """
        port = self.input
        channels, size = self._channels(), picture_shape(port.shape)[:2]
        x = recipes.preprocess(image, size, recipe or self.info.preprocessing, channels)
        if channels_first(port.shape):
            x = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
        if port.dtype == "float32" or port.scale is None or port.zero_point is None:
            return x
        return recipes.quantize_input(x, port.scale, port.zero_point, port.dtype)

    def _channels(self) -> int:
        """Channels of the input. Raises `InputError` if it isn't one of pictures."""
        if len(self.input.shape) != NHWC:
            raise InputError(f"{self.name} takes {self.input.shape}, no pictures: {TENSOR}")
        return picture_shape(self.input.shape)[2]

    def predict(self, images: Any, top: int = 5, recipe: str | None = None) -> list[list[class_names.Prediction]]:
        """For each image its best classes: `[(class_id, label, score), ...]`, best first.

        `images`: as for `preprocess`, or an iterator of paths, bytes or arrays (H, W, 3). Several are worked on
        by threads (`in_order`), at most `AHEAD` images at a time, so memory doesn't grow.
        A quantized model's scores are real values, `scale * (output - zero_point)`, as a float one's.
        `class_id` is the model's own output index (0 is "background" where there are 1001 classes). Raises `InputError`
        for unfit images, and for a model that isn't a classifier.
        """
        self.check_classifier()
        return self._each(images, recipe, lambda model, x: model.best_classes(x, top)[0])

    def _each(self, images: Any, recipe: str | None, use: Callable[[Model, Array], Result]) -> list[Result]:
        recipes.get_recipe(recipe or self.info.preprocessing)
        loaders = each_image(images, self._channels())
        with self.in_order(lambda load: self.preprocess(load(), recipe), use, loaders) as results:
            return list(results)

    def best_classes(self, x: Inputs, top: int = 5) -> list[list[class_names.Prediction]]:
        """`predict` of an input tensor, as `preprocess` makes it: all that follows once the pictures are read."""
        return class_names.decode(self.scores(self.run(x)), self.info, top)

    def check_classifier(self) -> None:
        """Raises `InputError` if it is no classifier, `WeightFileError` if its labels don't fit."""
        if not self.is_classifier:
            raise InputError(
                f"{self.name} is not a classifier: its output '{self.output.name}' has shape {self.output.shape}, "
                "expected (1, classes) with labels or out of a softmax; use it from Python, with run(preprocess(image))"
            )
        class_names.label_names(self.info, self.output.shape[1])

    def features(
        self, images: Any, layer: str = pooled.POOLED, l2: bool = False, recipe: str | None = None
    ) -> NDArray[np.float32]:
        """A vector for each image, (N, channels) float32: what the model saw in it, before it decided on a class.

        `layer`: "pooled" is what the published classifier reads, whatever the model's file calls it
        (`runtime/pooled.py`); any endpoint or tensor will do, and maps are averaged over their pixels. Integers become
        real values. `l2` makes each vector's length 1. `images` and `recipe`: as for `predict`.

        Raises `InputError`: unfit images, no such layer.
        """
        port = pooled.layer_of(self.graph, layer)
        return np.concatenate(self._each(images, recipe, lambda model, x: model.vectors(x, port, l2)))

    def vectors(self, x: Inputs, port: Port, l2: bool = False) -> NDArray[np.float32]:
        """`features` of an input tensor, as `preprocess` makes them."""
        return pooled.as_vectors(self.run(x, [port.name])[1][port.name], port, l2)

    def in_order(
        self, prepare: Callable[[Item], Ready], use: Callable[[Model, Ready], Result], items: Iterable[Item]
    ) -> AbstractContextManager[Iterator[Result]]:
        """`use(model, prepare(item))` for each of `items`, in their order: `runtime/twins.py`."""
        return self._twins.in_order(self, prepare, use, items, AHEAD)

    def _twin(self) -> Model:
        twin = object.__new__(Model)
        vars(twin).update(vars(self), threads=1, _plans=OrderedDict(), _apart=True)
        return twin

    def scores(self, output: Array) -> Array:
        """The real values of an output: float32 ones as they are, integers by the output's scale and zero point."""
        return real_values(output, self.output)


def load(
    name_or_path: str | os.PathLike[str],
    kernels: str = "fast",
    dialect: str = "tflite-reference",
    threads: int | None = None,
    memory_limit: int = MEMORY_LIMIT,
    outputs: str | Iterable[str] = (),
    *,
    labels: Labels | None = None,
    preprocess: str | None = None,
    resolution: Resolution = None,
    model: str | None = None,
    pull: bool = False,
) -> Model:
    """A model by registered name, or by path: `.h5` of this project, or a foreign file, converted in memory.

    A name is looked for among the package's weights, in the folder NPMOBILENET_WEIGHTS, and among those that were
    pulled. Nothing is downloaded, unless `pull` is True and the weights aren't there (`formats/download`).
    `outputs` are endpoints or tensors ("#165": a TFLite index) to end at; what lies behind may be an unknown op.

    `labels` and `preprocess` are for what the file doesn't tell, or tells wrongly. `labels`: the path of a label file,
    the names of the classes, their indices by name (Keras' `class_indices`), or "imagenet". `preprocess`: the recipe
    for its pictures, a name of docs/preprocessing.md. `resolution`, `model` (which architecture a file of
    weights alone is of, "timm/mobilenetv2_050"): as for `read_model`. The rest: as for `Model`.

    Raises `ModelNotFound`, `WeightFileError`, `ConversionError`, `PlanError`, `InputError` (labels, recipe),
    `DownloadError`.
    """
    if pull and isinstance(name_or_path, str) and not os.path.exists(name_or_path):
        from npmobilenet.formats.download import pull as fetch

        fetch(name_or_path)
    data = with_own(load_data(name_or_path, outputs, resolution, model), labels, preprocess)
    return Model(data, kernels, dialect, threads, memory_limit)


def convert(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    model: str | None = None,
    ema: bool | str = "auto",
    outputs: Sequence[str] = (),
    *,
    labels: Labels | None = None,
    preprocess: str | None = None,
    resolution: Resolution = None,
) -> ModelData:
    """Convert `src` (see `formats.read_model`) and write the weight file `dst` (.h5). Returns what was written.

    The file keeps `labels` and `preprocess`, as for `load`; to add them, `src` may be a weight file. Raises as `load`.
    """
    path = Path(src)
    again = (labels is not None or preprocess is not None) and path.is_file() and is_weight_file(path)
    read = weightfile.read(path).until(outputs) if again else read_model(path, model, ema, outputs, resolution)
    weightfile.write(dst, data := with_own(read, labels, preprocess))
    return data
