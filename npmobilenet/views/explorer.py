"""What a browser needs to show a model at work, and to compute any value again: layers, values, kernels' arguments.

The values are the engine's, of one run for each dialect. What the page computes is its own: page/arithmetic.js follows
the reference kernels, from the same arguments that the plan hands to these.
"""

from __future__ import annotations

import json
import math
import zlib
from typing import Any

import numpy as np

import npmobilenet
from npmobilenet.arithmetic.dialects import DIALECTS
from npmobilenet.errors import InputError, NpMobilenetError, PlanError
from npmobilenet.formats.layer_names import short_names
from npmobilenet.golden.single_node import argument_names, isolate, plain, rule_of, steps
from npmobilenet.graph import Node, Tensor
from npmobilenet.images.labels import label_names
from npmobilenet.model import Model
from npmobilenet.modeldata import Array

FLOAT = "float32"  # the one arithmetic of a model without integers, where dialects have no say
OPERANDS = ("x", "y", "weights", "bias", "out")  # what the page has as tensors


class Explorer:
    """One model and one input. Runs and kernels' arguments are made when they are asked for, and kept.

    The page first shows the model's own dialect. `picture` is what it calls the input.
    """

    def __init__(self, model: Model, inputs: dict[str, Array], picture: str) -> None:
        self.data, self.graph, self.inputs, self.picture = model.data, model.graph, inputs, picture
        self.refusals: dict[str, str] = {}
        self._models = {model.dialect: model}
        self._runs: dict[str, dict[str, Array]] = {}
        for name in DIALECTS if model.arithmetic is not None else ():
            try:
                if name not in self._models:
                    self._models[name] = Model(model.data, model.kernels, name, model.threads, model.memory_limit)
            except PlanError as error:
                self.refusals[name] = str(error)
        self.shown = model.dialect
        self.dialects = [*self._models] if model.arithmetic is not None else [FLOAT]
        names = [*self.graph.inputs, *(name for node in self.graph.nodes for name in (*node.inputs, node.output))]
        self.tensors = list(dict.fromkeys(names))
        self.nodes = self.graph.nodes

    def document(self) -> dict[str, Any]:
        """All but values and arguments: what is named, of which shape, and what it costs."""
        place = {name: i for i, name in enumerate(self.tensors)}
        short = short_names([name for name in self.tensors if not self.graph.tensors[name].constant])
        layers = [
            {"name": name, "short": short[name], "op": "input", "macs": 0, "params": 0, "inputs": [],
             "output": place[name], "attrs": {}}
            for name in self.graph.inputs
        ]  # fmt: skip
        layers += [
            {"name": node.name, "short": short[node.output], "op": node.op, "macs": self.graph.macs(node),
             "params": self.graph.params(node), "inputs": [place[name] for name in node.inputs],
             "output": place[node.output], "attrs": {k: finite(plain(v)) for k, v in node.attrs.items()}}
            for node in self.nodes
        ]  # fmt: skip
        output = self.graph.outputs[0]
        shape = self.graph.tensors[output].shape
        labels = label_names(self.data.info, shape[-1]) if len(shape) == 2 else None
        runtimes = {name: known.runtime for name, known in DIALECTS.items()}
        dialects = [{"name": name, "runtime": runtimes.get(name, ""), "refuses": ""} for name in self.dialects]
        dialects += [{"name": name, "runtime": "", "refuses": why} for name, why in self.refusals.items()]
        return {
            "version": npmobilenet.__version__, "model": self.data.info.name, "picture": self.picture,
            "labels": list(labels or ()), "dialects": dialects, "dialect": 0, "layers": layers,
            "tensors": [_described(self.graph.tensors[name]) for name in self.tensors], "output": place[output],
        }  # fmt: skip

    @property
    def blob_keys(self) -> list[str]:
        """The names of all blobs: "c7" is constant 7, "v7.1" tensor 7 under the second dialect."""
        constant = [self.graph.tensors[name].constant for name in self.tensors]
        found = [f"c{i}" for i, fixed in enumerate(constant) if fixed]
        return found + [f"v{i}.{d}" for d in range(len(self.dialects)) for i, fixed in enumerate(constant) if not fixed]

    def blob(self, key: str) -> bytes:
        """An array as the page reads it (`packed`); under all dialects but the first, the difference from that.

        Raises `InputError` for a key that isn't among `blob_keys`.
        """
        index, _, dialect = key[1:].partition(".")
        if not (index.isdecimal() and len(index) < 6 and int(index) < len(self.tensors)):
            raise InputError(f"there is no tensor '{key}'")
        name = self.tensors[int(index)]
        if key[0] == "c" and self.graph.tensors[name].constant and not dialect:
            return packed(words(self.data.tensors[name]))
        which = range(len(self.dialects))
        if key[0] != "v" or self.graph.tensors[name].constant or dialect not in map(str, which):
            raise InputError(f"there is no tensor '{key}'")
        first = words(self.values(0)[name])
        return packed(first if dialect == "0" else words(self.values(int(dialect))[name]) - first)

    def values(self, dialect: int) -> dict[str, Array]:
        """Every tensor of a run under a dialect."""
        name = self.dialects[dialect]
        if name not in self._runs:
            computed = [tensor for tensor in self.tensors if tensor in self.graph.producers]
            _, taps = self._models[self.shown if name == FLOAT else name].run(self.inputs, taps=computed)
            self._runs[name] = {**self.inputs, **taps}
        return self._runs[name]

    def layer(self, index: int) -> dict[str, Any]:
        """What a layer's kernels are given under each dialect: `dialects` says which of the `variants` each has.

        Raises `InputError` for a layer that isn't there.
        """
        first = len(self.graph.inputs)
        if not 0 <= index - first < len(self.nodes):
            raise InputError(f"there is no layer {index}")
        node = self.nodes[index - first]
        variants: list[str] = []
        which = []
        for name in self.dialects:
            text = json.dumps(self._steps(node, self.shown if name == FLOAT else name))
            if text not in variants:
                variants.append(text)
            which.append(variants.index(text))
        return {"dialects": which, "variants": [json.loads(text) for text in variants]}

    def _steps(self, node: Node, dialect: str) -> list[dict[str, Any]]:
        tensors = self.graph.tensors
        blank = {n: np.zeros(tensors[n].shape, tensors[n].dtype) for n in node.inputs if not tensors[n].constant}
        what = isolate(self.data, node, blank)
        try:
            calls, _ = steps(what, dialect, "python")
        except NpMobilenetError as error:
            return [{"kernel": "", "args": {}, "rule": "", "source": str(error)}]
        rule, source = rule_of(DIALECTS[dialect], what, calls)
        return [
            {"kernel": call.kernel.__name__, "rule": rule, "source": source,
             "args": {k: argument(v) for k, v in zip(argument_names(call), call.args, strict=True)
                      if k not in OPERANDS}}
            for call in calls
        ]  # fmt: skip


def _described(tensor: Tensor) -> dict[str, Any]:
    q = None if tensor.constant else tensor.quantization
    return {
        "name": tensor.name, "dtype": "int32" if tensor.dtype == "int64" else tensor.dtype, "shape": list(tensor.shape),
        "constant": tensor.constant, "scale": finite(q.scale[0]) if q else None,
        "zero_point": q.zero_point[0] if q else None,
    }  # fmt: skip


def argument(value: Any) -> Any:
    """A kernel's argument as JSON has it: a record as an object, an array as a list, or one number if all are equal."""
    if hasattr(value, "_asdict"):
        return {k: _alike(v) if isinstance(v, np.ndarray) else argument(v) for k, v in value._asdict().items()}
    if isinstance(value, np.ndarray):
        return argument(value.tolist())
    if isinstance(value, (tuple, list)):
        return [argument(v) for v in value]
    return finite(value.item() if isinstance(value, np.generic) else value)


def _alike(array: Array) -> Any:
    same = array.ndim == 1 and array.size > 0 and bool((array == array[0]).all())
    return argument(array[0] if same else array)


def finite(value: Any) -> Any:
    """JSON has no infinity and no NaN: these become what JavaScript's Number() reads."""
    if isinstance(value, list):
        return [finite(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else f"{'-' * (value < 0)}Infinity"
    return value


def words(array: Array) -> Array:
    """The bits of an array as unsigned integers, one channel after the other."""
    plane = np.moveaxis(array, -1, 0) if array.ndim > 1 else array
    if plane.dtype == np.int64:
        plane = plane.astype(np.int32)
    return np.ascontiguousarray(plane).view(f"<u{plane.dtype.itemsize}")


def packed(bits: Array) -> bytes:
    """What `words` gives, compressed (zlib). Of 4 bytes: which aren't 0, a bit each; then these, lowest bytes first.

    Activations are half zeros, and equal exponents side by side compress, mantissas don't.
    """
    if bits.itemsize == 1:
        return zlib.compress(bits.tobytes(), 9)
    flat = bits.reshape(-1)
    kept = flat[flat != 0].astype("<u4")
    return zlib.compress(np.packbits(flat != 0).tobytes() + kept.view(np.uint8).reshape(-1, 4).T.tobytes(), 9)
