"""Measuring in processes of their own, so that nothing is loaded, compiled or cached before its time is taken."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from npmobilenet import errors
from npmobilenet.errors import ModelNotFound, NpMobilenetError
from npmobilenet.formats.model_path import find
from npmobilenet.model import CHUNK
from npmobilenet.zoo.checkpoints import parse

PACKAGE_PARENT = os.fspath(Path(__file__).resolve().parents[3])
# A checkout that isn't installed is found as this process found it.
PROGRAM = """\
import sys, time
root, request = sys.argv[1:]
if root not in sys.path:
    sys.path.insert(0, root)
start = time.perf_counter()
import npmobilenet
seconds = time.perf_counter() - start
from npmobilenet.measure.benchmark.child import main
main(seconds, request)
"""
SHOWN = 400  # characters of what a broken process said last


@dataclass(frozen=True)
class Options:
    """What to measure: a batch of at most CHUNK images, threads (None: all), steady runs; whether each layer, and what
    a run of one image costs beyond its kernels.
    """

    batch: int = 1
    threads: int | None = None
    runs: int = 100
    layers: bool = False
    overhead: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.batch <= CHUNK:
            raise errors.InputError(
                f"batch={self.batch}: expected 1 to {CHUNK}; larger batches run in pieces of {CHUNK}, one by one"
            )


def measure_fresh(model: str, options: Options, compile_too: bool = True) -> dict[str, Any]:
    """The measuring process's document (child.py). `weights` in it is "random" for a registered float model without a
    file here: the time doesn't depend on them.

    `compile_too`: a second process, with an empty kernel cache, whose plan and first run are longer by the time to
    compile: `seconds["compile"]`, None without. Raises what `load` raises, `NpMobilenetError` if a process breaks.
    """
    try:
        name, random = os.fspath(find(model)), False
    except ModelNotFound as error:
        try:
            name, random = str(parse(model)), True
        except ModelNotFound:
            raise error from None
        if name.endswith("_uint8"):
            raise
    request = {"model": name, "random": random, **asdict(options)}
    found = _run(request)
    if found["compiled"]:  # its first run had to compile: with the kernels in the cache now, measure again
        found = _run(request)
    seconds = found["seconds"]
    seconds["compile"] = None
    if compile_too:
        with tempfile.TemporaryDirectory(prefix="npmobilenet-") as empty:
            cold = _run({**request, "runs": 0, "layers": False, "overhead": False}, NPMOBILENET_CACHE=empty)
        started = sum(cold["seconds"][stage] - seconds[stage] for stage in ("plan", "first"))
        seconds["compile"] = max(started, 0.0)
        found["compiled"] = cold["compiled"]
    found["seconds"] = {stage: None if value is None else round(value, 4) for stage, value in seconds.items()}
    return {**found, "file": None if random else name, "weights": "random" if random else "file"}


def _run(request: dict[str, Any], **environment: str) -> dict[str, Any]:
    command = [sys.executable, "-P", "-c", PROGRAM, PACKAGE_PARENT, json.dumps(request)]
    env = {**os.environ, "NPMOBILENET_QUIET": "1", **environment}
    done = subprocess.run(
        command, env=env, capture_output=True, text=True, encoding="utf-8", errors="replace", check=False
    )
    try:
        document: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        said = " ".join(done.stderr.split())[-SHOWN:]
        raise NpMobilenetError(
            f"the process that measures {request['model']} ended with status {done.returncode}: {said or 'no message'}"
        ) from None
    if "error" in document:
        kind, message = document["error"]
        raised = getattr(errors, kind, NpMobilenetError)
        raise (NpMobilenetError if raised is errors.MissingExtra else raised)(message)
    return document
