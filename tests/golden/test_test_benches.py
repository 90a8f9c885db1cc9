"""Exports that suffice: params.h and the files alone, compiled, give the layer's vector."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from cases import arrays_q, q, single_q
from click.testing import CliRunner
from test_golden_tools_integer import small

from npmobilenet import golden
from npmobilenet.cli.app import app
from npmobilenet.errors import InputError
from npmobilenet.formats import weightfile
from npmobilenet.golden.exporting import symbol
from npmobilenet.graph import Graph, Quantization
from npmobilenet.model import Model
from npmobilenet.modeldata import ModelData, ModelInfo, shared_prefix

FLAGS = ["-std=c99", "-O1", "-Wall", "-Wextra"]


def in_c(folder: Path) -> str:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("this platform has no C compiler")
    subprocess.run([compiler, *FLAGS, "-Werror", "-o", "bench", "bench.c", "-lm"], cwd=folder, check=True)
    return subprocess.run([folder / "bench"], capture_output=True, text=True, check=False).stdout.strip()


def in_verilog(folder: Path) -> str:
    compiler, runner = os.environ.get("IVERILOG") or shutil.which("iverilog"), os.environ.get("VVP") or "vvp"
    if compiler is None:
        pytest.skip("this platform has no Icarus Verilog (Debian: iverilog)")
    subprocess.run([*compiler.split(), "-g2005", "-Wall", "-o", "bench.vvp", "bench.v"], cwd=folder, check=True)
    done = subprocess.run([*runner.split(), "bench.vvp"], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


CASES = [
    ("int8", "conv", "tflite-reference", "hwio"), ("uint8", "conv", "tflite-optimized", "ohwi"),
    ("int8", "dw", "tflite-single-rounding", "hwio"), ("uint8", "dw", "tflite-reference", "ohwi"),
    ("int8", "dw", "tflite-optimized", "ohwi"), ("int8", "fc", "cmsis-nn", "ohwi"),
    ("uint8", "conv", "xnnpack-arm64-neon", "hwio"), ("int8", "sum", "tflite-reference", "hwio"),
    ("uint8", "sum", "cmsis-nn-single-rounding", "hwio"), ("int8", "sum", "xnnpack", "hwio"),
    ("uint8", "pool", "tflite-reference", "hwio"), ("int8", "pool", "xnnpack", "hwio"),
]  # fmt: skip


@pytest.mark.parametrize(("dtype", "layer", "dialect", "order"), [*CASES, ("int8", "fc", "tflite-reference", "hwio"),
                                                                 ("int8", "conv", "xnnpack", "ohwi")])  # fmt: skip
def test_c(dtype: str, layer: str, dialect: str, order: str, tmp_path: Path) -> None:
    model = Model(small(dtype), dialect=dialect)
    golden.export(model, tmp_path / "e", "random:1", "c", dialect=dialect, order=order, taps=["acc:conv"], bench=layer)
    size = model.graph.tensors[layer].size
    assert in_c(tmp_path / "e") == f"{size} values, 0 differ"


@pytest.mark.parametrize(("dtype", "layer", "dialect", "order"), CASES)
def test_verilog(dtype: str, layer: str, dialect: str, order: str, tmp_path: Path) -> None:
    model = Model(small(dtype), dialect=dialect)
    golden.export(model, tmp_path / "e", "random:1", "hex", dialect=dialect, order=order, bench=layer)
    size = model.graph.tensors[layer].size
    assert in_verilog(tmp_path / "e") == f"{size} values, 0 differ"


def alone(graph: Graph) -> ModelData:
    """A node with random constants."""
    arrays = arrays_q(graph, np.random.default_rng(1))
    named = zip(graph.nodes[0].inputs, arrays, strict=True)
    return ModelData(graph, {n: a for n, a in named if graph.tensors[n].constant}, ModelInfo("alone"))


GATE = ((1, 5, 6, 8), "int8", q(0.05, 7)), ((1, 1, 1, 8), "int8", q(0.03, -4))
ALONE = {
    "gate": single_q("mul", list(GATE), [], ("int8", q(0.021, 3))),
    "gated": single_q("mul", list(GATE), [], ("int8", q(0.021, 3)), activation="relu6"),
    "difference": single_q("sub", list(GATE), [], ("int8", q(0.07, 3))),
    "window": single_q("average_pool", [((1, 5, 6, 8), "int8", q(0.05, 7))], [], ("int8", q(0.05, 7)), kernel=(3, 2),
                       stride=(2, 1), padding=((1, 1), (1, 0))),
    "left": single_q("depthwise_conv2d", [((1, 5, 6, 8), "int8", q(0.05, 7))],
                     [((3, 3, 8), "int8", Quantization((5.3,), (0,))), ((8,), "int32", Quantization((0.265,), (0,)))],
                     ("int8", q(0.07, 3)), stride=(1, 1), padding=((1, 1), (1, 1))),
}  # fmt: skip
CASES_ALONE = [("gate", "tflite-reference"), ("gated", "xnnpack-arm64"), ("gate", "cmsis-nn-single-rounding"),
               ("difference", "tflite-reference"), ("window", "tflite-reference"),
               ("left", "tflite-optimized-arm64")]  # fmt: skip


@pytest.mark.parametrize(("case", "dialect"), CASES_ALONE)
def test_nodes_alone(case: str, dialect: str, tmp_path: Path) -> None:
    """Products with one gate for all pixels, a difference, windows over the edge; 3x3 with a shift to the left."""
    data = alone(ALONE[case])
    name = data.graph.nodes[0].output
    for kind, computed in (("c", in_c), ("hex", in_verilog)):
        model = Model(data, dialect=dialect)
        manifest = golden.export(model, tmp_path / kind, "random:1", kind, dialect=dialect, bench=name)
        assert case != "left" or manifest["nodes"][0]["parameters"]["rule"] == "upward_late"
        assert computed(tmp_path / kind) == f"{data.graph.tensors[name].size} values, 0 differ"


def test_a_wrong_sum_shows(tmp_path: Path) -> None:
    manifest = golden.export(Model(small("int8")), tmp_path / "e", "random:1", "c", bench="sum")
    file = tmp_path / "e" / "params.h"
    symbol = manifest["nodes"][2]["symbol"].upper()
    text = re.sub(rf"(#define {symbol}_ZERO_X) .*", r"\1 40", file.read_text(encoding="ascii"))
    file.write_text(text, encoding="ascii")
    assert re.fullmatch(r"500 values, [1-9]\d* differ", in_c(tmp_path / "e"))


def test_a_wrong_weight_shows(tmp_path: Path) -> None:
    data = small("int8")
    manifest = golden.export(Model(data), tmp_path / "e", "random:1", "c", bench="dw")
    file = tmp_path / "e" / manifest["nodes"][1]["files"]["weights"]["file"]
    text = file.read_text(encoding="ascii")
    first = re.search(r"\{\s*(-?\d+)", text)
    assert first is not None
    file.write_text(text[: first.start(1)] + str(int(first[1]) ^ 64) + text[first.end(1) :], encoding="ascii")
    assert re.fullmatch(r"500 values, [1-9]\d* differ", in_c(tmp_path / "e"))


def test_params_h_says_everything(tmp_path: Path) -> None:
    """Stride, padding, shapes, rules by name; softmax's table and factor; add's left shift; axes of arrays."""
    manifest = golden.export(Model(small("int8")), tmp_path / "e", "random:1", "c")
    text = (tmp_path / "e" / "params.h").read_text(encoding="ascii")
    macros = dict(re.findall(r"^#define (\w+) (.+)$", text, re.MULTILINE))
    wanted = {
        "N000_CONV_STRIDE_H": "2", "N000_CONV_PAD_TOP": "1", "N000_CONV_KERNEL_W": "3", "N000_CONV_INPUT_C": "3",
        "N000_CONV_OUTPUT_H": "5", "N000_CONV_DILATION_H": "1", "N000_CONV_RULE": "RULE_DOUBLE",
        "N001_DW_DEPTH_MULTIPLIER": "1", "N002_SUM_LEFT_SHIFT": "20", "N002_SUM_INPUT1_C": "20",
        "N004_POOL_KERNEL_H": "5",
    }  # fmt: skip
    assert {name: macros.get(name) for name in wanted} == wanted
    softmax = manifest["nodes"][-1]
    table = softmax["files"]["exponentials"]
    assert (table["dtype"], table["shape"]) == ("int32", [256])
    # The factor brings scale * beta to 26 fractional bits.
    p = softmax["parameters"]
    assert np.isclose(p["multiplier"] * 2.0 ** (p["shift"] - 31), 0.09 * 2**26, rtol=1e-6)
    header = (tmp_path / "e" / manifest["nodes"][1]["files"]["weights"]["file"]).read_text(encoding="ascii")
    assert header.startswith("/* int8 3x3x20 (ky, kx, co), row-major */")
    vector = next(v for v in manifest["vectors"] if v["name"] == "dw")
    assert "(N, H, W, C)" in (tmp_path / "e" / vector["file"]).read_text(encoding="ascii")


def test_names_stay_telling() -> None:
    """What all have in common goes, and of what is too long the middle."""
    names = [f"MobilenetV1/MobilenetV1/{part}" for part in ("Conv2d_0/Relu6", "Conv2d_1_depthwise/Relu6")]
    assert shared_prefix(names) == "MobilenetV1/MobilenetV1/"
    assert (shared_prefix(["a/b"]), shared_prefix(["ab/c", "ad/c"]), shared_prefix(["a/b", "a/b/c"])) == ("", "", "a/")
    long = "block_13_expand_relu/" + "x" * 80 + "/project_BN/FusedBatchNormV3"
    assert symbol("n001", long).startswith("n001_block_13_expand_relu_")
    assert symbol("n001", long).endswith("_project_BN_FusedBatchNormV3")
    joined = ";".join(f"mobilenetv2_1_00_224/block_{i}_expand_BN/FusedBatchNormV3" for i in (4, 5, 6))
    assert symbol("n001", joined) == "n001_mobilenetv2_1_00_224_block_4_expand_BN_FusedBatchNormV3"


def test_what_has_no_bench(tmp_path: Path) -> None:
    model = Model(small("int8"))

    def refused(message: str, **options: object) -> None:
        with pytest.raises(InputError, match=message):
            golden.export(model, tmp_path / "e", **{"x": "random:1", "bench": "dw", **options})  # type: ignore[arg-type]
        assert not (tmp_path / "e").exists()

    refused("'swish' is activation of int8", bench="swish")
    refused("'sum' .add. has the rule 'fused'", bench="sum", dialect="tflite-optimized")
    refused("'input' is an input", bench="input")
    refused("format c or hex", format="npy")
    refused("needs an INPUT", x=None)
    refused("rule 'float64'.*--format c", bench="fc")
    refused("did you mean", bench="dv")
    weightfile.write(tmp_path / "m.h5", small("int8"))
    command = ["golden", "export", str(tmp_path / "m.h5"), "random:1", "-o", str(tmp_path / "v"), "--bench", "conv"]
    assert CliRunner().invoke(app, command).exit_code == 0
    assert (tmp_path / "v" / "bench.v").is_file()
