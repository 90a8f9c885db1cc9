"""What type checkers make of the package once it is installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import npmobilenet

PACKAGE = Path(npmobilenet.__file__).parent


def test_type_checkers_see_the_annotations(tmp_path: Path) -> None:
    """PEP 561: without py.typed in the package, mypy takes all of it for Any. CI looks for it in the wheel."""
    assert (PACKAGE / "py.typed").read_bytes() == b""
    assert "py.typed" in (PACKAGE.parent / ".ci" / "run").read_text(encoding="utf-8")
    pytest.importorskip("mypy", reason="types are checked with the extra [dev]")
    (tmp_path / "theirs.py").write_text("import npmobilenet as nm\nreveal_type(nm.list_models)\n")
    site = tmp_path / "site-packages"  # where a package without the marker isn't looked into
    site.mkdir()
    (site / "npmobilenet").symlink_to(PACKAGE)
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        f"--cache-dir={tmp_path / 'cache'}",
        "--config-file=",
        "theirs.py",
    ]
    command += ["--follow-imports=silent", "--ignore-missing-imports"]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(site), "MYPYPATH": ""}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert "pattern: str =, present: bool | None =" in done.stdout, done.stdout
