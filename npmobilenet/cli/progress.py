"""How far a long run is: a bar on a terminal, a line for every tenth elsewhere, both on standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

Show = Callable[[int, int, str], None]  # what is done, of how many, and what else there is to say


@contextmanager
def progress_bar(unit: str = "images") -> Iterator[Show]:
    """A bar on standard error; where that isn't a terminal, a line for every tenth of the `unit`."""
    if not sys.stderr.isatty():
        yield _line_by_tenths(unit)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("")
        yield lambda done, total, text: bar.update(task, completed=done, total=total, description=text)


def _line_by_tenths(unit: str) -> Show:
    last = 0

    def show(done: int, total: int, text: str) -> None:
        nonlocal last
        tenth = 10 * done // max(total, 1)
        if tenth > last:
            last = tenth
            click.echo(f"npmobilenet: {done} of {total} {unit}: {text}".removesuffix(": "), err=True)

    return show
