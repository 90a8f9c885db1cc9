"""Planted faults: the table of results is of the faults that there are, and a few are planted anew."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import plant_faults  # noqa: E402
from more_faults import ALL as FAULTS  # noqa: E402

AGAIN = (
    ("fraction cut off toward minus infinity", "flowers uint8"), ("one weight's bit 7", "flowers uint8"),
    ("an input channel's weights used twice", "flowers uint8"), ("sum: operands exchanged", "flowers uint8"),
    *((f.name, f.model) for f in FAULTS if f.model.startswith("small ops")),
)  # fmt: skip


def test_the_table_is_of_these_faults() -> None:
    (table,) = plant_faults.TABLE.findall(plant_faults.PAGE.read_text(encoding="utf-8"))
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("| ")]
    results = rows[1:]
    assert [(row[0], row[1].partition(",")[0]) for row in results] == [(f.name, f.model) for f in FAULTS]
    assert len(results) >= 60
    assert sum(row[3] == "yes" for row in results) >= 59
    assert sum(row[4] == "yes" for row in results) >= 54
    assert sum(row[4] == "wrong" for row in results) == 0
    (said,) = re.findall(r"Of (\d+) faults", table)
    assert int(said) == len(FAULTS)


def test_faults_are_of_every_kind() -> None:
    assert {f.form for f in FAULTS} >= {"npy", "npz", "bin", "csv", "json", "view"}
    assert {f.where for f in FAULTS} >= {0, 0.5, 1}
    assert {f.lacks for f in FAULTS} == {"", "before", "behind"}
    assert len({f.model for f in FAULTS}) >= 4


@pytest.mark.parametrize(("name", "model"), AGAIN)
def test_some_are_planted_again(name: str, model: str) -> None:
    place, fault = next((i, f) for i, f in enumerate(FAULTS) if (f.name, f.model) == (name, model))
    result = plant_faults.plant(fault, place)
    assert result.located
    assert result.named == "yes", result.text


def test_faults_are_drawn_anywhere() -> None:
    """With files each fault comes once, into one that has its op; the same seed draws the same."""
    drawn = plant_faults.elsewhere(["flowers uint8"], 3)
    assert drawn == plant_faults.elsewhere(["flowers uint8"], 3)
    assert drawn != plant_faults.elsewhere(["flowers uint8"], 4)
    ops = {node.op for node in plant_faults.model("flowers uint8")[0].graph.nodes}
    assert [f.name for f in drawn] == [f.name for f in FAULTS if f.op in ops]
    assert {f.model for f in drawn} == {"flowers uint8"}
    assert len({f.where for f in drawn}) == len(drawn)
    assert "bit 6 of its weight" in {f.says for f in drawn}
