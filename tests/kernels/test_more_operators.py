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
from litert import Peer, differing
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
    "least": (reduced("REDUCE_MIN", (1, 2), (1, 12)), ("float32",)),
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
            xs = [inputs(lite, 1), inputs(lite, 2)][: len(lite.inputs)]
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
