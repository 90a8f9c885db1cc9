"""Export for RTL and C test benches: weights, biases, multipliers and shifts, tables, and vectors, with a manifest.

Every number comes from the engine: a node's parameters are those that its binder gives to its kernel, and a table is
the node run on all 256 values. Files are memory images for Verilog's $readmemh, C headers, or .npy.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from npmobilenet.arithmetic.dialects import dialect as dialect_of
from npmobilenet.arithmetic.elementwise import LEFT_SHIFT, Product, Sum
from npmobilenet.arithmetic.fixedpoint import Requantization
from npmobilenet.arithmetic.pooling import Mean
from npmobilenet.arithmetic.softmax import fixed_factor
from npmobilenet.errors import InputError
from npmobilenet.formats.npy import read_npy
from npmobilenet.golden.comparing import axes
from npmobilenet.golden.derivation import parameters
from npmobilenet.golden.dump import FORMAT, INPUT, MANIFEST, SCHEMA, entry_to_json
from npmobilenet.golden.exporting.arrays import FORMATS, symbol, to_c, to_hex, write
from npmobilenet.golden.exporting.bench import bench_of, bench_taps
from npmobilenet.golden.exporting.params import params_h, spatial
from npmobilenet.golden.inputs import ModelSource, data_of, find_tensor, load_input, model_facts, model_of
from npmobilenet.golden.recording import EVERYTHING, check_target, choose, run_taps, versions, whole_folder
from npmobilenet.golden.single_node import IsolatedNode, argument_names, isolate, plain, run, steps
from npmobilenet.graph import Tensor
from npmobilenet.images.inputs import Inputs
from npmobilenet.model import Model
from npmobilenet.modeldata import Array, ModelData, shared_prefix
from npmobilenet.runtime.taps import ACCUMULATING

__all__ = ["export", "symbol", "table", "to_c", "to_hex"]

EXPORT = f"{FORMAT}-export"
ORDERS = ("hwio", "ohwi")
AXES = {
    "conv2d": ("ky", "kx", "ci", "co"), "depthwise_conv2d": ("ky", "kx", "co"), "fully_connected": ("ci", "co"),
}  # fmt: skip
UNARY = ("activation", "quantize", "dequantize")
AXIS_OF = {"multiplier": ["co"], "shift": ["co"], "scale": ["co"], "exponentials": ["difference from the largest"]}


def export(
    model: ModelSource,
    folder: str | os.PathLike[str],
    x: Inputs | str | os.PathLike[str] | None = None,
    format: str = "hex",
    *,
    dialect: str = "tflite-reference",
    order: str = "hwio",
    taps: str | Iterable[str] = EVERYTHING,
    bench: str | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """Write a model's constants, and for an input its tensors, into a new folder; returns the manifest.

    `format`: "hex" (for $readmemh), "c" (headers, and params.h that includes them) or "npy". `order` of weights: "hwio"
    (ky, kx, ci, co; fully connected: ci, co) or "ohwi" (co, ky, kx, ci; co, ci), TFLite's own. Depthwise weights are
    (ky, kx, co) in both. `x` and `taps` are as for `record`. Multipliers and shifts are the dialect's. `bench` names a
    layer of 8 bits: with it a test bench is written that computes that layer from the files and compares it with its
    vector, bench.c for "c" and bench.v for "hex".

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
    if bench is not None:
        taps = bench_taps(data.graph, bench, format, engine is not None, taps)
    with whole_folder(target, force) as place:
        writer = _Writer(place, format)
        shared = len(shared_prefix([node.name for node in data.graph.nodes]))
        nodes = [
            _node(data, i, node.name[shared:], (dialect, order), writer) for i, node in enumerate(data.graph.nodes)
        ]
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
            manifest |= _vectors(engine, x, taps, shared, writer)
        if format == "c":
            (place / "params.h").write_text(params_h(manifest), encoding="ascii", newline="\n")
        if bench is not None:
            name, text = bench_of(manifest, find_tensor(data.graph, bench)[1])
            (place / name).write_text(text, encoding="ascii", newline="\n")
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
        write(self.place / file, array, name, self.kind, facts.get("axes", ()))
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


def _node(data: ModelData, place: int, short: str, how: tuple[str, str], writer: _Writer) -> dict[str, Any]:
    """One node's files and facts; `short` is its name for files, `how` dialect and order."""
    tensors, node, (dialect, order) = data.graph.tensors, data.graph.nodes[place], how
    zeros = {n: np.zeros((1, *tensors[n].shape[1:]), tensors[n].dtype) for n in node.inputs if not tensors[n].constant}
    what = isolate(data, node, zeros)
    name = symbol(f"n{place:03d}", short)
    files = {}
    for position, tensor in enumerate(what.operands):
        if tensor.constant:
            part, array, axes = _constant(what, position, order)
            files[part] = writer.write(f"{name}_{part}", array, tensor=tensor.name, axes=axes, **_scales(tensor))
    given: dict[str, Any] = {}
    if what.is_integer:
        given, arrays = _parameters(what, dialect)
        files |= {part: writer.write(f"{name}_{part}", array, axes=AXIS_OF[part]) for part, array in arrays.items()}
        if node.op in UNARY and what.operands[0].dtype in ("uint8", "int8"):
            files["table"] = writer.write(f"{name}_table", table(what, dialect), axes=["input, as an unsigned byte"])
    return {
        "index": place,
        "name": node.name,
        "symbol": name,
        "op": node.op,
        "attributes": {k: plain(v) for k, v in node.attrs.items()},
        "inputs": [{"name": t.name, "dtype": t.dtype, "shape": list(t.shape), **_scales(t)}
                   for t in what.operands if not t.constant],
        "output": {"name": what.result.name, "dtype": what.result.dtype, "shape": list(what.result.shape),
                   **_scales(what.result)},
        "spatial": spatial(node, tensors),
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
                if str(record.rule.inside).startswith("float"):
                    arrays["scale"] = record.scale[:channels]
                for key in ("multiplier", "shift", "scale"):
                    given.pop(key, None)
                given["rule"] = str(record.rule.inside)
                if record.rule.full < channels:
                    given["tail"] = record.rule.full
            elif isinstance(record, Sum):
                given |= {"rule": str(record.rule.outside), "lanes": str(record.rule.inside), "left_shift": LEFT_SHIFT}
            if isinstance(record, (Sum, Product, Mean)) and record.rule.inside != record.rule.outside:
                where = {"run": record.rule.run, "full": record.rule.full}
                given |= {"rule": str(record.rule.outside), "lanes": str(record.rule.inside), **where}
        if what.node.op == "softmax":
            arrays["exponentials"] = step.args[names.index("exponentials")]
            if arrays["exponentials"].dtype == np.int32:
                multiplier, shift = fixed_factor(
                    what.node,
                    what.operands[0],
                    single=dialect_of(dialect).rule("softmax", what.result.dtype) == "single",
                )
                given |= {"multiplier": multiplier, "shift": shift}
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
    model: Model, x: Inputs | str | os.PathLike[str], taps: str | Iterable[str], shared: int, writer: _Writer
) -> dict[str, Any]:
    """All tensors of a run; each is written as .npy first, by the recorder, and then made what is wanted."""
    arrays, facts = load_input(model, x)
    batch = len(next(iter(arrays.values()))) if arrays else 1
    done = run_taps(model, arrays, choose(model, taps, max(batch, 1)), writer.place, True, None)
    vectors = []
    for i, entry in enumerate(done):
        path = writer.place / entry.file
        short = entry.tensor[shared:] if entry.op != INPUT else entry.tensor
        name = symbol(f"v{i:03d}", f"{entry.prefix}{short}")
        vectors.append(
            {**entry_to_json(entry), **writer.write(name, read_npy(path), axes=list(axes(len(entry.shape))))}
        )
        path.unlink()
    return {"input": facts, "vectors": vectors}
