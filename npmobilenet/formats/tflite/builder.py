"""The workbench of the .tflite importer: the graph so far, and what each tensor index stands for.

A tensor index stands for an activation (a tensor of the graph being built) or for a constant: a
weight of the file, or a value folded from constants. Op rules (tflite_ops.py) look operands up
here, declare weights in the graph's layout, and emit nodes, whose shape and type are compared with
what the file declares.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NoReturn

import numpy as np

from npmobilenet.errors import ConversionError, PlanError, nearest
from npmobilenet.formats.tflite.constants import (
    ACTIVATION_DTYPES,
    CONSTANT_DTYPES,
    INDEX_DTYPES,
    INTEGER_DTYPES,
    ITSELF,
    Constant,
    read_constant,
    read_quantization,
)
from npmobilenet.formats.tflite.flatbuffer import FileOperator, FileTensor, TFLiteFile
from npmobilenet.graph import GraphBuilder, Tensor
from npmobilenet.modeldata import Array

MAX_ACTIVATION_RANK = 6  # a shuffle of channels, or of pixels and channels, has 5 in between
MAX_ELEMENTS = 2**28  # of one tensor: 1 GiB of float32
MAX_INTEGERS = 1_000  # elements of a constant read as a shape, axes or paddings
_MOVES = ("reshape", "transpose", "slice", "resize_nearest")
# Constants, counted at each use by an operator, may add up to so many times the file's size and
# so many bytes: honest files use a weight once or a few times, hostile ones ten thousand times.
_MOST_USES = 16
_MOST_BYTES = 64 * 2**20


class Importer:
    """See the module; `values` maps a tensor index to the name of an activation or a constant."""

    def __init__(self, name: str, file: TFLiteFile, file_bytes: int) -> None:
        self.file = file
        self.builder = GraphBuilder(name)
        self.arrays: dict[str, Array] = {}
        self.values: dict[int, str | Constant] = {}
        self.dequantized: list[str] = []  # 8-bit weights of float ops, for the provenance
        self.in_rows: set[str] = set()  # activations whose first dimension in the file is batch * rows: `file_shape`
        self.bare: set[str] = set()  # 8-bit inputs without a scale
        self.batch = self._file_batch()
        self._budget = _MOST_USES * file_bytes + _MOST_BYTES
        self._declared: dict[tuple[int, str, str, tuple[int, ...], bytes], str] = {}
        self._names = self._activation_names()
        self._taken = set(self._names.values())
        self._repeats: dict[str, int] = {}
        for index in file.inputs:
            self._add_input(self.tensor(index))

    # What the file declares

    def tensor(self, index: int) -> FileTensor:
        """The file's tensor of that index."""
        if not 0 <= index < len(self.file.tensors):
            raise ConversionError(f"tensor #{index} doesn't exist: {len(self.file.tensors)} do")
        return self.file.tensors[index]

    def _file_batch(self) -> int:
        """The batch size that all inputs have in the file; a dynamic one is written as 1."""
        if not self.file.inputs or not self.file.outputs:
            raise ConversionError("the file's subgraph 0 has no input or no output")
        batches = set()
        for index in self.file.inputs:
            tensor = self.tensor(index)
            dims = tensor.signature or tensor.shape
            if len(dims) < 1 or len(dims) != len(tensor.shape) or -1 in dims[1:]:
                raise ConversionError(
                    f"input #{index} '{tensor.name}': shape {dims or 'unknown'}, expected fixed "
                    "dimensions after the batch; export the model with a fixed input size"
                )
            batches.add(tensor.shape[0])
        if len(batches) > 1 or min(batches) < 1:
            raise ConversionError(f"the inputs' batch sizes are {sorted(batches)}, expected one")
        return int(batches.pop())

    def _activation_names(self) -> dict[int, str]:
        """Unique names for all tensors that are computed: TFLite's where it is usable and free."""
        names: dict[int, str] = {}
        taken: set[str] = set()
        for index in (*self.file.inputs, *(o for op in self.file.operators for o in op.outputs)):
            if index not in names:
                names[index] = _free_name(self.tensor(index), taken)
        return names

    def index_of(self, name: str) -> int:
        """The computed tensor of that name, as the graph has it, or "#index". Raises `PlanError`, with near names."""
        for index, known in self._names.items():
            if name in (known, f"#{index}"):
                return index
        near = ", ".join(map(repr, nearest(name, self._names.values())))
        raise PlanError(f"outputs: no tensor '{name}' is computed in the file; did you mean one of {near}?")

    # Operands

    def value(self, op: FileOperator, position: int) -> str | Constant | None:
        """The operand: an activation's name, a constant, or None for an absent optional one."""
        index = op.inputs[position] if position < len(op.inputs) else -1
        if index == -1:
            return None
        if index not in self.values:
            tensor = self.tensor(index)
            if tensor.data is None:
                refuse(op, f"its input #{index} '{tensor.name}' is computed by nothing before it")
            self.values[index] = read_constant(tensor)
        value = self.values[index]
        if isinstance(value, Constant):
            self._budget -= value.array.nbytes
            if self._budget < 0:
                refuse(op, "the operators use the file's constants far more often than once")
        return value

    def activation(self, op: FileOperator, position: int = 0, rows: bool = False) -> Tensor:
        """A computed operand; `rows`: one without the batch in front will do (see `file_shape`)."""
        value = self.value(op, position)
        if not isinstance(value, str):
            refuse(op, f"expected a computed input {position}, got {_kind(value)}")
        if value in self.in_rows and not rows:
            refuse(op, f"its input of shape {self.file_shape(value)} doesn't keep the batch dimension {self.batch} in "
                       "front; export the model so that it does")  # fmt: skip
        return self.builder.tensors[value]

    def file_shape(self, name: str) -> tuple[int, ...]:
        """An activation's shape as the file sees it: with its batch, or with the batch and the rows of an image in one.

        A dense layer on every pixel is written so: (1, 3, 3, 8) becomes (9, 8), which the graph holds as (1, 9, 8).
        """
        shape = self.builder.tensors[name].shape
        return (self.batch * shape[1], *shape[2:]) if name in self.in_rows else (self.batch, *shape[1:])

    def constant(self, op: FileOperator, position: int, what: str) -> Constant:
        """A constant operand."""
        value = self.value(op, position)
        if not isinstance(value, Constant):
            refuse(op, f"expected constant {what} (input {position}), got {_kind(value)}")
        return value

    def integers(self, op: FileOperator, position: int, what: str) -> tuple[int, ...]:
        """A constant operand of int32 or int64 as Python integers, flattened."""
        array = self.constant(op, position, what).array
        if array.dtype not in (np.int32, np.int64) or array.size > MAX_INTEGERS:
            refuse(op, f"expected {what} of int32 or int64, got {array.dtype} {array.shape}")
        return tuple(int(v) for v in array.reshape(-1))

    # What goes into the graph

    def _add_input(self, tensor: FileTensor) -> None:
        dtype = self._activation_dtype(tensor)
        shape = (1, *tensor.shape[1:])
        if tensor.data is not None or min(shape) < 1 or math.prod(shape) > MAX_ELEMENTS:
            raise ConversionError(f"input #{tensor.index} '{tensor.name}': shape {tensor.shape}"
                                  f"{' and a buffer' if tensor.data is not None else ''}, expected "
                                  f"1 to {MAX_ELEMENTS} elements and no buffer")  # fmt: skip
        if tensor.index in self.values:
            raise ConversionError(f"input #{tensor.index} '{tensor.name}' is listed twice")
        name = self._names[tensor.index]
        bare = tensor.scale.size == 0 and dtype in ("uint8", "int8")  # pixels, which a CAST takes as they are
        if bare:
            self.bare.add(name)
        q = ITSELF if bare else read_quantization(tensor, dtype, constant=False)
        self.builder.input(name, shape, dtype, quantization=q, source=f"#{tensor.index}")
        self._set_activation(tensor, name)

    def _activation_dtype(self, tensor: FileTensor) -> str:
        if tensor.type not in ACTIVATION_DTYPES or tensor.special:
            raise ConversionError(
                f"tensor #{tensor.index} '{tensor.name}': computed tensors that are "
                f"{tensor.special or tensor.type} are not supported; supported types: "
                f"{', '.join(ACTIVATION_DTYPES)}"
            )
        return ACTIVATION_DTYPES[tensor.type]

    def _set_activation(self, tensor: FileTensor, name: str) -> None:
        self.values[tensor.index] = name
        self.builder.endpoints[f"#{tensor.index}"] = name

    def emit(
        self, op: FileOperator, kind: str, inputs: Sequence[str], *, dtype: str = "", rows: bool | None = None,
        **attrs: Any,
    ) -> None:  # fmt: skip
        """Add the node that computes the operator's output, which has the first input's dtype.

        `dtype="any"` allows another one. `rows`: the output is one of `file_shape`'s rows; None: if an input is.
        Shape and dtype must be what the file declares.
        """
        tensor = self.tensor(op.outputs[0])
        if op.op != "CAST" and not self.bare.isdisjoint(inputs):
            refuse(op, "it reads an 8-bit input without quantization parameters, which only CAST takes")
        wanted = self.builder.tensors[inputs[0]].dtype
        index = (kind == "arg_max" or wanted in INDEX_DTYPES.values()) and tensor.type in INDEX_DTYPES
        found = INDEX_DTYPES[tensor.type] if index else self._activation_dtype(tensor)
        if dtype != "any" and found != wanted:
            refuse(op, f"its output is {found} where its input is {wanted}")
        name = self._names[tensor.index]
        bare = tensor.scale.size == 0 and (
            kind == "arg_max" or (kind in _MOVES and self.builder.tensors[inputs[0]].quantization == ITSELF)
        )  # places as a CAST gives them
        q = ITSELF if bare and found in INTEGER_DTYPES else read_quantization(tensor, found, constant=False)
        integer = found != "float32" or any(self.builder.tensors[name].dtype != "float32" for name in inputs)
        self.builder.node(kind, inputs, name, dtype=found, quantization=q, source=f"#{tensor.index}", **attrs)
        if kind.endswith("conv2d") and integer and self._open_shapes(op):
            self.builder.nodes[-1] = replace(self.builder.nodes[-1], open_shapes=True)
        if rows or (rows is None and not self.in_rows.isdisjoint(inputs)):
            self.in_rows.add(name)
        self._check_shape(op, tensor, name)
        self._set_activation(tensor, name)

    def _open_shapes(self, op: FileOperator) -> bool:
        """Whether the file says nothing of the shape of the operator's first input or output."""
        return not all(self.tensor(i).shape for i in (op.inputs[0], op.outputs[0]))

    def emit_hidden(
        self, op: FileOperator, kind: str, inputs: Sequence[str], like_output: bool = False, dtype: str = "",
        **attrs: Any,
    ) -> str:  # fmt: skip
        """Add a node for a value that the file doesn't show, of the first input's type, or the output's scale.

        `dtype`: of another type, whose values stand for themselves.
        """
        x, tensor = self.builder.tensors[inputs[0]], self.tensor(op.outputs[0])
        name = self.fresh(f"{self._names[tensor.index]}/{kind}")
        q = read_quantization(tensor, x.dtype, constant=False) if like_output else x.quantization
        if dtype:
            q = ITSELF if dtype in INTEGER_DTYPES else None
        return self.builder.node(kind, inputs, name, dtype=dtype or x.dtype, quantization=q, **attrs)

    def fold(self, op: FileOperator, value: Constant) -> None:
        """Let the operator's output stand for a constant: the operator vanishes."""
        tensor = self.tensor(op.outputs[0])
        if CONSTANT_DTYPES.get(tensor.type) != str(value.array.dtype):
            refuse(op, f"its output is {tensor.type}, expected {value.array.dtype}")
        self.values[tensor.index] = replace(value, index=tensor.index)
        self._taken.discard(self._names.pop(tensor.index))  # a weight may now have that name

    def _check_shape(self, op: FileOperator, tensor: FileTensor, name: str) -> None:
        """Compare with the declared shape; dynamic dimensions and unknown shapes say nothing."""
        shape, expected = self.builder.tensors[name].shape, self.file_shape(name)
        if math.prod(shape) > MAX_ELEMENTS or len(shape) > MAX_ACTIVATION_RANK:
            refuse(op, f"an output of shape {shape}: too large, or more than {MAX_ACTIVATION_RANK} dimensions")
        if not tensor.shape:
            return
        declared = tensor.signature if len(tensor.signature) == len(expected) else tensor.shape
        same = len(declared) == len(expected) and all(d in (-1, e) for d, e in zip(declared, expected, strict=True))
        if not same:
            refuse(op, f"the file declares an output of shape {declared}, its inputs give {expected}")

    def declare(self, op: FileOperator, value: Constant, layout: str = "") -> str:
        """Declare a constant as a weight of the graph, and share it among equal uses of one tensor.

        `layout` names what was done to the values, so that different uses don't share. What is no tensor of the file
        is shared where its values are equal.
        """
        absent = value.index < 0  # the zeros of an operator that leaves its bias out, the numbers of a formula
        own = value.array.tobytes() if absent else b""
        key = (value.index, layout, str(value.array.dtype), value.array.shape, own)
        if key not in self._declared:
            if str(value.array.dtype) == "float16":
                refuse(op, "float16 constants are supported behind a DEQUANTIZE only")
            name = f"{self._names[op.outputs[0]]}/{layout or 'bias'}" if absent else self.tensor(value.index).name
            name = self.fresh(name or f"tensor_{value.index}")
            self.builder.constant(
                name, value.array.shape, str(value.array.dtype),
                quantization=value.quantization, source="" if absent else f"#{value.index}",
            )  # fmt: skip
            self.arrays[name] = np.ascontiguousarray(value.array)
            self._declared[key] = name
        return self._declared[key]

    def fresh(self, name: str) -> str:
        """A name that nothing has yet, from the one given."""
        base = name = name if _usable(name) else "tensor"
        while name in self._taken:
            self._repeats[base] = self._repeats.get(base, 1) + 1
            name = f"{base}_{self._repeats[base]}"
        self._taken.add(name)
        return name


def refuse(op: FileOperator, message: str) -> NoReturn:
    """Raise `ConversionError` with the operator's index and name."""
    raise ConversionError(f"op {op.index} ({op.op}): {message}")


def _kind(value: str | Constant | None) -> str:
    if value is None:
        return "none"
    return f"the computed '{value}'" if isinstance(value, str) else "a constant"


def _usable(name: str) -> bool:
    """Whether a name can serve for taps: it isn't empty or in the form of another kind of tap."""
    return name != "" and not name.startswith(("#", "acc:"))


def _free_name(tensor: FileTensor, taken: set[str]) -> str:
    """TFLite's name if usable and free, else with the tensor's index."""
    name = tensor.name if _usable(tensor.name) else f"tensor_{tensor.index}"
    while name in taken:
        name = f"{name}_{tensor.index}"
    taken.add(name)
    return name
