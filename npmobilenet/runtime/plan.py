"""The plan: a graph bound to its weights, a kernel set, a batch size and memory. All that can fail fails here.

Planning checks every weight against the graph, picks a kernel for each node, packs weights, and lays all intermediate
values out in one block of memory, in which values that are never alive together share space. What is left for the
engine is a list of kernel calls on fixed arrays.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from npmobilenet.arithmetic.dialects import dialect as dialect_named
from npmobilenet.errors import PlanError
from npmobilenet.graph import Graph
from npmobilenet.kernels import as_functions, kernel_set
from npmobilenet.modeldata import Array
from npmobilenet.runtime.binding import NodeContext, Step, bind, bind_group, check_supported
from npmobilenet.runtime.fusion import Group, fused
from npmobilenet.runtime.memory import ALIGNMENT, Lifetime, arena_offsets
from npmobilenet.runtime.taps import with_taps

MEMORY_LIMIT = 1 << 30  # bytes; MobileNets need some 10 MB an image, and a file of a few bytes may declare anything


class Plan:
    """Steps ready to run for one batch size. Not safe to run from two threads at once: they would share its memory.

    `inputs`, `outputs` and `taps` are views into the plan's memory, (batch, ...), overwritten by each run.
    `weight_bytes` and `arena_bytes` say how much memory the plan holds, `placed` where and when each value lies in it.
    `fusions` are names of fusion.PASSES. `packed` keeps packed weights for other plans of the same tensors.
    `memory_limit` is the most that `arena_bytes` may be.

    Raises `PlanError`: weights missing, left over or misshapen, a dtype without kernels, an unknown tap, more
    intermediate values than `memory_limit` allows or the machine has memory for.
    """

    def __init__(
        self,
        graph: Graph,
        tensors: Mapping[str, Array],
        kernels: str = "fast",
        batch: int = 1,
        taps: Iterable[str] = (),
        dialect: str = "tflite-reference",
        fusions: Iterable[str] | None = None,
        packed: dict[Any, Any] | None = None,
        memory_limit: int = MEMORY_LIMIT,
    ) -> None:
        check_tensors(graph, tensors)
        check_supported(graph)
        if batch < 1:
            raise PlanError(f"batch={batch}: expected at least 1")
        if isinstance(memory_limit, bool) or not isinstance(memory_limit, int) or memory_limit < 1:
            raise PlanError(f"memory_limit={memory_limit!r}: expected a whole number of bytes, at least 1")
        self.batch = batch
        rules = dialect_named(dialect)
        tapped = with_taps(graph, taps)
        graph, kept, stages = tapped.graph, tapped.kept, tapped.stages
        chosen = kernel_set(kernels) if packed is None else kernel_set(kernels).keeping(packed)
        groups = fused(graph, kept.values(), fusions if kernels == "fast" else ())
        arrays: dict[str, Array] = {}

        def bound(group: Group) -> list[Step]:
            if len(group) > 1:
                return [bind_group(group, arrays, chosen)]
            node = group[0]
            return bind(
                NodeContext(
                    node,
                    [graph.tensors[n] for n in node.inputs],
                    [arrays[n] for n in node.inputs],
                    graph.tensors[node.output],
                    arrays[node.output],
                    chosen,
                    rules,
                    stages.get(node.output, "output"),
                )
            )

        try:
            arrays |= self._allocate(graph, groups, tensors, kept, memory_limit)
            self.steps: tuple[Step, ...] = tuple(step for group in groups for step in bound(group))
        except MemoryError as error:
            raise PlanError(
                f"'{graph.name}' needs {self.arena_bytes:,} bytes for intermediate values of {self.batch} images, and "
                "this machine has no memory for a plan: use a smaller input size or batch, or end other programs"
            ) from error
        self.inputs = [arrays[n] for n in graph.inputs]
        self.outputs = [arrays[n] for n in graph.outputs]
        self.taps = {tap: arrays[name] for tap, name in kept.items()}
        self.weight_bytes = sum(array.nbytes for array in self._held())

    @functools.cached_property
    def functions(self) -> tuple[Callable[[int], None], ...]:
        """All steps as functions of the number of threads, to be called in turn. Compiled when first asked for."""
        return as_functions(self.steps)

    def _held(self) -> list[Array]:
        """The weights and other parameters that the steps read: their arrays that aren't views into the block."""
        found: dict[int, Array] = {}
        for step in self.steps:
            for arg in step.args:
                for array in arg if isinstance(arg, tuple) else (arg,):
                    if isinstance(array, np.ndarray) and not np.may_share_memory(array, self._block):
                        found[array.ctypes.data] = array
        return list(found.values())

    def __repr__(self) -> str:
        return f"<Plan: batch {self.batch}, {self.arena_bytes:,} bytes of values, {self.weight_bytes:,} of weights>"

    def _allocate(
        self, graph: Graph, groups: Sequence[Group], tensors: Mapping[str, Array], kept: Mapping[str, str], limit: int
    ) -> dict[str, Array]:
        """An array for every tensor outside the groups: weights as they are, the rest as views into one block."""
        last = {name: i for i, group in enumerate(groups) for node in group for name in node.inputs}
        last.update(dict.fromkeys([*graph.outputs, *kept.values()], len(groups)))
        first = {group[-1].output: i for i, group in enumerate(groups)} | dict.fromkeys(graph.inputs, -1)
        lifetimes = {
            name: Lifetime(at, last.get(name, at), self.batch * graph.tensors[name].nbytes)
            for name, at in first.items()
        }
        offsets: dict[str, int] = {}
        self.arena_bytes = max(value.size for value in lifetimes.values())  # of one value: no plan can need less
        if self.arena_bytes < 1 << 48:  # 10,000 of which fit into int64
            offsets, self.arena_bytes = arena_offsets(lifetimes)
        if self.arena_bytes > limit:
            raise PlanError(
                f"'{graph.name}' needs {self.arena_bytes:,} bytes for intermediate values of {self.batch} images, more "
                f"than {limit:,}: use a smaller input size or batch, or, for a file that you trust, load it with "
                f"memory_limit={self.arena_bytes} or more"
            )
        self._block = block = np.empty(self.arena_bytes + ALIGNMENT, np.uint8)
        start = -block.ctypes.data % ALIGNMENT
        arrays: dict[str, Array] = {
            name: np.require(tensors[name], requirements=["C", "W"]) for name in graph.constants
        }
        for name, offset in offsets.items():
            shape = (self.batch, *graph.tensors[name].shape[1:])
            at = start + offset
            arrays[name] = block[at : at + lifetimes[name].size].view(graph.tensors[name].dtype).reshape(shape)
        self.placed = {name: (offset, lifetimes[name]) for name, offset in offsets.items()}
        return arrays


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


def ideal_bytes(graph: Graph, batch: int = 1) -> int:
    """Weights, plus the most that any single node's inputs and output take: no plan can hold less."""
    weights = sum(t.nbytes for t in graph.constants.values())
    peak = max(
        batch * sum(graph.tensors[n].nbytes for n in {*node.inputs, node.output} if not graph.tensors[n].constant)
        for node in graph.nodes
    )
    return weights + peak


__all__ = ["Plan", "check_tensors", "ideal_bytes"]
