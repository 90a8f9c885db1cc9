"""Groups of TFLite operators: those that stand for one operation of the graph, and those that some outputs need.

Where the batch is dynamic the converter writes a dilated convolution in pieces: SPACE_TO_BATCH_ND, convolution,
BATCH_TO_SPACE_ND. The values between have a first dimension that isn't the batch, so that no graph tensor could hold
them; the group becomes the one operator that the converter writes for a fixed batch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

import numpy as np

from npmobilenet.formats.tflite.builder import Importer, refuse
from npmobilenet.formats.tflite.flatbuffer import FileOperator, FileTensor, TFLiteFile
from npmobilenet.graph import Padding

_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")
_VALID = 1


def needed(file: TFLiteFile, outputs: Iterable[int]) -> tuple[FileOperator, ...]:
    """The operators that these tensors depend on, in the file's order."""
    wanted, found = set(outputs), []
    for op in reversed(file.operators):
        if not wanted.isdisjoint(op.outputs):
            wanted.update(op.inputs)
            found.append(op)
    return tuple(reversed(found))


def readable_ends(file: TFLiteFile, refused: Collection[int]) -> tuple[int, ...]:
    """Computed tensors that the operators of these indices, and what depends on them, read or the file gives out."""
    computed: set[int] = set()
    spoilt: set[int] = set()
    read = list(file.outputs)
    for op in file.operators:
        if op.index in refused or not spoilt.isdisjoint(op.inputs):
            spoilt.update(op.outputs)
            read += op.inputs
        else:
            computed.update(op.outputs)
    return tuple(index for index in dict.fromkeys(read) if index in computed - spoilt)


def joined(io: Importer, operators: Sequence[FileOperator]) -> FileOperator | None:
    """The operator that these three stand for, or None if they are no such group."""
    if len(operators) != 3 or any(len(op.outputs) != 1 or not op.inputs for op in operators):
        return None
    first, middle, last = operators
    if middle.inputs[0] != first.outputs[0] or last.inputs[0] != middle.outputs[0]:
        return None
    kinds = (first.op, last.op)
    if kinds == ("SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND") and middle.op in _CONVOLUTIONS:
        return _dilated(io, first, middle, last)
    return None


def alone(io: Importer, op: FileOperator) -> None:
    """The rule of an operator that is known in a group only."""
    refuse(op, "supported only as SPACE_TO_BATCH_ND, a convolution and BATCH_TO_SPACE_ND, one after the other")


def _dilated(io: Importer, spread: FileOperator, conv: FileOperator, gather: FileOperator) -> FileOperator:
    """A VALID convolution of stride 1 on every d-th pixel is a convolution of dilation d.

    With padding (p0, p1) before it and crop (0, c1) after it, there are `size + p0 + p1 - c1 - (k - 1) * d` positions,
    as of a dilated convolution with padding (p0, p1 - c1). The padding is zeros in both.
    """
    block = io.integers(spread, 1, "a block shape")
    pads, crops = io.integers(spread, 2, "paddings"), io.integers(gather, 2, "crops")
    if len(block) != 2 or len(pads) != 4 or len(crops) != 4 or block != io.integers(gather, 1, "a block shape"):
        refuse(spread, f"block {block}, paddings {pads}, crops {crops}: expected those of height and width")
    option = conv.options.get
    plain = all(option(name, 1) == 1 for name in ("StrideH", "StrideW", "DilationHFactor", "DilationWFactor"))
    padding: Padding = ((pads[0], pads[1] - crops[1]), (pads[2], pads[3] - crops[3]))
    if not plain or option("Padding") != _VALID or (crops[0], crops[2]) != (0, 0) or min(map(min, padding)) < 0:
        refuse(conv, f"between SPACE_TO_BATCH_ND (paddings {pads}) and BATCH_TO_SPACE_ND (crops {crops}): expected "
                     "VALID, stride 1, dilation 1, and crops after the end that the paddings cover")  # fmt: skip
    for op in (spread, gather):
        if not _same_type(io.tensor(op.inputs[0]), io.tensor(op.outputs[0])):
            refuse(op, "its input and output differ in type or quantization")
    x = io.activation(spread)
    for size, (before, _), after, step in zip(x.shape[1:3], padding, pads[1::2], block, strict=False):
        if step < 1 or (size + before + after) % step:
            refuse(spread, f"{x.shape} with paddings {pads} can't be divided by block {block}")
    options = {**conv.options, "DilationHFactor": block[0], "DilationWFactor": block[1], "Padding": padding}
    return replace(conv, inputs=(spread.inputs[0], *conv.inputs[1:]), outputs=gather.outputs, options=options)


def _same_type(a: FileTensor, b: FileTensor) -> bool:
    same = np.array_equal(a.scale, b.scale) and np.array_equal(a.zero_point, b.zero_point)
    return a.type == b.type and (same or a.type == "FLOAT32")
