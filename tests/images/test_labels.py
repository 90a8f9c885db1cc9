"""Labels: the bundled list, offsets, and the order of predictions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npmobilenet.errors import InputError, WeightFileError
from npmobilenet.images.labels import decode, label_names, short_names, synonyms
from npmobilenet.modeldata import ModelInfo

SLIM = ModelInfo("slim", labels="imagenet", label_offset=1)
KERAS = ModelInfo("keras", labels="imagenet")
PLAIN = ModelInfo("plain")


def test_the_list() -> None:
    assert len(synonyms()) == len(short_names()) == 1000
    for i, name in {0: "tench", 1: "goldfish", 281: "tabby", 652: "military uniform", 999: "toilet tissue"}.items():
        assert short_names()[i] == name
    assert synonyms()[0] == "tench, Tinca tinca"
    assert len(set(short_names())) == 1000  # a label says which class is meant
    assert {i: short_names()[i] for i in (134, 517, 638, 639)} == {
        134: "crane (bird)", 517: "crane (machine)", 638: "maillot", 639: "maillot, tank suit",
    }  # fmt: skip


def test_the_list_equals_the_published_one(data: Path) -> None:
    lines = (data / "images" / "imagenet_labels_1001.txt").read_text().splitlines()
    published = [line.split(":", 1) for line in lines]
    assert [int(i) for i, _ in published] == list(range(1001))
    for (_, theirs), ours in zip(published[1:], synonyms(), strict=True):
        assert ours.partition(" (")[0] == theirs


def test_offsets() -> None:
    slim, keras = label_names(SLIM, 1001), label_names(KERAS, 1000)
    assert slim is not None
    assert slim[:2] == ("background", "tench")
    assert slim[653] == "military uniform"
    assert keras == slim[1:]
    assert label_names(PLAIN, 10) is None
    assert label_names(ModelInfo("two", ("cat", "dog")), 2) == ("cat", "dog")
    assert label_names(ModelInfo("late", ("cat",), 2), 3) == ("class 0", "class 1", "cat")


@pytest.mark.parametrize(
    ("info", "classes"),
    [(SLIM, 1000), (KERAS, 1001), (ModelInfo("x", ("a", "b")), 3), (ModelInfo("x", ("a", "b"), -1), 1)],
)
def test_labels_that_do_not_fit(info: ModelInfo, classes: int) -> None:
    with pytest.raises(WeightFileError, match="don't fit"):
        label_names(info, classes)


def test_unknown_list() -> None:
    with pytest.raises(WeightFileError, match="unknown label list 'coco'"):
        label_names(ModelInfo("x", "coco"), 80)
    with pytest.raises(WeightFileError, match="unknown label list"):
        label_names(ModelInfo("x", "../errors"), 80)


def test_decode() -> None:
    scores = np.zeros((2, 1001), np.float32)
    scores[0, [653, 1, 400]] = [0.5, 0.25, 0.25]
    scores[1, 0] = 1
    first, second = decode(scores, SLIM, top=3)
    assert first == [(653, "military uniform", 0.5), (1, "tench", 0.25), (400, short_names()[399], 0.25)]
    assert second == [(0, "background", 1.0), (1, "tench", 0.0), (2, "goldfish", 0.0)]
    assert all(type(i) is int and type(s) is float for i, _, s in first)
    assert decode(scores[:, :4], PLAIN, top=1) == [[(1, "class 1", 0.25)], [(0, "class 0", 1.0)]]
    assert [len(row) for row in decode(scores, SLIM, top=5000)] == [1001, 1001]
    assert len(decode(scores, SLIM)[0]) == 5
    assert decode(scores[:0], SLIM) == []


@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=12), st.integers(1, 14), st.sampled_from("fbBH"))
def test_order(values: list[int], top: int, dtype: str) -> None:
    scores = np.array([values]).astype(dtype)
    expected = sorted(range(len(values)), key=lambda i: (-values[i], i))[:top]
    assert [i for i, _, _ in decode(scores, PLAIN, top)[0]] == expected


@pytest.mark.parametrize(
    "scores",
    [
        np.zeros(5),
        np.zeros((1, 2, 2)),
        np.zeros((1, 0)),
        np.array([["a"]]),
        np.zeros((1, 3), complex),
        np.zeros((2, 2), bool),
    ],
)
def test_bad_scores(scores: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"expected numbers of shape \(N, classes\)"):
        decode(scores, PLAIN)


def test_nan_and_bad_top() -> None:
    with pytest.raises(InputError, match="NaN"):
        decode(np.array([[0, np.nan]]), PLAIN)
    for top in (0, -1, 2.0, True, "5"):
        with pytest.raises(InputError, match="top: expected"):
            decode(np.zeros((1, 3)), PLAIN, top)  # type: ignore[arg-type]
