"""Makes small .tflite files for tests, with the flatbuffer functions of the `tflite` package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np
import tflite

_TYPES = {"float32": 0, "float16": 1, "int32": 2, "uint8": 3, "int64": 4, "bool": 6, "int16": 7, "int8": 9}


@dataclass
class T:
    """A tensor: a constant where `data` is given (its shape and type are then the array's)."""

    shape: Sequence[int] | None = None
    data: Any = None
    type: str = "float32"
    name: str | None = None
    scale: Sequence[float] = ()
    zero_point: Sequence[int] = ()
    axis: int = 0
    signature: Sequence[int] | None = None
    raw: bytes | None = None
    sparsity: Mapping[str, Any] | None = None  # order, blocks, levels: a size, or (segments, indices) of uint8


@dataclass
class Op:
    """An operator; `options` is the name of its table and the fields."""

    op: str
    inputs: Sequence[int]
    outputs: Sequence[int]
    options: tuple[str, Mapping[str, Any]] | None = None
    version: int = 1
    custom: str = ""


@dataclass
class File:
    """A model with one subgraph, or more empty ones."""

    tensors: Sequence[T]
    ops: Sequence[Op]
    inputs: Sequence[int] = (0,)
    outputs: Sequence[int] = ()
    description: str = "made by a test"
    metadata: Mapping[str, bytes] = field(default_factory=dict)
    subgraphs: int = 1
    old_codes: bool = True  # write the deprecated field of op codes, too

    def bytes(self) -> bytes:
        """The file."""
        return _Writer().model(self)


class _Writer:
    def __init__(self) -> None:
        self.b = flatbuffers.Builder(1024)
        self.buffers = [b""]

    def vector(self, values: Sequence[int], prepend: str = "PrependInt32", size: int = 4) -> int:
        self.b.StartVector(size, len(values), size)
        for value in reversed(list(values)):
            getattr(self.b, prepend)(value)
        return self.b.EndVector()

    def offsets(self, values: Sequence[int]) -> int:
        return self.vector(values, "PrependUOffsetTRelative")

    def table(self, name: str, **fields: Any) -> int:
        getattr(tflite, f"{name}Start")(self.b)
        for key, value in fields.items():
            if value is not None:
                getattr(tflite, f"{name}Add{key}")(self.b, value)
        return getattr(tflite, f"{name}End")(self.b)

    def tensor(self, index: int, t: T) -> int:
        array = None if t.data is None else np.asarray(t.data)
        dtype = t.type if array is None else str(array.dtype)
        shape = t.shape if array is None or t.shape is not None else array.shape
        raw = t.raw if t.raw is not None else b"" if array is None else array.tobytes()
        if raw:
            self.buffers.append(raw)
        quantization = None
        if len(t.scale):
            scale = self.vector([float(s) for s in t.scale], "PrependFloat32")
            zero = self.vector(t.zero_point or [0] * len(t.scale), "PrependInt64", 8)
            quantization = self.table("QuantizationParameters", Scale=scale, ZeroPoint=zero, QuantizedDimension=t.axis)
        sparsity = None if t.sparsity is None else self.sparsity(**t.sparsity)
        return self.table(
            "Tensor",
            Sparsity=sparsity,
            Name=self.b.CreateString(f"t{index}" if t.name is None else t.name),
            Shape=None if shape is None else self.vector(shape),
            ShapeSignature=None if t.signature is None else self.vector(t.signature),
            Type=_TYPES.get(dtype, 5),
            Buffer=len(self.buffers) - 1 if raw else 0,
            Quantization=quantization,
        )

    def sparsity(self, order: Sequence[int], levels: Sequence[Any], blocks: Sequence[int] = ()) -> int:
        found = []
        for level in levels:
            if isinstance(level, int):
                found.append(self.table("DimensionMetadata", Format=0, DenseSize=level))
                continue
            parts = [self.table("Uint8Vector", Values=self.vector(part, "PrependUint8", 1)) for part in level]
            found.append(self.table("DimensionMetadata", Format=1, ArraySegmentsType=3, ArraySegments=parts[0],
                                    ArrayIndicesType=3, ArrayIndices=parts[1]))  # fmt: skip
        return self.table("SparsityParameters", TraversalOrder=self.vector(order), BlockMap=self.vector(blocks),
                          DimMetadata=self.offsets(found))  # fmt: skip

    def operator(self, op: Op, codes: Sequence[tuple[str, int, str]]) -> int:
        kind, table = None, None
        if op.options:
            name, fields = op.options
            vectors = {k: self.vector(v) for k, v in fields.items() if isinstance(v, (list, tuple))}
            table = self.table(name, **{**fields, **vectors})
            kind = getattr(tflite.BuiltinOptions, name)
        return self.table(
            "Operator",
            OpcodeIndex=codes.index((op.op, op.version, op.custom)),
            Inputs=self.vector(op.inputs),
            Outputs=self.vector(op.outputs),
            BuiltinOptionsType=kind,
            BuiltinOptions=table,
        )

    def model(self, file: File) -> bytes:
        codes = list(dict.fromkeys((op.op, op.version, op.custom) for op in file.ops))
        outputs = file.outputs or file.ops[-1].outputs
        tensors = self.offsets([self.tensor(i, t) for i, t in enumerate(file.tensors)])
        operators = self.offsets([self.operator(op, codes) for op in file.ops])
        first = self.table(
            "SubGraph",
            Tensors=tensors,
            Operators=operators,
            Inputs=self.vector(file.inputs),
            Outputs=self.vector(outputs),
        )
        others = [self.table("SubGraph", Name=self.b.CreateString("other")) for _ in range(file.subgraphs - 1)]
        entries = []
        for name, content in file.metadata.items():
            self.buffers.append(content)
            entries.append(self.table("Metadata", Name=self.b.CreateString(name), Buffer=len(self.buffers) - 1))
        numbers = {name: getattr(tflite.BuiltinOperator, name) for name, _, _ in codes}
        operator_codes = [
            self.table(
                "OperatorCode",
                DeprecatedBuiltinCode=min(numbers[name], 127) if file.old_codes else None,
                BuiltinCode=numbers[name],
                Version=version,
                CustomCode=self.b.CreateString(custom) if custom else None,
            )
            for name, version, custom in codes
        ]
        buffers = []
        for content in self.buffers:
            self.b.StartVector(1, len(content), 16)
            self.b.head -= len(content)
            self.b.Bytes[self.b.head : self.b.head + len(content)] = content
            buffers.append(self.table("Buffer", Data=self.b.EndVector()))
        model = self.table(
            "Model",
            Version=3,
            Description=self.b.CreateString(file.description),
            OperatorCodes=self.offsets(operator_codes),
            Subgraphs=self.offsets([first, *others]),
            Buffers=self.offsets(buffers),
            Metadata=self.offsets(entries) if entries else None,
        )
        self.b.Finish(model, b"TFL3")
        return bytes(self.b.Output())
