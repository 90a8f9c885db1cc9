"""`npmobilenet warmup`: compile now what would else be compiled when it is first used."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from npmobilenet.cli.options import json_option, kernels_option
from npmobilenet.cli.output import Column, print_json, print_line, print_table

if TYPE_CHECKING:
    from npmobilenet.graph import Graph
    from npmobilenet.runtime.binding import Step
    from npmobilenet.runtime.plan import Plan

DTYPES = ("float32", "uint8", "int8")
# Bilinear resize has a kernel in fixed point and one in floats, softmax these and one more: each occurs under one.
DIALECTS = ("tflite-reference", "xnnpack", "tflite-optimized-arm64")


@click.command()
@click.argument("model", required=False)
@kernels_option("Which set to compile.")
@click.option("--dtype", "dtypes", type=click.Choice(DTYPES), multiple=True,
              help="Without MODEL: kernels for these values only; may be repeated. Default: all three.")  # fmt: skip
@json_option()
def warmup(model: str | None, kernels: str, dtypes: tuple[str, ...], as_json: bool) -> None:
    """Compile kernels ahead of their first use.

    Those that MODEL needs, which takes ten to twenty seconds, or all: for float32 and for uint8 and int8 models,
    which takes about a minute. They are kept in a private folder of this user, named by `doctor`. Changing the CPU, or
    the version of Python, Numba or npmobilenet, makes them anew.
    """
    from npmobilenet.kernels.compiler.cache import cache_folder

    if model is not None and dtypes:
        raise click.UsageError("--dtype is for a warmup without MODEL: a model has its own")
    start = time.perf_counter()
    name, plans = _plans(model, kernels, dtypes or DTYPES)
    timings = _compile(plans)
    seconds = time.perf_counter() - start
    folder = cache_folder()
    if as_json:
        kept = None if folder is None else os.fspath(folder)
        print_json({"model": name, "set": kernels, "kernels": timings, "seconds": round(seconds, 3), "cache": kept})
        return
    rows = [
        (t["kernel"], t["dtype"], f"{t['seconds']:.2f}", "compiled" if t["compiled"] else "was there") for t in timings
    ]
    print_table([Column("kernel"), Column("of"), Column("seconds", right=True), Column("")], rows)
    print_line()
    compiled = sum(t["compiled"] for t in timings)
    place = f"kept in {folder}" if folder else "not kept: npmobilenet doctor says why there is no folder for them"
    print_line(f"{compiled} of {len(timings)} kernels compiled in {seconds:.1f} s; {place}")


def _plans(model: str | None, kernels: str, dtypes: Sequence[str]) -> tuple[str | None, list[Plan]]:
    """Plans for a batch of one. For a registered name no weights are needed: zeros compile as well."""
    from npmobilenet.errors import ModelNotFound
    from npmobilenet.formats.model_path import find
    from npmobilenet.model import load
    from npmobilenet.zoo.build import build_model
    from npmobilenet.zoo.checkpoints import parse

    if model is None:
        return None, every_plan(kernels, dtypes)
    try:
        loaded = load(find(model), kernels)
        return loaded.name, [loaded.plan()]
    except ModelNotFound as error:
        try:
            name = parse(model)
        except ModelNotFound:
            raise error from None
        if name.dtype in DTYPES[1:]:  # the zoo's graphs are float32; a quantized file may hold any op
            return str(name), every_plan(kernels, (name.dtype,))
        return str(name), [_planned(build_model(str(name)), kernels)]


def every_plan(kernels: str, dtypes: Sequence[str] = DTYPES) -> list[Plan]:
    """Plans in which every kernel for values of these dtypes occurs, in every form that plans give it."""
    from npmobilenet.runtime.examples import examples

    plans = []
    for dtype in dtypes:
        dialects = DIALECTS[:1] if dtype == "float32" else DIALECTS
        plans += [_planned(graph, kernels, dialect) for graph in examples(dtype) for dialect in dialects]
    if "float32" in dtypes and kernels == "fast":
        plans.append(_planned(every_block(), kernels))
    return plans


def _planned(graph: Graph, kernels: str, dialect: str = "tflite-reference") -> Plan:
    import numpy as np

    from npmobilenet.runtime.plan import Plan

    zeros = {n: np.zeros(t.shape, t.dtype) for n, t in graph.constants.items()}
    return Plan(graph, zeros, kernels, dialect=dialect)


def every_block() -> Graph:
    """A graph of what fusion makes one step of: bands, a residual addition, squeeze-and-excite; for every window."""
    from npmobilenet.graph import GraphBuilder

    b = GraphBuilder("warmup_blocks")

    def layer(op: str, x: str, shape: tuple[int, ...], output: str, **attrs: Any) -> str:
        weights, bias = b.constant(f"{output}_weights", shape), b.constant(f"{output}_bias", shape[-1:])
        return b.node(op, [x, weights, bias], output, **attrs)

    plain: dict[str, Any] = {"stride": (1, 1), "padding": ((0, 0), (0, 0))}
    x = b.input("x", (1, 112, 112, 8))  # large enough for bands
    small = layer("conv2d", x, (1, 1, 8, 24), "small", stride=(28, 28), padding=((0, 0), (0, 0)))
    for taps in (3, 5):
        window: dict[str, Any] = {"stride": (1, 1), "padding": ((taps // 2, taps // 2),) * 2}
        small = layer("depthwise_conv2d", small, (taps, taps, 24), f"small_{taps}", **window)
        y = layer("conv2d", x, (1, 1, 8, 24), f"expanded_{taps}", **plain)
        y = layer("depthwise_conv2d", y, (taps, taps, 24), f"filtered_{taps}", **window)
        x = b.node("add", [x, layer("conv2d", y, (1, 1, 24, 8), f"projected_{taps}", **plain)], f"sum_{taps}")
    x = b.node("add", [x, layer("conv2d", x, (1, 1, 8, 8), "mixed", **plain)], "second")
    y = layer("conv2d", b.node("mean", [x], "mean", keepdims=True), (1, 1, 8, 8), "squeezed", **plain)
    y = layer("conv2d", y, (1, 1, 8, 8), "excited", **plain)
    return b.finish([b.node("mul", [x, y], "gated"), small])


def _compile(plans: Iterable[Plan]) -> list[dict[str, Any]]:
    """Run every kernel of the plans once; for each, how long that took and whether anything had to be compiled."""
    from npmobilenet.kernels import as_functions
    from npmobilenet.kernels.compiler.notices import listening
    from npmobilenet.kernels.compiler.work_sharing import compile_loops
    from npmobilenet.runtime.exclusive import exclusive

    steps: dict[Any, Step] = {}
    for plan in plans:
        for array in plan.inputs:
            array[:] = 0
        steps.update({_form(step): step for step in plan.steps if _form(step) not in steps})
    timings = []
    heard: list[str] = []
    with listening(heard.append), _progress(len(steps)) as report:
        for step in steps.values():
            name, dtype = _name(step.kernel), step.args[0].dtype.name
            report(f"{name} {dtype}", 0)
            heard.clear()
            start = time.perf_counter()
            for function in as_functions([step]):
                function(1)
            seconds = round(time.perf_counter() - start, 3)
            timings.append({"kernel": name, "dtype": dtype, "seconds": seconds, "compiled": bool(heard)})
            report(f"{name} {dtype}", 1)
        if hasattr(step.kernel, "bind"):
            with exclusive(None, "fast") as threads:
                compile_loops(threads)
    return timings


def _name(kernel: Callable[..., None]) -> str:
    return getattr(kernel, "__name__", str(kernel))


def _form(step: Step) -> tuple[Any, ...]:
    """A kernel's name, that of a family's member, and the kinds of its arguments: Numba compiles it once for each."""
    member = getattr(step.kernel, "member", None)
    return (_name(member(*step.args) if member else step.kernel), *map(_kind, step.args))


def _kind(argument: Any) -> Any:
    import numpy as np

    if isinstance(argument, np.ndarray):
        flags = argument.flags
        return str(argument.dtype), argument.ndim, flags.c_contiguous, flags.writeable
    if isinstance(argument, tuple):
        return (type(argument), *map(_kind, argument))
    return type(argument)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[str, int], None]]:
    """A progress bar on standard error; where that isn't a terminal, one line."""
    if not sys.stderr.isatty():
        click.echo(f"npmobilenet: preparing {total} kernels for this machine ...", err=True)
        yield lambda name, done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:26}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("kernels", total=total)
        yield lambda name, done: bar.update(task, description=name, advance=done)
