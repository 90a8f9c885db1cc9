"""Cuts a .tflite file behind a tensor: the copy computes that tensor and nothing that comes after it.

    pip install 'npmobilenet[test]'
    python tools/cut_tflite.py MODEL.tflite TENSOR [TENSOR ...] -o OUT.tflite

A delegate gives back nothing but outputs, so that a copy cut there is the way to see an inner value of a delegated run.
TENSOR is a name, or an index ("12" or "#12"). Operators that the tensors don't need are dropped, and the content of
buffers that nobody reads any more; tensors keep their indices, so that a copy's `#12` is the model's `#12`. Several
tensors become several outputs: what a delegate fuses may hang on who reads a tensor, so cut at one where that matters.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from npmobilenet.errors import ConversionError, MissingExtra, NpMobilenetError
from npmobilenet.formats.tflite.flatbuffer import FLATBUFFER_ERRORS, MAX_FILE_BYTES, TFLiteFile, parse


def find_tensor(file: TFLiteFile, tensor: int | str) -> int:
    """The index of a computed tensor, given by index or name. Raises `ConversionError` if there is no such one."""
    text = str(tensor)
    named = [t.index for t in file.tensors if t.name == text]
    if isinstance(tensor, str) and named:
        if len(named) > 1:
            raise ConversionError(f"the tensors {named} are all called '{text}': give an index, as in '#{named[0]}'")
        index = named[0]
    elif text.removeprefix("#").isdecimal() and text.isascii():
        index = int(text.removeprefix("#"))
    else:
        raise ConversionError(f"no tensor is called '{text}'; a name of the file or an index is expected")
    if index not in _producers(file):
        last = len(file.tensors) - 1
        what = "an input or a constant" if index <= last else f"not a tensor: the last one is #{last}"
        raise ConversionError(f"tensor '{text}' is {what}; expected one that an operator computes")
    return index


def computed_by(file: TFLiteFile, *ops: str) -> list[int]:
    """The first outputs of the operators with these names (all, without names), in their order."""
    return [o.outputs[0] for o in file.operators if o.outputs and (not ops or o.op in ops)]


def cut(content: bytes, *tensors: int | str) -> bytes:
    """The copy whose outputs are `tensors`. Raises `ConversionError` for an unfit file or tensor, `MissingExtra`."""
    file = parse(content)
    outputs = list(dict.fromkeys(find_tensor(file, tensor) for tensor in tensors))
    if not outputs:
        raise ConversionError("no tensor to cut behind was named; expected at least one")
    kept = _needed(file, outputs)
    model = _model(content)
    if any(buffer.offset > 1 for buffer in model.buffers):
        raise ConversionError(
            "the file keeps weights behind its flatbuffer (it is meant for more than 2 GB): unsupported"
        )
    if len(model.subgraphs) > 1:
        raise ConversionError(f"the file has {len(model.subgraphs)} subgraphs, expected 1: control flow can't be cut")
    graph = model.subgraphs[0]
    graph.operators = [graph.operators[i] for i in kept]
    graph.outputs = outputs
    used = {graph.tensors[i].buffer for o in graph.operators for i in o.inputs if i >= 0}
    for i, buffer in enumerate(model.buffers):
        buffer.data = buffer.data if i in used else None
    for tensor in graph.tensors:
        tensor.buffer = tensor.buffer if tensor.buffer in used else 0
    model.signatureDefs = model.metadata = model.metadataBuffer = None
    builder = importlib.import_module("flatbuffers").Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _producers(file: TFLiteFile) -> dict[int, int]:
    """Tensor -> the operator that computes it."""
    return {t: o.index for o in file.operators for t in o.outputs}


def _needed(file: TFLiteFile, outputs: Sequence[int]) -> list[int]:
    """The operators that the outputs depend on, in the file's order."""
    producers = _producers(file)
    wanted, found = list(outputs), set()
    while wanted:
        operator = producers.get(wanted.pop())
        if operator is not None and operator not in found:
            found.add(operator)
            wanted += file.operators[operator].inputs
    return sorted(found)


def _model(content: bytes) -> Any:
    """The file as an object tree of the schema that LiteRT brings along (the `tflite` package has no such objects)."""
    try:
        schema = importlib.import_module("ai_edge_litert.schema_py_generated")
    except ImportError as error:
        raise MissingExtra("ai-edge-litert", "test", "cutting a .tflite file") from error
    try:
        model = schema.ModelT.InitFromPackedBuf(content, 0)
    except FLATBUFFER_ERRORS as error:
        raise ConversionError(
            f"damaged .tflite file ({type(error).__name__}: {error}); fetch the file again"
        ) from error
    model.buffers[0].data = None  # by convention the buffer of all that has no content
    return model


def read(path: Path) -> bytes:
    """A file's content. Raises `ConversionError`."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConversionError(f"{path} has {path.stat().st_size:,} bytes, expected at most {MAX_FILE_BYTES:,}")
        return path.read_bytes()
    except OSError as error:
        raise ConversionError(f"{path} can't be read: {error.strerror}; give the path of a .tflite file") from error


def write(path: Path, content: bytes) -> None:
    """Write a file whole, or not at all. Raises `ConversionError`."""
    temporary = path.parent / f".cut-{secrets.token_hex(8)}.tmp"
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError as error:
        raise ConversionError(f"{path} can't be written: {error.strerror}; choose another place with -o") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Cut one file; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="the .tflite to cut")
    parser.add_argument("tensor", nargs="+", help="a tensor's name, or its index (12 or #12)")
    parser.add_argument("-o", dest="out", type=Path, required=True, help="the .tflite to write")
    options = parser.parse_args(arguments)
    try:
        content = read(options.model)
        shorter = cut(content, *options.tensor)
        write(options.out, shorter)
    except NpMobilenetError as error:
        print(f"cut_tflite: {error}", file=sys.stderr)
        return 2
    print(f"{options.out}: {len(shorter):,} of {len(content):,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
