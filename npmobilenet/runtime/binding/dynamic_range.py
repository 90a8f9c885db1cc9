"""The binder of layers with int8 weights on a float32 input: quantize, sum, scale."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from npmobilenet.arithmetic import dynamic_range as dynamic
from npmobilenet.graph import ACTIVATIONS, Quantization
from npmobilenet.modeldata import Array
from npmobilenet.runtime.binding.context import NodeContext, Step, top_left

_PLAIN = Quantization((1.0,), (0,))  # the input's scale and zero point come afterwards


def bind_dynamic_range(ctx: NodeContext, integer: Callable[[NodeContext], list[Step]]) -> list[Step]:
    """Three calls. `integer` binds the sums, which are those of an int8 layer; they lie where the output will."""
    node, (x, weights, bias), out = ctx.node, ctx.inputs, ctx.out
    rules = dynamic.rules(node, ctx.operands[1], ctx.dialect)
    flat = rules.by_rows
    rows = x.reshape(-1, 1, 1, weights.shape[-2]) if flat else x
    image = (len(rows), 1, 1, out.shape[-1]) if flat else out.shape
    blocks = node.attrs["dilation"] if node.attrs.get("by_blocks") else (1, 1)
    phases = (*blocks, *((0, 0) if flat else top_left(node)))
    quantized, params = np.empty(rows.shape, np.int8), np.empty((len(rows) * blocks[0] * blocks[1], 2), np.float32)
    sums = out.view(np.int32)
    inner = _integer_context(ctx, quantized.reshape(x.shape), sums)
    q = ctx.operands[1].quantization
    assert q is not None  # rules has seen it
    scale = np.broadcast_to(np.array(q.scale, np.float32), bias.shape)
    code = ACTIVATIONS.index(node.attrs.get("activation", "none"))
    channels = np.ascontiguousarray(scale), bias
    how = _borders(ctx, flat), (params, phases), channels, rules.order, code
    last = (sums.reshape(image), *how, out.reshape(image))
    return [
        Step(ctx.kernels.quantize_rows_q, (rows, rules.quantization, phases, quantized, params), node.name),
        *integer(inner),
        Step(ctx.kernels.scale_sums_f32, last, node.name),
    ]


def _integer_context(ctx: NodeContext, x: Array, sums: Array) -> NodeContext:
    given, weights, bias = ctx.operands
    operands = [
        dataclasses.replace(given, dtype="int8", quantization=_PLAIN),
        weights,
        dataclasses.replace(bias, dtype="int32"),
    ]
    zeros = np.zeros(bias.shape, np.int32)
    attrs = {key: value for key, value in ctx.node.attrs.items() if key != "activation"}
    return dataclasses.replace(
        ctx, node=dataclasses.replace(ctx.node, attrs=attrs), operands=operands, inputs=[x, ctx.inputs[1], zeros],
        result=dataclasses.replace(ctx.result, dtype="int32"), out=sums, stage="accumulator",
    )  # fmt: skip


def _borders(ctx: NodeContext, flat: bool) -> tuple[Array, Array, Array]:
    weights = ctx.inputs[1]
    if flat:
        total = weights.astype(np.int64).reshape(-1, weights.shape[-1]).sum(0).astype(np.int32)
        return total.reshape(1, 1, -1), np.zeros(1, np.int32), np.zeros(1, np.int32)
    size_in, size_out = ctx.inputs[0].shape[1:3], ctx.out.shape[1:3]
    return dynamic.borders(weights, ctx.node, (size_in[0], size_in[1]), (size_out[0], size_out[1]))
