"""Run docs/tour.md and docs/first-steps.md: write their outputs anew, and notebooks of the same text beside them.

Usage: python tools/make_tour.py [--check] [PAGE.md ...]

`--check` writes nothing and exits with 1 if an output or a notebook isn't what comes out. Blocks are run in order, in
one process and one folder for each page: `console` blocks are commands, whose `| head -N`, `| tail -N` and `> FILE` are
understood, `python` blocks share their names. What is printed stands below a command, or in a `text` block.
A command without output in the page (timings differ) is run and not compared.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import io
import json
import os
import re
import runpy
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from npmobilenet.cli.app import run as run_command  # noqa: E402

PAGES = [ROOT / "docs" / name for name in ("first-steps.md", "tour.md")]
BLOCK = re.compile(r"^```(console|python)\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.DOTALL | re.MULTILINE)


def cells(text: str) -> Iterator[tuple[str, str, str]]:
    """(kind, source, output) of the page: kind is markdown, console or python; one command is one cell."""
    at = 0
    for found in BLOCK.finditer(text):
        yield "markdown", text[at : found.start()], ""
        at = found.end()
        if found[1] == "python":
            yield "python", found[2], found[3] or ""
            continue
        for piece in re.split(r"^\$ ", found[2], flags=re.MULTILINE)[1:]:
            command, _, output = piece.partition("\n")
            yield "console", command, output
    yield "markdown", text[at:], ""


def printed(command: str) -> str:
    """What a command prints. Raises `SystemExit` if it fails otherwise than by finding a difference."""
    command, _, target = command.partition(" > ")
    words, *cut = (shlex.split(part) for part in command.split(" | "))
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        if words[0] == "python":
            before, sys.argv = sys.argv, words[1:]
            try:
                runpy.run_path(words[1], run_name="__main__")
            finally:
                sys.argv = before
            status = 0
        else:
            status = run_command(words[1:])
    if status > 1:
        raise SystemExit(f"{command}: exit code {status}")
    lines = out.getvalue().splitlines(keepends=True)
    for name, count in cut:
        lines = lines[: int(count[1:])] if name == "head" else lines[-int(count[1:]) :]
    if target:
        Path(target).write_text("".join(lines), encoding="utf-8", newline="\n")
        return ""
    return "".join(lines)


def run(text: str) -> list[tuple[str, str, str]]:
    """The cells with what they print now, run in a folder of their own."""
    names: dict[str, Any] = {"__name__": "tour"}
    found, here = [], Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "examples", Path(folder) / "examples")
        (Path(folder) / "docs").mkdir()
        shutil.copy(ROOT / "docs" / "example.png", Path(folder) / "docs")
        os.chdir(folder)
        try:
            for kind, source, output in cells(text):
                new = ""
                if kind == "console":
                    new = printed(source) if output or " > " in source else printed(source)[:0]
                elif kind == "python":
                    out = io.StringIO()
                    with contextlib.redirect_stdout(out):
                        exec(compile(source, "tour.md", "exec"), names)
                    new = out.getvalue()
                found.append((kind, source, new))
        finally:
            os.chdir(here)
    return found


def page(found: Sequence[tuple[str, str, str]]) -> str:
    """The page again, from its cells."""
    parts: list[str] = []
    for kind, source, output in found:
        if kind == "markdown":
            parts.append(source)
        elif kind == "python":
            parts.append(f"```python\n{source}```\n" + (f"\n```text\n{output}```\n" if output else ""))
        elif parts[-1].endswith("```\n") and parts[-1].startswith("```console"):
            parts[-1] = f"{parts[-1][:-4]}$ {source}\n{output}```\n"
        else:
            parts.append(f"```console\n$ {source}\n{output}```\n")
    return "".join(parts)


def notebook(found: Sequence[tuple[str, str, str]]) -> str:
    """The cells as a Jupyter notebook (nbformat 4.5), behind one that finds the folder; commands begin with "!"."""
    # Jupyter starts in the notebook's folder, docs/; names of files count from the checkout's. A command behind "!"
    # has a terminal, so it would move a status line about, of which cells keep every state.
    start = 'import os\n\nos.environ["TERM"] = "dumb"\nif not os.path.isdir("docs"):\n    os.chdir("..")'
    made: list[dict[str, Any]] = [
        {"cell_type": "code", "id": "cell-start", "metadata": {}, "source": start.splitlines(keepends=True),
         "execution_count": None, "outputs": []}
    ]  # fmt: skip
    for i, (kind, source, output) in enumerate(found):
        if not source.strip():
            continue
        text = f"!{source}" if kind == "console" else source.strip("\n")
        cell: dict[str, Any] = {
            "cell_type": "markdown" if kind == "markdown" else "code", "id": f"cell-{i}", "metadata": {},
            "source": text.splitlines(keepends=True),
        }  # fmt: skip
        if kind != "markdown":
            lines = output.splitlines(keepends=True)
            stream = [{"output_type": "stream", "name": "stdout", "text": lines}] if output else []
            cell |= {"execution_count": None, "outputs": stream}
        made.append(cell)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    document = {"cells": made, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write pages and notebooks, or check them; returns the exit status."""
    parser = argparse.ArgumentParser(description="Run the pages and write their outputs and notebooks.")
    parser.add_argument("names", nargs="*", help="some of the pages, as tour.md; default: all")
    parser.add_argument("--check", action="store_true", help="only say whether they are current")
    options = parser.parse_args(arguments)
    pages = [path for path in PAGES if not options.names or path.name in options.names]
    return max(_write(path, options.check) for path in pages)


def _write(target: Path, check: bool) -> int:
    found, status = run(target.read_text(encoding="utf-8")), 0
    for path, text in ((target, page(found)), (target.with_suffix(".ipynb"), notebook(found))):
        old = path.read_text(encoding="utf-8") if path.is_file() else ""
        if old != text and check:
            status = 1
            print(f"docs/{path.name} is not current: run python tools/make_tour.py")
            sys.stdout.writelines(difflib.unified_diff(old.splitlines(True), text.splitlines(True), "now", "made", n=0))
        elif old != text:
            path.write_text(text, encoding="utf-8", newline="\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
