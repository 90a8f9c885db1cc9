"""A start whose kernels all come from the cache never imports Numba, and whatever then needs Numba gets it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PROGRAM = """
import hashlib, os, sys
import numpy as np
sys.path.insert(0, sys.argv[1])
before, after = sys.argv[2:4]
exec(before)
from models import images, tiny
from npmobilenet.kernels.compiler.notices import listening
compiled = []
hearing = listening(compiled.append)
hearing.__enter__()
model, x = tiny(), images(1)
first = model.run(x)
for _ in range(99):
    assert model.run(x).tobytes() == first.tobytes()
exec(after)
print(hashlib.sha256(first.tobytes()).hexdigest()[:8], "numba" in sys.modules, *compiled)
"""


def run(cache: Path, before: str = "", after: str = "", cwd: Path | None = None, **more: str) -> list[str]:
    """The result's hash, whether Numba was imported, and what was compiled."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA")}
    env |= {"NPMOBILENET_CACHE": str(cache), "NPMOBILENET_QUIET": "1", **more}
    command = [sys.executable, "-c", PROGRAM, str(HERE.parent), before, after]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A cache with all that the model needs, and the hash of its result."""
    cache = tmp_path_factory.mktemp("cache")
    found, imported, *compiled = run(cache)
    assert imported == "True"
    assert {"run_alone", "run_together", "softmax_f32"} <= set(compiled)
    return cache, found


def test_a_full_cache_needs_no_numba(full: tuple[Path, str]) -> None:
    cache, found = full
    assert run(cache) == [found, "False"]


DAMAGES: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: path.unlink(),
    "damaged": lambda path: path.write_bytes(path.read_bytes()[:-50] + bytes(50)),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_kernel_that_is_not_there_is_compiled(full: tuple[Path, str], damage: Callable[[Path], object]) -> None:
    """Numba is imported then, beside kernels and threads that are there without it."""
    cache, found = full
    for name in ("softmax_f32", "run_together"):
        [path] = cache.rglob(f"{name}_*.kernel")
        damage(path)
        assert run(cache) == [found, "True", name]
        assert run(cache) == [found, "False"]


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_what_numba_said_is_asked_again(full: tuple[Path, str], damage: Callable[[Path], object]) -> None:
    cache, found = full
    [path] = cache.glob("numba-*.json")
    damage(path)
    assert run(cache) == [found, "True"]
    assert run(cache) == [found, "False"]


def test_numba_that_is_told_something_is_asked(full: tuple[Path, str], tmp_path: Path) -> None:
    """Variables and Numba's file: they rule as ever, so that other code is compiled where they want other code."""
    cache, found = full
    assert run(cache, NUMBA_NUM_THREADS="1") == [found, "True"]
    assert run(cache, NUMBA_THREADING_LAYER="workqueue") == [found, "True"]
    (tmp_path / ".numba_config.yaml").write_text('opt: "3"\n')  # a number that isn't quoted Numba can't parse
    assert run(cache, cwd=tmp_path)[:2] == [found, "True"]
    before = len(list(cache.iterdir()))
    again, imported, *compiled = run(cache, NUMBA_OPT="1")
    assert (again, imported, len(list(cache.iterdir()))) == (found, "True", before + 1)
    assert "softmax_f32" in compiled


USERS = """
import numba
@numba.njit(parallel=True)
def own(a):
    for i in numba.prange(a.size):
        a[i] = numba.get_thread_id()
    return a.max()
def check(most):
    assert numba.get_num_threads() == most == numba.config.NUMBA_NUM_THREADS, (numba.get_num_threads(), most)
    own(np.zeros(1000))
    if numba.threading_layer() == "omp":
        from npmobilenet.kernels.compiler.without_numba import extension
        layer = extension("numba.np.ufunc.omppool")
        assert layer.parallel_for == numba.np.ufunc.omppool.parallel_for  # one copy of the pool
"""


def test_numba_of_the_users_own_has_the_same_threads(full: tuple[Path, str]) -> None:
    """Imported before us or after, its parallel code and ours run in turn; numbers of threads are its own again."""
    cache, found = full
    turns = "check(numba.config.NUMBA_NUM_THREADS)\nassert model.run(x).tobytes() == first.tobytes()\n"
    assert run(cache, after=USERS + 3 * turns) == [found, "True"]
    assert run(cache, before=USERS, after=3 * turns) == [found, "True"]
    fewer = "numba.set_num_threads(1)\nassert model.run(x).tobytes() == first.tobytes()\n"
    fewer += "assert numba.get_num_threads() == 1\n"
    assert run(cache, after=USERS + turns + fewer) == [found, "True"]
    one = "from npmobilenet.kernels.compiler.pool import pool\nassert pool().share() == pool().most\n"
    assert run(cache, after=one) == [found, "False"]


FORKED = """
from npmobilenet.errors import PlanError
child = os.fork()
if not child:
    try:
        same = model.run(x).tobytes() == first.tobytes()
        os._exit(0 if same and layer != "omp" else 1)
    except PlanError as error:
        os._exit(0 if layer == "omp" and "was forked" in str(error) else 2)
assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
def test_after_a_fork_the_threads_are_known_to_be_gone(full: tuple[Path, str]) -> None:
    cache, found = full
    layer = "from npmobilenet.kernels.compiler.pool import pool\nlayer = pool().layer\n"
    assert run(cache, after=layer + FORKED) == [found, "False"]
