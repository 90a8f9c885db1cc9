"""Our own figures beside the comparison: start-up, memory, and how time grows with batch and pixels."""

from __future__ import annotations

import compileall
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import npmobilenet
from npmobilenet.measure.benchmark.subprocess_run import PACKAGE_PARENT, Options, measure_fresh

# An installed package has its bytecode compiled, and so has a checkout after its first run.
INSTALLED = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
BATCHES = (1, 2, 4, 8)
SIDES = (96, 128, 160, 192, 224)
REPEATS = 3
# The process that is measured reports the most memory that it held, on its way out.
PROGRAM = """\
import sys
sys.path.insert(0, sys.argv.pop(1))
import atexit, os
from pathlib import Path
def peak():
    from npmobilenet.measure.benchmark.machine import peak_memory
    os.write(2, f"peak={peak_memory()}\\n".encode())
atexit.register(peak)
from npmobilenet.cli import main
sys.exit(main())
"""


def _run(*arguments: str, **environment: str) -> dict[str, Any]:
    """Wall time and memory of `npmobilenet ARGUMENTS` in a fresh process, and whether it went well."""
    command = [sys.executable, "-c", PROGRAM, PACKAGE_PARENT, *arguments]
    start = time.perf_counter()
    done = subprocess.run(command, env={**INSTALLED, **environment}, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    peak = re.search(r"^peak=(\d+)$", done.stderr, re.MULTILINE)
    said = None if done.returncode == 0 else done.stderr.strip()[-200:]
    return {"seconds": round(seconds, 3), "peak_rss": int(peak[1]) if peak else None, "error": said}


def _import_seconds() -> float:
    program = (
        "import sys, time; sys.path.insert(0, sys.argv[1]); t = time.perf_counter(); import npmobilenet; "
        "print(time.perf_counter() - t)"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", program, PACKAGE_PARENT], env=INSTALLED, capture_output=True, text=True, check=True
        ).stdout
        for _ in range(5)
    ]
    return round(statistics.median(map(float, runs)), 4)


def measure_start(weights: Path | None) -> dict[str, Any]:
    """Import; `classify` on the drawn example with an empty kernel cache, and again; memory with V2 1.0_224."""
    compileall.compile_dir(Path(npmobilenet.__file__).parent, quiet=2)
    found: dict[str, Any] = {"import": _import_seconds()}
    with tempfile.TemporaryDirectory(prefix="npmobilenet-", ignore_cleanup_errors=True) as empty:
        found["classify_cold"] = _run("classify", NPMOBILENET_CACHE=empty)
        _run("warmup", "flowers", NPMOBILENET_CACHE=empty)  # else another process compiles the fast kernels meanwhile
        _run("classify", NPMOBILENET_CACHE=empty)
        again = [_run("classify", NPMOBILENET_CACHE=empty) for _ in range(REPEATS)]
    found["classify_again"] = sorted(again, key=lambda one: float(one["seconds"]))[REPEATS // 2]
    v2 = None if weights is None else weights / "mobilenet_v2_1.0_224_float.tflite"
    if v2 is not None and v2.is_file():
        with tempfile.TemporaryDirectory(prefix="npmobilenet-") as folder:
            file = Path(folder) / "mobilenet_v2_1.0_224.h5"
            npmobilenet.convert(v2, file)
            _run("warmup", os.fspath(file))
            _run("classify", "--model", os.fspath(file))
            found["classify_v2"] = _run("classify", "--model", os.fspath(file))
    found["planned"] = measure_fresh("mobilenet_v2_1.0_224", Options(1, None, 5), compile_too=False)["memory"]
    return found


def measure_scaling() -> dict[str, Any]:
    """V2 1.0, one thread, random weights: milliseconds by batch at 224 pixels, and by side of the image."""

    def ms(name: str, batch: int) -> float:
        document = measure_fresh(name, Options(batch, 1, max(10, 40 // batch)), compile_too=False)
        return float(document["steady_ms"]["p50"])

    return {
        "batch": {str(batch): ms("mobilenet_v2_1.0_224", batch) for batch in BATCHES},
        "side": {str(side): ms(f"mobilenet_v2_1.0_{side}", 1) for side in SIDES},
    }
