"""Label files: every form that programs write, and what is none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from platforms import make_pipe

import npmobilenet as nm
from npmobilenet.errors import InputError
from npmobilenet.formats.label_file import MAX_LABEL_BYTES, label_list, labels_beside, parse_labels, read_labels

THREE = ("daisy", "sea lion", "ätna")


@pytest.mark.parametrize(
    "content",
    [
        "daisy\nsea lion\nätna\n",
        "daisy\r\nsea lion\r\nätna",
        "daisy\rsea lion\rätna\r\r",
        "\n  daisy \n\nsea lion\nätna\n\n",
        "\ufeffdaisy\nsea lion\nätna",
        "0 daisy\n1 sea lion\n2 ätna",  # Teachable Machine
        "0  daisy\n1  sea lion\n2  ätna\n",  # Coral
        "1 daisy\n2 sea lion\n3 ätna",
        "2: ätna\n0: daisy\n1: sea lion",
        "0,daisy\n1,sea lion\n2,ätna",
        "0\tdaisy\n1\tsea lion\n2\tätna",
        'class_id,name\n0,daisy\n1,"sea lion"\n2,ätna\n',  # a table, as pandas writes it
        "label;index\ndaisy;0\nsea lion;1\nätna;2\n",
        "name\tid\nätna\t3\ndaisy\t1\nsea lion\t2\n",
        "{0: 'daisy',\n 1: 'sea lion',\n 2: 'ätna'}",  # a dict that Python printed
        "['daisy', 'sea lion', 'ätna']",
        json.dumps(THREE),
        json.dumps({"0": "daisy", "1": "sea lion", "2": "ätna"}),
        json.dumps({"sea lion": 1, "ätna": 2, "daisy": 0}),  # class_indices of Keras' generators
        json.dumps({str(i): [f"n0000000{i}", name] for i, name in enumerate(THREE)}),  # imagenet_class_index.json
        json.dumps({"tfjsVersion": "1.3.1", "labels": THREE, "imageSize": 224}),  # Teachable Machine's metadata.json
        json.dumps({"id2label": {"0": "daisy", "1": "sea lion", "2": "ätna"}, "label2id": {}}),  # Hugging Face
    ],
)
def test_forms(content: str, tmp_path: Path) -> None:
    path = tmp_path / "labels"
    path.write_bytes(content.encode())
    assert read_labels(path) == THREE
    path.write_bytes(content.lstrip("\ufeff").encode("utf-16"))
    assert read_labels(str(path)) == THREE


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("0\n1\n2\n", ("0", "1", "2")),  # digits are names
        ("0 daisy\n2 rose\n", ("0 daisy", "2 rose")),  # no numbering
        ("0 daisy\n0 rose\n", ("0 daisy", "0 rose")),
        ("0 daisy\nrose\n", ("0 daisy", "rose")),
        ("7 up\n", ("7 up",)),
        ("1 euro\n", ("1 euro",)),
        ("0 euro\n", ("euro",)),
        ("[none]\n{other}\n", ("[none]", "{other}")),
        ("tench, Tinca tinca\ngoldfish\n", ("tench, Tinca tinca", "goldfish")),
        ("twin\ntwin\n", ("twin", "twin")),
        ("background\n1 daisy\n2 rose\n", ("background", "1 daisy", "2 rose")),  # no table, no title
        ("house,2\ntree,2\n", ("house,2", "tree,2")),
    ],
)
def test_names_that_look_like_something_else(content: str, names: tuple[str, ...]) -> None:
    assert parse_labels(content.encode(), "labels") == names


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b" \n\n", "it is empty"),
        (b"caf\xe9\n", "no text in UTF-8.*save it as UTF-8"),
        (b"TFL3\0\0", "null characters"),
        (b"\xff\xfea", "no text in UTF-8"),
        (b"[]", "got list"),
        (b"{}", "got list"),
        (b'["a", 1]', "no name of class 1 among the 2"),
        (b'["a", " "]', "no name of class 1"),
        (b'{"0": "a", "2": "b"}', "no name of class 1"),
        (b'{"a": 0, "b": 0}', "no name of class 1"),
        (b'{"0": []}', "no name of class 0"),
        (b'{"layers": {}}', "no name of class 0"),
    ],
)
def test_what_is_no_label_file(content: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_labels(content, "labels 'x'")


def test_deep_json_is_text() -> None:
    assert len(parse_labels(b"[" * 100_000, "labels")) == 1


def test_files_that_are_not_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such file"):
        read_labels(tmp_path / "absent.txt")
    with pytest.raises(InputError, match="no regular file"):
        read_labels(tmp_path)
    make_pipe(tmp_path / "pipe")
    with pytest.raises(InputError, match="no regular file"):
        read_labels(tmp_path / "pipe")
    (tmp_path / "long.txt").write_bytes(b"a\n" * (MAX_LABEL_BYTES // 2 + 1))
    with pytest.raises(InputError, match="at most 1,048,576 are read"):
        read_labels(tmp_path / "long.txt")
    with pytest.raises(InputError, match="can't be read"):
        read_labels("a\0b")


def test_lists_from_python() -> None:
    assert label_list(["a", "b "], "labels") == label_list(("a", "b"), "labels") == ("a", "b")
    assert label_list({"b": 1, "a": 0}, "labels") == label_list({0: "a", 1: "b"}, "labels") == ("a", "b")
    assert label_list({"labels": 1, "other": 0}, "labels") == ("other", "labels")
    for wrong in (b"ab", 7, [b"a"], [None]):
        with pytest.raises(InputError, match="expected a text file"):
            label_list(wrong, "labels")


def test_beside_a_model(tmp_path: Path) -> None:
    """A file labels.txt, if it has as many names as the model has outputs; the model's own come first."""
    pytest.importorskip("tflite", reason="the extra [convert] is not installed")
    from tflite_maker import File, Op, T

    model = tmp_path / "model_unquant.tflite"
    softmax = [Op("SOFTMAX", [0], [1], ("SoftmaxOptions", {"Beta": 1.0}))]
    model.write_bytes(File([T((1, 2)), T((1, 2))], softmax).bytes())
    assert nm.load(model).info.labels == ()
    (tmp_path / "labels.txt").write_text("0 cats\n1 dogs\n")
    loaded = nm.load(model)
    assert loaded.info.labels == ("cats", "dogs")
    assert "labels assumed: those of labels.txt beside the model" in loaded.info.assumed
    assert np.isclose(loaded.run(np.zeros((1, 2), np.float32)).sum(), 1)
    own = nm.load(model, labels=["x", "y"])
    assert own.info.labels == ("x", "y")
    assert not any("labels" in text for text in own.info.assumed)
    (tmp_path / "labels.txt").write_text("0 cats\n1 dogs\n2 birds\n")
    assert nm.load(model).info.labels == ()
    assert labels_beside(model, 3) == ("cats", "dogs", "birds")
    (tmp_path / "labels.txt").write_bytes(b"\xff\xfe\xff")
    assert nm.load(model).info.labels == ()
