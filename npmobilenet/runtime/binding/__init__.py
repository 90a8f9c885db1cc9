"""How each op's attributes and arrays become kernel calls: one function (a binder) for each op of `graph.OPS`.

float32.py binds nodes of float32 tensors, integer.py those with a quantized tensor. Adding an op adds a binder to each.
"""

from __future__ import annotations

from npmobilenet.errors import PlanError
from npmobilenet.graph import Graph, Node
from npmobilenet.runtime.binding import float32, integer
from npmobilenet.runtime.binding.context import STAGES, NodeContext, Step
from npmobilenet.runtime.binding.fused import bind_group

__all__ = ["STAGES", "NodeContext", "Step", "bind", "bind_group", "check_supported"]


def is_integer(graph: Graph, node: Node) -> bool:
    """Whether a node reads or writes a tensor that isn't float32."""
    return any(graph.tensors[name].dtype != "float32" for name in (*node.inputs, node.output))


def bind(ctx: NodeContext) -> list[Step]:
    """The kernel calls of a node."""
    if all(t.dtype == "float32" for t in (*ctx.operands, ctx.result)):
        return float32.BINDERS[ctx.node.op](ctx.node, ctx.inputs, ctx.out, ctx.kernels)
    return integer.BINDERS[ctx.node.op](ctx)


def check_supported(graph: Graph) -> None:
    """Refuse, by the first such node, what there are no kernels for. Raises `PlanError`."""
    for index, node in enumerate(graph.nodes):
        dtypes = [graph.tensors[name].dtype for name in (*node.inputs, node.output)]
        known = integer.BINDERS if is_integer(graph, node) else float32.BINDERS
        odd = [d for d in dtypes if d not in ("float32", "uint8", "int8", "int32")]
        if odd or node.op not in known:
            raise PlanError(
                f"node {index} '{node.name}' ({node.op}) works on {', '.join(dict.fromkeys(dtypes))}: there is no "
                "kernel for that; float32, uint8 and int8 tensors are supported (int32 as biases)"
                + (
                    ""
                    if "int16" not in odd
                    else "; int16 values are those of an int16x8 model: convert the float model "
                    "again, with 8-bit activations (TFLITE_BUILTINS_INT8) or as it is"
                )
            )
