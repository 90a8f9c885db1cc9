"""Load on examples/serve.py by real clients: latencies, answers, memory along the way, and a stop under load.

Usage: python tools/serve_load.py MODEL PHOTO... [--requests 100000] [--clients 8]

Clients keep their connections and send the next photo when the last is answered; every answer has to be the model's
own. Then some send half of a photo, the server is told to stop (SIGTERM), and they send the rest: all must be answered.
Prints JSON; ends with 1 if a request was lost, an answer was wrong or memory grew. Linux only: it reads /proc.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from npmobilenet.model import load

ROOT = Path(__file__).resolve().parent.parent
MOST_MEMORY = 16 * 2**20  # bytes that allocators of several threads may still take after the first fifth
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "most": 1.0}
STARTING = 120  # seconds; kernels may have to be compiled


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """examples/serve.py in a process of its own."""

    def __init__(self, model: str) -> None:
        self.port = free_port()
        command = [sys.executable, str(ROOT / "examples" / "serve.py"), model, "--port", str(self.port)]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE)
        end = time.monotonic() + STARTING
        while True:
            try:
                if self.ask("GET", "/readyz")[0] == 200:
                    return
            except OSError:
                pass
            if self.process.poll() is not None or time.monotonic() > end:
                self.process.kill()
                raise SystemExit(f"the server didn't start: {self.process.communicate()[1].decode()[-2000:]}")
            time.sleep(0.05)

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
        """Status and body, over a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def memory(self) -> int:
        """Bytes in memory (Linux)."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=60)
        return int(self.process.returncode)


def measure(model: str, photos: list[Path], requests: int, clients: int) -> dict[str, Any]:
    """The load, and the stop."""
    engine = load(model, threads=1)
    files = [photo.read_bytes() for photo in photos]
    expected = [[list(best) for best in engine.predict(content)[0]] for content in files]
    numbers, lock = iter(range(requests)), threading.Lock()
    seconds, memory, answers = list[float](), list[int](), Counter[str]()
    server = Server(model)

    def right(i: int, body: bytes) -> bool:
        return [[c["class_id"], c["label"], c["score"]] for c in json.loads(body)["classes"]] == expected[i]

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        while True:
            with lock:
                n = next(numbers, None)
                if n is None:
                    return connection.close()
                if n % max(requests // 50, 1) == 0:
                    memory.append(server.memory())
            i = n % len(files)
            start = time.perf_counter()
            try:
                connection.request("POST", "/classify", files[i])
                answer = connection.getresponse()
                body = answer.read()
                kind = str(answer.status) if answer.status != 200 else "right" if right(i, body) else "wrong"
            except (OSError, http.client.HTTPException) as error:
                kind = f"lost: {type(error).__name__}"
                connection.close()
            with lock:
                answers[kind] += 1
                seconds.append(time.perf_counter() - start)

    def half(i: int) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        connection.putrequest("POST", "/classify")
        connection.putheader("Content-Length", str(len(files[i])))
        connection.endheaders(files[i][: len(files[i]) // 2])
        return connection

    try:
        started = time.monotonic()
        threads = [threading.Thread(target=client) for _ in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took = time.monotonic() - started
        metrics = server.ask("GET", "/metrics")[1].decode()
        under_way = [half(i % len(files)) for i in range(clients)]
        time.sleep(0.3)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        stopped = Counter[str]()
        for i, connection in enumerate(under_way):
            content = files[i % len(files)]
            connection.send(content[len(content) // 2 :])
        for i, connection in enumerate(under_way):
            answer = connection.getresponse()
            stopped["right" if answer.status == 200 and right(i % len(files), answer.read()) else "lost"] += 1
            connection.close()
        code = server.stop()
    finally:
        server.process.kill()
    first, last = (int(np.median(part)) for part in (memory[len(memory) // 5 :][:10], memory[-10:]))
    return {
        "requests": requests,
        "clients": clients,
        "answers": dict(answers),
        "requests_per_second": round(requests / took, 1),
        "ms": {name: round(1000 * float(np.quantile(seconds, q)), 2) for name, q in QUANTILES.items()},
        "server_mib": [round(first / 2**20, 1), round(last / 2**20, 1)],
        "grown": last - first,
        "runs_by_images": dict(re.findall(r'classify_runs_total{images="(\d+)"} (\d+)', metrics)),
        "under_way_at_the_stop": dict(stopped),
        "exit_code": code,
    }


def main(arguments: list[str] | None = None) -> int:
    """Measure, print; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model")
    parser.add_argument("photos", nargs="+", type=Path)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--clients", type=int, default=8)
    given = parser.parse_args(arguments)
    facts = measure(given.model, given.photos, given.requests, given.clients)
    good = set(facts["answers"]) == {"right"} == set(facts["under_way_at_the_stop"])
    good = good and facts["exit_code"] == 0 and facts["grown"] <= MOST_MEMORY
    print(json.dumps({**facts, "passed": good}))
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
