"""`npmobilenet models`: the registry."""

from __future__ import annotations

import click

from npmobilenet.cli.options import json_option
from npmobilenet.cli.output import Column, print_json, print_line, print_table
from npmobilenet.errors import ModelNotFound

LATENCY_TITLES = {
    "pixel_1": "Pixel 1",
    "pixel_2": "Pixel 2",
    "pixel_3": "Pixel 3",
    "pixel_4_edgetpu": "P4 EdgeTPU",
    "pixel_4_cpu": "P4 CPU",
}
COLUMNS = (
    Column("name"),
    Column("MACs M", right=True),
    Column("computed", right=True, rank=1),
    Column("params M", right=True),
    Column("computed", right=True, rank=2),
    Column("top-1", right=True),
    Column("top-5", right=True, rank=3),
    *(Column(title, right=True, rank=4) for title in LATENCY_TITLES.values()),
    Column("present"),
)


@click.command()
@click.argument("pattern", default="*")
@click.option("--aliases", is_flag=True, help="List every name with its other spellings instead.")
@click.option("--urls", is_flag=True, help="List every name with the address of its archive instead.")
@json_option()
def models(pattern: str, aliases: bool, urls: bool, as_json: bool) -> None:
    """List the published models, and those whose weights are on this machine.

    PATTERN selects by name or alias and may hold * and ?, quoted: 'mobilenet_v3_*'. MACs and parameters are in
    millions, as published, with the computed numbers beside; `info MODEL` says why they differ. Accuracies are in
    percent on ImageNet, latencies in milliseconds, both as published. Models marked as present are loaded by their
    names: those in the box, and those in the folder NPMOBILENET_WEIGHTS or pulled.
    """
    from npmobilenet.cli.figures import figures, figures_of_file
    from npmobilenet.zoo.checkpoints import BY_NAME, list_models, on_this_machine

    names, here = list_models(pattern), on_this_machine()
    if not names:
        raise _nothing(pattern)
    found = [
        figures(BY_NAME[name], here.get(name)) if name in BY_NAME else figures_of_file(name, here[name])
        for name in names
    ]
    if as_json:
        print_json({"models": found})
    elif aliases:
        print_table(
            [Column("name"), Column("alias")], [(row["name"], alias) for row in found for alias in row["aliases"]]
        )
    elif urls:
        for row in found:  # unwrapped, to be copied
            print_line(f"{row['name']}  {row['url'] or row['file']}")
    else:
        rows = [
            (
                row["name"],
                row["macs"]["published"],
                _millions(row["macs"]["computed"], 1),
                row["params"]["published"],
                _millions(row["params"]["computed"], 2),
                row["top1"],
                row["top5"],
                *(row["latency_ms"].get(key) for key in LATENCY_TITLES),
                "yes" if row["present"] else None,
            )
            for row in found
        ]
        print_table(COLUMNS, rows)


def _millions(count: int | None, digits: int) -> str | None:
    return None if count is None else f"{count / 1e6:.{digits}f}"


def _nothing(pattern: str) -> ModelNotFound:
    """What to do about a pattern that no name matches."""
    from npmobilenet.zoo.checkpoints import list_models, resolve

    if any(c in pattern for c in "*?["):
        return ModelNotFound(f"no model's name matches '{pattern}'; `npmobilenet models` lists all of them")
    inside = list_models(f"*{pattern}*") if pattern.strip() else []
    if inside:
        return ModelNotFound(
            f"no model is called '{pattern}', and {len(inside)} names contain it: npmobilenet models '*{pattern}*'"
        )
    try:
        resolve(pattern)
    except ModelNotFound as error:  # with the closest names
        return error
    return ModelNotFound(f"no model is called '{pattern}'")
