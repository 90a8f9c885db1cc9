"""A classifier on vectors: multinomial logistic regression, and a model that ends in it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from npmobilenet.graph import Graph, GraphBuilder
from npmobilenet.images.inputs import NHWC
from npmobilenet.modeldata import ASSUMED, Array, ModelData, ModelInfo, assumptions, cut

Floats = NDArray[np.float64]
STEPS, MEMORY, TOLERANCE = 1000, 10, 1e-6
_HALVINGS, _ENOUGH = 40, 1e-4  # of a step, until the loss falls by this share of what its slope promises
STRENGTHS = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)  # that are tried where none is named
ROUGH = 1e-4  # tolerance while strengths are compared: their losses differ by a hundred times that


class _Regression:
    """The loss of a multinomial logistic regression on given images, and where it is least."""

    def __init__(self, x: Array, classes: Array, count: int) -> None:
        self.mean, self.spread = x.mean(0, dtype=np.float64), x.std(0, dtype=np.float64)
        self.spread[self.spread == 0] = 1.0
        self.scaled = (x - self.mean) / self.spread
        self.truth = np.zeros((len(x), count))
        self.truth[np.arange(len(x)), classes] = 1.0
        self.count = count
        self.flat: Floats = np.zeros((x.shape[1] + 1) * count)  # of the last minimum, where the next search begins

    def _loss(self, flat: Floats, strength: float) -> tuple[float, Floats]:
        w, b = flat[: -self.count].reshape(-1, self.count), flat[-self.count :]
        z = self.scaled @ w + b
        z -= z.max(1, keepdims=True)
        e = np.exp(z)
        total = e.sum(1, keepdims=True)
        error = e / total - self.truth
        value = float((np.log(total[:, 0]) - (z * self.truth).sum(1)).sum() + (w * w).sum() / (2 * strength))
        slope = np.concatenate([(self.scaled.T @ error + w / strength).ravel(), error.sum(0)])
        return value / len(z), slope / len(z)

    def minimum(self, strength: float, tolerance: float = TOLERANCE) -> tuple[Floats, Floats]:
        """Weights and biases for vectors as they are given, unscaled."""
        self.flat = _minimum(lambda flat: self._loss(flat, strength), self.flat, tolerance)
        w = self.flat[: -self.count].reshape(-1, self.count) / self.spread[:, None]
        return w, self.flat[-self.count :] - self.mean @ w


def logistic_regression(x: Array, classes: Array, count: int, strength: float) -> tuple[Floats, Floats]:
    """Weights (features, count), biases (count,): those of least cross-entropy of `softmax(x w + b)` on x, classes.

    Plus `sum w^2 / (2 strength)` in the scale of features that have mean 0 and variance 1 (those that never change
    get weight 0); `strength` is scikit-learn's C. The function is convex, so there is one minimum; the way there has no
    chance in it. Source of the method: Nocedal and Wright, Numerical Optimization, algorithm 7.4 (L-BFGS).
    """
    return _Regression(x, classes, count).minimum(strength)


def choose_strength(x: Array, classes: Array, count: int, fold_of: Array) -> float | None:
    """The strength of STRENGTHS under which images are named best by heads that didn't see them (cross-validation).

    `fold_of` (len(x),) says with which others each image is left out, -1: never; None if that holds for all. Measured
    is the cross-entropy, which tells more than the number of hits; it falls with the strength, then rises, and the
    first rise ends the search.
    """
    folds = [fold_of == fold for fold in np.unique(fold_of) if fold >= 0]
    tried = [_Regression(x[~fold], classes[~fold], count) for fold in folds]
    best, least = None, np.inf
    for strength in STRENGTHS:
        loss = 0.0
        for fold, regression in zip(folds, tried, strict=True):
            w, b = regression.minimum(strength, ROUGH)
            z = x[fold] @ w + b
            z -= z.max(1, keepdims=True)
            loss += float((np.log(np.exp(z).sum(1)) - z[np.arange(len(z)), classes[fold]]).sum())
        if not folds or loss >= least:
            break
        best, least = strength, loss
    return best


def _minimum(function: Callable[[Floats], tuple[float, Floats]], x: Floats, tolerance: float) -> Floats:
    """Where a smooth convex function is least, by L-BFGS with halved steps."""
    value, slope = function(x)
    pairs: deque[tuple[Floats, Floats, float]] = deque(maxlen=MEMORY)
    for _ in range(STEPS):
        if np.abs(slope).max() <= tolerance:
            break
        step = -_times_inverse_curvature(slope, pairs)
        fall = float(step @ slope)
        for halving in range(_HALVINGS):
            factor = 0.5**halving
            new = x + factor * step
            new_value, new_slope = function(new)
            if new_value <= value + _ENOUGH * factor * fall:
                break
        else:
            break  # no smaller value is left that float64 can tell
        moved, turned = new - x, new_slope - slope
        if (curvature := float(moved @ turned)) > 0:
            pairs.append((moved, turned, curvature))
        x, value, slope = new, new_value, new_slope
    return x


def _times_inverse_curvature(slope: Floats, pairs: Sequence[tuple[Floats, Floats, float]]) -> Floats:
    """The two loops of L-BFGS: the slope, times an estimate of the inverse Hessian."""
    q, shares = slope.copy(), []
    for moved, turned, curvature in reversed(pairs):
        shares.append(float(moved @ q) / curvature)
        q -= shares[-1] * turned
    if pairs:
        _, turned, curvature = pairs[-1]
        q *= curvature / float(turned @ turned)
    for moved, turned, curvature in pairs:
        q += (shares.pop() - float(turned @ q) / curvature) * moved
    return q


def with_head(
    data: ModelData, layer: str, weights: Floats, biases: Floats, labels: tuple[str, ...], facts: dict[str, str],
    name: str, recipe: str | None = None,
) -> ModelData:  # fmt: skip
    """The model up to a layer, then `softmax(vector weights + biases)`: a classifier of these labels.

    The vector is `runtime/pooled.py: as_vectors` of the layer: real values of integers, the average of a map. `recipe`:
    that of the pictures on which the head was trained, if it isn't the model's.
    """
    base = cut(data.graph, [layer])
    more = GraphBuilder(name)
    shape = base.tensors[layer].shape
    x = more.tensor(replace(base.tensors[layer]))

    def added(op: str, inputs: list[str], output: str, **attrs: object) -> str:
        return more.node(op, inputs, _free(base, f"head/{output}"), **attrs)  # type: ignore[arg-type]

    if base.tensors[layer].dtype != "float32":
        x = added("dequantize", [x], "real")
    if len(shape) == NHWC and shape[1:3] != (1, 1):
        x = added("mean", [x], "pooled", keepdims=True)
    if len(shape) != 2:
        x = added("reshape", [x], "vector", shape=(1, len(weights)))
    w = more.constant(_free(base, "head/weights"), weights.shape)
    b = more.constant(_free(base, "head/biases"), biases.shape)
    logits = added("fully_connected", [x, w, b], "logits")
    scores = added("softmax", [logits], "probabilities", beta=1.0)
    endpoints = {**base.endpoints, "Logits": logits, "Predictions": scores}
    nodes, tensors = (*base.nodes, *more.nodes), {**base.tensors, **more.tensors}
    graph = Graph(name, base.inputs, (scores,), tensors, nodes, endpoints)
    arrays = {n: data.tensors[n] for n in base.constants}
    arrays |= {w: weights.astype(np.float32), b: biases.astype(np.float32)}
    said = [text for text in data.info.assumed if not text.startswith("labels")]
    provenance = {k: v for k, v in data.info.provenance.items() if k != ASSUMED} | assumptions(said) | facts
    info = ModelInfo(name, labels, 0, recipe or data.info.preprocessing, provenance)
    return ModelData(graph, arrays, info)


def _free(graph: Graph, name: str) -> str:
    """`name`, or that with primes until no tensor or node of the graph has it."""
    taken = {*graph.tensors, *(node.name for node in graph.nodes)}
    while name in taken:
        name += "'"
    return name
