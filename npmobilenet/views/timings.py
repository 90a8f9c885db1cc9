"""How long families of networks take on this machine, by width and by resolution, with random weights."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from npmobilenet.measure.benchmark.random_model import random_input, random_inputs, random_model
from npmobilenet.model import Model
from npmobilenet.modeldata import Array
from npmobilenet.quantize import calibrate, quantize

FLOATS = ("v2", "v3_large", "v3_small", "v3_large_minimalistic", "v3_small_minimalistic")
EIGHT_BIT = ("edgetpu", "v2", "v3_large_minimalistic", "v3_small_minimalistic")
WIDTHS = (0.35, 0.5, 0.75, 1.0, 1.4)
RESOLUTIONS = (96, 128, 160, 192, 224)

Listener = Callable[[int, int, str], None]  # what is done, of how many, and with what


class Timed(NamedTuple):
    """A network and the milliseconds that one image takes."""

    family: str
    width: float
    resolution: int
    ms: float


class Turns(NamedTuple):
    """How long is measured: `rounds` times, all models after each other run for `seconds` each."""

    seconds: float
    rounds: int
    threads: int


def sizes(widths: Sequence[float], resolutions: Sequence[int]) -> list[tuple[float, int]]:
    """All widths at the largest resolution, all resolutions at width 1, or the largest where that isn't among them."""
    along = 1.0 if 1.0 in widths else max(widths)
    found = [(width, max(resolutions)) for width in widths] + [(along, side) for side in resolutions]
    return sorted(dict.fromkeys(found))


def measure(
    families: Sequence[str], chosen: Sequence[tuple[float, int]], eight_bit: bool, turns: Turns, show: Listener
) -> list[Timed]:
    """The median over rounds of each network's median in a round. `eight_bit`: int8, a scale for each channel.

    A turn of half a second lets caches, clock and threads settle; rounds keep what else the machine does from falling
    on one network alone. Raises `ModelNotFound` for a width or resolution that a name can't have.
    """
    keys = [(family, *size) for family in families for size in chosen]
    names = [f"mobilenet_{family}_{width}_{resolution}" for family, width, resolution in keys]
    runs: list[Callable[[], object]] = []
    found: list[list[float]] = [[] for _ in keys]
    for i, name in enumerate(names):
        show(i, len(names) * (turns.rounds + 1), name)
        runs.append(_run_of(name, eight_bit, turns.threads))
    for i in range(len(names) * turns.rounds):
        at = i % len(names)
        show(len(names) + i, len(names) * (turns.rounds + 1), names[at])
        found[at].append(statistics.median(_turn(runs[at], turns.seconds)))
    return [Timed(*key, 1e3 * statistics.median(times)) for key, times in zip(keys, found, strict=True)]


def _run_of(name: str, eight_bit: bool, threads: int) -> Callable[[], object]:
    """A run of the network on one image, its kernels compiled."""
    data = random_model(name)
    if eight_bit:
        image: Array = random_input((1, *data.graph.tensors[data.graph.inputs[0]].shape[1:]), "float32")
        data = quantize(data, calibrate(data, [image], threads=threads).ranges)
    engine = Model(data, threads=threads)
    inputs = random_inputs(engine.graph, 1)
    engine.run(inputs)
    return lambda: engine.run(inputs)


def _turn(run: Callable[[], object], seconds: float) -> Iterator[float]:
    """Seconds of each run of a turn but the first, which finds the caches as another network left them."""
    run()
    until = time.perf_counter() + seconds
    while True:
        start = time.perf_counter()
        run()
        done = time.perf_counter()
        yield done - start
        if done > until:
            return
