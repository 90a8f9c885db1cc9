"""tools/fuzz.py: a short seeded run finds nothing, and planted faults of every kind are found."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="this platform has no /proc")

# Formats that can be read without running a model: compiling kernels takes a minute on a new machine.
QUICK = ("image", "labels", "dataset", "checkpoint", "keras", "pytorch", "h5", "tflite")

PLANTED = """
import os, sys, time, warnings
sys.path.insert(0, {tools!r})
import fuzz, fuzz_actions
from npmobilenet.errors import InputError

def fault(case):
    number = int(case.rng.random() * 7)
    if number == 0: raise KeyError("escapes")
    if number == 1: raise InputError("a \\x1b[31m message")
    if number == 2: os.abort()
    if number == 3:
        while True: pass
    if number == 4: return str(len(b"x" * 2**28))
    if number == 5: return str(warnings.warn("overflow", RuntimeWarning))
    raise fuzz_actions.FaultError("results differ")

InputError.__init__ = Exception.__init__  # a class that forgets to escape
fuzz.LIMIT_S, fuzz.LIMIT_BYTES = 0.1, 2**27
fuzz_actions.ACTIONS["image"] = fault
sys.exit(fuzz.main(sys.argv[1:]))
"""


def run(words: list[str], timeout: float = 300) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, check=False, timeout=timeout, stdin=subprocess.DEVNULL
    )
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, done.stdout


def test_planted_faults_are_found(tmp_path: Path) -> None:
    """An exception, a message with control characters, a crash, a hang, memory, a warning, and wrong results."""
    state, out = tmp_path / "state.jsonl", tmp_path / "out"
    options = ["--format", "image", "--no-keras", "--state", str(state), "--out", str(out)]
    code, printed = run(["-c", PLANTED.format(tools=str(TOOLS)), *options, "--cases", "30"])
    assert code == 1
    rows = [json.loads(line) for line in state.read_text(encoding="utf-8").splitlines()]
    assert [row["case"] for row in rows] == list(range(30))
    kinds = {row["outcome"].removeprefix("FINDING: ") for row in rows}
    told = "message that isn't one short printable line"
    assert kinds == {"KeyError", told, "crash", "hang", "memory", "warning", "wrong result"}
    assert len(list(out.iterdir())) == 30
    assert f"python tools/fuzz.py --replay {out}/image-1-0" in printed
    # A run goes on behind what is done.
    run(["-c", PLANTED.format(tools=str(TOOLS)), *options, "--cases", "31"])
    assert len(state.read_text(encoding="utf-8").splitlines()) == 31


def test_a_short_run_finds_nothing(tmp_path: Path) -> None:
    formats = [word for name in QUICK for word in ("--format", name)]
    options = ["--no-keras", "--load-only", "--cases", "45", "--seed", "3", "--out", str(tmp_path / "out")]
    code, printed = run([str(TOOLS / "fuzz.py"), *formats, *options])
    assert code == 0, printed
    assert printed.count(": 45 cases") == len(QUICK)
    assert not (tmp_path / "out").exists()


def test_a_finding_is_replayed(tmp_path: Path) -> None:
    """A saved folder gives the outcome that its file has now: here, one that is mended."""
    place = tmp_path / "dataset-1-5"
    place.mkdir()
    (place / "data.npz").write_bytes(b"PK\x03\x04 no archive")
    code, printed = run([str(TOOLS / "fuzz.py"), "--replay", str(place), "--no-keras"])
    assert (code, printed.splitlines()[0]) == (0, "refused: InputError")
