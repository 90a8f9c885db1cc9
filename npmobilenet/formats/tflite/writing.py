"""Writing a .tflite file: plain records of tensors and operators become a flatbuffer.

What the records mean is said in `exporting`; here is the layout alone. Equal records give equal bytes.

Source of the layout: TensorFlow 2.18, tensorflow/compiler/mlir/lite/schema/schema.fbs, through the `tflite` package
2.18.0, which is generated from it; of the metadata: tensorflow/tflite-support,
tensorflow_lite_support/metadata/metadata_schema.fbs (version 1.4.0).
"""

from __future__ import annotations

import importlib
import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from npmobilenet.formats.tflite.flatbuffer import schema
from npmobilenet.graph import Quantization
from npmobilenet.modeldata import Array

FILE_VERSION = 3
OLD_CODES = 127  # op codes beyond it don't fit the old field, which then holds this
LABELS = "labels.txt"
_TYPES = {"float32": "FLOAT32", "int8": "INT8", "uint8": "UINT8", "int32": "INT32", "int64": "INT64"}
_ALIGNMENT = 16  # of a buffer: schema.fbs, force_align


@dataclass(frozen=True)
class OutTensor:
    """A tensor: a constant where it has an `array`. The quantization's axis is the file's."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    array: Array | None = None
    quantization: Quantization | None = None


@dataclass(frozen=True)
class OutOperator:
    """An operator by TFLite's name, with its version, tensors by index, and the fields of its table of options."""

    op: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    table: str = ""
    options: Mapping[str, int | float | bool] = field(default_factory=dict)
    version: int = 1


class FlatbufferWriter:
    """A flatbuffer is written from its end: whatever a table refers to comes before it."""

    def __init__(self) -> None:
        self.schema = schema()
        self.b = importlib.import_module("flatbuffers").Builder(2**16)
        self.buffers: list[bytes] = [b""]
        self._numbers: dict[int, int] = {}  # arrays that several tensors share

    def file(
        self, tensors: Sequence[OutTensor], operators: Sequence[OutOperator], inputs: Sequence[int],
        outputs: Sequence[int], description: str, metadata: Mapping[str, bytes],
    ) -> bytes:  # fmt: skip
        """The bytes of a model with one subgraph."""
        codes = list(dict.fromkeys((op.op, op.version) for op in operators))
        subgraph = self.table(
            "SubGraph",
            Tensors=self.offsets([self.tensor(tensor) for tensor in tensors]),
            Operators=self.offsets([self.operator(op, codes) for op in operators]),
            Inputs=self.vector(inputs),
            Outputs=self.vector(outputs),
            Name=self.text("main"),
        )
        entries = []
        for name, content in metadata.items():
            self.buffers.append(content)
            entries.append(self.table("Metadata", Name=self.text(name), Buffer=len(self.buffers) - 1))
        model = self.table(
            "Model",
            Version=FILE_VERSION,
            OperatorCodes=self.offsets([self.code(*code) for code in codes]),
            Subgraphs=self.offsets([subgraph]),
            Description=self.text(description),
            Buffers=self.offsets([self.buffer(content) for content in self.buffers]),
            Metadata=self.offsets(entries),
        )
        self.b.Finish(model, b"TFL3")
        return bytes(self.b.Output())

    def code(self, op: str, version: int) -> int:
        """An op code, in the old field and the new."""
        number = getattr(self.schema.BuiltinOperator, op)
        return self.table(
            "OperatorCode", DeprecatedBuiltinCode=min(number, OLD_CODES), BuiltinCode=number, Version=version
        )

    def tensor(self, tensor: OutTensor) -> int:
        """A tensor's table; equal arrays that are one object share a buffer."""
        buffer = 0
        if tensor.array is not None:
            buffer = self._numbers.setdefault(id(tensor.array), len(self.buffers))
            if buffer == len(self.buffers):
                self.buffers.append(np.ascontiguousarray(tensor.array, tensor.array.dtype.newbyteorder("<")).tobytes())
        q, quantization = tensor.quantization, None
        if q is not None:
            scale = self.vector(q.scale, "Float32")
            zero = self.vector(q.zero_point, "Int64", 8)
            quantization = self.table(
                "QuantizationParameters", Scale=scale, ZeroPoint=zero, QuantizedDimension=q.axis or 0
            )
        return self.table(
            "Tensor",
            Shape=self.vector(tensor.shape),
            Type=getattr(self.schema.TensorType, _TYPES[tensor.dtype]),
            Buffer=buffer,
            Name=self.text(tensor.name),
            Quantization=quantization,
        )

    def operator(self, op: OutOperator, codes: Sequence[tuple[str, int]]) -> int:
        """An operator's table with its options."""
        options = self.table(op.table, **op.options) if op.table else None
        return self.table(
            "Operator",
            OpcodeIndex=codes.index((op.op, op.version)),
            Inputs=self.vector(op.inputs),
            Outputs=self.vector(op.outputs),
            BuiltinOptionsType=getattr(self.schema.BuiltinOptions, op.table) if op.table else None,
            BuiltinOptions=options,
        )

    def buffer(self, content: bytes) -> int:
        """A buffer's table; the first one stays empty."""
        data = None
        if content:
            self.b.StartVector(1, len(content), _ALIGNMENT)
            self.b.head -= len(content)
            self.b.Bytes[self.b.head : self.b.head + len(content)] = content
            data = self.b.EndVector()
        return self.table("Buffer", Data=data)

    def table(self, name: str, **fields: Any) -> int:
        """A table of the schema, by its generated functions; None leaves a field out."""
        getattr(self.schema, f"{name}Start")(self.b)
        for key, value in fields.items():
            if value is not None:
                getattr(self.schema, f"{name}Add{key}")(self.b, value)
        return int(getattr(self.schema, f"{name}End")(self.b))

    def vector(self, values: Sequence[float], kind: str = "Int32", size: int = 4) -> int:
        """A vector of numbers."""
        self.b.StartVector(size, len(values), size)
        for value in reversed(values):
            getattr(self.b, f"Prepend{kind}")(value)
        return int(self.b.EndVector())

    def offsets(self, values: Sequence[int]) -> int:
        """A vector of tables."""
        return self.vector(values, "UOffsetTRelative")

    def text(self, text: str) -> int:
        """A string; what UTF-8 can't say is escaped."""
        return int(self.b.CreateString(text.encode("utf-8", "backslashreplace")))


# ---------------------------------------------------------------------------------------------------------------------
# The metadata that other programs read (Task Library): the input's normalization, and a label file

# Field numbers, by the order of declaration, and the number of fields of each table.
_MODEL = {"name": 0, "subgraphs": 3}, 8
_SUBGRAPH = {"inputs": 2, "outputs": 3}, 9
_TENSOR = {"content": 3, "units": 4, "files": 6}, 7
_CONTENT = {"type": 0, "value": 1}, 3
_IMAGE = {"color": 0}, 2
_UNIT = {"type": 0, "value": 1}, 2
_NORMALIZATION = {"mean": 0, "std": 1}, 2
_FILE = {"name": 0, "type": 2}, 5
_IMAGE_CONTENT, _RGB, _GREY, _NORMALIZE, _AXIS_LABELS = 2, 1, 2, 1, 2


def standard_metadata(name: str, mean_std: tuple[float, float] | None, colour: bool, labels: bool) -> bytes:
    """TFLITE_METADATA: how pixels become the first input's values, and which packed file names the classes."""
    writer = FlatbufferWriter()
    b = writer.b

    def table(kind: tuple[Mapping[str, int], int], **fields: tuple[str, int]) -> int:
        b.StartObject(kind[1])
        for key, (how, value) in fields.items():
            getattr(b, f"Prepend{how}Slot")(kind[0][key], value, 0)
        return int(b.EndObject())

    def several(*tables: int) -> tuple[str, int]:
        return "UOffsetTRelative", writer.offsets(tables)

    image = table(_IMAGE, color=("Int8", _RGB if colour else _GREY))
    parts = {"content": ("UOffsetTRelative", table(_CONTENT, type=("Uint8", _IMAGE_CONTENT),
                                                   value=("UOffsetTRelative", image)))}  # fmt: skip
    if mean_std is not None:
        mean, std = (("UOffsetTRelative", writer.vector([v], "Float32")) for v in mean_std)
        normalization = ("UOffsetTRelative", table(_NORMALIZATION, mean=mean, std=std))
        parts["units"] = several(table(_UNIT, type=("Uint8", _NORMALIZE), value=normalization))
    source = table(_TENSOR, **parts)
    packed = {}
    if labels:
        text = ("UOffsetTRelative", writer.text(LABELS))
        packed["files"] = several(table(_FILE, name=text, type=("Int8", _AXIS_LABELS)))
    result = table(_TENSOR, **packed)
    subgraph = table(_SUBGRAPH, inputs=several(source), outputs=several(result))
    title = ("UOffsetTRelative", writer.text(name))
    b.Finish(table(_MODEL, name=title, subgraphs=several(subgraph)), b"M001")
    return bytes(b.Output())


def packed_labels(labels: Sequence[str]) -> bytes:
    """A zip archive with the label file, as it stands behind a model; b"" for no labels."""
    if not labels:
        return b""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        text = "".join(f"{' '.join(label.split())}\n" for label in labels)
        file.writestr(zipfile.ZipInfo(LABELS), text.encode("utf-8", "backslashreplace"))
    return archive.getvalue()
