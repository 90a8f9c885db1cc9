"""Which tensors share scale and zero point, which have fixed ones, and what every computed tensor gets."""

from __future__ import annotations

from collections.abc import Mapping

from npmobilenet.errors import InputError
from npmobilenet.graph import Graph, Node, Quantization
from npmobilenet.quantize.parameters import FIXED, UNIT, Range, activation

# Kernels that move or average integers without rescaling them.
SAME_SCALE = (
    "average_pool", "max_pool", "concat", "pad", "reshape", "transpose", "slice", "resize_bilinear", "resize_nearest",
    "minimum", "maximum",
)  # fmt: skip
EXTREMA = ("minimum", "maximum")
# Ops that LiteRT may compute into the memory of an operand (TfLiteInplaceOp of their registrations).
IN_PLACE: Mapping[str, int] = {"add": 2, "sub": 2, "mul": 2, "softmax": 1}  # op -> how many operands may be overwritten
Given = Range | tuple[float, float] | Quantization
LISTED = 10


class Scales:
    """How the tensors of a lowered graph are tied to each other.

    An op with one operand passes that operand's parameters on; concat has its result's parameters, and its operands
    take them over; those of a minimum or maximum cover its operands, too. Softmax, sigmoid and l2_normalize have fixed
    results, which these must rescale: `rescaled` lists such operands as (node, position).
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._from: dict[str, str] = {}
        self.fixed = {n.output for n in graph.nodes if n.op == "softmax" or n.attrs.get("function") == "sigmoid"}
        self.units = {n.output for n in graph.nodes if n.op == "l2_normalize"}
        self.fixed |= self.units
        self.rescaled: list[tuple[Node, int]] = []
        for node in graph.nodes:
            if node.op in SAME_SCALE and node.op not in ("concat", *EXTREMA):
                self._from[node.output] = node.inputs[0]
        for node in graph.nodes:
            if node.op in ("concat", *EXTREMA):
                self._tie(node)
        self._together: dict[str, list[str]] = {}  # source -> values of extrema that its parameters must cover
        for node in graph.nodes:
            if node.op in EXTREMA:
                here = self.source(node.output)
                values = [n for n in node.inputs if not graph.tensors[n].constant and self.source(n) == here]
                self._together.setdefault(here, []).extend([node.output, *values])

    def _tie(self, node: Node) -> None:
        for position, name in enumerate(node.inputs):
            if self.graph.tensors[name].constant:
                continue
            root, target = self.source(name), self.source(node.output)
            if root in self.fixed and root != target:
                self.rescaled.append((node, position))
            elif root != target:
                self._from[root] = target

    def source(self, name: str) -> str:
        """The tensor whose range decides the parameters of this one."""
        while name in self._from:
            name = self._from[name]
        return name

    def needed(self) -> list[str]:
        """The tensors whose ranges must be known."""
        sources = dict.fromkeys(s for s in map(self.source, self.computed) if s not in self.fixed)
        return list(dict.fromkeys([*sources, *(n for s in sources for n in self._together.get(s, []))]))

    @property
    def computed(self) -> list[str]:
        """The tensors that are quantized: inputs and results, but for arg_max's places."""
        names = [*self.graph.inputs, *(node.output for node in self.graph.nodes)]
        return [name for name in names if self.graph.tensors[name].dtype == "float32"]

    def parameters(self, ranges: Mapping[str, Given], dtype: str) -> dict[str, Quantization]:
        """For every computed tensor, from the ranges (or ready parameters) of those in `needed`.

        Raises `InputError` for ranges that are missing, not finite or upside down.
        """
        missing = [name for name in self.needed() if name not in ranges]
        if missing:
            more = f" and {len(missing) - LISTED} more" if len(missing) > LISTED else ""
            raise InputError(
                f"no range for {len(missing)} tensors of '{self.graph.name}': {', '.join(missing[:LISTED])}{more}; "
                "calibrate() measures all that are needed"
            )
        own = {name: _parameters(name, self._covering(name, ranges), dtype) for name in self.needed()}
        own.update({name: (UNIT if name in self.units else FIXED)[dtype] for name in self.fixed})
        return {name: own[self.source(name)] for name in self.computed}

    def _covering(self, name: str, ranges: Mapping[str, Given]) -> Given:
        """The range of a tensor, and of what an extremum ties to it."""
        found = ranges[name]
        for other in (ranges[n] for n in self._together.get(name, [])):
            if not isinstance(found, Quantization) and not isinstance(other, Quantization):
                found = Range(*found).union(Range(*other))
        return found


def _parameters(name: str, given: Given, dtype: str) -> Quantization:
    if isinstance(given, Quantization):
        return given
    low, high = (float(bound) for bound in given)
    if not -FLOAT_MAX <= low <= high <= FLOAT_MAX:
        raise InputError(
            f"the range of '{name}' is ({low}, {high}): expected two finite numbers, the smaller one first"
        )
    return activation(Range(low, high), dtype)


FLOAT_MAX = 3.4028234663852886e38 / 2  # the difference of two bounds stays finite in float32


def as_tensorflow_sees(graph: Graph, ranges: Mapping[str, Range]) -> dict[str, Range]:
    """The ranges that TensorFlow's calibrator would record where the true ones are `ranges`.

    It records an op's operands once more after the op has run. Where LiteRT has computed the result into the memory of
    an operand, that operand is recorded with the result's values, too: the range of a projection covers the sum that
    the residual addition makes of it. The first operand is overwritten that has the result's size (above one
    element), no other reader, and is neither an input of the graph nor overwritten by one of its outputs.

    Source: TensorFlow 2.21, tensorflow/lite/tools/optimize/calibration/calibrator.cc (LoggingEval), LiteRT
    tflite/arena_planner.cc (InputTensorCanBeShared, IdentifyInPlaceTensors).
    """
    readers: dict[str, int] = dict.fromkeys(graph.outputs, 1)
    for name in (name for node in graph.nodes for name in node.inputs):
        readers[name] = readers.get(name, 0) + 1
    seen = dict(ranges)
    for node in graph.nodes:
        if node.output in graph.outputs:
            continue
        shape = graph.tensors[node.output].shape
        for name in node.inputs[: IN_PLACE.get(node.op, 0)]:
            tensor = graph.tensors[name]
            private = readers[name] == 1 and name not in graph.inputs and not tensor.constant
            if private and tensor.shape == shape and tensor.size > 1:
                seen[name] = seen[name].union(seen[node.output])
                break
    return seen
