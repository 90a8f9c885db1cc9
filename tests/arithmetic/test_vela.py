"""The dialect `ethos-u` beside what Vela 5.2.0 made of random layers: vela.json.

`tools/vela_survey.py --write` compiled one-op models for an Ethos-U55 and interpreted the command streams; what is kept
are inputs and results as numbers, and results of functions of Vela's scaling.py and softmax.py for random scales.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import run_q, single_q

from npmobilenet import errors
from npmobilenet.arithmetic import elementwise, softmax
from npmobilenet.arithmetic.dialects import DIALECTS, dialect
from npmobilenet.arithmetic.fixedpoint import quantize_multiplier
from npmobilenet.graph import Graph
from npmobilenet.kernels.reference.average_pool import rounded_quotient
from npmobilenet.kernels.reference.softmax import exp_negative
from npmobilenet.ops import Quantization

FILE = Path(__file__).parent / "vela.json"
TABLES = json.loads(FILE.read_text(encoding="ascii")) if FILE.is_file() else {"cases": []}
CASES = {f"{i} {case['name']}": case for i, case in enumerate(TABLES["cases"])}
PEER = "Vela 5.2.0's command streams, interpreted with TFLite's roundings"
Array = np.ndarray[Any, Any]


def tuples(value: Any) -> Any:
    return tuple(map(tuples, value)) if isinstance(value, list) else value


def quantization(given: Any) -> Quantization | None:
    return None if given is None else Quantization(tuple(given[0]), tuple(given[1]), given[2])


def case_of(kept: Any) -> tuple[Graph, list[Array]]:
    operands, weights = (
        [(tuple(shape), dtype, quantization(z)) for shape, dtype, z, _ in kept[part]]
        for part in ("operands", "weights")
    )
    dtype, z = kept["result"]
    attrs = {key: tuples(value) for key, value in kept["attrs"].items()}
    graph = single_q(kept["op"], operands, weights, (dtype, quantization(z)), **attrs)
    arrays = [values(v, t).reshape(shape) for shape, t, _, v in (*kept["operands"], *kept["weights"])]
    return graph, arrays


def values(given: Any, dtype: str) -> Array:
    """Of 8 bits: hexadecimal bytes."""
    return np.frombuffer(bytes.fromhex(given), dtype) if isinstance(given, str) else np.array(given, dtype)


def q(scale: float, zero_point: int = 0) -> Quantization:
    return Quantization((float(np.float32(scale)),), (zero_point,))


@pytest.mark.equal("uint8, int8 layers and functions", "reference, ethos-u", PEER, "bits")
@pytest.mark.parametrize("name", CASES)
def test_as_vela(name: str) -> None:
    graph, arrays = case_of(CASES[name])
    assert run_q(graph, arrays, "python", "ethos-u").tobytes().hex() == CASES[name]["output"]


def test_the_tables_tell_it_from_the_others() -> None:
    """Each op is there, both types, and the functions whose rules are the dialect's own part from cmsis-nn."""
    seen = {(c["op"], c["attrs"].get("function", ""), c["result"][0]) for c in TABLES["cases"]}
    for op in ("conv2d", "depthwise_conv2d", "fully_connected", "add", "sub", "mul", "average_pool", "mean", "softmax"):
        assert {(op, "", "int8"), (op, "", "uint8")} <= seen
    parted = set()
    for kept in TABLES["cases"]:
        graph, arrays = case_of(kept)
        if kept["op"] == "activation" and run_q(graph, arrays, "python").tobytes().hex() != kept["output"]:
            parted.add(kept["attrs"]["function"])
    assert parted == {"sigmoid", "hard_swish"}


# -- Functions of Vela: what this project computes for the same arguments ---------------------------------------------


def _multiplier(real: float) -> list[Any]:
    multiplier, shift = quantize_multiplier(real)
    return [multiplier, 31 - shift]


def _mul(scales: list[float]) -> list[Any]:
    z = [((1, 4), "int8", q(s)) for s in scales[:2]]
    graph = single_q("mul", z, [], ("int8", q(scales[2])))
    tensors = [graph.tensors[n] for n in ("x0", "x1", "y")]
    p = elementwise.multiplication(graph.nodes[0], *tensors, dialect("ethos-u"))
    return [p.multiplier, 31 - p.shift]


def _add(scales: list[float]) -> list[Any]:
    """The scale of the operand with the smaller one, that of the sum, and which operand it is (1, 2)."""
    z = [((1, 4), "int8", q(s)) for s in scales[:2]]
    graph = single_q("add", z, [], ("int8", q(scales[2])))
    tensors = [graph.tensors[n] for n in ("x0", "x1", "y")]
    p = elementwise.addition(graph.nodes[0], *tensors, dialect("ethos-u"))
    which = 1 if scales[0] < scales[1] else 2
    m, shift = (p.multiplier_x, p.shift_x) if which == 1 else (p.multiplier_y, p.shift_y)
    # Vela's factor is 2^20 times that of the operand that is shifted by 20 bits.
    return [m, 31 - shift - 20, p.multiplier, 31 - p.shift, which]


def _pool(pixels: int) -> list[Any]:
    exponent = math.frexp(pixels - 1)[1]
    return [(2 ** (31 + exponent) + 2**exponent) // pixels, 31 + exponent]


def _exp(scale: float, beta: float) -> list[Any]:
    z = Quantization((1 / 256,), (-128,))
    graph = single_q("softmax", [((1, 4), "int8", q(scale))], [], ("int8", z), beta=beta)
    return [softmax.fixed_exponentials(graph.nodes[0], graph.tensors["x0"], "fixed", exp_negative).tolist()]


OURS: dict[str, Callable[..., list[Any]]] = {
    "quantise_scale": _multiplier,
    "mul": _mul,
    "add": _add,
    "pool": _pool,
    "exp": _exp,
}


def split(name: str, row: list[Any]) -> tuple[list[Any], list[Any]]:
    """Arguments and results of a row."""
    count = 2 if name == "exp" else 1
    return row[:count], row[count:]


@pytest.mark.parametrize("name", OURS)
def test_functions_of_vela(name: str) -> None:
    assert TABLES[name]
    for row in TABLES[name]:
        given, theirs = split(name, row)
        assert OURS[name](*given) == theirs, given


def test_the_pools_scale_divides() -> None:
    """For every number of pixels that Vela gives the NPU: times its scale, to nearest with halves up, is the quotient
    with halves away from zero. Both rise with the sum, so that the sums about each step are enough.
    """
    steps = np.arange(-129, 256, dtype=np.int64)
    for pixels in (*range(1, 4200), *range(4201, 65537, 61), 65535, 65536):
        scale, shift = _pool(pixels)
        first = np.where(steps > 0, ((2 * steps - 1) * pixels + 1) // 2, -((1 - 2 * steps) * pixels - 1) // 2)
        sums = np.concatenate([first - 1, first, first + 1])
        exact = np.sign(sums) * ((np.abs(sums) + pixels // 2) // pixels)
        assert scale < 2**32
        assert np.array_equal((sums * scale + (1 << (shift - 1))) >> shift, exact), pixels
    assert [rounded_quotient(v, 4) for v in (-10, -9, 9, 10)] == [-3, -2, 2, 3]


# -- What is refused --------------------------------------------------------------------------------------------------


def refused(graph: Graph, pattern: str) -> None:
    arrays = [np.zeros(graph.tensors[n].shape, graph.tensors[n].dtype) for n in graph.nodes[0].inputs]
    with pytest.raises(errors.PlanError, match=pattern) as caught:
        run_q(graph, arrays, "python", "ethos-u")
    assert "no public source" in str(caught.value)
    run_q(graph, arrays, "python", "cmsis-nn")  # the others go on


def test_what_no_source_defines_is_refused() -> None:
    image = ((1, 4, 4, 2), "uint8", q(0.1, 3))
    window = {"kernel": (2, 2), "stride": (2, 2), "padding": ((0, 0), (0, 0))}
    refused(single_q("average_pool", [image], [], ("uint8", q(0.2, 3)), **window), "average_pool.*differ in scale")
    refused(single_q("concat", [image, image], [], ("uint8", q(0.1, 4)), axis=3), "concat.*differ in scale or zero")


@pytest.mark.parametrize(
    ("s_out", "pattern"),
    [(0.12345679104328156 * 0.30000001192092896 * 2, "next below 2\\^-1"), (2.0**32.5, "below 2\\^-32")],
)
def test_layers_with_odd_factors_are_refused(s_out: float, pattern: str) -> None:
    """Of int8 weights with a scale for each channel; that of the output is the nearest float32."""
    s_in = 0.12345679104328156
    if s_out < 1:
        found = next(
            (s, w)
            for s, w in ((q(v).scale[0], q(u).scale[0]) for v in np.linspace(0.1, 0.2, 400) for u in (0.3, 0.7, 0.9))
            if 0 < 1 - s * w / q(s * w).scale[0] < 2.0**-33
        )
        s_in, weight = found
        s_out = 2 * q(s_in * weight).scale[0]
    else:
        weight = 1 / s_in
    w = Quantization((q(weight).scale[0], 0.5), (0, 0), 3)
    graph = single_q("conv2d", [((1, 2, 2, 1), "int8", q(s_in))], [((1, 1, 1, 2), "int8", w), ((2,), "int32", None)],
                     ("int8", q(s_out)), stride=(1, 1), padding=((0, 0), (0, 0)))  # fmt: skip
    refused(graph, f"channel 0: its factor.*{pattern}")


def test_its_other_name() -> None:
    assert dialect("vela") is DIALECTS["ethos-u"]
    assert "Missing" in DIALECTS["ethos-u"].evidence
