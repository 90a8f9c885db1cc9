"""`npmobilenet explore`: a page on which a model's values can be looked at and recomputed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from npmobilenet.cli.classify import DEFAULT_MODEL
from npmobilenet.cli.options import dialect_option
from npmobilenet.cli.output import compile_notice, mebibytes, print_line
from npmobilenet.errors import InputError

if TYPE_CHECKING:
    from npmobilenet.views.explorer import Explorer


@click.command()
@click.argument("image", required=False)
@click.option("-m", "--model", metavar="MODEL", help="A registered name, or a path. Default: the flowers model.")
@click.option("-o", "--output", metavar="PAGE", help="Write the page, with everything in it, to this .html file.")
@click.option("--serve", is_flag=True, help="Serve it on 127.0.0.1 instead, each layer when it is asked for.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, metavar="N", help="For --serve. Default: a free one.")
@dialect_option("Of integer models: which one the page shows first.")
def explore(image: str | None, model: str | None, output: str | None, serve: bool, port: int, dialect: str) -> None:
    """Write a page that shows MODEL at work on IMAGE, down to each product.

    The page shows the layers, their channels as heat maps and, for a value that is clicked, what it is made of: window,
    weights, products, bias, sum and, in 8-bit models, every rounding under each dialect. The browser recomputes the
    value and compares. IMAGE is an image, a .npy file or random:SEED; without one it is the example picture.
    """
    from npmobilenet.golden.inputs import load_input
    from npmobilenet.images.example import draw_sunflower
    from npmobilenet.model import load
    from npmobilenet.views.explore_page import page
    from npmobilenet.views.explorer import Explorer
    from npmobilenet.zoo.checkpoints import locate

    if (output is None) == (not serve):
        raise click.UsageError("expected one of --output PAGE and --serve")
    engine = load(model or locate(DEFAULT_MODEL) or DEFAULT_MODEL, dialect=dialect)
    inputs, _ = load_input(engine, image if image is not None else engine.preprocess([draw_sunflower()]))
    if any(len(array) != 1 for array in inputs.values()):
        raise InputError(f"'{image}' holds {max(map(len, inputs.values()))} images: the page shows one")
    picture = "the example picture" if image is None else Path(image).name
    with compile_notice():
        explorer = Explorer(engine, inputs, picture)
        if output is not None:
            text = page(explorer, alone=True).encode("utf-8", "backslashreplace")  # a file's name may be no UTF-8
    if output is not None:
        from npmobilenet.measure.evaluate.state import write_whole

        write_whole(Path(output), lambda file: file.write(text))
        print_line(f"{output}: {mebibytes(len(text))}, {len(explorer.nodes)} layers of {engine.name}")
        return
    _serve(explorer, port)


def _serve(explorer: Explorer, port: int) -> None:
    from npmobilenet.views.explore_server import ExploreServer

    with ExploreServer(explorer, port) as server:
        print_line(f"{server.address} shows {explorer.data.info.name} to browsers on this machine; Ctrl-C ends it")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return
