"""Random legal nodes of every kind and dtype, with their inputs: what tests/kernels/test_ops_table.py tries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from cases import Array, Q, arrays_q, q, single_q
from hypothesis import strategies as st

from npmobilenet.graph import ACTIVATIONS, Graph, Quantization, same_padding


class Case(NamedTuple):
    """A graph of one node, and its inputs and weights, of one image or several."""

    graph: Graph
    arrays: list[Array]


class Form(NamedTuple):
    """A node without its dtype: shapes of computed and of constant operands, and attributes."""

    operands: list[tuple[int, ...]]
    constants: list[tuple[int, ...]]
    attrs: dict[str, Any]


LIMITS = {"uint8": (0, 255), "int8": (-128, 127)}
BINARY = ("add", "sub", "mul")
ACTIVATED = ("hard_swish", "sigmoid", "relu", "relu6", "relu_n1_to_1")
FUNCTIONS = (*ACTIVATED, "softmax", "requantize", "quantize", "dequantize", "resize_bilinear")


def random_case(kind: str, dtype: str, small: bool = False) -> st.SearchStrategy[Case]:
    """Cases of a kind: of FORMS or, for 8 bits, FUNCTIONS; these may be asked to be small."""
    return _functions(kind, dtype, small) if dtype != "float32" and kind in FUNCTIONS else _nodes(kind, dtype)


@st.composite
def _nodes(draw: st.DrawFn, kind: str, dtype: str) -> Case:
    graph = draw((nodes_f32(kind) if dtype == "float32" else nodes_q(kind, dtype)).filter(defined))
    seed, batch = draw(st.integers(0, 2**32 - 1)), draw(st.integers(1, 3))
    return Case(graph, arrays_q(graph, np.random.default_rng(seed), batch))


# -- shapes and attributes ---------------------------------------------------------------------------------------------

sizes = st.integers(1, 9)
channels = st.sampled_from([1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 23, 24, 32, 33, 40, 64, 70])
kernels = st.tuples(st.integers(1, 5), st.integers(1, 5))
pads = st.tuples(st.tuples(st.integers(0, 2), st.integers(0, 3)), st.tuples(st.integers(0, 2), st.integers(0, 3)))


def fused(dtype: str) -> st.SearchStrategy[str]:
    return st.sampled_from(ACTIVATIONS if dtype == "float32" else ("none", "none", "relu", "relu6", "relu_n1_to_1"))


@st.composite
def windows(draw: st.DrawFn, h: int, w: int, k: tuple[int, int]) -> dict[str, Any]:
    """Any stride, dilation and padding, with enough of it below and on the right for the window to fit at all."""
    dilation, step = draw(st.tuples(st.integers(1, 2), st.integers(1, 2))), st.integers(1, 3)
    padding = tuple((first, max(last, (n - 1) * d + 1 - size - first))
                    for (first, last), n, d, size in zip(draw(pads), k, dilation, (h, w), strict=True))  # fmt: skip
    return {"stride": draw(st.tuples(step, step)), "padding": padding, "dilation": dilation}


@st.composite
def conv2d(draw: st.DrawFn, dtype: str) -> Form:
    h, w, c, k, out = draw(sizes), draw(sizes), draw(channels), draw(kernels), draw(channels)
    return Form([(1, h, w, c)], [(*k, c, out), (out,)], {"activation": draw(fused(dtype)), **draw(windows(h, w, k))})


@st.composite
def pointwise(draw: st.DrawFn, dtype: str) -> Form:
    h, w, c, out = (draw(st.integers(1, most)) for most in (14, 14, 70, 140))
    attrs = {"stride": (1, 1), "padding": ((0, 0), (0, 0)), "activation": draw(fused(dtype))}
    return Form([(1, h, w, c)], [(1, 1, c, out), (out,)], attrs)


@st.composite
def depthwise_conv2d(draw: st.DrawFn, dtype: str) -> Form:
    h, w, c, k = draw(sizes), draw(sizes), draw(channels), draw(kernels)
    m = draw(st.sampled_from([1, 1, 1, 2, 3]))
    attrs = {"multiplier": m, "activation": draw(fused(dtype)), **draw(windows(h, w, k))}
    return Form([(1, h, w, c)], [(*k, c * m), (c * m,)], attrs)


@st.composite
def fully_connected(draw: st.DrawFn, dtype: str) -> Form:
    features, out = draw(st.integers(1, 200) | st.sampled_from([255, 1024, 2048])), draw(st.integers(1, 70))
    rows = draw(st.lists(st.integers(1, 9), max_size=2))
    attrs = {"activation": draw(fused(dtype))} | ({"keepdims": True} if rows else {})
    return Form([(1, *rows, features)], [(features, out), (out,)], attrs)


@st.composite
def average_pool(draw: st.DrawFn, dtype: str) -> Form:
    """8 bits: windows and paddings that a .tflite can hold."""
    h, w, c, k = draw(sizes), draw(sizes), draw(channels | st.just(272)), draw(kernels)
    window = draw(windows(h, w, k))
    del window["dilation"]
    if dtype != "float32":
        k = draw(st.integers(1, h)), draw(st.integers(1, w))
        same = tuple(same_padding(size, n, s) for size, n, s in zip((h, w), k, window["stride"], strict=True))
        window["padding"] = draw(st.sampled_from([same, ((0, 0), (0, 0))]))
    return Form([(1, h, w, c)], [], {"kernel": k, "activation": draw(fused(dtype)), **window})


@st.composite
def binary(draw: st.DrawFn, dtype: str) -> Form:
    h, w, c = draw(sizes), draw(sizes), draw(channels)
    full = (1, h, w, c)
    spread = [(1, 1, 1, c), (1, 1, 1, 1), (1, h, 1, c), (1, 1, w, c), (1, h, w, 1), (1, 1, w, 1)]
    shapes = [full, draw(st.sampled_from([full, full, *spread]))]
    if draw(st.integers(0, 9)) == 0:  # rank 2
        shapes = [(1, c), (1, draw(st.sampled_from([1, c])))]
    shapes = shapes[::-1] if draw(st.booleans()) else shapes
    constants = [shapes.pop()] if draw(st.integers(0, 3)) == 0 else []
    return Form(shapes, constants, {"activation": draw(fused(dtype))})


@st.composite
def unary(draw: st.DrawFn, attrs: Callable[[int, int, int], st.SearchStrategy[dict[str, Any]]]) -> Form:
    """A node on an image, whose attributes may depend on its size."""
    h, w, c = draw(sizes), draw(sizes), draw(channels | st.just(272))
    return Form([(1, h, w, c)], [], draw(attrs(h, w, c)))


def _image(**attrs: st.SearchStrategy[Any]) -> Callable[[str], st.SearchStrategy[Form]]:
    return lambda dtype: unary(lambda *_: st.fixed_dictionaries(attrs))


@st.composite
def concat(draw: st.DrawFn, dtype: str) -> Form:
    axis, image = draw(st.integers(1, 3)), (draw(sizes), draw(sizes), draw(channels))
    parts = draw(st.lists(sizes, min_size=2, max_size=4))
    shapes = [(1, *(s if i == axis else d for i, d in enumerate(image, 1))) for s in parts]
    return Form(shapes, [], {"axis": axis} | ({"activation": draw(fused(dtype))} if dtype == "float32" else {}))


def reshape(dtype: str) -> st.SearchStrategy[Form]:
    shapes = lambda h, w, c: [(1, h * w * c), (1, h, w * c), (1, 1, 1, h * w * c)]  # noqa: E731
    return unary(lambda *image: st.sampled_from([{"shape": shape} for shape in shapes(*image)]))


def softmax(dtype: str) -> st.SearchStrategy[Form]:
    betas = st.sampled_from([1.0, 0.5, 2.0])
    return st.builds(lambda n, beta: Form([(1, n)], [], {"beta": beta}), st.integers(1, 300), betas)


def resize_bilinear(dtype: str) -> st.SearchStrategy[Form]:
    modes = st.sampled_from([(False, False), (True, False), (False, True)])
    size = st.tuples(st.integers(1, 20), st.integers(1, 20))
    return unary(lambda *_: st.builds(
        lambda size, mode: {"size": size, "align_corners": mode[0], "half_pixel_centers": mode[1]}, size, modes
    ))  # fmt: skip


LAYERS = {"conv2d": conv2d, "pointwise": pointwise, "depthwise_conv2d": depthwise_conv2d,
          "fully_connected": fully_connected}  # fmt: skip
MOVES = {**dict.fromkeys(BINARY, binary), "average_pool": average_pool, "mean": _image(keepdims=st.booleans()),
         "pad": _image(padding=pads), "reshape": reshape, "concat": concat}  # fmt: skip
FORMS = {**LAYERS, **MOVES, "activation": _image(function=st.sampled_from(ACTIVATIONS)), "softmax": softmax,
         "resize_bilinear": resize_bilinear}  # fmt: skip


# -- scales and zero points --------------------------------------------------------------------------------------------


def nodes_f32(kind: str) -> st.SearchStrategy[Graph]:
    def graph(form: Form) -> Graph:
        ends = [[(shape, "float32", None) for shape in shapes] for shapes in form[:2]]
        return single_q("conv2d" if kind == "pointwise" else kind, *ends, ("float32", None), **form.attrs)

    return FORMS[kind]("float32").map(graph)


def zero_points(dtype: str) -> st.SearchStrategy[int]:
    low, high = LIMITS[dtype]
    return st.one_of(st.sampled_from([low, high, 0, (low + high + 1) // 2]), st.integers(low, high))


def scales(least: float = 2**-10, most: float = 1.0) -> st.SearchStrategy[float]:
    """Spread over their logarithms, and powers of two, which make ties."""
    exponents = st.floats(float(np.log2(least)), float(np.log2(most)))
    return exponents.map(lambda e: 2.0**e) | exponents.map(lambda e: 2.0 ** round(e))


@st.composite
def nodes_q(draw: st.DrawFn, kind: str, dtype: str) -> Graph:
    form = draw(FORMS[kind](dtype))
    scaled = _layer_scales if kind in LAYERS else _binary_scales if kind in BINARY else _scales
    given, out = draw(scaled(kind, dtype, form))
    shapes = [*form.operands, *form.constants]
    kinds = ["int32" if kind in LAYERS and i == 2 else dtype for i in range(len(shapes))]
    ends = list(zip(shapes, kinds, given, strict=True))
    count = len(form.operands)
    return single_q("conv2d" if kind == "pointwise" else kind, ends[:count], ends[count:], (dtype, out), **form.attrs)


Scales = tuple[list[Quantization | None], Quantization]


@st.composite
def _layer_scales(draw: st.DrawFn, kind: str, dtype: str, form: Form) -> Scales:
    """Factors from 2^-12 to 4; int8 weights have a scale for each channel or one, uint8 ones a zero point."""
    factors, weights = st.floats(2.0**-9, 2.0**-3), form.constants[0]
    count, zero = weights[-1], zero_points(dtype)
    if dtype == "int8" and draw(st.booleans()):
        each = draw(st.lists(factors, min_size=count, max_size=count))
        one = Q(tuple(float(np.float32(s)) for s in each), (0,) * count, len(weights) - 1)
    else:
        one = q(draw(factors), draw(zero) if dtype == "uint8" else 0)
    return [q(draw(factors), draw(zero)), one, None], q(draw(st.floats(2.0**-7, 2.0)), draw(zero))


@st.composite
def _binary_scales(draw: st.DrawFn, kind: str, dtype: str, form: Form) -> Scales:
    """Around what training gives, and at times far off, where XNNPACK's delegate refuses and NEON's 16 bits wrap."""
    s_x, s_y, usual, zero = draw(scales()), draw(scales()), draw(st.integers(0, 3)) > 0, zero_points(dtype)
    if kind == "mul":
        s_out = s_x * s_y / draw(scales(2**-9, 1) if usual else scales(2**-20, 2**12))
    else:
        s_out = max(s_x, s_y) * draw(scales(0.25, 4) if usual else scales(2**-12, 2**11))
    return [q(s_x, draw(zero)), q(s_y, draw(zero))], q(s_out, draw(zero))


@st.composite
def _scales(draw: st.DrawFn, kind: str, dtype: str, form: Form) -> Scales:
    """One for all, but that of a mean's result, and of parts of uint8."""
    z = q(draw(scales()), draw(zero_points(dtype)))
    other = st.builds(q, scales(2**-9, 2), zero_points(dtype))
    if kind == "mean" and draw(st.booleans()):
        return [z], q(z.scale[0] * draw(scales(2**-4, 4)), draw(zero_points(dtype)))
    own = kind == "concat" and dtype == "uint8"
    return [draw(st.just(z) | other) if own else z for _ in form.operands], z


def defined(graph: Graph) -> bool:
    """Whether TFLite gives the node a result at all."""
    scale = [graph.tensors[n].quantization for n in (*graph.nodes[0].inputs, graph.nodes[0].output)]
    if graph.nodes[0].op not in ("add", "sub") or None in scale:
        return True
    s_x, s_y, s_out = (s.scale[0] for s in scale if s is not None)
    return max(s_x, s_y) * 2 < 2**20 * s_out


# -- functions of 8-bit values -----------------------------------------------------------------------------------------


@st.composite
def _functions(draw: st.DrawFn, kind: str, dtype: str, small: bool) -> Case:
    """A case of `function`, and its input's values in other orders as further images."""
    seed, batch = draw(st.integers(0, 2**32 - 1)), draw(st.integers(1, 3))
    graph, (x,) = function(kind, dtype, seed, small)
    rng = np.random.default_rng(seed)
    return Case(graph, [np.concatenate([x] + [rng.permuted(x, axis=-1) for _ in range(batch - 1)])])


def _scale(rng: np.random.Generator, least: float, most: float) -> float:
    return float(np.exp(rng.uniform(np.log(least), np.log(most))))


def _zero_point(rng: np.random.Generator, dtype: str) -> int:
    return int(rng.integers(*LIMITS[dtype], endpoint=True))


def _integers(rng: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> Array:
    """All 256 values first, where there is room, then random ones."""
    x: Array = rng.integers(*LIMITS[dtype], shape, dtype, endpoint=True)
    if x.size >= 256:
        x.reshape(-1)[:256] = np.arange(256).astype(np.uint8).view(dtype)
    return x


def function(kind: str, dtype: str, seed: int, small: bool = False) -> Case:
    """A random case: scales and zero points over wide ranges, lengths around the vectors' 8 and 16 elements."""
    rng = np.random.default_rng(seed)
    sizes = [1, 5, 8, 17] if small else [1, 7, 8, 15, 16, 17, 33, 256, 257, 263, 300, 1001]
    shape = (1, int(rng.choice(sizes)))
    zx = q(_scale(rng, 1e-4, 2), _zero_point(rng, dtype))
    s, other = zx.scale[0], ("uint8", "int8")[int(rng.integers(2))]
    if kind == "resize_bilinear":
        return _resize(rng, dtype, zx, small)
    if kind == "softmax":
        return _softmax(rng, dtype, small)
    if kind == "quantize":
        return _quantize(rng, dtype, shape)
    x = _integers(rng, dtype, shape)
    if kind == "dequantize":
        return Case(single_q("dequantize", [(shape, dtype, zx)], [], ("float32", None)), [x])
    if kind == "requantize":
        ratio = 1.0 if rng.integers(4) == 0 else _scale(rng, 1 / 400, 400)
        end = (other, q(s * ratio, _zero_point(rng, other)))
        return Case(single_q("quantize", [(shape, dtype, zx)], [], end), [x])
    if kind == "sigmoid":
        zx = q(_scale(rng, 1e-5, 100), zx.zero_point[0])
        end = (dtype, q(1 / 256, LIMITS[dtype][0]))
    else:
        end = (dtype, q(s * _scale(rng, 1 / 100, 100), _zero_point(rng, dtype)))
    graph = single_q("activation", [(shape, dtype, zx)], [], end, function=kind)
    return Case(graph, [x])


def _quantize(rng: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> Case:
    """Half of the cases sit on ties; a third have a power of two as scale, for which ties are exact."""
    scale = 2.0 ** int(rng.integers(-8, 2)) if rng.integers(3) == 0 else _scale(rng, 1e-4, 2)
    z = q(scale, _zero_point(rng, dtype))
    x = rng.uniform(-300, 300, shape)
    x = np.round(x) + 0.5 if rng.integers(2) else x
    values = (x * np.float32(z.scale[0])).astype(np.float32)
    return Case(single_q("quantize", [(shape, "float32", None)], [], (dtype, z)), [values])


def _softmax(rng: np.random.Generator, dtype: str, small: bool) -> Case:
    """Sums of exponentials below 512: there LiteRT's reference kernel would end the process."""
    classes = int(rng.choice([1, 3, 17] if small else [1, 2, 5, 17, 101, 1001]))
    beta = 1.0 if rng.integers(3) else float(np.float32(rng.uniform(0.1, 3)))
    shape, low = (int(rng.integers(1, 5)), classes), LIMITS[dtype][0]
    z = q(_scale(rng, 0.02 if classes > 500 else 1e-5, 300), _zero_point(rng, dtype))
    graph = single_q("softmax", [((1, *shape), dtype, z)], [], (dtype, q(1 / 256, low)), beta=beta)
    x = _integers(rng, dtype, (1, *shape))
    if classes > 500:
        highest = max(LIMITS[dtype][1] - int(3 / z.scale[0] / beta), LIMITS[dtype][0])
        x[..., 0], x[..., 1:] = LIMITS[dtype][1], np.minimum(x[..., 1:], np.array(highest, dtype))
    elif rng.integers(2):
        x = np.clip(rng.standard_normal(x.shape) * 20, *LIMITS[dtype]).astype(dtype)
    return Case(graph, [x])


def _resize(rng: np.random.Generator, dtype: str, z: Q, small: bool) -> Case:
    h, w, oh, ow = (int(v) for v in rng.integers(1, 5 if small else 12, 4))
    c = int(rng.choice([1, 3] if small else [1, 3, 8, 16, 17, 21]))
    factor = int(rng.integers(0, 3))  # 0: any size
    if factor and not small:
        oh, ow = (2, 8)[factor - 1] * h, (2, 8)[factor - 1] * w
    align, half = ((False, False), (True, False), (False, True))[int(rng.integers(3))]
    attrs = {"size": (oh, ow), "align_corners": align, "half_pixel_centers": half}
    graph = single_q("resize_bilinear", [((1, h, w, c), dtype, z)], [], (dtype, z), **attrs)
    return Case(graph, [_integers(rng, dtype, (1, h, w, c))])
