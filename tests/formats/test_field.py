"""Files as people have them: each runs, and its integers are LiteRT's, or it is refused with a way that works."""

from __future__ import annotations

from pathlib import Path

import pytest

import npmobilenet as nm
from npmobilenet.cli.info import _dead
from npmobilenet.formats import read_model

pytest.importorskip("tflite", reason="the extra [convert] is not installed")
from litert import Peer, random_inputs

QUANTIZED = ("dscnn_kws_int8", "teachable_machine_2_uint8")


@pytest.mark.equal("files from the field", "fast", "LiteRT 2.3.0 BUILTIN_REF; every tensor", "bits")
@pytest.mark.parametrize("stem", QUANTIZED)
def test_every_integer_equals_litert(data: Path, stem: str) -> None:
    path = data / "field" / f"{stem}.tflite"
    model, peer = nm.load(path), Peer(path, "tflite-reference")
    x = random_inputs(peer.inputs, 0)[0]
    _, taps = model.run(x, taps="*", check_range=False)
    compared = 0
    for index, expected in peer.run(x).items():
        name = model.graph.endpoints.get(f"#{index}")
        if name is not None:
            wrong = taps[name].ravel() != expected.ravel()
            assert not wrong.any(), f"#{index} '{name}': {wrong.sum()} of {wrong.size} values differ"
            compared += 1
    assert compared >= len(model.graph.nodes) - 2


def test_info_tells_of_dead_channels(data: Path) -> None:
    dead = _dead(read_model(data / "field" / "teachable_machine_2_uint8.tflite"))
    assert sorted(dead.values()) == [1, 5]
