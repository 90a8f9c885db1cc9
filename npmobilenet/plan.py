"""The plan: a graph bound to its weights, a kernel set, a batch size and memory. All that can fail fails here.

Planning checks every weight against the graph, picks a kernel for each node, packs weights, and lays all intermediate
values out in one block of memory, in which values that are never alive together share space. What is left for the
engine is a list of kernel calls on fixed arrays.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

import numpy as np

from npmobilenet.binding import BINDERS, Step
from npmobilenet.errors import PlanError
from npmobilenet.graph import Graph, Node
from npmobilenet.kernels import kernel_set
from npmobilenet.memory import ALIGNMENT, Lifetime, arena_offsets
from npmobilenet.modeldata import Array

MAX_ARENA_BYTES = 4 << 30  # MobileNets need some 10 MB an image; a file may declare anything
ACC = "acc:"  # prefix of taps on a node's accumulators: its result before the activation
ACCUMULATING = ("conv2d", "depthwise_conv2d", "fully_connected")


class Plan:
    """Steps ready to run for one batch size. Not safe to run from two threads at once: they would share its memory.

    `inputs`, `outputs` and `taps` are views into the plan's memory, (batch, ...), overwritten by each run.
    `weight_bytes` and `arena_bytes` say how much memory the plan holds.

    Raises `PlanError`: weights missing, left over or misshapen, a dtype without kernels, an unknown tap.
    """

    def __init__(
        self,
        graph: Graph,
        tensors: Mapping[str, Array],
        kernels: str = "fast",
        batch: int = 1,
        taps: Iterable[str] = (),
    ) -> None:
        check_tensors(graph, tensors)
        check_dtypes(graph)
        if batch < 1:
            raise PlanError(f"batch={batch}: expected at least 1")
        self.batch = batch
        graph, kept = _with_taps(graph, list(taps))
        chosen = kernel_set(kernels)
        arrays = self._allocate(graph, tensors, kept)
        self.steps: tuple[Step, ...] = tuple(
            step
            for node in graph.nodes
            for step in BINDERS[node.op](node, [arrays[n] for n in node.inputs], arrays[node.output], chosen)
        )
        self.inputs = [arrays[n] for n in graph.inputs]
        self.outputs = [arrays[n] for n in graph.outputs]
        self.taps = {tap: arrays[name] for tap, name in kept.items()}
        held = {id(a): a.nbytes for step in self.steps for a in step.args if isinstance(a, np.ndarray) and _owns(a)}
        self.weight_bytes = sum(held.values())

    def _allocate(self, graph: Graph, tensors: Mapping[str, Array], kept: Mapping[str, str]) -> dict[str, Array]:
        """An array for every tensor: weights as they are, the rest as views into one block."""
        last = {name: i for i, node in enumerate(graph.nodes) for name in node.inputs}
        end = len(graph.nodes)
        last.update(dict.fromkeys([*graph.outputs, *kept.values()], end))
        first = {node.output: i for i, node in enumerate(graph.nodes)} | dict.fromkeys(graph.inputs, -1)
        lifetimes = {
            name: Lifetime(at, last.get(name, at), 4 * self.batch * graph.tensors[name].size)
            for name, at in first.items()
        }
        offsets, self.arena_bytes = arena_offsets(lifetimes)
        if self.arena_bytes > MAX_ARENA_BYTES:
            raise PlanError(
                f"'{graph.name}' needs {self.arena_bytes:,} bytes for intermediate values of {self.batch} images, more "
                f"than {MAX_ARENA_BYTES:,}: use a smaller input size or batch"
            )
        block = np.empty(self.arena_bytes + ALIGNMENT, np.uint8)
        start = -block.ctypes.data % ALIGNMENT
        arrays: dict[str, Array] = {
            name: np.require(tensors[name], requirements=["C", "W"]) for name in graph.constants
        }
        for name, offset in offsets.items():
            shape = (self.batch, *graph.tensors[name].shape[1:])
            at = start + offset
            arrays[name] = block[at : at + lifetimes[name].size].view(np.float32).reshape(shape)
        return arrays


def _owns(array: Array) -> bool:
    """Whether an array (or what it is a view of) is a weight rather than a piece of the byte block."""
    base = array
    while isinstance(base.base, np.ndarray):
        base = base.base
    return base.dtype != np.uint8


def check_tensors(graph: Graph, tensors: Mapping[str, Array]) -> None:
    """One `PlanError` that lists all weights that are missing, left over, or of another shape or dtype."""
    wanted = graph.constants
    problems = [f"missing: {n} {wanted[n].shape}" for n in wanted if n not in tensors]
    problems += [f"left over: {n} {tensors[n].shape}" for n in tensors if n not in wanted]
    for name, tensor in wanted.items():
        if name in tensors and (tensors[name].shape, str(tensors[name].dtype)) != (tensor.shape, tensor.dtype):
            got = tensors[name]
            problems.append(f"{name}: expected {tensor.dtype} {tensor.shape}, got {got.dtype} {got.shape}")
    if problems:
        shown = "; ".join(problems[:20]) + (f"; and {len(problems) - 20} more" if len(problems) > 20 else "")
        raise PlanError(f"the weights don't fit the graph '{graph.name}': {shown}")


def check_dtypes(graph: Graph) -> None:
    """Refuse what there are no kernels for."""
    for node in graph.nodes:
        for name in (*node.inputs, node.output):
            dtype = graph.tensors[name].dtype
            if dtype != "float32" or node.op not in BINDERS:
                raise PlanError(
                    f"node '{node.name}' ({node.op}) works on {dtype} ('{name}'): this version runs float32 only. "
                    "Quantized models can be converted and inspected with `npmobilenet info`, not run"
                )


def _with_taps(graph: Graph, taps: list[str]) -> tuple[Graph, dict[str, str]]:
    """The graph with accumulators made visible where a tap asks for them, and the tensor that each tap reads."""
    kept: dict[str, str] = {}
    split: dict[str, str] = {}  # node's output -> its accumulator tensor
    producers = {node.output: node for node in graph.nodes}
    for tap in taps:
        target = tap.removeprefix(ACC)
        name = graph.endpoints.get(target, target)
        if name not in graph.tensors or graph.tensors[name].constant:
            raise PlanError(f"no endpoint or tensor of '{graph.name}' is called '{target}'")
        if tap == target:
            kept[tap] = name
            continue
        node = producers.get(name)
        if node is None or node.op not in ACCUMULATING:
            what = f"computed by {node.op}" if node else "an input"
            raise PlanError(f"'{tap}': '{name}' is {what}; only {', '.join(ACCUMULATING)} have accumulators")
        if node.attrs.get("activation", "none") == "none":
            kept[tap] = name
        else:
            kept[tap] = split[name] = ACC + name
    if not split:
        return graph, kept
    nodes: list[Node] = []
    tensors = dict(graph.tensors)
    for node in graph.nodes:
        if node.output in split:
            acc = split[node.output]
            tensors[acc] = dataclasses.replace(tensors[node.output], name=acc)
            nodes.append(dataclasses.replace(node, output=acc, attrs={**node.attrs, "activation": "none"}))
            function = {"function": node.attrs["activation"]}
            nodes.append(Node(f"{acc}/activation", "activation", (acc,), node.output, function))
        else:
            nodes.append(node)
    return dataclasses.replace(graph, nodes=tuple(nodes), tensors=tensors), kept


def ideal_bytes(graph: Graph, batch: int = 1) -> int:
    """Weights, plus the most that any single node's inputs and output take: no plan can hold less."""
    weights = sum(4 * t.size for t in graph.constants.values())
    peak = max(
        4 * batch * sum(graph.tensors[n].size for n in {*node.inputs, node.output} if not graph.tensors[n].constant)
        for node in graph.nodes
    )
    return weights + peak


__all__ = ["ACC", "Plan", "check_dtypes", "check_tensors", "ideal_bytes"]
