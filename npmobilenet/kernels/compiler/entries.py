"""Files of the cache: each ends in a sum of its name and its content.

So neither a damaged file is loaded, nor one that stands under another's name: its code would be linked or called as
what it isn't, and end the process.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

DIGEST = hashlib.sha256().digest_size


def sealed(name: str, content: bytes) -> bytes:
    """What a file of this name has to hold: the content, and the sum."""
    return content + hashlib.sha256(name.encode() + b"\0" + content).digest()


def unsealed(path: Path) -> bytes | None:
    """The content of a file; None where it is missing, damaged, or another's."""
    try:
        found = path.read_bytes()
    except OSError:
        return None
    content = found[:-DIGEST]
    return content if found == sealed(path.name, content) else None


def keep(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all."""
    part = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        part.write_bytes(sealed(path.name, content))
        part.replace(path)
    except OSError:  # a full disk, a folder that has become read-only: go on without
        with contextlib.suppress(OSError):
            part.unlink()
