"""Compare the dialect `ethos-u` with what Vela compiles, on random layers of one op.

    python tools/vela_survey.py [--cases 50] [--functions 1000] [--seed 0] [--npu ethos-u65] [--op softmax]

Run it in an environment of its own, with `ethos-u-vela==5.2.0`, numba, h5py and pytest, from the checkout. Each case
is written as a .tflite file, compiled by Vela for the NPU, and its command stream interpreted (tools/vela_npu.py says
how, and what of it no public source defines); the outputs are compared with this project's reference kernels in plain
Python. Of convolutions and fully connected layers the sums of products are given to both: Vela's biases, scales,
shifts, zero points, rounding and clamp are what is compared.

`--write FILE` keeps the first cases of each op, inputs and results as numbers, for tests/arithmetic/test_vela.py.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "arithmetic")]

from cases import run_q, single_q  # noqa: E402
from ethosu.vela import scaling  # noqa: E402
from ethosu.vela.softmax import SoftMax  # noqa: E402
from test_vela import OURS, split  # noqa: E402
from vela_npu import NPUS, Npu, compiled  # noqa: E402

from npmobilenet.errors import NpMobilenetError  # noqa: E402
from npmobilenet.formats.tflite.exporting import write_tflite  # noqa: E402
from npmobilenet.graph import Graph  # noqa: E402
from npmobilenet.modeldata import ModelData, ModelInfo  # noqa: E402
from npmobilenet.ops import Quantization  # noqa: E402

Array = np.ndarray[Any, Any]
Case = tuple[Graph, list[Array]]
LIMITS = {"uint8": (0, 255), "int8": (-128, 127)}
LAYERS = ("conv2d", "depthwise_conv2d", "fully_connected")
# Where TFLite's float32 and Vela's float64 give other tables: scales of input and output, zero points of int8.
PARTING = {
    "sigmoid": [(0.009275589138269424, 1 / 256, 96, -128), (0.08983626961708069, 1 / 256, 25, -128)],
    "hard_swish": [(0.9796329, 0.7961659, 3, -7), (0.2726747, 0.1859561, 3, -7)],
}


class Maker:
    """Random cases: scales over wide ranges, in a third of the cases all powers of two, which make ties."""

    def __init__(self, seed: int) -> None:
        self.rng, self.parting = np.random.default_rng(seed), seed % 4 >= 2
        self.ties = self.rng.integers(3) == 0

    def scale(self, least: float, most: float) -> float:
        """A float32."""
        exponent = self.rng.uniform(np.log2(least), np.log2(most))
        return float(np.float32(2.0 ** (np.round(exponent) if self.ties else exponent)))

    def q(self, dtype: str, scale: float) -> Quantization:
        """A scale, and any zero point."""
        return Quantization((float(np.float32(scale)),), (int(self.rng.integers(*LIMITS[dtype], endpoint=True)),))

    def values(self, dtype: str, shape: tuple[int, ...]) -> Array:
        """All 256 first, where there is room."""
        x: Array = self.rng.integers(*LIMITS[dtype], shape, dtype, endpoint=True)
        if x.size >= 256:
            x.reshape(-1)[:256] = np.arange(256).astype(np.uint8).view(dtype)
        return x

    def layer(self, op: str, dtype: str) -> Case:
        """Random weights; a scale for each channel in half of the int8 cases."""
        rng, s_in = self.rng, self.scale(2**-9, 2**-2)
        inputs, outputs = int(rng.integers(1, 9)), int(rng.integers(1, 65 if op == "fully_connected" else 9))
        shapes = {"conv2d": (1, 1, inputs, outputs), "fully_connected": (inputs, outputs)}
        shape = shapes.get(op, (3, 3, inputs))
        count = shape[-1]
        if dtype == "int8" and rng.integers(2):
            w = Quantization(tuple(self.scale(2**-9, 2**-3) for _ in range(count)), (0,) * count, len(shape) - 1)
        else:
            w = Quantization((self.scale(2**-9, 2**-3),), (int(rng.integers(256)) if dtype == "uint8" else 0,))
        z_out = self.q(dtype, s_in * w.scale[0] * self.scale(2**2, 2**12))
        bias = Quantization(tuple(float(np.float32(s_in) * np.float32(s)) for s in w.scale), (0,) * len(w.scale), 0)
        x_shape = (1, inputs) if op == "fully_connected" else (1, 5, 6, inputs)
        attrs = {} if op == "fully_connected" else {"stride": (1, 1), "padding": ((0, 0), (0, 0))}
        fused = ("none", "relu", "relu6")[int(rng.integers(3))]
        graph = single_q(op, [(x_shape, dtype, self.q(dtype, s_in))], [(shape, dtype, w), ((count,), "int32", bias)],
                         (dtype, z_out), activation=fused, **attrs)  # fmt: skip
        biases = rng.integers(-(2**11), 2**11, count, np.int32)
        return graph, [self.values(dtype, x_shape), self.values(dtype, shape), biases]

    def binary(self, op: str, dtype: str) -> Case:
        """Two tensors of 256 values, a third with one scale for both."""
        rng, shape = self.rng, (1, 8, 16, 2)
        s_x = self.scale(2**-9, 1)
        s_y = s_x if rng.integers(3) == 0 else self.scale(2**-9, 1)
        s_out = s_x * s_y * self.scale(1, 2**9) if op == "mul" else max(s_x, s_y) * self.scale(0.25, 4)
        ends = [(shape, dtype, self.q(dtype, s)) for s in (s_x, s_y)]
        fused = ("none", "relu", "relu6")[int(rng.integers(3))]
        graph = single_q(op, ends, [], (dtype, self.q(dtype, s_out)), activation=fused)
        return graph, [self.values(dtype, shape), rng.permutation(self.values(dtype, shape).ravel()).reshape(shape)]

    def function(self, name: str, dtype: str) -> Case:
        """All 256 values."""
        rng, shape = self.rng, (1, 16, 16, 1)
        x = (shape, dtype, self.q(dtype, self.scale(1e-4, 2)))
        s = x[2].scale[0]
        attrs: dict[str, Any] = {"function": name}
        if name == "sigmoid":
            end = (dtype, Quantization((1 / 256,), (LIMITS[dtype][0],)))
        else:
            end = (dtype, self.q(dtype, s * self.scale(1 / 64, 64)))
        if name in PARTING and self.parting:
            s, s_out, *zeros = PARTING[name][int(rng.integers(len(PARTING[name])))]
            z_in, z_out = (z + (128 if dtype == "uint8" else 0) for z in zeros)
            x = (shape, dtype, Quantization((float(np.float32(s)),), (z_in,)))
            end = (dtype, Quantization((float(np.float32(s_out)),), (z_out,)))
        op = "activation"
        if name == "leaky_relu":
            op, attrs = name, {"alpha": float(np.float32(rng.uniform(0.01, 2)))}
        elif name == "quantize":
            op, attrs = name, {}
            other = ("uint8", "int8")[int(rng.integers(2))]
            end = (other, self.q(other, end[1].scale[0]))
        return single_q(op, [x], [], end, **attrs), [self.values(dtype, shape)]

    def pool(self, op: str, dtype: str) -> Case:
        """Windows over the whole image and smaller ones, with padding or without."""
        rng, size = self.rng, tuple(int(v) for v in self.rng.integers(1, 9, 2))
        shape, z = (1, *(n + int(rng.integers(0, 4)) for n in size), 5), self.q(dtype, self.scale(2**-9, 1))
        if op == "mean":
            end = (dtype, self.q(dtype, z.scale[0] * self.scale(0.25, 4)))
            return single_q(op, [(shape, dtype, z)], [], end, keepdims=bool(rng.integers(2))), [
                self.values(dtype, shape)
            ]
        fused = ("none", "relu", "relu6")[int(rng.integers(3))]
        padding = tuple(((k - 1) // 2, k // 2) if rng.integers(2) else (0, 0) for k in size[:1]) * 2
        if padding[0] != (0, 0):
            size = (size[0], size[0])
            shape = (1, size[0] + 2, size[0] + 3, 5)
        attrs = {"kernel": size, "stride": (1, 1), "padding": padding, "activation": fused}
        return single_q(op, [(shape, dtype, z)], [], (dtype, z), **attrs), [self.values(dtype, shape)]

    def softmax(self, op: str, dtype: str) -> Case:
        """Rows of 2 to 300 classes."""
        shape = (1, int(self.rng.choice([2, 5, 10, 101, 300])))
        x = (shape, dtype, self.q(dtype, self.scale(0.02, 4)))
        beta = 1.0 if self.rng.integers(2) else float(np.float32(self.rng.uniform(0.1, 3)))
        values = self.rng.normal(0, self.rng.uniform(2, 100), shape) + np.mean(LIMITS[dtype])
        graph = single_q(op, [x], [], (dtype, Quantization((1 / 256,), (LIMITS[dtype][0],))), beta=beta)
        return graph, [np.clip(np.rint(values), *LIMITS[dtype]).astype(dtype)]

    def resize(self, op: str, dtype: str) -> Case:
        """By what Vela gives the NPU: 2, 4, 8; with half pixels 2."""
        rng, z = self.rng, self.q(dtype, self.scale(2**-9, 1))
        height, width, by = (int(v) for v in (*rng.integers(2, 7, 2), 2 ** rng.integers(1, 4)))
        align, half = ((False, False), (True, False), (False, True))[int(rng.integers(3))]
        less = 1 if align else 0
        size = ((height - less) * by + less, (width - less) * by + less)
        graph = single_q(op, [((1, height, width, 8), dtype, z)], [], (dtype, z), size=size, align_corners=align,
                         half_pixel_centers=half and (op == "resize_nearest" or by == 2))  # fmt: skip
        return graph, [self.values(dtype, (1, height, width, 8))]

    def prelu(self, op: str, dtype: str) -> Case:
        """Factors for each channel."""
        shape, factors = (1, 6, 6, 7), (1, 1, 1, 7)
        x, alpha = self.q(dtype, self.scale(2**-9, 1)), self.q(dtype, self.scale(2**-9, 2**-5))
        end = self.q(dtype, x.scale[0] * self.scale(0.25, 4))
        graph = single_q(op, [(shape, dtype, x)], [(factors, dtype, alpha)], (dtype, end))
        return graph, [self.values(dtype, shape), self.values(dtype, factors)]

    def concat(self, op: str, dtype: str) -> Case:
        """Two tensors with the result's scale."""
        z = self.q(dtype, self.scale(2**-9, 1))
        shape = (1, 3, 4, int(self.rng.integers(1, 6)))
        return single_q(op, [(shape, dtype, z)] * 2, [], (dtype, z), axis=3), [self.values(dtype, shape) for _ in "ab"]


MAKERS: dict[str, Callable[[Maker, str, str], Case]] = {
    **dict.fromkeys(LAYERS, Maker.layer),
    **dict.fromkeys(("add", "sub", "mul"), Maker.binary),
    **dict.fromkeys(("relu", "relu6", "sigmoid", "hard_swish", "leaky_relu", "quantize"), Maker.function),
    **dict.fromkeys(("average_pool", "mean"), Maker.pool),
    "softmax": Maker.softmax,
    "resize_bilinear": Maker.resize,
    "resize_nearest": Maker.resize,
    "concat": Maker.concat,
    "prelu": Maker.prelu,
}


def vela(graph: Graph, arrays: list[Array], npu: str) -> Array:
    """Vela's result for a graph of one node."""
    node = graph.nodes[0]
    constants = {n: a for n, a in zip(node.inputs, arrays, strict=True) if graph.tensors[n].constant}
    machine = Npu(compiled(write_tflite(ModelData(graph, constants, ModelInfo("case"))), npu))
    if node.op in LAYERS:
        machine.sums = run_q(graph, [*arrays[:2], np.zeros_like(arrays[2])], "python", stage="accumulator")[0]
    given = [a for n, a in zip(node.inputs, arrays, strict=True) if n not in constants]
    result = graph.tensors[node.output]
    return machine.run(*given)[0].view(result.dtype).reshape(result.shape)


def cases(op: str, seed: int, count: int) -> Iterator[Case]:
    """Cases of an op, int8 and uint8 in turn."""
    for i in range(count):
        yield MAKERS[op](Maker(seed + i), op, ("int8", "uint8")[i % 2])


def kept(graph: Graph, arrays: list[Array], expected: Array) -> dict[str, Any]:
    """A case as numbers, those of 8 bits as hexadecimal bytes."""
    node, tensors = graph.nodes[0], graph.tensors

    def end(name: str) -> list[Any]:
        z = tensors[name].quantization
        return [tensors[name].dtype, None if z is None else [list(z.scale), list(z.zero_point), z.axis]]

    def values(a: Array) -> Any:
        return a.tobytes().hex() if a.itemsize == 1 else a.ravel().tolist()

    operands = [[list(a.shape), *end(n), values(a)] for n, a in zip(node.inputs, arrays, strict=True)]
    computed = [o for o, n in zip(operands, node.inputs, strict=True) if not tensors[n].constant]
    weights = [o for o, n in zip(operands, node.inputs, strict=True) if tensors[n].constant]
    return {
        "op": node.op, "attrs": dict(node.attrs), "operands": computed, "weights": weights,
        "result": end(node.output), "output": values(expected),
    }  # fmt: skip


def functions(seed: int, count: int) -> dict[str, list[list[Any]]]:
    """What functions of Vela's older core, in Python, give for random scales: arguments and results."""
    make = Maker(seed)
    found: dict[str, list[list[Any]]] = {name: [] for name in OURS}
    for i in range(count):
        real = float(np.exp(make.rng.uniform(np.log(2.0**-31), np.log(2.0**29))))
        found["quantise_scale"].append([real, *map(int, scaling.quantise_scale(real))])
        s = [make.scale(2**-10, 1) for _ in "xyz"]
        found["mul"].append([[*s], *map(int, scaling.elementwise_mul_scale(*s))])
        s[2] = float(np.float32(max(s[:2]) * make.scale(2**-6, 2**6)))
        found["add"].append([[*s], *map(int, scaling.advanced_elementwise_add_sub_scale(*s, 8))])
        pixels = int(make.rng.integers(1, 65537))
        found["pool"].append([pixels, *map(int, scaling.quantise_pooling_scale(pixels))])
        if i % 20 == 0:
            scale, beta = make.scale(1e-4, 8), float(np.float32(make.rng.uniform(0.1, 3)))
            table = SoftMax(None).generate_exp_table(beta, np.float32(scale))
            found["exp"].append([scale, beta, [int(v) for v in table[::-1]]])
    return found


def main() -> int:
    """Compare, count and print; exit with 1 if a value differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=50, help="of each op (50)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--functions", type=int, default=1000, help="random scales for functions of Vela (1000)")
    parser.add_argument("--npu", choices=sorted(NPUS), default="ethos-u55")
    parser.add_argument("--op", choices=sorted(MAKERS), action="append", help="one op, or several; all by default")
    parser.add_argument("--dialect", default="ethos-u")
    parser.add_argument("--write", type=Path, help="keep the first four small cases of each op in this file")
    arguments = parser.parse_args()
    wrong, table = 0, list[dict[str, Any]]()
    for name, rows in functions(arguments.seed, arguments.functions).items():
        differ = sum(OURS[name](*given) != [*theirs] for given, theirs in (split(name, row) for row in rows))
        wrong += differ
        print(f"{name:18} {len(rows):5} scales {differ:6} differ")
    for op in arguments.op or MAKERS:
        count = values = differ = refused = left = 0
        for graph, arrays in cases(op, arguments.seed, arguments.cases):
            try:
                ours = run_q(graph, arrays, "python", arguments.dialect)
            except NpMobilenetError:
                refused += 1
                continue
            try:
                theirs = vela(graph, arrays, arguments.npu)
            except RuntimeError:  # Vela's: it gives the node to the CPU, or can't compile what it made of it
                left += 1
                continue
            count, values, differ = count + 1, values + ours.size, differ + int((ours != theirs).sum())
            if arguments.write and ours.size < 400 and sum(one["name"] == op for one in table) < 4:
                table.append({"name": op, **kept(graph, arrays, theirs)})
        wrong += differ
        print(f"{op:18} {count:5} cases {values:8} values {differ:6} differ {refused:4} refused {left:4} not compiled")
    if arguments.write:
        tables = {"cases": table, **functions(arguments.seed, 21)}
        arguments.write.write_text(json.dumps(tables) + "\n", encoding="ascii", newline="\n")
    return int(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(main())
