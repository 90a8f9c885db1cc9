"""Compares this engine with LiteRT, OpenVINO, ONNX Runtime and PyTorch, and writes docs/performance.md.

    python -m venv bench && bench/bin/pip install ".[cli,convert]" ai-edge-litert openvino onnxruntime onnx torch
    NPMOBILENET_DATA=... bench/bin/python tools/bench_peers.py --make-with PYTHON_WITH_TENSORFLOW

All engines read the same .tflite file (ONNX Runtime and PyTorch: float models, from our graph of it, same weights).
Each engine runs in a process of its own, and only one runs at a time. Two scenarios:

- steady: turns of at least TURN seconds, back to back, in an order that is turned round from one round to the next. A
  turn gives its median and its 90th percentile; a ratio is the median over the rounds of our median by the peer's in
  the same round, so that what slows the machine for a while slows both. The first quarter of a turn isn't counted: the
  threads of the engine before spin for some milliseconds before they sleep.
- after a pause: one run every tenth of a second, as for a camera, where waking the threads counts.

Without the packages, or for a model that an engine doesn't run, the reason is printed and the column left empty.
`--avx2` shows every engine, ours too, a CPU that ends with AVX2 (tools/avx2_only.c): a section of its own on the page.
`--from-json` writes the page from figures measured earlier.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
for folder in (ROOT, ROOT / "tools"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))  # the checkout, whether or not the package is installed

import numpy as np  # noqa: E402
from peer_models import ROWS, Row, ensure  # noqa: E402
from peer_report import AVX2_BARS, AVX2_JSON, JSON, PAUSED, write_page  # noqa: E402
from peer_start import measure_scaling, measure_start  # noqa: E402

from npmobilenet.errors import NpMobilenetError  # noqa: E402
from npmobilenet.kernels.compiler.cache import cache_root  # noqa: E402
from npmobilenet.measure.benchmark.machine import cpu_name, load_average  # noqa: E402
from npmobilenet.measure.benchmark.subprocess_run import Options, measure_fresh  # noqa: E402
from npmobilenet.modeldata import Array  # noqa: E402

PEERS = ("litert", "openvino", "onnxruntime", "torch")
THREADS, BATCHES = (1, 2), (1, 8)
TURN = 0.4  # seconds of runs in a turn
PAUSE = 0.1  # seconds between two runs of a camera
# Whose layers the page shows: a float and an integer model of each size, and those nearest to their bars.
LAYERED = (
    "V1 1.0_224",
    "V2 1.0_224",
    "V2 1.0_224 uint8",
    "V2 1.0_224 int8",
    "V3 large",
    "V3 large int8",
    "EdgeTPU 1.0",
)


class Engine:
    """A process of tools/peer_engines.py."""

    def __init__(self, name: str) -> None:
        self.name = name
        command = [sys.executable, os.fspath(ROOT / "tools" / "peer_engines.py"), name]
        env = {**os.environ, "NPMOBILENET_QUIET": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env, text=True
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        """The answer to a request; `unavailable` if the process has ended."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            return {"unavailable": f"its process ended with status {self.process.wait()}"}
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.close()
            self.process.wait(timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


def key_of(threads: int, batch: int) -> str:
    """How a model on that many threads, for that batch, is called; PAUSED follows it in the other scenario."""
    return f"{threads} threads, batch {batch}"


def quartiles(values: Sequence[float] | Array) -> dict[str, float]:
    """Median and quartiles."""
    q1, median, q3 = np.percentile(values, [25, 50, 75])
    return {"median": round(float(median), 4), "q1": round(float(q1), 4), "q3": round(float(q3), 4)}


def outputs_apart(ours: dict[str, Any], peer: dict[str, Any]) -> float | None:
    """The largest difference of two outputs: in parts of the largest value, or, for integers, in steps."""
    if "values" not in ours or "values" not in peer:
        return None
    a, b = (np.frombuffer(base64.b64decode(o["values"]), o["dtype"]).astype(np.float64) for o in (ours, peer))
    if a.size != b.size:
        return None
    apart = float(np.abs(a - b).max())
    return apart if ours["dtype"] != "float32" else apart / max(float(np.abs(a).max()), 1e-30)


class Comparison:
    """One model, all engines, 1 and 2 threads, one batch size."""

    def __init__(self, engines: dict[str, Engine], file: Path, batch: int, threads: Sequence[int]) -> None:
        self.engines, self.batch = engines, batch
        self.why: dict[str, dict[str, str]] = {}  # key -> engine -> why it isn't measured
        self.facts: dict[str, dict[str, Any]] = {}
        self.apart: dict[str, float | None] = {}
        self.turns: list[tuple[str, str]] = []  # (key, engine)
        for count in threads:
            key = key_of(count, batch)
            self.why[key] = {}
            for name, engine in engines.items():
                answer = engine.ask(do="open", key=key, file=os.fspath(file), threads=count, batch=batch)
                if "unavailable" in answer:
                    self.why[key][name] = answer["unavailable"]
                    continue
                self.facts[name] = answer["facts"]
                self.turns.append((key, name))
        self._compare_outputs(key_of(threads[0], batch))

    def _compare_outputs(self, key: str) -> None:
        outputs = {name: self.engines[name].ask(do="output", key=key) for k, name in self.turns if k == key}
        for name, output in outputs.items():
            if name != "ours" and "ours" in outputs:
                self.apart[name] = outputs_apart(outputs["ours"], output)

    def turn(self, key: str, name: str) -> tuple[float, float] | None:
        """Median and 90th percentile of the milliseconds of a turn's runs; None where it fails."""
        if key.endswith(PAUSED):
            time.sleep(PAUSE)
            answer = self.engines[name].ask(do="run", key=key.removesuffix(PAUSED), seconds=0)
        else:
            answer = self.engines[name].ask(do="run", key=key, seconds=TURN)
        if "ms" not in answer:
            return None
        median, late = np.percentile(answer["ms"], [50, 90])
        return float(median), float(late)

    def rounds(self, count: int, turns: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Array]:
        """`count` rounds, the order turned round in every other one: (median, 90th percentile) of each turn.

        A first round isn't counted: it finds who fails, and is left out of all.
        """
        live = [turn for turn in turns if self.turn(*turn) is not None]
        times: dict[tuple[str, str], list[tuple[float, float]]] = {turn: [] for turn in live}
        for i in range(count):
            for turn in live if i % 2 == 0 else live[::-1]:
                times[turn].append(self.turn(*turn) or (float("nan"), float("nan")))
        return {turn: ms for turn, found in times.items() if not np.isnan(ms := np.array(found).reshape(-1, 2)).any()}

    def after_pauses(self, count: int) -> dict[tuple[str, str], Array]:
        """`count` runs of each engine, one after each pause: an engine's runs follow each other, as a camera's do."""
        times = {}
        for key, name in self.turns:
            found = [self.turn(key + PAUSED, name) for _ in range(count + 1)][1:]
            if None not in found:
                times[key + PAUSED, name] = np.array(found)
        return times


def compare(file: Path, engines: Sequence[str], options: argparse.Namespace) -> dict[str, Any]:
    """All figures of a model."""
    began = time.time()
    processes = {name: Engine(name) for name in engines}
    found: dict[str, Any] = {"file": file.name.replace(".any_batch", ""), "load_average": load_average(), "cases": {}}
    try:
        for batch in options.batches:
            comparison = Comparison(processes, file, batch, options.threads)
            # Larger batches are compared with our single images in the same round.
            single = [(key_of(count, 1), "ours") for count in options.threads] if batch > 1 else []
            single = [turn for turn in single if "ours" in found["cases"].get(turn[0], {}).get("ms", {})]
            times = comparison.rounds(options.pairs if batch == 1 else options.batch_pairs, comparison.turns + single)
            found["cases"].update(_figures(comparison, times))
            if batch == 1 and options.paused:
                found["cases"].update(_figures(comparison, comparison.after_pauses(options.paused), PAUSED))
            if batch == options.batches[0]:
                ours = comparison.facts.get("ours", {})
                found |= {
                    "macs": ours.get("macs"),
                    "pixels": max(ours.get("resolution", [0])),
                    "versions": _versions(comparison),
                    "apart": comparison.apart,
                }
        found["peak_rss"] = {name: process.ask(do="memory").get("peak_rss") for name, process in processes.items()}
    finally:
        for process in processes.values():
            process.close()
    return {**found, "seconds": round(time.time() - began, 1)}


def _versions(comparison: Comparison) -> dict[str, str]:
    return {name: facts["version"] for name, facts in comparison.facts.items()}


def _figures(comparison: Comparison, times: dict[tuple[str, str], Array], scenario: str = "") -> dict[str, Any]:
    """For each key, each engine's milliseconds and our ratio to it; of ours, two threads' ratio to one's.

    "by_single": our images per second in a batch, by those of single images.
    """
    cases: dict[str, Any] = {}
    medians = {turn: found[:, 0] for turn, found in times.items()}
    for key, why in ((key + scenario, why) for key, why in comparison.why.items()):
        cases[key] = {"ms": {}, "ratio": {}, "missing": why}
        for (k, name), ms in medians.items():
            if k != key:
                continue
            late = round(float(np.median(times[k, name][:, 1])), 4)
            cases[key]["ms"][name] = {**quartiles(ms), "p90": late, "rounds": len(ms)}
            if name != "ours" and (key, "ours") in medians:
                cases[key]["ratio"][name] = quartiles(medians[key, "ours"] / ms)
    keys = [key for key in cases if (key, "ours") in medians]
    for key in keys[1:]:
        cases[key]["speedup"] = quartiles(medians[keys[0], "ours"] / medians[key, "ours"])
    for key in keys:
        single = key_of(int(key.split()[0]), 1)
        if comparison.batch > 1 and (single, "ours") in medians:
            cases[key]["by_single"] = quartiles(comparison.batch * medians[single, "ours"] / medians[key, "ours"])
    return cases


def compare_reference(file: Path, rounds: int) -> dict[str, Any]:
    """Our time and that of LiteRT's reference kernels, one thread."""
    processes = {name: Engine(name) for name in ("ours", "reference")}
    try:
        comparison = Comparison(processes, file, 1, (1,))
        figures: dict[str, Any] = _figures(comparison, comparison.rounds(rounds, comparison.turns))[key_of(1, 1)]
        return {**figures, "apart": comparison.apart}
    finally:
        for process in processes.values():
            process.close()


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All figures, as one JSON document."""
    data = os.environ.get("NPMOBILENET_DATA")
    weights = Path(data) / "weights" if data else None
    rows = [row for row in ROWS if not options.models or any(word in (row.title, row.name) for word in options.models)]
    if options.models and not rows:
        raise SystemExit(f"--models: expected some of {', '.join(repr(row.title) for row in ROWS)}")
    files = ensure(rows, options.folder, weights, options.make_with)
    for file in options.files:
        rows.append(Row(file.name, "file", file=os.fspath(file)))
        files |= ensure(rows[-1:], options.folder, file.parent, options.make_with)
    engines = ["ours", *(peer for peer in PEERS if peer in options.peers)]
    document: dict[str, Any] = {
        "cpu": cpu_name(),
        "date": time.strftime("%Y-%m-%d"),
        "pairs": options.pairs,
        "batch_pairs": options.batch_pairs,
        "paused": options.paused,
        "engines": engines,
        "avx2_only": options.avx2,
        "load_average": [load_average()],
        "machine": measure_fresh("mobilenet_v2_0.35_96", Options(1, None, 5), compile_too=False)["machine"],
        "rows": {},
    }
    for row in rows:
        file_or_why = files[row.title]
        if isinstance(file_or_why, str):
            print(f"{row.title}: not measured: {file_or_why}", flush=True)
            document["rows"][row.title] = {"missing": file_or_why, "cases": {}}
            continue
        found = compare(file_or_why, engines, options)
        bars = AVX2_BARS[row.kind == "float"] if options.avx2 else row.bars
        found |= {"kind": row.kind, "bars": bars, "random": bool(row.made)}
        if row.reference and options.reference:
            found["reference"] = compare_reference(file_or_why, options.reference)
        if row.title in LAYERED and not options.no_layers:
            layers = attempt(measure_fresh, os.fspath(file_or_why), Options(1, 1, 50, True), False)
            found["layers"] = {**layers, "file": file_or_why.name} if isinstance(layers, dict) else layers
        document["rows"][row.title] = found
        say(row.title, found)
        write_json(options.json.with_suffix(".part.json"), document)  # should anything stop this
    if not options.no_start:
        document["scaling"] = attempt(measure_scaling)
        document["start"] = attempt(measure_start, weights)
    document["load_average"].append(load_average())
    return document


def show_avx2_only(folder: str) -> None:
    """Let all programs started from here on see a CPU that ends with AVX2. Raises `SystemExit` where that can't be."""
    library = os.path.join(folder, "avx2_only.so")
    source = os.fspath(ROOT / "tools" / "avx2_only.c")
    built = subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", library, source], check=False)
    if built.returncode or subprocess.run(["true"], env={**os.environ, "LD_PRELOAD": library}, check=False).returncode:
        raise SystemExit("--avx2: expected a C compiler, and a CPU whose CPUID can be made to fault (Linux, x86)")
    os.environ["LD_PRELOAD"] = library


def attempt(function: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any] | None:
    """What a function measures; where that fails, None, and the reason is printed: the other figures are not lost."""
    try:
        return function(*arguments)
    except NpMobilenetError as error:
        print(f"{function.__name__}: not measured: {error}", flush=True)
        return None


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write the document whole."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8", newline="\n")
    os.replace(temporary, path)


def say(title: str, found: dict[str, Any]) -> None:
    """What a model's figures are, as they come."""
    print(f"{title} ({found['seconds']:.0f} s)", flush=True)
    for key, case in found["cases"].items():
        ms = ", ".join(f"{name} {q['median']:.3f}" for name, q in case["ms"].items())
        ratio = ", ".join(
            f"{name} {q['median']:.2f} [{q['q1']:.2f}, {q['q3']:.2f}]" for name, q in case["ratio"].items()
        )
        print(f"  {key}: ms: {ms}; ours / peer: {ratio}", flush=True)
        for name, why in case["missing"].items():
            print(f"    {name}: not measured: {why}", flush=True)
    for name, apart in found["apart"].items():
        print(f"  largest difference from {name}'s output: {apart}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write, or write only."""
    cache = cache_root() / "peer-models"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--models", nargs="+", default=[], metavar="TITLE", help="only these rows, as the page calls them"
    )
    parser.add_argument("--files", nargs="+", type=Path, default=[], metavar="TFLITE", help="further .tflite files")
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=PEERS, help="whom to compare with (default: all)")
    parser.add_argument("--threads", nargs="+", type=int, default=THREADS, metavar="N")
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES, metavar="N")
    parser.add_argument("--pairs", type=int, default=12, metavar="N", help="rounds at batch 1 (default: 12)")
    parser.add_argument("--batch-pairs", type=int, default=4, metavar="N", help="rounds at larger batches (default: 4)")
    parser.add_argument("--reference", type=int, default=5, metavar="N",
                        help="rounds with LiteRT's reference kernels; 0: none (default: 5)")  # fmt: skip
    parser.add_argument("--paused", type=int, default=20, metavar="N", help="runs after a pause; 0: none (default: 20)")
    parser.add_argument("--folder", type=Path, default=cache, help="where made model files are kept")
    parser.add_argument("--make-with", default=sys.executable, metavar="PYTHON", help="a Python that has TensorFlow")
    parser.add_argument("--no-layers", action="store_true", help="don't time layers")
    parser.add_argument("--no-start", action="store_true", help="don't time start-up and scaling")
    parser.add_argument("--avx2", action="store_true", help="as on a CPU that ends with AVX2")
    parser.add_argument("--json", type=Path, metavar="FILE",
                        help="where the figures go (default: docs/performance.json, with the page)")  # fmt: skip
    parser.add_argument("--from-json", action="store_true", help="write the page from the figures in docs/")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 if the page isn't what its figures say"
    )
    options = parser.parse_args(arguments)
    if options.from_json or options.check:
        return write_page(check=options.check)
    place = AVX2_JSON if options.avx2 else JSON
    options.json = options.json or place
    with tempfile.TemporaryDirectory() as folder:
        if options.avx2:
            show_avx2_only(folder)
        document = measure(options)
    write_json(options.json, document)
    options.json.with_suffix(".part.json").unlink(missing_ok=True)
    return write_page() if options.json == place else 0


if __name__ == "__main__":
    sys.exit(main())
