"""Small models with random weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from npmobilenet.graph import Graph
from npmobilenet.model import Model
from npmobilenet.modeldata import Array, ModelData, ModelInfo
from npmobilenet.zoo import SPECS
from npmobilenet.zoo.build import build


def random_weights(graph: Graph, seed: int = 0) -> dict[str, Array]:
    """Weights under which activations keep their size from layer to layer."""
    rng = np.random.default_rng(seed)
    found = {}
    for name, tensor in graph.constants.items():
        fan_in = max(int(np.prod(tensor.shape[:-1])), 1)
        if tensor.shape[:-1] and "depthwise" in name:
            fan_in = tensor.shape[0] * tensor.shape[1]
        found[name] = (rng.standard_normal(tensor.shape) * (2 / fan_in) ** 0.5).astype(np.float32)
    return found


def tiny(kernels: str = "fast", family: str = "v3_small", **options: Any) -> Model:
    graph = build(SPECS[family], depth_multiplier=0.35, resolution=32, num_classes=10, **options)
    return Model(ModelData(graph, random_weights(graph), ModelInfo("tiny")), kernels)


def images(count: int, size: int = 32) -> Array:
    return np.random.default_rng(1).uniform(-1, 1, (count, size, size, 3)).astype(np.float32)
