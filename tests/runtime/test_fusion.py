"""Fusion passes: each on its own and together, beside a plan that fuses nothing; bits, not tolerances."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import Array, arrays_for
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from npmobilenet.errors import PlanError
from npmobilenet.graph import ACTIVATIONS, Graph, GraphBuilder, Quantization
from npmobilenet.runtime import binding, engine, fusion
from npmobilenet.runtime.binding import row_tiled_block as band_binder
from npmobilenet.runtime.exclusive import exclusive
from npmobilenet.runtime.plan import Plan

SETTINGS = settings(derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))


@pytest.fixture
def small_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bands for images of any size, of few rows each."""
    monkeypatch.setattr(fusion, "LARGE", 1)


def run(plan: Plan, x: Array, threads: int = 1) -> Array:
    with exclusive(threads, "fast") as used:
        return engine.run(plan, x, threads=used)[0].copy()


def weights_of(graph: Graph, seed: int = 0) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {n: rng.standard_normal(t.shape).astype(np.float32) for n, t in graph.constants.items()}


def block(
    size: tuple[int, int], channels: tuple[int, int, int], window: tuple[int, int], stride: int, dilation: int,
    padding: tuple[tuple[int, int], tuple[int, int]], activations: tuple[str, str, str], parts: str = "edp",
    separate: bool = False,
) -> Graph:  # fmt: skip
    """An inverted residual block, or the `parts` of it: expansion, depthwise, projection."""
    b = GraphBuilder("block")
    depth, middle, last = channels
    x = b.input("x", (1, *size, depth if "e" in parts else middle))

    def layer(op: str, x: str, name: str, shape: tuple[int, ...], activation: str, **attrs: Any) -> str:
        w, bias = b.constant(f"{name}_w", shape), b.constant(f"{name}_b", shape[-1:])
        if not separate:
            return b.node(op, [x, w, bias], name, activation=activation, **attrs)
        x = b.node(op, [x, w, bias], f"{name}_sums", **attrs)
        return b.node("activation", [x], name, function=activation) if activation != "none" else x

    plain: dict[str, Any] = {"stride": (1, 1), "padding": ((0, 0), (0, 0))}
    if "e" in parts:
        x = layer("conv2d", x, "expanded", (1, 1, depth, middle), activations[0], **plain)
    x = layer("depthwise_conv2d", x, "filtered", (*window, middle), activations[1], stride=(stride, stride),
              padding=padding, dilation=(dilation, dilation))  # fmt: skip
    if "p" in parts:
        x = layer("conv2d", x, "projected", (1, 1, middle, last), activations[2], **plain)
    return b.finish([x])


@st.composite
def blocks(draw: st.DrawFn) -> Graph:
    side = st.integers(1, 11)
    pad = st.tuples(st.integers(0, 2), st.integers(0, 2))
    window = (draw(st.sampled_from([1, 2, 3, 5])), draw(st.sampled_from([1, 3, 5])))
    dilation, padding = draw(st.integers(1, 2)), (draw(pad), draw(pad))
    least = [(k - 1) * dilation + 1 - sum(p) for k, p in zip(window, padding, strict=True)]
    size = (max(draw(side), least[0]), max(draw(side), least[1]))
    channels = tuple(draw(st.sampled_from([1, 3, 8, 16, 17, 24, 33, 72])) for _ in range(3))
    functions = tuple(draw(st.sampled_from(ACTIVATIONS)) for _ in range(3))
    parts, separate = draw(st.sampled_from(["edp", "ed", "dp"])), draw(st.booleans())
    return block(size, channels, window, draw(st.integers(1, 3)), dilation, padding, functions, parts, separate)  # type: ignore[arg-type]


@pytest.mark.equal("fused nodes", "bands of rows, folded activations", "one node after the other", "bits")
@pytest.mark.usefixtures("small_is_large")
@settings(SETTINGS, max_examples=60)
@given(blocks(), st.integers(1, 3), st.sampled_from([1, 1 << 12, 1 << 20]), st.sampled_from([1, 2]))
def test_fused_blocks_are_equal(graph: Graph, batch: int, band_bytes: int, threads: int) -> None:
    weights, before = weights_of(graph), band_binder.BAND_BYTES
    band_binder.BAND_BYTES = band_bytes  # from one row at a time to all
    try:
        plans = [Plan(graph, weights, batch=batch, fusions=names) for names in ((), fusion.PASSES)]
    finally:
        band_binder.BAND_BYTES = before
    assert len(plans[1].steps) == 1
    x = np.random.default_rng(1).standard_normal((batch, *graph.tensors["x"].shape[1:])).astype(np.float32)
    assert run(plans[0], x).tobytes() == run(plans[1], x, threads).tobytes()


@pytest.mark.parametrize("names", [("activations",), ("bands",), tuple(fusion.PASSES)])
def test_large_images_are_equal(names: tuple[str, ...]) -> None:
    """As planned: 112 x 112 x 96 is split, by the pass that is asked for alone."""
    graph = block((112, 112), (16, 96, 24), (3, 3), 2, 1, ((0, 1), (0, 1)), ("relu6", "hard_swish", "none"),
                  separate=True)  # fmt: skip
    weights, x = weights_of(graph), np.random.default_rng(0).standard_normal((1, 112, 112, 16)).astype(np.float32)
    plain, plan = Plan(graph, weights, fusions=()), Plan(graph, weights, fusions=names)
    assert len(plain.steps) == 5
    assert len(plan.steps) == {"activations": 3, "bands": 5}.get(" ".join(names), 1)  # bands: activations in between
    for threads in (1, 2):
        assert run(plain, x).tobytes() == run(plan, x, threads).tobytes()
    if len(plan.steps) == 1:
        assert plan.arena_bytes < plain.arena_bytes / 3


@pytest.mark.usefixtures("small_is_large")
def test_taps_undo_what_hides_them_and_nothing_else() -> None:
    graph = block((9, 9), (8, 24, 8), (3, 3), 1, 1, ((1, 1), (1, 1)), ("relu6", "relu6", "none"), separate=True)
    weights, x = weights_of(graph), np.random.default_rng(0).standard_normal((1, 9, 9, 8)).astype(np.float32)
    plain = Plan(graph, weights, taps=graph.tensors.keys() - graph.constants, fusions=())
    expected = run(plain, x)
    for tap, steps in (("expanded", 2), ("expanded_sums", 3), ("filtered", 2), ("filtered_sums", 3), ("x", 1)):
        plan = Plan(graph, weights, taps=[tap])
        assert len(plan.steps) == steps, tap
        assert run(plan, x).tobytes() == expected.tobytes()
        assert plan.taps[tap].tobytes() == plain.taps[tap].tobytes()


@pytest.mark.usefixtures("small_is_large")
def test_a_projection_is_not_the_next_ones_expansion() -> None:
    """MobileNetV1: depthwise and pointwise by turns; each node is computed once."""
    b = GraphBuilder("turns")
    x = b.input("x", (1, 8, 8, 8))
    for i in range(3):
        x = b.node("depthwise_conv2d", [x, b.constant(f"f{i}", (3, 3, 8)), b.constant(f"g{i}", (8,))], f"filtered{i}",
                   stride=(1, 1), padding=((1, 1), (1, 1)), activation="relu6")  # fmt: skip
        x = b.node("conv2d", [x, b.constant(f"w{i}", (1, 1, 8, 8)), b.constant(f"b{i}", (8,))], f"mixed{i}",
                   stride=(1, 1), padding=((0, 0), (0, 0)), activation="relu6")  # fmt: skip
    graph = b.finish([x])
    weights, image = weights_of(graph), np.random.default_rng(0).standard_normal((2, 8, 8, 8)).astype(np.float32)
    plan = Plan(graph, weights, batch=2)
    assert len(plan.steps) == 3
    assert run(plan, image, 2).tobytes() == run(Plan(graph, weights, batch=2, fusions=()), image).tobytes()


@pytest.mark.usefixtures("small_is_large")
def test_what_others_read_is_not_hidden() -> None:
    """A value with two readers, and one that is an output, stay as they are."""
    b = GraphBuilder("shared")
    x = b.input("x", (1, 6, 6, 8))
    plain: dict[str, Any] = {"stride": (1, 1), "padding": ((0, 0), (0, 0))}
    y = b.node("conv2d", [x, b.constant("w", (1, 1, 8, 8)), b.constant("b", (8,))], "y", **plain)
    z = b.node("activation", [y], "z", function="relu")
    filtered = b.node("depthwise_conv2d", [z, b.constant("f", (3, 3, 8)), b.constant("g", (8,))], "filtered",
                      stride=(1, 1), padding=((1, 1), (1, 1)))  # fmt: skip
    graph = b.finish([b.node("add", [b.node("add", [y, z], "sum"), filtered], "end"), z])
    weights = weights_of(graph)
    plan = Plan(graph, weights)
    assert len(plan.steps) == len(graph.nodes)
    image = arrays_for(graph, graph.nodes[0], np.random.default_rng(0))[0]
    assert run(plan, image).tobytes() == run(Plan(graph, weights, fusions=()), image).tobytes()


def test_switches(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fusion.chosen_passes() == tuple(fusion.PASSES)
    monkeypatch.setenv("NPMOBILENET_FUSIONS", "none")
    assert fusion.chosen_passes() == ()
    monkeypatch.setenv("NPMOBILENET_FUSIONS", " activations,")
    assert fusion.chosen_passes() == ("activations",)
    assert fusion.chosen_passes(["bands"]) == ("bands",)
    monkeypatch.setenv("NPMOBILENET_FUSIONS", "bandz")
    with pytest.raises(PlanError, match="fusion 'bandz' is not one of transposes, activations, padding, bands"):
        fusion.chosen_passes()
    assert all(function.__doc__ for function in fusion.PASSES.values())
    assert binding.bind_group.__doc__


@pytest.mark.parametrize(("between", "seen", "left"), [
    ((), (), ["relu6", "last"]),
    (("leaky_relu",), (), ["f0", "relu6", "last"]),
    (("quantize",), (), ["f0", "relu6", "last"]),
    (("leaky_relu", "leaky_relu"), (), ["there", "f0", "f1", "back", "relu6", "last"]),
    ((), ("there",), ["there", "relu6", "last"]),
    ((), ("back",), ["there", "back", "relu6", "last"]),
    (("leaky_relu",), ("f0",), ["there", "f0", "back", "relu6", "last"]),
    (("leaky_relu",), ("there",), ["there", "f0", "relu6", "last"]),
])  # fmt: skip
def test_transposes_that_undo_each_other(between: tuple[str, ...], seen: tuple[str, ...], left: list[str]) -> None:
    """Channels first for a while, and back: what is between is computed without."""
    b = GraphBuilder("moves")
    q = Quantization((0.05,), (3,))
    y = b.node("transpose", [b.input("x", (1, 5, 4, 3))], "there", order=(0, 3, 1, 2))
    for i, op in enumerate(between):
        more = {"dtype": "int8", "quantization": q} if op == "quantize" else {"alpha": 0.3}
        y = b.node(op, [y], f"f{i}", **more)
    kind = {"dtype": "int8", "quantization": q} if "quantize" in between else {}
    y = b.node("transpose", [y], "back", order=(0, 2, 3, 1), **kind)
    y = b.node("activation", [y], "relu6", function="relu6", **kind)
    graph = b.finish([b.node("reshape", [y], "last", shape=(1, 60), **kind)])
    x = np.random.default_rng(1).standard_normal((2, 5, 4, 3)).astype(np.float32)
    plain, plan = (Plan(graph, {}, batch=2, taps=seen, fusions=names) for names in ((), fusion.PASSES))
    assert [step.node for step in plan.steps] == left
    assert run(plan, x).tobytes() == run(plain, x).tobytes()
    assert all(plan.taps[tap].tobytes() == plain.taps[tap].tobytes() for tap in seen)


@pytest.mark.parametrize(
    ("change", "steps"),
    [({}, 1), ({"value": 1.5}, 2), ({"other": True}, 2), ({"reader": True}, 3), ({"dtype": "float32"}, 2)],
)
@pytest.mark.parametrize("op", ["conv2d", "depthwise_conv2d"])
def test_zero_points_around_an_image_become_padding(op: str, change: dict[str, Any], steps: int) -> None:
    """Only zero points, of the scale that the convolution reads, that nobody else reads, and never in float32."""
    dtype = change.get("dtype", "int8")
    quantized = {} if dtype == "float32" else {"dtype": dtype, "quantization": Quantization((0.02,), (-5,))}
    padded = {**quantized, "quantization": Quantization((0.02,), (7,))} if "other" in change else quantized
    b = GraphBuilder("padded")
    x = b.input("x", (1, 6, 7, 8), **quantized)
    more = {"value": change["value"]} if "value" in change else {}
    x = b.node("pad", [x], "around", padding=((1, 2), (0, 3)), **more, **padded)
    weights = {"dtype": dtype, "quantization": Quantization((0.01,), (0,))} if quantized else {}
    bias = {"dtype": "int32", "quantization": Quantization((0.02 * 0.01,), (0,))} if quantized else {}
    filters = b.constant("w", (3, 3, 8, 8) if op == "conv2d" else (3, 3, 8), **weights)
    y = b.node(
        op, [x, filters, b.constant("b", (8,), **bias)], "y", stride=(2, 2), padding=((1, 0), (0, 1)), **quantized
    )
    outputs = [y]
    if "reader" in change:
        outputs.append(
            b.node("max_pool", [x], "z", kernel=(2, 2), stride=(2, 2), padding=((0, 0), (0, 0)), **quantized)
        )
    graph = b.finish(outputs)
    rng = np.random.default_rng(0)
    tensors = {n: rng.integers(-99, 99, t.shape).astype(t.dtype) for n, t in graph.constants.items()}
    image = rng.integers(-128, 128, (2, 6, 7, 8)).astype(dtype)
    plans = [Plan(graph, tensors, batch=2, fusions=names) for names in ((), fusion.PASSES)]
    assert len(plans[1].steps) == steps
    assert run(plans[0], image).tobytes() == run(plans[1], image).tobytes()
    assert len(Plan(graph, tensors, batch=2, taps=["around"]).steps) == max(steps, 2)
