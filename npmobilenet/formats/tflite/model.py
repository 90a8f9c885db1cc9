"""Import of .tflite files: float32, float16 and 8-bit weights, and quantized models.

Any graph of the ops in `tflite_ops.OPS` is taken, classifier or not; anything else is refused by
name. `flatbuffer` reads the bytes, `operators` says what each op becomes, `builder` holds
the graph meanwhile, `tflite_metadata` reads labels.

* Tensors keep TFLite's names, made unique with their index where repeated or unusable, and
  `Tensor.source` is `#<tensor index>`, which is also an endpoint for every computed tensor.
* The batch becomes 1, whatever the file's is: a graph describes the work for one image.
* Quantized tensors keep dtype, scales and zero points; per-channel axes follow the layout.
"""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from npmobilenet.errors import ConversionError, GraphError
from npmobilenet.formats.file_kinds import COMPILED
from npmobilenet.formats.tflite.builder import Importer, refuse
from npmobilenet.formats.tflite.flatbuffer import MAX_FILE_BYTES, TFLiteFile, parse
from npmobilenet.formats.tflite.input_recipe import RECIPES, input_recipe
from npmobilenet.formats.tflite.metadata import labels, own_facts
from npmobilenet.formats.tflite.operators import OPS
from npmobilenet.formats.tflite.patterns import joined, needed, readable_ends
from npmobilenet.graph import Graph
from npmobilenet.modeldata import ModelData, ModelInfo, assumptions, recipe_assumed

__all__ = ["RECIPES", "convert_tflite"]

_MOST_ENDS = 50  # tensors to end at that a message names
_IMAGENET_OFFSETS = {1000: 0, 1001: 1}  # classes -> output index of the first label


def convert_tflite(path: str | os.PathLike[str], outputs: Sequence[str] = ()) -> ModelData:
    """The model in a .tflite file: its subgraph 0 as a graph, its weights, and what it says of itself.

    With `outputs`, names of tensors or "#index", only what computes these is read: whatever lies behind may be unknown.

    Labels come from a label file packed behind the model if its length fits the output (1, N), else
    1000 and 1001 outputs are taken for ImageNet's; other models have none.

    Raises `ConversionError`, with the file's name, for a file that can't be read, is damaged, or
    holds what isn't supported (each unsupported op with its index), and `MissingExtra` where the
    packages `tflite` and `flatbuffers` aren't installed.
    """
    path = Path(path)
    try:
        data = _read(path)
        file = parse(data)
        work = Importer(path.stem, file, len(data))
        try:
            graph = _build(work, outputs)
        except _OperatorRefused as error:
            raise ConversionError(f"{error}{_way_around(path, file, len(data), outputs, error.operators)}") from error
        info = _info(path, data, work, graph)
        if outputs:
            info = replace(info, provenance={**info.provenance, "outputs": ", ".join(outputs)})
    except (ConversionError, GraphError) as error:
        raise ConversionError(f"{path.name}: {error}") from error
    return ModelData(graph, work.arrays, info)


def _read(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise ConversionError(f"can't be read: {error}; check the path") from error
    if len(data) > MAX_FILE_BYTES:
        raise ConversionError(f"more than {MAX_FILE_BYTES} bytes; MobileNets have far fewer")
    return data


class _OperatorRefused(ConversionError):
    """With the indices of the operators that can't be read."""

    def __init__(self, message: str, operators: Collection[int]) -> None:
        super().__init__(message)
        self.operators = operators


def _build(work: Importer, names: Sequence[str] = ()) -> Graph:
    """The operators that the outputs need, in the file's order, which is the order of execution."""
    ends = [work.index_of(name) for name in names] or list(work.file.outputs)
    operators = needed(work.file, ends) if names else work.file.operators
    unknown = {o.index: f"op {o.index} ({o.op})" for o in operators if o.op not in OPS}
    for name, text in COMPILED.items():
        if any(f"custom op '{name}'" in op for op in unknown.values()):
            raise ConversionError(f"compiled {text}; its layers are one operator ({name}) that only that device knows")
    if unknown:
        shown = ", ".join(list(unknown.values())[:10]) + (" ..." if len(unknown) > 10 else "")
        raise _OperatorRefused(f"unsupported: {shown}", unknown)
    position = 0
    while position < len(operators):
        group = joined(work, operators[position : position + 3])
        op = group or operators[position]
        position += 3 if group else 1
        several = op.op in ("SPLIT", "SPLIT_V", "UNPACK") and len(set(op.outputs)) == len(op.outputs) > 0
        if (len(op.outputs) != 1 and not several) or not work.values.keys().isdisjoint(op.outputs):
            refuse(op, f"its outputs are {op.outputs}, expected one tensor that wasn't computed before")
        try:
            OPS[op.op](work, op)
        except GraphError as error:
            raise _OperatorRefused(f"op {op.index} ({op.op}): {error}", {op.index}) from error
        except ConversionError as error:
            raise _OperatorRefused(str(error), {op.index}) from error
    outputs = [work.values.get(index) for index in ends]
    for index, value in zip(ends, outputs, strict=True):
        if not isinstance(value, str):
            raise ConversionError(f"output #{index} '{work.tensor(index).name}' isn't computed "
                                  "from the inputs")  # fmt: skip
    return work.builder.finish([value for value in outputs if isinstance(value, str)])


def _way_around(path: Path, file: TFLiteFile, size: int, outputs: Sequence[str], refused: Collection[int]) -> str:
    """The call that runs the file up to what was refused, as the end of a message; "" where there is none.

    It ends at the tensors that refused operators, or what depends on them, read, and at outputs that don't depend on
    them. That it can be read is tried.
    """
    if outputs:
        return ""
    ends = [f"#{index}" for index in readable_ends(file, refused)]
    try:
        _build(Importer(path.stem, file, size), ends[:_MOST_ENDS])
    except (ConversionError, GraphError):
        return ""
    if not 0 < len(ends) <= _MOST_ENDS:
        return ""
    until = " ".join(f"--until '{end}'" for end in ends)
    return (
        f". What you can do: run it up to there, npmobilenet.load({str(path)!r}, outputs={ends}), or "
        f"npmobilenet golden record {shlex.quote(str(path))} random:0 -o DIR {until}"
    )


def _info(path: Path, data: bytes, work: Importer, graph: Graph) -> ModelInfo:
    """What the file says of itself, or else what is taken for granted."""
    own = own_facts(work.file.metadata, graph)
    if own is not None:
        return replace(own, name=path.stem, provenance={**own.provenance, **_provenance(path, data, work, "")})
    recipe = input_recipe(work.file, graph, work.arrays)
    names, offset, assumed = _labels(graph, data)
    assumed = [*([] if recipe.told else [recipe_assumed(recipe.name)]), *assumed]
    facts = {**_provenance(path, data, work, recipe.unmet), **assumptions(assumed)}
    return ModelInfo(path.stem, names, offset, recipe.name, facts)


def _labels(graph: Graph, data: bytes) -> tuple[str | tuple[str, ...], int, list[str]]:
    """Labels, the output index of the first one, and what was assumed; for a classifier: a single output (1, N)."""
    shape = graph.tensors[graph.outputs[0]].shape
    if len(graph.outputs) != 1 or len(shape) != 2:
        return (), 0, []
    packed = labels(data, shape[1])
    if packed:
        return packed, 0, []
    if shape[1] in _IMAGENET_OFFSETS:
        return "imagenet", _IMAGENET_OFFSETS[shape[1]], [f"labels assumed: ImageNet's, for {shape[1]} outputs"]
    return (), 0, []


def _provenance(path: Path, data: bytes, work: Importer, unmet: str) -> dict[str, str]:
    file: TFLiteFile = work.file
    facts = {
        "source": path.name,
        "sha256": hashlib.sha256(data).hexdigest(),
        "converter": "npmobilenet.formats.tflite.model",
        "tflite_version": str(file.version),
        "tflite_description": file.description,
    }
    if unmet:
        facts["input_normalization"] = unmet
    if work.dequantized:
        facts["note"] = (
            f"uint8 weights of {len(work.dequantized)} float ops were converted to float32; TFLite quantizes these "
            "ops' inputs while running, which moves values by a step of 1/127 of an input's range"
        )
    return facts
