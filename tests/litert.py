"""Running .tflite files with LiteRT, the peer that integers must equal, under the resolver that a dialect names."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def _resolver(dialect: str) -> Any:
    from ai_edge_litert.interpreter import OpResolverType

    return {
        "tflite-reference": OpResolverType.BUILTIN_REF,
        "tflite-optimized": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        "xnnpack": OpResolverType.BUILTIN,
    }[dialect]


class Peer:
    """A LiteRT interpreter for a file (path or bytes) under a dialect's resolver.

    Under "xnnpack" only what the delegate gives back can be read: the outputs. Under the others every tensor, as the
    interpreter is made with experimental_preserve_all_tensors.
    """

    def __init__(self, model: Path | str | bytes, dialect: str, threads: int = 1) -> None:
        from ai_edge_litert.interpreter import Interpreter

        source: dict[str, Any] = {"model_content": model} if isinstance(model, bytes) else {"model_path": str(model)}
        self.whole = dialect != "xnnpack"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.interpreter = Interpreter(
                **source,
                num_threads=threads,
                experimental_op_resolver_type=_resolver(dialect),
                experimental_preserve_all_tensors=self.whole,
            )
        self.interpreter.allocate_tensors()

    @property
    def inputs(self) -> list[dict[str, Any]]:
        details: list[dict[str, Any]] = self.interpreter.get_input_details()
        return details

    def run(self, *inputs: Array) -> dict[int, Array]:
        """Tensor index -> value, for the outputs and, where they can be read, all computed tensors."""
        for detail, x in zip(self.inputs, inputs, strict=True):
            self.interpreter.set_tensor(detail["index"], x)
        self.interpreter.invoke()
        indices = [d["index"] for d in self.interpreter.get_output_details()]
        if self.whole:
            indices = [i for op in self.interpreter._get_ops_details() for i in op["outputs"]]
        return {int(i): self.interpreter.get_tensor(i).copy() for i in indices}


def random_inputs(inputs: list[dict[str, Any]], seed: int) -> list[Array]:
    """Uniform over the inputs' dtypes (float32: over -1 ... 1)."""
    rng = np.random.default_rng(seed)
    arrays = []
    for detail in inputs:
        shape, dtype = tuple(detail["shape"]), np.dtype(detail["dtype"])
        if dtype == np.float32:
            arrays.append(rng.uniform(-1, 1, shape).astype(np.float32))
        else:
            limits = np.iinfo(dtype)
            arrays.append(rng.integers(limits.min, limits.max, shape, dtype, endpoint=True))
    return arrays


def differing(ours: Mapping[str, Array], theirs: Mapping[int, Array]) -> dict[str, tuple[int, int]]:
    """Tap "#index" -> (differing values, largest difference), for the tensors that both have."""
    found = {}
    for index, expected in theirs.items():
        name = f"#{index}"
        if name in ours:
            got = ours[name].reshape(expected.shape)
            wrong = got != expected
            if wrong.any():
                delta = np.abs(got.astype(np.float64) - expected.astype(np.float64))
                found[name] = (int(wrong.sum()), float(delta.max()))
    return found
