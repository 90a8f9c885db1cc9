"""`model.features` as a part of scikit-learn's pipelines."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from npmobilenet.errors import MissingExtra
from npmobilenet.model import Model, load
from npmobilenet.runtime.pooled import POOLED, layer_of

try:
    from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
    from sklearn.utils.validation import check_is_fitted
except ImportError:
    raise MissingExtra("scikit-learn", "sklearn", "A transformer for pipelines") from None


class MobileNetFeatures(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Images to vectors: `transform(X)` is `load(model).features(X, layer, l2, recipe)`, float32 (N, channels).

    X is what `features` takes: a list of paths, of bytes or of uint8 arrays (height, width, 3), or one (N, height,
    width, 3). Nothing is learned: `fit` loads the model, so that a wrong name fails there. A fitted transformer can be
    copied and pickled; `model` may also be a `Model`. Raises as `load` and `features`; `NotFittedError` before `fit`.

        make_pipeline(MobileNetFeatures("mobilenet_v2_1.0_224"), LogisticRegression()).fit(paths, classes)
    """

    def __init__(
        self, model: str | Model = "flowers", *, layer: str = POOLED, l2: bool = False, recipe: str | None = None,
        threads: int | None = None,
    ) -> None:  # fmt: skip
        self.model = model
        self.layer = layer
        self.l2 = l2
        self.recipe = recipe
        self.threads = threads

    def fit(self, X: Any, y: Any = None) -> MobileNetFeatures:  # noqa: N803
        """Load the model; X and y have no say."""
        self.model_ = self.model if isinstance(self.model, Model) else load(self.model, threads=self.threads)
        shape = layer_of(self.model_.graph, self.layer).shape
        self._n_features_out = int(shape[-1] if len(shape) == 4 else np.prod(shape))
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:  # noqa: N803
        """(N, channels) float32, a row for each image."""
        check_is_fitted(self, "model_")
        images = list(X) if isinstance(X, np.ndarray) and X.dtype.kind in "OUS" else X
        if type(X).__module__.partition(".")[0] in ("pandas", "polars"):
            images = list(X)  # a column of paths
        found: NDArray[np.float32] = self.model_.features(images, self.layer, self.l2, self.recipe)
        return found

    def __sklearn_tags__(self) -> Any:
        """Images are no rows of numbers, and nothing is learned from them."""
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.string = False, True
        tags.no_validation, tags.requires_fit = True, True
        tags.transformer_tags.preserves_dtype = []
        return tags
