"""Long runs that must leave nothing behind: memory, file descriptors, other outputs.

Usage: python tools/soak.py runs|loads|refused|embed MODEL [--count N] [--photos FOLDER] [--folder FOLDER]

runs     N inferences from 4 threads that share a model: every output as the first one of its input.
loads    the file MODEL loaded N times, a run each hundredth time.
refused  N files and pictures that are refused: MODEL cut off and damaged in many places, and what is no model at all.
embed    N images, those of --photos again and again and 50 broken ones among them, on a Dask cluster of two workers,
         one of which is killed half-way and started again; beside it the local run, on as many cores.

Each prints what it measured, and ends with 1 if anything grew or differed. Linux only: it reads /proc.
docs/many.md has the figures.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from npmobilenet.errors import NpMobilenetError
from npmobilenet.model import load

THREADS, INPUTS, BROKEN = 4, 16, 50
WARM = 0.2  # of a run, after which nothing should grow
MOST_MEMORY = 8 * 2**20  # bytes that allocators may still take after that
MOST_SCHEDULER = 64 * 2**20  # the same of a process that keeps what is done of each part
COUNTS = {"runs": 100_000, "loads": 10_000, "refused": 10_000, "embed": 100_000}


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors() -> int:
    """Open files of this process."""
    return len(os.listdir("/proc/self/fd"))


def processor_seconds() -> float:
    """What this process and those that it started and that have ended took of the processors."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


class Watch:
    """Memory and files along a run."""

    def __init__(self, count: int) -> None:
        self.count, self.samples = count, list[tuple[int, int, int]]()
        self.every = max(count // 50, 1)
        self.started = time.monotonic()

    def __call__(self, done: int) -> None:
        """Look, at fifty moments of the run."""
        if done % self.every == 0:
            gc.collect()
            self.samples.append((done, resident(), descriptors()))

    def facts(self) -> dict[str, Any]:
        """What grew after the first fifth: memory by the most of ten samples, files by the last sample.

        The most, since the heap falls by megabytes and fills again as models come and go; a leak raises its tops.
        """
        late = [s for s in self.samples if s[0] >= WARM * self.count]
        first, last = (max(s[1] for s in part) for part in (late[:10], late[-10:]))
        return {
            "count": self.count,
            "seconds": round(time.monotonic() - self.started, 1),
            "resident_mib": [round(first / 2**20, 1), round(last / 2**20, 1)],
            "grown": last - first,
            "descriptors": [late[0][2], late[-1][2]],
        }


def runs(path: str, count: int) -> dict[str, Any]:
    """Inferences from threads."""
    model = load(path)
    shape = model.input.shape[1:]
    rng = np.random.default_rng(0)
    integers = model.input.dtype != "float32"
    x = rng.integers(0, 256, (INPUTS, *shape)) if integers else rng.uniform(-1, 1, (INPUTS, *shape))
    inputs = [row[None] for row in x.astype(model.input.dtype)]
    expected = [model.run(row).tobytes() for row in inputs]
    watch, lock, left, differing = Watch(count), threading.Lock(), iter(range(count)), 0

    def work() -> None:
        nonlocal differing
        while True:
            with lock:
                i = next(left, None)
                if i is None:
                    return
                watch(i)
            same = model.run(inputs[i % INPUTS]).tobytes() == expected[i % INPUTS]
            with lock:
                differing += not same

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return watch.facts() | {"differing": differing}


def loads(path: str, count: int) -> dict[str, Any]:
    """Loading the same file."""
    watch, expected, differing = Watch(count), b"", 0
    for i in range(count):
        watch(i)
        model = load(path, threads=1)
        if i % 100 == 0:
            output = model.run(np.zeros(model.input.shape, model.input.dtype)).tobytes()
            differing += output != (expected or output)
            expected = output
    return watch.facts() | {"differing": differing}


def refused(path: str, count: int) -> dict[str, Any]:
    """Files that are no models, or were; and pictures that are none."""
    whole, rng = Path(path).read_bytes(), np.random.default_rng(0)
    model = load(path, threads=1)
    # Every reader is asked, by the first bytes of its kind and by its suffix; most of a cut file is never read.
    heads = (b"\x89HDF\r\n\x1a\n", b"PK\x03\x04", b"\x80\x02}q\x00.", b"\x1f\x8b\x08\x00", b"\x1c\x00\x00\x00TFL3", b"")
    suffixes = (".h5", ".tflite", ".keras", ".pth", ".safetensors", ".tgz", ".zip", ".png", ".jpg")
    watch, taken = Watch(count), 0
    with tempfile.TemporaryDirectory() as folder:
        for i in range(count):
            watch(i)
            content = heads[i % len(heads)] + rng.bytes(200) if i % 3 else whole[: int(rng.integers(len(whole) // 2))]
            target = Path(folder) / f"refused{suffixes[i % len(suffixes)]}"
            target.write_bytes(content)
            try:
                if target.suffix in (".png", ".jpg"):
                    model.preprocess(str(target))
                else:
                    load(target)
                taken += 1
            except NpMobilenetError:
                pass
            target.unlink()
    return watch.facts() | {"taken": taken}


def embed(path: str, count: int, photos: Path, folder: Path) -> dict[str, Any]:
    """A cluster beside the local run."""
    import pyarrow.parquet

    from npmobilenet.images.finding import Found
    from npmobilenet.measure.embeddings.embed import vectors_of
    from npmobilenet.measure.many import embed_many
    from npmobilenet.measure.many.run import cluster
    from npmobilenet.runtime.pooled import POOLED

    def found(names: list[str]) -> list[Found]:
        return [Found(name, name) for name in names]

    good = [str(p.resolve()) for p in sorted(photos.rglob("*.jpg"))]
    names = [good[i % len(good)] for i in range(count)]
    for i in range(BROKEN):
        broken = folder / f"broken{i:02}.jpg"
        broken.write_bytes(b"no picture" * (i + 1))
        names[(2 * i + 1) * count // (2 * BROKEN)] = str(broken)
    (folder / "list.txt").write_bytes("\n".join(names).encode())
    model = load(path, threads=1)
    model.features(good[:1])  # compiles
    fifth = names[: max(count // 5, 1)]
    started, busy = time.monotonic(), processor_seconds()
    expected = {row.name: row for rows in vectors_of(model, found(fifth), POOLED, False, None) for row in rows}
    alone, cost = (time.monotonic() - started) / len(fifth), (processor_seconds() - busy) / len(fifth)
    others = found(list(set(names) - set(expected)))
    expected |= {row.name: row for rows in vectors_of(model, others, POOLED, False, None) for row in rows}
    watch, killed, busy = Watch(count), list[int](), processor_seconds()
    with cluster(None, 2) as client:

        def progress(done: int, total: int, bad: int) -> None:
            watch.samples.append((done, resident(), descriptors()))
            if done >= total // 2 and not killed:
                killed.extend(client.run(os.getpid).values())
                os.kill(killed[0], signal.SIGKILL)

        done = embed_many(model, [str(folder / "list.txt")], folder / "parts", client, on_progress=progress)
    facts, busy = watch.facts(), (processor_seconds() - busy) / count
    seen, differing = 0, 0
    for part in sorted((folder / "parts").glob("part-*.parquet")):
        for row in pyarrow.parquet.read_table(part).to_pylist():
            wanted = expected[names[seen]]
            vector = None if row["vector"] is None else np.array(row["vector"], np.float32).tobytes()
            same = vector == (None if wanted.vector is None else wanted.vector.tobytes())
            differing += row["file"] != wanted.name or not same
            seen += 1
    return facts | {
        "images": seen,
        "unreadable": len(done.unreadable),
        "killed": len(killed) > 0,
        "differing": differing + abs(seen - count) + abs(len(done.unreadable) - BROKEN),
        "ms_per_image": {"cluster": round(1000 * done.seconds / count, 3), "local": round(1000 * alone, 3)},
        "processor_ms_per_image": {"cluster": round(1000 * busy, 3), "local": round(1000 * cost, 3)},
    }


def main(arguments: list[str] | None = None) -> int:
    """Run one of them; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=COUNTS)
    parser.add_argument("model")
    parser.add_argument("--count", type=int)
    parser.add_argument("--photos", type=Path, help="for embed: a folder with .jpg files in it, at any depth")
    parser.add_argument("--folder", type=Path, help="for embed: where to work, an empty folder")
    given = parser.parse_args(arguments)
    count = given.count or COUNTS[given.what]
    if given.what == "embed":
        if given.photos is None or given.folder is None:
            parser.error("embed needs --photos and --folder")
        facts = embed(given.model, count, given.photos, given.folder)
    else:
        soaks: dict[str, Callable[[str, int], dict[str, Any]]] = {"runs": runs, "loads": loads, "refused": refused}
        facts = soaks[given.what](given.model, count)
    most = MOST_SCHEDULER if given.what == "embed" else MOST_MEMORY
    files = facts["descriptors"]
    bad = facts["grown"] > most or (given.what != "embed" and files[1] > files[0])
    bad = bad or any(facts.get(key) for key in ("differing", "taken"))
    print(json.dumps({"soak": given.what, **facts, "passed": not bad}))
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
