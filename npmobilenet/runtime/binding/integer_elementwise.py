"""Binders of the integer ops without weights: sums, products, pools, and ops that move values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from npmobilenet.arithmetic import elementwise, pooling
from npmobilenet.arithmetic.ranges import check_dtypes, zero_point_of
from npmobilenet.runtime.binding.context import Site, Step, corner, rank4


def _checked(site: Site) -> Site:
    check_dtypes(site.node, site.operands, site.result)
    return site


def sums(site: Site) -> list[Step]:
    """Add and sub: one kernel, which knows the sign."""
    x, y = _checked(site).operands
    p = elementwise.addition(site.node, x, y, site.result, site.dialect)
    args = (rank4(site.inputs[0]), rank4(site.inputs[1]), p, rank4(site.out))
    return [Step(site.kernels.add_q, args, site.node.name)]


def mul(site: Site) -> list[Step]:
    """Both operands seen as rank 4."""
    x, y = _checked(site).operands
    p = elementwise.multiplication(site.node, x, y, site.result, site.dialect)
    args = (rank4(site.inputs[0]), rank4(site.inputs[1]), p, rank4(site.out))
    return [Step(site.kernels.mul_q, args, site.node.name)]


def average_pool(site: Site) -> list[Step]:
    """Bottom and right padding show in the output's shape."""
    attrs, p = _checked(site).node.attrs, pooling.pool(site.node, site.result)
    args = (site.inputs[0], attrs["kernel"], attrs["stride"], corner(site.node), p, site.out)
    return [Step(site.kernels.average_pool_q, args, site.node.name)]


def mean(site: Site) -> list[Step]:
    """Whether the output keeps its dimensions of 1 makes no difference to its memory, but may to its rounding."""
    p = pooling.mean(site.node, _checked(site).operands[0], site.result, site.dialect)
    return [Step(site.kernels.mean_q, (site.inputs[0], p, site.out.reshape(site.out.shape[0], -1)), site.node.name)]


def pad(site: Site) -> list[Step]:
    """Filled with the output's zero point; values are moved as they are, as every runtime does."""
    args = (site.inputs[0], zero_point_of(_checked(site).result), corner(site.node), site.out)
    return [Step(site.kernels.pad_q, args, site.node.name)]


def reshape(site: Site) -> list[Step]:
    """A copy in row-major order."""
    _checked(site)
    return [Step(site.kernels.reshape_q, (site.inputs[0].reshape(-1), site.out.reshape(-1)), site.node.name)]


def concat(site: Site) -> list[Step]:
    """One step for each operand."""
    node, out, axis = _checked(site).node, site.out, site.node.attrs["axis"]
    outer, inner = math.prod(out.shape[:axis]), math.prod(out.shape[axis + 1 :])
    target = out.reshape(outer, out.shape[axis], inner)
    steps, offset = [], 0
    for tensor, x in zip(site.operands, site.inputs, strict=True):
        p = elementwise.rescaling(node, tensor, site.result)
        args = (x.reshape(outer, x.shape[axis], inner), offset, p, target)
        steps.append(Step(site.kernels.concat_q, args, node.name))
        offset += x.shape[axis]
    return steps


BINDERS: Mapping[str, Callable[[Site], list[Step]]] = {
    "add": sums,
    "sub": sums,
    "mul": mul,
    "average_pool": average_pool,
    "mean": mean,
    "pad": pad,
    "reshape": reshape,
    "concat": concat,
}
