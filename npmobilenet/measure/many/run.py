"""Handing parts out to a cluster, a bounded number at a time, and the manifest of those that are done."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from npmobilenet.errors import InputError, MissingExtra
from npmobilenet.images.prefetch import cores
from npmobilenet.measure.embeddings.embed import identity
from npmobilenet.measure.embeddings.files import arrow
from npmobilenet.measure.evaluate.loop import SAVE_EVERY
from npmobilenet.measure.evaluate.state import write_whole
from npmobilenet.measure.many.sources import cut, fingerprint
from npmobilenet.model import Model
from npmobilenet.runtime.pooled import POOLED

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


def embed_many(
    model: Model,
    images: Iterable[str],
    folder: str | os.PathLike[str],
    client: Any,
    layer: str = POOLED,
    l2: bool = False,
    recipe: str | None = None,
    on_progress: Callable[[int, int, int], None] | None = None,
) -> Done:
    """The vectors of `images` (`sources.cut`) in the Parquet files `part-*.parquet` of a folder that all workers see.

    Equal by bits to `embed`'s. A worker that is lost loses the part it was at, which another does; each image is in one
    part, and a part is written whole or not at all. `manifest.json` lists the parts that are done, with their sums, and
    the images that couldn't be read; run again, the same call does those that are missing. At most AHEAD parts for each
    thread are handed out at a time, so the scheduler's memory doesn't grow with the images.

    Raises `InputError` (a folder of other vectors, no such layer), `MissingExtra`.
    """
    distributed = _distributed()
    arrow()
    from npmobilenet.measure.many.parts import How, ModelPlugin, do_part

    target, started, saved = Path(folder), time.monotonic(), time.monotonic()
    parts = cut(images)
    how = How(layer, l2, recipe)
    about = {"format": FORMAT, **identity(model, layer, l2, recipe), "images": fingerprint(parts)}
    target.mkdir(parents=True, exist_ok=True)
    done = _kept(target, about)
    total, kept = sum(part.size for part in parts), sum(entry["images"] for entry in done.values())
    name = f"npmobilenet-{about['model'][:16]}"
    client.register_plugin(ModelPlugin(model, name), name=name)
    todo = iter([i for i in range(len(parts)) if i not in done])

    def submit(number: int) -> Any:
        where = os.fspath(target.resolve())
        return client.submit(do_part, number, parts[number], name, how, where, pure=False, retries=3)

    try:
        window = AHEAD * max(sum(client.nthreads().values()), 1)
        waiting = distributed.as_completed([submit(i) for _, i in zip(range(window), todo, strict=False)])
        for future in waiting:
            entry = future.result()
            done[entry["part"]] = entry
            future.release()
            for number in todo:
                waiting.add(submit(number))
                break
            if on_progress is not None:
                on_progress(
                    sum(e["images"] for e in done.values()), total, sum(len(e["unreadable"]) for e in done.values())
                )
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
                f"'{folder}' belongs to other vectors, it differs in {', '.join(different)}: name another folder"
            )
        return {e["part"]: e for e in there["parts"] if _is_whole(folder / Path(e["file"]).name, e["sha256"])}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"'{path}' is no manifest of embed ({str(error)[:80]}): name another folder") from error


def _is_whole(path: Path, sha256: str) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256
