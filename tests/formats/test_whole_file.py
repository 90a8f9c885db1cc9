"""Files are written whole: a full disk or a signal at any moment leaves the old file or the new one, nothing else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from models import images, tiny
from PIL import Image
from tflite_export import to_tflite

import npmobilenet as nm
from npmobilenet.errors import ConversionError, NpMobilenetError, WeightFileError, one_line

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="this platform has no fork")

# Runs a verb in a forked child, and stops it by a signal at the n-th time that it touches a file or a folder that it
# is writing, or lets no file grow beyond so many bytes. Prints the exit status, and whether the moment came.
PROGRAM = """
import os, resource, signal, sys, json
import h5py, tflite, npmobilenet.golden, npmobilenet.kernels.compiler.jit, npmobilenet.formats.tflite.model
from npmobilenet.cli import app
jobs = json.load(sys.stdin)
for arguments, number, moment, most in jobs:
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        count, reached = 0, False
        def hook(event, args):
            global count, reached
            if event in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"):
                if any(".npmobilenet-" in str(a) for a in args[:2]):
                    count += 1
                    if count == moment + 1 and not reached:
                        reached = True
                        os.kill(os.getpid(), number)
        if number:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
            sys.addaudithook(hook)
        if most:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        os._exit(app.run(arguments))
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""
KILL, INT, TERM = 9, 2, 15
CODES = {KILL: -9, INT: 130, TERM: 143}
MOMENTS = 10


def run(jobs: list[tuple[list[str], int, int, int]]) -> list[int]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], input=json.dumps(jobs), capture_output=True, text=True, check=True, timeout=300
    )
    return [int(line) for line in done.stdout.split()]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small .tflite model, and its weight file."""
    folder = tmp_path_factory.mktemp("source")
    (folder / "m.tflite").write_bytes(to_tflite(tiny("reference", "v2").data)[0])
    nm.convert(folder / "m.tflite", folder / "m.h5")
    np.save(folder / "images.npy", images(2))
    for name in ("daisy", "tulips"):
        (folder / "photos" / name).mkdir(parents=True)
        Image.fromarray(np.full((8, 8, 3), 99, np.uint8)).save(folder / "photos" / name / "1.png")
    return folder


WRITERS = {
    "convert": (["convert", "{source}/m.tflite", "{target}/out.h5", "--force"], "out.h5"),
    "record": (["golden", "record", "{source}/m.h5", "random:1", "--kernels", "reference", "--taps", "input", "-o",
                "{target}/out.npz", "--force"], "out.npz"),
    "folder": (["golden", "record", "{source}/m.h5", "random:1", "--kernels", "reference", "--taps", "input", "-o",
                "{target}/out", "--force"], "out"),
    "export": (["golden", "export", "{source}/m.h5", "-o", "{target}/out", "--force"], "out"),
    "export file": (["export", "{source}/m.h5", "{target}/out.tflite", "--force"], "out.tflite"),
    "quantize": (["quantize", "{source}/m.h5", "--data", "{source}/images.npy", "-o", "{target}/out.h5", "--force"],
                 "out.h5"),
    "predictions": (["evaluate", "flowers", "{source}/photos", "--predictions", "{target}/out.npz"], "out.npz"),
}  # fmt: skip
RUNS_A_MODEL = ("quantize", "predictions")  # and so takes seconds: fewer moments, of which each still comes


def content(path: Path) -> dict[str, bytes]:
    """All bytes of a file, or of a folder's files."""
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return {os.fspath(file.relative_to(path)): file.read_bytes() for file in files}


def intact(path: Path, whole: dict[str, bytes]) -> None:
    """What lies there is as an undisturbed run leaves it, and nothing that was left over loads.

    Folders can't change places in one step: one killed between two leaves the old one whole, beside its place.
    """
    if not path.exists() and not path.suffix:
        path = next(path.parent.glob(".npmobilenet-*.old"))
    assert content(path) == whole
    for left in path.parent.iterdir():
        if left != path and left.is_file():
            with pytest.raises(NpMobilenetError):
                nm.load(left)


@pytest.mark.parametrize("writer", WRITERS)
def test_killed_at_ten_moments(tmp_path: Path, source: Path, writer: str) -> None:
    words, name = WRITERS[writer]
    old = tmp_path / "old"
    old.mkdir()
    assert run([([word.format(source=source, target=old) for word in words], 0, 0, 0)]) == [0]
    jobs, folders = [], []
    for number in (KILL, INT, TERM):
        for moment in range(4 if writer in RUNS_A_MODEL else MOMENTS):
            folder = shutil.copytree(old, tmp_path / f"{number}_{moment}")
            jobs.append(([word.format(source=source, target=folder) for word in words], number, moment, 0))
            folders.append((number, folder))
    codes = run(jobs)
    for (number, folder), code in zip(folders, codes, strict=True):
        assert code in (0, CODES[number])
        intact(folder / name, content(old / name))
        if number != KILL:
            assert [p.name for p in folder.iterdir()] == [name], "a signal that can be caught leaves nothing over"
    assert set(CODES.values()) <= set(codes), "each signal came in time at least once"


@pytest.mark.parametrize("writer", WRITERS)
def test_full_disk(tmp_path: Path, source: Path, writer: str) -> None:
    """As a disk that takes only so many bytes: exit code 2, the old file is kept."""
    words, name = WRITERS[writer]
    arguments = [word.format(source=source, target=tmp_path) for word in words]
    assert run([(arguments, 0, 0, 0)]) == [0]
    whole = content(tmp_path / name)
    most = max(map(len, whole.values()))
    assert run([(arguments, 0, 0, size) for size in (1, most // 2, most - 1)]) == [2, 2, 2]
    intact(tmp_path / name, whole)
    assert [p.name for p in tmp_path.iterdir()] == [name]


def evaluation(source: Path, folder: Path) -> list[str]:
    """The words of an evaluation that keeps its state in a folder."""
    return [
        "evaluate",
        "flowers",
        f"{source}/photos",
        "--resume",
        f"{folder}/state",
        "--predictions",
        f"{folder}/out.npz",
    ]


def test_a_state_survives_signals_and_a_full_disk(tmp_path: Path, source: Path) -> None:
    """The state of an evaluation is a writer that goes on: stopped anywhere, the same command ends as if it hadn't."""
    (tmp_path / "whole").mkdir()
    assert run([(evaluation(source, tmp_path / "whole"), 0, 0, 0)]) == [0]
    whole = content(tmp_path / "whole")
    stops = [(number, moment, 0) for number in (KILL, INT, TERM) for moment in range(4)]
    stops += [(0, 0, size) for size in (1, len(whole["state"]) // 2, len(whole["state"]) - 1)]
    folders = [tmp_path / f"{number}_{moment}_{most}" for number, moment, most in stops]
    for folder in folders:
        folder.mkdir()
    codes = run([(evaluation(source, f), *stop) for f, stop in zip(folders, stops, strict=True)])
    assert codes[-3:] == [2, 2, 2]
    assert {-9, 130, 143} <= set(codes)
    assert run([(evaluation(source, folder), 0, 0, 0) for folder in folders]) == [0] * len(folders)
    for folder in folders:
        assert content(folder)["out.npz"] == whole["out.npz"]


def test_leftovers_are_called_so(tmp_path: Path, source: Path) -> None:
    left = tmp_path / ".npmobilenet-0123456789abcdef.tmp"
    left.write_bytes((source / "m.h5").read_bytes())
    with pytest.raises(WeightFileError, match="left over from a write that was interrupted"):
        nm.load(left)
    left.write_bytes((source / "m.tflite").read_bytes())
    for use in (nm.load, lambda path: nm.convert(path, tmp_path / "out.h5")):
        with pytest.raises(ConversionError, match="left over from a write that was interrupted"):
            use(left)


def test_messages_are_one_printable_line_of_bounded_length() -> None:
    assert str(nm.InputError("a\x1b[31mb\nc")) == "a\\x1b[31mb c"
    assert one_line("plain") == "plain"
    assert len(str(nm.GraphError("x" * 39_000_000))) < 20_000
    with pytest.raises(nm.ModelNotFound, match="got bytes"):
        nm.load(b"x" * 1000)  # type: ignore[arg-type]


def test_values_have_a_repr_of_one_line() -> None:
    model = tiny("reference")
    model.run(np.zeros(model.input.shape, np.float32))
    plan = next(iter(model._plans.values()))
    for value in (model.graph, model.data, plan):
        assert len(repr(value)) < 600
        assert "\n" not in repr(value)
