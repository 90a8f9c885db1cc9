"""The runnable ladders of examples/: what tests/test_docs.py, which climbs both, can't see."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from npmobilenet.arithmetic.fixedpoint import requantize, rounding
from npmobilenet.kernels.compiler.cpu import ISAS, isas_here

LADDER = Path(__file__).parents[1] / "examples" / "ladder_int8.py"


def test_the_first_rung_rounds_as_a_dialect() -> None:
    """The layer's values as NumPy has them in int64, and the rule "single" of fixedpoint.py."""
    ladder = runpy.run_path(str(LADDER))
    x, w, layer = ladder["example"](2, 32)
    out = np.empty((4, 32), np.uint8)
    ladder["plain"](x, w, layer, out)
    acc = (x.astype(np.int64) - layer.zero_in) @ w.astype(np.int64) + layer.bias
    for c in range(32):
        m, s = int(layer.multiplier[c]), int(layer.shift[c])
        values = [int(requantize(int(a), m, -s, 0.0, rounding("single"))) + layer.zero_out for a in acc[:, c]]
        assert out[:, c].tolist() == np.clip(values, 0, 255).tolist()
    assert len(np.unique(out)) > 32  # not all of them clamped


@pytest.mark.parametrize("most", [ISAS[0], ISAS[1]])
def test_lesser_instructions_climb_too(most: str, tmp_path: Path) -> None:
    """Without VNNI every rung runs, and a line says what was left out; the picture holds text."""
    if most not in isas_here():
        pytest.skip(f"this CPU has no {most}")
    drawn = tmp_path / "ladder.svg"
    command = [sys.executable, str(LADDER), "--side", "4", "--channels", "32"]
    if most == ISAS[1]:
        pytest.importorskip("matplotlib", reason="pictures are drawn with the extra [plot]")
        command += ["--picture", str(drawn)]
    told = {**os.environ, "NPMOBILENET_ISA": most}
    done = subprocess.run(command, env=told, capture_output=True, text=True, timeout=300, check=True)
    lines = done.stdout.splitlines()
    assert f"({most})" in lines[0]
    assert lines[1].startswith("left out: ")
    assert len(lines) == 8
    assert all("same bytes" in line for line in lines[2:])
    if len(command) > 6:
        text = drawn.read_text(encoding="utf-8")
        ET.fromstring(text)
        assert "GOP/s" in text
        assert ">four_bytes<" in text
