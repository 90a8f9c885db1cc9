"""What a binder gets, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from npmobilenet.arithmetic.dialects import Dialect
from npmobilenet.graph import ACTIVATIONS, Node, Tensor
from npmobilenet.kernels import KernelSet
from npmobilenet.modeldata import Array

# What a node writes: its output; its int32 accumulators; or its output before the clamp of the fused activation.
STAGES = ("output", "accumulator", "preactivation")


class Step(NamedTuple):
    """One kernel call of the engine's loop, and the node that it works for."""

    kernel: Callable[..., None]
    args: tuple[Any, ...]
    node: str


@dataclass(frozen=True)
class NodeContext:
    """A node with its arrays (views into the plan's memory, batch included) and what the graph says of them."""

    node: Node
    operands: list[Tensor]
    inputs: list[Array]
    result: Tensor
    out: Array
    kernels: KernelSet
    dialect: Dialect
    stage: str = "output"

    @cached_property
    def integer(self) -> bool:
        """Whether the node reads or writes a tensor that isn't float32."""
        return any(t.dtype != "float32" for t in (*self.operands, self.result))

    def step(self, kernel: str, *args: Any) -> Step:
        """A call of this kernel of the set."""
        return Step(getattr(self.kernels, kernel), args, self.node.name)


def code_of(node: Node, attr: str = "activation") -> int:
    """The number of the activation that this attribute names."""
    return ACTIVATIONS.index(node.attrs.get(attr, "none"))


def top_left(node: Node) -> tuple[int, int]:
    """The padding above and on the left; what is below and on the right shows in the output's shape."""
    (top, _), (left, _) = node.attrs["padding"]
    return top, left


def as_nhwc(array: Array) -> Array:
    """The same values seen as (N, ..., C) of rank 4: dimensions of 1 go between the batch and the rest."""
    return array.reshape(array.shape[0], *(1,) * (4 - array.ndim), *array.shape[1:])
