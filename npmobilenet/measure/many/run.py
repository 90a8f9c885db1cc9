"""Handing parts out to a cluster, a bounded number at a time, and the manifest of those that are done."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from npmobilenet.errors import InputError, MissingExtra
from npmobilenet.images.prefetch import batches, cores
from npmobilenet.measure.datasets import Dataset
from npmobilenet.measure.datasets.remote import arrow
from npmobilenet.measure.embeddings.embed import Listener
from npmobilenet.measure.evaluate import Evaluation, evaluate, rehearse
from npmobilenet.measure.evaluate.loop import SAVE_EVERY, Outcomes
from npmobilenet.measure.evaluate.state import model_digest, write_whole
from npmobilenet.measure.many import sources
from npmobilenet.model import Model
from npmobilenet.runtime.pooled import POOLED

Folder = str | os.PathLike[str]
Result = TypeVar("Result")
FORMAT = "npmobilenet parts 1"
MANIFEST = "manifest.json"
AHEAD = 2  # parts for each thread of the cluster that are handed out before they are asked for


@dataclass(frozen=True)
class Done:
    """What is in the folder of parts."""

    folder: Path
    images: int
    parts: int
    ran: int  # images of parts that were not there
    unreadable: dict[str, str]
    seconds: float


def _distributed() -> Any:
    try:
        import distributed
    except ImportError:
        raise MissingExtra("distributed", "dask", "A cluster") from None
    return distributed


@contextlib.contextmanager
def cluster(scheduler: str | None, workers: int | None) -> Iterator[Any]:
    """A client of the cluster at that address, or of one of `workers` processes that ends with the block."""
    distributed = _distributed()
    if scheduler is not None:
        try:
            with distributed.Client(scheduler, timeout=30) as client:
                yield client
        except (OSError, TimeoutError, ValueError) as error:
            raise InputError(f"the scheduler '{scheduler}' can't be reached: {str(error)[:200]}") from error
        return
    count = workers or cores()
    with (
        distributed.LocalCluster(
            n_workers=count, threads_per_worker=1, processes=True, dashboard_address=None
        ) as local,
        distributed.Client(local) as client,
    ):
        yield client


def hand_out(
    client: Any, model: Model, function: Callable[..., Result], calls: Iterable[tuple[Any, ...]]
) -> Iterator[Result]:
    """`function(plugin, *call)` on the workers, which have the model by the name `plugin`; results as they come.

    At most AHEAD calls for each thread are handed out at a time, so neither calls nor results pile up. A call whose
    worker is lost is made again by another. Raises `InputError` if the cluster gives up.
    """
    distributed = _distributed()
    from npmobilenet.measure.many.parts import ModelPlugin

    name = f"npmobilenet-{model_digest(model)[:16]}"
    client.register_plugin(ModelPlugin(model, name), name=name)
    rest = iter(calls)
    window = AHEAD * max(sum(client.nthreads().values()), 1)

    def submit(count: int) -> list[Any]:
        return [client.submit(function, name, *call, pure=False, retries=3) for call in islice(rest, count)]

    waiting = distributed.as_completed(submit(window))
    try:
        for future in waiting:
            result = future.result()
            future.release()
            for more in submit(1):
                waiting.add(more)
            yield result
    except distributed.KilledWorker as error:
        raise InputError(
            "the same images were lost with several workers, one after the other: is their memory enough? Dask says: "
            f"{str(error)[:200]}"
        ) from error
    except (CancelledError, distributed.comm.CommClosedError) as error:
        raise InputError(
            f"the cluster's scheduler is gone ({str(error)[:200]}); begin again, and what is done stays"
        ) from error


def embed_many(
    model: Model, images: Iterable[str], folder: Folder, client: Any, layer: str = POOLED, l2: bool = False,
    recipe: str | None = None, on_progress: Listener | None = None,
) -> Done:  # fmt: skip
    """The vectors of `images` in a folder of Parquet files, equal by bits to `embed`'s: see `in_parts`."""
    from npmobilenet.measure.many.parts import Vectors

    return in_parts(model, images, folder, client, Vectors(layer, l2, recipe), on_progress)


def predict_many(
    model: Model, images: Iterable[str], folder: Folder, client: Any, top: int = 5, recipe: str | None = None,
    on_progress: Listener | None = None,
) -> Done:  # fmt: skip
    """The best classes of `images` in a folder of Parquet files, equal to `model.predict`'s: see `in_parts`."""
    from npmobilenet.measure.many.parts import Classes

    rehearse(model, recipe)
    return in_parts(model, images, folder, client, Classes(top, recipe), on_progress)


def evaluate_many(
    model: Model, data: Dataset | Folder, client: Any, recipe: str | None = None, **given: Any
) -> Evaluation:
    """`evaluate(model, data, recipe=recipe, **given)`, the images predicted by the cluster, the state kept here.

    A state is the same file as a local run's; either goes on from the other's.
    """
    _distributed()
    from npmobilenet.measure.many.parts import do_outcomes

    def run(images: Iterable[tuple[int, Any]], top: int, outputs: bool) -> Outcomes:
        placed = ((i, os.path.abspath(s) if isinstance(s, str | os.PathLike) else s) for i, s in images)
        calls = ((part, recipe, top, outputs) for part in batches(placed, sources.PART))
        yield from hand_out(client, model, do_outcomes, calls)

    return evaluate(model, data, recipe=recipe, run=run, **given)


def in_parts(
    model: Model, images: Iterable[str], folder: Folder, client: Any, what: Any, on_progress: Listener | None
) -> Done:
    """What `what` (of parts.py) makes of `images` (`sources.cut`) in the files `part-*.parquet` of a folder.

    All workers see the folder. A worker that is lost loses the part it was at, which another does; each image is in one
    part, and a part is written whole or not at all. `manifest.json` lists the parts that are done, with their sums, and
    the images that couldn't be read; run again, the same call does those that are missing.

    Raises `InputError` (a folder of other results, no such layer), `MissingExtra`.
    """
    _distributed()
    arrow()
    from npmobilenet.measure.many.parts import do_part

    target, started, saved = Path(folder), time.monotonic(), time.monotonic()
    parts = sources.cut(images)
    about = {"format": FORMAT, **what.identity(model), "images": sources.fingerprint(parts)}
    target.mkdir(parents=True, exist_ok=True)
    done = _kept(target, about)
    total, kept = sum(part.size for part in parts), sum(entry["images"] for entry in done.values())
    have, bad = kept, sum(len(entry["unreadable"]) for entry in done.values())
    where, base = os.fspath(target.resolve()), os.getcwd()
    kept_before = frozenset(done)
    calls = ((i, parts[i], base, what, where) for i in range(len(parts)) if i not in kept_before)
    try:
        for entry in hand_out(client, model, do_part, calls):
            done[entry["part"]] = entry
            have, bad = have + entry["images"], bad + len(entry["unreadable"])
            if on_progress is not None:
                on_progress(have, total, bad)
            if time.monotonic() - saved > SAVE_EVERY:
                _save(target, about, done)
                saved = time.monotonic()
    finally:
        _save(target, about, done)
    unreadable = {item["file"]: item["error"] for i in sorted(done) for item in done[i]["unreadable"]}
    return Done(target, total, len(parts), total - kept, unreadable, time.monotonic() - started)


def _save(folder: Path, about: dict[str, str], done: dict[int, dict[str, Any]]) -> None:
    text = json.dumps({**about, "parts": [done[i] for i in sorted(done)]}, indent=1)
    write_whole(folder / MANIFEST, lambda file: file.write(text.encode()))


def _kept(folder: Path, about: dict[str, str]) -> dict[int, dict[str, Any]]:
    """The parts that an earlier run left whole. Raises `InputError` for a folder of other vectors or files."""
    path = folder / MANIFEST
    if not path.is_file():
        if any(folder.glob("*.parquet")):
            raise InputError(f"'{folder}' holds Parquet files and no {MANIFEST}: name another folder")
        return {}
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
        different = [key for key, value in about.items() if there.get(key) != value]
        if different:
            raise InputError(
                f"'{folder}' belongs to other vectors or predictions, it differs in {', '.join(different)}: name "
                "another folder"
            )
        return {e["part"]: e for e in there["parts"] if _is_whole(folder / Path(e["file"]).name, e["sha256"])}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"'{path}' is no manifest of parts ({str(error)[:80]}): name another folder") from error


def _is_whole(path: Path, sha256: str) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256
