"""What a worker does: the model, once for each worker, and a part of the images, written whole or sent back."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import IO, Any, NamedTuple

from distributed import WorkerPlugin, get_worker

from npmobilenet.images.finding import Found
from npmobilenet.measure.datasets.remote import arrow
from npmobilenet.measure.embeddings.embed import identity, vectors_of
from npmobilenet.measure.embeddings.files import width_of, write_parquet
from npmobilenet.measure.evaluate.files import encodable
from npmobilenet.measure.evaluate.loop import Outcome, outcomes_of
from npmobilenet.measure.evaluate.state import model_digest, write_whole
from npmobilenet.measure.many.sources import Part, images_of
from npmobilenet.model import Model

Errors = list[tuple[str, str | None]]  # each image's name, and why it couldn't be read


class Vectors(NamedTuple):
    """For each image its vector, as `embed` writes them."""

    layer: str
    l2: bool
    recipe: str | None

    def identity(self, model: Model) -> dict[str, str]:
        """What the results depend on beside the images."""
        return identity(model, *self)

    def write(self, model: Model, images: list[Found], facts: dict[str, str], file: IO[bytes]) -> Errors:
        """Write a part."""
        rows = [row for batch in vectors_of(model, images, *self) for row in batch]
        write_parquet(rows, width_of(model, self.layer), facts, file)
        return [(row.name, row.error) for row in rows]


class Classes(NamedTuple):
    """For each image its best classes, as `predict` gives them."""

    top: int
    recipe: str | None

    def identity(self, model: Model) -> dict[str, str]:
        """What the results depend on beside the images."""
        recipe = self.recipe or model.info.preprocessing
        return {"model": model_digest(model), "top": str(self.top), "recipe": recipe, "dialect": model.arithmetic or ""}

    def write(self, model: Model, images: list[Found], facts: dict[str, str], file: IO[bytes]) -> Errors:
        """Write a part: columns `file`, `class_ids`, `labels`, `scores` (lists, best first) and `error`."""
        pa = arrow()
        numbered = ((i, found.source) for i, found in enumerate(images))
        done = [outcome for batch in outcomes_of(model, self.recipe, numbered, self.top) for _, outcome in batch]
        kinds = {"class_ids": pa.int32(), "labels": pa.string(), "scores": pa.float64()}
        columns = {"file": pa.array([encodable(found.name) for found in images], pa.string())}
        for i, (name, kind) in enumerate(kinds.items()):
            columns[name] = pa.array([None if o.error else [p[i] for p in o.best] for o in done], pa.list_(kind))
        columns["error"] = pa.array([o.error for o in done], pa.string())
        table = pa.table(columns).replace_schema_metadata(facts)
        pa.parquet.write_table(table, file, compression="none")
        return [(found.name, o.error) for found, o in zip(images, done, strict=True)]


class ModelPlugin(WorkerPlugin):  # type: ignore[misc]
    """Gives each worker, also one that comes later, the model; it is planned when the first part needs it."""

    def __init__(self, model: Model, name: str) -> None:
        self.model, self.name = model, name


def _model(plugin: str) -> Model:
    model: Model = get_worker().plugins[plugin].model
    return model


def do_part(plugin: str, number: int, part: Part, base: str, what: Vectors | Classes, folder: str) -> dict[str, Any]:
    """Write `part-NUMBER.parquet` and tell what is in it. Done twice, the same file is written twice."""
    model = _model(plugin)
    path = Path(folder) / f"part-{number:06}.parquet"
    facts, errors = {"name": model.name, **what.identity(model)}, list[tuple[str, str | None]]()
    images = list(images_of(part, base))
    write_whole(path, lambda file: errors.extend(what.write(model, images, facts, file)))
    return {
        "part": number,
        "file": path.name,
        "images": len(errors),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "unreadable": [{"file": name, "error": error} for name, error in errors if error is not None],
    }


def do_outcomes(
    plugin: str, images: list[tuple[int, Any]], recipe: str | None, top: int, outputs: bool
) -> list[tuple[int, Outcome]]:
    """Predictions of numbered images, sent back."""
    return [item for batch in outcomes_of(_model(plugin), recipe, images, top, outputs) for item in batch]
