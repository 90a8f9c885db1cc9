"""What the verbs print with: tables for a terminal or a pipe, JSON, one-line errors, the notice of compiling.

Text that comes from a file (labels, names, provenance) never reaches the terminal with control characters in it.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from npmobilenet.modeldata import ModelInfo

GAP = 2  # spaces between columns of plain text
LONGEST_ERROR = 2000  # characters; a name or a list in it may be of any length
NARROW = 100  # columns of text that a table of layers keeps to in a pipe
SHORTEST = 16  # characters that are left of a name
NOTHING = "-"  # an empty cell of plain text, so that every line has the same number of fields


@dataclass(frozen=True)
class Column:
    """A column of a table: numbers stand to the `right`.

    On a terminal, columns of a `rank` above 0 are left out if they are empty, or, highest rank first, for want of room.
    """

    title: str
    right: bool = False
    rank: int = 0


def on_terminal() -> bool:
    """Whether standard output is a terminal."""
    return sys.stdout.isatty()


def printable(text: object) -> str:
    """One line without control characters: a line break becomes a space, anything else unprintable its escape."""
    spaced = (" " if c.isspace() else c for c in str(text).strip())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in spaced)


def print_error(text: str) -> None:
    """`error: ...`, one line on standard error."""
    coloured = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    line = printable(text)
    if len(line) > LONGEST_ERROR:
        line = f"{line[:LONGEST_ERROR]} ..."
    click.echo(f"{click.style('error:', fg='red') if coloured else 'error:'} {line}", err=True)


def print_line(text: str = "") -> None:
    """A line of plain text."""
    click.echo(printable(text))


def print_advice(text: str) -> None:
    """A line that helps a person and is no part of the result: on standard error."""
    click.echo(printable(text), err=True)


def print_assumed(info: ModelInfo, recipe: str | None = None) -> list[str]:
    """What was taken for granted when the model was read, a line each on standard error; and these sentences.

    With a `recipe` that the caller chose, what is said of the model's own doesn't matter.
    """
    sentences = [text for text in info.assumed if recipe is None or text != f"recipe assumed: {info.preprocessing}"]
    for text in sentences:
        print_advice(f"npmobilenet: {text}")
    return sentences


def print_json(document: Mapping[str, Any]) -> None:
    """One JSON document, in ASCII, so that any pipe can carry it."""
    click.echo(json.dumps(document, indent=2, allow_nan=False))


def print_csv(row: Sequence[object]) -> None:
    """A row of comma-separated values (RFC 4180, but for the line's end). None is an empty field."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(["" if cell is None else printable(cell) for cell in row])
    click.echo(line.getvalue())


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[object]], narrow: bool = False) -> None:
    """A table with a heading: drawn on a terminal, aligned text elsewhere. None is an empty cell.

    `narrow`: one of layers, whose text keeps to 100 columns; what has no room is in --json.
    """
    cells = [[("" if cell is None else printable(cell)) for cell in row] for row in rows]
    if on_terminal():
        _draw(*_fitting(columns, cells, shutil.get_terminal_size().columns))
        return
    left_out: list[str] = []
    if narrow:
        columns, cells, left_out = _fitting(columns, cells, NARROW)
        _cut_names(columns, cells, NARROW)
    for line in _aligned([[c.title for c in columns], *cells], [c.right for c in columns]):
        click.echo(line)
    if left_out:
        click.echo(f"left out for want of room: {first_of(left_out, 5)} (in --json)")


def print_facts(facts: Sequence[tuple[str, object]]) -> None:
    """Names and values in two columns, without a heading; an empty name goes on with the fact above."""
    rows = [[name, printable(value)] for name, value in facts]
    if not on_terminal():
        width = max(len(name) for name, _ in rows)
        for name, value in rows:
            click.echo(f"{name:{width}}{' ' * GAP}{value}".rstrip())
        return
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, GAP, 0, 0))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(Text(name), Text(value))
    _console().print(grid)


def _aligned(rows: Sequence[Sequence[str]], right: Sequence[bool]) -> Iterator[str]:
    filled = [[cell or NOTHING for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*filled, strict=True)]
    for row in filled:
        cells = zip(row, widths, right, strict=True)
        yield (" " * GAP).join(c.rjust(w) if r else c.ljust(w) for c, w, r in cells).rstrip()


def _fitting(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], room: int
) -> tuple[list[Column], list[list[str]], list[str]]:
    """The columns that there is room for, their cells, and the titles of those left out."""
    widths = [max(len(c.title), *(len(row[i]) for row in rows), 0) for i, c in enumerate(columns)]
    kept = [i for i, c in enumerate(columns) if c.rank == 0 or any(row[i] for row in rows)]
    left_out: list[str] = []
    while sum(widths[i] + GAP for i in kept) - GAP > room:
        victim = max(kept, key=lambda i: (columns[i].rank, i))
        if columns[victim].rank == 0:
            break
        kept.remove(victim)
        left_out.insert(0, columns[victim].title)
    return [columns[i] for i in kept], [[row[i] for i in kept] for row in rows], left_out


def _cut_names(columns: Sequence[Column], rows: list[list[str]], room: int) -> None:
    """Take the middle out of the names, in the column "tensor", as far as the others leave no room for it."""
    place = next((i for i, c in enumerate(columns) if c.title == "tensor"), None)
    if place is None or not rows:
        return
    widths = [max(len(c.title), *(len(row[i]) for row in rows)) for i, c in enumerate(columns)]
    most = max(room - (sum(widths) - widths[place] + GAP * (len(columns) - 1)), SHORTEST)
    for row in rows:
        if len(row[place]) > most:
            row[place] = f"{row[place][: (most - 2) // 2]}..{row[place][-(most - 2 - (most - 2) // 2) :]}"


def _draw(columns: Sequence[Column], rows: Sequence[Sequence[str]], left_out: Sequence[str]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, GAP - 1, 0, 0), pad_edge=False)
    for column in columns:
        table.add_column(Text(column.title), justify="right" if column.right else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    console = _console()
    console.print(table)
    if left_out:
        some = first_of(left_out, 5)
        console.print(Text(f"left out for want of room: {some} (in --json, and in a pipe)", style="dim"))


def _console() -> Any:
    from rich.console import Console

    return Console(file=sys.stdout, highlight=False)


# ---------------------------------------------------------------------------------------------------------------------
# Numbers


def millions(count: int) -> str:
    """A count in millions with one decimal, as MACs are printed."""
    return f"{count / 1e6:.1f}"


def mebibytes(size: int) -> str:
    """A size in MiB with one decimal, small ones in KiB or bytes."""
    if size < 1024:
        return f"{size} bytes"
    return f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{size / 2**10:.1f} KiB"


def first_of(names: Sequence[str], most: int) -> str:
    """a, b and 3 more."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def shape_text(shape: Sequence[int]) -> str:
    """1 x 224 x 224 x 3."""
    return " x ".join(map(str, shape))


# ---------------------------------------------------------------------------------------------------------------------
# Compiling


@contextlib.contextmanager
def compile_notice() -> Iterator[None]:
    """While a model runs: a status line on a terminal whenever a kernel must be compiled before it can be used.

    Elsewhere, and on one that can't move its cursor, the kernels' own listener prints one plain line on standard error.
    """
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb" or os.environ.get("NPMOBILENET_QUIET"):
        yield
        return
    from rich.console import Console

    from npmobilenet.kernels.compiler.cache import cache_folder
    from npmobilenet.kernels.compiler.notices import listening

    status = Console(stderr=True, highlight=False).status("")
    why = "first use; up to a minute in all" if cache_folder() else "in every run; see npmobilenet doctor"

    def show(kernel: str) -> None:
        status.update(f"compiling {kernel} ({why})")
        status.start()

    with listening(show):
        try:
            yield
        finally:
            status.stop()


NAMED = 20  # unreadable images named one by one; --json names all


def unreadable_lines(unreadable: Mapping[str, str]) -> list[tuple[str, object]]:
    """Facts that name the images which couldn't be read, and why: the first NAMED, then how many more."""
    lines: list[tuple[str, object]] = [("", f"{name}: {error}") for name, error in list(unreadable.items())[:NAMED]]
    if len(unreadable) > NAMED:
        lines.append(("", f"and {len(unreadable) - NAMED} more, which --json names"))
    if lines:
        lines[0] = ("unreadable", lines[0][1])
    return lines
