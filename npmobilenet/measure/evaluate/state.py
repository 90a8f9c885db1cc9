"""What has been done so far, in memory and in the state file: one .npz, written whole, validated when read."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from npmobilenet.errors import InputError
from npmobilenet.formats import whole_file
from npmobilenet.formats.weightfile.schema import tensors_digest
from npmobilenet.measure.datasets import Dataset
from npmobilenet.measure.datasets.npz import read_arrays
from npmobilenet.model import Model
from npmobilenet.modeldata import Array

FORMAT = "npmobilenet evaluation state"
VERSION = 1
PENDING, DONE, UNREADABLE = 0, 1, 2
TOP = 5
MAX_HEADER_BYTES = 256 * 2**20
FORMS = {"header": ("u", 1), "index": ("i", 1), "status": ("u", 1), "ids": ("i", 2), "best": ("f", 2)}


@dataclass(frozen=True)
class Identity:
    """What a state belongs to; the predictions of another are worth nothing. Kernels and threads change no bit."""

    model: str  # sha256 of graph, weights and labels
    data: str  # fingerprint
    recipe: str
    dialect: str

    @classmethod
    def of(cls, model: Model, data: Dataset, recipe: str | None) -> Identity:
        """The identity of an evaluation."""
        return cls(model_digest(model), data.fingerprint, recipe or model.info.preprocessing, model.dialect)


def model_digest(model: Model) -> str:
    """The sha256 of graph, weights and labels."""
    facts = [model.graph.to_json(), tensors_digest(model.graph, model._tensors)]
    facts.append(json.dumps([model.info.labels, model.info.label_offset]))
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()


class State:
    """The predictions so far, for `count` images of a data set.

    `status` (count,) uint8, `ids` (count, TOP) int32 and `best` (count, TOP) float64, the scores of `ids`, best first;
    TOP is 5, or the number of classes if that is smaller. `order` lists the images that are done.
    """

    def __init__(self, path: Path | None, identity: Identity, count: int, classes: int, scores: bool) -> None:
        self.path, self.identity, self.classes, self.scores = path, identity, classes, scores
        top = min(TOP, classes)
        self.status: NDArray[np.uint8] = np.zeros(count, np.uint8)
        self.ids: NDArray[np.int32] = np.full((count, top), -1, np.int32)
        self.best: NDArray[np.float64] = np.zeros((count, top))
        self.order: list[int] = []
        self.errors: dict[int, str] = {}

    @property
    def done(self) -> int:
        """The number of images that are done, unreadable ones included."""
        return len(self.order)

    @property
    def readable(self) -> int:
        """The number of images predicted."""
        return len(self.order) - len(self.errors)

    def predicted(self, i: int, ids: Sequence[int], best: Sequence[float]) -> None:
        """Keep a prediction. Interrupted anywhere, the image is either done or not."""
        self.ids[i], self.best[i] = ids, best
        self.status[i] = DONE
        self.order.append(i)

    def unreadable(self, i: int, error: str) -> None:
        """Keep that an image can't be read."""
        self.status[i] = UNREADABLE
        self.errors[i] = error
        self.order.append(i)

    # -- the file ------------------------------------------------------------------------------------------------------

    def save(self, scores: ScoresFile | None = None) -> None:
        """Write the state file, if there is to be one, whole. Raises `InputError` if it can't be written."""
        if self.path is None:
            return
        order = np.array(self.order, np.int64)
        # Interrupted between two statements of `predicted` or `unreadable`, the last image counts as not done.
        header = {
            "format": FORMAT,
            "version": VERSION,
            **asdict(self.identity),
            "images": len(self.status),
            "classes": self.classes,
            "scores": self.scores,
            "errors": {str(i): self.errors[i] for i in self.order if i in self.errors},
        }
        arrays: dict[str, Any] = {
            "header": np.frombuffer(json.dumps(header).encode(), np.uint8),
            "index": order,
            "status": self.status[order],
            "ids": self.ids[order],
            "best": self.best[order],
        }
        if scores is not None:
            scores.flush()
        write_whole(self.path, lambda file: np.savez(file, allow_pickle=False, **arrays))

    @classmethod
    def open(cls, path: Path | None, identity: Identity, count: int, classes: int, scores: bool) -> State:
        """The state in `path`, or an empty one. Raises `InputError`: no state file, or of another evaluation."""
        state = cls(path, identity, count, classes, scores)
        if path is None:
            return state
        if not path.exists():
            if not path.parent.is_dir():
                raise InputError(f"state '{path}': there is no folder '{path.parent}'; make it first")
            return state
        if not path.is_file():
            raise InputError(f"state '{path}' is not a file")
        try:
            arrays = read_arrays(path, FORMS, "state")
        except InputError as error:
            raise InputError(f"{error}; delete it, or begin anew with another state") from error
        header = _header(path, arrays["header"])
        _check_identity(path, header, identity)
        if (header.get("images"), header.get("classes")) != (count, classes):
            raise _damaged(path, "its header counts other images or classes than the data and the model have")
        if scores and header.get("scores") is not True:
            raise InputError(
                f"state '{path}' was begun without keeping all scores, which predictions in an .npz need: give the "
                "predictions a .csv name, or begin anew with another state"
            )
        state.scores = header.get("scores") is True and scores
        state._fill(path, arrays, header)
        return state

    def _fill(self, path: Path, arrays: Mapping[str, Array], header: Mapping[str, Any]) -> None:
        index, status, ids, best = (arrays[name] for name in ("index", "status", "ids", "best"))
        top = self.ids.shape[1]
        if not (len(index) == len(status) == len(ids) == len(best)) or ids.shape[1] != top or best.shape[1] != top:
            raise _damaged(path, "its arrays have different lengths")
        if len(index) and (index.min() < 0 or index.max() >= len(self.status) or len(np.unique(index)) != len(index)):
            raise _damaged(path, "an image index is out of range, or occurs twice")
        good = status == DONE
        if not (good | (status == UNREADABLE)).all():
            raise _damaged(path, "an image is neither predicted nor unreadable")
        bad_ids = good.any() and (ids[good].min() < 0 or ids[good].max() >= self.classes)
        if bad_ids or not np.isfinite(best[good]).all():
            raise _damaged(path, "a class id or a score is out of range")
        errors = header.get("errors")
        expected = {str(i) for i in index[~good]}
        if not isinstance(errors, dict) or set(errors) != expected or not all(map(_is_text, errors.values())):
            raise _damaged(path, "the unreadable images and their errors differ")
        self.status[index], self.ids[index], self.best[index] = status, ids, best
        self.order = [int(i) for i in index]
        self.errors = {int(i): text for i, text in errors.items()}


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _damaged(path: Path, why: str) -> InputError:
    return InputError(f"state '{path}' is damaged: {why}; delete it, or begin anew with another state")


def _header(path: Path, content: Array) -> dict[str, Any]:
    if content.dtype != np.uint8 or content.size > MAX_HEADER_BYTES:
        raise _damaged(path, "its header is no text")
    try:
        header = json.loads(content.tobytes())
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"its header is no JSON ({str(error)[:80]})") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise InputError(f"'{path}' is not a state file of an evaluation, so it is left alone: name another file")
    if header.get("version") != VERSION:
        raise InputError(f"state '{path}' has version {header.get('version')!r}, expected {VERSION}: begin anew")
    return header


def _check_identity(path: Path, header: Mapping[str, Any], identity: Identity) -> None:
    wanted = asdict(identity)
    different = [key for key, value in wanted.items() if header.get(key) != value]
    if different:
        details = "; ".join(f"{k}: {str(header.get(k))[:24]} there, {wanted[k][:24]} here" for k in different)
        raise InputError(
            f"state '{path}' belongs to another evaluation, it differs in {', '.join(different)} ({details}): "
            "give the same again, or another state"
        )


def write_whole(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """As `whole_file.write_whole`. Raises `InputError` if that fails."""
    try:
        whole_file.write_whole(path, write)
    except OSError as error:
        raise InputError(f"'{path}' can't be written: {error.strerror or error}") from error


# ---------------------------------------------------------------------------------------------------------------------
# All scores


class ScoresFile:
    """All outputs of the predicted images, one row each, in the order in which they were predicted, on disk.

    With a state it lies beside it (`STATE.scores`) and stays; the state says how many rows of it count. Without one it
    is a temporary file, which vanishes when closed.

    A quantized model's rows are kept as the integers that it gave, and read as real values, as `predict`'s scores are.
    """

    def __init__(self, state: Path | None, model: Model, rows: int) -> None:
        self.shape, self._real = (model.output.shape[1],), model.scores
        self._raw = np.dtype(model.output.dtype).newbyteorder("<")
        self.dtype = model.scores(np.zeros(0, self._raw)).dtype.newbyteorder("<")
        self.row_bytes = self.shape[0] * self._raw.itemsize
        if state is None:
            self.path = "a temporary file"
            self._file: IO[bytes] = tempfile.TemporaryFile(prefix="npmobilenet-scores-")  # noqa: SIM115
            return
        path = state.with_name(state.name + ".scores")
        self.path = os.fspath(path)
        try:
            size = path.stat().st_size if rows else 0
            if size < rows * self.row_bytes:
                raise InputError(
                    f"'{path}' has {size:,} bytes, and the state beside it counts {rows} rows of {self.row_bytes:,}: "
                    "it is damaged; begin anew with another state"
                )
            self._file = open(path, "r+b" if rows else "w+b")  # noqa: SIM115
        except OSError as error:
            raise InputError(f"'{path}', the scores of state '{state}', {error.strerror or error}") from error

    def write(self, row: int, scores: Array) -> None:
        """Write the model's output for the `row`-th predicted image, over what an interruption may have left there."""
        with self._told():
            self._file.seek(row * self.row_bytes)
            self._file.write(scores.astype(self._raw, copy=False).tobytes())

    def read(self, row: int) -> Array:
        """The scores of the `row`-th predicted image, of dtype `dtype`."""
        self._file.seek(row * self.row_bytes)
        content = self._file.read(self.row_bytes)
        if len(content) != self.row_bytes:
            raise InputError(f"{self.path} ends before row {row}: it is damaged; begin anew with another state")
        return self._real(np.frombuffer(content, self._raw)).astype(self.dtype, copy=False)

    def flush(self) -> None:
        """Hand everything to the disk."""
        with self._told():
            self._file.flush()
            os.fsync(self._file.fileno())

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InputError(f"the scores can't be written to {self.path}: {error.strerror or error}") from error

    def close(self) -> None:
        """Close, and so remove a temporary one."""
        self._file.close()
