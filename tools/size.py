"""Write the sizes of the rooms into docs/architecture.md, and the numbers of lines in README.md's reading order.

Usage: python tools/size.py [--check]

`--check` writes nothing and exits with 1 if a page isn't current. Either way a room, or the core, that is larger than
its budget is an error: make something smaller, or argue for a larger budget in the commit that needs it.

Lines of code are lines that hold a token of Python other than a comment or a docstring; blank lines don't count.
"""

from __future__ import annotations

import argparse
import ast
import functools
import io
import re
import sys
import tokenize
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "npmobilenet"
# Lines of code that a room may have, in the order of docs/architecture.md.
BUDGETS = {
    "errors": 50, "ops": 230, "graph": 280, "modeldata": 70, "zoo": 1420, "arithmetic": 1435, "formats": 9385,
    "images": 1112, "kernels": 6034, "runtime": 1270, "model": 270, "measure": 2541, "quantize": 720, "golden": 7715,
    "views": 640, "cli": 2870,
}  # fmt: skip
# The tiny engine: what is needed to read, plan and run a model with the reference kernels. Paths below npmobilenet/.
CORE = (
    "errors.py", "ops.py", "graph.py", "modeldata.py",
    "zoo/v1.py", "zoo/v2.py", "zoo/v3.py", "zoo/edgetpu.py", "zoo/rows.py", "zoo/__init__.py", "zoo/build.py",
    "arithmetic/", "formats/weightfile/", "kernels/reference/",
    "runtime/plan.py", "runtime/engine.py", "runtime/memory.py", "runtime/binding/", "model.py",
)  # fmt: skip
CORE_BUDGET = 4889
NO_CODE = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER,
}  # fmt: skip
TABLE = re.compile(r"(?<=<!-- size -->\n).*?(?=<!-- /size -->)", re.DOTALL)
READING_ROW = re.compile(r"^(\| \d+ \| \[`[\w/]+\.py`\]\(([\w/.]+)\) \| )\d+( \|)", re.MULTILINE)


def code_lines(text: str) -> int:
    """How many lines of a module hold code."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = node.body[0] if ast.get_docstring(node, clean=False) is not None else None
            if docstring is not None:
                lines -= set(range(docstring.lineno, (docstring.end_lineno or 0) + 1))
    return len(lines)


@functools.cache
def sizes(folder: Path = PACKAGE) -> dict[str, tuple[int, int]]:
    """Path below the package -> (lines, lines of code) of each module."""
    found = {}
    for path in sorted(folder.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        found[path.relative_to(folder).as_posix()] = len(text.splitlines()), code_lines(text)
    return found


def rooms(files: dict[str, tuple[int, int]]) -> dict[str, tuple[int, int, int, int]]:
    """Row -> (files, lines, lines of code, budget of these), the core and the whole last."""
    groups = {f"`{room}`": [n for n in files if n.startswith((f"{room}/", f"{room}.py"))] for room in BUDGETS}
    groups["the core, or tiny engine"] = [n for n in files if n.startswith(CORE)]
    groups["all"] = list(files)
    budgets = [*BUDGETS.values(), CORE_BUDGET, sum(BUDGETS.values())]
    return {
        row: (len(names), sum(files[n][0] for n in names), sum(files[n][1] for n in names), budget)
        for (row, names), budget in zip(groups.items(), budgets, strict=True)
    }


def table(rows: dict[str, tuple[int, int, int, int]]) -> str:
    """The table of docs/architecture.md."""
    lines = ["| room | files | lines | of code | at most |", "|---|---:|---:|---:|---:|"]
    lines += [f"| {row} | {' | '.join(f'{number:,}' for number in numbers)} |" for row, numbers in rows.items()]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the pages, or check them; returns the exit status."""
    parser = argparse.ArgumentParser(description="Write the sizes of rooms and files into the pages.")
    parser.add_argument("--check", action="store_true", help="only say whether the pages are current")
    check = parser.parse_args(arguments).check
    files = sizes()
    rows = rooms(files)
    print(table(rows), end="")
    status = 0
    for row, (_, _, code, budget) in rows.items():
        if code > budget:
            status = 1
            print(f"{row}: {code} lines of code, its budget in tools/size.py is {budget}")
    page, readme = ROOT / "docs" / "architecture.md", ROOT / "README.md"
    old = {path: path.read_text(encoding="utf-8") for path in (page, readme)}
    if not TABLE.search(old[page]):
        raise SystemExit(f"{page.name}: there is no place marked <!-- size --> ... <!-- /size -->")
    new = {
        page: TABLE.sub(lambda _: table(rows), old[page]),
        readme: READING_ROW.sub(lambda m: f"{m[1]}{files[m[2].removeprefix('npmobilenet/')][0]}{m[3]}", old[readme]),
    }
    for path, text in new.items():
        if text != old[path] and check:
            status = 1
            print(f"{path.relative_to(ROOT)} is not current: run python tools/size.py")
        elif text != old[path]:
            path.write_text(text, encoding="utf-8", newline="\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
