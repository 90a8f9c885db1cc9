"""The graphs of keras.applications' MobileNets: the tables of `zoo`, with Keras' widths, paddings and heads.

Source: Keras 3.15.1, keras/src/applications/mobilenet.py, mobilenet_v2.py, mobilenet_v3.py, imagenet_utils.py.
What differs from TF-slim:

* Widths: V1 truncates without a least width; V2 truncates before it rounds to 8; V3 never scales its first
  convolution, derives the last from the last block (6 times its width), and expands by 2.3 where TF-slim has 184/80.
* Padding: V1's depthwise convolutions of stride 2 always pad ((0, 1), (0, 1)), which differs from SAME on odd sizes;
  V2 and V3 use `correct_pad`. A configuration may say otherwise, which is then what counts.
* The gate of squeeze-excite divides by 6, where TF-slim multiplies by 0.16667; V1 pools over the whole map.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from npmobilenet.formats.keras.names import layer_names
from npmobilenet.graph import Graph, GraphBuilder, Node, Padding, same_padding
from npmobilenet.zoo import SPECS
from npmobilenet.zoo.build import build
from npmobilenet.zoo.rows import Conv, Invert, Row, Separable, Spec, make_divisible, truncated

SAME = "same"


@dataclass(frozen=True)
class Variant:
    """Which of Keras' models: `classes=0` is `include_top=False`; `pooling` is "" or "avg".

    `activation` is the classifier's: "softmax", "sigmoid" or "linear". `paddings` maps a convolution's Keras name to
    `SAME` or to explicit padding, where a configuration says it; the others follow Keras' rule.
    """

    family: str
    alpha: float
    resolution: tuple[int, int] = (224, 224)
    channels: int = 3
    classes: int = 1000
    activation: str = "softmax"
    pooling: str = ""
    paddings: Mapping[str, str | Padding] = field(default_factory=dict)


def correct_pad(size: int, kernel: int) -> tuple[int, int]:
    """`(kernel // 2 - (1 if size is even), kernel // 2)`: before a VALID convolution of stride 2.

    Source: Keras 3.15.1, keras/src/applications/imagenet_utils.py, correct_pad.
    """
    return kernel // 2 - (1 - size % 2), kernel // 2


def scaled_spec(family: str, alpha: float) -> Spec:
    """The table of `family` with Keras' widths and expansions at `alpha`, to be built with a multiplier of 1."""
    spec = SPECS[family]
    width = {"v1": _v1_width, "v2": _v2_width}.get(family, _v3_width)
    rows: list[Row] = []
    for index, row in enumerate(spec.rows):
        if isinstance(row, Conv):
            before = next((r.out for r in reversed(rows) if isinstance(r, Invert)), 0)
            rows.append(replace(row, out=width(row, index, alpha, before)))
        elif isinstance(row, Separable):
            rows.append(replace(row, out=width(row, index, alpha, 0)))
        elif isinstance(row, Invert):
            expand = 2.3 if row.expand == 184 / 80 else row.expand
            rows.append(replace(row, out=width(row, index, alpha, 0), expand=expand))
        else:
            rows.append(row)
    return replace(spec, rows=tuple(rows), width=truncated, se_gate="hard_sigmoid")


def _v1_width(row: Conv | Separable | Invert, index: int, alpha: float, before: int) -> int:
    return int(row.out * alpha)


def _v2_width(row: Conv | Separable | Invert, index: int, alpha: float, before: int) -> int:
    if isinstance(row, Invert):
        return make_divisible(int(row.out * alpha))
    if index == 0:
        return make_divisible(row.out * alpha)
    return make_divisible(row.out * alpha) if alpha > 1 else row.out


def _v3_width(row: Conv | Separable | Invert, index: int, alpha: float, before: int) -> int:
    if isinstance(row, Invert):
        return make_divisible(row.out * alpha)
    if index == 0:
        return row.out
    if isinstance(row, Conv) and row.bn:
        return make_divisible(before * 6)
    return make_divisible(row.out * alpha) if alpha > 1 else row.out


def keras_graph(variant: Variant, name: str) -> Graph:
    """The graph of a Keras model. Tensors, weights and endpoints have the names of the TF-slim graph of the family.

    Raises `GraphError` for a resolution that is too small for the paddings.
    """
    spec = scaled_spec(variant.family, variant.alpha)
    v3 = variant.family.startswith("v3")
    last = f"layer_{len(spec.rows) - 2}" if v3 and not variant.classes else None
    base = build(
        spec, num_classes=variant.classes, global_pool=True, in_channels=variant.channels, min_depth=1,
        finegrain=False, base_only=not variant.classes, final_endpoint=last, name=name,
    )  # fmt: skip
    return _replay(base, variant)


def _replay(base: Graph, variant: Variant) -> Graph:
    """The nodes of `base` again, at the variant's resolution and with its paddings and head."""
    builder = GraphBuilder(base.name)
    builder.input(base.inputs[0], (1, *variant.resolution, variant.channels))
    output = base.inputs[0]
    for node in base.nodes:
        attrs = dict(node.attrs)
        op = node.op
        shape = builder.tensors[node.inputs[0]].shape
        if "stride" in attrs and node.batch_norm:
            attrs["padding"] = _padding(node, (shape[1], shape[2]), base, variant)
        elif op == "average_pool":
            attrs["kernel"] = shape[1:3]
        elif op == "softmax" and variant.activation != "softmax":
            if variant.activation == "linear":
                continue
            op, attrs = "activation", {"function": variant.activation}
        for constant in node.inputs:
            if base.tensors[constant].constant:
                builder.constant(constant, base.tensors[constant].shape)
        output = builder.node(
            op, node.inputs, node.output, name=node.name, scope=node.scope, batch_norm=node.batch_norm, **attrs
        )
    if variant.pooling == "avg":
        shape = builder.tensors[output].shape
        pool: dict[str, Any] = {"kernel": shape[1:3], "stride": (1, 1), "padding": ((0, 0), (0, 0))}
        output = builder.node("average_pool", [output], "global_pool", **pool)
        output = builder.node("reshape", [output], "features", shape=(1, shape[3]))
    builder.endpoints.update({k: t for k, t in base.endpoints.items() if t in builder.tensors})
    if variant.pooling == "avg":
        builder.endpoints.update(global_pool="global_pool", features="features")
    return builder.finish([output])


def _padding(node: Node, size: tuple[int, int], base: Graph, variant: Variant) -> Padding:
    kernel = base.tensors[node.inputs[1]].shape[0]
    stride = node.attrs["stride"][0]
    said = variant.paddings.get(layer_names(variant.family, node.scope)[0])
    if said is not None and not isinstance(said, str):
        return said
    if said is None and node.op == "depthwise_conv2d" and stride == 2:
        if variant.family == "v1":
            return (0, 1), (0, 1)
        return correct_pad(size[0], kernel), correct_pad(size[1], kernel)
    return same_padding(size[0], kernel, stride), same_padding(size[1], kernel, stride)


# ---------------------------------------------------------------------------------------------------------------------
# Alpha from the widths of a file

MAX_ALPHA = 4.0
_PUBLISHED = (1.0, 0.25, 0.35, 0.5, 0.75, 1.3, 1.4)


def block_widths(family: str, alpha: float) -> dict[str, int]:
    """Output channels of the convolutions that `alpha` scales directly, by Keras name."""
    spec = scaled_spec(family, alpha)
    widths: dict[str, int] = {}
    convs = blocks = 0
    for index, row in enumerate(spec.rows):
        if isinstance(row, Conv):
            scope = f"Conv2d_{index}" if family == "v1" else "Conv" if convs == 0 else f"Conv_{convs}"
            convs += 1
        elif isinstance(row, Separable):
            scope = f"Conv2d_{index}_pointwise"
        elif isinstance(row, Invert):
            scope = f"expanded_conv_{blocks}/project" if blocks else "expanded_conv/project"
            blocks += 1
        else:
            continue
        widths[layer_names(family, f"{spec.scope}/{scope}")[0]] = row.out
    return widths


def infer_alpha(family: str, found: Mapping[str, int], first: float | None = None) -> float:
    """The width multiplier whose layers agree with most of `found` (output channels by Keras name).

    Tried in this order, so that the plainest of equal candidates wins: `first`, the published multipliers, steps of
    0.1, 0.05, 0.01 and 0.001 around the ratios of the widths, and these ratios, rounded up to four digits (V1
    truncates, so its multiplier is at least the largest).
    """
    declared = block_widths(family, 1.0)
    common = {name: width for name, width in found.items() if name in declared}
    ratios = sorted({math.ceil(width / declared[name] * 1e4) / 1e4 for name, width in common.items()}, reverse=True)[
        :32
    ]
    low, high = 0.8 * min(ratios, default=1.0), 1.25 * min(max(ratios, default=1.0), MAX_ALPHA)
    steps = [n / parts for parts in (10, 20, 100, 1000) for n in range(1, int(high * parts) + 1) if n / parts >= low]
    best, most = 1.0, -1
    for alpha in [*([first] if first else []), *_PUBLISHED, *steps, *ratios]:
        widths = block_widths(family, alpha)
        right = sum(widths[name] == width for name, width in common.items())
        if right > most:
            best, most = alpha, right
        if most == len(common):
            break
    return best
