"""What tools/fuzz.py does with a damaged file of each format, and what of the results may not be."""

from __future__ import annotations

import contextlib
import io
import random
import resource
import select
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import fuzz_seeds
import numpy as np

Array = np.ndarray[Any, Any]
MODEL_BYTES = 2**28  # the `memory_limit` of models
MOST_MACS, MOST_VALUES = 20_000_000, 4_000_000  # a larger model is loaded, not run


class FaultError(Exception):
    """A result that may not be."""


@dataclass
class Case:
    """What an action gets: the damaged files, the folder of sound shared ones, choices, and LiteRT."""

    kind: str
    folder: Path
    shared: Path
    rng: random.Random
    peer: Peer

    def file(self) -> Path:
        """The only file, or the prefix of a checkpoint."""
        first = sorted(p for p in self.folder.iterdir() if p.name != "truth.txt")[0]
        return first.with_suffix("") if first.name.startswith("m.ckpt") else first


# -- what is done with a file of each format ---------------------------------------------------------------------------


def run_model(case: Case) -> str:
    """Load, plan and run with both kernel sets, and with LiteRT if it takes the file."""
    from npmobilenet.arithmetic.dialects import DIALECTS
    from npmobilenet.formats.model_path import load_data
    from npmobilenet.golden.inputs import random_input
    from npmobilenet.model import Model

    path = case.file()
    if case.rng.random() < 0.05:
        command("info", str(path))
    with sums_left_out(case):
        data = load_data(path)
    dialect = "tflite-reference" if case.rng.random() < 0.7 else case.rng.choice(sorted(DIALECTS))
    fast, reference = (Model(data, kernels, dialect, 1, MODEL_BYTES) for kernels in ("fast", "reference"))
    values = max(t.size for t in data.graph.tensors.values())
    rarely = (
        case.kind in ("checkpoint", "keras", "pytorch") and case.rng.random() < 0.9
    )  # their graphs are of a few kinds
    if data.graph.total_macs > MOST_MACS or values > MOST_VALUES or rarely:
        return "loaded"
    x = random_input(fast, case.rng.randrange(2**31))
    a = fast.run(x, check_range=False)
    b, taps = reference.run(x, taps=list(data.graph.endpoints) or ["*"], check_range=False)
    if not same(a, b):
        raise FaultError(f"fast and reference kernels differ in {int((a != b).sum())} of {a.size} values ({dialect})")
    if path.suffix != ".tflite" or dialect != "tflite-reference":
        return "ran"
    theirs = case.peer.run(path, [x[name] for name in data.graph.inputs])
    if theirs is None:
        return "ran"
    compare(data.graph, taps, theirs)
    return "equals LiteRT"


class _AnySum(int):
    """Equal to everything."""

    def __eq__(self, _: object) -> bool:
        return True

    def __ne__(self, _: object) -> bool:
        return False

    __hash__ = int.__hash__


@contextlib.contextmanager
def sums_left_out(case: Case) -> Iterator[None]:
    """In two of three cases, no checksum is compared: behind them lies what a hostile file, sums put right, reaches."""
    with contextlib.ExitStack() as stack:
        if case.rng.random() < 2 / 3:
            for module in ("checkpoint_index", "checkpoint"):
                patch = mock.patch(f"npmobilenet.formats.tensorflow.{module}.crc32c", return_value=_AnySum())
                stack.enter_context(patch)
            stack.enter_context(mock.patch("npmobilenet.formats.weightfile.reader._check_digest"))
        yield


def same(a: Array, b: Array) -> bool:
    """Equal by bits; NaN equals NaN."""
    return a.shape == b.shape and a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


def compare(graph: Any, ours: dict[str, Array], theirs: dict[str, Array]) -> None:
    """Integers equal LiteRT's where nothing but integers leads to them; floats are near."""
    inexact: set[str] = set()
    largest = max([1.0, *(float(np.abs(t).max(initial=0)) for t in theirs.values() if t.dtype.kind == "f")])
    for node in graph.nodes:
        floats = graph.tensors[node.output].dtype == "float32" and node.op != "dequantize"
        if floats or inexact & set(node.inputs):
            inexact.add(node.output)
        tap = graph.tensors[node.output].source
        if tap not in ours or tap not in theirs or ours[tap].size != theirs[tap].size:
            continue
        a, b = ours[tap].reshape(theirs[tap].shape), theirs[tap]
        if node.output not in inexact:
            if not same(a, b):
                raise FaultError(f"{node.op} {tap} differs from LiteRT in {int((a != b).sum())} of {a.size} values")
        elif a.dtype.kind == "f" and np.isfinite(b).all() and largest < 1e6:
            far = float(np.abs(a.astype(np.float64) - b).max(initial=0))
            if not far <= 1e-3 * largest and not any(graph.tensors[t].quantization for t in graph.tensors):
                raise FaultError(f"{node.op} {tap} is {far:g} from LiteRT's, the largest value is {largest:g}")


def read_image(case: Case) -> str:
    """Decode, and make the tensor of every recipe."""
    from npmobilenet.images import recipes

    recipes.preprocess(case.file(), (16, 16), case.rng.choice(sorted(recipes.RECIPES)))
    return "loaded"


def read_dataset(case: Case) -> str:
    """List the labelled images, and decode them."""
    from npmobilenet.images.decoding import load_image
    from npmobilenet.measure.datasets import open_dataset
    from npmobilenet.modeldata import ModelInfo

    info, truth = ModelInfo("seed", fuzz_seeds.NAMES), case.folder / "truth.txt"
    listed = open_dataset(case.file(), info, fuzz_seeds.CLASSES, truth if truth.exists() else None)
    for i in range(len(listed)):
        load_image(listed.source(i))
    return "loaded"


def read_state(case: Case) -> str:
    """Go on with an evaluation."""
    words = ["--resume", str(case.folder / "state.npz"), "--predictions", str(case.folder / "out.csv")]
    return command("evaluate", str(case.shared / "m.h5"), str(case.shared / "data.npz"), *words)


def read_dump(case: Case) -> str:
    """Compare with the sound dump, or identify its arithmetic."""
    if case.rng.random() < 0.1:
        return command("golden", "identify", str(case.shared / "m.h5"), str(case.file()))
    return command("golden", "diff", str(case.shared / "dump"), str(case.file()))


def read_input(case: Case) -> str:
    """Run the model on it."""
    from npmobilenet.golden.inputs import load_input
    from npmobilenet.model import load

    model = load(case.shared / "m.h5", threads=1)
    model.run(load_input(model, case.file())[0])
    return "ran"


ACTIONS: dict[str, Callable[[Case], str]] = {
    "tflite": run_model, "h5": run_model, "keras": run_model, "checkpoint": run_model, "pytorch": run_model,
    "image": read_image, "labels": read_dataset, "dataset": read_dataset, "state": read_state, "golden": read_dump,
    "input": read_input, "packed": run_model, "arrays": read_dump,
}  # fmt: skip


def command(*words: str) -> str:
    """The command line in this process: its exit code is 0, 1 or 2, and 2 comes with one line."""
    from npmobilenet.cli import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    lines = err.getvalue().splitlines()
    if code not in (0, 1, 2) or (code == 2 and not (lines and lines[-1].startswith("error: "))):
        raise FaultError(f"{words[0]} ended with {code}: {err.getvalue()[-300:]}")
    for line in (out.getvalue() + err.getvalue()).split("\n"):
        if not line.isprintable():
            raise FaultError(f"{words[0]} printed {line[:200]!r}")
    return "refused by the command line" if code == 2 else "ran"


# -- LiteRT, in a process of its own -----------------------------------------------------------------------------------


class Peer:
    """LiteRT, which may crash on what it is given: then it is started anew."""

    def __init__(self) -> None:
        self.child: subprocess.Popen[str] | None = None

    def run(self, model: Path, inputs: list[Array]) -> dict[str, Array] | None:
        """Tap "#index" -> value; None if LiteRT takes the file not, or dies of it."""
        with tempfile.TemporaryDirectory() as folder:
            np.savez(Path(folder) / "in.npz", *inputs)
            if self.child is None or self.child.poll() is not None:
                pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
                words = [sys.executable, __file__]
                self.child = subprocess.Popen(words, text=True, **pipes)  # type: ignore[call-overload]
            assert self.child.stdin is not None
            assert self.child.stdout is not None
            try:
                self.child.stdin.write(f"{model}\t{folder}\n")
                self.child.stdin.flush()
                if not select.select([self.child.stdout], [], [], 60)[0]:
                    self.child.kill()
                if self.child.stdout.readline() != "done\n":
                    return None
            except BrokenPipeError:
                return None
            with np.load(Path(folder) / "out.npz") as found:
                return dict(found)


def serve_peer() -> None:
    """The other end of `Peer.run`."""
    from litert import Peer as Interpreter

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        model, folder = line.rstrip("\n").split("\t")
        try:
            with np.load(Path(folder) / "in.npz") as inputs:
                found = Interpreter(model, "tflite-reference").run(*inputs.values())
            np.savez(Path(folder) / "out.npz", **{f"#{i}": v for i, v in found.items()})
            print("done", flush=True)
        except Exception:
            print("refused", flush=True)


if __name__ == "__main__":
    serve_peer()
