"""Images per second from JPEG to label: this engine's `predict`, and LiteRT with Pillow in as many processes as cores.

    python tools/bench_throughput.py MODEL.tflite FOLDER [--rounds N]

Both read, decode and resize the same files and run the same model, again and again in turns; LiteRT's processes run one
thread each and live through all rounds. Needs ai-edge-litert and Pillow.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))  # the checkout, whether or not the package is installed

import numpy as np  # noqa: E402

from npmobilenet import load  # noqa: E402
from npmobilenet.images.prefetch import cores  # noqa: E402

SUFFIXES = (".jpg", ".jpeg")


def peer(model: str, paths: Sequence[str], pipe: Any) -> None:
    """A process of the peer's: a round for each request, answered with the best class of each image."""
    from ai_edge_litert.interpreter import Interpreter
    from PIL import Image

    interpreter = Interpreter(model_path=model, num_threads=1)
    interpreter.allocate_tensors()
    given, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]["index"]
    _, height, width, _ = given["shape"]

    def best(path: str) -> int:
        pixels = np.asarray(Image.open(path).convert("RGB").resize((width, height), Image.Resampling.BILINEAR))
        if given["dtype"] == np.float32:
            x = pixels.astype(np.float32) / np.float32(127.5) - np.float32(1)
        else:
            x = pixels if given["dtype"] == np.uint8 else (pixels.astype(np.int16) - 128).astype(np.int8)
        interpreter.set_tensor(given["index"], x[None])
        interpreter.invoke()
        return int(interpreter.get_tensor(result).argmax())

    while pipe.recv():
        pipe.send([best(path) for path in paths])


def main() -> None:
    """Measure, and print a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    paths = sorted(os.fspath(p) for p in options.folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    engine, context = load(options.model), multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for k in range(cores()):
        ours, theirs = context.Pipe()
        process = context.Process(target=peer, args=(options.model, paths[k :: cores()], theirs), daemon=True)
        process.start()
        pipes.append(ours)
        processes.append(process)

    def run_ours() -> None:
        engine.predict(iter(paths), top=1)

    def run_peers() -> None:
        for pipe in pipes:
            pipe.send(True)
        for pipe in pipes:
            pipe.recv()

    times = np.zeros((options.rounds + 1, 2))
    for i, row in enumerate(times):
        for k in (0, 1) if i % 2 else (1, 0):
            start = time.perf_counter()
            (run_ours, run_peers)[k]()
            row[k] = time.perf_counter() - start
    for pipe, process in zip(pipes, processes, strict=True):
        pipe.send(False)
        process.join()
    ours, peers = times[1:].T  # the first round isn't counted: kernels, files, numbers of threads
    print(
        f"{Path(options.model).name}: {len(paths)} images, {cores()} cores; images per second: ours "
        f"{len(paths) / np.median(ours):.1f}, LiteRT with Pillow {len(paths) / np.median(peers):.1f}; "
        f"ratio {np.median(peers / ours):.2f} (quartiles {np.percentile(peers / ours, 25):.2f} to "
        f"{np.percentile(peers / ours, 75):.2f})"
    )


if __name__ == "__main__":
    main()
