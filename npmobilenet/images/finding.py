"""The images that arguments of a command stand for: files, folders of them, patterns, and standard input."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from npmobilenet.errors import InputError
from npmobilenet.formats.model_path import is_address
from npmobilenet.images.decoding import MAX_FILE_BYTES

# Of files that are taken for images by their names, where a whole folder is looked through.
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
STANDARD_INPUT = "-"


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
            names = sorted(e.name for e in entries if not e.name.startswith(".") and not e.is_dir())
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
    files = sorted(path for path in glob.iglob(pattern, recursive=True) if not os.path.isdir(path))
    if not files:
        yield Found(pattern, InputError(f"'{pattern}' matches no file; check the pattern and the folder"))
    yield from (Found(path, path) for path in files)
