"""Quantizing a model of any op gives one that plans and runs, near the float model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from npmobilenet.graph import GraphBuilder
from npmobilenet.model import Model
from npmobilenet.modeldata import ModelData, ModelInfo
from npmobilenet.ops import ACTIVATIONS, OPS, UNARY, Example
from npmobilenet.quantize import lower, quantize

POSITIVE = ("log", "sqrt", "rsqrt")


def cases() -> Iterator[tuple[str, Example, Mapping[str, Any]]]:
    """Every example of every op, with each of its functions."""
    for op, spec in OPS.items():
        for example in spec.examples if op not in ("quantize", "dequantize") else ():
            if example.given == example.result == "float32":
                continue  # of int8 weights under float values, which no float model has
            more: list[dict[str, Any]] = [{}]
            if op == "unary":
                more = [{"formula": formula} for formula in UNARY]
            if op == "activation":
                more = [{"function": function} for function in ACTIVATIONS[1:]]
            yield from ((op, example, {**example.attrs, **attrs}) for attrs in more)


def one(op: str, example: Example, attrs: Mapping[str, Any]) -> ModelData:
    """The op, with an activation behind, so that its result isn't the model's."""
    builder, arrays = GraphBuilder(op), {}
    names = [builder.input(f"x{i}", shape) for i, shape in enumerate(example.operands)]
    for i, shape in enumerate(example.weights):
        arrays[f"w{i}"] = np.random.default_rng(i).normal(0, 0.3, shape).astype(np.float32)
        names.append(builder.constant(f"w{i}", shape))
    if op == "arg_max":
        return ModelData(builder.finish([builder.node(op, names, "y", dtype="int64", **attrs)]), arrays, ModelInfo(op))
    y = builder.node(op, names, "y", **attrs)
    return ModelData(builder.finish([builder.node("activation", [y], "z", function="relu"), y]), arrays, ModelInfo(op))


def tried(data: ModelData, x: dict[str, Any], scheme: str, ports: str) -> None:
    """Ranges of the float model; the quantized one plans, runs, and is near it."""
    names = [name for name, tensor in lower(data).graph.tensors.items() if not tensor.constant]
    _, real = Model(lower(data), kernels="reference").run(x, taps=names, check_range=False)
    ranges = {name: (float(real[name].min()), float(real[name].max())) for name in names}
    made = quantize(data, ranges, scheme, ports)
    model = Model(made, kernels="reference")
    given = {}
    for name, values in x.items():
        q = made.graph.tensors[name].quantization
        given[name] = values
        if q is not None:
            limits = np.iinfo(ports)
            steps = np.rint(values / q.scale[0]) + q.zero_point[0]
            given[name] = np.clip(steps, limits.min, limits.max).astype(ports)
    _, found = model.run(given, taps=list(made.graph.outputs), check_range=False)
    for name in made.graph.outputs:
        q = made.graph.tensors[name].quantization
        values = found[name] if q is None else (found[name].astype(np.float64) - q.zero_point[0]) * q.scale[0]
        if data.graph.tensors[name].dtype == "int64":
            assert np.mean(values == real[name]) > 0.8  # ties of 8-bit values go to the first
        else:
            assert np.mean(np.abs(values - real[name])) < 0.05 * np.abs(real[name]).max(), name


@pytest.mark.parametrize(("scheme", "ports"), [("int8", "int8"), ("uint8", "float32")])
def test_every_op(scheme: str, ports: str) -> None:
    """Operands of different ranges; the ends of the model in 8 bits and in float32."""
    for op, example, attrs in cases():
        data, rng = one(op, example, attrs), np.random.default_rng(3)
        low = 0.2 if attrs.get("formula") in POSITIVE or op == "div" else -1.0
        x = {f"x{i}": rng.uniform(low * (1 + i), 1.5 * (1 + i), (2, *shape[1:])).astype(np.float32)
             for i, shape in enumerate(example.operands)}  # fmt: skip
        try:
            tried(data, x, scheme, ports)
        except Exception as error:
            raise AssertionError(f"{op} {dict(attrs)}: {error}") from error


@pytest.mark.parametrize("op", ["minimum", "maximum"])
def test_a_constant_bound_is_in_the_steps_of_the_result(op: str) -> None:
    """Of scores, which have a scale of their own, and of values that other nodes read, too."""
    builder = GraphBuilder(op)
    x = builder.input("x", (1, 4))
    bounds = builder.constant("c", (1, 4))
    y = builder.node(op, [builder.node("softmax", [x], "s", beta=1.0), bounds], "y")
    z = builder.node(op, [x, builder.node("mul", [x, x], "square")], "z")
    graph = builder.finish([y, builder.node("add", [x, z], "sum")])
    data = ModelData(graph, {"c": np.float32([[0.1, 0.25, 9, -9]])}, ModelInfo(op))
    values = {"x": np.random.default_rng(0).uniform(-3, 2, (5, 4)).astype(np.float32)}
    for scheme in ("int8", "uint8"):
        tried(data, values, scheme, scheme)
