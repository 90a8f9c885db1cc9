"""The cache of compiled kernels: private, keyed, and never in the way."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from platforms import needs_owners

from npmobilenet.kernels.compiler.cache import cache_folder, cache_root
from npmobilenet.kernels.compiler.cpu import ISAS

PROGRAM = """
import sys
import numpy as np
from npmobilenet.runtime.binding import Step
from npmobilenet.kernels import as_functions, kernel_set
from npmobilenet.kernels.compiler import cache, notices
compiled = []
hearing = notices.listening(compiled.append)
hearing.__enter__()
out = np.empty((1, 3), np.float32)
step = Step(kernel_set(sys.argv[1]).softmax_f32, (np.zeros((1, 3), np.float32), np.float32(1), out), "softmax")
for function in as_functions([step]):
    function(int(sys.argv[2]))
print(out[0, 0] == np.float32(1) / np.float32(3), *compiled, cache.cache_folder() is not None)
"""


SHARED = (
    PROGRAM.replace("softmax_f32, (np.zeros((1, 3), np.float32), np.float32(1), out)", "activation_f32, (x, 0, x)")
    .replace("out = ", "x = np.zeros(1 << 16, np.float32)\nout = ")
    .replace("    function(", "    for _ in range(2):\n        function(")
    .replace("out[0, 0] == np.float32(1) / np.float32(3), *compiled", "not x.any(), *compiled")
)


def run(cache: Path, kernels: str = "reference", threads: int = 1, program: str = PROGRAM, **more: str) -> str:
    env = {**os.environ, "NPMOBILENET_CACHE": str(cache), **more}
    done = subprocess.run(
        [sys.executable, "-c", program, kernels, str(threads)], env=env, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


def test_kernels_are_compiled_once(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert run(cache) == "True softmax_f32 True"
    assert run(cache) == "True True"
    if hasattr(os, "getuid"):
        assert (cache.stat().st_mode & 0o777) == 0o700


@pytest.mark.parametrize("threads", [1, 2])
def test_tasks_are_compiled_once(tmp_path: Path, threads: int) -> None:
    assert run(tmp_path, "fast", threads) == "True softmax_f32 run_alone True"
    assert run(tmp_path, "fast", threads) == "True True"


def test_a_first_answer_needs_no_loop_for_threads(tmp_path: Path) -> None:
    """A program's first turn is on one thread: its loop compiles in a quarter of the time. Later turns bring both."""
    both = SHARED.replace("range(2)", "range(99)")
    assert run(tmp_path, "fast", 2, SHARED) == "True activation_f32 run_alone True"
    assert run(tmp_path, "fast", 2, both) == "True run_together True"
    assert run(tmp_path, "fast", 2, both) == "True True"


DAMAGES = {
    "empty": lambda content: b"",
    "junk": lambda content: b"junk",
    "begun": lambda content: content[:40],
    "truncated": lambda content: content[:-9],
    "changed": lambda content: content[:-90] + bytes([content[-90] ^ 1]) + content[-89:],
    "short of a byte": lambda content: content[:90] + content[91:],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_cache_files_are_replaced(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    cache = tmp_path / "cache"
    run(cache)
    [damaged] = (path for path in cache.rglob("*") if path.is_file())
    damaged.write_bytes(damage(damaged.read_bytes()))
    assert run(cache) == "True softmax_f32 True"
    assert run(cache) == "True True"  # healed


def swap(first: Path, second: Path) -> None:
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)


def test_swapped_cache_files_are_replaced(tmp_path: Path) -> None:
    """Each whole, but another's: called as what it isn't, its code would end the process."""
    run(tmp_path, "fast")
    swap(*tmp_path.rglob("*.kernel"))
    assert run(tmp_path, "fast") == "True softmax_f32 run_alone True"
    assert run(tmp_path, "fast") == "True True"


def test_a_relative_xdg_cache_home_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NPMOBILENET_CACHE", raising=False)
    for home in ("", "cache", "./cache", "~/cache"):
        monkeypatch.setenv("XDG_CACHE_HOME", home)
        assert cache_root() == Path.home() / ".cache" / "npmobilenet"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_root() == tmp_path / "npmobilenet"


@needs_owners
def test_a_folder_that_others_can_write_to_is_not_used(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o777)
    shared.chmod(0o777)
    assert run(shared) == "True softmax_f32 False"
    assert list(shared.iterdir()) == []


READ_ONLY = """
import os, sys
def refuse(event, args):
    where = {"open": 0, "os.mkdir": 0, "os.remove": 0, "os.rename": 1}.get(event)
    writes = event != "open" or (args[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if where is not None and writes and str(args[where]).startswith(os.environ["NPMOBILENET_CACHE"]):
        raise OSError(30, "Read-only file system", str(args[where]))
sys.addaudithook(refuse)
"""


def test_a_folder_that_can_only_be_read_is_read(tmp_path: Path) -> None:
    """As in a container: what was compiled before is used, what wasn't is compiled in each run."""
    cache = tmp_path / "cache"
    assert run(cache, "fast") == "True softmax_f32 run_alone True"
    before = sorted(cache.rglob("*"))
    assert run(cache, "fast", program=READ_ONLY + PROGRAM) == "True True"
    assert run(cache, "reference", program=READ_ONLY + PROGRAM) == "True softmax_f32 True"
    assert sorted(cache.rglob("*")) == before
    assert run(tmp_path / "none", program=READ_ONLY + PROGRAM) == "True softmax_f32 False"


def test_a_folder_of_roots_is_read_by_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if not hasattr(os, "getuid"):
        pytest.skip("this platform has no owners and modes of files")
    monkeypatch.setenv("NPMOBILENET_CACHE", str(tmp_path))
    cache_folder.cache_clear()
    try:
        assert cache_folder() is not None
        for owner, used in ((os.getuid() + 1, os.getuid() == 0), (os.getuid(), True)):
            monkeypatch.setattr(os, "getuid", lambda owner=owner: owner)
            cache_folder.cache_clear()
            assert (cache_folder() is not None) is used
    finally:
        monkeypatch.undo()
        cache_folder.cache_clear()


def test_no_compiler_is_said(tmp_path: Path) -> None:
    assert "NUMBA_DISABLE_JIT is set" in run(tmp_path, NUMBA_DISABLE_JIT="1")
    assert f"expected one of {', '.join(ISAS)}" in run(tmp_path, NPMOBILENET_ISA="sse9")


FORMS = """
import sys
import numpy as np
from npmobilenet.kernels import kernel_set
for dtype in sys.argv[1:]:
    out = np.zeros((1, 4), dtype)
    kernel_set("fast").reshape_q(np.arange(4).astype(dtype), out.reshape(-1))
    print(*out[0])
"""


def test_forms_of_a_task_are_kept_apart(tmp_path: Path) -> None:
    """Loaded or compiled, in any order: every form has symbols of its own."""
    env = {**os.environ, "NPMOBILENET_CACHE": str(tmp_path)}
    for dtypes in (["uint8"], ["uint8", "int8"], ["int8"], ["int8", "uint8", "int32"]):
        words = [sys.executable, "-c", FORMS, *dtypes]
        done = subprocess.run(words, env=env, capture_output=True, text=True, check=True)
        assert done.stdout.split("\n")[:-1] == ["0 1 2 3"] * len(dtypes)


TILES = """
import sys
import numba
import numpy as np
from npmobilenet.kernels.compiler import notices, object_code
from npmobilenet.kernels import kernel_set
numba.set_num_threads(1)
compiled, made = [], []
hearing = notices.listening(compiled.append)
hearing.__enter__()
make = object_code._compile
object_code._compile = lambda symbol, *rest: (made.append(symbol), make(symbol, *rest))
x, w, bias = np.ones((1, 4, 4, 16), np.float32), np.ones((3, 3, 16), np.float32), np.zeros(16, np.float32)
out = np.empty((1, 4, 4, 16), np.float32)
kernel_set("fast").depthwise_conv2d_f32(x, w, bias, (1, 1), (1, 1), (1, 1), 0, out)
print(out[0, :, :, 0].astype(int).ravel().tolist() == [4, 6, 6, 4, 6, 9, 9, 6, 6, 9, 9, 6, 4, 6, 6, 4], len(made),
      *compiled)
"""


def run_tiles(cache: Path) -> str:
    env = {**os.environ, "NPMOBILENET_CACHE": str(cache)}
    done = subprocess.run([sys.executable, "-c", TILES], env=env, capture_output=True, text=True, check=False)
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


def test_tiles_are_compiled_once(tmp_path: Path) -> None:
    """By the first kernel that needs them, and loaded with each that does."""
    kernel = "depthwise_conv2d_f32_3 run_alone"
    assert run_tiles(tmp_path) == f"True 2 {kernel}"
    assert run_tiles(tmp_path) == "True 0"
    for path in tmp_path.rglob("depthwise*.kernel"):
        path.unlink()
    assert run_tiles(tmp_path) == "True 0 depthwise_conv2d_f32_3"


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_tiles_are_replaced(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    """A kernel whose tile is missing is compiled again: linked without it, it would end the process."""
    run_tiles(tmp_path)
    first, second = sorted(tmp_path.rglob("*.o"))
    first.write_bytes(damage(first.read_bytes()))
    assert run_tiles(tmp_path) == "True 1 depthwise_conv2d_f32_3"
    swap(first, second)
    assert run_tiles(tmp_path) == "True 2 depthwise_conv2d_f32_3"
    second.unlink()
    assert run_tiles(tmp_path) == "True 1 depthwise_conv2d_f32_3"
    assert run_tiles(tmp_path) == "True 0"
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".npmobilenet")]


def test_tiles_without_a_cache_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert run_tiles(tmp_path / "file") == "True 2 depthwise_conv2d_f32_3 run_alone"
