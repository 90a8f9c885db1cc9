"""The first answer with an empty cache: the reference kernels', while another process compiles the fast ones."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("click", reason="the command line needs the extra [cli]")

from npmobilenet.cli import soonest
from npmobilenet.cli.soonest import LOCK, Soonest, compile_behind
from npmobilenet.kernels.compiler import cache

ROOT = Path(__file__).resolve().parents[2]


class Process:
    """A process that is at work until it gets a return code."""

    returncode: int | None = None

    def poll(self) -> int | None:
        return self.returncode


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Process]:
    """The processes that are started, none of which does anything; the cache is an empty folder."""
    found: list[Process] = []

    def start(command: Any, **how: Any) -> Process:
        assert how["stdout"] == how["stdin"] == how["stderr"] == subprocess.DEVNULL  # whoever reads ours sees an end
        found.append(Process())
        return found[-1]

    monkeypatch.setattr(soonest.subprocess, "Popen", start)
    monkeypatch.setattr(cache, "cache_folder", lambda: tmp_path)
    monkeypatch.delenv("NPMOBILENET_BEHIND")
    monkeypatch.setenv("NPMOBILENET_QUIET", "1")
    return found


def load(kernels: str) -> Any:
    return kernels


def test_reference_kernels_answer_until_the_fast_ones_are_there(started: list[Process]) -> None:
    model = Soonest(load, "fast", "flowers", "tflite-reference")
    assert len(started) == 1
    assert [model.model, model.now(), model.now()] == ["reference"] * 3
    started[0].returncode = 0
    assert [model.now(), model.now()] == ["fast"] * 2


def test_a_process_that_fails_changes_nothing(started: list[Process]) -> None:
    model = Soonest(load, "fast", "flowers", "tflite-reference")
    started[0].returncode = 1
    assert [model.now(), model.now()] == ["reference"] * 2


@pytest.mark.parametrize("why", ["other kernels", "switched off", "compiled before", "no folder"])
def test_no_process_without_need(
    why: str, started: list[Process], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kernels = "python" if why == "other kernels" else "fast"
    if why == "switched off":
        monkeypatch.setenv("NPMOBILENET_BEHIND", "0")
    elif why == "compiled before":
        (tmp_path / "run_alone_0123.kernel").write_bytes(b"")
    elif why == "no folder":
        monkeypatch.setattr(cache, "cache_folder", lambda: None)
    model = Soonest(load, kernels, "flowers", "tflite-reference")
    assert model.now() == kernels
    assert not started


def test_a_machine_that_starts_no_process(started: list[Process], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **how: Any) -> Any:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(soonest.subprocess, "Popen", fail)
    assert Soonest(load, "fast", "flowers", "tflite-reference").now() == "reference"


def test_one_process_compiles_at_a_time(
    started: list[Process], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Others wait for its lock, and take one that was left behind; it goes also where compiling fails."""
    monkeypatch.setattr("npmobilenet.model.load", lambda *a, **k: 1 / 0)
    (tmp_path / LOCK).touch()
    late = threading.Timer(0.3, (tmp_path / LOCK).unlink)
    late.start()
    began = time.monotonic()
    with pytest.raises(ZeroDivisionError):
        compile_behind("flowers", "tflite-reference")
    assert time.monotonic() - began > 0.25
    assert not (tmp_path / LOCK).exists()
    (tmp_path / LOCK).touch()
    os.utime(tmp_path / LOCK, (0, 0))
    with pytest.raises(ZeroDivisionError):
        compile_behind("flowers", "tflite-reference")


def test_classify_with_an_empty_cache(tmp_path: Path) -> None:
    """It answers, says how, and another process fills the cache: the next run is silent, and prints the same."""
    env = {key: value for key, value in os.environ.items() if key not in ("NPMOBILENET_BEHIND", "NPMOBILENET_QUIET")}
    env |= {"NPMOBILENET_CACHE": os.fspath(tmp_path), "PYTHONPATH": os.fspath(ROOT)}

    def classify() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "npmobilenet", "classify"]
        return subprocess.run(command, env=env, capture_output=True, text=True, check=True)

    first = classify()
    assert "another process" in first.stderr
    end = time.monotonic() + 120
    while not list(tmp_path.rglob("run_together_*.kernel")) or list(tmp_path.rglob(LOCK)):
        assert time.monotonic() < end
        time.sleep(0.1)
    again = classify()
    assert again.stderr == ""
    assert again.stdout == first.stdout
