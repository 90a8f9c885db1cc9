"""The small model on which causes are looked for, and its right dump."""

from __future__ import annotations

import pytest
from test_golden_tools_integer import small

import npmobilenet as nm
from npmobilenet import golden


@pytest.fixture(scope="module", params=["int8", "uint8"])
def model(request: pytest.FixtureRequest) -> nm.Model:
    return nm.Model(small(request.param))


@pytest.fixture(scope="module")
def dump(model: nm.Model, tmp_path_factory: pytest.TempPathFactory) -> golden.Dump:
    return golden.record(model, "random:1", tmp_path_factory.mktemp("golden") / "ours", taps=["*"])
