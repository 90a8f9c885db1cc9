"""The command line: `npmobilenet VERB`, one module for each verb.

Exit codes: 0 done; 1 a comparison differs; 2 bad usage or bad input, told in one line on standard error; 130 stopped by
Ctrl-C; 141 the reader of the output went away; 143 stopped by SIGTERM; 70 an error in npmobilenet itself.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence

from npmobilenet.errors import MissingExtra

BAD_INPUT = 2
PACKAGES = ("click", "rich")  # of the extra [cli]; Pillow, the third, is asked for where an image is read


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command (default: the process's arguments) and return its exit code."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the shell (>&-): Python then has no stream at all
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    for package in PACKAGES:
        if importlib.util.find_spec(package) is None:
            print(f"error: {MissingExtra(package, 'cli', 'The command line')}", file=sys.stderr)
            return BAD_INPUT
    from npmobilenet.cli.app import run

    return run(arguments)
