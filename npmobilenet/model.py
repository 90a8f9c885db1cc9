"""The facade: `load` a model, `run` tensors through it, `predict` images."""

from __future__ import annotations

import difflib
import fnmatch
import os
import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np

from npmobilenet import engine, images, labels, preprocess, weightfile
from npmobilenet.converters import is_weight_file, read_model
from npmobilenet.errors import InputError, ModelNotFound, PlanError
from npmobilenet.graph import Graph
from npmobilenet.modeldata import Array, ModelData, ModelInfo
from npmobilenet.plan import ACC, ACCUMULATING, Plan, check_dtypes, check_tensors
from npmobilenet.zoo import checkpoints

CHUNK = 8  # images in one plan: larger batches run in pieces, so memory doesn't grow with the batch
PLANS_KEPT = 4
DIALECTS = ("tflite-reference", "tflite-optimized", "xnnpack")

# One run at a time: Numba's "workqueue" threading layer aborts the process when two threads enter parallel code, and
# with the other layers two runs would only compete for the same cores.
_RUNNING = threading.Lock()


@dataclass(frozen=True)
class Port:
    """An input or output of a model. `scale` and `zero_point` are None where it isn't quantized."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float | None = None
    zero_point: int | None = None


class Model:
    """A model ready to run. `load` makes one; `Model(data)` takes a `ModelData` from a converter or a builder.

    `threads=None` uses all cores that this process may use; a larger number than these is cut to it. The result doesn't
    depend on it, nor on `kernels` ("fast", or "reference": the book). `dialect` names the arithmetic of integer models
    (docs/exactness.md) and has no effect on float32 ones.

    Raises `PlanError` if the weights don't fit the graph or there are no kernels for it.
    """

    def __init__(
        self,
        data: ModelData,
        kernels: str = "fast",
        dialect: str = "tflite-reference",
        threads: int | None = None,
    ) -> None:
        if dialect not in DIALECTS:
            raise PlanError(f"dialect='{dialect}' is not one of {', '.join(DIALECTS)}")
        if threads is not None and (isinstance(threads, bool) or threads < 1):
            raise PlanError(f"threads={threads}: expected at least 1, or None for all cores")
        check_tensors(data.graph, data.tensors)
        check_dtypes(data.graph)
        self.graph: Graph = data.graph
        self.info: ModelInfo = data.info
        self.kernels = kernels
        self.dialect = dialect
        self.threads = threads
        self._tensors = data.tensors
        self._plans: OrderedDict[tuple[int, tuple[str, ...]], Plan] = OrderedDict()
        Plan(data.graph, data.tensors, kernels, 1)  # refuses an unknown kernel set now, not at the first run

    def __repr__(self) -> str:
        return f"<Model {self.info.name}: {self.input.dtype} {self.input.shape} -> {self.output.shape}>"

    @property
    def name(self) -> str:
        """The model's name."""
        return self.info.name

    @property
    def input(self) -> Port:
        """The first input: name, shape (1, height, width, channels), dtype, scale, zero_point."""
        return self._port(self.graph.inputs[0])

    @property
    def output(self) -> Port:
        """The first output."""
        return self._port(self.graph.outputs[0])

    def _port(self, name: str) -> Port:
        tensor = self.graph.tensors[name]
        q = tensor.quantization
        if q is None:
            return Port(name, tensor.shape, tensor.dtype)
        return Port(name, tensor.shape, tensor.dtype, q.scale[0], q.zero_point[0])

    # -- running -------------------------------------------------------------------------------------------------------

    @overload
    def run(self, x: Array, taps: None = None, *, check_range: bool = True) -> Array: ...
    @overload
    def run(
        self, x: Array, taps: str | Iterable[str], *, check_range: bool = True
    ) -> tuple[Array, dict[str, Array]]: ...
    def run(
        self, x: Array, taps: str | Iterable[str] | None = None, *, check_range: bool = True
    ) -> Array | tuple[Array, dict[str, Array]]:
        """The output for an input tensor (N, height, width, channels) of any N; a new array.

        `taps` are names or fnmatch patterns of endpoints and tensors ("layer_5/*", "*" for all, "#12" for a TFLite
        tensor index); prefixed by "acc:", the accumulators of convolutions and fully connected layers (their results
        before the activation). With taps the result is `(output, {name: array})`. A model with several outputs returns
        the first; the others are taps by their names (`graph.outputs`).

        Raises `InputError` for an unfit array (`check_range=False` drops the check that floats lie near the range of
        the model's recipe), `PlanError` for a tap that matches nothing.
        """
        shape, dtype = self.input.shape, self.input.dtype
        usual = preprocess.value_range(self.info.preprocessing) if check_range else None
        x = images.check_input(x, shape, dtype, usual)
        names = () if taps is None else self.match_taps([taps] if isinstance(taps, str) else taps)
        pieces: list[Array] = []
        tapped: dict[str, list[Array]] = {name: [] for name in names}
        with _RUNNING, _threads(self.threads, self.kernels):
            for first in range(0, len(x), CHUNK):
                piece = x[first : first + CHUNK]
                plan = self._plan(len(piece), names)
                pieces.append(engine.run(plan, piece)[0].copy())
                for name, views in tapped.items():
                    views.append(plan.taps[name].copy())
        output = np.concatenate(pieces)
        return output if taps is None else (output, {name: np.concatenate(views) for name, views in tapped.items()})

    def match_taps(self, patterns: Iterable[str]) -> tuple[str, ...]:
        """The tap names that the patterns stand for, in graph order. Raises `PlanError` if one matches nothing."""
        values = [n for n, t in self.graph.tensors.items() if not t.constant]
        known = list(dict.fromkeys([*self.graph.endpoints, *values]))
        producers = {node.output: node.op for node in self.graph.nodes}
        summed = [n for n in known if producers.get(self.graph.endpoints.get(n, n)) in ACCUMULATING]
        found: dict[str, None] = {}
        for pattern in patterns:
            prefix = ACC if pattern.startswith(ACC) else ""
            bare = pattern.removeprefix(ACC)
            names = summed if prefix else known
            hits = [bare] if bare in names else [n for n in names if fnmatch.fnmatchcase(n, bare)]
            if not hits and not (prefix and bare in known):
                near = ", ".join(difflib.get_close_matches(bare, names, 3)) or f"{names[0]}, ..., {names[-1]}"
                raise PlanError(f"tap '{pattern}' matches nothing in {self.name}; did you mean one of {near}?")
            found.update(dict.fromkeys(prefix + n for n in hits or [bare]))
        return tuple(found)

    def _plan(self, batch: int, taps: tuple[str, ...]) -> Plan:
        key = (batch, taps)
        plan = self._plans.pop(key, None)
        if plan is None:
            plan = Plan(self.graph, self._tensors, self.kernels, batch, taps)
        self._plans[key] = plan
        while len(self._plans) > PLANS_KEPT:
            self._plans.popitem(last=False)
        return plan

    def plan(self, batch: int = 1) -> Plan:
        """The plan for a batch size, for those who want its steps and its memory figures."""
        return self._plan(batch, ())

    # -- images --------------------------------------------------------------------------------------------------------

    def preprocess(self, image: Any, recipe: str | None = None) -> Array:
        """The exact input tensor (N, height, width, 3) for an image or several, by the model's recipe or another.

        `image`: a path, encoded bytes, a uint8 array (H, W, 3) or (N, H, W, 3), or a list. Raises `InputError`.
        """
        size = (self.input.shape[1], self.input.shape[2])
        return preprocess.preprocess(image, size, recipe or self.info.preprocessing)

    def predict(self, images: Any, top: int = 5, recipe: str | None = None) -> list[list[labels.Prediction]]:
        """For each image its best classes: `[(class_id, label, score), ...]`, best first.

        `class_id` is the model's own output index (0 is "background" where there are 1001 classes). Raises `InputError`
        for unfit images, and for a model that isn't a classifier.
        """
        if len(self.output.shape) != labels.SCORES_RANK:
            raise InputError(
                f"{self.name} is not a classifier: its output '{self.output.name}' has shape {self.output.shape}; "
                "use run(preprocess(image)) to get it"
            )
        return labels.decode(self.run(self.preprocess(images, recipe)), self.info, top)


class _threads:  # noqa: N801
    """Sets Numba's number of threads for a block, and puts the old one back."""

    def __init__(self, threads: int | None, kernels: str) -> None:
        self.wanted = None if kernels == "python" else threads

    def __enter__(self) -> None:
        if self.wanted is not None:
            import numba

            self.before = numba.get_num_threads()
            numba.set_num_threads(min(self.wanted, numba.config.NUMBA_NUM_THREADS))

    def __exit__(self, *_: object) -> None:
        if self.wanted is not None:
            import numba

            numba.set_num_threads(self.before)


def load(
    name_or_path: str | os.PathLike[str],
    kernels: str = "fast",
    dialect: str = "tflite-reference",
    threads: int | None = None,
) -> Model:
    """A model by registered name, or by path: `.h5` of this project, or a foreign file, converted in memory.

    A name is looked for among the weights that came with the package, then in the folder NPMOBILENET_WEIGHTS.
    Nothing is downloaded. Raises `ModelNotFound`, `WeightFileError`, `ConversionError`, `PlanError`.
    """
    return Model(load_data(name_or_path), kernels, dialect, threads)


def load_data(name_or_path: str | os.PathLike[str]) -> ModelData:
    """What `load` loads, before it is planned."""
    path = find(name_or_path)
    return weightfile.read(path) if is_weight_file(path) else read_model(path)


def find(name_or_path: str | os.PathLike[str]) -> Path:
    """The file that a name or path stands for. Raises `ModelNotFound`."""
    path = Path(name_or_path)
    text = os.fspath(name_or_path)
    try:
        if text and (path.exists() or path.with_name(path.name + ".index").is_file()):
            return path
    except (OSError, ValueError) as error:  # a name too long for the file system, or with a null byte
        raise ModelNotFound(f"{text[:80]!r} can be neither a file nor a model's name: {error}") from error
    if os.sep in text or path.suffix in (".h5", ".tflite", ".keras", ".index", ".ckpt"):
        raise ModelNotFound(f"there is no file {text}; `npmobilenet models` lists the names that are known")
    for folder in weight_folders():
        for stem in (text, f"{text}_float"):
            if (folder / f"{stem}.h5").is_file():
                return folder / f"{stem}.h5"
    row = checkpoints.resolve(text)
    for folder in weight_folders():
        if (folder / f"{row.name}.h5").is_file():
            return folder / f"{row.name}.h5"
    raise ModelNotFound(
        f"the weights of {row.name} are not on this machine. Download {row.url}, unpack it, then: "
        f"npmobilenet convert FILE {row.name}.h5 (FILE: the .tflite or checkpoint in it), and pass that .h5's path "
        "or put it into the folder that NPMOBILENET_WEIGHTS names"
    )


def weight_folders() -> list[Path]:
    """Where named weight files are looked for: the package's own, a checkout's `weights/`, NPMOBILENET_WEIGHTS."""
    package = Path(__file__).parent
    folders = [package / "weights"]
    if (package.parent / "pyproject.toml").is_file():  # a checkout, not some site-packages/weights
        folders.append(package.parent / "weights")
    if os.environ.get("NPMOBILENET_WEIGHTS"):
        folders.append(Path(os.environ["NPMOBILENET_WEIGHTS"]))
    return folders
