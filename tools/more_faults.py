"""More faults to plant, as a verifier of hardware would: exchanged numbers, clamps, widths, tiles, tails and steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from faults import FAULTS, FLOWERS, U1, V1, V2, V3, C, D, Fault, Plant, layer, sets, steps, summed, values
from faulty_device import Layer, double, fixed

from npmobilenet.graph import Node
from npmobilenet.modeldata import Array, ModelData


def _exchanged(axis: int, a: int, b: int) -> Plant:
    """Two channels' (or, in the flat window, taps') weights exchanged."""

    def change(w: Array) -> Array:
        order = np.arange(w.shape[axis])
        order[[a, b]] = b, a
        return np.take(w, order, axis)

    return sets(w=change)


def _taps(a: tuple[int, int], b: tuple[int, int]) -> Plant:
    def change(w: Array) -> Array:
        w = w.copy()
        w[a], w[b] = w[b].copy(), w[a].copy()
        return w

    return sets(w=change)


def _copied(w: Array) -> Array:
    w = w.copy()
    w[:, :, 5] = w[:, :, 2]
    return w


def _bound(real: float, below: bool = False) -> Plant:
    """A clamp at another real value."""

    def change(f: Layer) -> None:
        f.high = min(f.most, f.zo + int(np.floor(real / f.so + 0.5)))
        f.low = max(f.least, f.zo - int(np.floor(real / f.so + 0.5))) if below else f.low

    return layer(change)


def _separate_bias(f: Layer, a: Array, m: Any, s: Any) -> Array:
    return np.asarray(double(a - f.b, m, s) + double(f.b, m, s))


def _late_bias(f: Layer, v: Array) -> Array:
    cut = np.clip(v - double(f.b, f.m, f.s) + f.zo, f.low, f.high)
    return np.asarray(np.clip(cut + double(f.b, f.m, f.s), f.least, f.most))


def _stepwise(bits: int) -> Plant:
    """A pointwise layer whose accumulator saturates at each addition; the bias comes first."""

    def change(f: Layer) -> None:
        def accumulated() -> Array:
            acc = np.zeros(f.shape, np.int64) + f.b
            for ci in range(f.w.shape[2]):
                product = (f.x[..., ci : ci + 1] - f.zx) * (f.w[0, 0, ci] - f.zw)
                acc = np.clip(acc + product, -(1 << bits - 1), (1 << bits - 1) - 1)
            return acc

        f.accumulators = accumulated  # type: ignore[method-assign]

    return layer(change)


def _put(index: tuple[Any, ...], value: Callable[[Array], Any]) -> Plant:
    def change(v: Array) -> Array:
        found = v.copy()
        found[index] = value(v)
        return found

    return values(change)


def _stale_tail(data: ModelData, node: Node, given: Mapping[str, Array], right: Array) -> Array:
    """The last 16 channels hold what the buffer held before."""
    order = [n.output for n in data.graph.nodes]
    before = order[: order.index(node.output)]
    old = next(n for n in reversed(before) if data.graph.tensors[n].shape[1:] == right.shape[1:])
    return np.concatenate([right[..., :-16], given[old][..., -16:]], axis=-1)


def _sum(left: int) -> Callable[[dict[str, Any], Array, Array], Array]:
    """A sum whose operands are shifted left by so many bits."""

    def change(p: dict[str, Any], a: Array, b: Array) -> Array:
        most = 2 * max(p["sa"], p["sb"])
        parts = [double((v.astype(np.int64) - z) << left, *fixed(float(s / most)))
                 for v, z, s in ((a, p["za"], p["sa"]), (b, p["zb"], p["sb"]))]  # fmt: skip
        return np.asarray(double(parts[0] + parts[1], *fixed(float(most / (2.0**left * p["so"])))) + p["zo"])

    return change


def _right_sum(**changes: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any], Array, Array], Array]:
    return lambda p, a, b: _sum(20)({**p, **{k: f(p) for k, f in changes.items()}}, a, b)


def multiplied(change: Callable[[dict[str, Any]], Mapping[str, Any]]) -> Plant:
    """A product whose parameters (za, zb, zo, m, s, low, high) are changed."""

    def plant(data: ModelData, node: Node, given: Mapping[str, Array], right: Array) -> Array:
        (a, b), tensors = node.inputs, data.graph.tensors
        found = [data.tensors[n] if tensors[n].constant else given[n] for n in (a, b)]
        qa, qb, qo = (tensors[n].quantization for n in (a, b, node.output))
        assert qa is not None
        assert qb is not None
        assert qo is not None
        scales = [np.float64(np.float32(q.scale[0])) for q in (qa, qb, qo)]
        m, s = fixed(float(scales[0] * scales[1] / scales[2]))
        own = np.iinfo(right.dtype)
        p = {"za": qa.zero_point[0], "zb": qb.zero_point[0], "zo": qo.zero_point[0], "m": m, "s": s, "scaled": double}

        def output(p: Mapping[str, Any]) -> Array:
            product = (found[0].astype(np.int64) - p["za"]) * (found[1].astype(np.int64) - p["zb"])
            v = p["scaled"](product, p["m"], p["s"]) + p["zo"]
            return np.asarray(np.clip(v, own.min, own.max).astype(right.dtype))

        if not np.array_equal(output(p), right):
            raise RuntimeError(f"the device computes '{node.output}' otherwise without a fault")
        return output({**p, **change(p)})

    return plant


def _averaged(total: Callable[[Array], Array], count: Callable[[int], int]) -> Plant:
    """A pool over the whole image, of other pixels or by another count."""

    def plant(data: ModelData, node: Node, given: Mapping[str, Array], right: Array) -> Array:
        x = given[node.inputs[0]].astype(np.int64)
        n, own = count(x.shape[1] * x.shape[2]), np.iinfo(right.dtype)
        quotient = np.sign(t := total(x)) * ((2 * np.abs(t) + n) // (2 * n))
        return np.asarray(np.clip(quotient, own.min, own.max).reshape(right.shape).astype(right.dtype))

    return plant


def _function(f: Callable[[Array], Array]) -> Plant:
    """Another function of real values, in floats."""

    def plant(data: ModelData, node: Node, given: Mapping[str, Array], right: Array) -> Array:
        q, r = (data.graph.tensors[n].quantization for n in (node.inputs[0], node.output))
        assert q is not None
        assert r is not None
        v = (given[node.inputs[0]].astype(np.float64) - q.zero_point[0]) * float(np.float32(q.scale[0]))
        own = np.iinfo(right.dtype)
        whole = np.rint(f(v) / float(np.float32(r.scale[0]))) + r.zero_point[0]
        return np.asarray(np.clip(whole, own.min, own.max).astype(right.dtype))

    return plant


def _entry(data: ModelData, node: Node, given: Mapping[str, Array], right: Array) -> Array:
    """Three entries of a table hold other values."""
    x = given[node.inputs[0]]
    common = np.argsort(-np.bincount(x.reshape(-1).astype(np.int64) - np.iinfo(x.dtype).min))[:3]
    hit = np.isin(x, (common + np.iinfo(x.dtype).min).astype(x.dtype))
    return np.where(hit, right ^ 12, right).astype(right.dtype)


def _quant(data: ModelData, name: str) -> tuple[float, int]:
    q = data.graph.tensors[name].quantization
    assert q is not None
    return float(np.float32(q.scale[0])), q.zero_point[0]


def _windows(x: Array, node: Node, fill: int, shift: int = 0) -> Array:
    """The pixels of each window on two last axes; `fill` outside the image."""
    (top, _), (left, _) = node.attrs["padding"]
    wide = np.pad(x.astype(np.int64), ((0, 0), (top - shift, 9), (left - shift, 9), (0, 0)), constant_values=fill)
    view = np.lib.stride_tricks.sliding_window_view(wide, node.attrs["kernel"], axis=(1, 2))
    return np.asarray(view[:, :: node.attrs["stride"][0], :: node.attrs["stride"][1]])


def _max_pool(fill: int | None = None, shift: int = 0, bytes_: bool = False) -> Plant:
    def plant(data: ModelData, node: Node, given: Mapping[str, Array], right: Array) -> Array:
        x, own = given[node.inputs[0]], np.iinfo(right.dtype)
        lowest = 0 if bytes_ else own.min
        x = x.view(np.uint8) if bytes_ else x
        view = _windows(x, node, lowest if fill is None else fill, shift)
        found = view.max(axis=(-2, -1))[:, : right.shape[1], : right.shape[2]]
        return np.asarray(found.astype(np.uint8).view(right.dtype) if bytes_ else found.astype(right.dtype))

    return plant


def _padded_average(data: ModelData, node: Node, given: Mapping[str, Array], right: Array) -> Array:
    """The padding counts, as the zero point."""
    view = _windows(given[node.inputs[0]], node, _quant(data, node.inputs[0])[1])
    total = view.sum(axis=(-2, -1))[:, : right.shape[1], : right.shape[2]]
    n = node.attrs["kernel"][0] * node.attrs["kernel"][1]
    return np.asarray((np.sign(total) * ((2 * abs(total) + n) // (2 * n))).astype(right.dtype))


def _joined(change: Callable[[list[Array]], list[Array]]) -> Plant:
    def plant(data: ModelData, node: Node, given: Mapping[str, Array], right: Array) -> Array:
        ends = np.cumsum([given[n].shape[-1] for n in node.inputs])[:-1]
        return np.concatenate(change(np.split(right, ends, -1)), axis=-1)

    return plant


def _as_stored(data: ModelData, node: Node, given: Mapping[str, Array], right: Array) -> Array:
    return np.concatenate([given[n] for n in node.inputs], axis=-1)


def _pad(fill: int | None, turned: bool = False) -> Plant:
    def plant(data: ModelData, node: Node, given: Mapping[str, Array], right: Array) -> Array:
        (a, b), (c, d) = node.attrs["padding"]
        sides = ((b, a), (d, c)) if turned else ((a, b), (c, d))
        value = _quant(data, node.output)[1] if fill is None else fill
        return np.pad(given[node.inputs[0]], ((0, 0), *sides, (0, 0)), constant_values=value)

    return plant


def _mean(take: Callable[[Array], Array], count: Callable[[int], int]) -> Plant:
    """A mean of other pixels or by another count, in floats."""

    def plant(data: ModelData, node: Node, given: Mapping[str, Array], right: Array) -> Array:
        (s, z), (t, y), x = _quant(data, node.inputs[0]), _quant(data, node.output), given[node.inputs[0]]
        n, own = count(x.shape[1] * x.shape[2]), np.iinfo(right.dtype)
        v = (take(x).astype(np.float64) - z).sum(axis=(1, 2)) * s / t / n
        return np.asarray(np.clip(np.trunc(v + np.copysign(0.5, v)) + y, own.min, own.max).astype(right.dtype))

    return plant


def _requantized(whole: Callable[[Array], Array], times: float = 1.0, beside: int = 0) -> Plant:
    """A quantize in floats with another rounding, scale or zero point."""

    def plant(data: ModelData, node: Node, given: Mapping[str, Array], right: Array) -> Array:
        (s, z), (t, y), own = _quant(data, node.inputs[0]), _quant(data, node.output), np.iinfo(right.dtype)
        v = whole((given[node.inputs[0]].astype(np.float64) - z) * s * times / t)
        return np.asarray(np.clip(v + y + beside, own.min, own.max).astype(right.dtype))

    return plant


def _resized(data: ModelData, node: Node, given: Mapping[str, Array], right: Array) -> Array:
    """Nearest pixels, positions cut off, no half pixels."""
    x, (h, w) = given[node.inputs[0]], right.shape[1:3]
    return x[:, np.arange(h) * x.shape[1] // h][:, :, np.arange(w) * x.shape[2] // w]


def _soft(beta: float) -> Plant:
    def plant(data: ModelData, node: Node, given: Mapping[str, Array], right: Array) -> Array:
        v = given[node.inputs[0]].astype(np.float64) * _quant(data, node.inputs[0])[0] * beta
        e, own = np.exp(v - v.max(axis=-1, keepdims=True)), np.iinfo(right.dtype)
        share = np.rint(e / e.sum(axis=-1, keepdims=True) * 256) + own.min
        return np.asarray(np.clip(share, own.min, own.max).astype(right.dtype))

    return plant


def _blocks(array: Array) -> Array:
    return array[np.arange(len(array)) // 8 * 8]


def _half(shift: Array) -> Array:
    return shift - (np.arange(len(shift)) >= len(shift) // 2)


I8, U8 = "small ops int8", "small ops uint8"
MORE = (
    Fault(
        "two output channels' weights exchanged",
        V1,
        C,
        0.5,
        "weights of channels 2 and 5 are swapped",
        _exchanged(-1, 2, 5),
    ),
    Fault(
        "two output channels' weights exchanged",
        U1,
        D,
        0.3,
        "weights of channels 3 and 9 are swapped",
        _exchanged(-1, 3, 9),
        "npz",
    ),
    Fault("two input channels exchanged", V2, C, 0.5, "input channels 1 and 6 are swapped", _exchanged(2, 1, 6), "bin"),
    Fault("two input channels exchanged", U1, C, 1, "input channels 0 and 33 are swapped", _exchanged(2, 0, 33)),
    Fault(
        "two input channels exchanged",
        FLOWERS,
        C,
        0,
        "input channels 0 and 2 are swapped|read as|reverse",
        _exchanged(2, 0, 2),
    ),
    Fault("two taps exchanged", V1, D, 0.5, "taps .* are swapped", _taps((0, 1), (2, 2)), "csv"),
    Fault(
        "an input channel's weights used twice",
        FLOWERS,
        C,
        0.5,
        "weights of input channel 2 stand in place of those of 5",
        sets(w=_copied),
        "json",
    ),
    Fault("relu1 in place of relu6", V1, C, 0.3, "relu1 cuts it|clamp", _bound(1.0)),
    Fault("clamp at 4", U1, D, 0.4, "upper bound of its clamp is", _bound(0.8), "npz"),
    Fault("relu_n1_to_1 behind a linear layer", V2, C, 0.52, "relu_n1_to_1|clamp", _bound(1.0, below=True), "bin"),
    Fault(
        "values doubled: shift of all off by one", V2, D, 0.4, "shift is off by \\+1", sets(s=lambda s: s + 1), "csv"
    ),
    Fault("values halved: shift of all off by one", U1, C, 0.6, "shift is off by -1", sets(s=lambda s: s - 1)),
    Fault("shift off in the upper half of channels", V1, C, 0.6, "shifts? of|shift is", sets(s=_half), "json"),
    Fault(
        "values as stored doubled", V1, C, 1, "doubled", values(lambda v: np.clip(v.astype(np.int64) * 2, -128, 127))
    ),
    Fault(
        "weights clipped to 7 bits as stored",
        U1,
        C,
        0.5,
        "weights saturate at 7 bits as stored",
        sets(w=lambda w: np.minimum(w, 127)),
        "npz",
    ),
    Fault(
        "weights clipped to 7 bits",
        V1,
        D,
        0.5,
        "weights saturate at 7 bits",
        sets(w=lambda w: np.clip(w, -64, 63)),
        "bin",
    ),
    Fault(
        "weights clipped to 4 bits",
        V2,
        C,
        0.4,
        "weights saturate at 4 bits",
        sets(w=lambda w: np.clip(w, -8, 7)),
        "csv",
    ),
    Fault("weights wrap at 7 bits", V1, C, 0, "weights wrap at 7 bits|bit 7", sets(w=lambda w: (w + 64) % 128 - 64)),
    Fault("weights' sign lost", V2, D, 0.7, "weights.* sign", sets(w=abs), "json"),
    Fault(
        "weights rounded to 5 bits",
        V1,
        D,
        0.2,
        "weights.*rounded to",
        sets(w=lambda w: np.clip((w + 4) // 8 * 8, -128, 127)),
    ),
    Fault(
        "input clipped to 7 bits",
        V2,
        C,
        0.6,
        "input.* saturate at 7 bits",
        layer(lambda f: vars(f).update(x=np.clip(f.x - f.zx, -64, 63) + f.zx)),
        "npz",
    ),
    Fault("bias rescaled by itself", V1, C, 0.4, "bias are rescaled one by one", steps(scaled=_separate_bias)),
    Fault(
        "bias added as stored behind the rescaling",
        V2,
        C,
        0.5,
        "bias is added as stored",
        steps(scaled=lambda f, a, m, s: double(a - f.b, m, s) + f.b),
        "bin",
    ),
    Fault(
        "clamp before the bias",
        V1,
        D,
        0.4,
        "before the bias",
        steps(scaled=_separate_bias, clamped=_late_bias),
        "npz",
    ),
    Fault(
        "bias saturates at 9 bits", U1, C, 0.7, "bias saturates at 9|bias of", sets(b=lambda b: np.clip(b, -256, 255))
    ),
    Fault(
        "bias missing in the last 8 channels",
        V2,
        C,
        0.7,
        "bias is missing",
        sets(b=lambda b: b * (np.arange(len(b)) < len(b) - 8)),
        "csv",
    ),
    Fault("weights' zero point ignored", U1, C, 0.3, "weights' zero point is missing", sets(zw=0), "bin"),
    Fault("weights' zero point 128", U1, D, 0.6, "weights' zero point is", sets(zw=128)),
    Fault("accumulators saturate at every step", V1, C, 0.5, "saturate at 14 bits at every", _stepwise(14)),
    Fault("multiplier of the first of 8 channels", V1, C, 0.5, "first of its 8", sets(m=_blocks, s=_blocks), "json"),
    Fault("odd channels hold 0", V1, C, 0.4, "channels.* hold 0", _put((..., slice(1, None, 2)), lambda v: 0), "npz"),
    Fault(
        "odd channels repeat even ones",
        V2,
        D,
        0.5,
        "channels .*hold",
        _put((..., slice(1, None, 2)), lambda v: v[..., ::2]),
    ),
    Fault("last 8 channels not written", U1, C, 0.5, "hold 128", _put((..., slice(-8, None)), lambda v: 128), "bin"),
    Fault("last 16 channels stale", V1, C, 0.7, "another buffer", _stale_tail, "csv"),
    Fault(
        "every fourth row repeats",
        V2,
        D,
        0,
        "rows .*hold",
        _put((slice(None), slice(3, None, 4)), lambda v: v[:, 2::4]),
    ),
    Fault(
        "last tile of rows repeats",
        U1,
        C,
        0,
        "rows .*hold",
        _put((slice(None), slice(-4, None)), lambda v: v[:, -8:-4]),
        "npz",
    ),
    Fault(
        "corner tile not written",
        V1,
        D,
        0,
        "hold 7",
        _put((slice(None), slice(-8, None), slice(-8, None)), lambda v: 7),
    ),
    Fault(
        "phase of stride 2 shifted",
        V2,
        D,
        0.08,
        "padding (mirrored|lies on the other side)",
        sets(top=lambda t: t - 1, left=lambda t: t - 1),
        "bin",
    ),
    Fault(
        "all images are the first", U1, C, 0.8, "images are the first", values(lambda v: np.repeat(v[:1], len(v), 0))
    ),
    Fault("low 2 bits of values lost", V2, D, 0.9, "lose their low 2 bits", values(lambda v: v >> 2 << 2), "json"),
    Fault("sum: left shift 3", V2, "add", 0.4, "shifted left by 3", summed(_sum(3)), "npz"),
    Fault(
        "sum: both zero points missing",
        V2,
        "add",
        0.7,
        "zero points",
        summed(_right_sum(za=lambda p: 0, zb=lambda p: 0)),
    ),
    Fault(
        "sum: operands exchanged",
        FLOWERS,
        "add",
        0.6,
        "operands are swapped",
        summed(lambda p, a, b: _sum(20)(p, b, a)),
        "bin",
    ),
    Fault(
        "sum: an operand's bytes read as uint8",
        V2,
        "add",
        0.2,
        "bytes of .* are read as uint8",
        summed(lambda p, a, b: _sum(20)(p, a.view(np.uint8), b)),
        "csv",
    ),
    Fault(
        "sum: output's scale doubled",
        V2,
        "add",
        0.9,
        "shift is off|scale of",
        summed(_right_sum(so=lambda p: 2 * p["so"])),
    ),
    Fault(
        "product: fraction cut off",
        V3,
        "mul",
        0.5,
        "cut off",
        multiplied(lambda p: {"scaled": lambda a, m, s: a * m >> 31 - s}),
        "npz",
    ),
    Fault(
        "product: zero point of an operand missing",
        V3,
        "mul",
        0,
        "zero point of .* is missing",
        multiplied(lambda p: {"za": 0}),
    ),
    Fault(
        "product: shift off by one",
        V3,
        "mul",
        1,
        "shift is off by \\+1",
        multiplied(lambda p: {"s": p["s"] + 1}),
        "bin",
    ),
    Fault(
        "pool divided by another count",
        U1,
        "average_pool",
        1,
        "divided by",
        _averaged(lambda x: x.sum(axis=(1, 2)), lambda n: 2 * n),
    ),
    Fault(
        "pool leaves the last row out",
        V1,
        "average_pool",
        1,
        "left out",
        _averaged(lambda x: x[:, :-1].sum(axis=(1, 2)), lambda n: n),
        "csv",
    ),
    Fault(
        "swish in place of hard-swish",
        V3,
        "activation",
        0.3,
        "swish \\(x \\* sigmoid",
        _function(lambda v: v / (1 + np.exp(-v))),
    ),
    Fault("three entries of a table wrong", V3, "activation", 0.6, "table's entries are wrong", _entry, "npz"),
    Fault(
        "two channels' weights exchanged, output not dumped",
        V1,
        D,
        0.5,
        "channels.*swapped|input channels",
        _exchanged(-1, 1, 4),
        "npy",
        "behind",
    ),
    Fault(
        "two channels' weights exchanged, input not dumped",
        V1,
        D,
        0.4,
        "weights of channels 1 and 4 are swapped",
        _exchanged(-1, 1, 4),
        "npy",
        "before",
    ),
    Fault("max pool padded with 0", I8, "max_pool", 0, "padding holds 0", _max_pool(fill=0)),
    Fault(
        "max pool's window one pixel lower",
        U8,
        "max_pool",
        0,
        "padding lies on the other side",
        _max_pool(shift=1),
        "npz",
    ),
    Fault("max pool compares bytes as uint8", I8, "max_pool", 0, "bytes as uint8", _max_pool(bytes_=True), "bin"),
    Fault("pool counts its padding", U8, "average_pool", 0, "divided by the whole window", _padded_average),
    Fault("pool counts its padding", I8, "average_pool", 0, "divided by the whole window", _padded_average, "csv"),
    Fault(
        "operands joined in another order",
        U8,
        "concat",
        0,
        "in the order 1, 0|halves",
        _joined(lambda v: v[::-1]),
        "npz",
    ),
    Fault("operands joined without rescaling", U8, "concat", 0, "as stored", _as_stored),
    Fault(
        "an operand's second half stale", I8, "concat", 0, "operand 0 stands in place", _joined(lambda v: [v[0], v[0]])
    ),
    Fault("pad holds 0", U8, "pad", 0, "padding holds 0", _pad(0), "bin"),
    Fault("pad on the other side", I8, "pad", 0, "lies on the other side", _pad(None, turned=True)),
    Fault("mean divided by one less", I8, "mean", 0, "divided by 224", _mean(lambda x: x, lambda n: n - 1), "npz"),
    Fault(
        "mean leaves the first column out",
        U8,
        "mean",
        0,
        "first column is left out",
        _mean(lambda x: x[:, :, 1:], lambda n: n),
    ),
    Fault("quantize cut off", I8, "quantize", 1, "cut off", _requantized(np.floor)),
    Fault(
        "quantize with twice the scale",
        U8,
        "quantize",
        1,
        "scale of",
        _requantized(lambda v: np.trunc(v + np.copysign(0.5, v)), 2.0),
        "csv",
    ),
    Fault(
        "quantize's zero point off by one",
        I8,
        "quantize",
        1,
        "off by \\+1",
        _requantized(lambda v: np.trunc(v + np.copysign(0.5, v)), beside=1),
    ),
    Fault("nearest in place of bilinear", U8, "resize_bilinear", 0, "nearest", _resized),
    Fault("softmax's beta doubled", U8, "softmax", 0, "beta", _soft(2.0), "json"),
    Fault("softmax's beta doubled", I8, "softmax", 0, "beta", _soft(2.0)),
)
ALL = (*FAULTS, *MORE)
