"""Ops of PyTorch's and Keras' converters: each value is derived from those alone that it depends on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import npmobilenet as nm
from npmobilenet import golden

pytest.importorskip("tflite", reason="the extra [convert] is not installed")

from tflite_maker import File, Op, T

INT8: dict[str, Any] = {"type": "int8", "scale": (0.05,), "zero_point": (-3,)}
X = T((1, 4, 4, 2), **INT8)
WINDOW = {"FilterHeight": 2, "FilterWidth": 2, "StrideH": 2, "StrideW": 2, "Padding": 0}
SLOPES = T(data=np.array([[[3, -4]]], np.int8), scale=(0.1,), zero_point=(0,))
MODELS = {
    "max_pool": File([X, T((1, 2, 2, 2), **INT8)], [Op("MAX_POOL_2D", [0], [1], ("Pool2DOptions", WINDOW))]),
    "prelu": File([X, SLOPES, X], [Op("PRELU", [0, 1], [2])]),
    "leaky_relu": File([X, X], [Op("LEAKY_RELU", [0], [1], ("LeakyReluOptions", {"Alpha": 0.2}))]),
}


@pytest.mark.parametrize("op", MODELS)
def test_one_value_of(tmp_path: Path, op: str) -> None:
    file = MODELS[op]
    file.outputs = [len(file.tensors) - 1]
    (tmp_path / "m.tflite").write_bytes(file.bytes())
    model = nm.load(tmp_path / "m.tflite")
    x = np.random.default_rng(2).integers(-128, 128, (1, 4, 4, 2)).astype(np.int8)
    expected = model.run(x)
    for at in ((0, 0, 0, 0), (0, 1, 1, 1), (0, 1, 0, 1)):
        found = golden.explain(model, x, model.output.name, at)
        assert found.value == expected[at]
        calls = [call for part in found.derivations for call in part.trace.calls]
        assert len(calls) < 40, "of this element, not of all"
