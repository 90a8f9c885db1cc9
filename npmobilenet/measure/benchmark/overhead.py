"""What a run costs beyond its kernels, taken apart by leaving things out and subtracting.

The same program runs with its own calls, with calls that do nothing, and with none; `Model.run` runs without it. They
take turns in a circle, so that what slows the machine for a while slows all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np

from npmobilenet.kernels.compiler.task import task
from npmobilenet.kernels.compiler.work_sharing import Program, Work
from npmobilenet.model import Model
from npmobilenet.modeldata import Array
from npmobilenet.runtime.exclusive import exclusive

TURN = 0.01  # seconds
ROUNDS = 15
SKIPPED = 4  # a part of a turn, its first quarter, isn't counted: threads that slept wake up
# The parts of a run in their order, and what they are called.
PARTS = {
    "entry": "Python: checks of the input, lock",
    "copies": "copies in and out",
    "start": "start of the program, waking threads",
    "dispatch": "dispatch of the steps",
    "waits": "taking pieces, waits at ends of steps",
    "kernels": "kernels",
}


@task(lambda: Work(1, 1))
def nothing(first, stop):  # type: ignore[no-untyped-def]
    """A call of no work."""


def overhead(model: Model, inputs: Mapping[str, Array], threads: int) -> dict[str, float]:
    """Microseconds of each of PARTS of a run of one image on that many threads, whichever is faster for this model.

    On one thread there are no waits. On several, "kernels" is what is left: it holds what threads lose by sharing
    caches, and where pieces don't come out even.
    """
    single = Model(model.data, threads=1, dialect=model.dialect)
    plan = single.plan(1)
    calls = [call for function in plan.functions for call in getattr(function, "__self__").calls]  # noqa: B009
    vars(plan)["functions"] = ()  # `single` runs without its program from here on
    idle = [call._replace(address=nothing.bind().address) for call in calls]
    pairs = [(target, inputs[name]) for target, name in zip(plan.inputs, single.graph.inputs, strict=True)]
    out = np.empty_like(plan.outputs[0])

    def copies() -> None:
        for target, source in (*pairs, (out, plan.outputs[0])):
            np.copyto(target, source)

    def lock(count: int) -> None:
        with exclusive(count, "fast"):
            pass

    with exclusive(threads, "fast") as most:  # a model may have fewer than were asked for
        pass
    inside: dict[str, Callable[[], object]] = {"copies": copies}
    inside |= {
        f"{name} {count}": Program(some).way(count)
        for name, some in (("none", []), ("idle", idle), ("all", calls))
        for count in (1, most)
    }
    outside: dict[str, Callable[[], object]] = {
        "run": lambda: single.run(inputs, out=out),
        "lock 1": lambda: lock(1),
        f"lock {most}": lambda: lock(most),
    }
    us: dict[str, list[float]] = {name: [] for name in (*inside, *outside)}
    for _ in range(ROUNDS):
        with exclusive(threads, "fast"):
            for name, function in inside.items():
                us[name].append(_turn(function))
        for name, function in outside.items():
            us[name].append(_turn(function))
    took = {name: float(np.median(times)) for name, times in us.items()}
    dispatch = took["idle 1"] - took["none 1"]
    found = {
        "entry": took["run"] - took["copies"] + took[f"lock {most}"] - took["lock 1"],
        "copies": took["copies"],
        "start": took[f"none {most}"],
        "dispatch": dispatch,
        "waits": took[f"idle {most}"] - took[f"none {most}"] - dispatch,
        "kernels": took[f"all {most}"] - took[f"idle {most}"],
    }
    return {part: round(max(value, 0.0), 2) for part, value in found.items()}


def _turn(function: Callable[[], object]) -> float:
    """The median of a turn's runs in microseconds."""
    times: list[float] = []
    end = time.perf_counter() + TURN
    while not times or time.perf_counter() < end:
        start = time.perf_counter_ns()
        function()
        times.append(time.perf_counter_ns() - start)
    return 1e-3 * float(np.median(times[len(times) // SKIPPED :]))
