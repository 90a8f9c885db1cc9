"""The micro runtimes and builds with TFLITE_SINGLE_ROUNDING, beside what their C gave: micro.json.

The C (TFLite Micro's reference headers, CMSIS-NN, ESP-NN) was compiled outside of this repository and compared on
random layers, as docs/arithmetic.md says; what is kept are small tables of inputs and outputs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import run_q, single_q

from npmobilenet import errors
from npmobilenet.arithmetic import fixedpoint as fp
from npmobilenet.arithmetic.dialects import DIALECTS, NAMES, dialect
from npmobilenet.graph import Graph
from npmobilenet.ops import Quantization

TABLES = json.loads((Path(__file__).parent / "micro.json").read_text(encoding="ascii"))
LAYERS = {f"{i} {layer['name']}": layer for i, layer in enumerate(TABLES["layers"])}
Array = np.ndarray[Any, Any]


def quantization(given: Any) -> Quantization | None:
    return None if given is None else Quantization(tuple(given[0]), tuple(given[1]), given[2])


def tuples(value: Any) -> Any:
    return tuple(map(tuples, value)) if isinstance(value, list) else value


def case(layer: Any) -> tuple[Graph, list[Array]]:
    operands, weights = (
        [(tuple(shape), dtype, quantization(z)) for shape, dtype, z, _ in layer[part]]
        for part in ("operands", "weights")
    )
    dtype, z = layer["result"]
    attrs = {key: tuples(value) for key, value in layer["attrs"].items()}
    graph = single_q(layer["op"], operands, weights, (dtype, quantization(z)), **attrs)
    arrays = [np.array(v, t).reshape(shape) for shape, t, _, v in (*layer["operands"], *layer["weights"])]
    return graph, arrays


@pytest.mark.equal("uint8, int8 convolutions", "tflite-single-rounding, cmsis-nn, cmsis-nn-single-rounding",
                   "tables of what the runtimes' C gave", "bits")  # fmt: skip
@pytest.mark.parametrize("name", LAYERS)
def test_layers_as_the_c(name: str) -> None:
    graph, arrays = case(LAYERS[name])
    for runtime, expected in LAYERS[name]["outputs"].items():
        assert run_q(graph, arrays, "python", runtime).ravel().tolist() == expected, runtime


def test_requantization_as_the_c() -> None:
    """In scalars, and the path of CMSIS-NN's vectors that rounds otherwise under the flag (for weights of 4 bits)."""
    for acc, multiplier, shift, *expected in TABLES["requantized"]:
        rules = fp.Rounding.DOUBLE, fp.Rounding.SINGLE, fp.Rounding.UPWARD
        assert [int(fp.requantize(acc, multiplier, shift, 0.0, rule)) for rule in rules] == expected


def test_the_flag_leaves_uint8_depthwise_alone() -> None:
    """As depthwiseconv_uint8.h has it; int8 is rounded once. And the tables tell the two rules apart."""
    for layer in (v for v in LAYERS.values() if v["name"].startswith("depthwise_conv2d")):
        outputs = list(layer["outputs"].values())
        assert all(v == outputs[0] for v in outputs) == (layer["result"][0] == "uint8")


def test_fully_connected_is_rounded_once_by_the_micro_runtimes() -> None:
    """Ties: factor 1/8, zero point 5; LiteRT takes float64 there."""
    graph, arrays = case(next(v for v in LAYERS.values() if v["name"] == "fully_connected ties"))
    found = {name: run_q(graph, arrays, "python", name).ravel().tolist()[:2] for name in DIALECTS}
    assert found["cmsis-nn-single-rounding"] == [4, 3]
    assert found["tflite-single-rounding"] == found["tflite-reference"] == found["cmsis-nn"] == [3, 2]


def test_shifts_above_30_saturate_under_the_flag() -> None:
    """A factor of 2^30 or more becomes (2^31 - 1, 30); without the flag it is refused, as C leaves it open."""
    for factor, multiplier, shift in TABLES["saturated"]:
        scale, z = float(factor) / 2.0**20, Quantization((2.0**-10,), (0,))
        weights = Quantization((scale,), (0,))
        graph = single_q("conv2d", [((1, 1, 1, 1), "int8", Quantization((2.0**10,), (0,)))],
                         [((1, 1, 1, 1), "int8", weights), ((1,), "int32", Quantization((1.0,), (0,)))], ("int8", z),
                         stride=(1, 1), padding=((0, 0), (0, 0)))  # fmt: skip
        arrays = [np.zeros((1, 1, 1, 1), np.int8), np.zeros((1, 1, 1, 1), np.int8), np.array([-1], np.int32)]
        for name, found in DIALECTS.items():
            if found.most_shift > 30:
                wanted = fp.single_rounding(-1, multiplier, shift)
                got = run_q(graph, arrays, "python", name, stage="preactivation")
                assert got.item() == wanted, (name, factor)
            elif factor >= 2.0**30:
                with pytest.raises(errors.PlanError, match=r"factor|overflow|256"):
                    run_q(graph, arrays, "python", name)


def test_logistic_of_a_scale_beyond_its_table() -> None:
    """The radius is 0 then, and everything beside it: C asks for the lower end first."""
    graph = single_q("activation", [((1, 3), "int8", Quantization((2.0**40,), (0,)))], [],
                     ("int8", Quantization((1 / 256,), (-128,))), function="sigmoid")  # fmt: skip
    assert run_q(graph, [np.array([[-1, 0, 1]], np.int8)], "python", "cmsis-nn").tolist() == [[-128, -128, 127]]


def test_other_names() -> None:
    for name, other in (("tflite-micro", "cmsis-nn"), ("esp-nn", "cmsis-nn"),
                        ("tflite-micro-single-rounding", "cmsis-nn-single-rounding")):  # fmt: skip
        assert dialect(name) is DIALECTS[other]
        assert name in DIALECTS[other].title
        assert name not in DIALECTS
    assert set(DIALECTS) < set(NAMES)
    with pytest.raises(errors.PlanError, match="esp-nn"):
        dialect("esp")


def test_every_dialect_has_evidence() -> None:
    """A test that can be run, or a sentence."""
    tests = Path(__file__).parents[1]
    for found in DIALECTS.values():
        assert found.evidence, found.name
        for word in found.evidence.split():
            if word.startswith("tests/"):
                assert (tests.parent / word).is_file(), (found.name, word)
