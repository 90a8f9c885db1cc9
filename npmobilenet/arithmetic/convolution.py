"""Convolution, depthwise convolution and fully connected: from accumulators to the output's scale.

real output = s_in * s_w * acc, acc = bias + sum (x - z_in) * (w - z_w), so that
output = z_out + (s_in * s_w / s_out) * acc; the factor in brackets is what the rules below round, each in its own way.
"""

from __future__ import annotations

import numpy as np

from npmobilenet.arithmetic.dialects import Dialect, Rule
from npmobilenet.arithmetic.fixedpoint import (
    INT32_MAX,
    INT32_MIN,
    Requantization,
    Rounding,
    everywhere,
    in_vectors,
    rounding,
)
from npmobilenet.arithmetic.ranges import (
    LEAST_SCALE,
    LIMITS,
    activation_range,
    multiplier_of,
    scale_of,
    xnnpack_range,
    zero_point_of,
)
from npmobilenet.errors import PlanError
from npmobilenet.modeldata import Array
from npmobilenet.ops import Node, Quantization, Tensor

XNNPACK_LIMIT = 256.0  # XNNPACK makes no operator whose factor isn't below this; LiteRT then gives the model up
XNNPACK = ("float32", "rndnu", "rndnu16")  # its rules; their factors are float32's
NEON_LANES = 8  # channels that TFLite's optimized int8 depthwise convolution requantizes at a time


def weight_zero_point(node: Node, weights: Tensor) -> int:
    """The weights' zero point; one for all channels, as every runtime demands. Raises `PlanError`.

    TFLite takes it as 0 without looking in int8 convolutions and where each channel has a scale, so that another would
    give what the file doesn't mean.
    """
    q = weights.quantization
    points = set(q.zero_point) if q else set()
    free = weights.dtype != "int8" or (node.op == "fully_connected" and q is not None and len(q.scale) == 1)
    if len(points) != 1 or (points != {0} and not free):
        raise PlanError(
            f"node '{node.name}' ({node.op}): the zero points of its {weights.dtype} weights are {sorted(points)}, "
            f"expected {'one for all channels' if free else '0 (symmetric weights)'}"
        )
    return points.pop()


def forms(node: Node, x: Tensor, weights: Tensor, result: Tensor) -> tuple[str, ...]:
    """Which kernels of their own some runtime has for a layer because of its shape. A cut-down node keeps its model's
    (attribute `forms`).

    - "vector": one pixel, so that a matrix multiplies a vector: at least 4 outputs, of 8 inputs or more.
      LiteRT, tflite/kernels/cpu_backend_gemm_custom_gemv.h, CustomGemv.
    - "3x3": depthwise, strides 1 or 2, channels in whole eights, padding 0 or 1 alike above and left and enough below
      and right, for uint8 no shift to the left. LiteRT, tflite/kernels/internal/optimized/
      depthwiseconv_3x3_filter_common.h, Fast3x3FilterKernelSupported, commit f67457790.
    - "direct": a filter of at most 25 positions for each channel by itself. XNNPACK, src/operators/convolution-nhwc.c,
      select_microkernel_type, and src/configs/dwconv-config.c, commit 75db3c093b.
    """
    if "forms" in node.attrs:
        known: tuple[str, ...] = node.attrs["forms"]
        return known
    found, channels = [], weights.shape[-1]
    if node.op != "depthwise_conv2d":
        inputs = weights.size // channels
        if result.size == channels >= 4 and inputs >= 8 and not node.attrs.get("grouped"):
            found.append("vector")
        alone = node.op == "conv2d" and weights.shape[2:] == (1, 1)
    else:
        alone = node.attrs.get("multiplier", 1) == 1
        if alone and _has_3x3_kernel(node, x, weights, result):
            found.append("3x3")
    if alone and weights.shape[0] * weights.shape[1] <= 25:
        found.append("direct")
    return tuple(found)


def _has_3x3_kernel(node: Node, x: Tensor, weights: Tensor, result: Tensor) -> bool:
    stride, ((top, _), (left, _)) = node.attrs["stride"], node.attrs["padding"]
    if weights.shape[:2] != (3, 3) or weights.shape[-1] % 8 or tuple(node.attrs.get("dilation", (1, 1))) != (1, 1):
        return False
    if stride[0] != stride[1] or stride[0] not in (1, 2) or top != left or top not in (0, 1):
        return False
    if any((result.shape[i] - 1) * stride[0] - top + 3 > x.shape[i] + top for i in (1, 2)):
        return False
    if top and 1 in x.shape[1:3] and x.shape[1] != x.shape[2]:
        return False
    return x.dtype == "int8" or bool((real_factors(node, x, weights, result, "double") < 1 - 2.0**-33).all())


def rule_of(
    node: Node, x: Tensor, weights: Tensor, bias: Tensor | None, dialect: Dialect, result: Tensor
) -> Rule:  # fmt: skip
    """The node's rule, whose name is one of fixedpoint.REQUANTIZATIONS.

    The dialect's row, but for nodes that LiteRT's XNNPACK delegate leaves to the optimized kernels: those of open shape
    (`Node.open_shapes`), convolutions whose bias has no scale, which is what a file without a bias leads to (a fully
    connected layer may lack it), and int8 fully connected layers whose weights have a zero point.

    Source: LiteRT, tflite/delegates/xnnpack/xnnpack_delegate.cc, VisitConv2DNode, VisitDepthwiseConv2DNode,
    VisitFullyConnectedNode, CheckTensorFloat32OrFloat16OrQCInt32Type, commit f67457790.
    """
    op = node.op
    if f"{op}:undelegated" in dialect.rules:
        plain_bias = op != "fully_connected" and bias is not None and bias.quantization is None
        moved = x.dtype == "int8" and weights.quantization is not None and any(weights.quantization.zero_point)
        op = f"{op}:undelegated" if plain_bias or moved or node.open_shapes else op
    if node.attrs.get("grouped") and f"{op}:grouped" in dialect.rules:
        op = f"{op}:grouped"
    for form in forms(node, x, weights, result):
        if {f"{op}:{form}", f"{op}:{form}:{x.dtype}"} & dialect.rules.keys():
            op = f"{op}:{form}"
            break
    return dialect.row(op, x.dtype)


def real_factors(node: Node, x: Tensor, weights: Tensor, result: Tensor, rule: str) -> Array:
    """s_in * s_w / s_out for each output channel, float64, rounded on the way as the rule's runtime rounds it.

    Scales are float32. XNNPACK's rules multiply and divide in float32. TFLite computes in float64, but where one scale
    serves the whole layer of a uint8 convolution, or of a fully connected layer, it multiplies s_in * s_w in
    float32 first ("float64", the reference fully connected kernel, doesn't).

    Source: LiteRT, tflite/kernels/kernel_util.cc, PopulateConvolutionQuantizationParams and
    GetQuantizedConvolutionMultipler, commit f67457790; XNNPACK, src/operators/convolution-nhwc.c, commit 75db3c093b.
    """
    assert weights.quantization is not None
    s_in, s_out = scale_of(x), scale_of(result)
    with np.errstate(all="ignore"):  # what isn't finite is refused: requantization
        s_w = np.array(weights.quantization.scale, np.float32)
        if rule in XNNPACK:
            factors = (s_in * s_w / s_out).astype(np.float64)
        elif rule != "float64" and len(s_w) == 1 and (x.dtype == "uint8" or node.op == "fully_connected"):
            factors = (s_in * s_w).astype(np.float64) / np.float64(s_out)
        else:
            factors = np.float64(s_in) * s_w.astype(np.float64) / np.float64(s_out)
    channels = weights.shape[-1]
    return np.ascontiguousarray(np.broadcast_to(factors, (channels,)))


def requantization(
    node: Node, x: Tensor, weights: Tensor, result: Tensor, dialect: Dialect, bias: Tensor | None = None
) -> Requantization:
    """The step from accumulators to the output, as the dialect takes it. Raises `PlanError` where its runtime gives up.

    Source for XNNPACK's range and limit: XNNPACK, src/subgraph/convolution-2d.c and
    src/operators/convolution-nhwc.c, commit 75db3c093b.
    """
    rule = rule_of(node, x, weights, bias, dialect, result).name
    factors = real_factors(node, x, weights, result, rule)
    if rule in XNNPACK and factors.max() >= XNNPACK_LIMIT:
        raise PlanError(
            f"node '{node.name}' ({node.op}): its output's scale {scale_of(result):.6g} asks for a factor of "
            f"{factors.max():.6g}; XNNPACK refuses 256 and more, and LiteRT the model with it: use another dialect"
        )
    assert weights.quantization is not None
    each = len(weights.quantization.scale) > 1
    fixed = [
        multiplier_of(node, float(f), [x, weights], result, c if each else None, dialect.most_shift)
        for c, f in enumerate(factors if each else factors[:1])
    ] * (1 if each else len(factors))
    if rule == "rndnu16":
        fixed = [to_15_bits(*parts) for parts in fixed]
    low, high = xnnpack_range(node, result) if rule in XNNPACK else activation_range(node, result)
    where = everywhere(rounding(rule))
    if node.op == "depthwise_conv2d" and rule == "upward":
        where = in_vectors(Rounding.UPWARD, Rounding.DOUBLE, len(factors), NEON_LANES)
    return Requantization(
        np.array([m for m, _ in fixed], np.int32),
        np.array([s for _, s in fixed], np.int32),
        factors,
        where,
        zero_point_of(result),
        low,
        high,
    )


def to_15_bits(multiplier: int, shift: int) -> tuple[int, int]:
    """The factor as RNDNU16 holds it: a multiplier of 15 bits, rounded half upward, in the upper half of the 31.

    Source: XNNPACK, src/microparams-init.c, xnn_init_qu8_conv_minmax_rndnu16_scalar_params, commit 75db3c093b.
    """
    bits = (multiplier + (1 << 15)) >> 16
    return (1 << 30, shift + 1) if bits == 1 << 15 else (bits << 16, shift)


def preactivation(full: Requantization) -> Requantization:
    """The same step without the clamp."""
    return full._replace(low=INT32_MIN, high=INT32_MAX)


def raw(channels: int) -> Requantization:
    """No step: the accumulators themselves."""
    zeros = np.zeros(channels, np.int32)
    return Requantization(zeros, zeros, np.zeros(channels), everywhere(Rounding.NONE), 0, INT32_MIN, INT32_MAX)


def accumulator_quantization(x: Tensor, weights: Tensor) -> Quantization | None:
    """What an accumulator means: scale s_in * s_w for each channel (or one for all), zero point 0.

    None where float32 doesn't hold such a product: then accumulators are integers without a real meaning.
    """
    assert weights.quantization is not None
    with np.errstate(all="ignore"):
        products = scale_of(x) * np.array(weights.quantization.scale, np.float32)
    if not ((products >= LEAST_SCALE) & (products < np.inf)).all():
        return None
    scales = tuple(products.tolist())
    return Quantization(scales, (0,) * len(scales), 3 if len(scales) > 1 and len(x.shape) == 4 else None)


def signed_sums(weights: Array, z_w: int) -> tuple[Array, Array]:
    """The sums of the positive and of the negative w - z_w of each output channel."""
    centred = weights.astype(np.int64).reshape(-1, weights.shape[-1]) - z_w
    size, total = np.abs(centred).sum(0), centred.sum(0)
    return (size + total) // 2, (total - size) // 2


def _ends(x: Tensor, z_in: int) -> tuple[int, int]:
    """The least and the greatest x - z_in, 0 among them: that is what lies outside the image."""
    low, high = LIMITS[x.dtype]
    return min(low - z_in, 0), max(high - z_in, 0)


def accumulator_range(x: Tensor, sums: tuple[Array, Array], bias: Array, z_in: int) -> tuple[Array, Array]:
    """The least and the greatest accumulator of each output channel: x - z_in at an end for each sign of w - z_w.

    sums: signed_sums. In dead channels it may lie beyond int32, where it doesn't matter.
    """
    (low, high), (positive, negative), start = _ends(x, z_in), sums, bias.astype(np.int64)
    return start + positive * low + negative * high, start + positive * high + negative * low


def dead_channels(requant: Requantization, bound: Array) -> Array:
    """Which channels give the zero point whatever they accumulate, be it more than int32 holds.

    Those whose multiplier is 0, or, where the rule takes the real factor, for which it leaves less than a half of the
    greatest accumulator (`bound`) and of all that an int32 can hold after overflowing. Teachable Machine's converter
    makes such channels of filters that training has emptied: bias +-2147483647, scale 1e-20.
    """
    if requant.rule.inside in (Rounding.FLOAT32, Rounding.FLOAT64):
        most: Array = np.maximum(bound, -INT32_MIN) * requant.scale[: len(bound)]
        return most < 0.5
    dead: Array = requant.multiplier[: len(bound)] == 0
    return dead


def accumulator_bound(x: Tensor, sums: tuple[Array, Array], bias: Array, z_in: int) -> Array:
    """|bias| + max|x - z_in| * sum |w - z_w| of each output channel, which no sum of some of its terms exceeds."""
    return np.asarray(np.abs(bias.astype(np.int64)) + max(map(abs, _ends(x, z_in))) * (sums[0] - sums[1]))


def check_accumulators(node: Node, bound: Array, dead: Array) -> None:
    """Refuse a layer whose accumulators could leave int32: then runtimes that add in another order would part.

    bound: accumulator_bound. In MobileNets it is some 2^26. dead: channels of which it doesn't matter (dead_channels).
    """
    bound = np.where(dead, 0, bound)
    if bound.max() > INT32_MAX:
        raise PlanError(
            f"node '{node.name}' ({node.op}): channel {int(bound.argmax())} may accumulate up to {int(bound.max()):,}, "
            f"more than int32 holds ({INT32_MAX:,}): its weights or bias are out of proportion"
        )
