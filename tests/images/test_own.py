"""Labels and recipes that a user gives to a model: in memory, and kept by convert."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import npmobilenet as nm
from npmobilenet.errors import InputError
from npmobilenet.formats import weightfile
from npmobilenet.graph import GraphBuilder
from npmobilenet.images.example import draw_sunflower
from npmobilenet.images.own import with_own
from npmobilenet.modeldata import ModelData, ModelInfo, assumptions, recipe_assumed

FLOWERS = ("daisy", "dandelion", "roses", "sunflowers", "tulips")


def made(classes: int = 3, **facts: Any) -> ModelData:
    """The softmax of the input, (1, classes)."""
    b = GraphBuilder("made")
    graph = b.finish([b.node("softmax", [b.input("input", (1, classes))], "softmax", beta=1.0)])
    return ModelData(graph, {}, ModelInfo("made", **facts))


def test_labels_of_every_kind(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("0 a\n1 b\n2 c\n")
    for labels in (("a", "b", "c"), ["a", "b", "c"], {"c": 2, "a": 0, "b": 1}, tmp_path / "names.txt",
                   str(tmp_path / "names.txt")):  # fmt: skip
        info = with_own(made(), labels).info
        assert (info.labels, info.label_offset) == (("a", "b", "c"), 0)
    assert info.provenance == {"given": "labels from names.txt"}
    assert with_own(made()) == made()


@pytest.mark.parametrize(("classes", "offset"), [(1000, 0), (1001, 1)])
def test_bundled_labels(classes: int, offset: int) -> None:
    info = with_own(made(classes), "imagenet").info
    assert (info.labels, info.label_offset) == ("imagenet", offset)


def test_labels_behind_background() -> None:
    """A model whose class 0 is background keeps it, unless it is named, too."""
    data = made(3, labels=("x", "y"), label_offset=1)
    assert with_own(data, ["a", "b"]).info.label_offset == 1
    assert with_own(data, ["a", "b", "c"]).info.label_offset == 0


@pytest.mark.parametrize(
    ("data", "labels", "message"),
    [
        (made(), ["a", "b"], r"labels: 2 names, and made has 3 outputs; name them all"),
        (made(1), ["cat", "dog"], r"2 names.*1 outputs; give one, the name of the class that a score of 1 stands for"),
        (made(), "imagenet", r"labels 'imagenet': 1000 names, and made has 3 outputs"),
        (made(), "no such file", r"labels 'no such file': there is no such file"),
        (made(), [1, 2, 3], "no name of class 0"),
    ],
)
def test_labels_that_do_not_fit(data: ModelData, labels: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        with_own(data, labels)


def test_labels_for_what_is_no_classifier() -> None:
    b = GraphBuilder("map")
    graph = b.finish([b.node("activation", [b.input("input", (1, 2, 2, 3))], "out", function="relu")])
    with pytest.raises(InputError, match=r"map gives \(1, 2, 2, 3\), no score for each class"):
        with_own(ModelData(graph, {}, ModelInfo("map")), ["a", "b", "c"])


@pytest.mark.parametrize("recipe", ["whole-image", "", 7, ["opencv"]])
def test_recipes_that_there_are_not(recipe: Any) -> None:
    with pytest.raises(InputError, match="unknown preprocessing recipe"):
        with_own(made(), preprocess=recipe)


def test_what_was_assumed_is_forgotten() -> None:
    said = [recipe_assumed("raw_pixels"), "labels assumed: ImageNet's", "something else"]
    data = made(labels=("x", "y", "z"))
    data = replace(data, info=replace(data.info, provenance=assumptions(said)))
    assert list(with_own(data, ["a", "b", "c"]).info.assumed) == [said[0], said[2]]
    assert list(with_own(data, preprocess="opencv").info.assumed) == said[1:]
    assert list(with_own(data, ["a", "b", "c"], "opencv").info.assumed) == said[2:]


def test_load_with_own_labels_and_recipe() -> None:
    names = [name.upper() for name in FLOWERS]
    model = nm.load("flowers", labels=names, preprocess="opencv")
    ((best,),) = model.predict(draw_sunflower(), top=1)
    plain = nm.load("flowers").predict(draw_sunflower(), top=1, recipe="opencv")[0][0]
    assert best == (plain[0], plain[1].upper(), plain[2])
    assert (model.preprocess(draw_sunflower()) == nm.load("flowers").preprocess(draw_sunflower(), "opencv")).all()


def test_any_scores_with_labels_are_a_classifier(tmp_path: Path) -> None:
    """Logits: nothing in the file says that they are scores of classes."""
    b = GraphBuilder("logits")
    graph = b.finish([b.node("mean", [b.input("input", (1, 2, 2, 3))], "mean", keepdims=False)])
    weightfile.write(tmp_path / "logits.h5", ModelData(graph, {}, ModelInfo("logits")))
    red = np.zeros((2, 2, 3), np.uint8) + np.array([255, 0, 0], np.uint8)
    with pytest.raises(InputError, match="not a classifier"):
        nm.load(tmp_path / "logits.h5").predict(red)
    model = nm.load(tmp_path / "logits.h5", labels=("red", "green", "blue"))
    assert model.predict(red, top=1)[0][0][1] == "red"


def test_convert_keeps_them(tmp_path: Path) -> None:
    """A weight file is converted anew only for this."""
    weightfile.write(tmp_path / "a.h5", made(preprocessing="raw_pixels"))
    with pytest.raises(nm.ConversionError, match="a weight file of this project already"):
        nm.convert(tmp_path / "a.h5", tmp_path / "b.h5")
    written = nm.convert(tmp_path / "a.h5", tmp_path / "b.h5", labels=("a", "b", "c"), preprocess="teachable_machine")
    info = nm.load(tmp_path / "b.h5").info
    assert info == written.info
    assert (info.labels, info.preprocessing) == (("a", "b", "c"), "teachable_machine")
    assert info.provenance == {"given": "labels; recipe teachable_machine"}
    nm.convert(tmp_path / "b.h5", tmp_path / "c.h5", preprocess="opencv")
    again = nm.load(tmp_path / "c.h5").info
    assert (again.labels, again.preprocessing, again.provenance["given"]) == (
        info.labels,
        "opencv",
        "labels; recipe opencv",
    )
    with pytest.raises(InputError):
        nm.convert(tmp_path / "a.h5", tmp_path / "d.h5", labels=("a",))
    assert not (tmp_path / "d.h5").exists()
