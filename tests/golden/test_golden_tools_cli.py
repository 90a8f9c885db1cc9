"""`npmobilenet golden ...` as a program: what it prints, its exit codes, its errors; and docs/golden.md, run."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("click", reason="the command line needs the extra [cli]")
pytest.importorskip("rich", reason="the command line needs the extra [cli]")

import click
from click.testing import CliRunner, Result
from test_golden_tools_integer import small

from npmobilenet import golden
from npmobilenet.arithmetic.dialects import NAMES
from npmobilenet.cli.app import app
from npmobilenet.formats import weightfile

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "golden.md"
VERBS = ("record", "diff", "explain", "identify", "export", "digest")


def cli(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["golden", *(str(a) for a in arguments)])


def fails(*arguments: object) -> str:
    """The error line of a command that must fail."""
    result = cli(*arguments)
    assert (result.exit_code, result.stdout) == (2, ""), result.stdout
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "small.h5"
    weightfile.write(path, small("int8"))
    return path


@pytest.fixture(scope="module")
def dumps(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One that is right, and one with a wrong value in "dw"."""
    folder = tmp_path_factory.mktemp("dumps")
    right = golden.record(model, "random:1", folder / "right")
    golden.record(model, "random:1", folder / "wrong")
    entry = next(e for e in right.entries if e.name == "dw")
    array = right["dw"]
    array[0, 2, 3, 4] ^= 32
    np.save(folder / "wrong" / entry.file, array)
    return folder / "right", folder / "wrong"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_and_json(verb: str) -> None:
    result = cli(verb, "--help")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: npmobilenet golden {verb} ")
    assert "--json" in result.stdout


def test_the_group() -> None:
    group = app.commands["golden"]
    assert isinstance(group, click.Group)
    assert set(group.commands) == set(VERBS)
    nothing = cli()
    assert (nothing.exit_code, nothing.stdout) == (2, "")
    assert nothing.stderr == cli("--help").stdout
    assert "nope" in fails("nope")
    choices = next(p.type for p in group.commands["record"].params if p.name == "dialect")
    assert isinstance(choices, click.Choice)
    assert list(choices.choices) == list(NAMES)


def test_record(model: Path, tmp_path: Path) -> None:
    result = cli("record", model, "random:3", "-o", tmp_path / "d", "--taps", "conv", "--taps", "acc:#2")
    assert result.exit_code == 0, result.stderr
    assert re.search(r"^arrays +3: 2 tensors, 1 accumulators$", result.stdout, re.MULTILINE)
    document = json.loads(cli("record", model, "random:3", "-o", tmp_path / "d.npz", "--json").stdout)
    assert document["arrays"] == 15
    assert document["bytes"] == sum(a.nbytes for a in np.load(tmp_path / "d.npz").values() if isinstance(a, np.ndarray))
    assert "exists already" in fails("record", model, "random:3", "-o", tmp_path / "d")
    assert cli("record", model, "random:4", "-o", tmp_path / "d", "--force").exit_code == 0
    assert "matches nothing" in fails("record", model, "random:3", "-o", tmp_path / "e", "--taps", "nope")
    assert "-o" in fails("record", model, "random:3")
    assert "random:x" in fails("record", model, "random:x", "-o", tmp_path / "e")
    assert not (tmp_path / "e").exists()


def test_diff(dumps: tuple[Path, Path], tmp_path: Path) -> None:
    right, wrong = dumps
    same = cli("diff", right, right)
    assert same.exit_code == 0
    assert "all 15 tensors are equal" in same.stdout
    result = cli("diff", right, wrong, "--html", tmp_path / "r.html")
    assert result.exit_code == 1
    assert re.search(r"^#2 +dw +depthwise_conv2d +differs +1 +500 +32 LSB +0,2,3,4 ", result.stdout, re.MULTILINE)
    assert "its inputs agree, so the fault lies in this node" in result.stdout
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<svg" in page
    headline = page.partition("<p class='verdict bad'>")[2].partition("</p>")[0]
    assert "first diverging: dw" in headline
    assert "<b>why:</b>" in headline
    document = json.loads(cli("diff", right, wrong, "--json").stdout)
    assert (document["first"], document["differing"], document["compared"]) == ("dw", 1, 15)
    assert cli("diff", right, wrong, "--lsb", 32).exit_code == 0
    assert len(cli("diff", right, wrong, "--all").stdout.splitlines()) > 15
    assert "does not exist" in fails("diff", right, tmp_path / "nope")
    assert ".html" in fails("diff", right, wrong, "--html", tmp_path / "r.txt")


def test_a_map_and_a_model(model: Path, dumps: tuple[Path, Path], tmp_path: Path) -> None:
    right, _ = dumps
    dump = golden.Dump(right)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "first.npy", dump["conv"].transpose(0, 3, 1, 2))
    (tmp_path / "m.csv").write_text("first,conv\n")
    assert "name map" in fails("diff", right, tmp_path / "a")
    result = cli("diff", right, tmp_path / "a", "--map", tmp_path / "m.csv")
    assert result.exit_code == 0, result.stdout
    assert "NCHW" in result.stdout
    both = cli("diff", tmp_path / "a", tmp_path / "b", "--model", model, "--map", tmp_path / "m.csv", "--json")
    assert both.exit_code == 0, both.stderr
    assert json.loads(both.stdout)["tensors"][0]["op"] == "conv2d"


def test_explain(model: Path, dumps: tuple[Path, Path]) -> None:
    right, wrong = dumps
    value = int(golden.Dump(right)["dw"][0, 2, 3, 4])
    place = ("--tensor", "dw", "--index", "0,2,3,4")
    result = cli("explain", model, "random:1", *place)
    assert result.exit_code == 0, result.stderr
    assert f"dw[0,2,3,4] = {value} under tflite-reference" in result.stdout
    assert "shift_away: v / 2^s" in result.stdout
    assert cli("explain", model, right, *place).exit_code == 0
    odd = cli("explain", model, wrong, *place)
    assert odd.exit_code == 1
    assert f"no dialect gives {value ^ 32}" in odd.stdout
    assert "an accumulator from about" in odd.stdout
    document = json.loads(cli("explain", model, "random:1", *place, "--got", value, "--json").stdout)
    assert document["matching"][0] == "tflite-reference"
    assert len(document["terms"]) == 9
    every = cli("explain", model, "random:1", *place, "--all").stdout
    assert len([line for line in every.splitlines() if re.match(r"\d,\d,4 +0,\d,\d,4 ", line)]) == 9
    assert "expected whole numbers" in fails("explain", model, "random:1", "--tensor", "dw", "--index", "x")
    assert "expected a number" in fails("explain", model, "random:1", *place, "--got", "x")
    assert "did you mean" in fails("explain", model, "random:1", "--tensor", "d", "--index", "0")


def test_identify(model: Path, dumps: tuple[Path, Path]) -> None:
    right, wrong = dumps
    result = cli("identify", model, right)
    assert result.exit_code == 0, result.stderr
    assert "follows tflite-reference" in result.stdout
    odd = cli("identify", model, wrong)
    assert odd.exit_code == 1
    assert re.search(r"^#2 +dw +depthwise_conv2d +500 +1 ", odd.stdout, re.MULTILINE)
    document = json.loads(cli("identify", model, wrong, "--json").stdout)
    assert "dw" in document["exceptions"]
    assert len(cli("identify", model, right, "--all").stdout.splitlines()) > 14


def test_export(model: Path, tmp_path: Path) -> None:
    result = cli("export", model, "-o", tmp_path / "e")
    assert result.exit_code == 0, result.stderr
    assert "3 weights, 3 bias, 3 multiplier, 3 shift, 1 table" in result.stdout
    document = json.loads(cli("export", model, "random:1", "-o", tmp_path / "f", "--format", "c", "--json").stdout)
    assert document["export"] == "c"
    assert len(document["vectors"]) == 15
    assert "exists already" in fails("export", model, "-o", tmp_path / "e")


# -- docs/golden.md ----------------------------------------------------------------------------------------------------


def blocks() -> list[tuple[str, str]]:
    """The page's commands and programs in order, each with the output shown."""
    text = PAGE.read_text(encoding="utf-8")
    found = []
    fences = re.findall(r"^```(console|python)\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", text, re.DOTALL | re.MULTILINE)
    for kind, body, printed in fences:
        if kind == "python":
            found.append((body, printed))
            continue
        for part in re.split(r"^(?=\$ )", body, flags=re.MULTILINE):
            command, _, output = part.removeprefix("$ ").partition("\n")
            if command:
                found.append((f"$ {command}", output))
    return found


def agrees(shown: str, real: str) -> bool:
    """Whether the output is as shown, where a line "..." stands for any number of lines."""
    pattern = "".join(r"(?:.*\n)*" if line == "...\n" else re.escape(line) for line in shown.splitlines(keepends=True))
    return re.fullmatch(pattern, real) is not None


def test_the_page_shows_what_happens(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("tflite", reason="the extra [convert] is not installed")
    name = "mobilenet_v1_0_25_128_quant.tflite"
    shutil.copy(data / "weights" / name, tmp_path / name)
    shutil.copy(data / "images" / "photos" / "grace_hopper.bmp", tmp_path)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "NPMOBILENET_QUIET": "1"}
    ran = 0
    for command, shown in blocks():
        words = shlex.split(command[2:]) if command.startswith("$ ") else []
        if words and words[0] != "npmobilenet":
            continue
        program = [sys.executable, "-m", *words] if words else [sys.executable, "-c", command]
        done = subprocess.run(program, cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode in (0, 1), f"{command}\n{done.stderr}"
        assert agrees(shown, done.stdout), f"{command}\n{done.stdout}"
        ran += 1
    assert ran >= 7


def test_commands_of_the_page_have_their_options() -> None:
    group = app.commands["golden"]
    assert isinstance(group, click.Group)
    for command, _ in blocks():
        words = shlex.split(command[2:]) if command.startswith("$ npmobilenet golden ") else []
        if not words:
            continue
        known = {o for p in group.commands[words[2]].params if isinstance(p, click.Option) for o in p.opts}
        assert {w for w in words[3:] if w.startswith("-")} <= known, command
