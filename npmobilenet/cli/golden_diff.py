"""`npmobilenet golden diff`: where two dumps part."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from npmobilenet.cli.golden_record import progress, short_names
from npmobilenet.cli.options import json_option, layout_option, names_option, seconds_option
from npmobilenet.cli.output import Column, compile_notice, on_terminal, print_facts, print_json, print_line, print_table
from npmobilenet.errors import short_name

if TYPE_CHECKING:
    from npmobilenet.golden import Diff, TensorDiff

DIFFERS = 1
SHOWN = 30  # rows on a terminal; a pipe and --json get all
NOTES = 6  # of single tensors


@click.command()
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@names_option()
@click.option(
    "--model",
    metavar="MODEL",
    help="The model: the cause of the first divergence is looked for, and order and names are its.",
)
@layout_option()
@click.option("--lsb", type=click.IntRange(min=0), default=0, show_default=True,
              help="Let integers differ by so much.")  # fmt: skip
@click.option("--ulp", type=click.IntRange(min=0), default=0, show_default=True,
              help="Let floats differ by so many steps of float32.")  # fmt: skip
@click.option("--atol", type=click.FloatRange(min=0), default=0.0, show_default=True,
              help="Let floats differ by so much.")  # fmt: skip
@click.option("--all", "everything", is_flag=True, help="List the tensors that are equal as well.")
@click.option("--html", "report", metavar="FILE", help="Write a report with a picture of each diverging layer.")
@seconds_option()
@json_option()
def diff(
    a: str, b: str, names: str | None, model: str | None, layout: str, lsb: int, ulp: int, atol: float,
    everything: bool, report: str | None, seconds: float, as_json: bool,
) -> int:  # fmt: skip
    """Compare two dumps, tensor by tensor; exit 1 if they differ.

    A and B are folders of .npy files or .npz archives: recorded ones, or anyone's whose files are called as the tensors
    are, or by TFLite tensor index (12.npy), or with a name map; or files of golden digest. A is the one to go by.
    Integers are compared in LSB, floats in ulp, the steps from one float32 to the next.
    """
    from npmobilenet import golden
    from npmobilenet.measure.evaluate import check_output

    target = None if report is None else check_output(report, (".html",), (a, b))
    tolerance = golden.Tolerance(lsb, ulp, atol)
    with compile_notice(), progress("tensors") as listener:
        result = golden.diff(
            a, b, names=names, model=model, layout=layout, tolerance=tolerance, seconds=seconds, progress=listener
        )
    if target is not None:
        golden.write_report(result, target)
    if as_json:
        print_json(result.to_dict())
    else:
        _print(result, everything, report)
    return 0 if result.equal else DIFFERS


def _print(result: Diff, everything: bool, report: str | None) -> None:
    differing = [row for row in result.rows if not row.equal]
    rows = result.rows if everything else differing
    shown, shared = rows[:SHOWN] if on_terminal() else rows, ""
    if shown:
        columns = [
            Column("#", rank=1), Column("tensor"), Column("op", rank=1), Column("status", rank=2),
            Column("differing", right=True), Column("of", right=True, rank=3), Column("largest", right=True),
            Column("first at"), Column("A", right=True), Column("B", right=True), Column("histogram", rank=4),
        ]  # fmt: skip
        shared, names = short_names([row.entry for row in shown])
        print_table(columns, [(*name, *_row(row)) for name, row in zip(names, shown, strict=True)], narrow=True)
        if len(shown) < len(rows):
            print_line(f"the first {len(shown)} of {len(rows)}; all are in --json, and in a pipe")
        print_line()
    facts: list[tuple[str, object]] = [("names", f"without '{shared}' in front")] if shared else []
    facts += [("A", result.a), ("B", result.b)]
    facts.append(("compared", f"{len(result.rows)} tensors, {len(differing)} of them differ"))
    facts += _named("note", [*result.notes, *_tensor_notes(result.rows)])
    if result.missing:
        some = ", ".join(map(short_name, result.missing[:3])) + (", ..." if len(result.missing) > 3 else "")
        facts.append(("not compared", f"{len(result.missing)} that one of them lacks: {some}"))
    facts.append(("verdict", result.verdict))
    facts += _named("why", result.why)
    if report is not None:
        facts.append(("report", report))
    print_facts(facts)


def _row(row: TensorDiff) -> tuple[object, ...]:
    c = row.comparison
    if c is None or not c.count or c.first is None or c.first_values is None:
        return (row.entry.op, row.status, None, None, None, None, None, None, None)
    place = ",".join(map(str, c.first))
    values = [f"{v:.9g}" for v in c.first_values]
    bars = [f"{label}: {count}" for label, count in c.histogram.items() if label != "0"]
    some = bars if len(bars) <= 6 else [*bars[:3], "...", *bars[-3:]]
    largest = f"{c.largest} {c.unit}"
    return (row.entry.op, row.status, c.count, c.total, largest, place, *values, "  ".join(some))


def _named(title: str, texts: list[str]) -> list[tuple[str, object]]:
    return [("" if i else title, text) for i, text in enumerate(texts)]


def _tensor_notes(rows: list[TensorDiff]) -> list[str]:
    """What was done to single tensors to make them comparable; the same note once, for all that it holds for."""
    found: dict[str, list[str]] = {}
    for row in rows:
        for note in row.notes:
            found.setdefault(note, []).append(row.name)
    texts = [
        f"{short_name(names[0])}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {note}"
        for note, names in found.items()
    ]
    return texts if len(texts) <= NOTES else [*texts[:NOTES], f"and {len(texts) - NOTES} more notes, which --json has"]
