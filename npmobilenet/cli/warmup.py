"""`npmobilenet warmup`: compile now what would else be compiled when it is first used."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from npmobilenet.cli.output import Column, print_json, print_line, print_table

if TYPE_CHECKING:
    from npmobilenet.binding import Step
    from npmobilenet.graph import Graph
    from npmobilenet.plan import Plan

PADDING = ((1, 1), (1, 1))


@click.command()
@click.argument("model", required=False)
@click.option("--kernels", type=click.Choice(["fast", "reference"]), default="fast", show_default=True,
              help="Which set to compile.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def warmup(model: str | None, kernels: str, as_json: bool) -> None:
    """Compile kernels ahead of their first use.

    Those that MODEL needs, or all. They are kept in a private folder of this user, named by `doctor`. Changing the CPU,
    or the version of Python, Numba or npmobilenet, makes them anew.
    """
    from npmobilenet.kernels.jit import cache_folder

    start = time.perf_counter()
    name, plan = _plan(model, kernels)
    timings = _compile(plan)
    seconds = time.perf_counter() - start
    folder = cache_folder()
    if as_json:
        kept = None if folder is None else os.fspath(folder)
        print_json({"model": name, "set": kernels, "kernels": timings, "seconds": round(seconds, 3), "cache": kept})
        return
    rows = [(t["kernel"], f"{t['seconds']:.2f}", "compiled" if t["compiled"] else "was there") for t in timings]
    print_table([Column("kernel"), Column("seconds", right=True), Column("")], rows)
    print_line()
    compiled = sum(t["compiled"] for t in timings)
    place = f"kept in {folder}" if folder else "not kept: npmobilenet doctor says why there is no folder for them"
    print_line(f"{compiled} of {len(timings)} kernels compiled in {seconds:.1f} s; {place}")


def _plan(model: str | None, kernels: str) -> tuple[str | None, Plan]:
    """A plan for a batch of one. For a registered name no weights are needed: zeros compile as well."""
    import numpy as np

    from npmobilenet.build import build_model
    from npmobilenet.errors import ModelNotFound
    from npmobilenet.model import find, load
    from npmobilenet.plan import Plan
    from npmobilenet.zoo.checkpoints import parse

    name = model
    if model is None:
        graph = every_op()
    else:
        try:
            loaded = load(find(model), kernels)
            return loaded.name, loaded.plan()
        except ModelNotFound as error:
            try:
                name = str(parse(model))
            except ModelNotFound:
                raise error from None
            graph = build_model(name)
    return name, Plan(graph, {n: np.zeros(t.shape, t.dtype) for n, t in graph.constants.items()}, kernels)


def every_op() -> Graph:
    """A tiny graph in which every kernel occurs, in every form that the plan gives it."""
    from npmobilenet.graph import GraphBuilder

    b = GraphBuilder("warmup")
    x = b.input("x", (1, 4, 4, 8))
    window: dict[str, Any] = {"stride": (1, 1), "padding": PADDING}
    three = [b.constant("conv", (3, 3, 8, 8)), b.constant("conv_bias", (8,))]
    x = b.node("conv2d", [x, *three], "conv2d", **window)
    one = [b.constant("pointwise", (1, 1, 8, 8)), b.constant("pointwise_bias", (8,))]
    y = b.node("conv2d", [x, *one], "pointwise_conv2d", stride=(1, 1), padding=((0, 0), (0, 0)))
    three = [b.constant("depthwise", (3, 3, 8)), b.constant("depthwise_bias", (8,))]
    y = b.node("depthwise_conv2d", [y, *three], "depthwise_conv2d", **window)
    gate = b.node("mean", [y], "mean", keepdims=True)
    y = b.node("mul", [y, gate], "mul")
    y = b.node("sub", [b.node("add", [x, y], "add"), x], "sub")
    y = b.node("activation", [y], "activation", function="hard_swish")
    y = b.node("concat", [x, y], "concat", axis=3)
    y = b.node("pad", [y], "pad", padding=PADDING)
    y = b.node("resize_bilinear", [y], "resize", size=(4, 4), align_corners=False, half_pixel_centers=True)
    y = b.node("average_pool", [y], "pool", kernel=(4, 4), stride=(1, 1), padding=((0, 0), (0, 0)))
    y = b.node("reshape", [y], "flat", shape=(1, 16))
    y = b.node("fully_connected", [y, b.constant("dense", (16, 8)), b.constant("dense_bias", (8,))], "dense_out")
    return b.finish([b.node("softmax", [y], "softmax", beta=1.0)])


def _compile(plan: Plan) -> list[dict[str, Any]]:
    """Run every kernel of the plan once; for each, how long that took and whether anything had to be compiled."""
    from npmobilenet.kernels import jit

    plan.inputs[0][:] = 0
    steps = {_form(step): step for step in plan.steps}
    timings = []
    heard: list[str] = []
    before = list(jit.LISTENERS)
    jit.LISTENERS[:] = [heard.append]
    try:
        with _progress(len(steps)) as report:
            for (name, *_), step in steps.items():
                report(name, 0)
                heard.clear()
                start = time.perf_counter()
                step.kernel(*step.args)
                seconds = round(time.perf_counter() - start, 3)
                timings.append({"kernel": name, "seconds": seconds, "compiled": bool(heard)})
                report(name, 1)
    finally:
        jit.LISTENERS[:] = before
    return timings


def _form(step: Step) -> tuple[str, ...]:
    """A kernel's name and the kinds of its arguments: Numba compiles it once for each."""
    import numpy as np

    kinds = [
        f"{a.dtype} {a.ndim} {a.flags.c_contiguous} {a.flags.writeable}" if isinstance(a, np.ndarray) else str(type(a))
        for a in step.args
    ]
    return (getattr(step.kernel, "__name__", str(step.kernel)), *kinds)


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
