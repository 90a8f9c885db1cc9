"""Makes goldens with Keras: random models of keras.applications, saved in its three formats, with inputs and outputs.

    pip install 'npmobilenet[tf]'
    python tools/make_tf_goldens.py OUT                    # every case, every format
    python tools/make_tf_goldens.py OUT --cases 'v2_*'     # some (fnmatch patterns); --list shows them all

Each case becomes a folder:

* `model.h5` (legacy), `model.weights.h5`, `model.keras`: what `--formats` asks for, of those the case allows;
* `golden.npz`: `input` (2 images, [-1, 1]), `output`, and `endpoint:NAME` for every block, NAME being TF-slim's
  (`layer_5/output`, `Conv2d_3_pointwise`), which is what npmobilenet calls it;
* `meta.json`: function and arguments, seed, versions, sha256 of the files.

Weights are random and seeded. Batch-norm statistics are those of the model's own activations on the input, changed at
random by up to a quarter, so that every layer's output has a spread near 1 and none of them is saturated.
"""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
FORMATS = (".h5", ".weights.h5", ".keras")


@dataclass(frozen=True)
class Case:
    """A function of `keras.applications` and its arguments; `size` is (height, width)."""

    function: str
    size: tuple[int, int]
    args: dict[str, Any] = field(default_factory=dict)
    formats: tuple[str, ...] = FORMATS


# One case for each family at two sizes at least, one of them odd, where Keras' padding differs from TensorFlow's SAME.
CASES = {
    "v1_1.0_96": Case("MobileNet", (96, 96), {"alpha": 1.0}),
    "v1_0.25_97": Case("MobileNet", (97, 97), {"alpha": 0.25, "classes": 7}),
    "v2_0.35_96": Case("MobileNetV2", (96, 96), {"alpha": 0.35}),
    "v2_1.4_97": Case("MobileNetV2", (97, 97), {"alpha": 1.4}),
    "v3_large_1.0_96": Case("MobileNetV3Large", (96, 96)),
    "v3_small_1.0_224": Case("MobileNetV3Small", (224, 224)),
    "v3_large_minimalistic_1.0_97": Case("MobileNetV3Large", (97, 97), {"minimalistic": True, "classes": 5}),
    "v3_small_minimalistic_1.0_96": Case("MobileNetV3Small", (96, 96), {"minimalistic": True}),
    # Options, and widths where Keras and TF-slim round differently.
    "v1_0.3333_96x128": Case("MobileNet", (96, 128), {"alpha": 1 / 3, "classifier_activation": None}, (".keras",)),
    "v2_1.12_65": Case(
        "MobileNetV2",
        (65, 65),
        {"alpha": 1.12, "classes": 3, "classifier_activation": "sigmoid"},
        (".keras", ".weights.h5"),
    ),
    "v2_0.5_64_avg": Case("MobileNetV2", (64, 64), {"alpha": 0.5, "include_top": False, "pooling": "avg"}, (".h5",)),
    "v3_small_0.6_65x96": Case(
        "MobileNetV3Small", (65, 96), {"alpha": 0.6, "include_preprocessing": False}, (".keras", ".h5")
    ),
    "v3_small_0.75_64_notop": Case(
        "MobileNetV3Small", (64, 64), {"alpha": 0.75, "include_top": False}, (".keras", ".weights.h5")
    ),
    "v3_small_1.25_any_size": Case("MobileNetV3Small", (0, 0), {"alpha": 1.25, "classes": 2}, (".keras",)),
}
ANY_SIZE = 97  # the input of a case of size (0, 0), whose model takes images of any size


def build(case: Case, seed: int) -> tuple[Any, Floats, Floats]:
    """The Keras model with its random weights, the images for it, and the same images in [-1, 1]."""
    import keras

    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    shape = {} if case.size == (0, 0) else {"input_shape": (*case.size, 3)}
    model = getattr(keras.applications, case.function)(weights=None, **shape, **case.args)
    height, width = case.size if all(case.size) else (ANY_SIZE, ANY_SIZE)
    pixels = rng.integers(0, 256, (2, height, width, 3)).astype(np.float32)
    scaled = pixels / np.float32(127.5) - np.float32(1)
    x = pixels if any(type(layer).__name__ == "Rescaling" for layer in model.layers) else scaled
    randomise(model, rng)
    fit_statistics(model, x, rng)
    return model, x, scaled


def randomise(model: Any, rng: np.random.Generator) -> None:
    """Kernels of standard deviation sqrt(2 / fan_in), gammas in [0.7, 1.3], betas and biases of deviation 0.2."""
    for layer in model.layers:
        for variable in layer.weights:
            shape, name = tuple(variable.shape), variable.name
            if name == "gamma":
                values = rng.uniform(0.7, 1.3, shape)
            elif name in ("beta", "bias"):
                values = rng.normal(0.0, 0.2, shape)
            elif name == "kernel":
                depthwise = type(layer).__name__ == "DepthwiseConv2D"
                fan_in = np.prod(shape[:2]) if depthwise else np.prod(shape[:-1])
                values = rng.normal(0.0, np.sqrt(2.0 / fan_in), shape)
            else:
                continue
            variable.assign(values.astype(np.float32))


def fit_statistics(model: Any, x: Floats, rng: np.random.Generator) -> None:
    """Moving statistics from one pass over `x` in training mode, then changed by up to a quarter of the deviation."""
    norms = [layer for layer in model.layers if type(layer).__name__ == "BatchNormalization"]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0
    model(x, training=True)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
        variance = np.maximum(np.asarray(layer.moving_variance), 1e-2)
        shift = rng.uniform(-0.25, 0.25, variance.shape) * np.sqrt(variance)
        layer.moving_mean.assign((np.asarray(layer.moving_mean) + shift).astype(np.float32))
        layer.moving_variance.assign((variance * rng.uniform(0.75, 1.25, variance.shape)).astype(np.float32))


def endpoints(model: Any) -> dict[str, str]:
    """TF-slim's endpoint -> the Keras layer that computes it, for every block."""
    names = {layer.name for layer in model.layers}
    found: dict[str, str] = {}
    for i in range(1, 14):
        if f"conv_pw_{i}_relu" in names:
            found[f"Conv2d_{i}_depthwise"] = f"conv_dw_{i}_relu"
            found[f"Conv2d_{i}_pointwise"] = f"conv_pw_{i}_relu"
    for i in range(17):
        prefixes = (f"block_{i}", f"expanded_conv_{i}") if i else ("expanded_conv",)
        for prefix in prefixes:
            ends = (f"{prefix}_add", f"{prefix}_project_BN", f"{prefix}_project_bn")
            found.update({f"layer_{i + 2}/output": end for end in reversed(ends) if end in names})
    return found


def make(name: str, case: Case, folder: Path, formats: tuple[str, ...], seed: int) -> None:
    """Write one case to `folder`."""
    import keras

    model, x, scaled = build(case, seed)
    taps = endpoints(model)
    probe = keras.Model(model.input, [model.output, *(model.get_layer(layer).output for layer in taps.values())])
    outputs = [np.asarray(value) for value in probe(x, training=False)]
    folder.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {f"endpoint:{tap}": value for tap, value in zip(taps, outputs[1:], strict=True)}
    np.savez(folder / "golden.npz", input=scaled, output=outputs[0], **arrays)
    files: dict[str, str] = {}
    for suffix in (s for s in case.formats if s in formats):
        path = folder / f"model{suffix}"
        if suffix == ".weights.h5":
            model.save_weights(path)
        else:
            model.save(path)
        files[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    meta = {
        "case": name, "function": case.function, "size": case.size, "arguments": case.args, "seed": seed,
        "keras": keras.__version__, "backend": keras.backend.backend(), "numpy": np.__version__, "files": files,
    }  # fmt: skip
    (folder / "meta.json").write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8", newline="\n")


def main(arguments: list[str] | None = None) -> int:
    """Make the goldens that the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path, nargs="?", help="folder to write to; one folder in it for each case")
    parser.add_argument("--cases", nargs="+", default=["*"], metavar="PATTERN", help="which cases (fnmatch)")
    parser.add_argument("--formats", nargs="+", default=list(FORMATS), choices=FORMATS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--list", action="store_true", help="print the cases and stop")
    options = parser.parse_args(arguments)
    chosen = {n: c for n, c in CASES.items() if any(fnmatch.fnmatchcase(n, p) for p in options.cases)}
    if options.list:
        print("\n".join(f"{name:32} {case.function} {case.args}" for name, case in chosen.items()))
        return 0
    if options.out is None or not chosen:
        parser.error("give a folder to write to" if options.out is None else f"no case matches {options.cases}")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    for name, case in chosen.items():
        make(name, case, options.out / name, tuple(options.formats), options.seed)
        print(name, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
