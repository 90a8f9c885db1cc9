"""What a .tflite file's optional metadata says: labels in a zip behind the model, normalization.

Source of the layout: tensorflow/tflite-support, tensorflow_lite_support/metadata/metadata_schema.fbs
(version 1.4.0). All of it is optional, and a file works without it, so damaged metadata counts as
absent.
"""

from __future__ import annotations

import importlib
import io
import math
import zipfile
from collections.abc import Mapping
from typing import Any

from npmobilenet.formats import archive
from npmobilenet.formats.tflite.flatbuffer import FLATBUFFER_ERRORS
from npmobilenet.formats.weightfile.schema import RefusalError, check_labels, info_from_json
from npmobilenet.graph import Graph
from npmobilenet.modeldata import ModelInfo

METADATA = "TFLITE_METADATA"  # the entry of the model's metadata that holds the ModelMetadata table
OWN = "npmobilenet"  # the entry that `exporting` writes: the facts of a weight file, as JSON
MAX_LABEL_BYTES = 2**20
MAX_ZIP_BYTES = 2 * 2**20  # only so much of the file's end is searched: bounds the entries, too

_MOST_LABEL_FILES = 100

# Field numbers (order of declaration) of the tables on the way to the input's normalization.
_MODEL_SUBGRAPHS = 3
_SUBGRAPH_INPUTS = 2
_TENSOR_PROCESS_UNITS = 4
_UNIT_OPTIONS_TYPE, _UNIT_OPTIONS = 0, 1
_NORMALIZATION_MEAN, _NORMALIZATION_STD = 0, 1
_NORMALIZATION = 1  # the union's number of NormalizationOptions


def labels(data: bytes, count: int) -> tuple[str, ...]:
    """The lines of the label file packed behind the model, () unless there are exactly `count`.

    A label file is a .txt whose name says "label"; where several fit (translations), the one with
    the shortest name is the original.
    """
    if b"PK\x05\x06" not in data[-(2**16 + 22) :]:  # the zip's end record and its longest comment
        return ()
    try:
        with archive.opened(io.BytesIO(data[-MAX_ZIP_BYTES:])) as file:
            entries = sorted(file.infolist(), key=lambda e: (len(e.filename), e.filename))
            for entry in entries[:_MOST_LABEL_FILES]:
                name = entry.filename.lower()
                if name.endswith(".txt") and "label" in name:
                    lines = _lines(file, entry)
                    if len(lines) == count:
                        return lines
    except archive.ERRORS:
        return ()
    return ()


def _lines(file: zipfile.ZipFile, entry: zipfile.ZipInfo) -> tuple[str, ...]:
    if entry.file_size > MAX_LABEL_BYTES:
        return ()
    with archive.member(file, entry, MAX_LABEL_BYTES) as member:
        raw = member.read()
    return tuple(line.strip() for line in raw.decode("utf-8").strip().splitlines())


def own_facts(metadata: Mapping[str, bytes], graph: Graph) -> ModelInfo | None:
    """What this project's exporter wrote down; None where it is absent or damaged, or its labels don't fit."""
    if OWN not in metadata:
        return None
    try:
        info = info_from_json(metadata[OWN])
        check_labels(graph, info)
    except RefusalError:
        return None
    return info


def input_normalization(metadata: bytes) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """`(mean, std)` of the first input: it wants `(pixel - mean) / std`. None where not stated."""
    try:
        number_types = importlib.import_module("flatbuffers.number_types")
        table = importlib.import_module("flatbuffers.table").Table
        model = table(metadata, 0)
        model.Pos = model.Indirect(0)
        subgraph = _first(table, model, _MODEL_SUBGRAPHS)
        tensor = subgraph and _first(table, subgraph, _SUBGRAPH_INPUTS)
        unit = tensor and _first(table, tensor, _TENSOR_PROCESS_UNITS)
        if not unit or not unit.Offset(_slot(_UNIT_OPTIONS)):
            return None
        kind = unit.Offset(_slot(_UNIT_OPTIONS_TYPE))
        if not kind or unit.Get(number_types.Uint8Flags, unit.Pos + kind) != _NORMALIZATION:
            return None
        options = table(metadata, 0)
        unit.Union(options, unit.Offset(_slot(_UNIT_OPTIONS)))
        mean = _floats(options, _NORMALIZATION_MEAN, number_types.Float32Flags)
        std = _floats(options, _NORMALIZATION_STD, number_types.Float32Flags)
    except FLATBUFFER_ERRORS:
        return None
    return (mean, std) if mean and std else None


def _slot(number: int) -> int:
    """A field's place in its table's vtable, which starts with two 16-bit lengths."""
    return 4 + 2 * number


def _first(table: type, parent: Any, number: int) -> Any:
    """The first table of a vector of tables; None for none."""
    offset = parent.Offset(_slot(number))
    if not offset or not parent.VectorLen(offset):
        return None
    return table(parent.Bytes, parent.Indirect(parent.Vector(offset)))


def _floats(parent: Any, number: int, flags: Any) -> tuple[float, ...]:
    """A short vector of finite floats (one for each channel, or one for all); () for none."""
    offset = parent.Offset(_slot(number))
    if not offset or not 1 <= parent.VectorLen(offset) <= 16:
        return ()
    values = tuple(float(v) for v in parent.GetVectorAsNumpy(flags, offset))
    return values if all(map(math.isfinite, values)) else ()
