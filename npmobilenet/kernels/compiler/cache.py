"""The folder of compiled code.

Only this user can write it (Numba's cache files are pickles, so a folder that others can write would let them run code
here). Its name is a hash of everything that the machine code depends on: the sources in `kernels/`, the versions of
Python, Numba, llvmlite and NumPy, the CPU and features that Numba compiles for, and its settings. A folder that can't
be made means no cache, not a failure. One that can't be written, or is root's (who may do anything here anyway), is
read, as in a container whose file system is read-only.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import sys
from pathlib import Path

import llvmlite
import numpy as np

from npmobilenet.arithmetic import fixedpoint
from npmobilenet.kernels.compiler.cpu import isa
from npmobilenet.kernels.compiler.remembered import cache_root, compiler, private


@functools.cache
def cache_key() -> str:
    """Hash of the kernel sources and of everything else that the compiled code depends on."""
    digest = hashlib.sha256()
    folder = Path(__file__).parent.parent
    for source in [*sorted(folder.rglob("*.py")), Path(fixedpoint.__file__)]:
        digest.update(source.relative_to(folder.parent).as_posix().encode() + b"\0" + source.read_bytes() + b"\0")
    numba = compiler()
    facts = [sys.version, numba.version, llvmlite.__version__, np.__version__, platform.machine()]
    for fact in (*facts, *numba.target, isa(), *numba.settings):
        digest.update(fact.encode() + b"\0")
    return digest.hexdigest()[:20]


@functools.cache
def cache_folder() -> Path | None:
    """The folder for compiled code, made if need be; None if there can't be one that others can't write."""
    try:
        root = cache_root().absolute()
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = root / f"kernels-{cache_key()}"
        for path in (root, folder):
            path.mkdir(mode=0o700, exist_ok=True)
            if not private(path):
                return None
        return folder if _writable(folder) or any(folder.iterdir()) else None
    except (OSError, RuntimeError):  # RuntimeError: no home folder can be determined
        return None


def _writable(folder: Path) -> bool:
    probe = folder / f".write-{os.getpid()}"
    try:
        probe.write_bytes(b"")
        probe.unlink()
    except OSError:
        return False
    return True


__all__ = ["cache_folder", "cache_key", "cache_root"]
