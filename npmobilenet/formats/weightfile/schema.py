"""What the format says: its constants, names, sums and messages, shared by reader and writer. Sizes: limits.py."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

import numpy as np

from npmobilenet.errors import WeightFileError
from npmobilenet.graph import DTYPES, Graph
from npmobilenet.modeldata import Array, ModelInfo

FilePath = str | os.PathLike[str]

FORMAT = "npmobilenet"
SCHEMA = 1
MEMBERS = ("graph", "info", "tensors")
LABEL_COUNTS: Mapping[str, int] = {"imagenet": 1000}  # the label lists known by name

_RANGES = {
    name: range(int(np.iinfo(name).min), int(np.iinfo(name).max) + 1) for name in DTYPES if np.dtype(name).kind in "iu"
}
_MOST_NAMES = 100  # listed in one message
MOST_CHARACTERS = 200  # of one name or value quoted in a message

DAMAGED = "The file is damaged or was changed: fetch it again, or make it again with 'npmobilenet convert SRC DST.h5'."
CONVERT = "If it is a model, make a weight file of it with 'npmobilenet convert SRC DST.h5'."
NOT_WRITTEN = "Nothing was written: mend the ModelData, then write it again."
CHECK_PATH = "Check the path and its permissions."

# What h5py raises on damaged or hostile files depends on where HDF5 notices.
H5PY_ERRORS = (
    OSError, LookupError, RuntimeError, ValueError, TypeError,
    ArithmeticError, AttributeError, MemoryError,
)  # fmt: skip


class RefusalError(Exception):
    """A rule of the format is broken; `read` and `write` add the path and their own remedy."""

    def __init__(self, what: str, expected: object, found: object, remedy: str = "") -> None:
        super().__init__(what)
        self.text = f"{what}: expected {expected}, found {found}."
        self.remedy = remedy


def encode_name(name: str) -> str:
    """A tensor's name as its dataset's: percent-encoded UTF-8, only `A-Z a-z 0-9 _ - ~` as is.

    So '/' makes no groups, and nothing is left that HDF5 reads as a path: '.' becomes '%2E', and
    '' becomes '%'. `urllib.parse.unquote` is the inverse (except for '').
    """
    return quote(name, safe="", errors="surrogatepass").replace(".", "%2E") or "%"


def digest(content: bytes) -> str:
    """The sha256 of `content`, in hex."""
    return hashlib.sha256(content).hexdigest()


def tensors_digest(graph: Graph, tensors: Mapping[str, Array]) -> str:
    """Sha256 over each constant, in graph order: a line of JSON, then the little-endian bytes.

    The line is `["name","dtype",[shape]]` and a newline.
    """
    total = hashlib.sha256()
    for name, tensor in graph.constants.items():
        line = json.dumps([name, tensor.dtype, tensor.shape], separators=(",", ":"))
        total.update(f"{line}\n".encode())
        stored = np.dtype(tensor.dtype).newbyteorder("<")
        total.update(tensors[name].astype(stored, copy=False).reshape(-1).data)
    return total.hexdigest()


def stored_type(dtype: np.dtype[Any]) -> Any:
    """The HDF5 type of a dtype in the file: little-endian."""
    import h5py

    return h5py.h5t.py_create(dtype.newbyteorder("<"))


def is_fixed_string(kind: Any) -> bool:
    """Whether an HDF5 type is a string that isn't of variable length."""
    import h5py

    return isinstance(kind, h5py.h5t.TypeStringID) and not kind.is_variable_str()


def type_name(dataset: Any) -> str:
    """A dataset's type for a message, in NumPy's spelling where it has one ('>f4', 'object')."""
    try:
        return str(dataset.dtype)
    except H5PY_ERRORS:
        return type(dataset.id.get_type()).__name__


def check_names(what: str, expected: Iterable[str], found: Iterable[str]) -> None:
    """Refuse missing and unknown names, all of them in one message."""
    wanted, given = {*expected}, {*found}
    missing, unknown = sorted(wanted - given), sorted(given - wanted)
    if missing or unknown:
        parts = [f"missing {listed(missing)}"] if missing else []
        parts += [f"unknown {listed(unknown)}"] if unknown else []
        raise RefusalError(what, f"the {len(wanted)} declared names", "; ".join(parts))


def check_finite(name: str, array: Array) -> None:
    """Refuse NaN and infinity, naming the first place that has one."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        index = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise RefusalError(called(name), "finite values", f"{array[index]} at {index}")


def check_quantization(graph: Graph) -> None:
    """One scale and zero point, or one for each index of the axis; finite, positive, in range."""
    for tensor in graph.tensors.values():
        q = tensor.quantization
        if q is None:
            continue
        what = f"quantization of {called(tensor.name)}"
        if q.axis is not None and not 0 <= q.axis < len(tensor.shape):
            raise RefusalError(what, f"an axis of shape {tensor.shape}", f"axis {q.axis}")
        count = 1 if q.axis is None else tensor.shape[q.axis]
        if (len(q.scale), len(q.zero_point)) != (count, count):
            found = f"{len(q.scale)} and {len(q.zero_point)}"
            raise RefusalError(what, f"{count} scales and zero points", found)
        bad = [scale for scale in q.scale if not 0 < scale < 2**128 - 2**103]
        if bad:
            raise RefusalError(what, "finite float32 scales above 0", bad[0])
        outside = [z for z in q.zero_point if z not in _RANGES.get(tensor.dtype, (z,))]
        if outside:
            raise RefusalError(what, f"zero points in {tensor.dtype}", shown(outside[0]))


def info_to_json(info: ModelInfo) -> bytes:
    """The facts as JSON; equal facts give equal bytes."""
    labels = info.labels if isinstance(info.labels, str) else list(info.labels)
    facts = {**vars(info), "labels": labels, "provenance": dict(info.provenance)}
    return json.dumps(facts, sort_keys=True, indent=1).encode()


def info_from_json(text: bytes) -> ModelInfo:
    """The facts, each of its documented type; a missing or unknown one is refused."""
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RefusalError("info", "JSON", error) from error
    if not isinstance(facts, dict):
        raise RefusalError("info", "a JSON object", type(facts).__name__)
    rules = {
        "name": (_is_text, "a string, not empty"),
        "labels": (_is_labels, "the name of a label list, or a list of strings"),
        "label_offset": (_is_count, "a whole number of at least 0"),
        "preprocessing": (_is_text, "a string, not empty"),
        "provenance": (_is_strings, "an object whose values are strings"),
    }
    check_names("fields of info", rules, facts)
    for name, (good, expected) in rules.items():
        if not good(facts[name]):
            raise RefusalError(f"field '{name}' of info", expected, shown(facts[name]))
    labels = facts["labels"]
    return ModelInfo(**facts | {"labels": labels if isinstance(labels, str) else tuple(labels)})


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _is_labels(value: object) -> bool:
    if isinstance(value, list):
        return all(isinstance(label, str) for label in value)
    return _is_text(value)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_strings(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(v, str) for v in value.values())


def check_labels(graph: Graph, info: ModelInfo) -> None:
    """Offset and labels together are as many as some output is wide (if their number is known)."""
    named = isinstance(info.labels, str)
    count = LABEL_COUNTS.get(str(info.labels), 0) if named else len(info.labels)
    widths = [n for name in graph.outputs for n in graph.tensors[name].shape[-1:]]
    if count > 0 and info.label_offset + count not in widths:
        found = f"{count} labels from output {info.label_offset} on"
        raise RefusalError("labels", f"as many as an output is wide, {widths}", found)


def failure(path: FilePath, text: str, remedy: str) -> WeightFileError:
    """The error that says which file, what, and what to do."""
    return WeightFileError(f"{os.fspath(path)}: {text} {remedy}")


def called(name: str) -> str:
    """A tensor's name for a message."""
    return f"tensor {shown(name)}"


def shown(value: object) -> str:
    """A value's `repr` for a message, cut where it is too long to read."""
    text = repr(value)
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}..."


def listed(names: list[str]) -> str:
    """Names for a message; a hostile file may have millions."""
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(shown(name) for name in names[:_MOST_NAMES]) + more
