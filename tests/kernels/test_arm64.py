"""Dialects of arm64 beside LiteRT's own arm64 kernels on emulated CPUs (tools/litert_arm.py): layers at ties, one for
each form of layer that some kernel has for itself; and the other ops that arm64 computes otherwise than x86-64.

Setting up needs a mirror of Debian and a package index; where these can't be reached, all of it skips.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import Array, Q, arrays_q, q, run_q, single_q
from tflite_export import to_tflite

import npmobilenet as nm
from npmobilenet.arithmetic.convolution import forms
from npmobilenet.graph import Graph
from npmobilenet.modeldata import ModelData, ModelInfo

TOOLS = Path(__file__).parents[2] / "tools"
if not (TOOLS / "litert_arm.py").is_file():
    pytest.skip("this platform has no checkout: tools/ is not installed", allow_module_level=True)
sys.path.insert(0, str(TOOLS))

import litert_arm  # noqa: E402

# CPU -> dialect by resolver. The delegate's uint8 kernels are chosen by the CPU's name: A55 has dot products, A72 none.
CPUS = {
    "cortex-a53": {"optimized": "tflite-optimized-arm64", "xnnpack": "xnnpack-arm64-neon"},
    "neoverse-n1": {"optimized": "tflite-optimized-arm64", "xnnpack": "xnnpack-arm64"},
}  # fmt: skip
Arms = dict[str, litert_arm.ArmLiteRT]


@pytest.fixture(scope="module")
def arms() -> Iterator[Arms]:
    """LiteRT on each CPU."""
    try:
        with litert_arm.ArmLiteRT("cortex-a53") as small, litert_arm.ArmLiteRT("neoverse-n1") as large:
            yield {"cortex-a53": small, "neoverse-n1": large}
    except litert_arm.ArmError as error:
        pytest.skip(f"this platform has no LiteRT for arm64: {error}")


def check(arms: Arms, graph: Graph, arrays: list[Array]) -> None:
    """Both kernel sets, under each CPU's dialects, give what LiteRT gives there."""
    names = graph.nodes[0].inputs
    constants = {n: a for n, a in zip(names, arrays, strict=True) if graph.tensors[n].constant}
    file, index = to_tflite(ModelData(graph, constants, ModelInfo("case")))
    inputs = {index[n]: a for n, a in zip(names, arrays, strict=True) if not graph.tensors[n].constant}
    for cpu, dialects in CPUS.items():
        for resolver, dialect in dialects.items():
            expected = arms[cpu].run(file, inputs, resolver)[index[graph.nodes[0].output]]
            for kernels in ("reference", "fast"):
                got = run_q(graph, arrays, kernels, dialect)
                wrong = int((got.reshape(expected.shape) != expected).sum())
                assert not wrong, f"{graph.nodes[0].op}, {dialect}, {kernels}: {wrong} of {expected.size} differ"


# (op, shape of the input, of the weights, forms); `each`: a scale for each channel.
LAYERS = {
    "pixels": ("conv2d", (1, 2, 3, 8), (1, 1, 8, 300), ()),
    "one pixel": ("conv2d", (1, 1, 1, 9), (1, 1, 9, 600), ("vector",)),
    "one pixel of few inputs": ("conv2d", (1, 1, 1, 7), (1, 1, 7, 600), ()),
    "one channel": ("conv2d", (1, 9, 40, 1), (3, 3, 1, 1), ("direct",)),
    "depthwise 3x3": ("depthwise_conv2d", (1, 3, 3, 304), (3, 3, 304), ("3x3", "direct")),
    "depthwise 3x3, channels left over": ("depthwise_conv2d", (1, 3, 3, 301), (3, 3, 301), ("direct",)),
    "depthwise 5x5": ("depthwise_conv2d", (1, 5, 5, 301), (5, 5, 301), ("direct",)),
    "depthwise 7x7": ("depthwise_conv2d", (1, 7, 7, 301), (7, 7, 301), ()),
    "depthwise twice": ("depthwise_conv2d", (1, 3, 3, 150), (3, 3, 300), ()),
    "fully connected": ("fully_connected", (1, 9), (9, 600), ("vector",)),
    "fully connected, few inputs": ("fully_connected", (1, 7), (7, 600), ()),
}  # fmt: skip
KINDS = (("uint8", False), ("int8", False), ("int8", True))


def layer(name: str, dtype: str, each: bool, factor: float, rng: Any) -> tuple[Graph, list[Array]]:
    """A layer with random weights and accumulators at and beside ties of about that factor."""
    op, x, w, _ = LAYERS[name]
    s_in, s_out, channels = 0.05, 0.07, w[-1]
    scales = np.float32(factor * s_out / s_in) * (rng.uniform(0.5, 1, channels) if each else np.ones(1))
    scales = scales.astype(np.float32)
    z_w = 0 if dtype == "int8" else 127
    low = int(np.iinfo(dtype).min)
    weights = Q(tuple(scales.tolist()), (z_w,) * len(scales), len(w) - 1 if each else None)
    bias = Q(tuple((np.float32(s_in) * scales).tolist()), (0,) * len(scales), 0 if each else None)
    attrs: dict[str, Any] = {} if op == "fully_connected" else {"stride": (1, 1), "padding": ((0, 0), (0, 0))}
    if name == "depthwise twice":
        attrs["multiplier"] = 2
    graph = single_q(op, [(x, dtype, q(s_in, low + 120))], [(w, dtype, weights), ((channels,), "int32", bias)],
                     (dtype, q(s_out, low + 131)), **attrs)  # fmt: skip
    arrays = arrays_q(graph, rng)
    arrays[1][:] = rng.integers(z_w - 2, z_w + 3, w)
    arrays[2][:] = 0
    sums = run_q(graph, arrays, "reference", stage="accumulator").reshape(-1, channels)[0]
    ties = np.rint((np.rint(rng.uniform(-140, 140, channels)) + 0.5) / (factor * (scales / scales.max())))
    arrays[2][:] = ties - sums + rng.integers(-1, 2, channels)
    return graph, arrays


@pytest.mark.equal("uint8, int8 layers at ties", "reference and fast, dialects of arm64",
                   "LiteRT 2.3.0 for arm64 on two emulated CPUs, two resolvers", "bits")  # fmt: skip
@pytest.mark.parametrize("name", LAYERS)
def test_layers(name: str, arms: Arms) -> None:
    rng = np.random.default_rng(list(LAYERS).index(name))
    for dtype, each in KINDS:
        for factor in (1 / 16, 0.0123, 3.1):
            graph, arrays = layer(name, dtype, each, factor, rng)
            node = graph.nodes[0]
            found = forms(node, *(graph.tensors[n] for n in node.inputs[:2]), graph.tensors[node.output])
            late = dtype == "uint8" and factor > 1  # this kernel has no shift to the left
            assert found == tuple(f for f in LAYERS[name][3] if not (late and f == "3x3"))
            check(arms, graph, arrays)


def others() -> dict[str, Graph]:
    """Ops that arm64 computes otherwise, or might."""
    image = (1, 5, 6, 24)
    cases = {}
    for dtype in ("uint8", "int8"):
        z = int(np.iinfo(dtype).min)
        a, b, c = (dtype, q(0.05, z + 120)), (dtype, q(0.03, z + 131)), (dtype, q(0.0123, z + 99))
        cases |= {
            f"add {dtype}": single_q("add", [(image, *a), (image, *b)], [], a),
            f"mul {dtype}": single_q("mul", [(image, *a), (image, *b)], [], c),
            f"mean {dtype}": single_q("mean", [((1, 7, 5, 400), *a)], [], (dtype, q(0.0123, z + 99)), keepdims=True),
            f"pool {dtype}": single_q("average_pool", [(image, *a)], [], a, kernel=(3, 3), stride=(1, 1),
                                      padding=((0, 0), (0, 0))),
            f"dequantize {dtype}": single_q("dequantize", [((1, 301), *c)], [], ("float32", None)),
            f"quantize {dtype}": single_q("quantize", [((1, 301), "float32", None)], [], c),
            f"requantize {dtype}": single_q("quantize", [((1, 301), *a)], [], b),
            f"softmax {dtype}": single_q("softmax", [((1, 40), *a)], [], (dtype, q(1 / 256, z)), beta=1.0),
            f"resize {dtype}": single_q("resize_bilinear", [((1, 5, 8, 17), *a)], [], a, size=(13, 9),
                                        align_corners=False, half_pixel_centers=True),
        }  # fmt: skip
    return cases


@pytest.mark.equal("other 8-bit ops", "reference and fast, dialects of arm64",
                   "LiteRT 2.3.0 for arm64 on two emulated CPUs, two resolvers", "bits")  # fmt: skip
def test_other_ops(arms: Arms) -> None:
    rng = np.random.default_rng(3)
    for graph in others().values():
        check(arms, graph, arrays_q(graph, rng))


@pytest.mark.equal("the shipped 8-bit model", "fast, dialects of arm64",
                   "LiteRT 2.3.0 for arm64 on two emulated CPUs, every tensor that shows", "bits")  # fmt: skip
def test_the_shipped_model(arms: Arms, tmp_path: Path) -> None:
    path = tmp_path / "flowers.tflite"
    path.write_bytes(to_tflite(nm.load("flowers_uint8").data)[0])
    for cpu, dialects in CPUS.items():
        for resolver, dialect in dialects.items():
            model = nm.load(path, dialect=dialect)
            x = np.random.default_rng(0).integers(0, 256, model.input.shape, np.uint8)
            found = litert_arm.compare(model, x, arms[cpu].run(path, {0: x}, resolver))
            assert len(found) == (len(model.graph.nodes) if resolver == "optimized" else 1)
            assert not [row for row in found if row[2]], (cpu, dialect)


@pytest.mark.equal("quantized files", "fast, dialects of arm64",
                   "LiteRT 2.3.0 for arm64 on two emulated CPUs, two files, by cuts", "bits")  # fmt: skip
@pytest.mark.parametrize("stem", ["mlperf_tiny_vww_96_int8", "mobilenet_v1_0_25_128_quant"])
def test_inside_real_files(data: Path, stem: str, arms: Arms) -> None:
    """Every tensor of the optimized kernels; inside the delegate every fifth."""
    path = data / "weights" / f"{stem}.tflite"
    content = path.read_bytes()
    given = litert_arm.parse(content).inputs[0]
    cuts = litert_arm.cut_tflite.computed_by(litert_arm.parse(content))[::5]
    for cpu, dialects in CPUS.items():
        for resolver, dialect in dialects.items():
            model = nm.load(path, dialect=dialect)
            info = np.iinfo(model.input.dtype)
            x = np.random.default_rng(1).integers(info.min, info.max, model.input.shape, info.dtype, endpoint=True)
            theirs = arms[cpu].run(path, {given: x}, resolver)
            if resolver == "xnnpack":
                for index in cuts:
                    theirs |= arms[cpu].run(litert_arm.cut_tflite.cut(content, index), {given: x}, resolver)
            found = litert_arm.compare(model, x, theirs)
            assert len(found) >= len(cuts)
            assert not [row for row in found if row[2]], (cpu, dialect)
