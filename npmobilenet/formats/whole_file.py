"""Files that are written whole: beside their place first, then renamed, so that no one ever sees half of one."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import IO

_BEGINS, _ENDS = ".npmobilenet-", ".tmp"


def temporary_beside(path: Path) -> Path:
    """A name that isn't taken, in the same folder, and so on the same disk."""
    return path.parent / f"{_BEGINS}{secrets.token_hex(8)}{_ENDS}"


def is_leftover(path: Path) -> bool:
    """Whether a file's name is that of one which was being written when the process was killed."""
    return path.name.startswith(_BEGINS) and path.name.endswith(_ENDS)


def write_whole(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Let `write` fill a file, then put it in the place of `path`. Raises OSError; what was there is then untouched.

    A link is followed, as by `open`. A device, a pipe or a folder isn't replaced: /dev/null, say, would be gone.
    """
    if "\0" in str(path):
        raise OSError(errno.EINVAL, "its name has a null character")
    path = Path(os.path.realpath(path))
    temporary = temporary_beside(path)
    if path.exists() and not path.is_file():
        raise OSError(errno.EEXIST, "it is there and no regular file, so it isn't replaced; name another", str(path))
    try:
        with open(temporary, "xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError, ValueError):
            temporary.unlink(missing_ok=True)
