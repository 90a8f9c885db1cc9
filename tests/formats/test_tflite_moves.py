"""What PyTorch's and Keras' converters write around MobileNets' own operators, beside LiteRT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import npmobilenet as nm
from npmobilenet.errors import ConversionError

pytest.importorskip("tflite", reason="the extra [convert] is not installed")

from litert import Peer, random_inputs
from tflite_maker import File, Op, T

INT8: dict[str, Any] = {"type": "int8", "scale": (0.05,), "zero_point": (-3,)}


def compared(path: Path, file: File) -> nm.Model:
    """The model, each of whose tensors is LiteRT's by bits."""
    path.write_bytes(file.bytes())
    model, peer = nm.load(path), Peer(path, "tflite-reference")
    (x,) = random_inputs(peer.inputs, 4)
    expected = peer.run(x)
    _, taps = model.run(x, taps=[f"#{index}" for index in expected], check_range=False)
    for index, values in expected.items():
        assert taps[f"#{index}"].reshape(values.shape).tobytes() == values.tobytes(), f"#{index}"
    return model


def order(*axes: int) -> T:
    return T(data=np.array(axes, np.int32))


@pytest.mark.parametrize("kind", [{}, INT8])
def test_padding_of_channels_first(tmp_path: Path, kind: dict[str, Any]) -> None:
    """PyTorch's SAME padding: PAD of height and width, the last axes, then TRANSPOSE, which takes the pad's with it."""
    pads = T(data=np.array([[0, 0], [0, 0], [0, 1], [1, 2]], np.int32))
    tensors = [T((1, 3, 5, 4), **kind), pads, T((1, 3, 6, 7), **kind), order(0, 2, 3, 1), T((1, 6, 7, 3), **kind)]
    file = File(tensors, [Op("PAD", [0, 1], [2]), Op("TRANSPOSE", [2, 3], [4])], outputs=[4])
    model = compared(tmp_path / "m.tflite", file)
    assert model.input.shape == (1, 3, 5, 4)
    assert [node.op for node in model.graph.nodes] == ["transpose", "pad", "transpose", "transpose"]
    tensors[4], ops = T((1, 3, 6, 7), **kind), [Op("PAD", [0, 1], [2]), Op("TRANSPOSE", [2, 3], [4])]
    model = nm.load(tmp_path / "m.tflite", outputs=["#2"])
    assert model.output.shape == (1, 3, 6, 7)
    tensors[1] = T(data=np.array([[0, 0], [0, 1], [0, 1], [1, 2]], np.int32))
    (tmp_path / "m.tflite").write_bytes(File(tensors, ops, outputs=[4]).bytes())
    with pytest.raises(ConversionError, match="batch and channels can't be padded"):
        nm.load(tmp_path / "m.tflite")


def test_transposes_vanish_from_the_plan(tmp_path: Path) -> None:
    """Channels first to last, a function, and back to first and last: one transpose is left to compute."""
    shapes = [(1, 3, 5, 4), (1, 5, 4, 3), (1, 3, 5, 4), (1, 3, 5, 4), (1, 5, 4, 3), (1, 60)]
    tensors = [*[T(shape) for shape in shapes], order(0, 2, 3, 1), order(0, 3, 1, 2), T(data=np.int32([1, 60]))]
    ops = [
        Op("TRANSPOSE", [0, 6], [1]), Op("TRANSPOSE", [1, 7], [2]), Op("RELU6", [2], [3]),
        Op("TRANSPOSE", [3, 6], [4]), Op("RESHAPE", [4, 8], [5]),
    ]  # fmt: skip
    model = compared(tmp_path / "m.tflite", File(tensors, ops, outputs=[5]))
    ops_of = {node.name: node.op for node in model.graph.nodes}
    assert [ops_of[step.node] for step in model.plan().steps] == ["activation", "transpose", "reshape"]


@pytest.mark.parametrize("kind", [{}, INT8])
@pytest.mark.parametrize("keep", [False, True])
def test_the_maximum_over_the_image(tmp_path: Path, kind: dict[str, Any], keep: bool) -> None:
    """Keras' GlobalMaxPooling2D."""
    result = T((1, 1, 1, 3) if keep else (1, 3), **kind)
    op = Op("REDUCE_MAX", [0, 1], [2], ("ReducerOptions", {"KeepDims": keep}))
    model = compared(tmp_path / "m.tflite", File([T((1, 5, 4, 3), **kind), order(1, 2), result], [op], outputs=[2]))
    assert model.output.shape == ((1, 1, 1, 3) if keep else (1, 3))
    channels = T((1, 5, 4, 1) if keep else (1, 5, 4), **kind)
    compared(tmp_path / "m.tflite", File([T((1, 5, 4, 3), **kind), order(3), channels], [op], outputs=[2]))
    (tmp_path / "m.tflite").write_bytes(
        File([T((2, 5, 4, 3), **kind), order(0), T((5, 4, 3), **kind)], [op], outputs=[2]).bytes()
    )
    with pytest.raises(ConversionError, match=r"over axes \[0\] of \(2, 5, 4, 3\)"):
        nm.load(tmp_path / "m.tflite")
