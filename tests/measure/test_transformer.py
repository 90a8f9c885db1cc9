"""The transformer for scikit-learn's pipelines."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from cases import same_bits
from models import tiny
from PIL import Image

pytest.importorskip("sklearn", reason="scikit-learn is not installed (extra [sklearn])")

from sklearn.base import clone
from sklearn.exceptions import NotFittedError, SkipTestWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator

from npmobilenet.measure.embeddings.transformer import MobileNetFeatures


def test_check_estimator() -> None:
    """All checks that there are for an estimator whose input isn't a matrix."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkipTestWarning)
        done = check_estimator(MobileNetFeatures(tiny()), on_skip=None)
    assert done
    assert not [entry for entry in done if entry["status"] == "failed"]


def test_in_a_pipeline(tmp_path: Path) -> None:
    """Paths and arrays give the model's own features; five lines are a classifier."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 60, (12, 16, 16, 3), np.uint8)
    pictures[::2] += 180
    classes = np.array(["bright", "dark"] * 6)
    paths = [tmp_path / f"{i}.png" for i in range(12)]
    for path, picture in zip(paths, pictures, strict=True):
        Image.fromarray(picture).save(path)
    model = tiny()
    step = MobileNetFeatures(model, l2=True)
    with pytest.raises(NotFittedError):
        step.transform(pictures)
    vectors = step.fit_transform(pictures)
    assert same_bits(vectors, model.features(pictures, l2=True))
    for same in (list(paths), np.array([str(p) for p in paths]), np.array(paths, object)):
        assert same_bits(step.transform(same), vectors)
    pipeline = make_pipeline(MobileNetFeatures(model), LogisticRegression())
    assert pipeline.fit(paths, classes).score(pictures, classes) == 1
    for again in (clone(step).fit(None), copy.deepcopy(step), pickle.loads(pickle.dumps(step))):
        assert same_bits(again.transform(pictures[:2]), vectors[:2])
    assert list(step.get_feature_names_out()[:2]) == ["mobilenetfeatures0", "mobilenetfeatures1"]
    assert len(step.get_feature_names_out()) == vectors.shape[1]


def test_without_scikit_learn() -> None:
    """What is missing is said by the name of the extra."""
    program = (
        "import sys; sys.modules['sklearn'] = None\n"
        "from npmobilenet.errors import MissingExtra\n"
        "try:\n    import npmobilenet.measure.embeddings.transformer\n"
        "except MissingExtra as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "npmobilenet[sklearn]" in done.stdout
