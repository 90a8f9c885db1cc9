"""One inference engine in a process of its own, driven through pipes; `tools/bench_peers.py` starts it.

Usage: python tools/peer_engines.py ENGINE

Requests and answers are one JSON document a line. `open` makes a model ready on a number of threads and for a batch;
`run` runs it for a while and answers with the milliseconds of each run; `output` answers with what it computes for the
common input. A run is timed in this process, from copying the input into the engine to the output's being readable;
between requests the process waits for a line, so its threads go to sleep.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
for folder in (ROOT, ROOT / "tools"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))  # the checkout, whether or not the package is installed

import numpy as np  # noqa: E402

from npmobilenet.measure.benchmark.random_model import random_input  # noqa: E402
from npmobilenet.modeldata import Array  # noqa: E402

SEED = 5
TRACED: dict[tuple[str, int], tuple[Any, Any]] = {}  # PyTorch's programs


class Unavailable(Exception):
    """The engine isn't installed, or doesn't run this model; the message is the reason."""


@dataclass
class Opened:
    """A model made ready: its input, a function of no arguments that runs it once and gives the output, facts."""

    run: Callable[[], Array]
    facts: dict[str, Any]


def need(module: str, distribution: str) -> None:
    """Raise `Unavailable` unless a module can be imported."""
    if importlib.util.find_spec(module.split(".", maxsplit=1)[0]) is None:
        raise Unavailable(f"not installed (pip install {distribution})")


# ---------------------------------------------------------------------------------------------------------------------
# The engines: (file, threads, batch) -> Opened


def open_ours(file: str, threads: int, batch: int) -> Opened:
    """npmobilenet: the loop on a plan, as `Model.run` uses it, without that one's checks and its copy of the output."""
    import npmobilenet
    from npmobilenet.runtime import engine
    from npmobilenet.runtime.exclusive import exclusive

    model = npmobilenet.load(file, threads=threads)
    x = random_input((batch, *model.input.shape[1:]), model.input.dtype, SEED)
    at_once = min(model.images_at_once, batch)
    plan = model.plan(at_once)  # powers of two: of a batch that is one there is no smaller rest
    if batch % at_once:
        raise Unavailable(f"a batch of {batch} doesn't come out even in pieces of {at_once}")

    def run() -> Array:
        with exclusive(threads, model.kernels) as used:
            if batch == at_once:
                return engine.run(plan, x, threads=used)[0]
            pieces = range(0, batch, at_once)
            return np.concatenate([engine.run(plan, x[i : i + at_once], threads=used)[0].copy() for i in pieces])

    facts = {
        "version": npmobilenet.__version__,
        "macs": model.graph.total_macs,
        "integer": model.graph.tensors[model.graph.nodes[0].output].dtype != "float32",
        "resolution": [*model.input.shape[1:3]],
    }
    return Opened(run, facts)


def _open_litert(file: str, threads: int, batch: int, resolver: str) -> Opened:
    need("ai_edge_litert", "ai-edge-litert")
    from importlib.metadata import version

    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kind = getattr(OpResolverType, resolver)
    interpreter = Interpreter(model_path=file, num_threads=threads, experimental_op_resolver_type=kind)
    port = interpreter.get_input_details()[0]
    shape = (batch, *(int(d) for d in port["shape"][1:]))
    try:
        if batch != port["shape"][0]:
            interpreter.resize_tensor_input(port["index"], shape)
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise Unavailable(f"batch {batch}: {' '.join(str(error).split())[:200]}") from error
    x = random_input(shape, np.dtype(port["dtype"]).name, SEED)
    target, source = interpreter.tensor(port["index"]), interpreter.tensor(interpreter.get_output_details()[0]["index"])

    def run() -> Array:
        np.copyto(target(), x)  # the view must be gone before invoke()
        interpreter.invoke()
        found: Array = source()
        return found

    return Opened(run, {"version": version("ai-edge-litert"), "resolver": resolver})


def open_litert(file: str, threads: int, batch: int) -> Opened:
    """LiteRT as it comes: the XNNPACK delegate."""
    return _open_litert(file, threads, batch, "AUTO")


def open_reference(file: str, threads: int, batch: int) -> Opened:
    """LiteRT's reference kernels."""
    return _open_litert(file, threads, batch, "BUILTIN_REF")


def open_openvino(file: str, threads: int, batch: int) -> Opened:
    """OpenVINO's CPU plugin, in float32 where the model is (it may choose bfloat16 by itself), tuned for latency."""
    need("openvino", "openvino")
    import openvino

    core = openvino.Core()
    network = core.read_model(file)
    try:
        network.reshape([batch, *(d.get_length() for d in list(network.input(0).partial_shape)[1:])])
        settings = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY",
                    "INFERENCE_PRECISION_HINT": "f32"}  # fmt: skip
        request = core.compile_model(network, "CPU", settings).create_infer_request()
    except RuntimeError as error:
        raise Unavailable(f"batch {batch}: {' '.join(str(error).split())[-200:]}") from error
    target = request.get_input_tensor(0).data
    x = random_input(target.shape, target.dtype.name, SEED)
    source = request.get_output_tensor(0)

    def run() -> Array:
        np.copyto(target, x)
        request.infer()
        found: Array = source.data
        return found

    return Opened(run, {"version": openvino.__version__.split("-")[0]})


def open_onnxruntime(file: str, threads: int, batch: int) -> Opened:
    """ONNX Runtime on the graph as this project reads it, written as ONNX with the same weights; float models only."""
    need("onnxruntime", "onnxruntime")
    need("onnx", "onnx")
    import onnxruntime
    from peer_onnx import to_onnx

    from npmobilenet.formats.model_path import load_data

    data = load_data(file)
    try:
        network = to_onnx(data, batch)
    except KeyError as error:
        raise Unavailable(f"no ONNX conversion here of {error.args[0]}") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    # Its threads else wait spinning for more than 50 ms behind a run (measured), in the next engine's turn.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
    tensor = data.graph.tensors[data.graph.inputs[0]]
    nhwc = random_input((batch, *tensor.shape[1:]), tensor.dtype, SEED)
    feed = {session.get_inputs()[0].name: np.ascontiguousarray(nhwc.transpose(0, 3, 1, 2))}  # ONNX's order: NCHW

    def run() -> Array:
        found: Array = session.run(None, feed)[0]
        return found

    return Opened(run, {"version": onnxruntime.__version__})


def open_torch(file: str, threads: int, batch: int) -> Opened:
    """PyTorch on the graph as this project reads it, traced, frozen and optimized, channels last; float models only."""
    need("torch", "torch")
    import torch
    from peer_torch import to_torch

    from npmobilenet.formats.model_path import load_data

    data = load_data(file)
    torch.set_num_threads(threads)
    tensor = data.graph.tensors[data.graph.inputs[0]]
    nhwc = random_input((batch, *tensor.shape[1:]), tensor.dtype, SEED)
    try:
        if (file, batch) not in TRACED:  # takes seconds, and depends on no number of threads
            TRACED[file, batch] = to_torch(data, nhwc)
        network, x = TRACED[file, batch]
    except KeyError as error:
        raise Unavailable(f"no PyTorch conversion here of {error.args[0]}") from error

    def run() -> Array:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            found: Array = network(x).numpy()
        return found

    return Opened(run, {"version": torch.__version__})


ENGINES: dict[str, Callable[[str, int, int], Opened]] = {
    "ours": open_ours,
    "litert": open_litert,
    "openvino": open_openvino,
    "onnxruntime": open_onnxruntime,
    "torch": open_torch,
    "reference": open_reference,
}


# ---------------------------------------------------------------------------------------------------------------------
# The process


class Server:
    """Answers requests, one at a time."""

    def __init__(self, engine: str) -> None:
        self.engine = engine
        self.opened: dict[str, Opened] = {}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """What a request asks for; `unavailable` with the reason where that can't be had."""
        try:
            return getattr(self, f"do_{request.pop('do')}")(**request)  # type: ignore[no-any-return]
        except Unavailable as error:
            return {"unavailable": str(error)}
        except Exception as error:  # whatever a foreign engine raises is a result of the comparison, not its end
            return {"unavailable": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}

    def do_open(self, key: str, file: str, threads: int, batch: int) -> dict[str, Any]:
        """Make a model ready, and run it once, which compiles or packs what the engine does late."""
        start = time.perf_counter()
        opened = ENGINES[self.engine](file, threads, batch)
        opened.run()
        self.opened[key] = opened
        return {"facts": opened.facts, "seconds": round(time.perf_counter() - start, 3)}

    def do_run(self, key: str, seconds: float) -> dict[str, Any]:
        """Run for so long, and at least once, by the clock; of a longer turn the first quarter isn't counted."""
        run, times = self.opened[key].run, []
        began = time.perf_counter()
        while True:
            start = time.perf_counter()
            run()
            stop = time.perf_counter()
            if start - began >= seconds / 4:
                times.append(stop - start)
            if times and stop - began >= seconds:
                return {"ms": [round(1e3 * t, 5) for t in times]}

    def do_output(self, key: str) -> dict[str, Any]:
        """The output for the common input, flat."""
        found = np.ascontiguousarray(self.opened[key].run())
        return {"dtype": found.dtype.name, "values": base64.b64encode(found.tobytes()).decode("ascii")}

    def do_memory(self) -> dict[str, Any]:
        """The most memory that this process has held."""
        from npmobilenet.measure.benchmark.machine import peak_memory

        return {"peak_rss": peak_memory()}


def main() -> int:
    """Answer until the input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints must not look like an answer
    server = Server(sys.argv[1])
    for line in sys.stdin:
        answers.write(json.dumps(server.answer(json.loads(line))) + "\n")
        answers.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
