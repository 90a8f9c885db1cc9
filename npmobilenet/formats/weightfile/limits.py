"""How much a weight file may hold, and what it declares may need: checked before any memory is asked for."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from npmobilenet.formats.weightfile.schema import RefusalError, stored_type, type_name
from npmobilenet.graph import Tensor

MAX_FILE_BYTES = 512 * 2**20  # the largest registered model, EdgeTPU 1.0 in float32, needs 17 MB
MAX_JSON_BYTES = 8 * 2**20  # an int8 graph with a scale for each channel needs about 1 MB
HEADER_BYTES = 2**20  # room for HDF5's own headers: about 300 bytes for each tensor


def check_json_size(name: str, size: int) -> None:
    """Of `graph` or `info`."""
    if size > MAX_JSON_BYTES:
        raise RefusalError(name, f"at most {MAX_JSON_BYTES} bytes", f"{size} bytes")


def _nbytes(tensor: Tensor) -> int:
    """Bytes that the declared shape and dtype take."""
    return math.prod(tensor.shape) * np.dtype(tensor.dtype).itemsize


def check_declared(tensors: Iterable[Tensor], size: int) -> None:
    """All shapes that a graph declares for its constants together fit into a file of this size."""
    declared = sum(_nbytes(tensor) for tensor in tensors)
    if declared > size:
        raise RefusalError("graph", f"tensors of at most {size} bytes", f"{declared} bytes")


def check_shape(what: str, dataset: Any, tensor: Tensor) -> None:
    """A dataset has the dtype and shape that the graph declares, and as many bytes are stored."""
    if not dataset.get_type().equal(stored_type(np.dtype(tensor.dtype))):
        raise RefusalError(what, f"little-endian {tensor.dtype}", type_name(dataset))
    if dataset.shape != tensor.shape:
        raise RefusalError(what, f"shape {tensor.shape}", f"shape {dataset.shape}")
    check_stored(what, dataset, _nbytes(tensor))


def check_stored(what: str, dataset: Any, size: int) -> None:
    """Of a dataset: no less and no more is stored than its shape needs."""
    stored = dataset.get_storage_size()
    if stored != size:
        raise RefusalError(what, f"{size} stored bytes", stored)
