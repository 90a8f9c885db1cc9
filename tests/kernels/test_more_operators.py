"""Functions of one value, minima and maxima, divisions, normalized rows, parts, blocks, reductions, transposed
convolutions: .tflite files of one operator, equal to LiteRT by dialect, in 8 bits by bits, in floats within 1e-6.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import npmobilenet as nm
from npmobilenet.errors import NpMobilenetError

pytest.importorskip("tflite", reason="the extra [convert] is not installed")
from litert import Peer, differing, random_inputs
from test_selection import PEERS, Maker, constant, inputs, ints, one, tensor
from tflite_maker import File, Op, T

X, SQUARE = (1, 4, 6, 12), (1, 6, 6, 8)
CLOSE = 1e-6
STRIDED = ("StridedSliceOptions", {"BeginMask": 1, "EndMask": 9})
BOTH, ALL = ("float32", "int8"), ("float32", "uint8", "int8")


def pairs(*values: int) -> T:
    return T(data=np.array(values, np.int32).reshape(-1, 2))


def function(op: str, out: float = 0.02, zero: int = 5, first: int = 5, options: Any = None) -> Maker:
    def make(rng: Any, dtype: str) -> File:
        return File(
            [tensor(X, dtype, 0.05, first), tensor(X, dtype, out, zero)],
            [Op(op, [0], [1], options, 1 if op in ("ELU", "SQUARE", "NEG") else 2)],
        )

    return make


def pair(op: str, shape: tuple[int, ...], weights: bool = False, options: Any = None) -> Maker:
    """An operand of the shape, computed or constant, behind one of X."""

    def make(rng: Any, dtype: str) -> File:
        other = tensor(shape, dtype)
        if weights:
            other = constant(rng.uniform(0.5, 2, shape), dtype, 0.05, 5 + 100 - 128 * (dtype == "int8"))
        return File([tensor(X, dtype), other, tensor(X, dtype)], [Op(op, [0, 1], [2], options, 2)],
                    inputs=[0] if weights else [0, 1])  # fmt: skip

    return make


def turned(kernel: tuple[int, int], step: int, padding: int, size: tuple[int, int], bias: bool = False) -> Maker:
    def make(rng: Any, dtype: str) -> File:
        weights = constant(rng.uniform(-1, 1, (5, *kernel, 12)), dtype, 0.01, 117 * (dtype == "uint8"))
        if dtype == "int8":
            weights.scale, weights.zero_point = rng.uniform(0.005, 0.02, 5).astype(np.float32), (0,) * 5
        scale = [np.float32(0.05) * np.float32(s) for s in weights.scale]
        add = T(data=rng.uniform(-1, 1, 5).astype(np.float32))
        if dtype != "float32":
            add = T(data=rng.integers(-2000, 2000, 5, np.int32), scale=scale, zero_point=(0,) * len(scale))
        options = ("TransposeConvOptions", {"Padding": padding, "StrideH": step, "StrideW": step})
        tensors = [ints(1, *size, 5), weights, tensor(X, dtype), add, tensor((1, *size, 5), dtype, 0.1)]
        return File(tensors, [Op("TRANSPOSE_CONV", [0, 1, 2, 3] if bias else [0, 1, 2], [4], options, 3)], inputs=[2])

    return make


def product(a: tuple[int, ...], b: tuple[int, ...], x: bool = False, y: bool = False, constant: bool = False) -> Maker:
    def make(rng: Any, dtype: str) -> File:
        rows, columns = a[-1 if x else -2], b[-2 if y else -1]
        other = T(data=rng.uniform(-1, 1, b).astype(np.float32)) if constant else T(b)
        options = ("BatchMatMulOptions", {"AdjX": x, "AdjY": y})
        return File([T(a), other, T((*a[:-2], rows, columns))], [Op("BATCH_MATMUL", [0, 1], [2], options, 4)],
                    inputs=[0] if constant else [0, 1])  # fmt: skip

    return make


def reduced(op: str, axes: tuple[int, ...], shape: tuple[int, ...], keep: bool = False, **out: float) -> Maker:
    return one(op, [X, shape], ("ReducerOptions", {"KeepDims": keep}), ints(*axes), **out)


CASES: dict[str, tuple[Maker, tuple[str, ...]]] = {
    "tanh": (function("TANH", 1 / 128), ALL),
    "gelu": (function("GELU", options=("GeluOptions", {"Approximate": False})), ALL),
    "gelu by tanh": (function("GELU", options=("GeluOptions", {"Approximate": True})), ALL),
    "exp": (function("EXP", 0.3), BOTH),
    "abs": (function("ABS", 0.05), BOTH),
    "abs rescaled": (function("ABS", 0.031), BOTH),
    "log": (function("LOG", 0.04, 5, -100), ("int8",)),
    "sqrt": (function("SQRT", 0.015, -100, -100), ("int8",)),
    "rsqrt": (function("RSQRT", 0.02, -100, -100), ("int8",)),
    "elu": (function("ELU"), BOTH),
    "square": (function("SQUARE"), ("float32",)),
    "negative": (function("NEG"), ("float32",)),
    "l2": (one("L2_NORMALIZATION", [X, X], ("L2NormOptions", {}), scale=1 / 128, zero=28), ALL),
    "minimum": (pair("MINIMUM", X), ALL),
    "maximum of channels": (pair("MAXIMUM", (1, 1, 1, 12), True), ALL),
    "minimum of one": (pair("MINIMUM", (1,), True), ALL),
    "division": (pair("DIV", (1, 1, 1, 12), True, ("DivOptions", {"FusedActivationFunction": 3})), ("float32",)),
    "squared difference": (pair("SQUARED_DIFFERENCE", X), ("float32",)),
    "strided slice": (one("STRIDED_SLICE", [X, (1, 2, 3, 12)], STRIDED, ints(0, 1, 1, 0), ints(0, 3, 6, 0),
                          ints(1, 1, 2, 1)), ALL),
    "shrinking slice": (one("STRIDED_SLICE", [X, (1, 4, 12)], ("StridedSliceOptions", {"BeginMask": 11, "EndMask": 11,
                            "ShrinkAxisMask": 4}), ints(0, 0, -2, 0), ints(0, 0, -1, 0), ints(1, 1, 1, 1)), ALL),
    "slice backwards": (one("STRIDED_SLICE", [X, (1, 2, 3, 12)], ("StridedSliceOptions", {"BeginMask": 9,
                            "EndMask": 9}), ints(0, 1, 4, 0), ints(0, 3, -9, 0), ints(1, 1, -2, -1)), BOTH),
    "log softmax": (one("LOG_SOFTMAX", [X, X], version=1), ("float32",)),
    "log softmax of rows": (one("LOG_SOFTMAX", [(1, 7), (1, 7)], version=1), ("float32",)),
    "slice": (one("SLICE", [X, (1, 2, 6, 5)], ("SliceOptions", {}), ints(0, 1, 0, 7), ints(1, 2, -1, 5)), BOTH),
    "gather": (one("GATHER", [X, (1, 4, 6, 4)], ("GatherOptions", {"Axis": 3}), ints(7, 1, 3, 5)), BOTH),
    "gather of one": (one("GATHER", [X, (1, 4, 12)], ("GatherOptions", {"Axis": 2}), T(data=np.int32(3), shape=())),
                      BOTH),
    "unpack": (one("UNPACK", [X, *[(1, 6, 12)] * 4], ("UnpackOptions", {"Num": 4, "Axis": 1})), BOTH),
    "depth to space": (one("DEPTH_TO_SPACE", [X, (1, 8, 12, 3)], ("DepthToSpaceOptions", {"BlockSize": 2}), version=1),
                       BOTH),
    "space to depth": (one("SPACE_TO_DEPTH", [X, (1, 2, 3, 48)], ("SpaceToDepthOptions", {"BlockSize": 2})), BOTH),
    "mirror pad": (one("MIRROR_PAD", [X, (1, 7, 9, 12)], ("MirrorPadOptions", {"Mode": 0}),
                       pairs(0, 0, 1, 2, 3, 0, 0, 0)), BOTH),
    "mirror pad with its edge": (one("MIRROR_PAD", [X, (1, 8, 6, 12)], ("MirrorPadOptions", {"Mode": 1}),
                                     pairs(0, 0, 4, 0, 0, 0, 0, 0)), BOTH),
    "reverse": (one("REVERSE_V2", [X, X], ("ReverseV2Options", {}), ints(2), version=1), ("float32",)),
    "tile": (one("TILE", [X, (1, 8, 6, 36)], ("TileOptions", {}), ints(1, 2, 1, 3), version=1), ("float32",)),
    "shuffled channels": (one("TRANSPOSE", [(1, 4, 6, 2, 6), (1, 4, 6, 6, 2)], ("TransposeOptions", {}),
                              ints(0, 1, 2, 4, 3), version=1), BOTH),
    "mean of channels": (reduced("MEAN", (3,), (1, 4, 6, 1), True), BOTH),
    "mean of rows": (reduced("MEAN", (1,), (1, 6, 12), scale=0.04), BOTH),
    "mean of all": (reduced("MEAN", (1, 2, 3), (1,)), BOTH),
    "sum": (reduced("SUM", (1, -1), (1, 6)), ("float32",)),
    "greatest channel": (reduced("REDUCE_MAX", (3,), (1, 4, 6)), BOTH),
    "least": (reduced("REDUCE_MIN", (1, 2), (1, 12)), ALL),
    "least of three": (one("REDUCE_MIN", [(1, 3, 5), (1, 5)], ("ReducerOptions", {"KeepDims": False}), ints(1)), BOTH),
    "product of matrices": (product((1, 3, 5, 4), (1, 3, 4, 6)), ("float32",)),
    "product of turned matrices": (product((1, 4, 5), (1, 6, 4), x=True, y=True), ("float32",)),
    "product of rows and a matrix": (product((1, 5, 4), (4, 6), constant=True), ("float32",)),
    "repeated axes": (one("BROADCAST_TO", [(1, 4, 1, 3), (1, 4, 5, 3)], None, ints(1, 4, 5, 3)), BOTH),
    "repeated new axes": (one("BROADCAST_TO", [(1, 3), (1, 2, 3)], None, ints(1, 2, 3)), BOTH),
    "transposed": (turned((3, 3), 2, 0, (8, 12)), BOTH),
    "transposed, valid": (turned((2, 3), 2, 1, (8, 13)), BOTH),
    "transposed, with a bias": (turned((4, 4), 2, 0, (8, 12), True), BOTH),
    "transposed by 1": (turned((3, 3), 1, 0, (4, 6), True), BOTH),
}  # fmt: skip
WITHOUT = {"elu": ("tflite-reference",)}  # no reference kernel


@pytest.mark.equal("functions of one value, minima, parts, reductions, transposed convolutions", "fast and reference",
                   "LiteRT 2.3.0, one-op models, each resolver; floats 1e-6", "bits")  # fmt: skip
@pytest.mark.parametrize("name", CASES)
def test_equals_litert(tmp_path: Path, name: str) -> None:
    make, dtypes = CASES[name]
    for dtype in dtypes:
        path = tmp_path / "made.tflite"
        path.write_bytes(make(np.random.default_rng(0), dtype).bytes())
        for peer in (p for p in PEERS if p not in WITHOUT.get(name, ())):
            lite = Peer(path, peer)
            xs = [inputs(lite, 1), *random_inputs(lite.inputs, 2)[1:]]
            xs = [x.reshape(d["shape"]) for x, d in zip(xs, lite.inputs, strict=True)]
            expected = lite.run(*xs)
            for kernels in ("fast", "reference"):
                model = nm.load(path, kernels, peer)
                given: Any = dict(zip(model.graph.inputs, xs, strict=True))
                _, got = model.run(given, taps=[f"#{i}" for i in expected], check_range=False)
                for index, theirs in expected.items():
                    ours = got[f"#{index}"].reshape(theirs.shape)
                    assert ours.dtype == theirs.dtype
                    if dtype == "float32":
                        gap = np.abs(ours - theirs).max() / max(1.0, np.abs(theirs).max())
                        assert gap <= CLOSE * (10 if "transposed" in name else 1), (peer, gap)
                    else:
                        assert not differing({f"#{index}": ours}, {index: theirs}), (dtype, peer, kernels)


def test_floats_of_every_size() -> None:
    """Beside float64's own functions: within 3 units in the last place, small values and large ones, no warning."""
    from math import erf

    from npmobilenet.kernels.reference import unary as u
    from npmobilenet.ops import UNARY

    values = np.concatenate([s * 10.0 ** np.arange(-30, 3, 0.37) for s in (1, -1)]).astype(np.float32)
    exact = {
        "tanh": np.tanh, "elu": lambda v: v if v > 0 else np.expm1(v), "exp": np.exp, "log": np.log, "sqrt": np.sqrt,
        "gelu": lambda v: v / 2 * (1 + erf(v / 2**0.5)), "softplus": lambda v: np.logaddexp(0, v),
        "rsqrt": lambda v: v**-0.5, "abs": abs,
        "selu": lambda v: 1.0507009873554805 * (v if v > 0 else 1.6732632423543772 * np.expm1(v)),
    }  # fmt: skip
    for name, function_ in exact.items():
        for v in values[values > 0] if name in ("log", "sqrt", "rsqrt") else values:
            if name == "exp" and abs(v) > 80:
                continue
            want = float(function_(np.float64(v)))
            got = float(u.unary(v, UNARY.index(name)))
            assert abs(got - want) <= 4e-7 * abs(want) + (4e-7 if name in ("gelu", "softplus") else 1e-38), (name, v)
    for code in range(len(UNARY)):
        assert not np.isinf(u.unary(np.float32(np.nan), code))


REFUSED: dict[str, tuple[Maker, str]] = {
    "divided integers": (pair("DIV", X, True), r"op 0 \(DIV\): of int8"),
    "summed integers": (reduced("SUM", (1,), (1, 6, 12)), r"op 0 \(SUM\): of int8"),
    "reduced batch": (reduced("MEAN", (0,), (4, 6, 12)), "the batch can't be one of them"),
    "sliced by 0": (one("STRIDED_SLICE", [X, X], STRIDED, ints(0, 3, 5, 0), ints(0, -9, -9, 0), ints(1, -1, 0, 1)),
                    "a stride for each axis"),
    "log softmax of integers": (one("LOG_SOFTMAX", [X, X], version=1), r"op 0 \(LOG_SOFTMAX\): of int8"),
    "products that don't fit": (product((1, 5, 4), (1, 5, 6)), "expected matrices that fit"),
    "far products": (product((1, 70000, 4), (1, 4, 70000)), "multiplications"),
    "repeated batch": (one("BROADCAST_TO", [X, (2, 4, 6, 12)], None, ints(2, 4, 6, 12)), "the batch staying in front"),
    "nothing left": (one("STRIDED_SLICE", [X, X], STRIDED, ints(0, 3, 0, 0), ints(0, 3, 6, 0), ints(1, 1, 1, 1)),
                     "no part may be empty"),
    "gather beyond": (one("GATHER", [X, (1, 4, 6, 1)], ("GatherOptions", {"Axis": 3}), ints(12)), "indices of shape"),
    "far tiles": (one("TILE", [X, X], ("TileOptions", {}), ints(1, 2**30, 1, 1)), "at most 64"),
    "far mirror": (one("MIRROR_PAD", [X, X], ("MirrorPadOptions", {"Mode": 0}), pairs(0, 0, 4, 0, 0, 0, 0, 0)),
                   "less than there is to repeat"),
    "odd blocks": (one("SPACE_TO_DEPTH", [X, X], ("SpaceToDepthOptions", {"BlockSize": 5})), "they don't divide"),
    "minimum between scales": (one("MINIMUM", [X, X], None, constant(np.ones(X), "int8"), scale=0.3),
                               "same dtype, scale and zero point"),
    "unknown rows": (one("L2_NORMALIZATION", [X, X], ("L2NormOptions", {}), scale=0.3), "scale 1/128"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(tmp_path: Path, name: str) -> None:
    make, message = REFUSED[name]
    (tmp_path / "made.tflite").write_bytes(make(np.random.default_rng(0), "int8").bytes())
    with pytest.raises(NpMobilenetError, match=message):
        nm.load(tmp_path / "made.tflite")


def read(tmp_path: Path, tensors: list[T], ops: list[Op], **ends: Any) -> nm.Model:
    (tmp_path / "made.tflite").write_bytes(File(tensors, ops, **ends).bytes())
    return nm.load(tmp_path / "made.tflite", "python")


def test_sums_of_several_counts(tmp_path: Path) -> None:
    """Numbers that no tensor of the file holds are shared only where they are equal: 24 pixels and 12 channels."""
    options = ("ReducerOptions", {"KeepDims": False})
    tensors = [T(X), ints(1, 2), ints(3), T((1, 12)), T((1, 4, 6)), ints(1, 24), T((1, 24)), T((1, 36))]
    ops = [
        Op("SUM", [0, 1], [3], options), Op("SUM", [0, 2], [4], options), Op("RESHAPE", [4, 5], [6]),
        Op("CONCATENATION", [3, 6], [7], ("ConcatenationOptions", {"Axis": 1})),
    ]  # fmt: skip
    model = read(tmp_path, tensors, ops)
    assert model.run(np.ones(X, np.float32)).tolist() == [[24.0] * 12 + [12.0] * 24]


def test_weights_that_the_file_quantizes(tmp_path: Path) -> None:
    """As models trained to be quantized are written without optimizations: QUANTIZE and DEQUANTIZE of weights."""
    scale, values = [0.1, 0.5], np.float32([[0.05, -0.05, 0.149, 99], [0.25, -0.75, 0.74, -99]])
    tensors = [T((1, 4)), T(data=values), T((2, 4), type="int8", scale=scale, zero_point=(0, 0)), T((2, 4)), T((1, 2))]
    layer = Op("FULLY_CONNECTED", [0, 3], [4], ("FullyConnectedOptions", {}))
    (tmp_path / "made.tflite").write_bytes(
        File(tensors, [Op("QUANTIZE", [1], [2]), Op("DEQUANTIZE", [2], [3]), layer]).bytes()
    )
    lite, model = Peer(tmp_path / "made.tflite", "tflite-reference"), nm.load(tmp_path / "made.tflite", "python")
    for x in np.eye(4, dtype=np.float32)[:, np.newaxis]:
        assert np.array_equal(model.run(x), lite.run(x)[4])


def test_heads_in_the_place_of_the_batch(tmp_path: Path) -> None:
    """As litert-torch writes attention: (1, 2, 3, 4) by (1, 2, 4, 5), then FULLY_CONNECTED with computed weights."""
    shapes = [
        (1, 2, 3, 4),
        (2, 3, 4),
        (1, 2, 4, 5),
        (2, 4, 5),
        (2, 3, 5),
        (1, 2, 3, 5),
        (1, 6, 5),
        (6, 5),
        (1, 2, 3, 6),
    ]
    tensors = [*map(T, shapes), *(ints(*shape) for shape in ((2, 3, 4), (2, 4, 5), (1, 2, 3, 5), (6, 5)))]
    ops = [
        Op("RESHAPE", [0, 9], [1]), Op("RESHAPE", [2, 10], [3]),
        Op("BATCH_MATMUL", [1, 3], [4], ("BatchMatMulOptions", {}), 4), Op("RESHAPE", [4, 11], [5]),
        Op("RESHAPE", [6, 12], [7]), Op("FULLY_CONNECTED", [5, 7, -1], [8], ("FullyConnectedOptions",
                                                                           {"KeepNumDims": True}), 6),
    ]  # fmt: skip
    path = tmp_path / "made.tflite"
    path.write_bytes(File(tensors, ops, inputs=[0, 2, 6], outputs=[8]).bytes())
    lite, model = Peer(path, "tflite-reference"), nm.load(path, "python")
    xs = random_inputs(lite.inputs, 3)
    expected = lite.run(*xs)
    given: Any = dict(zip(model.graph.inputs, xs, strict=True))
    _, got = model.run(given, taps=["#4", "#8"], check_range=False)
    for index in (4, 8):
        assert np.abs(got[f"#{index}"].reshape(expected[index].shape) - expected[index]).max() < CLOSE


# Weights (4, 12) of a dense layer, stored by rows, by columns, and in blocks of 2 x 4 by rows of blocks.
SPARSE: dict[str, tuple[dict[str, Any], list[float]]] = {
    "rows": ({"order": [0, 1], "levels": [4, ([0, 1, 1, 3, 3], [2, 0, 11])]}, [1, 2, 3]),
    "columns": ({"order": [1, 0], "levels": [12, ([0, *[1] * 5, *[3] * 7], [3, 0, 2])]}, [1, 2, 3]),
    "blocks": ({"order": [0, 1, 2, 3], "blocks": [0, 1], "levels": [2, ([0, 1, 3], [1, 0, 2]), 2, 4]},
               [*range(1, 25)]),
}  # fmt: skip


@pytest.mark.parametrize("densify", [False, True])
@pytest.mark.parametrize("name", SPARSE)
def test_weights_without_their_zeros(tmp_path: Path, name: str, densify: bool) -> None:
    """Equal to what LiteRT makes of them where it densifies; read alike where a layer takes them as they are."""
    how, values = SPARSE[name]
    dense = T((4, 12), raw=np.float32(values).tobytes(), sparsity=how)
    tensors = [T((1, 12)), dense, T((4, 12)), T((1, 4))]
    layer = Op("FULLY_CONNECTED", [0, 2 if densify else 1], [3], ("FullyConnectedOptions", {}))
    data = File(tensors, [*([Op("DENSIFY", [1], [2])] if densify else []), layer]).bytes()
    (tmp_path / "made.tflite").write_bytes(data)
    x = np.arange(1, 13, dtype=np.float32)[np.newaxis] ** 2
    found = nm.load(tmp_path / "made.tflite", "python").run(x, check_range=False)
    if densify:
        lite = Peer(tmp_path / "made.tflite", "tflite-reference")
        assert np.array_equal(found, lite.run(x)[3])
    assert np.count_nonzero(found) == {"rows": 2, "columns": 3, "blocks": 4}[name]


@pytest.mark.parametrize("how", [
    {"order": [0, 0], "levels": [4, 12]},
    {"order": [0], "levels": [4]},
    {"order": [0, 1], "levels": [4, ([0, 1, 1, 3], [2, 0, 11])]},
    {"order": [0, 1], "levels": [4, ([0, 1, 1, 3, 3], [2, 0, 12])]},
    {"order": [0, 1], "levels": [4, ([0, 1, 0, 3, 3], [2, 0, 11])]},
    {"order": [0, 1], "levels": [4, ([0, 1, 1, 2, 2], [2, 0])]},
    {"order": [0, 1], "levels": [2**30, 2**30]},
])  # fmt: skip
def test_tables_of_zeros_that_fit_nothing(tmp_path: Path, how: dict[str, Any]) -> None:
    weights = T((4, 12), raw=np.float32([1, 2, 3]).tobytes(), sparsity=how)
    layer = Op("FULLY_CONNECTED", [0, 1], [2], ("FullyConnectedOptions", {}))
    with pytest.raises(NpMobilenetError, match=r"tensor #1 't1': .*sparsity"):
        read(tmp_path, [T((1, 12)), weights, T((1, 4))], [layer])


@pytest.mark.parametrize("kind", ["int32", "float32", "uint8"])
@pytest.mark.parametrize("index", ["int64", "int32"])
def test_places_of_another_type(tmp_path: Path, index: str, kind: str) -> None:
    """As segmentation models end: ARG_MAX, EXPAND_DIMS, CAST; and ARG_MAX, CAST, RESHAPE. Equal to LiteRT's."""
    left, shape = (1, 4, 6), (1, 4, 6, 1)
    codes = {"float32": 0, "int32": 2, "uint8": 3, "int64": 4}  # schema.fbs, enum TensorType
    tensors = [tensor(X, "int8"), ints(3), T(left, type=index), ints(-1), T(shape, type=index), T(shape, type=kind),
               T(left, type=kind), ints(1, 24), T((1, 24), type=kind)]  # fmt: skip
    cast = ("CastOptions", {"InDataType": codes[index], "OutDataType": codes[kind]})
    ops = [
        Op("ARG_MAX", [0, 1], [2], ("ArgMaxOptions", {"OutputType": codes[index]})),
        Op("EXPAND_DIMS", [2, 3], [4], ("ExpandDimsOptions", {})), Op("CAST", [4], [5], cast),
        Op("CAST", [2], [6], cast), Op("RESHAPE", [6, 7], [8]),
    ]  # fmt: skip
    path = tmp_path / "made.tflite"
    path.write_bytes(File(tensors, ops, outputs=[5, 8, 4]).bytes())
    lite = Peer(path, "tflite-reference")
    x = inputs(lite, 1).reshape(X)
    expected = lite.run(x)
    for kernels in ("fast", "reference"):
        model = nm.load(path, kernels)
        _, got = model.run(x, taps=["#2", "#4", "#5", "#6", "#8"])
        for number in (2, 4, 5, 6, 8):
            found = got[f"#{number}"]
            assert found.dtype == expected[number].dtype
            assert np.array_equal(found, expected[number].reshape(found.shape)), number


def test_more_places_than_a_byte_counts(tmp_path: Path) -> None:
    wide = (1, 2, 2, 300)
    tensors = [T(wide), ints(3), T((1, 2, 2), type="int32"), T((1, 2, 2), type="uint8")]
    ops = [Op("ARG_MAX", [0, 1], [2], ("ArgMaxOptions", {"OutputType": 2})), Op("CAST", [2], [3])]
    with pytest.raises(NpMobilenetError, match=r"op 1 \(CAST\): from int32 to UINT8; .*256 places"):
        read(tmp_path, tensors, ops)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_transposed_convolution_without_its_inputs(tmp_path: Path, count: int) -> None:
    with pytest.raises(NpMobilenetError, match=rf"{count} inputs, expected a shape, weights, an image"):
        read(tmp_path, [T(X), T(X)], [Op("TRANSPOSE_CONV", [0] * count, [1])])


def test_constants_beyond_float32(tmp_path: Path) -> None:
    weights = T(data=np.full((5, 1, 1, 12), 255, np.uint8), scale=(3e38,), zero_point=(0,))
    window = ("Conv2DOptions", {"StrideH": 1, "StrideW": 1})
    with pytest.raises(NpMobilenetError, match=r"tensor #1: its scale 3e\+38 gives values beyond float32"):
        read(tmp_path, [T(X), weights, T((1, 4, 6, 5))], [Op("CONV_2D", [0, 1], [2], window)])
    values = T(data=np.full(X, 127, np.int8), scale=(3e38,), zero_point=(-1,))
    with pytest.raises(NpMobilenetError, match=r"tensor #1: its scale 3e\+38 gives values beyond float32"):
        read(tmp_path, [T(X), values, T(X), T(X)], [Op("DEQUANTIZE", [1], [2]), Op("ADD", [0, 2], [3])])
