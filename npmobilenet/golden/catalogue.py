"""What a dump holds: entries in graph order, each a tensor, an accumulator or a pre-activation value, and their names.

A catalogue of entries comes from a recorded dump's manifest or from a model's graph; files that others wrote are
matched to it by name (`name_match.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from npmobilenet.graph import Graph, Node, Quantization, Tensor
from npmobilenet.runtime.taps import ACC, ACCUMULATING, PRE, shown_tensor, split_prefix

INPUT = "input"  # what stands in place of an op for the graph's inputs
LONGEST_STEM = 100  # characters of a name kept in a file's name


@dataclass(frozen=True)
class Entry:
    """One array of a dump. `shape` includes the batch; `inputs` names the computed values that its node reads.

    `name` is the tap: a tensor's name, "acc:NAME" or "pre:NAME". `source` is the tensor's index in a TFLite file
    ("#12", "acc:#12"), `aliases` are endpoints that mean the same. `file` is its .npy file within the dump.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    op: str = ""
    quantization: Quantization | None = None
    source: str = ""
    aliases: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    file: str = ""
    sha256: str = ""

    @property
    def prefix(self) -> str:
        """The prefix of its name: "acc:", "pre:" or nothing."""
        return split_prefix(self.name)[0]

    @property
    def tensor(self) -> str:
        """The name of the graph's tensor that this belongs to."""
        return self.name.removeprefix(self.prefix)


def catalogue(graph: Graph, batch: int = 1) -> list[Entry]:
    """An entry for every computed value of a graph, in graph order; accumulators and pre-activations included."""
    aliases: dict[str, list[str]] = {}
    for endpoint, name in graph.endpoints.items():
        aliases.setdefault(name, []).append(endpoint)
    found = [_entry(graph.tensors[n], INPUT, (), aliases.get(n, ()), batch) for n in graph.inputs]
    for node in graph.nodes:
        reads = tuple(n for n in node.inputs if not graph.tensors[n].constant)
        value = _entry(graph.tensors[node.output], node.op, reads, aliases.get(node.output, ()), batch)
        if node.op in ACCUMULATING:
            found += [_marked(graph, node, value, prefix) for prefix in (ACC, PRE)]
        found.append(value)
    return found


def _entry(tensor: Tensor, op: str, reads: tuple[str, ...], aliases: Iterable[str], batch: int) -> Entry:
    others = tuple(a for a in aliases if a not in (tensor.name, tensor.source))
    shape = (batch, *tensor.shape[1:])
    return Entry(tensor.name, shape, tensor.dtype, op, tensor.quantization, tensor.source, others, reads)


def _marked(graph: Graph, node: Node, value: Entry, prefix: str) -> Entry:
    """The accumulators or pre-activation values of a node; in float32 models they are of the output's kind."""
    aliases = tuple(prefix + alias for alias in value.aliases)
    entry = replace(value, name=prefix + value.name, source=value.source and prefix + value.source, aliases=aliases)
    if value.dtype == "float32":
        return entry
    shown = shown_tensor(graph, node, prefix)
    return replace(entry, dtype=shown.dtype, quantization=shown.quantization)


# ---------------------------------------------------------------------------------------------------------------------
# Names as files


def sanitized(name: str) -> str:
    """A name made of letters, digits, ".", "_" and "-" only: anything else becomes "_"."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name)


def stems(entries: Iterable[Entry]) -> dict[str, str]:
    """A file name, without its end, for each entry: its place in the order, the name sanitized, ".acc" or ".pre".

    The number makes them unique and sorts them; names that differ in letter case only don't meet either.
    """
    found: dict[str, str] = {}
    for place, entry in enumerate(entries):
        middle = sanitized(entry.tensor).strip("._-")[-LONGEST_STEM:] or "tensor"
        end = f".{entry.prefix[:-1]}" if entry.prefix else ""
        found[entry.name] = f"{place:04d}-{middle}{end}"
    return found


# ---------------------------------------------------------------------------------------------------------------------
# JSON


def entry_to_json(entry: Entry) -> dict[str, Any]:
    """An entry of the manifest."""
    q = entry.quantization
    return {
        "name": entry.name,
        "file": entry.file,
        "shape": list(entry.shape),
        "dtype": entry.dtype,
        "op": entry.op,
        "quantization": None if q is None else {
            "scale": list(q.scale), "zero_point": list(q.zero_point), "axis": q.axis,
        },
        "source": entry.source,
        "aliases": list(entry.aliases),
        "inputs": list(entry.inputs),
        "sha256": entry.sha256,
    }  # fmt: skip


def entry_from_json(data: Mapping[str, Any]) -> Entry:
    """Inverse of `entry_to_json`. Raises `ValueError`, `KeyError` or `TypeError` on anything else."""
    q = data["quantization"]
    quantization = None
    if q is not None:
        scale = tuple(float(s) for s in _list(q["scale"]))
        zero_point = tuple(_whole(z) for z in _list(q["zero_point"]))
        axis = None if q["axis"] is None else _whole(q["axis"])
        if len(scale) != len(zero_point) or not scale or (axis is None and len(scale) > 1):
            raise ValueError(f"{len(scale)} scales and {len(zero_point)} zero points along axis {axis}")
        quantization = Quantization(scale, zero_point, axis)
    shape = tuple(_whole(d) for d in _list(data["shape"]))
    if min(shape, default=1) < 1:
        raise ValueError(f"shape {shape}")
    lists = (tuple(_text(v) for v in _list(data[key])) for key in ("aliases", "inputs"))
    texts = {key: _text(data[key]) for key in ("name", "dtype", "op", "source", "file", "sha256")}
    aliases, inputs = lists
    return Entry(shape=shape, quantization=quantization, aliases=aliases, inputs=inputs, **texts)


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r:.80} where a list is expected")
    return value


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 2**31:
        raise TypeError(f"{value!r:.80} where a whole number is expected")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.80} where a text is expected")
    return value
