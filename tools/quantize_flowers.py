"""Make the 8-bit twin of the shipped flowers model.

    python tools/quantize_flowers.py weights/flowers.h5 --data PATH/flowers144.npz --out weights/flowers_uint8.h5

Calibrates with photographs of the training split only, quantizes (uint8, one scale for each tensor, the true ranges),
measures the accuracy on the validation split with this project's own engine and recipe, and writes all of it into the
file, unless the twin is more than a point below the float model, or the file above a million bytes. The same float
model and data give the same bytes.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import tempfile
from pathlib import Path

import numpy as np

from npmobilenet.formats import weightfile
from npmobilenet.model import Model
from npmobilenet.modeldata import Array, ModelData
from npmobilenet.quantize import SCHEMES, calibrate, open_images, quantize

NAME = "flowers_uint8"
SAMPLES = 500
MOST_LOSS = 0.01
MOST_BYTES = 1_000_000


def right(data: ModelData, images: list[bytes], labels: Array) -> int:
    """How many images the model classifies as they are labelled."""
    model = Model(data)
    found = (model.run(model.preprocess(images[i : i + 8])).argmax(1) for i in range(0, len(images), 8))
    return int((np.concatenate(list(found)) == labels).sum())


def main() -> int:
    """Calibrate, quantize, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="the float model, flowers.h5")
    parser.add_argument("--data", type=Path, required=True, help="flowers144.npz")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scheme", choices=SCHEMES, default="uint8", help="inputs and outputs are uint8 in any case")
    parser.add_argument("--samples", type=int, default=SAMPLES, help="photographs to calibrate with")
    arguments = parser.parse_args()
    with np.load(arguments.data, allow_pickle=False) as archive:
        blob, offsets, labels = archive["val_jpeg"].tobytes(), archive["val_offsets"], archive["val_labels"]
    images = [blob[a:b] for a, b in itertools.pairwise(offsets)]
    source = weightfile.read(arguments.model)
    found = calibrate(source, open_images(arguments.data, arguments.samples, "train"), exact=True)
    made = quantize(source, found.ranges, arguments.scheme, "uint8", NAME)
    before, after = (right(data, images, labels) for data in (source, made))
    accuracy = f"top-1 {after / len(labels):.4f} on the validation split ({after} of {len(labels)})"
    print(f"{accuracy}; the float model {before / len(labels):.4f} ({before})")
    facts = {
        **made.info.provenance,
        "accuracy": f"{accuracy}, {made.info.preprocessing}",
        "calibration": f"{found.images} images of the training split; ranges as the values have them",
        "converter": "tools/quantize_flowers.py",
        "float_sha256": weightfile.sha256(arguments.model),
    }
    made = dataclasses.replace(made, info=dataclasses.replace(made.info, provenance=facts))
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder, f"{NAME}.h5")
        weightfile.write(trial, made)
        size = trial.stat().st_size
    if before - after > MOST_LOSS * len(labels) or size > MOST_BYTES:
        print(f"not written: {before - after} images fewer than the float model, {size:,} bytes")
        return 1
    weightfile.write(arguments.out, made)
    print(f"{arguments.out}: {size:,} bytes, sha256 {weightfile.sha256(arguments.out)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
