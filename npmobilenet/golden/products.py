"""The products that an accumulator adds up, one by one, with where each comes from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from npmobilenet.golden.nodes import IsolatedNode
from npmobilenet.golden.tracing import scalar
from npmobilenet.graph import Tensor


@dataclass(frozen=True)
class Product:
    """`value` = (x - x's zero point) * (weight - its zero point), or x * weight in float32 (None: it is fused).

    `filter_at` is (ky, kx, ci) or, fully connected, (i,); `input_at` the index in the node's input.
    """

    filter_at: tuple[int, ...]
    input_at: tuple[int, ...]
    x: float
    weight: float
    value: int | None


def products(what: IsolatedNode, at: tuple[int, ...]) -> list[Product]:
    """The products of output element `at` of a convolution, depthwise convolution or fully connected node, in order."""
    x, weights = what.arrays[:2]
    z_x, z_w = _zero_point(what.operands[0]), _zero_point(what.operands[1])
    found = []
    for filter_at, input_at, weight_at in _places(what, at):
        a, b = x[input_at], weights[weight_at]
        value = (int(a) - z_x) * (int(b) - z_w) if what.is_integer else None
        found.append(Product(filter_at, input_at, scalar(a), scalar(b), value))
    return found


def _zero_point(tensor: Tensor) -> int:
    return tensor.quantization.zero_point[0] if tensor.quantization is not None else 0


def _places(
    what: IsolatedNode, at: tuple[int, ...]
) -> Iterator[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]:
    """Where each product's filter position, input and weight are, in the order of the reference loops."""
    x, weights = what.arrays[:2]
    attrs = what.node.attrs
    if what.node.op == "fully_connected":
        shape = x.shape[len(at) - 1 :]  # of a row
        for i in range(weights.shape[0]):
            rest, where = i, []
            for size in reversed(shape):
                rest, inner = divmod(rest, size)
                where.append(inner)
            yield (i,), (*at[:-1], *reversed(where)), (i, at[-1])
        return
    stride, dilation, padding = attrs["stride"], attrs.get("dilation", (1, 1)), attrs["padding"]
    depthwise = what.node.op == "depthwise_conv2d"
    multiplier = attrs.get("multiplier", 1)
    n, oy, ox, c = at
    for ky in range(weights.shape[0]):
        iy = oy * stride[0] - padding[0][0] + ky * dilation[0]
        for kx in range(weights.shape[1]):
            ix = ox * stride[1] - padding[1][0] + kx * dilation[1]
            if not (0 <= iy < x.shape[1] and 0 <= ix < x.shape[2]):
                continue
            if depthwise:
                yield (ky, kx, c // multiplier), (n, iy, ix, c // multiplier), (ky, kx, c)
                continue
            for ci in range(weights.shape[2]):
                yield (ky, kx, ci), (n, iy, ix, ci), (ky, kx, ci, c)


def outside(what: IsolatedNode, at: tuple[int, ...]) -> int:
    """Filter positions that fall outside the image, and so contribute nothing."""
    if what.node.op == "fully_connected":
        return 0
    weights = what.arrays[1]
    seen = {product.filter_at[:2] for product in products(what, at)}
    return int(weights.shape[0] * weights.shape[1]) - len(seen)
