"""Export for RTL and C test benches: weights, biases, multipliers and shifts, tables, and vectors, with a manifest.

Every number comes from the engine: a node's parameters are those that its binder gives to its kernel, and a table is
the node run on all 256 values. Files are memory images for Verilog's $readmemh, C headers, or .npy.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from npmobilenet.arithmetic.fixedpoint import REQUANTIZATIONS, Requantization
from npmobilenet.errors import InputError
from npmobilenet.formats.npy import read_npy
from npmobilenet.golden.derivation import parameters
from npmobilenet.golden.dump import FORMAT, MANIFEST, SCHEMA, entry_to_json, sanitized
from npmobilenet.golden.inputs import ModelSource, data_of, load_input, model_facts, model_of
from npmobilenet.golden.recording import EVERYTHING, check_target, choose, run_taps, versions, whole_folder
from npmobilenet.golden.single_node import IsolatedNode, argument_names, isolate, plain, run, steps
from npmobilenet.graph import Node, Tensor
from npmobilenet.model import Inputs, Model
from npmobilenet.modeldata import Array, ModelData
from npmobilenet.runtime.taps import ACCUMULATING

EXPORT = f"{FORMAT}-export"
ORDERS = ("hwio", "ohwi")
AXES = {
    "conv2d": ("ky", "kx", "ci", "co"), "depthwise_conv2d": ("ky", "kx", "co"), "fully_connected": ("ci", "co"),
}  # fmt: skip
UNARY = ("activation", "quantize", "dequantize")


def export(
    model: ModelSource,
    folder: str | os.PathLike[str],
    x: Inputs | str | os.PathLike[str] | None = None,
    format: str = "hex",
    *,
    dialect: str = "tflite-reference",
    order: str = "hwio",
    taps: str | Iterable[str] = EVERYTHING,
    force: bool = False,
) -> dict[str, Any]:
    """Write a model's constants, and for an input its tensors, into a new folder; returns the manifest.

    `format`: "hex" (for $readmemh), "c" (headers, and params.h that includes them) or "npy". `order` of weights: "hwio"
    (ky, kx, ci, co; fully connected: ci, co) or "ohwi" (co, ky, kx, ci; co, ci), TFLite's own. Depthwise weights are
    (ky, kx, co) in both. `x` and `taps` are as for `record`. Multipliers and shifts are the dialect's.

    Raises `InputError`, `PlanError`, and what `load` raises.
    """
    if format not in FORMATS:
        raise InputError(f"format '{format}' is not one of {', '.join(FORMATS)}")
    if order not in ORDERS:
        raise InputError(f"order '{order}' is not one of {', '.join(ORDERS)}")
    target = Path(folder)
    if target.suffix == ".npz":
        raise InputError(f"'{target}': an export is a folder; give a name that doesn't end in .npz")
    check_target(target, force)
    engine = None if x is None else model_of(model, dialect)
    data = data_of(model) if engine is None else engine.data
    with whole_folder(target, force) as place:
        writer = _Writer(place, format)
        nodes = [_node(data, i, node, dialect, order, writer) for i, node in enumerate(data.graph.nodes)]
        manifest: dict[str, Any] = {
            "format": EXPORT,
            "schema": SCHEMA,
            "export": format,
            "model": model_facts(data, model if isinstance(model, (str, os.PathLike)) else None),
            "dialect": dialect,
            "order": order,
            "versions": versions(),
            "nodes": nodes,
        }
        if engine is not None and x is not None:
            manifest |= _vectors(engine, x, taps, writer)
        if format == "c":
            (place / "params.h").write_text(_params(manifest), encoding="ascii", newline="\n")
        (place / MANIFEST).write_text(_text(manifest), encoding="utf-8", newline="\n")
    return manifest


def _text(manifest: dict[str, Any]) -> str:
    """The manifest as JSON, a node or vector in each line."""
    lists = {key: manifest[key] for key in ("nodes", "vectors") if key in manifest}
    facts = {key: value for key, value in manifest.items() if key not in lists}
    text = json.dumps(facts, indent=1, allow_nan=False).removesuffix("\n}")
    for key, rows in lists.items():
        lines = ",\n  ".join(json.dumps(row, allow_nan=False) for row in rows)
        text += f',\n "{key}": [\n  {lines}\n ]'
    return text + "\n}\n"


class _Writer:
    """Writes arrays into the folder, each described for the manifest."""

    def __init__(self, place: Path, kind: str) -> None:
        self.place, self.kind = place, kind

    def write(self, name: str, array: Array, **facts: Any) -> dict[str, Any]:
        """Write an array under a symbol that nothing else has."""
        file = name + FORMATS[self.kind]
        write(self.place / file, array, name, self.kind)
        bits = 8 * array.dtype.itemsize
        return {
            "file": file,
            "symbol": name,
            "dtype": str(array.dtype),
            "bits": bits,
            "shape": list(array.shape),
            **facts,
        }


# ---------------------------------------------------------------------------------------------------------------------
# Nodes


def _node(data: ModelData, place: int, node: Node, dialect: str, order: str, writer: _Writer) -> dict[str, Any]:
    """One node's files and facts."""
    tensors = data.graph.tensors
    zeros = {n: np.zeros((1, *tensors[n].shape[1:]), tensors[n].dtype) for n in node.inputs if not tensors[n].constant}
    what = isolate(data, node, zeros)
    prefix = f"n{place:03d}"
    name = symbol(prefix, node.name)
    files = {}
    for position, tensor in enumerate(what.operands):
        if tensor.constant:
            part, array, axes = _constant(what, position, order)
            files[part] = writer.write(f"{name}_{part}", array, tensor=tensor.name, axes=axes, **_scales(tensor))
    given: dict[str, Any] = {}
    if what.is_integer:
        given, arrays = _parameters(what, dialect)
        files |= {part: writer.write(f"{name}_{part}", array) for part, array in arrays.items()}
        if node.op in UNARY and what.operands[0].dtype in ("uint8", "int8"):
            files["table"] = writer.write(f"{name}_table", table(what, dialect), axes=["input, as an unsigned byte"])
    return {
        "index": place,
        "name": node.name,
        "symbol": name,
        "op": node.op,
        "attributes": {k: plain(v) for k, v in node.attrs.items()},
        "inputs": [{"name": t.name, **_scales(t)} for t in what.operands if not t.constant],
        "output": {"name": what.result.name, "dtype": what.result.dtype, "shape": list(what.result.shape),
                   **_scales(what.result)},
        "parameters": given,
        "files": files,
    }  # fmt: skip


def _constant(what: IsolatedNode, position: int, order: str) -> tuple[str, Array, list[str]]:
    """What a constant operand is called, its array in the wanted order, and its axes."""
    array = what.arrays[position]
    if what.node.op not in ACCUMULATING:
        return f"operand{position}", array, []
    if position == 2:
        return "bias", array, ["co"]
    axes = list(AXES[what.node.op])
    if order == "ohwi" and what.node.op != "depthwise_conv2d":
        return "weights", np.moveaxis(array, -1, 0), [axes[-1], *axes[:-1]]
    return "weights", array, axes


def _scales(tensor: Tensor) -> dict[str, Any]:
    q = tensor.quantization
    if q is None:
        return {"scale": None, "zero_point": None}
    return {"scale": list(q.scale), "zero_point": list(q.zero_point)}


def _parameters(what: IsolatedNode, dialect: str) -> tuple[dict[str, Any], dict[str, Array]]:
    """What the node's kernels are given: numbers, and arrays of a number for each channel."""
    calls, _ = steps(what, dialect, "python")
    given: dict[str, Any] = {}
    arrays: dict[str, Array] = {}
    for step in calls:
        given |= parameters(step)
        if "zero_points" in (names := argument_names(step)):
            given["input_zero_point"], given["weights_zero_point"] = step.args[names.index("zero_points")]
        for record in step.args:
            if isinstance(record, Requantization):
                channels = what.result.shape[-1]
                arrays["multiplier"] = record.multiplier[:channels]
                arrays["shift"] = record.shift[:channels].astype(np.int8)
                given["rule"] = REQUANTIZATIONS[record.rule]
                for key in ("multiplier", "shift", "scale", *(["tail"] if record.tail >= channels else [])):
                    given.pop(key, None)
    return given, arrays


def table(what: IsolatedNode, dialect: str) -> Array:
    """The results of an op with one 8-bit operand for all 256 bytes, in the order of the unsigned byte."""
    every = (
        np.arange(256, dtype=np.uint8).view(what.operands[0].dtype).reshape(256, *(1,) * (len(what.result.shape) - 1))
    )
    shape = (1, *every.shape[1:])
    small = replace(
        what,
        arrays=(every,),
        operands=(replace(what.operands[0], shape=shape),),
        result=replace(what.result, shape=shape),
    )
    return run(small, dialect, "python").reshape(-1)


# ---------------------------------------------------------------------------------------------------------------------
# Vectors


def _vectors(
    model: Model, x: Inputs | str | os.PathLike[str], taps: str | Iterable[str], writer: _Writer
) -> dict[str, Any]:
    """All tensors of a run; each is written as .npy first, by the recorder, and then made what is wanted."""
    arrays, facts = load_input(model, x)
    batch = len(next(iter(arrays.values()))) if arrays else 1
    done = run_taps(model, arrays, choose(model, taps, max(batch, 1)), writer.place, True, None)
    vectors = []
    for i, entry in enumerate(done):
        path = writer.place / entry.file
        name = symbol(f"v{i:03d}", entry.name)
        vectors.append({**entry_to_json(entry), **writer.write(name, read_npy(path))})
        path.unlink()
    return {"input": facts, "vectors": vectors}


def _params(manifest: dict[str, Any]) -> str:
    """params.h: every node's numbers as macros, and all the headers."""
    lines = ["/* written by npmobilenet golden export; manifest.json describes the symbols */\n#ifndef PARAMS_H\n"]
    lines.append("#define PARAMS_H\n")
    for node in manifest["nodes"]:
        lines.append(f"/* {node['op']} */\n")
        numbers = {
            k: v for k, v in node["parameters"].items() if isinstance(v, (int, float)) and not isinstance(v, bool)
        }
        named = {f"{node['symbol']}_{key}".upper(): value for key, value in numbers.items()}
        lines.append(macros(named))
        lines += [f'#include "{file["file"]}"\n' for file in node["files"].values()]
    lines += [f'#include "{vector["file"]}"\n' for vector in manifest.get("vectors", [])]
    return "".join([*lines, "#endif\n"])


# ---------------------------------------------------------------------------------------------------------------------
# Arrays as text

FORMATS = {"hex": ".hex", "c": ".h", "npy": ".npy"}
C_TYPES = {"int8": "int8_t", "uint8": "uint8_t", "int16": "int16_t", "int32": "int32_t", "int64": "int64_t",
           "float32": "float"}  # fmt: skip
_IN_A_LINE = 16
LONGEST_NAME = 60


def symbol(prefix: str, name: str) -> str:
    """A name for a file and for C: `prefix`, which makes it unique, and what remains of `name`."""
    plain = re.sub(r"[^A-Za-z0-9]+", "_", sanitized(name)).strip("_")[-LONGEST_NAME:].strip("_")
    return f"{prefix}_{plain}" if plain else prefix


def write(path: Path, array: Array, name: str, kind: str) -> None:
    """Write an array in one of FORMATS; `name` is the C symbol. Raises `InputError` for values C can't say."""
    if kind == "npy":
        np.save(path, np.ascontiguousarray(array, array.dtype.newbyteorder("<")), allow_pickle=False)
    elif kind == "hex":
        path.write_text(to_hex(array), encoding="ascii", newline="\n")
    else:
        path.write_text(to_c(array, name), encoding="ascii", newline="\n")


def to_hex(array: Array) -> str:
    """One value in each line, row-major: two's complement, or a float's IEEE 754 bits, as wide as the dtype."""
    width = 2 * array.dtype.itemsize
    text = np.ascontiguousarray(array, array.dtype.newbyteorder(">")).tobytes().hex()
    return "".join(f"{text[i : i + width]}\n" for i in range(0, len(text), width))


def to_c(array: Array, name: str) -> str:
    """A header with one constant array, flat, row-major; floats in hexadecimal notation, which is exact."""
    kind = C_TYPES[str(array.dtype)]
    literals = [_literal(v) for v in array.reshape(-1).tolist()]
    lines = [", ".join(literals[i : i + _IN_A_LINE]) for i in range(0, len(literals), _IN_A_LINE)]
    shape = "x".join(map(str, array.shape))
    body = ",\n    ".join(lines)
    return (
        f"/* {array.dtype} {shape}, row-major */\n#ifndef {name.upper()}_H\n#define {name.upper()}_H\n"
        "#include <stdint.h>\n"
        f"static const {kind} {name}[{array.size}] = {{\n    {body}\n}};\n#endif\n"
    )


def _literal(value: int | float) -> str:
    if isinstance(value, float):
        if not np.isfinite(value):
            raise InputError(f"the value {value} has no constant in C: export as npy or hex")
        return f"{value.hex()}f"
    if value == -(2**31):
        return "(-2147483647 - 1)"  # 2147483648 isn't an int
    return str(value)


def macros(values: Mapping[str, int | float | str]) -> str:
    """`#define` lines."""
    return "".join(f"#define {name} {value}\n" for name, value in values.items())
