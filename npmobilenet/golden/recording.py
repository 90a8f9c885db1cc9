"""Recording: a run's tensors, accumulators and pre-activation values as .npy files with a manifest.

The taps are taken in groups of at most `GROUP_BYTES`, one run for each group, and each group is written before the next
run, so that memory stays bounded whatever the model and the batch. A run gives the same bits however it is tapped.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import numpy as np

import npmobilenet
from npmobilenet.errors import InputError
from npmobilenet.formats.array_files import read_bytes
from npmobilenet.formats.npy import ArrayWriter
from npmobilenet.formats.whole_file import temporary_beside
from npmobilenet.golden.dump import FORMAT, MANIFEST, Dump, Entry, Manifest, catalogue, stems, to_json
from npmobilenet.golden.inputs import little_endian, load_input, model_facts
from npmobilenet.images.inputs import Inputs
from npmobilenet.model import CHUNK, Model, load
from npmobilenet.modeldata import Array
from npmobilenet.runtime.taps import PRE, split_prefix

GROUP_BYTES = 64 * 2**20
EVERYTHING = "*"
Progress = Callable[[int, int], object]  # tensors written so far, and of how many


def record(
    model: Model | str | os.PathLike[str],
    x: Inputs | str | os.PathLike[str],
    folder: str | os.PathLike[str],
    taps: str | Iterable[str] = EVERYTHING,
    *,
    kernels: str = "fast",
    dialect: str = "tflite-reference",
    threads: int | None = None,
    force: bool = False,
    check_range: bool = True,
    until: Iterable[str] = (),
    progress: Progress | None = None,
) -> Dump:
    """Run a model and write what it computed into the new folder `folder`, or the archive, if it ends in ".npz".

    `model` is a `Model` (then `kernels`, `dialect`, `threads` are its own) or what `load` takes. `x` is an input as for
    `Model.run`, or a source as for `load_input`: "random:SEED", or the path of an image, a .npy or an .npz file. `taps`
    are names or patterns as for `Model.run`; "*" alone means every tensor, every accumulator and every pre-activation
    value. The inputs are always recorded. `until` are tensors to end at, as `outputs` of `load`.

    A folder is made whole: it appears under its name once all is written. An existing one is refused, or with `force`
    replaced if it is a golden dump.

    Raises `InputError`, `PlanError`, and what `load` raises.
    """
    target = Path(folder)
    check_target(target, force)
    path = None if isinstance(model, Model) else model
    ends = tuple(until)
    if isinstance(model, Model):
        how = model.kernels, model.dialect, model.threads, model.memory_limit
        engine = Model(model.data.until(ends), *how) if ends else model
    else:
        engine = load(model, kernels, dialect, threads, outputs=ends)
    arrays, facts = load_input(engine, x)
    batch = len(next(iter(arrays.values()))) if arrays else 1
    chosen = choose(engine, taps, max(batch, 1))
    with whole_folder(target, force) as place:
        entries = run_taps(engine, arrays, chosen, place, check_range, progress)
        manifest = Manifest(
            entries, engine.dialect, engine.kernels, batch, model_facts(engine.data, path), facts, versions()
        )
        (place / MANIFEST).write_bytes(to_json(manifest))
    return Dump(target)


def choose(model: Model, taps: str | Iterable[str], batch: int) -> list[Entry]:
    """The entries that the taps stand for, in graph order, the graph's inputs among them."""
    known = catalogue(model.graph, batch)
    if taps == EVERYTHING:
        # In float32 the two kinds of taps are the same.
        chosen = [e for e in known if e.prefix != PRE or e.dtype != "float32"]
    else:
        wanted = set(model.graph.inputs)
        for tap in model.match_taps([taps] if isinstance(taps, str) else taps):
            prefix, bare = split_prefix(tap)
            wanted.add(prefix + model.graph.endpoints.get(bare, bare))
        chosen = [entry for entry in known if entry.name in wanted]
    files = stems(chosen)
    return [replace(entry, file=f"{files[entry.name]}.npy") for entry in chosen]


def versions() -> dict[str, str]:
    """Of all that has a say in the numbers."""
    found = {"npmobilenet": npmobilenet.__version__, "numpy": np.__version__, "python": platform.python_version()}
    with contextlib.suppress(metadata.PackageNotFoundError):
        found["numba"] = metadata.version("numba")
    return dict(sorted(found.items()))


# ---------------------------------------------------------------------------------------------------------------------
# Running and writing


def run_taps(
    model: Model, arrays: dict[str, Array], chosen: Sequence[Entry], place: Path | None, check_range: bool,
    progress: Progress | None,
) -> tuple[Entry, ...]:  # fmt: skip
    """Write all entries, but for `place` None; returns them with the shape, dtype and sha256 that they turned out to
    have.
    """
    batch = len(next(iter(arrays.values()))) if arrays else 1
    done: list[Entry] = []
    for group in groups(chosen, batch):
        names = [entry.name for entry in group]
        writers: dict[str, ArrayWriter] = {}
        sums = {name: hashlib.sha256() for name in names}
        found: dict[str, Entry] = {}
        for first in range(0, max(batch, 1), CHUNK):
            piece = {name: array[first : first + CHUNK] for name, array in arrays.items()}
            _, tapped = model.run(piece, taps=names, check_range=check_range)
            for entry in group:
                array = tapped[entry.name]
                if entry.name not in found:
                    shape = (batch, *array.shape[1:])
                    found[entry.name] = replace(entry, shape=shape, dtype=str(array.dtype))
                    if place is not None:
                        writers[entry.name] = ArrayWriter(place / entry.file, shape, str(array.dtype))
                writer = writers.get(entry.name)
                sums[entry.name].update(little_endian(array) if writer is None else writer.write(array))
        for writer in writers.values():
            writer.close()
        done += [replace(found[name], sha256=sums[name].hexdigest()) for name in names]
        if progress is not None:
            progress(len(done), len(chosen))
    return tuple(done)


def groups(chosen: Sequence[Entry], batch: int) -> Iterator[list[Entry]]:
    """The entries in order, cut so that what one run holds of a group stays within GROUP_BYTES (if it is several)."""
    group: list[Entry] = []
    held = 0
    for entry in chosen:
        size = min(batch, CHUNK) * int(np.prod(entry.shape[1:], dtype=np.int64)) * 4
        if group and held + size > GROUP_BYTES:
            yield group
            group, held = [], 0
        group.append(entry)
        held += size
    if group:
        yield group


# ---------------------------------------------------------------------------------------------------------------------
# Folders that appear whole


def check_target(target: Path, force: bool) -> None:
    """Refuse before any work what can't be written after it."""
    if not target.parent.is_dir() or "\0" in target.name:
        raise InputError(f"'{target}': there is no folder '{target.parent}'; make it first")
    if not target.exists() and not target.is_symlink():
        return
    if not force:
        raise InputError(f"'{target}' exists already; give another name, or replace it (--force, force=True)")
    if target.suffix == ".npz":
        good = target.is_file()
    else:
        good = target.is_dir() and not target.is_symlink() and (_is_dump(target) or not any(target.iterdir()))
    if not good:
        raise InputError(f"'{target}' is not a golden dump, so it isn't replaced; give another name")


def _is_dump(folder: Path) -> bool:
    try:
        found = json.loads(read_bytes(folder / MANIFEST).decode())
        return bool(found.get("format", "") in (FORMAT, f"{FORMAT}-export"))
    except (InputError, ValueError, AttributeError, RecursionError):
        return False


@contextmanager
def whole_folder(target: Path, force: bool) -> Iterator[Path]:
    """A temporary folder beside `target`, which takes its place when the block ends without an error.

    Raises `InputError` if that can't be written.
    """
    place = temporary_beside(target)
    try:
        place.mkdir()
        yield place
        if target.suffix == ".npz":
            _pack(place, target)
        else:
            _replace(place, target, force)
    except OSError as error:
        if error.filename is not None and not str(error.filename).startswith((str(place), str(target))):
            raise
        raise InputError(f"'{target}' can't be written: {error.strerror or error}") from error
    finally:
        _remove(place)


def _remove(folder: Path) -> None:
    try:
        shutil.rmtree(folder, ignore_errors=True)
    except BaseException:  # Ctrl-C or SIGTERM while it was being removed
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _replace(place: Path, target: Path, force: bool) -> None:
    old = target.parent / f"{place.name}.old"
    try:
        if force and target.exists():
            os.replace(target, old)
        os.rename(place, target)
    except BaseException:  # Ctrl-C and SIGTERM, too
        if old.exists() and not target.exists():
            os.replace(old, target)
        raise
    _remove(old)


def _pack(place: Path, target: Path) -> None:
    """All files of the folder as a stored .npz archive with fixed dates, so that equal dumps are equal files."""
    archive = place / "archive"
    files = sorted(place.iterdir())
    with zipfile.ZipFile(archive, "x", zipfile.ZIP_STORED) as packed:
        for path in files:
            with open(path, "rb") as source, packed.open(zipfile.ZipInfo(path.name), "w", force_zip64=True) as member:
                shutil.copyfileobj(source, member, 2**20)
    os.replace(archive, target)
