"""The images that arguments of a command stand for: files, folders of them, patterns, and standard input."""

from __future__ import annotations

import glob
import os
import re
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from npmobilenet.errors import InputError
from npmobilenet.formats.model_path import is_address
from npmobilenet.images.decoding import MAX_FILE_BYTES

# Of files that are taken for images by their names, where a whole folder is looked through.
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
STANDARD_INPUT = "-"
_PARTED = r"/\\" if sys.platform == "win32" else "/"  # by these are the parts of a path
ANY_FOLDERS = re.compile(rf"(?<![^{_PARTED}])(?:\*\*(?:[{_PARTED}]+|$))+")


class Found(NamedTuple):
    """An image's name and what `decoding.load_image` takes for it, or why there is none."""

    name: str
    source: str | bytes | InputError


def is_image_name(name: str) -> bool:
    """Whether a file is an image by its name."""
    return name.lower().endswith(SUFFIXES)


def find_images(arguments: Iterable[str]) -> Iterator[Found]:
    """What each argument stands for, in order; nothing is opened but folders and standard input, when asked for.

    "-": the image on standard input, once. A folder: the images in it, told by their names, sorted; hidden files and
    subfolders are left out. What is no path but has `*`, `?` or `[` in it: the files that match, sorted, `**` through
    folders (shells expand these themselves, but not in quotes, nor on Windows). Anything else: a path.
    """
    read = False
    for argument in arguments:
        if argument == STANDARD_INPUT:
            again = InputError("standard input is given twice, and can be read but once")
            yield Found(STANDARD_INPUT, again if read else _standard_input())
            read = True
        elif os.path.isdir(argument):
            yield from _in_folder(argument)
        elif glob.has_magic(argument) and not (os.path.lexists(argument) or is_address(argument) or "\0" in argument):
            yield from _matching(argument)
        else:
            yield Found(argument, argument)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder or a link to one; a link that leads to itself is none, and no error."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _standard_input() -> bytes | InputError:
    if sys.stdin is None:
        return InputError("there is no standard input to read an image from")
    if sys.stdin.isatty():
        return InputError("standard input is a terminal: expected an image, as in: classify - < photo.jpg")
    try:
        content = sys.stdin.buffer.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        return InputError(f"standard input can't be read: {getattr(error, 'strerror', None) or error}")
    if len(content) > MAX_FILE_BYTES:
        return InputError(f"standard input has more than {MAX_FILE_BYTES:,} bytes: expected an image file")
    return content or InputError("standard input is empty: expected an image, as in: classify - < photo.jpg")


def _in_folder(folder: str) -> Iterator[Found]:
    try:
        with os.scandir(folder) as entries:
            names = sorted(e.name for e in entries if not e.name.startswith(".") and not is_folder(e))
    except OSError as error:
        yield Found(folder, InputError(f"'{folder}' can't be listed: {error.strerror or error}"))
        return
    images = [name for name in names if is_image_name(name)]
    if not images:
        yield Found(folder, InputError(
            f"'{folder}' is a folder without images ({len(names)} other files): expected {', '.join(SUFFIXES)} files "
            f"in it; those of its subfolders are '{os.path.join(folder, '**', '*.jpg')}'"
        ))  # fmt: skip
    yield from (Found(os.path.join(folder, name), os.path.join(folder, name)) for name in images)


def _matching(pattern: str) -> Iterator[Found]:
    files = sorted({path for path in _expanded(pattern) if not os.path.isdir(path)})
    if not files:
        yield Found(pattern, InputError(f"'{pattern}' matches no file; check the pattern and the folder"))
    yield from (Found(path, path) for path in files)


def _expanded(pattern: str) -> Iterator[str]:
    """As glob's `iglob`, with `**` for any folders, but none of them twice: a link up leads in circles."""
    parts = ANY_FOLDERS.split(pattern, maxsplit=1)
    if len(parts) == 1:
        yield from glob.iglob(pattern)
        return
    for base in glob.iglob(parts[0]) if glob.has_magic(parts[0]) else parts[:1]:
        for folder in _folders(base):
            yield from _expanded(os.path.join(glob.escape(folder), parts[1] or "*"))


def _folders(base: str) -> Iterator[str]:
    """A folder and all below it, hidden ones left out, each once, before links to it."""
    seen: set[tuple[int, int]] = set()
    waiting = deque([base])
    while waiting:
        folder = waiting.popleft()
        try:
            about = os.stat(folder or os.curdir)
            with os.scandir(folder or os.curdir) as entries:
                inner = sorted((e.is_symlink(), e.name) for e in entries if not e.name.startswith(".") and is_folder(e))
        except OSError:  # a file, or a folder that can't be listed: the pattern matches nothing there
            continue
        if (about.st_dev, about.st_ino) not in seen:
            seen.add((about.st_dev, about.st_ino))
            yield folder
            for link, name in inner:  # links last of all
                (waiting.append if link else waiting.appendleft)(os.path.join(folder, name))
