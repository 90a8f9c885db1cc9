"""What is measured in a process: a model's runs, its layers, the machine's peak."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from npmobilenet.graph import Graph, Node
from npmobilenet.kernels import as_functions
from npmobilenet.model import Model
from npmobilenet.modeldata import Array
from npmobilenet.runtime.binding import Step
from npmobilenet.runtime.exclusive import exclusive

WARM_RUNS = 3  # before measuring: caches, branch predictors and the CPU's clock settle,
WARM_TIME = 0.3  # and in so many seconds programs find out on how many threads they are fastest (compiler/trial.py)
PEAK_CALL = 0.004  # seconds of one call of the peak kernel
PEAK_CALLS = 12
JOINED = " + "  # between the names of nodes that one step computes


def summary(seconds: Sequence[float]) -> dict[str, float]:
    """Milliseconds: least, mean and percentiles, between neighbours by linear interpolation."""
    ms = np.array(seconds) * 1e3
    p50, p90, p99 = np.percentile(ms, [50, 90, 99])
    found = {"min": ms.min(), "mean": ms.mean(), "p50": p50, "p90": p90, "p99": p99, "max": ms.max()}
    return {name: round(float(value), 4) for name, value in found.items()}


def run_times(model: Model, inputs: Mapping[str, Array], runs: int) -> list[float]:
    """Seconds of each of `runs` runs, after WARM_RUNS, and those within WARM_TIME, that don't count."""
    warm: list[float] = []
    while len(warm) < WARM_RUNS or sum(warm) < WARM_TIME:
        warm.append(_timed(model.run, inputs))
    return [_timed(model.run, inputs) for _ in range(runs)]


def _timed(run: Callable[[Mapping[str, Array]], object], inputs: Mapping[str, Array]) -> float:
    start = time.perf_counter()
    run(inputs)
    return time.perf_counter() - start


def step_times(model: Model, inputs: Mapping[str, Array], batch: int, runs: int) -> Array:
    """Seconds (runs, steps) of each kernel call, in runs of the whole plan."""
    plan = model.plan(batch)
    for name, target in zip(model.graph.inputs, plan.inputs, strict=True):
        np.copyto(target, inputs[name])
    times = np.zeros((WARM_RUNS + runs, len(plan.steps)))
    functions = [as_functions([step])[0] for step in plan.steps]
    with exclusive(model.threads, model.kernels) as threads:
        for row in times:
            for i, function in enumerate(functions):
                start = time.perf_counter()
                function(threads)
                row[i] = time.perf_counter() - start
    return times[WARM_RUNS:]


def nodes_of(graph: Graph, step: Step) -> list[Node]:
    """The nodes that a step computes; those that planning has made up have no entry in the graph."""
    by_name = {node.name: node for node in graph.nodes}
    return [by_name[name] for name in step.node.split(JOINED) if name in by_name]


def is_integer(graph: Graph, node: Node) -> bool:
    """Whether a node works on 8-bit values."""
    return graph.tensors[node.inputs[0]].dtype != "float32"


def layer_times(model: Model, inputs: Mapping[str, Array], batch: int, runs: int) -> list[dict[str, Any]]:
    """For each kernel call: node, kernel, shape, median ms, share of all; and for those that multiply: MACs, operations
    (two for each MAC) per second in 10^9, and their share of the machine's peak at the model's number of threads.
    """
    times = np.median(step_times(model, inputs, batch, runs), axis=0)
    threads = used_threads(model)
    layers = []
    for step, seconds in zip(model.plan(batch).steps, times, strict=True):
        nodes = nodes_of(model.graph, step)
        macs = batch * sum(model.graph.macs(node) for node in nodes)
        gops = 2e-9 * macs / float(seconds) if macs and seconds else None
        integer = any(is_integer(model.graph, node) for node in nodes)
        layers.append(
            {
                "node": step.node,
                "kernel": kernel_name(step),
                "output_shape": list(model.graph.tensors[nodes[-1].output].shape[1:]) if nodes else None,
                "integer": integer,
                "macs": macs,
                "ms": round(float(seconds) * 1e3, 5),
                "share": round(float(seconds / times.sum()), 5),
                "gops": None if gops is None else round(gops, 2),
                "of_peak": None if gops is None else round(gops / peak_gops(integer, threads), 4),
            }
        )
    return layers


def kernel_name(step: Step) -> str:
    """The name of a step's kernel."""
    return str(getattr(step.kernel, "__name__", step.kernel))


def used_threads(model: Model) -> int:
    """The threads that a model's runs get."""
    import numba

    most = int(numba.config.NUMBA_NUM_THREADS)
    return most if model.threads is None else min(model.threads, most)


@cache
def peak_gops(integer: bool, threads: int) -> float:
    """10^9 operations (multiplies and adds) per second that register tiles reach on L1-resident data: the best of
    PEAK_CALLS calls of kernels/vectorcode/peak.py. Measured once in a process for each kind.
    """
    from npmobilenet.kernels.vectorcode import peak

    kernel, operations = (peak.peak_q, peak.INTEGER_OPS) if integer else (peak.peak_f32, peak.FLOAT_OPS)
    x, w, out = peak.operands(integer, threads)

    def seconds(passes: int) -> float:
        function = as_functions([Step(kernel, (x, w, passes, out), "peak")])[0]
        start = time.perf_counter()
        function(threads)
        return time.perf_counter() - start

    with exclusive(threads, "fast"):
        seconds(1)  # compiles, or loads from the cache
        passes = 1000
        while (took := seconds(passes)) < PEAK_CALL:
            passes = int(passes * min(8.0, max(1.5, 1.2 * PEAK_CALL / max(took, 1e-6))))
        best = min(seconds(passes) for _ in range(PEAK_CALLS))
    return round(1e-9 * operations * passes * threads / best, 2)
