"""The cache of compiled kernels: private, keyed, and never in the way."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import numpy as np
from npmobilenet.kernels import kernel_set, jit
compiled = []
jit.LISTENERS[:] = [compiled.append]
out = np.empty((1, 3), np.float32)
kernel_set("fast").softmax_f32(np.zeros((1, 3), np.float32), np.float32(1), out)
print(out[0, 0] == np.float32(1) / np.float32(3), *compiled, jit.cache_folder() is not None)
"""


def run(cache: Path, **more: str) -> str:
    env = {**os.environ, "NPMOBILENET_CACHE": str(cache), **more}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=env, capture_output=True, text=True, check=False)
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


def test_kernels_are_compiled_once(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert run(cache) == "True softmax_f32 True"
    assert run(cache) == "True True"
    assert (cache.stat().st_mode & 0o777) == 0o700


@pytest.mark.parametrize("pattern", ["*.nbi", "*.nbc"])
@pytest.mark.parametrize("content", [b"", b"junk", None], ids=["empty", "junk", "truncated"])
def test_damaged_cache_files_are_replaced(tmp_path: Path, pattern: str, content: bytes | None) -> None:
    cache = tmp_path / "cache"
    run(cache)
    [damaged] = cache.rglob(pattern)
    damaged.write_bytes(damaged.read_bytes()[:40] if content is None else content)
    assert run(cache) == "True softmax_f32 True"
    assert run(cache) == "True True"  # healed


def test_a_folder_that_others_can_write_to_is_not_used(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o777)
    shared.chmod(0o777)
    assert run(shared) == "True softmax_f32 False"
    assert list(shared.iterdir()) == []


def test_no_compiler_is_said(tmp_path: Path) -> None:
    assert "NUMBA_DISABLE_JIT is set" in run(tmp_path, NUMBA_DISABLE_JIT="1")
    assert "expected one of generic, avx2, avx512" in run(tmp_path, NPMOBILENET_ISA="sse9")
