"""Weights and inputs made up: how long a network takes doesn't depend on what it has learnt."""

from __future__ import annotations

import numpy as np

from npmobilenet.errors import ModelNotFound
from npmobilenet.graph import Graph
from npmobilenet.modeldata import Array, ModelData, ModelInfo
from npmobilenet.zoo.build import build_model


def random_model(name: str, seed: int = 0) -> ModelData:
    """A float32 model of the registry with random weights, scaled so that activations neither vanish nor overflow.

    Weights are normal with variance 2 / (terms of a sum), which keeps the size of activations behind a relu (He et al.,
    "Delving Deep into Rectifiers", 2015): values that die out would be denormal numbers, which some CPUs are slow at.
    Raises `ModelNotFound` for a name that isn't one, or that of an 8-bit model.
    """
    if name.endswith(("_uint8", "_int8")):
        raise ModelNotFound(
            f"'{name}' is an 8-bit model, for which random weights can't be made: give a .tflite or .h5 file of it"
        )
    graph = build_model(name)
    rng = np.random.default_rng(seed)
    tensors: dict[str, Array] = {}
    for node in graph.nodes:
        for position, tensor in enumerate(node.inputs):
            shape = graph.tensors[tensor].shape
            if not graph.tensors[tensor].constant:
                continue
            terms = int(np.prod(shape[:2] if node.op == "depthwise_conv2d" else shape[:-1]))
            scale = np.sqrt(2 / terms) if position == 1 else 0.01
            tensors[tensor] = (rng.standard_normal(shape) * scale).astype(np.float32)
    return ModelData(graph, tensors, ModelInfo(name, "imagenet", label_offset=1))


def random_input(shape: tuple[int, ...], dtype: str, seed: int = 0) -> Array:
    """Values between -1 and 1 for float32, all values of the type for integers."""
    rng = np.random.default_rng(seed)
    if dtype == "float32":
        return rng.uniform(-1, 1, shape).astype(np.float32)
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)


def random_inputs(graph: Graph, batch: int) -> dict[str, Array]:
    """An array for each input of the graph."""
    return {
        name: random_input((batch, *graph.tensors[name].shape[1:]), graph.tensors[name].dtype, seed)
        for seed, name in enumerate(graph.inputs)
    }
