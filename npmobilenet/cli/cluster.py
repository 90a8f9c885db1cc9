"""The options and the output of verbs that a Dask cluster can do by parts."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from npmobilenet.cli import BAD_INPUT
from npmobilenet.cli.output import print_assumed, print_facts, print_json, unreadable_lines
from npmobilenet.cli.progress import progress_bar

if TYPE_CHECKING:
    from npmobilenet.measure.many import Done
    from npmobilenet.model import Model

Function = Callable[..., Any]


def cluster_options(then: str = "") -> Callable[[Function], Function]:
    """`--scheduler` and `--workers`; `then` says what is different with them."""

    def both(function: Function) -> Function:
        scheduler = click.option("--scheduler", metavar="ADDRESS", help=f"A Dask cluster does it{then}.")
        workers = click.option("--workers", type=click.IntRange(min=1), metavar="N",
                               help="The same on N processes of this machine, started for it.")  # fmt: skip
        return scheduler(workers(function))

    return both


def wanted(how: dict[str, Any]) -> bool:
    """Whether a cluster was asked for."""
    return how["scheduler"] is not None or how["workers"] is not None


def run_parts(
    function: Callable[..., Done], engine: Model, images: tuple[str, ...], folder: str, how: dict[str, Any],
    **what: Any,
) -> int:  # fmt: skip
    """`function(engine, images, folder, client, **what)` with progress; then what is in the folder. The exit code."""
    from npmobilenet.measure.many.run import cluster

    assumed = print_assumed(engine.info, what["recipe"])
    with cluster(how["scheduler"], how["workers"]) as client, progress_bar() as show:
        done = function(
            engine, images, folder, client, **what,
            on_progress=lambda have, total, bad: show(have, total, f"{bad} unreadable" if bad else ""),
        )  # fmt: skip
    if how["as_json"]:
        print_json({
            "folder": os.fspath(done.folder), "images": done.images, "parts": done.parts, "images_run": done.ran,
            "seconds": round(done.seconds, 3), "assumed": assumed,
            "unreadable": [{"file": name, "error": error} for name, error in done.unreadable.items()],
        })  # fmt: skip
    else:
        print_facts([
            ("written", f"{done.folder} ({done.parts} parts)"),
            ("model", engine.name),
            ("images", f"{done.images}, {done.ran} of them run now"),
            *unreadable_lines(done.unreadable),
        ])  # fmt: skip
    return BAD_INPUT if done.unreadable else 0
