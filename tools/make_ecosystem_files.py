"""Makes model files as people have them, each with an input and what its own framework computes for it.

    python tools/make_ecosystem_files.py FOLDER --framework keras      # Keras 3 (pip install keras tensorflow-cpu)
    python tools/make_ecosystem_files.py FOLDER --framework tf_keras   # Keras 2 (pip install tf_keras)
    python tools/make_ecosystem_files.py FOLDER --framework tflite     # TensorFlow's converter, LiteRT
    python tools/make_ecosystem_files.py FOLDER --framework torch      # pip install torch torchvision timm safetensors
    python tools/make_ecosystem_files.py FOLDER --framework export     # pip install litert-torch torchvision timm

A row of a table is a kind of model; a file is FOLDER/FRAMEWORK-KIND.SUFFIX, its golden FOLDER/FRAMEWORK-KIND.npz with
`input` and `output_0`, `output_1`, ... Weights are random; batch norms get statistics that keep the values near 1.
tools/make_format_docs.py loads what lies in FOLDER and writes the table of docs/formats.md.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

FRAMEWORKS = ("keras", "tf_keras", "tflite", "torch", "export")


def main() -> None:
    """Make the files that are asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--framework", choices=FRAMEWORKS, default="keras")
    parser.add_argument("--kinds", nargs="*", default=[], help="those only; all if not given")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.framework in ("keras", "tf_keras"):
        from ecosystem_keras import make_keras

        make_keras(options.folder, options.framework, options.kinds)
    elif options.framework == "tflite":
        from ecosystem_tflite import make_tflite

        make_tflite(options.folder, options.kinds)
    elif options.framework == "torch":
        from ecosystem_torch import make_torch

        make_torch(options.folder, options.kinds)
    else:
        from ecosystem_torch import make_exports

        make_exports(options.folder, options.kinds)


if __name__ == "__main__":
    main()
