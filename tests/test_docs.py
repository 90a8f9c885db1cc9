"""The documents say what is so: their examples run, their links lead somewhere, their tables match the code."""

from __future__ import annotations

import ast
import contextlib
import importlib
import io
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from cases import run_node, same_bits, single
from test_structure import ROOMS

from npmobilenet.arithmetic.dialects import DIALECTS
from npmobilenet.formats import weightfile
from npmobilenet.images.recipes import recipes
from npmobilenet.kernels.reference.arithmetic import fma32
from npmobilenet.modeldata import ModelData, ModelInfo
from npmobilenet.runtime import engine
from npmobilenet.zoo.build import build_model
from npmobilenet.zoo.checkpoints import CHECKPOINTS, parse

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "weights" / "README.md"])
MODEL, PHOTO = "mobilenet_v2_1.0_224.tflite", "grace_hopper.bmp"  # as README's examples call them
F = np.float32


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    """The fenced code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def prose(text: str) -> str:
    """A page without its fenced code blocks and code spans."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE))


def between(text: str, mark: str) -> str:
    """What stands between <!-- mark --> and <!-- /mark -->."""
    found = re.search(rf"<!-- {mark} -->\n(.*?)<!-- /{mark} -->", text, re.DOTALL)
    assert found, f"there is no place marked <!-- {mark} -->"
    return found[1]


def table(text: str) -> list[list[str]]:
    """The cells of a Markdown table, its two head lines left out."""
    rows = [line.strip().strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def section(text: str, heading: str) -> str:
    """A section of a page, up to the next heading of its level or above."""
    level = heading.split(" ", maxsplit=1)[0]
    found = re.search(rf"^{re.escape(heading)}\n(.*?)(?=^#{{1,{len(level)}}} |\Z)", text, re.DOTALL | re.MULTILINE)
    assert found, f"no section '{heading}'"
    return found[1]


@pytest.mark.parametrize("page", ["tour.md", "first-steps.md"])
def test_the_tour_prints_what_it_says(
    page: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every command and every cell of a page and its notebook, in order."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    monkeypatch.setenv("NPMOBILENET_QUIET", "1")
    monkeypatch.delenv("NPMOBILENET_WEIGHTS", raising=False)
    assert importlib.import_module("make_tour").main(["--check", page]) == 0, capsys.readouterr().out


def test_names_of_others_are_understood() -> None:
    """The spellings of docs/coming-from.md, and its calls and recipes."""
    page = read("docs/coming-from.md")
    rows = table(between(page, "names"))
    assert len(rows) >= 7
    for spelling, _, name in rows:
        assert str(parse(spelling.strip("`"))) == name.strip("`")
    for recipe in re.findall(r'preprocess="(\w+)"', page):
        assert recipe in recipes()
    for dialect in re.findall(r'dialect="([\w-]+)"', page):
        assert dialect in DIALECTS
    endpoints = build_model("mobilenet_v2_1.0_224").endpoints
    for k in range(1, 17):
        assert {f"layer_{k + 2}/{part}" for part in ("expansion_output", "depthwise_output", "output")} <= set(
            endpoints
        )


def test_the_glossary_has_thirty_words_in_order() -> None:
    """Each is linked from some page."""
    words = re.findall(r"^### (.+)$", read("docs/glossary.md"), re.MULTILINE)
    assert len(words) >= 30
    assert words == sorted(words, key=str.lower)
    pages = "".join(path.read_text(encoding="utf-8") for path in PAGES)
    assert "glossary.md#zero-point" in pages


# Words of the glossary that a newcomer can't guess -> how they look in a sentence.
MAIN_TERMS = {
    "accumulator": "accumulators?", "calibration": "calibration", "dialect": "dialects?", "dump": "dumps?",
    "depthwise-convolution": r"depthwise(?:\s(?:convolutions?|layers?))?", "endpoint": "endpoints?",
    "fused-multiply-add": "fused multiply-adds?", "micro-kernel": "micro-kernels?",
    "pointwise-convolution": r"pointwise(?:\s(?:convolutions?|layers?))?", "requantization": "requantization",
    "zero-point": "zero points?",
}  # fmt: skip
NO_SENTENCES = re.compile(
    r"^```.*?^```$|<!-- (\w+) -->.*?<!-- /\1 -->|^#.*?$|^\|.*?$|`[^`\n]*`|<[^>]*>|\]\([^)]*\)", re.DOTALL | re.MULTILINE
)  # code, generated parts, headings, tables, addresses
WRITTEN_BY_PROGRAMS = ("cli.md", "models.md", "exactness.md", "formats.md", "glossary.md", "performance-notebook.md")


@pytest.mark.parametrize("page", sorted(p.name for p in (ROOT / "docs").glob("*.md")))
def test_main_terms_are_linked_at_first_use(page: str) -> None:
    """A term's first use in a sentence of a page is a link to the glossary."""
    if page in WRITTEN_BY_PROGRAMS:
        return
    text = read(f"docs/{page}")
    sentences = NO_SENTENCES.sub(lambda found: " " * len(found[0]), text)
    for term, words in MAIN_TERMS.items():
        first = re.search(rf"(?<![\w-]){words}(?![\w-])", sentences, re.IGNORECASE)
        if first:
            after = text[first.end() : first.end() + 60]
            assert re.match(rf"[^\[\]\n]{{0,25}}\]\(glossary\.md#{term}\)", after), (
                f"{page}: link {first[0]!r} to {term}"
            )


def test_pages_say_why_before_how() -> None:
    """docs/arithmetic.md begins with why there is fixed point, docs/performance.md with what its figures mean."""
    headings = {
        page: re.findall(r"^## (.+)$", read(f"docs/{page}.md"), re.MULTILINE) for page in ("arithmetic", "performance")
    }
    assert headings["arithmetic"][0] == "Why integers"
    assert headings["performance"][0] == "In short"
    assert "|---" not in read("docs/arithmetic.md").split("## Basics", maxsplit=1)[0]


def test_the_index_has_every_page() -> None:
    index = read("docs/README.md")
    missing = [p.name for p in (ROOT / "docs").glob("*.md") if p.name != "README.md" and f"({p.name}" not in index]
    assert not missing, f"docs/README.md doesn't say what these are for: {missing}"
    site = read("mkdocs.yml")
    assert not [p.name for p in (ROOT / "docs").glob("*.md") if p.name not in site], "mkdocs.yml: nav lacks a page"


# -- links -------------------------------------------------------------------------------------------------------------


def anchors(path: Path) -> set[str]:
    """What can stand behind # in a link to a page: its headings, as they are made into anchors."""
    headings = re.findall(r"^#+ (.*)$", prose(path.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page.read_text(encoding="utf-8"))):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = page if not name else page.parent / name
        assert target.exists(), f"{page.name}: {link}"
        if anchor:
            assert anchor in anchors(target), f"{page.name}: {link}"


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/extending.md", "docs/architecture.md", "SECURITY.md"])
def test_files_and_names_that_are_mentioned_exist(page: str) -> None:
    """`path/to/file.py` is a file (from the checkout or the package); `file.py: name` has that name in it."""
    text = read(page)
    for span in re.findall(r"`([^`\n]+)`", text):
        name, _, member = span.partition(": ")
        if not re.fullmatch(r"[\w./]+\.(py|md|toml|yml|txt)", name) or "your_" in name or name.startswith("."):
            continue
        folders = (ROOT, ROOT / "npmobilenet", ROOT / "npmobilenet" / "kernels")
        found = [folder / name for folder in folders if (folder / name).is_file()]
        assert found, f"{page}: {name}"
        if member:
            assert re.search(rf"^(def |class )?{re.escape(member)}\b", found[0].read_text(encoding="utf-8"), re.M), span


def test_every_promise_of_safety_names_its_tests() -> None:
    """Each bullet of SECURITY.md says which tests show it; that these exist is looked at above."""
    promises = section(read("SECURITY.md"), "## What is trusted, and what isn't").split("\n- ")[1:]
    assert len(promises) >= 8
    for promise in promises:
        named = re.findall(r"`(tests/[\w/]+\.py): (test_\w+)`", promise)
        assert named, f"SECURITY.md: no test shows: {promise[:60]}"
        assert promise.count("`tests/") == len(named), promise[:60]
    promised = re.findall(r"\n- \*\*", read("SECURITY.md"))
    assert len(promised) == len(promises), "a promise stands where its tests are not looked for"


# -- README's first screen and Python ----------------------------------------------------------------------------------


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Callable[[str], str]:
    """A folder that holds the files README's examples name; returns what to do to their text.

    With NPMOBILENET_DATA these are the real ones, otherwise a small random model and a noise picture.
    """
    # Before the folder is changed: the variable may hold a relative path.
    shared = request.getfixturevalue("data") if os.environ.get("NPMOBILENET_DATA") else None
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NPMOBILENET_QUIET", "1")
    if shared is not None:
        shutil.copy(shared / "weights" / "mobilenet_v2_1.0_224_float.tflite", MODEL)
        shutil.copy(shared / "images" / "photos" / PHOTO, PHOTO)
        return lambda text: text
    from PIL import Image

    random_model(Path(MODEL).with_suffix(".h5"))
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    Image.fromarray(noise).save(PHOTO)
    return lambda text: text.replace(MODEL, MODEL.replace(".tflite", ".h5"))


def random_model(path: Path) -> None:
    graph = build_model("mobilenet_v2_0.35_96", num_classes=1001)
    rng = np.random.default_rng(1)
    tensors = {
        name: (rng.standard_normal(t.shape) / np.sqrt(max(1, t.size // t.shape[-1]))).astype(F)
        for name, t in graph.constants.items()
    }
    weightfile.write(path, ModelData(graph, tensors, ModelInfo("random", "imagenet", label_offset=1)))


def test_python_examples_run_and_print_what_they_say(workplace: Callable[[str], str]) -> None:
    examples = re.findall(r"^```python\n(.*?)^```\n+```text\n(.*?)^```$", read("README.md"), re.DOTALL | re.MULTILINE)
    assert examples
    for program, output in examples:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(workplace(program), "README.md", "exec"), {})
        if os.environ.get("NPMOBILENET_DATA"):
            assert printed.getvalue() == output
        else:
            assert printed.getvalue().count("\n") == output.count("\n")


def commands(page: str) -> list[tuple[str, str]]:
    """`npmobilenet classify ...` and the output shown below it; those without output are left out."""
    pieces = [p for block in blocks(read(page), "console") for p in re.split(r"^\$ ", block, flags=re.MULTILINE)]
    found = [piece.partition("\n") for piece in pieces]
    return [(line, out) for line, _, out in found if "npmobilenet classify" in line and out]


@pytest.mark.parametrize(("command", "output"), commands("README.md"))
def test_classify_prints_what_readme_says(
    workplace: Callable[[str], str], request: pytest.FixtureRequest, command: str, output: str
) -> None:
    if PHOTO in command:
        request.getfixturevalue("data")
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", *shlex.split(command)]
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout == output


def golden_commands() -> list[tuple[str, str]]:
    """README's golden example: each command with the lines shown below it."""
    (block,) = blocks(between(read("README.md"), "golden"), "console")
    found = [piece.partition("\n") for piece in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]]
    return [(command, output) for command, _, output in found]


@pytest.mark.skipif(sys.platform == "win32", reason="this platform has no such shell")
def test_golden_example_prints_what_readme_says(tmp_path: Path) -> None:
    """With the model and the picture in the box, in a folder where they lie as in the checkout."""
    (tmp_path / "docs").mkdir()
    shutil.copy(ROOT / "docs" / "example.png", tmp_path / "docs")
    env = {**os.environ, "PYTHONPATH": str(ROOT), "NPMOBILENET_QUIET": "1"}
    shell = f'npmobilenet() {{ "{sys.executable}" -m npmobilenet "$@"; }}; '
    for command, output in golden_commands():
        words = ["sh", "-c", shell + command]
        done = subprocess.run(words, env=env, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
        assert (done.returncode, done.stderr, done.stdout) == (0, "", output), command


def test_every_python_block_compiles() -> None:
    for page in PAGES:
        for block in blocks(page.read_text(encoding="utf-8"), "python"):
            compile(block, page.name, "exec")


def test_a_newcomers_commands_are_one_line_each() -> None:
    """Copy and paste: from a checkout to an answer, and to the quick tests."""
    lines = [line for block in blocks(read("README.md"), "console") for line in block.splitlines()]
    assert any("pip install" in line and line.endswith("npmobilenet classify") for line in lines)
    assert any("pip install" in line and line.endswith("python -m pytest -m quick") for line in lines)


def test_readme_is_short_and_begins_with_what_runs() -> None:
    text = read("README.md")
    assert len(text.splitlines()) <= 180
    first = "\n".join(text.splitlines()[:30])
    assert "pip install" in first
    assert "npmobilenet classify" in first
    assert "first-run" in text


# -- the command line --------------------------------------------------------------------------------------------------


def test_commands_shown_have_their_options() -> None:
    """Every `npmobilenet verb --option` in any page is accepted by that verb."""
    import click

    from npmobilenet.cli.app import app

    seen = set()
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for line in re.findall(r"\bnpmobilenet ((?:[a-z]+)(?: [^`\n]*)?)", "\n".join(code_of(text))):
            verb, *words = re.split(r"[#|>]", line)[0].split()
            if verb == "itself" or verb.upper() == "VERB":
                continue
            command = app.commands.get(verb)
            assert command is not None, f"{page.name}: npmobilenet {line}"
            known = {name for p in command.params if isinstance(p, click.Option) for name in p.opts} | {"--help", "-h"}
            if isinstance(command, click.Group):
                continue
            for word in words:
                if word.startswith("-") and len(word) > 1:
                    assert word in known, f"{page.name}: npmobilenet {line}"
            seen.add(verb)
    assert {"classify", "convert", "doctor", "info", "models", "warmup"} <= seen


def code_of(text: str) -> list[str]:
    """Lines of code blocks, and code spans."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    fenced = [block for language, block in found if language in ("console", "bash", "text", "")]
    return [
        *"\n".join(fenced).splitlines(),
        *re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)),
    ]


def test_every_verb_has_help() -> None:
    from npmobilenet.cli.app import app, run

    for verb in app.commands:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            assert run([verb, "--help"]) == 0
        assert printed.getvalue().startswith(f"Usage: npmobilenet {verb}")


def test_generated_pages_are_current(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    assert importlib.import_module("make_cli_docs").main(["--check"]) == 0


def test_the_table_of_formats_is_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the record has at least 60 models, of which at least 57 are equal or close, and none differs."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    assert importlib.import_module("make_format_docs").main(["--check"]) == 0
    rows = json.loads((ROOT / "docs" / "formats.json").read_text(encoding="utf-8"))
    of = {result: {(r["source"], r["kind"], r["form"]) for r in rows if r["result"] == result}
          for result in ("equal", "close", "wider", "refused")}  # fmt: skip
    assert {row["result"] for row in rows} == set(of)
    assert len((of["equal"] | of["close"]) - of["wider"] - of["refused"]) >= 57


def test_sizes_are_current_and_within_their_budgets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the rooms in docs/architecture.md, and of the files in README's reading order."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    size = importlib.import_module("size")
    assert tuple(size.BUDGETS) == ROOMS
    assert size.main(["--check"]) == 0, capsys.readouterr().out
    monkeypatch.setitem(size.BUDGETS, "golden", 100)
    assert size.main(["--check"]) == 1
    assert "golden`: " in capsys.readouterr().out
    program = '"""Doc."""\n\n# why\ndef f():\n    """Doc.\n\n    More."""\n    return """a\nb"""  # why\n'
    assert size.code_lines(program) == 3


# -- the code that the documents speak of ------------------------------------------------------------------------------


def test_the_loop_shown_is_the_engine() -> None:
    (source,) = [
        ast.get_source_segment(read("npmobilenet/runtime/engine.py"), node)
        for node in ast.parse(read("npmobilenet/runtime/engine.py")).body
        if isinstance(node, ast.FunctionDef) and node.name == "run"
    ]
    assert source is not None
    assert source + "\n" in blocks(read("README.md"), "python")
    assert engine.run.__doc__ is not None


def test_reading_order_gives_the_right_sizes() -> None:
    rows = re.findall(r"^\| \d+ \| \[`([\w/]+\.py)`\]\(([\w/.]+)\) \| (\d+) \|", read("README.md"), re.MULTILINE)
    assert len(rows) >= 8
    for name, link, lines in rows:
        assert link == f"npmobilenet/{name}"
        real = len(read(link).splitlines())
        assert int(lines) == real, f"{name}: run python tools/size.py"


def models_table() -> list[str]:
    """README's summary of the registry."""
    lines = ["| family | depth multipliers | resolutions | checkpoints | top-1, % |", "|---|---|---|---:|---:|"]
    for family in dict.fromkeys(c.family for c in CHECKPOINTS):
        rows = [c for c in CHECKPOINTS if c.family == family]
        multipliers = ", ".join(str(m) for m in sorted({c.depth_multiplier for c in rows}))
        sizes = ", ".join(str(r) for r in sorted({c.resolution for c in rows}))
        eight = sum(c.dtype == "uint8" for c in rows)
        top = sorted({float(c.top1) for c in rows if c.top1})
        count = f"{len(rows) - eight} float, {eight} 8-bit"
        reach = str(top[0]) if len(top) == 1 else f"{top[0]} to {top[-1]}"
        lines.append(f"| `{family}` | {multipliers} | {sizes} | {count} | {reach} |")
    return lines


def test_models_are_summed_up() -> None:
    assert between(read("README.md"), "models").splitlines() == models_table()


def test_architecture_lists_the_rooms_in_order() -> None:
    rows = table(between(read("docs/architecture.md"), "rooms"))
    listed = [name for row in rows for name in re.findall(r"`(\w+)`", row[0])]
    assert listed == list(ROOMS)


def test_environment_variables_are_listed() -> None:
    sources = [p for folder in ("npmobilenet", "tools", "tests") for p in (ROOT / folder).rglob("*.py")]
    sources += [ROOT / ".ci" / "run"]
    used = {
        name
        for path in sources
        if path != Path(__file__).resolve()
        for name in re.findall(r"\bNPMOBILENET_[A-Z]+(?:_[A-Z]+)*\b", path.read_text(encoding="utf-8"))
    }
    listed = {name for row in table(section(read("docs/architecture.md"), "## Variables")) for name in names_in(row[0])}
    assert {name for name in listed if name.startswith("NPMOBILENET_")} == used
    assert all(name.startswith(("NPMOBILENET_", "NUMBA_", "XDG_", "NO_COLOR")) for name in listed)


def names_in(cell: str) -> list[str]:
    return re.findall(r"`([A-Z_]+)`", cell)


def test_extending_lists_what_an_op_needs() -> None:
    """docs/extending.md's list for a new op names every file in which an existing op has an entry."""
    text = section(read("docs/extending.md"), "## An op")
    for path in (ROOT / "npmobilenet").rglob("*.py"):
        relative = path.relative_to(ROOT / "npmobilenet").as_posix()
        if "resize_bilinear" in path.read_text(encoding="utf-8") and not relative.startswith(("formats/", "images/")):
            assert relative.replace("resize_bilinear", "your_op") in text, relative


ARGUMENTS = {name: ["--side", "4", "--channels", "32"] for name in ("ladder.py", "ladder_int8.py")}


# Of those that end by themselves; the server is asked in tests/tools/test_serving.py.
@pytest.mark.parametrize(
    "example", sorted(p for p in (ROOT / "examples").glob("*.py") if p.name != "serve.py"), ids=lambda p: p.name
)
def test_examples_run(
    example: Path, workplace: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usual = [workplace(MODEL), PHOTO]
    monkeypatch.setattr(sys, "argv", [example.name, *ARGUMENTS.get(example.name, usual)])
    runpy.run_path(str(example), run_name="__main__")
    assert capsys.readouterr().out


# -- the worked example of docs/float32.md -----------------------------------------------------------------------------

X = [F(v) for v in (2.6, 1.9, -3.0, 2.1)]
W = [F(v) for v in (-0.9, 0.5, -0.6, 0.7)]
BIAS = F(0.1)
TAPS = ("ky 0, ci 0", "ky 0, ci 1", "ky 1, ci 0", "ky 1, ci 1")


def nearest(value: Fraction) -> np.float32:
    """The float32 nearest to a rational number, ties to even, found without floating point arithmetic on it."""
    guess = F(float(value))
    around = sorted({np.nextafter(guess, F(-np.inf)), guess, np.nextafter(guess, F(np.inf))})
    distance = [(abs(Fraction(float(v)) - value), int(v.view(np.uint32)) & 1) for v in around]
    return around[distance.index(min(distance))]


def exact(v: np.float32) -> Fraction:
    return Fraction(float(v))


def chain() -> list[np.float32]:
    """The accumulator from the bias to the end, in rational arithmetic rounded after each term."""
    values = [BIAS]
    for x, w in zip(X, W, strict=True):
        values.append(nearest(exact(x) * exact(w) + exact(values[-1])))
    return values


def shown(v: np.float32) -> str:
    return f"`{v!s}` | `{int(v.view(np.uint32)):08x}`"


def worked_example() -> list[str]:
    values = chain()
    lines = ["| term | x | w | accumulator | bits |", "|---|---:|---:|---:|---|"]
    lines.append(f"| bias | | | {shown(values[0])} |")
    for tap, x, w, acc in zip(TAPS, X, W, values[1:], strict=True):
        lines.append(f"| {tap} | {x!s} | {w!s} | {shown(acc)} |")
    return [*lines, f"| relu6 | | | {shown(values[-1])} |"]


def other_orders() -> list[str]:
    separate, backwards, late = BIAS, BIAS, F(0)
    for x, w in zip(X, W, strict=True):
        separate = nearest(exact(nearest(exact(x) * exact(w))) + exact(separate))
        late = nearest(exact(x) * exact(w) + exact(late))
    for x, w in zip(X[::-1], W[::-1], strict=True):
        backwards = nearest(exact(x) * exact(w) + exact(backwards))
    late = nearest(exact(late) + exact(BIAS))
    rows = [
        ("this project's rule", chain()[-1]),
        ("multiply, round, then add (no fma), same order", separate),
        ("fma, last term first", backwards),
        ("fma from 0, the bias added last", late),
    ]
    assert len({v.tobytes() for _, v in rows}) == 4
    return ["| how | result | bits |", "|---|---:|---|", *(f"| {how} | {shown(v)} |" for how, v in rows)]


def test_worked_example() -> None:
    page = read("docs/float32.md")
    assert between(page, "worked-example").splitlines() == worked_example()
    assert between(page, "other-orders").splitlines() == other_orders()
    acc = BIAS
    for x, w in zip(X, W, strict=True):
        acc = fma32(x, w, acc)
    assert acc.tobytes() == chain()[-1].tobytes()
    graph = single("conv2d", [(1, 2, 1, 2)], [(2, 2, 2, 1), (1,)], stride=(1, 1), padding=((0, 0), (0, 1)),
                   activation="relu6")  # fmt: skip
    weights = np.full((2, 2, 2, 1), 1000, F)  # those of kx = 1 fall outside the image
    weights[:, 0, :, 0] = np.array(W).reshape(2, 2)
    arrays = [np.array(X).reshape(1, 2, 1, 2), weights, np.array([BIAS])]
    for kernels in ("python", "reference", "fast"):
        got = run_node(graph, graph.nodes[0], arrays, kernels)
        assert same_bits(got, np.full((1, 1, 1, 1), chain()[-1], F))


def test_the_page_of_claims_is_current() -> None:
    """docs/exactness.md against the marked tests (docs/models.md has its own test)."""
    root = Path(__file__).parents[1]
    tool = [sys.executable, str(root / "tools" / "make_exactness_docs.py"), "--check"]
    done = subprocess.run(tool, capture_output=True, text=True, check=False, cwd=root)
    assert done.returncode == 0, done.stderr


# -- what is handed on -------------------------------------------------------------------------------------------------


def test_no_photo_is_handed_on_and_their_licence_is_said() -> None:
    """Pictures in the repository are plots and pages: what docs/training.md says of the flowers' photos."""
    folders = ("npmobilenet", "weights", "docs", "examples", "tests", "tools", "container")
    pictures = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm")
    found = [p for folder in folders for p in (ROOT / folder).rglob("*") if p.suffix.lower() in pictures]
    drawn = re.compile(r"docs/(example|explore_\w+|training_curves)\.png")  # by programs
    assert not [p for p in found if not drawn.fullmatch(p.relative_to(ROOT).as_posix())]
    text = section(read("docs/training.md"), "## The photos")
    assert "https://creativecommons.org/licenses/by/2.0/" in text
    assert "LICENSE.txt" in text


def test_programs_for_other_engines() -> None:
    """Those of docs/other-engines.md are programs, use what there is, and have about twenty lines each.

    tools/try_engines.py runs them, where their packages are installed.
    """
    programs = blocks(read("docs/other-engines.md"), "python")
    assert len(programs) == 2
    for program in programs:
        ast.parse(program)
        assert "model.features(" in program
        assert "nm.InputError" in program
        assert len([line for line in program.splitlines() if line.strip()]) <= 25
