"""`npmobilenet bench`, what it measures with, and the comparison with other engines."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("click", reason="the command line needs the extra [cli]")
pytest.importorskip("rich", reason="the command line needs the extra [cli]")

from click.testing import CliRunner

from npmobilenet.cli.app import app
from npmobilenet.cli.output import printable
from npmobilenet.errors import InputError, ModelNotFound, NpMobilenetError
from npmobilenet.formats import weightfile
from npmobilenet.graph import GraphBuilder
from npmobilenet.measure.benchmark import child, machine, measure, overhead, random_model, subprocess_run
from npmobilenet.model import Model
from npmobilenet.modeldata import ModelData, ModelInfo
from npmobilenet.runtime.binding import Step
from npmobilenet.runtime.plan import ideal_bytes
from npmobilenet.zoo.build import build_model

ROOT = Path(__file__).resolve().parents[2]
F = np.float32


def small_data() -> ModelData:
    """A pointwise convolution, a mean and a softmax."""
    b = GraphBuilder("small")
    x = b.input("x", (1, 8, 8, 16))
    weights = [b.constant("w", (1, 1, 16, 24)), b.constant("b", (24,))]
    y = b.node("conv2d", [x, *weights], "one", stride=(1, 1), padding=((0, 0), (0, 0)))
    y = b.node("mean", [y], "two", keepdims=False)
    graph = b.finish([b.node("softmax", [y], "three", beta=1.0)])
    rng = np.random.default_rng(0)
    tensors = {name: rng.standard_normal(t.shape).astype(F) for name, t in graph.constants.items()}
    return ModelData(graph, tensors, ModelInfo("small", ("a",) * 24, preprocessing="slim_inception_eval"))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small") / "small.h5"
    weightfile.write(path, small_data())
    return path


def bench(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["bench", *map(str, arguments)])


def test_overhead_takes_a_run_apart(small: Path) -> None:
    """All parts, one thread and all; they add up to a run, of which these kernels are a small part."""
    result = bench(small, "--threads", 2, "--runs", 20, "--overhead", "--no-compile", "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert set(found["overhead"]) == {"1", str(found["threads"])}
    for us in found["overhead"].values():
        assert list(us) == list(overhead.PARTS)
        assert all(0 <= value < 1e6 for value in us.values())
        assert sum(us.values()) > 1
    assert found["overhead"]["1"]["waits"] < 5
    lines = bench(small, "--runs", 1, "--overhead", "--no-compile").stdout.splitlines()
    for text in overhead.PARTS.values():
        assert any(line.startswith(text) for line in lines), text


# -- the verb ----------------------------------------------------------------------------------------------------------


def test_json_holds_what_was_measured(small: Path) -> None:
    result = bench(small, "--batch", 3, "--threads", 1, "--runs", 7, "--layers", "--no-compile", "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert (found["model"], found["batch"], found["threads"], found["runs"]) == ("small", 3, 1, 7)
    assert found["weights"] == "file"
    assert found["input"] == {"shape": [3, 8, 8, 16], "dtype": "float32"}
    assert found["kernels"] == ["mean_f32", "pointwise_conv2d_f32", "softmax_f32"]
    seconds = found["seconds"]
    assert seconds.pop("compile") is None
    assert set(seconds) == {"import", "load", "plan", "first"}
    assert all(0 < s < 60 for s in seconds.values())
    steady = found["steady_ms"]
    assert 0 < steady["min"] <= steady["p50"] <= steady["p90"] <= steady["p99"] <= steady["max"]
    assert found["images_per_second"] == pytest.approx(3000 / steady["p50"], rel=0.01)
    assert found["arithmetic"]["macs"] == 3 * 8 * 8 * 16 * 24
    graph, memory = small_data().graph, found["memory"]
    assert memory["ideal"] == ideal_bytes(graph, 3)
    assert memory["planned"] == memory["weights"] + memory["arena"] >= memory["ideal"]
    assert memory["peak_rss"] > 30e6
    layers = found["layers"]
    assert [layer["node"] for layer in layers] == ["one", "two", "three"]
    assert [layer["macs"] for layer in layers] == [3 * 8 * 8 * 16 * 24, 0, 0]
    assert layers[0]["output_shape"] == [8, 8, 24]
    assert sum(layer["share"] for layer in layers) == pytest.approx(1, abs=1e-3)
    gops = 2e-6 * layers[0]["macs"] / layers[0]["ms"]
    assert layers[0]["gops"] == pytest.approx(gops, rel=0.02)
    assert layers[0]["of_peak"] == pytest.approx(gops / found["arithmetic"]["peak_gops"], rel=0.2)
    assert layers[1]["gops"] is layers[1]["of_peak"] is None


def test_compiling_is_measured_with_an_empty_cache(tmp_path: Path) -> None:
    b = GraphBuilder("one_kernel")
    graph = b.finish([b.node("softmax", [b.input("x", (1, 8))], "softmax", beta=1.0)])
    path = tmp_path / "one.h5"
    weightfile.write(path, ModelData(graph, {}, ModelInfo("one_kernel")))
    document = subprocess_run.measure_fresh(str(path), subprocess_run.Options(runs=2))
    assert document["compiled"] == 2  # the kernel, and the loop that runs a program
    assert document["seconds"]["compile"] > 0.1


def test_the_text_says_the_same(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = subprocess_run.measure_fresh(str(small), subprocess_run.Options(runs=3, layers=True), compile_too=False)
    monkeypatch.setattr(subprocess_run, "measure_fresh", lambda *_: document)
    lines = bench(small, "--layers").stdout.splitlines()
    text = "\n".join(lines)
    assert f"{document['steady_ms']['p50']:.3f}" in text
    assert printable(document["machine"]["cpu"]) in text
    assert document["machine"]["instruction_set"] in text
    assert "compile its kernels" in text
    assert "not measured" in text
    assert [line.split()[0] for line in lines[-3:]] == ["one", "two", "three"]
    assert "GFLOP/s" in lines[-4]


def test_a_registered_name_runs_with_random_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def run(request: dict[str, Any], **_: str) -> dict[str, Any]:
        asked.append(request)
        return {"seconds": {"plan": 1.0, "first": 2.0}, "compiled": 0}

    monkeypatch.setattr(subprocess_run, "_run", run)
    found = subprocess_run.measure_fresh("mobilenet_v2_0.35_96", subprocess_run.Options(), compile_too=False)
    assert (found["weights"], asked[0]["random"], asked[0]["model"]) == ("random", True, "mobilenet_v2_0.35_96")
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nothing_of_the_kind",), "nothing_of_the_kind"),
        (("mobilenet_v2_1.0_224_uint8",), "not on this machine"),
        (("small", "--batch", "9"), "batch=9"),
        (("small", "--batch", "0"), "--batch"),
        (("small", "--runs", "0"), "--runs"),
        (("small", "--threads", "0"), "--threads"),
        (("broken", "--no-compile"), "broken.tflite"),
    ],
)
def test_bad_input_is_one_line(small: Path, tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(b"\0\0\0\0TFL3 and nothing else")
    files = {"small": small, "broken": broken}
    result = bench(*(files.get(word, word) for word in arguments))
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert said in result.stderr


def test_a_child_that_breaks_is_an_error(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess_run, "PROGRAM", "import sys; print('half a docu'); sys.exit('it broke')")
    with pytest.raises(NpMobilenetError, match=r"small\.h5 ended with status 1: it broke"):
        subprocess_run.measure_fresh(str(small), subprocess_run.Options())


def test_errors_keep_their_class(capsys: pytest.CaptureFixture[str]) -> None:
    request = {"model": "/nowhere.h5", "batch": 1, "threads": None, "runs": 1, "layers": False, "overhead": False}
    child.main(0.0, json.dumps(request | {"random": False}))
    assert json.loads(capsys.readouterr().out)["error"][0] == "ModelNotFound"
    with pytest.raises(InputError, match="batch=9"):
        subprocess_run.Options(batch=9)


# -- what it measures with ---------------------------------------------------------------------------------------------


def test_summary_is_percentiles() -> None:
    found = measure.summary([i / 1000 for i in range(1, 101)])
    assert found == {"min": 1, "mean": 50.5, "p50": 50.5, "p90": 90.1, "p99": 99.01, "max": 100}


def test_random_models_neither_vanish_nor_overflow() -> None:
    data = random_model.random_model("mobilenet_v2_0.35_96")
    assert data.graph == build_model("mobilenet_v2_0.35_96")
    model = Model(data)
    _, taps = model.run(random_model.random_inputs(model.graph, 1), taps="layer_1*/output")
    for values in taps.values():
        assert 1e-3 < np.abs(values).max() < 1e4
    with pytest.raises(ModelNotFound, match="8-bit"):
        random_model.random_model("mobilenet_v2_1.0_224_uint8")


@pytest.mark.parametrize("dtype", ["float32", "uint8", "int8"])
def test_random_inputs_use_the_range(dtype: str) -> None:
    x = random_model.random_input((2, 50, 50, 3), dtype)
    low, high = (-1, 1) if dtype == "float32" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    assert x.dtype == dtype
    assert x.min() == pytest.approx(low, abs=0.01)
    assert x.max() == pytest.approx(high, abs=0.01)


@pytest.mark.parametrize("integer", [False, True])
def test_the_peak_kernels_do_the_work_that_they_claim(integer: bool) -> None:
    """Operands are ones, so each accumulator counts the products that went into it."""
    from npmobilenet.kernels.vectorcode import peak

    kernel, operations = (peak.peak_q, peak.INTEGER_OPS) if integer else (peak.peak_f32, peak.FLOAT_OPS)
    x, w, out = peak.operands(integer, 2)
    kernel(x, w, 3, out)
    assert (out == 3 * peak.DEPTH * (peak.KR if integer else 1)).all()
    assert 2 * out[0].sum() == 3 * operations
    assert x.nbytes + w.nbytes <= 16 << 10  # half of the smallest first-level cache


def test_fused_steps_count_all_their_nodes() -> None:
    graph = small_data().graph
    step = Step(print, (), measure.JOINED.join(["one", "two", "made up"]))
    assert [node.name for node in measure.nodes_of(graph, step)] == ["one", "two"]


def test_peak_memory_is_this_process_s_own() -> None:
    """Not the parent's, which `ru_maxrss` shows."""
    program = "from npmobilenet.measure.benchmark.machine import peak_memory; print(peak_memory())"
    held = np.ones(300 << 17)  # 300 MiB
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert machine.peak_memory() > held.nbytes
    assert int(done.stdout) < 200 << 20


# -- the comparison ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tools() -> Any:
    """The tools' modules, as attributes."""
    folder = str(ROOT / "tools")
    sys.path.insert(0, folder)
    try:
        import bench_peers
        import peer_models
        import peer_report
    finally:
        sys.path.remove(folder)
    return type("Tools", (), {"bench": bench_peers, "models": peer_models, "report": peer_report})


def case(ours: float, **peers: float) -> dict[str, Any]:
    def q(value: float) -> dict[str, float]:
        return {"median": value, "q1": value, "q3": value}

    ratios = {name: q(ours / ms) for name, ms in peers.items()}
    return {"ms": {"ours": q(ours), **{n: q(v) for n, v in peers.items()}}, "ratio": ratios, "missing": {}}


def document() -> dict[str, Any]:
    rows = {
        "float": {"kind": "float", "bars": [0.95, 0.97], "pixels": 224, "versions": {"litert": "2.3.0"}, "cases": {
            "1 threads, batch 1": case(5.0, litert=4.0, openvino=10.0),
            "2 threads, batch 1": {**case(2.0, litert=4.0), "speedup": {"median": 2.5, "q1": 2.4, "q3": 2.6}},
            "1 threads, batch 1, after a pause": case(5.0, litert=4.0, openvino=10.0),
            "2 threads, batch 1, after a pause": case(2.0, litert=4.0),
            "1 threads, batch 8": {**case(40.0, litert=32.0), "by_single": {"median": 1.2, "q1": 1.1, "q3": 1.3}}}},
        "int": {"kind": "int8", "bars": [0.8, 0.8], "pixels": 96, "versions": {}, "cases": {
            "1 threads, batch 1": case(5.0, litert=9.0, openvino=6.0)},
            "reference": {**case(5.0, reference=300.0), "apart": {"reference": 0.0}}},
        "absent": {"missing": "why", "cases": {}},
    }  # fmt: skip
    machine_facts = {"cores": 2, "instruction_set": "avx512vnni", "threading_layer": "omp"}
    measured = {"pairs": 50, "batch_pairs": 6, "paused": 20, "load_average": [0.1, 0.2], "machine": machine_facts}
    return {"cpu": "A CPU", "date": "2000-01-01", "engines": ["ours", "litert", "openvino"], **measured, "rows": rows}


def test_bars_take_the_faster_peer(tools: Any) -> None:
    found = {(b["title"], b["threads"]): b for b in tools.report.bars(document())}
    assert [found["float", t]["met"] for t in (1, 2)] == [False, True]
    assert found["int", 1]["against"] == "openvino"  # 6 ms, LiteRT takes 9: 5 / 6 misses 0.8, 5 / 9 would not
    assert found["int", 1]["met"] is False
    assert found["int", 2]["met"] is None
    assert set(found) == {("float", 1), ("float", 2), ("int", 1), ("int", 2)}


def test_the_page_is_filled_between_its_marks(tools: Any) -> None:
    page = "# Head\n\n<!-- figures -->\nold\n<!-- /figures -->\ntail\n"
    figures = tools.report.figures(document())
    text = tools.report.filled(page, "figures", figures)
    assert "old" not in text
    assert text.startswith("# Head\n\n<!-- figures -->\n")
    assert text.endswith("<!-- /figures -->\ntail\n")
    assert "| float | 0.95 | 1.25 (1.25–1.25) | LiteRT | **no** | 0.97 | 0.50 (0.50–0.50) | LiteRT | yes |" in text
    assert "| absent |  |  |  | not measured |  |  |  |  |" in text
    assert "- float, 1 thread: median of the models 1.25, bar 0.88, met: **no**" in text
    assert "- 8 bits, 1 thread: median of the models 0.83, bar 0.50, met: **no**" in text
    assert "| float | 5.00 / 2.00 | 4.00 / 4.00 | 10.00 /  | 1.25 / 0.50 |" in text  # after a pause
    assert "| int | 5.00 | 300 | 60.0 | 50 | yes | 0 |" in text
    assert tools.report.filled(text, "figures", figures) == text
    with pytest.raises(SystemExit):
        tools.report.filled("no marks", "figures", figures)
    shown = tools.report.further_figures({**document(), "avx2_only": True}, "With AVX2 only")
    assert "A CPU, shown to every engine as a CPU that ends with AVX2" in shown
    assert "| float | 0.95 | 1.25 (1.25–1.25) | LiteRT" in shown
    assert [line[:22] for line in shown.split("\n") if line.startswith("#")] == [
        "### With AVX2 only: Ba",
        "### With AVX2 only: Mi",
    ]


def test_a_cpu_that_ends_with_avx2_is_shown(tools: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpus = Path("/proc/cpuinfo")
    if not cpus.is_file() or " cpuid_fault" not in cpus.read_text(encoding="utf-8") or not shutil.which("cc"):
        pytest.skip("this CPU or platform can't fault at CPUID, or there is no C compiler")
    monkeypatch.setenv("LD_PRELOAD", "")
    monkeypatch.delenv("NPMOBILENET_ISA", raising=False)
    tools.bench.show_avx2_only(os.fspath(tmp_path))
    program = "from npmobilenet.kernels.compiler.cpu import isa; print(isa())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "avx2\n"


def test_the_chart_is_drawn(tools: Any) -> None:
    from xml.etree import ElementTree

    drawn = ElementTree.fromstring(tools.report.chart(document()))
    texts = [t.text for t in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert {"float", "int", "LiteRT", "OpenVINO", "10.00 ms"} <= set(texts)


def test_the_page_is_what_its_figures_say(tools: Any) -> None:
    if tools.report.JSON.is_file():
        assert tools.bench.main(["--check"]) == 0
    else:
        assert "<!-- figures -->\n<!-- /figures -->" in tools.report.PAGE.read_text(encoding="utf-8")


def test_the_bars_of_all_models_are_there(tools: Any) -> None:
    rows = tools.models.ROWS
    assert len({row.title for row in rows}) == len(rows) == 21
    assert {row.bars for row in rows if row.kind == "float"} == {(0.95, 0.97)}
    assert {row.bars for row in rows if row.kind != "float"} == {(0.8, 0.8)}
    assert all(bool(row.file) != bool(row.made) for row in rows)


def test_differences_of_outputs(tools: Any) -> None:
    import base64

    def output(values: list[float], dtype: str) -> dict[str, Any]:
        return {"dtype": dtype, "values": base64.b64encode(np.array(values, dtype).tobytes()).decode()}

    apart = tools.bench.outputs_apart
    assert apart(output([0, 200], "uint8"), output([0, 198], "uint8")) == 2
    assert apart(output([0, 4], "float32"), output([1, 4], "float32")) == 0.25
    assert apart(output([0], "float32"), output([1, 4], "float32")) is None
    assert apart({"unavailable": "x"}, output([1], "float32")) is None


def test_engines_take_turns_and_agree(data: Path, tools: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three processes, LiteRT with a batch that its file doesn't declare; and an engine that can't read the file."""
    pytest.importorskip("ai_edge_litert", reason="the comparison needs LiteRT")
    source = data / "weights" / "mobilenet_v1_0.25_128.tflite"
    row = tools.models.Row("V1", "float", file=source.name)
    file = tools.models.ensure([row], tmp_path, source.parent, sys.executable)["V1"]
    monkeypatch.setattr(tools.bench, "TURN", 0.02)
    monkeypatch.setattr(tools.bench, "PAUSE", 0.002)
    how = argparse.Namespace(threads=(1,), batches=(1, 2), pairs=3, batch_pairs=2, paused=4)
    found = tools.bench.compare(file, ["ours", "litert", "reference"], how)
    assert set(found["cases"]) == {"1 threads, batch 1", "1 threads, batch 1, after a pause", "1 threads, batch 2"}
    assert found["cases"]["1 threads, batch 2"]["by_single"]["median"] > 0
    for key, rounds in (("1 threads, batch 1", 3), ("1 threads, batch 1, after a pause", 4), ("1 threads, batch 2", 2)):
        figures = found["cases"][key]
        assert set(figures["ms"]) == {"ours", "litert", "reference"}, figures["missing"]
        assert {one["rounds"] for one in figures["ms"].values()} == {rounds}
        assert all(one["p90"] >= one["q1"] for one in figures["ms"].values())
        assert figures["ratio"]["reference"]["median"] < figures["ratio"]["litert"]["median"]
    assert max(found["apart"].values()) < 1e-4
    assert found["macs"] == build_model("mobilenet_v1_0.25_128").total_macs
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(source.read_bytes()[:100])
    missing = tools.bench.compare(broken, ["ours", "litert"], argparse.Namespace(**{**vars(how), "batches": (1,)}))
    assert set(missing["cases"]["1 threads, batch 1"]["missing"]) == {"ours", "litert"}
    assert missing["cases"]["1 threads, batch 1"]["ms"] == {}
