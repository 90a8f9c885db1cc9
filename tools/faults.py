"""The faults that plant_faults.py plants: each changes one node of a device (faulty_device.py), in plain NumPy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from faulty_device import Layer, addition, real

from npmobilenet.graph import Node
from npmobilenet.modeldata import Array, ModelData

Plant = Callable[[ModelData, Node, Mapping[str, Array], Array], Array]  # model, node, values, right output


class Fault(NamedTuple):
    """`says`: a pattern that the named cause has to match. `op`: of the node; `where`: 0 first, 0.5 middle, 1 last of
    that op in the model; `model`: a name of plant_faults.MODELS. `form` of the dump, and what it lacks: "" nothing,
    "before" the node's own input, "around" all but every second tensor.
    """

    name: str
    model: str
    op: str
    where: float
    says: str
    plant: Plant
    form: str = "npy"
    lacks: str = ""


def layer(change: Callable[[Layer], Any]) -> Plant:
    """A layer whose numbers are changed."""

    def plant(data: ModelData, node: Node, values: Mapping[str, Array], right: Array) -> Array:
        found = Layer(data, node, values)
        if not np.array_equal(found.output(), right):
            raise RuntimeError(f"the device computes '{node.output}' otherwise without a fault")
        change(found)
        return found.output()

    return plant


def sets(**fields: Any) -> Plant:
    """A layer with other numbers; a function gets the number that was there."""

    def change(found: Layer) -> None:
        for name, value in fields.items():
            setattr(found, name, value(getattr(found, name)) if callable(value) else value)

    return layer(change)


def steps(**functions: Callable[..., Array]) -> Plant:
    """A layer with other steps (sums, scaled, clamped); each gets the layer first."""

    def change(found: Layer) -> None:
        for name, function in functions.items():
            setattr(found, name, lambda *args, f=function: f(found, *args))

    return layer(change)


def values(change: Callable[[Array], Array]) -> Plant:
    """Right values changed afterwards."""
    return lambda data, node, given, right: np.ascontiguousarray(change(right).astype(right.dtype))


def mapped(change: Callable[[Array], Array]) -> Plant:
    """The table of a function of single values changed: it is learnt from the right values, by nearest entries."""

    def plant(data: ModelData, node: Node, given: Mapping[str, Array], right: Array) -> Array:
        x = given[node.inputs[0]]
        own = np.iinfo(x.dtype)
        known = np.unique(x)
        firsts = [right.reshape(-1)[np.argmax(x.reshape(-1) == v)] for v in known]
        table = np.interp(np.arange(own.min, own.max + 1), known, firsts).round().astype(np.int64)
        return np.asarray(change(table)[x.astype(np.int64) - own.min].astype(right.dtype))

    return plant


def summed(change: Callable[[dict[str, Any], Array, Array], Array]) -> Plant:
    """An addition whose parameters (za, zb, zo, sa, sb, so) are changed; gives the integers before the 8-bit clamp."""

    def plant(data: ModelData, node: Node, given: Mapping[str, Array], right: Array) -> Array:
        (a, b), tensors = node.inputs, data.graph.tensors
        q = [tensors[n].quantization for n in (a, b, node.output)]
        p = {f"{k}{w}": (np.float64(np.float32(v.scale[0])) if k == "s" else v.zero_point[0])
             for v, w in zip(q, "abo", strict=True) if v is not None for k in "sz"}  # fmt: skip
        own = np.iinfo(right.dtype)
        same = np.clip(addition(given[a], given[b], p) + p["zo"], own.min, own.max)
        if not np.array_equal(same, right):
            raise RuntimeError(f"the device computes '{node.output}' otherwise without a fault")
        return np.clip(change(p, given[a], given[b]), own.min, own.max).astype(right.dtype)

    return plant


def _flip(name: str, at: tuple[int, ...], bit: int) -> Plant:
    def change(found: Layer) -> None:
        array = getattr(found, name).copy()
        index = tuple(i % n for i, n in zip(at, array.shape, strict=True))
        span = 256 if name == "w" else 2**32
        low = found.least if name == "w" else -(2**31) if name == "b" else 0
        array[index] = (array[index] % span) ^ (1 << bit)
        array[index] = (array[index] - low) % span + low
        setattr(found, name, array)

    return layer(change)


def _swap_scales(p: dict[str, Any], a: Array, b: Array) -> Array:
    return np.asarray(addition(a, b, {**p, "sa": p["sb"], "sb": p["sa"]}) + p["zo"])


def _stale(data: ModelData, node: Node, given: Mapping[str, Array], right: Array) -> Array:
    """The layer reads what its buffer held before: the last other tensor of that size."""
    own = given[node.inputs[0]]
    order = [n.output for n in data.graph.nodes]
    before = order[: order.index(node.output)]
    old = next(n for n in reversed(before) if n != node.inputs[0] and data.graph.tensors[n].shape[1:] == own.shape[1:])
    return Layer(data, node, {**given, node.inputs[0]: given[old]}).output()


def _rolled(array: Array) -> Array:
    return np.roll(array, 1)


def _saturating(bits: int) -> Callable[..., Array]:
    return lambda _, acc: np.clip(acc, -(1 << bits - 1), (1 << bits - 1) - 1)


def _swish(data: ModelData, node: Node, given: Mapping[str, Array], _: Array) -> Array:
    x, y = (data.graph.tensors[n] for n in (node.inputs[0], node.output))
    assert x.quantization is not None
    assert y.quantization is not None
    v = (given[x.name].astype(np.float64) - x.quantization.zero_point[0]) * float(np.float32(x.quantization.scale[0]))
    own = np.iinfo(y.dtype)
    swish = v * np.minimum(np.maximum(v + 3, 0), 6) / 6 / float(np.float32(y.quantization.scale[0]))
    out: Array = np.clip(np.floor(swish) + y.quantization.zero_point[0], own.min, own.max).astype(y.dtype)
    return out


def _softmax(data: ModelData, node: Node, given: Mapping[str, Array], right: Array) -> Array:
    q = data.graph.tensors[node.inputs[0]].quantization
    assert q is not None
    v = given[node.inputs[0]].astype(np.float64) * float(np.float32(q.scale[0]))
    e = np.exp(v - v.max(axis=-1, keepdims=True))
    own = np.iinfo(right.dtype)
    out: Array = np.clip(np.floor(e / e.sum(axis=-1, keepdims=True) * 256) + own.min, own.min, own.max).astype(
        right.dtype
    )
    return out


def _pooled(quotient: Callable[[Array, int], Array]) -> Plant:
    def plant(data: ModelData, node: Node, given: Mapping[str, Array], right: Array) -> Array:
        x = given[node.inputs[0]].astype(np.int64)
        total = x.sum(axis=(1, 2), keepdims=True)  # of pools over the whole image
        return quotient(total, x.shape[1] * x.shape[2]).reshape(right.shape).astype(right.dtype)

    return plant


V1, V2, V3 = "V1 int8", "V2 int8", "V3 uint8"
U1, FLOWERS = "V1 uint8", "flowers uint8"
C, D = "conv2d", "depthwise_conv2d"

FAULTS = (
    Fault(
        "padding mirrored (stride 2)",
        V1,
        C,
        0,
        "padding (mirrored|lies on the other side)",
        layer(lambda f: vars(f).update(top=f.bottom, left=f.right)),
    ),
    Fault("padding one row lower", V2, D, 0.5, "padding lies on the other side", sets(top=lambda t: t - 1), "npz"),
    Fault(
        "padding one column to the right",
        U1,
        D,
        0.5,
        "padding lies on the other side",
        sets(left=lambda t: t - 1),
        "bin",
    ),
    Fault("padding holds 0", FLOWERS, C, 0, "padding holds 0", sets(fill=0), "csv"),
    Fault("padding holds 0", V1, D, 0.5, "padding holds 0", sets(fill=0), "json"),
    Fault("padding holds 127", V2, D, 0, "padding holds 127", sets(fill=127)),
    Fault("border pixel repeated", V2, D, 1, "border pixel repeated", sets(border="edge"), "npz"),
    Fault("window turned by 180 degrees", V1, D, 0, "turned by 180", sets(w=lambda w: w[::-1, ::-1]), "bin"),
    Fault("kh and kw swapped", U1, D, 1, "kh and kw swapped", sets(w=lambda w: w.swapaxes(0, 1)), "csv"),
    Fault("kh and kw swapped", V2, C, 0, "kh and kw swapped", sets(w=lambda w: w.swapaxes(0, 1)), "view"),
    Fault(
        "weights OHWI read as HWIO",
        V1,
        C,
        0,
        "OHWI read as HWIO",
        sets(w=lambda w: w.transpose(3, 0, 1, 2).reshape(w.shape)),
    ),
    Fault(
        "weights HWIO read as OHWI",
        FLOWERS,
        C,
        0.5,
        "(HWIO read as OHWI|IO read as OI)",
        sets(w=lambda w: w.reshape(w.shape[3], *w.shape[:3]).transpose(1, 2, 3, 0)),
        "npz",
    ),
    Fault(
        "weights OIHW read as OHWI",
        V2,
        C,
        0,
        "OIHW read as OHWI",
        sets(w=lambda w: w.transpose(3, 2, 0, 1).reshape(w.shape[3], *w.shape[:3]).transpose(1, 2, 3, 0)),
        "bin",
    ),
    Fault(
        "ci and co swapped",
        V2,
        C,
        1,
        "transposed|read as",
        sets(w=lambda w: w.transpose(0, 1, 3, 2).reshape(w.shape)),
        "npz",
    ),
    Fault("bias rolled by one", V1, C, 0.5, "bias has its channels rolled by 1", sets(b=_rolled), "json"),
    Fault("bias missing", V2, D, 0.5, "bias is missing", sets(b=lambda b: b * 0), "csv"),
    Fault("bias missing", FLOWERS, C, 0, "bias is missing", sets(b=lambda b: b * 0), "npz"),
    Fault(
        "bias of one channel off by 300",
        V1,
        D,
        0.5,
        "bias of channel 3",
        layer(lambda f: setattr(f, "b", f.b + 300 * (np.arange(f.b.size) == 3))),
        "bin",
    ),
    Fault(
        "bias in 10 bits, wrapping",
        U1,
        C,
        0.5,
        "bias wraps at 10|bias of channel",
        layer(lambda f: setattr(f, "b", (f.b + 512) % 1024 - 512)),
        "npz",
    ),
    Fault("multipliers rolled by one", V1, C, 0.5, "multipliers.* rolled by 1", sets(m=_rolled, s=_rolled), "csv"),
    Fault(
        "multiplier of channel 0 for all",
        V2,
        C,
        0.5,
        "multiplier and shift of channel 0",
        sets(m=lambda m: m * 0 + m[0], s=lambda s: s * 0 + s[0]),
    ),
    Fault(
        "shift of one channel off by one",
        V2,
        D,
        1,
        "shift of channel 5",
        layer(lambda f: setattr(f, "s", f.s + (np.arange(f.s.size) == 5))),
        "view",
    ),
    Fault("multiplier's bit 27 of one channel", V1, D, 1, "bit 27 of its multiplier", _flip("m", (7,), 27), "json"),
    Fault(
        "multipliers with 16 bits",
        V2,
        C,
        0.5,
        "multiplier has 15 bits: the low 16 are dropped|low 16",
        sets(m=lambda m: m >> 16 << 16),
        "bin",
    ),
    Fault(
        "multipliers with 8 bits, rounded once",
        U1,
        C,
        0.5,
        "multiplier has (8|7|9) bits.*one step",
        layer(lambda f: vars(f).update(m=f.m >> 23 << 23, scaled=lambda a, m, s: np.floor(real(a, m, s) + 0.5))),
        "npz",
    ),
    Fault(
        "fraction cut off toward zero",
        V1,
        C,
        0,
        "cut off toward zero",
        steps(scaled=lambda _, a, m, s: np.trunc(real(a, m, s))),
    ),
    Fault(
        "fraction cut off toward minus infinity",
        FLOWERS,
        D,
        0.5,
        "cut off toward minus infinity",
        steps(scaled=lambda _, a, m, s: np.floor(real(a, m, s))),
        "csv",
    ),
    Fault(
        "rounded once, half up",
        V2,
        C,
        0.5,
        "(single-rounding|one step)",
        steps(scaled=lambda _, a, m, s: np.floor(real(a, m, s) + 0.5)),
        "bin",
    ),
    Fault(
        "rounded half to even",
        V1,
        D,
        1,
        "(half to even|xnnpack|one step)",
        steps(scaled=lambda _, a, m, s: np.rint(real(a, m, s))),
    ),
    Fault("logits cut off", V1, C, 1, "cut off", steps(scaled=lambda _, a, m, s: np.trunc(real(a, m, s))), "json"),
    Fault(
        "input's zero point off by one",
        V2,
        C,
        0.5,
        "input's zero point is off by \\+1",
        sets(zx=lambda z: z + 1, fill=lambda _: None),
    ),
    Fault(
        "input's zero point missing",
        FLOWERS,
        C,
        0,
        "input's zero point is missing",
        layer(lambda f: vars(f).update(fill=f.zx, zx=0)),
        "npz",
    ),
    Fault(
        "weights' zero point off by one",
        U1,
        D,
        0.5,
        "weights' zero point is off by -1",
        sets(zw=lambda z: z - 1),
        "csv",
    ),
    Fault(
        "input's bytes read as uint8",
        V1,
        C,
        0,
        "bytes of its input are read as uint8",
        layer(lambda f: vars(f).update(fill=f.zx, x=f.x % 256)),
        "bin",
    ),
    Fault(
        "weights' bytes read as int8",
        U1,
        C,
        0.5,
        "bytes of its weights are read as int8",
        sets(w=lambda w: (w + 128) % 256 - 128),
        "npz",
    ),
    Fault(
        "output's zero point off by one",
        V2,
        C,
        1,
        "output's zero point.* off by \\+1|values are off by \\+1",
        sets(zo=lambda z: z + 1),
    ),
    Fault("output's zero point missing", U1, C, 1, "output's zero point.* missing", sets(zo=0), "json"),
    Fault(
        "accumulators saturate at 16 bits",
        V1,
        C,
        0,
        "accumulators saturate at 16 bits",
        steps(sums=_saturating(16)),
        "csv",
    ),
    Fault(
        "accumulators wrap at 15 bits",
        U1,
        C,
        0.5,
        "accumulators wrap at 15 bits",
        steps(sums=lambda _, a: (a + (1 << 14)) % (1 << 15) - (1 << 14)),
        "npz",
    ),
    Fault(
        "accumulators lose their low 6 bits",
        V2,
        D,
        0,
        "accumulators lose their low 6 bits",
        steps(sums=lambda _, a: a // 64 * 64),
    ),
    Fault(
        "activation's bound off by one",
        V1,
        C,
        0.5,
        "lower bound of its clamp is off by \\+1",
        sets(low=lambda low: low + 1),
        "bin",
    ),
    Fault(
        "accumulators lose their low 8 bits",
        U1,
        D,
        0.5,
        "accumulators lose their low 8 bits",
        steps(sums=lambda _, a: a // 256 * 256),
        "csv",
    ),
    Fault(
        "a relu that isn't there",
        V2,
        C,
        1,
        "a relu that isn't there cuts at the zero point",
        layer(lambda f: vars(f).update(low=f.zo)),
        "npz",
    ),
    Fault(
        "clamp before the zero point",
        V1,
        D,
        0.5,
        "clamp is taken before the zero point",
        steps(clamped=lambda f, v: np.clip(np.clip(v, f.low, f.high) + f.zo, f.least, f.most)),
        "json",
    ),
    Fault("no saturation", V2, C, 1, "wrap instead of being clamped", steps(clamped=lambda f, v: v + f.zo), "view"),
    Fault(
        "one weight's bit 6",
        V1,
        C,
        0,
        "bit 6 of its weight \\(ky 1, kx 2, ci 1, co 4\\)",
        _flip("w", (1, 2, 1, 4), 6),
        "npz",
    ),
    Fault(
        "one weight's bit 4",
        V2,
        D,
        1,
        "bit 4 of its weight \\(ky 1, kx 1, co 9\\)|any of",
        _flip("w", (1, 1, 9), 4),
        "bin",
    ),
    Fault("one weight's bit 7", FLOWERS, C, 0.5, "bit 7 of its weight", _flip("w", (0, 0, 3, 11), 7), "csv"),
    Fault("one bias's bit 12", U1, D, 0.5, "bias of channel 6", _flip("b", (6,), 12), "json"),
    Fault(
        "channels of the output in reverse order",
        V2,
        C,
        0.5,
        "channels in reverse order",
        values(lambda v: v[..., ::-1]),
    ),
    Fault(
        "halves of the channels swapped",
        U1,
        D,
        0,
        "halves of the channels swapped",
        values(lambda v: np.roll(v, v.shape[-1] // 2, -1)),
        "npz",
    ),
    Fault(
        "channels interleaved",
        V1,
        C,
        0.5,
        "interleaved",
        values(lambda v: v.reshape(*v.shape[:-1], 4, -1).swapaxes(-1, -2).reshape(v.shape)),
        "bin",
    ),
    Fault(
        "rows and columns swapped",
        FLOWERS,
        D,
        0.5,
        "rows and columns swapped",
        values(lambda v: v.swapaxes(1, 2)),
        "csv",
    ),
    Fault("input from another buffer", V1, C, 0.7, "another buffer", _stale, "npz"),
    Fault(
        "last rows never written",
        U1,
        C,
        0,
        "never written",
        values(lambda v: np.concatenate([v[:, :-3], v[:, -3:] * 0], axis=1)),
        "json",
    ),
    Fault("sum: scales swapped", V2, "add", 0.5, "scales.*swapped", summed(_swap_scales), "bin"),
    Fault(
        "sum: zero points swapped",
        V2,
        "add",
        0,
        "zero points.*swapped",
        summed(lambda p, a, b: addition(a, b, {**p, "za": p["zb"], "zb": p["za"]}) + p["zo"]),
        "csv",
    ),
    Fault(
        "sum: not rescaled",
        V2,
        "add",
        1,
        "without rescaling",
        summed(lambda p, a, b: a.astype(np.int64) + b - p["za"] - p["zb"] + p["zo"]),
        "npz",
    ),
    Fault(
        "sum: fraction cut off",
        FLOWERS,
        "add",
        0.5,
        "cut off",
        summed(lambda p, a, b: addition(a, b, p, lambda v, m, s: np.floor(real(v, m, s))) + p["zo"]),
    ),
    Fault(
        "sum: an operand missing",
        FLOWERS,
        "add",
        0,
        "is missing",
        summed(lambda p, a, b: addition(a, b * 0 + p["zb"], p) + p["zo"]),
        "json",
    ),
    Fault(
        "hard-swish in floats, cut off",
        V3,
        "activation",
        0.5,
        "in floats",
        _swish,
    ),
    Fault(
        "table off by one entry",
        V3,
        "activation",
        0,
        "table is read [+-]1|table's entries",
        mapped(lambda t: t[np.minimum(np.arange(256) + 1, 255)]),
        "npz",
    ),
    Fault(
        "table's entries off by one",
        V3,
        "activation",
        1,
        "off by \\+1",
        values(lambda v: np.minimum(v.astype(np.int64) + 1, 255)),
        "bin",
    ),
    Fault("pool's fraction cut off", U1, "average_pool", 1, "cut off", _pooled(lambda t, n: t // n)),
    Fault(
        "bias missing, its input not dumped", V2, C, 0.5, "bias is missing", sets(b=lambda b: b * 0), "npy", "before"
    ),
    Fault("padding holds 0, its input not dumped", V1, D, 0.5, "padding holds 0", sets(fill=0), "npz", "before"),
    Fault(
        "fraction cut off, its input not dumped",
        U1,
        C,
        0.5,
        "cut off",
        steps(scaled=lambda _, a, m, s: np.floor(real(a, m, s))),
        "bin",
        "before",
    ),
    Fault(
        "input's zero point off by one, output not dumped",
        V2,
        D,
        0.5,
        "zero point",
        sets(zx=lambda z: z + 1),
        "npy",
        "behind",
    ),
    Fault(
        "weights turned, output not dumped",
        FLOWERS,
        D,
        0.5,
        "turned by 180",
        sets(w=lambda w: w[::-1, ::-1]),
        "csv",
        "behind",
    ),
    Fault(
        "bias rolled, output not dumped", V1, C, 0.5, "bias has its channels rolled", sets(b=_rolled), "json", "behind"
    ),
)
