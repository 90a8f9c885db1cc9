"""Make the shipped weight file from what tools/train_flowers.py trained.

    python tools/pack_flowers.py weights.npz --data PATH/flowers144.npz --out weights/flowers.h5

Builds the zoo's V2 with the trained width, folds batch norm into the weights, measures the accuracy on the validation
split with this project's own engine and recipe, and writes all of it into the file. With `--expect FILE` (what the
training tool wrote beside the weights: its own probabilities for the validation images) the two are compared, and
nothing is written unless every prediction is equal and every probability within 1e-4.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
from pathlib import Path

import numpy as np

from npmobilenet.formats import weightfile
from npmobilenet.formats.tensorflow.checkpoint import Checkpoint, Variable
from npmobilenet.formats.tensorflow.model import tensors_for_graph
from npmobilenet.model import Model
from npmobilenet.modeldata import Array, ModelData, ModelInfo
from npmobilenet.zoo import SPECS
from npmobilenet.zoo.build import build

RECIPE = "slim_inception_eval"
TOLERANCE = 1e-4


class Trained(Checkpoint):
    """The .npz of the training tool, read as if it were the checkpoint whose variable names it has."""

    def __init__(self, path: Path) -> None:
        self.prefix = path
        self.files = ()
        with np.load(path, allow_pickle=False) as arrays:
            self.arrays = {name: arrays[name] for name in arrays.files}
        self.variables = {name: Variable(a.shape, str(a.dtype)) for name, a in self.arrays.items()}

    def read(self, name: str) -> Array:
        """One variable."""
        found: Array = self.arrays[name]
        return found


def pack(path: Path, size: int, multiplier: float, classes: tuple[str, ...], facts: dict[str, str]) -> ModelData:
    """The trained network as a model for images of `size`."""
    graph = build(SPECS["v2"], depth_multiplier=multiplier, resolution=size, num_classes=len(classes), name="flowers")
    return ModelData(graph, tensors_for_graph(Trained(path), graph), ModelInfo("flowers", classes, 0, RECIPE, facts))


def probabilities(model: Model, images: list[bytes]) -> Array:
    """(images, classes), by the model's own recipe."""
    return np.concatenate([model.run(model.preprocess(images[i : i + 8])) for i in range(0, len(images), 8)])


def main() -> int:
    """Pack, measure, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, help="the .npz that train_flowers.py wrote")
    parser.add_argument("--data", type=Path, required=True, help="flowers144.npz")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, default=128, help="side of the input")
    parser.add_argument("--multiplier", type=float, default=0.5)
    parser.add_argument("--expect", type=Path, help=".npz with the training framework's own `probabilities`")
    arguments = parser.parse_args()
    with np.load(arguments.data, allow_pickle=False) as data:
        classes = tuple(str(name) for name in data["classes"])
        blob, offsets, labels = data["val_jpeg"].tobytes(), data["val_offsets"], data["val_labels"]
    images = [blob[a:b] for a, b in itertools.pairwise(offsets)]
    facts = {
        "source": "trained from scratch by tools/train_flowers.py (docs/training.md)",
        "data": "flowers144.npz: 2,934 training and 736 validation photographs of the TensorFlow flowers set (CC-BY)",
        "sha256": hashlib.sha256(arguments.weights.read_bytes()).hexdigest(),
        "converter": "tools/pack_flowers.py",
        "architecture": f"mobilenet_v2_{arguments.multiplier}_{arguments.size}, 5 classes",
    }
    found = probabilities(Model(pack(arguments.weights, arguments.size, arguments.multiplier, classes, facts)), images)
    right = int((found.argmax(1) == labels).sum())
    facts["accuracy"] = f"top-1 {right / len(labels):.4f} on the validation split ({right} of {len(labels)}), {RECIPE}"
    print(facts["accuracy"])
    if arguments.expect:
        with np.load(arguments.expect, allow_pickle=False) as expected:
            theirs = expected["probabilities"]
        worst = float(np.abs(found - theirs).max())
        differing = int((found.argmax(1) != theirs.argmax(1)).sum())
        print(f"against the training framework: {differing} predictions differ, largest difference {worst:.2e}")
        if differing or worst > TOLERANCE:
            print("not written")
            return 1
    weightfile.write(arguments.out, pack(arguments.weights, arguments.size, arguments.multiplier, classes, facts))
    print(f"{arguments.out}: {arguments.out.stat().st_size:,} bytes, sha256 {weightfile.sha256(arguments.out)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
