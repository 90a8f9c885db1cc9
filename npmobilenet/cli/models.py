"""`npmobilenet models`: the registry."""

from __future__ import annotations

import click

from npmobilenet.cli.options import json_option
from npmobilenet.cli.output import Column, millions, print_json, print_line, print_table

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
)


@click.command()
@click.argument("pattern", default="*")
@click.option("--aliases", is_flag=True, help="List every name with its other spellings instead.")
@click.option("--urls", is_flag=True, help="List every name with the address of its archive instead.")
@json_option()
def models(pattern: str, aliases: bool, urls: bool, as_json: bool) -> None:
    """List the published models.

    PATTERN selects by name or alias and may hold * and ?, quoted: 'mobilenet_v3_*'. MACs and parameters are in
    millions, as published, with the computed numbers beside; `info MODEL` says why they differ. Accuracies are in
    percent on ImageNet, latencies in milliseconds, both as published.
    """
    from npmobilenet.cli.figures import figures
    from npmobilenet.errors import ModelNotFound
    from npmobilenet.zoo.checkpoints import list_models, resolve

    names = list_models(pattern)
    if not names and not any(c in pattern for c in "*?["):
        resolve(pattern)  # raises, with the closest names
    if not names:
        raise ModelNotFound(f"no model's name matches '{pattern}'; `npmobilenet models` lists all of them")
    found = [figures(resolve(name)) for name in names]
    if as_json:
        print_json({"models": found})
    elif aliases:
        print_table(
            [Column("name"), Column("alias")], [(row["name"], alias) for row in found for alias in row["aliases"]]
        )
    elif urls:
        for row in found:  # unwrapped, to be copied
            print_line(f"{row['name']}  {row['url']}")
    else:
        rows = [
            (
                row["name"],
                row["macs"]["published"],
                millions(row["macs"]["computed"]),
                row["params"]["published"],
                f"{row['params']['computed'] / 1e6:.2f}",
                row["top1"],
                row["top5"],
                *(row["latency_ms"].get(key) for key in LATENCY_TITLES),
            )
            for row in found
        ]
        print_table(COLUMNS, rows)
