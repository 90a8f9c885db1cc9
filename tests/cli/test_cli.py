"""The command line: what it prints for people, pipes and programs, and how it fails."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("click", reason="the command line needs the extra [cli]")
pytest.importorskip("rich", reason="the command line needs the extra [cli]")

from click.testing import CliRunner, Result
from design import MACS
from platforms import make_pipe

import npmobilenet
from npmobilenet.arithmetic.dialects import DIALECTS, NAMES
from npmobilenet.cli import app as app_module
from npmobilenet.cli import classify, doctor, output, warmup
from npmobilenet.cli.app import app
from npmobilenet.formats import weightfile
from npmobilenet.graph import OPS, GraphBuilder
from npmobilenet.kernels import FUSED, KERNELS, kernel_set
from npmobilenet.kernels.compiler import work_sharing
from npmobilenet.modeldata import ModelData, ModelInfo, assumptions, recipe_assumed
from npmobilenet.runtime.examples import examples, graph_of
from npmobilenet.runtime.plan import Plan
from npmobilenet.zoo.build import build_model

VERBS = (
    "classify",
    "models",
    "info",
    "convert",
    "export",
    "evaluate",
    "golden",
    "quantize",
    "bench",
    "doctor",
    "warmup",
    "embed",
    "fit",
    "pull",
)
PAGES = ("explore", "plot")  # they write a page or a picture, and have nothing to say in JSON


def cli(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def process(*arguments: object, **environment: str | None) -> subprocess.CompletedProcess[str]:
    """The real program; an environment variable given as None is taken away."""
    env = {**os.environ, **environment}
    command = [sys.executable, "-m", "npmobilenet", *map(str, arguments)]
    kept = {k: v for k, v in env.items() if v is not None}
    return subprocess.run(command, env=kept, capture_output=True, text=True, timeout=120, check=False)


def document(*arguments: object) -> dict:
    """The JSON document of a command, which is all that it prints."""
    result = cli(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def check_error(code: int, stdout: str, stderr: str) -> None:
    assert code == 2
    assert stdout == ""
    assert stderr.startswith("error: ")
    assert stderr.endswith("\n")
    assert stderr.count("\n") == 1
    assert "Traceback" not in stderr


def fails(*arguments: object) -> str:
    """The error line of a command that must fail."""
    result = cli(*arguments)
    check_error(result.exit_code, result.stdout, result.stderr)
    return result.stderr


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weight file whose model gives softmax of the mean colour: its three classes are red, green and blue."""
    b = GraphBuilder("tiny")
    y = b.node("mean", [b.input("input", (1, 2, 2, 3))], "mean", keepdims=False)
    graph = b.finish([b.node("softmax", [y], "softmax", beta=4.0)])
    path = tmp_path_factory.mktemp("tiny") / "tiny.h5"
    weightfile.write(path, ModelData(graph, {}, ModelInfo("tiny", ("red", "green", "blue"))))
    return path


@pytest.fixture(scope="module")
def assuming(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model, whose recipe and labels nothing in its file told."""
    data = weightfile.read(tiny)
    facts = assumptions([recipe_assumed(data.info.preprocessing), "labels assumed: red, green, blue"])
    path = tmp_path_factory.mktemp("assuming") / "assuming.h5"
    weightfile.write(path, replace(data, info=replace(data.info, provenance=facts)))
    return path


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A green picture."""
    image = pytest.importorskip("PIL.Image")
    path = tmp_path_factory.mktemp("picture") / "a green one.png"
    image.fromarray(np.full((5, 7, 3), (10, 250, 40), np.uint8)).save(path)
    return path


# ---------------------------------------------------------------------------------------------------------------------
# The program


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_and_json(verb: str) -> None:
    result = cli(verb, "--help")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: npmobilenet {verb} ")
    assert "--json" in result.stdout


def test_the_group() -> None:
    assert set(app.commands) == {*VERBS, *PAGES}
    assert cli("--version").stdout == f"npmobilenet {npmobilenet.__version__}\n"
    without_verb = cli()
    assert (without_verb.exit_code, without_verb.stdout) == (2, "")
    assert without_verb.stderr == cli("--help").stdout
    assert "nope" in fails("nope")
    assert process("--version").stdout == cli("--version").stdout


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from npmobilenet.cli import main; code = main(['--help']); "
        "heavy = 'numpy', 'numba', 'h5py', 'PIL', 'rich', 'tflite'; "
        "sys.exit(code or ','.join(m for m in heavy if m in sys.modules) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("package", ["click", "rich"])
def test_a_missing_package_is_one_line(package: str) -> None:
    code = f"import sys; sys.modules['{package}'] = None; from npmobilenet.cli import main; sys.exit(main(['models']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    check_error(done.returncode, done.stdout, done.stderr)
    assert package in done.stderr
    assert "pip install 'npmobilenet[cli]'" in done.stderr


def test_a_reader_that_goes_away() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = [sys.executable, "-m", "npmobilenet", "models", "--json"]
    done = subprocess.run(command, stdout=write_end, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    os.close(write_end)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


@pytest.mark.parametrize("example", ["custom_model.py"])
def test_a_reader_of_an_example_that_goes_away(example: str) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = [sys.executable, str(Path(__file__).parents[2] / "examples" / example)]
    done = subprocess.run(command, stdout=write_end, stderr=subprocess.PIPE, text=True, timeout=300, check=False)
    os.close(write_end)
    assert (done.returncode, done.stderr) == (0, "")


def raising(error: BaseException):
    def function(*_: object) -> None:
        raise error

    return function


@pytest.mark.skipif(sys.platform == "win32", reason="this platform has no such shell")
def test_closed_streams() -> None:
    """`>&-` leaves Python without a sys.stdout."""
    for closed in (">&-", "2>&-", ">&- 2>&-"):
        command = f"'{sys.executable}' -m npmobilenet models mobilenet_v2_1.0_224 {closed}"
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=120, check=False)
        assert (done.returncode, done.stderr) == (0, "")


def test_a_threading_layer_that_is_not_there(tiny: Path, picture: Path) -> None:
    done = process("classify", picture, "--model", tiny, NUMBA_THREADING_LAYER="xx")
    check_error(done.returncode, done.stdout, done.stderr)
    assert "NUMBA_THREADING_LAYER" in done.stderr


def test_interruption(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("npmobilenet.zoo.checkpoints.list_models", raising(KeyboardInterrupt()))
    result = cli("models")
    assert (result.exit_code, result.stdout, result.stderr.strip()) == (128 + signal.SIGINT, "", "")


def test_an_error_of_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("npmobilenet.zoo.checkpoints.list_models", raising(ZeroDivisionError("oops")))
    result = cli("models")
    assert (result.exit_code, result.stderr.count("\n")) == (app_module.INTERNAL_ERROR, 1)
    assert "ZeroDivisionError: oops" in result.stderr
    monkeypatch.setenv("NPMOBILENET_DEBUG", "1")
    assert isinstance(cli("models").exception, ZeroDivisionError)


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied", "x.h5"), MemoryError("16 GiB")])
def test_errors_of_the_system(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    monkeypatch.setattr("npmobilenet.zoo.checkpoints.list_models", raising(error))
    assert str(error.args[-1]) in fails("models")


def test_control_characters_stay_out() -> None:
    assert output.printable("a\x1b[31mb\nc\u202e \udcff") == "a\\x1b[31mb c\\u202e \\udcff"
    assert "\x1b" not in fails("info", "\x1b[31mred.h5")


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals")
def test_a_terminal_gets_a_drawn_table() -> None:
    import pty

    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "npmobilenet", "models", "mobilenet_edgetpu*"]
    env = {**os.environ, "NO_COLOR": "1", "TERM": "xterm", "COLUMNS": "60"}
    subprocess.run(command, stdout=theirs, stdin=theirs, env=env, timeout=60, check=True)
    os.close(theirs)
    shown = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # Linux's end of a pseudo-terminal
            break
        if not piece:
            break
        shown += piece
    os.close(ours)
    text = shown.decode()
    assert "───" in text
    assert "left out for want of room" in text
    assert "\x1b[3" not in text  # a colour; NO_COLOR is set


# ---------------------------------------------------------------------------------------------------------------------
# models, info


def test_models_in_a_pipe() -> None:
    result = cli("models")
    lines = result.stdout.splitlines()
    assert len(lines) == 1 + len(npmobilenet.list_models())
    assert result.stdout.isascii()
    assert "\x1b" not in result.stdout
    row = next(line for line in lines if line.startswith("mobilenet_v2_1.4_224 "))
    assert " ".join(row.split()) == "mobilenet_v2_1.4_224 582 582.2 6.06 6.06 75.0 92.5 138.0 - - - - -"
    row = next(line for line in lines if line.startswith("mobilenet_edgetpu_0.75_224_uint8 "))
    assert " ".join(row.split()) == "mobilenet_edgetpu_0.75_224_uint8 624 624.5 2.9 2.96 73.5 - - - - 3.1 13.8 -"


def test_models_json_has_computed_beside_published() -> None:
    rows = {row["name"]: row for row in document("models")["models"]}
    assert list(rows) == npmobilenet.list_models()
    assert {name: round(rows[name]["macs"]["computed"] / 1e6, 1) for name in MACS} == MACS
    small = rows["mobilenet_v3_small_1.0_224"]
    assert small["macs"]["published"] == "66"
    assert small["macs"]["computed_millions"] == round(small["macs"]["computed"] / 1e6, 3)
    assert small["note"]
    assert small["latency_ms"] == {"pixel_1": "15.8", "pixel_2": "19.4", "pixel_3": "14.4"}
    assert small["url"].endswith("v3-small_224_1.0_float.tgz")


def test_models_on_this_machine(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those in the box and in NPMOBILENET_WEIGHTS are listed, and marked; a file that can't be read says so."""
    (tmp_path / "mine.h5").write_bytes(tiny.read_bytes())
    (tmp_path / "mobilenet_v2_1.0_224.h5").write_bytes(tiny.read_bytes())
    (tmp_path / "cut.h5").write_bytes(tiny.read_bytes()[:100])
    monkeypatch.setenv("NPMOBILENET_WEIGHTS", str(tmp_path))
    rows = {row["name"]: row for row in document("models")["models"]}
    present = {name for name, row in rows.items() if row["present"]}
    assert present == {"flowers", "flowers_uint8", "mine", "cut", "mobilenet_v2_1.0_224"}
    assert rows["mine"]["file"] == str(tmp_path / "mine.h5")
    assert rows["mobilenet_v2_1.0_224"]["macs"]["published"] == "300"
    assert (rows["cut"]["macs"]["computed"], rows["cut"]["note"] != "") == (None, True)
    flowers = rows["flowers"]
    assert (flowers["macs"]["published"], flowers["dtype"]) == (None, "float32")
    assert flowers["params"]["computed"] == build_model("mobilenet_v2_0.5_128", num_classes=5).total_params()
    lines = cli("models").stdout.splitlines()
    assert lines[0].split()[-1] == "present"
    assert {line.split()[0] for line in lines[1:] if line.endswith(" yes")} == present
    assert len({len(line.split()) for line in lines[1:]}) == 1
    assert cli("models", "mine", "--urls").stdout == f"mine  {tmp_path / 'mine.h5'}\n"
    assert "closest: flowers" in fails("classify", "--model", "flower")
    assert "9 names contain it: npmobilenet models '*v3*'" in fails("models", "v3")


def test_one_name_for_the_flowers_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = document("info", "flowers")
    assert (facts["name"], Path(facts["file"]).name) == ("flowers", "flowers.h5")
    assert document("classify")["model"]["name"] == classify.DEFAULT_MODEL == "flowers"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flowers").write_text("not a model")  # the model in the box is meant, whatever lies here
    assert document("classify")["model"]["name"] == "flowers"


def test_info_of_a_name_of_other_weights() -> None:
    facts = document("info", "mobilenet_v3_large")
    assert facts["name"] == "mobilenet_v3_large_1.0_224"
    assert "torchvision's model" in facts["provenance"]["name"]
    assert document("info", "MobileNetV3Large")["provenance"] == {}


def test_addresses_are_not_downloaded(tiny: Path) -> None:
    for arguments in (
        ("classify", "https://example.org/a.jpg", "--model", tiny),
        ("info", "https://example.org/m.tflite"),
    ):
        assert "nothing is downloaded: save it" in fails(*arguments)


def test_identify_with_the_dump_of_another_model(tiny: Path, tmp_path: Path) -> None:
    assert cli("golden", "record", tiny, "random:1", "-o", tmp_path / "dump").exit_code == 0
    for model in ("flowers", "flowers_uint8"):
        line = fails("golden", "identify", model, tmp_path / "dump")
        assert f"was recorded from another model, 'tiny', than '{model}'" in line
    assert cli("golden", "identify", tiny, tmp_path / "dump").exit_code == 0


def test_models_selects() -> None:
    lines = cli("models", "mobilenet_v3_*_minimalistic*", "--urls").stdout.splitlines()
    assert len(lines) == 3
    assert all(line.split()[1].endswith(".tgz") for line in lines)
    aliases = cli("models", "mobilenet_v3_small_1.0_224", "--aliases").stdout
    assert "v3-small_224_1.0_float" in aliases
    assert "closest: mobilenet_v2_1.0_224" in fails("models", "mobilenet_v2_1.0_225")
    assert "'resnet*'" in fails("models", "resnet*")


@pytest.mark.parametrize("name", MACS)
def test_info_counts(name: str) -> None:
    facts = document("info", name)
    assert round(facts["macs"]["computed"] / 1e6, 1) == MACS[name]
    assert facts["macs"]["published"]
    assert facts["params"]["published"]


def test_info_of_a_name() -> None:
    facts = document("info", "MobileNetV2", "--layers")
    assert (facts["name"], facts["file"]) == ("mobilenet_v2_1.0_224", None)
    assert facts["inputs"] == [
        {"name": "input", "shape": [1, 224, 224, 3], "dtype": "float32", "scale": None, "zero_point": None}
    ]
    assert (facts["labels"], facts["label_offset"]) == ("imagenet", 1)
    assert facts["memory"]["weights"] + facts["memory"]["arena"] >= facts["memory"]["ideal"] > 4 * 3_400_000
    assert sum(layer["macs"] for layer in facts["layers"]) == facts["macs"]["computed"]
    assert sum(layer["params"] for layer in facts["layers"]) == facts["params"]["computed"]
    first = facts["layers"][0]
    assert (first["op"], first["kernel"], first["stride"]) == ("conv2d", [3, 3], [2, 2])
    assert first["output_shape"] == [1, 112, 112, 32]
    text = cli("info", "mobilenet_v2_1.0_224").stdout
    assert "MACs           300.8 M (published: 300)\n" in text
    assert "rounded down" in text


def test_info_compiles_nothing() -> None:
    code = (
        "import sys; from npmobilenet.cli import main; code = main(['info', 'mobilenet_v3_small_1.0_224', '--layers']);"
        "sys.exit(code or 'numba' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_info_of_a_file(tiny: Path) -> None:
    facts = document("info", tiny)
    assert (facts["file"], facts["labels"], facts["url"]) == (str(tiny), ["red", "green", "blue"], None)
    assert facts["ops"] == {"mean": 1, "softmax": 1}
    assert "3 names: red; green; blue" in cli("info", tiny).stdout


def test_info_of_an_integer_file(data: Path) -> None:
    facts = document("info", data / "weights" / "v3-small_224_1.0_uint8.tflite")
    assert (facts["inputs"][0]["dtype"], facts["inputs"][0]["zero_point"]) == ("uint8", 128)
    assert facts["inputs"][0]["scale"] == pytest.approx(0.00787402)
    assert facts["macs"]["computed_millions"] == pytest.approx(56.5, abs=0.05)


# ---------------------------------------------------------------------------------------------------------------------
# classify


def test_classify(tiny: Path, picture: Path) -> None:
    command = ("classify", picture, "--model", tiny, "--kernels", "reference")
    result = cli(*command, "--top", 2)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == str(picture)
    assert lines[1].split() == ["rank", "class", "label", "probability"]
    # Means on [-1, 1]: pixel / 127.5 - 1; softmax with beta 4.
    levels = np.exp(4 * (np.array([10, 250, 40]) / 127.5 - 1))
    assert [line.split() for line in lines[2:]] == [
        ["1", "1", "green", f"{levels[1] / levels.sum():.4f}"],
        ["2", "2", "blue", f"{levels[2] / levels.sum():.4f}"],
    ]
    facts = document(*command)
    about = {"name": "tiny", "preprocessing": "slim_inception_eval", "kernels": "reference", "dialect": None}
    assert facts["model"] == about
    (image,) = facts["images"]
    assert (facts["score"], image["image"], image["error"]) == ("probability", str(picture), None)
    assert [p["label"] for p in image["predictions"]] == ["green", "blue", "red"]
    assert image["predictions"][0]["score"] == pytest.approx(levels[1] / levels.sum(), rel=1e-5)


def test_classify_says_which_dialect() -> None:
    """Of a model with integers, in text and JSON; a dialect has no say in a float model."""
    command = ("classify", "--model", "flowers_uint8")
    for options, dialect in (((), "tflite-reference"), (("--dialect", "xnnpack"), "xnnpack")):
        assert document(*command, *options)["model"]["dialect"] == dialect
        assert cli(*command, *options).stdout.splitlines()[-1].split() == ["dialect", dialect]
    assert "dialect" not in cli("classify", "--dialect", "xnnpack").stdout


def test_one_bad_image_among_several(tiny: Path, picture: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.jpg"
    text.write_text("not a picture")
    images = (tmp_path / "absent.jpg", picture, text, picture)
    command = ("classify", *images, "--model", tiny, "--kernels", "reference", "--top", 1)
    result = cli(*command)
    assert result.exit_code == 2
    first, second = result.stderr.splitlines()
    assert first.startswith("error: ")
    assert "absent.jpg" in first
    assert second.startswith("error: ")
    assert "text.jpg" in second
    assert result.stdout.splitlines() == [*(lines := result.stdout.splitlines()[:3]), "", *lines]
    result = cli(*command, "--json")
    assert result.exit_code == 2
    errors = [image["error"] for image in json.loads(result.stdout)["images"]]
    assert [error is None for error in errors] == [False, True, False, True]


def test_classify_refuses(tiny: Path, picture: Path, tmp_path: Path) -> None:
    known = fails("classify", picture, "--model", "mobilenet_v2_1.0_224")
    assert "mobilenet_v2_1.0_224.tgz" in known
    assert "closest: mobilenet_v2_1.0_224" in fails("classify", picture, "--model", "mobilenet_v2_1.0_244")
    assert "did you mean 'whole_image'" in fails("classify", picture, "--model", tiny, "--preprocess", "wholeimage")
    assert "--top" in fails("classify", picture, "--model", tiny, "--top", 0)
    assert "--threads" in fails("classify", picture, "--model", tiny, "--threads", -1)
    assert "--kernels" in fails("classify", picture, "--model", tiny, "--kernels", "quick")
    assert "the example picture" in cli("classify", "--model", tiny).stdout  # no image is no error
    b = GraphBuilder("map")
    graph = b.finish([b.node("activation", [b.input("input", (1, 2, 2, 3))], "map_out", function="relu")])
    weightfile.write(tmp_path / "map.h5", ModelData(graph, {}, ModelInfo("map")))
    assert "not a classifier" in fails("classify", picture, "--model", tmp_path / "map.h5")


def test_dialects_are_those_of_the_engine() -> None:
    choices = [p.type.choices for _, p in options() if p.opts == ["--dialect"]]
    assert len(choices) >= 5
    assert all(tuple(names) == tuple(NAMES) for names in choices)
    assert set(warmup.DIALECTS) <= set(DIALECTS)


def options() -> list[tuple[str, Any]]:
    """Each option of each verb, with the verb's name; those of groups' verbs as well."""
    verbs = [(n, c) for n, c in app.commands.items() if not hasattr(c, "commands")]
    verbs += [(f"{g} {n}", c) for g, group in app.commands.items() for n, c in getattr(group, "commands", {}).items()]
    return [(verb, p) for verb, command in verbs for p in command.params if p.param_type_name == "option"]


def test_options_that_verbs_share_are_defined_once() -> None:
    """Whatever cli/options.py defines is written nowhere else, and has one type and one variable in all verbs."""
    folder = Path(classify.__file__).parent
    shared = re.findall(r'"(--[a-z-]+)"', (folder / "options.py").read_text(encoding="utf-8"))
    assert {"--json", "--dialect", "--threads", "--kernels"} <= set(shared)
    for path in folder.glob("*.py"):
        if path.name != "options.py":
            assert not set(re.findall(r'"(--[a-z-]+)"', path.read_text(encoding="utf-8"))) & set(shared), path.name
    for name in shared:
        kinds = {(p.name, repr(p.type), p.metavar, p.default) for _, p in options() if name in p.opts}
        assert len(kinds) == 1, name
    assert {verb for verb, p in options() if "--json" in p.opts} == {
        verb for verb, _ in options() if verb.split()[0] not in PAGES
    }


@pytest.mark.parametrize(("recipe", "expected"), [((), 0.445), (("--preprocess", "whole_image"), 0.889)])
def test_classify_a_photo(data: Path, recipe: tuple[str, ...], expected: float) -> None:
    model = data / "weights" / "mobilenet_v2_1.0_224_float.tflite"
    photo = data / "images" / "photos" / "grace_hopper.bmp"
    (image,) = document("classify", photo, "--model", model, *recipe)["images"]
    best = image["predictions"][0]
    assert (best["class_id"], best["label"]) == (653, "military uniform")
    assert best["score"] == pytest.approx(expected, abs=0.0005)  # LiteRT 2.3.0, three decimals


# ---------------------------------------------------------------------------------------------------------------------
# convert


def test_convert_checks_its_target_first(tiny: Path, tmp_path: Path) -> None:
    target = tmp_path / "there.h5"
    target.write_bytes(b"keep me")
    assert "--force" in fails("convert", tiny, target)
    assert "is SRC itself" in fails("convert", target, target, "--force")
    assert ".h5" in fails("convert", tiny, tmp_path / "model.npz")
    assert "there is no folder" in fails("convert", tiny, tmp_path / "absent" / "model.h5")
    assert target.read_bytes() == b"keep me"


def test_convert_to_where_nothing_can_be_written(data: Path) -> None:
    if not Path("/proc").is_dir():
        pytest.skip("needs a folder in which not even root can write: /proc")
    assert "/proc/model.h5" in fails("convert", data / "weights" / "mobilenet_v1_0.25_128.tflite", "/proc/model.h5")


def test_convert(data: Path, tmp_path: Path) -> None:
    source, target = data / "weights" / "mobilenet_v1_0.25_128.tflite", tmp_path / "v1.h5"
    facts = document("convert", source, target)
    content = target.read_bytes()
    assert (facts["file"], facts["bytes"]) == (str(target), len(content))
    assert facts["sha256"] == hashlib.sha256(content).hexdigest()
    assert facts["tensors"] == len(weightfile.read(target).tensors)
    result = cli("convert", source, target, "--force")
    assert result.exit_code == 0
    assert facts["sha256"] in result.stdout
    assert target.read_bytes() == content
    assert list(tmp_path.iterdir()) == [target]  # no temporary file is left
    assert document("info", target)["macs"]["computed"] == document("info", source)["macs"]["computed"]


# ---------------------------------------------------------------------------------------------------------------------
# doctor, warmup


def test_doctor() -> None:
    facts = document("doctor")
    assert facts["versions"]["npmobilenet"] == npmobilenet.__version__
    assert facts["self_check"] == {"kernel": "pointwise_conv2d_f32", "equal": True, "error": None}
    assert facts["threads"]["layer"] in ("omp", "tbb", "workqueue")
    assert bool(facts["threads"]["note"]) == (facts["threads"]["layer"] == "workqueue")
    assert set(facts["cpu"]["features"]) == set(doctor.CPU_FEATURES)
    assert facts["extras"]["cli"]["missing"] == [] or "pip install" in facts["extras"]["cli"]["install"]
    text = cli("doctor").stdout
    assert "self-check       passed" in text
    assert f"integers         {facts['kernels']['integer_form']} (" in text
    assert "kernel cache" in text


def test_doctor_tells_of_kernels_that_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    check = {"kernel": "pointwise_conv2d_f32", "equal": False, "error": None}
    monkeypatch.setattr(doctor, "_self_check", lambda: check)
    result = cli("doctor")
    assert result.exit_code == 1
    assert "FAILED" in result.stdout


def test_settings_that_cannot_be(tiny: Path, picture: Path) -> None:
    done = process("doctor", NPMOBILENET_ISA="mmx")
    assert done.returncode == 2
    assert "self-check       could not run" in done.stdout
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    done = process("classify", picture, "--model", tiny, NPMOBILENET_ISA="mmx")
    check_error(done.returncode, done.stdout, done.stderr)
    assert "NPMOBILENET_ISA" in done.stderr


def test_doctor_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(doctor.EXTRAS, "convert", (("no_such_module_", "tflite"),))
    extra = doctor._extras()["convert"]
    assert (extra["missing"], extra["install"]) == (["tflite"], "pip install 'npmobilenet[convert]'")


@pytest.mark.parametrize(
    ("kind", "reason"), [("public", "others may write"), ("file", "not a folder"), ("below a file", "")]
)
def test_doctor_says_why_there_is_no_cache(
    kind: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from npmobilenet.kernels.compiler import cache

    root = tmp_path / "cache"
    if kind == "public":
        if not hasattr(os, "getuid"):
            pytest.skip("this platform has no owners and modes of files")
        root.mkdir()
        root.chmod(0o777)
    else:
        root.write_text("")
    monkeypatch.setenv("NPMOBILENET_CACHE", str(root / "x" if kind == "below a file" else root))
    cache.cache_folder.cache_clear()
    try:
        found = doctor._cache()
    finally:
        monkeypatch.undo()
        cache.cache_folder.cache_clear()
    assert (found["folder"], found["private"]) == (None, False)
    assert str(root) in found["problem"]
    assert reason in found["problem"]


@pytest.mark.parametrize("case", ["world-writable", "read-only", "below a file", "no home", "home is a file"])
def test_without_a_cache_everything_works(case: str, tiny: Path, picture: Path, tmp_path: Path) -> None:
    variables: dict[str, str | None] = {"NPMOBILENET_CACHE": str(tmp_path), "NPMOBILENET_QUIET": None}
    if case == "world-writable":
        tmp_path.chmod(0o777)
    elif case == "read-only":
        tmp_path.chmod(0o500)  # root may write there all the same, and then it is a cache like any other
    elif case == "below a file":
        variables["NPMOBILENET_CACHE"] = f"{tiny}/cache"
    else:
        home = None if case == "no home" else str(tiny)
        variables.update(NPMOBILENET_CACHE=None, XDG_CACHE_HOME=None, HOME=home)
    done = process("classify", picture, "--model", tiny, "--kernels", "reference", "--top", 1, **variables)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-4:-1] == ["1", "1", "green"]
    assert all(line.startswith("npmobilenet: compiling") for line in done.stderr.splitlines())


def test_warmup_covers_every_kernel() -> None:
    kernels = kernel_set("python")
    kernels._compiled.clear()
    warmup.every_plan("python")
    assert set(kernels._compiled) == set(KERNELS)


def test_warmup_compiles_what_integer_models_use() -> None:
    """Every form (kinds of arguments) in which plans of a model with all integer ops call kernels, in any dialect."""
    for dtype in ("uint8", "int8"):
        covered = {warmup._form(step) for plan in warmup.every_plan("python", (dtype,)) for step in plan.steps}
        for graph in examples(dtype):
            zeros = {n: np.zeros(t.shape, t.dtype) for n, t in graph.constants.items()}
            for dialect in DIALECTS:
                steps = Plan(graph, zeros, "python", batch=3, dialect=dialect).steps
                assert {warmup._form(step) for step in steps} <= covered


def test_warmup_compiles_what_float_models_use() -> None:
    """Every form in which fast plans of the zoo's graphs call kernels, those that compute several nodes included."""
    plans = warmup.every_plan("fast", ("float32",))
    covered = {warmup._form(step) for plan in plans for step in plan.steps}
    assert {step.kernel.__name__ for plan in plans for step in plan.steps} >= set(FUSED)
    for name in ("mobilenet_v2_1.0_224", "mobilenet_v3_small_1.0_224", "mobilenet_edgetpu_1.0_224"):
        steps = warmup._planned(build_model(name), "fast").steps
        assert {warmup._form(step) for step in steps} <= covered, name


def test_warmup_compiles_both_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    """A first run needs only that of one thread, later ones need both."""
    ran: list[str] = []
    for name in ("alone", "together"):
        monkeypatch.setattr(
            work_sharing, name, lambda *_, name=name: work_sharing.Way(np.zeros(0), 1, lambda: ran.append(name) or 0)
        )
    warmup._compile([warmup._planned(graph_of("softmax", OPS["softmax"].examples[0], "float32"), "fast")])
    assert set(ran) == {"alone", "together"}


def test_warmup_of_some_dtypes() -> None:
    assert "--dtype" in fails("warmup", "mobilenet_v2_0.35_96", "--dtype", "int8")
    assert "--dtype" in fails("warmup", "--dtype", "int16")
    name, plans = warmup._plans("mobilenet_v2_1.0_224_uint8", "python", ())  # no such file: all that it may hold
    assert name == "mobilenet_v2_1.0_224_uint8"
    dtypes = {step.args[0].dtype.name for plan in plans for step in plan.steps}
    assert "uint8" in dtypes


def test_warmup(tiny: Path, tmp_path: Path) -> None:
    command = ("warmup", tiny, "--kernels", "reference")
    first = process(*command, "--json", NPMOBILENET_CACHE=str(tmp_path / "cache"))
    facts = json.loads(first.stdout)
    assert [k["kernel"] for k in facts["kernels"]] == ["mean_f32", "softmax_f32"]
    assert all(k["compiled"] for k in facts["kernels"])
    assert Path(facts["cache"]).parent == tmp_path / "cache"
    again = process(*command, NPMOBILENET_CACHE=str(tmp_path / "cache"))
    assert again.stdout.splitlines()[-1].startswith("0 of 2 kernels compiled in ")
    assert "no_such_model" in fails("warmup", "no_such_model")


# ---------------------------------------------------------------------------------------------------------------------
# Bad input: one line, exit code 2, whatever the bytes


@pytest.mark.parametrize(
    "name", ["", "\x00", "a" * 5000, "~", "*", "-", "mobilenet_v2_1.0_224_float32", "a\nb", "..", "/"]
)
def test_odd_names(name: str) -> None:
    fails("info", "--", name)
    fails("warmup", "--", name)


def test_images_that_are_no_files(tiny: Path, tmp_path: Path) -> None:
    make_pipe(tmp_path / "pipe.jpg")
    for path in (tmp_path, tmp_path / "pipe.jpg", "/dev/zero", "", "\x00"):
        fails("classify", "--model", tiny, "--", path)


# ---------------------------------------------------------------------------------------------------------------------
# What was assumed

SAID = ["recipe assumed: slim_inception_eval", "labels assumed: red, green, blue"]
ON_STDERR = "".join(f"npmobilenet: {sentence}\n" for sentence in SAID)


def test_classify_says_what_was_assumed(assuming: Path, tiny: Path, picture: Path) -> None:
    result = cli("classify", picture, "--model", assuming)
    assert (result.exit_code, result.stderr) == (0, ON_STDERR)
    assert document("classify", picture, "--model", assuming)["assumed"] == SAID
    chosen = document("classify", picture, "--model", assuming, "--preprocess", "whole_image")
    assert chosen["assumed"] == SAID[1:]
    assert document("classify", picture, "--model", tiny)["assumed"] == []


def test_info_says_what_was_assumed(assuming: Path, tiny: Path) -> None:
    result = cli("info", assuming)
    assert re.search(rf"^assumed +{SAID[0]}\n +{SAID[1]}$", result.stdout, re.MULTILINE)
    assert document("info", assuming)["assumed"] == SAID
    assert "assumed" not in cli("info", tiny).stdout


def test_convert_says_what_was_assumed(tmp_path: Path) -> None:
    pytest.importorskip("tflite", reason="the extra [convert] is not installed")
    from tflite_maker import File, Op, T

    (tmp_path / "m.tflite").write_bytes(File([T((1, 8, 8, 3)), T((1, 8, 8, 3))], [Op("RELU", [0], [1])]).bytes())
    result = cli("convert", tmp_path / "m.tflite", tmp_path / "m.h5")
    assert (result.exit_code, result.stderr) == (0, ON_STDERR.splitlines(keepends=True)[0])
    assert document("convert", tmp_path / "m.tflite", tmp_path / "m.h5", "--force")["assumed"] == SAID[:1]
    assert document("info", tmp_path / "m.h5")["assumed"] == SAID[:1]


# ---------------------------------------------------------------------------------------------------------------------
# Folders, patterns, standard input, CSV, and what a user says of a model


@pytest.fixture
def folder(picture: Path, tmp_path: Path) -> Path:
    """Two green pictures, a text, a hidden picture, and a subfolder with one more."""
    place = tmp_path / "photos"
    (place / "more").mkdir(parents=True)
    for name in ("b.png", "a.PNG", ".hidden.png", "more/c.png", "[1].png"):
        (place / name).write_bytes(picture.read_bytes())
    (place / "notes.txt").write_text("no picture")
    return place


def names(*arguments: object) -> list[str]:
    return [Path(image["image"]).as_posix() for image in document("classify", *arguments)["images"]]


def test_classify_folders_and_patterns(folder: Path, tiny: Path) -> None:
    inside = [(folder / name).as_posix() for name in ("[1].png", "a.PNG", "b.png")]
    assert names(folder, "--model", tiny) == inside
    assert names(folder / "*.png", "--model", tiny) == [inside[0], inside[2]]
    assert names(folder / "**" / "?.png", "--model", tiny) == [inside[2], (folder / "more" / "c.png").as_posix()]
    assert names(folder / "[1].png", "--model", tiny) == [inside[0]]  # what is there is no pattern
    assert names(folder / "more", folder / "b.png", "--model", tiny) == [
        (folder / "more" / "c.png").as_posix(),
        inside[2],
    ]


def test_classify_finds_nothing(folder: Path, tiny: Path) -> None:
    assert "matches no file" in fails("classify", folder / "*.gif", "--model", tiny)
    (folder / "empty").mkdir()
    (folder / "empty" / "a.txt").touch()
    text = fails("classify", folder / "empty", "--model", tiny)
    assert "a folder without images (1 other files)" in text
    assert "nothing is downloaded" in fails("classify", "https://example.org/*.png", "--model", tiny)
    both = cli("classify", folder / "empty", folder / "b.png", "--model", tiny)
    assert (both.exit_code, both.stdout.splitlines()[0]) == (2, str(folder / "b.png"))


def test_classify_standard_input(picture: Path, tiny: Path) -> None:
    def piped(content: bytes, *arguments: object) -> Result:
        return CliRunner().invoke(app, [*map(str, arguments), "--model", str(tiny)], input=content)

    result = piped(picture.read_bytes(), "classify", "-", "--top", 1)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == "-"
    assert "green" in result.stdout
    twice = piped(picture.read_bytes(), "classify", "-", "-", "--json")
    assert twice.exit_code == 2
    errors = [image["error"] for image in json.loads(twice.stdout)["images"]]
    assert errors == [None, "standard input is given twice, and can be read but once"]
    assert "standard input is empty" in piped(b"", "classify", "-").stderr
    assert "is not an image" in piped(b"no picture", "classify", "-").stderr


def test_classify_csv(folder: Path, tiny: Path) -> None:
    odd = folder / 'x, "y".png'
    odd.write_bytes((folder / "b.png").read_bytes())
    result = cli("classify", odd, folder / "notes.txt", "--model", tiny, "--top", 2, "--csv")
    assert result.exit_code == 2
    head, *rows = csv.reader(result.stdout.splitlines())
    assert head == ["image", "rank", "class_id", "label", "score", "error"]
    assert [row[:4] for row in rows[:2]] == [[str(odd), "1", "1", "green"], [str(odd), "2", "2", "blue"]]
    scores = [p["score"] for p in document("classify", odd, "--model", tiny)["images"][0]["predictions"]]
    assert [float(row[4]) for row in rows[:2]] == scores[:2]
    assert (rows[2][:5], len(rows)) == ([str(folder / "notes.txt"), "", "", "", ""], 3)
    assert "is not an image" in rows[2][5]
    assert "expected one of them" in fails("classify", odd, "--model", tiny, "--csv", "--json")


def test_own_labels_and_recipe(assuming: Path, picture: Path, tmp_path: Path) -> None:
    file = tmp_path / "labels.txt"
    file.write_text("0 rouge\n1 vert\n2 bleu\n")
    own = ("--labels", file, "--preprocess", "opencv")
    result = document("classify", picture, "--model", assuming, *own)
    assert (result["assumed"], result["model"]["preprocessing"]) == ([], "opencv")
    assert [p["label"] for p in result["images"][0]["predictions"]] == ["vert", "bleu", "rouge"]
    document("convert", assuming, tmp_path / "own.h5", *own)
    kept = document("info", tmp_path / "own.h5")
    assert (kept["labels"], kept["preprocessing"], kept["assumed"]) == (["rouge", "vert", "bleu"], "opencv", [])
    assert kept["provenance"] == {"given": "labels from labels.txt; recipe opencv"}
    file.write_text("rouge\nvert\n")
    assert "2 names, and tiny has 3 outputs" in fails("classify", picture, "--model", assuming, "--labels", file)
    assert "there is no such file" in fails("convert", assuming, tmp_path / "x.h5", "--labels", tmp_path / "none")
    assert not (tmp_path / "x.h5").exists()
