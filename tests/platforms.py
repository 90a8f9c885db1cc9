"""What not every platform has, for tests that can do without it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

needs_owners = pytest.mark.skipif(not hasattr(os, "getuid"), reason="this platform has no owners and modes of files")


def make_pipe(path: Path) -> bool:
    """Make a named pipe, where the platform has such; whether it does."""
    if not hasattr(os, "mkfifo"):
        return False
    os.mkfifo(path)
    return True
