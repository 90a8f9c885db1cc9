"""How each op's attributes and arrays become kernel calls: `BINDERS`, op -> one function for floats and integers.

Adding an op adds its binder here: layers.py has those of ops with weights, functions.py those on single values,
spatial.py the rest. A node that no runtime defines is refused by its binder, with a `PlanError`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from npmobilenet.arithmetic.dynamic_range import applies
from npmobilenet.arithmetic.vela import refuse_undefined
from npmobilenet.errors import PlanError
from npmobilenet.graph import OPS, Graph
from npmobilenet.runtime.binding import functions, layers, selection, spatial
from npmobilenet.runtime.binding.context import STAGES, NodeContext, Step
from npmobilenet.runtime.binding.dynamic_range import bind_dynamic_range
from npmobilenet.runtime.binding.fused import bind_group

__all__ = ["BINDERS", "STAGES", "NodeContext", "Step", "bind", "bind_group", "check_supported"]

BINDERS: Mapping[str, Callable[[NodeContext], list[Step]]] = {
    "conv2d": layers.conv2d,
    "depthwise_conv2d": layers.depthwise_conv2d,
    "fully_connected": layers.fully_connected,
    "average_pool": spatial.average_pool,
    "mean": spatial.mean,
    "add": functions.binary,
    "sub": functions.binary,
    "mul": functions.binary,
    "div": functions.binary,
    "minimum": selection.extremum,
    "maximum": selection.extremum,
    "activation": functions.activation,
    "unary": functions.unary_,
    "l2_normalize": functions.l2_normalize,
    "softmax": functions.softmax_,
    "pad": spatial.pad,
    "reshape": spatial.reshape,
    "concat": spatial.concat,
    "resize_bilinear": spatial.resize_bilinear,
    "max_pool": selection.max_pool,
    "resize_nearest": selection.resize_nearest,
    "transpose": selection.transpose,
    "slice": selection.slice_,
    "arg_max": selection.arg_max,
    "prelu": selection.prelu,
    "leaky_relu": selection.leaky_relu,
    "quantize": functions.quantize,
    "dequantize": functions.dequantize,
}


def bind(ctx: NodeContext) -> list[Step]:
    """The kernel calls of a node. Raises `PlanError` for what its runtime, or its dialect, doesn't define."""
    if ctx.dialect.npu and ctx.integer and ctx.stage != "accumulator":  # whose scales are no output's
        refuse_undefined(ctx.node, ctx.operands, ctx.result)
    if ctx.stage == "output" and len(ctx.operands) == 3 and applies(*ctx.operands[:2]):
        return bind_dynamic_range(ctx, BINDERS[ctx.node.op])
    return BINDERS[ctx.node.op](ctx)


def check_supported(graph: Graph) -> None:
    """Refuse, by the first such node, what there are no kernels for. Raises `PlanError`."""
    for index, node in enumerate(graph.nodes):
        dtypes = [graph.tensors[name].dtype for name in (*node.inputs, node.output)]
        kind = next((d for d in dtypes if d != "float32"), "float32")
        known = ("float32", "uint8", "int8", "int32", *(("int64",) if node.op in ("arg_max", "reshape") else ()))
        odd = [d for d in dtypes if d not in known]
        if odd or not OPS[node.op].computes(kind):
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
