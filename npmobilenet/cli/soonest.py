"""The first answer with an empty cache: from the reference kernels, while another process compiles the fast ones.

The reference kernels compile in a third of the time and give the same bits. Whoever asks for one image has the answer
then; whoever asks for thousands goes on with the fast kernels as soon as they are there.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from npmobilenet.model import Model

PACKAGE_PARENT = os.fspath(Path(__file__).resolve().parents[2])
# Lower priority: where there is but one core, the answer comes first.
PROGRAM = """\
import os, sys
root, *arguments = sys.argv[1:]
if root not in sys.path:
    sys.path.insert(0, root)
if hasattr(os, "nice"):
    os.nice(5)
from npmobilenet.cli.soonest import compile_behind
compile_behind(*arguments)
"""
LOCK = ".compiling"
ABANDONED = 180  # seconds after which a lock is that of a process that was ended
SAID = (
    "npmobilenet: compiling the fast kernels in another process (kept for the next time); meanwhile the reference "
    "kernels answer, with the same bits"
)


class Soonest:
    """`model` to prepare images with, `now()` to run them: `load(kernels)`'s model with whichever kernels are there."""

    def __init__(self, load: Callable[[str], Model], kernels: str, path: str, dialect: str) -> None:
        self._load = load
        self._behind: subprocess.Popen[bytes] | None = None
        if kernels != "fast" or os.environ.get("NPMOBILENET_BEHIND") == "0" or not _cache_is_empty():
            self.model = load(kernels)
            return
        self.model = load("reference")
        command = [sys.executable, "-P", "-c", PROGRAM, PACKAGE_PARENT, path, dialect]
        quiet = subprocess.DEVNULL
        with contextlib.suppress(OSError):  # no memory for another process, say
            self._behind = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)
        if not os.environ.get("NPMOBILENET_QUIET"):
            print(SAID, file=sys.stderr, flush=True)

    def now(self) -> Model:
        """The model with the fast kernels once the other process has compiled them, until then with the others."""
        if self._behind is not None and self._behind.poll() is not None:
            compiled, self._behind = self._behind.returncode == 0, None
            if compiled:
                self.model = self._load("fast")
        return self.model


def _cache_is_empty() -> bool:
    """Whether there is a folder for compiled kernels, and none of the fast ones in it."""
    from npmobilenet.kernels.compiler.cache import cache_folder

    folder = cache_folder()
    return folder is not None and not any(folder.glob("run_alone_*"))


def compile_behind(path: str, dialect: str) -> None:
    """Compile what the model needs, into the cache, unless another process is at it: then wait for that one."""
    from npmobilenet.kernels.compiler.cache import cache_folder
    from npmobilenet.kernels.compiler.work_sharing import compile_loops
    from npmobilenet.model import load
    from npmobilenet.runtime.exclusive import exclusive

    folder = cache_folder()
    if folder is None:
        return
    lock = folder / LOCK
    while not _taken(lock):
        time.sleep(0.2)
    try:
        _ = load(path, dialect=dialect).plan().functions
        with exclusive(None, "fast") as threads:
            compile_loops(threads)
    finally:
        lock.unlink(missing_ok=True)


def _taken(lock: Path) -> bool:
    """Whether the lock is ours now; one that was left behind is taken away."""
    try:
        os.close(os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        with contextlib.suppress(OSError):
            if time.time() - lock.stat().st_mtime > ABANDONED:
                lock.unlink()
        return False
    return True
