"""`npmobilenet pull`: published models from the network."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from npmobilenet.cli.options import json_option
from npmobilenet.cli.output import print_advice, print_facts, print_json
from npmobilenet.cli.progress import progress_bar

if TYPE_CHECKING:
    from npmobilenet.formats.download import Pulled


@click.command()
@click.argument("model")
@click.option("--archive", metavar="FILE", help="Take this archive, fetched by other means, in place of the network.")
@click.option("--force", is_flag=True, help="Fetch it anew, also if it is there.")
@json_option()
def pull(model: str, archive: str | None, force: bool, as_json: bool) -> None:
    """Download the published MODEL, check it, and convert it, so that its name will do.

    The archive's sha256 is compared with the one that is known, or that was recorded when it was first fetched. An
    interrupted download goes on where it was. The weights go to NPMOBILENET_HOME, or the folder of your system for
    data; NPMOBILENET_MIRROR names another server, NPMOBILENET_OFFLINE=1 forbids the network. This verb and
    load(..., pull=True) are all that opens it.
    """
    from npmobilenet.formats.download import pull as run

    def wait(name: str) -> None:
        print_advice(f"npmobilenet: another process is pulling {name}; waiting for it")

    with progress_bar("bytes") as show:
        done = run(
            model, archive=archive, force=force, on_wait=wait,
            on_progress=lambda have, total: show(have, total or have, "" if total else f"{have:,} bytes"),
        )  # fmt: skip
    if as_json:
        print_json(_facts(done))
        return
    print_facts([(key, value) for key, value in _facts(done).items() if value])


def _facts(done: Pulled) -> dict[str, str | bool]:
    return {
        "model": done.name, "file": os.fspath(done.path), "fetched": done.url if done.fetched else "",
        "sha256": done.sha256,
    }  # fmt: skip
