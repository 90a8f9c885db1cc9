"""`npmobilenet golden record`: what a model computes, written down."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from npmobilenet.cli.options import dialect_option, json_option, kernels_option, threads_option, until_option
from npmobilenet.cli.output import compile_notice, mebibytes, print_advice, print_facts, print_json
from npmobilenet.errors import short_name

if TYPE_CHECKING:
    from npmobilenet.golden import Dump
    from npmobilenet.golden.dump import Entry


@click.command()
@click.argument("model")
@click.argument("source", metavar="INPUT")
@click.option("-o", "--output", metavar="DIR", required=True, help="The new folder, or an archive if it ends in .npz.")
@click.option("--taps", metavar="PATTERN", multiple=True,
              help="A name or pattern of tensors, '#12', or 'acc:...' and 'pre:...' of these; may be repeated. "
              "Default: everything.")  # fmt: skip
@until_option()
@dialect_option()
@kernels_option()
@threads_option()
@click.option("--force", is_flag=True, help="Replace a golden dump that is there already.")
@json_option()
def record(
    model: str, source: str, output: str, taps: tuple[str, ...], until: tuple[str, ...], dialect: str, kernels: str,
    threads: int | None, force: bool, as_json: bool,
) -> None:  # fmt: skip
    """Write down every tensor that MODEL computes for INPUT.

    Also the accumulators (acc:NAME) and the values before the activation's clamp (pre:NAME), each as a .npy file, with
    a manifest. INPUT is an image, the exact input tensor as a .npy file (or .npz, by input names), or random:SEED.
    """
    from npmobilenet import golden

    with compile_notice(), progress("tensors") as report:
        dump = golden.record(
            model, source, output, list(taps) or "*", kernels=kernels, dialect=dialect, threads=threads, force=force,
            until=until, progress=report,
        )  # fmt: skip
    facts = describe(dump)
    if assumed := facts["input"].get("assumed"):
        print_advice(f"npmobilenet: {assumed}")
    if as_json:
        print_json(facts)
        return
    print_facts(
        [
            ("written", output),
            ("model", f"{facts['model']['name']}, sha256 {facts['model']['sha256'][:16]}..."),
            ("input", facts["input"]["source"]),
            ("dialect", facts["dialect"]),
            ("arrays", f"{facts['arrays']}: {facts['summary']}"),
            ("bytes", mebibytes(facts["bytes"])),
        ]
    )


def describe(dump: Dump) -> dict[str, Any]:
    """What a recorded dump holds, for JSON."""
    import numpy as np

    manifest = dump.manifest
    assert manifest is not None
    kinds = {"tensors": "", "accumulators": "acc:", "pre-activation values": "pre:"}
    counts = {what: sum(e.prefix == prefix for e in manifest.entries) for what, prefix in kinds.items()}
    sizes = [int(np.prod(e.shape, dtype=np.int64)) * np.dtype(e.dtype).itemsize for e in manifest.entries]
    return {
        "folder": os.fspath(dump.path),
        "model": dict(manifest.model),
        "input": dict(manifest.input),
        "dialect": manifest.dialect,
        "batch": manifest.batch,
        "versions": dict(manifest.versions),
        "arrays": len(manifest.entries),
        "summary": ", ".join(f"{count} {what}" for what, count in counts.items() if count),
        "bytes": sum(sizes),
    }


def short_names(entries: Sequence[Entry]) -> tuple[str, list[tuple[str, str]]]:
    """What all tensors' names begin with, and for each its index ("#58", "" if none) and the rest of its name."""
    from npmobilenet.modeldata import shared_prefix  # NumPy: the help and Tab do without

    shared = shared_prefix([entry.tensor for entry in entries])
    rest = [f"{e.prefix}{short_name(e.tensor[len(shared) :])}" for e in entries]
    return shared, [(e.source.removeprefix(e.prefix), name) for e, name in zip(entries, rest, strict=True)]


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], object] | None]:
    """A bar on standard error, which goes away; none where that isn't a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    with Progress(
        TextColumn(what), BarColumn(), MofNCompleteColumn(), console=Console(stderr=True), transient=True
    ) as bar:
        task = bar.add_task("")
        yield lambda done, total: bar.update(task, completed=done, total=total)
