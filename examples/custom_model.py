"""A model of your own: build a graph, give it weights, save it, run it with both kernel sets, compare the bits.

Usage: python examples/custom_model.py
"""

import os
import sys
import tempfile
from pathlib import Path

import numpy as np

import npmobilenet as nm
from npmobilenet.formats import weightfile
from npmobilenet.modeldata import ModelData, ModelInfo
from npmobilenet.zoo import SPECS
from npmobilenet.zoo.build import build

LABELS = ("cat", "dog", "neither")


def random_weights(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Normally distributed, so scaled that a layer's outputs are about as large as its inputs."""
    inputs = max(1, int(np.prod(shape[:-1])))
    weights: np.ndarray = rng.standard_normal(shape) * np.sqrt(1 / inputs)
    return weights.astype(np.float32)


def main() -> None:
    """V3 small at half width for 64 x 64 images and three classes, with random weights."""
    graph = build(SPECS["v3_small"], depth_multiplier=0.5, resolution=64, num_classes=len(LABELS), name="pets")
    rng = np.random.default_rng(0)
    weights = {name: random_weights(tensor.shape, rng) for name, tensor in graph.constants.items()}
    print(
        f"{len(graph.nodes)} nodes, {graph.total_macs / 1e6:.1f} M MACs, {graph.total_params() / 1e6:.2f} M parameters"
    )

    picture = rng.integers(0, 256, (80, 100, 3), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "pets.h5")
        weightfile.write(path, ModelData(graph, weights, ModelInfo("pets", LABELS, preprocessing="whole_image")))
        fast, reference = nm.load(path), nm.load(path, kernels="reference")
        for class_id, label, score in fast.predict(picture)[0]:
            print(class_id, label, f"{score:.4f}")
        x = fast.preprocess(picture)
        print("equal bits:", np.array_equal(fast.run(x), reference.run(x)))


if __name__ == "__main__":
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough: `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
