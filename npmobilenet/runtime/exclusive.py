"""Running compiled kernels in this process: one run at a time, on a chosen number of threads, and never after a fork.

One at a time, because Numba's "workqueue" threading layer aborts the process when two threads enter parallel code, and
with the other layers two runs would only compete for the same cores. Runs on one thread, by plans of their own, may go
side by side. How the threads of one run share its work: kernels/compiler/work_sharing.py.
"""

from __future__ import annotations

import os
import sys
import threading

from npmobilenet.errors import PlanError


class _State:
    """What this process knows of its runs."""

    lock = threading.Lock()
    ran = False  # kernels have run here, so the threading layer has threads
    layer = ""  # the name of that layer
    forked = False  # this process is a fork of one that had


def _after_fork() -> None:
    """In the child: the parent's lock may have been held by a thread that doesn't exist here."""
    _State.lock = threading.Lock()
    _State.forked = _State.forked or _State.ran


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


# Turns of its waiting loop that an idle OpenMP thread takes before it sleeps: some 200 us, longer than the gap between
# two kernels and what one thread usually waits for the other. GNU OpenMP's own count amounts to milliseconds: with
# other processes busy on both cores, a run of V2 0.5_96 (uint8, two threads) took 756 ms with that and 70 ms with this;
# alone, 0.8 to 1 ms with either. A tenth of it would suit busy machines better (9 ms) and idle ones worse (1.3 ms).
SPINS = "10000"


def limit_spinning() -> None:
    """Let GNU OpenMP load with a short wait, unless the environment says how it shall wait or it is there already.

    It reads the environment once, when it is loaded; the variable is taken back afterwards. Called once, since looking
    through the environment takes 12 us. Elsewhere than on Linux
    Numba's OpenMP is another's, which doesn't read the variable.
    """
    if sys.platform.startswith("linux") and not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & set(os.environ):
        from npmobilenet.kernels.compiler.without_numba import load_openmp

        load_openmp("GOMP_SPINCOUNT", SPINS)


class exclusive:  # noqa: N801
    """A block in which this thread alone runs kernels, on `threads` threads (None: all; more than there are: all).

    `apart`: of a run on one thread whose plan no other thread has; it needs no turn.

    Raises `PlanError` where Numba can't start its threads, or would kill the process for starting them after a fork.
    """

    def __init__(self, threads: int | None, kernels: str, apart: bool = False) -> None:
        self.threads = threads
        self.compiled = kernels != "python"
        self.apart = apart

    def __enter__(self) -> int:
        """The number of threads. One thread, and kernels that aren't compiled, need none of Numba's."""
        self.before: int | None = None
        if self.apart:
            return 1
        _State.lock.acquire()
        try:
            return self._start() if self.compiled and self.threads != 1 else 1
        except BaseException:
            _State.lock.release()
            raise

    def _start(self) -> int:
        from npmobilenet.kernels.compiler.pool import pool

        if not _State.ran:
            limit_spinning()
        if _State.forked and _State.layer == "omp":
            raise PlanError(
                "this process was forked from one that had already run a model, and GNU OpenMP's threads don't survive "
                "that: use multiprocessing's 'spawn' or 'forkserver', fork before the first run, or set "
                "NUMBA_THREADING_LAYER=workqueue"
            )
        try:
            self.pool = threads = pool()  # starts them if need be
            self.before = threads.share()
        except ValueError as error:
            raise PlanError(f"Numba can't start its threads: {error} Check NUMBA_THREADING_LAYER") from error
        _State.ran, _State.layer = True, threads.layer
        wanted = self.before if self.threads is None else min(self.threads, threads.most)
        if wanted == self.before:
            self.before = None  # nothing to take back
        else:
            threads.limit(wanted)
        return int(wanted)

    def __exit__(self, *_: object) -> None:
        try:
            if self.before is not None:
                self.pool.limit(self.before)
        finally:
            if not self.apart:
                _State.lock.release()
