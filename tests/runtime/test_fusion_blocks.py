"""Fused residual additions and squeeze-and-excite, beside plans that fuse nothing; bits, not tolerances."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import Array
from hypothesis import given
from hypothesis import strategies as st
from test_fusion import SETTINGS, block, run, weights_of

from npmobilenet.graph import ACTIVATIONS, Graph, GraphBuilder
from npmobilenet.runtime import fusion
from npmobilenet.runtime.plan import Plan

PLAIN: dict[str, Any] = {"stride": (1, 1), "padding": ((0, 0), (0, 0))}
CHANNELS = st.sampled_from([1, 3, 8, 16, 17, 24, 33, 40, 64, 72, 130])


def image(graph: Graph, batch: int, name: str = "x") -> Array:
    """Zeros of both signs among the values, so that sums and products of them occur."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((batch, *graph.tensors[name].shape[1:])).astype(np.float32)
    return np.where(rng.random(x.shape) < 0.1, np.copysign(np.float32(0), x), x)


def check(graph: Graph, steps: int, batch: int = 1, threads: int = 1, taps: tuple[str, ...] = ()) -> None:
    """All passes take `steps` steps, and give the bits of none of them, in the output and in each tap."""
    weights, x = weights_of(graph), image(graph, batch)
    plain, plan = (Plan(graph, weights, batch=batch, taps=taps, fusions=f) for f in ((), fusion.PASSES))
    assert len(plan.steps) == steps
    assert run(plain, x).tobytes() == run(plan, x, threads).tobytes()
    for tap in taps:
        assert plain.taps[tap].tobytes() == plan.taps[tap].tobytes(), tap


def convolution(b: GraphBuilder, x: str, name: str, channels: int, activation: str = "none") -> str:
    depth = b.tensors[x].shape[-1]
    w, bias = b.constant(f"{name}_w", (1, 1, depth, channels)), b.constant(f"{name}_b", (channels,))
    return b.node("conv2d", [x, w, bias], name, activation=activation, **PLAIN)


# ---------------------------------------------------------------------------------------------------------------------
# Residual additions


def residual_block(size: tuple[int, int], depth: int, middle: int, activation: str, swapped: bool) -> Graph:
    """x + projection(expansion(x)), in either order."""
    b = GraphBuilder("residual")
    x = b.input("x", (1, *size, depth))
    y = convolution(b, convolution(b, x, "expanded", middle), "projected", depth, activation)
    return b.finish([b.node("add", [y, x] if swapped else [x, y], "sum")])


@pytest.mark.equal("residual additions", "in the convolution's tiles", "a node of their own", "bits")
@SETTINGS
@given(
    st.tuples(st.integers(1, 30), st.integers(1, 30)), CHANNELS, CHANNELS, st.sampled_from(ACTIVATIONS), st.booleans(),
    st.integers(1, 3), st.integers(1, 2),
)  # fmt: skip
def test_residuals_are_equal(
    size: tuple[int, int], depth: int, middle: int, activation: str, swapped: bool, batch: int, threads: int
) -> None:
    check(residual_block(size, depth, middle, activation, swapped), 2, batch, threads)


@pytest.mark.parametrize("size", [(3, 5), (28, 28)])
def test_residuals_whose_rows_are_copied_apart(size: tuple[int, int]) -> None:
    check(residual_block(size, 40, 1024, "none", True), 2, 2, 2)


@pytest.mark.parametrize(("channels", "parts"), [((16, 24, 16), "edp"), ((9, 33, 9), "edp"), ((8, 17, 17), "dp")])
@pytest.mark.parametrize("threads", [1, 2])
def test_residuals_of_bands(
    monkeypatch: pytest.MonkeyPatch, channels: tuple[int, int, int], parts: str, threads: int
) -> None:
    monkeypatch.setattr(fusion, "LARGE", 1)
    whole = block((11, 7), channels, (3, 3), 1, 1, ((1, 1), (1, 1)), ("relu6", "relu", "none"), parts)
    b = GraphBuilder("bands")
    for name, tensor in whole.constants.items():
        b.constant(name, tensor.shape)
    x = b.input("x", whole.tensors["x"].shape)
    for node in whole.nodes:
        b.node(node.op, list(node.inputs), node.output, **node.attrs)
    check(b.finish([b.node("add", ["projected", x], "sum")]), 1, 3, threads)


def test_bands_without_projection_take_no_addition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fusion, "LARGE", 1)
    b = GraphBuilder("bands")
    x = b.input("x", (1, 9, 9, 8))
    w, bias = b.constant("w", (3, 3, 8)), b.constant("b", (8,))
    y = b.node("depthwise_conv2d", [convolution(b, x, "expanded", 8), w, bias], "filtered", stride=(1, 1),
               padding=((1, 1), (1, 1)))  # fmt: skip
    check(b.finish([b.node("add", [y, x], "sum")]), 2, 2)


def test_residuals_that_stay_alone() -> None:
    """What others read or look at, itself twice, constants, other shapes, activations: no case is taken for another."""

    def graph(kind: str) -> Graph:
        b = GraphBuilder(kind)
        x = b.input("x", (1, 6, 5, 8))
        y = convolution(b, x, "y", 8)
        if kind == "itself":
            return b.finish([b.node("add", [y, y], "sum")])
        if kind == "constant":
            return b.finish([b.node("add", [y, b.constant("c", (1, 6, 5, 8))], "sum")])
        if kind == "one pixel":
            return b.finish([b.node("add", [y, b.node("mean", [x], "m", keepdims=True)], "sum")])
        if kind == "activation":
            return b.finish([b.node("add", [y, x], "sum", activation="relu")])
        if kind == "subtraction":
            return b.finish([b.node("sub", [y, x], "sum")])
        total = b.node("add", [y, x], "sum")
        return b.finish([total, y] if kind == "an output" else [b.node("mul", [total, y], "product")])

    alone = {"itself": 2, "constant": 2, "one pixel": 3, "activation": 2, "subtraction": 2, "an output": 2, "read": 3}
    for kind, steps in alone.items():
        for batch in (1, 3):
            check(graph(kind), steps, batch, 2)


def test_both_operands_are_convolutions() -> None:
    b = GraphBuilder("both")
    x = b.input("x", (1, 6, 5, 8))
    check(b.finish([b.node("add", [convolution(b, x, "y", 24), convolution(b, x, "z", 24)], "sum")]), 2, 2)


def test_chains_of_residuals() -> None:
    """A sum is the next one's residual; a residual is read again, long after; taps undo what hides them."""
    b = GraphBuilder("chain")
    x = first = b.input("x", (1, 6, 5, 8))
    for i in range(4):
        y = convolution(b, convolution(b, x, f"expanded{i}", 24, "relu6"), f"projected{i}", 8)
        x = b.node("add", [x, y] if i % 2 else [y, x], f"sum{i}")
    graph = b.finish([b.node("mul", [b.node("mul", [x, "sum0"], "late"), first], "end")])
    for threads in (1, 2):
        check(graph, 10, 2, threads)
        check(graph, 11, 2, threads, ("projected1", "sum2", "expanded3"))


# ---------------------------------------------------------------------------------------------------------------------
# Squeeze-and-excite

SCALES: dict[str, list[tuple[str, str]]] = {  # what follows the second product, with its activation
    "nothing": [],
    "tflite": [("mul", "none")],
    "uint8": [("add", "relu6"), ("mul", "none")],
    "rare": [("sub", "hard_swish"), ("add", "sigmoid")],
}


def excited(
    size: tuple[int, int], channels: int, inner: int, pool: str = "mean", products: str = "conv2d",
    activations: tuple[str, str, str] = ("relu", "hard_sigmoid_slim", "none"), scales: str = "nothing",
    swapped: bool = False, end: str = "product",
) -> Graph:  # fmt: skip
    """A convolution, and its result times a gate of its mean."""
    b = GraphBuilder("excited")
    x = convolution(b, b.input("x", (1, *size, 3)), "image", channels)
    if pool == "mean":
        y = b.node("mean", [x], "pooled", keepdims=products == "conv2d")
    else:
        y = b.node("average_pool", [x], "pooled", kernel=size, **PLAIN)
    for name, width, activation in (("squeezed", inner, activations[0]), ("excited", channels, activations[1])):
        if products == "conv2d":
            y = convolution(b, y, name, width, activation)
        else:
            w, bias = b.constant(f"{name}_w", (b.tensors[y].shape[-1], width)), b.constant(f"{name}_b", (width,))
            y = b.node("fully_connected", [y, w, bias], name, activation=activation)
    if products != "conv2d":
        y = b.node("reshape", [y], "shaped", shape=(1, 1, 1, channels))
    for i, (op, activation) in enumerate(SCALES[scales]):
        c = b.constant(f"c{i}", (1, 1, 1, 1))
        y = b.node(op, [c, y] if swapped and op != "sub" else [y, c], f"scaled{i}", activation=activation)
    x = b.node("mul", [y, x] if swapped else [x, y], end, activation=activations[2])
    return b.finish([x])


@pytest.mark.equal("squeeze-and-excite", "in one step", "mean, products, gate and multiplication", "bits")
@SETTINGS
@given(
    st.tuples(st.integers(1, 20), st.integers(1, 20)), CHANNELS, CHANNELS, st.sampled_from(["mean", "average_pool"]),
    st.sampled_from(["conv2d", "fully_connected"]), st.tuples(*[st.sampled_from(ACTIVATIONS)] * 3),
    st.sampled_from(list(SCALES)), st.booleans(), st.integers(1, 3), st.integers(1, 2),
)  # fmt: skip
def test_squeeze_excite_is_equal(
    size: tuple[int, int], channels: int, inner: int, pool: str, products: str, activations: tuple[str, str, str],
    scales: str, swapped: bool, batch: int, threads: int,
) -> None:  # fmt: skip
    pool = pool if products == "conv2d" else "mean"  # which drops the dimensions that layers don't take
    check(excited(size, channels, inner, pool, products, activations, scales, swapped), 2, batch, threads)


@pytest.mark.parametrize("shape", [(28, 28, 120), (56, 56, 16), (7, 7, 576)])
@pytest.mark.parametrize("batch", [1, 3])
def test_squeeze_excite_of_models(shape: tuple[int, int, int], batch: int) -> None:
    """Images that threads share, each computing the gate."""
    for threads in (1, 2):
        check(excited(shape[:2], shape[2], shape[2] // 4, scales="tflite"), 2, batch, threads)


def test_taps_of_squeeze_excite() -> None:
    graph = excited((5, 4), 24, 8, scales="uint8")
    check(graph, 2, 2, 2, ("image", "product"))
    for name in ("pooled", "squeezed", "excited", "scaled0", "scaled1"):
        check(graph, 7, 2, 2, (name,))


def test_a_layer_whose_window_is_all_that_there_is() -> None:
    """The mean, reshaped to 1 x 2 pixels, and a convolution over both: a product like another."""
    b = GraphBuilder("window")
    x = b.node("activation", [b.input("x", (1, 4, 6, 8))], "image", function="relu")
    y = b.node("reshape", [b.node("mean", [x], "pooled", keepdims=True)], "split", shape=(1, 1, 2, 4))
    w, bias = b.constant("w", (1, 2, 4, 5)), b.constant("b", (5,))
    y = convolution(b, b.node("conv2d", [y, w, bias], "y", **PLAIN), "z", 8)
    check(b.finish([b.node("mul", [x, y], "product")]), 2, 2)


def test_what_is_not_squeeze_excite() -> None:
    """Graphs that differ from it in one place stay as they are."""

    def graph(kind: str) -> Graph:
        b = GraphBuilder(kind)
        x = b.input("x", (1, 4, 6, 8))
        source = b.node("activation", [x], "other", function="relu") if kind == "of another image" else x
        if kind == "part of the image":
            y = b.node("average_pool", [x], "pooled", kernel=(4, 4), stride=(4, 4), padding=((0, 0), (0, 0)))
        elif kind == "padded pool":
            y = b.node("average_pool", [x], "pooled", kernel=(4, 6), stride=(8, 8), padding=((1, 0), (0, 0)))
        elif kind == "activated pool":
            y = b.node("average_pool", [x], "pooled", kernel=(4, 6), activation="relu6", **PLAIN)
        else:
            y = b.node("mean", [source], "pooled", keepdims=True)
        if kind == "padded product":
            w, bias = b.constant("w", (1, 1, 8, 4)), b.constant("b", (4,))
            y = b.node("conv2d", [y, w, bias], "y", stride=(2, 2), padding=((0, 1), (0, 0)))
        elif kind == "split pixel":
            y = convolution(b, b.node("reshape", [y], "split", shape=(1, 1, 2, 4)), "y", 4)
            y = b.node("reshape", [y], "joined", shape=(1, 1, 1, 8))
        else:
            y = convolution(b, y, "y", 4)
        y = convolution(b, y, "z", 8)
        if kind == "three products":
            y = convolution(b, y, "z2", 8)
        elif kind == "subtracted from a constant":
            y = b.node("sub", [b.constant("c", (1, 1, 1, 1)), y], "scaled")
        elif kind == "scaled by channels":
            y = b.node("mul", [b.constant("c", (1, 1, 1, 8)), y], "scaled")
        elif kind == "one value":
            y = b.node("mean", [convolution(b, y, "z2", 1)], "scaled", keepdims=True)
        return b.finish([b.node("sub" if kind == "difference" else "mul", [x, y], "end")])

    for kind in (
        "of another image", "part of the image", "padded pool", "activated pool", "padded product", "split pixel",
        "three products", "subtracted from a constant", "scaled by channels", "one value", "difference",
    ):  # fmt: skip
        made = graph(kind)
        check(made, len(made.nodes), 2, 2)


def test_products_that_threads_share_stay_apart() -> None:
    assert 900 * 240 >= fusion.SHARED > 576 * 144
    check(excited((3, 3), 900, 240), 5)
