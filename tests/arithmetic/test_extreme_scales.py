"""Real factors from 2^-40 to 2^64: what is accepted is the same in both kernel sets, the rest is refused in one place.

Warnings are errors here (pyproject.toml), so that none of NumPy's can reach a user.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from cases import Array, Q, arrays_q, q, run_q, single_q
from litert import Peer
from tflite_export import to_tflite

from npmobilenet.arithmetic.dialects import DIALECTS
from npmobilenet.arithmetic.ranges import LIMITS, MOST_SHIFT
from npmobilenet.cli import main
from npmobilenet.errors import NpMobilenetError, PlanError
from npmobilenet.formats import weightfile
from npmobilenet.formats.tflite.exporting import write_tflite
from npmobilenet.graph import Graph, GraphBuilder
from npmobilenet.model import load
from npmobilenet.modeldata import ModelData, ModelInfo

LITERT = ("tflite-reference", "tflite-optimized", "xnnpack")
EXPONENTS = range(-40, 65)
EDGES = (-40, -33, -32, -31, -20, -11, -10, -1, 0, 7, 8, 15, 21, 22, 27, 28, 29)
CHANNELS = 19  # a vector of 16 and a rest
VALID = {"stride": (1, 1), "padding": ((0, 0), (0, 0))}
Make = Callable[[float, float, str], Graph]  # of the scales of input and output, and the dtype


def middle(dtype: str) -> int:
    return 3 if dtype == "int8" else 131


def layer(op: str, x: tuple[int, ...], w: tuple[int, ...], each: bool = False, s_w: float = 1, **attrs: Any) -> Make:
    """A layer with weights of scale s_w; each: with a scale for each channel, falling by powers of two."""

    def make(s_in: float, s_out: float, dtype: str) -> Graph:
        scales = tuple(s_w * 2.0**-k for k in range(w[-1])) if each else (s_w,)
        zero = 0 if dtype == "int8" else 128
        weights = (w, dtype, Q(scales, (zero,) * len(scales), len(w) - 1 if each else None))
        bias = ((w[-1],), "int32", Q(tuple(s_in * s for s in scales), (0,) * len(scales), 0 if each else None))
        return single_q(op, [(x, dtype, q(s_in, middle(dtype)))], [weights, bias],
                        (dtype, q(s_out, middle(dtype))), **attrs)  # fmt: skip

    return make


def unary(op: str, x: tuple[int, ...] = (1, 2, 2, 67), end: str = "", **attrs: Any) -> Make:
    """From one scale to another. end: "same" where they must be equal, "256th" where the output's is 1/256, ..."""

    def make(s_in: float, s_out: float, dtype: str) -> Graph:
        zero = middle(dtype)
        results = {"": q(s_out, zero), "same": q(s_in, zero), "256th": q(1 / 256, LIMITS[dtype][0]),
                   "128th": q(1 / 128, LIMITS[dtype][0] + 128)}  # fmt: skip
        return single_q(op, [(x, dtype, q(s_in, zero))], [], (dtype, results[end]), **attrs)

    return make


def binary(op: str, **attrs: Any) -> Make:
    """y's scale is the output's; for a product 1."""

    def make(s_in: float, s_out: float, dtype: str) -> Graph:
        shape, zero = (1, 2, 2, 37), middle(dtype)
        operands = [(shape, dtype, q(s_in, zero)), (shape, dtype, q(1 if op == "mul" else s_out, zero))]
        return single_q(op, operands, [], (dtype, q(s_out, zero)), **attrs)

    return make


def alike(op: str) -> Make:
    """Of two operands of one scale."""

    def make(s_in: float, s_out: float, dtype: str) -> Graph:
        scale = q(s_in, middle(dtype))
        return single_q(op, [((1, 2, 2, 37), dtype, scale)] * 2, [], (dtype, scale))

    return make


def prelu(s_in: float, s_out: float, dtype: str) -> Graph:
    zero = middle(dtype)
    weights = [((1, 1, 1, 37), dtype, q(1 / 64, zero))]
    return single_q("prelu", [((1, 2, 2, 37), dtype, q(s_in, zero))], weights, (dtype, q(s_out, zero)))


def hybrid(op: str, x: tuple[int, ...], w: tuple[int, ...], **attrs: Any) -> Make:
    """A layer on floats, with int8 weights of a scale for each channel."""

    def make(s_in: float, s_out: float, dtype: str) -> Graph:
        scales = Q(tuple(s_in * 2.0**-k for k in range(w[-1])), (0,) * w[-1], len(w) - 1)
        weights = [(w, "int8", scales), ((w[-1],), "float32", None)]
        return single_q(op, [(x, "float32", None)], weights, ("float32", None), **attrs)

    return make


def concat(s_in: float, s_out: float, dtype: str) -> Graph:
    operands = [((1, 37), dtype, q(s, middle(dtype))) for s in (s_in, s_out)]
    return single_q("concat", operands, [], (dtype, q(s_out, middle(dtype))), axis=1)


def quantize(s_in: float, s_out: float, dtype: str) -> Graph:
    return single_q("quantize", [((1, 67), "float32", None)], [], (dtype, q(s_in, middle(dtype))))


def dequantize(s_in: float, s_out: float, dtype: str) -> Graph:
    return single_q("dequantize", [((1, 67), dtype, q(s_in, middle(dtype)))], [], ("float32", None))


def other(s_in: float, s_out: float, dtype: str) -> Graph:
    """To the other of the two dtypes."""
    result = "uint8" if dtype == "int8" else "int8"
    return single_q("quantize", [((1, 67), dtype, q(s_in, 5))], [], (result, q(s_out, 7)))


WINDOW = {"kernel": (2, 2), **VALID}
SIZES = {"size": (3, 5), "align_corners": False, "half_pixel_centers": False}
CASES: dict[str, Make] = {
    "conv2d": layer("conv2d", (1, 3, 3, 5), (2, 2, 5, CHANNELS), **VALID),
    "conv2d, scales by channel": layer("conv2d", (1, 3, 3, 5), (2, 2, 5, CHANNELS), True, **VALID),
    "conv2d, relu6": layer("conv2d", (1, 3, 3, 5), (2, 2, 5, CHANNELS), activation="relu6", **VALID),
    "pointwise": layer("conv2d", (1, 3, 3, 5), (1, 1, 5, CHANNELS), **VALID),
    "pointwise, scales by channel": layer("conv2d", (1, 3, 3, 5), (1, 1, 5, CHANNELS), True, **VALID),
    "depthwise": layer("depthwise_conv2d", (1, 3, 3, CHANNELS), (2, 2, CHANNELS), **VALID),
    "depthwise, scales by channel": layer("depthwise_conv2d", (1, 3, 3, CHANNELS), (2, 2, CHANNELS), True, **VALID),
    "fully connected": layer("fully_connected", (1, 33), (33, CHANNELS)),
    "fully connected, scales by channel": layer("fully_connected", (1, 33), (33, CHANNELS), True),
    "add": binary("add"),
    "sub": binary("sub"),
    "mul": binary("mul"),
    "mul, relu6": binary("mul", activation="relu6"),
    "mean": unary("mean", keepdims=False),
    "mean, dimensions kept": unary("mean", keepdims=True),
    "average_pool": unary("average_pool", end="same", **WINDOW),
    "average_pool, relu6": unary("average_pool", end="same", activation="relu6", **WINDOW),
    "concat": concat,
    "pad": unary("pad", padding=((1, 0), (0, 1))),
    "reshape": unary("reshape", shape=(1, 268)),
    "requantize": unary("quantize"),
    "requantize, other dtype": other,
    "quantize": quantize,
    "dequantize": dequantize,
    "resize_bilinear": unary("resize_bilinear", end="same", **SIZES),
    "relu": unary("activation", function="relu"),
    "relu6": unary("activation", function="relu6"),
    "relu_n1_to_1": unary("activation", function="relu_n1_to_1"),
    "hard_swish": unary("activation", function="hard_swish"),
    "sigmoid": unary("activation", end="256th", function="sigmoid"),
    "softmax": unary("softmax", (1, 7), end="256th", beta=1.0),
    "relu_0_to_1": unary("activation", function="relu_0_to_1"),
    "leaky_relu": unary("leaky_relu", alpha=0.1),
    "leaky_relu, alpha 3": unary("leaky_relu", alpha=3.0),
    "prelu": prelu,
    "conv2d, grouped": layer("conv2d", (1, 3, 3, 5), (2, 2, 5, CHANNELS), grouped=True, **VALID),
    "depthwise, grouped": layer("depthwise_conv2d", (1, 3, 3, CHANNELS), (2, 2, CHANNELS), grouped=True, **VALID),
    "unary abs": unary("unary", formula="abs"),
    "unary rsqrt": unary("unary", formula="rsqrt"),
    **{f"unary {kind}": unary("unary", formula=kind)
       for kind in ("tanh", "elu", "gelu", "gelu_tanh", "exp", "log", "sqrt")},
    "max_pool": unary("max_pool", end="same", **WINDOW),
    "pad, value": unary("pad", end="same", padding=((1, 0), (0, 1)), value=-3.5),
    "resize_nearest": unary("resize_nearest", end="same", **SIZES),
    "transpose": unary("transpose", end="same", order=(0, 3, 1, 2)),
    "slice": unary("slice", end="same", axis=3, first=2, length=9, step=2),
    "l2_normalize": unary("l2_normalize", end="128th"),
    "minimum": alike("minimum"),
    "maximum": alike("maximum"),
    "hybrid conv2d": hybrid("conv2d", (1, 3, 3, 5), (2, 2, 5, CHANNELS), **VALID),
    "hybrid depthwise": hybrid("depthwise_conv2d", (1, 3, 3, CHANNELS), (2, 2, CHANNELS), **VALID),
    "hybrid fully connected": hybrid("fully_connected", (1, 33), (33, CHANNELS)),
}  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Thousands of tiny calls, which would mostly wait for each other."""
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    yield
    numba.set_num_threads(before)


# Of one scale.
ALONE = ("quantize", "dequantize", "sigmoid", "softmax", "max_pool", "pad, value", "resize_nearest", "transpose",
         "slice", "l2_normalize", "minimum", "maximum")  # fmt: skip
TABLES = tuple(name for name in CASES if name.startswith("unary") and name not in ("unary abs", "unary rsqrt"))
NEWER = ("relu_0_to_1", "leaky_relu", "leaky_relu, alpha 3", "prelu", "conv2d, grouped", "depthwise, grouped",
         "unary abs", "unary rsqrt")  # every third factor, powers of two and others in turn  # fmt: skip
NO_UINT8 = [f"unary {kind}" for kind in ("abs", "rsqrt", "elu", "exp", "log", "sqrt")]
EACH = [*(name for name in CASES if "by channel" in name), *NO_UINT8]  # which LiteRT doesn't have in uint8
# Other files have these beside LiteRT: groups of one are none there, and int8 weights are -127 to 127.
ELSEWHERE = ("grouped", "hybrid")


def alone(name: str) -> bool:
    return name in ALONE or name.startswith("hybrid")


def graphs(name: str, dtype: str, exponents: Any = EXPONENTS) -> Iterator[tuple[int, Graph]]:
    """The real factor, s_in / s_out: powers of two, which make ties, and other factors in turn."""
    for exponent in exponents:
        factor, power = 2.0**exponent * (1.37 if exponent % 2 else 1), exponent // 2
        scales = (factor, factor) if alone(name) else (factor / 2.0**power, 2.0**-power)
        yield exponent, CASES[name](*scales, dtype)


def outcome(graph: Graph, arrays: list[Array], kernels: str, dialect: str) -> Array | str:
    """The output, or the message of the refusal."""
    try:
        return run_q(graph, arrays, kernels, dialect)
    except NpMobilenetError as error:
        return str(error)


def agreed(graph: Graph, arrays: list[Array], dialect: str) -> Array | str:
    reference, fast = (outcome(graph, arrays, kernels, dialect) for kernels in ("reference", "fast"))
    assert type(reference) is type(fast), (dialect, reference, fast)
    same = (
        reference == fast
        if isinstance(reference, str) or isinstance(fast, str)
        else reference.tobytes() == fast.tobytes()
    )
    assert same, (dialect, graph.tensors)
    return reference


@pytest.mark.equal("factors of 2^-40 to 2^64", "fast", "reference, each op and dialect", "bits")
@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("name", CASES)
def test_fast_equals_reference_for_all_that_is_accepted(name: str, dtype: str) -> None:
    rng = np.random.default_rng(1)
    step = 13 if name in TABLES else 5 if alone(name) else 3 if name in NEWER else 1
    for exponent, graph in graphs(name, dtype, EXPONENTS[::step]):
        arrays = arrays_q(graph, rng)
        for dialect in DIALECTS:
            found = agreed(graph, arrays, dialect)
            if exponent >= DIALECTS[dialect].most_shift and not name.startswith(FREE):
                assert isinstance(found, str), (exponent, dialect)


# Nothing is rescaled here: by one scale, or none.
FREE = ("average_pool", "reshape", "resize_bilinear", "pad", *ALONE, *TABLES, "unary rsqrt", "hybrid")
EXTREMES = (1e-45, 2.0**-126, 1e-30, 1e-10, 1.0, 1e10, 1e30, float(np.finfo(np.float32).max))
MORE: dict[str, Make] = {
    f"{name}, weights {s_w:.0e}": make
    for s_w in (1e-45, 1e-30, 1e38)
    for name, make in (
        ("conv2d", layer("conv2d", (1, 3, 3, 5), (2, 2, 5, CHANNELS), s_w=s_w, **VALID)),
        ("conv2d by channel", layer("conv2d", (1, 3, 3, 5), (2, 2, 5, CHANNELS), True, s_w, **VALID)),
        ("fully connected, relu", layer("fully_connected", (1, 33), (33, CHANNELS), s_w=s_w, activation="relu")),
    )
}


@pytest.mark.parametrize("name", [*CASES, *MORE])
def test_extreme_scales_give_equal_results_or_one_sentence(name: str) -> None:
    """No NumPy warning and no other error, whatever float32 scales a file declares."""
    rng = np.random.default_rng(3)
    for s_in in EXTREMES:
        for s_out in (1.0,) if name.startswith(FREE) and not name.startswith("unary") else EXTREMES:
            for dtype in LIMITS:
                graph = (CASES | MORE)[name](s_in, s_out, dtype)
                arrays = arrays_q(graph, rng)
                for dialect in ("tflite-reference", "xnnpack", "cmsis-nn") if name in TABLES else DIALECTS:
                    found = agreed(graph, arrays, dialect)
                    if isinstance(found, str):
                        assert "\n" not in found
                        assert re.search(r"(node|tensor) '", found), found


def litert_output(graph: Graph, arrays: list[Array], dialect: str) -> Array:
    names = graph.nodes[0].inputs
    constants = {n: a for n, a in zip(names, arrays, strict=True) if graph.tensors[n].constant}
    computed = [a for n, a in zip(names, arrays, strict=True) if not graph.tensors[n].constant]
    peer = Peer(write_tflite(ModelData(graph, constants, ModelInfo("case"))), dialect)
    return peer.run(*computed)[peer.interpreter.get_output_details()[0]["index"]]


@pytest.mark.equal("factors of 2^-40 to 2^29", "reference", "LiteRT 2.3.0, one-op models, each resolver", "bits")
@pytest.mark.parametrize("dialect", LITERT)
@pytest.mark.parametrize("name", [name for name in CASES if not any(kind in name for kind in ELSEWHERE)])
def test_equals_litert_for_what_is_accepted(name: str, dialect: str) -> None:
    """Apart from what LiteRT refuses: a pad between scales (XNNPACK), scales by channel for uint8, and the like."""
    if (name, dialect) in (("pad", "xnnpack"), ("unary elu", "tflite-reference")):
        return
    # Values of more than 2^31 steps are converted to int32, which C leaves open: none such.
    exponents = [e for e in EDGES if e >= -20 or name != "quantize"]
    rng = np.random.default_rng(2)
    for dtype in ("int8",) if name in EACH else LIMITS:
        for exponent, graph in graphs(name, dtype, exponents):
            arrays = arrays_q(graph, rng)
            if name in ("unary log", "unary sqrt", "unary rsqrt"):
                arrays = [np.maximum(arrays[0], np.int8(middle(dtype) + 1))]
            ours = outcome(graph, arrays, "reference", dialect)
            if not isinstance(ours, str):
                expected = litert_output(graph, arrays, dialect).reshape(ours.shape)
                assert expected.tobytes() == ours.tobytes(), (exponent, dtype, graph.tensors)


# -- what is refused, and how ------------------------------------------------------------------------------------------

REFUSED: list[tuple[str, Graph, str, str]] = [
    ("layer", CASES["conv2d"](2.0**20, 2.0**-10, "int8"), "tflite-reference",
     r"node 'y' \(conv2d\): the scales 'x0' 1.05e\+06, 'w0' 1, 'y' 0.000977 give the factor 1.07e\+09, expected one "
     r"below 2\^30: quantize the tensor 'y' anew"),
    ("channel", CASES["conv2d, scales by channel"](2.0**20, 2.0**-10, "int8"), "cmsis-nn", "channel 0: the scales"),
    ("overflow", MORE["conv2d, weights 1e+38"](1e10, 1e30, "uint8"), "tflite-reference", "factor inf"),
    ("xnnpack", CASES["conv2d"](2.0**8, 1, "int8"), "xnnpack", "XNNPACK refuses 256"),
    ("fused bound", CASES["conv2d, relu6"](1e-20, 1e-10, "int8"), "tflite-reference",
     r"its bound 6 is 6e\+10 steps of the scale 1e-10 of 'y', more than int32 holds"),
    ("bound", CASES["relu6"](2.0**-10, 6.7e-12, "uint8"), "tflite-reference", "its bound 6 is 8.96e"),
    ("lower bound", CASES["relu_n1_to_1"](1e-12, 1e-12, "uint8"), "tflite-reference", "its bound -1 is -1e"),
    ("subnormal", CASES["relu"](1e-40, 1, "int8"), "tflite-reference", "its scale is .*at least 2\\^-126"),
    ("bias of a mean", CASES["mean, dimensions kept"](2.0**22, 1, "int8"), "tflite-optimized", "below 2\\^22"),
    ("products of a mean", CASES["mean, dimensions kept"](3e38, 3e38, "int8"), "tflite-optimized", "factor inf"),
]  # fmt: skip


@pytest.mark.parametrize(("graph", "dialect", "message"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_refusals_name_node_channel_and_scales(graph: Graph, dialect: str, message: str) -> None:
    for kernels in ("python", "reference", "fast"):
        with pytest.raises(PlanError, match=message):
            run_q(graph, arrays_q(graph, np.random.default_rng(0)), kernels, dialect)


@pytest.mark.parametrize(
    ("op", "attrs"), [("mean", {"keepdims": False}), ("average_pool", {"kernel": (4096, 4096), **VALID})]
)
def test_sums_that_int32_might_not_hold_are_refused(op: str, attrs: dict[str, Any]) -> None:
    """Of 2^31 / 255 pixels: the fast kernels, and every runtime, add in int32."""
    graph = unary(op, (1, 4096, 4096, 1), "same", **attrs)(1, 1, "uint8")
    with pytest.raises(PlanError, match="sums 16,777,216 pixels, expected at most 8,421,504"):
        run_q(graph, [np.zeros((1, 4096, 4096, 1), np.uint8)], "reference")


def test_squares_that_int32_might_not_hold_are_refused() -> None:
    with pytest.raises(PlanError, match="adds 33,026 squares, expected at most 33,025"):
        run_q(unary("l2_normalize", (1, 33_026), "128th")(1, 1, "int8"), [np.zeros((1, 33_026), np.int8)], "reference")


def test_a_factor_below_zero_is_told_of() -> None:
    with pytest.raises(PlanError, match=r"\(leaky_relu\): alpha -0.1, expected 0 or more"):
        run_q(unary("leaky_relu", alpha=-0.1)(1, 1, "int8"), [np.zeros((1, 2, 2, 67), np.int8)], "reference")


HOSTILE = ("fast_ref_diff_300228", "litert_diff_200045", "relu6_shift", "conv_scale", "hswish_scale", "relu6_scale")


@pytest.mark.parametrize("kernels", ["fast", "reference", "python"])
@pytest.mark.parametrize("name", HOSTILE)
def test_files_with_extreme_scales(data: Path, name: str, kernels: str) -> None:
    for dialect in (d.name for d in DIALECTS.values() if d.most_shift == MOST_SHIFT):  # others saturate
        with pytest.raises(PlanError, match="scale"):
            load(data / "hostile" / f"{name}.tflite", kernels, dialect)


# -- whole models, on the command line ---------------------------------------------------------------------------------


def whole(s_in: float, s_w: float, s_conv: float, s_relu: float, s_mean: float) -> ModelData:
    """conv2d, relu, mean, dequantize; the first five scales of a file."""
    rng, builder = np.random.default_rng(0), GraphBuilder("whole")
    x = builder.input("x", (1, 4, 4, 3), "int8", quantization=q(s_in, 3))
    w = builder.constant("w", (1, 1, 3, 5), "int8", quantization=q(s_w, 0))
    b = builder.constant("b", (5,), "int32")
    conv = builder.node("conv2d", [x, w, b], "conv", dtype="int8", quantization=q(s_conv, 5), **VALID)
    relu = builder.node("activation", [conv], "relu", dtype="int8", quantization=q(s_relu, 5), function="relu")
    builder.node("mean", [relu], "mean", dtype="int8", quantization=q(s_mean, 5), keepdims=True)
    graph = builder.finish([builder.node("dequantize", ["mean"], "y")])
    arrays = {"w": rng.integers(-128, 128, (1, 1, 3, 5), np.int8), "b": rng.integers(-99, 99, 5, np.int32)}
    return ModelData(graph, arrays, ModelInfo("whole"))


WHOLE = ((1e3, 1e2, 1e-2, 1e-2, 1e-1), (1, 1, 1e5, 1e38, 3e38), (1e-37, 1e-37, 1e-37, 1, 1), (1e20, 1e19, *[1e38] * 3))
REFUSED_WHOLE = ((1e30, 1e30, 1, 1, 1), (1, 1, 1e-30, 1, 1), (1, 1, 1, 1e-40, 1), (1, 1, 1, 1e38, 1e-38))


@pytest.fixture(params=[".tflite", ".h5"])
def written(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[tuple[float, ...]], str]:
    """Writes a model of such scales as a file of either format."""

    def write(scales: tuple[float, ...]) -> str:
        model, path = whole(*scales), tmp_path / f"whole{request.param}"
        if request.param == ".h5":
            weightfile.write(path, model)
        else:
            path.write_bytes(to_tflite(model)[0])
        return str(path)

    return write


@pytest.mark.parametrize("scales", WHOLE)
def test_golden_tools_on_extreme_scales(
    scales: tuple[float, ...], written: Callable[[Any], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Recording, explaining each kind of node and identifying: no warning, nothing on standard error."""
    file, dump = written(scales), str(tmp_path / "dump")
    assert main(["golden", "record", file, "random:1", "-o", dump]) == 0
    for tensor, index in (("conv", "0,1,1,2"), ("acc:conv", "0,0,0,1"), ("relu", "0,0,0,2"), ("mean", "0,0,0,2"),
                          ("y", "0,0,0,1")):  # fmt: skip
        assert main(["golden", "explain", file, dump, "--tensor", tensor, "--index", index]) == 0
    assert main(["golden", "explain", file, dump, "--tensor", "conv", "--index", "0,0,0,0", "--got", "77"]) == 1
    assert main(["golden", "identify", file, dump]) in (0, 1)  # several may give the same
    assert capsys.readouterr().err == ""
    results = [load(file, kernels).run(np.full((1, 4, 4, 3), 100, np.int8)) for kernels in ("fast", "python")]
    assert results[0].tobytes() == results[1].tobytes()


@pytest.mark.parametrize("scales", REFUSED_WHOLE)
def test_extreme_scales_are_one_line_on_the_command_line(
    scales: tuple[float, ...], written: Callable[[Any], str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["golden", "record", written(scales), "random:1", "-o", "never"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"error: (node|tensor) '[^\n]* scale[^\n]* quantize the tensor [^\n]*anew\n", err)


@pytest.mark.parametrize(("beta", "message"), [(-1.0, "expected a float32 of at least 0"), (10**400, "float32 holds"),
                                               (1e39, "float32 holds"), (3e38, "is inf")])  # fmt: skip
def test_betas_of_softmax(beta: float, message: str) -> None:
    ends = [((1, 5), "int8", q(30, 0))], [], ("int8", q(1 / 256, -128))
    with pytest.raises(NpMobilenetError, match=message):
        run_q(single_q("softmax", *ends, beta=beta), [np.zeros((1, 5), np.int8)], "python", "tflite-optimized")


def test_scales_that_float32_does_not_hold_are_refused_in_weight_files(tmp_path: Path) -> None:
    model, wide = whole(1, 1, 1, 1, 1), Q((1e300,), (0,))
    tensors = {n: replace(t, quantization=wide) if n == "conv" else t for n, t in model.graph.tensors.items()}
    changed = replace(model, graph=replace(model.graph, tensors=tensors))
    with pytest.raises(NpMobilenetError, match="finite float32 scales above 0"):
        weightfile.write(tmp_path / "m.h5", changed)
