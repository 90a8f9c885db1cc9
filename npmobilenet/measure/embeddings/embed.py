"""The loop from images to vectors, kept as they come."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from npmobilenet.errors import InputError
from npmobilenet.images.finding import Found
from npmobilenet.images.prefetch import batches
from npmobilenet.images.recipes import get_recipe
from npmobilenet.measure.embeddings.spool import Row, Spool, stamp
from npmobilenet.measure.evaluate.loop import SAVE_EVERY, Prepared, prepare
from npmobilenet.measure.evaluate.state import model_digest
from npmobilenet.model import CHUNK, Model
from npmobilenet.runtime.pooled import POOLED, layer_of

Listener = Callable[[int, int, int], None]  # images done, all images, those that couldn't be read


@dataclass(frozen=True)
class Embedded:
    """What `embed` did: the facts of all vectors, and the spool that holds them until it is closed."""

    facts: dict[str, str]  # model, layer, recipe, whether of length 1
    spool: Spool
    ran: int
    seconds: float

    @property
    def unreadable(self) -> dict[str, str]:
        """The images that couldn't be read, and why."""
        return {row.name: row.error or "" for row in self.spool.rows() if row.vector is None}

    def close(self) -> None:
        """Let go of the vectors."""
        self.spool.close()


def identity(model: Model, layer: str, l2: bool, recipe: str | None) -> dict[str, str]:
    """What vectors depend on beside the image. Kernels and threads change no bit."""
    return {
        "model": model_digest(model),
        "layer": layer_of(model.graph, layer).name,
        "l2": "yes" if l2 else "no",
        "recipe": recipe or model.info.preprocessing,
        "dialect": model.arithmetic or "",
    }


def vectors_of(model: Model, images: Sequence[Found], layer: str, l2: bool, recipe: str | None) -> Iterator[list[Row]]:
    """The rows of these images in their order, a few at a time, each as `model.features` gives it."""
    port = layer_of(model.graph, layer)

    def row(engine: Model, given: tuple[Found, str, Prepared]) -> Row:
        found, mark, x = given
        if isinstance(x, InputError):
            return Row(found.name, mark, None, str(x))
        return Row(found.name, mark, engine.vectors(x, port, l2)[0], None)

    def prepared(found: Found) -> tuple[Found, str, Prepared]:
        return found, stamp(found), prepare(model, found.source, recipe)

    with model.in_order(prepared, row, images) as results:
        yield from batches(results, CHUNK)


def embed(
    model: Model,
    images: Sequence[Found],
    layer: str = POOLED,
    l2: bool = False,
    recipe: str | None = None,
    state: Path | None = None,
    on_progress: Listener | None = None,
) -> Embedded:
    """The vectors of `images` (`finding.find_images`), as `model.features` gives them; what can't be read is kept, too.

    `state` is a file that keeps what is done; if it exists, the images that it holds from the first one on are not run
    again. Without one a temporary file has them, so memory doesn't grow. The result is to be closed.

    Raises `InputError`: no such layer or recipe, another state.
    """
    get_recipe(recipe or model.info.preprocessing)
    facts = identity(model, layer, l2, recipe)
    shape = layer_of(model.graph, layer).shape
    spool = Spool(state, facts, shape[-1] if len(shape) == 4 else int(np.prod(shape)))
    try:
        spool.keep_agreeing(images)
        start, before, saved = time.perf_counter(), spool.done, time.monotonic()
        for rows in vectors_of(model, images[spool.done :], layer, l2, recipe):
            for row in rows:
                spool.append(row)
            if on_progress is not None:
                on_progress(spool.done, len(images), spool.unreadable)
            if time.monotonic() - saved > SAVE_EVERY:
                spool.flush()
                saved = time.monotonic()
        spool.flush()
    except BaseException:
        spool.close()
        raise
    return Embedded({"name": model.name, **facts}, spool, spool.done - before, time.perf_counter() - start)
