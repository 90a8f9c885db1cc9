"""What a binder gets, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from npmobilenet.dialects import Dialect
from npmobilenet.graph import Node, Tensor
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
class Site:
    """A node with its arrays (views into the plan's memory, batch included) and what the graph says of them."""

    node: Node
    operands: list[Tensor]
    inputs: list[Array]
    result: Tensor
    out: Array
    kernels: KernelSet
    dialect: Dialect
    stage: str = "output"
