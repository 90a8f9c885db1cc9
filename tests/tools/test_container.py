"""The Dockerfile's parts; tools/container_steps.py runs its steps, and docs/container.md has what that gave."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
START = ROOT / "container" / "start"
if not START.is_file():
    pytest.skip("not a checkout: container/ is not installed", allow_module_level=True)
if sys.platform == "win32":
    pytest.skip("this platform has no sh", allow_module_level=True)
sys.path.insert(0, str(ROOT / "tools"))

from container_steps import HOME, command, instructions  # noqa: E402

V3 = "fpu sse4_2 avx avx2 bmi1 bmi2 f16c fma abm movbe xsave"
V4 = f"{V3} avx512f avx512bw avx512cd avx512dq avx512vl"
LEVELS = {"v4-vnni": f"{V4} avx512_vnni", "v4": V4, "v3-vnni": f"{V3} avx_vnni", "v3": V3, "none": "fpu sse4_2 avx"}
ISAS = {"v4-vnni": "avx512vnni", "v4": "avx512", "v3-vnni": "avxvnni", "v3": "avx2"}


def start(tmp_path: Path, flags: str, *words: str) -> str:
    """What `start` prints on a machine with these flags."""
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nmodel name\t: a CPU\nflags\t\t: {flags}\nbugs\t\t: avx512f\n")
    variables = {"CPUINFO": str(tmp_path / "cpuinfo"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [str(START), *words], env={**os.environ, **variables}, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_levels(tmp_path: Path) -> None:
    assert {level: start(tmp_path, flags, "level") for level, flags in LEVELS.items()} == {n: n for n in LEVELS}
    assert start(tmp_path, "", "level") == "none"
    assert start(tmp_path, f"{V4} avx512_vnni avx_vnni", "level") == "v4-vnni"
    assert start(tmp_path, f"{V4} avx_vnni", "level") == "v4"
    assert start(tmp_path, V4.replace("bmi2", ""), "level") == "none"
    assert start(tmp_path, V4.replace("avx512cd", ""), "level") == "v3"


@pytest.mark.parametrize("level", ISAS)
def test_kernels_are_made_for_the_level(level: str, tmp_path: Path) -> None:
    """Whatever this machine has: equal levels share the folder of kernels."""
    program = "from npmobilenet.kernels.compiler import cpu; print(cpu.ARM or cpu.isa())"
    assert start(tmp_path, LEVELS[level], sys.executable, "-c", program) in (ISAS[level], "True")


def test_steps() -> None:
    """Everything that is copied is there, and let into the build; the user isn't root; the end is as documented."""
    steps = instructions((ROOT / "Dockerfile").read_text(encoding="utf-8"))
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for name, rest in steps:
        if name == "COPY":
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert source.split("/")[0] in allowed, source
    found = dict(steps)
    assert "0" not in found["USER"].split(":")
    assert command(found["ENTRYPOINT"]) == [f"{HOME}/start"]
    assert command(found["CMD"])[:2] == ["python", "serve.py"]
    assert os.access(START, os.X_OK)
