"""Write docs/cli.md, and README.md's table of verbs, from the commands themselves.

Usage: python tools/make_cli_docs.py [--check]

`--check` writes nothing and exits with 1 if a file isn't current. What is printed comes from the verbs' parameters, not
from Click's help text, whose line breaks differ between versions of Click.
"""

from __future__ import annotations

import argparse
import inspect
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))  # the checkout, whether or not the package is installed

import click  # noqa: E402

from npmobilenet.cli.app import app  # noqa: E402

PAGE = ROOT / "docs" / "cli.md"
README = ROOT / "README.md"
VERBS = re.compile(r"(?<=<!-- verbs -->\n).*?(?=<!-- /verbs -->)", re.DOTALL)

INTRODUCTION = """\
# The command line

<!-- Written by tools/make_cli_docs.py from npmobilenet/cli; edit the commands, then run it. -->

`npmobilenet VERB ...`, or `python -m npmobilenet VERB ...`. It needs the extra `[cli]` (Pillow, rich, click). On a
terminal it draws tables; in a pipe it prints aligned plain text, `-` for an empty cell. `--json` prints one JSON
document to standard output. Messages go to standard error.

| exit code | meaning |
|---:|---|
| 0 | done |
| 1 | a comparison differs (`doctor`: the fast kernels don't give the reference kernels' bits here) |
| 2 | bad usage or bad input, told in one line on standard error |
| 70 | a mistake in npmobilenet itself; NPMOBILENET_DEBUG=1 shows the traceback |
| 130 | stopped by Ctrl-C |
| 141 | the reader of the output went away |

MODEL is a name (`npmobilenet models`) or the path of a model file: this project's `.h5`, a `.tflite`, a TensorFlow
checkpoint or a Keras file. The variables of the environment are listed in [architecture.md](architecture.md#variables).

The Tab key completes verbs, options, model names, recipes, dialects and paths once the shell knows how; a line for its
start-up file:

| shell | file | line |
|---|---|---|
| bash | `~/.bashrc` | `eval "$(_NPMOBILENET_COMPLETE=bash_source npmobilenet)"` |
| zsh | `~/.zshrc` | `eval "$(_NPMOBILENET_COMPLETE=zsh_source npmobilenet)"` |
| fish | `~/.config/fish/completions/npmobilenet.fish` | `_NPMOBILENET_COMPLETE=fish_source npmobilenet \\| source` |
"""


def verbs() -> dict[str, click.Command]:
    """All verbs by name, those inside a group as `golden diff`."""
    found: dict[str, click.Command] = {}

    def collect(group: click.Group, prefix: str) -> None:
        for name, command in sorted(group.commands.items()):
            if isinstance(command, click.Group):
                collect(command, f"{prefix}{name} ")
            else:
                found[prefix + name] = command

    collect(app, "")
    return found


def usage(name: str, command: click.Command) -> str:
    """`npmobilenet convert [OPTIONS] SRC DST`."""
    pieces = [_metavar(p) for p in command.params if isinstance(p, click.Argument)]
    return " ".join(["npmobilenet", name, "[OPTIONS]", *pieces])


def _metavar(argument: click.Argument) -> str:
    text = argument.metavar or (argument.name or "").upper()
    return text if argument.required or text.startswith("[") else f"[{text}]"


def option_row(option: click.Option) -> str:
    """A line of the options' table."""
    names = ", ".join(f"`{name}`" for name in option.opts)
    value = "" if option.is_flag else f" {_values(option)}"
    text = (option.help or "").strip()
    if option.show_default and not option.is_flag:
        text += f" Default: `{option.default}`."
    return f"| {names}{value} | {_cell(text)} |"


def _values(option: click.Option) -> str:
    kind: Any = option.type
    if isinstance(kind, click.Choice):
        return " ".join(f"`{choice}`" for choice in kind.choices)
    least = getattr(kind, "min", None)
    return f"`{option.metavar or kind.name.upper()}`" + ("" if least is None else f" ({least} or more)")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def summary(command: click.Command) -> str:
    """The first line of a verb's help."""
    return inspect.cleandoc(command.help or "").partition("\n")[0].strip()


def section(name: str, command: click.Command) -> list[str]:
    """A verb's heading, usage, help and options."""
    lines = [f"## {name}", "", f"    {usage(name, command)}", ""]
    lines += [inspect.cleandoc(command.help or ""), "", "| option | meaning |", "|---|---|"]
    lines += [option_row(p) for p in command.params if isinstance(p, click.Option) and not p.hidden]
    return [*lines, "| `-h`, `--help` | Print this help. |", ""]


def page() -> str:
    """The whole text of docs/cli.md."""
    lines = [INTRODUCTION]
    for name, command in verbs().items():
        lines += section(name, command)
    return "\n".join(lines).rstrip() + "\n"


def _members(command: click.Command) -> str:
    """The verbs of a group."""
    if not isinstance(command, click.Group):
        return ""
    return f" Verbs: {', '.join(f'`{name}`' for name in command.commands)}."


def readme() -> str:
    """README.md with its table of verbs made anew: a row for each verb, or group of verbs."""
    rows = [
        f"| `{name}` | {_cell(summary(command))}{_members(command)} |" for name, command in sorted(app.commands.items())
    ]
    text = README.read_text(encoding="utf-8")
    if not VERBS.search(text):
        raise SystemExit(f"{README.name}: there is no place marked <!-- verbs --> ... <!-- /verbs -->")
    table = "\n".join(["| verb | what it does |", "|---|---|", *rows, ""])
    return VERBS.sub(lambda _: table, text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the pages, or check them; returns the exit status."""
    parser = argparse.ArgumentParser(description="Write docs/cli.md and README.md's table of verbs.")
    parser.add_argument("--check", action="store_true", help="only say whether the files are current")
    options = parser.parse_args(arguments)
    stale = False
    for path, text in ((PAGE, page()), (README, readme())):
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        stale = True
        if options.check:
            print(f"{path.relative_to(ROOT)} is not current: run python tools/make_cli_docs.py")
            continue
        temporary = path.with_suffix(".tmp")
        temporary.write_text(text, encoding="utf-8", newline="\n")
        os.replace(temporary, path)
    return 1 if stale and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
