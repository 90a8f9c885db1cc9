"""Fuzzing of all that is read: damages small sound files of every format, and looks at what becomes of each.

    python tools/fuzz.py --format tflite --minutes 30 --seed 1 --state fuzz.jsonl --out findings
    python tools/fuzz.py --replay findings/tflite-1-4711

A case is (format, seed, number), and these alone decide its file. It is run in a child process whose time and memory
are watched, so a crash or a hang belongs to its case. What loads is run by the reference and the fast kernels, which
must agree by bits, and a .tflite file that LiteRT accepts must agree with LiteRT's reference kernels, which run in a
child of their own. A finding is: another exception than `NpMobilenetError`, a message that isn't one printable line,
a crash, more than LIMIT_S seconds, more than LIMIT_BYTES of memory, a warning, or results that differ. For Linux.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import random
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import fuzz_actions
import fuzz_mutate
import fuzz_seeds
from fuzz_actions import ACTIONS, Case, FaultError, Peer

from npmobilenet.errors import NpMobilenetError

LIMIT_S = 10.0  # processor seconds of a case; a sound one takes 0.1 s
WARM = 21  # cases after which a child is taken to have its kernels
LONGEST = 25_000  # characters of a message
LIMIT_BYTES = 2**30  # what a case may add to the memory of its process


# -- one case ----------------------------------------------------------------------------------------------------------


def build(kind: str, seed: int, number: int, seeds: Path, folder: Path) -> random.Random:
    """Write a case's files; returns the generator for the choices that remain."""
    rng = random.Random(f"{kind} {seed} {number}")
    source = rng.choice(sorted((seeds / kind).iterdir()))
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder)
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    chosen = next((p for p in files if p.name == "truth.txt"), None) or rng.choice(files)
    change = fuzz_mutate.text_lines if chosen.suffix == ".txt" else None
    content = chosen.read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        content = change(rng, content) if change else fuzz_mutate.by_name(rng, chosen.name, content)
    chosen.write_bytes(content)
    return rng


def outcome(case: Case) -> tuple[str, str]:
    """(what became of a case, details); the first begins with "FINDING" if it may not be."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            found, detail = ACTIONS[case.kind](case), ""
        except NpMobilenetError as error:
            found, detail = f"refused: {type(error).__name__}", str(error)
            if not detail.isprintable() or not detail or len(detail) > LONGEST:
                found = "FINDING: message that isn't one short printable line"
        except FaultError as error:
            found, detail = "FINDING: wrong result", str(error)
        except Exception as error:
            found, detail = f"FINDING: {type(error).__name__}", traceback.format_exc()[-1500:]
    told = [w for w in warned if not issubclass(w.category, (DeprecationWarning, ResourceWarning))]
    if told and not found.startswith("FINDING"):
        found, detail = "FINDING: warning", f"{told[0].category.__name__} {told[0].message} {told[0].filename}"
    return found, detail


def work(kind: str, seed: int, seeds: Path, folder: Path, orders: int, answers: int) -> None:
    """The child: numbers of cases in, outcomes out, a line each."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    peer = Peer()
    with os.fdopen(orders) as numbers, os.fdopen(answers, "w") as out:
        for line in numbers:
            rng = build(kind, seed, int(line), seeds, folder)
            gc.collect()
            Path("/proc/self/clear_refs").write_bytes(b"5")  # forget the peak so far
            before = resident(os.getpid())
            found, detail = outcome(Case(kind, folder, seeds / "shared", rng, peer))
            extra = resident(os.getpid(), "VmHWM") - before
            if extra > LIMIT_BYTES and not found.startswith("FINDING"):
                found, detail = "FINDING: memory", f"{extra:,} bytes"
            out.write(json.dumps([found, detail[:2000]]) + "\n")
            out.flush()
    if peer.child is not None:
        peer.child.kill()


def resident(pid: int, field: str = "VmRSS") -> int:
    """Bytes of a process in memory, now or at most (VmHWM)."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    return 0


def seconds(pid: int) -> float:
    """Processor seconds that a process has used."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


class Worker:
    """A child that runs cases one after another until it dies or is killed."""

    def __init__(self, kind: str, seed: int, seeds: Path, folder: Path) -> None:
        if not hasattr(os, "fork"):
            raise SystemExit("fuzz.py runs on Linux")
        orders, answers = os.pipe(), os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(orders[1])
            os.close(answers[0])
            os.setpgid(0, 0)
            with contextlib.suppress(BaseException):
                work(kind, seed, seeds, folder, orders[0], answers[1])
            os._exit(0)
        os.close(orders[0])
        os.close(answers[1])
        self.orders, self.answers = os.fdopen(orders[1], "w"), os.fdopen(answers[0])
        self.cases = 0

    def run(self, number: int) -> tuple[str, str]:
        """The outcome of a case; afterwards the child may be dead (`alive`)."""
        used, held, start = seconds(self.pid), resident(self.pid), time.monotonic()
        # A new child reads its kernels from the cache, or compiles them.
        limit = LIMIT_S if self.cases >= WARM else 6 * LIMIT_S
        self.cases += 1
        self.orders.write(f"{number}\n")
        self.orders.flush()
        while not select.select([self.answers], [], [], 0.05)[0]:
            spent, extra = seconds(self.pid) - used, resident(self.pid) - held
            if spent > limit or time.monotonic() - start > 20 * limit:
                self.stop()
                return "FINDING: hang", f"{spent:.1f} s of processor time, {time.monotonic() - start:.1f} s"
            if extra > 2 * LIMIT_BYTES:
                self.stop()
                return "FINDING: memory", f"more than {extra:,} bytes; stopped"
        line = self.answers.readline()
        if line:
            found, detail = json.loads(line)
            return found, detail
        status = self.stop()
        return "FINDING: crash", f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"status {status}"

    def stop(self) -> int:
        """End the child and its own children; returns how it ended."""
        for stream in (self.orders, self.answers):
            with contextlib.suppress(OSError):
                stream.close()
        ended, status = os.waitpid(self.pid, os.WNOHANG)
        if not ended:
            time.sleep(0.2)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            status = os.waitpid(self.pid, 0)[1]
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.pid = 0
        return status


# -- the whole run -----------------------------------------------------------------------------------------------------


def fuzz(kind: str, options: argparse.Namespace, seeds: Path, folder: Path, done: set[int]) -> Iterator[dict[str, Any]]:
    """Run the cases of one format that aren't done yet, until there are enough or time is up."""
    end = time.monotonic() + 60 * options.minutes if options.minutes else float("inf")
    worker: Worker | None = None
    number = 0
    while number < options.cases and time.monotonic() < end:
        if number not in done:
            worker = worker if worker and worker.pid else Worker(kind, options.seed, seeds, folder)
            begin = time.monotonic()
            found, detail = worker.run(number)
            if found == "FINDING: hang":  # compiling kernels may take that long; what hangs does so with them, too
                worker = Worker(kind, options.seed, seeds, folder)
                found, detail = worker.run(number)
                if worker.pid:
                    worker.cases = WARM
                    found, detail = worker.run(number)
            if found == "FINDING: memory" and worker.pid:
                worker.stop()
            if found.startswith("FINDING"):
                place = Path(options.out) / f"{kind}-{options.seed}-{number}"
                build(kind, options.seed, number, seeds, place)
            row = {"format": kind, "seed": options.seed, "case": number, "outcome": found}
            yield row | {"detail": detail, "seconds": round(time.monotonic() - begin, 3)}
        number += 1
    if worker and worker.pid:
        worker.stop()


def report(rows: list[dict[str, Any]], out: str) -> int:
    """Print the counts of each format and every finding; returns the number of findings."""
    for kind in dict.fromkeys(row["format"] for row in rows):
        mine = [row for row in rows if row["format"] == kind]
        counts = Counter(row["outcome"] for row in mine)
        listed = ", ".join(f"{count} {what}" for what, count in counts.most_common())
        print(f"{kind}: {len(mine)} cases in {sum(r['seconds'] for r in mine) / 60:.1f} min: {listed}")
    findings = [row for row in rows if row["outcome"].startswith("FINDING")]
    for row in findings:
        place = f"{out}/{row['format']}-{row['seed']}-{row['case']}"
        print(f"{row['outcome']}: {row['format']} case {row['case']}, seed {row['seed']}: {row['detail'][-300:]!r}")
        print(f"  python tools/fuzz.py --replay {place}")
    return len(findings)


def main(arguments: list[str] | None = None) -> int:
    """Run; returns 1 if there are findings."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--format", action="append", choices=sorted(ACTIONS), help="default: all, one after another")
    parser.add_argument("--cases", type=int, default=10**9, help="the most cases of a format")
    parser.add_argument("--minutes", type=float, default=0, help="the most minutes for a format")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--state", default="", help="a file of finished cases: with it, a run goes on where it was")
    parser.add_argument("--out", default="fuzz-findings", help="the folder for the files of findings")
    parser.add_argument("--corpus", action="append", default=[], help="a folder of further sound files")
    parser.add_argument("--no-keras", action="store_true", help="make no files by Keras, even if it is installed")
    parser.add_argument("--load-only", action="store_true", help="run no model: nothing is compiled")
    parser.add_argument("--replay", default="", help="a folder of a finding: run that, in this process")
    options = parser.parse_args(arguments)
    if not (options.replay or options.minutes or options.cases < 10**9):
        parser.error("say how much: --cases or --minutes")
    fuzz_actions.MOST_MACS = -1 if options.load_only else fuzz_actions.MOST_MACS
    state = Path(options.state) if options.state else None
    lines = state.read_text(encoding="utf-8").splitlines() if state and state.exists() else []
    rows = [row for row in map(json.loads, lines) if row["seed"] == options.seed]
    with tempfile.TemporaryDirectory(prefix="fuzz-") as temporary:
        seeds = Path(temporary) / "seeds"
        words = [sys.executable, fuzz_seeds.__file__, str(seeds), json.dumps(options.corpus)]
        subprocess.run([*words, *(["no-keras"] if options.no_keras else [])], check=True, stderr=subprocess.DEVNULL)
        if options.replay:
            kind, seed, number = Path(options.replay).name.split("-")
            rng = build(kind, int(seed), int(number), seeds, Path(temporary) / kind)
            shutil.copytree(options.replay, Path(temporary) / kind, dirs_exist_ok=True)
            found, detail = outcome(Case(kind, Path(temporary) / kind, seeds / "shared", rng, Peer()))
            print(found, detail, sep="\n")
            return int(found.startswith("FINDING"))
        for kind in options.format or sorted(ACTIONS):
            done = {row["case"] for row in rows if row["format"] == kind}
            for row in fuzz(kind, options, seeds, Path(temporary) / kind, done):
                rows.append(row)
                if state:
                    with state.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(row) + "\n")
    return 1 if report(rows, options.out) else 0


if __name__ == "__main__":
    sys.exit(main())
