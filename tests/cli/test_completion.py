"""Completion by the shell's Tab key: the protocol that the scripts for bash, zsh and fish speak."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("click", reason="the command line needs the extra [cli]")

import npmobilenet
from npmobilenet.arithmetic.dialects import NAMES
from npmobilenet.cli.app import app
from npmobilenet.cli.app import run as run_app
from npmobilenet.cli.completion import OFFERS, parameters
from npmobilenet.images.recipes import RECIPES

PROGRAM = "import sys; sys.argv[0] = 'npmobilenet'; from npmobilenet.cli import main; sys.exit(main())"


def run(shell: str, folder: Path | None = None, **variables: str) -> str:
    environment = {**os.environ, "_NPMOBILENET_COMPLETE": shell, **variables}
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def offered(line: str, shell: str = "bash", folder: Path | None = None) -> set[tuple[str, str]]:
    """(kind, word) of what is offered for the last word of a line, as each shell's script asks for it."""
    words = line.split(" ")
    where = words[-1] if shell == "fish" else str(len(words) - 1)
    text = run(f"{shell}_complete", folder, COMP_WORDS=line, COMP_CWORD=where)
    if shell == "zsh":
        lines = text.splitlines()
        return set(zip(lines[::3], lines[1::3], strict=True))
    found = {tuple(entry.split("\t")[0].split(",", 1)) for entry in text.splitlines()}
    return {(kind, word) for kind, word in found}


def plain(line: str, **where: Path) -> set[str]:
    return {word for kind, word in offered(line, **where) if kind == "plain"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_and_what_it_asks(shell: str) -> None:
    script = run(f"{shell}_source")
    assert f"_NPMOBILENET_COMPLETE={shell}_complete" in script
    assert {word for _, word in offered("npmobilenet ", shell)} == set(app.commands)
    assert offered("npmobilenet info flow", shell) == {("plain", "flowers"), ("plain", "flowers_uint8")}


def test_what_is_offered(tmp_path: Path) -> None:
    assert plain("npmobilenet golden ") == {"diff", "digest", "explain", "export", "identify", "record"}
    assert plain("npmobilenet classify --model mobilenet_v3_l") == set(npmobilenet.list_models("mobilenet_v3_l*"))
    assert plain("npmobilenet golden record MobileNet-V2-1.4_224") == set(npmobilenet.list_models("*v2_1.4_224*"))
    assert plain("npmobilenet evaluate flowers . --preprocess ") == set(RECIPES)
    assert plain("npmobilenet classify --dialect ") == set(NAMES)
    for line in ("classify pho", "golden diff ou", "convert x", "info no/such", "evaluate flowers x --predictions y"):
        assert offered(f"npmobilenet {line}") == {("file", line.split(" ")[-1])}
    for name in ("mine.tflite", "mine.txt", "my[1].h5"):
        (tmp_path / name).touch()
    (tmp_path / "mymodels").mkdir()
    assert plain("npmobilenet info m", folder=tmp_path) > {"mine.tflite", "my[1].h5", os.path.join("mymodels", "")}
    assert plain("npmobilenet info my", folder=tmp_path) == {"my[1].h5", os.path.join("mymodels", "")}


def test_every_parameter_offers_something() -> None:
    assert {parameter.name for parameter in parameters(app)} == set(OFFERS)


GARBLED = (
    {"COMP_WORDS": "npmobilenet info", "COMP_CWORD": "x"}, {"COMP_WORDS": "npmobilenet", "COMP_CWORD": ""},
    {"COMP_CWORD": "1"}, {"COMP_WORDS": ""}, {}, {"COMP_WORDS": "'\\", "COMP_CWORD": "9" * 5000},
    {"COMP_WORDS": "npmobilenet info \udcff", "COMP_CWORD": "2"}, {"COMP_WORDS": "a b", "COMP_CWORD": "-7"},
)  # fmt: skip


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_garbled_words_complete_to_nothing(shell: str, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    """Whatever stands in the variables: no error appears in the line that is being typed."""
    monkeypatch.setenv("_NPMOBILENET_COMPLETE", f"{shell}_complete")
    for variables in GARBLED:
        with monkeypatch.context() as patch:
            for name in ("COMP_WORDS", "COMP_CWORD"):
                patch.delenv(name, raising=False)
            for name, value in variables.items():
                patch.setenv(name, value)
            assert run_app() == 0, variables
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("asked", ["tcsh_source", "nonsense", "bash_nonsense"])
def test_an_unknown_shell(asked: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("_NPMOBILENET_COMPLETE", asked)
    assert run_app() == 2
    assert capsys.readouterr().err == (
        f"error: _NPMOBILENET_COMPLETE={asked}: expected bash_source, zsh_source or fish_source; see docs/cli.md\n"
    )
