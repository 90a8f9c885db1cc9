"""Tar archives that may be hostile, as published checkpoints come (.tgz): unpacked under limits, and the model in them.

Only regular files are taken, each below the folder it goes to; an archive with anything else in it (links, devices,
paths that lead out) is refused whole. What Python's tarfile asks to be read at once is bounded, so no header can ask
for memory, and all that is unpacked is counted.
"""

from __future__ import annotations

import gzip
import os
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

from npmobilenet.errors import ConversionError
from npmobilenet.formats.archive import MOST_RATIO, SMALL_BYTES, is_resource_fork

MODEL_SUFFIXES = (".tflite", ".keras", ".h5", ".safetensors", ".pth", ".index")
MAX_MEMBERS = 1000  # published archives have fewer than ten
MAX_MEMBER_BYTES = 1 << 30
MAX_TOTAL_BYTES = 2 << 30
MAX_READ_BYTES = 1 << 20  # at once: a header's, or a piece of a member
MAX_DEPTH, MAX_NAME = 8, 200
_GZIP = b"\x1f\x8b"
_FOREIGN = ("\\", ":", "\0")  # separators and drives of Windows


class _Bounded:
    """A file for tarfile whose reads are bounded, one by one and in all."""

    def __init__(self, file: IO[bytes], most: int) -> None:
        self.file, self.most = file, most

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_READ_BYTES:
            raise ConversionError(f"a header of {size:,} bytes, at most {MAX_READ_BYTES:,} are read")
        data = self.file.read(size)
        self._check(self.file.tell())
        return data

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_SET:
            self._check(position)
        return self.file.seek(position, whence)

    def tell(self) -> int:
        return self.file.tell()

    def _check(self, position: int) -> None:
        if position > self.most:
            raise ConversionError(f"it unpacks to more than {self.most:,} bytes, which no MobileNet needs")


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """The model file of the archive (`model_in`), in a folder that is gone afterwards. Raises `ConversionError`."""
    with tempfile.TemporaryDirectory(prefix="npmobilenet-") as folder:
        yield model_in(unpack(path, Path(folder)), path)


def unpack(path: Path, folder: Path) -> list[Path]:
    """Unpack the model files of a tar archive, gzipped or not, into an empty folder; their paths.

    Raises `ConversionError`: no such archive, damaged, cut short, hostile, too large. `OSError`: the disk is full.
    """
    try:
        with open(path, "rb") as raw:
            packed = raw.seek(0, os.SEEK_END)
            most = min(MAX_TOTAL_BYTES, max(SMALL_BYTES, MOST_RATIO * packed))
            raw.seek(0)
            gzipped = raw.read(2) == _GZIP
            raw.seek(0)
            file: Any = gzip.GzipFile(fileobj=raw) if gzipped else raw
            found = _members(_Bounded(file, most), folder)
            while piece := file.read(MAX_READ_BYTES):  # to the end, where gzip's checksum is compared
                if file.tell() > most or not piece:
                    raise ConversionError(f"it unpacks to more than {most:,} bytes, which no MobileNet needs")
            return found
    except ConversionError as error:
        raise ConversionError(f"{path}: {error}; if you trust it, unpack it and pass the model file in it") from None
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError, RecursionError) as error:
        reason = f"{type(error).__name__}: {str(error)[:100]}"
        raise ConversionError(
            f"{path}: a damaged archive, or one that was cut short ({reason}); fetch it again, or, if it is a single "
            "file and no tar archive that was gzipped, unpack it and pass what comes out (gzip -dk FILE)"
        ) from error


def _members(file: _Bounded, folder: Path) -> list[Path]:
    found = []
    with tarfile.open(fileobj=file, mode="r:") as archive:  # type: ignore[call-overload]
        for count, info in enumerate(archive, 1):
            name = repr(info.name[:80])
            if count > MAX_MEMBERS:
                raise ConversionError(f"more than {MAX_MEMBERS} members, which no published model has")
            parts = _parts(info.name)
            if info.isdir():
                continue
            if not info.isreg() or info.issparse():
                raise ConversionError(f"member {name} is a link, a device or the like: expected files alone")
            if info.size > MAX_MEMBER_BYTES:
                raise ConversionError(f"member {name} has {info.size:,} bytes, at most {MAX_MEMBER_BYTES:,} are taken")
            if not _is_model(parts[-1]) or is_resource_fork(info.name):
                continue
            target = folder.joinpath(*parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            source = archive.extractfile(info)
            assert source is not None
            try:
                with open(target, "xb") as out:
                    while piece := source.read(MAX_READ_BYTES):
                        out.write(piece)
            except FileExistsError:
                raise ConversionError(f"two members are called {name}") from None
            if target.stat().st_size != info.size:
                raise EOFError(f"member {name} ends early")
            found.append(target)
    return found


def _parts(name: str) -> tuple[str, ...]:
    """A member's path below the folder. Raises `ConversionError` for one that leads elsewhere."""
    path = PurePosixPath(name)
    parts = path.parts
    out = path.is_absolute() or ".." in parts or any(sign in name for sign in _FOREIGN)
    if out or len(parts) > MAX_DEPTH or any(len(part.encode(errors="replace")) > MAX_NAME for part in parts):
        raise ConversionError(f"member {name[:80]!r} leads out of the archive's folder, or is no name for a file")
    return parts or (".",)


def _is_model(name: str) -> bool:
    return name.endswith(MODEL_SUFFIXES) or ".data-" in name


def model_in(files: Sequence[Path], archive: Path) -> Path:
    """The one model among files: a .tflite before Keras' and PyTorch's, these before a checkpoint (its prefix).

    Raises `ConversionError` for none, or for several of the same kind.
    """
    for group in ((".tflite",), (".keras", ".h5"), (".safetensors", ".pth"), (".index",)):
        found = [path for path in files if path.name.endswith(group)]
        if len(found) > 1:
            names = ", ".join(path.name for path in found[:8])
            raise ConversionError(f"{archive}: it holds {len(found)} models, {names}: unpack it, and pass one of them")
        if found:
            return found[0].with_suffix("") if group == (".index",) else found[0]
    raise ConversionError(f"{archive}: no model file that is read here is in it ({', '.join(MODEL_SUFFIXES)})")
