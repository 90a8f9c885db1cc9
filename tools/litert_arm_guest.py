"""Runs .tflite files with LiteRT and writes what they compute: the half of `litert_arm.py` that runs on the Arm CPU.

Each line of its standard input is a job in JSON: {"model": path, "inputs": path of an .npz (tensor index -> array),
"resolver": a name of OpResolverType, "out": path of the .npz to write (tensor index -> array)}. It answers each by a
line: {"ops": the names of what ran}, or {"error": text}. Needs nothing but LiteRT and NumPy.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType


def run(job: dict[str, str]) -> list[str]:
    """Run one file; returns its operators' names. A delegate gives back nothing but outputs (resolver BUILTIN)."""
    whole = job["resolver"] != "BUILTIN"
    interpreter = Interpreter(
        job["model"],
        num_threads=1,
        experimental_op_resolver_type=OpResolverType[job["resolver"]],
        experimental_preserve_all_tensors=whole,
    )
    with np.load(job["inputs"]) as inputs:
        arrays = {int(name): inputs[name] for name in inputs.files}
    for detail in interpreter.get_input_details():
        if tuple(detail["shape"]) != arrays[detail["index"]].shape:
            interpreter.resize_tensor_input(detail["index"], arrays[detail["index"]].shape)
    interpreter.allocate_tensors()
    for index, array in arrays.items():
        interpreter.set_tensor(index, array)
    interpreter.invoke()
    ops = interpreter._get_ops_details()
    indices = {int(d["index"]) for d in interpreter.get_output_details()}
    if whole:
        indices |= {int(i) for op in ops for i in op["outputs"]}
    values: dict[str, Any] = {str(i): interpreter.get_tensor(i) for i in sorted(indices)}
    np.savez(job["out"], **values)
    return [op["op_name"] for op in ops]


def main() -> None:
    """Answer each line of the standard input."""
    for line in sys.stdin:
        try:
            answer: dict[str, Any] = {"ops": run(json.loads(line))}
        except Exception as error:  # said to the other side, which knows the model's name
            answer = {"error": f"{type(error).__name__}: {error}".replace("\n", " ")}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
