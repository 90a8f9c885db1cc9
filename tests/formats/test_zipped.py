"""A model in a zip archive, as Teachable Machine's downloads are."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import npmobilenet as nm
from npmobilenet.cli import main
from npmobilenet.errors import ConversionError
from npmobilenet.formats import zipped
from npmobilenet.formats.file_kinds import kind_of

pytest.importorskip("tflite", reason="the extra [convert] is not installed")


def tflite(op: str = "SOFTMAX", classes: int = 2) -> bytes:
    from tflite_maker import File, Op, T

    options = {"SOFTMAX": ("SoftmaxOptions", {"Beta": 1.0})}.get(op)
    return File([T((1, classes)), T((1, classes), name="scores")], [Op(op, [0], [1], options)], outputs=[1]).bytes()


def packed(path: Path, members: dict[str, bytes], how: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", how) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


LABELS = b"0 cat\n1 dog\n"
FORK = b"\0\x05\x16\x07" + bytes(100)


@pytest.mark.parametrize("members", [
    {"model_unquant.tflite": tflite(), "labels.txt": LABELS},
    {"labels.txt": LABELS, "converted/model.TFLITE": tflite(), "__MACOSX/converted/._model.TFLITE": FORK},
    {"m/": b"", "m/model.tflite": tflite(), "m/labels.txt": LABELS, "labels.txt": b"0 a\n1 b\n", "m/._x.h5": FORK},
    {"../../../etc/x y\u2028.tflite": tflite(), "labels.txt": LABELS},
])  # fmt: skip
def test_the_model_and_its_labels_are_found(tmp_path: Path, members: dict[str, bytes]) -> None:
    path = packed(tmp_path / "converted tflite.zip", members)
    data = nm.convert(path, tmp_path / "m.h5")
    assert data.info.labels == ("cat", "dog")
    assert data.info.provenance["source"].startswith("converted tflite.zip: ")
    model = nm.load(path)
    x = np.array([[0.0, 1.0]], np.float32)
    assert np.array_equal(model.run(x), nm.load(tmp_path / "m.h5").run(x))
    assert model.data.info.labels == ("cat", "dog")
    assert {p.name for p in tmp_path.iterdir()} == {"converted tflite.zip", "m.h5"}


def test_labels_of_another_number_are_none(tmp_path: Path) -> None:
    members = {"model.tflite": tflite(), "labels.txt": b"0 cat\n1 dog\n2 cow\n"}
    assert nm.load(packed(tmp_path / "a.zip", members)).data.info.labels == ()


def test_own_weights_and_keras_in_an_archive(tmp_path: Path) -> None:
    nm.convert(packed(tmp_path / "a.zip", {"m.tflite": tflite()}), tmp_path / "m.h5")
    x = np.array([[0.0, 1.0]], np.float32)
    again = packed(tmp_path / "b.zip", {"m.h5": (tmp_path / "m.h5").read_bytes()})
    assert np.array_equal(nm.load(again).run(x), nm.load(tmp_path / "a.zip").run(x))
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", b"\x89HDF\r\n\x1a\n")
    outer = packed(tmp_path / "c.zip", {"model.keras": inner.getvalue()}, zipfile.ZIP_STORED)
    kind = kind_of(outer)
    assert kind is not None
    assert kind.reader == "zip", "what an archive in it holds says nothing of the archive"
    with pytest.raises(ConversionError, match=r"model\.keras"):
        nm.load(outer)


@pytest.mark.parametrize(("members", "said"), [
    ({"a.tflite": b"x", "b/c.h5": b"y"}, r"2 models: 'a\.tflite', 'b/c\.h5'; unpack it, and pass one of them"),
    ({f"{i}.h5": b"" for i in range(30)}, "30 models: .* and 22 more"),
    ({"labels.txt": b"a\n"}, r"without a model file \(\.tflite, .*holds 'labels.txt'.*What you can do: unpack"),
    ({"model.json": b'{"modelTopology": {}}', "metadata.json": b'{"tfjsVersion": "1", "tmVersion": "2"}'},
     "'model.json' is a TensorFlow.js model. What you can do: .*export 'Tensorflow'"),
    ({"x.zip": b"PK"}, "without a model file"),
    ({}, "holds nothing"),
    ({"m.tflite": b"<html></html>"}, "this is a web page"),
    ({"m.h5": b"nothing"}, "not a weight file"),
    ({"m.pt": b"PK\x05\x06" + bytes(18)}, r"m\.pt.*0 members called data\.pkl"),
])  # fmt: skip
def test_refused(tmp_path: Path, members: dict[str, bytes], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = packed(tmp_path / "a.zip", members)
    with pytest.raises((ConversionError, nm.NpMobilenetError), match=said) as caught:
        nm.load(path)
    assert str(path) in str(caught.value) or "a.zip" in str(caught.value) or "m." in str(caught.value)
    assert "npmobilenet-" not in str(caught.value), "a folder that is gone"
    assert main(["info", str(path)]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_way_out_names_the_archive(tmp_path: Path) -> None:
    from tflite_maker import File, Op, T

    file = File(
        [T((1, 4)), T((1, 4)), T((1, 4))],
        [Op("LOGISTIC", [0], [1]), Op("CUSTOM", [1], [2], custom="Mine")], outputs=[2],
    )  # fmt: skip
    path = packed(tmp_path / "my model.zip", {"m.tflite": file.bytes()})
    with pytest.raises(ConversionError, match="What you can do: run it up to there") as caught:
        nm.load(path)
    text = str(caught.value)
    assert f"load({str(path)!r}, outputs=['#1'])" in text
    assert f"golden record '{path}' random:0" in text
    assert nm.load(path, outputs=["#1"]).output.shape == (1, 4)


def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = packed(tmp_path / "a.zip", {"m.tflite": bytes(100 << 20)})
    with pytest.raises(ConversionError, match="declares 104,857,600 bytes packed into"):
        nm.load(bomb)
    monkeypatch.setattr(zipped, "MAX_MODEL_BYTES", 50)
    with pytest.raises(ConversionError, match="at most 50 are read"):
        nm.load(packed(tmp_path / "b.zip", {"m.tflite": tflite()}))
    lying = bytearray(packed(tmp_path / "c.zip", {"m.tflite": bytes(60)}, zipfile.ZIP_STORED).read_bytes())
    at = lying.rfind(b"PK\x01\x02")
    lying[at + 24 : at + 28] = (10).to_bytes(4, "little")  # the size that the list of members declares
    (tmp_path / "c.zip").write_bytes(lying)
    with pytest.raises(nm.NpMobilenetError):
        nm.load(tmp_path / "c.zip")
    whole = packed(tmp_path / "d.zip", {"model.tflite": tflite(), "labels.txt": LABELS}).read_bytes()
    for cut in range(0, len(whole), 40):
        (tmp_path / "d.zip").write_bytes(whole[:cut])
        with pytest.raises(nm.NpMobilenetError):
            nm.load(tmp_path / "d.zip")


def test_teachable_machine_of_keras_and_tflite_agree(data: Path, tmp_path: Path) -> None:
    """Their scores pick the same class of each photo."""
    tf: Any = pytest.importorskip("tensorflow", reason="TensorFlow isn't installed: pip install 'npmobilenet[tf]'")
    tf_keras: Any = pytest.importorskip("tf_keras", reason="Keras isn't installed: pip install 'npmobilenet[tf]'")
    source = data / "field" / "teachable_machine_keras_model.h5"
    network = tf_keras.models.load_model(source, compile=False)
    shape = (1, *network.input_shape[1:])
    call = tf.function(network).get_concrete_function(tf.TensorSpec(shape, tf.float32))
    content = tf.lite.TFLiteConverter.from_concrete_functions([call], network).convert()
    classes = network.output_shape[-1]
    labels = "".join(f"{i} class {i}\n" for i in range(classes)).encode()
    keras = nm.load(packed(tmp_path / "k.zip", {"keras_model.h5": source.read_bytes(), "labels.txt": labels}))
    lite = nm.load(packed(tmp_path / "t.zip", {"model_unquant.tflite": content, "labels.txt": labels}),
                   preprocess="teachable_machine")  # fmt: skip
    assert keras.data.info.preprocessing == "teachable_machine"
    photos = sorted((data / "images" / "imagenet100").glob("*.JPEG"))
    assert len(photos) == 100
    found = [[best[0][0] for best in model.predict(photos, top=1)] for model in (keras, lite)]
    assert found[0] == found[1]
    assert len(set(found[0])) > 1
