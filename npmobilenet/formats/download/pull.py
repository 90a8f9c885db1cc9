"""`pull`: a published model from its address to the weight file that `load` finds by its name."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from npmobilenet.errors import ConversionError, DownloadError, MissingExtra, NpMobilenetError
from npmobilenet.formats import read_model, tarred, weightfile
from npmobilenet.formats.file_kinds import kind_of
from npmobilenet.modeldata import ASSUMED, ModelData, ModelInfo
from npmobilenet.zoo.checkpoints import Checkpoint, locate, resolve
from npmobilenet.zoo.local import data_home, models_folder
from npmobilenet.zoo.published import SHA256

Listener = Callable[[int, int | None], None]
RECIPE = "slim_inception_eval"  # by which the published accuracies were measured
_PLAIN = "http://download.tensorflow.org/"  # a bucket of Google's, which has an encrypted address, too
_ENCRYPTED = "https://storage.googleapis.com/download.tensorflow.org/"


@dataclass(frozen=True)
class Pulled:
    """What `pull` did: the weight file, the address, the archive's sha256, and whether it had to be fetched."""

    name: str
    path: Path
    url: str
    sha256: str
    fetched: bool


def pull(
    name: str, *, archive: str | os.PathLike[str] | None = None, force: bool = False,
    on_progress: Listener | None = None, on_wait: Callable[[str], None] | None = None,
) -> Pulled:  # fmt: skip
    """Fetch a published model (any spelling of its name) and put its weight file where `load` finds it.

    `archive`: a file that was fetched by other means, in the place of the network. `force`: also if the model is there.
    Its sha256 is compared with the one that is known, or that was recorded when it was first fetched on this machine.
    Nothing is seen of a model before it is whole; several processes may pull the same one at once.

    Raises `ModelNotFound` (no such published model), `DownloadError`, `ConversionError`, `MissingExtra` (httpx).
    """
    if not force and archive is None and (there := locate(name)) is not None:
        return Pulled(there.stem, there, "", "", False)
    row = resolve(name)
    url, home = address(row), data_home()
    key = f"{row.url.rpartition('/')[2].removesuffix('.tgz')}-{hashlib.sha256(row.url.encode()).hexdigest()[:8]}"
    target = models_folder() / f"{row.name}.h5"
    try:
        for folder in (home / "downloads", home / "sums", target.parent):
            folder.mkdir(parents=True, exist_ok=True)
        with _locked(home / "downloads" / f"{key}.lock", lambda: on_wait and on_wait(row.name)):
            if not force and archive is None and target.is_file():  # another process was faster
                return Pulled(row.name, target, url, "", False)
            packed = home / "downloads" / f"{key}.tgz"
            source = packed if archive is None else Path(archive)
            if archive is None:
                _fetch(row, url, packed, on_progress)
            note = home / "sums" / f"{key}.sha256"
            try:
                sha256 = _sum(source)
                _check_kind(row, source)
                _check_sum(row, sha256, note)
                ready = _make(row, source, url, sha256, home / "downloads" / f"{key}.unpacked")
            finally:
                packed.unlink(missing_ok=True)
            if not note.is_file():
                fresh = ready.with_suffix(".sha256")
                fresh.write_text(f"{sha256}  {row.url}\n", encoding="utf-8", newline="\n")
                os.replace(fresh, note)
            os.replace(ready, target)  # the last act: whoever finds the model finds nothing else left
    except OSError as error:
        raise DownloadError(f"'{error.filename or home}': {error.strerror or error}. NPMOBILENET_HOME names another "
                            "folder for models") from error  # fmt: skip
    return Pulled(row.name, target, url, sha256, archive is None)


def address(row: Checkpoint) -> str:
    """Where to fetch a checkpoint: its published address, encrypted; below NPMOBILENET_MIRROR if that is set.

    A mirror has the host as its first folder: MIRROR/storage.googleapis.com/mobilenet_v2/checkpoints/NAME.tgz.
    """
    url = row.url.replace(_PLAIN, _ENCRYPTED, 1)
    mirror = os.environ.get("NPMOBILENET_MIRROR", "").rstrip("/")
    if not mirror:
        return url
    if not re.match(r"https?://", mirror):
        raise DownloadError(f"NPMOBILENET_MIRROR={mirror:.80}: expected an address, https://...")
    parts = urlsplit(url)
    return f"{mirror}/{parts.netloc}{parts.path}"


def offline() -> bool:
    """Whether NPMOBILENET_OFFLINE forbids the network."""
    return os.environ.get("NPMOBILENET_OFFLINE", "") not in ("", "0")


def _by_other_means(row: Checkpoint) -> str:
    file = row.url.rpartition("/")[2]
    return (
        f"Fetch {row.url.replace(_PLAIN, _ENCRYPTED, 1)} by other means, then: "
        f"npmobilenet pull {row.name} --archive {file}"
    )


def _fetch(row: Checkpoint, url: str, packed: Path, on_progress: Listener | None) -> None:
    if offline():
        raise DownloadError(f"NPMOBILENET_OFFLINE is set, so {row.name} isn't fetched. {_by_other_means(row)}")
    packed.unlink(missing_ok=True)
    try:
        from npmobilenet.formats.download import web
    except MissingExtra as error:
        raise MissingExtra("httpx", "pull", f"Fetching {row.name}") from error
    try:
        web.download(url, packed, on_progress)
    except DownloadError as error:
        raise DownloadError(f"{error}. {_by_other_means(row)}") from error


def _sum(path: Path) -> str:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe could block for ever
            raise DownloadError(f"'{path}' is no regular file: expected the archive, as it was fetched")
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise DownloadError(f"there is no archive '{path}'; check the path") from None
    except OSError as error:
        raise DownloadError(f"the archive '{path}' can't be read: {error.strerror or error}") from error


def _check_kind(row: Checkpoint, source: Path) -> None:
    """Refuse what isn't packed: a page to log in at, say, which a server sends as if it were the file."""
    kind = kind_of(source)
    if kind is None or kind.reader != "tar":
        what = "nothing that is known" if kind is None else kind.name
        raise DownloadError(f"what came for {row.name} is {what}, no archive. {_by_other_means(row)}")


def _check_sum(row: Checkpoint, sha256: str, note: Path) -> None:
    """Refuse what isn't the archive that is known, or was first seen."""
    pinned = SHA256.get(row.url)
    seen = note.read_text(encoding="utf-8")[:64] if note.is_file() else None
    expected = pinned or seen
    if expected is None or expected == sha256:
        return
    whence = "known for it" if pinned else f"recorded in '{note}' when it was first fetched"
    remedy = _by_other_means(row) if pinned else "If it was published anew, remove that file"
    raise DownloadError(
        f"the archive of {row.name} has the sha256 {sha256}, and {expected} is {whence}: refused. {remedy}"
    )


def _make(row: Checkpoint, source: Path, url: str, sha256: str, work: Path) -> Path:
    """Unpack, choose, convert: the weight file, beside `work`, of which nothing is left."""
    ready = work.with_suffix(".h5")
    shutil.rmtree(work, ignore_errors=True)  # of a process that was killed
    work.mkdir()
    try:
        found = _the_model(row, tarred.unpack(source, work), source)
        said = {k: v for k, v in found.info.provenance.items() if k != ASSUMED}
        facts = {**said, "archive": row.url, "archive sha256": sha256}
        facts |= {"fetched from": url} if url != row.url else {}
        facts |= {"published top-1": row.top1} if row.top1 else {}
        info = ModelInfo(row.name, "imagenet", 1, RECIPE, facts)
        weightfile.write(work / ready.name, replace(found, info=info))
        os.replace(work / ready.name, ready)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return ready


def _the_model(row: Checkpoint, files: Sequence[Path], source: Path) -> ModelData:
    """The model of that row among the archive's files: a .tflite of its number format and size, else the checkpoint."""
    wrong = []
    models = [path for path in files if path.suffix == ".tflite"]
    models += [path.with_suffix("") for path in files if path.suffix == ".index" and row.dtype == "float32"]
    for path in models:
        try:
            data = read_model(path, None if path.suffix == ".tflite" else row.name)
        except NpMobilenetError as error:
            wrong.append(f"{path.name}: {error}")
            continue
        tensor = data.graph.tensors[data.graph.inputs[0]]
        if (tensor.dtype, tensor.shape) == (row.dtype, (1, row.resolution, row.resolution, 3)):
            return data
        wrong.append(f"{path.name} takes {tensor.dtype} {tensor.shape}")
    there = "; ".join(wrong[:3]) or "no .tflite file and no checkpoint"
    raise ConversionError(f"the archive '{source}' holds no {row.name} ({row.dtype}, {row.resolution}): {there}")


@contextlib.contextmanager
def _locked(path: Path, waiting: Callable[[], object]) -> Iterator[None]:
    """One process at a time; the system lets go of the lock of one that ends, however it does."""
    with open(path, "a+b") as file:
        told = False
        while not _try_lock(file.fileno()):
            if not told:
                waiting()
            told = True
            time.sleep(0.1)
        yield


def _try_lock(descriptor: int) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except OSError:
            return False
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
