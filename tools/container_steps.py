"""Run the steps of the Dockerfile without a builder: in an environment of its own below a folder.

Usage: python tools/container_steps.py FOLDER [--pip VARIABLES] [--level LEVEL]

What the image has at /opt/npmobilenet goes to FOLDER/app, `python` and `pip` are those of a fresh environment of this
Python; apt-get is left out. Run by root on Linux, what follows USER runs as that user, with the folder mounted
read-only, as `docker run --read-only` has it. Then the server is asked: a picture's classes, its health, and that no
kernel is compiled any more. FOLDER is to be empty, and others must be able to look into it.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
HOME = "/opt/npmobilenet"
PORT = 18431


def instructions(text: str) -> list[tuple[str, str]]:
    """(name, rest) of each instruction of a Dockerfile, lines that go on joined, comments left out."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    parts = (line.split(None, 1) for line in joined.splitlines() if line.strip())
    return [(name.upper(), " ".join(rest.split())) for name, rest in parts]


def command(text: str) -> list[str]:
    """A command in its JSON form."""
    parsed: list[str] = json.loads(text)
    return parsed


class Steps:
    """The steps, one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.app = folder, folder / "app"
        self.user: list[int] = []
        self.environment = {"PATH": f"{folder / 'venv' / 'bin'}:/usr/bin:/bin", "LANG": "C.UTF-8"}
        self.start: list[str] = []
        self.app.mkdir(parents=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)

    def placed(self, text: str) -> str:
        """A text with the image's folder replaced."""
        return text.replace(HOME, str(self.app))

    def run(self, name: str, rest: str) -> None:
        """One instruction."""
        if name == "ENV":
            self.environment |= dict(item.split("=", 1) for item in shlex.split(self.placed(rest)))
        elif name == "COPY":
            *sources, target = rest.split()
            for source in sources:
                self.copy(ROOT / source, self.app / target, into=target.endswith("/"))
        elif name == "RUN":
            if rest.startswith("apt-get"):
                print("left out:", rest)
            else:
                subprocess.run(["sh", "-c", self.placed(rest)], cwd=self.app, env=self.environment, check=True)
        elif name == "USER":
            self.user = [int(part) for part in rest.split(":")]
        elif name in ("ENTRYPOINT", "CMD"):
            self.start += [self.placed(word) for word in command(rest)]
        elif name == "WORKDIR":
            if rest != HOME:
                raise SystemExit(f"WORKDIR {rest}: expected {HOME}")
        elif name not in ("FROM", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK"):
            raise SystemExit(f"{name}: no such step is known here")

    @staticmethod
    def copy(source: Path, target: Path, into: bool) -> None:
        """COPY: a folder's content, or a file."""
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
        else:
            place = target / source.name if into else target
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, place)

    def confined(self, words: list[str]) -> list[str]:
        """A command as the user, on a read-only folder; as it is where that takes root and this isn't."""
        if sys.platform != "linux" or not hasattr(os, "getuid") or os.getuid() != 0:
            print("not root: neither another user nor a read-only folder is tried")
            return words
        mount = f"mount --bind {self.folder} {self.folder} && mount -o remount,ro,bind {self.folder}"
        user = f"exec setpriv --reuid {self.user[0]} --regid {self.user[-1]} --clear-groups -- {shlex.join(words)}"
        return ["unshare", "--mount", "sh", "-c", f"{mount} && {user}"]


def ask(method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    """Ask the server that was started."""
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=30)
    connection.request(method, path, body)
    answer = connection.getresponse()
    return answer.status, answer.read()


def try_out(steps: Steps) -> dict[str, object]:
    """Start what the image starts, ask it, stop it; and what is compiled by then."""
    start, program = steps.start[0], steps.start[1:]
    environment = {**steps.environment, "HOME": "/nonexistent"}
    kept: dict[str, Any] = {"cwd": steps.app, "env": environment}
    began = time.monotonic()
    server = subprocess.Popen(steps.confined([start, *program, "--port", str(PORT)]), **kept)
    try:
        while True:
            try:
                status, _ = ask("GET", "/readyz")
                break
            except OSError:
                if server.poll() is not None or time.monotonic() - began > 120:
                    raise SystemExit("the server didn't start") from None
                time.sleep(0.05)
        ready = time.monotonic() - began
        rows = np.zeros((48, 64, 3), np.uint8)
        picture = b"P6 64 48 255\n" + rows.tobytes()
        classified = ask("POST", "/classify", picture)
        health = ask("GET", "/healthz")[0]
    finally:
        server.send_signal(signal.SIGTERM)
        code = server.wait(60)
    words = steps.confined([start, "npmobilenet", "warmup", "flowers", "--json"])
    warm = subprocess.run(words, **kept, capture_output=True, text=True, check=True)
    compiled = [k["kernel"] for k in json.loads(warm.stdout)["kernels"] if k["compiled"]]
    facts = {"ready": status, "seconds": round(ready, 2), "classify": classified[0], "health": health, "exit": code}
    size = sum(f.stat().st_size for f in (steps.app / "kernels").rglob("*") if f.is_file())
    return {**facts, "compiled": compiled, "kernels_mib": round(size / 2**20, 1)}


def main() -> int:
    """Run the steps, try the result; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pip", default="", help="what else pip shall be told, as PIP_ variables: 'INDEX_URL=...'")
    parser.add_argument("--level", help="compile for this level alone, and run on it: v3, v3-vnni, v4, v4-vnni")
    given = parser.parse_args()
    steps = Steps(given.folder.resolve())
    steps.environment |= {f"PIP_{k}": v for k, v in (item.split("=", 1) for item in shlex.split(given.pip))}
    steps.environment |= {"LEVEL": given.level} if given.level else {}
    for name, rest in instructions((ROOT / "Dockerfile").read_text(encoding="utf-8")):
        print(name, rest, flush=True)
        steps.run(name, rest)
    facts = try_out(steps)
    print(json.dumps(facts))
    wanted = {"ready": 200, "classify": 200, "health": 200, "exit": 0, "compiled": []}
    return int(any(facts[key] != value for key, value in wanted.items()))


if __name__ == "__main__":
    sys.exit(main())
