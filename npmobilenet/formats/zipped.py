"""A model in a zip archive, as Teachable Machine hands it out: the one model file in it, and its labels.txt.

Of the archive two members are unpacked, into a folder that is gone afterwards, under names of their own last part.
"""

from __future__ import annotations

import re
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from npmobilenet.errors import ConversionError
from npmobilenet.formats import archive
from npmobilenet.formats.file_kinds import BY_SUFFIX, kind_of
from npmobilenet.formats.label_file import BESIDE, MAX_LABEL_BYTES

MAX_MODEL_BYTES = 512 << 20  # what each reader takes
_PIECE = 1 << 20
_LISTED = 8
_MOST_LOOKED_AT = 16 << 20  # bytes of a member that isn't a model read here


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """The model file of the archive, in a folder with its labels.txt, for as long as the `with` lasts.

    Raises `ConversionError` for an archive of no model or of several, one that is damaged, and what is too large.
    """
    with tempfile.TemporaryDirectory(prefix="npmobilenet-") as folder:
        yield _unpack(path, Path(folder))


def _unpack(path: Path, folder: Path) -> Path:
    try:
        with archive.opened(path) as file:
            members = [
                info for info in file.infolist() if not info.is_dir() and not archive.is_resource_fork(info.filename)
            ]
            model = _the_model(path, file, members)
            target = folder / _plain(PurePosixPath(model.filename).name)
            _write(file, model, MAX_MODEL_BYTES, target)
            if (labels := _labels_of(model, members)) is not None:
                _write(file, labels, MAX_LABEL_BYTES, folder / BESIDE)
            return target
    except archive.ERRORS as error:  # ArchiveError is one of them
        if isinstance(error, ConversionError):
            raise
        raise ConversionError(f"{path}: {error}; fetch it again, or unpack it and pass the model file in it") from error


def _the_model(path: Path, file: zipfile.ZipFile, members: list[zipfile.ZipInfo]) -> zipfile.ZipInfo:
    found = [info for info in members if PurePosixPath(info.filename).suffix.lower() in BY_SUFFIX]
    if len(found) > 1:
        names = _listed(found)
        raise ConversionError(f"{path}: a zip archive of {len(found)} models: {names}; unpack it, and pass one of them")
    if not found:
        raise ConversionError(
            f"{path}: this is a zip archive without a model file ({', '.join(BY_SUFFIX)}): it holds {_listed(members)}"
            f"{_other(file, members)}"
        )
    return found[0]


def _listed(members: list[zipfile.ZipInfo]) -> str:
    names = [repr(info.filename[:80]) for info in members[:_LISTED]]
    more = f", and {len(members) - _LISTED} more" if len(members) > _LISTED else ""
    return ", ".join(names) + more if names else "nothing"


def _other(file: zipfile.ZipFile, members: list[zipfile.ZipInfo]) -> str:
    """What the first member of another kind is, if one is of any, and what its holder can do."""
    with tempfile.TemporaryDirectory(prefix="npmobilenet-") as folder:
        for info in members[:_LISTED]:
            if info.file_size <= _MOST_LOOKED_AT:
                target = Path(folder, _plain(PurePosixPath(info.filename).name))
                _write(file, info, _MOST_LOOKED_AT, target)
                kind = kind_of(target)
                if kind is not None and not kind.vague and kind.advice:
                    return f", and {info.filename[:80]!r} is {kind.name}. What you can do: {kind.advice}"
    return ". What you can do: unpack it first, and pass the model file in it, if there is one"


def _labels_of(model: zipfile.ZipInfo, members: list[zipfile.ZipInfo]) -> zipfile.ZipInfo | None:
    """The labels.txt beside the model, or the only one there is."""
    found = [info for info in members if PurePosixPath(info.filename).name == BESIDE]
    beside = [i for i in found if PurePosixPath(i.filename).parent == PurePosixPath(model.filename).parent]
    return next(iter(beside or (found if len(found) == 1 else [])), None)


def _plain(name: str) -> str:
    """A file name of letters, digits and "._-", that says what the member's says."""
    return re.sub(r"[^\w.-]", "_", name, flags=re.ASCII)[-100:].lstrip(".") or "member"


def _write(file: zipfile.ZipFile, info: zipfile.ZipInfo, most: int, target: Path) -> None:
    """Unpack a member of at most that many bytes, whatever its header declares."""
    with archive.member(file, info, most) as source, target.open("wb") as out:
        left = most
        while piece := source.read(min(_PIECE, left + 1)):
            left -= len(piece)
            if left < 0:
                raise archive.ArchiveError(f"member {info.filename[:80]!r} has more than {most:,} bytes")
            out.write(piece)
