"""`npmobilenet golden identify`: which runtime's rounding a dump follows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from npmobilenet.cli.golden_record import progress, short_names
from npmobilenet.cli.options import json_option, layout_option, names_option, seconds_option
from npmobilenet.cli.output import Column, compile_notice, first_of, print_facts, print_json, print_line, print_table
from npmobilenet.errors import short_name

if TYPE_CHECKING:
    from npmobilenet.golden import Identification
    from npmobilenet.golden.identifying import Group

DIFFERS = 1


@click.command()
@click.argument("model")
@click.argument("dump", metavar="DIR")
@names_option()
@layout_option()
@click.option("--all", "everything", is_flag=True, help="List also the tensors that follow the dialect found.")
@seconds_option()
@json_option()
def identify(
    model: str, dump: str, names: str | None, layout: str, everything: bool, seconds: float, as_json: bool
) -> int:  # fmt: skip
    """Tell which dialect a dump of MODEL follows; exit 1 if no single one.

    Each layer is computed by itself from the dump's own inputs of that layer, under every dialect, so that a layer that
    differs doesn't spoil those behind it. DIR is a folder of .npy files or an .npz archive, as for diff.
    """
    from npmobilenet import golden

    with compile_notice(), progress("tensors") as listener:
        found = golden.identify(model, dump, names=names, layout=layout, seconds=seconds, progress=listener)
    if as_json:
        print_json(found.to_dict())
    else:
        _print(found, everything)
    return DIFFERS if found.exceptions else 0


def _print(found: Identification, everything: bool) -> None:
    from npmobilenet.golden.identifying import Group

    groups = [Group((row,), 1, tuple(row.fits)) for row in found.rows] if everything else found.groups
    shared, dialects = "", list(dict.fromkeys(d for row in found.checked for d in row.counts))
    if groups:
        columns = [Column("#", rank=1), Column("tensor"), Column("op", rank=1), Column("values", right=True, rank=1),
                   *(Column(d, right=True, rank=2) for d in dialects), Column("follows")]  # fmt: skip
        shared, short = short_names([group.rows[0].entry for group in groups])
        names = [name if len(g.rows) == 1 else (None, g.label) for name, g in zip(short, groups, strict=True)]
        print_table(columns, [(*n, *_row(g, dialects)) for n, g in zip(names, groups, strict=True)], narrow=True)
        if any(len(group.rows) > 1 for group in groups):
            print_line("tensors of one op that follow the same are told together; --all lists each")
        print_line()
    telling = sum(row.telling for row in found.integers)
    facts: list[tuple[str, object]] = [
        *([("names", f"without '{shared}' in front")] if shared else []),
        ("dump", found.dump),
        (
            "checked",
            f"{len(found.checked)} tensors, each from the dump's own inputs; {telling} tell the dialects apart",
        ),
    ]
    unchecked = [row for row in found.rows if not row.checked]
    facts += (
        [("not checked", f"{len(unchecked)}: {short_name(unchecked[0].name)}: {unchecked[0].note}")]
        if unchecked
        else []
    )
    facts += [("note", note) for note in found.notes]
    facts.append(("verdict", found.verdict))
    for row in found.exceptions[:5]:
        facts += [
            (short_name(row.name) if not i else "", text)
            for i, text in enumerate(filter(None, [row.cause, *row.hints]))
        ]
    print_facts(facts)


def _row(group: Group, dialects: list[str]) -> tuple[object, ...]:
    row = group.rows[0]
    follows = first_of(group.fits, 2) if group.fits else ("none" if row.checked else row.note)
    counts = [[r.counts[d] for r in group.rows if d in r.counts] for d in dialects]
    return (row.entry.op, sum(r.total for r in group.rows), *(sum(c) if c else None for c in counts), follows)
