"""Ops that pick values out or move them, grouped convolutions, PReLU and its like: equal to LiteRT, by dialect.

Each case is a .tflite file with one operator, on float32, uint8 and int8; so the reader's rules are tried as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import npmobilenet as nm
from npmobilenet.errors import NpMobilenetError

pytest.importorskip("tflite", reason="the extra [convert] is not installed")
from litert import Array, Peer, differing, random_inputs
from tflite_maker import File, Op, T

PEERS = ("tflite-reference", "tflite-optimized", "xnnpack")
DTYPES = ("float32", "uint8", "int8")
Maker = Callable[[Any, str], File]


def tensor(shape: tuple[int, ...], dtype: str, scale: float = 0.05, zero: int = 5) -> T:
    """A computed tensor; int8 has the zero point of uint8 less 128."""
    if dtype == "float32":
        return T(shape)
    return T(shape, type=dtype, scale=(scale,), zero_point=(zero - 128 * (dtype == "int8") + 100,))


def constant(values: Array, dtype: str, scale: float = 0.02, zero: int = 0) -> T:
    if dtype == "float32":
        return T(data=values.astype(np.float32))
    limits = np.iinfo(dtype)
    data = np.clip(np.rint(values / scale) + zero, limits.min, limits.max).astype(dtype)
    return T(data=data, scale=(scale,), zero_point=(zero,))


def ints(*values: int) -> T:
    return T(data=np.array(values, np.int32))


def one(
    op: str, shapes: list[tuple[int, ...]], options: Any = None, *more: T, first: bool = False, version: int = 2,
    **out: float,
) -> Maker:  # fmt: skip
    """An operator on a tensor of the first shape; the others are its outputs'. `first`: its constants come first."""

    def make(rng: Any, dtype: str) -> File:
        x = [tensor(shapes[0], dtype)]
        results = [tensor(shape, dtype, **out) for shape in shapes[1:]]  # type: ignore[arg-type]
        tensors = [*x, *more, *results]
        operands = [*range(1, len(more) + 1), 0] if first else list(range(len(more) + 1))
        return File(tensors, [Op(op, operands, range(len(more) + 1, len(tensors)), options, version)])

    return make


def pooled(kernel: tuple[int, int], stride: int, padding: int, shape: tuple[int, ...], out: tuple[int, ...]) -> Maker:
    fields = {"Padding": padding, "StrideH": stride, "StrideW": stride, "FilterHeight": kernel[0],
              "FilterWidth": kernel[1], "FusedActivationFunction": 3}  # fmt: skip
    return one("MAX_POOL_2D", [shape, out], ("Pool2DOptions", fields))


def nearest(size: tuple[int, int], shape: tuple[int, ...], corners: bool, centers: bool) -> Maker:
    options = ("ResizeNearestNeighborOptions", {"AlignCorners": corners, "HalfPixelCenters": centers})
    return one("RESIZE_NEAREST_NEIGHBOR", [shape, (1, *size, shape[3])], options, ints(*size))


def arg_max(axis: int, index: str) -> Maker:
    def make(rng: Any, dtype: str) -> File:
        shape = (1, 3, 4, 21)
        left = tuple(d for i, d in enumerate(shape) if i != axis % 4)
        options = ("ArgMaxOptions", {"OutputType": 4 if index == "int64" else 2})
        return File([tensor(shape, dtype), ints(axis), T(left, type=index)], [Op("ARG_MAX", [0, 1], [2], options)])

    return make


def prelu(shape: tuple[int, ...], zero: int = 0, out: float = 0.04) -> Maker:
    def make(rng: Any, dtype: str) -> File:
        alpha = constant(rng.uniform(-0.5, 1.5, shape), dtype, 0.01, zero + 120 * (dtype == "uint8"))
        x = (1, 4, 5, 19)
        return File([tensor(x, dtype), alpha, tensor(x, dtype, out, 30)], [Op("PRELU", [0, 1], [2])])

    return make


def leaky(alpha: float, out: float) -> Maker:
    def make(rng: Any, dtype: str) -> File:
        x = (1, 4, 5, 19)
        options = ("LeakyReluOptions", {"Alpha": alpha})
        return File([tensor(x, dtype), tensor(x, dtype, out, 30)], [Op("LEAKY_RELU", [0], [1], options, 2)])

    return make


def grouped(groups: int, depth: int, each: int, bias: bool = True) -> Maker:
    def make(rng: Any, dtype: str) -> File:
        out = groups * each
        weights = constant(rng.uniform(-1, 1, (out, 3, 3, depth)), dtype, 0.01, 117 * (dtype == "uint8"))
        if dtype == "int8":
            weights.scale, weights.zero_point = rng.uniform(0.005, 0.02, out).astype(np.float32), (0,) * out
        scale = [np.float32(0.05) * np.float32(s) for s in weights.scale]
        add = T(data=rng.uniform(-1, 1, out).astype(np.float32))
        if dtype != "float32":
            add = T(data=rng.integers(-2000, 2000, out, np.int32), scale=scale, zero_point=(0,) * len(scale))
        options = ("Conv2DOptions", {"StrideH": 1, "StrideW": 2, "DilationHFactor": 1, "DilationWFactor": 1,
                                     "FusedActivationFunction": 1})  # fmt: skip
        tensors = [tensor((1, 5, 6, groups * depth), dtype), weights, add, tensor((1, 5, 3, out), dtype, 0.08)]
        return File(tensors, [Op("CONV_2D", [0, 1, 2] if bias else [0, 1], [3], options, 6)])

    return make


CASES: dict[str, Maker] = {
    "transpose to NHWC": one("TRANSPOSE", [(1, 3, 5, 7), (1, 5, 7, 3)], None, ints(0, 2, 3, 1)),
    "transpose to NCHW": one("TRANSPOSE", [(1, 5, 7, 3), (1, 3, 5, 7)], None, ints(0, 3, 1, 2)),
    "transpose of rank 3": one("TRANSPOSE", [(1, 5, 7), (1, 7, 5)], None, ints(0, 2, 1)),
    "transpose of nothing": one("TRANSPOSE", [(1, 1, 7, 3), (1, 7, 1, 3)], None, ints(0, 2, 1, 3)),
    "split of channels": one("SPLIT", [(1, 3, 4, 6), *[(1, 3, 4, 2)] * 3], ("SplitOptions", {"NumSplits": 3}),
                             ints(3), first=True),
    "split of rows": one("SPLIT", [(1, 4, 5, 3), *[(1, 2, 5, 3)] * 2], ("SplitOptions", {"NumSplits": 2}), ints(1),
                         first=True),
    "split into lengths": one("SPLIT_V", [(1, 2, 3, 7), (1, 2, 3, 2), (1, 2, 3, 5)],
                              ("SplitVOptions", {"NumSplits": 2}), ints(2, 5), ints(-1)),
    "max pool same": pooled((3, 2), 2, 0, (1, 7, 6, 19), (1, 4, 3, 19)),
    "max pool valid": pooled((2, 3), 1, 1, (1, 5, 6, 3), (1, 4, 4, 3)),
    "nearest": nearest((9, 4), (1, 5, 6, 3), False, False),
    "nearest corners": nearest((9, 4), (1, 5, 6, 3), True, False),
    "nearest centers": nearest((9, 4), (1, 5, 6, 3), False, True),
    "nearest both": nearest((7, 11), (1, 5, 6, 3), True, True),
    "nearest far": nearest((67, 90), (1, 13, 31, 2), False, False),
    "arg max of channels": arg_max(3, "int64"),
    "arg max of rows": arg_max(1, "int32"),
    "arg max from behind": arg_max(-2, "int64"),
    "prelu of channels": prelu((1, 1, 19)),
    "prelu of pixels": prelu((4, 5, 19), 7),
    "prelu of rows": prelu((4, 1, 1), -4, 0.21),
    "prelu of one": prelu((1,)),
    "leaky relu": leaky(0.2, 0.05),
    "leaky relu rescaled": leaky(0.01, 0.031),
    "leaky relu of far scales": leaky(0.001, 0.0011),
    "relu 0 to 1": one("RELU_0_TO_1", [(1, 4, 5, 19), (1, 4, 5, 19)], None, version=1, scale=0.011),
    "grouped": grouped(2, 4, 3),
    "grouped by single channels": grouped(6, 1, 1),
    "grouped by single channels, doubled": grouped(6, 1, 2),
    "grouped without bias": grouped(3, 2, 4, False),
}  # fmt: skip
# What LiteRT itself has no kernel for.
WITHOUT = {("grouped without bias", dtype) for dtype in DTYPES}


def written(folder: Path, name: str, dtype: str, seed: int = 0) -> Path:
    path = folder / "made.tflite"
    path.write_bytes(CASES[name](np.random.default_rng(seed), dtype).bytes())
    return path


def inputs(peer: Peer, seed: int) -> Array:
    x = random_inputs(peer.inputs, seed)[0]
    if x.dtype != np.float32 and x.size >= 256:
        x.reshape(-1)[:256] = np.arange(256).astype(np.uint8).view(x.dtype)
    return x


@pytest.mark.equal("picked and moved values, grouped convolutions", "fast and reference",
                   "LiteRT 2.3.0, one-op models, each resolver; float convolutions 1e-5", "bits")  # fmt: skip
@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("name", CASES)
def test_equals_litert(tmp_path: Path, name: str, peer: str) -> None:
    for dtype in DTYPES:
        path = written(tmp_path, name, dtype)
        try:
            lite = Peer(path, peer)
        except (ValueError, RuntimeError):
            if (name, dtype) not in WITHOUT:
                raise
            continue
        x = inputs(lite, 1)
        expected = lite.run(x)
        for kernels in ("fast", "reference"):
            _, got = nm.load(path, kernels, peer).run(x, taps=[f"#{i}" for i in expected])
            for index, theirs in expected.items():
                ours = got[f"#{index}"].reshape(theirs.shape)
                assert ours.dtype == theirs.dtype
                if dtype == "float32" and name.startswith("grouped"):  # LiteRT adds in another order
                    assert np.abs(ours - theirs).max() <= 1e-5 * max(1.0, np.abs(theirs).max())
                else:
                    assert not differing({f"#{index}": ours}, {index: theirs}), (dtype, kernels)


@pytest.mark.equal("picked and moved values, grouped convolutions", "fast, 2 threads, a batch",
                   "reference, plain Python, image by image", "bits")  # fmt: skip
@pytest.mark.parametrize("name", CASES)
def test_every_kernel_set_gives_the_same_bits(tmp_path: Path, name: str) -> None:
    for dtype in DTYPES:
        path = written(tmp_path, name, dtype)
        dialects = PEERS if dtype != "float32" else PEERS[:1]
        for dialect in (*dialects, "tflite-single-rounding", "cmsis-nn"):
            fast = nm.load(path, "fast", dialect, threads=2)
            if math.prod(fast.output.shape) > 2000 and dialect != PEERS[0]:
                continue
            rng = np.random.default_rng(3)
            shape = (3, *fast.input.shape[1:])
            x = rng.uniform(-4, 4, shape).astype(np.float32)
            if dtype != "float32":
                limits = np.iinfo(dtype)
                x = rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
            plain = nm.load(path, "python", dialect)
            one_by_one = np.concatenate([plain.run(x[i : i + 1]) for i in range(len(x))])
            assert fast.run(x).tobytes() == one_by_one.tobytes()


REFUSED: dict[str, tuple[Maker, str]] = {
    "batch moved": (one("TRANSPOSE", [(2, 3, 4, 5), (3, 2, 4, 5)], None, ints(1, 0, 2, 3)), "the batch in front"),
    "axes twice": (one("TRANSPOSE", [(1, 3, 4, 5), (1, 3, 3, 5)], None, ints(0, 1, 1, 3)), "expected all of them"),
    "split of the batch": (one("SPLIT", [(2, 3), (1, 3), (1, 3)], ("SplitOptions", {"NumSplits": 2}), ints(0),
                               first=True), "along the axes"),
    "uneven split": (one("SPLIT_V", [(1, 5), (1, 2), (1, 2)], ("SplitVOptions", {}), ints(2, 2), ints(1)), "parts of"),
    "arg max of the batch": (one("ARG_MAX", [(2, 3), (3,)], ("ArgMaxOptions", {}), ints(0)), "not the batch"),
    "pool between scales": (
        one("MAX_POOL_2D", [(1, 4, 4, 2), (1, 4, 4, 2)], ("Pool2DOptions", {"StrideH": 1, "StrideW": 1,
            "FilterHeight": 1, "FilterWidth": 1}), scale=0.3), "same dtype, scale and zero point"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(tmp_path: Path, name: str) -> None:
    make, message = REFUSED[name]
    path = tmp_path / "made.tflite"
    path.write_bytes(make(np.random.default_rng(0), "int8").bytes())
    with pytest.raises(NpMobilenetError, match=message):
        nm.load(path)
