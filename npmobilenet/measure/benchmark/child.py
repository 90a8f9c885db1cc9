"""The measuring process: what it does from its first import to its last run, told as one JSON document.

`subprocess_run.py` starts it. It must import as a user's program would, so nothing heavy is imported before its time
is taken.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from typing import Any

from npmobilenet.errors import NpMobilenetError


def main(import_seconds: float, request: str) -> None:
    """Do what `request` (JSON of `subprocess_run.Options` and more) asks, and print what was found."""
    try:
        document = measure(import_seconds, **json.loads(request))
    except NpMobilenetError as error:
        document = {"error": [type(error).__name__, str(error)]}
    json.dump(document, sys.stdout)


def measure(
    import_seconds: float,
    model: str,
    batch: int,
    threads: int | None,
    runs: int,
    layers: bool,
    overhead: bool,
    random: bool,
) -> dict[str, Any]:
    """Import, load, plan and first run, each once as in any process; then `runs` steady runs (0: none)."""
    start = time.perf_counter()
    if random:
        from npmobilenet.measure.benchmark.random_model import random_model

        data = random_model(model)
    else:
        from npmobilenet.formats.model_path import load_data

        data = load_data(model)
    loaded = time.perf_counter()
    from npmobilenet.kernels.compiler.notices import listening
    from npmobilenet.model import Model

    heard: list[str] = []
    hearing = contextlib.ExitStack()
    hearing.enter_context(listening(heard.append))  # to the end: the peak's kernels are no news either
    engine = Model(data, threads=threads)
    plan = engine.plan(batch)
    planned = time.perf_counter()
    from npmobilenet.measure.benchmark.random_model import random_inputs

    inputs = random_inputs(engine.graph, batch)
    before = time.perf_counter()
    engine.run(inputs)
    first = time.perf_counter() - before
    document: dict[str, Any] = {
        "model": data.info.name,
        "seconds": {"import": import_seconds, "load": loaded - start, "plan": planned - loaded, "first": first},
        "compiled": len(heard),
    }
    if not runs:
        return document
    from npmobilenet.measure.benchmark.machine import describe_machine, peak_memory
    from npmobilenet.measure.benchmark.measure import (
        kernel_name,
        layer_times,
        peak_gops,
        run_times,
        summary,
        used_threads,
    )
    from npmobilenet.runtime.plan import ideal_bytes

    times = run_times(engine, inputs, runs)
    integer = engine.input.dtype != "float32" or any(t.dtype != "float32" for t in engine.graph.constants.values())
    steady, macs, used = summary(times), batch * engine.graph.total_macs, used_threads(engine)
    peak_rss = peak_memory()  # before the peak kernels and the table of layers need theirs
    planned_bytes, ideal = plan.weight_bytes + plan.arena_bytes, ideal_bytes(engine.graph, batch)
    peak, gops = peak_gops(integer, used), 2e-6 * macs / steady["p50"]
    document |= {
        "batch": batch,
        "threads": used,
        "input": {"shape": [batch, *engine.input.shape[1:]], "dtype": engine.input.dtype},
        "machine": describe_machine(),
        "kernels": sorted({kernel_name(step) for step in plan.steps}),
        "runs": runs,
        "steady_ms": steady,
        "images_per_second": round(1e3 * batch / steady["p50"], 2),
        "arithmetic": {
            "integer": integer,
            "macs": macs,
            "gops": round(gops, 2),
            "peak_gops": peak,
            "of_peak": round(gops / peak, 4),
        },
        "memory": {
            "peak_rss": peak_rss,
            "weights": plan.weight_bytes,
            "arena": plan.arena_bytes,
            "planned": planned_bytes,
            "ideal": ideal,
            "planned_to_ideal": round(planned_bytes / ideal, 4),
        },
        "layers": layer_times(engine, inputs, batch, min(runs, 50)) if layers else None,
    }
    if overhead:
        from npmobilenet.measure.benchmark import overhead as parts

        one = random_inputs(engine.graph, 1)
        document["overhead"] = {str(n): parts.overhead(engine, one, n) for n in dict.fromkeys((1, used))}
    return document
