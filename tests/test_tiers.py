"""Which tests run when, and what is said of the rest: tests/conftest.py, tried on a suite of five tests."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SUITE = {
    "zoo/test_one.py": "def test_one(): pass\ndef test_two(data): pass\n",
    "test_more.py": """
import pytest
def test_identify(): pass
def test_other(): pytest.skip("the extra [tf] is not installed")
""",
    "test_whole.py": "import pytest\npytest.importorskip('no_such_module', reason='no such module')\n",
}
INI = "[pytest]\ntestpaths = tests\naddopts = -q\nmarkers =\n    quick:\n    slow:\n"


def suite(folder: Path, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    for name, text in {**{f"tests/{name}": text for name, text in SUITE.items()}, "pytest.ini": INI}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    shutil.copy(Path(__file__).with_name("conftest.py"), folder / "tests")
    env = {name: value for name, value in os.environ.items() if not name.startswith(("NPMOBILENET_", "PYTEST"))}
    env |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **variables}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=300)


SAID = {
    (): (1, 3, "1 slow tests (python -m pytest --all), 1 that need NPMOBILENET_DATA"),
    ("--all",): (2, 3, "left out: 1 that need NPMOBILENET_DATA"),
    ("tests/test_more.py",): (1, 1, "left out: 1 that need TensorFlow"),
    ("-m", "quick"): (1, 1, "left out: 1 for other reasons"),
    ("-m", "slow"): (1, 1, "left out: 1 for other reasons"),
}


@pytest.mark.parametrize("processes", [(), ("-p", "xdist")], ids=["one process", "two"])
def test_what_was_left_out_is_said_once(tmp_path: Path, processes: tuple[str, ...]) -> None:
    if processes:
        pytest.importorskip("xdist", reason="two processes need pytest-xdist, of the extra [test]")
    for options, (passed, skipped, line) in list(SAID.items())[: 1 if processes else None]:
        done = suite(tmp_path, *options, *processes)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.count("left out: ") == 1, done.stdout
        assert bool(processes) == ("2 workers" in done.stdout or "bringing up nodes" in done.stdout), done.stdout
        assert line in done.stdout
        assert f"{passed} passed, {skipped} skipped" in done.stdout
    done = suite(tmp_path, *processes, NPMOBILENET_NO_SKIP="1")
    assert (done.returncode, "left out: 1 that need NPMOBILENET_DATA" in done.stdout) == (1, True), done.stdout
    forbidden = done.stdout.partition("NPMOBILENET_NO_SKIP forbids:")[2]
    for name, reason in (("test_two", "NPMOBILENET_DATA"), ("test_other", "[tf]"), ("test_whole.py", "no such module")):
        assert sum(name in line and reason in line for line in forbidden.splitlines()) == 1, done.stdout


def test_tiers_name_what_there_is() -> None:
    """Every row of QUICK and SLOW in conftest.py is a file, folder or test."""
    folder = Path(__file__).parent
    rows = runpy.run_path(str(folder / "conftest.py"))
    assert all((folder / name).exists() for name in rows["QUICK"])
    found = {
        f"{path.name}::{name}"
        for path in folder.rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    found |= {path.relative_to(folder).as_posix() for path in folder.rglob("test_*.py")}
    gone = [row for row in rows["SLOW"] if not any(test.endswith(row) for test in found)]
    assert not gone, f"no test is called so any more: {gone}"
