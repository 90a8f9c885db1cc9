"""What a worker does: the model, once for each worker, and a part of the images, written whole."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

from distributed import WorkerPlugin, get_worker

from npmobilenet.measure.embeddings.embed import identity, vectors_of
from npmobilenet.measure.embeddings.files import width_of, write_parquet
from npmobilenet.measure.evaluate.state import write_whole
from npmobilenet.measure.many.sources import Part, images_of
from npmobilenet.model import Model


class How(NamedTuple):
    """What is done with each image."""

    layer: str
    l2: bool
    recipe: str | None


class ModelPlugin(WorkerPlugin):  # type: ignore[misc]
    """Gives each worker, also one that comes later, the model; it is planned when the first part needs it."""

    def __init__(self, model: Model, name: str) -> None:
        self.model, self.name = model, name


def do_part(number: int, part: Part, plugin: str, how: How, folder: str) -> dict[str, Any]:
    """Write `part-NUMBER.parquet` and tell what is in it. Done twice, the same file is written twice."""
    model: Model = get_worker().plugins[plugin].model
    rows = [row for batch in vectors_of(model, list(images_of(part)), *how) for row in batch]
    path = Path(folder) / f"part-{number:06}.parquet"
    facts = {"name": model.name, **identity(model, *how)}
    write_whole(path, lambda file: write_parquet(rows, width_of(model, how.layer), facts, file))
    return {
        "part": number,
        "file": path.name,
        "images": len(rows),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "unreadable": [{"file": row.name, "error": row.error} for row in rows if row.vector is None],
    }
