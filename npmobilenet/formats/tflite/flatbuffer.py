"""Reading a .tflite file: bytes that nobody vouches for become plain, checked records.

The flatbuffer accessors of the `tflite` package trust their bytes: an offset may point anywhere, a
length may claim anything. So everything is read here, once, in loops of bounded length, and what
the accessors raise becomes one `ConversionError` that says what was being read. There is no
recursion, and no byte of a weight is copied.

Source of the layout: TensorFlow 2.18, tensorflow/compiler/mlir/lite/schema/schema.fbs, through the
`tflite` package 2.18.0, which is generated from it.
"""

from __future__ import annotations

import importlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np

from npmobilenet.errors import ConversionError, MissingExtra
from npmobilenet.formats.tflite.options import OPTIONS
from npmobilenet.formats.tflite.sparse import Level, Sparsity
from npmobilenet.modeldata import Array

# Far above any MobileNet (12 MB of float32, some 250 tensors), low enough to be read in a second.
MAX_FILE_BYTES = 512 * 2**20
MAX_TENSORS = 10_000
MAX_OPERATORS = 10_000
MAX_BUFFERS = 20_000
MAX_OPERANDS = 1_000
MAX_RANK = 8
MAX_TEXT_BYTES = 4096
_OLD_CODE, _NEW_CODE = 4, 10  # places in OperatorCode's vtable: fields 0 and 3, behind two lengths of 16 bits
_MIN_FILE_BYTES = 16  # root offset, identifier, and the smallest root table

# What flatbuffers' accessors raise on bytes that aren't a flatbuffer: out of range (struct.error,
# IndexError, ValueError), negative or huge offsets (TypeError, OverflowError), bad text.
FLATBUFFER_ERRORS = (
    struct.error, LookupError, ValueError, TypeError, OverflowError, AttributeError, MemoryError,
)  # fmt: skip


@dataclass(frozen=True)
class FileTensor:
    """A tensor as the file declares it; nothing but the lengths has been checked yet.

    `type` is TFLite's name of the element type. `signature` is the shape with -1 for dynamic
    dimensions, () if none is. `data` holds a constant's raw bytes, None for a computed tensor.
    `scale` and `zero_point` are empty where the tensor isn't quantized.
    """

    index: int
    name: str
    type: str
    shape: tuple[int, ...]
    signature: tuple[int, ...] = ()
    data: Array | None = None
    scale: Array = field(default_factory=lambda: np.zeros(0, np.float32))
    zero_point: Array = field(default_factory=lambda: np.zeros(0, np.int64))
    quantized_dimension: int = 0
    special: str = ""  # "a variable": a kind that the importer refuses where used
    sparsity: Sparsity | None = None  # of a constant whose zeros aren't all in `data`


@dataclass(frozen=True)
class FileOperator:
    """An operator: TFLite's name of the op, tensor indices (-1: optional and absent), options."""

    index: int
    op: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TFLiteFile:
    """Subgraph 0 of the file, and what the file says about itself."""

    version: int
    description: str
    tensors: tuple[FileTensor, ...]
    operators: tuple[FileOperator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    metadata: Mapping[str, bytes]


def schema() -> ModuleType:
    """The `tflite` package; `MissingExtra` where it (or `flatbuffers`) isn't installed."""
    for package in ("flatbuffers", "tflite"):
        try:
            module = importlib.import_module(package)
        except ImportError as error:
            raise MissingExtra(package, "convert", "reading a .tflite file") from error
    return module


def parse(data: bytes) -> TFLiteFile:
    """The records of a .tflite file. Raises `ConversionError` on anything that isn't one."""
    if len(data) < _MIN_FILE_BYTES or data[4:8] != b"TFL3":
        raise ConversionError(
            f"not a .tflite file: expected at least {_MIN_FILE_BYTES} bytes with the identifier "
            f"'TFL3' at byte 4, got {len(data)} bytes with {data[4:8]!r}; fetch it again"
        )
    reader = _Reader(schema(), data)
    try:
        return reader.model()
    except FLATBUFFER_ERRORS as error:
        raise ConversionError(
            f"damaged .tflite file: {reader.at} can't be read ({type(error).__name__}: {error}); fetch the file again"
        ) from error


class _Reader:
    """Reads through the accessors; `at` says what is being read, `budget` bounds all vectors.

    Vectors of an honest file don't overlap, so together they are no longer than the file; four
    times that allows for shared ones, and keeps a hostile file from making loops long by pointing
    thousands of tables at one long vector.
    """

    def __init__(self, schema: ModuleType, data: bytes) -> None:
        self.schema, self.data = schema, data
        self.budget = 4 * len(data)
        self.at = "the root table"
        self.type_names = _names_of(schema.TensorType)
        self.op_names = _names_of(schema.BuiltinOperator)

    def model(self) -> TFLiteFile:
        model = self.schema.Model.GetRootAs(self.data, 0)
        version = int(model.Version())
        description = self.text(model.Description(), errors="replace")
        codes = [self.op_name(code) for code in self.tables(model, "OperatorCodes", MAX_OPERATORS)]
        self.at = "the list of buffers"
        buffers = [self.buffer(b) for b in self.tables(model, "Buffers", MAX_BUFFERS)]
        self.at = "the list of subgraphs"
        graphs = self.tables(model, "Subgraphs", 1_000)
        if not graphs:
            raise ConversionError("the file has no subgraph")
        self.at = "subgraph 0"
        graph = graphs[0]
        tensors = self.tables(graph, "Tensors", MAX_TENSORS)
        operators = self.tables(graph, "Operators", MAX_OPERATORS)
        return TFLiteFile(
            version,
            description,
            tuple(self.tensor(i, tensor, buffers) for i, tensor in enumerate(tensors)),
            tuple(self.operator(i, operator, codes) for i, operator in enumerate(operators)),
            self.integers(graph, "Inputs", MAX_OPERANDS),
            self.integers(graph, "Outputs", MAX_OPERANDS),
            self.metadata(model, buffers),
        )

    def length(self, table: Any, name: str, most: int, item_bytes: int) -> int:
        """The length of a vector, checked against its own limit and the budget before any use."""
        count = int(getattr(table, f"{name}Length")())
        self.budget -= count * item_bytes
        if count > most or self.budget < 0:
            raise ConversionError(
                f"{self.at}: its vector '{name}' claims {count} items, expected at most {most} "
                f"and no more than a file of {len(self.data)} bytes can hold; fetch the file again"
            )
        return count

    def tables(self, table: Any, name: str, most: int) -> list[Any]:
        """All tables of a vector of tables."""
        return [getattr(table, name)(i) for i in range(self.length(table, name, most, 4))]

    def numbers(self, table: Any, name: str, most: int, item_bytes: int) -> Array:
        """A vector of numbers as a view into the file; empty where the file has none."""
        if self.length(table, name, most, item_bytes) == 0:
            return np.zeros(0, np.int64)
        values: Array = getattr(table, f"{name}AsNumpy")()
        return values

    def integers(self, table: Any, name: str, most: int) -> tuple[int, ...]:
        """A vector of int32 as Python integers."""
        return tuple(self.numbers(table, name, most, 4).tolist())

    def text(self, raw: bytes | None, errors: str = "strict") -> str:
        """UTF-8 text of bounded length; absent text is "". It may reach a terminal: no control characters."""
        if raw is not None and len(raw) > MAX_TEXT_BYTES:
            raise ConversionError(f"{self.at}: a text of {len(raw)} bytes, expected at most {MAX_TEXT_BYTES}")
        text = (raw or b"").decode("utf-8", errors)
        return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)

    def op_name(self, code: Any) -> str:
        """TFLite's name of the op, whose code is in two fields: the larger counts, as in TFLite.

        Codes above 127 don't fit the old field, and some writers leave it out for smaller ones, too. The package's
        accessor of the new field then gives the old one, 0 (ADD), so both are read from the table itself.

        Source: TensorFlow 2.18, tensorflow/compiler/mlir/lite/schema/schema_utils.cc, GetBuiltinCode.
        """
        kinds = importlib.import_module("flatbuffers.number_types")
        fields = (_OLD_CODE, kinds.Int8Flags), (_NEW_CODE, kinds.Int32Flags)
        number = max(int(code._tab.Get(kind, code._tab.Pos + at)) if at else 0
                     for at, kind in ((code._tab.Offset(slot), kind) for slot, kind in fields))  # fmt: skip
        name = self.op_names.get(number, f"op code {number}")
        if name == "CUSTOM":
            return f"custom op '{self.text(code.CustomCode())}'"
        return name

    def buffer(self, buffer: Any) -> Array:
        """A buffer's bytes: inside the flatbuffer, or behind it where `offset` is more than 1."""
        offset, size = int(buffer.Offset()), int(buffer.Size())
        if offset <= 1:
            count = self.length(buffer, "Data", len(self.data), 1)
            return buffer.DataAsNumpy() if count else np.zeros(0, np.uint8)
        if offset + size > len(self.data):
            raise ConversionError(
                f"damaged .tflite file: a buffer of {size} bytes at {offset}, "
                f"but the file has {len(self.data)} bytes; fetch it again"
            )
        return np.frombuffer(self.data, np.uint8, size, offset)

    def tensor(self, index: int, tensor: Any, buffers: list[Array]) -> FileTensor:
        self.at = f"tensor #{index}"
        name = self.text(tensor.Name())
        self.at = f"tensor #{index} '{name}'"
        data = buffers[_index(tensor.Buffer(), len(buffers), f"{self.at}: buffer")]
        kind = int(tensor.Type())
        record = FileTensor(
            index,
            name,
            self.type_names.get(kind, f"type {kind}"),
            self.integers(tensor, "Shape", MAX_RANK),
            self.integers(tensor, "ShapeSignature", MAX_RANK),
            data if data.size else None,
            special="a variable" if tensor.IsVariable() else "",
            sparsity=self.sparsity(tensor.Sparsity()),
        )
        quantization = tensor.Quantization()
        if quantization is None:
            return record
        scale = self.numbers(quantization, "Scale", len(self.data), 4)
        zero_point = self.numbers(quantization, "ZeroPoint", len(self.data), 8)
        axis = int(quantization.QuantizedDimension())
        return FileTensor(**{
            **vars(record), "scale": scale, "zero_point": zero_point, "quantized_dimension": axis,
        })  # fmt: skip

    def sparsity(self, table: Any) -> Sparsity | None:
        if table is None:
            return None
        levels = []
        for level in self.tables(table, "DimMetadata", 2 * MAX_RANK):
            parts = [self.sparse_indices(level, name) for name in ("ArraySegments", "ArrayIndices")]
            csr = int(level.Format()) == self.schema.DimensionType.SPARSE_CSR
            levels.append(Level(0, *parts) if csr else Level(int(level.DenseSize())))
        order, blocks = (self.integers(table, name, 2 * MAX_RANK) for name in ("TraversalOrder", "BlockMap"))
        return Sparsity(order, blocks, tuple(levels))

    def sparse_indices(self, level: Any, name: str) -> Array:
        """A vector of int32, uint16 or uint8, as a union says."""
        kinds = {"Int32Vector": 4, "Uint16Vector": 2, "Uint8Vector": 1}
        said, union = int(getattr(level, f"{name}Type")()), getattr(level, name)()
        for kind, width in kinds.items():
            if union is not None and said == getattr(self.schema.SparseIndexVector, kind):
                vector = getattr(self.schema, kind)()
                vector.Init(union.Bytes, union.Pos)
                return self.numbers(vector, "Values", len(self.data), width)
        return np.zeros(0, np.int64)

    def operator(self, index: int, operator: Any, codes: list[str]) -> FileOperator:
        self.at = f"op {index}"
        op = codes[_index(operator.OpcodeIndex(), len(codes), f"{self.at}: op code")]
        self.at = f"op {index} ({op})"
        inputs = self.integers(operator, "Inputs", MAX_OPERANDS)
        outputs = self.integers(operator, "Outputs", MAX_OPERANDS)
        return FileOperator(index, op, inputs, outputs, self.options(op, operator))

    def options(self, op: str, operator: Any) -> dict[str, Any]:
        """The fields of `OPTIONS`; {} where the operator carries none, so that defaults hold."""
        kind = int(operator.BuiltinOptionsType())
        if op not in OPTIONS or kind == 0:
            return {}
        table_name, fields = OPTIONS[op]
        if kind != getattr(self.schema.BuiltinOptions, table_name):
            raise ConversionError(f"{self.at}: options of kind {kind}, expected {table_name}")
        union = operator.BuiltinOptions()
        if union is None:
            return {}
        table = getattr(self.schema, table_name)()
        table.Init(union.Bytes, union.Pos)
        return {
            name.removesuffix("[]"): self.integers(table, name[:-2], MAX_RANK)
            if name.endswith("[]")
            else getattr(table, name)()
            for name in fields
        }

    def metadata(self, model: Any, buffers: list[Array]) -> dict[str, bytes]:
        self.at = "the list of metadata"
        entries = self.tables(model, "Metadata", 1_000)
        found = {}
        for entry in entries:
            name = self.text(entry.Name(), errors="replace")
            found[name] = buffers[_index(entry.Buffer(), len(buffers), f"{self.at}: buffer")]
        return {name: data.tobytes() for name, data in found.items() if data.size < 2**20}


def _names_of(enum: type) -> dict[int, str]:
    return {number: name for name, number in vars(enum).items() if not name.startswith("_")}


def _index(value: Any, count: int, what: str) -> int:
    number = int(value)
    if not 0 <= number < count:
        raise ConversionError(f"{what} number {number}, expected 0 to {count - 1}")
    return number
