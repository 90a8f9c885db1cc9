"""From an architecture's table to a graph: widths, strides, paddings, names; what TF-slim's builders do, as data.

Tensor names are TF-slim's endpoint names (`layer_5/depthwise_output`, `Conv2d_3_pointwise`) and the values between
them; weights are called after TF-slim's variables (`MobilenetV2/expanded_conv_4/depthwise/depthwise_weights`). After
folding, every convolution has a bias, called `biases`.

Source of the rules: tensorflow/models research/slim/nets/mobilenet/{mobilenet,conv_blocks}.py and nets/mobilenet_v1.py.
Two things differ, where TF-slim 1.1.0 raises an exception: V3's ReduceTo1x1 ignores `output_stride` and
`use_explicit_padding` (a pool has no rate and no padding) and shrinks to a map that isn't square and less than 7 wide;
and EdgeTPU's and V3's blocks pad before their k x k convolution, as V2's do, rather than before the whole block.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass

from npmobilenet.errors import GraphError
from npmobilenet.graph import Graph, GraphBuilder, Padding, same_padding
from npmobilenet.zoo import SPECS
from npmobilenet.zoo.checkpoints import parse
from npmobilenet.zoo.rows import Conv, Fused, Invert, ReduceTo1x1, Row, Separable, Spec, Universal, make_divisible


def build_model(name: str, num_classes: int = 1001) -> Graph:
    """The graph of a registered or canonical name: `mobilenet_v2_1.0_224`, `mobilenet_v3_small_0.6_160`.

    Raises `ModelNotFound` for a name that is neither.
    """
    model = parse(name)
    return build(
        SPECS[model.family],
        depth_multiplier=model.depth_multiplier,
        resolution=model.resolution,
        num_classes=num_classes,
        name=name,
    )


def build(
    spec: Spec,
    *,
    depth_multiplier: float = 1.0,
    resolution: int | tuple[int, int] = 224,
    num_classes: int = 1001,
    finegrain: bool | None = None,
    min_depth: int = 8,
    divisible_by: int = 8,
    output_stride: int | None = None,
    use_explicit_padding: bool = False,
    final_endpoint: str | None = None,
    base_only: bool = False,
    global_pool: bool = False,
    in_channels: int = 3,
    name: str = "",
) -> Graph:
    """Scale `spec` by `depth_multiplier` and lay it out for images of `resolution` (one side, or (height, width)).

    * `num_classes=0`: no classifier, the pooled features are the output. `base_only`: neither pool nor classifier.
    * `finegrain`: keep the last convolution wide (`Spec.finegrain`); default: below a multiplier of 1, as in all
      published checkpoints.
    * `output_stride`: once the input has been reduced by this factor (1 or even), strides become dilation.
    * `use_explicit_padding`: zero padding of `(k - 1) / 2` on each side and VALID convolutions instead of SAME.
    * `final_endpoint`: stop after this layer ('layer_13', 'Conv2d_5_pointwise').
    * `global_pool`: V1's pool and ReduceTo1x1 cover the whole map, of any size and shape (other pools always do).

    Raises `GraphError` for options that don't fit the architecture.
    """
    if not isinstance(spec, Spec):
        known = f"SPECS['{spec}']" if spec in tuple(SPECS) else f"one of npmobilenet.zoo.SPECS ({', '.join(SPECS)})"
        raise GraphError(
            f"spec is {spec!r:.80}, expected {known}; build_model takes names such as mobilenet_v2_1.0_224"
        )
    if not (isinstance(depth_multiplier, (int, float)) and 0 < depth_multiplier < math.inf):
        raise GraphError(f"depth_multiplier is {depth_multiplier!r}, expected a number above 0")
    if output_stride is not None and output_stride != 1 and (output_stride < 1 or output_stride % 2):
        raise GraphError(f"output_stride is {output_stride}, expected 1 or an even number (8, 16 and 32 are usual)")
    if min(min_depth, divisible_by, in_channels) < 1 or num_classes < 0:
        raise GraphError("min_depth, divisible_by and in_channels must be at least 1, num_classes at least 0")
    height, width = _sides(resolution)
    if finegrain is None:
        finegrain = depth_multiplier < 1
    layout = _Layout(
        GraphBuilder(name or f"mobilenet_{spec.family}_{depth_multiplier}_{height}"),
        spec,
        use_explicit_padding,
        global_pool,
    )
    net = layout.builder.input("input", (1, height, width, in_channels))

    def scaled(index: int, row: Row) -> int:
        """Channels of a row after the depth multiplier."""
        if isinstance(row, ReduceTo1x1):
            return 0
        depth: float = row.out
        if index == 0 and depth_multiplier < spec.scale_first_from:
            return row.out
        if finegrain and index == len(spec.rows) - 1:
            if spec.finegrain == "unscaled":
                return row.out
            if spec.finegrain == "divide" and depth_multiplier < 1:
                depth = row.out / depth_multiplier
        return spec.width(depth * depth_multiplier, divisible_by, min_depth)

    current_stride = rate = 1
    for index, row in enumerate(spec.rows):
        step = _Step(index, scaled(index, row))
        declared = 1 if isinstance(row, ReduceTo1x1) else row.s
        if output_stride is not None and current_stride == output_stride:
            step.stride, step.rate = 1, rate
            rate *= declared
        else:
            step.stride = declared
            current_stride *= declared
        net = layout.row(net, row, step, final_endpoint)
        if layout.found:
            break
    if final_endpoint is not None and not layout.found:
        known = ", ".join(n for n in layout.builder.endpoints if n in layout.finals)
        raise GraphError(f"final_endpoint '{final_endpoint}' is not one of {known}")
    if not base_only:
        net = layout.head(net, num_classes)
    return layout.builder.finish([net])


def _sides(resolution: object) -> tuple[int, int]:
    pair = resolution if isinstance(resolution, (tuple, list)) else (resolution, resolution)
    try:
        height, width = (operator.index(side) for side in pair)
    except (TypeError, ValueError) as error:
        raise GraphError(f"resolution is {resolution!r}, expected a whole number, or (height, width)") from error
    return height, width


@dataclass
class _Step:
    """Where a row stands: its index, scaled width, and stride and dilation after `output_stride`."""

    index: int
    depth: int
    stride: int = 1
    rate: int = 1


class _Layout:
    """Adds rows to a graph, keeping count of TF-slim's scopes."""

    def __init__(self, builder: GraphBuilder, spec: Spec, explicit: bool, global_pool: bool) -> None:
        self.builder = builder
        self.spec = spec
        self.explicit = explicit
        self.global_pool = global_pool
        self.scopes: dict[str, int] = {}
        self.finals: set[str] = set()
        self.found = False

    def scope(self, name: str) -> str:
        """TF's default scope names: Conv, Conv_1, ...; each use of a name gets the next number."""
        count = self.scopes.get(name, 0)
        self.scopes[name] = count + 1
        return f"{self.spec.scope}/{name}_{count}" if count else f"{self.spec.scope}/{name}"

    def channels(self, tensor: str) -> int:
        return self.builder.tensors[tensor].shape[3]

    def padding(self, tensor: str, k: int, stride: int, rate: int) -> Padding:
        if self.explicit:
            total = (k - 1) * rate
            return (total // 2, total - total // 2), (total // 2, total - total // 2)
        height, width = self.builder.tensors[tensor].shape[1:3]
        return same_padding(height, k, stride, rate), same_padding(width, k, stride, rate)

    def conv(
        self, x: str, out: str, scope: str, depth: int, act: str, *,
        k: int = 1, stride: int = 1, rate: int = 1, bn: bool = True, pad: bool = True,
    ) -> str:  # fmt: skip
        """A convolution with its weights; `depth=0` makes it depthwise."""
        c = self.channels(x)
        leaf, shape = ("weights", (k, k, c, depth)) if depth else ("depthwise_weights", (k, k, c))
        weights = self.builder.constant(f"{scope}/{leaf}", shape)
        bias = self.builder.constant(f"{scope}/biases", (shape[-1],))
        return self.builder.node(
            "conv2d" if depth else "depthwise_conv2d", [x, weights, bias], out, scope=scope, batch_norm=bn,
            stride=(stride, stride), dilation=(rate, rate), activation=act,
            padding=self.padding(x, k, stride, rate) if pad else ((0, 0), (0, 0)),
        )  # fmt: skip

    def endpoint(self, name: str, tensor: str, final: str | None, can_end: bool = True) -> None:
        self.builder.endpoints[name] = tensor
        if can_end:
            self.finals.add(name)
            self.found = self.found or name == final

    def row(self, x: str, row: Row, step: _Step, final: str | None) -> str:
        """Add one row of the table; returns the tensor that it ends with."""
        if isinstance(row, Separable) or self.spec.family == "v1":
            return self.v1_row(x, row, step, final)
        layer = f"layer_{step.index + 1}"
        if isinstance(row, Conv):
            rate = step.rate if row.k > 1 else 1
            y = self.conv(x, layer, self.scope("Conv"), step.depth, row.act or self.spec.act,
                          k=row.k, stride=step.stride, rate=rate, bn=row.bn)  # fmt: skip
        elif isinstance(row, ReduceTo1x1):
            size = self.builder.tensors[x].shape[1:3]
            kernel = (
                size
                if size[0] == size[1] or self.global_pool
                else (min(size[0], row.default), min(size[1], row.default))
            )
            y = self.builder.node("average_pool", [x], layer, kernel=kernel, stride=(1, 1), padding=((0, 0), (0, 0)))
        elif isinstance(row, Fused):
            y = self.fused(x, row, step, layer)
        elif isinstance(row, Universal):
            y = self.universal(x, row, step, layer)
        else:
            y = self.invert(x, row, step, layer)
        self.endpoint(layer, y, final)
        return y

    def v1_row(self, x: str, row: Row, step: _Step, final: str | None) -> str:
        base, act = f"Conv2d_{step.index}", self.spec.act
        if isinstance(row, Conv):
            # TF-slim's V1 pads and strides its first convolution as declared, whatever the output stride.
            y = self.conv(x, base, f"{self.spec.scope}/{base}", step.depth, act, k=row.k, stride=row.s)
            self.endpoint(base, y, final)
            return y
        if not isinstance(row, Separable):
            raise TypeError(f"V1 has no rows of type {type(row).__name__}")
        name = f"{base}_depthwise"
        y = self.conv(x, name, f"{self.spec.scope}/{name}", 0, act, k=row.k, stride=step.stride, rate=step.rate)
        self.endpoint(name, y, final)
        if self.found:
            return y
        name = f"{base}_pointwise"
        y = self.conv(y, name, f"{self.spec.scope}/{name}", step.depth, act)
        self.endpoint(name, y, final)
        return y

    def invert(self, x: str, row: Invert, step: _Step, layer: str) -> str:
        """Expand, depthwise, project. x and y name tensors of the graph; each `self.conv` adds the node that makes y.

        `scope` is the variables' name in a checkpoint; an endpoint is a name under which a tensor can be asked for.
        """
        scope, act = self.scope("expanded_conv"), row.act or self.spec.act
        inner = make_divisible(self.channels(x) * row.expand, row.expand_divisible_by)
        y = x
        if inner > self.channels(x):
            y = self.conv(x, f"{layer}/expansion_output", f"{scope}/expand", inner, act)
            self.endpoint(f"{layer}/expansion_output", y, None, can_end=False)
        y = self.conv(y, f"{layer}/depthwise_output", f"{scope}/depthwise", 0, act,
                      k=row.k, stride=step.stride, rate=step.rate)  # fmt: skip
        self.endpoint(f"{layer}/depthwise_output", y, None, can_end=False)
        if row.se:
            y = self.squeeze_excite(y, f"{layer}/squeeze_excite", f"{scope}/squeeze_excite", act)
        return self.project(x, y, row, step, layer, scope)

    def fused(self, x: str, row: Fused, step: _Step, layer: str) -> str:
        scope = self.scope("expanded_conv")
        inner = make_divisible(self.channels(x) * row.expand)
        y = x
        if inner > self.channels(x):
            # TF-slim binds the declared stride to this convolution, so it stays whatever the output stride.
            y = self.conv(
                x, f"{layer}/expansion_output", f"{scope}/expand", inner, self.spec.act, k=row.k, stride=row.s
            )
            self.endpoint(f"{layer}/expansion_output", y, None, can_end=False)
        return self.project(x, y, row, step, layer, scope)

    def universal(self, x: str, row: Universal, step: _Step, layer: str) -> str:
        """The stride goes to the last depthwise convolution before the projection."""
        scope, y = self.scope("universal"), x
        inner = make_divisible(self.channels(x) * row.expand)
        if row.start:
            y = self.conv(y, f"{layer}/start_depthwise_output", f"{scope}/start_depthwise", 0, "none", k=row.start,
                          stride=1 if row.mid else step.stride, rate=step.rate)  # fmt: skip
            self.endpoint(f"{layer}/start_depthwise_output", y, None, can_end=False)
        y = self.conv(y, f"{layer}/expansion_output", f"{scope}/expand", inner, self.spec.act)
        self.endpoint(f"{layer}/expansion_output", y, None, can_end=False)
        if row.mid:
            y = self.conv(y, f"{layer}/depthwise_output", f"{scope}/depthwise", 0, self.spec.act, k=row.mid,
                          stride=step.stride, rate=step.rate)  # fmt: skip
            self.endpoint(f"{layer}/depthwise_output", y, None, can_end=False)
        return self.project(x, y, row, step, layer, scope)

    def project(self, x: str, y: str, row: Invert | Fused | Universal, step: _Step, layer: str, scope: str) -> str:
        """The last node of a block, y to `step.depth` channels; its input x is added where the shapes are equal."""
        residual = row.residual and step.stride == 1 and self.channels(x) == step.depth
        y = self.conv(y, f"{layer}/{'projection_' if residual else ''}output", f"{scope}/project", step.depth, "none")
        if residual:
            y = self.builder.node("add", [y, x], f"{layer}/output")
        self.endpoint(f"{layer}/output", y, None, can_end=False)
        return y

    def squeeze_excite(self, x: str, name: str, scope: str, act: str) -> str:
        """x * gate(conv(act(conv(mean(x))))); both convolutions have a bias. `act` is the row's own."""
        c, act = self.channels(x), self.spec.se_act or act
        y = self.builder.node("mean", [x], f"{name}/mean", keepdims=True)
        y = self.conv(y, f"{name}/squeeze", f"{scope}/Conv", self.spec.se_width(c), act, bn=False, pad=False)
        y = self.conv(y, f"{name}/excite", f"{scope}/Conv_1", c, self.spec.se_gate, bn=False, pad=False)
        return self.builder.node("mul", [x, y], f"{name}/output")

    def head(self, x: str, num_classes: int) -> str:
        """Average pool, 1x1 convolution to the classes, softmax; with 0 classes the pool alone."""
        size = self.builder.tensors[x].shape[1:3]
        pool, kernel, stride = "global_pool", size, (1, 1)
        if self.spec.family == "v1" and not self.global_pool:
            pool, kernel, stride = "AvgPool_1a", (min(size[0], 7), min(size[1], 7)), (2, 2)
        y = self.builder.node("average_pool", [x], pool, kernel=kernel, stride=stride, padding=((0, 0), (0, 0)))
        self.builder.endpoints[pool] = y
        if not num_classes:
            return y
        left = self.builder.tensors[y].shape[1:3]
        if left != (1, 1):
            raise GraphError(
                f"the map before the pool is {size}, so V1's 7x7 pool leaves {left} where the classifier needs 1x1: "
                "pass global_pool=True, or an image of at most 288 pixels"
            )
        y = self.conv(y, "Logits/Conv2d_1c_1x1", f"{self.spec.scope}/Logits/Conv2d_1c_1x1", num_classes, "none",
                      bn=False, pad=False)  # fmt: skip
        logits = self.builder.node("reshape", [y], "Logits", shape=(1, num_classes))
        predictions = self.builder.node("softmax", [logits], "Predictions", beta=1.0)
        self.builder.endpoints.update(Logits=logits, Predictions=predictions)
        return predictions
